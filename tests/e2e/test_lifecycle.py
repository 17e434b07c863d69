# SPDX-License-Identifier: BSD-2-Clause
"""What the kernel knows of its connections by itself: counts, outcomes, ejection, and the
time-outs on the client's socket. No agent anywhere, unless a test says so."""

import contextlib
import ctypes
import errno
import os
import select
import socket
import ssl
import struct
import subprocess
import time

import pytest

from backend import PORT
from helpers import (MAPPED, V4, V6, Accepts, Held, backend_ids, backend_status, bpftool, counters,
                     dial, dial_error, dump, make_socket, nbconnect, ok, served_set, stats,
                     wait_carried)
from observe import TCP_FASTOPEN_CONNECT
from system import BPFFS, inside, run_checked, wait_until

MSG_FASTOPEN = 0x20000000
TCP_USER_TIMEOUT = 18
IPPROTO_MPTCP = 262
LINGER_RESET = struct.pack("ii", 1, 0)


def total(stage, field):
    return sum(stats(stage, field).values())


def wait_counts(stage, active, connecting=0, timeout=5):
    wait_until(lambda: (total(stage, "active"), total(stage, "connecting"))
               == (active, connecting),
               lambda: f"{active} active and {connecting} connecting, have {stats(stage, 'active')}"
               f" and {stats(stage, 'connecting')}", timeout)


def failures(stage, name="cp1"):
    """Connects that failed, by reason, as `kubelbctl status` shows them."""
    backend = next(b for b in stage.backends if b.name == name)
    return {reason: n for reason, n in backend_status(stage)[backend.endpoint]["failed"].items()
            if n}


def state(stage, name="cp1"):
    backend = next(b for b in stage.backends if b.name == name)
    return backend_status(stage)[backend.endpoint]["state"]


def events(stage):
    """Kinds of the events so far, the oldest first, with the backend's name."""
    names = {i: name for name, i in backend_ids(stage).items()}
    found = sorted((v["number"], v["kind"].removeprefix("KLB_EVENT_"), names.get(v["id"]))
                   for _k, v in dump(stage, "events") if v["number"])
    return [(kind, name) for _number, kind, name in found]


# --- counts ------------------------------------------------------------------


@pytest.mark.parametrize("host", [V4, V6, MAPPED])
def test_active_is_what_is_established(attached, host):
    with Held(attached, 9, host=host):
        wait_counts(attached, 9)
        assert total(attached, "opened") == 9
        with Held(attached, 3, host=host):
            wait_counts(attached, 12)
            assert all(stats(attached, "active").values())
        wait_counts(attached, 9)
    wait_counts(attached, 0)
    assert total(attached, "opened") == 12


def closed_by_reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
    sock.close()


def shut_down_and_closed(sock):
    sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def connected_to_nothing(sock):
    """connect(2) with AF_UNSPEC ends the association; the socket lives on."""
    libc_connect(sock, struct.pack("H14x", socket.AF_UNSPEC))


def libc_connect(sock, address):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.connect(sock.fileno(), address, len(address)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@pytest.mark.parametrize("end", [socket.socket.close, closed_by_reset, shut_down_and_closed,
                                 connected_to_nothing], ids=lambda f: f.__name__)
@pytest.mark.parametrize("host", [V4, V6])
def test_each_end_is_counted_once(attached, end, host):
    sockets = [dial(attached, host) for _ in range(6)]
    wait_counts(attached, 6)
    for sock in sockets:
        end(sock)
    wait_counts(attached, 0)
    for sock in sockets:
        sock.close()
    wait_counts(attached, 0)


def test_half_closed_is_still_active(attached):
    """shutdown(SHUT_WR): the answer is still being read."""
    with dial(attached) as sock:
        wait_counts(attached, 1)
        attached.cp(1).stop(), attached.cp(2).stop(), attached.cp(3).stop()
        sock.shutdown(socket.SHUT_WR)
        wait_counts(attached, 1)
        for backend in attached.backends:
            backend.cont()
    wait_counts(attached, 0)


def test_killed_client(attached):
    held = Held(attached, 20)
    wait_counts(attached, 20)
    held.kill9()
    wait_counts(attached, 0)


def test_shared_with_a_child(attached):
    """The connection ends when the last of its holders has closed it."""
    sock = dial(attached)
    os.set_inheritable(sock.fileno(), True)
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[sock.fileno()])
    sock.close()
    wait_counts(attached, 1)
    assert nbconnect(attached, "-n", 3, V4)["ok"] == 3
    wait_counts(attached, 1)
    child.communicate()
    wait_counts(attached, 0)


