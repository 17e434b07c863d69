# SPDX-License-Identifier: BSD-2-Clause
"""What a release is made of: the source, and the commit that it says."""

import os
import re

import pytest

from system import run_checked
from world import ROOT

# What a copy of the source needs to say what it is.
SOURCE = ("Makefile", "scripts/source.sh")
with open(os.path.join(ROOT, "Makefile"), encoding="utf-8") as makefile:
    VERSION = re.search(r"^VERSION := (\S+)", makefile.read(), re.MULTILINE).group(1)


def say(tree, command):
    return run_checked(["bash", "-c", f"cd {tree} && . scripts/source.sh && {command}"]).strip()


def git(tree, *arguments):
    return run_checked(["git", "-c", "user.name=t", "-c", "user.email=t@t.invalid", "-C", tree,
                        *arguments]).strip()


@pytest.fixture(name="tree")
def tree_fixture(tmp_path):
    """A git tree of one commit."""
    tree = str(tmp_path / "tree")
    for name in SOURCE:
        os.makedirs(os.path.dirname(os.path.join(tree, name)), exist_ok=True)
        with open(os.path.join(ROOT, name), "rb") as f, open(os.path.join(tree, name), "wb") as g:
            g.write(f.read())
    git(tree, "init", "-q")
    git(tree, "add", ".")
    git(tree, "commit", "-q", "-m", "first")
    return tree


def test_commit_of_a_tree(tree):
    """Seven digits; a change shows until it is committed."""
    first = git(tree, "rev-parse", "HEAD")[:7]
    assert say(tree, "source_commit") == first
    with open(os.path.join(tree, "Makefile"), "a", encoding="utf-8") as f:
        f.write("# changed\n")
    assert say(tree, "source_commit") == f"{first}-dirty"
    git(tree, "commit", "-q", "-a", "-m", "second")
    assert say(tree, "source_commit") == git(tree, "rev-parse", "HEAD")[:7] != first


def test_copy_remembers(tree, tmp_path):
    """A copy without git has the commit and the time of its tree, and so has a copy of the copy."""
    commit, time = git(tree, "rev-parse", "HEAD")[:7], git(tree, "log", "-1", "--format=%ct")
    for name in ("copy", "copy-of-the-copy"):
        copy = str(tmp_path / name)
        say(tree, f"source_copy {copy}")
        assert not os.path.exists(os.path.join(copy, ".git"))
        os.utime(os.path.join(copy, "Makefile"))
        assert say(copy, "source_commit") == commit
        assert say(copy, "unset SOURCE_DATE_EPOCH; source_time") == time
        run_checked(["make", "-s", "-C", copy, "build/commit"])
        with open(os.path.join(copy, "build/commit"), encoding="ascii") as f:
            assert f.read().strip() == commit
        tree = copy


def test_export_that_knows_nothing(tree, tmp_path):
    run_checked(["cp", "-r", tree, str(tmp_path / "bare")])
    run_checked(["rm", "-rf", str(tmp_path / "bare/.git")])
    assert say(str(tmp_path / "bare"), "source_commit") == ""


@pytest.mark.parametrize("name", ["kubelb-load", "kubelb-agent", "kubelbctl"])
def test_version_has_the_commit(world, name):
    """The programs say what this build was made of."""
    with open(os.path.join(world.build, "commit"), encoding="ascii") as f:
        commit = f.read().strip()
    want = f"{name} {VERSION} ({commit})\n" if commit else f"{name} {VERSION}\n"
    assert run_checked([os.path.join(world.build, name), "--version"]) == want
