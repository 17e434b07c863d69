# SPDX-License-Identifier: BSD-2-Clause
"""The Ansible role on two throw-away machines (rollout.py): a node that has not joined, and from a
proxy to KubeLB and back."""

import json
import os
import shutil
import subprocess

from helpers import served_set
from kube_tools import kube_tool
from rollout import (ALL, ALL_OF_THEM, CONFIG, ELSEWHERE, KUBELET_CONF, MANIFEST, NEEDS_ANSIBLE,
                     UNITS, Untouched, give_ca, give_proxy, proxy_listens, read, start_kubelet,
                     steady_traffic, there, write_kubelet_conf)
from system import wait_until
from world import ROOT

KUBEADM = os.path.join(ROOT, "deploy", "kubeadm")
CLIENT = r"""while printf 'GET /version HTTP/1.1\r\nHost: a\r\n\r\n'; do sleep 5; done |
openssl s_client -quiet -connect 127.0.0.1:6443"""

pytestmark = [NEEDS_ANSIBLE, ALL_OF_THEM]


def test_a_node_that_has_not_joined(nodes, package):
    """It has no CA, and a kubelet that is not well yet. What joins then reaches every apiserver."""
    for machine in nodes.machines:
        start_kubelet(machine)
    machine = nodes.first
    for path in ("/etc/kubernetes/kubelet.conf", "/etc/kubernetes/pki/ca.crt"):
        os.unlink(machine.path(path))
    machine.write("/run/kubelet-ill", "")
    nodes.play("--limit", "node1", kubelb_package=package, kubelb_kubelet=True,
               kubelb_ca=machine.world.ca).well()
    assert "  ca: /etc/kubelb/ca.crt\n" in read(machine)
    assert not there(machine, "/etc/kubernetes/pki/ca.crt")  # kubeadm would refuse to join
    assert served_set(machine.world) == ALL
    # As kubeadm would, with the same library. kubectl wants to be somebody, kubeadm does not.
    shutil.copy(os.path.join(KUBEADM, "discovery.yaml"), machine.path("/etc/kubelb/discovery.yaml"))
    said = machine.run(kube_tool("kubectl"), "--kubeconfig=/etc/kubelb/discovery.yaml",
                       "--token=any", "get", "--raw", "/version")
    assert json.loads(said)["backend"] in ALL
    os.unlink(machine.path("/etc/kubelb/discovery.yaml"))
    nodes.play("--limit", "node1", kubelb_state="absent", kubelb_purge=True).well()
    assert not there(machine, "/etc/kubelb/ca.crt")
    os.unlink(machine.path("/run/kubelet-ill"))
    give_ca(machine)
    write_kubelet_conf(machine, ELSEWHERE)


def import_settings(nodes, package, **changes):
    settings = nodes.settings(kubelb_package=package, kubelb_import="nginx", kubelb_kubelet=True,
                              **changes)
    for name in ("kubelb_backends", "kubelb_probe", "kubelb_settings"):
        del settings[name]
    return settings


def test_an_import_that_is_impossible(nodes, package):
    """Nothing is configured or attached; the program names file and line."""
    for machine in nodes.machines:
        give_proxy(machine)
    good = read(nodes.first, "/etc/nginx/nginx.conf")
    nodes.first.write("/etc/nginx/nginx.conf", good.replace("192.168.77.12", "cp2.example"))
    with Untouched(nodes.second):
        nodes.play(plain=True, **import_settings(nodes, package, kubelb_batches=[1, 1])).refused(
            "/etc/nginx/nginx.conf:", "cp2.example")
    assert not there(nodes.first, CONFIG) and not os.path.isdir(nodes.first.pin)
    nodes.first.write("/etc/nginx/nginx.conf", good)


def test_from_a_proxy(nodes, package):
    """No connect fails while the node goes from nginx to KubeLB, and the proxy is there until it is
    asked to go."""
    with steady_traffic(nodes):
        nodes.play(plain=True, **import_settings(nodes, package)).well()
        for machine in nodes.machines:
            assert "made by kubelb-load --from-nginx" in read(machine)
            assert there(machine, MANIFEST) and proxy_listens(machine)
        remove = import_settings(nodes, package, kubelb_proxy_remove=True)
        nodes.play(plain=True, **remove).well()
    for machine in nodes.machines:
        assert not there(machine, MANIFEST) and there(machine, "/etc/kubelb/nginx-proxy.yml")
        assert not proxy_listens(machine)
        assert served_set(machine.world) == ALL
    run = nodes.play(plain=True, **remove).well()
    assert run.changed() == {"node1": 0, "node2": 0}


def test_an_ill_kubelet_keeps_the_proxy(nodes, package):
    """The node is checked first: what is not well goes back more easily with its proxy. Kubespray's
    next run has written the manifest again."""
    machine = nodes.first
    machine.write(MANIFEST, "kind: Pod\n")
    wait_until(lambda: proxy_listens(machine), "the proxy to listen")
    machine.write("/run/kubelet-ill", "")
    settings = import_settings(nodes, package, kubelb_proxy_remove=True, kubelb_wait=1)
    nodes.play("--limit", "node1", plain=True, **settings).refused("the kubelet does not answer")
    assert there(machine, MANIFEST) and proxy_listens(machine)
    os.unlink(machine.path("/run/kubelet-ill"))


def test_the_proxy_stays_while_somebody_is_connected_through_it(nodes, package):
    """As kube-proxy is, for days."""
    machine = nodes.first
    # A client from before KubeLB. It asks from time to time: an idle one would be closed.
    machine.run("systemctl", "stop", *reversed(UNITS))
    machine.run("kubelb-load", "--detach")
    client = machine.spawn("sh", "-c", CLIENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    connected = ["ss", "-Htn", "state", "established", "sport = :6443"]
    wait_until(lambda: machine.run(*connected).strip(), "the connection through the proxy")
    settings = import_settings(nodes, package, kubelb_proxy_remove=True, kubelb_wait=2)
    kubelet = machine.show("kubelet", "MainPID")
    run = nodes.play("--limit", "node1", plain=True, **settings).well()
    assert "node1: the proxy stays" in run.text
    assert machine.show("kubelet", "MainPID") != kubelet  # asked to connect anew, as a first try
    assert there(machine, MANIFEST) and client.poll() is None
    nodes.play("--limit", "node1", plain=True, **settings, kubelb_proxy_force=True).well()
    assert not there(machine, MANIFEST) and not proxy_listens(machine)


def test_back_to_the_proxy(nodes):
    """First the proxy listens, then KubeLB goes: no connect fails."""
    for machine in nodes.machines:
        write_kubelet_conf(machine, KUBELET_CONF)
    with Untouched(*nodes.machines):
        run = nodes.play("--check", kubelb_state="absent").well()
    assert all(n > 0 for n in run.changed().values())
    with steady_traffic(nodes):
        nodes.play(kubelb_state="absent").well()
        for machine in nodes.machines:
            assert there(machine, MANIFEST) and proxy_listens(machine)
            assert not os.path.isdir(machine.pin)
    for machine in nodes.machines:
        assert there(machine, CONFIG)  # not purged
