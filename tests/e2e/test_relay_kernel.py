# SPDX-License-Identifier: BSD-2-Clause
"""Connects that the kernel programs give to the relay: those whose backend leaves a SYN unanswered
(rescue), and those that cannot reach a backend themselves (detour). The relay is a stand-in, see
relaying.py."""

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import socket
import struct
import threading

import pytest

from backend import PORT
from helpers import (MAPPED, V4, V6, Kept, backend_ids, carried, counters, dial, dial_error, dump,
                     make_socket, ok, stats)
from relaying import MARK, RETRANSMIT, SO_MARK, UNREACHABLE, StandIn
from system import inside, run_checked, wait_until

HOSTS = {"v4": V4, "v6": V6, "mapped": MAPPED}
AF_UNSPEC_ADDRESS = bytes(16)


def mark_of(sock):
    return sock.getsockopt(socket.SOL_SOCKET, SO_MARK)


def events(stage, kind):
    ids = {"failed": "KLB_EVENT_CONNECT_FAILED", "unanswered": "KLB_EVENT_UNANSWERED"}
    return [e for _key, e in dump(stage, "events") if e["number"] and e["kind"] == ids[kind]]


def dead_first(stage, family="v4", timeout="5s"):
    """Every connect goes to cp1, which has vanished, with its neighbour entry still there: without
    one the SYN would wait in the host's queue for it. cp2 is the relay's."""
    one, two = stage.cp(1), stage.cp(2)
    pick = (lambda b: b.endpoint6) if family == "v6" else (lambda b: b.endpoint)
    stage.configure(backends=[{"address": pick(one), "weight": 100},
                              {"address": two.endpoint, "weight": 0}], connectTimeout=timeout)
    ok(stage.load())
    for address in (one.v4, one.v6):
        mac = json.loads(run_checked(["ip", "-j", "-n", one.ns, "link", "show", "eth0"]))
        run_checked(["ip", "-n", stage.node, "neigh", "replace", address, "lladdr",
                     mac[0]["address"], "dev", "eth0", "nud", "permanent"])
    one.link(up=False)


@pytest.fixture(name="neighbours", autouse=True)
def neighbours_fixture(stage):
    yield
    for address in (stage.cp(1).v4, stage.cp(1).v6):
        stage.exec(["ip", "neigh", "del", address, "dev", "eth0"])


@pytest.fixture(name="relay")
def relay_fixture(stage):
    dead_first(stage)
    with StandIn(stage, stage.cp(2)) as relay:
        yield relay.replace(stage.cp(1))


@contextlib.contextmanager
def named(name):
    """The running thread has this name."""
    path = f"/proc/self/task/{threading.get_native_id()}/comm"
    with open(path, encoding="ascii") as f:
        before = f.read()
    with open(path, "w", encoding="ascii") as f:
        f.write(name)
    try:
        yield
    finally:
        with open(path, "w", encoding="ascii") as f:
            f.write(before)


def connections(stage):
    return json.loads(ok(stage.ctl("connections", "-o", "json")).stdout)["connections"]


def begin(stage, host=V4, ns=None, **options):
    """A connect that is under way."""
    sock = make_socket(stage, socket.AF_INET6 if ":" in host else socket.AF_INET, ns)
    for name, value in options.items():
        sock.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
    sock.setblocking(False)
    assert sock.connect_ex((host, PORT)) == errno.EINPROGRESS
    return sock


def is_connecting(sock):
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == 2  # TCP_SYN_SENT


def outcome(sock, timeout=10):
    """Of a connect that is under way: the errno, 0 when it is established."""
    sock.settimeout(timeout)
    wait_until(lambda: not is_connecting(sock), "the connect to end", timeout)
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


# --- rescue --------------------------------------------------------------------


@pytest.mark.parametrize("family", HOSTS)
def test_a_client_of_a_vanished_backend_is_served(stage, family):
    dead_first(stage, family)
    with StandIn(stage, stage.cp(2)) as relay:
        relay.replace(stage.cp(1))
        with Kept(stage, HOSTS[family]) as client:
            assert client.backend() == "cp2"
            peer = client.sock.getpeername()[:2]
            assert peer == (HOSTS[family], PORT), "what it dialled"
            assert mark_of(client.sock) == MARK
        entry = relay.served[0]
    assert len(relay.served) == 1
    assert entry.frontend == (HOSTS[family].removeprefix("::ffff:"), PORT)
    assert entry.backend == (stage.cp(1).v6 if family == "v6" else stage.cp(1).v4, PORT)
    assert (entry.from_, entry.pid) == (RETRANSMIT, os.getpid())
    with open("/proc/self/comm", encoding="ascii") as f:
        assert entry.comm == f.read().strip()
    assert not dump(stage, "relayed"), "the relay has taken its entry"


