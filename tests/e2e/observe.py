# SPDX-License-Identifier: BSD-2-Clause
"""What tests of the agent look with: maps read in microseconds, dialling with a
stopwatch, how connections end, metrics, and a kubeconfig."""

import collections
import contextlib
import ctypes
import errno
import json
import os
import platform
import re
import selectors
import signal
import socket
import struct
import threading
import time

from helpers import (V4, Kept, backend_ids, backend_status, bpftool, make_socket, metrics,
                     served_by)
from backend import PORT
from system import WorldError, inside, run_checked, wait_until

TCP_FASTOPEN_CONNECT = 30
STATES = ("unknown", "ready", "suspect", "draining", "dead")  # enum klb_state


# --- maps --------------------------------------------------------------------

BackendValue = collections.namedtuple("BackendValue",
                                      "weight state reason http_status since_ns last_probe_ns")


class BackendMap:
    """The pinned map `backends`, by name of the control plane. bpftool takes ten
    milliseconds for a look, which is too long where fifty are the limit."""

    SYSCALL = {"x86_64": 321, "aarch64": 280}
    OBJ_GET, LOOKUP = 7, 1

    def __init__(self, world):
        path = f"{world.pin}/backends"
        self.ids = backend_ids(world)
        self.size = bpftool("map", "show", "pinned", path)["bytes_value"]
        text = ctypes.create_string_buffer(path.encode())
        self.fd = self.bpf(self.OBJ_GET, struct.pack("=QII", ctypes.addressof(text), 0, 0))

    def bpf(self, command, attributes):
        libc = ctypes.CDLL(None, use_errno=True)
        buffer = ctypes.create_string_buffer(attributes, 128)
        result = libc.syscall(self.SYSCALL[platform.machine()], command, buffer, 128)
        if result < 0:
            raise OSError(ctypes.get_errno(), f"bpf({command})")
        return result

    def read(self, name):
        key = ctypes.c_uint32(self.ids[name])
        value = ctypes.create_string_buffer(self.size)
        self.bpf(self.LOOKUP, struct.pack("=IIQQQ", self.fd, 0, ctypes.addressof(key),
                                          ctypes.addressof(value), 0))
        _generation, weight, state, reason, status, since, probed = \
            struct.unpack_from("=IIIIIQQ", value.raw, 20)  # struct klb_backend
        return BackendValue(weight, STATES[state], reason, status, since, probed)

    def wait(self, name, states, timeout):
        """Until its state is one of these; when that was seen (time.monotonic)."""
        wait_until(lambda: self.read(name).state in states,
                   lambda: f"{name} to be {states}, is {self.read(name)}", timeout, 0.001)
        return time.monotonic()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        os.close(self.fd)


# --- beside the test ---------------------------------------------------------


class Background:
    """work(), which a subclass has, on a thread of its own for the length of the block. It
    looks at self.ending; what it raises is raised where the block ends."""

    def __init__(self):
        self.ending = threading.Event()
        self.problem = None
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        try:
            self.work()
        except BaseException as e:  # told by the test's own thread
            self.problem = e

    def begun(self, condition, what):
        """Starts, and waits until condition() says that it has an effect."""
        self.thread.start()
        wait_until(lambda: self.problem or condition(), what)
        return self

    def stop(self):
        self.ending.set()
        self.thread.join(timeout=10)
        if self.problem:
            raise self.problem

    def __exit__(self, *exc):
        self.stop()


# --- dialling with a stopwatch -----------------------------------------------

Outcome = collections.namedtuple("Outcome", "start end error")


class Dialer(Background):
    """A steady stream of connects, each with its time and what became of it
    (None, or the errno's name)."""

    def __init__(self, world, rate=100, host=V4):
        super().__init__()
        self.world = world
        self.pause = 1 / rate
        self.host = host
        self.outcomes = []
        self.pending = selectors.DefaultSelector()

    def work(self):
        with inside(self.world.node):
            self.dial_on()

    def dial_on(self):
        due = time.monotonic()
        while not self.ending.is_set():
            self.begin()
            due += self.pause
            while (left := due - time.monotonic()) > 0:
                self.collect(left)
        deadline = time.monotonic() + 5
        while self.pending.get_map() and time.monotonic() < deadline:
            self.collect(0.1)

    def begin(self):
        sock = socket.socket(socket.AF_INET)
        sock.setblocking(False)
        start = time.monotonic()
        result = sock.connect_ex((self.host, PORT))
        if result == errno.EINPROGRESS:
            self.pending.register(sock, selectors.EVENT_WRITE, start)
        else:
            self.finish(sock, start, result)

    def collect(self, timeout):
        for key, _events in self.pending.select(timeout):
            self.pending.unregister(key.fileobj)
            error = key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self.finish(key.fileobj, key.data, error)

    def finish(self, sock, start, error):
        sock.close()
        self.outcomes.append(Outcome(start, time.monotonic(),
                                     errno.errorcode[error] if error else None))

    def failed(self, since, until=float("inf")):
        """Of the connects begun in that time, those that failed."""
        return [o for o in self.outcomes if o.error and since <= o.start < until]

    def __enter__(self):
        return self.begun(lambda: len(self.outcomes) >= 10, "connects to begin")

    def stop(self):
        super().stop()
        if self.pending.get_map():
            raise WorldError("connects are under way after five seconds")


