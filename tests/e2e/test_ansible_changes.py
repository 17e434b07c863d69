# SPDX-License-Identifier: BSD-2-Clause
"""The Ansible role on two throw-away machines (rollout.py): what it refuses, what it changes, an
upgrade, and what it asks the kubelet and the apiservers."""

import json
import os
import re

import pytest

from helpers import served_set
from packages import NEXT
from rollout import (ALL, ALL_OF_THEM, NEEDS_ANSIBLE, Untouched, installed, read,
                     start_kubelet, steady_traffic)
from system import wait_until

pytestmark = [NEEDS_ANSIBLE, ALL_OF_THEM]

MISTAKES = {
    "misspelt": ({"kubelb_backend": ["10.0.0.1"]}, ["kubelb_backend: ", "no such variable"]),
    "no-apiservers": ({"kubelb_backends": []}, ["kubelb_backends: is empty"]),
    "values": ({"kubelb_policy": "leastconn", "kubelb_state": "there",
                "kubelb_probe": {"intervall": "1s"}, "kubelb_wait": "soon",
                "kubelb_backends": {"address": "10.0.0.1"}},
               ["kubelb_policy", "least-conn", "got: leastconn", "present, absent", "got: there",
                "intervall", "interval,", "kubelb_wait", "int", "kubelb_backends", "list"]),
    "package": ({"kubelb_package": "/nowhere/kubelb.deb"},
                ["kubelb_package: '/nowhere/kubelb.deb'"]),
}


