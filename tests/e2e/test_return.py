# SPDX-License-Identifier: BSD-2-Clause
"""An apiserver that leaves the list and comes back is the same apiserver: with its counts, the
operator's settings and a slow start; and the log and the events say by name who left and came."""

import pytest

from helpers import (backend_status, fails, kept_to, next_version, ok, served_set, wait_states)
from observe import Follower, known, wait_known
from system import wait_until

NOBODY = "192.0.2.7"  # TEST-NET-1: nobody has this address


@pytest.fixture(name="slow")
def slow_fixture(cluster):
    """Three apiservers that are found, and a slow start that takes longer than any test."""
    return cluster.find_all(slowStart="1h")


def entry(cluster, api):
    """What status shows of it; None when it does not."""
    return backend_status(cluster.stage).get(api.endpoint)


def leave(cluster, *staying):
    """The others leave the list. Returns where the log was."""
    mark = len(cluster.agent.log())
    cluster.say(*staying)
    cluster.wait(*staying)
    return mark


def wait_drained(cluster, api):
    wait_until(lambda: entry(cluster, api)["why"] == "drained by the operator",
               lambda: f"it to be drained, is {entry(cluster, api)}")


def test_counts_and_slow_start(slow):
    """A tenth of the weight from its return on, and the counters go on."""
    three = slow.apis[2]
    assert served_set(slow.stage, 60) == {"cp1", "cp2", "cp3"}
    before = entry(slow, three)
    assert before["opened"] and before["weight"] == 100
    leave(slow, 1, 2)
    assert entry(slow, three) is None
    leave(slow, 1, 2, 3)
    after = entry(slow, three)
    assert (after["id"], after["generation"]) == (before["id"], before["generation"])
    assert after["opened"] >= before["opened"] and after["rttSeconds"]
    assert (after["weight"], after["leftSecondsAgo"]) == (10, None)
    assert {entry(slow, api)["weight"] for api in slow.apis[:2]} == {100}
    opened = entry(slow, three)["opened"]
    served_set(slow.stage, 100)
    # 10 of 210: 5 expected, and 33 of a third.
    assert entry(slow, three)["opened"] - opened <= 18


def test_slow_start_begins_when_it_is_ready(slow):
    """It comes back before it is ready, as apiservers do."""
    three = slow.apis[2]
    three.phase("unready")
    wait_states(slow.stage, "draining", [three])
    leave(slow, 1, 2)
    leave(slow, 1, 2, 3)
    assert entry(slow, three)["state"] == "draining", "what was known"
    three.phase("serving")
    wait_states(slow.stage, "ready", [three])
    assert entry(slow, three)["weight"] == 10


def test_log_names_them(slow):
    three = slow.apis[2]
    ok(slow.stage.ctl("drain", three.endpoint))
    ok(slow.stage.ctl("weight", three.endpoint, 7))
    mark = leave(slow, 1, 2)
    slow.agent.wait_log(f"level=info msg=\"backend has left the cluster's list\" "
                        f"backend={three.endpoint} connections=0", start=mark)
    mark = leave(slow, 1, 2, 3)
    line = slow.agent.wait_log("level=info msg=\"backend is back in the cluster's list\" "
                               f"backend={three.endpoint} after=[0-9]+s", start=mark)
    assert "drained=yes weight=7" in line
    mark = len(slow.agent.log())
    slow.etcd.put("kubernetes", [api.v4 for api in slow.apis] + [NOBODY])
    slow.agent.wait_log(f"backend is new in the cluster's list.*backend={NOBODY}:6443", start=mark)


def test_nothing_is_said_of_a_list_that_is_no_other(cluster):
    """The seeds are the cluster's apiservers: nobody leaves, and nobody comes."""
    cluster.start(seeds=(1, 2, 3))
    cluster.agent.wait_log("discovery has the cluster's list.*backends=3")
    wait_until(lambda: cluster.status()["state"] == "current", "status to say so")
    log = cluster.agent.log()
    assert "others now" not in log and "backend is" not in log and "backend has" not in log


