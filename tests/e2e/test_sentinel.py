# SPDX-License-Identifier: BSD-2-Clause
"""How soon the agent knows, what that spares its clients, and what its probes cost.
With the intervals that people run with: the promises are about these."""

import time

import pytest

from helpers import (Held, Traffic, dial_error, kept_to, ok, served_set, state_of,
                     wait_states)
from observe import (Asking, BackendMap, end_of, ended, hole_once, is_open, kill_once, metric,
                     state_changes)
from system import wait_until

DEFAULTS = {"interval": "5s", "timeout": "3s"}
ATTEMPTS = 3  # a machine that is busy for a moment is no slow agent


@pytest.fixture(name="usual")
def usual_fixture(stage):
    """An agent with the default intervals that has found every backend ready."""
    stage.configure(probe=DEFAULTS, slowStart="0")
    stage.running = stage.agent()
    wait_states(stage, "ready", stage.backends)
    return stage


# --- kill -9 -----------------------------------------------------------------


def test_kill_9(usual):
    """Known within 50 ms, at most two connects fail and none later than 100 ms, and the
    clients hear of it within a second."""
    cp = usual.cp(1)
    seen = []
    with BackendMap(usual) as maps:
        for _ in range(ATTEMPTS):
            seen.append(kill_once(usual, maps, cp))
            result = seen[-1]
            assert None not in result["ends_ms"], "a client still waits"
            if result["known_ms"] <= 50 and result["failed_first"] <= 2 \
                    and not result["failed_later"] and max(result["ends_ms"]) <= 1000:
                print(result)
                return
            cp.start()
            wait_states(usual, "ready", [cp], timeout=15)
    raise AssertionError(f"not once in {ATTEMPTS} attempts: {seen}")


def test_states_of_a_killed_backend(usual):
    """Suspect when its connection closes, dead with the second refusal, one line each; and
    none for a probe that finds what is known."""
    mark = len(usual.running.log())
    cp = usual.cp(2)
    cp.kill()
    wait_states(usual, "dead", [cp])
    assert state_changes(usual.running, cp, mark) == ["suspect", "dead"]
    probes = metric(usual, "kubelb_probes_total", backend=cp.endpoint, result="refused")
    mark = len(usual.running.log())
    wait_until(lambda: metric(usual, "kubelb_probes_total", backend=cp.endpoint,
                              result="refused") >= probes + 2, "two more probes", 20)
    assert cp.endpoint not in usual.running.log()[mark:]


# --- black hole --------------------------------------------------------------


def test_black_hole(usual):
    """No word from anybody: suspect within three seconds, and its idle clients' connections
    ended within five, where they would have waited for ever; nobody's own connection."""
    cp = usual.cp(3)
    seen = []
    with BackendMap(usual) as maps:
        for _ in range(ATTEMPTS):
            seen.append(hole_once(usual, maps, cp))
            result = seen[-1]
            assert {how for how, _at in result["ends"]} == {"ECONNRESET"}, result
            if result["known_s"] <= 3 and max(at for _how, at in result["ends"]) <= 5:
                print(result)
                assert ended(usual, backend=cp.endpoint, reason="dead") >= 3
                assert ended(usual) == ended(usual, backend=cp.endpoint)
                return
            wait_states(usual, "ready", [cp], timeout=20)
    raise AssertionError(f"not once in {ATTEMPTS} attempts: {seen}")


def test_black_hole_under_a_probe(stage):
    """The request is on its way when the host goes: no acknowledgement is no silence of a
    living one, so nobody waits for what /livez has to say."""
    cp = stage.cp(3)
    stage.configure(probe={"interval": "100ms", "timeout": "5s"}, slowStart="0")
    agent = stage.agent()
    wait_states(stage, "ready", stage.backends)
    mark, seen = len(agent.log()), len(cp.requests())
    with BackendMap(stage) as maps, kept_to(stage, "cp3") as connection:
        start = time.monotonic()
        cp.link(up=False)
        assert maps.wait("cp3", ("suspect", "dead"), 10) - start <= 3.5
        assert end_of(connection, 10)[0] == "ECONNRESET"
        assert time.monotonic() - start <= 5
    assert state_changes(agent, cp, mark) == ["suspect", "dead"]
    assert "/livez" not in {e["uri"] for e in cp.requests(since=seen)}
    assert 'reason="no answer"' not in agent.log()[mark:]


def test_nothing_is_ended_while_nobody_else_is_ready(stage):
    """All dead: the clients keep what they have, until there is somewhere to go."""
    one, two, three = stage.backends
    stage.configure(deadPeerTimeout="0")
    agent = stage.agent()
    wait_states(stage, "ready", stage.backends)
    with kept_to(stage, "cp1") as connection:
        two.kill()
        three.kill()
        one.link(up=False)
        wait_states(stage, "dead", stage.backends, timeout=15)
        probes = metric(stage, "kubelb_probes_total")
        wait_until(lambda: metric(stage, "kubelb_probes_total") >= probes + 9,
                   "some more probes of each", 15)
        assert ended(stage) == 0
        assert is_open(connection)
        two.start()
        wait_states(stage, "ready", [two])
        assert end_of(connection, 5)[0] == "ECONNRESET"
        assert ended(stage, backend=one.endpoint, reason="dead") == 1
    assert agent.alive()


