# SPDX-License-Identifier: BSD-2-Clause
"""A server that listens on the frontend's address and dials it reaches itself, whoever else is
balanced there: on a control-plane node kube-apiserver would not start otherwise."""

import os
import signal
import statistics
import time

import pytest

from backend import PORT
from helpers import (MAPPED, V4, V6, backend_status, bpftool, counters, nbconnect, next_version,
                     objects, ok)
from observe import known, kubeconfig
from selfdial import SelfDialler
from system import has_mptcp, wait_until

COUNT = 12
LINKS = 5
HOSTS = (V4, V6, MAPPED)
# What a listener there is reached by.
REACHED_BY = {"::": {V4, V6, MAPPED}, "0.0.0.0": {V4, MAPPED}, V4: {V4, MAPPED}, V6: {V6}}


# --- what has become of connects ---------------------------------------------


def went(stage):
    """(untouched, to a backend): connects since it was attached, by the kernel's counts."""
    return (counters(stage)["skipped_own_listener"],
            sum(backend["opened"] for backend in backend_status(stage).values()))


def dialled(stage, server, host, **kwargs):
    """The same of a few more connects, none of which may fail."""
    before = went(stage)
    assert server.dial(host, COUNT, **kwargs) == {"ok": COUNT}
    return tuple(now - then for now, then in zip(went(stage), before))


def assert_itself(stage, server, *hosts, servers=None, **kwargs):
    """Untouched, and arrived. servers: who shares the port."""
    servers = servers or [server]
    for host in hosts:
        before = sum(s.arrived() for s in servers)
        assert dialled(stage, server, host, **kwargs) == (COUNT, 0), host
        wait_until(lambda b=before: sum(s.arrived() for s in servers) == b + COUNT,
                   f"{COUNT} connects to {host} at the server")


def assert_balanced(stage, server, *hosts, **kwargs):
    for host in hosts:
        assert dialled(stage, server, host, **kwargs) == (0, COUNT), host


def assert_others_balanced(stage):
    """Another unit's or container's process, and one that is in neither."""
    for cgroup in (stage.cgroup("other"), None):
        for host in HOSTS:
            before = went(stage)
            to = ["-6", V4] if host == MAPPED else [host]
            assert nbconnect(stage, "-n", COUNT, *to, cgroup=cgroup)["ok"] == COUNT
            now = went(stage)
            assert now[0] == before[0], (host, cgroup)
            assert now[1] >= before[1] + COUNT, (host, cgroup)  # an agent connects, too


def group_of(stage, where):
    return stage.cgroup("server") if where == "container" else None


# A container or unit, or what is in none, as everything is on hosts with version 1.
WHERE = pytest.mark.parametrize("where", ["container", "root"])


# --- the listener ------------------------------------------------------------


@WHERE
@pytest.mark.parametrize("listen", REACHED_BY)
def test_every_way_to_listen_and_dial(attached, listen, where):
    """What is not reached by that address does not listen there: balanced."""
    server = SelfDialler(attached, group_of(attached, where))
    server.listen(listen)
    assert_itself(attached, server, *REACHED_BY[listen])
    assert_balanced(attached, server, *set(HOSTS) - REACHED_BY[listen])
    assert_others_balanced(attached)


@WHERE
def test_listens_before_it_is_attached(stage, where):
    server = SelfDialler(stage, group_of(stage, where))
    server.listen()
    ok(stage.load())
    assert_itself(stage, server, *HOSTS)
    assert_others_balanced(stage)


def memory(stage):
    """The programs' own: what they know of who listens."""
    [bss] = [i for i in objects(stage)["map"]
             if bpftool("map", "show", "id", i)["name"] == "kubelb.bss"]
    return bpftool("map", "dump", "id", bss)[0]["formatted"]["value"][".bss"][0]["klb_memory"]