def test_closed_by_the_server(attached):
    """Its good-bye alone does not end the connection: the client still holds it."""
    sockets = [dial(attached) for _ in range(9)]
    wait_counts(attached, 9)
    for backend in attached.backends:
        backend.kill()
    for sock in sockets:
        assert sock.recv(1) == b""
    wait_counts(attached, 9)
    for sock in sockets:
        sock.close()
    wait_counts(attached, 0)


def test_reconnected_elsewhere(attached):
    """Ours, then somebody's own, then ours again, all on one socket."""
    with make_socket(attached, socket.AF_INET) as sock:
        sock.settimeout(5)
        sock.connect((V4, PORT))
        wait_counts(attached, 1)
        connected_to_nothing(sock)
        wait_counts(attached, 0)
        sock.connect((attached.cp(1).v4, PORT))
        wait_counts(attached, 0)
        connected_to_nothing(sock)
        sock.connect((V4, PORT))
        wait_counts(attached, 1)
        assert sock.getpeername() == (V4, PORT)
    wait_counts(attached, 0)
    assert total(attached, "opened") == 2


def test_not_connected_yet(single):
    """A connect on its way counts as connecting, and as nothing when it is given up."""
    single.cp(1).link(up=False)
    sockets = []
    for _ in range(5):
        sock = make_socket(single, socket.AF_INET)
        sock.setblocking(False)
        assert sock.connect_ex((V4, PORT)) == errno.EINPROGRESS
        sockets.append(sock)
    wait_counts(single, 0, 5, timeout=1)
    for sock in sockets:
        sock.close()
    wait_counts(single, 0, timeout=1)


def fastopen_connect(world):
    """connect(2) at once, the SYN with the first data."""
    sock = make_socket(world, socket.AF_INET)
    sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
    sock.settimeout(5)
    sock.connect((V4, PORT))
    sock.send(b"x")
    return sock


def fastopen_sendto(world):
    sock = make_socket(world, socket.AF_INET)
    sock.sendto(b"x", MSG_FASTOPEN, (V4, PORT))
    return sock


def mptcp(world):
    with inside(world.node):
        try:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
        except OSError as e:
            pytest.skip(f"no MPTCP: {e}")
    sock.settimeout(5)
    sock.connect((V4, PORT))
    return sock


@pytest.mark.parametrize("kind", [fastopen_connect, fastopen_sendto, mptcp],
                         ids=lambda f: f.__name__)
def test_other_ways_to_connect(attached, kind):
    for _ in range(3):  # no server gives a cookie here; test_fastopen.py has those that do
        sockets = [kind(attached) for _ in range(4)]
        wait_counts(attached, 4)
        for sock in sockets:
            sock.close()
        wait_counts(attached, 0)
    assert total(attached, "opened") == 12


@pytest.mark.parametrize("host", [V4, V6])
def test_mptcp(attached, host):
    """The kernel connects a socket of its own on the client's behalf, the subflow, which
    sock_ops sees from its SYN to its end: balanced, counted while it is there, and then not."""
    context = ssl.create_default_context(cafile=attached.ca)
    family = socket.AF_INET6 if host == V6 else socket.AF_INET
    counts = Accepts(attached)
    for _ in range(12):
        try:
            with inside(attached.node):
                raw = socket.socket(family, socket.SOCK_STREAM, IPPROTO_MPTCP)
        except OSError as e:
            pytest.skip(f"no MPTCP: {e}")
        with raw:
            raw.settimeout(5)
            raw.connect((host, PORT))
            with context.wrap_socket(raw, server_hostname=host) as tls:
                tls.sendall(b"GET /version HTTP/1.0\r\n\r\n")
                assert tls.recv(4096).startswith(b"HTTP/1.1 200")
                wait_carried(attached, 1)
    counts.settled(12)
    assert sum(stats(attached, "opened").values()) == 12
    wait_carried(attached, 0)


def test_io_uring(attached):
    client = attached.spawn([attached.program("test/uringconnect"), V4, PORT],
                            stdin=subprocess.PIPE)
    line = client.stdout.readline().strip()
    if client.poll() == 77:
        pytest.skip("no io_uring on this machine")
    assert line == "connected"
    wait_counts(attached, 1)
    client.communicate("", timeout=10)
    wait_counts(attached, 0)
    assert total(attached, "opened") == 1


# --- outcomes ----------------------------------------------------------------


def test_success(attached):
    assert nbconnect(attached, "-n", 30, V4)["ok"] == 30
    now = time.monotonic_ns()
    for name, last in stats(attached, "last_success_ns").items():
        assert 0 < now - last < 60e9, name
    assert all(0 < us < 100000 for us in stats(attached, "srtt_us").values())
    assert all(stats(attached, "connect_ns").values())
    assert failures(attached) == {}


