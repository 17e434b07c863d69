#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The lines of user/ that have run, by gcov, for each folder and in total.

    scripts/coverage.py BUILD [--files] [--parts] [--functions] [--uncovered FILE] [--at-least PERCENT]

BUILD is where scripts/coverage.sh has built; the counters of its parts are added up. --files: each
file, too. --parts: how many lines each part runs, and how many of them no other one. --functions: those
that nothing has called. --uncovered: the lines of one file that nothing has run. Exit status: 0 the
total is at least PERCENT (TARGET unless it is given), 1 it is not.
"""

import argparse
import collections
import concurrent.futures
import json
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TARGET = 85


def below(folder, suffix):
    for place, _folders, names in os.walk(os.path.join(folder, "user")):
        for name in names:
            if name.endswith(suffix):
                yield os.path.relpath(os.path.join(place, name), folder)


def trees(build):
    """(part, folder with counters): what the parts of scripts/coverage.sh have, root's and other users',
    and what programs have written beside their objects, whose name is ''."""
    parts = os.path.join(build, "parts")
    names = sorted(os.listdir(parts)) if os.path.isdir(parts) else []
    return [("", build)] + [(name.split(".uid")[0], os.path.join(parts, name)) for name in names]


def notes(build, tree):
    """What gcc noted of each object that counts in this tree: gcov looks for both in one folder."""
    if tree == build:
        yield from (os.path.join(build, name) for name in below(build, ".gcno"))
        return
    for counters in list(below(tree, ".gcda")):
        name = os.path.splitext(counters)[0] + ".gcno"
        source, place = os.path.join(build, name), os.path.join(tree, name)
        if os.path.exists(source):
            if not os.path.islink(place):
                os.symlink(os.path.abspath(source), place)
            yield place


def lines_of(note):
    """((file, line, function, count) of one object, whether the counters are of another build)."""
    done = subprocess.run(["gcov", "--json-format", "--stdout", note], cwd=ROOT, capture_output=True,
                          text=True, check=False)
    old = "stamp mismatch" in done.stderr
    if not old:
        done.check_returncode()
    found = []
    for report in done.stdout.splitlines():
        for source in json.loads(report)["files"]:
            path = os.path.relpath(os.path.join(ROOT, source["file"]), ROOT)
            if path.startswith("user" + os.sep):
                found += [(path, line["line_number"], line.get("function_name"), line["count"])
                          for line in source["lines"]]
    return found, old


class Counts:
    """lines: {file: {line: how often}}; a line of a header is in many objects. functions:
    {(file, function): how often}. parts: {part: the (file, line) that it has run}. old: {part: how
    many objects have been built since it ran}."""

    def __init__(self, build):
        self.lines = collections.defaultdict(collections.Counter)
        self.functions = collections.Counter()
        self.parts = collections.defaultdict(set)
        self.old = collections.Counter()
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for part, tree in trees(build):
                for lines, old in pool.map(lines_of, sorted(notes(build, tree))):
                    self.old[part] += old
                    self.add(part, lines)

    def add(self, part, lines):
        for path, number, function, count in lines:
            self.lines[path][number] += count
            self.functions[path, function] += count
            if count:
                self.parts[part].add((path, number))

    def tell_old(self):
        old = [part or "tests without a part" for part, n in self.old.items() if n]
        if old:
            print(f"coverage.py: up to {max(self.old.values())} objects have been built since these ran, "
                  f"whose lines in them do not count: {', '.join(old)}", file=sys.stderr)


def row(name, lines):
    ran = sum(1 for count in lines if count)
    print(f"{name:<34} {ran:>6} of {len(lines):>6}  {100 * ran / len(lines):5.1f} %")


def report(found, files):
    folders = collections.defaultdict(list)
    for path, lines in sorted(found.items()):
        folders[os.path.dirname(path)] += lines.values()
        if files:
            row(path, list(lines.values()))
    for folder, lines in sorted(folders.items()):
        row(folder + "/", lines)
    total = [count for lines in folders.values() for count in lines]
    row("total", total)
    return 100 * sum(1 for count in total if count) / len(total)


def show_parts(parts):
    times = collections.Counter(line for lines in parts.values() for line in lines)
    print(f"{'part':<34} {'lines':>6} {'only it':>8}")
    for part, lines in sorted(parts.items(), key=lambda item: -len(item[1])):
        print(f"{part or '-':<34} {len(lines):>6} {sum(1 for line in lines if times[line] == 1):>8}")


def show_functions(functions):
    for path, function in sorted(key for key, count in functions.items() if key[1] and not count):
        print(f"{path:<34} {function}")


def show_uncovered(path, lines):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        for number, text in enumerate(f, 1):
            if lines.get(number) == 0:
                print(f"{number:>5}  {text}", end="")


def arguments():
    parser = argparse.ArgumentParser(prog="coverage.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("--files", action="store_true")
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--functions", action="store_true")
    parser.add_argument("--uncovered", metavar="FILE")
    parser.add_argument("--at-least", type=float, default=TARGET, metavar="PERCENT")
    return parser.parse_args()


def main():
    args = arguments()
    found = Counts(args.build)
    if not found.lines:
        print(f"coverage.py: {args.build} has no notes of gcc: run scripts/coverage.sh first", file=sys.stderr)
        return 1
    found.tell_old()
    if args.uncovered:
        show_uncovered(args.uncovered, found.lines.get(args.uncovered, {}))
        return 0
    if args.parts:
        show_parts(found.parts)
    if args.functions:
        show_functions(found.functions)
    percent = report(found.lines, args.files)
    if percent < args.at_least:
        print(f"coverage.py: {percent:.1f} % of the lines have run, {args.at_least:g} % are wanted",
              file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
