# SPDX-License-Identifier: BSD-2-Clause
"""kubelbctl: the operator's wishes, with an agent and without one."""

import json
import re
import signal
import subprocess

import pytest

from helpers import (V4, Accepts, Held, assert_spread, backend_ids, backend_status, dump, fails,
                     kept_to, nbconnect, ok, raw_maps, served_set, wait_idle, wait_states,
                     weight_of)
from system import wait_until

ALL = {"cp1", "cp2", "cp3"}


@pytest.fixture(name="operated", params=["no agent", "agent"])
def operated_fixture(request, stage):
    """Attached; once by kubelb-load alone, once with an agent running."""
    if request.param == "agent":
        return request.getfixturevalue("balanced")
    return request.getfixturevalue("attached")


# --- status ------------------------------------------------------------------


def test_status_for_people(attached):
    text = ok(attached.ctl("status")).stdout
    for b in attached.backends:
        assert b.endpoint in text
    for frontend in ("127.0.0.1:6443", "[::1]:6443"):
        assert frontend in text


def test_status_json(operated):
    entries = backend_status(operated)
    assert set(entries) == {b.endpoint for b in operated.backends}
    assert {e["weight"] for e in entries.values()} == {100}
    assert all(isinstance(e["state"], str) for e in entries.values())


def agent_line(stage):
    lines = [line for line in ok(stage.ctl("status")).stdout.splitlines()
             if line.startswith("agent ")]
    assert len(lines) == 1, lines
    return lines[0]


def agent_json(stage):
    return json.loads(ok(stage.ctl("status", "-o", "json")).stdout)["agent"]


def test_status_without_an_agent(attached):
    assert agent_line(attached) == "agent     none: every backend counts as ready"
    assert agent_json(attached) == {"alive": False, "heartbeatSecondsAgo": None,
                                    "certificateExpiresInSeconds": None}


def test_status_of_an_agent_that_falls_silent(balanced):
    """Three intervals, three seconds at least, after its last sign of life its verdicts are
    shown for what they are: what it said last, and what nobody goes by any more."""
    cp = balanced.cp(1)
    cp.kill()
    wait_states(balanced, "dead", [cp])
    assert re.fullmatch(r"agent     alive, last sign of life \d+m?s ago", agent_line(balanced))
    assert agent_json(balanced)["alive"] is True
    balanced.running.kill9()
    assert " alive, " in agent_line(balanced)
    assert backend_status(balanced)[cp.endpoint]["state"] == "dead"
    wait_until(lambda: "alive" not in agent_line(balanced), "its silence to be noticed", 6)
    assert re.fullmatch(r"agent     SILENT for [\d.]+s: its verdicts do not count any more",
                        agent_line(balanced))
    shown = agent_json(balanced)
    assert shown["alive"] is False and 3 <= shown["heartbeatSecondsAgo"] < 6
    entry = backend_status(balanced)[cp.endpoint]
    assert (entry["state"], entry["why"]) == ("ready", "no agent; its last word was dead (refused)")
    assert entry["why"] in ok(balanced.ctl("status")).stdout
    balanced.agent()
    wait_until(lambda: " alive, " in agent_line(balanced), "another agent")


def test_status_counts_connections(attached):
    with Held(attached, 30):
        wait_until(lambda: " 10 " in ok(attached.ctl("status")).stdout, "ten connections each")


def test_status_watches(attached):
    """-w goes on until it is interrupted."""
    watch = attached.spawn([attached.program("kubelbctl"), "--pin", attached.pin, "status",
                            "-w"])
    seen = 0
    while seen < 2:
        line = watch.stdout.readline()
        assert line, "status -w has ended by itself"
        seen += attached.cp(1).endpoint in line
    watch.send_signal(signal.SIGINT)
    watch.communicate(timeout=5)


def test_unknown_output_format(attached):
    fails(attached.ctl("status", "-o", "xml"), 2, "xml")


# --- verbose -----------------------------------------------------------------


def said(stage, *args):
    """The messages on standard error, with their pairs; -v changes nothing else. Programs of other
    worlds, which status names, come and go."""
    def run():
        quiet, loud = ok(stage.ctl(*args)), ok(stage.ctl("-v", *args))
        assert quiet.stderr == ""
        return loud if loud.stdout.count("\n") == quiet.stdout.count("\n") else None

    loud = wait_until(run, "-v to change nothing on standard output")
    found = []
    for line in loud.stderr.splitlines():
        match = re.fullmatch(r'level=debug msg="?([^"]*?)"? (\w+=.*)', line)
        assert match, line
        found.append((match.group(1), dict(re.findall(r'(\w+)=("[^"]*"|\S+)', match.group(2)))))
    return found


