# SPDX-License-Identifier: BSD-2-Clause
"""kubelb-load, killed at any moment: what is attached goes on, and the next run has the rest."""

import contextlib
import glob
import os
import random
import signal
import subprocess
import time

import pytest

from backend import PORT
from helpers import (V4, V6, Accepts, Held, address_text, agent_serves, attached_ids, beats, dump,
                     fails, load_argv, nbconnect, next_version, objects, ok, pins, places, ready, served_set,
                     still_there, wait_carried, wait_states)
from system import cgroup2_root, group_members, wait_until


def frontends(stage):
    """What is balanced: as user space has written it, and as the kernel reads it."""
    def text(endpoint):
        return address_text(endpoint["addr"]), endpoint["port"]

    wanted = {text(key) for key, _value in dump(stage, "frontends")}
    if "lookup" in pins(stage):
        read = [entry["endpoint"] for entry in dump(stage, "lookup")[0][1]["at"]]
        assert {text(endpoint) for endpoint in read if endpoint["port"]} == wanted
    return wanted


@pytest.fixture(name="lookup_load")
def lookup_load_fixture(stage):
    """kubelb-load of a next version in which `lookup` has grown, and `backends` has not."""
    return next_version(stage, "abi-lookup")


def load_killed(stage, program, group, moment):
    """Starts it and ends it with SIGKILL that many seconds later."""
    with subprocess.Popen(stage.argv(load_argv(stage, program, group)), start_new_session=True,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        time.sleep(moment)  # the moment is what is being tested
        process.kill()
        process.wait()
        # The child of a test connect ends by itself.
        wait_until(lambda: not group_members(process.pid), "the end of its child")


@pytest.fixture(name="killat")
def killat_fixture(stage, library):
    """Runs a kubelb-load that is killed at a moment that no clock hits."""

    def killat(moment, program, group, may_end=False):
        """Whether it was; may_end: it may be done before that moment comes."""
        done = stage.exec(load_argv(stage, program, group), env={**library, "KILLAT": moment})
        killed = done.returncode == -signal.SIGKILL
        assert killed or may_end and done.returncode == 0, (moment, done.returncode, done.stderr)
        return killed

    return killat


def load_whole(stage, program, group):
    """A kubelb-load after a killed one: done, and nothing of that one is left.
    Returns how long it took."""
    start = time.monotonic()
    ok(stage.exec(load_argv(stage, program, group)))
    took = time.monotonic() - start
    assert nbconnect(stage, "-n", 9, V4, cgroup=group)["ok"] == 9
    assert [p for p in pins(stage) if p.endswith("_new")] == []
    assert not os.path.exists(stage.pin + "_new")
    assert frontends(stage) == {(V4, PORT), (V6, PORT)}
    assert glob.glob(f"{glob.escape(group)}/kubelb-selftest-*") == []
    return took


def detach_whole(stage, group):
    ok(stage.detach())
    assert places(stage) == {}
    wait_until(lambda: not attached_ids(group), "the programs to go")


# --- the first load ----------------------------------------------------------


def test_first_load_killed_at_any_moment(stage, group, loads):
    moments = random.Random(4)
    took = 0.15
    for i in range(8):
        load_killed(stage, loads[i % 2], group, moments.uniform(0, took))
        if i % 3 == 2:
            detach_whole(stage, group)
        took = load_whole(stage, loads[0], group)
        with Held(stage, 6, cgroup=group):
            wait_carried(stage, 6)
        wait_carried(stage, 0)
        detach_whole(stage, group)


def test_first_load_killed_between_two_steps(stage, group, loads, killat):
    for moment in ("link_create:3", "fork:1", "obj_pin:4", "rename:9"):
        killat(moment, loads[0], group)
        load_whole(stage, loads[0], group)
        wait_carried(stage, 0)
        detach_whole(stage, group)
        killat(moment, loads[0], group)
        detach_whole(stage, group)


def test_first_load_killed_before_it_has_its_name(stage, group, loads, killat):
    """It balances, and whoever comes next takes it over, counts and all."""
    killat(f"rename:{stage.pin}", loads[0], group)
    with Held(stage, 6, cgroup=group):
        load_whole(stage, loads[0], group)
        wait_carried(stage, 6)
    wait_carried(stage, 0)
    detach_whole(stage, group)


def test_dry_run_leaves_no_trace_of_a_killed_load(stage, group, killat):
    """What lies around stays as it is; it is for the next real run to clear."""
    killat("rename:3", stage.program("kubelb-load"), group)
    before = places(stage)
    assert len(before) > 2, "the killed run has left nothing behind"
    done = ok(stage.load("--dry-run"))
    assert "would attach" in done.stdout
    assert places(stage) == before
    ok(stage.detach())
    assert places(stage) == {}


# --- an upgrade --------------------------------------------------------------


def test_upgrade_killed_at_any_moment(stage, group, loads):
    """From this ABI to the next and back, under connections that stay open."""
    moments = random.Random(44)
    took = load_whole(stage, loads[0], group)
    with contextlib.ExitStack() as held:
        for i in range(12):
            held.enter_context(Held(stage, 2, cgroup=group))
            load_killed(stage, loads[(i + 1) % 2], group, moments.uniform(0, took))
            took = load_whole(stage, loads[moments.randrange(2)], group)
        wait_carried(stage, 24)
    wait_carried(stage, 0)
    detach_whole(stage, group)


def test_upgrade_killed_between_two_steps(stage, group, loads, killat):
    """The same, at the moments that count."""
    with contextlib.ExitStack() as held:
        for i, moment in enumerate(("link_update:2", "link_update:5", "fork:1", "obj_pin:4",
                                    "rename:4")):
            load_whole(stage, loads[0], group)
            held.enter_context(Held(stage, 2, cgroup=group))
            killat(moment, loads[1], group)
            load_whole(stage, loads[i % 2], group)
        wait_carried(stage, 10)
    wait_carried(stage, 0)
    load_whole(stage, loads[0], group)
    killat("rename:2", loads[1], group)
    ids = objects(stage)
    detach_whole(stage, group)
    wait_until(lambda: not any(still_there(ids).values()), "the kernel to free them")


def test_upgrade_of_lookup_alone(stage, group, lookup_load, killat):
    """What the new programs read is filled before they run, and not only when all is
    done: killed before the first pin, it balances."""
    load_whole(stage, stage.program("kubelb-load"), group)
    killat("obj_pin:1", lookup_load, group)
    assert nbconnect(stage, "-n", 9, V4, cgroup=group)["ok"] == 9
    load_whole(stage, lookup_load, group)
    load_whole(stage, stage.program("kubelb-load"), group)


def test_load_after_a_killed_upgrade_balances_all_along(stage, group, lookup_load, killat):
    """The frontend lies in another place of the maps that the programs run on than the
    pinned ones say: killed at any of its writes, the next load leaves it balanced."""
    writes = 0
    while True:
        for frontends_then in ([f"{V4}:7443", f"{V4}:{PORT}"], [f"{V4}:{PORT}"]):
            stage.configure(frontends=frontends_then)
            ok(stage.load(cgroup=group))
        killat("rename:1", lookup_load, group)
        if not killat(f"map_update:{writes + 1}", lookup_load, group, may_end=True):
            break
        writes += 1
        assert nbconnect(stage, "-n", 6, V4, cgroup=group)["ok"] == 6, f"write {writes}"
        detach_whole(stage, group)
    assert writes > 5


# --- between a killed upgrade and the next kubelb-load -----------------------


def test_closes_between_two_links_of_a_killed_upgrade(stage, group, loads, killat):
    """Some programs are the new ones and some still the old, until somebody runs
    kubelb-load again."""
    ok(stage.load(cgroup=group))
    killat("link_update:2", loads[1], group)
    assert nbconnect(stage, "-n", 12, V4, cgroup=group)["ok"] == 12
    load_whole(stage, loads[1], group)
    wait_carried(stage, 0, timeout=1)


def test_wish_after_a_killed_upgrade(stage, group, loads, killat):
    """The pinned maps are not those that the programs read: refused, not taken and lost; and
    a wish from before goes on to be obeyed."""
    ok(stage.load(cgroup=group))
    ok(stage.ctl("drain", stage.cp(2).endpoint))
    killat("rename:1", loads[1], group)
    fails(stage.ctl("drain", stage.cp(1).endpoint), 1, stage.pin, "killed half-way",
          "run kubelb-load")
    counts = Accepts(stage)
    assert nbconnect(stage, "-n", 60, V4, cgroup=group)["ok"] == 60
    seen = counts.settled(60)
    assert seen["cp2"] == 0 and seen["cp1"] > 0, seen
    load_whole(stage, loads[0], group)
    ok(stage.ctl("drain", stage.cp(1).endpoint))
    counts = Accepts(stage)
    assert nbconnect(stage, "-n", 60, V4, cgroup=group)["ok"] == 60
    assert counts.settled(60) == {"cp1": 0, "cp2": 0, "cp3": 60}


def test_agent_after_a_killed_upgrade(balanced, loads, killat):
    """Its verdicts do not count, and it says so, in its log and on /readyz, until somebody
    runs kubelb-load: then the programs know what it has found meanwhile."""
    agent = balanced.running
    killat("rename:1", loads[1], cgroup2_root())
    line = agent.wait_log("no data path to work on, waiting for kubelb-load")
    assert "level=warn" in line and balanced.pin in line and "killed half-way" in line
    assert not ready(balanced)
    balanced.cp(1).kill()
    agent.wait_log(rf"{balanced.cp(1).v4}.*state=dead")
    assert not ready(balanced)
    ok(balanced.exec(load_argv(balanced, loads[0], cgroup2_root())))
    wait_until(lambda: ready(balanced), "the agent to go on")
    wait_states(balanced, "dead", [balanced.cp(1)])
    assert nbconnect(balanced, "-n", 60, V4)["failed"] == 0


@pytest.mark.parametrize("moment", [f"link_update:{n}" for n in range(1, 6)] + ["obj_pin:1"])
def test_agent_after_a_killed_load_of_its_own_version(balanced, killat, moment):
    """The maps are the same ones as before: it goes on, whatever it is allowed to ask,
    and one that is started now does too."""
    killat(moment, balanced.program("kubelb-load"), cgroup2_root())
    assert ready(balanced) and beats(balanced)
    assert balanced.running.stop() == 0
    balanced.running = balanced.agent()
    wait_until(lambda: agent_serves(balanced) and ready(balanced) and beats(balanced),
               "the next agent")
    assert "attached" not in balanced.running.log()


# --- a kubelb-load that stands still -----------------------------------------


@contextlib.contextmanager
def standing_still(stage, library, moment, program):
    """A kubelb-load that is stopped at that moment, with the lock; it ends well afterwards."""
    process = stage.spawn(load_argv(stage, program, cgroup2_root()), stderr=subprocess.PIPE,
                          env={**library, "STOPAT": moment})
    try:
        wait_until(lambda: process_state(process.pid) == "T", f"it to stop at {moment}")
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        assert process.wait(timeout=30) == 0, process.stderr.read()


def process_state(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        return stat.read().rpartition(")")[2].split()[0]


def live_control(stage):
    """`control` as the programs see it: during an upgrade it may have its passing name."""
    return "control_new" if "control_new" in pins(stage) else "control"


def heartbeat_age(stage):
    written = dump(stage, live_control(stage))[0][1]["heartbeat_ns"]
    return (time.clock_gettime_ns(time.CLOCK_MONOTONIC) - written) / 1e9


@pytest.mark.parametrize("version", [0, 1], ids=["same", "next"])
@pytest.mark.parametrize("moment", ["link_update:1", "link_update:5", "rename:1"])
def test_agent_beside_a_stopped_load(balanced, loads, library, moment, version):
    """The agent's heart beats on, in the maps that are there and in those that come: what it has
    found still counts. It says who holds the lock."""
    balanced.cp(1).readyz(500)
    wait_states(balanced, "draining", [balanced.cp(1)])
    with standing_still(balanced, library, moment, loads[version]) as process:
        line = balanced.running.wait_log("another process holds the lock")
        assert f"pid={process.pid} " in line and "level=warn" in line and "kubelb-load" in line
        assert balanced.running.log().count("holds the lock") == 1
        assert heartbeat_age(balanced) < 2.5
        counts = Accepts(balanced)
        assert nbconnect(balanced, "-n", 30, V4)["ok"] == 30
        assert counts.settled(30)["cp1"] == 0
        if not version:
            balanced.cp(2).kill()
            wait_states(balanced, "dead", [balanced.cp(2)])
            counts = Accepts(balanced)
            assert nbconnect(balanced, "-n", 30, V4)["failed"] == 0
            assert counts.settled(30)["cp3"] == 30
            assert f"HELD by kubelb-load (PID {process.pid})" in ok(balanced.ctl("status")).stdout
    if not version:
        balanced.running.wait_log("the lock is free")
        wait_states(balanced, "dead", [balanced.cp(2)])
        wait_until(lambda: heartbeat_age(balanced) < 1.5 and ready(balanced), "the agent to go on")
        assert '"lock": null' in ok(balanced.ctl("status", "-o", "json")).stdout


def test_verdicts_while_a_load_verifies(balanced, library):
    """What takes long in a kubelb-load comes before the lock: the agent writes meanwhile."""
    with standing_still(balanced, library, "prog_load:1", balanced.program("kubelb-load")):
        balanced.cp(1).kill()
        wait_states(balanced, "dead", [balanced.cp(1)])
        assert heartbeat_age(balanced) < 2.5
        # Another one is quicker: the first has to begin anew, on what it finds then.
        ok(balanced.load("--cgroup", cgroup2_root()))
    wait_until(lambda: ready(balanced) and beats(balanced), "the agent to go on")
    assert served_set(balanced, 12) == {"cp2", "cp3"}


def test_the_first_of_two_loads_finds_other_maps(stage, group, loads, library):
    """It has loaded its programs on the maps of one version, and the next version's come first."""
    load_whole(stage, loads[0], group)
    process = stage.spawn(load_argv(stage, loads[0], group), stderr=subprocess.PIPE,
                          env={**library, "STOPAT": "prog_load:1"})
    wait_until(lambda: process_state(process.pid) == "T", "it to stop")
    load_whole(stage, loads[1], group)
    process.send_signal(signal.SIGCONT)
    assert process.wait(timeout=30) == 0, process.stderr.read()
    assert nbconnect(stage, "-n", 9, V4, cgroup=group)["ok"] == 9
    assert dump(stage, "control")[0][1]["abi_version"] == 3
    detach_whole(stage, group)
