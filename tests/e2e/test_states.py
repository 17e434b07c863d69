# SPDX-License-Identifier: BSD-2-Clause
"""Ready, draining and dead are three things: what apiservers do from their start to their
end, and what becomes of their clients. With the test apiserver's faults."""

import contextlib
import ssl
import threading
import time

import pytest

from backend import PORT
from helpers import (Held, Kept, Traffic, about, backend_status, kept_to, ok, served_by, served_set,
                     state_of, stats, wait_states, weight_of)
from observe import BackendMap, end_of, ended, is_open, metric, state_changes
from system import WorldError, wait_until

# A stalled or hung apiserver takes a time-out on each path.
QUICK = {"interval": "200ms", "timeout": "300ms"}


@pytest.fixture(name="apis")
def apis_fixture(stage):
    """Three test apiservers, all ready, and an agent."""
    apis = [stage.apiserver(i) for i in (1, 2, 3)]
    stage.configure(probe=QUICK, slowStart="0")
    stage.running = stage.agent()
    wait_states(stage, "ready", apis)
    return apis


# --- the beginning -----------------------------------------------------------


def test_starting(stage, apis):
    """Refused, 403 while it knows no roles, 500 while it is not ready, 200: nobody goes
    there before the end, and nothing is said twice."""
    one = apis[0]
    one.kill()
    wait_states(stage, "dead", [one])
    mark = len(stage.running.log())
    one.start(sequence=[["refused", 0.5], ["forbidden", 1.5], ["unready", 1.5]])
    wait_states(stage, "draining", [one])
    with Traffic(stage, rate=100):
        wait_until(lambda: "HTTP 403" in backend_status(stage)[one.endpoint]["why"],
                   "403 to be seen")
        assert "cp1" not in served_set(stage, 20)
        wait_until(lambda: "HTTP 500" in backend_status(stage)[one.endpoint]["why"],
                   "500 to be seen")
        assert "cp1" not in served_set(stage, 20)
        assert state_of(stage, one) == "draining"
        wait_states(stage, "ready", [one])
    assert state_changes(stage.running, one, mark) in (["draining", "ready"],
                                                       ["suspect", "draining", "ready"])
    assert ended(stage) == 0


# --- the end -----------------------------------------------------------------


def test_graceful_shutdown(stage, apis):
    """SIGTERM with a delay of five seconds: 500 on /readyz while it serves, then the port
    and the idle connections are closed. No connect fails, and no connection is ended by us:
    its clients hear of it from the apiserver, when the delay is over."""
    one = apis[0]
    one.set(shutdown_delay=5, shutdown_linger=1)
    connection = kept_to(stage, "cp1")
    with connection, Traffic(stage, rate=100):
        start = time.monotonic()
        one.terminate()
        wait_states(stage, "draining", [one])
        assert connection.backend() == "cp1", "it serves those that it has"
        how, at = end_of(connection, 10)
        one.wait_exit()
        wait_states(stage, "dead", [one])
        assert how == "closed", "by the apiserver, in good order"
        assert at - start >= 4.9
    assert ended(stage) == 0
    one.start()
    wait_states(stage, "ready", [one])


def test_graceful_shutdown_answers_what_is_in_flight(stage, apis):
    """The port is closed, the process still answers: dead for connects, and no reason to
    end a connection whose answer is on its way."""
    one = apis[0]
    with kept_to(stage, "cp1") as connection:
        one.answer("/version", delay=4)
        connection.send("/version")
        one.wait_counters(lambda c: c["requests"]["/version"] >= 2, "the request")
        one.shutdown(delay=1, linger=6)
        wait_states(stage, "dead", [one])
        response = connection.response()
        assert response.status == 200 and b"cp1" in response.read()
        assert ended(stage) == 0


