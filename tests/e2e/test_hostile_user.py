# SPDX-License-Identifier: BSD-2-Clause
"""A local user who is not root, and a pod that is root in its own network namespace: what
they can do to other people's connects. docs/security.md says the same in words."""

import contextlib
import errno
import json
import os
import signal
import socket
import sys

import pytest

from backend import PORT
from helpers import (V4, Held, Listener, Traffic, dial, dial_error, dump, http_call, make_socket,
                     ok, served_by, served_set, state_of, stats, wait_idle,
                     wait_states)
from observe import fastopen_cookies
from system import run_checked, wait_until
from test_metrics import by_backend, metrics
from test_privileges import AS_NOBODY
from world import ROOT

HOSTILE = os.path.join(ROOT, "tests", "clients", "hostile.py")
ALL = {"cp1", "cp2", "cp3"}
# Every way to make a connect fail that needs no privilege.
EVERYWHERE = ["md5", "minttl", "deaf"]
FAILING = ["filter", *EVERYWHERE]


class Hostile:
    """hostile.py as nobody, on the node or in ns, for so many seconds."""

    def __init__(self, stage, kind, seconds, *args, ns=None):
        with open(HOSTILE, encoding="utf-8") as f:
            program = f.read()  # the file may be where nobody may read
        command = [*AS_NOBODY, sys.executable, "-c", program, kind, seconds, *args]
        if kind == "md5":
            command += ["--peers", *(b.v4 for b in stage.backends)]
        self.process = stage.spawn(command, ns=ns)
        self.results = None

    def wait(self):
        output, _ = self.process.communicate(timeout=60)
        if self.process.returncode == 77:
            pytest.skip("this kernel lets root alone attach socket filters")
        assert self.process.returncode == 0
        self.results = json.loads(output)
        return self.results

    def __enter__(self):
        return self

    def __exit__(self, kind, *exc):
        if self.results is None and not kind:
            self.wait()


def failed(results):
    return sum(n for name, n in results.items() if name not in ("ok", "let be"))


def ejections(stage):
    return sum(stats(stage, "ejections").values())


# --- a local user ------------------------------------------------------------


@pytest.mark.parametrize("kind", FAILING)
def test_user_takes_no_backend_from_others(balanced, kind):
    """His failures are heard once in ten seconds, for a second at most; the agent sees
    for itself; and nobody's connect fails."""
    with Hostile(balanced, kind, 5) as hostile, Traffic(balanced, rate=50):
        results = hostile.wait()
    assert failed(results) >= 3, results
    assert all(n <= 1 for n in stats(balanced, "ejections").values())
    assert {state_of(balanced, b) for b in balanced.backends} == {"ready"}
    wait_until(lambda: served_set(balanced, 12) == ALL, "every backend to serve")


@pytest.mark.parametrize("kind", FAILING)
def test_user_without_an_agent(attached, kind):
    """Nobody else is there to ask, so he is believed; others are preferred then, and who
    has no others gets through all the same."""
    with Hostile(attached, kind, 4) as hostile:
        wait_until(lambda: ejections(attached) > 0 or hostile.process.poll() is not None,
                   "a backend to be ejected", 5)
        with Traffic(attached, rate=50):
            assert failed(hostile.wait()) >= 1
    assert served_set(attached, 12) <= ALL


def stalled_agent(stage):
    """An agent that counts as alive for a while, and says nothing new."""
    stage.configure(probe={"interval": "5s"}, policy="random")
    agent = stage.agent()
    wait_states(stage, "ready", stage.backends)
    agent.signal(signal.SIGSTOP)
    return agent


def test_whose_failures_count(stage):
    """With an agent: root's at once and doubling, another user's for one second."""
    stalled_agent(stage)
    as_nobody = {"argv": [*AS_NOBODY, stage.client, V4], "cgroup": stage.cgroup("nobody")}
    ok(stage.exec(**as_nobody))
    assert not dial_error(stage)  # both work otherwise
    stage.cp(1).kill()
    wait_until(lambda: stage.exec(**as_nobody).returncode, "nobody to fail")
    assert (ejections(stage), stats(stage, "streak")["cp1"]) == (1, 0)
    wait_until(lambda: dial_error(stage) == "ECONNREFUSED", "root to fail")
    assert (ejections(stage), stats(stage, "streak")["cp1"]) == (2, 1)


def test_same_port_twice_blames_nobody(attached):
    """EADDRNOTAVAIL: a second connection from one port to one backend. Root or not."""
    with Hostile(attached, "same-port", 2) as hostile:
        assert hostile.wait().get("EADDRNOTAVAIL", 0) > 100
    assert ejections(attached) == 0
    with contextlib.ExitStack() as stack:
        refused = 0
        for _ in range(12):
            sock = stack.enter_context(make_socket(attached, socket.AF_INET))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("0.0.0.0", 30001))
            refused += sock.connect_ex((V4, PORT)) == errno.EADDRNOTAVAIL
        assert refused
    served_set(attached, 100)  # others find what those have left in `pending`
    assert ejections(attached) == 0