def test_verbose(operated):
    cp = operated.cp(1)
    (what, pairs), *programs = said(operated, "status")
    assert what == "maps read" and pairs["pin"] == f'"{operated.pin}"'
    assert (pairs["backends"], pairs["connect_timeout_ms"]) == ("3", "1000")
    assert (float(pairs["heartbeat_seconds_ago"]) < 0) == \
        (agent_json(operated)["heartbeatSecondsAgo"] is None)
    shown = json.loads(ok(operated.ctl("status", "-o", "json")).stdout)
    assert int(pairs["config_serial"]) == shown["configSerial"]
    assert {(p["name"], int(p["program_id"]), p["effective"]) for _what, p in programs} == \
        {(p["name"], p["programId"], "yes") for p in shown["programs"]}
    assert [what for what, _pairs in said(operated, "events")] == ["maps read"]
    (_read, _), (what, pairs) = said(operated, "drain", cp.endpoint)
    assert (what, pairs["backend"], pairs["drained"]) == ("wish written", cp.endpoint, "1")
    (_read, _), (what, pairs) = said(operated, "undrain", cp.endpoint)
    assert (what, pairs["drained"]) == ("wish written", "0")
    (_read, _), (what, pairs) = said(operated, "weight", cp.endpoint, 7)
    assert (pairs["weight_set"], pairs["weight"]) == ("1", "7")
    ok(operated.ctl("weight", cp.endpoint, "auto"))


def test_verbose_kill(attached):
    """Each connection that was ended."""
    with Held(attached, 30) as held:
        listed = said(attached, "connections")
        assert [what for what, _pairs in listed] == ["maps read", "sockets listed"]
        assert listed[1][1]["open"] == "30"
        done = ok(attached.ctl("kill", "-v", attached.cp(1).endpoint))
        ends = [line for line in done.stderr.splitlines() if 'msg="connection reset"' in line]
        assert len(ends) == 10 and "10 connections ended" in done.stdout
        for line in ends:
            assert f"backend={attached.cp(1).endpoint}" in line
            assert f'process="nbconnect[{held.process.pid}]"' in line
        held.close()


# --- drain -------------------------------------------------------------------


def test_drain_and_undrain(operated):
    cp = operated.cp(1)
    with kept_to(operated, "cp1") as connection:
        ok(operated.ctl("drain", cp.endpoint))
        assert served_set(operated) == {"cp2", "cp3"}
        assert connection.backend() == "cp1", "existing connections are left alone"
    # With no connection left, least-conn has no other reason to avoid it.
    wait_idle(operated)
    assert served_set(operated) == {"cp2", "cp3"}
    ok(operated.ctl("undrain", cp.endpoint))
    assert served_set(operated, 60) == ALL


def test_drain_is_idempotent(attached):
    for _ in range(2):
        ok(attached.ctl("drain", attached.cp(1).endpoint))
    assert served_set(attached) == {"cp2", "cp3"}
    for _ in range(2):
        ok(attached.ctl("undrain", attached.cp(1).endpoint))
    assert served_set(attached, 60) == ALL


def test_port_is_the_default_one(attached):
    """BACKEND is written as in the configuration: 6443 where none is given."""
    ok(attached.ctl("drain", attached.cp(1).v4))
    assert served_set(attached) == {"cp2", "cp3"}


def test_drain_holds(balanced):
    """Across agent restarts, reloads, kubelb-load, and without an agent."""
    ok(balanced.ctl("drain", balanced.cp(2).endpoint))
    assert served_set(balanced) == {"cp1", "cp3"}
    balanced.running.kill9()
    assert served_set(balanced) == {"cp1", "cp3"}
    agent = balanced.agent()
    wait_until(lambda: len(balanced.cp(2).requests()) and agent.alive(), "the agent")
    assert served_set(balanced) == {"cp1", "cp3"}
    agent.hup()
    ok(balanced.load())
    assert served_set(balanced) == {"cp1", "cp3"}
    assert agent.stop() == 0
    assert served_set(balanced) == {"cp1", "cp3"}


def test_drain_is_shown(operated):
    before = backend_status(operated)
    ok(operated.ctl("drain", operated.cp(1).endpoint))
    after = backend_status(operated)
    one, two = operated.cp(1).endpoint, operated.cp(2).endpoint
    assert after[one] != before[one], "status does not tell that it is drained"
    assert after[two]["state"] == before[two]["state"]


def test_all_drained_goes_on(attached):
    """Not even the operator can cut the node off by accident."""
    for b in attached.backends:
        ok(attached.ctl("drain", b.endpoint))
    assert served_set(attached, 60) == ALL


