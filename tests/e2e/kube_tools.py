# SPDX-License-Identifier: BSD-2-Clause
"""helm and kubectl: those of scripts/kube-tools.py, or else what is installed."""

import functools
import os
import shutil
import subprocess

import pytest

from world import ROOT


@functools.cache
def fetched():
    """(directory, why there is none)."""
    done = subprocess.run([os.path.join(ROOT, "scripts", "kube-tools.py")], capture_output=True,
                          text=True, timeout=300, check=False)
    return done.stdout.strip(), done.stderr.strip()


def kube_tool(name):
    """The path of helm or kubectl. Where it cannot be had, the test is skipped."""
    directory, why = fetched()
    path = os.path.join(directory, name) if directory else shutil.which(name)
    return path or pytest.skip(f"no {name}: {why}")
