# SPDX-License-Identifier: BSD-2-Clause
"""Which connects are ours, and that every other one is left alone."""

import contextlib
import ctypes
import socket
import ssl
import struct

import pytest

from helpers import (MAPPED, V4, V6, Accepts, Held, Kept, Listener, backend_status, counters, dial,
                     dial_error, make_socket, nbconnect, ok, served_by, served_set, stats,
                     wait_carried, wait_idle)
from backend import PORT
from system import wait_until

IPV6_ADDRFORM = 1  # include/uapi/linux/in6.h
ALL = {"cp1", "cp2", "cp3"}


# --- ours --------------------------------------------------------------------


@pytest.mark.parametrize("host", [V4, V6, MAPPED])
def test_frontend_addresses(attached, host):
    """All three spellings of this machine reach every backend."""
    assert served_set(attached, 60, host=host) == ALL


@pytest.mark.parametrize("host,loopback", [("0.0.0.0", V4), ("::", V6),
                                           ("::ffff:0.0.0.0", MAPPED)])
def test_unspecified_address(attached, host, loopback):
    """Dialled, it means the loopback address, so it is balanced as that is."""
    context = ssl.create_default_context(cafile=attached.ca)
    context.check_hostname = False  # no certificate names it
    assert served_set(attached, 60, host=host, context=context) == ALL
    with dial(attached, host) as connection:
        assert connection.getpeername()[:2] == (loopback, PORT)


def test_unspecified_address_with_a_source(attached):
    """Bound to an address of the host it means that one, where nobody listens."""
    assert dial_error(attached, "0.0.0.0", bind=attached.node_v4) == "ECONNREFUSED"
    assert dial_error(attached, "::", bind=attached.node_v6) == "ECONNREFUSED"
    assert sum(stats(attached, "opened").values()) == 0


@pytest.mark.parametrize("host", [V4, V6, MAPPED])
def test_peer_is_what_was_dialled(attached, host):
    with dial(attached, host) as connection:
        assert connection.getpeername()[:2] == (host, PORT)
    shown = {V4: "127.0.0.1:6443", V6: "[::1]:6443", MAPPED: "[::ffff:127.0.0.1]:6443"}[host]
    lines = nbconnect(attached, "--peer", "-n", 5, *(["-6"] if host == MAPPED else []),
                      V4 if host == MAPPED else host)["lines"]
    assert lines == [f"peer: {shown}"] * 5


def test_peer_of_others_is_their_own(attached):
    with dial(attached, attached.cp(1).v4) as connection:
        assert connection.getpeername() == (attached.cp(1).v4, PORT)


def test_address_that_is_not_loopback(stage):
    """A Service's address can be a frontend as well."""
    stage.configure(frontends=["10.96.0.1:443", "[fd00:96::1]:443"])
    ok(stage.load())
    assert nbconnect(stage, "-n", 10, "--peer", "10.96.0.1", 443)["lines"] == \
        ["peer: 10.96.0.1:443"] * 10
    assert nbconnect(stage, "-n", 10, "--peer", "fd00:96::1", 443)["lines"] == \
        ["peer: [fd00:96::1]:443"] * 10
    assert dial_error(stage) == "ECONNREFUSED"


def test_bound_to_another_source(attached):
    """A source address that can leave the machine is no obstacle."""
    counts = Accepts(attached)
    with dial(attached, bind=attached.node_v4) as connection:
        assert connection.getsockname()[0] == attached.node_v4
        counts.settled(1)


def test_ipv6_backends(stage):
    stage.configure(backends=[b.endpoint6 for b in stage.backends])
    ok(stage.load())
    assert served_set(stage, 60, host=V6) == ALL
    # An IPv4 socket cannot reach them: through, to whoever listens there.
    assert dial_error(stage, V4) == "ECONNREFUSED"
    assert counters(stage)["skipped_no_backend"] == 1


