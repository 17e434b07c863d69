# SPDX-License-Identifier: BSD-2-Clause
"""A control-plane node: what `local` makes of the apiserver on this very node. cp0 is that one."""

import contextlib
import json
import os
import time

import pytest

from helpers import (Kept, Traffic, backend_status, by_backend, dial_error, fails, metrics, ok,
                     served_by, served_set, state_of, wait_states)
from observe import ended, is_open, known, kubeconfig, wait_known
from system import wait_until

OTHERS = {"cp1", "cp2", "cp3"}
TOKEN = "secret-t1"


def configure(stage, local, **changes):
    """The backends: this node's own, and the three others."""
    backends = [stage.local.endpoint] + [b.endpoint for b in stage.backends]
    return stage.configure(**{"local": local, "backends": backends, **changes})


@pytest.fixture(name="own")
def own_fixture(stage):
    """A control-plane node, its own apiserver up, nothing attached."""
    return stage.local_apiserver()


def start(stage, local="prefer", **changes):
    configure(stage, local, **changes)
    stage.running = stage.agent()
    wait_states(stage, "ready", stage.backends)


def reload(stage, local, **changes):
    mark = len(stage.running.log())
    configure(stage, local, **changes)
    stage.running.hup()
    stage.running.wait_log("configuration reloaded", start=mark)


def status_text(stage):
    return ok(stage.ctl("status")).stdout


def status_json(stage):
    return json.loads(ok(stage.ctl("status", "-o", "json")).stdout)


def wait_home(connections, timeout=25):
    """Until every one of them has been ended. Returns when each was seen to be."""
    times = {}

    def all_ended():
        for c in connections:
            if c not in times and not is_open(c):
                times[c] = time.monotonic()
        return len(times) == len(connections)

    wait_until(all_ended, lambda: f"{len(connections)} to end, have {len(times)}", timeout)
    return sorted(times.values())


# --- prefer ------------------------------------------------------------------


def test_starting_is_no_reason_to_leave(stage, own):
    """Whoever starts or shuts down serves: a 500 on /readyz does not send its own clients to
    another version."""
    own.readyz(500)
    start(stage)
    wait_states(stage, "draining", [own])
    assert served_set(stage) == {"cp0"}
    why = backend_status(stage)[own.endpoint]["why"]
    assert "HTTP 500" in why and "takes connects all the same (local: prefer)" in why
    own.readyz(200)
    wait_states(stage, "ready", [own])
    with Kept(stage) as connection:
        own.readyz(500)
        wait_states(stage, "draining", [own])
        assert connection.backend() == "cp0" and served_set(stage) == {"cp0"}
    assert ended(stage) == 0


def test_dead_then_home(stage, own):
    """Dead: the others serve. Ready again for a while: connections come home, one by one,
    without `rebalance`, and those of others' own stay."""
    start(stage)
    wait_states(stage, "ready", [own])
    own.kill()
    wait_states(stage, "dead", [own])
    with contextlib.ExitStack() as stack:
        away = [stack.enter_context(Kept(stage)) for _ in range(4)]
        assert {c.backend() for c in away} <= OTHERS
        own.readyz(500)
        own.start()
        wait_states(stage, "draining", [own])
        assert served_set(stage) == {"cp0"}
        # Not to one that is not ready: a time in which they would all have gone.
        time.sleep(8)
        assert all(is_open(c) for c in away)
        own.readyz(200)
        wait_states(stage, "ready", [own])
        began = time.monotonic()
        times = wait_home(away)
        assert times[0] - began > 3, "at once, and not when it has been ready for a while"
        assert times[-1] - times[0] > 1, "all of them at once"
        assert served_set(stage) == {"cp0"}
    assert ended(stage, reason="local") == 4 == ended(stage)
    stage.running.wait_log("the backend of this node is ready, connections come back.*"
                           "connections=4")
    stage.running.wait_log("connections ended.*reason=local")


