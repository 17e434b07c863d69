# SPDX-License-Identifier: BSD-2-Clause
"""What sockets that outlive a detach get back, seen on the clients' own sockets."""

import errno
import os
import socket

import pytest

from backend import PORT
from helpers import V4, dial, make_socket, ok, pins
from system import wait_until
from test_lifecycle import TCP_USER_TIMEOUT, Deaf, error_within, option, settings, total
from test_privileges import PODS_TOO

TCP_SYNCNT = socket.TCP_SYNCNT
# As enum bpf_prog_type and bpf_attach_type have them: BPF_PROG_TYPE_TRACING, BPF_TRACE_ITER.
ITERATORS = "prog=26/28"
KEEPS = "warning: open connections keep the time-outs"


def untouched(stage, ns=None):
    """What the host sets: a socket that KubeLB has never seen."""
    with make_socket(stage, socket.AF_INET, ns) as sock:
        return {**settings(sock), "syns": option(sock, TCP_SYNCNT)}


def all_settings(sock):
    return {**settings(sock), "syns": option(sock, TCP_SYNCNT)}


def detached(stage, **kwargs):
    done = ok(stage.detach(**kwargs))
    assert KEEPS not in done.stderr, done.stderr
    assert not os.path.exists(stage.pin)
    return done


def connecting(stage, **configuration):
    """A connect that nothing answers."""
    stage.configure(backends=[stage.cp(1).endpoint], **configuration)
    ok(stage.load())
    stage.cp(1).link(up=False)
    sock = make_socket(stage, socket.AF_INET)
    sock.setblocking(False)
    assert sock.connect_ex((V4, PORT)) == errno.EINPROGRESS
    assert total(stage, "connecting") == 1
    return sock


# --- established connections ---------------------------------------------------


def test_options_are_given_back(attached):
    before = untouched(attached)
    with dial(attached) as sock:
        assert settings(sock)["user"] == 10000 and settings(sock)["keepalive"] == 1
        detached(attached)
        assert all_settings(sock) == before


def test_what_the_application_has_set_stays(attached):
    with make_socket(attached, socket.AF_INET) as sock:
        sock.settimeout(5)
        for name, value in ((TCP_USER_TIMEOUT, 77000), (socket.TCP_KEEPIDLE, 66),
                            (socket.TCP_KEEPINTVL, 55), (TCP_SYNCNT, 3)):
            sock.setsockopt(socket.IPPROTO_TCP, name, value)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        own = all_settings(sock)
        sock.connect((V4, PORT))
        detached(attached)
        assert all_settings(sock) == own


def test_keepalive_that_the_application_wants_after_the_connect_stays(attached):
    """As Go's clients set it. Their time-out is nevertheless the host's again."""
    with dial(attached) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
        detached(attached)
        assert settings(sock) == {"user": 0, "idle": 15, "interval": 15, "keepalive": 1}


def test_keepalive_of_the_application_with_times_of_kubelb(attached):
    """Switched on before the connect, without times: those become the host's."""
    before = untouched(attached)
    with make_socket(attached, socket.AF_INET) as sock:
        sock.settimeout(5)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.connect((V4, PORT))
        assert settings(sock)["idle"] == 5
        detached(attached)
        assert all_settings(sock) == {**before, "keepalive": 1}


def test_a_peer_that_takes_nothing_is_not_given_up(single):
    """Without klb_sockops nobody lifts the time-out when the peer shuts its window."""
    single.configure(backends=[single.cp(1).endpoint], deadPeerTimeout="2s")
    ok(single.load())
    with Deaf(single) as peer:
        assert option(peer.client, TCP_USER_TIMEOUT) == 2000
        detached(single)
        peer.fill()
        assert error_within(peer.client, 5) == 0


def test_other_connections_keep_theirs(attached):
    """A direct one with an application's own time-out, equal to KubeLB's."""
    with make_socket(attached, socket.AF_INET) as sock:
        sock.settimeout(5)
        sock.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, 10000)
        sock.connect((attached.cp(1).v4, PORT))
        detached(attached)
        assert option(sock, TCP_USER_TIMEOUT) == 10000


