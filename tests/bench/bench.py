#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""What KubeLB costs, measured on this machine.

Run it by scripts/bench.sh, which builds first. Everything happens in a
throw-away world (tests/world) and below a cgroup of its own, so that other
processes' connects are neither touched nor counted.

Groups:
  programs   nanoseconds per run of each BPF program, by the kernel's own run
             statistics, for every policy, at 3 and at 64 backends
  connects   what a client sees of that, and of the way to the programs: connect()
             to the frontend, and to a backend itself with KubeLB attached, without, and
             with two empty programs in its place, interleaved
  requests   requests/s and bulk throughput on one kept TLS connection, dialled
             at the frontend and at the backend itself, interleaved; for
             comparison the same through local proxies (nginx, and haproxy where
             it is installed)
  relay      KubeLB's relay beside nginx's and HAProxy's: requests/s, bulk, CPU time of each, and
             memory with ten thousand connections
  unrelated  connect + accept + close of somebody else's connections, with
             KubeLB attached, without, and with two empty programs in its place (what
             the kernel takes to run any program there), interleaved
  packets    datagrams that the node sends from sockets that are not connected, and those that
             it forwards, with an agent at rest and without, interleaved
  agent      memory and CPU time of kubelb-agent at rest, with 3 and with 64 backends
  probes     TLS handshakes and requests that probes cost an apiserver while there is
             traffic, beside HAProxy's as Kubespray configures it
  steady     handshakes, PINGs and requests that the agent costs an apiserver with HTTP/2
             while nothing happens; --steady-seconds 3600 for an hour of it
  deaths     kill -9, black holes and hangs: how soon the agent knows, what fails of the
             connects of somebody outside, how soon clients of the dead hear of it
  watch      thousands of EndpointSlice events: is the last list the cluster's, and
             what did it cost

All of it takes about half an hour, --quick about ten minutes. probes, steady, deaths and watch make
worlds of their own, attached at the cgroup's root, for the node's namespace alone.

--beside DIR measures two builds by turns, nothing else: see docs/bench.md, which also says
which figure of the groups is worth what.

A missed target is printed as MISSED and is no failure: a busy machine misses
targets too, which the spread shows. Exit status: 0 all was measured, 1 something
could not be measured, 2 the command line is wrong.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "world"))

from agentbench import AGENT_GROUPS, measure_agent  # noqa: E402  (after sys.path)
from beside import measure_beside  # noqa: E402
from packets import measure_packets  # noqa: E402
from programs import empty_programs, measure_programs  # noqa: E402
from relaybench import measure_relay  # noqa: E402
from runs import no_bpf_statistics, other_programs  # noqa: E402
from stage import (FRONTEND, FRONTEND_PORT, PLAIN_PORT, SERVERS, TLS_PORT, Cpus,  # noqa: E402
                   Stage)
from system import WorldError  # noqa: E402
from world import World, raise_on_signals  # noqa: E402

GROUPS = ("programs", "connects", "requests", "relay", "unrelated", "packets", "agent",
          "probes", "steady", "deaths", "watch")

# What the measurements take, in full and with --quick.
# Short runs, and many: what disturbs them (another process, a busy neighbour on the
# host) comes and goes within seconds, and then hits both sides of a pair.
FULL = {"connects": 10000, "rounds": 9, "timed": 5000, "pairs": 60,
        "request_pairs": 40, "seconds": 0.5, "bulk_pairs": 20, "relay_rounds": 15,
        "packet_rounds": 30, "datagrams": 100000,
        "agent_settle": 10, "agent_idle": 20,
        "probe_seconds": 300, "steady_seconds": 300, "events": 10000,
        "deaths": 6, "deaths_fast": 3, "deaths_alone": 3,
        "dial_rate": 100, "dial_rate_fast": 3000,
        "dial_lead": 3, "dial_seconds": 12, "hang_seconds": 18,
        "beside_rounds": 24, "beside_connects": 3000}
