#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""What a fleet of nodes does to its apiservers in an hour, in virtual time: how even the connections
are, what a death, a restart or a change costs, what probes cost.

Run it by scripts/simulate.sh, which builds first. build/test/simulate is one run of it; this
program makes the runs, and shows and judges them.

    hour     for each number of apiservers, with rebalance on and off; with what docs/scale.md
             has for 10,000 nodes: probe.ping 10s, probe.interval 65s
    probes   six minutes in which nothing happens, with several probe.ping and probe.interval
    compare  the hour without slow start, and with the other policies, for fewer nodes (--compared)

The hour: minute 10 an apiserver is killed, back at 15; minute 20 the host of another vanishes, back
at 25; from minute 30 on all restart, a minute each; then another client certificate, another
apiserver in the place of one, and one more is killed.

It prints a table of each, and the targets; what is under way goes to standard error. It needs no
root. With 10,000 nodes a run takes 1 GB of memory and some minutes, all of them half an hour; 1,000
nodes take a tenth. Exit status: 0 all was run (targets may be missed), 1 something was not, 2 the
command line is wrong.
"""

import argparse
import collections
import concurrent.futures
import json
import os
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("KUBELB_BUILD", os.path.join(ROOT, "build"))
# probe.ping and probe.interval: for 10,000 nodes by docs/scale.md; what the probes are run with.
LARGE = ("10s", "65s")
PROBES_OF = (("1s", "5s"), ("5s", "5s"), ("10s", "5s"), ("10s", "15s"), LARGE)
POLICIES = ("random", "rendezvous", "latency")
# Seconds between two checks of HAProxy: as Kubespray sets it up, and its own default.
HAPROXY = {"Kubespray, inter 15s": 15, "default, inter 2s": 2}
# Microseconds of an apiserver: docs/scale.md.
PING_US, HANDSHAKE_US, HAPROXY_US = 60, 5300, 350 * 15
STEADY, RESTARTED, HERD, PROBES = 1.05, 1.10, 2.0, 0.25

Run = collections.namedtuple("Run", "scenario nodes apiservers policy slow_start rebalance ping interval")


def runs_of(args):
    """Every run; those that nothing but ratios are taken from have fewer nodes."""
    for n in args.apiservers:
        if "hour" in args.only:
            yield from (Run("hour", args.nodes, n, "least-conn", True, moves, *LARGE)
                        for moves in (True, False))
        if "probes" in args.only:
            yield from (Run("probes", args.nodes, n, "least-conn", True, False, *probe)
                        for probe in PROBES_OF)
        if "compare" in args.only:
            yield from (Run("hour", args.compared, n, "least-conn", False, moves, *LARGE)
                        for moves in (True, False))
            yield from (Run("hour", args.compared, n, policy, True, False, *LARGE)
                        for policy in POLICIES)


def simulate(run, args):
    print("simulating:", *(f"{k}={v}" for k, v in run._asdict().items()), file=sys.stderr)
    command = [os.path.join(BUILD, "test", "simulate"), "--scenario", run.scenario,
               "--apiservers", str(run.apiservers), "--policy", run.policy,
               "--nodes", str(run.nodes), "--seed", str(args.seed),
               "--probe", f"ping: {run.ping}, interval: {run.interval}"]
    command += [] if run.slow_start else ["--no-slow-start"]
    command += ["--rebalance"] if run.rebalance else []
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}")
    return json.loads(done.stdout)


# --- what the runs say ----------------------------------------------------------


def mark(result, what):
    return next(m for m in result["marks"] if m["what"] == what)


def rates(result, what):
    return [r for r in result["rates"] if r["what"] == what]


def herd(result, what):
    """The worst second of connects at one apiserver, in steady rates of one."""
    steady = result["rates"][0]["connects"]["before"]
    return max((r["connects"]["worst"] / steady for r in rates(result, what)), default=0)


def evenness(result, what):
    """In that second: the most connects at one of them, in the mean of all that serve. The first
    time, when all have as many connections before."""
    return rates(result, what)[0]["connects"]["even"]


def worst(result, what, kind):
    return max((r[kind]["worst"] for r in rates(result, what)), default=0)


def on(value):
    return "on" if value else "off"


def table(title, head, rows):
    widths = [max(len(str(row[i])) for row in [head, *rows]) for i in range(len(head))]
    print(f"\n{title}\n")
    for row in [head, ["-" * w for w in widths], *rows]:
        print("| " + " | ".join(str(c).ljust(w) for c, w in zip(row, widths)) + " |")


def show_hours(hours):
    marks = ("steady", "killed", "returned", "vanished", "restarted", "restarted + 10 min", "end")
    table("Imbalance: the most connections of an apiserver, in the mean of those that serve",
          ["nodes", "apiservers", "policy", "slow start", "rebalance", *marks, "moved"],
          [[run.nodes, run.apiservers, run.policy, on(run.slow_start), on(run.rebalance),
            *(f"{mark(result, m)['max_over_mean']:.3f}" for m in marks),
            mark(result, "end")["rebalanced"]] for run, result in hours])
    table("The worst second at one apiserver: connects, in its steady rate; handshakes of probes",
          ["nodes", "apiservers", "policy", "slow start", "rebalance", "steady /s", "kill", "vanish",
           "restart", "return", "kill, max/mean", "vanish, max/mean", "reload, handshakes",
           "list, handshakes", "failed connects"],
          [[run.nodes, run.apiservers, run.policy, on(run.slow_start), on(run.rebalance),
            f"{result['rates'][0]['connects']['before']:.0f}",
            *(f"{herd(result, what):.1f}" for what in ("kill", "vanish", "restart", "return")),
            *(f"{evenness(result, what):.2f}" for what in ("kill", "vanish")),
            worst(result, "reload", "handshakes"), worst(result, "list", "handshakes"),
            mark(result, "end")["failed"]] for run, result in hours])


def probe_rates(result):
    """PINGs and GETs a second at one apiserver, and what they and HAProxy's checks are beside."""
    steady = rates(result, "steady")[0]
    return steady["pings"]["before"], steady["gets"]["before"]


