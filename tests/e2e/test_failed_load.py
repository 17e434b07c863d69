# SPDX-License-Identifier: BSD-2-Clause
"""kubelb-load whose calls the kernel refuses half-way, for want of memory: what was there before is
there afterwards, as kubelb-load(8) promises. test_killed_load.py has what is killed."""

import pytest

from helpers import V4, Held, attached_ids, dump, fails, load_argv, nbconnect, ok, places, wait_carried
from system import wait_until


@pytest.fixture(name="failing")
def failing_fixture(stage, group, library):
    """Runs a kubelb-load of which that call fails. It says so in one line."""

    def failing(program, moment):
        done = stage.exec(load_argv(stage, program, group), env={**library, "FAILAT": moment})
        return fails(done, 1, "memory")

    return failing


def settled(stage, group):
    """What is attached, and all the pins: which they are, too."""
    return attached_ids(group), places(stage), dump(stage, "backends"), dump(stage, "frontends")


@pytest.mark.parametrize("moment", ["link_create:5", "link_create:6", "obj_pin:1", "obj_pin:9",
                                    "map_update:2"])
def test_first_load_that_fails_leaves_nothing(stage, group, failing, moment):
    failing(stage.program("kubelb-load"), moment)
    wait_until(lambda: not attached_ids(group), "the programs to go")
    assert places(stage) == {}
    ok(stage.load(cgroup=group))
    assert nbconnect(stage, "-n", 9, V4, cgroup=group)["ok"] == 9


@pytest.mark.parametrize("moment", [f"link_update:{n}" for n in range(1, 6)])
def test_refused_update_puts_the_programs_back(stage, group, failing, moment):
    """Those that were replaced already run again, and count what they counted before."""
    ok(stage.load(cgroup=group))
    before = settled(stage, group)
    with Held(stage, 6, cgroup=group):
        failing(stage.program("kubelb-load"), moment)
        assert settled(stage, group) == before
        assert nbconnect(stage, "-n", 9, V4, cgroup=group)["ok"] == 9
        wait_carried(stage, 6)
    wait_carried(stage, 0)
    ok(stage.load(cgroup=group))
    assert not attached_ids(group) & before[0], "the next one replaces them"


@pytest.mark.parametrize("moment", ["link_update:1", "link_update:5", "obj_pin:1"])
def test_refused_upgrade_leaves_the_version_that_runs(stage, group, loads, failing, moment):
    """From one ABI to the next: the maps are new ones, and the old ones go on."""
    ok(stage.exec(load_argv(stage, loads[0], group)))
    before = settled(stage, group)
    with Held(stage, 6, cgroup=group):
        failing(loads[1], moment)
        assert settled(stage, group) == before
        wait_carried(stage, 6)
        assert nbconnect(stage, "-n", 9, V4, cgroup=group)["ok"] == 9
        ok(stage.exec(load_argv(stage, loads[1], group)))
        wait_carried(stage, 6)
    wait_carried(stage, 0)