class Asking(Background):
    """A steady stream of clients that connect, ask /version, and are answered."""

    def __init__(self, world):
        super().__init__()
        self.world = world
        self.answers = 0

    def work(self):
        while not self.ending.wait(0.02):
            served_by(self.world)
            self.answers += 1

    def __enter__(self):
        return self.begun(lambda: self.answers >= 5, "answers to begin")


# --- TCP's own counters ------------------------------------------------------


def netstat(world, name, page="netstat", ns=None):
    """A counter of /proc/net/netstat, or of snmp, in the node (or ns)."""
    with inside(ns or world.node), open(f"/proc/thread-self/net/{page}", encoding="ascii") as f:
        lines = f.read().splitlines()
    for names, values in zip(lines[::2], lines[1::2]):
        found = dict(zip(names.split(), values.split()))
        if name in found:
            return int(found[name])
    raise KeyError(name)


@contextlib.contextmanager
def fastopen_cookies(world):
    """TCP Fast Open between the node and every control plane, and the node has their
    cookies: it keeps one for each address from an ordinary connect that asks for it."""
    sides = [world.node, *(b.ns for b in world.backends)]
    for ns in sides:
        world.sysctl(ns, "net.ipv4.tcp_fastopen", "3")
    try:
        for b in world.backends:
            with make_socket(world, socket.AF_INET) as sock:
                sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
                sock.settimeout(5)
                sock.connect((b.v4, PORT))
        shown = run_checked(["ip", "-n", world.node, "tcp_metrics", "show"])
        without = [b.name for b in world.backends
                   if not re.search(rf"^{re.escape(b.v4)} .*fo_cookie", shown, re.MULTILINE)]
        if without:
            raise WorldError(f"no Fast Open cookie of {without}:\n{shown}")
        yield
    finally:
        for ns in sides:
            world.sysctl(ns, "net.ipv4.tcp_fastopen", "1")
        run_checked(["ip", "-n", world.node, "tcp_metrics", "flush"])


# --- how connections end -----------------------------------------------------


def end_of(connection, timeout):
    """How a Kept connection ended, below TLS ("closed" or an errno's name), and
    when that was seen; (None, None) when it is open after timeout."""
    deadline = time.monotonic() + timeout
    with socket.socket(fileno=os.dup(connection.sock.fileno())) as raw:
        while (left := deadline - time.monotonic()) > 0:
            raw.settimeout(left)
            try:
                if not raw.recv(4096):
                    return "closed", time.monotonic()
            except TimeoutError:
                break
            except OSError as e:
                return errno.errorcode[e.errno], time.monotonic()
    return None, None


def is_open(connection):
    """Nobody has ended it. Takes what lies unread."""
    return end_of(connection, 0.001)[0] is None


def direct(world, backend, timeout=5):
    """A plain TCP connection to a control plane itself, which is none of ours."""
    sock = make_socket(world, socket.AF_INET)
    sock.settimeout(timeout)
    sock.connect((backend.v4, PORT))
    return sock


# --- what a death costs -------------------------------------------------------


def clients_of(stage, name, count):
    """Kept connections to the named control plane, and as many to others."""
    clients = contextlib.ExitStack()
    kept, others = [], []
    while len(kept) < count or len(others) < count:
        connection = clients.enter_context(Kept(stage))
        (kept if connection.backend() == name else others).append(connection)
    return clients, kept, others


