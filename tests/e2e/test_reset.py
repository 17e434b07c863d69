# SPDX-License-Identifier: BSD-2-Clause
"""Connections are ended as the backend's own kernel would end them: by a reset, at both ends. Where
no reset arrives, SOCK_DESTROY does it. Neither is held against the backend."""

import contextlib
import json
import select
import socket
import subprocess
import threading

import pytest

from backend import PORT
from helpers import (MAPPED, V4, V6, Held, backend_status, dial, kept_to, make_socket, ok, stats,
                     wait_states)
from observe import end_of, metric
from system import has_mptcp, inside, wait_until

SERVICE = "10.96.0.1"
# struct klb_socket: where its flags lie, and KLB_SOCKET_SEQUENCES.
RECORD_FLAGS, SEQUENCES = 52, 1024
BY_FORCE = "1 connection ended (1 by SOCK_DESTROY"

# In the place of a backend. It says what it reads of each connection, and how that ends.
SERVER = f"""
import errno, socket, struct, threading, time
def handle(c):
    try:
        HOW
        while c.recv(65536):
            pass
        print("closed", flush=True)
    except OSError as e:
        print(errno.errorcode[e.errno], flush=True)
s = socket.create_server(("::", {PORT}), family=socket.AF_INET6, dualstack_ipv6=True)
print("listening", flush=True)
while True:
    threading.Thread(target=handle, args=s.accept()[:1], daemon=True).start()
"""
SILENT = "pass"
ANSWER = "c.sendall(c.recv(1))"
FLOOD = """while True:
            c.sendall(bytes(1000))"""


def serve(stage, how, ns=None):
    """Until the stage is reset."""
    if not ns:
        stage.cp(1).kill()
    server = stage.spawn(["python3", "-c", SERVER.replace("HOW", how)], ns=ns or stage.cp(1).ns)
    assert server.stdout.readline().strip() == "listening"
    return server


def end_at(server):
    """How its connection ended at the backend."""
    assert select.select([server.stdout], [], [], 5)[0], "it has not ended there"
    return server.stdout.readline().strip()


def alone(stage, how, family="v4", **settings):
    """Attached, with one backend that does HOW."""
    cp = stage.cp(1)
    stage.configure(backends=[cp.endpoint if family == "v4" else cp.endpoint6], **settings)
    ok(stage.load())
    return serve(stage, how)


def kill(stage, **kwargs):
    cp = backend_status(stage)
    assert len(cp) == 1
    return ok(stage.ctl("kill", *cp, **kwargs)).stdout


def assert_reset(sock, error=ConnectionResetError):
    sock.settimeout(5)
    with pytest.raises(error):
        while sock.recv(65536):
            pass


def assert_not_blamed(stage):
    """The counts are exact, and nothing is held against the backend."""
    entry, = backend_status(stage).values()
    assert (entry["active"], entry["connecting"], entry["lost"]) == (0, 0, 0)
    assert sum(entry["failed"].values()) == 0 and entry["ejections"] == 0
    assert stats(stage, "closed_early")["cp1"] == 0
    assert stats(stage, "evidence")["cp1"] == "KLB_EVIDENCE_NONE"
    assert ok(stage.ctl("events")).stdout == ""


def record(stage, sock, *value):
    """The bytes of a socket's record; with a value, writes it."""
    key = ["key", *map(str, sock.fileno().to_bytes(4, "little"))]
    what = ["update", "value", *map(str, value)] if value else ["lookup"]
    command = ["bpftool", "-j", "map", what[0], "pinned", f"{stage.pin}/sockets", *key, *what[1:]]
    done = ok(subprocess.run(command, pass_fds=[sock.fileno()], capture_output=True, text=True,
                             check=False))
    return None if value else [int(byte, 16) for byte in json.loads(done.stdout)["value"]]


@contextlib.contextmanager
def no_reset_arrives(stage, tables="iptables"):
    """What a firewall does that trusts no segment of a host that comes in by `lo`."""
    rule = ["INPUT", "-i", "lo", "-p", "tcp", "--tcp-flags", "RST", "RST", "-j", "DROP"]
    ok(stage.exec([tables, "-I", *rule]))
    try:
        yield
    finally:
        ok(stage.exec([tables, "-D", *rule]))


