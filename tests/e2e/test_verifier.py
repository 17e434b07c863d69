# SPDX-License-Identifier: BSD-2-Clause
"""What the verifier goes through for each program, held against a budget: the kernel's
limit is a million steps, and a program that needs most of them on one kernel is refused
by the next. And how large the programs are, held against docs/architecture.md."""

import ctypes
import os
import platform
import re
import struct
import subprocess

import pytest

from helpers import bpftool, objects, ok
from world import ROOT

BPF_PROG_GET_FD_BY_ID = 13
SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
BUDGET = os.path.join(ROOT, "tests", "verifier.budget")


def verified_steps(prog_id):
    """From the descriptor's fdinfo (kernel/bpf/syscall.c, bpf_prog_show_fdinfo)."""
    libc = ctypes.CDLL(None, use_errno=True)
    attr = ctypes.create_string_buffer(struct.pack("III", prog_id, 0, 0), 12)
    fd = libc.syscall(SYSCALL[platform.machine()], BPF_PROG_GET_FD_BY_ID, attr, 12)
    assert fd >= 0, os.strerror(ctypes.get_errno())
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as f:
            fields = dict(line.split(":", 1) for line in f)
    finally:
        os.close(fd)
    return int(fields["verified_insns"]) if "verified_insns" in fields else None


def budget():
    with open(BUDGET, encoding="ascii") as f:
        lines = [line.split() for line in f if line.strip() and not line.startswith("#")]
    return {name: int(steps) for name, steps in lines}


def test_every_program_keeps_its_budget(stage):
    ok(stage.load())
    names = {bpftool("prog", "show", "id", i)["name"]: i for i in objects(stage)["prog"]}
    steps = {name: verified_steps(i) for name, i in names.items()}
    if None in steps.values():
        pytest.skip("this kernel does not say how many steps a program took (5.16)")
    assert set(steps) == set(budget()), "tests/verifier.budget names each program"
    over = {name: (n, budget()[name]) for name, n in steps.items() if n > budget()[name]}
    assert not over, f"steps and budget: {over}"
    slack = {name: (n, budget()[name]) for name, n in steps.items() if n < budget()[name] / 2}
    assert not slack, f"take the budget down, steps and budget: {slack}"


BUILDS = ("casts", "plain", "old")
ARCHITECTURE = os.path.join(ROOT, "docs", "architecture.md")
INSTRUCTION = 8  # bytes
CALLED = "called functions"
SLACK = 0.02


def output(*argv):
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def bpf_object(world, build):
    return os.path.join(world.build, "bpf", f"kubelb_{build}.bpf.o")


def instructions(path):
    """Of each program, and of the functions that they call, which are in .text."""
    symbols = [line.split() for line in output("llvm-readelf", "-sW", path).splitlines()]
    functions = [f for f in symbols if len(f) == 8 and f[3] == "FUNC"]
    text = re.search(r"\[ *(\d+)\] \.text ", output("llvm-readelf", "-SW", path))[1]
    counts = {f[7]: int(f[2]) // INSTRUCTION for f in functions if f[6] != text}
    counts[CALLED] = sum(int(f[2]) // INSTRUCTION for f in functions if f[6] == text)
    return counts


def compiler(path):
    """As the object's debugging information names it."""
    return re.search(r'DW_AT_producer\s+\("(.*)"\)', output("llvm-dwarfdump", path))[1]


def documented(head):
    """The table of docs/architecture.md whose first line begins so: its columns, {head: {name:
    number}}, and the compiler that the section names."""
    with open(ARCHITECTURE, encoding="utf-8") as f:
        text = f.read().split("### How large the programs are", 1)[1].split("\n### ", 1)[0]
    lines = text[text.index(f"| program | {head}"):].split("\n\n", 1)[0].splitlines()
    heads, *rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]
    table = {h: {row[0]: int(row[i]) for row in rows[1:]} for i, h in enumerate(heads) if i}
    return table, re.search(r"compiled by `(.*?)`", text)[1]


@pytest.mark.parametrize("build", BUILDS)
def test_every_program_is_as_large_as_its_row_says(world, build):
    """More instructions are more steps for every verifier; who adds them sees it here."""
    path = bpf_object(world, build)
    table, by = documented(BUILDS[0])
    if compiler(path) != by:
        pytest.skip(f"the table is for {by}, this is {compiler(path)}")
    counts, rows = instructions(path), table[build]
    assert set(counts) == set(rows), "docs/architecture.md has a row for each program"
    other = {name: (n, rows[name]) for name, n in counts.items() if abs(n - rows[name]) > SLACK * rows[name]}
    assert not other, f"instructions, and what the column {build} of docs/architecture.md says: {other}"


def test_the_steps_of_each_kernel_are_within_the_budget():
    """What docs/architecture.md says of other kernels, and what scripts/vmtest.sh holds them to."""
    table, _by = documented("6.1")
    assert len(table) == 3
    for kernel, steps in table.items():
        assert set(steps) == set(budget()), kernel
        over = {name: n for name, n in steps.items() if n > budget()[name]}
        assert not over, f"{kernel}: {over}"
