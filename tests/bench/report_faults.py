# SPDX-License-Identifier: BSD-2-Clause
"""What a fault of one of three apiservers costs the clients of each balancer. All balancers are there
at once, each with clients of its own, and feel the same fault at the same time.

new connections    a TLS handshake each, at a steady rate: how many fail (10 s are given), the longest
requests           on kept connections that are made anew after an error
idle connections   three to each apiserver, on which nobody sends: how long those stay that go to the
                   one that is gone
"""

import collections
import contextlib
import json
import os
import signal
import ssl
import subprocess
import threading
import time

import peers
from agentbench import USUAL
from deaths import HANDSHAKE_SECONDS, KEPT, wait_forgiven
from faults import ends_of
from helpers import Kept, ok, wait_states
from observe import is_open
from system import WorldError
from world import ROOT, World

LEAD = 2.0
RATE = 20  # new connections a second of each balancer
DRAIN = 5  # seconds between the first /readyz with 500 and the end, as of a graceful shutdown
AWAY = 2  # seconds that one is away that restarts
Fault = collections.namedtuple("Fault", "begin end window")


def nothing(_cp):
    pass


def begin_drain(cp):
    """As kube-apiserver shuts down: not ready first, then no new connections, then gone."""
    cp.readyz(500)
    time.sleep(DRAIN)
    os.kill(cp.pgid(), signal.SIGQUIT)


def begin_restart(cp):
    cp.kill()
    time.sleep(AWAY)
    cp.start()


def end_dead(cp):
    cp.kill()
    cp.readyz(200)
    cp.start()


# window: which of the effort's seconds are observed after it.
FAULTS = {
    "killed": Fault(lambda cp: os.killpg(cp.pgid(), signal.SIGKILL), end_dead, "short"),
    "hung": Fault(lambda cp: cp.stop(), lambda cp: cp.cont(), "long"),
    "black-holed": Fault(lambda cp: cp.link(up=False), lambda cp: cp.link(up=True), "long"),
    "drained": Fault(begin_drain, end_dead, "short"),
    "restarted": Fault(begin_restart, nothing, "short"),
}


# --- clients ------------------------------------------------------------------


