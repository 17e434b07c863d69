# SPDX-License-Identifier: BSD-2-Clause
"""What the tests share: dialling, counting, reading maps, judging exits."""

import contextlib
import ctypes
import errno
import glob
import http.client
import json
import math
import os
import re
import signal
import socket
import ssl
import subprocess
import threading
import time

import pytest

from backend import PORT
from system import WorldError, inside, wait_until

SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)( \d+)?')
LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"(?:,|$)')
V4 = "127.0.0.1"
V6 = "::1"
MAPPED = "::ffff:127.0.0.1"


# --- exits -------------------------------------------------------------------


def ok(done):
    """The program has done it."""
    assert done.returncode == 0, f"{done.args}: exit {done.returncode}: {done.stderr}"
    return done


def fails(done, status, *words):
    """The program has refused, with one line that a person can act on."""
    assert done.returncode == status, \
        f"{done.args}: exit {done.returncode}, want {status}: {done.stderr}"
    lines = done.stderr.splitlines()
    assert len(lines) == 1, f"want one line on stderr, have {len(lines)}:\n{done.stderr}"
    for word in words:
        assert word in lines[0], f"{word!r} is not in: {lines[0]}"
    return lines[0]


def next_version(stage, variant="abi-next", program="kubelb-load"):
    """A program of a build with another ABI."""
    path = os.path.join(stage.build, variant, program)
    if not os.access(path, os.X_OK):
        pytest.skip(f"{path} is not built (make abi-next)")
    return path


def load_argv(stage, program, group):
    return [program, "-c", stage.config, "--pin", stage.pin, "--cgroup", group]


# --- connecting --------------------------------------------------------------


def make_socket(world, family, ns=None, kind=socket.SOCK_STREAM):
    """A socket of that namespace (the node's), for this thread to use anywhere."""
    with inside(ns or world.node):
        return socket.socket(family, kind)


