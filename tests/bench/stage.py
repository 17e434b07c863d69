# SPDX-License-Identifier: BSD-2-Clause
"""Where bench.py measures: a node, servers, KubeLB attached to a cgroup of the stage's own."""

import contextlib
import json
import os
import shutil
import subprocess

from backend import NODE_HOST, V4_PREFIX
from runs import Runs, bpf_statistics, bpftool, program_ids
from system import WorldError, group_members, wait_until

SERVERS = [f"{V4_PREFIX}{NODE_HOST + i}" for i in range(1, 65)]
FRONTEND, FRONTEND6, FRONTEND_PORT = "127.0.0.1", "::1", 6443
TLS_PORT = 6443  # nginx, in the servers' namespace
PLAIN_PORT = 7443  # accepts and closes, there as well
PROXIES = {"nginx stream proxy": 6444, "haproxy": 6445}  # on the node's loopback
BULK_BYTES = 8 << 20

# What is attached for a frontend of both families; the programs' names.
PROGRAMS = {"klb_connect4", "klb_connect6", "klb_sockops", "klb_getpeer4", "klb_getpeer6"}

# Accesses are not logged: that would be most of the server's work.
NGINX_HTTP = """\
daemon off; user root; worker_processes 1; pid nginx.pid; error_log error.log warn;
events {{ worker_connections 1024; }}
http {{
	access_log off;
	client_body_temp_path tmp-body; proxy_temp_path tmp-proxy; fastcgi_temp_path tmp-fastcgi;
	uwsgi_temp_path tmp-uwsgi; scgi_temp_path tmp-scgi;
	keepalive_timeout 1d; keepalive_requests 100000000;
	server {{
		listen 0.0.0.0:{port} ssl;
		ssl_certificate {certificate}; ssl_certificate_key {key};
		location = /readyz {{ return 200 ok; }}
		location = /livez {{ return 200 ok; }}
		location = /version {{ return 200 '{{"major":"1","minor":"34"}}'; }}
		location = /bulk {{ alias {dir}/bulk; }}
	}}
}}
"""
NGINX_STREAM = """\
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; user root; worker_processes 1; pid nginx.pid; error_log error.log warn;
events {{ worker_connections 1024; }}
stream {{ server {{ listen 127.0.0.1:{port}; proxy_pass {backend}; }} }}
"""
HAPROXY = """\
global
	nbthread 1
defaults
	mode tcp
	timeout connect 5s
	timeout client 1h
	timeout server 1h
listen apiserver
	bind 127.0.0.1:{port}
	server backend {backend}
"""


class Cpus:
    """One CPU for the client, another one for the server that accepts its plain
    connects, where there are two. TLS requests go back and forth on the client's:
    one side waits for the other, so a second CPU would add nothing but its wake-ups,
    and on one, requests/s are the inverse of the work that a request takes."""

    def __init__(self):
        have = sorted(os.sched_getaffinity(0))
        self.client, self.server = {have[0]}, {have[-1]}
        self.text = (f"on CPU {have[0]}, accepting on CPU {have[-1]}" if len(have) > 1
                     else "on a single CPU")

    def pin(self, pid, cpus):
        """With their threads, which may be there before this is called."""
        for member in group_members(pid) or [pid]:
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                for thread in os.listdir(f"/proc/{member}/task"):
                    os.sched_setaffinity(int(thread), cpus)

    def as_client(self, argv):
        return ["taskset", "-c", str(min(self.client)), *argv]


