# SPDX-License-Identifier: BSD-2-Clause
"""The Ansible role: its files, and a roll-out, what stops one, and the way back, on two throw-away
machines (rollout.py). test_ansible_changes.py and test_ansible_proxy.py have the rest."""

import os
import re
import shutil
import subprocess

import pytest
import yaml

from helpers import served_set
from rollout import (ALL, CONFIG, ELSEWHERE, NEEDS_ANSIBLE, ROLE, UNITS, Untouched, brief, installed,
                     listeners, read, start_kubelet, there, write_kubelet_conf)
from system import wait_until
from world import ROOT

KUBEADM = os.path.join(ROOT, "deploy", "kubeadm")

pytestmark = NEEDS_ANSIBLE


# --- the files -----------------------------------------------------------------


def run_in_role(*argv, **env):
    return subprocess.run(["nice", *argv], cwd=ROLE, capture_output=True, text=True, check=False,
                          env={**os.environ, "ANSIBLE_NOCOLOR": "1", **env})


def has_no_faults(done):
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("book", ["kubelb.yml", "kubespray.yml"])
def test_syntax(book):
    has_no_faults(run_in_role("ansible-playbook", "-i", "localhost,", "--syntax-check", book))


@pytest.mark.skipif(not shutil.which("ansible-lint"), reason="ansible-lint is not installed")
def test_ansible_lint(tmp_path):
    """By name: of a folder it would take what git knows alone, and leave the role out."""
    done = run_in_role("ansible-lint", "--offline", "--nocolor", "kubelb.yml", "kubespray.yml",
                       "roles/kubelb", HOME=str(tmp_path))
    has_no_faults(done)
    files = int(re.search(r"on (\d+) files", done.stdout + done.stderr).group(1))
    assert files > 15


@pytest.mark.skipif(not shutil.which("yamllint"), reason="yamllint is not installed")
def test_yamllint():
    has_no_faults(run_in_role("yamllint", "--strict", "."))


def test_kubeadm_files():
    """They name each other, and the CA where the role puts it: kubeadm wants its own place free."""
    with open(os.path.join(KUBEADM, "join.yaml"), encoding="utf-8") as f:
        join = yaml.safe_load(f)
    with open(os.path.join(KUBEADM, "discovery.yaml"), encoding="utf-8") as f:
        discovery = yaml.safe_load(f)
    assert (join["apiVersion"], join["kind"]) == ("kubeadm.k8s.io/v1beta4", "JoinConfiguration")
    assert join["discovery"]["file"] == {"kubeConfigPath": "/etc/kubelb/discovery.yaml"}
    assert discovery["clusters"][0]["cluster"] == {"server": "https://127.0.0.1:6443",
                                                   "certificate-authority": "/etc/kubelb/ca.crt"}


# --- two nodes -----------------------------------------------------------------


def mode(machine, path):
    return machine.run("stat", "-c", "%a %U:%G", path).strip()


def test_roll_out(nodes, package):
    """Both nodes, one after the other. The units are started with the configuration in place."""
    run = nodes.play(kubelb_package=package, kubelb_batches=[1, 1]).well()
    assert set(run.changed()) == {"node1", "node2"}
    assert run.text.count("PLAY [KubeLB]") == 2
    for machine in nodes.machines:
        assert installed(machine).startswith("ii ")
        assert "  ca: /etc/kubernetes/pki/ca.crt\n" in read(machine)
        assert mode(machine, CONFIG) == "644 root:root"
        assert mode(machine, os.path.dirname(CONFIG)) == "755 root:root"
        for unit in UNITS:
            assert machine.run("systemctl", "is-active", unit) == "active\n"
            assert machine.run("systemctl", "is-enabled", unit) == "enabled\n"
        # It warns while the agent happens to hold the lock.
        wait_until(lambda m=machine: brief(m).startswith("KUBELB OK"), "KubeLB to be well")
        assert served_set(machine.world) == ALL


def test_a_second_run_changes_nothing(nodes, package):
    if not all(installed(machine).startswith("ii ") for machine in nodes.machines):
        nodes.play(kubelb_package=package).well()
    with Untouched(*nodes.machines):
        run = nodes.play(kubelb_package=package).well()
    assert run.changed() == {"node1": 0, "node2": 0}


def test_a_dead_backend_stops_the_roll_out(nodes, package):
    """One node of a batch ends all of it, before anything is configured, and no other batch comes."""
    nodes.first.world.cp(2).kill()
    with Untouched(*nodes.machines):
        run = nodes.play(kubelb_package=package, kubelb_policy="random", kubelb_batches=[2, 1],
                         again=True).refused(
            "node1: 2 of 3 backends answer", nodes.first.world.cp(2).endpoint,
            "nothing is configured")
    assert run.changed() == {"node1": 0, "node2": 0}


def test_a_backend_that_is_not_ready_stops_the_roll_out(nodes, package):
    """It answers the preflight, and the agent finds out: the first node has the configuration, the
    others are not touched."""
    nodes.first.world.cp(2).readyz(500)
    with Untouched(nodes.second):
        run = nodes.play(kubelb_package=package, kubelb_policy="random", kubelb_wait=2,
                         kubelb_batches=[1, 1]).refused(
            "node1: KUBELB WARNING", nodes.first.world.cp(2).endpoint, "the roll-out ends")
    assert set(run.counts) == {"node1"}
    assert "policy: random" in read(nodes.first)
    assert "policy" not in read(nodes.second)


def test_absent_stays_where_the_kubelet_would_reach_nobody(nodes):
    """The agent's own relay is nobody: it listens on the port while it stands in for a backend."""
    for machine in nodes.machines:
        start_kubelet(machine)
    nodes.first.world.cp(3).link(up=False)
    wait_until(lambda: "kubelb-agent" in listeners(nodes.first), "the relay to stand in")
    with Untouched(nodes.second):
        nodes.play(kubelb_state="absent", kubelb_batches=[1, 1]).refused(
            "node1: the kubelet dials", "https://127.0.0.1:6443", "KubeLB stays")
    assert installed(nodes.first).startswith("ii ") and os.path.isdir(nodes.first.pin)


def test_absent(nodes):
    for machine in nodes.machines:
        write_kubelet_conf(machine, ELSEWHERE)
    run = nodes.play(kubelb_state="absent", kubelb_purge=True).well()
    assert all(n > 0 for n in run.changed().values())
    for machine in nodes.machines:
        assert not os.path.isdir(machine.pin)
        assert not installed(machine).startswith("ii")
        assert not there(machine, "/var/cache/kubelb") and not there(machine, CONFIG)
    with Untouched(*nodes.machines):
        run = nodes.play(kubelb_state="absent", kubelb_purge=True).well()
    assert run.changed() == {"node1": 0, "node2": 0}