def test_mixed_families(stage):
    """Each socket gets the backends that it can reach."""
    stage.configure(backends=[stage.cp(1).endpoint, stage.cp(2).endpoint6,
                              stage.cp(3).endpoint])
    ok(stage.load())
    assert served_set(stage, 40, host=V4) == {"cp1", "cp3"}
    assert served_set(stage, 60, host=V6) == ALL
    assert served_set(stage, 40, host=V6, v6only=True) == {"cp2"}


def test_v6only_with_ipv4_backends_passes_through(attached):
    assert dial_error(attached, V6, v6only=True) == "ECONNREFUSED"
    assert counters(attached)["skipped_no_backend"] == 1
    with Listener(attached, V6, PORT) as listener:
        assert nbconnect(attached, "--v6only", "-n", 5, V6)["ok"] == 5
        listener.wait(5)
    assert sum(stats(attached, "opened").values()) == 0


@pytest.fixture(name="ipv6_only")
def ipv6_only_fixture(stage):
    """A host whose IPv6 sockets are IPv6-only unless they say otherwise."""
    stage.sysctl(stage.node, "net.ipv6.bindv6only", "1")
    yield stage
    stage.sysctl(stage.node, "net.ipv6.bindv6only", "0")


def test_host_whose_ipv6_sockets_are_ipv6_only(ipv6_only):
    """Its default is not for the test connect: that dials an IPv4 address."""
    ok(ipv6_only.load())
    for args in ([V4], ["-6", MAPPED], [V6]):
        result = nbconnect(ipv6_only, "-n", 9, "--peer", *args)
        assert result["ok"] == 9 and len(set(result["lines"])) == 1, result
    assert sum(stats(ipv6_only, "opened").values()) == 27
    # Who has not said otherwise reaches no IPv4 backend: left alone, and said so.
    assert dial_error(ipv6_only, V6) == "ECONNREFUSED"
    assert counters(ipv6_only)["skipped_no_backend"] == 1


# --- not ours ----------------------------------------------------------------


@pytest.mark.parametrize("host, port", [(V4, 6442), (V4, 6444), ("127.0.0.2", PORT), (V6, 6442)])
def test_neighbouring_addresses(attached, host, port):
    """Exactly the frontend, not the port next to it nor the rest of 127/8."""
    with Listener(attached, host, port) as listener:
        counts = Accepts(attached)
        assert nbconnect(attached, "-n", 10, host, port)["ok"] == 10
        listener.wait(10)
        assert sum(counts.now().values()) == 0
    assert dial_error(attached, host, port) == "ECONNREFUSED"
    assert sum(stats(attached, "opened").values()) == 0


def test_direct_connects_to_a_backend(attached):
    for b in attached.backends:
        assert served_set(attached, 5, host=b.v4) == {b.name}
        assert served_set(attached, 5, host=b.v6) == {b.name}
    assert sum(stats(attached, "opened").values()) == 0


def test_udp_is_untouched(attached):
    with Listener(attached, V4, PORT, kind=socket.SOCK_DGRAM) as listener:
        result = nbconnect(attached, "--udp", "--peer", "-n", 10, V4)
        assert result["ok"] == 10
        assert result["lines"] == ["peer: 127.0.0.1:6443"] * 10
        listener.wait(10)
    with Listener(attached, V6, PORT, kind=socket.SOCK_DGRAM) as listener:
        assert nbconnect(attached, "--udp", "-n", 10, V6)["ok"] == 10
        listener.wait(10)
    assert sum(stats(attached, "opened").values()) == 0


@pytest.mark.parametrize("host", [V4, V6])
def test_bound_to_loopback(attached, host):
    """Such a socket cannot leave the machine: left alone, and counted."""
    assert dial_error(attached, host, bind=host) == "ECONNREFUSED"
    assert counters(attached)["skipped_loopback_source"] == 1
    with Listener(attached, host, PORT) as listener:
        assert nbconnect(attached, "--bind", host, "-n", 3, host)["ok"] == 3
        listener.wait(3)
    assert counters(attached)["skipped_loopback_source"] == 4
    assert sum(stats(attached, "opened").values()) == 0


