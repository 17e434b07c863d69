#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""What can happen to a node in its life, at random and for as long as is asked: kills, stops,
black holes, slow links, restarts and drains of apiservers; kills and restarts of the agent;
reloads, upgrades, downgrades, detach and attach; lists of discovery; certificates; a full disk.

Real TLS and HTTP/2 clients are there all the time. After each disturbance everything is healed,
and at that quiet point the counts have to be exact, nothing may be left behind, and every client
has to be served. A client may fail only where its disturbance says so (soak_faults.py).

    soak.py            this: the options, the run, the summary
    soak_faults.py     the disturbances
    soak_clients.py    the clients, and whose failure is allowed
    soak_checks.py     the quiet point
    soak_report.py     docs/bench/soak.md

The seed decides which disturbances come, and how long they take. Each kind comes once before any
comes again, and each comes at least once, however short the run is. In the turns that follow, only
one of five ends the agent, so that it also gets old.

Run it by scripts/soak.sh, which builds first. Exit status: 0 all held, 1 something did not, 2 the
command line is wrong.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)
sys.path[:0] = [HERE, os.path.join(TESTS, "world"), os.path.join(TESTS, "e2e")]

from deaths import wait_forgiven  # noqa: E402  (after sys.path)
from faults import TOKEN  # noqa: E402
from helpers import agent_serves, metrics, ok, wait_states  # noqa: E402
from observe import kubeconfig, wait_known  # noqa: E402
from soak_checks import CHECKS, END_CHECKS, Problem, one_each  # noqa: E402
from soak_clients import Crowd, Window, placed_clients  # noqa: E402
from soak_faults import KINDS, dice_of, order_of  # noqa: E402
from soak_report import write_report  # noqa: E402
from system import WorldError, replace, run_checked, wait_until  # noqa: E402
from world import World, build_client, raise_on_signals  # noqa: E402

BACKENDS = 3
WELL = 90  # seconds until all are ready and dialled alike again, on a busy machine
PROBE = {"interval": "500ms", "timeout": "3s"}
TROUBLE = (WorldError, AssertionError, OSError, subprocess.SubprocessError, ValueError, KeyError)
LOG_LINES = 30


