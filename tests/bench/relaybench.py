# SPDX-License-Identifier: BSD-2-Clause
"""bench.py's group relay: KubeLB's relay beside nginx's and HAProxy's, without TLS and without
KubeLB attached, so that little but the three is measured.

Clients, proxies and servers share one CPU: the rate is the inverse of the work. CPU time is the
proxy's own, by the kernel's nanoseconds (schedstat)."""

import contextlib
import glob
import json
import os
import resource
import shutil
import subprocess

from stage import FRONTEND, SERVERS
from system import WorldError, wait_until

PORT = 8443  # of the servers
PROXIES = {"relay": 6450, "nginx": 6451, "haproxy": 6452}  # on the node's loopback
N_SERVERS = 3

# As guides for control planes have them: least_conn, one worker for each CPU, of which there is
# one here.
NGINX = """\
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; user root; worker_processes 1; pid nginx.pid; error_log error.log warn;
events {{ worker_connections {connections}; }}
stream {{
	upstream apiservers {{ least_conn; {servers} }}
	server {{ listen 127.0.0.1:{port} backlog=4096; proxy_pass apiservers; proxy_timeout 10m;
		proxy_connect_timeout 1s; }}
}}
"""
HAPROXY = """\
global
	nbthread 1
	maxconn {connections}
defaults
	mode tcp
	balance leastconn
	timeout connect 5s
	timeout client 1h
	timeout server 1h
listen apiservers
	bind 127.0.0.1:{port} backlog 4096
	{servers}
"""

# What is driven through them: name -> arguments of pingpong.
LOADS = {"one kept connection": ["-c", 1], "50 kept connections": ["-c", 50],
         "a new connection for each, 10 at a time": ["-c", 10, "-f"]}
BULK = ["-c", 1, "-b", 8 << 20]


class Proxy:
    """A running proxy: where it listens, and the process that does the work."""

    def __init__(self, port, pid):
        self.port, self.pid = port, pid

    def cpu_ns(self):
        return sum(int(open(path, encoding="ascii").read().split()[0])
                   for path in glob.glob(f"/proc/{self.pid}/task/*/schedstat"))

    def memory(self):
        """Bytes that are this process's own, its heap above all."""
        with open(f"/proc/{self.pid}/smaps_rollup", encoding="ascii") as f:
            for line in f:
                if line.startswith("Private_Dirty:"):
                    return int(line.split()[1]) * 1024
        raise WorldError("no Private_Dirty in smaps_rollup")


def connections_possible():
    """10,000, or as many as the limit of open files lets a proxy have. The relay keeps an eighth
    and 256 for others (user/relay/limits.c)."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(10000, (hard - 256) * 8 // 17)


def worker_of(process):
    """nginx's child does the work."""
    def child():
        with open(f"/proc/{process.pid}/task/{process.pid}/children", encoding="ascii") as f:
            return f.read().split()
    return int(wait_until(child, "nginx's worker")[0])


def start_relay(stage, servers):
    process = stage.start([stage.world.program("test/relaytest"), "-t", "1",
                           "-n", str(connections_possible()),
                           f"{FRONTEND}:{PROXIES['relay']}", *servers],
                          stage.world.node, stage.cpus.client, stdout=subprocess.PIPE, text=True)
    if process.stdout.readline() != "ready\n":
        raise WorldError("relaytest has not started")
    return Proxy(PROXIES["relay"], process.pid)


def start_config(stage, name, argv, text):
    path = stage.directory(f"relay-{name}")
    with open(os.path.join(path, "conf"), "w", encoding="utf-8") as f:
        f.write(text)
    process = stage.start([a.format(dir=path) for a in argv], stage.world.node,
                          stage.cpus.client, stdout=subprocess.DEVNULL)

    def up():
        if process.poll() is not None:
            raise WorldError(f"{name} has ended with {process.returncode}")
        return drive(stage, PROXIES[name], ["-s", 0.01], check=False)

    wait_until(up, f"{name} to listen", interval=0.05)
    return process


def start_all(stage):
    servers = [f"{address}:{PORT}" for address in SERVERS[:N_SERVERS]]
    process = stage.start([stage.world.program("test/pingpong"), "serve", "0.0.0.0", str(PORT)],
                          stage.servers, stage.cpus.client, stdout=subprocess.PIPE, text=True)
    if process.stdout.readline() != "ready\n":
        raise WorldError("pingpong serve has not started")
    proxies = {"relay": start_relay(stage, servers)}
    if os.path.exists("/usr/lib/nginx/modules/ngx_stream_module.so"):
        text = NGINX.format(port=PROXIES["nginx"], connections=2 * connections_possible(),
                            servers=" ".join(f"server {s};" for s in servers))
        nginx = start_config(stage, "nginx", ["nginx", "-p", "{dir}/", "-e", "error.log", "-c",
                                              "{dir}/conf"], text)
        stage.cpus.pin(nginx.pid, stage.cpus.client)
        proxies["nginx"] = Proxy(PROXIES["nginx"], worker_of(nginx))
    if shutil.which("haproxy"):
        text = HAPROXY.format(port=PROXIES["haproxy"], connections=connections_possible() - 100,
                              servers="\n\t".join(f"server s{i} {s}"
                                                  for i, s in enumerate(servers)))
        haproxy = start_config(stage, "haproxy", ["haproxy", "-db", "-f", "{dir}/conf"], text)
        proxies["haproxy"] = Proxy(PROXIES["haproxy"], haproxy.pid)
    return proxies