def dial(world, host=V4, port=PORT, ns=None, v6only=None, bind=None, timeout=5):
    """A TCP connection from the node (or ns); OSError when it fails."""
    sock = make_socket(world, socket.AF_INET6 if ":" in host else socket.AF_INET, ns)
    try:
        sock.settimeout(timeout)
        if v6only is not None:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
        if bind:
            sock.bind((bind, 0))
        sock.connect((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def dial_error(world, *args, **kwargs):
    """The errno's name that a connect fails with; None when it succeeds."""
    try:
        dial(world, *args, **kwargs).close()
    except TimeoutError:
        return "ETIMEDOUT"
    except OSError as e:
        return errno.errorcode[e.errno]
    return None


class Kept:
    """One TLS connection, kept open, with requests on it."""

    def __init__(self, world, host=V4, port=PORT, context=None, session=None, **kwargs):
        context = context or ssl.create_default_context(cafile=world.ca)
        raw = dial(world, host, port, **kwargs)
        try:
            self.sock = context.wrap_socket(raw, server_hostname=host.removeprefix("::ffff:"),
                                            session=session)
        except BaseException:
            raw.close()
            raise

    def send(self, path, token=None):
        bearer = f"Authorization: Bearer {token}\r\n" if token else ""
        self.sock.sendall(f"GET {path} HTTP/1.1\r\nHost: kubernetes\r\n{bearer}\r\n".encode())

    def response(self):
        """The answer's head; the body is there to be read."""
        response = http.client.HTTPResponse(self.sock)
        response.begin()
        return response

    def get(self, path="/version", token=None):
        self.send(path, token)
        response = self.response()
        return response.status, response.read().decode()

    def backend(self):
        """The name of the control plane on the other end, by its own account."""
        return json.loads(self.get("/version")[1])["backend"]

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def served_by(world, host=V4, port=PORT, **kwargs):
    """Which control plane serves a new connection."""
    with Kept(world, host, port, **kwargs) as connection:
        return connection.backend()


def served_set(world, n=30, **kwargs):
    """The control planes that serve n new connections."""
    return {served_by(world, **kwargs) for _ in range(n)}


def kept_to(world, name, tries=100):
    """A kept connection that the named control plane serves."""
    seen = []
    for _ in range(tries):
        connection = Kept(world)
        seen.append(connection.backend())
        if seen[-1] == name:
            return connection
        connection.close()
    raise AssertionError(f"{tries} connects, and none went to {name}: "
                         f"{ {n: seen.count(n) for n in seen} }; {dump(world, 'stats')[:5]}")


class Listener:
    """Somebody else's server: counts what reaches it. TCP, or UDP datagrams."""

    def __init__(self, world, host, port, ns=None, kind=socket.SOCK_STREAM):
        self.sock = make_socket(world, socket.AF_INET6 if ":" in host else socket.AF_INET,
                                ns, kind)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.bind((host, port))
        self.stream = kind == socket.SOCK_STREAM
        self.count = 0
        if self.stream:
            self.sock.listen(512)
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                if self.stream:
                    self.sock.accept()[0].close()
                else:
                    self.sock.recvfrom(64)
                self.count += 1

    def wait(self, count, timeout=5):
        wait_until(lambda: self.count == count,
                   lambda: f"{count} at the listener, has {self.count}", timeout)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        self.thread.join(timeout=5)


# --- the C client ------------------------------------------------------------


def summary(output):
    """nbconnect's last line."""
    return json.loads(output.splitlines()[-1])


def nbconnect(world, *args, **kwargs):
    """Runs the C client to its end; its summary, with its other lines."""
    done = world.exec([world.client, *args], timeout=60, **kwargs)
    assert done.returncode in (0, 1), done.stderr
    return {**summary(done.stdout), "lines": done.stdout.splitlines()[:-1]}


class Held:
    """K connections at once, held by the C client until close(). prefix: a command that
    starts it."""

    def __init__(self, world, count, *args, host=V4, prefix=(), **kwargs):
        self.process = world.spawn([*prefix, world.client, "--hold", count, *args, host], **kwargs)
        self.summary = None
        line = ""
        for line in self.process.stdout:
            if line.startswith("held "):
                break
        assert line == f"held {count}\n", f"nbconnect held: {line!r}"

    def kill9(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        if self.summary is None:
            output, _ = self.process.communicate("", timeout=30)
            self.summary = summary(output)
        return self.summary

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.process.poll() is None:
            self.close()


def catches(pid, number):
    """Has the process a handler for that signal?"""
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        fields = dict(line.split(":", 1) for line in f)
    return bool(int(fields["SigCgt"], 16) >> (number - 1) & 1)


def wait_stopped(process):
    """Until SIGSTOP has reached it."""
    def state():
        with open(f"/proc/{process.pid}/stat", encoding="ascii", errors="replace") as f:
            return f.read().rpartition(")")[2].split()[0]

    wait_until(lambda: state() == "T", lambda: f"it to stop, is {state()}")


class Traffic:
    """A steady stream of connects for as long as the block takes. The block
    ends with an assertion that not one of them has failed."""

    def __init__(self, world, rate=200, host=V4):
        self.rate = rate
        self.world = world
        self.argv = [world.client, "--rate", rate, "--seconds", 300, host]

    def __enter__(self):
        self.start = time.monotonic()
        self.process = self.world.spawn(self.argv)
        # Until then SIGTERM would end it, or nsenter before it, without a summary.
        wait_until(lambda: catches(self.process.pid, signal.SIGTERM), "the client to start")
        return self

    def __exit__(self, kind, *exc):
        took = time.monotonic() - self.start
        self.process.send_signal(signal.SIGTERM)
        output, _ = self.process.communicate(timeout=30)
        if kind:
            return
        result = summary(output)
        assert result["failed"] == 0, f"{result} in {took:.1f} s of traffic"
        assert result["ok"] >= self.rate * took * 0.5 - 20, \
            f"only {result['ok']} connects in {took:.1f} s at {self.rate}/s"


# --- counting ----------------------------------------------------------------


class Accepts:
    """Connections that each control plane's nginx has accepted since now: the
    servers' own count, which no program of ours has touched."""

    def __init__(self, world):
        self.backends = world.backends
        self.start = self.total()

    def total(self):
        return {b.name: b.accepted() for b in self.backends}

    def now(self):
        return {name: n - self.start[name] for name, n in self.total().items()}

    def settled(self, total, timeout=10):
        """The counts once they add up to total; a connect is over for the
        client before the server has accepted it."""
        with contextlib.suppress(WorldError):
            wait_until(lambda: sum(self.now().values()) == total, "", timeout)
        counts = self.now()
        assert sum(counts.values()) == total, f"want {total} accepted, have {counts}"
        return counts


def within_3_sigma(counts, weights):
    """counts and weights by name: is every count within three standard
    deviations of what its weight promises?"""
    n, whole = sum(counts.values()), sum(weights.values())
    for name, weight in weights.items():
        p = weight / whole
        if abs(counts[name] - n * p) > 3 * math.sqrt(n * p * (1 - p)):
            return False
    return True


def assert_spread(draw, weights):
    """draw() returns counts by name. A fair draw misses three sigma once in
    two hundred times or so; a second, independent one decides."""
    first = draw()
    if within_3_sigma(first, weights):
        return
    second = draw()
    assert within_3_sigma(second, weights), \
        f"twice outside of 3 sigma of {weights}: {first}, {second}"


# --- what is in the kernel ---------------------------------------------------


def bpftool(*args):
    done = subprocess.run(["bpftool", "-j", *map(str, args)], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, f"bpftool {args}: {done.stdout}{done.stderr}"
    return json.loads(done.stdout or "null")


def bpftool_ok(*args):
    return subprocess.run(["bpftool", "-j", *map(str, args)], capture_output=True,
                          check=False).returncode == 0


def dump(world, name):
    """(key, value) of a pinned map's entries, with the names that BTF gives."""
    entries = bpftool("map", "dump", "pinned", f"{world.pin}/{name}")
    return [(e["formatted"]["key"], e["formatted"]["value"]) for e in entries]


def raw_maps(world):
    """Everything that user space has written, bytes as they are."""
    written = ("frontends", "candidates", "backends", "admin", "control")
    return {name: [(e["key"], e["value"])
                   for e in bpftool("map", "dump", "pinned", f"{world.pin}/{name}")]
            for name in written if name in pins(world)}


def counters(world):
    return dump(world, "counters")[0][1]


def address_text(addr):
    """16 bytes of a map, to text; IPv4 without its prefix."""
    data = bytes(int(b, 0) if isinstance(b, str) else b for b in addr)
    if data[:12] == bytes(10) + b"\xff\xff":
        return socket.inet_ntop(socket.AF_INET, data[12:])
    return socket.inet_ntop(socket.AF_INET6, data)


def backend_ids(world):
    """name -> id of the backends that are in the map now."""
    by_address = {a: b.name for b in world.backends for a in (b.v4, b.v6)}
    ids = {}
    for key, value in dump(world, "backends"):
        name = by_address.get(address_text(value["endpoint"]["addr"]))
        if name and value["endpoint"]["port"]:
            ids[name] = key
    return ids


def stats(world, field):
    """name -> a field of `stats`."""
    values = dict(dump(world, "stats"))
    return {name: values[i][field] for name, i in backend_ids(world).items()}


def wait_idle(world):
    """Until no connection counts as active any more."""
    wait_until(lambda: set(stats(world, "active").values()) <= {0},
               lambda: f"active to return to 0, is {stats(world, 'active')}", 10)


def carried(stage):
    """id -> connections, of every id that has some: also of those that no
    backend has any more, where a count that went below 0 would show."""
    return {i: value["active"] + value["connecting"] for i, value in dump(stage, "stats")
            if value["active"] or value["connecting"]}


def wait_carried(stage, count, timeout=5):
    wait_until(lambda: sum(carried(stage).values()) == count,
               lambda: f"{count} connections to be counted, are {carried(stage)}", timeout)


def pins(world):
    return sorted(os.path.relpath(os.path.join(d, f), world.pin)
                  for d, _dirs, files in os.walk(world.pin) for f in files)


def places(stage):
    """Everything at or beside the pin directory: where it is, and which it is."""
    found = {}
    for top in glob.glob(glob.escape(stage.pin) + "*"):
        found[top] = os.lstat(top).st_ino
        for directory, names, files in os.walk(top):
            for name in names + files:
                path = os.path.join(directory, name)
                found[path] = os.lstat(path).st_ino
    return found


def link_pins(world):
    return [p for p in pins(world) if p.startswith("links/")]


def objects(world):
    """The ids of the programs, maps and links that are pinned for this world,
    and of the maps that its programs use beyond these."""
    links = [bpftool("link", "show", "pinned", f"{world.pin}/{p}")
             for p in link_pins(world)]
    progs = {link["prog_id"] for link in links}
    if "adjust" in pins(world):
        progs.add(bpftool("prog", "show", "pinned", f"{world.pin}/adjust")["id"])
    maps = set()
    for path in pins(world):
        if not re.match("links/|adjust", path):
            maps.add(bpftool("map", "show", "pinned", f"{world.pin}/{path}")["id"])
    for prog in progs:
        maps.update(bpftool("prog", "show", "id", prog).get("map_ids", []))
    return {"link": {link["id"] for link in links}, "prog": progs, "map": maps}


def attached_programs(world):
    """Ids of the programs behind the links."""
    return {bpftool("link", "show", "pinned", f"{world.pin}/{p}")["prog_id"]
            for p in link_pins(world)}


def still_there(ids):
    """Those of objects() that the kernel still has."""
    return {kind: [i for i in numbers if bpftool_ok(kind, "show", "id", i)]
            for kind, numbers in ids.items()}


def klb_names():
    """(kind, id) of everything in the kernel that carries our name."""
    found = set()
    for kind in ("prog", "map"):
        found |= {(kind, o["id"]) for o in bpftool(kind, "list") or []
                  if o.get("name", "").startswith("klb_")}
    return found


def attached_ids(cgroup):
    """Ids of the programs attached anywhere below a cgroup."""
    done = subprocess.run(["bpftool", "cgroup", "tree", cgroup], capture_output=True, text=True,
                          check=False)
    return {int(m.group(1)) for m in re.finditer(r"^\s*(\d+)\s+\S+", done.stdout, re.MULTILINE)}


# --- kubelbctl, the agent ----------------------------------------------------


def backend_status(world):
    """`kubelbctl status -o json`, the backends by address. The only place that
    knows how that document looks."""
    document = json.loads(ok(world.ctl("status", "-o", "json")).stdout)
    return {entry["address"]: entry for entry in document["backends"]}


def state_of(world, backend):
    """The agent's verdict; None before there is one. A backend that was never
    probed is shown as ready, for so it counts, but that is nobody's verdict."""
    try:
        entry = backend_status(world)[backend.endpoint]
    except (AssertionError, KeyError):
        return None  # nothing attached yet
    return entry["state"] if entry["lastProbeSecondsAgo"] is not None else None


def wait_states(world, state, backends, timeout=10):
    for backend in backends:
        wait_until(lambda b=backend: state_of(world, b) == state,
                   lambda b=backend: f"{b.name} to be {state}, is {state_of(world, b)}", timeout)


def agent_serves(world):
    """Is the agent's HTTP server up?"""
    try:
        return http_call(world, "GET", "/healthz")[0] == 200
    except OSError:
        return False


def ready(stage):
    return http_call(stage, "GET", "/readyz")[0] == 200


def beats(stage):
    """Does the agent's heart beat where the programs look?"""
    def last():
        return dump(stage, "control")[0][1]["heartbeat_ns"]

    before = last()
    with contextlib.suppress(WorldError):
        return wait_until(lambda: last() > before, "", 2)
    return False


def weight_of(world, backend):
    return backend_status(world)[backend.endpoint]["weight"]


def about(entry):
    """Everything a status entry says, as text, for words in its reason."""
    return json.dumps(entry).lower()


def http_call(world, method, path, port=8081):
    """A request to the agent's own HTTP server; (status, headers, body)."""
    connection = http.client.HTTPConnection(V4, port, timeout=5)
    connection.sock = dial(world, V4, port)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.headers, response.read().decode()
    finally:
        connection.close()


def metrics_page(world):
    status, headers, body = http_call(world, "GET", "/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    assert body.endswith("\n")
    return body


def metrics(world):
    """name -> [(labels, value)], and every line checked on the way."""
    return metrics_of(metrics_page(world))[0]


def metrics_of(body):
    """The same of a page, and name -> type."""
    found, types = {}, {}
    for line in body.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in types, f"two TYPE lines for {name}"
            types[name] = kind
        if line.startswith("#") or not line:
            continue
        match = SAMPLE.fullmatch(line)
        assert match, line
        labels = dict(LABEL.findall(match.group(2) or ""))
        found.setdefault(match.group(1), []).append((labels, float(match.group(3))))
    for name in found:
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        assert name in types or base in types, f"{name} has no TYPE"
    return found, types


def by_backend(samples, **where):
    return {labels["backend"]: value for labels, value in samples
            if all(labels.get(k) == v for k, v in where.items())}


# --- a disk that hangs -------------------------------------------------------

FAN_CLASS_CONTENT, FAN_CLOEXEC = 0x4, 0x1
FAN_MARK_ADD, FAN_OPEN_PERM, FAN_ONDIR = 0x1, 0x10000, 0x40000000


@contextlib.contextmanager
def hanging(*paths):
    """Whoever opens one of these files or directories waits until this ends, as on a disk that
    does not answer: the kernel asks this process for its permission, and gets no reply."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC, os.O_RDONLY)
    if fd < 0:
        pytest.skip(f"fanotify: {os.strerror(ctypes.get_errno())}")
    try:
        for path in paths:
            if libc.fanotify_mark(fd, FAN_MARK_ADD, ctypes.c_uint64(FAN_OPEN_PERM | FAN_ONDIR), -1,
                                  os.fsencode(path)):
                pytest.skip(f"fanotify: {os.strerror(ctypes.get_errno())}")
        yield
    finally:
        os.close(fd)
