# SPDX-License-Identifier: BSD-2-Clause
"""A control plane: nginx in the part of an apiserver, and its ways to fail."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess

from system import (NETNS_DIR, WorldError, end_group, group_members, replace, run_checked,
                    wait_until)

PORT = 6443
V4_PREFIX = "192.168.77."
V6_PREFIX = "fd00:77::"
NODE_HOST = 10  # .10 is the node, .11 is cp1, ...
# The statuses that a file switches on (see Backend.config): no reload, which
# would close the idle connections that tests watch.
STATUSES = (401, 403, 404, 429, 500, 503)

NGINX = """\
daemon off;
user root;
worker_processes 1;
worker_rlimit_nofile 16384;
pid nginx.pid;
error_log error.log notice;
events {{ worker_connections 8192; }}
http {{
	log_format connections escape=json '{{"connection":$connection,"request":$connection_requests,'
		'"time":$msec,"method":"$request_method","uri":"$uri","status":$status,'
		'"protocol":"$server_protocol","tls":"$ssl_protocol","reused":"$ssl_session_reused",'
		'"client":"$remote_addr","agent":"$http_user_agent"}}';
	access_log access.log connections;
	client_body_temp_path tmp-body; proxy_temp_path tmp-proxy; fastcgi_temp_path tmp-fastcgi;
	uwsgi_temp_path tmp-uwsgi; scgi_temp_path tmp-scgi;
	# Connections end when a test ends them, not by a timer of the server.
	keepalive_timeout 1d;
	keepalive_requests 100000000;
	client_header_timeout 1d;
	default_type text/plain;
	server {{
		# Fast Open takes effect where the namespace's net.ipv4.tcp_fastopen lets it.
		listen 0.0.0.0:{port} ssl http2 backlog=4096 fastopen=256;
		listen [::]:{port} ssl http2 ipv6only=on backlog=4096 fastopen=256;
		ssl_protocols TLSv1.2 TLSv1.3;
		ssl_certificate current.crt;
		ssl_certificate_key {key};
		location = /readyz {{
{readyz}
			return 200 ok;
		}}
		location = /livez {{
{livez}
			return 200 ok;
		}}
		# What HAProxy's checks ask for: alive while it shuts down.
		location = /healthz {{ return 200 ok; }}
		location = /version {{
			default_type application/json;
			return 200 '{{"major":"1","minor":"34","gitVersion":"v1.34.0","backend":"{name}"}}';
		}}
		# A response that goes on for as long as anybody listens, like a watch.
		location = /watch {{ alias {dir}/watch; limit_rate 64; }}
	}}
	# Counters, reached by file name: they answer whatever the network does.
	server {{
		listen unix:{dir}/status.sock;
		access_log off;
		location = /status {{ stub_status; }}
	}}
}}
"""


class UnixHTTP(http.client.HTTPConnection):
    """HTTP to a unix socket."""

    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Backend:
    """One control plane: a namespace, an nginx in it, and its ways to fail.
    Apiserver (apiserver_backend.py) is one with another server in it.

    What it knows lives in its directory, so that `world.py fault` can act on a
    Backend of another process's world.
    """

    program = "nginx"

    def __init__(self, world_dir, prefix, index):
        # 0 is an apiserver on the node itself, as on a control-plane node.
        self.index = index
        self.name = f"cp{index}"
        self.port = self.name if index else "node"  # of the bridge
        self.ns = f"{prefix}-{self.port}"
        self.net = f"{prefix}-net"
        self.v4 = f"{V4_PREFIX}{NODE_HOST + index}"
        self.v6 = f"{V6_PREFIX}{NODE_HOST + index}"
        self.endpoint = f"{self.v4}:{PORT}"
        self.endpoint6 = f"[{self.v6}]:{PORT}"
        self.pki_dir = os.path.join(world_dir, "pki")
        self.dir = os.path.join(world_dir, self.name)
        self.pgid_file = self.path("pgid")
        self.certificate_kind = "good"
        self.own_accepts = 0  # our own questions to stub_status
        self.past_accepts = 0  # of the nginx processes that have ended

    def path(self, name):
        return os.path.join(self.dir, name)

    # making it

    def prepare(self, pki):
        os.makedirs(self.dir)
        with open(self.path("watch"), "wb") as f:
            f.write(b".\n" * 65536)
        self.use_certificate(pki, "good")
        with open(self.path("nginx.conf"), "w", encoding="utf-8") as f:
            f.write(self.config(pki))

    def config(self, pki):
        # With a text of its own: nginx's built-in error page for 500 ends the
        # connection, which an apiserver does not do.
        switches = {
            path: "\n".join(f"\t\t\tif (-f {self.dir}/{path}.{s}) {{ return {s} 'status {s}'; }}"
                            for s in STATUSES)
            for path in ("readyz", "livez")
        }
        return NGINX.format(port=PORT, key=pki.key, name=self.name, dir=self.dir, **switches)

    def argv(self):
        return ["nginx", "-p", self.dir + "/", "-e", "error.log", "-c", self.path("nginx.conf")]

    def launch(self):
        """Starts the server without waiting for it, in a process group of its own."""
        if self.pgid() is not None:
            raise WorldError(f"{self.name} is running already")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path("status.sock"))
        with open(self.path("stderr.log"), "ab") as log:
            process = subprocess.Popen(
                ["nsenter", f"--net={NETNS_DIR}/{self.ns}", *self.argv()],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        process.returncode = 0  # reaped by its group, see end_group; keeps Popen quiet
        with open(self.pgid_file, "w", encoding="ascii") as f:
            f.write(str(process.pid))
        self.own_accepts = 0

    def answers(self):
        try:
            self.accepted_now(timeout=1.0)
            return True
        except OSError:
            return False

    def wait_up(self):
        def up():
            if not group_members(self.pgid()):
                raise WorldError(f"{self.program} of {self.name} ended: {self.read('stderr.log')}"
                                 f"{self.read('error.log')}")
            return self.answers()

        wait_until(up, f"{self.program} of {self.name}", timeout=20, interval=0.005)

    def pgid(self):
        try:
            with open(self.pgid_file, encoding="ascii") as f:
                return int(f.read())
        except (FileNotFoundError, ValueError):
            return None

    def read(self, name):
        try:
            with open(self.path(name), encoding="utf-8", errors="replace") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    # faults, and their opposites

    def start(self):
        if self.pgid() is None:
            self.launch()
            self.wait_up()

    def kill(self):
        """The process is gone at once: connections reset, the port refuses."""
        pgid = self.pgid()
        if pgid is None:
            return
        if not self.stopped():
            with contextlib.suppress(OSError):
                self.past_accepts += self.accepted_now(timeout=1.0)
        end_group(pgid)
        os.unlink(self.pgid_file)

    def stop(self):
        """Hung: the kernel goes on accepting, nobody answers."""
        os.killpg(self.pgid(), signal.SIGSTOP)
        wait_until(self.stopped, f"{self.name} to stop", interval=0.002)

    def cont(self):
        os.killpg(self.pgid(), signal.SIGCONT)

    def stopped(self):
        def state(pid):
            try:
                with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
                    return f.read().rpartition(") ")[2][:1]
            except OSError:
                return "X"

        pgid = self.pgid()
        return pgid is not None and all(state(p) == "T" for p in group_members(pgid))

    def answer(self, path, status):
        """Makes /readyz or /livez answer that status from now on; 200 is normal."""
        for s in STATUSES:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path(f"{path}.{s}"))
        if status != 200:
            if status not in STATUSES:
                raise WorldError(f"{status} is not one of {STATUSES}")
            with open(self.path(f"{path}.{status}"), "w", encoding="ascii"):
                pass

    def readyz(self, status):
        self.answer("readyz", status)

    def livez(self, status):
        self.answer("livez", status)

    def use_certificate(self, pki, kind):
        certificate = pki.certificate(kind, (self.v4, self.v6), self.name)
        replace(self.path("current.crt"), certificate)
        self.certificate_kind = kind

    def certificate(self, kind, pki):
        """Serves another certificate: nginx starts afresh, as no kept
        connection would show it."""
        running = self.pgid() is not None
        self.kill()
        self.use_certificate(pki, kind)
        if running:
            self.start()

    def link(self, up):
        """Down: a black hole. The frames are dropped by the bridge, as by a
        switch in front of a machine without power; no carrier event tells."""
        state = "forwarding" if up else "disabled"
        run_checked(["bridge", "-n", self.net, "link", "set", "dev", self.port,
                     "state", state])

    def restore(self, pki):
        """Undoes every fault."""
        self.link(up=True)
        self.readyz(200)
        self.livez(200)
        if self.stopped():
            self.cont()
        if self.certificate_kind != "good":
            self.kill()
            self.use_certificate(pki, "good")
        self.start()

    # what it has seen

    def accepted_now(self, timeout=5.0):
        connection = UnixHTTP(self.path("status.sock"), timeout)
        try:
            connection.connect()
            self.own_accepts += 1
            connection.request("GET", "/status", headers={"Connection": "close"})
            text = connection.getresponse().read().decode("ascii")
        except http.client.HTTPException as e:
            raise ConnectionError(str(e)) from e
        finally:
            connection.close()
        accepted = re.search(r"requests\s+(\d+)", text)
        return int(accepted.group(1)) - self.own_accepts

    def accepted(self):
        """Connections accepted on the network since the world was made."""
        return self.past_accepts + (self.accepted_now() if self.pgid() is not None else 0)

    def requests(self, since=0, **fields):
        """Entries of the access log from number `since` on with these fields."""
        lines = self.read("access.log").rpartition("\n")[0].splitlines()[since:]
        entries = [json.loads(line) for line in lines]
        return [e for e in entries if all(e[k] == v for k, v in fields.items())]