def pingpong(stage, *args):
    return stage.cpus.as_client([stage.world.program("test/pingpong"), *map(str, args)])


def drive(stage, port, args, check=True, address=FRONTEND):
    done = stage.world.exec(pingpong(stage, "drive", *args, address, port), timeout=60)
    if done.returncode != 0:
        if check:
            raise WorldError(f"pingpong {args}: {done.stderr.strip()}")
        return None
    return json.loads(done.stdout)


def measure_one(stage, proxy, args):
    """What pingpong has measured, and the proxy's CPU time for it."""
    before = proxy.cpu_ns()
    run = drive(stage, proxy.port, args)
    used = proxy.cpu_ns() - before
    run["cpu_us"] = used / 1e3 / run["requests"]
    run["cpu_s_per_gb"] = used / run["bytes"]
    # At the pace of the median request, which others' load leaves alone.
    run["by_median"] = args[args.index("-c") + 1] * 1e6 / run["p50_us"]
    run["mb_by_median"] = run["bytes"] / run["requests"] / run["p50_us"]
    return run


def rounds_of(stage, proxies, args, n):
    """name -> runs; each round measures every proxy once, each time another one first."""
    names = list(proxies)
    runs = {name: [] for name in names}
    for i in range(n):
        for name in names[i % len(names):] + names[:i % len(names)]:
            runs[name].append(measure_one(stage, proxies[name],
                                          [*args, "-s", stage.effort["seconds"]]))
    return runs


def report_runs(report, what, runs, rate, cpu, digits):
    for name, values in runs.items():
        report.row(f"{what}, {name}", [v[rate[0]] for v in values], rate[1], 0)
    for name in runs:
        if name != "relay":
            ratios = [a[rate[0]] / b[rate[0]] for a, b in zip(runs["relay"], runs[name])]
            report.row(f"{what}, relay / {name}", ratios, "ratio", 3, ">= 1",
                       lambda m: m >= 1)
    for name, values in runs.items():
        report.row(f"{what}, CPU of {name}", [v[cpu[0]] for v in values], cpu[1], digits)


def socket_bytes():
    """What the kernel has for one IPv4 socket in an epoll set: its objects' sizes. What grows is
    no measure: objects of connections that are gone are kept, and taken again."""
    objects = {"TCP", "sock_inode_cache", "dentry", "filp", "eventpoll_epi"}
    with open("/proc/slabinfo", encoding="ascii") as f:
        sizes = {words[0]: int(words[3]) for words in map(str.split, f) if words[0] in objects}
    return sum(sizes.values()) if set(sizes) == objects else None


@contextlib.contextmanager
def held(stage, proxy, n):
    process = stage.world.spawn(pingpong(stage, "hold", "-c", n, FRONTEND, proxy.port),
                                ns=stage.world.node, stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, text=True)
    if process.stdout.readline() != "held\n":
        raise WorldError(f"{n} connections could not be made")
    yield
    process.stdin.close()
    if process.stdout.readline() != "all answered\n":
        raise WorldError(f"not all of {n} connections have outlasted it")
    process.wait()


def measure_held(stage, proxies, report):
    n = connections_possible() - 100
    for name, proxy in proxies.items():
        before = proxy.memory()
        with held(stage, proxy, n):
            report.row(f"{n} connections at rest, memory of {name}",
                       [(proxy.memory() - before) / n / 1024], "KiB each", 2, "<= 40",
                       lambda m: m <= 40)
    if socket_bytes():
        report.row("the kernel's objects for the two sockets of each",
                   [2 * socket_bytes() / 1024], "KiB each", 2)


def measure_relay(stage, report):
    effort = stage.effort
    report.start("relay", "The relay beside nginx and HAProxy, one worker each, 3 backends",
                 f"{effort['relay_rounds']} interleaved rounds of {effort['seconds']:g} s, "
                 "answers of 1000 bytes; ratios are by round",
                 "clients, servers and proxies share one CPU: the rate is the inverse of the "
                 "work; CPU is the proxy's own",
                 "rates by the median time of a request, which others' load leaves alone")
    proxies = start_all(stage)
    for what, args in LOADS.items():
        report_runs(report, what, rounds_of(stage, proxies, args, effort["relay_rounds"]),
                    ("by_median", "requests/s"), ("cpu_us", "us/request"), 2)
    report_runs(report, "answers of 8 MiB", rounds_of(stage, proxies, BULK,
                                                      effort["relay_rounds"]),
                ("mb_by_median", "MB/s"), ("cpu_s_per_gb", "s/GB"), 3)
    measure_held(stage, proxies, report)