def test_seed_that_is_none_is_named(cluster):
    cluster.say(2, 3)
    cluster.start(seeds=(1, 2))
    cluster.wait(2, 3)
    cluster.agent.wait_log("backend is not in the cluster's list.*"
                           f"backend={cluster.apis[0].endpoint}")
    cluster.agent.wait_log("backend is new in the cluster's list.*"
                           f"backend={cluster.apis[2].endpoint}")


@pytest.mark.parametrize("meanwhile", ["nothing", "agent", "load", "upgrade"])
def test_operator_is_not_forgotten(slow, meanwhile):
    """Neither by the agent, nor by the next one, nor by another version."""
    stage, (_, two, three) = slow.stage, slow.apis
    ok(stage.ctl("drain", three.endpoint))
    ok(stage.ctl("weight", two.endpoint, 7))
    leave(slow, 1)
    if meanwhile in ("agent", "upgrade"):
        assert slow.agent.stop() == 0
    if meanwhile == "load":
        ok(stage.load())
    if meanwhile == "upgrade":
        ok(stage.exec([next_version(stage), "--pin", stage.pin, "-c", stage.config]))
        ok(stage.load())
    if meanwhile in ("agent", "upgrade"):
        slow.agent = stage.agent()
        slow.wait_watch(timeout=20)
    shown = entry(slow, three)
    assert (shown["state"], shown["drained"], shown["weight"]) == ("removed", True, 0)
    assert shown["why"] == "not in the list any more; drained by the operator"
    assert entry(slow, two)["why"] == "not in the list any more; weight 7 by the operator"
    leave(slow, 1, 2, 3)
    wait_drained(slow, three)
    assert (entry(slow, two)["weight"], entry(slow, two)["weightOverride"]) == (7, 7)
    assert "cp3" not in served_set(stage, 40)
    ok(stage.ctl("undrain", three.endpoint))
    ok(stage.ctl("weight", two.endpoint, "auto"))
    wait_states(stage, "ready", slow.apis)
    assert entry(slow, three)["weight"] == 10, "slow start, also with another agent"


def test_settings_while_it_is_away(slow):
    stage, three = slow.stage, slow.apis[2]
    leave(slow, 1, 2)
    assert "not in the list now; it stays drained" in ok(stage.ctl("drain", three.endpoint)).stdout
    assert entry(slow, three)["state"] == "removed"
    assert f"{three.endpoint}" in ok(stage.ctl("status")).stdout
    assert "takes new connections when it comes back" in \
        ok(stage.ctl("undrain", three.endpoint)).stdout
    assert entry(slow, three) is None
    assert "weight 9 when it comes back" in ok(stage.ctl("weight", three.endpoint, 9)).stdout
    ok(stage.ctl("weight", three.endpoint, "auto"))
    ok(stage.ctl("drain", three.endpoint))
    leave(slow, 1, 2, 3)
    wait_drained(slow, three)
    assert entry(slow, three)["weightOverride"] is None


def test_one_that_was_never_there(slow):
    """A typing error is none that has left; the line names those."""
    leave(slow, 1, 2)
    line = fails(slow.stage.ctl("drain", NOBODY), 1, "no such backend", slow.apis[0].endpoint)
    assert line.endswith(f"not in the list now: {slow.apis[2].endpoint}")