def test_it_counts_once_and_where_it_is_served(stage, relay):
    """The row has the client's process, not the relay's, which is a thread with another name."""
    with named("a-client"), Kept(stage) as client:
        assert client.backend() == "cp2"
        ids = backend_ids(stage)
        assert carried(stage) == {ids["cp2"]: 1}
        rows = connections(stage)
        assert [(r["backend"], r["process"]["name"], r["relayed"]) for r in rows] == \
            [(f"{stage.cp(2).v4}:{PORT}", "a-client", True)]
        assert stats(stage, "opened") == {"cp1": 0, "cp2": 1}
        assert stats(stage, "failed") == {"cp1": [0] * 5, "cp2": [0] * 5}
        assert not events(stage, "failed")
    wait_until(lambda: not carried(stage), lambda: f"no connection, but {carried(stage)}")
    assert len(relay.served) == 1


def test_the_next_connect_is_rescued_too(stage, relay):
    for _ in range(5):
        with Kept(stage) as client:
            assert client.backend() == "cp2"
    assert len(relay.served) == 5


def test_kill_ends_it_where_it_is_served(stage, relay):
    with Kept(stage) as client:
        assert client.backend() == "cp2"
        ok(stage.ctl("drain", stage.cp(1).endpoint))
        assert "0 connections" in ok(stage.ctl("kill", stage.cp(1).endpoint)).stdout or \
            not json.loads(ok(stage.ctl("connections", "-o", "json")).stdout)["connections"][1:]
        assert client.backend() == "cp2", "the vanished backend has none to end"
        ok(stage.ctl("kill", stage.cp(2).endpoint))
        with pytest.raises(OSError):
            client.backend()
    wait_until(lambda: not carried(stage), lambda: f"no connection, but {carried(stage)}")
    assert relay.served


MEGABYTES = 50


def blob_server(stage, received):
    """In cp2's place: takes 50 MB, and sends as many back."""
    stage.cp(2).kill()
    server = make_socket(stage, socket.AF_INET, stage.cp(2).ns)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((stage.cp(2).v4, PORT))
    server.listen(8)

    def serve():
        c = server.accept()[0]
        digest = hashlib.sha256()
        while data := c.recv(1 << 16):
            digest.update(data)
        received.append(digest.hexdigest())
        c.sendall(BLOB * MEGABYTES)
        c.close()

    threading.Thread(target=serve, daemon=True).start()
    return server


BLOB = os.urandom(1 << 20)


def test_fifty_megabytes_each_way(stage, relay):
    received = []
    whole = hashlib.sha256(BLOB * MEGABYTES).hexdigest()
    with blob_server(stage, received), dial(stage, timeout=60) as client:
        client.sendall(BLOB * MEGABYTES)
        client.shutdown(socket.SHUT_WR)
        digest = hashlib.sha256()
        while data := client.recv(1 << 16):
            digest.update(data)
    assert received == [whole]
    assert digest.hexdigest() == whole
    assert len(relay.served) == 1


def test_no_time_out_of_the_connect_stays(stage, relay):
    """A relay that takes no data for longer than connectTimeout must not end its client."""
    host = stage.exec(["sysctl", "-n", "net.ipv4.tcp_syn_retries"]).stdout.strip()
    with dial(stage) as client:
        assert client.getsockopt(socket.IPPROTO_TCP, 18) == 0  # TCP_USER_TIMEOUT
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT) == int(host)
        assert relay is not None


# --- the backend answers after all ------------------------------------------------


def drop_syns(stage, add):
    ok(stage.exec(["iptables", "-A" if add else "-D", "INPUT", "-p", "tcp", "--dport", str(PORT),
                   "--syn", "-j", "DROP"], ns=stage.cp(1).ns))