@pytest.mark.parametrize("kind", ["same-port", "unsent", "fickle"])
def test_user_fills_what_lies_between_connect_and_syn(attached, kind):
    """`pending` has 64 places. Taken or not: every connect is balanced and counted."""
    with contextlib.ExitStack() as stack:
        if kind == "unsent":
            stack.enter_context(fastopen_cookies(attached))
        crowd = [stack.enter_context(Hostile(attached, kind, 4, "--at-once", "200"))
                 for _ in range(2)]
        with Traffic(attached, rate=200):
            results = [hostile.wait() for hostile in crowd]
    if kind == "unsent":
        assert all(set(r) == {"deferred"} and r["deferred"] > 200 for r in results), results
    assert ejections(attached) == 0
    wait_idle(attached)
    wait_until(lambda: not any(stats(attached, "connecting").values()), "none to be connecting")
    with Held(attached, 30):
        assert sum(stats(attached, "active").values()) == 30


def test_user_does_not_take_every_trial(stage):
    """After an ejection one connect tries, and the others wait for what it finds. His
    would find nothing, over and over: he does not try for others."""
    agent, cp = stalled_agent(stage), stage.cp(1)
    assert not dial_error(stage)  # so that its failures count
    cp.kill()
    wait_until(lambda: dial_error(stage) == "ECONNREFUSED", "root to fail")
    with Hostile(stage, "minttl", 8, "--at-once", "300", "--pause", "0.005"):
        cp.start()
        agent.signal(signal.SIGCONT)
        wait_states(stage, "ready", [cp])
        # Now and then, as kubelets do: not often enough to be the first by chance.
        wait_until(lambda: served_by(stage) == "cp1", "cp1 to serve others", 6, interval=0.3)


def test_user_cannot_mark_or_change_anything(attached):
    """What would make a socket somebody else's business takes a capability."""
    script = ("import socket,sys\ns=socket.socket()\n"
              "try: s.setsockopt(socket.SOL_SOCKET, 36, 1)\n"
              "except PermissionError: sys.exit(0)\nsys.exit(1)")
    ok(attached.exec([*AS_NOBODY, sys.executable, "-c", script]))


def probes(stage):
    return sum(by_backend(metrics(stage)["kubelb_probes_total"]).values())


def test_failing_connects_cause_no_storm_of_probes(stage):
    """Each failure rings the agent, which looks at once: five times, then once a second."""
    stage.configure(probe={"interval": "60s"})
    stage.agent()
    wait_states(stage, "ready", stage.backends)
    wait_until(lambda: http_call(stage, "GET", "/readyz")[0] == 200, "the agent to be ready")
    before = probes(stage)
    with Hostile(stage, "deaf", 6, "--at-once", "200") as hostile:
        assert failed(hostile.wait()) > 200
    assert 3 <= probes(stage) - before <= 3 * (5 + 6 + 3)


# --- a pod ---------------------------------------------------------------------


def pods_too(stage, **changes):
    stage.configure(frontends=[{"address": f"{V4}:{PORT}", "scope": "all"}], **changes)


def test_pod_ejects_nobody(apart):
    """Whatever fails in its own network namespace."""
    pods_too(apart)
    ok(apart.load())
    pod = apart.pod()

    def fail_in_the_pod():
        with contextlib.ExitStack() as stack:
            crowd = [stack.enter_context(Hostile(apart, kind, 3, ns=pod)) for kind in EVERYWHERE]
            assert all(failed(h.wait()) for h in crowd)

    fail_in_the_pod()
    assert ejections(apart) == 0 and not any(stats(apart, "suspected").values())
    # Beside it the host's own SYNs may wait for a busy machine, which makes suspect, and
    # rightly so.
    with Traffic(apart, rate=50):
        fail_in_the_pod()
    assert ejections(apart) == 0
    wait_idle(apart)
    assert served_set(apart, 30) == ALL, dump(apart, "stats")[:4]


def test_pod_restores_nobody(apart):
    """It can answer itself in the place of a backend that is dead: no reason to send others
    there again."""
    pods_too(apart, backends=[apart.cp(1).endpoint, apart.cp(2).endpoint])
    ok(apart.load())
    cp = apart.cp(1)
    pod = apart.pod()
    # For itself alone: it does not answer for it on the network.
    apart.sysctl(pod, "net.ipv4.conf.all.arp_ignore", "1")
    run_checked(["ip", "-n", pod, "addr", "add", f"{cp.v4}/32", "dev", "lo"])
    with Listener(apart, cp.v4, PORT, ns=pod):
        cp.kill()
        wait_until(lambda: dial_error(apart) == "ECONNREFUSED", "a connect to fail")
        assert stats(apart, "ejections")["cp1"] == 1
        wait_until(lambda: reaches_itself(apart, pod, cp), "the pod to reach itself", 20)
        assert stats(apart, "evidence")["cp1"] != "KLB_EVIDENCE_NONE"
        assert stats(apart, "last_success_ns")["cp1"] == 0


def reaches_itself(stage, pod, cp):
    """Whether one more of the pod's connects has gone to its own listener."""
    before = stats(stage, "opened")[cp.name]
    dial(stage, ns=pod).close()
    return stats(stage, "opened")[cp.name] > before
