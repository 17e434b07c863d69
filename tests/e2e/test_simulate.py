# SPDX-License-Identifier: BSD-2-Clause
"""The simulation of a fleet sees what is even and what is not. It needs no world."""

import json
import os
import subprocess

import pytest

from world import ROOT

PROGRAM = os.path.join(os.environ.get("KUBELB_BUILD", os.path.join(ROOT, "build")), "test", "simulate")
NODES = 200


def run(*args, apiservers=3):
    return subprocess.run([PROGRAM, "--nodes", str(NODES), "--apiservers", str(apiservers),
                           "--scenario", "brief", *args],
                          capture_output=True, text=True, timeout=120, check=False)


def simulate(*args, apiservers=3):
    done = run(*args, apiservers=apiservers)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def mark(result, what):
    return next(m for m in result["marks"] if m["what"] == what)


def rates(result, what):
    return next(r for r in result["rates"] if r["what"] == what)


def test_same_seed_same_hour():
    """A figure that nobody can get again says nothing."""
    first = run("--seed", "7").stdout
    assert first and first == run("--seed", "7").stdout
    assert first != run("--seed", "8").stdout


@pytest.mark.parametrize("policy", ["least-conn", "random", "latency"])
def test_steady_state_is_even(policy):
    assert mark(simulate("--policy", policy), "steady")["max_over_mean"] < 1.1


def test_each_node_holds_its_watches():
    """No client is lost on the way, and none is counted twice."""
    result = simulate("--short", "0")
    for m in result["marks"]:
        assert sum(m["open"]) == NODES * result["watches"], m


def test_broken_choice_is_seen():
    """Everybody takes the first one."""
    broken = simulate("--break", "first")
    assert mark(broken, "steady")["max_over_mean"] > 2.9


def test_without_spread_a_reload_is_a_herd():
    """The nodes take it within a second: without their own spread all handshakes come in that one."""
    spread, together = (rates(simulate(*more), "reload")["handshakes"]["worst"]
                        for more in ([], ["--break", "spread"]))
    assert spread < 0.4 * NODES < 0.5 * NODES < together


@pytest.mark.parametrize("apiservers", [3, 5])
def test_rebalance_fills_who_came_back(apiservers):
    """Two and two and none of every node is an apiserver without a connection."""
    without = simulate(apiservers=apiservers)
    moved = simulate("--rebalance", apiservers=apiservers)
    assert mark(without, "returned")["max_over_mean"] > 1.15
    assert mark(without, "end")["rebalanced"] == 0
    assert mark(moved, "returned")["max_over_mean"] < 1.1
    assert mark(moved, "steady")["rebalanced"] <= NODES * 0.05


def test_dead_host_loses_its_connections():
    """They are ended by the agents, once each, and none goes back there."""
    result = simulate("--short", "0")
    before, after = mark(result, "returned"), mark(result, "end")
    assert after["evicted"] - before["evicted"] == before["open"][1]
    assert after["open"][1] == 0


@pytest.mark.parametrize("wrong", [["--nodes", "0"], ["--apiservers", "9"], ["--policy", "none"],
                                   ["--break", "all"], ["--scenario", "x"], ["--probe", "ping: 1"]])
def test_bad_options(wrong):
    done = run(*wrong)
    assert done.returncode == 2 and done.stderr.startswith("simulate: ") and not done.stdout
