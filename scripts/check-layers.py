#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Do the folders of user/ keep their order, and do no files call each other in a circle? Part of
`make lint`.

    scripts/check-layers.py [BUILD]      0: they do, and docs/architecture.md shows them as they are.
                                         1: a line for each arrow that goes the wrong way
    scripts/check-layers.py --draw       the drawing for docs/architecture.md

A file uses another when it includes its header, or (with BUILD, where the objects are: build/)
when its object refers to a symbol that the other's defines (nm).
"""

import collections
import os
import re
import subprocess
import sys

# What stands later may use what stands earlier; those of one line know nothing of each other.
ORDER = (("base",), ("net",), ("host",), ("config",), ("balance",),
         ("datapath", "discovery", "import"), ("load", "ctl"), ("relay",), ("agent",))
RANK = {folder: rank for rank, folders in enumerate(ORDER) for folder in folders}
INCLUDE = re.compile(r'^#include "(\w+)/(\w+)\.h"', re.M)


def sources(root):
    for folder in RANK:
        directory = os.path.join(root, "user", folder)
        for name in sorted(os.listdir(directory)):
            if name.endswith((".c", ".h")):
                yield folder, name, os.path.join(directory, name)


def include_arrows(root):
    """(user, used) as folder/stem, by headers."""
    for folder, name, path in sources(root):
        with open(path, encoding="utf-8") as f:
            text = f.read()
        for used in INCLUDE.findall(text):
            if used[0] in RANK:
                yield f"{folder}/{os.path.splitext(name)[0]}", "/".join(used)


def symbols(path):
    """What an object defines for others, and what it wants of them."""
    defined, wanted = set(), set()
    done = subprocess.run(["nm", "-g", path], capture_output=True, text=True, check=True)
    for line in done.stdout.splitlines():
        kind, name = line.split()[-2:]
        (wanted if kind in "Uw" else defined).add(name)
    return defined, wanted


def symbol_arrows(root, build):
    """(user, used), by objects."""
    objects, owner = {}, {}
    for folder, name, _path in sources(root):
        stem, ext = os.path.splitext(name)
        if ext == ".c":
            path = os.path.join(build, "user", folder, stem + ".o")
            objects[f"{folder}/{stem}"] = symbols(path)
    for file, (defined, _wanted) in objects.items():
        # Every program has one.
        owner.update({name: file for name in defined if name != "main"})
    for file, (_defined, wanted) in objects.items():
        for used in {owner[name] for name in wanted if name in owner}:
            if used != file:
                yield file, used


def folder(file):
    return file.split("/", maxsplit=1)[0]


def wrong_way(arrows):
    for user, used in sorted(set(arrows)):
        if folder(user) != folder(used) and RANK[folder(used)] >= RANK[folder(user)]:
            yield f"{user} uses {used}: {folder(used)}/ stands above, or beside, {folder(user)}/"


def circles(arrows):
    """Groups of files of which each reaches each other (Tarjan)."""
    graph = collections.defaultdict(set)
    for user, used in arrows:
        graph[user].add(used)
    index, low, stack, on_stack, found = {}, {}, [], set(), []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        on_stack.add(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in on_stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = []
            while not group or group[-1] != node:
                group.append(stack.pop())
                on_stack.discard(group[-1])
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def draw(arrows):
    """The folders, each with those that it uses, the topmost first."""
    used = collections.defaultdict(set)
    for user, other in arrows:
        if folder(user) != folder(other):
            used[folder(user)].add(folder(other))
    return "".join(f"{name:<10}" + (" → " + " ".join(n for n in reversed(RANK) if n in used[name])
                                    if used[name] else "") + "\n" for name in reversed(RANK))


def check_drawing(root, arrows):
    where = os.path.join(root, "docs", "architecture.md")
    with open(where, encoding="utf-8") as f:
        if f"```\n{draw(arrows)}```\n" not in f.read():
            yield "docs/architecture.md: the drawing is out of date; scripts/check-layers.py --draw"


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    args = [a for a in sys.argv[1:] if not a.startswith("-")]
    arrows = list(include_arrows(root))
    if "--draw" in sys.argv[1:]:
        print(draw(arrows), end="")
        return 0
    calls = list(symbol_arrows(root, args[0])) if args else []
    faults = list(wrong_way(arrows + calls))
    faults += ["a circle: " + ", ".join(group) for group in circles(calls)]
    faults += check_drawing(root, arrows)
    for fault in faults:
        print(f"check-layers: {fault}")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
