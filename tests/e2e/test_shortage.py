# SPDX-License-Identifier: BSD-2-Clause
"""What is there cannot be opened: no descriptors, no memory, no permission. That says nothing
about what is there, so nobody is told to move a live pin away, and nothing is claimed done."""

import os

import pytest

from helpers import (fails, next_version, objects, ok, pins, raw_maps, served_by, still_there)
from system import run_checked, wait_until
from world import ROOT

EPERM, ENOMEM, ENFILE, EMFILE = 1, 12, 23, 24
# What names the cause, and what to do.
WORDS = {EPERM: ("not permitted",), ENOMEM: ("out of memory", "limit"),
         ENFILE: ("too many open files on this machine", "fs.file-max"),
         EMFILE: ("too many open files", "ulimit -n")}
# What would be wrong to say or to advise.
WRONG = ("move it away", "not a map of", "not a link of", "connect4 is missing", "name another",
         "nothing to detach", "detached:", "is attached; run kubelb-load", "is not kubelb's")


@pytest.fixture(name="refuse", scope="module")
def refuse_fixture(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("refuse") / "refuse")
    run_checked(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", path,
                 os.path.join(ROOT, "tests", "clients", "refuse.c")])
    return path


def commands(stage):
    load = [stage.program("kubelb-load"), "--pin", stage.pin]
    ctl = [stage.program("kubelbctl"), "--pin", stage.pin]
    return {"load": [*load, "-c", stage.config], "dry-run": [*load, "-c", stage.config, "-n"],
            "detach": [*load, "--detach"], "status": [*ctl, "status"],
            "drain": [*ctl, "drain", stage.cp(1).endpoint],
            "upgrade": [next_version(stage), "--pin", stage.pin, "-c", stage.config],
            "agent": ["timeout", "5", stage.program("kubelb-agent"), "--pin", stage.pin, "-c",
                      stage.config]}


def names_its_cause(done, code):
    line = fails(done, 1, *WORDS[code])
    for word in WRONG:
        assert word not in done.stdout + line, f"{word!r} is in: {done.stdout}{line}"


@pytest.mark.parametrize("code", [EPERM, ENOMEM, ENFILE, EMFILE])
@pytest.mark.parametrize("what", ["get", "get=/links/connect4", "get=/control"])
@pytest.mark.parametrize("command", ["load", "dry-run", "upgrade", "detach"])
def test_pins_that_cannot_be_opened(attached, refuse, command, what, code):
    if command == "detach" and what == "get=/control":
        pytest.skip("what goes first is gone by then; see the next test")
    before, maps = pins(attached), raw_maps(attached)
    done = attached.exec([refuse, f"errno={code}", what, "--", *commands(attached)[command]])
    names_its_cause(done, code)
    if command != "detach" or what == "get":
        assert (pins(attached), raw_maps(attached)) == (before, maps)
        assert served_by(attached)


@pytest.mark.parametrize("code", [EPERM, ENOMEM, ENFILE, EMFILE])
@pytest.mark.parametrize("what", ["info", "by-id"])
@pytest.mark.parametrize("command", ["load", "detach"])
def test_objects_that_cannot_be_looked_at(attached, refuse, command, what, code):
    before = pins(attached)
    done = attached.exec([refuse, f"errno={code}", what, "--", *commands(attached)[command]])
    names_its_cause(done, code)
    assert pins(attached) == before and served_by(attached)


@pytest.mark.parametrize("code", [EPERM, ENFILE])
@pytest.mark.parametrize("command", ["status", "drain", "agent"])
def test_readers(attached, refuse, command, code):
    what = "get=/control" if command == "agent" else "get"
    done = attached.exec([refuse, f"errno={code}", what, "--", *commands(attached)[command]])
    names_its_cause(done, code)


def test_detach_that_fails_half_way_is_completed(attached, refuse):
    ids = objects(attached)
    done = attached.exec([refuse, f"errno={ENFILE}", "get=/stats", "--",
                          *commands(attached)["detach"]])
    names_its_cause(done, ENFILE)
    assert "stats" in pins(attached)
    assert "detached" in ok(attached.detach()).stdout
    assert not os.path.exists(attached.pin)
    wait_until(lambda: not any(still_there(ids).values()), "the kernel to free what was pinned")


@pytest.mark.parametrize("command", ["load", "dry-run", "upgrade", "detach", "status", "drain"])
def test_every_limit_of_descriptors(attached, command):
    """From the fewest with which the program starts, until it succeeds."""
    for limit in range(4, 200):
        before = pins(attached)
        done = attached.exec(["prlimit", f"--nofile={limit}:{limit}",
                              *commands(attached)[command]])
        if done.returncode == 0:
            break
        names_its_cause(done, EMFILE)
        if command != "detach":
            assert pins(attached) == before and served_by(attached)
    assert limit > 6 and done.returncode == 0, (limit, done)
    if command == "status":
        assert ok(attached.ctl("status")).stdout.splitlines()[0] == done.stdout.splitlines()[0]


def test_no_descriptors_for_a_first_load(stage):
    for limit in range(4, 200):
        done = stage.exec(["prlimit", f"--nofile={limit}:{limit}", *commands(stage)["load"]])
        if done.returncode == 0:
            break
        names_its_cause(done, EMFILE)
        assert not os.path.exists(stage.pin)
    assert limit > 6 and served_by(stage)


@pytest.mark.parametrize("command", ["load", "detach", "status"])
def test_without_capabilities(attached, command):
    """Root without the capabilities, as in a container."""
    done = attached.exec(["setpriv", "--bounding-set=-all", *commands(attached)[command]])
    if done.returncode == 0:
        assert command == "status"  # since Linux 5.19 a pin's mode is enough
        return
    fails(done, 1, *WORDS[EPERM], "CAP_SYS_ADMIN is missing")
    assert "move it away" not in done.stderr and served_by(attached)
