# SPDX-License-Identifier: BSD-2-Clause
"""TCP Fast Open for real: with a cookie of the peer's, the SYN waits for the first data
(TCP_FASTOPEN_CONNECT) or carries it (MSG_FASTOPEN). No agent anywhere."""

import socket
import struct

import pytest

from backend import PORT
from helpers import V4, V6, Held, dial_error, make_socket, nbconnect, ok, stats
from observe import TCP_FASTOPEN_CONNECT, fastopen_cookies, netstat
from system import wait_until
from test_lifecycle import (MSG_FASTOPEN, closed_by_reset, connected_to_nothing, failures,
                            hand_on_the_id, nobody_is_blamed, total, wait_counts)

SYN_SENT = 2  # include/net/tcp_states.h: also before a SYN that is put off


@pytest.fixture(name="cookies")
def cookies_fixture(attached):
    """The node has every control plane's cookie."""
    with fastopen_cookies(attached):
        yield attached


def family(host):
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def tcp_state(sock):
    return struct.unpack_from("B", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1))[0]


def deferred(world, host=V4):
    """Connected in name only: connect(2) is back at once, and no SYN has left."""
    sock = make_socket(world, family(host))
    sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
    sock.setblocking(False)
    opens = netstat(world, "ActiveOpens", "snmp")
    assert sock.connect_ex((host, PORT)) == 0, "a connect without a cookie is under way instead"
    assert tcp_state(sock) == SYN_SENT
    assert netstat(world, "ActiveOpens", "snmp") == opens
    sock.settimeout(5)
    return sock


def deferred_and_sent(world, host):
    sock = deferred(world, host)
    assert sock.send(b"x") == 1
    return sock


def sent_at_once(world, host):
    sock = make_socket(world, family(host))
    sock.settimeout(5)
    assert sock.sendto(b"x", MSG_FASTOPEN, (host, PORT)) == 1
    return sock


@pytest.mark.parametrize("end", [socket.socket.close, closed_by_reset], ids=lambda f: f.__name__)
@pytest.mark.parametrize("host", [V4, V6])
@pytest.mark.parametrize("kind", [deferred_and_sent, sent_at_once], ids=lambda f: f.__name__)
def test_data_with_the_syn(cookies, kind, host, end):
    used = netstat(cookies, "TCPFastOpenActive")
    for i in range(1, 4):
        sockets = [kind(cookies, host) for _ in range(4)]
        wait_counts(cookies, 4)
        assert total(cookies, "opened") == 4 * i
        assert {sock.getpeername()[:2] for sock in sockets} == {(host, PORT)}
        wait_until(lambda n=4 * i: netstat(cookies, "TCPFastOpenActive") - used == n,
                   "every SYN's data to be taken")
        for sock in sockets:
            end(sock)
        wait_counts(cookies, 0)
    assert all(failures(cookies, b.name) == {} for b in cookies.backends)
    assert total(cookies, "ejections") == 0


@pytest.mark.parametrize("host", [V4, V6])
def test_never_sent(cookies, host):
    """No SYN, no count, and nothing that is held against anybody; neither for whoever comes
    to the same place after it."""
    sockets = [deferred(cookies, host) for _ in range(6)]
    wait_counts(cookies, 0)
    for sock in sockets:
        sock.close()
    wait_counts(cookies, 0)
    assert nbconnect(cookies, "-n", 150, host)["ok"] == 150
    wait_counts(cookies, 0)
    assert total(cookies, "opened") == 150
    assert all(failures(cookies, b.name) == {} for b in cookies.backends)
    assert total(cookies, "ejections") == 0


def test_put_off_for_long(cookies):
    """Others connect meanwhile; when the data comes at last it is a connect like any other."""
    with deferred(cookies) as sock:
        with Held(cookies, 9):
            wait_counts(cookies, 9)
        assert sock.send(b"x") == 1
        wait_counts(cookies, 1)
        assert total(cookies, "opened") == 10
    wait_counts(cookies, 0)


@pytest.mark.parametrize("name", ["cp1", "cp2"])
def test_put_off_and_dialled_directly(cookies, name):
    """The record goes with the association, also when that has come to nothing: what the
    socket connects to next by itself is its own business, be it the very same backend."""
    cookies.configure(backends=[cookies.cp(1).endpoint])
    ok(cookies.load())
    own = next(b for b in cookies.backends if b.name == name)
    with deferred(cookies) as sock:
        connected_to_nothing(sock)
        sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 0)
        sock.connect((own.v4, PORT))
        assert sock.getpeername() == (own.v4, PORT)
        assert total(cookies, "opened") == 0
        wait_counts(cookies, 0)


def test_put_off_until_nobody_listens(cookies):
    """The failure is the client's at its first send, and counted then."""
    cookies.configure(backends=[cookies.cp(1).endpoint])
    ok(cookies.load())
    with deferred(cookies) as sock:
        cookies.cp(1).kill()
        with pytest.raises(ConnectionRefusedError):
            sock.send(b"x")  # the SYN has taken it along, or not: a refusal comes back
            sock.recv(1)
    wait_counts(cookies, 0)
    assert failures(cookies) == {"refused": 1}
    assert stats(cookies, "ejections")["cp1"] == 1
    assert dial_error(cookies) == "ECONNREFUSED"


def test_put_off_until_the_id_is_anothers(cookies):
    """What a late SYN meets is not held against whoever has its backend's id by then."""
    one = cookies.cp(1)
    cookies.configure(backends=[one.endpoint])
    ok(cookies.load())
    with deferred(cookies) as sock:
        hand_on_the_id(cookies)
        one.kill()
        with pytest.raises(ConnectionRefusedError):
            sock.send(b"x")
            sock.recv(1)
    nobody_is_blamed(cookies)