@pytest.mark.parametrize("first", ["listener", "kubelb"])
def test_who_listens_is_known(stage, first):
    """So that nobody has to look where nobody listens: that costs as much as the rest of a
    connect. In a cgroup of its own: at the root it hears of the rest of the machine as well."""
    group = stage.cgroup()
    server = SelfDialler(stage, group)
    if first == "listener":
        server.listen()
    ok(stage.load(cgroup=group))
    seen = memory(stage)
    place = PORT % len(seen["listens"])
    assert seen["listens_known"] == 1
    assert seen["listens"][place] == (first == "listener")
    if first == "kubelb":
        server.listen()
        assert memory(stage)["listens"][place] == 1


@WHERE
def test_listener_ends_and_begins(attached, where):
    """Its own clients are balanced while nothing listens; none is refused."""
    server = SelfDialler(attached, group_of(attached, where))
    for _ in range(2):
        server.listen()
        assert_itself(attached, server, *HOSTS)
        server.unlisten()
        assert_balanced(attached, server, *HOSTS)


@WHERE
def test_loaded_again_while_it_listens(attached, where):
    """After a change of the file, by an upgrade, and detached in between: a new load's programs
    have forgotten what the old ones knew."""
    server = SelfDialler(attached, group_of(attached, where))
    server.listen()
    attached.configure(policy="random")
    ok(attached.load())
    assert_itself(attached, server, *HOSTS)
    ok(attached.detach())
    ok(attached.load())
    assert_itself(attached, server, *HOSTS)
    assert_others_balanced(attached)


def test_listens_after_a_load_that_was_killed(attached, library):
    """Half of the programs are the new load's, and hear of new listeners; the other half must
    not rely on what it hears."""
    server = SelfDialler(attached, attached.cgroup("server"))
    for moment in range(1, LINKS + 1):
        killed = attached.load(env={**library, "KILLAT": f"link_update:{moment}"})
        assert killed.returncode == -signal.SIGKILL, killed
        server.listen()
        assert_itself(attached, server, *HOSTS)
        server.unlisten()
        ok(attached.load())  # which knows that nobody listens


def test_upgraded_while_it_listens(attached):
    newer = next_version(attached)
    server = SelfDialler(attached, attached.cgroup("server"))
    server.listen()
    ok(attached.exec([newer, "--pin", attached.pin, "-c", attached.config]))
    assert server.dial(V4, COUNT) == {"ok": COUNT}
    wait_until(lambda: server.arrived() == COUNT, f"{COUNT} connects at the server")
    ok(attached.load())
    assert_itself(attached, server, *HOSTS)


@pytest.mark.skipif(not has_mptcp(), reason="no MPTCP here")
@WHERE
@pytest.mark.parametrize("client", ["tcp", "mptcp"])
@pytest.mark.parametrize("first", ["listener", "kubelb"])
def test_mptcp(stage, client, first, where):
    """Go's servers listen so since 1.24; its clients may dial so."""
    server = SelfDialler(stage, group_of(stage, where))
    if first == "listener":
        server.listen(mptcp=True)
    ok(stage.load())
    if first == "kubelb":
        server.listen(mptcp=True)
    assert_itself(stage, server, *HOSTS, mptcp=client == "mptcp")
    assert_others_balanced(stage)


def test_handover(attached):
    """The old server and the new one share the port: both reach the pair of them, never a
    backend. Afterwards the old one's clients are like everybody's."""
    old = SelfDialler(attached, attached.cgroup("old"))
    new = SelfDialler(attached, attached.cgroup("new"))
    old.listen(reuseport=True)
    assert_itself(attached, old, *HOSTS)
    assert_balanced(attached, new, *HOSTS)
    new.listen(reuseport=True)
    for server in (old, new):
        assert_itself(attached, server, *HOSTS, servers=[old, new])
    assert_others_balanced(attached)
    old.unlisten()
    assert_itself(attached, new, *HOSTS)
    assert_balanced(attached, old, *HOSTS)
    old.end()
    assert_itself(attached, new, *HOSTS)


def test_handover_in_the_root(attached):
    old, new = SelfDialler(attached), SelfDialler(attached)
    old.listen(reuseport=True)
    new.listen(reuseport=True)
    for server in (old, new):
        assert_itself(attached, server, *HOSTS, servers=[old, new])
    old.end()
    assert_itself(attached, new, *HOSTS)