def test_refused(single):
    single.cp(1).kill()
    assert dial_error(single) == "ECONNREFUSED"
    assert failures(single) == {"refused": 1}
    wait_counts(single, 0)
    assert events(single) == [("CONNECT_FAILED", "cp1"), ("EJECTED", "cp1")]


def test_timed_out(single):
    """One backend may leave a SYN unanswered for connectTimeout, a second here."""
    single.cp(1).link(up=False)
    start = time.monotonic()
    assert dial_error(single, timeout=None) == "ETIMEDOUT"
    assert 0.9 < time.monotonic() - start < 1.6
    assert failures(single) == {"timed_out": 1}
    assert events(single)[:2] == [("SUSPECT", "cp1"), ("CONNECT_FAILED", "cp1")]
    wait_counts(single, 0)


def test_unreachable_by_icmp(stage):
    """Behind a router that says so: cp2 routes to nowhere."""
    stage.configure(backends=["198.51.100.7"])
    ok(stage.load("--force"))
    router = stage.cp(2)
    stage.ip_batch(stage.node, [f"route add 198.51.100.0/24 via {router.v4}"])
    stage.ip_batch(router.ns, ["route add unreachable 198.51.100.0/24"])
    stage.sysctl(router.ns, "net.ipv4.ip_forward", "1")
    try:
        # Blocking: here the ICMP message comes while connect(2) still holds the socket, is
        # kept as a soft error, and SO_ERROR would hand it to the client alone.
        assert dial_error(stage, timeout=None) == "EHOSTUNREACH"
    finally:
        stage.sysctl(router.ns, "net.ipv4.ip_forward", "0")
        stage.ip_batch(stage.node, ["route del 198.51.100.0/24"])
        stage.ip_batch(router.ns, ["route del unreachable 198.51.100.0/24"])
    assert backend_status(stage)["198.51.100.7:6443"]["failed"]["unreachable"] == 1


def test_prohibited_by_icmpv6(stage):
    """A router's "administratively prohibited" is EACCES there, unlike ICMP's."""
    stage.configure(backends=["[2001:db8:7::7]:6443"])
    ok(stage.load("--force"))
    router, net = stage.cp(2), "2001:db8:7::/64"
    stage.ip_batch(stage.node, [f"route add {net} via {router.v6}"])
    stage.ip_batch(router.ns, [f"route add prohibit {net}"])
    stage.sysctl(router.ns, "net.ipv6.conf.all.forwarding", "1")
    try:
        assert dial_error(stage, V6, timeout=None) == "EACCES"
    finally:
        stage.sysctl(router.ns, "net.ipv6.conf.all.forwarding", "0")
        stage.ip_batch(stage.node, [f"route del {net}"])
        stage.ip_batch(router.ns, [f"route del prohibit {net}"])
    assert backend_status(stage)["[2001:db8:7::7]:6443"]["failed"]["unreachable"] == 1


def test_no_route(stage):
    """No SYN ever leaves; the next connects find out, and go elsewhere."""
    stage.configure(backends=[stage.cp(1).endpoint, stage.cp(2).endpoint], policy="random")
    ok(stage.load())
    stage.ip_batch(stage.node, [f"route add unreachable {stage.cp(1).v4}/32"])
    try:
        wait_until(lambda: dial_error(stage) and failures(stage).get("unreachable"),
                   "a failure to be noticed", timeout=20)
        assert state(stage) == "ejected"
        assert nbconnect(stage, "-n", 20, V4)["failed"] == 0
    finally:
        stage.ip_batch(stage.node, [f"route del unreachable {stage.cp(1).v4}/32"])
    wait_counts(stage, 0)


def test_client_gives_up(single):
    """After a retransmission that says something about the backend; before, nothing."""
    single.cp(1).link(up=False)
    with make_socket(single, socket.AF_INET) as sock:
        sock.setblocking(False)
        sock.connect_ex((V4, PORT))
    assert failures(single) == {}
    with make_socket(single, socket.AF_INET) as sock:
        sock.setblocking(False)
        sock.connect_ex((V4, PORT))
        wait_until(lambda: state(single) == "suspect", "a retransmission")
    assert failures(single) == {"gave_up": 1}


# --- ejection ----------------------------------------------------------------


def ejected_for(stage, name="cp1"):
    """Seconds that the ejection is still to last."""
    return (stats(stage, "ejected_until_ns")[name] - time.monotonic_ns()) / 1e9


def end_ejection(stage, name="cp1"):
    wait_until(lambda: ejected_for(stage, name) < 0, "the ejection to end", timeout=10,
               interval=0.01)