QUICK = {"connects": 10000, "rounds": 5, "timed": 3000, "pairs": 20,
         "request_pairs": 10, "seconds": 0.3, "bulk_pairs": 5, "relay_rounds": 7,
         "packet_rounds": 9, "datagrams": 50000,
         "agent_settle": 10, "agent_idle": 10,
         "probe_seconds": 60, "steady_seconds": 60, "events": 2000,
         "deaths": 3, "deaths_fast": 1, "deaths_alone": 2,
         "dial_rate": 100, "dial_rate_fast": 3000,
         "dial_lead": 3, "dial_seconds": 12, "hang_seconds": 18,
         "beside_rounds": 8, "beside_connects": 3000}
# Of the durations in one run: those that nothing disturbed.
UNDISTURBED = "p10_ns"


# --- report ------------------------------------------------------------------


class Report:
    """Prints rows as they are measured, and keeps them for --json."""

    def __init__(self):
        self.rows = []
        self.problems = []
        self.group = ""

    def start(self, group, title, *notes):
        self.group = group
        print(f"\n{title}")
        for note in notes:
            print(f"  ({note})")
        print(f"  {'':<54} {'median':>9}  {'min .. max':<18} {'middle half':<18} "
              "target", flush=True)

    def row(self, name, values, unit, digits=0, target=None, met=None):
        """values: one per round. target: its text; met: does a median meet it?"""
        median = statistics.median(values)
        verdict = None if met is None else bool(met(median))
        enough = len(values) > 3
        quarters = statistics.quantiles(values, n=4)[::2] if enough else [median, median]
        self.rows.append({"group": self.group, "name": name, "unit": unit, "median": median,
                          "min": min(values), "max": max(values), "n": len(values),
                          "quartiles": quarters, "target": target, "met": verdict,
                          "values": list(values)})
        spread = f"{min(values):.{digits}f} .. {max(values):.{digits}f}"
        middle = f"{quarters[0]:.{digits}f} .. {quarters[1]:.{digits}f}" if enough else ""
        words = {None: "", True: "met", False: "MISSED"}[verdict]
        text = f"  {name:<54} {median:>9.{digits}f}  {spread:<18} {middle:<18} "
        print(f"{text}{target or '':<8} {words}".rstrip(), flush=True)

    def at_most(self, name, values, unit, limit, digits=0):
        self.row(name, values, unit, digits, f"<= {limit:g}", lambda m: m <= limit)

    def problem(self, what, why):
        self.problems.append(f"{what}: {why}")
        print(f"  {what} could not be measured: {why}", flush=True)

    def end(self):
        missed = [r for r in self.rows if r["met"] is False]
        met = [r for r in self.rows if r["met"]]
        print(f"\n{len(met)} targets met, {len(missed)} missed")
        for r in missed:
            print(f"  MISSED {r['group']}: {r['name']}: {r['median']:.4g} {r['unit']}, "
                  f"target {r['target']}")
        if missed:
            print("  A wide spread beside a miss points at other load on this machine.")
        for p in self.problems:
            print(f"  NOT MEASURED {p}")


# --- the machine -------------------------------------------------------------


def cpu_times():
    """(stolen by the hypervisor, all) ticks of this machine since its start."""
    with open("/proc/stat", encoding="ascii") as f:
        fields = [int(x) for x in f.readline().split()[1:9]]
    return fields[7], sum(fields)


def machine():
    model = platform.machine()
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        for line in f:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {"kernel": platform.release(), "cpu": model, "cpus": os.cpu_count()}


# --- connects ----------------------------------------------------------------


def measure_connects(stage, report):
    effort = stage.effort
    report.start("connects", "connect() to a server on the same machine, ns",
                 f"{effort['pairs']} interleaved rounds of {effort['timed']} connects; "
                 "the 10th percentile of each run")
    stage.prove()
    direct, frontend = (SERVERS[0], PLAIN_PORT), (FRONTEND, FRONTEND_PORT)
    targets = {"direct, without KubeLB": (False, direct), "direct, empty programs": (None, direct),
               "direct": (True, direct), "frontend": (True, frontend)}

    def measure(target):
        return run_with(stage, target[0], "connects", "-n", effort["timed"], *target[1])

    values = by_key(interleaved(targets, effort["pairs"], measure), UNDISTURBED)
    without, empty, *others = targets
    for name in targets:
        report.row(name, values[name], "ns")
    for name in others:
        for base, text in ((without, "without KubeLB"), (empty, "with empty programs")):
            report.row(f"  {name}, more than {text}",
                       [a - b for a, b in zip(values[name], values[base])], "ns")
    stage.detach()