def kill_once(stage, maps, cp):
    """One kill -9 under traffic; what was seen, in milliseconds and counts."""
    clients, kept, others = clients_of(stage, cp.name, 3)
    with clients, Dialer(stage) as dialer:
        pgid = cp.pgid()
        start = time.monotonic()
        os.killpg(pgid, signal.SIGKILL)
        known = maps.wait(cp.name, ("suspect", "dead"), 5)
        ends = [end_of(connection, 5) for connection in kept]
        maps.wait(cp.name, ("dead",), 5)
        cp.kill()  # the world's own bookkeeping
        dialer.stop()
        assert all(is_open(connection) for connection in others), "nobody else's"
    return {"known_ms": 1000 * (known - start),
            "failed_first": len(dialer.failed(start - 0.05, start + 0.1)),
            "failed_later": len(dialer.failed(start + 0.1)),
            "ends_ms": [1000 * (at - start) if how else None for how, at in ends]}


def hole_once(stage, maps, cp):
    """One black hole under traffic; what was seen, in seconds and counts. A connection of
    somebody's own to the same apiserver must outlive it."""
    clients, kept, others = clients_of(stage, cp.name, 3)
    with clients, direct(stage, cp) as own, Dialer(stage) as dialer:
        start = time.monotonic()
        cp.link(up=False)
        known = maps.wait(cp.name, ("suspect", "dead"), 10)
        ends = [end_of(connection, 10) for connection in kept]
        assert all(is_open(connection) for connection in others), "nobody else's"
        dialer.stop()
        cp.link(up=True)
        own.sendall(b"GET / HTTP/1.0\r\n\r\n")  # to a TLS port: answered with 400
        assert own.recv(64).startswith(b"HTTP/1.1 400"), "somebody's own connection"
    return {"known_s": known - start, "failed": len(dialer.failed(start - 0.05)),
            "worst_s": max(o.end - o.start for o in dialer.outcomes),
            "ends": [(how, at - start if how else None) for how, at in ends]}


# --- the agent's own account -------------------------------------------------


def metric(world, name, **labels):
    """The sum of a metric's samples with these labels."""
    return sum(value for have, value in metrics(world).get(name, [])
               if all(have.get(k) == v for k, v in labels.items()))


def ended(world, **labels):
    return metric(world, "kubelb_connections_ended_total", **labels)


def state_changes(agent, backend, start=0):
    """The states that the log says a backend went through, from offset start on."""
    lines = [line for line in agent.log()[start:].splitlines()
             if 'msg="backend changed state"' in line and f"backend={backend.endpoint} " in line]
    return [dict(pair.split("=", 1) for pair in line.split() if "=" in pair)["state"]
            for line in lines]


def known(world):
    """Addresses of the backends that are in the list; empty when nothing is attached."""
    with contextlib.suppress(AssertionError):
        return {address for address, entry in backend_status(world).items()
                if entry["state"] != "removed"}
    return set()


def wait_known(world, backends, timeout=10):
    want = {b.endpoint for b in backends}
    wait_until(lambda: known(world) == want,
               lambda: f"the backends {sorted(want)}, there are {sorted(known(world))}", timeout)


# --- kubelbctl events --------------------------------------------------------


def kinds(found, backend):
    return [e["event"] for e in found if e["backend"] == backend.endpoint]


class Follower:
    """A running `kubelbctl events -f -o json`, what it has printed in a list."""

    def __init__(self, world):
        self.process = world.spawn([world.program("kubelbctl"), "--pin", world.pin, "events",
                                    "-f", "-o", "json"])
        self.events = []
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    def wait(self, kind, backend, count=1):
        wait_until(lambda: kinds(self.events, backend).count(kind) >= count,
                   lambda: f"{count} {kind} of {backend.name}, has {self.events}")

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        assert self.process.wait(timeout=5) == 0
        self.thread.join(timeout=5)


# --- a kubeconfig ------------------------------------------------------------


def kubeconfig(world, user, name="kubelet.conf", server="https://127.0.0.1:6443"):
    """Writes one; user: the lines of its user."""
    path = os.path.join(world.dir, name)
    lines = "".join(f"    {line}\n" for line in user.splitlines())
    text = ("apiVersion: v1\nkind: Config\ncurrent-context: c\n"
            f"clusters:\n- name: k\n  cluster:\n    server: {server}\n"
            f"    certificate-authority: {world.ca}\n"
            "contexts:\n- name: c\n  context: {cluster: k, user: u}\n"
            f"users:\n- name: u\n  user:\n{lines}")
    with open(path + ".new", "w", encoding="utf-8") as f:
        f.write(text)
    os.chmod(path + ".new", 0o600)
    os.rename(path + ".new", path)
    return path