def test_ejection_doubles_and_a_success_clears_it(single):
    single.cp(1).kill()
    for seconds in (1, 2, 4):
        assert dial_error(single) == "ECONNREFUSED"
        assert seconds - 0.5 < ejected_for(single) <= seconds
        # The last one is used all the same; that it fails again is no news.
        assert dial_error(single) == "ECONNREFUSED"
        assert ejected_for(single) <= seconds
        if seconds < 4:
            end_ejection(single)
    assert stats(single, "ejections")["cp1"] == 3
    assert state(single) == "ejected"
    single.cp(1).start()
    assert dial_error(single) is None
    assert state(single) == "ready"
    assert stats(single, "streak")["cp1"] == 0
    assert events(single)[-1] == ("RESTORED", "cp1")


def test_ejected_is_passed_over(attached):
    attached.cp(1).kill()
    wait_until(lambda: dial_error(attached) == "ECONNREFUSED", "a connect to fail")
    assert served_set(attached, 20) == {"cp2", "cp3"}
    assert stats(attached, "failed")["cp1"][0] == 1


def test_ten_failures_at_once_are_one(single):
    single.cp(1).kill()
    sockets = [make_socket(single, socket.AF_INET) for _ in range(10)]
    for sock in sockets:
        sock.setblocking(False)
        sock.connect_ex((V4, PORT))
    for sock in sockets:
        select.select([], [sock], [], 5)
        sock.close()
    assert stats(single, "streak")["cp1"] == 1
    assert ejected_for(single) <= 1


def test_one_tries_when_the_ejection_is_over(attached):
    """Against a backend that swallows SYNs, all who try would wait in vain."""
    attached.cp(1).link(up=False)
    wait_until(lambda: dial_error(attached, timeout=None) == "ETIMEDOUT", "a connect to fail",
               timeout=20)
    end_ejection(attached)
    before = stats(attached, "failed")["cp1"][1]
    sockets = []
    for _ in range(60):
        sock = make_socket(attached, socket.AF_INET)
        sock.setblocking(False)
        sock.connect_ex((V4, PORT))
        sockets.append(sock)
    assert stats(attached, "connecting")["cp1"] == 1
    wait_until(lambda: stats(attached, "connecting")["cp1"] == 0, "it to end")
    assert stats(attached, "failed")["cp1"][1] == before + 1
    for sock in sockets:
        sock.close()
    wait_counts(attached, 0)


def test_a_retransmitted_syn_makes_suspect(attached):
    attached.cp(1).link(up=False)
    sockets = []

    def one_more():
        sock = make_socket(attached, socket.AF_INET)
        sock.setblocking(False)
        sock.connect_ex((V4, PORT))
        sockets.append(sock)
        return state(attached) == "suspect"

    wait_until(one_more, "a retransmission", interval=0.01)
    assert failures(attached) == {}
    assert nbconnect(attached, "-n", 20, V4)["failed"] == 0
    for sock in sockets:
        sock.close()


def test_a_tied_socket_is_no_witness(attached):
    """A source of its own, a device, a mark: it goes where its owner wants it to go,
    and what it meets there says nothing about the backend."""
    for b in attached.backends:
        b.kill()
    assert dial_error(attached, bind=attached.node_v4) == "ECONNREFUSED"
    with make_socket(attached, socket.AF_INET) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 7)
        assert sock.connect_ex((V4, PORT)) == errno.ECONNREFUSED
    with make_socket(attached, socket.AF_INET) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        assert sock.connect_ex((V4, PORT)) == errno.ECONNREFUSED
    assert sum(n[0] for n in stats(attached, "failed").values()) == 3
    assert total(attached, "ejections") == 0


def test_a_pod_is_no_witness(apart):
    """It may be cut off by a policy of its own; the host must not lose a backend by that."""
    pod = apart.pod()
    apart.configure(frontends=[{"address": f"{V4}:{PORT}", "scope": "all"}])
    ok(apart.load())
    for b in apart.backends:
        b.kill()
    assert dial_error(apart, ns=pod) == "ECONNREFUSED"
    assert sum(n[0] for n in stats(apart, "failed").values()) == 1
    assert total(apart, "ejections") == 0
    assert dial_error(apart) == "ECONNREFUSED"
    assert total(apart, "ejections") == 1


def connect_every_10_ms(stage, seconds):
    """(when it began, error, when it ended) of non-blocking connects."""
    done, pending, start = [], {}, time.monotonic()
    poll = select.epoll()
    while True:
        now = time.monotonic() - start
        if now > seconds and not pending:
            break
        if now <= seconds and now >= len(done + list(pending)) * 0.01:
            sock = make_socket(stage, socket.AF_INET)
            sock.setblocking(False)
            sock.connect_ex((V4, PORT))
            poll.register(sock, select.EPOLLOUT)
            pending[sock.fileno()] = (sock, now)
        for fd, _what in poll.poll(0.002):
            sock, began = pending.pop(fd)
            poll.unregister(fd)
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            done.append((began, error, time.monotonic() - start))
            sock.close()
    return sorted(done)


