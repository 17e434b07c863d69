# SPDX-License-Identifier: BSD-2-Clause
"""What the verifier goes through for each program, held against a budget: the kernel's
limit is a million steps, and a program that needs most of them on one kernel is refused
by the next."""

import ctypes
import os
import platform
import struct

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