def test_drain_of_the_last_healthy_one(balanced):
    """Drained beats dead."""
    for b in balanced.backends[1:]:
        b.kill()
    wait_states(balanced, "dead", balanced.backends[1:])
    ok(balanced.ctl("drain", balanced.cp(1).endpoint))
    assert served_set(balanced) == {"cp1"}


# --- weight ------------------------------------------------------------------


def test_weight_and_auto(operated):
    cp = operated.cp(1)
    ok(operated.ctl("weight", cp.endpoint, "0"))
    assert served_set(operated) == {"cp2", "cp3"}
    assert weight_of(operated, cp) == 0
    ok(operated.ctl("weight", cp.endpoint, "auto"))
    assert served_set(operated, 60) == ALL
    assert weight_of(operated, cp) == 100


def test_weight_changes_the_share(stage):
    stage.configure(policy="random")
    ok(stage.load())
    ok(stage.ctl("weight", stage.cp(1).endpoint, "1000"))
    ok(stage.ctl("weight", stage.cp(2).endpoint, "300"))

    def draw():
        counts = Accepts(stage)
        assert nbconnect(stage, "-n", 2000, V4)["ok"] == 2000
        return counts.settled(2000)

    assert_spread(draw, {"cp1": 1000, "cp2": 300, "cp3": 100})


def test_weight_holds(balanced):
    cp = balanced.cp(3)
    ok(balanced.ctl("weight", cp.endpoint, "0"))
    balanced.running.kill9()
    ok(balanced.load())
    balanced.agent()
    wait_until(lambda: len(backend_status(balanced)) == 3, "the agent")
    assert served_set(balanced) == {"cp1", "cp2"}
    assert weight_of(balanced, cp) == 0


def test_wish_ends_with_its_backend(attached):
    """An id that goes to another backend does not take the wish along."""
    ok(attached.ctl("drain", attached.cp(1).endpoint))
    ok(attached.ctl("weight", attached.cp(2).endpoint, "0"))
    attached.configure(backends=[attached.cp(3).endpoint])
    ok(attached.load())
    attached.configure(backends=[attached.cp(1).endpoint6, attached.cp(2).endpoint6])
    ok(attached.load())
    assert served_set(attached, 40, host="::1") == {"cp1", "cp2"}


def test_two_wishes_at_once(attached):
    """Each is read, changed and written under a lock: neither is lost."""
    program, cp = attached.program("kubelbctl"), attached.cp(1)
    number = backend_ids(attached)["cp1"]
    for i in range(1, 61):
        commands = [["drain" if i % 2 else "undrain", cp.endpoint],
                    ["weight", cp.endpoint, i]]
        running = [subprocess.Popen(attached.argv([program, "--pin", attached.pin, *command]),
                                    stdout=subprocess.DEVNULL) for command in commands]
        assert [process.wait(timeout=20) for process in running] == [0, 0]
        wish = dict(dump(attached, "admin"))[number]
        assert (wish["drained"], wish["weight"]) == (i % 2, i), f"round {i}"


# --- misuse ------------------------------------------------------------------


@pytest.mark.parametrize("args", [
    ("drain", "192.0.2.7:6443"),
    ("undrain", "192.0.2.7:6443"),
    ("weight", "192.0.2.7:6443", "10"),
], ids=" ".join)
def test_unknown_backend(attached, args):
    maps = raw_maps(attached)
    done = attached.ctl(*args)
    assert done.returncode in (1, 2)
    fails(done, done.returncode, "192.0.2.7")
    assert raw_maps(attached) == maps


@pytest.mark.parametrize("args", [
    (),
    ("frobnicate",),
    ("drain",),
    ("drain", "cp1.example"),
    ("drain", "192.168.77.11:6443", "192.168.77.12:6443"),
    ("weight", "192.168.77.11:6443"),
    ("weight", "192.168.77.11:6443", "1001"),
    ("weight", "192.168.77.11:6443", "-1"),
    ("weight", "192.168.77.11:6443", "ten"),
    ("weight", "192.168.77.11:6443", "10x"),
    ("weight", "192.168.77.11:6443", ""),
], ids=lambda a: " ".join(a) or "nothing")
def test_bad_command_line(attached, args):
    maps = raw_maps(attached)
    done = attached.ctl(*args)
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert done.stderr
    assert raw_maps(attached) == maps


@pytest.mark.parametrize("args", [
    ("drain", "192.168.77.11:6443"),
    ("weight", "192.168.77.11:6443", "1"),
    ("status", "-o", "json"),
], ids=" ".join)
def test_nothing_attached(stage, args):
    fails(stage.ctl(*args), 1, "kubelb-load")
