# SPDX-License-Identifier: BSD-2-Clause
"""What the kernel says of BPF programs: which are attached, how often they ran, for how long."""

import contextlib
import ctypes
import glob
import json
import os
import platform
import re
import struct

from system import WorldError, cgroup2_root, run_checked

SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
PROG_GET_FD_BY_ID, ENABLE_STATS = 13, 32  # enum bpf_cmd
STATISTICS = "/proc/sys/kernel/bpf_stats_enabled"


def bpftool(*args):
    return json.loads(run_checked(["bpftool", "-j", *map(str, args)]).strip() or "null")


def bpf(command, attributes):
    """bpf(2), for a command that returns a descriptor."""
    number = SYSCALL.get(platform.machine())
    if number is None:
        raise WorldError(f"the number of bpf(2) on {platform.machine()} is not known here")
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(number, command, ctypes.create_string_buffer(attributes, 128), 128)
    if fd < 0:
        raise WorldError(f"bpf({command}): {os.strerror(ctypes.get_errno())}")
    return fd


@contextlib.contextmanager
def bpf_statistics():
    """The kernel measures BPF programs for as long as the descriptor is open,
    as with kernel.bpf_stats_enabled=1, which however would outlive a kill -9."""
    fd = bpf(ENABLE_STATS, struct.pack("=I", 0))  # BPF_STATS_RUN_TIME
    try:
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def no_bpf_statistics():
    """Somebody may have them on; they would add two clock reads to every run of a
    program, and so to what is timed. Puts the setting back afterwards."""
    with open(STATISTICS, encoding="ascii") as f:
        before = f.read()
    if before.strip() == "0":
        yield
        return
    write_statistics("0")
    try:
        yield
    finally:
        write_statistics(before)


def write_statistics(value):
    with open(STATISTICS, "w", encoding="ascii") as f:
        f.write(value)


def other_programs():
    """How many connect4 programs are attached at the root by somebody else:
    they run on our connects as well, and on both sides of every comparison."""
    try:
        attached = bpftool("cgroup", "show", cgroup2_root()) or []
    except WorldError:
        return 0  # one of them went away while it was being listed
    return sum(p.get("attach_type") in ("connect4", "cgroup_inet4_connect") for p in attached)


def program_ids(pin):
    """Name -> id of the programs that a kubelb-load has attached, by its pins."""
    ids = {}
    for path in glob.glob(f"{pin}/links/*"):
        program = bpftool("link", "show", "pinned", path)["prog_id"]
        ids[bpftool("prog", "show", "id", program)["name"]] = program
    return ids


class Runs:
    """The runs of some programs (name -> id), by descriptors: a look takes microseconds,
    where bpftool takes ten milliseconds for each. Use it as a context manager."""

    def __init__(self, ids):
        self.fds = {name: bpf(PROG_GET_FD_BY_ID, struct.pack("=I", i)) for name, i in ids.items()}

    def now(self):
        """name -> (nanoseconds, runs) so far."""
        return {name: self.look(fd) for name, fd in self.fds.items()}

    def look(self, fd):
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as f:
            fields = dict(re.findall(r"^run_(time_ns|cnt):\s+(\d+)$", f.read(), re.MULTILINE))
        return int(fields["time_ns"]), int(fields["cnt"])

    def since(self, before):
        now = self.now()
        return {name: (now[name][0] - before[name][0], now[name][1] - before[name][1])
                for name in now}

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for fd in self.fds.values():
            os.close(fd)
