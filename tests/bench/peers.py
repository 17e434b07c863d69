# SPDX-License-Identifier: BSD-2-Clause
"""What else brings a node's connects to the apiservers, beside which the report measures KubeLB.

nginx      the stream proxy of the usual guides for control planes
haproxy    Kubespray's, with its defaults (agentbench.py has them)
nft        a DNAT to a random endpoint, as kube-proxy's nftables mode writes it. Nobody changes it when a
           backend dies: kube-proxy would, once the cluster's list does, 15 s after a lease is over
ipvs       only where the kernel has it
"""

import collections
import contextlib
import glob
import json
import os
import subprocess

from agentbench import HAPROXY
from system import NETNS_DIR, WorldError, group_members, run_checked, wait_until

NGINX_PORT, HAPROXY_PORT = 6444, 6445  # on the node's loopback
SERVICE, SERVICE_PORT = "10.96.0.1", 443
FRONTEND, FRONTEND_PORT = "127.0.0.1", 6443

NGINX = """\
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; user root; worker_processes {workers}; worker_rlimit_nofile {files};
pid nginx.pid; error_log error.log warn;
events {{ worker_connections {connections}; multi_accept on; use epoll; }}
stream {{
	upstream apiservers {{ least_conn; {servers} }}
	server {{
		listen 127.0.0.1:{port}{listen};
		proxy_pass apiservers;
		proxy_timeout 10m;
		proxy_connect_timeout 1s;
	}}
}}
"""
NFT = """\
table ip report {{
	chain services {{
		type nat hook output priority -100; policy accept;
		ip daddr {service} tcp dport {service_port} jump endpoints
	}}
	chain endpoints {{
		numgen random mod {n} vmap {{ {choices} }}
	}}
{chains}
}}
"""

WHO_SERVES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "clients",
                          "whoserves.py")

# Where a client dials. ns: of whose network; cgroup: in which it is; pid: of the process that
# carries or decides, None where there is none.
Target = collections.namedtuple("Target", "name ns address port cgroup pid", defaults=(None, None))


def write(path, text):
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return path


class Proxy:
    """A running proxy: where it listens, its processes, its end."""

    def __init__(self, world, name, argv, port, probe):
        self.name, self.port = name, port
        self.log = os.path.join(world.dir, f"{name}.log")
        with open(self.log, "ab") as log:
            self.process = world.spawn(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

        def up():
            if self.process.poll() is not None:
                with open(self.log, encoding="utf-8", errors="replace") as f:
                    raise WorldError(f"{name} has ended: {f.read()[-500:]}")
            return probe(port)

        wait_until(up, f"{name} to listen", 20, 0.05)

    def pids(self):
        """The process and its workers."""
        return group_members(self.process.pid)

    def target(self, world):
        return Target(self.name, world.node, FRONTEND, self.port, None, self.process.pid)

    def stop(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, 9)
        self.process.wait(timeout=10)
        wait_until(lambda: not self.pids(), f"the end of {self.name}")


def listens(world):
    """A function that says whether somebody listens on that port of the node's loopback."""
    def probe(port):
        text = run_checked(["nsenter", f"--net={NETNS_DIR}/{world.node}", "ss", "-Htln",
                            f"sport = :{port}"])
        return bool(text.strip())

    return probe


def directory(world, name):
    path = os.path.join(world.dir, f"peer-{name}")
    os.makedirs(path, exist_ok=True)
    return path


def start_nginx(world, endpoints, prefix=(), workers="auto", connections=8192, listen=""):
    """With Kubespray's 8192 connections for a worker, unless somebody wants more."""
    path = directory(world, "nginx")
    write(os.path.join(path, "conf"), NGINX.format(
        workers=workers, connections=connections, files=min(2 * connections, hard_limit()),
        port=NGINX_PORT, listen=listen, servers=" ".join(f"server {e};" for e in endpoints)))
    return Proxy(world, "nginx", [*prefix, "nginx", "-p", path + "/", "-e", "error.log", "-c",
                                  path + "/conf"], NGINX_PORT, listens(world))


def start_haproxy(world, endpoints, prefix=(), maxconn=None):
    """maxconn: instead of Kubespray's 4000, and of its 1000 for each server."""
    text = HAPROXY.format(port=HAPROXY_PORT, servers="\n".join(
        f"\tserver s{i} {e} check check-ssl verify none" for i, e in enumerate(endpoints)))
    if maxconn:
        text = text.replace("maxconn 4000", f"maxconn {maxconn}").replace(
            "maxconn 1000", f"maxconn {maxconn}")
    path = write(os.path.join(directory(world, "haproxy"), "conf"), text)
    return Proxy(world, "haproxy", [*prefix, "haproxy", "-db", "-f", path], HAPROXY_PORT,
                 listens(world))


def start_nft(world, endpoints, name="nft"):
    """In a node of its own: connection tracking takes time from every connection of its network."""
    ns = world.pod(name)
    chains = "\n".join(f"\tchain e{i} {{\n\t\tmeta l4proto tcp dnat to {e}\n\t}}"
                       for i, e in enumerate(endpoints))
    choices = ", ".join(f"{i} : goto e{i}" for i in range(len(endpoints)))
    world.ip_batch(ns, [f"route add {SERVICE}/32 dev eth0"])
    world.sysctl(ns, "net.ipv4.ip_local_port_range", "10240 60999")
    run_checked(["nsenter", f"--net={NETNS_DIR}/{ns}", "nft", "-f", "-"],
                stdin=NFT.format(service=SERVICE, service_port=SERVICE_PORT, n=len(endpoints),
                                 choices=choices, chains=chains))
    return Target("nft", ns, SERVICE, SERVICE_PORT)


def hard_limit():
    with open("/proc/self/limits", encoding="ascii") as f:
        line = next(line for line in f if line.startswith("Max open files"))
    return int(line.split()[4])


def absent():
    """name -> why it is not measured here."""
    missing = {}
    if not os.path.exists("/proc/net/ip_vs") and not glob.glob(
            f"/lib/modules/{os.uname().release}/kernel/net/netfilter/ipvs/ip_vs.ko*"):
        missing["ipvs"] = "kernel without ip_vs"
    else:
        missing["ipvs"] = "the report has no measurement of it yet"
    return missing


# --- does it serve? -----------------------------------------------------------

# Each new connection goes to somebody; of so many, a third of them to nobody by chance once in
# 10^9 reports.
PROOF_CONNECTIONS = 60


def prove(world, target, names, ca):
    """Raises WorldError unless new connections to it are answered as an apiserver answers, by
    each of these backends and by no other. What serves wrong is not measured."""
    done = world.exec(["/usr/bin/python3", WHO_SERVES, "--ca", ca, "-n", PROOF_CONNECTIONS,
                       target.address, target.port], ns=target.ns, cgroup=target.cgroup,
                      timeout=120)
    if done.returncode != 0:
        raise WorldError(f"{target.name} serves wrong: {done.stderr.strip()}")
    seen = {tuple(answer) for answer in json.loads(done.stdout)}
    wanted = {(200, name) for name in names}
    if seen != wanted:
        raise WorldError(f"{target.name} serves wrong: status and backend are {sorted(seen)}, "
                         f"want {sorted(wanted)}")
