# SPDX-License-Identifier: BSD-2-Clause
"""docs/security.md keeps its word: what it names exists."""

import ast
import os
import re

import pytest

from system import run_checked
from world import ROOT

PAGE = os.path.join(ROOT, "docs", "security.md")
PROGRAMS = ("kubelb-load", "kubelb-agent", "kubelbctl")


def section(title):
    with open(PAGE, encoding="utf-8") as f:
        text = f.read()
    return text.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def rows(title):
    """The cells of a section's table, without its head."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def functions_of(name):
    with open(os.path.join(ROOT, "tests", "e2e", name), encoding="utf-8") as f:
        return {node.name for node in ast.parse(f.read()).body
                if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@pytest.mark.parametrize("row", rows("Promises"), ids=lambda row: row[0][:40])
def test_promise_has_its_tests(row):
    _promise, held_by = row
    names = re.findall(r"`([^`]+)`", held_by)
    assert names, "a promise that no test holds"
    for name in names:
        if "::" in name:
            file, function = name.split("::")
            assert function in functions_of(file), name
        else:
            assert os.path.isfile(os.path.join(ROOT, name)), name


def test_fuzz_targets_are_run():
    """Those that the page names are among those that `make fuzz` runs."""
    with open(os.path.join(ROOT, "Makefile"), encoding="utf-8") as f:
        run = re.search(r"^FUZZERS := (.*)$", f.read(), re.MULTILINE).group(1).split()
    named = set(re.findall(r"tests/fuzz/fuzz_(\w+)\.c", section("Promises")))
    assert named and named <= set(run)


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_library_is_named(world, program):
    shown = run_checked(["readelf", "-dW", world.program(program)])
    named = set(re.findall(r"lib[\w.-]+\.so\.\d+", section("Supply chain")))
    linked = set(re.findall(r"\(NEEDED\).*\[(.*)\]", shown))
    assert linked and linked <= named


def test_no_invented_address():
    """Reports go to the repository's own advisories: no mail address is promised."""
    assert "](../SECURITY.md)" in section("Reporting a vulnerability")
    with open(os.path.join(ROOT, "SECURITY.md"), encoding="utf-8") as f:
        text = f.read()
    assert "security advisories" in text and "@" not in text