def test_home_stops_when_it_is_not_ready(stage, own):
    start(stage)
    own.kill()
    wait_states(stage, "dead", [own])
    with contextlib.ExitStack() as stack:
        away = [stack.enter_context(Kept(stage)) for _ in range(20)]
        own.start()
        wait_states(stage, "ready", [own])
        wait_until(lambda: ended(stage, reason="local") > 0, "the first to come home", 15)
        own.readyz(500)
        wait_states(stage, "draining", [own])
        n = ended(stage, reason="local")
        time.sleep(3)  # three more would have come
        assert ended(stage, reason="local") == n < 20
        assert sum(is_open(c) for c in away) == 20 - n


def test_drain_goes_first(stage, own):
    """The operator's drain, and a weight of 0, send connects elsewhere, and nothing comes home
    until it is taken back."""
    start(stage)
    wait_states(stage, "ready", [own])
    for on, off in ((["drain", own.endpoint], ["undrain", own.endpoint]),
                    (["weight", own.endpoint, "0"], ["weight", own.endpoint, "auto"])):
        ok(stage.ctl(*on))
        assert served_set(stage) <= OTHERS
        with Kept(stage) as away:
            n = ended(stage, reason="local")
            time.sleep(8)  # it has been ready all the while
            assert is_open(away) and ended(stage, reason="local") == n
            ok(stage.ctl(*off))
            assert served_by(stage) == "cp0"
            wait_home([away])


def test_without_an_agent(stage, own):
    """kubelb-load alone: the local one takes all; when connects to it fail the others do."""
    configure(stage, "prefer")
    ok(stage.load())
    assert served_set(stage) == {"cp0"}
    own.kill()
    assert dial_error(stage) == "ECONNREFUSED"
    assert served_set(stage, 10) <= OTHERS
    ok(stage.ctl("drain", own.endpoint))
    own.start()
    assert served_set(stage) <= OTHERS
    ok(stage.ctl("undrain", own.endpoint))
    wait_until(lambda: served_by(stage) == "cp0", "cp0 to serve again", 20)
    assert served_set(stage) == {"cp0"}


def test_no_connect_fails_while_it_comes_and_goes(stage, own):
    start(stage)
    wait_states(stage, "ready", [own])
    with Traffic(stage, rate=50):
        own.readyz(500)
        wait_states(stage, "draining", [own])
        own.readyz(200)
        wait_states(stage, "ready", [own])
        ok(stage.ctl("drain", own.endpoint))
        ok(stage.ctl("undrain", own.endpoint))
        reload(stage, "ignore")
        reload(stage, "only")
        reload(stage, "prefer")


# --- only --------------------------------------------------------------------


def test_only_never_leaves(stage, own):
    """Dead, it is dialled and refuses, as without KubeLB; its open connections are nobody's
    business."""
    start_only(stage, own)
    assert served_set(stage) == {"cp0"}
    with Kept(stage) as connection:
        own.stop()
        wait_states(stage, "dead", [own], 15)
        time.sleep(3)  # evict would have ended it
        assert ended(stage) == 0
        own.cont()
        assert connection.backend() == "cp0"
    own.kill()
    wait_states(stage, "dead", [own])
    assert [dial_error(stage) for _ in range(5)] == ["ECONNREFUSED"] * 5
    assert "takes connects all the same (local: only)" in \
        backend_status(stage)[own.endpoint]["why"]
    own.start()
    wait_until(lambda: dial_error(stage) is None, "it to serve again")
    assert served_by(stage) == "cp0"


def start_only(stage, own):
    configure(stage, "only")
    stage.running = stage.agent()
    wait_states(stage, "ready", [own])


def test_only_without_an_agent(stage, own):
    configure(stage, "only")
    loaded = ok(stage.load())
    assert "1 backend " in loaded.stdout and loaded.stderr == ""
    assert served_set(stage) == {"cp0"}
    own.kill()
    assert [dial_error(stage) for _ in range(5)] == ["ECONNREFUSED"] * 5


def test_only_and_a_drain(stage, own):
    """A drain has nowhere to send them, and kubelbctl says so."""
    start_only(stage, own)
    drained = ok(stage.ctl("drain", own.endpoint)).stdout
    assert "local is only" in drained and "local: prefer" in drained
    assert served_set(stage, 5) == {"cp0"}


