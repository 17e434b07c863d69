# SPDX-License-Identifier: BSD-2-Clause
"""Programs whose clock is not the kernel's: in a time namespace CLOCK_MONOTONIC is moved, and the
kernel compares what they write with its own."""

import json
import os
import struct
import time

import pytest

from helpers import bpftool, dump, ok, served_set, state_of, wait_states
from system import wait_until
from test_privileges import ready_agent

AHEAD = 100000
# The child, and so whatever is started, is in the namespace; with older kernels only it is.
SHIFTED = {"ahead": ["unshare", "-T", "--fork", "--kill-child", "--monotonic", str(AHEAD)],
           "behind": ["unshare", "-T", "--fork", "--kill-child", "--monotonic", "-5"]}
HEARTBEAT_AT = 16  # klb_control.heartbeat_ns

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/ns/time"),
                                reason="this kernel has no time namespaces")


def control(stage):
    (_key, value), = dump(stage, "control")
    return value


def status(stage, prefix=()):
    done = ok(stage.exec([*prefix, stage.program("kubelbctl"), "--pin", stage.pin, "status", "-o",
                          "json"]))
    return json.loads(done.stdout)


def head(stage):
    """The line of `status` about the agent."""
    (line,) = (x for x in ok(stage.ctl("status")).stdout.splitlines() if x.startswith("agent "))
    return line


@pytest.mark.parametrize("shift", SHIFTED)
def test_agent_in_a_time_namespace(stage, shift):
    """Its heartbeat is of the kernel's clock: it counts while it comes, and no longer. It says so
    in the log."""
    agent = ready_agent(stage, prefix=SHIFTED[shift])
    assert "this process is in a time namespace" in agent.log()
    assert abs(control(stage)["heartbeat_ns"] - time.monotonic_ns()) < 30 * 10**9
    assert status(stage)["agent"]["alive"] and "alive" in head(stage)
    cp = stage.cp(1)
    cp.stop()
    wait_states(stage, "dead", [cp])
    assert served_set(stage) == {"cp2", "cp3"}
    agent.kill9()
    cp.cont()
    wait_until(lambda: not status(stage)["agent"]["alive"], "the last heartbeat to be too old", 60)
    assert "SILENT" in head(stage)
    wait_until(lambda: served_set(stage) == {"cp1", "cp2", "cp3"}, "its states not to count")


def test_outside_nothing_is_said(balanced):
    assert "time namespace" not in balanced.running.log()


@pytest.mark.parametrize("shift", SHIFTED)
def test_kubelbctl_in_a_time_namespace(balanced, shift):
    """Ages are those that it shows outside."""
    for prefix in ((), SHIFTED[shift]):
        shown = status(balanced, prefix)
        assert shown["agent"]["alive"]
        assert 0 <= shown["agent"]["heartbeatSecondsAgo"] < 30


@pytest.mark.parametrize("shift", SHIFTED)
def test_kubelb_load_in_a_time_namespace(stage, shift):
    """The clock of the programs, and the time of the configuration, are the kernel's."""
    ok(stage.exec([*SHIFTED[shift], stage.program("kubelb-load"), "--pin", stage.pin, "-c",
                   stage.config]))
    assert abs(control(stage)["config_applied_ns"] - time.monotonic_ns()) < 30 * 10**9
    ready_agent(stage)
    assert status(stage)["agent"]["alive"]
    ok(stage.exec([*SHIFTED[shift], stage.program("kubelb-load"), "--pin", stage.pin, "--detach"]))


def write_heartbeat(stage, ns):
    pin = ["pinned", f"{stage.pin}/control", "key", "0", "0", "0", "0"]
    value = bytearray(int(byte, 16) for byte in bpftool("map", "lookup", *pin)["value"])
    value[HEARTBEAT_AT:HEARTBEAT_AT + 8] = struct.pack("Q", ns)
    bpftool("map", "update", *pin, "value", *[str(byte) for byte in value])
    assert control(stage)["heartbeat_ns"] == ns


def test_a_heartbeat_from_the_future_does_not_count(balanced):
    """As an agent of an earlier version writes it in a time namespace: it would never become old,
    and what the agent last said would hold for ever."""
    cp = balanced.cp(1)
    cp.stop()
    wait_states(balanced, "dead", [cp])
    assert served_set(balanced) == {"cp2", "cp3"}
    balanced.running.kill9()
    cp.cont()
    write_heartbeat(balanced, time.monotonic_ns() + AHEAD * 10**9)
    assert "CLOCK WRONG" in head(balanced) and "27h ahead" in head(balanced)
    assert not status(balanced)["agent"]["alive"]
    assert state_of(balanced, cp) != "dead"
    wait_until(lambda: served_set(balanced) == {"cp1", "cp2", "cp3"}, "its states not to count")
