# SPDX-License-Identifier: BSD-2-Clause
"""The clients of the soak test, what becomes of them, and which failures a disturbance may cause.

kept requests    HTTP/1.1 over TLS, on connections that are made anew after an error
new connections  a TLS handshake each, at a steady rate
watches          HTTP/2 over TLS, as informers of client-go
"""

import collections
import contextlib
import json
import os
import subprocess
import time

from faults import TOKEN
from helpers import ok
from system import WorldError, wait_until
from world import ROOT

CLIENTS = os.path.join(ROOT, "tests", "clients")
KEPT = 9
INFORMERS = 6
REQUEST_RATE = 4  # a second, of each
DIAL_RATE = 15  # a second
GIVE_UP = 10  # seconds, of a connect with its handshake
SERVED = 60  # seconds until each client has to have an answer after all is well, on a busy machine

KINDS = ("request", "connect", "watch")
# kind: one of KINDS. local: the client's ADDRESS:PORT, None of a connect. since: when its
# connection was made.
Outcome = collections.namedtuple("Outcome", "kind begin end error local since")


class Window:
    """The time of a disturbance, and whose failures it may cause.

    ends      whose connections may end: "none", "victim" (those to a backend that is disturbed),
              "relayed" (those that go through the agent), "all"
    connects  which new connections may fail: "none", "begin" (those that begin before it has
              been noticed), "all"
    """

    def __init__(self, kind, ends, connects):
        self.kind, self.ends, self.connects = kind, ends, connects
        self.start = self.noticed = self.end = None
        self.locals = set()
        self.victims = set()
        self.failures = collections.Counter()

    def open(self, placed, victims=()):
        """placed: where each connection is; see placed_clients()."""
        self.victims = {v.name for v in victims}
        wanted = {"victim": {*self.victims, None}, "relayed": {None}}.get(self.ends, set())
        self.locals = {local for local, names in placed.items() if names & wanted}

    def notice(self):
        """From now on new connections have to be served."""
        self.noticed = time.monotonic()

    def close(self):
        self.end = time.monotonic()
        if self.noticed is None or self.connects == "all":
            self.noticed = self.end

    def allows(self, outcome):
        if outcome.end < self.start or outcome.begin > self.end:
            return False
        if outcome.kind == "connect":
            return self.connects != "none" and outcome.begin <= self.noticed
        if self.ends == "all" or outcome.local in self.locals:
            return True
        # One that went to the victim before anybody knew.
        return self.ends == "victim" and self.start <= outcome.since <= self.noticed


class Lines:
    """What is new in a file of JSON, a line each."""

    def __init__(self, path):
        self.file = open(path, "rb")  # pylint: disable=consider-using-with
        self.rest = b""

    def new(self):
        *lines, self.rest = (self.rest + self.file.read()).split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self):
        self.file.close()


class Program:
    """One of tests/clients with its output in a file."""

    def __init__(self, world, name, *args):
        path = os.path.join(world.dir, f"{name}.log")
        with open(path, "wb") as f:
            self.process = world.spawn(["/usr/bin/python3", os.path.join(CLIENTS, name), *args],
                                       stdout=f)
        self.lines = Lines(path)

    def kill(self):
        self.process.kill()
        self.process.wait(timeout=10)
        self.process.stdin.close()
        self.lines.close()

    def say(self, word):
        try:
            self.process.stdin.write(word + "\n")
            self.process.stdin.flush()
        except BrokenPipeError as e:
            raise WorldError(f"the clients have ended with {self.process.poll()}") from e


class Informer:
    """What one informer is at, by its own lines."""

    def __init__(self):
        self.local = None
        self.since = self.last = time.monotonic()
        self.version = 0
        self.lists = 0

    def take(self, line):
        """The outcome that the line tells of, if any."""
        what, at = line["what"], line["at"]
        begin, self.last = self.last, at
        if what == "connected":
            self.local, self.since = line["local"], at
            return Outcome("connect", begin, at, None, None, at)
        if what in ("lost", "failed"):
            kind = "watch" if self.local else "connect"
            outcome = Outcome(kind, begin, at, line["error"], self.local, self.since)
            self.local = None
            return outcome
        self.version = line.get("version", self.version)
        if what == "event":
            return Outcome("watch", at, at, None, self.local, self.since)
        self.lists += what == "list"
        return None