@pytest.mark.parametrize("fault", ["killed", "blackholed"])
def test_one_failed_connect_per_ejection(attached, fault):
    """100 connects a second for ten seconds while one of three backends is gone: the
    ejections last 1, 2, 4 and 8 s, so four connects at most pay for it."""
    nbconnect(attached, "-n", 60, V4)
    if fault == "killed":
        attached.cp(1).kill()
    else:
        attached.cp(1).link(up=False)
    results = connect_every_10_ms(attached, 10)
    failed = [(began, error, ended) for began, error, ended in results if error]
    assert len(results) > 800
    ejections = stats(attached, "ejections")["cp1"]
    assert 1 <= len(failed) <= ejections <= 4, failed
    limit = 0.2 if fault == "killed" else 1.5
    assert all(ended - began < limit for began, _error, ended in failed), failed


# --- the client's own socket --------------------------------------------------


def option(sock, name):
    return sock.getsockopt(socket.IPPROTO_TCP, name)


def settings(sock):
    return {"user": option(sock, TCP_USER_TIMEOUT), "idle": option(sock, socket.TCP_KEEPIDLE),
            "interval": option(sock, socket.TCP_KEEPINTVL),
            "keepalive": sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)}


def test_options_of_an_established_socket(attached):
    with dial(attached) as sock:
        assert settings(sock) == {"user": 10000, "idle": 5, "interval": 1, "keepalive": 1}
    with dial(attached, attached.cp(1).v4) as sock:
        assert settings(sock)["user"] == 0
        assert settings(sock)["keepalive"] == 0


def test_what_the_application_has_set_stays(attached):
    with make_socket(attached, socket.AF_INET) as sock:
        sock.settimeout(5)
        sock.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, 77000)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 66)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 55)
        sock.connect((V4, PORT))
        assert settings(sock) == {"user": 77000, "idle": 66, "interval": 55, "keepalive": 1}
        sock.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, 44000)
        assert settings(sock)["user"] == 44000


def test_an_application_that_bounds_its_connects(single):
    """Its number of SYNs is not spent by a timer that is shorter than it knows."""
    single.cp(1).link(up=False)
    with make_socket(single, socket.AF_INET) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, 1)
        start = time.monotonic()
        assert sock.connect_ex((V4, PORT)) == errno.ETIMEDOUT
        assert time.monotonic() - start > 1.9


def test_connect_timeout_is_the_configurations(stage):
    stage.configure(backends=[stage.cp(1).endpoint], connectTimeout="2500ms")
    ok(stage.load())
    stage.cp(1).link(up=False)
    start = time.monotonic()
    assert dial_error(stage, timeout=None) == "ETIMEDOUT"
    assert 2.4 < time.monotonic() - start < 3.2


SRTT_AT = 24  # klb_stats.srtt_us


def measured_rtt(stage, name, microseconds):
    """As if handshakes had taken so long."""
    key = [str(byte) for byte in struct.pack("I", backend_ids(stage)[name])]
    pin = ["pinned", f"{stage.pin}/stats", "key", *key]
    found = bpftool("map", "lookup", *pin)
    value = bytearray(int(byte, 16) for byte in found["value"])
    value[SRTT_AT:SRTT_AT + 4] = struct.pack("I", microseconds)
    bpftool("map", "update", *pin, "value", *[str(byte) for byte in value])
    assert stats(stage, "srtt_us")[name] == microseconds


@pytest.mark.parametrize("rtt_ms, timer_ms", [(4, 20), (50, 151), (150, 250), (300, 450),
                                              (400, 500)])
def test_syn_timer_leaves_time_for_the_round_trip(single, rtt_ms, timer_ms):
    """A far backend is not suspect with every connect for being far."""
    dial(single).close()  # so that its neighbour entry does not fail first
    wait_counts(single, 0)
    measured_rtt(single, "cp1", rtt_ms * 1000)
    single.cp(1).link(up=False)
    assert dial_error(single, timeout=None) == "ETIMEDOUT"
    suspected = [v for _k, v in dump(single, "events") if v["kind"] == "KLB_EVENT_SUSPECT"]
    assert len(suspected) == 1
    waited = suspected[0]["latency_ns"] / 1e6
    assert timer_ms - 5 <= waited < timer_ms + 60, waited


def test_zero_leaves_the_socket_alone(stage):
    stage.configure(deadPeerTimeout="0")
    ok(stage.load())
    with dial(stage) as sock:
        assert settings(sock)["user"] == 0
        assert settings(sock)["keepalive"] == 0


