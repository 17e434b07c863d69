# SPDX-License-Identifier: BSD-2-Clause
"""What the report measures while all is well: connects, requests, bulk, CPU time, unrelated sockets.

As on a node, clients and balancers share a CPU; the apiservers have the other one, as they are other
machines. Each round measures every target once, each time another one first; ratios are by round."""

import contextlib
import json
import os
import re
import statistics
import subprocess
import time

import peers
from agentbench import USUAL
from runs import no_bpf_statistics
from stage import BULK_BYTES, SERVERS, TLS_PORT, Stage
from system import WorldError, cgroup2_root, move_to, wait_until

BACKENDS = SERVERS[:3]
ENDPOINTS = [f"{a}:{TLS_PORT}" for a in BACKENDS]
PATHS = {"HTTP/1.1": ["--h1"], "HTTP/2": []}
CONNECTIONS = (1, 8, 64)
PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}

# Both protocols; /version says who serves it; /sink has read all that was sent when it answers.
NGINX_HTTP = """\
daemon off; user root; worker_processes 1; worker_rlimit_nofile {files};
pid nginx.pid; error_log error.log crit;
events {{ worker_connections {files}; }}
http {{
	access_log off;
	client_body_temp_path tmp-body; proxy_temp_path tmp-proxy; fastcgi_temp_path tmp-fastcgi;
	uwsgi_temp_path tmp-uwsgi; scgi_temp_path tmp-scgi;
	keepalive_timeout 1d; keepalive_requests 100000000; client_header_timeout 1d;
	server {{
		listen 0.0.0.0:{port} ssl http2 backlog=4096;
		ssl_certificate {certificate}; ssl_certificate_key {key};
		location = /readyz {{ return 200 ok; }}
		location = /livez {{ return 200 ok; }}
		location = /healthz {{ return 200 ok; }}
		location = /version {{ return 200 '{{"major":"1","minor":"34","backend":"$server_addr"}}'; }}
		location = /bulk {{ alias {dir}/bulk; }}
		location = /sink {{
			client_max_body_size 0; client_body_buffer_size {bulk};
			proxy_pass_request_body off; proxy_set_header Content-Length "";
			proxy_pass http://unix:{dir}/sink.sock;
		}}
	}}
	server {{ listen unix:{dir}/sink.sock; location / {{ return 200 ok; }} }}
}}
"""


class ReportStage(Stage):
    """The stage of bench.py with servers of both protocols, and all that balances at once.
    group: the cgroup that everything is in, but for KubeLB's clients."""

    def __init__(self, world, cpus, effort, group):
        super().__init__(world, cpus, effort)
        self.accounts = (group, self.cgroup)

    def start_nginx(self):
        bulk = os.path.join(self.world.dir, "bulk")
        with open(bulk, "wb") as f:
            f.write(os.urandom(1 << 20) * (BULK_BYTES >> 20))
        certificate = self.world.pki.certificate("good", SERVERS, "report")
        text = NGINX_HTTP.format(port=TLS_PORT, dir=self.world.dir, certificate=certificate,
                                 key=self.world.pki.key, bulk=BULK_BYTES,
                                 files=peers.hard_limit())
        self.start_config(["nginx", "-p", "{dir}/", "-e", "error.log", "-c", "{dir}/conf"],
                          "report-nginx", text, self.servers, self.cpus.server,
                          (SERVERS[0], TLS_PORT))

    def start_kubelb(self):
        """Attached to the stage's cgroup, with an agent and its usual probes."""
        self.world.configure(backends=ENDPOINTS, cgroup=self.cgroup, probe=USUAL, slowStart="0")
        agent = self.world.agent()

        def ready():
            if not agent.alive():
                raise WorldError(f"kubelb-agent has ended: {agent.log()[-500:]}")
            done = self.world.ctl("status", "-o", "json")
            return done.returncode == 0 and [b["state"] for b in json.loads(done.stdout)[
                "backends"]] == ["ready"] * len(ENDPOINTS)

        wait_until(ready, "KubeLB's backends to be ready", 30)
        return agent

    def kubelb_target(self, agent):
        return peers.Target("kubelb", self.world.node, peers.FRONTEND, peers.FRONTEND_PORT,
                            self.cgroup, agent.pid)

    def targets(self):
        """Every way to the servers, each of them proven; direct is the first."""
        world, prefix = self.world, self.cpus.as_client([])
        found = [peers.Target("direct", world.node, SERVERS[0], TLS_PORT),
                 self.kubelb_target(self.start_kubelb())]
        for start in (peers.start_nginx, peers.start_haproxy):
            found.append(start(world, ENDPOINTS, prefix).target(world))
        found.append(peers.start_nft(world, ENDPOINTS))
        for target in found:
            peers.prove(world, target, BACKENDS[:1] if target.name == "direct" else BACKENDS,
                        world.ca)
        return found

    def in_target(self, argv, target, timeout=120):
        """A command where that target's clients are; what it prints."""
        done = self.world.exec(self.cpus.as_client(argv), ns=target.ns, cgroup=target.cgroup,
                               timeout=timeout)
        if done.returncode != 0:
            raise WorldError(f"{argv[0]} to {target.name}: {(done.stderr or done.stdout).strip()}")
        return done.stdout


