# SPDX-License-Identifier: BSD-2-Clause
"""kubelbctl status for scripts and in other formats: --brief as a monitoring plugin, -o wide and yaml,
colours, the configuration that is in force; kubelbctl help."""

import json
import os
import re
import shutil
import signal

import pytest
import yaml

from backend import PORT
from helpers import V4, V6, Listener, fails, ok, served_by, wait_states
from system import wait_until
from test_relay_mode import Relayed

# monitoring-plugins.org, guidelines: 'label'=value[UOM];[warn];[crit];[min];[max]
NUMBER = re.compile(r"([a-z_]+)=(\d+(?:\.\d+)?)(c|s|)((?:;[\d:]*){0,4})")


def brief(stage, *args, **kwargs):
    """The exit status, the text, and the numbers by name."""
    done = stage.ctl("-c", stage.config, "status", "--brief", *args, **kwargs)
    assert done.stderr == "" and done.stdout.count("\n") == 1, done
    text, _bar, numbers = done.stdout.rstrip("\n").partition(" | ")
    found = {}
    for word in numbers.split():
        match = NUMBER.fullmatch(word)
        assert match, word
        found[match[1]] = (float(match[2]), match[4])
    return done.returncode, text, found


def judged(stage, status, pattern, timeout=10):
    wait_until(lambda: brief(stage)[0] == status and re.fullmatch(pattern, brief(stage)[1]),
               lambda: f"{status}, {pattern}: {brief(stage)}", timeout)


# --- the judgement ----------------------------------------------------------------------


def test_healthy(balanced):
    status, text, numbers = brief(balanced)
    assert (status, text) == (0, "KUBELB OK: 3 of 3 backends ready")
    assert set(numbers) == {"ready", "active", "connecting", "opened", "failed", "heartbeat_age"}
    assert numbers["ready"] == (3, ";3:;1:;0;3")
    assert numbers["heartbeat_age"][0] < 3


def test_drained(balanced):
    cp = balanced.cp(2)
    ok(balanced.ctl("drain", cp.endpoint))
    judged(balanced, 1, re.escape(f"KUBELB WARNING: 2 of 3 backends ready; {cp.endpoint} draining "
                                  "(drained by the operator)"))
    ok(balanced.ctl("undrain", cp.endpoint))
    judged(balanced, 0, "KUBELB OK: 3 of 3 backends ready")


def test_dead(balanced):
    """One, then all: degraded, then down; a backend without weight does not count."""
    balanced.cp(1).kill()
    dead = f"{balanced.cp(1).endpoint} dead (refused)"
    judged(balanced, 1, re.escape(f"KUBELB WARNING: 2 of 3 backends ready; {dead}"))
    ok(balanced.ctl("weight", balanced.cp(1).endpoint, 0))
    judged(balanced, 0, "KUBELB OK: 2 of 2 backends ready")
    ok(balanced.ctl("weight", balanced.cp(1).endpoint, "auto"))
    for cp in balanced.backends[1:]:
        cp.kill()
    judged(balanced, 2, r"KUBELB CRITICAL: 0 of 3 backends ready(; \S+ dead \(refused\)){3}", 20)
    assert brief(balanced)[2]["ready"] == (0, ";3:;1:;0;3")


def test_no_weight(attached):
    for cp in attached.backends:
        ok(attached.ctl("weight", cp.endpoint, 0))
    judged(attached, 2, "KUBELB CRITICAL: 0 of 0 backends ready; no backend has a weight; "
           "no agent: nobody checks the backends")


def test_without_an_agent(attached):
    judged(attached, 1, "KUBELB WARNING: 3 of 3 backends ready; no agent: nobody checks the backends")


def test_a_silent_agent(balanced):
    os.kill(balanced.running.process.pid, signal.SIGSTOP)
    judged(balanced, 1, r"KUBELB WARNING: 3 of 3 backends ready; the agent is silent for \d+ s")
    os.kill(balanced.running.process.pid, signal.SIGCONT)
    judged(balanced, 0, "KUBELB OK: 3 of 3 backends ready")


def test_nothing_attached(stage):
    """(Programs of others, whose pins are elsewhere, would be told of behind that.)"""
    status, text, numbers = brief(stage)
    assert (status, numbers) == (2, {})
    assert text.startswith(f"KUBELB CRITICAL: {stage.pin}: nothing is attached; run kubelb-load")


def test_a_damaged_attachment(attached):
    os.unlink(f"{attached.pin}/links/connect4")
    status, text, _numbers = brief(attached)
    assert status == 2, text
    assert "connects are not balanced: see kubelbctl status" in text
    ok(attached.load())


