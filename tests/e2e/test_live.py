# SPDX-License-Identifier: BSD-2-Clause
"""Changes under traffic: 200 connects a second, and not one of them fails."""

from helpers import (Accepts, Held, Traffic, agent_serves, nbconnect, ok, served_set, state_of,
                     stats, wait_states)
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
