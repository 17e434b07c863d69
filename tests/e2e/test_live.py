# SPDX-License-Identifier: BSD-2-Clause
"""Changes under traffic: 200 connects a second, and not one of them fails."""

import contextlib
import fcntl
import os
import signal
import subprocess

from helpers import (Accepts, Held, Traffic, agent_serves, beats, metrics, nbconnect, ok, ready,
                     served_set, state_of, stats, wait_states)
from system import wait_until


def test_configuration_changes(attached):
    one, two, three = (b.endpoint for b in attached.backends)
    changes = [
        {"policy": "random"},
        {"backends": [{"address": one, "weight": 300}, two, three]},
        {"backends": [three, two]},
        {"backends": [attached.cp(1).endpoint6, one]},
        {"backends": [one], "policy": "rendezvous"},
        {"backends": [two, three], "policy": "latency"},
        {"frontends": ["127.0.0.1:6443", "127.0.0.1:7443"]},
        {},
    ]
    with Traffic(attached):
        for _ in range(2):
            for change in changes:
                attached.configure(**change)
                ok(attached.load())
                nbconnect(attached, "-n", 20, "127.0.0.1")
    assert served_set(attached, 60) == {"cp1", "cp2", "cp3"}


def test_same_configuration_again_and_again(attached):
    with Traffic(attached):
        for _ in range(20):
            ok(attached.load())


def test_agent_killed_and_restarted(balanced):
    with Traffic(balanced):
        for _ in range(4):
            assert balanced.running.kill9() == -9
            ok(balanced.ctl("status"))
            balanced.running = balanced.agent()
            wait_started(balanced)
    assert served_set(balanced, 60) == {"cp1", "cp2", "cp3"}


def wait_started(stage):
    wait_until(lambda: agent_serves(stage), "the agent's /healthz")


def test_agent_stopped(balanced):
    """SIGTERM: exit 0, and the data path stays."""
    with Traffic(balanced):
        assert balanced.running.stop() == 0
        nbconnect(balanced, "-n", 100, "127.0.0.1")
    assert served_set(balanced, 60) == {"cp1", "cp2", "cp3"}


def test_load_beside_a_running_agent(balanced):
    """Both write the same maps; traffic notices neither."""
    with Traffic(balanced):
        for weight in (50, 200, 100):
            balanced.configure(backends=[{"address": b.endpoint, "weight": weight}
                                         for b in balanced.backends])
            ok(balanced.load())
            balanced.running.hup()
            nbconnect(balanced, "-n", 20, "127.0.0.1")
    assert balanced.running.alive()


def test_dead_backend_costs_nothing_once_known(balanced):
    balanced.cp(1).kill()
    wait_states(balanced, "dead", [balanced.cp(1)])
    counts = Accepts(balanced)
    with Traffic(balanced):
        nbconnect(balanced, "-n", 200, "127.0.0.1")
    assert counts.now()["cp1"] == 0


def test_drain_under_traffic(balanced):
    """Graceful shutdown of a control plane as a cluster does it: /readyz fails
    first, then the port closes. Nobody's connect fails."""
    cp = balanced.cp(2)
    with Traffic(balanced):
        for _ in range(2):
            cp.readyz(500)
            wait_states(balanced, "draining", [cp])
            cp.kill()
            wait_states(balanced, "dead", [cp])
            cp.readyz(200)
            cp.start()
            wait_states(balanced, "ready", [cp])
    assert state_of(balanced, cp) == "ready"


def test_operator_drain_under_traffic(attached):
    cp = attached.cp(3)
    with Traffic(attached):
        ok(attached.ctl("drain", cp.endpoint))
        wait_until(lambda: stats(attached, "active")["cp3"] == 0, "cp3 to be left")
        cp.kill()
        nbconnect(attached, "-n", 50, "127.0.0.1")
        cp.start()
        ok(attached.ctl("undrain", cp.endpoint))
        nbconnect(attached, "-n", 50, "127.0.0.1")


def test_held_connections_outlive_every_change(attached):
    """What is established is nobody's business but its two ends'."""
    with Held(attached, 30) as held:
        attached.configure(backends=[attached.cp(1).endpoint], policy="random")
        ok(attached.load())
        agent = attached.agent()
        wait_started(attached)
        agent.kill9()
        attached.configure()
        ok(attached.load())
        ok(attached.detach())
        assert held.close()["closed"] == 0


@contextlib.contextmanager
def agent_with_a_full_log(stage):
    """An agent whose standard error is a pipe that is full, and the other end of that pipe."""
    ours, theirs = os.pipe()
    fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 4096)
    os.write(theirs, b"x" * 4095 + b"\n")
    agent = stage.spawn([stage.program("kubelb-agent"), "-c", stage.config, "--pin", stage.pin],
                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    with open(ours, encoding="ascii") as log:
        wait_states(stage, "ready", stage.backends)
        yield agent, log


def dropped_lines(stage):
    [(_labels, value)] = metrics(stage)["kubelb_log_lines_dropped_total"]
    return value


def test_nobody_reads_the_log(stage):
    """A journald or a containerd that hangs stops nothing. The lines that are missing are counted,
    and told when somebody reads again."""
    with agent_with_a_full_log(stage) as (agent, log):
        wait_until(lambda: agent.send_signal(signal.SIGHUP) or dropped_lines(stage),
                   "the queue to be full", timeout=60)
        assert beats(stage) and ready(stage)
        stage.cp(1).kill()
        wait_states(stage, "dead", [stage.cp(1)])
        told = next(line for line in log if "nobody took the log's lines" in line)
        assert "level=warn" in told and "lines=" in told
        agent.send_signal(signal.SIGTERM)
        assert "ending, the data path stays attached" in log.read()
        assert agent.wait(10) == 0


def test_agent_ends_although_nobody_reads_the_log(stage):
    with agent_with_a_full_log(stage) as (agent, _log):
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(10) == 0