def test_a_crash_ends_what_is_left(stage, apis):
    """Dead without a word before: should a connection be left, it is ended. (The port
    refuses while connections live on, as behind an address that has moved.)"""
    one = apis[0]
    with kept_to(stage, "cp1") as connection:
        one.phase("refused")
        # The kept connection lives and answers: only the connects of clients know.
        one.disconnect("rst", which="idle")
        wait_states(stage, "dead", [one])
        assert end_of(connection, 5)[0] == "ECONNRESET"
        one.phase("serving")


# --- in between --------------------------------------------------------------


def test_etcd_stall_everywhere(stage, apis):
    """/readyz gets no answer anywhere, /livez is 500: all are draining, all serve, and
    nothing changes for anybody."""
    clients = [Kept(stage) for _ in range(9)]
    try:
        with Traffic(stage, rate=100):
            for api in apis:
                api.phase("etcd-stall", livez_after=0.1)
            wait_states(stage, "draining", apis)
            served = set()
            wait_until(lambda: served.add(served_by(stage)) or
                       served == {"cp1", "cp2", "cp3"}, "all to serve")
            probes = metric(stage, "kubelb_probes_total")
            wait_until(lambda: metric(stage, "kubelb_probes_total") >= probes + 12,
                       "more probes")
            assert {state_of(stage, api) for api in apis} == {"draining"}
            assert all(client.get("/version")[0] == 200 for client in clients)
            for api in apis:
                api.phase("serving")
            wait_states(stage, "ready", apis)
        assert all(is_open(client) for client in clients)
    finally:
        for client in clients:
            client.close()
    assert ended(stage) == 0


def test_etcd_stall_of_one(stage, apis):
    """It drains: nobody new, and nobody's connection is ended."""
    one = apis[0]
    with kept_to(stage, "cp1") as connection:
        one.phase("etcd-stall", livez_after=0.1)
        wait_states(stage, "draining", [one])
        assert "cp1" not in served_set(stage, 30)
        assert is_open(connection)
    assert "dead" not in state_changes(stage.running, one)
    assert ended(stage) == 0


def test_hung(stage, apis):
    """It accepts and says nothing, on either path: dead, and its clients are ended."""
    one = apis[0]
    with kept_to(stage, "cp1") as connection:
        mark = len(stage.running.log())
        one.hang("http")
        wait_states(stage, "dead", [one])
        assert state_changes(stage.running, one, mark) == ["suspect", "dead"]
        assert "no answer" in about(backend_status(stage)[one.endpoint])
        assert end_of(connection, 5)[0] == "ECONNRESET"
        one.hang(None)
        wait_states(stage, "ready", [one])


def test_hung_before_tls(stage, apis):
    """Connections are accepted, and the handshake never ends."""
    one = apis[0]
    one.hang("tls")
    one.disconnect("rst")
    wait_states(stage, "dead", [one])
    one.hang(None)
    wait_states(stage, "ready", [one])


def read_on(connection, events):
    """Collects the times of what comes, until the end."""
    with contextlib.suppress(OSError):
        while connection.sock.recv(65536):
            events.append(time.monotonic())
    events.append(None)


def test_busy_is_not_dead(stage, apis):
    """Neither path answers in time while a watch gets its events, and sends nothing itself:
    draining, and the watch goes on. When it gets none any more, dead."""
    one = apis[0]
    for api in apis:
        api.set(anonymous_paths=["*"], bookmark_interval=0.1)
    connection, events = kept_to(stage, "cp1"), []
    with connection:
        connection.sock.settimeout(None)
        connection.send("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?watch=1"
                        "&allowWatchBookmarks=true&timeoutSeconds=600")
        reader = threading.Thread(target=read_on, args=(connection, events), daemon=True)
        reader.start()
        for path in ("/readyz", "/livez"):
            one.answer(path, delay=2.0)
        mark = len(stage.running.log())
        wait_states(stage, "draining", [one])
        assert "cp1" not in served_set(stage, 30)
        seen = len(events)
        wait_until(lambda: len(events) > seen + 30, "thirty more events")
        assert None not in events and "dead" not in state_changes(stage.running, one, mark)
        assert ended(stage) == 0
        one.stop()
        wait_states(stage, "dead", [one])
        wait_until(lambda: None in events, "the watch to be ended")
        one.cont()


