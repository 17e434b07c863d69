# SPDX-License-Identifier: BSD-2-Clause
"""The agent's http address in the hands of whoever reaches it: raw sockets, no client
library that would be too polite."""

import contextlib
import os
import select
import socket
import time

import pytest

from helpers import V4, agent_serves, dial, dial_error, http_call, state_of, wait_states
from system import wait_until

PORT = 8081
# user/net/http_server.c
CONNECTIONS = 64
REQUEST_S = 10
HEAD_MAX = 8192
PATHS = ["/metrics", "/healthz", "/readyz"]


def exchange(stage, data, timeout=5):
    """All that comes back for some bytes until the agent closes."""
    with dial(stage, port=PORT, timeout=timeout) as sock:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(data)
        return read_all(sock)


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
    (b"GET / HTTP/1.0\r\n\r\n", 404),
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
    """Far more of them than it keeps: the oldest go, and every probe is answered at once."""
    agent = balanced.running
    before = descriptors(agent)
    with contextlib.ExitStack() as stack:
        held = []
        for _ in range(6):
            held += [stack.enter_context(dial(balanced, port=PORT)) for _ in range(100)]
            start = time.monotonic()
            assert http_call(balanced, "GET", "/healthz")[0] == 200
            assert time.monotonic() - start < 1
        wait_until(lambda: sum(map(is_closed, held)) >= 600 - CONNECTIONS, "the oldest to go")
        assert is_closed(held[0]) and not is_closed(held[-1])
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


def test_memory_stays_flat(balanced):
    """The same abuse again and again costs nothing more."""
    agent = balanced.running

    def abuse():
        for data in (b"GET /" + b"a" * 100_000, b"GET /metrics HTTP/1.1\r\n" + b"A: b\r\n" * 9000,
                     b"\x16\x03\x01" * 1000, request("/metrics", headers="") * 200 + request(),
                     request("/healthz", "POST", "Content-Length: 100000\r\n") + b"x" * 100000):
            exchange(balanced, data)
        with contextlib.ExitStack() as stack:
            for _ in range(2 * CONNECTIONS):
                sock = stack.enter_context(dial(balanced, port=PORT))
                with contextlib.suppress(OSError):
                    sock.sendall(b"GET /metrics HTTP/1.1\r\n" + b"X" * (HEAD_MAX - 100))

    for _ in range(5):
        abuse()
    before = memory(agent)
    for _ in range(25):
        abuse()
    after = memory(agent)
    assert after - before < 512, f"{before} KiB, then {after} KiB"
    assert after < 16 * 1024
    assert works(balanced)


def test_never_reading_costs_little(balanced):
    """Answers that nobody reads: one at a time, the next request waits."""
    agent = balanced.running
    before = memory(agent)
    with contextlib.ExitStack() as stack:
        for _ in range(CONNECTIONS):
            sock = stack.enter_context(dial(balanced, port=PORT))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                for _ in range(100):
                    sock.send(request("/metrics", headers="") * 100)
        wait_until(lambda: http_call(balanced, "GET", "/healthz", PORT)[0] == 200, "an answer")
        assert memory(agent) - before < 4096
    assert dial_error(balanced, V4, PORT) is None