@pytest.mark.parametrize("host", [V4, V6])
def test_listener_on_the_frontend(stage, host):
    """An old proxy that still listens gets nothing while KubeLB is attached,
    and everything once it is not."""
    with Listener(stage, host, PORT) as listener:
        assert nbconnect(stage, "-n", 10, host)["ok"] == 10
        listener.wait(10)
        ok(stage.load())
        listener.wait(11)  # the preflight looks whether somebody is there,
        counts = Accepts(stage)
        assert nbconnect(stage, "-n", 50, host)["ok"] == 50
        counts.settled(50)
        assert listener.count == 11
        ok(stage.detach())
        listener.wait(12)  # and so does --detach
        assert nbconnect(stage, "-n", 10, host)["ok"] == 10
        listener.wait(22)


def test_pod_keeps_its_own_loopback(attached):
    """scope host: a pod's 127.0.0.1:6443 is the pod's."""
    pod = attached.pod()
    assert dial_error(attached, ns=pod) == "ECONNREFUSED"
    # At least: another world's connects are of another namespace as well.
    assert counters(attached)["skipped_other_netns"] >= 1
    with Listener(attached, V4, PORT, ns=pod) as listener:
        assert nbconnect(attached, "-n", 10, V4, ns=pod)["ok"] == 10
        listener.wait(10)
    with Listener(attached, V6, PORT, ns=pod) as listener:
        assert nbconnect(attached, "-n", 10, V6, ns=pod)["ok"] == 10
        listener.wait(10)
    assert sum(stats(attached, "opened").values()) == 0
    assert served_by(attached) in ALL


def test_scope_all(stage):
    """scope all: pods too. In a cgroup of its own, for the rest of the machine
    has a 127.0.0.1:6443 as well."""
    group, pod = stage.cgroup(), stage.pod()
    stage.attach_to = group
    stage.configure(frontends=[{"address": "127.0.0.1:6443", "scope": "all"}, "[::1]:6443"])
    ok(stage.load())
    counts = Accepts(stage)
    with Listener(stage, V4, PORT, ns=pod) as listener:
        assert nbconnect(stage, "-n", 100, V4, ns=pod, cgroup=group)["ok"] == 100
        assert nbconnect(stage, "-n", 20, V4, cgroup=group)["ok"] == 20
        assert all(counts.settled(120).values()), "spread over all of them"
        assert listener.count == 0
    # The other frontend is still the host's alone.
    assert nbconnect(stage, V6, ns=pod, cgroup=group)["errors"] == {"ECONNREFUSED": 1}


# --- the socket's life -------------------------------------------------------


def test_active_follows_the_socket(attached):
    """A connection is active until its last descriptor is closed."""
    connection = dial(attached)
    wait_until(lambda: sum(stats(attached, "active").values()) == 1, "one active")
    copy = connection.dup()
    connection.close()
    assert sum(stats(attached, "active").values()) == 1
    copy.close()
    wait_idle(attached)


def test_active_after_the_client_is_killed(attached):
    with Held(attached, 50) as held:
        wait_until(lambda: sum(stats(attached, "active").values()) == 50, "fifty active")
        held.kill9()
        wait_idle(attached)


def test_active_after_the_server_is_killed(attached):
    """Reset or closed from there, then closed here."""
    with Held(attached, 30) as held:
        for b in attached.backends:
            b.kill()
        assert held.close()["closed"] == 30
    wait_idle(attached)


def test_active_after_refused_connects(attached):
    for b in attached.backends:
        b.kill()
    assert nbconnect(attached, "-n", 50, V4)["errors"] == {"ECONNREFUSED": 50}
    wait_idle(attached)


def test_active_after_an_unanswered_connect(attached):
    """Given up before it was established."""
    for b in attached.backends:
        b.link(up=False)
    assert nbconnect(attached, "-n", 5, "--timeout", 50, V4)["errors"] == {"ETIMEDOUT": 5}
    wait_idle(attached)


