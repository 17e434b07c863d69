# SPDX-License-Identifier: BSD-2-Clause
"""The simulation of a fleet sees what is even and what is not. It needs no world."""

import importlib.util
import json
import os
import re
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
    """A figure that nobody can get again says nothing. With many short connections, so that some are
    to a host that vanishes: the order of their ends is no matter of addresses in memory."""
    first = run("--seed", "7", "--short", "2").stdout
    assert first and first == run("--seed", "7", "--short", "2").stdout
    assert first != run("--seed", "8", "--short", "2").stdout


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


def test_rebalance_leaves_out_all_alike():
    """Six watches and seven apiservers: without it all nodes leave out the one that came back."""
    without = simulate(apiservers=7)
    moved = simulate("--rebalance", apiservers=7)
    assert min(mark(without, "end")["open"]) < NODES * 0.2
    assert min(mark(moved, "end")["open"]) > NODES * 0.7
    assert mark(moved, "end")["rebalanced"] < NODES * 4


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


def figures():
    """The program that makes docs/scale.md's figures, and what it has written last."""
    spec = importlib.util.spec_from_file_location(
        "of_scale", os.path.join(ROOT, "tests", "sim", "simulate.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with open(os.path.join(ROOT, "docs", "scale", "figures.json"), encoding="ascii") as f:
        runs = json.load(f)["runs"]
    return module, [(module.Run(**{k: r[k] for k in module.Run._fields}), r) for r in runs]


def test_page_has_the_figures():
    """Every row of the tables is what figures.json says, and none is from an earlier run."""
    module, results = figures()
    with open(os.path.join(ROOT, "docs", "scale.md"), encoding="utf-8") as f:
        simulated = f.read().partition("## A fleet in virtual time")[2]
    assert {run.nodes for run, _ in results if run.scenario == "hour" and run.policy == "least-conn"
            and run.slow_start} == {10000}
    rows = [line for line in simulated.splitlines() if re.match(r"\| \d", line)]
    assert sorted(rows) == sorted(module.page_rows(results))


def test_targets_are_met():
    """Those that can be: how even the connections are; what probes cost with a fleet's settings."""
    module, results = figures()
    met = {what: value <= limit for what, value, limit in module.targets(results)}
    for n in (3, 5, 7):
        assert met[f"steady, {n} apiservers"]
        assert met[f"10 min after a rolling restart, {n} apiservers"]
        assert met[f"requests / HAProxy's checks (Kubespray, inter 15s), {n} apiservers, interval 65s"]
