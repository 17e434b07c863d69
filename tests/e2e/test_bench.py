# SPDX-License-Identifier: BSD-2-Clause
"""The benchmark refuses to report what says nothing. Its figures are for no test."""

import json
import os
import subprocess
import sys

import pytest

from helpers import ok
from system import BPFFS, WorldError
from world import ROOT

sys.path.append(os.path.join(ROOT, "tests", "bench"))

import agentbench  # noqa: E402  (after sys.path)
import deaths  # noqa: E402
import runs  # noqa: E402
from stage import PROGRAMS  # noqa: E402


def bench(*args):
    return subprocess.run(["/usr/bin/python3", os.path.join(ROOT, "tests/bench/bench.py"), *args],
                          capture_output=True, text=True, timeout=60, check=False)


def dial(stage, *args):
    """What became of the connects of bench_client dial."""
    done = ok(stage.exec([stage.program("test/bench_client"), "dial", *args, "127.0.0.1", 6443]))
    begun, outcomes = done.stdout.splitlines()
    assert begun == "begun"
    return json.loads(outcomes)


def test_outside_dialler(stage):
    """So many connects at that rate, with and without a handshake; each failure is one."""
    ok(stage.load())
    plain = dial(stage, "--rate", 200, "--seconds", 0.5)
    assert [o[2] for o in plain] == [None] * 100
    assert 0.4 < plain[-1][0] - plain[0][0] < 1.5
    assert [o[2] for o in dial(stage, "--rate", 50, "--seconds", 0.2, "--tls")] == [None] * 10
    for cp in stage.backends:
        cp.stop()
    hung = dial(stage, "--rate", 50, "--seconds", 0.2, "--tls", "--give-up", 0.5)
    assert [o[2] for o in hung] == ["ETIMEDOUT"] * 10 and min(o[1] for o in hung) >= 0.5
    assert [o[2] for o in dial(stage, "--rate", 50, "--seconds", 0.2)] == [None] * 10
    for cp in stage.backends:
        cp.kill()
    assert [o[2] for o in dial(stage, "--rate", 50, "--seconds", 0.2)] == ["ECONNREFUSED"] * 10


def test_share_of_the_dying():
    """An even share of the connects, or no report."""
    assert deaths.share_of({"cp1": 100, "cp2": 110, "cp3": 90}, "cp1") == pytest.approx(33.3, 0.01)
    for mine in (0, 30, 300):
        with pytest.raises(WorldError, match="no even share"):
            deaths.share_of({"cp1": mine, "cp2": 110, "cp3": 90}, "cp1")


def test_probes_that_are_due():
    """An agent that does not look is the cheapest."""
    agentbench.check_due(36, 36)
    with pytest.raises(WorldError, match="where 36 were due"):
        agentbench.check_due(0, 36)


def test_runs_of_programs(stage):
    """They are counted while statistics are on; the names are those that have to be there."""
    ok(stage.load())
    ids = runs.program_ids(stage.pin)
    assert set(ids) == PROGRAMS
    with runs.Runs(ids) as counted, runs.bpf_statistics():
        before = counted.now()
        dial(stage, "--rate", 100, "--seconds", 0.1)
        seen = counted.since(before)
    assert seen["klb_connect4"][1] >= 10 and seen["klb_sockops"][1] >= 10
    assert seen["klb_connect4"][0] > 0


def test_beside_what(tmp_path):
    """A directory without a build, and a mixture of both kinds, are refused."""
    done = bench("--beside", "x", "--only", "programs")
    assert done.returncode == 2 and "leave out --only" in done.stderr
    done = bench("--quick", "--beside", str(tmp_path))
    assert done.returncode == 1
    assert f"{tmp_path}/kubelb-load is not there" in done.stdout
    assert not [p for p in os.listdir(BPFFS) if p.endswith(("-beside", "-here"))]