@pytest.fixture(name="strict")
def strict_fixture(stage):
    """Reverse path filters that take a segment only from where an answer to it would go."""
    names = [f"net.ipv4.conf.{device}.rp_filter" for device in ("all", "lo", "eth0")]
    before = [ok(stage.exec(["sysctl", "-n", name])).stdout.strip() for name in names]
    for name in names:
        stage.sysctl(stage.node, name, "1")
    yield
    for name, value in zip(names, before):
        stage.sysctl(stage.node, name, value)


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("host,family", [(V4, "v4"), (V6, "v6"), (MAPPED, "v4"), (V6, "v4")])
def test_both_ends_read_a_reset(stage, host, family):
    server = alone(stage, ANSWER, family)
    with dial(stage, host) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        assert "1 connection ended\n" in kill(stage)
        assert_reset(sock)
    assert end_at(server) == "ECONNRESET"
    assert_not_blamed(stage)


def test_pod(stage):
    stage.configure(backends=[stage.cp(1).endpoint],
                    frontends=[{"address": f"{SERVICE}:443", "scope": "all"}])
    ok(stage.load())
    server = serve(stage, ANSWER)
    with dial(stage, SERVICE, 443, ns=stage.pod()) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        assert "1 connection ended\n" in kill(stage)
        assert_reset(sock)
    assert end_at(server) == "ECONNRESET"
    assert_not_blamed(stage)


def test_backend_without_a_route(stage):
    """The reset needs none to get to the client; the backend does not hear of it."""
    server = alone(stage, ANSWER)
    with dial(stage) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        route = ["ip", "route", "add", "blackhole", f"{stage.cp(1).v4}/32"]
        ok(stage.exec(route))
        try:
            assert "1 connection ended\n" in kill(stage)
            assert_reset(sock)
        finally:
            ok(stage.exec(["ip", "route", "del", *route[3:]]))
    assert_not_blamed(stage)
    server.kill()


@pytest.mark.parametrize("said", [b"", b"hello"])
def test_nothing_is_held_against_the_backend(stage, said):
    """A backend that itself resets such a connection is ejected: it has sent nothing yet."""
    alone(stage, SILENT)
    with dial(stage) as sock:
        sock.sendall(said)
        assert "1 connection ended\n" in kill(stage)
        assert_reset(sock)
        assert_not_blamed(stage)


def test_its_own_reset_still_counts(stage):
    """Also for the next socket with the number, modulo the places, of one that was ended here."""
    alone(stage, SILENT)
    for _ in range(3):
        with dial(stage):
            kill(stage)
    stage.end_processes()
    serve(stage, "c.setsockopt(1, 13, struct.pack('ii', 1, 0)); c.close()")
    with contextlib.suppress(ConnectionResetError), dial(stage) as sock:
        sock.settimeout(5)
        sock.recv(1)
    wait_until(lambda: stats(stage, "closed_early")["cp1"] == 1, "the end to be counted")


def test_while_connecting(stage):
    """As if the backend had refused it: client-go waits then, and lists nothing anew."""
    stage.configure(backends=[stage.cp(1).endpoint], connectTimeout="5s")
    ok(stage.load())
    stage.cp(1).link(up=False)
    with make_socket(stage, socket.AF_INET) as sock:
        sock.setblocking(False)
        sock.connect_ex((V4, PORT))
        assert "1 connection ended\n" in kill(stage)
        assert_reset(sock, ConnectionRefusedError)
    assert_not_blamed(stage)


@pytest.mark.parametrize("client,error", [("shut", ConnectionResetError), ("unread", None)])
def test_half_closed(stage, client, error):
    """The client has sent its FIN, or has data that it has not read yet: that is not lost."""
    server = alone(stage, ANSWER if client == "unread" else "c.sendall(b'x'); time.sleep(60)")
    with dial(stage) as sock:
        if client == "shut":
            assert sock.recv(1) == b"x"
            sock.shutdown(socket.SHUT_WR)
        else:
            sock.sendall(b"x")
            sock.settimeout(5)
            assert sock.recv(1, socket.MSG_PEEK) == b"x"
        assert "1 connection ended\n" in kill(stage)
        if not error:
            assert sock.recv(1) == b"x"
        assert_reset(sock)
    if client == "unread":
        assert end_at(server) == "ECONNRESET"
    assert_not_blamed(stage)


def test_under_fire(stage):
    """The number that the client expects next changes all the time."""
    alone(stage, FLOOD)
    ends = []

    def read(sock):
        try:
            while sock.recv(65536):
                pass
            ends.append("closed")
        except OSError as e:
            ends.append(type(e))

    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(dial(stage)) for _ in range(20)]
        threads = [threading.Thread(target=read, args=[sock]) for sock in sockets]
        for thread in threads:
            thread.start()
        assert "20 connections ended" in kill(stage)
        for thread in threads:
            thread.join(10)
    assert len(ends) == 20 and set(ends) <= {ConnectionResetError, ConnectionAbortedError}
    assert_not_blamed(stage)