def test_a_late_answer_of_the_backend_takes_the_mark_off(stage):
    """The rule is not there (yet), so the marked SYN reaches the backend."""
    dead_first(stage)
    stage.cp(1).link(up=True)
    drop_syns(stage, True)
    with StandIn(stage, stage.cp(2)) as relay:
        relay.stand_in(stage.cp(1))
        with begin(stage) as client:
            wait_until(lambda: mark_of(client) == MARK, "the socket to be marked")
            drop_syns(stage, False)
            assert outcome(client) == 0
            assert mark_of(client) == 0
            relay.route()  # nothing of it goes to the relay any more
            client.settimeout(5)
            client.sendall(b"x")
            assert carried(stage) == {backend_ids(stage)["cp1"]: 1}
            assert stats(stage, "opened") == {"cp1": 1, "cp2": 0}
            assert client.getsockopt(socket.IPPROTO_TCP, 18) == 10000  # deadPeerTimeout
        assert not relay.served
    wait_until(lambda: not carried(stage), lambda: f"no connection, but {carried(stage)}")


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def send_syn_ack(stage, port, acknowledges):
    """From cp1, as its own kernel would have done a moment earlier."""
    one, node = stage.cp(1).v4, stage.node_v4
    fields = [PORT, port, 12345, acknowledges, 5 << 12 | 0x12, 64240, 0, 0]
    pseudo = socket.inet_aton(one) + socket.inet_aton(node) + struct.pack("!HH", 6, 20)
    fields[6] = checksum(pseudo + struct.pack("!HHIIHHHH", *fields))
    with inside(stage.cp(1).ns):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    with raw:
        raw.sendto(struct.pack("!HHIIHHHH", *fields), (node, 0))


def test_a_late_syn_ack_meets_a_relayed_connection(stage, relay):
    """Its sequence number is not the relay's: the client answers with a challenge, which the
    relay's side takes for a duplicate."""
    with dial(stage) as client:
        stage.cp(1).link(up=True)
        drop_all = ["OUTPUT", "-p", "tcp", "--tcp-flags", "RST", "RST", "-j", "DROP"]
        ok(stage.exec(["iptables", "-A", *drop_all], ns=stage.cp(1).ns))
        try:
            send_syn_ack(stage, client.getsockname()[1], relay.record(client).send_base + 1)
        finally:
            ok(stage.exec(["iptables", "-D", *drop_all], ns=stage.cp(1).ns))
        stage.cp(1).link(up=False)
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert client.recv(100), "it still works"
    assert len(relay.served) == 1


# --- who is not rescued -------------------------------------------------------------


def assert_fails(stage, sock, mark):
    """And has that mark all the time."""
    wait_until(lambda: mark_of(sock) != mark or not is_connecting(sock), "the connect to end")
    assert mark_of(sock) == mark
    assert outcome(sock) == errno.ETIMEDOUT
    assert mark_of(sock) == mark
    assert not dump(stage, "relayed")


def test_a_mark_of_the_application_stays(stage, relay):
    with begin(stage, SO_MARK=7) as client:
        assert_fails(stage, client, 7)
    assert not relay.served


def test_no_rescue_for_a_device_of_the_application(stage, relay):
    with begin(stage, SO_BINDTODEVICE=b"eth0\0") as client:
        assert_fails(stage, client, 0)
    assert not relay.served


def test_no_rescue_without_an_agent(stage, relay):
    relay.beat(old=True)
    with begin(stage) as client:
        assert_fails(stage, client, 0)
    assert not relay.served and not events(stage, "unanswered")


def test_no_rescue_in_a_pod(apart, relay):
    apart.configure(frontends=[{"address": f"127.0.0.1:{PORT}", "scope": "all"}],
                    backends=[{"address": apart.cp(1).endpoint, "weight": 100},
                              {"address": apart.cp(2).endpoint, "weight": 0}])
    ok(apart.load())
    relay.tell()
    mac = json.loads(run_checked(["ip", "-j", "-n", apart.cp(1).ns, "link", "show", "eth0"]))
    pod = apart.pod()
    run_checked(["ip", "-n", pod, "neigh", "replace", apart.cp(1).v4, "lladdr",
                 mac[0]["address"], "dev", "eth0", "nud", "permanent"])
    with begin(apart, ns=pod) as client:
        assert_fails(apart, client, 0)
    assert not relay.served and not events(apart, "unanswered")


def test_a_backend_that_nobody_stands_in_for_is_reported(stage):
    """Once: the agent is woken, listens, and the next retransmission is answered."""
    dead_first(stage)
    with StandIn(stage, stage.cp(2)) as relay:
        relay.tell()
        with begin(stage) as client, begin(stage):
            wait_until(lambda: events(stage, "unanswered"), "the agent to be told")
            assert mark_of(client) == 0
            relay.replace(stage.cp(1))
            assert outcome(client) == 0
            wait_until(lambda: relay.served, "the relay to serve it")
        told = events(stage, "unanswered")
        assert [e["id"] for e in told] == [backend_ids(stage)["cp1"]]


# --- what becomes of the mark --------------------------------------------------------