def test_relayed(stage):
    """The same from the agent's document."""
    relayed = Relayed(stage).ready()
    judged(stage, 0, "KUBELB OK: 3 of 3 backends ready, relayed by the agent")
    stage.cp(3).kill()
    judged(stage, 1, re.escape("KUBELB WARNING: 2 of 3 backends ready, relayed by the agent; "
                               f"{stage.cp(3).endpoint} dead (refused)"))
    relayed.agent.kill9()
    status, text, _numbers = brief(stage)
    assert status == 2 and "nothing is attached" in text


def test_relayed_but_for_a_frontend(stage):
    """Somebody else has the port: the others are relayed, and nothing is said of programs."""
    with Listener(stage, V4, PORT):
        Relayed(stage)
        judged(stage, 2, rf"(?!.*not balanced)KUBELB CRITICAL: .*frontend {V4}:{PORT} is not served: .*")
        assert served_by(stage, host=V6) in {"cp1", "cp2", "cp3"}


def test_what_is_no_judgement(attached):
    """Whatever goes wrong is 3: neither 1 nor 2 may come from anything but the node's state."""
    for args in (("--bogus",), ("-w",), ("-o", "json"), ("-o", "xml"), ("superfluous",)):
        done = attached.ctl("status", "--brief", *args)
        assert done.returncode == 3 and done.stdout == "" and done.stderr, args
    assert attached.ctl("--brief", "drain", attached.cp(1).endpoint).returncode == 3
    with open("/dev/full", "w", encoding="ascii") as full:
        assert attached.ctl("status", "--brief", stdout=full).returncode == 3
    ok(attached.ctl("status", "--brief", "--help"))
    program = os.path.join(attached.dir, "bin", "kubelbctl")
    shutil.copyfile(attached.program("kubelbctl"), program)
    os.chmod(program, 0o755)
    done = attached.exec(["setpriv", "--reuid", "65534", "--clear-groups", program, "--pin",
                          attached.pin, "status", "--brief"])
    assert done.returncode == 3 and done.stdout.startswith("KUBELB UNKNOWN: "), done


# --- which configuration, which version ----------------------------------------------------


def line(stage, word):
    found = [x for x in ok(stage.ctl("-c", stage.config, "status")).stdout.splitlines()
             if x.startswith(word.ljust(10))]
    assert len(found) == 1, found
    return found[0][10:]


def document(stage, *args):
    return json.loads(ok(stage.ctl("-c", stage.config, "status", "-o", "json", *args)).stdout)


def test_the_configuration_in_force(balanced):
    """Its name and its time; a refused one with its error, by the agent's word, until it is taken."""
    shown = document(balanced)
    assert shown["configuration"]["file"] == balanced.config
    assert shown["configuration"]["error"] is None and not shown["configuration"]["newer"]
    assert shown["configuration"]["appliedSecondsAgo"] >= 0
    written = shown["configuration"]["writtenAt"]
    assert re.fullmatch(rf"{re.escape(balanced.config)} of {written}, applied \d+m?s ago",
                        line(balanced, "config"))
    balanced.configure(policy="roulette")
    wait_until(lambda: "REFUSED" in line(balanced, "config"), "the refusal")
    assert re.fullmatch(rf"REFUSED, the one before stays: {re.escape(balanced.config)}:\d+: policy: "
                        ".*", line(balanced, "config"))
    assert "policy" in document(balanced)["configuration"]["error"]
    assert "configuration refused: " in brief(balanced)[1] and brief(balanced)[0] == 1
    balanced.configure()
    wait_until(lambda: document(balanced)["configuration"]["error"] is None, "the end of that")
    judged(balanced, 0, "KUBELB OK: 3 of 3 backends ready")


def test_a_refusal_that_only_the_agent_knows(balanced):
    """The file itself is in order; the key that it names is not there."""
    missing = os.path.join(balanced.dir, "no-such-ca.crt")
    balanced.configure(probe={"ca": missing})
    wait_until(lambda: "REFUSED" in line(balanced, "config"), "the refusal")
    assert "the agent's log says why" in line(balanced, "config")
    balanced.configure()
    wait_until(lambda: "REFUSED" not in line(balanced, "config"), "the end of that")


def test_a_changed_file_without_an_agent(attached):
    """Nobody takes it up: it says so, until kubelb-load has run."""
    assert "CHANGED" not in line(attached, "config")
    attached.configure(policy="random")
    assert line(attached, "config").startswith("CHANGED since it was applied, run kubelb-load: "
                                               + attached.config)
    assert document(attached)["configuration"]["newer"] is True
    assert "configuration changed since it was applied" in brief(attached)[1]
    ok(attached.load())
    assert "CHANGED" not in line(attached, "config")


def test_no_file(attached):
    """Attached by options, or from another file: that is no fault."""
    missing = os.path.join(attached.dir, "no-such-file.yaml")
    text = ok(attached.ctl("-c", missing, "status")).stdout
    assert re.search(rf"(?m)^config    {re.escape(missing)} is not there, applied \d+m?s ago$", text)
    done = attached.ctl("-c", missing, "status", "--brief")
    assert done.returncode == 1 and "configuration" not in done.stdout


