# SPDX-License-Identifier: BSD-2-Clause
"""The report refuses to measure a balancer that serves wrong. Its figures are for no test."""

import os
import subprocess
import sys
import time

import pytest

from helpers import ok
from system import WorldError, wait_until
from world import ROOT

sys.path.append(os.path.join(ROOT, "tests", "bench"))

import peers  # noqa: E402  (after sys.path)
import report_faults  # noqa: E402
import report_speed  # noqa: E402
import report_text  # noqa: E402

START = {"nginx": peers.start_nginx, "haproxy": peers.start_haproxy}


def report(*args):
    return subprocess.run([os.path.join(ROOT, "scripts/bench.sh"), "--report", *args],
                          capture_output=True, text=True, timeout=120, check=False)


def names(stage):
    return [b.name for b in stage.backends]


def target_of(stage, name, endpoints):
    if name == "nft":
        return peers.start_nft(stage, endpoints)
    return START[name](stage, endpoints).target(stage)


@pytest.mark.parametrize("name", ["nginx", "haproxy", "nft"])
def test_peer_that_serves(stage, name):
    """Each serves from every apiserver; one that leaves an apiserver out is refused."""
    peers.prove(stage, target_of(stage, name, [b.endpoint for b in stage.backends]),
                names(stage), stage.ca)
    stage.reset()
    lame = target_of(stage, name, [b.endpoint for b in stage.backends[:2]])
    with pytest.raises(WorldError, match=f"{name} serves wrong"):
        peers.prove(stage, lame, names(stage), stage.ca)


def test_kubelb_is_proven_as_well(stage):
    ok(stage.load())
    target = peers.Target("kubelb", stage.node, peers.FRONTEND, peers.FRONTEND_PORT)
    peers.prove(stage, target, names(stage), stage.ca)
    ok(stage.detach())
    with pytest.raises(WorldError, match="kubelb serves wrong"):
        peers.prove(stage, target, names(stage), stage.ca)


def test_wrong_certificate_is_refused(stage):
    """Somebody who answers in place of the apiservers."""
    ok(stage.load())
    stage.cp(2).certificate("wrong_ca", stage.pki)
    target = peers.Target("kubelb", stage.node, peers.FRONTEND, peers.FRONTEND_PORT)
    with pytest.raises(WorldError, match="serves wrong.*certificate verify failed"):
        peers.prove(stage, target, names(stage), stage.ca)


@pytest.mark.parametrize("fault, lasting", [("kill", False), ("stop", True)])
def test_what_clients_feel(stage, fault, lasting):
    """A killed apiserver ends idle connections at once; those to a stopped one stay. Either fails
    requests, which it answers no more, and nothing of the others."""
    cp = stage.cp(1)
    proxy = peers.start_nginx(stage, [b.endpoint for b in stage.backends])
    clients = report_faults.Clients(stage, proxy.target(stage))
    try:
        clients.make_idle()
        clients.begin(4)
        start = time.monotonic()
        clients.watch(cp, 3)
        getattr(cp, fault)()
        wait_until(lambda: time.monotonic() > start + 3, "the end of the watch", 5)
        clients.stop_requests()
        felt = clients.outcome(cp, start, 3)
    finally:
        clients.close()
    assert felt["stay for longer"] == lasting
    assert felt["failed requests"] >= 1
    assert felt["others ended"] == 0
    assert felt["new connections"] >= 50


SUMMARY = """finished in 307.78ms, 26.67 req/s, 3.80MB/s
requests: 8 total, 8 started, 8 done, {ok} succeeded, {failed} failed, {errored} errored, 0 timeout
status codes: {ok} 2xx, 0 3xx, {failed} 4xx, 0 5xx
"""


def test_run_with_failures_is_refused(tmp_path):
    """Fast errors are no speed: by h2load's summary, and by its log."""
    target = peers.Target("nginx", None, None, None)
    assert report_speed.judge(target, SUMMARY.format(ok=8, failed=0, errored=0)) == (8, 0.30778)
    for counts in ({"ok": 7, "failed": 1, "errored": 0}, {"ok": 7, "failed": 0, "errored": 1},
                   {"ok": 0, "failed": 0, "errored": 0}):
        with pytest.raises(WorldError, match="nginx serves wrong"):
            report_speed.judge(target, SUMMARY.format(**counts))
    with pytest.raises(WorldError, match="not understood"):
        report_speed.judge(target, "unable to connect")
    log = tmp_path / "log"
    log.write_text("".join(f"{i}\t200\t{i}\n" for i in range(1, 101)))
    run = report_speed.of_log(target, log, 1, 0, 1)
    assert (run["n"], run["p50"], run["p99"]) == (100, 50, 99)
    with pytest.raises(WorldError, match="too few"):
        report_speed.of_log(target, log, 64, 0, 1)
    log.write_text("1\t-1\t1\n")
    with pytest.raises(WorldError, match="another status"):
        report_speed.of_log(target, log, 1, 0, 1)


def test_missed_is_said():
    """A target is met by the median, and an end that nobody saw is no short one."""
    def row(who, what, **values):
        return {"what": what, "who": who, "unit": "s", "n": 1, "median": 1, "min": 1, "max": 1, **values}

    def verdict(ours, theirs):
        rows = [row("kubelb", "hung: stay", **ours)] + [
            row(w, "hung: stay", **theirs) for w in ("nginx", "haproxy", "nft")]
        fake = report_text.Report({"about": {}, "not measured": {}, "figures": rows})
        return report_text.stay_row(fake, "hung")[3]

    assert verdict({"max": 3, "at_least": False}, {"min": 36, "at_least": True})
    assert not verdict({"max": 4, "at_least": False}, {"min": 36, "at_least": True})
    assert not verdict({"max": 3, "at_least": True}, {"min": 36, "at_least": True})
    fake = report_text.Report({"about": {}, "not measured": {}, "figures": [
        row("kubelb / nginx", "x", median=1.79), row("kubelb / direct", "x", median=1.02)]})
    assert not report_text.ratio_row(fake, "x", "nginx", 1.8, None)[3]
    assert report_text.ratio_row(fake, "x", "direct", None, 1.03)[3]


def test_command_line():
    done = report("--quick", "--only", "wrong")
    assert done.returncode == 2 and "no part 'wrong'" in done.stderr
    done = report("--quick", "--only", "checks")
    assert done.returncode == 2 and "--out" in done.stderr