def run_with(stage, attached, *args):
    """bench_client with KubeLB (True), without (False), or with empty programs in its place
    (None): the first program on a machine where nobody else has one costs what no program of
    ours can change."""
    if attached is None:
        stage.detach()
        with empty_programs(stage):
            return stage.run(*args)
    stage.set_attached(attached)
    return stage.run(*args)


# --- requests ----------------------------------------------------------------


def interleaved(targets, rounds, measure):
    """name -> values. Every round measures every target once, each time
    starting with another one, so that drift hits all alike."""
    names = list(targets)
    values = {name: [] for name in names}
    for i in range(rounds):
        for name in names[i % len(names):] + names[:i % len(names)]:
            values[name].append(measure(targets[name]))
    return values


def report_ratios(report, values, what, unit, digits, target=None):
    """Every name, and the others against the first by round."""
    base, *others = values
    for name in values:
        report.row(f"{what}, {name}", values[name], unit, digits)
    for name in others:
        medians = statistics.median(values[name]) / statistics.median(values[base])
        pairs = [a / b for a, b in zip(values[name], values[base])]
        label = f"{what}, {name} / {base}"
        if target and name == "frontend":
            report.row(label, pairs, "ratio", 4, f">= {target}", lambda m: m >= target)
        else:
            report.row(label, pairs, "ratio", 4)
        print(f"    ratio of the medians: {medians:.4f}")


def measure_requests(stage, report):
    effort = stage.effort
    stage.prove()
    stage.attach(1, port=TLS_PORT)
    targets = {"direct": (SERVERS[0], TLS_PORT), "frontend": (FRONTEND, FRONTEND_PORT)}
    for name, port in stage.start_proxies().items():
        targets[name] = (FRONTEND, port)
    report.start("requests", "One kept TLS connection, one backend",
                 f"{effort['request_pairs']} interleaved rounds of {effort['seconds']:g} s "
                 f"({effort['bulk_pairs']} for bulk); ratios are by round",
                 "client, server and proxy share one CPU: the rate is the inverse of the work",
                 "by median time: at the rate that the median request of a run allows, which "
                 "others' load leaves alone")
    values = interleaved(targets, effort["request_pairs"], lambda target: stage.run(
        "requests", "--seconds", effort["seconds"], *target))
    undisturbed = {name: [1e6 / time_us for time_us in runs]
                   for name, runs in by_key(values, "p50_us").items()}
    report_ratios(report, undisturbed, "requests/s by median time", "requests/s", 0, 0.97)
    report_ratios(report, by_key(values, "rps"), "requests/s in all", "requests/s", 0)
    for name, runs in by_key(values, "p99_us").items():
        report.row(f"99th percentile, {name}", runs, "us", 1)
    values = interleaved(targets, effort["bulk_pairs"], lambda target: stage.run(
        "requests", "--path", "/bulk", "--seconds", effort["seconds"], *target))
    report_ratios(report, by_key(values, "mb_per_s"), "MB/s", "MB/s", 0)
    stage.detach()


def by_key(values, key):
    return {name: [run[key] for run in runs] for name, runs in values.items()}


# --- unrelated ---------------------------------------------------------------


def measure_unrelated(stage, report):
    effort = stage.effort
    others = other_programs()
    notes = [f"{effort['pairs']} interleaved pairs of {effort['timed']} each, KubeLB attached or "
             "detached before every run"]
    if others:
        notes.append(f"{others} connect4 programs of somebody else run on both sides")
    report.start("unrelated", "connect + accept + close on the loopback, not to a frontend, ns",
                 *notes)
    stage.prove()

    def measure(attached):
        return run_with(stage, attached, "unrelated", "-n", effort["timed"])

    values = interleaved({"without": False, "with": True, "empty": None}, effort["pairs"],
                         measure)
    for key, text in ((UNDISTURBED, "10th percentile"), ("p50_ns", "median")):
        runs = by_key(values, key)
        for name, label in (("without", "without KubeLB"), ("with", "with KubeLB"),
                            ("empty", "with empty programs")):
            report.row(f"{text} of a run, {label}", runs[name], "ns")
        report.row(f"{text} of a run, empty programs / without",
                   [a / b for a, b in zip(runs["empty"], runs["without"])], "ratio", 4)
        # The second says what is ours: the first has in it what the kernel takes for any
        # program, which is nothing more where somebody else has one.
        for base, label in (("without", "without"), ("empty", "empty programs")):
            pairs = [a / b for a, b in zip(runs["with"], runs[base])]
            label = f"{text} of a run, with / {label}"
            if key == UNDISTURBED:
                report.at_most(label, pairs, "ratio", 1.02, 4)
            else:
                report.row(label, pairs, "ratio", 4)
    stage.detach()