def test_inherited_listener(attached):
    """Made by another process, as systemd makes those of its socket units: known by the cgroup.
    Where there is none to know it by, it is somebody else's."""
    server = SelfDialler(attached, attached.cgroup("server"), activated="::")
    assert_itself(attached, server, *HOSTS)
    assert_others_balanced(attached)
    server.end()
    assert_balanced(attached, SelfDialler(attached, activated="::"), *HOSTS)


@pytest.mark.parametrize("listens", ["::", "0.0.0.0", V4])
def test_dials_the_unspecified_address(attached, listens):
    """Which means the loopback address."""
    server = SelfDialler(attached, attached.cgroup("server"))
    server.listen(listens)
    assert_itself(attached, server, "0.0.0.0", *(["::"] if listens == "::" else []))
    server.unlisten()
    assert_balanced(attached, server, "0.0.0.0", "::")


def test_another_process_of_the_container(attached):
    """A probe that is executed in there means its own server."""
    server = SelfDialler(attached, attached.cgroup("server"))
    server.listen()
    probe = SelfDialler(attached, attached.cgroup("server"))
    assert_itself(attached, probe, *HOSTS, servers=[server])


def test_pod_in_scope_all(stage):
    """A pod that listens on the frontend's address dials itself; its neighbours are balanced."""
    group, pod = stage.cgroup(), stage.pod()
    stage.attach_to = group
    inside, outside = (os.path.join(group, name) for name in ("inside", "outside"))
    os.mkdir(inside)
    os.mkdir(outside)
    stage.configure(frontends=[{"address": f"{host}:{PORT}", "scope": "all"}
                               for host in (V4, f"[{V6}]")])
    server = SelfDialler(stage, inside, ns=pod)
    server.listen()
    ok(stage.load())  # which knows nothing of a pod's listeners
    assert_itself(stage, server, *HOSTS)
    server.unlisten()
    assert_balanced(stage, server, *HOSTS)
    server.listen()
    assert_itself(stage, server, *HOSTS)
    for ns in (pod, stage.node):
        assert_balanced(stage, SelfDialler(stage, outside, ns=ns), *HOSTS)
    # Same cgroup, other namespace: another loopback.
    assert_balanced(stage, SelfDialler(stage, inside), *HOSTS)


@WHERE
def test_listener_of_another_namespace(attached, where):
    """It has another loopback, be it the same process's."""
    server = SelfDialler(attached, group_of(attached, where), ns=attached.pod())
    server.listen()
    server.enter(attached.node)
    assert_balanced(attached, server, *HOSTS)
    assert server.arrived() == 0


# --- a control-plane node ----------------------------------------------------

TOKEN = "t1"
USER = "system:node:control-plane"
RESTARTS = 20
BASELINE = 6
SLACK = 0.2  # seconds that a loaded machine's medians may differ by
# As short as lets 20 restarts pass in seconds: 15, 30 and 70 s in real life.
LEASE = 0.4
LOOPBACK_TIMEOUT = 3
SHUTDOWN_DELAY = 0.05