# --- by rounds ----------------------------------------------------------------


def rounds_of(targets, n, measure):
    """name -> what measure(target) gives in each round."""
    values = {t.name: [] for t in targets}
    for i in range(n):
        shift = i % len(targets)
        for target in targets[shift:] + targets[:shift]:
            values[target.name].append(measure(target))
    return values


def add_all(figures, what, unit, values, key):
    for name, runs in values.items():
        figures.add(what, name, unit, [run[key] for run in runs])


def add_ratios(figures, what, values, key, pairs):
    """pairs: (name, base): by round."""
    for name, base in pairs:
        figures.add(what, f"{name} / {base}", "ratio",
                    [a[key] / b[key] for a, b in zip(values[name], values[base])])


# --- CPU time -----------------------------------------------------------------


@contextlib.contextmanager
def accounted(world):
    """Whatever the block starts is in a cgroup: clients, balancers and servers, and what the kernel
    does for them on their time. KubeLB's clients are in the stage's own."""
    with open("/proc/self/cgroup", encoding="ascii") as f:
        home = next(line for line in f if line.startswith("0::"))[3:].strip()
    group = world.cgroup("all")
    move_to(group)
    try:
        yield group
    finally:
        move_to(cgroup2_root() + home)


def busy_seconds(stage):
    """CPU time of the cgroups so far, by the scheduler's own count."""
    total = 0
    for path in stage.accounts:
        with open(os.path.join(path, "cpu.stat"), encoding="ascii") as f:
            total += int(next(line for line in f if line.startswith("usage_usec")).split()[1])
    return total / 1e6


# --- h2load -------------------------------------------------------------------


def h2load_argv(target, path, args):
    return ["h2load", "-t", 1, "-m", 1, *args, f"https://{target.address}:{target.port}{path}"]


def judge(target, text):
    """(requests, seconds) of a run in which every request was answered with 200."""
    took = re.search(r"finished in ([0-9.]+)(us|ms|s),", text)
    done = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text)
    ok = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
    if not (took and done and ok):
        raise WorldError(f"h2load to {target.name} prints what is not understood: {text[-300:]}")
    if any(map(int, done.groups()[1:] + ok.groups()[1:])) or not int(done.group(1)):
        raise WorldError(f"{target.name} serves wrong: {done.group(0)}; {ok.group(0)}")
    return int(done.group(1)), float(took.group(1)) * {"us": 1e-6, "ms": 1e-3, "s": 1}[
        took.group(2)]


# Until all connections are made: only what comes after it counts.
SETTLE = 0.35


def one_requests_run(stage, target, protocol, connections):
    """Rate, percentiles and CPU time of one run. Every request is logged by h2load, for every
    target alike: that is a part of the client's work."""
    log, seconds = os.path.join(stage.world.dir, "h2load.log"), stage.effort["seconds"]
    peers.write(log, "")
    duration = f"{int(1000 * (seconds + SETTLE + 0.1))}ms"
    process = stage.world.spawn(stage.cpus.as_client(h2load_argv(
        target, "/version", [*PATHS[protocol], "-c", connections, "-D", duration,
                             f"--log-file={log}"])), ns=target.ns, cgroup=target.cgroup,
        stderr=subprocess.STDOUT)
    time.sleep(SETTLE)
    busy, begin = busy_seconds(stage), time.time()
    time.sleep(seconds)
    busy, end = busy_seconds(stage) - busy, time.time()
    text, _ = process.communicate(timeout=60)
    judge(target, text)
    return {**of_log(target, log, connections, begin, end), "busy": busy}


def of_log(target, path, connections, begin, end):
    """What h2load's log has of the requests that ended between these times."""
    with open(path, encoding="ascii") as f:
        rows = [tuple(map(int, line.split("\t")[:3])) for line in f]
    if any(status != 200 for _start, status, _took in rows):
        raise WorldError(f"{target.name} serves wrong: h2load's log has another status than 200")
    times = sorted(took for start, _status, took in rows if begin <= (start + took) / 1e6 < end)
    if len(times) < 10 * connections:
        raise WorldError(f"{target.name}: {len(times)} requests on {connections} connections are "
                         "too few for percentiles")
    run = {name: times[int(p * (len(times) - 1))] for name, p in PERCENTILES.items()}
    return {**run, "n": len(times), "rate": len(times) / (end - begin)}