@pytest.mark.parametrize("changes, words", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_the_variables(nodes, package, changes, words):
    """It stops at the first batch, before anything is changed, and the line names the variable."""
    with Untouched(*nodes.machines):
        run = nodes.play(**{"kubelb_package": package, "kubelb_batches": [1, 1], **changes})
    assert run.refused(*words).changed() == {"node1": 0}


def test_not_on_a_control_plane(nodes, package):
    nodes.first.write("/etc/kubernetes/manifests/kube-apiserver.yaml", "kind: Pod\n")
    with Untouched(nodes.first):
        nodes.play("--limit", "node1", kubelb_package=package).refused("node1: is a control plane")
    os.unlink(nodes.first.path("/etc/kubernetes/manifests/kube-apiserver.yaml"))


def test_check_mode_on_a_bare_node(nodes, package):
    with Untouched(*nodes.machines):
        run = nodes.play("--check", "--diff", kubelb_package=package).well()
    assert "nothing can judge the configuration with --check" in run.text
    assert all(n > 0 for n in run.changed().values())


def test_kubespray_names_the_apiservers(nodes, package):
    """The same configuration as by hand, from the inventory's groups. One node comes first."""
    settings = nodes.settings(kubelb_package=package)
    del settings["kubelb_backends"], settings["kubelb_batches"]
    run = nodes.play(book="kubespray.yml", plain=True, **settings).well()
    backends = "".join(f"- {b.endpoint}\n" for b in nodes.first.world.backends)
    assert set(run.changed()) == {"node1", "node2"}
    assert run.text.count("PLAY [KubeLB]") == 2
    for machine in nodes.machines:
        assert f"backends:\n{backends}" in read(machine)
        assert "http: 127.0.0.1:8082\n" in read(machine)
        assert served_set(machine.world) == ALL


def test_check_mode_shows_what_would_change(nodes, package):
    two = [b.endpoint for b in nodes.first.world.backends[:2]]
    with Untouched(*nodes.machines):
        run = nodes.play("--check", "--diff", kubelb_package=package, kubelb_backends=two).well()
    assert all(n > 0 for n in run.changed().values())
    gone = nodes.first.world.cp(3).endpoint
    assert f"\n-- {gone}" in run.text  # the file
    assert f"  - backend {gone}" in run.text  # what kubelb-load would do


def test_a_changed_list_is_applied_under_traffic(nodes, package):
    two = [b.endpoint for b in nodes.first.world.backends[:2]]
    with steady_traffic(nodes):
        run = nodes.play(kubelb_package=package, kubelb_backends=two).well()
        for machine in nodes.machines:
            wait_until(lambda m=machine: served_set(m.world, 10) == {"cp1", "cp2"}, "two backends")
    assert all(n > 0 for n in run.changed().values())
    # The agent takes the file up by itself, so that nothing else shows it.
    assert re.search(r"^RUNNING HANDLER \[kubelb : Apply the configuration\] \*+\nchanged:",
                     run.text, re.MULTILINE)


def test_what_kubelb_load_refuses_is_not_written(nodes, package):
    twice = [nodes.first.world.cp(1).endpoint] * 2
    with Untouched(*nodes.machines):
        run = nodes.play(kubelb_package=package, kubelb_backends=twice).refused(
            "kubelb.yaml:", "backends[1]", "the configuration of node1 is as it was")
    assert run.changed() == {"node1": 0, "node2": 0}


def test_a_backend_that_is_not_ready_may_be_accepted(nodes, package):
    for machine in nodes.machines:
        machine.world.cp(2).readyz(500)
    nodes.play(kubelb_package=package, kubelb_policy="random", kubelb_accept_warning=True).well()
    for machine in nodes.machines:
        assert "policy: random" in read(machine)


def test_an_upgrade_with_a_mistake(nodes, next_package):
    """The new package's own programs judge the configuration, and nothing is installed."""
    before = installed(nodes.first)
    with Untouched(nodes.second):
        nodes.play(kubelb_package=next_package, kubelb_settings={"policy": "nonsense"},
                   kubelb_batches=[1, 1]).refused(
            "kubelb.yaml:", "nonsense", "the configuration of node1 is as it was")
    assert installed(nodes.first) == before


def test_an_upgrade_under_traffic(nodes, next_package):
    with steady_traffic(nodes):
        nodes.play(kubelb_package=next_package).well()
    for machine in nodes.machines:
        assert installed(machine) == f"ii {NEXT}"
        assert served_set(machine.world) == ALL


# --- the node as the kubelet and the apiservers see it ---------------------------


def node_object(ready):
    return json.dumps({"kind": "Node", "status": {"conditions": [
        {"type": "MemoryPressure", "status": "False", "message": "enough"},
        {"type": "Ready", "status": ready, "message": f"the kubelet says {ready}"}]}})


def test_an_ill_kubelet_stops_the_roll_out(nodes, next_package):
    for machine in nodes.machines:
        start_kubelet(machine)
    settings = {"kubelb_package": next_package, "kubelb_kubelet": True, "kubelb_wait": 2,
                "kubelb_batches": [1, 1]}
    nodes.first.write("/run/kubelet-ill", "")
    with Untouched(nodes.second):
        nodes.play(**settings).refused("node1: the kubelet does not answer", "500")
    os.unlink(nodes.first.path("/run/kubelet-ill"))


def test_a_node_that_is_not_ready_stops_the_roll_out(nodes, next_package):
    """The apiservers are asked by the kubelet's own certificate, through KubeLB."""
    world = nodes.first.world
    with open(world.pki.client("system:node:worker1"), encoding="ascii") as f:
        nodes.first.write("/var/lib/kubelet/pki/kubelet-client-current.pem", f.read())
    apis = [world.apiserver(i, client_certs="optional") for i in (1, 2, 3)]
    settings = {"kubelb_package": next_package, "kubelb_kubelet": True, "kubelb_wait": 3}
    try:
        for ready in ("True", "False"):
            for api in apis:
                api.answer("/api/v1/nodes/worker1", status=200, body=node_object(ready),
                           headers={"Content-Type": "application/json"})
            run = nodes.play("--limit", "node1", **settings)
            if ready == "True":
                run.well()
            else:
                run.refused("node1: the node worker1 is not Ready", "the kubelet says False")
        asked = sum(len(api.requests(uri="/api/v1/nodes/worker1")) for api in apis)
        assert asked > 2
    finally:
        world.remove_apiservers()
        for backend in world.backends:
            backend.restore(world.pki)
        os.unlink(nodes.first.path("/var/lib/kubelet/pki/kubelet-client-current.pem"))