def test_reader_of_a_dead_peer(single):
    """A client that waits for an answer from a machine without power is told within
    deadPeerTimeout and two seconds; with nginx in between it takes ten minutes."""
    single.configure(backends=[single.cp(1).endpoint], deadPeerTimeout="4s")
    ok(single.load())
    with dial(single, timeout=None) as sock:
        single.cp(1).link(up=False)
        start = time.monotonic()
        with pytest.raises(OSError) as caught:
            sock.recv(1)
        took = time.monotonic() - start
    assert caught.value.errno in (errno.ETIMEDOUT, errno.EHOSTUNREACH)
    assert took < 4 + 2, took
    assert stats(single, "lost")["cp1"] == 1
    assert ("PEER_LOST", "cp1") in events(single)
    wait_counts(single, 0)


def test_writer_to_a_dead_peer(single):
    single.configure(backends=[single.cp(1).endpoint], deadPeerTimeout="3s")
    ok(single.load())
    with dial(single, timeout=None) as sock:
        single.cp(1).link(up=False)
        start = time.monotonic()
        sock.send(b"x")
        with pytest.raises(OSError):
            sock.recv(1)
        assert time.monotonic() - start < 3 + 2
    wait_counts(single, 0)


class Deaf:
    """A server in cp1's place that accepts and, until told to, reads nothing: its kernel
    shuts the window, and acknowledges every probe."""

    def __init__(self, stage):
        stage.cp(1).kill()
        self.server = make_socket(stage, socket.AF_INET, stage.cp(1).ns)
        self.server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        self.server.bind((stage.cp(1).v4, PORT))
        self.server.listen(8)
        self.client = dial(stage)
        self.accepted = self.server.accept()[0]

    def fill(self):
        """Sends until nothing more fits anywhere."""
        self.client.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                self.client.send(b"x" * 65536)
        wait_until(self.probed, "the window to be shut")

    def probed(self):
        """struct tcp_info.tcpi_probes, or what it backs off by: probing a window."""
        info = self.client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        return info[3] or info[4]

    def read(self, seconds):
        self.accepted.settimeout(seconds)
        with contextlib.suppress(TimeoutError):
            while self.accepted.recv(1 << 20):
                pass

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for sock in self.client, self.accepted, self.server:
            sock.close()


def error_within(sock, seconds):
    """What the socket ends with in that time, 0 for nothing."""
    poll = select.poll()
    poll.register(sock, select.POLLERR | select.POLLHUP)
    if not poll.poll(seconds * 1000):
        return 0
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def test_peer_that_takes_nothing_is_alive(single):
    """psql behind `kubectl exec -i` that is busy for longer than deadPeerTimeout: the
    connection goes on when it reads again, and is guarded as before."""
    single.configure(backends=[single.cp(1).endpoint], deadPeerTimeout="2s")
    ok(single.load())
    with Deaf(single) as peer:
        assert option(peer.client, TCP_USER_TIMEOUT) == 2000
        peer.fill()
        assert error_within(peer.client, 5) == 0
        assert option(peer.client, TCP_USER_TIMEOUT) == 0
        peer.read(1)
        peer.client.setblocking(True)
        peer.client.send(b"x")
        wait_until(lambda: option(peer.client, TCP_USER_TIMEOUT) == 2000, "the guard to be back")
        assert total(single, "lost") == total(single, "ejections") == 0


def test_peer_that_goes_with_its_window_shut(single):
    """Its client closes, and the connection counts no longer."""
    single.configure(backends=[single.cp(1).endpoint], deadPeerTimeout="2s")
    ok(single.load())
    with Deaf(single) as peer:
        peer.fill()
        single.cp(1).link(up=False)
        peer.client.close()
    wait_counts(single, 0)


def test_application_that_gives_up_on_a_shut_window(single):
    """By a TCP_USER_TIMEOUT of its own, which stays: that is nothing against the backend."""
    with Deaf(single) as peer:
        peer.client.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, 1500)
        peer.fill()
        assert error_within(peer.client, 10) == errno.ETIMEDOUT
        wait_counts(single, 0)
        assert total(single, "lost") == total(single, "ejections") == 0
        assert events(single) == []


def test_reconnect_after_a_time_out(single):
    """What we set for the first connect of a socket is ours still at the second."""
    single.cp(1).link(up=False)
    with make_socket(single, socket.AF_INET) as sock:
        assert sock.connect_ex((V4, PORT)) == errno.ETIMEDOUT
        single.cp(1).link(up=True)
        assert sock.connect_ex((V4, PORT)) == 0
        assert settings(sock)["user"] == 10000
    wait_counts(single, 0)


