# SPDX-License-Identifier: BSD-2-Clause
"""scripts/check-layers.py finds what it is there to find, in a copy of the sources."""

import os
import shutil
import subprocess

import pytest

from system import run_checked
from world import ROOT


@pytest.fixture(name="tree")
def tree_fixture(tmp_path):
    for part in ("user", "scripts", "docs"):
        shutil.copytree(os.path.join(ROOT, part), tmp_path / part)
    return tmp_path


def check(tree, *args):
    return subprocess.run([str(tree / "scripts" / "check-layers.py"), *args], capture_output=True,
                          text=True, check=False)


def append(path, text):
    with open(path, "a", encoding="utf-8") as f:
        f.write(text)


def test_as_it_is(tree):
    done = check(tree)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("file, header, arrow", [
    ("base/log.c", "net/endpoint.h", "base/log uses net/endpoint"),
    ("balance/plan.h", "datapath/datapath.h", "balance/plan uses datapath/datapath"),
    ("discovery/cache.c", "datapath/datapath.h", "discovery/cache uses datapath/datapath"),
    ("load/attach.c", "agent/agent.h", "load/attach uses agent/agent"),
])
def test_wrong_way(tree, file, header, arrow):
    append(tree / "user" / file, f'#include "{header}"\n')
    done = check(tree)
    assert done.returncode == 1 and arrow in done.stdout


def test_another_arrow_is_not_drawn(tree):
    """It goes the right way, and the page does not know it."""
    append(tree / "user" / "config" / "config.c", '#include "host/node.h"\n')
    done = check(tree)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "check-layers: docs/architecture.md: the drawing is out of date; "
        "scripts/check-layers.py --draw"]


def test_circle(tree):
    """By objects: an include tells nothing of who calls whom."""
    build = tree / "build"
    shutil.copytree(os.path.join(ROOT, "build", "user"), build / "user")
    for name, other in (("one", "two"), ("two", "one")):
        source = tree / "user" / "base" / f"{name}.c"
        source.write_text(f"void {other}(void);\nvoid {name}(void);\nvoid {name}(void) {{ {other}(); }}\n")
        run_checked(["gcc", "-c", str(source), "-o", str(build / "user" / "base" / f"{name}.o")])
    done = check(tree, str(build))
    assert done.returncode == 1 and "a circle: base/one, base/two" in done.stdout