@pytest.mark.parametrize("kind", ["wrong_ca", "expired"])
def test_certificate_ends_nothing(stage, apis, kind):
    """That the agent cannot verify it says nothing about the clients."""
    one = apis[0]
    one.certificate(kind, stage.pki)
    wait_states(stage, "draining", [one])
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for other in apis[1:]:
        other.kill()
    wait_states(stage, "dead", apis[1:])
    with Kept(stage, context=context) as connection:
        assert connection.backend() == "cp1"
        for other in apis[1:]:
            other.start()
        wait_states(stage, "ready", apis[1:])
        probes = metric(stage, "kubelb_probes_total")
        wait_until(lambda: metric(stage, "kubelb_probes_total") >= probes + 12, "more probes")
        assert state_of(stage, one) == "draining" and is_open(connection)
        assert "cp1" not in served_set(stage, 30, context=context)
    assert ended(stage) == 0


def test_expired_certificate(stage, apis):
    """Seen when a connection is made anew."""
    one = apis[0]
    one.certificate("expired", stage.pki)
    # The process starts afresh: refused for a moment.
    wait_until(lambda: "certificate" in about(backend_status(stage)[one.endpoint]),
               "the certificate to be named")
    wait_states(stage, "draining", [one])
    assert "cp1" not in served_set(stage, 30)
    one.certificate("good", stage.pki)
    wait_states(stage, "ready", [one])


# --- without anonymous access ------------------------------------------------


@pytest.fixture(name="closed")
def closed_fixture(stage):
    """One that answers 401 to those whom it does not know, beside two that are open."""
    return stage.apiserver(1, anonymous="deny")


def test_unauthorized(stage, closed):
    """401 is alive, and not ready, until something is done about it."""
    agent = stage.agent()
    wait_states(stage, "draining", [closed])
    wait_states(stage, "ready", stage.backends[1:])
    assert "401" in about(backend_status(stage)[closed.endpoint])
    agent.wait_log(r"level=warn .*unauthorized.*401.*set probe.clientCert and probe.clientKey, "
                   r"or probe.anonymousAuth: false")


def test_unauthorized_with_a_client_certificate(stage, closed):
    pem = stage.pki.client("system:node:worker")
    stage.configure(probe={"clientCert": pem, "clientKey": pem})
    stage.agent()
    wait_states(stage, "ready", [closed])
    assert closed.counters()["users"].get("system:node:worker", 0) > 0


def test_unauthorized_is_enough_where_nobody_can_get_more(stage, closed):
    stage.configure(probe={"anonymousAuth": False})
    agent = stage.agent()
    wait_states(stage, "ready", stage.backends)
    assert "401" in about(backend_status(stage)[closed.endpoint])
    # Not ready is still that.
    stage.cp(2).readyz(500)
    wait_states(stage, "draining", [stage.cp(2)])
    assert state_changes(agent, closed) == ["ready"]


def test_live_path(stage):
    """probe.livePath is what is asked when /readyz gets no answer."""
    api = stage.apiserver(1)
    stage.configure(probe={**QUICK, "livePath": "/healthz"})
    stage.agent()
    wait_states(stage, "ready", [api])
    api.answer("/readyz", hang=True)
    wait_states(stage, "draining", [api])
    assert api.requests(uri="/healthz") and not api.requests(uri="/livez")


# --- coming back -------------------------------------------------------------


def test_slow_start(stage):
    """A tenth at first, then more and more, all in the end: also with an interval at which
    no probe would carry the last step into the maps."""
    cp = stage.cp(1)
    cp.readyz(500)
    stage.configure(slowStart="3s", probe={"interval": "30s", "timeout": "1s"})
    agent = stage.agent()
    wait_states(stage, "draining", [cp])
    with BackendMap(stage) as maps:
        cp.readyz(200)
        maps.wait("cp1", ("ready",), 10)
        seen = []
        wait_until(lambda: seen.append(maps.read("cp1").weight) or seen[-1] == 100,
                   lambda: f"all of its weight, were {seen[::20]}", 8)
        assert maps.read("cp2").weight == 100
    assert seen[0] == 10, seen[::20]
    assert seen == sorted(seen), "it only grows"
    assert len(set(seen)) >= 3, set(seen)
    assert weight_of(stage, cp) == 100
    assert state_changes(agent, cp) == ["draining", "ready"]