def test_backend_on_this_node(stage):
    """Where its socket has the addresses that the reset would need."""
    stage.configure(backends=[f"{stage.node_v4}:{PORT}"])
    ok(stage.load())
    serve(stage, ANSWER, ns=stage.node)
    with dial(stage) as sock, dial(stage, stage.node_v4) as other:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        assert "1 connection ended\n" in kill(stage)
        assert_reset(sock)
        other.sendall(b"x")
        assert other.recv(1) == b"x", "neither another connection nor the listener is hit"
    with dial(stage) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"


@pytest.mark.parametrize("host,family,tables", [(V4, "v4", "iptables"), (V6, "v6", "ip6tables")])
def test_firewall_drops_it(stage, host, family, tables):
    server = alone(stage, ANSWER, family)
    with no_reset_arrives(stage, tables), dial(stage, host) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        assert BY_FORCE in kill(stage)
        assert_reset(sock, ConnectionAbortedError)
    assert end_at(server) == "ECONNRESET", "by the kernel"
    assert_not_blamed(stage)


def test_refused(stage, refuse):
    """A kernel, or a security module, that allows no TCP_REPAIR."""
    alone(stage, ANSWER)
    with dial(stage) as sock:
        endpoint, = backend_status(stage)
        done = ok(stage.exec([refuse, "repair", "--", stage.program("kubelbctl"), "--pin",
                              stage.pin, "kill", endpoint]))
        assert BY_FORCE in done.stdout
        assert_reset(sock, ConnectionAbortedError)
    assert_not_blamed(stage)
    done = stage.exec([refuse, "repair", "--", stage.program("kubelbctl"), "--pin", stage.pin,
                       "status"])
    assert "OFF       reset" in ok(done).stdout
    done = ok(stage.exec([refuse, "repair", "--", stage.program("kubelb-load"), "--check",
                          "-o", "json"]))
    found = {f["name"]: f for f in json.loads(done.stdout)["features"]}
    assert not found["reset"]["present"] and found["destroy"]["present"]


def test_refused_to_the_agent(stage, refuse):
    """It says so once, and its metric counts what it has destroyed instead."""
    agent = stage.agent(prefix=[refuse, "repair", "--"])
    wait_states(stage, "ready", stage.backends)
    agent.wait_log("feature=reset")
    with kept_to(stage, "cp1") as connection:
        stage.cp(1).stop()
        assert end_of(connection, 15)[0] == "ECONNABORTED"
        agent.wait_log("connections ended.* destroyed=1 ")
        labels = {"backend": stage.cp(1).endpoint}
        wait_until(lambda: metric(stage, "kubelb_connections_destroyed_total", **labels) == 1,
                   "the metric")
        stage.cp(1).cont()


def test_agent_resets(balanced):
    with kept_to(balanced, "cp1") as connection:
        balanced.cp(1).stop()
        assert end_of(connection, 15)[0] == "ECONNRESET"
        balanced.running.wait_log("connections ended.* destroyed=0 ")
        balanced.cp(1).cont()
    assert metric(balanced, "kubelb_connections_destroyed_total") == 0


@pytest.mark.skipif(not has_mptcp(), reason="no MPTCP here")
def test_mptcp_client_of_a_tcp_server(stage):
    """Its record, and the socket that is reset, are those of the subflow."""
    server = alone(stage, ANSWER)
    with inside(stage.node):
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
    with sock:
        sock.settimeout(5)
        sock.connect((V4, PORT))
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        assert "1 connection ended\n" in kill(stage)
        assert_reset(sock)
    assert end_at(server) == "ECONNRESET"
    assert_not_blamed(stage)


def test_record_of_an_earlier_version(stage):
    """It lacks the numbers."""
    alone(stage, ANSWER)
    with dial(stage) as sock:
        value = record(stage, sock)
        value[RECORD_FLAGS + 1] &= ~(SEQUENCES >> 8)
        record(stage, sock, *value)
        assert BY_FORCE in kill(stage)
        assert_reset(sock, ConnectionAbortedError)
    assert_not_blamed(stage)


def test_many(attached):
    """More than one batch, at a backend that goes on serving others."""
    with Held(attached, 90) as held:
        done = ok(attached.ctl("kill", attached.cp(1).endpoint))
        assert "30 connections ended\n" in done.stdout
        assert stats(attached, "active") == {"cp1": 0, "cp2": 30, "cp3": 30}
        assert held.close()["closed"] == 30
    assert ok(attached.ctl("events")).stdout == ""