def with_cpu(run):
    return {**run, "cpu": 1e6 * run["busy"] / run["n"]}


def measure_requests(stage, targets, figures):
    for protocol in PATHS:
        for connections in CONNECTIONS:
            what = f"{protocol}, {connections} kept connection{'s' * (connections > 1)}"
            values = rounds_of(targets, stage.effort["rounds"], lambda target: with_cpu(
                one_requests_run(stage, target, protocol, connections)))
            add_all(figures, f"{what}: requests a second", "1/s", values, "rate")
            for p in PERCENTILES:
                add_all(figures, f"{what}: {p}", "us", values, p)
            add_all(figures, f"{what}: CPU per request", "us", values, "cpu")
            add_ratios(figures, f"{what}: requests a second", values, "rate",
                       [("kubelb", t.name) for t in targets if t.name != "kubelb"])
            figures.say(f"{what}: " + ", ".join(
                f"{n} {statistics.median(r['rate'] for r in runs):.0f}/s"
                for n, runs in values.items()))


# --- bulk ---------------------------------------------------------------------


def one_bulk_run(stage, target, way, count):
    args = ["--h1", "-c", 1, "-n", count]
    if way == "to the apiserver":
        args += ["-d", os.path.join(stage.world.dir, "bulk")]
    path = {"from the apiserver": "/bulk", "to the apiserver": "/sink"}[way]
    busy = busy_seconds(stage)
    n, seconds = judge(target, stage.in_target(h2load_argv(target, path, args), target))
    busy = busy_seconds(stage) - busy
    size = n * BULK_BYTES
    return {"rate": size / seconds / 1e6, "cpu": busy / (size / 1e9)}


def measure_bulk(stage, targets, figures):
    for way in ("from the apiserver", "to the apiserver"):
        values = rounds_of(targets, stage.effort["rounds"], lambda target: one_bulk_run(
            stage, target, way, stage.effort["bulk"]))
        add_all(figures, f"bulk {way}", "MB/s", values, "rate")
        add_all(figures, f"bulk {way}: CPU per GB", "s", values, "cpu")
        add_ratios(figures, f"bulk {way}", values, "rate",
                   [("kubelb", t.name) for t in targets if t.name != "kubelb"])
        figures.say(f"bulk {way}: " + ", ".join(
            f"{n} {statistics.median(r['rate'] for r in runs):.0f} MB/s"
            for n, runs in values.items()))


# --- first bytes, unrelated ---------------------------------------------------


def bench_client(stage, target, *args):
    return json.loads(stage.in_target([stage.client, *args], target))


def measure_first_bytes(stage, targets, figures):
    """By the median of each run, which others' load leaves alone."""
    values = rounds_of(targets, stage.effort["rounds"], lambda target: bench_client(
        stage, target, "first-bytes", "-n", stage.effort["first_bytes"], target.address,
        target.port))
    what = "connect + TLS + first byte"
    for name, runs in values.items():
        figures.add(what, name, "us", [run["p50_ns"] / 1e3 for run in runs])
        figures.add(f"{what}: p99", name, "us", [run["p99_ns"] / 1e3 for run in runs])
    add_ratios(figures, what, values, "p50_ns",
               [("kubelb", t.name) for t in targets if t.name != "kubelb"])
    figures.say(f"{what}: " + ", ".join(
        f"{n} {statistics.median(r['p50_ns'] for r in runs) / 1e3:.0f} us"
        for n, runs in values.items()))


def measure_unrelated(stage, targets, figures):
    """Connections on the loopback that go to no frontend: in KubeLB's cgroup, in the network with
    the DNAT, and where there is neither; a proxy touches none. The last has no programs to run,
    but the kernel's switch for them is on there as well."""
    by_name = {t.name: t for t in targets}
    places = [by_name["direct"]._replace(name="nothing"), by_name["kubelb"], by_name["nft"]]
    values = rounds_of(places, stage.effort["unrelated_rounds"], lambda target: bench_client(
        stage, target, "unrelated", "-n", stage.effort["unrelated"]))
    what = "unrelated connect + accept + close"
    add_all(figures, what, "ns", values, "p10_ns")
    add_ratios(figures, what, values, "p10_ns", [("kubelb", "nothing"), ("nft", "nothing")])


def measure_speed(stage, figures):
    targets = stage.targets()
    with no_bpf_statistics():
        measure_first_bytes(stage, targets, figures)
        measure_requests(stage, targets, figures)
        measure_bulk(stage, targets, figures)
        measure_unrelated(stage, targets, figures)
