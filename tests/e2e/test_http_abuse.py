# SPDX-License-Identifier: BSD-2-Clause
"""The agent's http address in the hands of whoever reaches it: raw sockets, no client
library that would be too polite."""

import contextlib
import json
import os
import select
import socket
import subprocess
import time

import pytest

from helpers import (V4, agent_serves, dial, dial_error, dump, fails, http_call, make_socket, ok,
                     state_of, wait_states)
from system import inside, wait_until

PORT = 8081
# user/net/http_server.c
CONNECTIONS = 512
REQUEST_S = 10
HEAD_MAX = 8192
NOBODY = 65534
PATHS = ["/metrics", "/healthz", "/readyz"]


def exchange(stage, data, timeout=5):
    """All that comes back for some bytes until the agent closes."""
    with dial(stage, port=PORT, timeout=timeout) as sock:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(data)
        return read_all(sock)


def dial_as_user(stage, user=NOBODY):
    """A connection of somebody who is not root: a socket's user is its inode's."""
    sock = dial(stage, port=PORT)
    os.fchown(sock.fileno(), user, -1)
    return sock


def read_all(sock):
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(65536):
            received += piece
    return received


def request(path="/healthz", method="GET", headers="Connection: close\r\n"):
    return f"{method} {path} HTTP/1.1\r\nHost: a\r\n{headers}\r\n".encode()


def status(answer):
    """Of an answer's first line; each request gets exactly one answer."""
    assert answer.count(b"\r\nDate: ") == 1, answer
    return int(answer.split(b" ", 2)[1])


def is_closed(sock):
    """Whether the other side has closed, and nothing is left to be read."""
    sock.setblocking(False)
    try:
        while sock.recv(65536):
            pass
        return True
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    finally:
        sock.setblocking(True)


