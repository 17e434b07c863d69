# SPDX-License-Identifier: BSD-2-Clause
"""The group of bench.py about the programs themselves, by the kernel's own run statistics."""

import contextlib
import functools
import os
import random
import shutil

from runs import Runs, bpf_statistics, bpftool
from stage import FRONTEND, FRONTEND6, FRONTEND_PORT, PLAIN_PORT, SERVERS
from system import WorldError, run_checked

POLICIES = ("least-conn", "random", "rendezvous", "latency")
FLOOR = "bench_floor"
TOGETHER = "all, connect to close"
FLOOR_C = """\
__attribute__((section("cgroup/connect4"), used)) int bench_floor(void *ctx)
{ (void)ctx; return 1; }
__attribute__((section("sockops"), used)) int bench_floor_ops(void *ctx)
{ (void)ctx; return 1; }
"""
LICENSE_C = 'char bench_license[] __attribute__((section("license"), used)) = "Dual BSD/GPL";\n'


# How many multiplications one ballast program has: some 50 KB of code; and each padding program:
# up to 5 KB.
BALLAST, BALLAST_PROGRAMS = 1500, 8
PADDINGS = range(1, 160, 13)


def compiled(directory, name, text):
    """The object file of BPF programs in C."""
    source = os.path.join(directory, f"{name}.bpf.c")
    with open(source, "w", encoding="ascii") as f:
        f.write(text + LICENSE_C)
    run_checked(["clang", "-O2", "-target", "bpf", "-c", source, "-o", source + ".o"])
    return source + ".o"


@functools.lru_cache(maxsize=None)
def filler(directory, steps):
    """A program that does nothing useful with so many multiplications; its object file."""
    body = "".join(f"\tx = x * {2 * i + 3} ^ x >> {i % 13 + 3};\n" for i in range(steps))
    return compiled(directory, f"filler{steps}",
                    '__attribute__((section("socket"), used)) int filler(unsigned int *ctx)\n'
                    f"{{\n\tunsigned int x = *ctx;\n\n{body}\treturn x;\n}}\n")


@contextlib.contextmanager
def loaded(world, name, *objects):
    """Programs that never run."""
    pin = f"{world.pin}-{name}"
    os.makedirs(pin)
    try:
        for i, path in enumerate(objects):
            run_checked(["bpftool", "prog", "load", path, f"{pin}/{i}"])
        yield
    finally:
        shutil.rmtree(pin)


def ballast(stage):
    """Takes up the first 400 KB of the space that all programs share. Measured on Linux 6.18 on a
    Xeon: what is loaded first there takes up to 140 ns more for a run than what is loaded after
    it, the same program with the same maps."""
    return loaded(stage.world, "ballast", *[filler(stage.world.dir, BALLAST)] * BALLAST_PROGRAMS)


def padding(stage):
    """Moves what is loaded next by a random distance: otherwise all loads of one build come to lie
    alike, which is worth some per cent for or against it."""
    return loaded(stage.world, "padding", filler(stage.world.dir, random.choice(PADDINGS)))


def load_floor(stage):
    """The empty programs, by attach type; their pins."""
    pin = stage.world.pin + "-floor"
    os.makedirs(pin)
    run_checked(["bpftool", "prog", "loadall", compiled(stage.world.dir, "floor", FLOOR_C), pin])
    return {"connect4": f"{pin}/{FLOOR}", "sock_ops": f"{pin}/{FLOOR}_ops"}


@contextlib.contextmanager
def floor_programs(stage, *kinds):
    """Programs that do nothing, attached; their ids. What they cost is what the kernel
    takes to run a program there, and to measure it."""
    pins = load_floor(stage)
    ids = {}
    try:
        for kind in kinds:
            ids[kind] = bpftool("prog", "show", "pinned", pins[kind])["id"]
            run_checked(["bpftool", "cgroup", "attach", stage.cgroup, kind, "pinned",
                         pins[kind], "multi"])
    finally:
        shutil.rmtree(stage.world.pin + "-floor")  # being attached keeps them
    try:
        yield ids
    finally:
        for kind, program in ids.items():
            run_checked(["bpftool", "cgroup", "detach", stage.cgroup, kind, "id", str(program)])


@contextlib.contextmanager
def floor_program(stage):
    """The one beside KubeLB's connect program."""
    with floor_programs(stage, "connect4") as ids:
        yield ids["connect4"]


def empty_programs(stage):
    """At the hooks that every IPv4 connection passes."""
    return floor_programs(stage, "connect4", "sock_ops")