def test_slow_start_is_seen_in_status_and_choice(stage):
    """While the ramp is at its foot, one in twenty goes there and not one in three."""
    cp = stage.cp(1)
    stage.configure(slowStart="1h", policy="random")
    stage.agent()
    wait_states(stage, "ready", stage.backends)
    cp.kill()
    wait_states(stage, "dead", [cp])
    cp.start()
    wait_states(stage, "ready", [cp])
    assert weight_of(stage, cp) == 10
    assert metric(stage, "kubelb_backend_weight", backend=cp.endpoint) == 10
    opened = stats(stage, "opened")
    served_set(stage, 200)
    share = stats(stage, "opened")["cp1"] - opened["cp1"]
    # 10 of 210: 9.5 expected, and 67 of a third.
    assert 1 <= share <= 25, share
    ok(stage.ctl("weight", cp.endpoint, 500))
    assert weight_of(stage, cp) == 500, "the operator's goes before it"
    assert backend_status(stage)[cp.endpoint]["configuredWeight"] == 10
    said = ok(stage.ctl("weight", cp.endpoint, "auto")).stdout
    assert said == f"{cp.endpoint}: weight 10, from the configuration, slow start included\n"
    assert weight_of(stage, cp) == 10


def test_slow_start_goes_on_after_a_restart(stage):
    """The next agent knows from the maps where the last one was."""
    cp = stage.cp(1)
    stage.configure(slowStart="1h")
    agent = stage.agent()
    wait_states(stage, "ready", stage.backends)
    cp.kill()
    wait_states(stage, "dead", [cp])
    cp.start()
    wait_states(stage, "ready", [cp])
    assert agent.stop() == 0
    with BackendMap(stage) as maps:
        before = maps.read("cp1")
        stage.agent()
        wait_until(lambda: maps.read("cp1").last_probe_ns > before.last_probe_ns,
                   "the next agent's probe")
        now = maps.read("cp1")
        assert (now.state, now.weight, now.since_ns) == ("ready", 10, before.since_ns)
        assert maps.read("cp2").weight == 100


def test_slow_start_off(stage):
    cp = stage.cp(1)
    stage.configure(slowStart="0")
    stage.agent()
    wait_states(stage, "ready", stage.backends)
    cp.kill()
    wait_states(stage, "dead", [cp])
    with BackendMap(stage) as maps:
        cp.start()
        maps.wait("cp1", ("ready",), 10)
        assert maps.read("cp1").weight == 100


# --- where connections may go ------------------------------------------------


def test_drained_is_nowhere_to_go(stage):
    """The operator drains the last other one: clients of the dead are left alone."""
    one, two = stage.backends[:2]
    stage.configure(backends=[one.endpoint, two.endpoint], deadPeerTimeout="0")
    stage.agent()
    wait_states(stage, "ready", [one, two])
    with kept_to(stage, "cp1") as connection:
        ok(stage.ctl("drain", two.endpoint))
        one.link(up=False)
        wait_states(stage, "dead", [one], timeout=15)
        probes = metric(stage, "kubelb_probes_total", backend=one.endpoint)
        wait_until(lambda: metric(stage, "kubelb_probes_total", backend=one.endpoint)
                   >= probes + 3, "three more probes", 15)
        assert is_open(connection) and ended(stage) == 0
        ok(stage.ctl("undrain", two.endpoint))
        assert end_of(connection, 5)[0] == "ECONNRESET"