class ControlPlane:
    """A cluster of three, whose third apiserver is the node's own: in a container, on every
    address, with a client that dials both loopbacks."""

    def __init__(self, stage, cache):
        self.stage = stage
        self.cache = cache
        self.others = [stage.apiserver(i, tokens={TOKEN: USER}, lease=LEASE) for i in (1, 2)]
        self.own = None
        self.configure(self.others[0])

    def configure(self, seed):
        """local: ignore, or its own apiserver would stay in the agent's list while it starts."""
        self.stage.configure(
            local="ignore", backends=[seed.endpoint], policy="random", slowStart="0",
            discovery={"kubeconfig": kubeconfig(self.stage, f"token: {TOKEN}"),
                       "cache": self.cache})

    def create(self):
        """The node's own, for the first time."""
        self.own = self.stage.apiserver(
            0, cgroup=self.stage.cgroup("apiserver"), tokens={TOKEN: USER}, lease=LEASE,
            loopback=[V4, V6], loopback_timeout=LOOPBACK_TIMEOUT, shutdown_delay=SHUTDOWN_DELAY,
            listen="mptcp" if has_mptcp() else "tcp")
        self.own.wait_ready()
        assert self.own.counters()["loopback"] == {"worked": 2, "failed": 0}

    def wait_backends(self, *apis):
        want = {api.endpoint for api in apis}
        wait_until(lambda: known(self.stage) == want,
                   lambda: f"the backends {want}, there are {known(self.stage)}; in the list: "
                   f"{self.stage.etcd.listed()}", timeout=20)

    def wait_known(self):
        self.wait_backends(*self.others, self.own)

    def wait_unknown(self):
        """The agent has heard that it left."""
        self.wait_backends(*self.others)

    def end(self, number):
        """TERM and KILL alternately."""
        if number % 2:
            self.own.kill()
        else:
            self.own.terminate()
            self.own.wait_exit()

    def start(self):
        """Seconds to being ready; its own client has not met anybody else on the way."""
        start = time.monotonic()
        self.own.start()
        self.own.wait_ready()
        took = time.monotonic() - start
        assert self.own.counters()["loopback"] == {"worked": 2, "failed": 0}
        return took

    def restarts(self, count, between=lambda: None, afterwards=lambda: None):
        """The times of so many."""
        times = []
        for number in range(count):
            self.end(number)
            between()
            times.append(self.start())
            afterwards()
        return times


def milliseconds(times):
    return (f"median {1000 * statistics.median(times):.0f} ms, "
            f"{1000 * min(times):.0f} to {1000 * max(times):.0f} ms")


def assert_as_without(without, times):
    print(f"ready without KubeLB: {milliseconds(without)} of {len(without)}; "
          f"with: {milliseconds(times)} of {len(times)}")
    assert statistics.median(times) < statistics.median(without) + SLACK


@pytest.fixture(name="plane")
def plane_fixture(stage, tmp_path):
    return ControlPlane(stage, tmp_path / "backends.json")


@pytest.fixture(name="without")
def without_fixture(plane):
    """Its times to be ready where KubeLB is not."""
    plane.create()
    times = plane.restarts(BASELINE)
    assert not os.path.exists(plane.stage.pin)
    return times


def test_restarts_without_agent(plane, without):
    """Attached while it runs; nobody changes the list of backends."""
    ok(plane.stage.load())
    times = plane.restarts(RESTARTS)
    assert went(plane.stage) == (2 * RESTARTS, 0)
    assert_others_balanced(plane.stage)
    assert_as_without(without, times)


def test_restarts_with_agent(plane, without):
    """Attached while it runs. The list follows the cluster's: it starts where it is in nobody's
    list, its lease being over or given up."""
    plane.stage.agent()
    plane.wait_known()
    times = plane.restarts(RESTARTS, plane.wait_unknown, plane.wait_known)
    assert counters(plane.stage)["skipped_own_listener"] == 2 * RESTARTS
    assert_others_balanced(plane.stage)
    assert_as_without(without, times)


@pytest.mark.parametrize("agent", [False, True], ids=["alone", "agent"])
def test_first_start(plane, agent):
    """Attached before it ever ran."""
    if agent:
        plane.stage.agent()
        plane.wait_unknown()
    else:
        ok(plane.stage.load())
    plane.create()
    if agent:
        plane.wait_known()
    plane.restarts(4)
    assert counters(plane.stage)["skipped_own_listener"] == 10
    assert_others_balanced(plane.stage)


def test_hung_and_back(plane):
    """SIGSTOP, with the agent's watch at it: the others remove it, and the agent hears that.
    When it goes on it is in the list again, and its client works as before."""
    plane.create()
    plane.configure(plane.own)
    plane.stage.agent()
    plane.wait_known()
    plane.own.wait_counters(lambda c: c["watches"] == 1, "the agent's watch")
    plane.own.stop()
    plane.wait_unknown()
    plane.own.cont()
    plane.wait_known()
    assert plane.restarts(2)
