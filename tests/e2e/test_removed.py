# SPDX-License-Identifier: BSD-2-Clause
"""A backend that has left the list, be it that the cluster has dropped it, is watched for as long
as it has connections."""

import pytest

from helpers import (backend_ids, backend_status, kept_to, ok, served_set, stats, wait_states)
from observe import end_of, ended, is_open
from system import wait_until


def leave(stage, *which):
    """The named ones leave the list, and the agent has heard of it."""
    mark = len(stage.running.log())
    stage.configure(backends=[b.endpoint for b in stage.backends if b not in which],
                    slowStart="0")
    stage.running.hup()
    stage.running.wait_log("configuration reloaded", start=mark)


def shown(stage, backend):
    return backend_status(stage).get(backend.endpoint)


def test_shown_until_the_last_connection_ends(balanced):
    one = balanced.cp(1)
    with kept_to(balanced, "cp1") as connection:
        leave(balanced, one)
        balanced.running.wait_log("has left the configuration.*connections=1 watched=yes")
        assert served_set(balanced) == {"cp2", "cp3"}
        status = shown(balanced, one)
        assert (status["state"], status["active"], status["weight"]) == ("removed", 1, 0)
        assert "not in the list any more; ready (ok)" in ok(balanced.ctl("status")).stdout
        assert connection.backend() == "cp1" and is_open(connection)
    balanced.running.wait_log("the last connection to a removed backend has ended")
    assert shown(balanced, one) is None
    assert ended(balanced) == 0


@pytest.mark.parametrize("when", ["before", "after"])
def test_hung_connections_are_ended(balanced, when):
    """Whether it hangs before or after it has left."""
    one = balanced.cp(1)
    with kept_to(balanced, "cp1") as connection:
        if when == "after":
            leave(balanced, one)
        one.stop()
        if when == "before":
            wait_states(balanced, "suspect", [one])
            leave(balanced, one)
        assert end_of(connection, 15)[0] == "ECONNRESET"
    one.cont()
    balanced.running.wait_log("the last connection to a removed backend has ended")


def test_back_again(balanced):
    """The same backend, with its counts, and its share of new connections."""
    one, before = balanced.cp(1), backend_ids(balanced)["cp1"]
    with kept_to(balanced, "cp1") as connection:
        leave(balanced, one)
        wait_until(lambda: shown(balanced, one)["state"] == "removed", "it to be removed")
        opened = stats(balanced, "opened")["cp1"]
        leave(balanced)
        wait_until(lambda: shown(balanced, one)["state"] == "ready", "it to be back")
        assert backend_ids(balanced)["cp1"] == before
        assert stats(balanced, "opened")["cp1"] >= opened and connection.backend() == "cp1"
    assert "cp1" in served_set(balanced)


def test_next_agent_watches_it(balanced):
    one = balanced.cp(1)
    with kept_to(balanced, "cp1") as connection:
        leave(balanced, one)
        balanced.running.stop()
        balanced.running = balanced.agent()
        balanced.running.wait_log("has left the list has connections.*connections=1")
        one.stop()
        assert end_of(connection, 15)[0] == "ECONNRESET"
    one.cont()


def test_probes_of_another_kind(balanced):
    """What the probes are to be is changed meanwhile."""
    one = balanced.cp(1)
    with kept_to(balanced, "cp1") as connection:
        leave(balanced, one)
        mark = len(balanced.running.log())
        balanced.configure(backends=[b.endpoint for b in balanced.backends[1:]],
                           probe={"timeout": "500ms", "path": "/livez"})
        balanced.running.hup()
        balanced.running.wait_log("configuration reloaded", start=mark)
        assert shown(balanced, one)["state"] == "removed" and is_open(connection)
        one.stop()
        assert end_of(connection, 15)[0] == "ECONNRESET"
    one.cont()


def test_without_an_agent(attached):
    """kubelb-load leaves it where it is shown; nobody watches it."""
    one = attached.cp(1)
    with kept_to(attached, "cp1"):
        attached.configure(backends=[b.endpoint for b in attached.backends[1:]])
        ok(attached.load())
        status = shown(attached, one)
        assert status["state"] == "removed" and "no agent watches it" in status["why"]
        assert served_set(attached) == {"cp2", "cp3"}
    wait_until(lambda: shown(attached, one) is None, "it to be shown no more")
    ok(attached.load())
    assert shown(attached, one) is None