def test_events_tell_the_story(slow):
    """It dies, leaves, and comes back: the same one."""
    three = slow.apis[2]
    follower = Follower(slow.stage)
    follower.wait("state", three)
    three.kill()
    wait_states(slow.stage, "dead", [three])
    leave(slow, 1, 2)
    follower.wait("removed", three)
    three.start()
    leave(slow, 1, 2, 3)
    wait_states(slow.stage, "ready", [three])
    wait_until(lambda: [e for e in follower.events if e["backend"] == three.endpoint and
                        (e.get("state"), e.get("was")) == ("ready", "suspect")],
               lambda: f"it to be well, {follower.events}")
    follower.end()
    story = [(e["event"], e.get("state"), e.get("was")) for e in follower.events
             if e["backend"] == three.endpoint and e["event"] != "reason"]
    at = story.index(("removed", None, None))
    assert ("state", "dead", "suspect") in story[:at]
    rest = story[at + 1:]
    # Whether it answers before it is in the list again is chance.
    assert len(rest) == 3 and rest[-1] == ("state", "ready", "suspect"), rest
    assert set(rest[:2]) == {("returned", None, None), ("state", "suspect", "dead")}


def test_death_of_one_that_has_left_is_an_event(slow):
    """It leaves the list with connections, and dies then."""
    three = slow.apis[2]
    with kept_to(slow.stage, "cp3"):
        follower = Follower(slow.stage)
        follower.wait("state", three)
        leave(slow, 1, 2)
        three.stop()
        wait_until(lambda: [e for e in follower.events if e["backend"] == three.endpoint and
                            e.get("state") == "dead"], lambda: f"its death, {follower.events}")
        follower.end()
    three.cont()


def test_by_hand(balanced):
    """Out of the file, and in again: the same as with discovery."""
    one, mark = balanced.cp(1), len(balanced.running.log())
    ok(balanced.ctl("drain", one.endpoint))
    assert served_set(balanced, 30) == {"cp2", "cp3"}
    before = backend_status(balanced)[one.endpoint]
    for which, said in ((balanced.backends[1:], "has left the configuration"),
                        (balanced.backends, "is back in the configuration")):
        balanced.configure(backends=[b.endpoint for b in which], slowStart="1h")
        balanced.running.hup()
        balanced.running.wait_log(f"backend {said}.*backend={one.endpoint}", start=mark)
        wait_known(balanced, which)
    after = backend_status(balanced)[one.endpoint]
    assert after["drained"] and after["weight"] == 10
    assert (after["id"], after["generation"]) == (before["id"], before["generation"])


def test_by_hand_without_an_agent(attached):
    one = attached.cp(1)
    assert "cp1" in served_set(attached, 60)
    ok(attached.ctl("drain", one.endpoint))
    before = backend_status(attached)[one.endpoint]
    for which in (attached.backends[1:], attached.backends):
        attached.configure(backends=[b.endpoint for b in which])
        ok(attached.load())
        assert known(attached) == {b.endpoint for b in which}
        assert backend_status(attached)[one.endpoint]["drained"]
    after = backend_status(attached)[one.endpoint]
    assert (after["id"], after["generation"], after["opened"]) == \
        (before["id"], before["generation"], before["opened"])
    assert "cp1" not in served_set(attached, 30)


def test_ids_of_the_forgotten(attached):
    """When no id is free, the one that has left first is forgotten: its id has a new owner, with
    counters of its own. The operator's drain keeps one that has left still earlier."""
    def load(*backends):
        attached.configure(backends=list(backends))
        ok(attached.load())

    def nobodies(first, n):
        return [{"address": f"192.0.2.{i}", "weight": 0} for i in range(first, first + n)]

    one, two = attached.cp(1), attached.cp(2)
    load(one.endpoint, *nobodies(1, 63))
    assert served_set(attached, 5) == {"cp1"}
    ok(attached.ctl("drain", "192.0.2.1"))
    load(*nobodies(100, 62))
    load(two.endpoint, *nobodies(200, 20))
    shown = backend_status(attached)
    assert (shown[two.endpoint]["id"], shown[two.endpoint]["opened"]) == (1, 0)
    assert shown["192.0.2.1:6443"]["drained"]
    assert served_set(attached, 5) == {"cp2"}
    assert backend_status(attached)[two.endpoint]["opened"] == 5
    load(one.endpoint)
    assert backend_status(attached)[one.endpoint]["opened"] == 0, "a new one"