def test_only_on_a_worker(stage):
    """No backend is this node's: all of them are used, which is said once."""
    stage.configure(local="only")
    loaded = ok(stage.load())
    assert loaded.stderr.count("no backend has an address of this node") == 1
    stage.running = stage.agent()
    wait_states(stage, "ready", stage.backends)
    stage.running.wait_log("no backend has an address of this node")
    assert served_set(stage) == OTHERS
    assert "only: no backend is this node's, so all are used" in status_text(stage)
    mark = len(stage.running.log())
    stage.running.hup()
    stage.running.wait_log("configuration reloaded", start=mark)
    assert stage.running.log().count("no backend has an address of this node") == 1


@pytest.mark.parametrize("local", ["prefer", "only"])
def test_the_address_comes_later(stage, own, local):
    """At boot the agent may be there before the node's addresses; they may also go."""
    address = f"{own.v4}0"  # 192.168.77.100: cp0 listens on every address
    assert address.startswith(own.v4)
    backends = [f"{address}:6443"] + [b.endpoint for b in stage.backends]
    configure(stage, local, backends=backends, probe={"insecureSkipVerify": True})
    stage.running = stage.agent()
    wait_states(stage, "ready", stage.backends)
    wait_until(lambda: backend_status(stage)[f"{address}:6443"]["state"] == "dead", "it to be dead")
    assert served_set(stage) == OTHERS
    stage.ip_batch(stage.node, [f"addr add {address}/32 dev lo"])
    try:
        wait_until(lambda: f"{local}: {address}:6443\n" in status_text(stage), "it to be local", 15)
        wait_until(lambda: backend_status(stage)[f"{address}:6443"]["state"] == "ready",
                   "it to be ready", 15)
        assert served_set(stage) == {"cp0"}
        wait_until(lambda: len(known(stage)) == (1 if local == "only" else 4), "the right list", 15)
    finally:
        stage.ip_batch(stage.node, [f"addr del {address}/32 dev lo"])
    wait_until(lambda: "no backend is this node's" in status_text(stage), "it to have gone", 15)
    wait_states(stage, "ready", stage.backends)
    wait_until(lambda: backend_status(stage)[f"{address}:6443"]["state"] == "dead", "it to be dead")
    assert served_set(stage) == OTHERS


# --- a reload ----------------------------------------------------------------


def test_reload(stage, own):
    start(stage, "ignore", policy="random")
    wait_states(stage, "ready", [own])
    assert served_set(stage, 80) == OTHERS | {"cp0"}
    assert status_json(stage)["local"] == "ignore" and "local     ignore\n" in status_text(stage)
    assert not any(b["preferred"] for b in backend_status(stage).values())
    with contextlib.ExitStack() as stack:
        kept = [stack.enter_context(Kept(stage)) for _ in range(12)]
        away = [c for c in kept if c.backend() != "cp0"]
        reload(stage, "prefer", policy="random")
        assert served_set(stage) == {"cp0"}
        assert f"local     prefer: {own.endpoint}\n" in status_text(stage)
        assert backend_status(stage)[own.endpoint]["preferred"]
        assert by_backend(metrics(stage)["kubelb_backend_preferred"])[own.endpoint] == 1
        reload(stage, "only", policy="random")
        assert served_set(stage) == {"cp0"} and status_json(stage)["local"] == "only"
        wait_known(stage, [own])
        # What only's list has left out comes home as well.
        wait_home(away, 40)
    reload(stage, "ignore", policy="random")
    wait_states(stage, "ready", stage.backends)
    assert served_set(stage, 80) == OTHERS | {"cp0"}


def test_the_old_key(stage, own):
    start(stage, None, preferLocal=False, policy="random")
    wait_states(stage, "ready", [own])
    assert status_json(stage)["local"] == "ignore"
    reload(stage, None, preferLocal=True)
    assert status_json(stage)["local"] == "prefer" and served_set(stage) == {"cp0"}
    line = fails(stage.load(config=configure(stage, "ignore", preferLocal=True)), 2,
                 "preferLocal", "local: prefer", "local is ignore", "remove preferLocal")
    assert line.startswith(f"kubelb-load: {stage.config}:")