def test_many_end_in_batches(stage):
    """A hundred clients of one dead backend: all ended, sixteen at a time at most."""
    cp = stage.cp(1)
    stage.configure(deadPeerTimeout="0")
    agent = stage.agent()
    wait_states(stage, "ready", stage.backends)
    with Held(stage, 300) as held:
        mark = len(agent.log())
        cp.link(up=False)
        wait_until(lambda: ended(stage, backend=cp.endpoint) == 100,
                   lambda: f"100 to be ended, were {ended(stage)}", 30)
        batches = [int(line.split("connections=")[1].split()[0])
                   for line in agent.log()[mark:].splitlines() if "connections ended" in line]
        assert sum(batches) == 100 and max(batches) <= 16, batches
        assert held.close()["closed"] == 100


# --- evidence instead of probes ----------------------------------------------


def test_traffic_spares_probes(stage):
    """Clients that are answered stretch the interval, up to six times; without them every
    interval has its probe."""
    api = stage.apiserver(1)
    stage.configure(backends=[api.endpoint, stage.cp(2).endpoint],
                    probe={"interval": "300ms", "timeout": "2s"})
    stage.agent()
    wait_states(stage, "ready", [api, stage.cp(2)])

    def asked():
        return api.counters()["requests"].get("/readyz", 0)

    def skipped():
        return metric(stage, "kubelb_probes_skipped_total", backend=api.endpoint)

    before = asked()
    wait_until(lambda: asked() >= before + 10, "probes without traffic")
    assert skipped() == 0
    with Asking(stage):
        wait_until(lambda: skipped() > 0, "the first one to be left out")
        left_out, made = skipped(), asked()
        wait_until(lambda: skipped() >= left_out + 18, "more to be left out", 30)
        made = asked() - made
    # Five or six in a row are left out, then one is made.
    assert 2 <= made <= 5, made
    before = asked()
    wait_until(lambda: asked() >= before + 5, "probes when the traffic is over")


def test_connects_alone_spare_no_probe(stage):
    """A hung backend's kernel goes on accepting, and any user can connect as often as he likes."""
    api = stage.apiserver(1)
    stage.configure(backends=[api.endpoint, stage.cp(2).endpoint],
                    probe={"interval": "300ms", "timeout": "2s"})
    stage.agent()
    wait_states(stage, "ready", [api, stage.cp(2)])
    with Traffic(stage, rate=100):
        before = api.counters()["requests"].get("/readyz", 0)
        wait_until(lambda: api.counters()["requests"].get("/readyz", 0) >= before + 6,
                   "probes as without traffic")
        assert metric(stage, "kubelb_probes_skipped_total") == 0


def test_skips_nothing_while_a_backend_is_not_ready(stage):
    """Its clients' connects say nothing about /readyz."""
    cp = stage.cp(1)
    stage.configure(backends=[cp.endpoint])
    stage.agent()
    wait_states(stage, "ready", [cp])
    cp.readyz(500)
    wait_states(stage, "draining", [cp])
    left_out = metric(stage, "kubelb_probes_skipped_total")
    seen = len(cp.requests(uri="/readyz"))
    with Asking(stage):
        wait_until(lambda: len(cp.requests(uri="/readyz")) >= seen + 8, "eight more probes")
        assert metric(stage, "kubelb_probes_skipped_total") == left_out


def test_kernel_events_hurry_a_probe(stage):
    """The port refuses while the kept connection lives: the agent hears of a client's failed
    connect from the kernel, long before the interval is over."""
    api = stage.apiserver(1)
    stage.configure(backends=[api.endpoint, stage.cp(2).endpoint],
                    probe={"interval": "60s", "timeout": "2s"})
    stage.agent()
    wait_states(stage, "ready", [api, stage.cp(2)])
    before = api.counters()["requests"].get("/readyz", 0)
    api.phase("refused")
    wait_until(lambda: dial_error(stage) == "ECONNREFUSED", "a connect to fail", 5)
    api.wait_counters(lambda c: c["requests"].get("/readyz", 0) > before, "a probe at once", 2)
    api.phase("serving")


def test_probes_make_one_handshake(stage):
    """The connection is kept; should it break, the session is taken up again. (Who attaches first
    makes a handshake more.)"""
    ok(stage.load())
    api = stage.apiserver(1)
    stage.agent()
    wait_states(stage, "ready", [api])
    api.wait_counters(lambda c: c["requests"]["/readyz"] >= 8, "eight probes")
    assert api.counters()["handshakes"] == {"full": 1, "resumed": 0, "failed": 0}
    assert api.counters()["accepted"] == 1
    api.disconnect("fin")
    api.wait_counters(lambda c: c["accepted"] == 2 and c["requests"]["/readyz"] >= 12,
                      "probes on another connection")
    assert api.counters()["handshakes"] == {"full": 1, "resumed": 1, "failed": 0}
    assert state_of(stage, api) == "ready"
    assert served_set(stage, 40) >= {"cp2", "cp3"}


def test_closed_connection_is_no_death(stage):
    """An apiserver that closes idle connections, again and again, is never dead."""
    api = stage.apiserver(1)
    agent = stage.agent()
    wait_states(stage, "ready", stage.backends)
    for how in ("close", "fin", "rst") * 2:
        accepted = api.counters()["accepted"]
        api.disconnect(how)
        api.wait_counters(lambda c, n=accepted: c["accepted"] > n, "another connection")
        wait_states(stage, "ready", [api])
    assert "dead" not in state_changes(agent, api)
    assert ended(stage) == 0