def cost_of(stage, runs, host, port, floor=0):
    """Name -> nanoseconds per run in one round of connects, of those that ran
    for each of them; TOGETHER -> of all programs for one connection, less what
    measuring each run takes (floor, unless the empty program is among them)."""
    n = stage.effort["connects"]
    before = runs.now()
    stage.run("connects", "-n", n, "--peer", host, port)
    seen = runs.since(before)
    cost = {name: time_ns / count for name, (time_ns, count) in seen.items()
            if count >= 0.99 * n}
    # Which is a good figure for what is not attached, and for what does nothing.
    family = "6" if ":" in host else "4"
    for name in (f"klb_connect{family}", f"klb_getpeer{family}", "klb_sockops"):
        if name not in cost:
            raise WorldError(f"{name} did not run for every connect to {host}: {seen}")
    cost[TOGETHER] = sum(time_ns - count * cost.get(FLOOR, floor)
                         for name, (time_ns, count) in seen.items()
                         if name != FLOOR and "getpeer" not in name) / n
    return cost


def rounds_of(stage, floor, count, policy, targets):
    """host -> name -> nanoseconds per run, one value for each round. KubeLB is loaded anew
    for each: where its programs and maps come to lie is a part of what they cost."""
    rounds = {host: [] for host, _port in targets}
    for _ in range(stage.effort["rounds"]):
        stage.detach()
        with padding(stage):
            stage.attach(count, policy)
        with Runs({**stage.program_ids(), FLOOR: floor}) as runs:
            for host, port in targets:
                rounds[host].append(cost_of(stage, runs, host, port))
        balanced = [host for host, port in targets if port == FRONTEND_PORT]
        check_spread(stage, count, policy, len(balanced) * stage.effort["connects"])
    return {host: {name: [r[name] for r in costs] for name in costs[0]
                   if all(name in r for r in costs)} for host, costs in rounds.items()}


def check_spread(stage, count, policy, connects):
    """Every backend was chosen from, or a choice among 3 would be measured as one among 64."""
    opened = [b["opened"] for b in stage.status()["backends"]]
    if len(opened) != count or sum(opened) < connects:
        raise WorldError(f"{connects} connects to {count} backends, and these got {opened}")
    # By rank or by distance one of them may get all.
    if policy in ("least-conn", "random") and min(opened) < 0.3 * connects / count:
        raise WorldError(f"{connects} connects, {policy}, and the backends got {opened}")


def measure_programs(stage, report):
    effort = stage.effort
    report.start("programs", "BPF programs, nanoseconds per run",
                 f"each round is the mean over {effort['connects']} connects in a row; "
                 f"{effort['rounds']} rounds, KubeLB loaded anew for each",
                 "two clock reads by the kernel are part of every figure: see the empty program",
                 "connect to close: all runs of all programs but getpeername's, less that")
    with ballast(stage), bpf_statistics(), floor_program(stage) as floor:
        cost = rounds_of(stage, floor, 3, POLICIES[0], [(SERVERS[0], PLAIN_PORT)])[SERVERS[0]]
        report.row("empty program (the measurement itself)", cost.pop(FLOOR), "ns")
        for name, values in cost.items():
            report.row(f"{name}, somebody else's socket", values, "ns")
        for count, limit in ((3, 250), (64, 900)):
            for policy in POLICIES:
                measure_policy(stage, report, floor, count, policy, limit)
        stage.detach()


def measure_policy(stage, report, floor, count, policy, limit):
    what = f"{policy}, {count} backends"
    hosts = (FRONTEND, FRONTEND6) if policy == POLICIES[0] else (FRONTEND,)
    costs = rounds_of(stage, floor, count, policy, [(h, FRONTEND_PORT) for h in hosts])
    cost = costs[FRONTEND]
    cost.pop(FLOOR)
    connect4 = cost.pop("klb_connect4")
    if policy in ("least-conn", "random"):
        report.at_most(f"klb_connect4, {what}", connect4, "ns", limit)
    else:
        report.row(f"klb_connect4, {what}", connect4, "ns")
    if policy != POLICIES[0]:
        return
    cost6 = costs[FRONTEND6]
    report.row(f"klb_connect6, {what}", cost6.pop("klb_connect6"), "ns")
    if count == 3:
        for name in (FLOOR, TOGETHER):
            cost6.pop(name, None)
        for name, values in {**cost6, **cost}.items():
            report.row(f"{name}, balanced socket", values, "ns")
    else:
        report.row(f"{TOGETHER}, {count} backends", cost[TOGETHER], "ns")