def memory(agent):
    """Resident, in KiB."""
    with open(f"/proc/{agent.pid}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))


def descriptors(agent):
    return len(os.listdir(f"/proc/{agent.pid}/fd"))


def cpu_seconds(agent):
    with open(f"/proc/{agent.pid}/stat", encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def works(stage):
    """Probes are answered, and the agent does its work."""
    return agent_serves(stage) and http_call(stage, "GET", "/readyz")[0] == 200 and \
        {state_of(stage, b) for b in stage.backends} == {"ready"}


# --- what it answers ---------------------------------------------------------


def test_loopback_unless_told_otherwise(stage):
    """Nobody outside of the host reaches it, whatever address they try."""
    stage.configure(http=None)
    stage.agent()
    wait_until(lambda: agent_serves(stage), "the agent to serve")
    pod = stage.pod()
    for host in (stage.node_v4, stage.node_v6):
        assert dial_error(stage, host, PORT, ns=pod) == "ECONNREFUSED"
        assert dial_error(stage, host, PORT) == "ECONNREFUSED"


@pytest.mark.parametrize("path", PATHS)
def test_get_and_head_and_nothing_else(balanced, path):
    got = exchange(balanced, request(path))
    head, body = got.split(b"\r\n\r\n", 1)
    assert status(got) == 200 and body
    assert f"Content-Length: {len(body)}".encode() in head
    told = exchange(balanced, request(path, "HEAD"))
    assert status(told) == 200 and told.endswith(b"\r\n\r\n")
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "GETT", "GE"):
        refused = exchange(balanced, request(path, method))
        assert status(refused) == 405 and b"Allow: GET, HEAD\r\n" in refused, method


@pytest.mark.parametrize("data, want", [
    (b"GET /index.html HTTP/1.0\r\n\r\n", 404),
    (b"GET /metrics/../../etc/passwd HTTP/1.0\r\n\r\n", 404),
    (b"GET http://127.0.0.1:8081/metrics HTTP/1.0\r\n\r\n", 404),
    (b"GET " + b"/metrics" * 1000 + b" HTTP/1.0\r\n\r\n", 404),
    (b"GET /healthz HTTP/1.0\n\n", 200),
    (b"GET /healthz\r\n\r\n", 400),
    (b"GET  /healthz HTTP/1.1\r\n\r\n", 400),
    (b"GET /healthz HTTP/1.1 \r\n\r\n", 505),
    (b"get /healthz HTTP/1.0\r\n\r\n", 405),
    (b"GET /health\0z HTTP/1.1\r\n\r\n", 400),
    (b"GET /healthz HTTP/1.1\r\nA : b\r\n\r\n", 400),
    (b"GET /health\rz HTTP/1.1\r\n\r\n", 400),
    (b"GET /healthz HTTP/1.1\r\nA: b\rB: c\r\n\r\n", 400),
    (b"GET /healthz HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400),
    (b"GET /healthz HTTP/1.1\r\nno colon\r\n\r\n", 400),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    (b"\r\n\r\n", 400),
    (b"GET /healthz HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 413),
    (b"GET /healthz HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 413),
    (b"POST /healthz HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 405),
    (b"POST /healthz HTTP/1.1\r\nContent-Length: 999999999999\r\n\r\n" + b"x" * 100000, 405),
    (b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n\r\n", 431),
    (b"GET /healthz HTTP/1.1\r\n" + b"A: b\r\n" * 100_000, 431),
], ids=lambda v: repr(v)[:40])
def test_what_is_no_request_for_us(balanced, data, want):
    """Refused in words, once, and the connection is closed: what follows is not looked at."""
    assert status(exchange(balanced, data)) == want


def test_no_second_request_is_smuggled(balanced):
    """A body that a proxy skips and a server takes for a request."""
    inner = request("/metrics")
    for framing in (f"Content-Length: {len(inner)}\r\n", "Transfer-Encoding: chunked\r\n",
                    "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
                    "Content-Length: 0\r\nContent-Length: 5\r\n", "content-length: +0\r\n"):
        for method in ("GET", "POST"):
            answer = exchange(balanced, request("/healthz", method, framing) + inner)
            assert status(answer) in (405, 413), framing
            assert b"kubelb_" not in answer


def test_pipelined_requests_wait_for_their_turn(balanced):
    """Answered in order, one after the other, on one connection."""
    many = b"".join(request(path, headers="") for path in PATHS * 20) + request()
    answers = exchange(balanced, many)
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == 61
    assert answers.count(b"kubelb_build_info{") == 20


# --- whom it does not wait for -----------------------------------------------


def test_nobody_holds_a_connection(balanced):
    """Idle, dribbling, or never reading: after ten seconds each of them is out; a byte
    now and then buys no time."""
    idle, dribble, reader, half = (dial(balanced, port=PORT) for _ in range(4))
    half.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n")
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    reader.setblocking(False)
    start = time.monotonic()
    over = {}
    head = iter(b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 1000)
    pipeline = request("/metrics", headers="") * 50
    while len(over) < 4 and time.monotonic() - start < REQUEST_S + 5:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, BlockingIOError):
            dribble.send(bytes([next(head)]))
        with contextlib.suppress(BlockingIOError):
            try:  # asks on and on
                reader.send(pipeline)
            except (BrokenPipeError, ConnectionResetError):
                over.setdefault("reader", time.monotonic() - start)
        for name, sock in (("idle", idle), ("dribble", dribble), ("half", half)):
            if name not in over and is_closed(sock):
                over[name] = time.monotonic() - start
        select.select([], [], [], 0.1)
    for sock in (idle, dribble, reader, half):
        sock.close()
    assert set(over) == {"idle", "dribble", "half", "reader"}, over
    assert all(REQUEST_S - 1 < t < REQUEST_S + 3 for t in over.values()), over
    assert works(balanced)


def test_idle_connections_keep_no_probe_out(balanced):
    """Far more of them than it keeps: some go, and every probe is answered at once."""
    agent = balanced.running
    before = descriptors(agent)
    with contextlib.ExitStack() as stack:
        held = []
        for _ in range(6):
            held += [stack.enter_context(dial(balanced, port=PORT)) for _ in range(100)]
            start = time.monotonic()
            assert http_call(balanced, "GET", "/healthz")[0] == 200
            assert time.monotonic() - start < 1
        wait_until(lambda: sum(map(is_closed, held)) >= 600 - CONNECTIONS, "some of them to go")
        assert descriptors(agent) <= before + CONNECTIONS
        assert works(balanced)
    wait_until(lambda: descriptors(agent) <= before + 1, "their descriptors to be given back")


def test_out_of_descriptors(stage):
    """It does not spin, it goes on probing, and it answers again when there are some."""
    agent = stage.agent(prefix=["prlimit", "--nofile=4096:4096"])
    wait_states(stage, "ready", stage.backends)
    wait_until(lambda: agent_serves(stage), "the agent to serve")
    limit = descriptors(agent) + 20
    stage.exec(["prlimit", "--pid", str(agent.pid), f"--nofile={limit}:{limit}"])
    with contextlib.ExitStack() as stack:
        for _ in range(CONNECTIONS):
            stack.enter_context(dial(stage, port=PORT))
        wait_until(lambda: descriptors(agent) >= limit - 2, "the descriptors to be used up")
        start, cpu = time.monotonic(), cpu_seconds(agent)
        select.select([], [], [], 2)
        share = (cpu_seconds(agent) - cpu) / (time.monotonic() - start)
        assert share < 0.3, f"{share:.0%} of a processor"
        assert {state_of(stage, b) for b in stage.backends} == {"ready"}
    wait_until(lambda: agent_serves_soon(stage), "the agent to serve again")


def agent_serves_soon(stage):
    with contextlib.suppress(TimeoutError):
        return agent_serves(stage)
    return False


# What one round of abuse may cost for good: pages that happen to stay, not a leak of 20 bytes for
# each connection.
ROUND_MAX_KIB = 20


def test_memory_stays_flat(balanced):
    """The same abuse again and again costs nothing more."""
    agent = balanced.running

    def abuse():
        for data in (b"GET /" + b"a" * 100_000, b"GET /metrics HTTP/1.1\r\n" + b"A: b\r\n" * 9000,
                     b"\x16\x03\x01" * 1000, request("/metrics", headers="") * 200 + request(),
                     request("/healthz", "POST", "Content-Length: 100000\r\n") + b"x" * 100000):
            exchange(balanced, data)
        with contextlib.ExitStack() as stack:
            for sock in sockets(balanced, stack, 2 * CONNECTIONS):
                sock.connect((V4, PORT))
                with contextlib.suppress(OSError):
                    sock.sendall(b"GET /metrics HTTP/1.1\r\n" + b"X" * (HEAD_MAX - 100))

    for _ in range(4):
        abuse()
    before = memory(agent)
    rounds = 8
    for _ in range(rounds):
        abuse()
    after = memory(agent)
    print(f"MEASURED {before} KiB, then {after} KiB")
    assert after - before < rounds * ROUND_MAX_KIB, f"{before} KiB, then {after} KiB"
    assert after < 16 * 1024
    assert works(balanced)


def sockets(stage, stack, count):
    """So many of the node, made at one visit to its namespace, until the stack ends."""
    with inside(stage.node):
        made = [stack.enter_context(socket.socket()) for _ in range(count)]
    for sock in made:
        sock.settimeout(5)
    return made


def test_never_reading_costs_little(balanced):
    """Answers that nobody reads: one at a time, the next request waits."""
    agent = balanced.running
    before = memory(agent)
    with contextlib.ExitStack() as stack:
        for _ in range(CONNECTIONS):
            sock = stack.enter_context(dial_as_user(balanced))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            sock.setblocking(False)
            with contextlib.suppress(OSError):
                for _ in range(100):
                    sock.send(request("/metrics", headers="") * 100)
        wait_until(lambda: http_call(balanced, "GET", "/healthz", PORT)[0] == 200, "an answer")
        assert memory(agent) - before < 8 * 1024
    assert dial_error(balanced, V4, PORT) is None


# --- a user who asks as much as they can ---------------------------------------

PROBES = 10
# Of one processor. The agent's own limit is lower; machines that run tests are noisy.
SHARE_MAX = 0.15


@contextlib.contextmanager
def flood(stage, kind, clients, user=NOBODY):
    """While it lasts, a user does one thing with many connections, as fast as they can."""
    process = stage.spawn(["setpriv", f"--reuid={user}", "--clear-groups",
                           stage.program("test/httpflood"), PORT, clients, 60, kind])
    try:
        select.select([], [], [], 0.5)  # in full swing
        assert process.poll() is None
        yield
    finally:
        process.kill()
        process.communicate()


def heartbeat_age(stage):
    beat = dump(stage, "control")[0][1]["heartbeat_ns"]
    return (time.clock_gettime_ns(time.CLOCK_MONOTONIC) - beat) / 1e9


@pytest.mark.parametrize("kind, clients", [
    ("keep", 100), ("keep", 1000), ("ask", 100), ("ask", 1000), ("abandon", 100), ("reset", 100),
    ("finish", 100), ("half", 1000), ("bytes", 100), ("deaf", 1000)])
def test_flood_keeps_no_probe_out(balanced, kind, clients):
    """Whatever a user does: the kubelet's probes are answered, the agent does its own work, and
    costs little."""
    agent = balanced.running
    with flood(balanced, kind, clients):
        start, cpu, slow = time.monotonic(), cpu_seconds(agent), 0
        for _ in range(PROBES):
            begin = time.monotonic()
            assert http_call(balanced, "GET", "/healthz")[0] == 200
            # A SYN that is dropped is sent again after a second.
            slow += time.monotonic() - begin > 0.9
            assert time.monotonic() - begin < 3
            assert heartbeat_age(balanced) < 2
            select.select([], [], [], 0.2)
        share = (cpu_seconds(agent) - cpu) / (time.monotonic() - start)
        assert slow <= 2
        assert share < SHARE_MAX, f"{share:.0%} of a processor"
        assert memory(agent) < 24 * 1024
    wait_until(lambda: works(balanced), "all to be as before")


def test_flood_hides_no_hanging_backend(balanced):
    """It is found as soon as without a flood."""
    cp1 = balanced.backends[0]
    with flood(balanced, "keep", 100):
        cp1.stop()
        start = time.monotonic()
        wait_states(balanced, "dead", [cp1])
        assert time.monotonic() - start < 6


def test_users_share_alike(balanced):
    """Who asks a little gets their answer beside a user who asks as much as they can."""
    with flood(balanced, "keep", 1000):
        for _ in range(5):
            with dial_as_user(balanced, NOBODY - 1) as sock:
                sock.sendall(request("/metrics"))
                assert status(read_all(sock)) == 200


def test_requests_of_one_user_are_not_thrown_away(balanced):
    """As long as there are places for all: each of many scrapers gets each of its answers."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(dial_as_user(balanced)) for _ in range(200)]
        for _ in range(3):
            for sock in socks:
                sock.sendall(request("/healthz", headers=""))
            for sock in socks:
                assert sock.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")


# --- whose address it is -------------------------------------------------------


@contextlib.contextmanager
def taken(stage, user):
    """Somebody listens on the agent's port before it does."""
    process = stage.spawn(["setpriv", f"--reuid={user}", "--clear-groups", "/usr/bin/python3",
                           "-m", "http.server", "-b", V4, PORT], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: dial_error(stage, V4, PORT) is None, "the port to be taken")
        yield process
    finally:
        process.kill()
        process.communicate()


def ask_socket(stage, path, page="/readyz", user=0):
    return stage.exec(["setpriv", f"--reuid={user}", "--clear-groups", "curl", "-sS", "-m", "5",
                       "--unix-socket", path, f"http://localhost{page}"])


def test_taken_addresses(stage):
    """Each is named: the port by the program that has it where the agent may look at it, else by its
    user; the path as what it is, for a file of others is not replaced. When they are free, the agent
    has them."""
    path = os.path.join(stage.dir, "agent.sock")
    stage.configure(http=[f"{V4}:{PORT}", f"unix:{path}"])
    with open(path, "w", encoding="ascii") as f:
        f.write("precious")
    with taken(stage, NOBODY) as process:
        agent = stage.agent()
        agent.wait_log(rf"no metrics for now.*(python3 \(pid {process.pid}\)|"
                       rf"a process of user {NOBODY}) listens on 127\.0\.0\.1:8081: /metrics and "
                       "/healthz there are not this agent's")
        agent.wait_log(f"no metrics for now.*{path} exists and is no socket")
        wait_states(stage, "ready", stage.backends)
        with open(path, encoding="ascii") as f:
            assert f.read() == "precious"
    os.remove(path)
    wait_until(lambda: agent_serves_soon(stage) and os.path.exists(path), "the agent to have both", 15)


def test_socket_is_roots_alone(stage):
    """The same pages, also where somebody else has the port; gone at the end, or taken over by the
    next agent where one was killed."""
    path = os.path.join(stage.dir, "run", "agent.sock")
    stage.configure(http=[f"{V4}:{PORT}", f"unix:{path}"])
    with taken(stage, NOBODY):
        agent = stage.agent()
        wait_states(stage, "ready", stage.backends)
        wait_until(lambda: os.path.exists(path), "the socket")
        assert ok(ask_socket(stage, path)).stdout.strip() == "ok"
        assert "kubelb_build_info" in ok(ask_socket(stage, path, "/metrics")).stdout
        fails(ask_socket(stage, path, user=NOBODY), 7)
        assert os.stat(path).st_mode & 0o777 == 0o600
        agent.kill9()
        assert os.path.exists(path)
    agent = stage.agent()
    wait_until(lambda: agent_serves(stage), "the next agent to have both")
    with flood(stage, "keep", 1000):
        assert ok(ask_socket(stage, path, "/healthz")).stdout.strip() == "ok"
    agent.stop()
    assert not os.path.exists(path)


def test_socket_comes_with_a_reload(balanced):
    path = os.path.join(balanced.dir, "later.sock")
    balanced.configure(http=f"unix:{path}")
    wait_until(lambda: ask_socket(balanced, path).returncode == 0, "the socket")
    assert dial_error(balanced, V4, PORT) == "ECONNREFUSED"
    balanced.configure()
    wait_until(lambda: agent_serves_soon(balanced), "the address")
    assert not os.path.exists(path)


def ping(stage, *args):
    return stage.exec([stage.program("kubelbctl"), "ping", *args, "-c", stage.config])


def test_ping(balanced):
    """0 or 1, for probes that run a command."""
    assert ok(ping(balanced)).stdout == "ok\n"
    assert ok(ping(balanced, "ready")).stdout == "ok\n"
    balanced.unload()
    wait_until(lambda: ping(balanced, "ready").returncode == 1, "it not to be ready")
    fails(ping(balanced, "ready"), 1, "not ready: nothing is attached")
    assert ok(ping(balanced)).stdout == "ok\n"
    balanced.running.stop()
    fails(ping(balanced), 1, f"the agent does not answer at {V4}:{PORT}: Connection refused")
    fails(ping(balanced, "now"), 2, "ping takes no argument but 'ready'")
    balanced.configure(http="")
    fails(ping(balanced), 1, "http is off")


def test_ping_by_the_socket(stage):
    path = os.path.join(stage.dir, "ping.sock")
    stage.configure(http=[f"unix:{path}", f"{V4}:{PORT}"])
    fails(ping(stage), 1, f"the agent does not answer at {path}: No such file")
    with taken(stage, NOBODY):
        stage.agent()
        wait_until(lambda: ping(stage).returncode == 0, "the agent to answer")


def test_ping_believes_no_impostor(attached):
    """Whoever has the port may say that all is well."""
    with taken(attached, NOBODY) as process:
        words = f"(pid {process.pid}) listens on {V4}:{PORT}: /metrics and /healthz there are not"
        fails(ping(attached), 1, words)
        shown = ok(attached.ctl("status", "-c", attached.config)).stdout
        assert [line for line in shown.splitlines() if line.startswith("http      TAKEN: ")
                and words in line]
        assert words in json.loads(ok(attached.ctl("status", "-o", "json", "-c",
                                                   attached.config)).stdout)["httpTaken"]
    shown = json.loads(ok(attached.ctl("status", "-o", "json", "-c", attached.config)).stdout)
    assert shown["httpTaken"] is None


def test_ping_ends_in_time(attached):
    """Who takes the connect and says nothing is not waited for."""
    with make_socket(attached, socket.AF_INET) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((V4, PORT))
        sock.listen()
        start = time.monotonic()
        fails(ping(attached), 1, "the agent does not answer", "timed out")
        assert time.monotonic() - start < 10
