# SPDX-License-Identifier: BSD-2-Clause
"""Two builds beside each other: what --beside of bench.py measures.

Both are attached at the same time, to a cgroup of their own each, and a client runs in the
one and in the other by turns, some tenths of a second each: other load hits both. Both are
loaded anew for each round, because where programs and maps come to lie in memory is a part of
what they cost.
"""

import contextlib
import os
import statistics

from programs import FLOOR, POLICIES, TOGETHER, ballast, cost_of, floor_program, padding
from runs import Runs, bpf_statistics, program_ids
from stage import FRONTEND, FRONTEND6, FRONTEND_PORT, PLAIN_PORT, SERVERS
from system import WorldError

LIMIT = 1.03
TURNS = 3  # of each build in a round, the fastest of which counts
NAMES = ("beside", "here")


class Side:
    """One of the two builds, with a cgroup and pins of its own; bench_client is this build's
    for both."""

    def __init__(self, stage, name, build):
        self.stage, self.world, self.effort = stage, stage.world, stage.effort
        self.name = name
        self.loader = os.path.join(build, "kubelb-load")
        if not os.access(self.loader, os.X_OK):
            raise WorldError(f"{self.loader} is not there: --beside wants a build directory")
        self.pin = f"{self.world.pin}-{name}"
        self.cgroup = self.world.cgroup(name)

    def load(self, *args):
        done = self.world.exec([self.loader, "--pin", self.pin, *args])
        if done.returncode != 0:
            raise WorldError(f"{self.loader}: {done.stderr.strip()}")

    @contextlib.contextmanager
    def attached(self, count, policy):
        config = self.world.configure(
            path=os.path.join(self.world.dir, f"{self.name}.yaml"), policy=policy,
            backends=[f"{a}:{PLAIN_PORT}" for a in SERVERS[:count]])
        with padding(self.stage):
            # The servers speak no TLS. An earlier version does not ask, and knows no such option.
            known = self.world.exec([self.loader, "--help"]).stdout
            self.load("-c", config, "--cgroup", self.cgroup,
                      *(["--force"] if "--force" in known else []))
        try:
            with Runs(program_ids(self.pin)) as runs:
                yield runs
        finally:
            self.load("--detach")

    def run(self, *args):
        return self.stage.run(*args, cgroup=self.cgroup)


def one_round(sides, count, policy, hosts, less):
    """(host, name) -> side -> the fastest of some turns, in ns."""
    costs = {}
    with contextlib.ExitStack() as stack:
        runs = {side: stack.enter_context(side.attached(count, policy)) for side in sides}
        for host in hosts:
            for turn in range(TURNS + 1):
                for side in sides if turn % 2 else sides[::-1]:
                    cost = cost_of(side, runs[side], host, FRONTEND_PORT, less)
                    for name, ns in cost.items() if turn else ():  # the first one warms up
                        costs.setdefault((host, name), {}).setdefault(side.name, []).append(ns)
    return {key: {name: min(turns) for name, turns in by_side.items()}
            for key, by_side in costs.items()}


def rounds_of(sides, count, policy, hosts, less):
    """(host, name) -> side -> one value for each round."""
    found = {}
    for i in range(sides[0].effort["beside_rounds"]):
        for key, by_side in one_round(sides[::-1] if i % 2 else sides, count, policy,
                                      hosts, less).items():
            for name, ns in by_side.items():
                found.setdefault(key, {}).setdefault(name, []).append(ns)
    return found


def floor_ns(stage, floor):
    """What the kernel takes to run an empty program and to measure it."""
    with Runs({FLOOR: floor}) as runs:
        values = []
        for _ in range(10):
            before = runs.now()
            stage.run("connects", "-n", stage.effort["beside_connects"], SERVERS[0], PLAIN_PORT)
            time_ns, count = runs.since(before)[FLOOR]
            values.append(time_ns / count)
    return min(values)


def report_pair(report, what, values, less):
    """Where a load's programs and maps come to lie makes a tenth of the cost, for each side by
    itself, and now and then half of it; the turns within one load differ less. So rounds cannot be
    compared pair by pair: what counts is the ratio of the medians over all loads."""
    here, beside = ([ns - less for ns in values[name]] for name in ("here", "beside"))
    for name, side in (("beside", beside), ("here", here)):
        report.row(f"{what}, {name}", side, "ns")
    report.at_most(f"  {what}, here / beside", [statistics.median(here) / statistics.median(beside)],
                   "ratio", LIMIT, 3)
    print(f"    ratio of the means {statistics.mean(here) / statistics.mean(beside):.3f}, "
          f"of the fastest {min(here) / min(beside):.3f}")


def measure_beside(stage, report, builds):
    """builds: name -> build directory, for each of NAMES."""
    effort = stage.effort
    report.start("beside", "Two builds by turns, nanoseconds per run",
                 f"beside: {builds['beside']}",
                 f"here: {builds['here']}",
                 f"{effort['beside_rounds']} rounds, both loaded anew for each; the fastest of "
                 f"{TURNS} turns of {effort['beside_connects']} connects; ratios are of the medians",
                 "less what the kernel takes to run an empty program and to measure it")
    stage.effort = {**effort, "connects": effort["beside_connects"]}
    sides = [Side(stage, name, builds[name]) for name in NAMES]
    with ballast(stage), bpf_statistics():
        with floor_program(stage) as floor:
            less = floor_ns(stage, floor)
        report.row("empty program (the measurement itself)", [less], "ns")
        for count in (3, 64):
            for policy in POLICIES:
                report_policy(report, sides, count, policy, less)
    stage.effort = effort


def report_policy(report, sides, count, policy, less):
    first = policy == POLICIES[0]
    hosts = (FRONTEND, FRONTEND6) if first else (FRONTEND,)
    values = rounds_of(sides, count, policy, hosts, less)
    what = f"{policy}, {count} backends"
    report_pair(report, f"klb_connect4, {what}", values[FRONTEND, "klb_connect4"], less)
    if first:
        report_pair(report, f"klb_connect6, {what}", values[FRONTEND6, "klb_connect6"], less)
        report_pair(report, f"klb_sockops, {what}", values[FRONTEND, "klb_sockops"], less)
        report_pair(report, f"{TOGETHER}, {what}", values[FRONTEND, TOGETHER], 0)