class Stage:
    """A node with its apiservers, agent and clients, and what was seen of them."""

    def __init__(self, world, stack):
        self.world = world
        self.agent = self.crowd = None
        self.policy = "least-conn"
        self.certificate = "good"
        self.foreign = set()  # connections of before a detach: nobody counts them
        self.baseline = {}
        self.seen_objects = set()
        self.counters = None, {}
        self.lives = collections.defaultdict(list)  # pid of an agent -> its memory, KiB
        self.grown = collections.defaultdict(list)
        self.builds = {"this": world.build, "next": os.path.join(world.build, "abi-next")}
        self.state = os.path.join(world.dir, "state")
        self.bundle = os.path.join(world.dir, "ca-bundle.crt")
        self.make_state(stack)
        self.make_apiservers()
        self.start(stack)

    def make_state(self, stack):
        """A disk of its own, which can be full."""
        os.mkdir(self.state)
        run_checked(["mount", "-t", "tmpfs", "-o", "size=256k,mode=0700", "soak", self.state])
        stack.callback(run_checked, ["umount", "-l", self.state])

    def make_apiservers(self):
        for i in range(1, BACKENDS + 1):
            self.world.apiserver(i, tokens={TOKEN: "system:node:worker"}, idle_timeout=90,
                                 alpn=["h2", "http/1.1"], shutdown_delay=0.5,
                                 shutdown_linger=0.5)
        self.etcd = self.world.etcd

    def start(self, stack):
        world = self.world
        world.client = build_client(os.path.join(world.dir, "bin", "nbconnect"))
        replace(self.bundle, world.ca)
        self.kubeconfig = kubeconfig(world, f"token: {TOKEN}")
        with open(self.kubeconfig, encoding="utf-8") as f:
            text = f.read().replace(world.ca, self.bundle)
        with open(self.kubeconfig, "w", encoding="utf-8") as f:
            f.write(text)
        self.configure()
        self.start_agent()
        everybody = os.path.join(world.dir, "clients-ca.crt")
        replace(everybody, world.ca, world.pki.authority("other", "kubelb untrusted CA"))
        for backend in world.backends:  # made before there is any haste
            for kind in ("good", "wrong_ca"):
                world.pki.certificate(kind, (backend.v4, backend.v6), backend.name)
        self.crowd = Crowd(world, everybody)
        stack.callback(self.crowd.close)

    # what disturbances use

    def configure(self, policy=None):
        self.policy = policy or self.policy
        self.world.configure(
            probe={**PROBE, "ca": self.bundle}, policy=self.policy, slowStart="1s",
            discovery={"kubeconfig": self.kubeconfig,
                       "cache": os.path.join(self.state, "backends.json")})

    def start_agent(self):
        self.agent = self.world.agent()
        wait_until(lambda: not self.agent.alive() or agent_serves(self.world), "the agent", 30)
        if not self.agent.alive():
            raise WorldError(f"the agent has ended: {self.agent.log()[-2000:]}")

    def trust(self, *kinds):
        """What the agent's CA file has from now on, and it has taken that up."""
        mark = len(self.agent.log())
        files = {"good": self.world.ca, "wrong_ca": self.world.pki.path("other.crt")}
        replace(self.bundle, *(files[kind] for kind in kinds))
        self.agent.wait_log("configuration reloaded", 30, mark)

    def placed(self):
        return placed_clients(self.world, self.crowd)

    def relayed(self):
        samples = metrics(self.world).get("kubelb_relay_connections_active", [])
        return int(sum(value for _labels, value in samples))

    def rescues(self):
        """Whether the agent may need its rule: for a while after a backend is well, and as long
        as it relays."""
        relay = json.loads(ok(self.world.ctl("status", "-o", "json")).stdout)["relay"]
        return bool(self.relayed() or relay["standsInFor"])

    def detached(self):
        """The counters begin anew with the next maps."""
        self.counters = None, {}

    # what checks use

    def first(self, what, now):
        """It is what it was when it was looked at first."""
        was = self.baseline.setdefault(what, now)
        if now != was:
            raise Problem(f"{now}, at first {was}")

    def forget(self, check):
        """What it found at first: the next look decides."""
        for key in [key for key in self.baseline if key[0] == check]:
            del self.baseline[key]

    def grow(self, what, value):
        self.grown[what].append(value)

    # quiet

    def wait_well(self):
        wait_known(self.world, self.world.backends, WELL)
        wait_states(self.world, "ready", self.world.backends, WELL)
        wait_forgiven(self.world)

    def heal(self):
        """After a disturbance that has not gone by its plan: what it may have left."""
        for backend in self.world.backends:
            backend.link(up=True)
            if backend.stopped():
                backend.cont()
            backend.start()
            backend.readyz(200)
            self.world.ctl("undrain", backend.endpoint)
        if not self.agent.alive():
            self.world.load()
            self.start_agent()
        self.etcd.put("kubernetes", [b.v4 for b in self.world.backends])

    def rest(self):
        """A quiet point: what does not hold."""
        problems = []
        try:
            self.wait_well()
            revision = self.etcd.put("tick", ["10.0.0.1"], service="tick")
            self.crowd.wait_served(revision)
            with self.crowd.quiet():
                problems += one_each(CHECKS, self)
        except TROUBLE as e:
            problems.append(f"rest: {e}")
        if not self.agent.alive():
            problems.append(f"the agent has ended with {self.agent.process.poll()}")
        return problems

    def diagnosis(self):
        """What a person wants to see of a problem."""
        parts = [self.world.ctl("-c", self.world.config, "status").stdout,
                 self.world.exec(["ss", "-Htn"]).stdout, *self.agent.log().splitlines()[-LOG_LINES:]]
        return "\n".join(parts)