class Clients:
    """Of one balancer."""

    def __init__(self, world, target):
        self.world, self.target = world, target
        self.stack = contextlib.ExitStack()
        self.kept = collections.defaultdict(list)
        self.requests = self.dials = self.thread = None
        self.ends, self.answers = [], []

    def make_idle(self):
        """As many to each apiserver: name -> those. By least-conn new ones would avoid another."""
        for _ in range(100 * len(self.world.backends)):
            if all(len(self.kept[b.name]) == KEPT for b in self.world.backends):
                return
            connection = Kept(self.world, self.target.address, self.target.port, ns=self.target.ns,
                              context=context_of(self.world))
            name = connection.backend()
            if len(self.kept[name]) < KEPT:
                self.kept[name].append(self.stack.enter_context(connection))
            else:
                connection.close()
        raise WorldError(f"{self.target.name}: no {KEPT} connections to each apiserver")

    def spawn(self, argv):
        process = self.world.spawn(argv, ns=self.target.ns, stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if process.stdout.readline() != "begun\n":
            raise WorldError(f"{argv[0]} to {self.target.name}: {process.stderr.read()[-500:]}")
        return process

    def begin(self, seconds):
        to = (self.target.address, self.target.port)
        self.requests = self.spawn(["/usr/bin/python3", os.path.join(
            ROOT, "tests/clients/keptload.py"), "--ca", self.world.ca, *to])
        self.dials = self.spawn([self.world.program("test/bench_client"), "dial", "--tls",
                                 "--rate", RATE, "--seconds", seconds, "--give-up",
                                 HANDSHAKE_SECONDS, *to])

    def watch(self, cp, seconds):
        def watch():
            self.ends = ends_of(self.kept[cp.name], seconds)

        self.thread = threading.Thread(target=watch, daemon=True)
        self.thread.start()

    def stop_requests(self):
        self.answers = json.loads(finish(self.requests, 0))

    def outcome(self, cp, start, seconds):
        """What this balancer's clients have felt since the fault."""
        self.thread.join(timeout=seconds + 30)
        dials, requests = json.loads(finish(self.dials, seconds)), self.answers
        before = [r for r in requests if r[0] + r[1] < start]
        if not before or any(r[2] for r in before):
            raise WorldError(f"{self.target.name} serves wrong before any fault: "
                             f"{[r for r in before if r[2]][:3]}")
        dials, requests = ([o for o in all_ if o[0] + o[1] >= start] for all_ in (dials, requests))
        return {**self.felt(dials, requests), **self.idle(cp, start, seconds)}

    @staticmethod
    def felt(dials, requests):
        return {
            "new connections": len(dials),
            "failed connects": sum(o[2] is not None for o in dials),
            "errors of connects": dict(collections.Counter(o[2] for o in dials if o[2])),
            "longest connect": max(o[1] for o in dials),
            "requests": len(requests),
            "failed requests": sum(r[2] is not None for r in requests),
            "errors of requests": dict(collections.Counter(r[2] for r in requests if r[2])),
            "longest request": max(r[1] for r in requests),
        }

    def idle(self, cp, start, seconds):
        stays = [at - start for _how, at in self.ends]
        lasting = len(self.kept[cp.name]) - len(stays)
        return {
            "stay": seconds if lasting else max(stays),
            "stay for longer": bool(lasting),
            "others ended": sum(not is_open(c) for name, there in self.kept.items()
                                if name != cp.name for c in there),
        }

    def close(self):
        for process in (self.requests, self.dials):
            if process and process.poll() is None:
                process.kill()
                process.wait()
        self.stack.close()


def context_of(world):
    context = ssl.create_default_context(cafile=world.ca)
    context.check_hostname = False  # a service's address is in no certificate here
    return context


def finish(process, seconds):
    output, errors = process.communicate(timeout=seconds + HANDSHAKE_SECONDS + 30)
    if process.returncode != 0:
        raise WorldError(f"a client has ended with {process.returncode}: {errors[-500:]}")
    return output


# --- one round ----------------------------------------------------------------


class FaultStage:
    """Three apiservers, KubeLB for the whole report, proxies anew for each fault: HAProxy takes half
    a minute to forget one."""

    def __init__(self, world):
        self.world = world
        self.endpoints = [b.endpoint for b in world.backends]
        self.nft = peers.start_nft(world, self.endpoints)
        world.configure(probe=USUAL, slowStart="0")
        self.agent = world.agent()
        self.wait_well()

    def wait_well(self):
        wait_states(self.world, "ready", self.world.backends, timeout=60)
        wait_forgiven(self.world)

    @contextlib.contextmanager
    def balancers(self):
        proxies = [start(self.world, self.endpoints)
                   for start in (peers.start_nginx, peers.start_haproxy)]
        try:
            yield [peers.Target("kubelb", self.world.node, peers.FRONTEND, peers.FRONTEND_PORT),
                   *(p.target(self.world) for p in proxies), self.nft]
        finally:
            for proxy in proxies:
                proxy.stop()

    def one_round(self, fault, cp, window):
        """name of the balancer -> what its clients have felt."""
        with self.balancers() as targets, contextlib.ExitStack() as stack:
            for target in targets:
                peers.prove(self.world, target, [b.name for b in self.world.backends],
                            self.world.ca)
            clients = [Clients(self.world, target) for target in targets]
            for c in clients:
                stack.callback(c.close)
                c.make_idle()
            for c in clients:
                c.begin(LEAD + window)
            time.sleep(LEAD)
            start = time.monotonic()
            for c in clients:
                c.watch(cp, window)
            fault.begin(cp)
            try:
                time.sleep(max(0, start + window - time.monotonic()))
                for c in clients:
                    c.stop_requests()
                return {c.target.name: c.outcome(cp, start, window) for c in clients}
            finally:
                fault.end(cp)


UNITS = {"failed connects": "", "longest connect": "s", "failed requests": "",
         "longest request": "s", "stay": "s", "new connections": "", "requests": "",
         "others ended": ""}


def add_rounds(figures, name, rounds):
    for balancer in rounds[0]:
        for what, unit in UNITS.items():
            more = {"at_least": any(r[balancer]["stay for longer"] for r in rounds)} \
                if what == "stay" else {}
            figures.add(f"{name}: {what}", balancer, unit, [r[balancer][what] for r in rounds],
                        **more)
        for what in ("errors of connects", "errors of requests"):
            figures.note(f"{name}: {what}", balancer, [r[balancer][what] for r in rounds])


def measure_faults(effort, figures):
    with World(backends=3) as world:
        stage = FaultStage(world)
        for name, fault in FAULTS.items():
            rounds = []
            for i in range(effort["fault_rounds"]):
                rounds.append(stage.one_round(fault, world.cp(i % 3 + 1), effort[fault.window]))
                stage.wait_well()
            add_rounds(figures, name, rounds)
            figures.say(f"{name}: " + ", ".join(
                f"{b} {r['failed connects']} of {r['new connections']} connects and "
                f"{r['failed requests']} of {r['requests']} requests failed"
                for b, r in rounds[-1].items()))