# --- corners of a socket's life ------------------------------------------------


TCP_REPAIR = 19
STATE_CB, RTT_CB = 4, 8  # BPF_SOCK_OPS_…_CB_FLAG, include/uapi/linux/bpf.h


def foreign_sockops(flags):
    """Somebody's sock_ops program that sets the callback flags as if nobody else had any
    (which is what most of those that are around do), at the SYN and at its answer."""
    return f"""
enum {{ CONNECT = 3, ESTABLISHED = 4 }};
struct bpf_sock_ops {{ unsigned int op; }};
static long (*set_flags)(void *ctx, int flags) = (void *)59;
__attribute__((section("sockops"), used)) int others_ops(struct bpf_sock_ops *ctx)
{{
	if (ctx->op == CONNECT || ctx->op == ESTABLISHED)
		set_flags(ctx, {flags});
	return 1;
}}
char _license[] __attribute__((section("license"), used)) = "GPL";
"""


@pytest.fixture(name="others")
def others_fixture(stage, tmp_path):
    """Attaches a foreign sock_ops program that runs before ours, or after: a child cgroup's
    programs come first. The cgroup that both are effective in."""
    group = stage.cgroup("corners")
    child = os.path.join(group, "child")
    os.mkdir(child)
    pin = f"{BPFFS}/{stage.prefix}-ops"
    attached = []

    def attach(flags, first):
        theirs, ours = (child, group) if first else (group, child)
        source, binary = tmp_path / "ops.c", tmp_path / "ops.o"
        source.write_text(foreign_sockops(flags))
        run_checked(["clang", "-O2", "-g", "-target", "bpf", "-c", str(source), "-o", str(binary)])
        run_checked(["bpftool", "prog", "load", str(binary), pin])
        attached.append(theirs)
        run_checked(["bpftool", "cgroup", "attach", theirs, "sock_ops", "pinned", pin, "multi"])
        ok(stage.load(cgroup=ours))
        return child

    yield attach
    stage.end_processes()
    for theirs in attached:
        run_checked(["bpftool", "cgroup", "detach", theirs, "sock_ops", "pinned", pin])
        os.unlink(pin)
    stage.detach()
    os.rmdir(child)


@pytest.mark.parametrize("flags, first", [(0, True), (STATE_CB, True), (RTT_CB, True),
                                          (STATE_CB, False)])
def test_another_program_sets_the_callback_flags(stage, others, flags, first):
    """The counts are exact all the same. One that comes last and does not want to be told
    of states keeps us from being told: for those there is the agent's audit."""
    child = others(flags, first)
    with Held(stage, 6, cgroup=child):
        wait_counts(stage, 6)
        assert total(stage, "opened") == 6
    wait_counts(stage, 0)


def test_error_from_an_earlier_life(single):
    """connect(AF_UNSPEC) leaves ECONNRESET pending on the socket; it is not what the next
    connect ends with, which its client gives up at once."""
    with make_socket(single, socket.AF_INET) as sock:
        sock.settimeout(5)
        sock.connect((V4, PORT))
        connected_to_nothing(sock)
        single.cp(1).link(up=False)
        sock.setblocking(False)
        assert sock.connect_ex((V4, PORT)) == errno.EINPROGRESS
    wait_counts(single, 0)
    assert failures(single) == {}
    assert total(single, "ejections") == 0


def test_connected_to_itself(stage):
    """A local address, nobody listening, and the client's own port: TCP's simultaneous
    open, which is established all the same."""
    stage.configure(backends=[f"{stage.node_v4}:7443"])
    ok(stage.load())
    with make_socket(stage, socket.AF_INET) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("0.0.0.0", 7443))
        sock.settimeout(5)
        sock.connect((V4, PORT))
        number, = (i for i, _backend in dump(stage, "backends"))
        assert dict(dump(stage, "stats"))[number]["active"] == 1
        assert settings(sock)["user"] == 10000
    wait_until(lambda: [i for i, s in dump(stage, "stats") if s["active"] or s["connecting"]]
               == [], "the end to be counted")


@pytest.mark.parametrize("listens", [True, False], ids=["connected", "refused"])
def test_options_go_with_the_record(single, listens):
    """A socket that is connected to something else has the host's time-outs again."""
    if not listens:
        single.cp(1).kill()
    with make_socket(single, socket.AF_INET) as sock:
        sock.settimeout(5)
        assert sock.connect_ex((V4, PORT)) == (0 if listens else errno.ECONNREFUSED)
        connected_to_nothing(sock)
        sock.connect((single.cp(2).v4, PORT))
        assert settings(sock)["user"] == 0
        assert settings(sock)["keepalive"] == 0
        assert option(sock, socket.TCP_SYNCNT) == 6


