# SPDX-License-Identifier: BSD-2-Clause
"""The packages, built from this tree once in a run, however many workers of pytest-xdist there are.

Tests take the fixtures of conftest.py: `package` and `next_package` (.deb), `rpm`.
"""

import fcntl
import os
import subprocess

import pytest

from machine import repack
from world import ROOT

BUILD = os.environ.get("KUBELB_BUILD", os.path.join(ROOT, "build"))
NEXT = "99.0"


def once(factory, name, make):
    """What make(directory) has returned in the first call of the run, a path: for pytest's
    tmp_path_factory. The workers' own directories lie side by side in one that they share."""
    shared = factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        shared = shared.parent
    result = shared / f"{name}.path"
    with open(shared / f"{name}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not result.exists():
            result.write_text(make(str(shared / name)), encoding="utf-8")
    return result.read_text(encoding="utf-8")


def build(script):
    """For once(): how a script of ours makes its package."""
    def make(directory):
        done = subprocess.run([os.path.join(ROOT, "scripts", script), "", directory],
                              capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()
    return make


def next_version(factory, package):
    """The next version, whose maps are of the next ABI version (`make abi-next`)."""
    programs = os.path.join(BUILD, "abi-next")
    if not os.access(os.path.join(programs, "kubelb-load"), os.X_OK):
        pytest.skip(f"{programs}/kubelb-load is not built (make abi-next)")

    def make(directory):
        os.makedirs(directory, exist_ok=True)
        return repack(package, directory, NEXT, programs)
    return once(factory, "next-deb", make)
