# SPDX-License-Identifier: BSD-2-Clause
"""What is there cannot be opened: no descriptors, no memory, no permission. That says nothing
about what is there, so nobody is told to move a live pin away, and nothing is claimed done."""

import os

import pytest

from helpers import (agent_serves, beats, fails, next_version, objects, ok, pins, raw_maps,
                     served_by, state_of, still_there)
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


@pytest.mark.parametrize("command, what, code", [
    (command, "get", code) for command in ("load", "detach") for code in WORDS] + [
    (command, what, code) for command in ("dry-run", "upgrade", "detach")
    for what in ("get=/connect4", "get=/control") for code in (EPERM, ENFILE)
    if (command, what) != ("detach", "get=/control")])  # half a detachment has a test of its own
def test_pins_that_cannot_be_opened(attached, refuse, command, what, code):
    before, maps = pins(attached), raw_maps(attached)
    done = attached.exec([refuse, f"errno={code}", what, "--", *commands(attached)[command]])
    names_its_cause(done, code)
    if command != "detach" or what == "get":
        assert (pins(attached), raw_maps(attached)) == (before, maps)
        assert served_by(attached)


@pytest.mark.parametrize("code", [EPERM, ENFILE])
@pytest.mark.parametrize("what", ["info", "by-id"])
@pytest.mark.parametrize("command", ["load", "detach"])
def test_objects_that_cannot_be_looked_at(attached, refuse, command, what, code):
    before = pins(attached)
    done = attached.exec([refuse, f"errno={code}", what, "--", *commands(attached)[command]])
    names_its_cause(done, code)
    assert pins(attached) == before and served_by(attached)


@pytest.mark.parametrize("command, code", [("status", EPERM), ("status", ENFILE), ("drain", EPERM),
                                           ("drain", ENFILE), ("agent", EPERM)])
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
    for limit in range(4, 200, 1 if command in ("detach", "status", "drain") else 6):
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
    for limit in range(4, 200, 6):
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


def states(stage):
    return {state_of(stage, b) for b in stage.backends}


def raise_limit(agent):
    run_checked(["prlimit", "--pid", str(agent.process.pid), "--nofile=1024:"])


def lower_limit(agent):
    """Not one descriptor more; those that are open stay."""
    run_checked(["prlimit", "--pid", str(agent.process.pid), "--nofile=3:"])


def told(agent, words, start=0):
    return [line for line in agent.log()[start:].splitlines() if words in line]


@pytest.mark.parametrize("limit", [4, 8, 12, 16, 24, 32])
def test_agent_starts_without_descriptors(attached, limit):
    """It says what it lacks and ends, or it says so once, waits, and works when it has them."""
    agent = attached.agent(prefix=("prlimit", f"--nofile={limit}:1024"))
    wait_until(lambda: not agent.alive() or told(agent, "running"), "the agent to run or end")
    if not agent.alive():
        assert agent.process.wait() == 1 and "too many open files" in agent.log()
        assert not any(word in agent.log() for word in WRONG), agent.log()
        return
    raise_limit(agent)
    wait_until(lambda: agent_serves(attached) and states(attached) == {"ready"},
               lambda: f"every backend to be ready: {agent.log()}", 20)
    assert not told(agent, "state=dead") and not told(agent, "waiting for kubelb-load")
    for words in ("cannot be opened for now", "are noticed late", "no metrics for now"):
        assert len(told(agent, words)) <= 1, agent.log()
    if told(agent, "the data path cannot be opened for now"):
        agent.wait_log("the data path is open again")
    if told(agent, "are noticed late"):
        agent.wait_log("changes of files are noticed at once again")
    attached.configure(backends=[attached.cp(1).endpoint])
    agent.wait_log("configuration reloaded")
    agent.stop()


def test_the_agents_want_is_no_backends_fault(balanced):
    """A backend that closes its connection has to be dialled again."""
    agent, cp = balanced.running, balanced.cp(1)
    lower_limit(agent)
    mark = len(agent.log())
    cp.kill()
    cp.start()
    agent.wait_log("the backend cannot be probed for now, its state stays as it is", start=mark)
    wait_until(lambda: told(agent, "cannot look whether the maps are the current ones", mark),
               "the look to fail")
    assert served_by(balanced) and beats(balanced)
    raise_limit(agent)
    agent.wait_log("the backend can be probed again", start=mark)
    wait_until(lambda: states(balanced) == {"ready"}, "every backend to be ready", 15)
    assert not told(agent, "state=dead", mark) and not told(agent, "connections ended", mark)
    assert len(told(agent, "cannot be probed for now", mark)) == 1
    assert not told(agent, "changed by kubelb-load", mark)