def bound_to_an_address(sock, stage):
    sock.bind((stage.node_v4, 0))


def marked(sock, _stage):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 7)


def restored(sock, _stage):
    """As checkpoint/restore does: established without a SYN."""
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)


@pytest.mark.parametrize("tie", [bound_to_an_address, marked, restored],
                         ids=lambda f: f.__name__)
def test_what_is_no_witness_clears_nothing(single, tie):
    """Its failures are held against nobody; nor does its success speak for the others' way."""
    single.cp(1).kill()
    assert dial_error(single) == "ECONNREFUSED"
    single.cp(1).start()
    with make_socket(single, socket.AF_INET) as sock:
        tie(sock, single)
        sock.settimeout(5)
        sock.connect((V4, PORT))
        wait_counts(single, 1)
    assert stats(single, "streak")["cp1"] == 1
    assert dial_error(single) is None
    assert stats(single, "streak")["cp1"] == 0


def test_what_is_no_witness_tries_for_nobody(apart):
    """A pod that a policy cuts off from the backend must not use up the trials."""
    pod = apart.pod()
    apart.configure(frontends=[{"address": f"{V4}:{PORT}", "scope": "all"}],
                    backends=[apart.cp(1).endpoint])
    ok(apart.load())
    apart.cp(1).kill()
    assert dial_error(apart) == "ECONNREFUSED"
    end_ejection(apart)
    until = stats(apart, "ejected_until_ns")
    assert dial_error(apart, ns=pod) == "ECONNREFUSED"
    assert stats(apart, "ejected_until_ns") == until
    apart.cp(1).start()
    assert dial_error(apart) is None
    assert stats(apart, "streak")["cp1"] == 0


def test_address_of_the_wrong_family(single):
    """The kernel refuses such a connect; it blames no backend."""
    address = struct.pack("!4s8x", socket.inet_aton(V4))
    for _ in range(3):
        with make_socket(single, socket.AF_INET) as sock:
            for _again in range(3):
                with pytest.raises(OSError) as caught:
                    libc_connect(sock, struct.pack("=H", socket.AF_INET6)
                                 + struct.pack("!H", PORT) + address)
                assert caught.value.errno == errno.EAFNOSUPPORT
    assert failures(single) == {}
    assert total(single, "ejections") == 0


def leave_behind(stage, sock):
    """A connect that has no route to the only backend, cp1: its choice stays in its place."""
    route = f"unreachable {stage.cp(1).v4}/32"
    stage.ip_batch(stage.node, [f"route add {route}"])
    try:
        assert sock.connect_ex((V4, PORT)) == errno.EHOSTUNREACH
    finally:
        stage.ip_batch(stage.node, [f"route del {route}"])


def test_left_behind_long_ago(single):
    """A connect without a route is noticed when somebody comes by its place; when the
    backend has served others since, it is no news any more."""
    with make_socket(single, socket.AF_INET) as sock:
        leave_behind(single, sock)
        assert nbconnect(single, "-n", 3, V4)["ok"] == 3
        assert sock.connect_ex((V4, PORT)) == 0
    assert failures(single) == {"unreachable": 1}
    assert total(single, "ejections") == 0


def hand_on_the_id(stage):
    """cp3 gets the id that the only backend, cp1, has had: so many others leave after cp1 that
    it is forgotten."""
    one, two, three = (b.endpoint for b in stage.backends)
    before = backend_ids(stage)[stage.cp(1).name]
    others = [f"192.0.2.{i}" for i in range(1, 41)]
    for backends in ([two, *others], [two], [two, others[0]], [two, three]):
        stage.configure(backends=backends)
        ok(stage.load())
    assert backend_ids(stage)[stage.cp(3).name] == before


def nobody_is_blamed(stage):
    for field in ("ejections", "lost", "connecting"):
        assert set(stats(stage, field).values()) == {0}, field
    assert not any(sum(reasons) for reasons in stats(stage, "failed").values())


def test_left_behind_until_the_id_is_anothers(single):
    """A choice that nobody fetched is not held against its id's next owner."""
    with make_socket(single, socket.AF_INET) as sock:
        leave_behind(single, sock)
        hand_on_the_id(single)
        # The same socket comes by the same place, and finds what it has left there.
        assert sock.connect_ex((V4, PORT)) == 0
    nobody_is_blamed(single)


def test_bound_to_the_loopback_device(attached):
    """It cannot leave the host from there, no more than with a loopback source."""
    with make_socket(attached, socket.AF_INET) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        sock.settimeout(5)
        assert sock.connect_ex((V4, PORT)) == errno.ECONNREFUSED
    assert counters(attached)["skipped_loopback_source"] == 1
    assert failures(attached) == {}
