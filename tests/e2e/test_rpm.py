# SPDX-License-Identifier: BSD-2-Clause
"""The RPM package: what is in it, and what its scripts do on a node (a throw-away machine,
tests/world/machine.py, whose own packages are Debian's: rpm goes by its own database there)."""

import os
import shutil
import subprocess

import pytest

from hardening import weaknesses
from helpers import objects, ok, served_set, still_there, wait_idle
from machine import Machine
from system import run_checked, wait_until
from test_package import NOTHING_YET, START, assert_check_runs, beside_the_programs
from world import ROOT

ALL = {"cp1", "cp2", "cp3"}
UNITS = ("kubelb-load.service", "kubelb-agent.service")

pytestmark = pytest.mark.skipif(not shutil.which("rpmbuild"),
                                reason="rpmbuild is not installed (scripts/deps.sh)")


def query(rpm, *arguments):
    return run_checked(["rpm", "-qp", *arguments, rpm])


def test_contents(rpm, tmp_path):
    """The same files as the Debian package, and no configuration; hardened programs."""
    files = set(query(rpm, "-l").split())
    assert {"/usr/sbin/kubelb-load", "/usr/sbin/kubelb-agent", "/usr/sbin/kubelbctl",
            *(f"/usr/lib/systemd/system/{unit}" for unit in UNITS),
            "/usr/share/man/man8/kubelbctl.8", "/usr/share/man/man7/kubelb.7",
            "/usr/share/man/man5/kubelb.yaml.5", "/usr/share/doc/kubelb/operations.md",
            "/usr/share/doc/kubelb/examples/kubelb.yaml",
            "/usr/share/kubelb/grafana/kubelb.json",
            "/usr/share/kubelb/prometheus/kubelb-alerts.yaml",
            "/usr/share/bash-completion/completions/kubelbctl",
            "/usr/share/zsh/site-functions/_kubelb",
            "/usr/share/fish/vendor_completions.d/kubelbctl.fish",
            "/usr/libexec/kubelb/next-step", "/etc/kubelb/kubelb.yaml.example",
            *beside_the_programs()} <= files
    assert "python" not in query(rpm, "--requires")
    assert "/etc/kubelb/kubelb.yaml" not in files
    assert query(rpm, "--qf", "%{VERSION}") in query(rpm, "--changelog")
    run_checked(["sh", "-c", f"cd {tmp_path} && rpm2cpio {rpm} | cpio -idm --quiet"])
    for name in ("kubelb-load", "kubelb-agent", "kubelbctl"):
        assert weaknesses(str(tmp_path / "usr/sbin" / name)) == [], name
    assert_check_runs(tmp_path)


@pytest.mark.skipif(not shutil.which("rpmlint"), reason="rpmlint is not installed")
def test_rpmlint(rpm):
    done = subprocess.run(["rpmlint", "-r", os.path.join(ROOT, "deploy/rpm/kubelb.rpmlintrc"),
                           rpm], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and " 0 errors, 0 warnings" in done.stdout, done.stdout


def test_life_on_a_node(world, rpm):
    """It starts nothing by itself, and says what does; the new one replaces what is attached, in place; it takes the
    data path along when it goes."""
    pin, build = world.pin, world.build
    try:
        with Machine(world) as machine:
            world.pin, world.build = machine.pin, machine.path("/usr/sbin")
            shutil.copy(rpm, machine.path("/root/kubelb.rpm"))
            said = machine.run("rpm", "-i", "--nodeps", "/root/kubelb.rpm")
            assert NOTHING_YET in said and START in said
            assert not os.path.exists(machine.pin)
            machine.configure()
            machine.run("systemctl", "enable", "--now", *UNITS)
            wait_until(lambda: served_set(world) == ALL, "all to be served")
            before = machine.show("kubelb-agent", "MainPID")
            said = machine.exec("rpm", "-U", "--nodeps", "--replacepkgs", "/root/kubelb.rpm")
            assert NOTHING_YET not in ok(said).stdout + said.stderr
            assert served_set(world) == ALL
            wait_until(lambda: machine.show("kubelb-agent", "MainPID") != before, "a new agent")
            wait_idle(world)
            ids = objects(world)
            machine.run("rpm", "-e", "kubelb")
            wait_until(lambda: not any(still_there(ids).values()), "everything to be gone")
            assert not os.path.exists(machine.pin)
            assert ok(machine.exec("sh", "-c", "! pgrep kubelb"))
    finally:
        world.pin, world.build = pin, build
        world.reset()
