#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Is every function of user/ and bpf/ small? Part of `make lint`.

    scripts/check-functions.py    0: none has more than 40 lines, from its name to its '}'.
                                  1: a line for each that has
"""

import glob
import os
import sys

LINES_MAX = 40
# A line that ends what stands before a function.
ENDS = (";", "}", "*/")


def functions(lines):
    """(number of the first line, counted from 0, and of the last one) of each function."""
    start = None
    for number, line in enumerate(lines):
        if line == "{":
            start = number
            while start and lines[start - 1].strip() and not lines[start - 1].startswith("#") \
                    and not lines[start - 1].endswith(ENDS):
                start -= 1
        elif line == "}" and start is not None:
            yield start, number
            start = None


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    paths = sorted(glob.glob(os.path.join(root, "user", "*", "*.[ch]"))
                   + glob.glob(os.path.join(root, "bpf", "*.[ch]")))
    found, too_long = 0, 0
    for path in paths:
        with open(path, encoding="utf-8") as f:
            lines = f.read().split("\n")
        for first, last in functions(lines):
            found += 1
            if last - first + 1 > LINES_MAX:
                too_long += 1
                print(f"check-functions: {os.path.relpath(path, root)}:{first + 1}: a function of "
                      f"{last - first + 1} lines; split it, {LINES_MAX} are the most")
    if not found:
        print("check-functions: finds no functions any more")
    return bool(too_long or not found)


if __name__ == "__main__":
    sys.exit(main())
