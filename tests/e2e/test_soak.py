# SPDX-License-Identifier: BSD-2-Clause
"""The soak test: a minute of it, and that it sees what it is there to see. What it finds in an hour
is in docs/bench/soak.md."""

import itertools
import json
import os
import subprocess
import sys

import pytest

from world import ROOT

sys.path.append(os.path.join(ROOT, "tests", "bench"))

import soak  # noqa: E402  (after sys.path)
import soak_checks  # noqa: E402
import soak_report  # noqa: E402
from soak_clients import Outcome, Window  # noqa: E402
from soak_faults import KINDS, REPLACING, Kind, dice_of, order_of  # noqa: E402


def run(*args):
    return subprocess.run(["/usr/bin/python3", os.path.join(ROOT, "tests/bench/soak.py"), *args],
                          capture_output=True, text=True, timeout=900, check=False)


# --- the run ------------------------------------------------------------------


def test_a_minute(tmp_path):
    """Everything that can happen has happened, and everything has held."""
    path = tmp_path / "soak.json"
    done = run("--seconds", "60", "--seed", "1", "--json", str(path), "--write", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(path.read_text(encoding="utf-8"))
    assert all(d["times"] >= 1 for d in result["disturbances"].values()), result
    assert result["quiet points"] > len(KINDS) and not result["problems"]
    assert all(c["served"] > 50 for c in result["clients"].values()), result["clients"]
    text = (tmp_path / "soak.md").read_text(encoding="utf-8")
    assert "Everything held." in text
    assert all(f"| {name} |" in text for name in KINDS)


# --- what it sees ---------------------------------------------------------------


def leave_a_rule(stage, _window, _dice):
    soak.run_checked(["ip", "-n", stage.world.node, "rule", "add", "from", "192.0.2.1", "table",
                      "77"])


def leave_a_file(stage, _window, _dice):
    with open(os.path.join(stage.state, "backends.json.new"), "wb"):
        pass


def leave_a_descriptor(stage, _window, _dice):
    """In the agent: a process that has what it has, and one more."""
    first = stage.baseline["check_agent", stage.world.build]
    first["file"] -= 1


def reset_clients(stage, _window, _dice):
    """Somebody ends what nobody may end."""
    for api in stage.world.backends:
        api.disconnect("rst")


def refuse_clients(stage, _window, _dice):
    """Nobody is there, and it is nobody's wish."""
    soak.ok(stage.world.detach())
    stage.crowd.poll()
    soak.wait_until(lambda: stage.crowd.poll() or stage.crowd.fresh, "a client to be refused", 30)
    soak.ok(stage.world.load())


def lose_a_count(stage, _window, _dice):
    """A connection that the kernel knows and that no client has."""
    real = soak_checks.listed
    stage.undo = lambda: setattr(soak_checks, "listed", real)
    soak_checks.listed = lambda world: real(world) | {("192.0.2.1:1", world.cp(1).endpoint)}


PLANTED = {
    "rule": (leave_a_rule, "check_network", "192.0.2.1"),
    "file": (leave_a_file, "check_files", "backends.json.new"),
    "descriptor": (leave_a_descriptor, "check_agent", "file"),
    "reset": (reset_clients, "not allowed", "ECONNRESET"),
    "refused": (refuse_clients, "not allowed", "ECONNREFUSED"),
    "count": (lose_a_count, "check_counts", "192.0.2.1"),
}


@pytest.fixture(name="quick")
def quick_fixture(monkeypatch):
    """Nobody waits long for what was planted to go."""
    monkeypatch.setattr(soak_checks, "GONE", 1)
    monkeypatch.setattr(soak_checks, "EVEN", 3)


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_seen(name, quick, monkeypatch, capsys):
    plant, *words = PLANTED[name]
    undo = []

    def act(stage, window, dice):
        plant(stage, window, dice)
        undo.append(getattr(stage, "undo", lambda: None))

    monkeypatch.setattr(soak, "KINDS", {"planted": Kind(act, "none", "none", "")})
    monkeypatch.setattr(soak, "order_of", lambda _seed: itertools.repeat("planted", 1))
    monkeypatch.setattr(soak, "raise_on_signals", lambda: None)
    try:
        assert soak.main(["--seconds", "0.1", "--seed", "5"]) == 1
    finally:
        for f in undo:
            f()
    told = capsys.readouterr().err
    line = next(line for line in told.splitlines() if words[0] in line)
    assert "seed 5, step 1, planted" in line and words[1] in line


# --- whose failure is allowed -----------------------------------------------------


def window(ends, connects, noticed=None):
    w = Window("kind", ends, connects)
    w.start, w.noticed = 10, noticed
    w.open({"a:1": {"cp1"}, "b:1": {"cp2"}, "c:1": {None}}, [type("Cp", (), {"name": "cp1"})])
    w.end = 20
    if noticed is None:
        w.noticed = 20
    return w


@pytest.mark.parametrize("ends, want", [("none", ""), ("victim", "ac"), ("relayed", "c"),
                                        ("all", "abc")])
def test_whose_connection_may_end(ends, want):
    w = window(ends, "none")
    for name in "abc":
        lost = Outcome("request", 12, 13, "EOF", f"{name}:1", 5)
        assert w.allows(lost) == (name in want)
        assert not w.allows(lost._replace(begin=7, end=8)), "before"
        assert not w.allows(lost._replace(begin=21, end=22)), "after"


def test_who_went_to_the_victim_before_anybody_knew():
    w = window("victim", "begin", noticed=13)
    late = Outcome("request", 12, 14, "EOF", "d:1", 12)
    assert w.allows(late) and not w.allows(late._replace(since=14))


@pytest.mark.parametrize("connects, begin, want", [
    ("none", 12, False), ("begin", 12, True), ("begin", 14, False), ("all", 14, True),
    ("all", 21, False)])
def test_which_connect_may_fail(connects, begin, want):
    w = window("none", connects, noticed=13 if connects == "begin" else None)
    assert w.allows(Outcome("connect", begin, begin + 1, "ETIMEDOUT", None, begin)) == want


# --- chance -----------------------------------------------------------------------


def test_the_seed_decides():
    bags = [list(itertools.islice(order_of(seed), 2 * len(KINDS))) for seed in (1, 1, 2)]
    assert bags[0] == bags[1] != bags[2]
    first, rest = bags[0][:len(KINDS)], bags[0][len(KINDS):]
    assert sorted(first) == sorted(KINDS)
    assert first.index("upgrade") < first.index("downgrade")
    assert not {*rest} & {*REPLACING}, "an agent gets old"
    assert dice_of(1, 5).random() == dice_of(1, 5).random() != dice_of(1, 6).random()


# --- the report and the command line ------------------------------------------------


def test_problems_are_in_the_report(tmp_path):
    none = {name: {"times": 1, "seconds": 1, "failed": {}} for name in KINDS}
    result = {"seed": 1, "seconds": 3600, "quiet points": 19, "kernel": "6.18", "cpus": 2,
              "date": "2026-11-30", "agents": 3, "oldest agent": 9, "disturbances": none,
              "clients": {}, "memory": {},
              "problems": [{"step": 3, "kind": "hole", "at": 9.1, "problem": "counts: cp1"}]}
    soak_report.write_report(result, tmp_path)
    text = (tmp_path / "soak.md").read_text(encoding="utf-8")
    assert "1 problems." in text and "- step 3, hole: counts: cp1" in text
    assert json.loads((tmp_path / "soak.json").read_text(encoding="utf-8")) == result


def test_misuse_is_told():
    for args, words in ((["--hours", "-1"], "negative"), (["-n", "5"], "unrecognized"),
                        (["--minutes", "x"], "minutes")):
        done = run(*args)
        assert done.returncode == 2 and words in done.stderr


def test_hours_minutes_and_seconds_add_up():
    assert soak.parse(["--hours", "0.5", "--minutes", "1", "--seconds", "2"]).length == 1862
    assert soak.parse([]).length == 60
