# SPDX-License-Identifier: BSD-2-Clause
"""A server that closes idle connections is well: no state changes for that, the probes see to it,
and it is said once. One that dies is known as soon as ever."""

import time

import pytest

from helpers import Held, wait_states
from observe import BackendMap, kill_once, metric, state_changes
from system import wait_until

# Few PINGs: on HTTP/1.1 they are GETs, which alone would keep most connections open.
DEFAULTS = {"interval": "5s", "timeout": "3s", "ping": "30s"}
SAID = "backend closes idle connections"
ATTEMPTS = 3  # a machine that is busy for a moment is no slow agent


def started(stage, interval="5s", **settings):
    """A backend with these settings, and an agent that has found it ready."""
    api = stage.apiserver(1, **settings)
    stage.configure(probe={**DEFAULTS, "interval": interval}, slowStart="0")
    stage.running = stage.agent()
    wait_states(stage, "ready", stage.backends)
    return api


def handshakes(api):
    counted = api.counters()["handshakes"]
    return counted["full"] + counted["resumed"]


def lines(stage, api):
    """What the log says about it."""
    return [line for line in stage.running.log().splitlines()
            if f"backend={api.endpoint} " in line]


H2 = ["h2", "http/1.1"]


@pytest.mark.parametrize("idle, alpn", [(0.02, H2[1:]), (0.4, H2[1:]), (1, H2[1:]), (2, H2[1:]),
                                        (4, H2[1:]), (0.4, H2), (2, H2)])
def test_it_is_well(stage, idle, alpn):
    """Shorter than the gap between two probes: one line, and one state. (On HTTP/2 the server
    says GOAWAY, and a PING keeps no connection.)"""
    api = started(stage, idle_timeout=idle, alpn=alpn)
    line = stage.running.wait_log(f"level=info.*{SAID}.*backend={api.endpoint}", timeout=20)
    assert ("probes=sooner" if idle >= 2 else 'probes="dial anew"') in line
    # So that it would be said again, and probes would go wrong: the time is what is tested.
    time.sleep(2 * idle + 3)
    assert state_changes(stage.running, api) == ["ready"]
    assert len(lines(stage, api)) == 2, lines(stage, api)
    ok = metric(stage, "kubelb_probes_total", backend=api.endpoint, result="ok")
    assert ok and not metric(stage, "kubelb_probes_total", backend=api.endpoint, result="closed")


@pytest.mark.parametrize("idle, interval", [(2, "5s"), (1.5, "60s")])
def test_probes_keep_the_connection(stage, idle, interval):
    """They come before it is closed, at no more than a probe each 0.7 s, and also while clients
    are answered."""
    api = started(stage, idle_timeout=idle, interval=interval)
    stage.running.wait_log(f"{SAID}.*probes=sooner", timeout=20)
    before, requests = handshakes(api), api.counters()["requests"]["/readyz"]
    start = time.monotonic()
    wait_until(lambda: api.counters()["requests"]["/readyz"] >= requests + 6, "more probes", 20)
    assert handshakes(api) == before
    assert (time.monotonic() - start) / 6 >= 0.5


def test_gets_in_place_of_pings_keep_the_connection(stage):
    """With one a second it is never idle for as long, so there is nothing to say."""
    api = stage.apiserver(1, idle_timeout=2)
    stage.configure(probe={**DEFAULTS, "ping": "1s"}, slowStart="0")
    stage.running = stage.agent()
    api.wait_counters(lambda c: c["requests"].get("/livez", 0) >= 6, "GETs in place of PINGs")
    assert handshakes(api) == 1
    assert state_changes(stage.running, api) == ["ready"] and len(lines(stage, api)) == 1


def test_too_short_to_be_kept(stage):
    """They dial anew, and not without end."""
    api = started(stage, idle_timeout=0.1)
    stage.running.wait_log(SAID, timeout=20)
    before, start = handshakes(api), time.monotonic()
    wait_until(lambda: handshakes(api) >= before + 10, "more probes", 30)
    assert (handshakes(api) - before) / (time.monotonic() - start) < 4


@pytest.mark.parametrize("how", ["close", "fin", "rst"])
def test_however_it_is_closed(stage, how):
    """Once in a while, as by a restart of what is in between: dialled anew at once."""
    api = started(stage)
    for _ in range(4):
        before = handshakes(api)
        api.disconnect(how, which="idle")
        wait_until(lambda n=before: handshakes(api) > n, "another connection", 2)
    assert state_changes(stage.running, api) == ["ready"]


def test_one_that_keeps_none(stage):
    """Connection: close with every answer."""
    api = stage.apiserver(1)
    api.answer("/readyz", headers={"Connection": "close"})
    stage.configure(probe={"interval": "300ms", "timeout": "3s"}, slowStart="0")
    stage.running = stage.agent()
    api.wait_counters(lambda c: c["requests"].get("/readyz", 0) >= 10, "probes")
    assert state_changes(stage.running, api) == ["ready"] and len(lines(stage, api)) == 1


def test_it_becomes_ready_again(stage):
    """Two good answers in a row make it ready, also when the connection is closed between them."""
    api = started(stage, idle_timeout=0.1)
    api.kill()
    wait_states(stage, "dead", [api])
    api.start()
    wait_states(stage, "ready", [api], timeout=15)


@pytest.mark.parametrize("idle, alpn", [(0.4, H2[1:]), (1, H2[1:]), (2, H2[1:]), (0.4, H2),
                                        (2, H2)])
def test_kill_9(stage, idle, alpn):
    """As soon as with a server that keeps connections, where the connection is open; where not,
    with the next probe, in half a second. The clients hear of it within a second of that."""
    api = started(stage, idle_timeout=idle, alpn=alpn)
    stage.running.wait_log(SAID, timeout=20)
    seen = []
    with BackendMap(stage) as maps:
        for _ in range(ATTEMPTS):
            with Held(stage, 9):
                start = time.monotonic()
                api.kill()
                suspect = maps.wait("cp1", ("suspect", "dead"), 10) - start
                dead = maps.wait("cp1", ("dead",), 10) - start
            seen.append((round(suspect, 3), round(dead, 3)))
            if suspect <= (0.05 if idle >= 2 else 0.7) and dead <= suspect + 0.7:
                print(seen)
                return
            api.start()
            wait_states(stage, "ready", [api], timeout=15)
    raise AssertionError(f"not once in {ATTEMPTS} attempts: {seen}")


@pytest.mark.parametrize("how", ["tcp", "tls", "http"])
def test_closed_and_then_silent(stage, how):
    """It closes the connection and answers no new one: others are preferred before the probe's
    time is over."""
    api = started(stage)
    with BackendMap(stage) as maps:
        api.hang(how)
        start = time.monotonic()
        api.disconnect("fin", which="idle")
        assert maps.wait("cp1", ("suspect",), 5) - start < 1.5
        stage.running.wait_log("closed, and a new one has no answer yet")
        maps.wait("cp1", ("dead", "draining"), 15)
