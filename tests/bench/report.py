#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""KubeLB beside what else brings a node's connects to the apiservers, in one interleaved run.

Run it by scripts/bench.sh --report, which builds first. It measures, in throw-away worlds:

  speed    connect + TLS + first byte; requests on 1, 8 and 64 kept connections with HTTP/1.1 and
           HTTP/2; bulk both ways; CPU time for all of it; connections that are nobody's business
  memory   of the balancer with 10, 1,000 and 10,000 connections
  faults   what clients feel when an apiserver is killed, hung, black-holed, drained, restarted
  checks   handshakes and requests that health checks cost an apiserver

A balancer that answers wrong, or leaves out a backend, is refused: then there is no report. It
writes report.json, pictures (gnuplot) and README.md with the tables to --out: docs/bench, or
build/report with --quick. Whatever goes to docs/bench also makes the block of figures in the
repository's README.md (tests/bench/report_text.py).

It takes about half an hour, --quick about six minutes. Exit status: 0 all was measured, however
bad; 1 something was not; 2 the command line is wrong.
"""

import argparse
import datetime
import json
import os
import re
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)
sys.path[:0] = [HERE, os.path.join(TESTS, "world"), os.path.join(TESTS, "e2e")]

import peers  # noqa: E402  (after sys.path)
import report_plots  # noqa: E402
import report_text  # noqa: E402
from bench import cpu_times, machine  # noqa: E402
from report_checks import measure_checks  # noqa: E402
from report_faults import measure_faults  # noqa: E402
from report_memory import measure_memory  # noqa: E402
from report_speed import ReportStage, accounted, measure_speed  # noqa: E402
from stage import Cpus  # noqa: E402
from system import WorldError  # noqa: E402
from world import ROOT, World, raise_on_signals  # noqa: E402

# Seconds are of one run, of the windows after faults, and of the checks.
FULL = {"rounds": 15, "seconds": 0.5, "bulk": 40, "first_bytes": 1000, "unrelated": 5000,
        "unrelated_rounds": 40, "fault_rounds": 3, "short": 15, "long": 75, "check_seconds": 300}
QUICK = {"rounds": 3, "seconds": 0.25, "bulk": 12, "first_bytes": 200, "unrelated": 3000,
         "unrelated_rounds": 9, "fault_rounds": 1, "short": 9, "long": 30, "check_seconds": 60}
PAGES = os.path.join(ROOT, "docs/bench")
PARTS = ("speed", "memory", "faults", "checks")


class Figures:
    """All that is measured. A figure has one value for each round; at_least: some are what was seen
    until nobody looked any more."""

    def __init__(self):
        self.rows, self.notes = [], []

    def add(self, what, who, unit, values, **more):
        self.rows.append({"what": what, "who": who, "unit": unit, "n": len(values),
                          "median": statistics.median(values), "min": min(values),
                          "max": max(values), **more, "values": [round(v, 6) for v in values]})

    def note(self, what, who, text):
        self.notes.append({"what": what, "who": who, "note": text})

    def say(self, text):
        print(f"  {text}", flush=True)


def version_of(*argv):
    """The first line that the program says of its version."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    match = re.search(r"\d+\.\d[\w.+~-]*", done.stdout + done.stderr)
    return match.group(0) if match else "unknown"


def commit():
    done = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"],
                          capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def about(args, effort):
    build = os.environ.get("KUBELB_BUILD", os.path.join(ROOT, "build"))
    return {"date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
            "commit": commit(), "quick": args.quick, "effort": effort, **machine(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
            "open_files": peers.hard_limit(), "load_before": round(os.getloadavg()[0], 2),
            "versions": {
                "kubelb": version_of(os.path.join(build, "kubelb-load"), "--version"),
                "nginx": version_of("nginx", "-v"), "haproxy": version_of("haproxy", "-v"),
                "nft": version_of("nft", "--version"), "h2load": version_of("h2load", "--version"),
                "gnuplot": version_of("gnuplot", "--version")}}


def measure(parts, effort, figures):
    for part, measure_part in (("speed", measure_speed), ("memory", measure_memory)):
        if part in parts:
            print(part, flush=True)
            with World(backends=0) as world, accounted(world) as group:
                measure_part(ReportStage(world, Cpus(), effort, group), figures)
    if "faults" in parts:
        print("faults", flush=True)
        measure_faults(effort, figures)
    if "checks" in parts:
        print("checks", flush=True)
        measure_checks(effort, figures)


def run(args):
    effort = QUICK if args.quick else FULL
    head, figures = about(args, effort), Figures()
    print(f"KubeLB report: Linux {head['kernel']}, {head['cpus']} x {head['cpu']}, load "
          f"{head['load_before']}", flush=True)
    stolen, total = cpu_times()
    measure(args.parts, effort, figures)
    stolen_after, total_after = cpu_times()
    head["load_after"] = round(os.getloadavg()[0], 2)
    head["stolen_percent"] = round(100 * (stolen_after - stolen) / max(1, total_after - total), 2)
    return {"about": head, "not measured": peers.absent(), "figures": figures.rows,
            "notes": figures.notes}


def write(report, out):
    """The JSON with a line for each figure."""
    os.makedirs(out, exist_ok=True)
    lines = {key: ",\n".join("  " + json.dumps(row) for row in report[key])
             for key in ("figures", "notes")}
    with open(os.path.join(out, "report.json"), "w", encoding="utf-8") as f:
        f.write("{\n" + f'"about": {json.dumps(report["about"], indent=1)},\n'
                f'"not measured": {json.dumps(report["not measured"])},\n'
                f'"figures": [\n{lines["figures"]}\n],\n"notes": [\n{lines["notes"]}\n]\n}}\n')


def parse(argv):
    parser = argparse.ArgumentParser(prog="bench.sh --report", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--out", metavar="DIR", help="where the report goes")
    parser.add_argument("--only", metavar="PART,...", default=",".join(PARTS),
                        help=f"some of: {', '.join(PARTS)}; needs --out, and makes no pages")
    args = parser.parse_args(argv)
    args.parts = args.only.split(",")
    for part in args.parts:
        if part not in PARTS:
            parser.error(f"--only: no part '{part}'; want some of {', '.join(PARTS)}")
    if len(args.parts) < len(PARTS) and not args.out:
        parser.error("--only makes a part of a report: say where it goes with --out")
    default = os.path.join(ROOT, "build/report") if args.quick else PAGES
    args.out = os.path.realpath(args.out or default)
    return args


def main(argv=None):
    args = parse(argv)
    if os.geteuid() != 0:
        print("report.py: needs root (network namespaces, bpffs)", file=sys.stderr)
        return 1
    raise_on_signals()
    try:
        report = run(args)
    except (WorldError, OSError, subprocess.SubprocessError) as e:
        print(f"report.py: no report: {e}", file=sys.stderr)
        return 1
    write(report, args.out)
    if len(args.parts) == len(PARTS):
        report_plots.draw(report, args.out)
        report_text.write_page(report, args.out)
        if args.out == PAGES:
            report_text.main([])
    print(f"written to {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