def test_reconnected_socket(attached):
    """AF_UNSPEC and connect again: chosen anew, counted once."""
    counts = Accepts(attached)
    result = nbconnect(attached, "--reconnect", "--peer", "-n", 50, V4)
    assert result["ok"] == 50
    assert result["lines"] == ["peer: 127.0.0.1:6443"] * 50
    assert stats(attached, "opened") == counts.settled(100)
    with Held(attached, 30, "--reconnect"):
        assert sum(stats(attached, "active").values()) == 30
    wait_idle(attached)


@pytest.fixture(name="moved")
def moved_fixture(stage):
    """A socket that was ours (at the only backend, cp1) and has been connected
    anew, to cp1's own address."""
    stage.configure(backends=[stage.cp(1).endpoint])
    ok(stage.load())
    with dial(stage) as connection:
        assert dissolve(connection) == 0
        connection.connect((stage.cp(1).v4, PORT))
        yield stage, connection


def test_reconnected_directly_is_not_counted(moved):
    stage, _connection = moved
    wait_idle(stage)
    assert stats(stage, "opened") == {"cp1": 1}


def test_reconnected_directly_has_its_own_peer(moved):
    """It has dialled the backend and is to see the backend."""
    stage, connection = moved
    assert connection.getpeername() == (stage.cp(1).v4, PORT)


def test_reconnected_elsewhere_has_its_own_peer(attached):
    """The record outlives the association; what it says no longer holds."""
    connection = dial(attached)
    try:
        assert dissolve(connection) == 0
        with Listener(attached, "127.0.0.3", PORT):
            connection.connect(("127.0.0.3", PORT))
            assert connection.getpeername() == ("127.0.0.3", PORT)
    finally:
        connection.close()
    wait_idle(attached)


def dissolve(connection):
    """connect(2) with AF_UNSPEC, which Python's sockets cannot say."""
    return ctypes.CDLL(None).connect(connection.fileno(), b"\0" * 16, 16)


def test_refused_connect_is_retried_on_the_same_socket(attached):
    """What a client may do on Linux after ECONNREFUSED."""
    for b in attached.backends:
        b.kill()
    connection = make_socket(attached, socket.AF_INET)
    try:
        with pytest.raises(ConnectionRefusedError):
            connection.connect((V4, PORT))
        for b in attached.backends:
            b.start()
        connection.connect((V4, PORT))
        wait_until(lambda: sum(stats(attached, "active").values()) == 1, "one active")
        assert connection.getpeername() == (V4, PORT)
    finally:
        connection.close()
    wait_idle(attached)


def retry(stage, family, host, tries):
    """connect(2) on one blocking socket until it succeeds; how often it was
    refused. One that hangs ends as BlockingIOError."""
    with make_socket(stage, family) as sock:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 3, 0))
        for refused in range(tries):
            with contextlib.suppress(ConnectionRefusedError):
                sock.connect((host, PORT))
                assert sock.getpeername()[:2] == (host, PORT)
                return refused
        return tries


@pytest.mark.parametrize("policy", ["least-conn", "random"])
def test_retry_of_an_ipv6_socket(stage, policy):
    """A socket that has tried an IPv4 backend cannot go to an IPv6 one any
    more: its SYN would never be answered. It stays with IPv4."""
    dead, ipv6, alive = stage.backends
    stage.configure(policy=policy, backends=[dead.endpoint, ipv6.endpoint6, alive.endpoint])
    ok(stage.load())
    dead.kill()
    refused = [retry(stage, socket.AF_INET6, V6, 6) for _ in range(40)]
    assert 0 in refused
    assert set(refused) != {0}, "not a retry among them"
    wait_carried(stage, 0)


def test_retry_draws_anew(stage):
    """A refused socket is not sent to the same backend for ever."""
    stage.configure(policy="random")
    ok(stage.load())
    stage.cp(1).kill()
    refused = [retry(stage, socket.AF_INET, V4, 40) for _ in range(20)]
    assert max(refused) in range(1, 40), refused


