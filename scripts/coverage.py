#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The lines of user/ that have run, by gcov, for each folder and in total.

    scripts/coverage.py BUILD [--files] [--uncovered FILE]

BUILD is where scripts/coverage.sh has built. --files: each file, too. --uncovered: the lines of one
file that nothing has run. Exit status: 0 the total is at least TARGET percent, 1 it is not.
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


def objects(build):
    """What gcc noted of each object: with its counters, where it has run."""
    for folder, _folders, names in os.walk(os.path.join(build, "user")):
        for name in names:
            if name.endswith(".gcno"):
                yield os.path.join(folder, name)


def lines_of(note):
    """(file, line, count) of one object."""
    done = subprocess.run(["gcov", "--json-format", "--stdout", note], cwd=ROOT, capture_output=True,
                          text=True, check=True)
    for report in done.stdout.splitlines():
        for source in json.loads(report)["files"]:
            path = os.path.relpath(os.path.join(ROOT, source["file"]), ROOT)
            if path.startswith("user" + os.sep):
                yield from ((path, line["line_number"], line["count"]) for line in source["lines"])


def collect(build):
    """{file: {line: how often}}. A line of a header is in many objects."""
    found = collections.defaultdict(collections.Counter)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for lines in pool.map(lambda note: list(lines_of(note)), sorted(objects(build))):
            for path, number, count in lines:
                found[path][number] += count
    return found


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


def show_uncovered(path, lines):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        for number, text in enumerate(f, 1):
            if lines.get(number) == 0:
                print(f"{number:>5}  {text}", end="")


def main():
    parser = argparse.ArgumentParser(prog="coverage.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("--files", action="store_true")
    parser.add_argument("--uncovered", metavar="FILE")
    args = parser.parse_args()
    found = collect(args.build)
    if not found:
        print(f"coverage.py: {args.build} has no notes of gcc: run scripts/coverage.sh first", file=sys.stderr)
        return 1
    if args.uncovered:
        show_uncovered(args.uncovered, found.get(args.uncovered, {}))
        return 0
    percent = report(found, args.files)
    if percent < TARGET:
        print(f"coverage.py: {percent:.1f} % of the lines have run, {TARGET} % are wanted", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
