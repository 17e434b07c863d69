# SPDX-License-Identifier: BSD-2-Clause
"""Signs of life: PINGs on the persistent probe connection find a process that hangs and a host that
has vanished. What passes, and what is this node's own trouble, makes nobody dead."""

import os
import signal
import time

import pytest

from helpers import kept_to, served_set, state_of, wait_states
from observe import Dialer, clients_of, end_of, is_open, metric, state_changes
from system import wait_until

# The defaults of kubelb.yaml; the world's own are shorter.
DEFAULTS = {"interval": "5s", "timeout": "3s"}


@pytest.fixture(name="usual")
def usual_fixture(stage):
    """An agent with the default intervals that has found every backend ready, and has begun to
    send PINGs."""
    stage.configure(probe=DEFAULTS, slowStart="0")
    stage.running = stage.agent()
    wait_states(stage, "ready", stage.backends)
    wait_until(lambda: all(pings(stage, b) for b in stage.backends), "PINGs to begin")
    stage.mark = len(stage.running.log())
    return stage


def pings(stage, backend):
    return metric(stage, "kubelb_probe_pings_total", backend=backend.endpoint)


def unanswered(stage, backend):
    return metric(stage, "kubelb_probe_pings_unanswered_total", backend=backend.endpoint)


def changes(stage, backend):
    return state_changes(stage.running, backend, stage.mark)


def lines_about(stage, backend):
    return [line for line in stage.running.log()[stage.mark:].splitlines()
            if backend.endpoint in line]


def test_pings_cost_a_handshake_once(usual):
    """One a second on the connection that is there; /readyz keeps to its interval."""
    before = {b: pings(usual, b) for b in usual.backends}
    start = time.monotonic()
    wait_until(lambda: all(pings(usual, b) >= before[b] + 4 for b in usual.backends),
               "four PINGs of each", 10)
    assert time.monotonic() - start >= 4 * 0.8 - 1
    assert metric(usual, "kubelb_probe_handshakes_total") == 3
    for b in usual.backends:
        assert not unanswered(usual, b)
        assert not changes(usual, b)


def test_process_hangs(usual):
    """Its kernel accepts and acknowledges. Suspect after one PING, dead when a new connection is
    silent as well; clients' connections are ended, others' are not."""
    cp = usual.cp(2)
    with kept_to(usual, "cp2") as stuck, kept_to(usual, "cp1") as other, Dialer(usual) as dialer:
        start = time.monotonic()
        cp.stop()
        assert end_of(stuck, 15)[0], "a client still waits"
        # 20 to 46 s with probes alone; 2.5 s in a quiet machine.
        assert time.monotonic() - start < 7
        assert is_open(other)
        dialer.stop()
        assert not dialer.failed(start)
    assert changes(usual, cp) == ["suspect", "dead"]
    cp.cont()
    wait_states(usual, "ready", [cp])


def test_host_vanishes(usual):
    cp = usual.cp(3)
    with kept_to(usual, "cp3") as stuck:
        start = time.monotonic()
        cp.link(up=False)
        assert end_of(stuck, 15)[0], "a client still waits"
        assert time.monotonic() - start < 5  # 1.2 to 2.1 s in a quiet machine
    assert changes(usual, cp)[-1] == "dead"
    assert any("neither a PING nor new connects" in line for line in lines_about(usual, cp))
    cp.link(up=True)
    wait_states(usual, "ready", [cp])


def test_host_vanishes_while_it_shuts_down(usual):
    """Draining leads to no patience with a host that is gone."""
    cp = usual.cp(3)
    with kept_to(usual, "cp3") as stuck:
        cp.readyz(500)
        wait_states(usual, "draining", [cp], timeout=45)  # its clients' answers spare probes
        start = time.monotonic()
        cp.link(up=False)
        assert end_of(stuck, 15)[0], "a client still waits"
        assert time.monotonic() - start < 5
    cp.link(up=True)