class Crowd:
    """All clients: what has become of them so far."""

    def __init__(self, world, ca):
        self.world, self.ca = world, ca
        self.counts = {kind: collections.Counter() for kind in KINDS}  # error or None: how many
        self.slowest = dict.fromkeys(KINDS, 0.0)  # of those that were served
        self.fresh = []  # failures that nobody has judged
        self.asked = {}  # client -> begin of its last request that was answered
        self.locals = {}  # client -> where it is
        self.paused = False
        self.restarts = 0
        self.start()

    def start(self):
        self.asked.clear()
        self.locals.clear()
        self.informers = collections.defaultdict(Informer)
        self.load = Program(self.world, "soakload.py", "--ca", self.ca, "-n", KEPT, "--rate",
                            REQUEST_RATE, "--dials", DIAL_RATE, "--give-up", GIVE_UP,
                            "127.0.0.1", 6443)
        self.watching = Program(self.world, "informer.py", "--ca", self.ca, "--token", TOKEN,
                                "--name", "tick", "-n", INFORMERS)

    def kill(self):
        """-9, in the middle of whatever they do. What they had told counts."""
        self.poll()
        for program in (self.load, self.watching):
            program.kill()
            self.world.processes.remove(program.process)

    def close(self):
        """For good; the world has ended the processes, or will."""
        for program in (self.load, self.watching):
            program.lines.close()

    def restart(self):
        self.kill()
        self.restarts += 1
        self.start()

    def take(self, outcome):
        self.counts[outcome.kind][outcome.error] += 1
        if outcome.error:
            self.fresh.append(outcome)
        else:
            self.slowest[outcome.kind] = max(self.slowest[outcome.kind],
                                             outcome.end - outcome.begin)

    def poll(self):
        """Takes what they have told since."""
        for line in self.load.lines.new():
            if line["kind"] == "paused":
                self.paused = True
                continue
            outcome = Outcome(line["kind"], line["begin"], line["end"], line["error"],
                              line.get("local"), line.get("since", line["begin"]))
            if outcome.kind == "request":
                self.locals[line["client"]] = outcome.local
                if not outcome.error:
                    self.asked[line["client"]] = outcome.begin
            self.take(outcome)
        for line in self.watching.lines.new():
            outcome = self.informers[line["informer"]].take(line)
            if outcome and not (outcome.kind == "connect" and outcome.error is None):
                self.take(outcome)
        for program in (self.load, self.watching):
            if program.process.poll() is not None:
                raise WorldError(f"{program.process.args[-1]}: the clients have ended with "
                                 f"{program.process.returncode}")

    def wait_served(self, revision):
        """Until every kept client has an answer to a question of now, a new connection has been
        made, and every informer knows of that change."""
        start = time.monotonic()
        before = self.counts["connect"][None]

        def served():
            self.poll()
            return len(self.asked) == KEPT and min(self.asked.values()) >= start \
                and self.counts["connect"][None] > before \
                and len(self.informers) == INFORMERS \
                and all(i.version >= revision for i in self.informers.values())

        wait_until(served, lambda: f"every client to be served: {self.who_waits(start, revision)}",
                   SERVED, 0.05)

    def who_waits(self, start, revision):
        waiting = [f"client {n} on {self.locals.get(n)}" for n in range(KEPT)
                   if self.asked.get(n, 0) < start]
        return waiting + [f"informer {n} on {self.informers[n].local}, at version "
                          f"{self.informers[n].version} of {revision}" for n in range(INFORMERS)
                          if self.informers[n].version < revision]

    @contextlib.contextmanager
    def quiet(self):
        """No request and no new connection is under way during the block."""
        self.paused = False
        self.load.say("pause")

        def still():
            self.poll()
            return self.paused

        wait_until(still, "requests and connects to end", GIVE_UP + 30)
        try:
            yield
        finally:
            self.load.say("go")

    def kept(self):
        """Where those are that have a connection now."""
        return {*self.locals.values(), *(i.local for i in self.informers.values())} - {None}

    def judge(self, windows):
        """The failures that none of these disturbances may cause; the others count for it."""
        wrong = []
        for outcome in self.fresh:
            cause = next((w for w in windows if w.allows(outcome)), None)
            if cause:
                cause.failures[outcome.kind] += 1
            else:
                wrong.append(outcome)
        self.fresh.clear()
        return wrong


def placed_clients(world, crowd):
    """local -> the backends that serve it: a port may lead to one and to another. None among them:
    nobody knows it, so the agent relays it."""
    crowd.poll()
    placed = {local: set() for local in crowd.kept()}
    for backend in world.backends:
        for client in backend.clients(open=True):
            placed.setdefault(client["client"], set()).add(backend.name)
    return {local: names or {None} for local, names in placed.items()}


def listed(world):
    """(ADDRESS:PORT, the backend's endpoint) of each connection that the kernel has a record of."""
    rows = json.loads(ok(world.ctl("connections", "-o", "json")).stdout)["connections"]
    return {(row["local"], row["backend"]) for row in rows}


def sockets(world):
    """The same of the node's connections to the backends, by ss."""
    done = world.exec(["ss", "-Htn", "state", "all", "dport", "=", ":6443"],
                      stderr=subprocess.STDOUT)
    if done.returncode != 0:
        raise WorldError(f"ss: {done.stdout}")
    rows = [line.split()[:5] for line in done.stdout.splitlines()]
    return {(local, remote) for state, _received, _sent, local, remote in rows
            if state in ("ESTAB", "CLOSE-WAIT")}