# --- command line ------------------------------------------------------------


def parse(argv):
    parser = argparse.ArgumentParser(prog="bench.sh", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true",
                        help="fewer and shorter rounds")
    parser.add_argument("--only", metavar="GROUP,...", default=",".join(GROUPS),
                        help=f"some of: {', '.join(GROUPS)}")
    parser.add_argument("--steady-seconds", metavar="N", type=int,
                        help="how long the group steady looks")
    parser.add_argument("--json", metavar="FILE", help="write everything measured there as well")
    parser.add_argument("--beside", metavar="DIR",
                        help="instead of the groups: this build's programs and those of the "
                        "build directory DIR, by turns")
    args = parser.parse_args(argv)
    if args.beside:
        if args.only != ",".join(GROUPS):
            parser.error("--beside is a group of its own: leave out --only")
        args.beside, args.only = os.path.realpath(args.beside), "beside"
        return args
    args.only = args.only.split(",")
    for group in args.only:
        if group not in GROUPS:
            parser.error(f"--only: no group '{group}'; want some of {', '.join(GROUPS)}")
    return args


def measure(group, stage, report, beside):
    if beside:
        measure_beside(stage, report, {"beside": beside, "here": stage.world.build})
    elif group == "programs":
        measure_programs(stage, report)
    elif group == "agent":
        measure_agent(stage, report, [f"{a}:{TLS_PORT}" for a in SERVERS])
    elif group in AGENT_GROUPS:
        AGENT_GROUPS[group](stage.effort, report)
    else:
        timed = {"connects": measure_connects, "requests": measure_requests, "relay": measure_relay,
                 "unrelated": measure_unrelated, "packets": measure_packets}
        with no_bpf_statistics():
            timed[group](stage, report)


def effort_of(args):
    effort = dict(QUICK if args.quick else FULL)
    if args.steady_seconds:
        effort["steady_seconds"] = args.steady_seconds
    return effort


def run(args, report):
    cpus = Cpus()
    about = {**machine(), "load_before": os.getloadavg()[0]}
    print(f"KubeLB benchmark: Linux {about['kernel']}, {about['cpus']} x {about['cpu']}, "
          f"load {about['load_before']:.2f}; {cpus.text}")
    stolen, total = cpu_times()
    with World(backends=0) as world:
        stage = Stage(world, cpus, effort_of(args))
        for group in ["beside"] if args.beside else [g for g in GROUPS if g in args.only]:
            try:
                measure(group, stage, report, args.beside)
            except (WorldError, OSError, KeyError, ValueError, AssertionError,
                    subprocess.SubprocessError) as e:
                report.problem(group, f"{type(e).__name__}: {e}")
                with contextlib.suppress(WorldError):
                    stage.detach()
    stolen_after, total_after = cpu_times()
    about["load_after"] = os.getloadavg()[0]
    about["stolen_percent"] = 100 * (stolen_after - stolen) / max(1, total_after - total)
    report.end()
    print(f"Load at the end {about['load_after']:.2f}; {about['stolen_percent']:.1f} % of the CPU "
          "time was taken by the hypervisor.")
    return about


def main(argv=None):
    args = parse(argv)
    if os.geteuid() != 0:
        print("bench.py: needs root (network namespaces, bpffs)", file=sys.stderr)
        return 1
    raise_on_signals()
    report = Report()
    try:
        about = run(args, report)
        if args.json:
            with open(args.json, "w", encoding="utf-8") as f:
                json.dump({"machine": about, "rows": report.rows, "problems": report.problems}, f,
                          indent=1)
                f.write("\n")
    except (WorldError, OSError) as e:
        print(f"bench.py: {e}", file=sys.stderr)
        return 1
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