def test_what_another_version_has_attached(stage, loads):
    """An older or a newer one: what it has set is given back as well."""
    before = untouched(stage)
    for attach, detach in (loads, loads[::-1]):
        ok(stage.exec([attach, "--pin", stage.pin, "-c", stage.config]))
        with dial(stage) as sock:
            assert settings(sock)["user"] == 10000
            done = ok(stage.exec([detach, "--pin", stage.pin, "--detach"]))
            assert KEEPS not in done.stderr, done.stderr
            assert all_settings(sock) == before


def test_connections_of_pods(apart):
    apart.configure(**PODS_TOO)
    ok(apart.load())
    pod = apart.pod()
    before = untouched(apart, pod)
    with dial(apart, ns=pod) as podded, dial(apart) as sock:
        assert settings(podded)["user"] == 10000
        detached(apart)
        assert all_settings(podded) == before
        assert settings(sock)["user"] == 0


# --- connects that are under way -------------------------------------------------


def test_a_connect_under_way_is_decided_first(stage):
    """Its backend does not answer: the client is told by connectTimeout, and does not wait for the
    host's two minutes."""
    with connecting(stage, connectTimeout="1s") as sock:
        detached(stage)
        assert error_within(sock, 0) == errno.ETIMEDOUT
    stage.cp(1).link(up=True)


def test_a_connect_that_is_answered_meanwhile(stage):
    """The SYN is answered while the detach waits for it: the connection keeps nothing."""
    before = untouched(stage)
    with connecting(stage, connectTimeout="4s") as sock:
        running = stage.spawn([stage.program("kubelb-load"), "--pin", stage.pin, "--detach"])
        wait_until(lambda: "links/connect4" not in pins(stage), "the connect programs to be gone")
        stage.cp(1).link(up=True)
        assert running.wait(timeout=20) == 0
        assert error_within(sock, 0) == 0 and sock.getpeername()
        assert all_settings(sock) == before


def test_a_connect_that_takes_longer_than_a_detach_waits(stage):
    """It goes on with the host's limits, and so does the connection that comes of it."""
    before = untouched(stage)
    with connecting(stage, connectTimeout="60s") as sock:
        assert option(sock, TCP_USER_TIMEOUT) == 60000
        detached(stage)
        assert all_settings(sock) == before
        stage.cp(1).link(up=True)
        wait_until(lambda: is_connected(sock), "the SYN to be answered", 60)
        assert all_settings(sock) == before


def is_connected(sock):
    try:
        return sock.getpeername()
    except OSError as e:
        assert e.errno == errno.ENOTCONN
        return None


# --- obstacles -------------------------------------------------------------------


def detach_without_proc(stage):
    return ok(stage.exec(["unshare", "-m", "sh", "-c",
                          'mount --make-rprivate / && mount -t tmpfs none /proc && exec "$@"', "sh",
                          stage.program("kubelb-load"), "--pin", stage.pin, "--detach"]))


def test_without_proc(attached):
    """Where /proc is not mounted, every pin goes all the same."""
    assert "adjust" in pins(attached) and "wakeup" in pins(attached)
    with dial(attached) as sock:
        assert KEEPS not in detach_without_proc(attached).stderr
        assert not os.path.exists(attached.pin)
        assert settings(sock)["user"] == 0


def test_pods_that_are_not_found_are_said(apart):
    """/proc leads to their namespaces."""
    apart.configure(**PODS_TOO)
    ok(apart.load())
    with dial(apart, ns=apart.pod()) as podded, dial(apart) as sock:
        assert KEEPS in detach_without_proc(apart).stderr
        assert not os.path.exists(apart.pin)
        assert settings(podded)["user"] == 10000 and settings(sock)["user"] == 0


def test_an_older_kernel_is_said(attached, refuse):
    """It has no setsockopt for iterators. What stays is said, and everything is removed."""
    with dial(attached) as sock:
        done = ok(attached.exec([refuse, ITERATORS, "errno=22", "--",
                                 attached.program("kubelb-load"), "--pin", attached.pin,
                                 "--detach"]))
        assert KEEPS in done.stderr and "klb_release" in done.stderr
        assert settings(sock)["user"] == 10000
    assert not os.path.exists(attached.pin)