class Soak:
    """One run."""

    def __init__(self, stage, seed, seconds):
        self.stage, self.seed, self.seconds = stage, seed, seconds
        self.began = time.monotonic()
        self.windows = []
        self.times = collections.Counter()
        self.took = collections.Counter()
        self.problems = []
        self.quiet = 0
        self.agents = set()

    def elapsed(self):
        return time.monotonic() - self.began

    def problem(self, step, name, text):
        self.problems.append({"step": step, "kind": name, "at": round(self.elapsed(), 1),
                              "problem": text})
        print(f"soak.sh: seed {self.seed}, step {step}, {name}, at {self.elapsed():.1f} s: {text}",
              file=sys.stderr, flush=True)

    def wanted(self):
        return self.elapsed() < self.seconds or len(self.times) < len(KINDS)

    def run(self):
        self.quiet_point(0, "start", [])
        for step, name in enumerate(order_of(self.seed), 1):
            if not self.wanted():
                break
            self.step(step, name)
        self.stage.crowd.kill()
        for text in one_each(END_CHECKS, self.stage):
            self.problem(sum(self.times.values()), "end", text)

    def step(self, step, name):
        kind = KINDS[name]
        window = Window(name, kind.ends, kind.connects)
        window.start = time.monotonic()
        try:
            kind.run(self.stage, window, dice_of(self.seed, step))
        except TROUBLE as e:
            self.problem(step, name, f"{type(e).__name__}: {e}")
            with contextlib.suppress(*TROUBLE):
                self.stage.heal()
        acted = time.monotonic() - window.start
        self.quiet_point(step, name, [window])
        self.times[name] += 1
        self.took[name] += time.monotonic() - window.start
        failed = sum(window.failures.values())
        print(f"{self.elapsed():7.1f} s  step {step:<4} {name:<16} {acted:5.1f} s"
              f"{f'  {failed} failed, as they may' if failed else ''}", flush=True)

    def quiet_point(self, step, name, windows):
        stage = self.stage
        problems = stage.rest()
        for window in windows:
            window.close()
        self.windows += windows
        try:
            stage.crowd.poll()
        except TROUBLE as e:
            problems.append(f"clients: {e}")
            stage.crowd.restart()
        wrong = stage.crowd.judge(windows)
        if wrong:
            problems.append(f"{len(wrong)} failures that are not allowed: {wrong[:5]}")
        self.agents.add(stage.agent.pid)
        self.quiet += 1
        for text in problems:
            self.problem(step, name, text)
        if problems:
            with contextlib.suppress(*TROUBLE):
                print(stage.diagnosis(), file=sys.stderr, flush=True)

    def result(self):
        failures = collections.defaultdict(collections.Counter)
        for window in self.windows:
            failures[window.kind] += window.failures
        crowd = self.stage.crowd
        return {
            "seed": self.seed, "seconds": round(self.elapsed()), "quiet points": self.quiet,
            "kernel": os.uname().release, "cpus": os.cpu_count(),
            "date": time.strftime("%Y-%m-%d"), "agents": len(self.agents),
            "oldest agent": max(map(len, self.stage.lives.values()), default=0),
            "disturbances": {name: {
                "times": self.times[name], "seconds": round(self.took[name], 1),
                "failed": dict(failures[name])} for name in KINDS},
            "clients": {kind: {
                "served": counts[None], "failed": sum(counts.values()) - counts[None],
                "errors": {e: n for e, n in counts.items() if e},
                "slowest": round(crowd.slowest[kind], 3)} for kind, counts in crowd.counts.items()},
            "memory": {what: {"first": v[0], "least": min(v), "most": max(v), "last": v[-1]}
                       for what, v in self.stage.grown.items()},
            "problems": self.problems,
        }


# --- command line -------------------------------------------------------------


def summary(result):
    lines = [f"seed {result['seed']}: {result['seconds']} s, "
             f"{sum(d['times'] for d in result['disturbances'].values())} disturbances, "
             f"{result['quiet points']} quiet points, {result['agents']} agents, "
             f"the oldest for {result['oldest agent']} quiet points"]
    for name, d in result["disturbances"].items():
        failed = ", ".join(f"{n} {kind}" for kind, n in d["failed"].items())
        lines.append(f"  {name:<16} {d['times']:>4} times  {failed}")
    for kind, c in result["clients"].items():
        errors = ", ".join(f"{e} {n}" for e, n in c["errors"].items())
        lines.append(f"  {kind + ':':<10} {c['served']} served, the slowest in {c['slowest']} s; "
                     f"{c['failed']} failed  {errors}")
    for what, m in result["memory"].items():
        lines.append(f"  {what}: {m['first']} at first, {m['least']} to {m['most']}, "
                     f"{m['last']} at last")
    lines.append(f"{len(result['problems'])} problems")
    return "\n".join(lines)


def length(args):
    return 3600 * args.hours + 60 * args.minutes + args.seconds


def parse(argv):
    parser = argparse.ArgumentParser(prog="soak.sh", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("hours", "minutes", "seconds"):
        parser.add_argument(f"--{name}", type=float, default=0, metavar="N",
                            help="how long; they add up, and without any it is a minute")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32),
                        help="of the disturbances, to repeat a run")
    parser.add_argument("--json", metavar="FILE", help="the result, - for standard output")
    parser.add_argument("--write", metavar="DIR",
                        help="soak.json and soak.md there, as docs/bench has them")
    args = parser.parse_args(argv)
    if min(args.hours, args.minutes, args.seconds) < 0 or not length(args) < 1e6:
        parser.error("a time is not negative, nor longer than a week")
    args.length = length(args) or 60
    return args


def soak(seed, seconds):
    """One run; its result."""
    with World(backends=BACKENDS) as world, contextlib.ExitStack() as stack:
        run = Soak(Stage(world, stack), seed, seconds)
        run.run()
        return run.result()


def main(argv=None):
    args = parse(argv)
    raise_on_signals()
    print(f"seed {args.seed}", flush=True)
    result = soak(args.seed, args.length)
    print(summary(result))
    if args.json:
        text = json.dumps(result, indent=1) + "\n"
        if args.json == "-":
            print(text, end="")
        else:
            with open(args.json, "w", encoding="utf-8") as f:
                f.write(text)
    if args.write:
        write_report(result, args.write)
    return 1 if result["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