class Clients:
    """Kept connections that are made anew when they end, as a kubelet's are."""

    def __init__(self, stage, count):
        self.stage = stage
        self.kept = [Kept(stage) for _ in range(count)]
        self.names = [connection.backend() for connection in self.kept]

    def spread(self):
        """Connections by control plane, after those that have ended are made anew."""
        for i, connection in enumerate(self.kept):
            if not is_open(connection):
                connection.close()
                self.kept[i] = Kept(self.stage)
                self.names[i] = self.kept[i].backend()
        return {name: self.names.count(name) for name in ("cp0", "cp1", "cp2", "cp3")
                if name in self.names}

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for connection in self.kept:
            connection.close()


def test_rebalance(stage):
    """After a recovery: one connection at a time moves over, seconds apart, until all are
    even; nobody's move hurts more than one."""
    three = stage.cp(3)
    stage.configure(rebalance=True, slowStart="0")
    three.kill()
    agent = stage.agent()
    wait_states(stage, "ready", stage.backends[:2])
    wait_states(stage, "dead", [three])
    with Clients(stage, 12) as clients:
        assert clients.spread() == {"cp1": 6, "cp2": 6}
        three.start()
        wait_states(stage, "ready", [three])
        seen = []

        def moved():
            clients.spread()
            count = ended(stage, reason="rebalance")
            if not seen or seen[-1][0] != count:
                seen.append((count, time.monotonic()))
            return count == 4

        wait_until(moved, lambda: f"four moves, seen {seen}", 75)
        assert clients.spread() == {"cp1": 4, "cp2": 4, "cp3": 4}
        assert [count for count, _at in seen] in ([0, 1, 2, 3, 4], [1, 2, 3, 4])
        assert seen[-1][1] - seen[-2][1] >= 4.5, "one every ten seconds, give or take a half"
    assert ended(stage, reason="dead") == 0
    assert metric(stage, "kubelb_connections_destroyed_total") == 0, "each by a reset"
    assert agent.alive()


def test_rebalance_leaves_the_preferred_alone(stage):
    """The node's own apiserver has everything, and that is what it should have. Then, with
    a backend drained, there is no balance to be had either."""
    local = stage.local_apiserver()
    stage.configure(rebalance=True, slowStart="0",
                    backends=[b.endpoint for b in stage.backends] + [local.endpoint])
    stage.agent()
    wait_states(stage, "ready", [*stage.backends, local])
    with Clients(stage, 12) as clients:
        assert clients.spread() == {"cp0": 12}
        start = time.monotonic()
        wait_until(lambda: time.monotonic() - start > 16, "the time for a move to pass", 20, 1)
        assert ended(stage) == 0
        assert clients.spread() == {"cp0": 12}


def drained(stage):
    return lambda: ok(stage.ctl("drain", stage.cp(1).endpoint))


def of_little_weight(stage):
    return lambda: ok(stage.ctl("weight", stage.cp(1).endpoint, 10))


def beside_a_local_one(stage):
    stage.configure(rebalance=True, backends=[f"{stage.node_v4}:{PORT}",
                                              *(b.endpoint for b in stage.backends)])
    stage.local_apiserver()
    return lambda: None


def by_rendezvous(stage):
    stage.configure(rebalance=True, policy="rendezvous")
    return lambda: None


@pytest.mark.parametrize("kind", [drained, of_little_weight, beside_a_local_one, by_rendezvous],
                         ids=lambda f: f.__name__)
def test_rebalancing_ends_no_connection_in_vain(stage, kind):
    """What is wanted is no imbalance; a client that is ended for it comes back to where it
    was, and is ended again."""
    stage.configure(rebalance=True)
    wish = kind(stage)
    agent = stage.agent()
    wait_states(stage, "ready", stage.backends)
    wish()
    with Held(stage, 42):
        assert max(stats(stage, "active").values()) != 14
        # The longest time between two looks (REBALANCE_MS and a half), and one more second.
        with contextlib.suppress(WorldError):
            wait_until(lambda: "reason=rebalance" in agent.log(), "an end", timeout=16)
        assert "reason=rebalance" not in agent.log()

