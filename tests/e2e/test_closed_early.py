# SPDX-License-Identifier: BSD-2-Clause
"""A backend that accepts connections and ends them without data: a proxy whose apiserver is gone,
say. It always has the fewest connections, so without evidence against it least-conn would send
everything there. No agent runs in these tests."""

import json
import socket
import time

import pytest

from backend import PORT
from helpers import V4, backend_status, dial, make_socket, ok, served_by, served_set, stats
from system import wait_until

ALL = {"cp1", "cp2", "cp3"}

# How it ends each connection that it has accepted.
CLOSE = "c.close()"
RESET = "c.setsockopt(1, 13, struct.pack('ii', 1, 0)); c.close()"
CLOSE_WHEN_ASKED = "c.recv(1); c.close()"
RESET_WHEN_ASKED = "c.recv(1); " + RESET
ANSWER = "c.recv(1); c.sendall(b'x'); held.append(c)"
CLOSE_IDLE = "held.append(c); time.sleep(1.3); c.close()"

SERVER = f"""
import socket, struct, threading, time
held = []
def handle(c):
    HOW
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("", {PORT}))
s.listen(128)
print("listening", flush=True)
while True:
    threading.Thread(target=handle, args=s.accept()[:1], daemon=True).start()
"""


def serve(stage, how, backend=1):
    """In the place of a control plane's nginx, until the stage is reset."""
    cp = stage.cp(backend)
    cp.kill()
    server = stage.spawn(["python3", "-c", SERVER.replace("HOW", how)], ns=cp.ns)
    assert server.stdout.readline().strip() == "listening"
    return server


def end(server):
    server.kill()
    server.wait(timeout=5)


def ask(stage):
    """Sends something and reads what comes back: b"" for an end, None for a reset."""
    with make_socket(stage, socket.AF_INET) as sock:
        sock.settimeout(5)
        sock.connect((V4, PORT))
        try:
            sock.sendall(b"hello")
            return sock.recv(100)
        except (ConnectionResetError, BrokenPipeError):
            return None


def events(stage, kind):
    lines = ok(stage.ctl("events", "-o", "json")).stdout.splitlines()
    return [e for e in map(json.loads, lines) if e["event"] == kind]


def alone(stage):
    """Attached, with cp1 as the only backend."""
    stage.configure(backends=[stage.cp(1).endpoint])
    ok(stage.load())


@pytest.mark.parametrize("how", [CLOSE, RESET, CLOSE_WHEN_ASKED, RESET_WHEN_ASKED])
def test_others_are_preferred(attached, how):
    """Of 60 connects in three seconds a few go there: the first, and those that try again."""
    serve(attached, how)
    held = []
    for _ in range(60):
        try:
            connection = dial(attached)
        except ConnectionResetError:  # so early
            continue
        held.append(connection)
        connection.setblocking(False)
        try:
            connection.send(b"GET / HTTP/1.0\r\n\r\n")
        except OSError:
            pass
        time.sleep(0.05)
    opened = stats(attached, "opened")
    for connection in held:
        connection.close()
    assert 1 <= opened["cp1"] <= 6, opened
    assert stats(attached, "streak")["cp1"] >= 2, "a handshake alone restores nothing"
    assert {e["backend"] for e in events(attached, "closed-early")} == {attached.cp(1).endpoint}
    assert not events(attached, "restored")


def test_status_says_so(stage):
    alone(stage)
    server = serve(stage, CLOSE)
    assert ask(stage) in (b"", None)
    wait_until(lambda: stats(stage, "closed_early")["cp1"] == 1, "the end to be counted")
    status = backend_status(stage)[stage.cp(1).endpoint]
    assert status["state"] == "ejected", status
    assert "it closes connections without sending data; for " in ok(stage.ctl("status")).stdout
    end(server)


def test_data_restores(stage):
    """Not the handshake: that the broken one gives as well."""
    alone(stage)
    server = serve(stage, CLOSE_WHEN_ASKED)
    assert ask(stage) in (b"", None)
    end(server)
    serve(stage, ANSWER)
    assert ask(stage) == b"x"
    wait_until(lambda: stats(stage, "evidence")["cp1"] == "KLB_EVIDENCE_NONE",
               "the backend to be restored")
    assert stats(stage, "closed_early")["cp1"] == 0 and stats(stage, "streak")["cp1"] == 0
    assert len(events(stage, "restored")) == 1


def test_what_serves_others_is_well(stage):
    """A client that talks nonsense is sent away; the others have data meanwhile."""
    alone(stage)
    serve(stage, "c.sendall(b'x') if c.recv(1) == b'h' else c.close(); held.append(c)")
    with make_socket(stage, socket.AF_INET) as rude:
        rude.settimeout(5)
        rude.connect((V4, PORT))
        assert ask(stage) == b"x"
        rude.sendall(b"?")
        assert rude.recv(1) == b""
    assert stats(stage, "closed_early")["cp1"] == 0
    assert not events(stage, "closed-early")


def test_idle_connection_may_be_closed(stage):
    """A server closes a connection on which nothing is asked after some time."""
    alone(stage)
    serve(stage, CLOSE_IDLE)
    with dial(stage) as idle:
        idle.settimeout(5)
        assert idle.recv(1) == b""
    wait_until(lambda: stats(stage, "active")["cp1"] == 0, "the connection to be over")
    assert stats(stage, "closed_early")["cp1"] == 0
    assert stats(stage, "evidence")["cp1"] == "KLB_EVIDENCE_NONE"
    assert stats(stage, "last_answer_ns")["cp1"] == 0, "the peer's FIN is no data"


def test_well_afterwards(attached):
    """The same address with a real server again: it takes its share."""
    server = serve(attached, CLOSE)
    for _ in range(3):
        ask(attached)
    end(server)
    attached.cp(1).start()
    wait_until(lambda: served_by(attached) == "cp1", "cp1 to serve again", timeout=15)
    assert served_set(attached, 30) == ALL
