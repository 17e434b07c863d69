# SPDX-License-Identifier: BSD-2-Clause
"""Who gets how many: spread over the backends, by the servers' own count."""

import os

import pytest

from helpers import (V4, Accepts, Held, assert_spread, nbconnect, ok, served_by,
                     served_set, stats, summary, wait_idle)
from world import World

EQUAL = {"cp1": 100, "cp2": 100, "cp3": 100}
WEIGHTED = {"cp1": 100, "cp2": 200, "cp3": 300}


def load_with(stage, policy, weights):
    stage.configure(policy=policy, backends=[
        {"address": b.endpoint, "weight": weights[b.name]} for b in stage.backends])
    ok(stage.load())


@pytest.mark.parametrize("weights", [EQUAL, WEIGHTED], ids=["equal", "weighted"])
@pytest.mark.parametrize("policy", ["random", "least-conn"])
def test_spread_of_short_connects(stage, policy, weights):
    """3,000 connects, one after the other, fall as the weights say."""
    load_with(stage, policy, weights)

    def draw():
        counts, opened = Accepts(stage), stats(stage, "opened")
        result = nbconnect(stage, "-n", 3000, V4)
        assert (result["ok"], result["failed"]) == (3000, 0), result
        drawn = counts.settled(3000)
        now = stats(stage, "opened")
        assert {name: now[name] - opened[name] for name in now} == drawn
        return drawn

    assert_spread(draw, weights)
    wait_idle(stage)


@pytest.mark.parametrize("weights, count, want", [
    (EQUAL, 300, {"cp1": 100, "cp2": 100, "cp3": 100}),
    (WEIGHTED, 600, {"cp1": 100, "cp2": 200, "cp3": 300}),
], ids=["equal", "weighted"])
def test_held_connections_are_even(stage, weights, count, want):
    """least-conn over connections that stay: exact to within one."""
    load_with(stage, "least-conn", weights)
    counts = Accepts(stage)
    with Held(stage, count) as held:
        drawn = counts.settled(count)
        assert stats(stage, "active") == drawn
        assert all(abs(drawn[name] - n) <= 1 for name, n in want.items()), drawn
        assert held.close()["closed"] == 0
    wait_idle(stage)


def test_least_conn_fills_the_gap(stage):
    """New connections go where the fewest are, until all have as many."""
    load_with(stage, "least-conn", {**EQUAL, "cp1": 0})
    counts = Accepts(stage)
    with Held(stage, 20):
        assert counts.settled(20) == {"cp1": 0, "cp2": 10, "cp3": 10}
        load_with(stage, "least-conn", EQUAL)
        with Held(stage, 10):
            assert counts.settled(30) == {"cp1": 10, "cp2": 10, "cp3": 10}
    wait_idle(stage)


def test_twenty_clients_at_once(stage):
    """Choices made on several CPUs are as random as those of one."""
    load_with(stage, "random", EQUAL)

    def draw():
        counts = Accepts(stage)
        clients = [stage.spawn([stage.client, "-n", 150, V4]) for _ in range(20)]
        for client in clients:
            result = summary(client.communicate(timeout=60)[0])
            assert (result["ok"], result["failed"]) == (150, 0), result
        return counts.settled(3000)

    assert_spread(draw, EQUAL)
    wait_idle(stage)


def test_twenty_clients_hold_at_once(stage):
    """least-conn under concurrency. Two CPUs may choose on the same counts, but
    the next choice makes up for it: off by at most one for each other CPU."""
    load_with(stage, "least-conn", EQUAL)
    counts = Accepts(stage)
    clients = [stage.spawn([stage.client, "--hold", 30, V4]) for _ in range(20)]
    drawn = counts.settled(600)
    assert stats(stage, "active") == drawn
    assert all(abs(n - 200) <= os.cpu_count() for n in drawn.values()), drawn
    for client in clients:
        assert summary(client.communicate("", timeout=60)[0])["failed"] == 0
    wait_idle(stage)


def test_twenty_clients_of_short_connects(stage):
    """least-conn, connects that close at once: none fails, none is left counted.
    No spread is asked for: between clients that sleep on a connection, the
    least one is the same for many choices in a row."""
    load_with(stage, "least-conn", EQUAL)
    counts = Accepts(stage)
    clients = [stage.spawn([stage.client, "-n", 150, V4]) for _ in range(20)]
    for client in clients:
        result = summary(client.communicate(timeout=60)[0])
        assert (result["ok"], result["failed"]) == (150, 0), result
    assert all(counts.settled(3000).values())
    wait_idle(stage)


@pytest.mark.parametrize("policy", ["random", "least-conn", "rendezvous", "latency"])
def test_weight_zero_takes_none(stage, policy):
    load_with(stage, policy, {"cp1": 0, "cp2": 100, "cp3": 100})
    counts = Accepts(stage)
    assert nbconnect(stage, "-n", 200, V4)["ok"] == 200
    assert counts.settled(200)["cp1"] == 0


def test_rendezvous_stays_with_its_choice(stage):
    """One node, one backend; a change of the others moves nothing."""
    load_with(stage, "rendezvous", EQUAL)
    [chosen] = served_set(stage, 20)
    others = [b for b in stage.backends if b.name != chosen]
    for gone in others:
        stage.configure(policy="rendezvous", backends=[
            b.endpoint for b in reversed(stage.backends) if b is not gone])
        ok(stage.load())
        assert served_set(stage, 20) == {chosen}
    stage.configure(policy="rendezvous", backends=[b.endpoint for b in others])
    ok(stage.load())
    [second] = served_set(stage, 20)
    assert second != chosen
    load_with(stage, "rendezvous", EQUAL)
    assert served_set(stage, 20) == {chosen}


def test_latency_serves(stage):
    load_with(stage, "latency", EQUAL)
    counts = Accepts(stage)
    assert nbconnect(stage, "-n", 300, V4)["failed"] == 0
    counts.settled(300)


def test_one_backend(stage):
    stage.configure(backends=[stage.cp(2).endpoint])
    ok(stage.load())
    assert served_set(stage) == {"cp2"}


def test_sixty_four_backends(stage):
    """The most that a frontend can have; every one of them is reached."""
    with World(backends=64) as big:
        big.client = stage.client
        ok(big.load())
        counts = Accepts(big)
        with Held(big, 640):
            assert set(counts.settled(640).values()) == {10}
        served_by(big)
        ok(big.detach())