@pytest.mark.parametrize("host", [V6, MAPPED])
def test_peer_of_a_socket_turned_into_ipv4(attached, host):
    """IPV6_ADDRFORM: an address that has no IPv4 form is not cut down to one."""
    with dial(attached, host) as connection:
        connection.setsockopt(socket.IPPROTO_IPV6, IPV6_ADDRFORM, socket.AF_INET)
        address, port = connection.getpeername()
        assert port == PORT
        assert address in ({V4} if host == MAPPED else {b.v4 for b in attached.backends})
    wait_carried(attached, 0)


def test_kept_connection_stays_where_it_is(attached):
    """Requests of one connection go to one backend."""
    with Kept(attached) as connection:
        assert len({connection.backend() for _ in range(20)}) == 1


# --- a server that dials itself ----------------------------------------------

# Listens on every address, as kube-apiserver does, and connects to itself, as its loopback
# client does. Prints how many of its connects have arrived at itself.
SELF_DIALLER = """
import socket, sys
host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
server = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
server.setblocking(False)
arrived = 0
for _ in range(count):
    try:
        client = socket.create_connection((host, port), timeout=5)
    except OSError as error:
        sys.exit(f"{host}: {error}")
    try:
        server.accept()[0].close()
        arrived += 1
    except BlockingIOError:
        pass
    client.close()
print(arrived)
"""


def dials_itself(stage, host, cgroup):
    done = stage.exec(["/usr/bin/python3", "-c", SELF_DIALLER, host, PORT, 20], cgroup=cgroup)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.fixture(name="beside")
def beside_fixture(stage):
    """A control-plane node whose own apiserver is one of three, and like the others."""
    local = stage.local_apiserver()
    local.kill()
    stage.configure(policy="random", local="ignore",
                    backends=[stage.cp(1).endpoint, stage.cp(2).endpoint, local.endpoint])
    ok(stage.load())
    return stage


@pytest.mark.parametrize("host", [V4, V6, MAPPED])
def test_server_reaches_itself(beside, host):
    """An apiserver's own client is understood by no other: sent elsewhere before it is ready,
    it would never become ready."""
    assert dials_itself(beside, host, beside.cgroup("apiserver")) == 20
    assert counters(beside)["skipped_own_listener"] == 20
    assert sum(stats(beside, "opened").values()) == 0


def opened(stage):
    return [backend["opened"] for backend in backend_status(stage).values()]


def test_others_are_balanced_beside_it(beside):
    """The same address, dialled from another unit or container; and what is in none is not
    taken for one."""
    server = beside.spawn(["/usr/bin/python3", "-c", """
import socket, sys
server = socket.create_server(("", int(sys.argv[1])), family=socket.AF_INET6,
                              dualstack_ipv6=True)
print("up", flush=True)
while True:
    server.accept()[0].close()
""", PORT], cgroup=beside.cgroup("apiserver"))
    assert server.stdout.readline() == "up\n"
    assert nbconnect(beside, "-n", 60, V4, cgroup=beside.cgroup("other"))["ok"] == 60
    assert all(opened(beside)), "each of the three has its share"
    assert nbconnect(beside, "-n", 60, V4)["ok"] == 60
    assert sum(opened(beside)) == 120
    assert counters(beside)["skipped_own_listener"] == 0


@pytest.mark.parametrize("host", [V4, V6, MAPPED])
def test_process_reaches_itself(beside, host):
    """Also where nothing runs in a cgroup of its own, as on hosts with version 1."""
    assert dials_itself(beside, host, cgroup=None) == 20
    assert counters(beside)["skipped_own_listener"] == 20


def test_whatever_the_list_says(stage):
    """No backend is on this node: an apiserver that has left the list, or is not in it yet, is
    the same server."""
    ok(stage.load())
    assert dials_itself(stage, V4, stage.cgroup("apiserver")) == 20
    assert dials_itself(stage, V4, cgroup=None) == 20
    assert sum(stats(stage, "opened").values()) == 0
    assert counters(stage)["skipped_own_listener"] == 40