class Stage:
    """A node, and one namespace with the 64 addresses that all servers share."""

    def __init__(self, world, cpus, effort):
        self.world = world
        self.cpus = cpus
        self.effort = effort
        self.cgroup = world.cgroup("bench")
        self.client = world.program("test/bench_client")
        self.servers = world.pod("servers")
        world.ip_batch(self.servers, [f"addr add {a}/24 dev eth0" for a in SERVERS])
        self.start_plain()
        self.start_nginx()

    def directory(self, name):
        path = os.path.join(self.world.dir, name)
        os.mkdir(path)
        return path

    def start(self, argv, ns, cpus, **kwargs):
        process = self.world.spawn(argv, ns=ns, **kwargs)
        self.cpus.pin(process.pid, cpus)
        return process

    def start_plain(self):
        process = self.start([self.client, "serve", "0.0.0.0", PLAIN_PORT], self.servers,
                             self.cpus.server)
        if process.stdout.readline() != "ready\n":
            raise WorldError("bench_client serve has not started")

    def start_config(self, argv, name, text, ns, cpus, probe):
        """Starts a server with a configuration and waits until it is there."""
        path = self.directory(name)
        with open(os.path.join(path, "conf"), "w", encoding="utf-8") as f:
            f.write(text)
        process = self.start([a.format(dir=path) for a in argv], ns, cpus,
                             stdout=subprocess.DEVNULL)

        def up():
            if process.poll() is not None:
                raise WorldError(f"{name} has ended with {process.returncode}")
            return self.run("connects", "-n", 1, *probe, check=False)

        wait_until(up, f"{name} to listen", interval=0.05)
        self.cpus.pin(process.pid, cpus)  # the workers by now

    def start_nginx(self):
        bulk = os.path.join(self.world.dir, "bulk")
        with open(bulk, "wb") as f:
            f.write(os.urandom(1 << 20) * (BULK_BYTES >> 20))
        certificate = self.world.pki.certificate("good", SERVERS, "bench")
        text = NGINX_HTTP.format(port=TLS_PORT, dir=self.world.dir, certificate=certificate,
                                 key=self.world.pki.key)
        self.start_config(["nginx", "-p", "{dir}/", "-e", "error.log", "-c", "{dir}/conf"],
                          "bench-nginx", text, self.servers, self.cpus.client,
                          (SERVERS[0], TLS_PORT))

    def start_proxies(self):
        """The local proxies that are installed, name -> port."""
        backend = f"{SERVERS[0]}:{TLS_PORT}"
        there = {}
        if os.path.exists("/usr/lib/nginx/modules/ngx_stream_module.so"):
            there["nginx stream proxy"] = (
                ["nginx", "-p", "{dir}/", "-e", "error.log", "-c", "{dir}/conf"], NGINX_STREAM)
        if shutil.which("haproxy"):
            there["haproxy"] = (["haproxy", "-db", "-f", "{dir}/conf"], HAPROXY)
        for name, (argv, text) in there.items():
            port = PROXIES[name]
            self.start_config(argv, name.replace(" ", "-"), text.format(port=port, backend=backend),
                              self.world.node, self.cpus.client, (FRONTEND, port))
        return {name: PROXIES[name] for name in there}

    def run(self, *args, check=True, cgroup=None):
        """bench_client in the node and in our cgroup, or that one; what it measured."""
        done = self.world.exec(self.cpus.as_client([self.client, *args]),
                               cgroup=cgroup or self.cgroup, timeout=300)
        if done.returncode != 0:
            if check:
                raise WorldError(f"bench_client {args}: {done.stderr.strip()}")
            return None
        return json.loads(done.stdout)

    def attach(self, backends=1, policy="least-conn", port=PLAIN_PORT):
        self.world.configure(backends=[f"{a}:{port}" for a in SERVERS[:backends]], policy=policy,
                             cgroup=self.cgroup)
        done = self.world.load()
        if done.returncode != 0:
            raise WorldError(f"kubelb-load: {done.stderr.strip()}")
        missing = PROGRAMS - self.attached()
        if missing:
            raise WorldError(f"{', '.join(sorted(missing))} not attached: what does not run "
                             "costs nothing")

    def detach(self):
        done = self.world.detach()
        if done.returncode != 0:
            raise WorldError(f"kubelb-load --detach: {done.stderr.strip()}")
        left = PROGRAMS & self.attached()
        if left:
            raise WorldError(f"kubelb-load --detach has left {', '.join(sorted(left))}")

    def attached(self):
        """Names of the programs on our cgroup."""
        return {p.get("name") for p in bpftool("cgroup", "show", self.cgroup) or []}

    def set_attached(self, attached):
        """Attached with three plain backends, or not at all."""
        if attached:
            self.attach(3)
        else:
            self.detach()

    def status(self):
        done = self.world.ctl("status", "-o", "json")
        if done.returncode != 0:
            raise WorldError(f"kubelbctl status: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def prove(self):
        """What times connects takes no run statistics, so that it would not notice if no
        program ran for them; that is seen here, once."""
        n = 20
        self.attach(3)
        with Runs(self.program_ids()) as runs:
            with bpf_statistics():
                for target in ((SERVERS[0], PLAIN_PORT), (FRONTEND, FRONTEND_PORT)):
                    before = runs.now()
                    self.run("connects", "-n", n, *target)
                    seen = runs.since(before)
                    if any(seen[name][1] < n for name in ("klb_connect4", "klb_sockops")):
                        raise WorldError(f"no program runs for connects to {target[0]}: {seen}")
            before = runs.now()
            self.run("connects", "-n", n, FRONTEND, FRONTEND_PORT)
            if any(count for _time, count in runs.since(before).values()):
                print("  (another process has the kernel measure BPF programs: two clock reads "
                      "for each run are in these figures)")

    def program_ids(self):
        return program_ids(self.world.pin)