@pytest.mark.parametrize("how", ["link", "process"])
def test_short_trouble_ends_nothing(usual, how):
    """Eight tenths of a second, at any moment between two PINGs."""
    cp = usual.cp(1)
    with kept_to(usual, "cp1") as connection:
        for _ in range(3):
            start = time.monotonic()
            cp.link(up=False) if how == "link" else cp.stop()
            wait_until(lambda: time.monotonic() - start >= 0.8, "the time to pass", interval=0.01)
            cp.link(up=True) if how == "link" else cp.cont()
            sent = pings(usual, cp)
            wait_until(lambda: pings(usual, cp) >= sent + 2, "two more PINGs", 10)
            wait_states(usual, "ready", [cp])
        assert is_open(connection)
    assert "dead" not in changes(usual, cp)
    assert metric(usual, "kubelb_connections_ended_total") == 0


def test_own_trouble_makes_nobody_dead(usual):
    """When all are silent at once, silence says nothing about any of them."""
    for b in usual.backends:
        b.stop()
    wait_until(lambda: all(unanswered(usual, b) for b in usual.backends),
               "PINGs to stay unanswered", 15)
    wait_states(usual, "dead", usual.backends, timeout=20)  # by their probes
    for b in usual.backends:
        assert not any("neither a PING nor" in line for line in lines_about(usual, b))
        b.cont()
    wait_states(usual, "ready", usual.backends)


def test_goaway_is_no_failure(usual):
    """A server that reloads says that it takes no more requests, and closes."""
    cp = usual.cp(1)
    handshakes = metric(usual, "kubelb_probe_handshakes_total", backend=cp.endpoint)
    os.kill(cp.pgid(), signal.SIGHUP)
    wait_until(lambda: metric(usual, "kubelb_probe_handshakes_total", backend=cp.endpoint)
               > handshakes, "a new connection", 10)
    sent = pings(usual, cp)
    wait_until(lambda: pings(usual, cp) >= sent + 2, "two more PINGs", 10)
    assert state_of(usual, cp) == "ready"
    assert not lines_about(usual, cp)


def test_hung_from_the_first_moment_answers_late(usual):
    """Dead, and alive again: a PING's late answer ends the verdict, and probes make it ready."""
    cp = usual.cp(2)
    cp.stop()
    wait_states(usual, "dead", [cp])
    cp.cont()
    wait_states(usual, "ready", [cp], timeout=15)
    assert changes(usual, cp) == ["suspect", "dead", "suspect", "ready"]


def test_a_clients_own_data_hurries_the_ping(stage):
    """What a client sends into a black hole asks for a PING now; the interval is half a minute."""
    stage.configure(probe={"interval": "30s", "timeout": "3s", "ping": "30s"}, slowStart="0",
                    deadPeerTimeout="0")
    stage.running = stage.agent()
    wait_states(stage, "ready", stage.backends)
    stage.mark = len(stage.running.log())
    cp = stage.cp(3)
    with kept_to(stage, "cp3") as stuck:
        cp.link(up=False)
        stuck.send("/version")
        assert end_of(stuck, 15)[0], "a client still waits"
    assert pings(stage, cp) >= 1  # the first of its own is due after 24 s
    assert changes(stage, cp)[-1] == "dead"
    events = stage.ctl("events").stdout
    assert any("stalled" in line and cp.endpoint in line for line in events.splitlines()), events
    cp.link(up=True)


def test_who_answers_again_keeps_the_rest(usual):
    """Connections are ended sixteen at a time. A backend that answers PINGs meanwhile keeps those
    that are left."""
    cp = usual.cp(2)
    clients, kept, _others = clients_of(usual, "cp2", 100)
    with clients:
        cp.stop()
        wait_until(lambda: metric(usual, "kubelb_connections_ended_total"), "the first to end", 15)
        cp.cont()
        wait_states(usual, "ready", [cp], timeout=15)
        left = sum(is_open(connection) for connection in kept)
        assert 0 < left < 100, left
        # The page of metrics may be a second old.
        wait_until(lambda: metric(usual, "kubelb_connections_ended_total") == 100 - left,
                   f"{100 - left} ended connections to be counted")


