# SPDX-License-Identifier: BSD-2-Clause
"""What the compiler and the linker have put into a program against those who find a mistake in
it, read from the program itself: the flags of a build do not tell what ships."""

import platform
import re

import pytest

from system import run_checked

# Of strings and memory, which are what an attacker overruns; printf's are in every program.
FORTIFIED = re.compile(r"__(?:mem|str|stp|v?snprintf|v?asprintf|read|recv)\w*_chk")


def weaknesses(program):
    """What the program lacks, as a list; empty for one that has everything."""
    shown = run_checked(["readelf", "-hldnW", "--dyn-syms", program])
    if "libasan" in shown or "libubsan" in shown:
        pytest.skip("built with a sanitizer")
    stack = re.search(r"GNU_STACK\s+(?:0x\w+\s+){5}(\S+)", shown)
    has = {"PIE": re.search(r"Type:\s+DYN", shown) and re.search(r"FLAGS_1.*\bPIE\b", shown),
           "RELRO": "GNU_RELRO" in shown,
           "BIND_NOW": "BIND_NOW" in shown,
           "a stack that is not executable": stack and "E" not in stack.group(1),
           "stack protector": "__stack_chk_fail" in shown,
           "FORTIFY": FORTIFIED.search(shown)}
    if platform.machine() == "x86_64":
        marks = re.search(r"x86 feature: (.*?)(?:, x86 ISA|$)", shown, re.MULTILINE)
        for mark in ("IBT", "SHSTK"):
            has[mark] = marks and mark in marks.group(1)
    elif platform.machine() == "aarch64":
        # The start files of the C library may not have them; then no program has.
        has["BTI or PAC"] = "AArch64 feature" in shown or not marked_start_files()
    return [name for name, there in has.items() if not there]


def marked_start_files():
    path = run_checked(["gcc", "-print-file-name=Scrt1.o"]).strip()
    return "AArch64 feature" in run_checked(["readelf", "-nW", path])
