#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""A server that dials itself, and does what it is told.

    server = SelfDialler(world, cgroup=...)      a process of its own, with nothing open
    server.listen("::", reuseport=True)          "::" takes IPv4, too; mptcp=True
    server.dial("127.0.0.1", 20)                 connects, from another thread: {"ok": 20}, or
                                                 by the errno's name; mptcp=True
    server.arrived()                             connects at its listeners since the last listen
    server.unlisten()                            closes them
    server.enter(ns)                             its sockets are of that namespace from now on
    server.end()                                 kill -9

    SelfDialler(world, activated="::")           its listener is made by another process, which
                                                 executes it, as systemd does for its sockets
"""

import collections
import errno
import json
import os
import socket
import subprocess
import sys
import threading

from backend import PORT
from system import NETNS_DIR, end_group, setns

BACKLOG = 1024  # nobody accepts before arrived()


class SelfDialler:
    """See the top of this file."""

    def __init__(self, world, cgroup=None, ns=None, activated=None):
        more = ["--activate", activated] if activated else []
        self.process = world.spawn(["/usr/bin/python3", "-S", os.path.abspath(__file__), *more],
                                   cgroup=cgroup, ns=ns)
        self.ask("arrived")

    def ask(self, what, **args):
        self.process.stdin.write(json.dumps({"do": what, **args}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"{what}: the process has ended; see above"
        return json.loads(line)

    def listen(self, host="::", reuseport=False, mptcp=False):
        self.ask("listen", host=host, reuseport=reuseport, mptcp=mptcp)

    def unlisten(self):
        self.ask("unlisten")

    def dial(self, host, count, mptcp=False):
        return self.ask("dial", host=host, count=count, mptcp=mptcp)

    def arrived(self):
        return self.ask("arrived")

    def enter(self, ns):
        self.ask("enter", path=f"{NETNS_DIR}/{ns}")

    def end(self):
        end_group(self.process.pid)
        self.process.wait(timeout=5)


# --- in the process ----------------------------------------------------------


def make_socket(host, mptcp):
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM,
                         socket.IPPROTO_MPTCP if mptcp else 0)


def make_listener(host, reuseport=False, mptcp=False):
    sock = make_socket(host, mptcp)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuseport:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if host == "::":
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind((host, PORT))
    sock.listen(BACKLOG)
    return sock


class Server:
    """The commands, as do_*()."""

    def __init__(self):
        self.listeners = []
        self.count = 0

    def serve(self, listener):
        listener.setblocking(False)
        self.listeners.append(listener)
        self.count = 0

    def do_listen(self, host, reuseport, mptcp):
        self.serve(make_listener(host, reuseport, mptcp))

    def do_unlisten(self):
        for listener in self.listeners:
            listener.close()
        self.listeners.clear()

    def do_dial(self, host, count, mptcp):
        results = collections.Counter()

        def work():
            for _ in range(count):
                results[connect(host, mptcp)] += 1

        # Servers have threads, and any of them may be the client.
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return results

    def do_arrived(self):
        for listener in self.listeners:
            try:
                while True:
                    listener.accept()[0].close()
                    self.count += 1
            except BlockingIOError:
                pass
        return self.count

    def do_enter(self, path):
        with open(path, encoding="ascii") as f:
            setns(f.fileno())


def connect(host, mptcp):
    with make_socket(host, mptcp) as sock:
        sock.settimeout(5)
        try:
            sock.connect((host, PORT))
            return "ok"
        except TimeoutError:
            return "ETIMEDOUT"
        except OSError as e:
            return errno.errorcode[e.errno]


def activate(host):
    """Listens, and leaves that to another program."""
    listener = make_listener(host)
    return subprocess.run([sys.executable, "-S", __file__, "--adopt", str(listener.fileno())],
                          pass_fds=[listener.fileno()], check=False).returncode


def main(option=None, value=None):
    if option == "--activate":
        return activate(value)
    server = Server()
    if option == "--adopt":
        server.serve(socket.socket(fileno=int(value)))
    for line in sys.stdin:
        command = json.loads(line)
        answer = getattr(server, "do_" + command.pop("do"))(**command)
        print(json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