def show_probes(probes):
    rows = []
    for run, result in probes:
        pings, gets = probe_rates(result)
        row = [run.apiservers, run.ping, run.interval, f"{pings:.0f}", f"{gets:.0f}"]
        for seconds in HAPROXY.values():
            checks = result["nodes"] / seconds
            row += [f"{checks:.0f}", f"{gets / checks:.2f}", f"{(pings + gets) / checks:.2f}"]
        rows.append([*row, f"{pings * PING_US / (result['nodes'] * HAPROXY_US / 15):.2f}"])
    head = ["apiservers", "ping", "interval", "PINGs/s", "GETs/s"]
    for name in HAPROXY:
        head += [f"HAProxy's checks/s ({name})", "GETs / checks", "all / checks"]
    table("What an apiserver is asked while nothing happens", [*head, "CPU of PINGs / of HAProxy's"],
          rows)


def verdict(value, limit):
    return "met" if value <= limit else "MISSED"


def targets(results):
    """(what, value, limit) for each target and run that it is about."""
    for run, result in results:
        name = f"{run.apiservers} apiservers"
        if run.scenario == "probes":
            _pings, gets = probe_rates(result)
            if run.ping != LARGE[0]:
                continue
            for who, seconds in HAPROXY.items():
                yield (f"requests / HAProxy's checks ({who}), {name}, interval {run.interval}",
                       gets * seconds / result["nodes"], PROBES)
        elif run.policy == "least-conn" and run.slow_start and run.rebalance:
            yield f"steady, {name}", mark(result, "steady")["max_over_mean"], STEADY
            yield (f"10 min after a rolling restart, {name}",
                   mark(result, "restarted + 10 min")["max_over_mean"], RESTARTED)
            for what in ("kill", "vanish"):
                yield f"worst second after a {what}, {name}", herd(result, what), HERD


# --- files ------------------------------------------------------------------------


def summary(run, result):
    """Without the series, which the plots show."""
    kept = {k: v for k, v in result.items() if k in ("marks", "rates")}
    return {**run._asdict(), **kept}


def page_rows(results):
    """The rows of the tables in docs/scale.md."""
    marks = ("steady", "killed", "returned", "restarted", "restarted + 10 min")
    for run, result in results:
        first = f"| {run.apiservers} | "
        if run.scenario == "probes":
            pings, gets = probe_rates(result)
            parts = (f"{gets * seconds / result['nodes']:.2f}" for seconds in HAPROXY.values())
            yield (f"{first}`{run.ping}` | `{run.interval}` | {pings:,.0f} | {gets:,.0f} | "
                   + " | ".join(parts) + " |")
            continue
        if not run.slow_start:
            continue
        if run.policy == "least-conn" or run.apiservers == 3:
            values = (f"{mark(result, m)['max_over_mean']:.2f}" for m in marks)
            yield f"{first}`{run.policy}` | {on(run.rebalance)} | " + " | ".join(values) + " |"
        if run.policy == "least-conn":
            values = [f"{herd(result, what):.0f}" for what in ("kill", "vanish", "restart", "return")]
            values += [f"{evenness(result, what):.2f}" for what in ("kill", "vanish")]
            yield f"{first}{on(run.rebalance)} | " + " | ".join(values) + " |"


