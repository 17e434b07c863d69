# SPDX-License-Identifier: BSD-2-Clause
"""The measurement of faults: it sees what there is, and does not call a missed target met. Its
figures are for no test."""

import contextlib
import json
import os
import subprocess
import sys
import time

from helpers import Kept
from world import ROOT

sys.path.append(os.path.join(ROOT, "tests", "bench"))

import faults  # noqa: E402  (after sys.path)

ROUND = {"fault": "hang", "backend": "cp1", "clients": 3, "informers": 2,
         "ended_ms": [3000, 3100, 3200], "ended_by": {"ECONNRESET": 3}, "informers_lost_ms": [3100],
         "informers_lost_by": {"ECONNRESET": 1}, "event_ms": [3250, 3300], "lists": 0,
         "others_ended": 0, "others_lost": 0, "dials": 100, "failed": {"ETIMEDOUT": 2},
         "there": 2, "last_there_ms": 1800, "slowest_ms": 5}


def run(*args):
    return subprocess.run(["/usr/bin/python3", os.path.join(ROOT, "tests/bench/faults.py"), *args],
                          capture_output=True, text=True, timeout=120, check=False)


def test_ends_are_seen(stage):
    """How and when, in whatever order they come; those that stay open are none."""
    api = stage.apiserver(1)
    with contextlib.ExitStack() as stack:
        kept = [stack.enter_context(Kept(stage, api.v4)) for _ in range(4)]
        for connection in kept:
            assert connection.get("/readyz")[0] == 200
        local = ["%s:%d" % c.sock.getsockname()[:2] for c in kept]
        before = time.monotonic()
        for i, how in ((2, "rst"), (0, "fin"), (1, "close")):
            assert api.disconnect(how, local[i]) == 1
        ends = faults.ends_of(kept, 0.3)
        assert sorted(how for how, _at in ends) == ["ECONNRESET", "EOF", "EOF"]
        assert all(before < at < before + 5 for _how, at in ends)
        assert not faults.ends_of(kept[3:], 0.1)


def test_even_clients(attached):
    """A backend with more connections than the others gets no new ones, whatever happens to it."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(Kept(attached))
        assert not faults.is_even(attached)
        for _ in range(2):
            stack.enter_context(Kept(attached))
        assert faults.is_even(attached)


def test_verdicts():
    """The worst round counts, and a connection that was never ended is worst of all."""
    hang = faults.FAULTS["hang"]
    assert faults.verdict(hang, [ROUND, ROUND]) == "3500: met"
    late = {**ROUND, "ended_ms": [3000, 3100, 3600]}
    assert faults.verdict(hang, [ROUND, late, ROUND]) == "3500: MISSED"
    stuck = {**ROUND, "ended_ms": [3000, 3100]}
    assert faults.verdict(hang, [ROUND, stuck]) == "3500: MISSED"
    glitch = faults.FAULTS["glitch"]
    calm = {**ROUND, "ended_ms": [], "informers_lost_ms": []}
    assert faults.verdict(glitch, [calm, calm]) == "none: met"
    assert faults.verdict(glitch, [calm, {**calm, "ended_ms": [5]}]) == "none: MISSED"
    assert faults.verdict(glitch, [{**calm, "informers_lost_ms": [5]}]) == "none: MISSED"


def test_table():
    rows = [line.split("  ") for line in faults.table([ROUND, {**ROUND, "lists": 2}]).splitlines()]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert cells == [list(faults.COLUMNS), [
        "hang", "3200 / 3200", "3500: met", "6 ECONNRESET", "3275 / 3300", "1 / 2",
        "4 ETIMEDOUT of 200", "1800 / 1800", "0"]]
    deaf = {**ROUND, "event_ms": [3250, None], "ended_ms": []}
    assert faults.table([deaf]).splitlines()[1].count("never") == 2


def test_dials():
    """Those that failed, and those that the backend has served, went there."""
    class Cp:
        name = "cp1"

    seen = faults.dials_of([[9, 1, None, "cp1"], [10, 0.1, None, "cp2"], [11, 0.2, None, "cp1"],
                            [12, 10, "ETIMEDOUT", None], [13, 0.3, None, "cp3"]], Cp, 10)
    assert seen == {"dials": 4, "failed": {"ETIMEDOUT": 1}, "there": 2, "last_there_ms": 2000,
                    "slowest_ms": 300}


def test_one_fault(tmp_path):
    """A whole round: who was on the killed one, and nobody else."""
    path = tmp_path / "faults.json"
    done = run("--rounds", "1", "--only", "kill", "--json", str(path))
    assert done.returncode == 0, done.stderr
    [seen] = json.loads(path.read_text(encoding="utf-8"))
    assert done.stdout.splitlines()[-1].startswith("kill ")
    assert len(seen["ended_ms"]) == seen["clients"] == 3
    assert set(seen["ended_by"]) <= {"EOF", "ECONNRESET"}
    assert seen["informers"] == len(seen["informers_lost_ms"]) >= 1
    assert None not in seen["event_ms"] and len(seen["event_ms"]) == seen["informers"]
    assert seen["lists"] == seen["others_ended"] == seen["others_lost"] == 0
    assert seen["dials"] >= 50


def test_misuse_is_told():
    for args, words in ((["--only", "flood"], "flood"), (["--rounds", "0"], "rounds")):
        done = run(*args)
        assert done.returncode == 2 and words in done.stderr