def test_a_failed_connect_gives_its_mark_back(stage):
    """And counts against its backend as any other."""
    dead_first(stage)
    with StandIn(stage, stage.cp(2)) as relay:
        relay.stand_in(stage.cp(1))
        with begin(stage) as client:
            wait_until(lambda: mark_of(client) == MARK, "the socket to be marked")
            assert outcome(client) == errno.ETIMEDOUT
            assert mark_of(client) == 0
        assert stats(stage, "failed")["cp1"][1] == 1  # KLB_FAILURE_TIMED_OUT
        assert not carried(stage)


def disconnect(sock):
    """connect(2) to AF_UNSPEC, which Python does not know."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.connect(sock.fileno(), AF_UNSPEC_ADDRESS, 16) == 0, ctypes.get_errno()


@pytest.mark.parametrize("where", ["elsewhere", "frontend"])
def test_a_relayed_socket_connects_again(stage, relay, where):
    """The mark would deliver its next SYN to this host."""
    with dial(stage) as client:
        assert mark_of(client) == MARK
        wait_until(lambda: carried(stage), "the relay to serve it")
        disconnect(client)
        wait_until(lambda: not carried(stage), "its reset to reach the relay")
        stage.cp(1).link(up=True)
        served = len(relay.served)
        client.settimeout(5)
        client.connect((stage.cp(3).v4 if where == "elsewhere" else V4, PORT))
        assert mark_of(client) == 0
        assert len(relay.served) == served
        expected = {} if where == "elsewhere" else {backend_ids(stage)["cp1"]: 1}
        wait_until(lambda: carried(stage) == expected, lambda: f"{expected}: {carried(stage)}")


def test_after_shutdown_a_relayed_socket_connects_again(stage, relay):
    with dial(stage) as client:
        wait_until(lambda: relay.served, "the relay to serve it")
        client.shutdown(socket.SHUT_RDWR)
        disconnect(client)
        client.settimeout(5)
        client.connect((stage.cp(3).v4, PORT))
        assert mark_of(client) == 0
        assert client.getpeername() == (stage.cp(3).v4, PORT)
    assert len(relay.served) == 1


def test_a_reset_reaches_the_relay(stage, relay):
    """close(2) with unread data: by a packet that still has the mark."""
    client = dial(stage)
    client.sendall(b"GET / HTTP/1.0\r\n\r\n")
    wait_until(lambda: client.recv(1, socket.MSG_PEEK), "an answer to be unread")
    client.close()
    wait_until(lambda: not carried(stage), lambda: f"no connection, but {carried(stage)}")
    assert errno.ECONNRESET in relay.errors


def test_detach_gives_the_mark_of_a_connect_under_way_back(stage):
    """Of one that takes longer than a detach waits for it."""
    dead_first(stage, timeout="30s")
    with StandIn(stage, stage.cp(2)) as relay:
        relay.stand_in(stage.cp(1))
        with begin(stage) as client:
            wait_until(lambda: mark_of(client) == MARK, "the socket to be marked")
            ok(stage.detach())
            assert is_connecting(client)
            assert mark_of(client) == 0


def test_detach_leaves_a_relayed_connection_alone(stage, relay):
    with Kept(stage) as client:
        assert client.backend() == "cp2"
        ok(stage.detach())
        assert client.backend() == "cp2"
        assert mark_of(client.sock) == MARK
    assert relay.served


# --- detour ---------------------------------------------------------------------------

SOURCES = {"v4": "127.0.0.9", "v6": "::1", "mapped": "::ffff:127.0.0.9"}


@pytest.fixture(name="detour")
def detour_fixture(attached):
    with StandIn(attached, attached.cp(2)) as relay:
        yield relay.detour()


@pytest.mark.parametrize("family", HOSTS)
def test_a_loopback_source_is_served(attached, detour, family):
    before = counters(attached)
    with Kept(attached, HOSTS[family], bind=SOURCES[family]) as client:
        assert client.backend() == "cp2"
        assert client.sock.getpeername()[:2] == (HOSTS[family], PORT)
        assert client.sock.getsockname()[0] == SOURCES[family]
        assert carried(attached) == {backend_ids(attached)["cp2"]: 1}
        assert [r["process"]["pid"] for r in connections(attached)] == [os.getpid()]
    entry = detour.served[0]
    assert (entry.from_, entry.pid, entry.backend[1]) == (UNREACHABLE, os.getpid(), 0)
    assert entry.frontend == (HOSTS[family].removeprefix("::ffff:"), PORT)
    after = counters(attached)
    assert after["skipped_loopback_source"] == before["skipped_loopback_source"]
    wait_until(lambda: not carried(attached), lambda: f"nothing, but {carried(attached)}")


@pytest.mark.parametrize("host,source", [(V6, SOURCES["mapped"]), (MAPPED, V6)])
def test_what_the_socket_is_bound_to_decides_its_family(attached, detour, host, source):
    """Without KubeLB neither gets anywhere."""
    with Kept(attached, host, bind=source) as client:
        assert client.backend() == "cp2"
    assert detour.served[0].frontend == (host.removeprefix("::ffff:"), PORT)


def test_the_loopback_device_is_served(attached, detour):
    sock = make_socket(attached, socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")
    sock.settimeout(5)
    with sock:
        sock.connect((V4, PORT))
        wait_until(lambda: detour.served, "the relay to take it")


@pytest.mark.parametrize("family,host,v6only", [("v6", V4, None), ("v4", V6, 1)])
def test_a_socket_of_the_wrong_family_is_served(stage, family, host, v6only):
    stage.configure(backends=[b.endpoint6 if family == "v6" else b.endpoint
                              for b in stage.backends])
    ok(stage.load())
    assert dial_error(stage, host, v6only=v6only) == "ECONNREFUSED", "without a relay"
    before = counters(stage)["skipped_no_backend"]
    assert before >= 1
    with StandIn(stage, stage.cp(2)) as relay:
        relay.detour()
        with dial(stage, host, v6only=v6only) as client:
            assert client.getpeername()[:2] == (host, PORT)
            wait_until(lambda: relay.served, "the relay to take it")
    assert relay.served[0].frontend == (host, PORT)
    assert counters(stage)["skipped_no_backend"] == before


def test_without_a_relay_it_is_left_alone_and_counted(attached, detour):
    detour.ports = [0, 0]
    detour.tell()
    for n, (host, source) in enumerate([(V4, "127.0.0.9"), (V6, "::1")], 1):
        assert dial_error(attached, host, bind=source) == "ECONNREFUSED"
        assert counters(attached)["skipped_loopback_source"] == n
    assert not detour.served


def test_no_detour_without_an_agent(attached, detour):
    detour.beat(old=True)
    assert dial_error(attached, bind="127.0.0.9") == "ECONNREFUSED"
    assert not detour.served


def test_no_detour_in_a_pod(apart):
    apart.configure(frontends=[{"address": f"127.0.0.1:{PORT}", "scope": "all"}])
    ok(apart.load())
    with StandIn(apart, apart.cp(2)) as relay:
        relay.detour()
        before = counters(apart)["skipped_loopback_source"]
        assert dial_error(apart, ns=apart.pod(), bind="127.0.0.9") == "ECONNREFUSED"
        assert counters(apart)["skipped_loopback_source"] == before + 1
        assert not relay.served


@pytest.mark.parametrize("family", ["v4", "v6"])
def test_a_server_that_dials_itself_is_left_alone(attached, detour, family):
    """As it is without a loopback source, see test_own_server.py."""
    host = HOSTS[family]
    with make_socket(attached, socket.AF_INET6 if family == "v6" else socket.AF_INET) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((host, PORT))
        server.listen(1)
        with dial(attached, host, bind=SOURCES[family]) as client:
            assert server.accept()[1] == client.getsockname()
    assert not detour.served and counters(attached)["skipped_loopback_source"] == 1


def test_the_relay_itself_is_never_detoured(attached, detour):
    """It would dial itself for ever."""
    with make_socket(attached, socket.AF_INET) as sock:
        detour.claim(sock, bytes(88))
        sock.bind(("127.0.0.9", 0))
        with pytest.raises(ConnectionRefusedError):
            sock.connect((V4, PORT))
    assert not detour.served and counters(attached)["skipped_loopback_source"] == 1


def test_a_detour_to_a_relay_that_is_gone_counts_nowhere(attached, detour):
    for sock in detour.listeners:
        sock.shutdown(socket.SHUT_RDWR)
        sock.close()
    assert dial_error(attached, bind="127.0.0.9") == "ECONNREFUSED"
    assert not carried(attached) and not events(attached, "failed")
    assert all(not sum(v) for v in stats(attached, "failed").values())


def test_a_stranger_is_refused(attached, detour):
    """Who connects to the relay's listener itself has no entry."""
    with dial(attached, port=detour.ports[0]) as stranger:
        assert stranger.recv(1) == b""
    assert len(detour.refused) == 1 and not detour.served