# --- HTTP/1.1: a GET of livePath in place of a PING ----------------------------------------


@pytest.fixture(name="http1")
def http1_fixture(stage):
    """The same agent, and a first backend that speaks HTTP/1.1 alone."""
    stage.first = stage.apiserver(1)
    stage.configure(probe=DEFAULTS, slowStart="0")
    stage.running = stage.agent()
    wait_states(stage, "ready", stage.backends)
    wait_until(lambda: pings(stage, stage.first) > 2, "GETs in place of PINGs")
    stage.mark = len(stage.running.log())
    return stage


def handshakes(stage, backend):
    return metric(stage, "kubelb_probe_handshakes_total", backend=backend.endpoint)


def test_http1_process_hangs(http1):
    """It is found as one that speaks HTTP/2 is; on one connection until then."""
    assert handshakes(http1, http1.first) == 1
    http1.first.stop()
    wait_states(http1, "dead", [http1.first])
    assert changes(http1, http1.first) == ["suspect", "dead"]
    assert any("neither a PING nor a new connection" in line
               for line in lines_about(http1, http1.first))
    http1.first.cont()
    wait_states(http1, "ready", [http1.first], timeout=15)


def test_http1_handlers_hang(http1):
    """A new connection's handshake shows that the process runs. That costs one now and then, not
    one for each GET."""
    http1.first.answer("/livez", hang=True)
    wait_until(lambda: unanswered(http1, http1.first), "a GET to stay unanswered", 10)
    wait_states(http1, "ready", [http1.first], timeout=20)
    # Probes are answered, and make no new connection; after one in the usual time it is tried again.
    sent, shaken = pings(http1, http1.first), handshakes(http1, http1.first)
    other = pings(http1, http1.cp(2))
    wait_until(lambda: pings(http1, http1.cp(2)) >= other + 11, "eleven PINGs elsewhere", 20)
    assert pings(http1, http1.first) <= sent + 3
    assert handshakes(http1, http1.first) <= shaken + 3
    assert "dead" not in changes(http1, http1.first)


def test_http1_probe_waits_for_the_answer(http1):
    """A probe that falls due while the GET is under way comes after it, on the same connection."""
    http1.first.answer("/livez", delay=0.9)
    sent = pings(http1, http1.first)
    probes = metric(http1, "kubelb_probe_duration_seconds_count", backend=http1.first.endpoint)
    wait_until(lambda: pings(http1, http1.first) >= sent + 4 and
               metric(http1, "kubelb_probe_duration_seconds_count",
                      backend=http1.first.endpoint) >= probes + 2, "PINGs and probes", 40)
    assert handshakes(http1, http1.first) == 1
    assert not changes(http1, http1.first)


# --- a fleet's interval ---------------------------------------------------------

# What docs/scale.md has for 10,000 nodes. After the first ones no probe is due in these tests.
SPARSE = {"interval": "65s", "timeout": "3s"}


def test_sparse_probes_find_a_death_and_a_return(stage):
    """The end of the connection tells of a death; a dead one is asked each five seconds."""
    stage.configure(probe=SPARSE, slowStart="0")
    stage.agent()
    wait_states(stage, "ready", stage.backends)
    cp = stage.cp(1)
    cp.kill()
    wait_states(stage, "dead", [cp], timeout=5)
    cp.start()
    wait_states(stage, "ready", [cp], timeout=12)


def test_sparse_probes_find_a_shutdown(stage):
    """500 is not asked for in time. But who closes the port says GOAWAY, and that is followed up."""
    api = stage.apiserver(1, alpn=["h2", "http/1.1"])
    stage.configure(probe=SPARSE, slowStart="0")
    stage.agent()
    wait_states(stage, "ready", [api, *stage.backends[1:]])
    wait_until(lambda: pings(stage, api), "PINGs to begin")
    api.shutdown(linger=10)
    wait_states(stage, "dead", [api], timeout=5)
    assert "cp1" not in served_set(stage, 20)
