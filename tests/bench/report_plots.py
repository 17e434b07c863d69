# SPDX-License-Identifier: BSD-2-Clause
"""The report's pictures, by gnuplot, as SVG and PNG: one message each. Bars are medians, with a line
from the smallest to the largest value of the rounds."""

import os
import subprocess

from report_text import COUNTS, FAULTS, FIRST, LOADS, WAYS, WHO, Report

COLOURS = {"kubelb": "#0b6e4f", "direct": "#9aa5b1", "nginx": "#d1495b", "haproxy": "#edae49",
           "nft": "#30638e"}
TERMINALS = {"svg": "svg size 900,480 font 'DejaVu Sans,15' background '#ffffff'",
             "png": "pngcairo size 900,480 font 'DejaVu Sans,12' background '#ffffff'"}
HEAD = """\
set encoding utf8
set terminal {terminal}
set output '{out}'
set title "{title}"
set ylabel '{ylabel}'
set grid ytics lc rgb '#dddddd'
set key outside top center horizontal
set border 3
set tics nomirror
{more}
"""
BARS = """\
set style data histograms
set style histogram errorbars gap 1 lw 1
set errorbars lc rgb '#222222'
set style fill solid 0.9 noborder
"""


def draw_one(out, name, title, ylabel, more, plot):
    """plot: what comes after the settings."""
    for kind, terminal in TERMINALS.items():
        path = os.path.join(out, f"{name}.{kind}")
        script = HEAD.format(terminal=terminal, out=path, title=title, ylabel=ylabel, more=more)
        subprocess.run(["gnuplot"], input=script + plot, text=True, check=True)


def bars(report, out, name, titles, groups, who, more="set yrange [0:*]"):
    """groups: (label, what). titles: the picture's, and the y axis's."""
    blocks, lines = [], []
    for w in who:
        rows = []
        for label, what in groups:
            row = report.get(what, w)
            rows.append(f'"{label}" ' + ("NaN NaN NaN" if row is None else
                                          f"{row['median']} {row['min']} {row['max']}"))
        blocks.append(f"${w} << EOD\n" + "\n".join(rows) + "\nEOD\n")
        lines.append(f"${w} using 2:3:4:xtic(1) lc rgb '{COLOURS[w]}' title '{WHO[w]}'")
    draw_one(out, name, *titles, BARS + more, "".join(blocks) + "plot " + ", ".join(lines) + "\n")


def requests(report, out):
    groups = [("{1}\\n{0}".format(*load.split(" kept")[0].split(", ")), f"{load}: requests a second")
              for load in LOADS]
    more = "set yrange [0:*]\nset xlabel 'kept connections' offset 0,-1\nset bmargin 5"
    bars(report, out, "requests", ("Requests on kept connections: KubeLB is not in their path",
                                   "requests a second"), groups, WHO, more)
    groups = [(label, what.replace("requests a second", "CPU per request"))
              for label, what in groups]
    bars(report, out, "cpu", ("CPU time for a request: client, balancer, server and kernel",
                              "µs"), groups, WHO, more)


def memory(report, out):
    blocks, lines = [], []
    for w in ("kubelb", "nginx", "haproxy"):
        rows = "\n".join(f"{n} {report.memory(w, n)}" for n in COUNTS)
        blocks.append(f"${w} << EOD\n{rows}\nEOD\n")
        lines.append(f"${w} using 1:2 with linespoints lw 2.5 pt 7 lc rgb '{COLOURS[w]}' "
                     f"title '{WHO[w]}'")
    draw_one(out, "memory", "Memory of the balancer while connections are held", "MiB, anonymous and maps",
             "set logscale xy\nset xlabel 'connections'\nset xrange [8:15000]\nset format x '%.0f'",
             "".join(blocks) + "plot " + ", ".join(lines) + "\n")


def draw(report, out):
    report = Report(report)
    bars(report, out, "first-byte", ("A new connection: connect, TLS and the first byte", "µs"),
         [("median of a round", FIRST), ("99th percentile of a round", f"{FIRST}: p99")], WHO)
    requests(report, out)
    bars(report, out, "bulk", ("Bulk data on one connection", "MB/s"),
         [(way.removeprefix("bulk "), way) for way in WAYS], WHO)
    memory(report, out)
    who = [w for w in WHO if w != "direct"]
    bars(report, out, "failed", ("New connections that fail when one of three apiservers is ...",
                                 "failed in a round"),
         [(fault, f"{fault}: failed connects") for fault in FAULTS], who)
    window = report.about["effort"]["long"]
    bars(report, out, "stay", ("How long idle connections stay with an apiserver that is gone",
                               f"seconds ({window}: nobody looked for longer)"),
         [(fault, f"{fault}: stay") for fault in ("hung", "black-holed")], who,
         f"set logscale y\nset yrange [0.1:{2 * window}]")
