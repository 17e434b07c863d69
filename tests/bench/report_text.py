#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""The report's tables, made from report.json.

    tests/bench/report_text.py           writes docs/bench/README.md, and the block of figures in README.md
    tests/bench/report_text.py --check   writes nothing; 1: one of them says something else
"""

import argparse
import json
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BEGIN = "<!-- figures: from docs/bench/report.json, by tests/bench/report_text.py -->"
END = "<!-- end of figures -->"
WHO = {"kubelb": "KubeLB", "direct": "direct", "nginx": "nginx", "haproxy": "HAProxy",
       "nft": "nft DNAT"}
LOADS = [f"{protocol}, {n} kept connection{'s' * (n > 1)}" for protocol in ("HTTP/1.1", "HTTP/2")
         for n in (1, 8, 64)]
WAYS = ("bulk from the apiserver", "bulk to the apiserver")
FAULTS = ("killed", "hung", "black-holed", "drained", "restarted")
GONE = ("killed", "hung", "black-holed")
FIRST = "connect + TLS + first byte"
OUT_OF = {"failed connects": "new connections", "failed requests": "requests"}
COUNTS = (10, 1000, 10000)


class Report:
    """Figures by what and by whom."""

    def __init__(self, report):
        self.about, self.missing = report["about"], report["not measured"]
        self.rows = {(r["what"], r["who"]): r for r in report["figures"]}

    def get(self, what, who):
        return self.rows.get((what, who))

    def median(self, what, who):
        row = self.get(what, who)
        return row and row["median"]

    def memory(self, who, count):
        """MiB: what is anonymous of the processes, and the maps."""
        rows = [self.get(f"memory at {count} connections: {part}", who)
                for part in ("anonymous", "maps")]
        return sum(r["median"] for r in rows if r) if rows[0] else None


def number(value):
    """Three digits that count."""
    if value is None:
        return "-"
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def spread(row):
    """Median, and the extremes behind it."""
    if row is None:
        return "-"
    text = number(row["median"])
    return text if row["n"] == 1 else f"{text} ({number(row['min'])} .. {number(row['max'])})"


def table(head, rows):
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines) + "\n"


# --- targets ------------------------------------------------------------------


def targets(report):
    """[(what, measured, target, met)]."""
    rows = []
    for load in LOADS:
        what = f"{load}: requests a second"
        for base, least in (("direct", 0.98), ("nginx", 1.8)):
            rows.append(ratio_row(report, what, base, least, None))
    rows += [ratio_row(report, way, "direct", 0.97, None) for way in WAYS]
    rows.append(ratio_row(report, FIRST, "direct", None, 1.03))
    for fault in FAULTS:
        row = report.get(f"{fault}: failed connects", "kubelb")
        rows.append((f"an apiserver is {fault}: failed connects, worst round of {row['n']}",
                     failed(report, fault, "failed connects", "kubelb"), "0", row["max"] == 0))
    rows += [stay_row(report, fault) for fault in GONE]
    ours, theirs = report.memory("kubelb", 10000), report.memory("nginx", 10000)
    rows.append(("memory at 10,000 connections / nginx's", number(ours / theirs), "<= 0.20",
                 ours / theirs <= 0.2))
    return rows


def ratio_row(report, what, base, least, most):
    row = report.get(what, f"kubelb / {base}")
    met = row["median"] >= least if least else row["median"] <= most
    text = f"{row['median']:.3f} ({row['min']:.3f} .. {row['max']:.3f})"
    return (f"{what}, of {base}", text, f">= {least}" if least else f"<= {most}", met)


def stay_row(report, fault):
    """The longest of ours beside the shortest of theirs; what still stayed when nobody looked any
    more stays at least as long."""
    what = f"{fault}: stay"
    ours = report.get(what, "kubelb")
    theirs = min(report.get(what, who)["min"] for who in ("nginx", "haproxy", "nft"))
    met = not ours["at_least"] and ours["max"] <= theirs / 10
    return (f"an apiserver is {fault}: idle connections to it stay / the shortest of any other's",
            f"{at_least(ours)}{ours['max']:.3f} s / {theirs:.3f} s", "<= 0.1", met)


def at_least(row):
    return "> " if row.get("at_least") else ""


def reason(report, what):
    """Why a target is out of reach for whatever balances, or nothing."""
    if what.endswith("of nginx"):
        rate = what.removesuffix(", of nginx")
        best = report.median(rate, "direct") / report.median(rate, "nginx")
        return f"a client that dials the apiserver itself comes to {best:.2f}" if best < 1.8 else ""
    if "is hung: failed connects" in what:
        return ("a stopped process's kernel goes on accepting; who has connected before the hang can be "
                "seen gets no answer")
    if "is killed: idle connections" in what:
        return "the killed process's own kernel ends them at once, whoever balances"
    return ""


def verdict(met):
    return "met" if met else "**missed**"


# --- the page -----------------------------------------------------------------


def page(report):
    return "\n".join([head(report), target_section(report), speed_section(report),
                      memory_section(report), fault_section(report), check_section(report)])


def head(report):
    a = report.about
    kind = "a quick run: few and short rounds" if a["quick"] else "the full run"
    versions = ", ".join(f"{name} {version}" for name, version in a["versions"].items())
    missing = "; ".join(f"{name}: not measured: {why}" for name, why in report.missing.items())
    return f"""# KubeLB beside others