PLOT = """set terminal svg size 800,360 noenhanced font 'sans,11' background rgb 'white'
set output '{out}'
set title '{title}'
set xlabel 'minute'
set ylabel '{ylabel}'
set key outside right
set yrange [0:*]
set grid ytics lc rgb '#dddddd'
plot {lines}
"""


def gnuplot(path, title, ylabel, series):
    """series: name to values, one in each ten seconds."""
    blocks, lines = [], []
    for number, (name, values) in enumerate(series.items()):
        rows = "\n".join(f"{i / 6:.4f} {v}" for i, v in enumerate(values))
        blocks.append(f"$d{number} << EOD\n{rows}\nEOD\n")
        lines.append(f"$d{number} using 1:2 with lines lw 1.5 title '{name}'")
    script = "".join(blocks) + PLOT.format(out=path, title=title, ylabel=ylabel,
                                           lines=", ".join(lines))
    subprocess.run(["gnuplot"], input=script, text=True, check=True)


def plot(run, result, folder):
    name = f"{run.apiservers}-{'rebalance' if run.rebalance else 'default'}"
    title = f"{result['nodes']} nodes, {run.apiservers} apiservers, rebalance {on(run.rebalance)}"
    gnuplot(os.path.join(folder, f"connections-{name}.svg"), title, "connections",
            {f"apiserver {i}": [row[i] for row in result["open"]]
             for i in range(run.apiservers + 1)})
    gnuplot(os.path.join(folder, f"connects-{name}.svg"), title, "connects in the worst second",
            {"connects": result["worst_connects"], "handshakes of probes":
             result["worst_handshakes"]})


def write(results, args):
    os.makedirs(args.write, exist_ok=True)
    with open(os.path.join(args.write, "figures.json"), "w", encoding="ascii") as f:
        head = {"seed": args.seed,
                "watches": results[0][1]["watches"],
                "short_per_second": results[0][1]["short_per_second"]}
        rows = ",\n".join(json.dumps(summary(*one)) for one in results)
        f.write(json.dumps(head)[:-1] + f', "runs": [\n{rows}\n]}}\n')
    if not shutil.which("gnuplot"):
        print("simulate.py: no gnuplot, no plots: install gnuplot-nox", file=sys.stderr)
        return
    for run, result in results:
        if run.scenario == "hour" and run.policy == "least-conn" and run.slow_start:
            plot(run, result, args.write)


# --- the command line -----------------------------------------------------------------


def numbers(text):
    return [int(n) for n in text.split(",")]


def parse():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=10000,
                        help="of the hour and the probes (default: 10000)")
    parser.add_argument("--compared", type=int, default=1000, metavar="NODES",
                        help="of the runs of compare (default: 1000)")
    parser.add_argument("--apiservers", type=numbers, default=[3, 5, 7], metavar="N,...",
                        help="2 to 8 each (default: 3,5,7)")
    parser.add_argument("--only", type=lambda t: t.split(","), default=["hour", "probes", "compare"],
                        metavar="hour,probes,compare", help="some of the three (default: all)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time (default: 1)")
    parser.add_argument("--seed", type=int, default=1,
                        help="the same seed gives the same figures (default: 1)")
    parser.add_argument("--write", metavar="DIR",
                        help="write figures.json there, and the plots if gnuplot is installed")
    args = parser.parse_args()
    if set(args.only) - {"hour", "probes", "compare"}:
        parser.error("--only takes hour, probes and compare")
    return args


def main():
    args = parse()
    runs = list(runs_of(args))
    try:
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            results = list(zip(runs, pool.map(lambda run: simulate(run, args), runs)))
    except (OSError, RuntimeError) as e:
        print(f"simulate.py: {e}", file=sys.stderr)
        return 1
    if set(args.only) & {"hour", "compare"}:
        show_hours([one for one in results if one[0].scenario == "hour"])
    if "probes" in args.only:
        show_probes([one for one in results if one[0].scenario == "probes"])
    table("Targets", ["what", "value", "target", ""],
          [[what, f"{value:.2f}", f"{limit:.2f}", verdict(value, limit)]
           for what, value, limit in targets(results)])
    if args.write:
        write(results, args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
