# SPDX-License-Identifier: BSD-2-Clause
"""From this version's maps to the next one's, in place.

build/abi-next/kubelb-load is this kubelb-load with a higher ABI version and
larger values (`make abi-next`).
"""

import json
import os

import pytest

from helpers import (V4, Accepts, Held, Traffic, beats, dial_error, dump, load_argv, nbconnect,
                     next_version, objects, ok, ready, served_set, stats, still_there, wait_idle)
from system import cgroup2_root, wait_until

ALL = {"cp1", "cp2", "cp3"}


@pytest.fixture(name="next_load")
def next_load_fixture(attached):
    """kubelb-load of the next version."""
    path = next_version(attached)

    def load(*args):
        return attached.exec([path, "--pin", attached.pin, *(args or ("-c", attached.config))])

    return load


def abi_version(stage):
    return dump(stage, "control")[0][1]["abi_version"]


def load_and_lose_nothing(attached, load):
    """To another version, while connects go on: none fails, the connections that are open
    stay, and so do the counters and the operator's drain of cp3."""
    before = abi_version(attached)
    with Held(attached, 20) as held:
        opened, counts = stats(attached, "opened"), Accepts(attached)
        with Traffic(attached):
            ok(load())
            assert abi_version(attached) != before
            nbconnect(attached, "-n", 40, V4)
        assert counts.now()["cp3"] == 0, "the operator's drain was lost"
        now = stats(attached, "opened")
        assert all(now[name] >= opened[name] for name in opened)
        assert held.close()["closed"] == 0
    wait_idle(attached)


def test_upgrade_under_traffic(attached, next_load):
    """No failed connect, no lost counter, no lost connection, nothing of the
    old version left."""
    nbconnect(attached, "-n", 90, V4)
    ok(attached.ctl("drain", attached.cp(3).endpoint))
    wait_idle(attached)
    version, old = abi_version(attached), objects(attached)
    load_and_lose_nothing(attached, next_load)
    assert abi_version(attached) > version
    new = objects(attached)
    assert not new["prog"] & old["prog"]
    old_programs = {"prog": old["prog"]}
    wait_until(lambda: not still_there(old_programs)["prog"], "the old programs to go", 5)
    ok(next_load("--detach"))


def test_downgrade(attached, next_load):
    """An older kubelb-load takes over what a newer one has made, as the other way round:
    connections, counters and wishes go along."""
    version = abi_version(attached)
    ok(next_load())
    assert abi_version(attached) > version
    ctl = next_version(attached, program="kubelbctl")
    ok(attached.exec([ctl, "--pin", attached.pin, "drain", attached.cp(3).endpoint]))
    load_and_lose_nothing(attached, attached.load)
    assert abi_version(attached) == version
    ok(attached.ctl("undrain", attached.cp(3).endpoint))
    assert served_set(attached, 60) == {"cp1", "cp2", "cp3"}
    ok(attached.detach())
    assert not os.path.exists(attached.pin)


def test_agent_after_an_upgrade_of_the_maps(balanced, loads):
    """It works on the new ones, or says that it cannot: in its log, and to
    whoever asks. It finds back by itself."""
    def in_order(mark):
        if ready(balanced):
            return beats(balanced)
        return any("level=warn" in line and balanced.pin in line
                   for line in balanced.running.log()[mark:].splitlines())

    for program in (loads[1], loads[0]):
        mark = len(balanced.running.log())
        ok(balanced.exec(load_argv(balanced, program, cgroup2_root())))
        wait_until(lambda m=mark: len(balanced.running.log()) > m, "a word from the agent", 5)
        wait_until(lambda m=mark: in_order(m), "the agent to work, or to say that it cannot", 5)
        assert served_set(balanced, 60) == ALL
    wait_until(lambda: ready(balanced) and beats(balanced), "the agent to find back", 5)
    assert balanced.running.alive()


def events_of(stage, program=None):
    """What `kubelbctl events` prints, of this version or another."""
    done = ok(stage.exec([program or stage.program("kubelbctl"), "--pin", stage.pin, "events",
                          "-o", "json"]))
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_events_after_an_upgrade(stage, loads):
    """What went before can still be read, and what happens next is not lost behind it."""
    following = os.path.join(os.path.dirname(loads[1]), "kubelbctl")
    stage.configure(backends=[stage.cp(1).endpoint])
    ok(stage.load())
    stage.cp(1).kill()
    assert dial_error(stage) == "ECONNREFUSED"
    before = events_of(stage)
    ok(stage.exec([loads[1], "-c", stage.config, "--pin", stage.pin]))
    stage.cp(1).start()
    assert dial_error(stage) is None
    after = events_of(stage, following)
    assert [e["event"] for e in after[:-1]] == [e["event"] for e in before] and len(after) == 3