def test_versions(balanced):
    version = ok(balanced.ctl("--version")).stdout.split()[1]
    shown = document(balanced)["versions"]
    assert shown == {"kubelbctl": version, "agent": version, "programs": version}
    assert line(balanced, "version") == version
    balanced.running.kill9()
    wait_until(lambda: document(balanced)["versions"]["agent"] is None, "its silence")


# --- formats ---------------------------------------------------------------------------------


def test_yaml(balanced):
    """The document of -o json, whatever a reader of YAML makes of words like on and off."""
    shown = yaml.safe_load(ok(balanced.ctl("status", "-o", "yaml")).stdout)
    other = json.loads(ok(balanced.ctl("status", "-o", "json")).stdout)
    assert list(shown) == list(other)
    # Programs of other worlds come and go, times go on.
    for key in ("pin", "abiVersion", "features", "frontends", "programs", "relay", "skipped",
                "discovery", "local", "dataPath", "dataPathReason", "listeners", "versions"):
        assert shown[key] == other[key]
    for x, y in zip(shown["backends"], other["backends"], strict=True):
        assert x.keys() == y.keys()
        for key in ("address", "state", "why", "weight", "weightOverride", "drained", "failed"):
            assert x[key] == y[key]


def test_wide(balanced):
    narrow, wide = (next(x.split() for x in ok(balanced.ctl("status", "-o", f)).stdout.splitlines()
                         if x.startswith("BACKEND")) for f in ("text", "wide"))
    added = ["CONNECT", "LOST", "EJECTIONS", "SUCCESS", "FAILURE", "ID"]
    assert [x for x in wide if x in narrow] == narrow and set(added) <= set(wide)
    fails(balanced.ctl("connections", "-o", "wide"), 2, "connections does not take -o wide")
    fails(balanced.ctl("events", "-o", "yaml"), 2, "events does not take -o yaml")


def test_formats_where_the_agent_relays(stage):
    Relayed(stage).ready()
    assert " EJECTIONS " in ok(stage.ctl("status", "-o", "wide")).stdout
    shown = yaml.safe_load(ok(stage.ctl("status", "-o", "yaml")).stdout)
    assert shown["dataPath"] == "relay" and len(shown["backends"]) == 3
    assert "\x1b[32mready" in ok(stage.ctl("status", "--color", "always")).stdout


def test_colors(balanced):
    """Only when asked for, here: standard output is no terminal. The text is the same."""
    ok(balanced.ctl("drain", balanced.cp(1).endpoint))
    balanced.cp(2).kill()
    wait_states(balanced, "dead", [balanced.cp(2)])
    text = ok(balanced.ctl("status", "--color", "always")).stdout
    assert "\x1b" not in ok(balanced.ctl("status")).stdout
    assert "\x1b" not in ok(balanced.ctl("status", env={**os.environ, "TERM": "xterm"})).stdout
    for color, word in ((32, "ready"), (33, "draining"), (31, "dead"), (32, "alive")):
        assert f"\x1b[{color}m{word}\x1b[0m" in text, text
    assert len(re.findall("\x1b\\[3", text)) == 4
    assert re.sub("\x1b\\[[0-9]*m", "", text).splitlines()[0].startswith("programs")


# --- help ---------------------------------------------------------------------------------------

COMMANDS = ("status", "top", "connections", "events", "doctor", "ping", "drain", "undrain",
            "weight", "kill", "help")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(stage, command):
    shown = ok(stage.ctl("help", command))
    assert shown.stderr == "" and shown.stdout.startswith(f"Usage: kubelbctl {command} ")
    assert ok(stage.ctl(command, "--help")).stdout == shown.stdout
    assert ok(stage.ctl("-h", command)).stdout == shown.stdout
    assert ("--follow" in shown.stdout) == (command == "events")
    assert ("--brief" in shown.stdout) == (command == "status")


def test_help(stage):
    shown = ok(stage.ctl("help")).stdout
    assert shown == ok(stage.ctl("--help")).stdout
    assert re.findall(r"(?m)^  ([a-z]+) ", shown) == list(COMMANDS)
    assert max(map(len, shown.splitlines())) <= 80
    fails(stage.ctl("help", "drian"), 2, "unknown command 'drian'; did you mean drain?")
    fails(stage.ctl("help", "status", "top"), 2, "help takes one COMMAND")


@pytest.mark.parametrize("word, meant", [("statsu", "status"), ("TOP", "top"), ("undrian", "undrain"),
                                         ("conections", "connections"), ("wieght", "weight"),
                                         ("frobnicate", None), ("x", None)])
def test_unknown_command(stage, word, meant):
    text = fails(stage.ctl(word), 2, f"unknown command '{word}'")
    assert (f"did you mean {meant}?" in text) if meant else ("did you mean" not in text)