<!-- This page is made by tests/bench/report_text.py from report.json. Do not edit it. -->

Measured by `scripts/bench.sh --report{' --quick' * a['quick']}` ({kind}) on {a['date']}, commit `{a['commit']}`.

- Machine: {a['cpus']} x {a['cpu']}, {a['memory_gib']} GiB, Linux {a['kernel']}. Load {a['load_before']} before and
  {a['load_after']} after; {a['stolen_percent']} % of the CPU time was taken by the hypervisor.
- Versions: {versions}.
- {missing}.

**direct** is a client that dials one apiserver itself. **nginx** is the stream proxy of the usual guides (`least_conn`,
`proxy_connect_timeout 1s`, `proxy_timeout 10m`). **HAProxy** has Kubespray's configuration (`GET /healthz` every 15 s). **nft DNAT** is a rule as
kube-proxy's nftables mode writes it, which nobody changes. All have three apiservers. A figure is the median of its rounds, with the
smallest and the largest behind it. [report.json](report.json) has each round. [soak.md](soak.md) is another test: an hour of everything that
happens to a node.
"""


def target_section(report):
    rows = targets(report)
    missed = sum(not r[3] for r in rows)
    return (f"## Targets\n\n{len(rows) - missed} of {len(rows)} are met, {missed} missed. Ratios are "
            "by round; a wide spread beside a miss points at other load on the machine.\n\n"
            + table(("what", "measured", "target", ""),
                    [(*r[:3], verdict(r[3])) for r in rows])
            + "".join(f"\n- {r[0]}: {why}" for r in rows
                      if not r[3] and (why := reason(report, r[0]))) + "\n")


def comparison(report, rows, who=WHO):
    """rows: (label, unit, what)."""
    return table(["", "unit", *(WHO[w] for w in who)],
                 [(label, unit, *(spread(report.get(what, w)) for w in who))
                  for label, unit, what in rows])


def speed_section(report):
    parts = ["## Speed\n\nClients and balancers share one CPU, as on a node; the apiservers have the "
             "other one. CPU time is that of client, balancer\nand server together, and of the kernel "
             "for them, by the cgroups that they are in.\n",
             "![New connections](first-byte.svg)\n", "![Requests](requests.svg)\n",
             "![Bulk](bulk.svg)\n", "![CPU time](cpu.svg)\n"]
    rows = [(FIRST, "µs", FIRST), (f"{FIRST}, 99th percentile", "µs", f"{FIRST}: p99")]
    for load in LOADS:
        rows += [(f"{load}: requests", "1/s", f"{load}: requests a second")]
        rows += [(f"{load}: {p}", "µs", f"{load}: {p}") for p in ("p50", "p99", "p99.9")]
        rows += [(f"{load}: CPU per request", "µs", f"{load}: CPU per request")]
    for way in WAYS:
        rows += [(way, "MB/s", way), (f"{way}: CPU per GB", "s", f"{way}: CPU per GB")]
    parts.append(comparison(report, rows))
    what = "unrelated connect + accept + close"
    parts.append("Connections on the loopback that are nobody's business; a proxy does not touch "
                 "them:\n\n" + table(
                     ("", "ns", "of nothing"),
                     [(label, spread(report.get(what, who)),
                       spread(report.get(what, f"{who} / nothing")))
                      for who, label in (("nothing", "nothing"), ("kubelb", "KubeLB"),
                                         ("nft", "nft DNAT"))]))
    return "\n".join(parts)


def memory_section(report):
    rows = []
    for who in ("kubelb", "nginx", "haproxy"):
        rows.append((WHO[who], *(number(report.memory(who, n)) for n in COUNTS),
                     *(number(report.median(f"memory at {n} connections: resident", who))
                       for n in COUNTS)))
    held = report.get("memory at 10000 connections: anonymous", "kubelb")["connections"]
    return ("## Memory\n\n![Memory](memory.svg)\n\nMiB: what is anonymous of the processes, for KubeLB "
            "with all its maps and its records of sockets; then their resident\nmemory, where what "
            "processes share counts for "
            f"each. The 10,000 are {held:,}: a proxy has two descriptors for each, and "
            f"{report.about['open_files']:,} at the most here.\nnginx and HAProxy have more "
            "`worker_connections` and `maxconn` than they ship with, or would refuse so many. The DNAT "
            "has no process.\n\n"
            + table(["", *(f"{n:,}" for n in COUNTS), *(f"{n:,}, resident" for n in COUNTS)], rows))


def fault_section(report):
    who = [w for w in WHO if w != "direct"]
    rows = []
    for fault in FAULTS:
        for what, unit in (("failed connects", ""), ("longest connect", "s"),
                           ("failed requests", ""), ("longest request", "s"), ("stay", "s")):
            cell = failed if what in OUT_OF else worst
            rows.append((f"{fault}: {what}", unit, *(cell(report, fault, what, w) for w in who)))
    made = report.get("killed: new connections", "kubelb")
    return ("## Faults\n\n![Failed connects](failed.svg)\n\n![Idle connections](stay.svg)\n\nOne of "
            "three apiservers, the worst round of "
            f"{made['n']}. Every balancer feels the same fault at the same time. A connect is one with "
            "a TLS handshake,\nand fails after 10 s. \"stay\": how long idle connections stay with an "
            "apiserver that is gone; `>`: they stayed until nobody looked any more.\nnginx gives them "
            "up after 10 minutes by its configuration, HAProxy after 5.\n\n"
            + table(["", "unit", *(WHO[w] for w in who)], rows))


def failed(report, fault, what, who):
    """Of how many, in the worst round."""
    row, made = report.get(f"{fault}: {what}", who), report.get(f"{fault}: {OUT_OF[what]}", who)
    most = row["values"].index(row["max"])
    return f"{row['max']} of {made['values'][most]:,}"


def worst(report, fault, what, who):
    row = report.get(f"{fault}: {what}", who)
    return "-" if row is None else f"{at_least(row)}{number(row['max'])}"


def check_section(report):
    rows = []
    for what in ("handshakes", "PINGs", "requests"):
        cells = [total(report.get(f"checks: {what}", w)) for w in ("kubelb", "haproxy")]
        rows.append((what, *cells, "none", "none"))
    seconds = report.get("checks: requests", "kubelb")["seconds"]
    return (f"## Checks\n\nWhat health checks cost one apiserver in {seconds} s (counted, not scaled), "
            "while clients have traffic: fewest to most\nof three.\n\n"
            + table(["", "KubeLB", "HAProxy", "nginx", "nft DNAT"], rows))


def total(row):
    return f"{row['min']:.0f} to {row['max']:.0f}"


# --- README.md ----------------------------------------------------------------


def block(report):
    """The figures of README.md."""
    who = ("direct", "kubelb", "nginx", "haproxy", "nft")
    rows = []
    for label, what in (("new connection to first byte, µs", FIRST),
                        ("requests/s, 8 kept connections, HTTP/1.1",
                         f"{LOADS[1]}: requests a second"),
                        ("requests/s, 8 kept connections, HTTP/2",
                         f"{LOADS[4]}: requests a second"),
                        ("bulk from the apiserver, MB/s", WAYS[0]),
                        ("bulk to the apiserver, MB/s", WAYS[1])):
        rows.append((label, *(number(report.median(what, w)) for w in who)))
    rows.append(("memory with 10,000 connections, MiB",
                 *(number(report.memory(w, 10000)) for w in who)))
    for fault in FAULTS:
        rows.append((f"apiserver {fault}: failed connects", "-", *(
            failed(report, fault, "failed connects", w) for w in ("kubelb", "nginx", "haproxy", "nft"))))
    for fault in GONE:
        rows.append((f"apiserver {fault}: idle connections stay, s",
                     *(worst(report, fault, "stay", w) for w in who)))
    all_ = targets(report)
    missed = [r for r in all_ if not r[3]]
    kind = "a quick run" if report.about["quick"] else "the full run"
    text = (f"{len(all_) - len(missed)} of {len(all_)} targets are met"
            + ("." if not missed else ", these are missed:") + "\n")
    text += "".join(f"\n- {what}: {measured}, target {target}{because(report, what)}"
                    for what, measured, target, _ in missed)
    return (f"{BEGIN}\n" + table(["", *(WHO[w] for w in who)], rows)
            + f"\nMedians, and the worst of faults; {kind} of {report.about['date']} on "
            f"{report.about['cpus']} CPUs with Linux {report.about['kernel'].split('-')[0]}. "
            f"{text.rstrip()}\n{END}")


def because(report, what):
    why = reason(report, what)
    return f" ({why})" if why else ""


def load(path):
    with open(path, encoding="utf-8") as f:
        return Report(json.load(f))


def with_block(text, report):
    """README.md with another block."""
    before, found, rest = text.partition(BEGIN)
    _old, closed, after = rest.partition(END)
    if not found or not closed:
        raise ValueError(f"no block {BEGIN} ... {END}")
    return before + block(report) + after


def write_page(report, out):
    with open(os.path.join(out, "README.md"), "w", encoding="utf-8") as f:
        f.write(page(Report(report)))


def wanted(root):
    """path -> the text that it has to have."""
    report = load(os.path.join(root, "docs/bench/report.json"))
    with open(os.path.join(root, "README.md"), encoding="utf-8") as f:
        readme = with_block(f.read(), report)
    return {"docs/bench/README.md": page(report), "README.md": readme}


def differs(root, path, text):
    try:
        with open(os.path.join(root, path), encoding="utf-8") as f:
            return f.read() != text
    except FileNotFoundError:
        return True


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args(argv)
    try:
        texts = {path: text for path, text in wanted(ROOT).items() if differs(ROOT, path, text)}
    except (OSError, ValueError, KeyError) as e:
        print(f"report_text.py: {e}", file=sys.stderr)
        return 1
    for path, text in texts.items():
        if args.check:
            print(f"report_text.py: {path} differs from docs/bench/report.json: run "
                  "tests/bench/report_text.py", file=sys.stderr)
        else:
            with open(os.path.join(ROOT, path), "w", encoding="utf-8") as f:
                f.write(text)
    return 1 if texts and args.check else 0


if __name__ == "__main__":
    sys.exit(main())