# --- discovery ---------------------------------------------------------------


class Cluster:
    """Test apiservers on this node and two others, and what discovery is told."""

    def __init__(self, stage):
        self.stage = stage
        self.apis = [stage.apiserver(i, tokens={TOKEN: "system:node:cp"}) for i in (0, 1, 2)]
        self.own = self.apis[0]
        self.kubeconfig = kubeconfig(stage, f"token: {TOKEN}")

    def start(self, local, seeds=(1,)):
        self.stage.configure(local=local, backends=[self.apis[i].endpoint for i in seeds],
                             discovery={"kubeconfig": self.kubeconfig, "cache": os.path.join(
                                 self.stage.dir, "cache", "local.json")})
        self.stage.running = self.stage.agent()

    def say(self, *indexes):
        self.stage.etcd.put("kubernetes", [self.apis[i].v4 for i in indexes])

    def wait(self, *indexes):
        wait_known(self.stage, [self.apis[i] for i in indexes])


@pytest.fixture(name="cluster")
def cluster_fixture(stage):
    return Cluster(stage)


def test_it_leaves_the_clusters_list(cluster):
    """An apiserver takes its lease away when it shuts down and has a new one when it is ready:
    to its own node it stays the apiserver."""
    stage, own = cluster.stage, cluster.own
    cluster.say(0, 1, 2)
    cluster.start("prefer")
    cluster.wait(0, 1, 2)
    wait_states(stage, "ready", cluster.apis)
    cluster.say(1)
    stage.running.wait_log(f"left the cluster's list and stays in use.*{own.endpoint}")
    cluster.wait(0, 1)
    assert served_set(stage) == {"cp0"}
    own.kill()
    wait_states(stage, "dead", [own])
    assert served_set(stage) == {"cp1"}
    # The next agent, and kubelb-load, know it from the maps.
    stage.running.stop()
    ok(stage.load())
    cluster.wait(0, 1)
    stage.running = stage.agent()
    own.start()
    wait_states(stage, "ready", [own])
    cluster.wait(0, 1)
    assert served_set(stage) == {"cp0"}
    cluster.say(0, 1, 2)
    cluster.wait(0, 1, 2)
    assert served_set(stage) == {"cp0"}


def test_a_seed_of_this_node_stays(cluster):
    """The cluster has never listed it: it has not been ready since the node started."""
    stage = cluster.stage
    cluster.say(1, 2)
    cluster.start("prefer", seeds=(0, 1))
    cluster.wait(0, 1, 2)
    wait_states(stage, "ready", cluster.apis)
    stage.running.wait_log("discovery has the cluster's list")
    cluster.say(2)
    cluster.wait(0, 2)
    assert served_set(stage) == {"cp0"}


def test_ignore_keeps_nothing(cluster):
    cluster.say(0, 1, 2)
    cluster.start("ignore")
    cluster.wait(0, 1, 2)
    wait_states(cluster.stage, "ready", cluster.apis)
    cluster.say(1, 2)
    cluster.wait(1, 2)


def test_only_with_discovery(cluster):
    """It alone, also when it has left the list, and discovery goes through it."""
    stage, own = cluster.stage, cluster.own
    cluster.say(0, 1, 2)
    cluster.start("only", seeds=(0,))
    cluster.wait(0)
    wait_states(stage, "ready", [own])
    wait_until(lambda: status_json(stage)["discovery"]["state"] == "current", "it to be current")
    cluster.say(1, 2)
    stage.running.wait_log("left the cluster's list and stays in use")
    cluster.wait(0)
    assert served_set(stage) == {"cp0"}
    own.kill()
    wait_states(stage, "dead", [own])
    assert [dial_error(stage) for _ in range(3)] == ["ECONNREFUSED"] * 3
    time.sleep(6)  # after five the seeds would count beside a list that leads nowhere
    assert state_of(stage, own) == "dead"
    own.start()
    wait_states(stage, "ready", [own])
    assert served_set(stage) == {"cp0"}
    assert "none of the cluster's apiservers" not in stage.running.log()
