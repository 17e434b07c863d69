# SPDX-License-Identifier: BSD-2-Clause
"""The Ansible role, run by a real ansible-playbook against two throw-away machines
(tests/world/machine.py), each with a systemd, a network and apiservers of its own.

The tests of `nodes` build on each other in the order in which they stand here: a roll-out, changes,
what stops one, an upgrade, the way back, and then a migration from a proxy.
"""

import json
import os
import re
import shutil
import subprocess

import pytest

from helpers import Traffic, served_set
from machine import Machine, repack
from system import wait_until
from world import ROOT, World

ALL = {"cp1", "cp2", "cp3"}
UNITS = ("kubelb-load", "kubelb-agent")
BUILD = os.environ.get("KUBELB_BUILD", os.path.join(ROOT, "build"))
ROLE = os.path.join(ROOT, "deploy", "ansible")
CONFIG = "/etc/kubelb/kubelb.yaml"
NEXT = "99.0"
QUICK = {"interval": "200ms", "timeout": "400ms"}

pytestmark = pytest.mark.skipif(
    not shutil.which("ansible-playbook") or not shutil.which("dpkg-buildpackage"),
    reason="ansible-playbook or dpkg-buildpackage is not installed (scripts/deps.sh)")


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
    """Of a copy: it asks git which files there are, and would leave new ones out."""
    shutil.copytree(ROLE, tmp_path / "ansible")
    has_no_faults(run_in_role("ansible-lint", "--offline", "--nocolor", "--project-dir",
                              str(tmp_path / "ansible"), str(tmp_path / "ansible"),
                              HOME=str(tmp_path)))


@pytest.mark.skipif(not shutil.which("yamllint"), reason="yamllint is not installed")
def test_yamllint():
    has_no_faults(run_in_role("yamllint", "--strict", "."))


# --- two nodes -----------------------------------------------------------------


class Run:
    """What an ansible-playbook has said."""

    def __init__(self, done):
        self.status = done.returncode
        self.text = done.stdout + done.stderr
        recap = done.stdout.partition("PLAY RECAP")[2]
        self.counts = {host: {k: int(n) for k, n in re.findall(r"(\w+)=(\d+)", counts)}
                       for host, counts in re.findall(r"^(\S+) +: (.*)$", recap, re.MULTILINE)}

    def changed(self):
        return {host: counts["changed"] for host, counts in self.counts.items()}

    def well(self):
        assert self.status == 0, self.text
        return self

    def refused(self, *words):
        """It has ended, and one message has all the words."""
        assert self.status == 2, self.text
        messages = re.findall(r'^ *"msg": "(.*)"|"msg": "(.*?[^\\])"[,}]', self.text, re.MULTILINE)
        messages = [a or b for a, b in messages]
        assert any(all(word in message for word in words) for message in messages), \
            f"no message has {words}:\n{self.text}"
        return self


class Nodes:
    """The machines, and how Ansible reaches them."""

    def __init__(self, directory, machines):
        self.directory = directory
        self.machines = machines
        self.first, self.second = machines
        self.inventory = os.path.join(directory, "inventory")
        hosts = "\n".join(
            f"node{i} ansible_host={m.init} ansible_connection=nsenter ansible_become=false "
            "ansible_python_interpreter=/usr/bin/python3" for i, m in enumerate(machines, 1))
        planes = "\n".join(f"plane{b.index} ip={b.v4} ansible_connection=local"
                           for b in self.first.world.backends)
        with open(self.inventory, "w", encoding="ascii") as f:
            f.write(f"[kube_node]\n{hosts}\n[kube_control_plane]\n{planes}\n")

    def settings(self, **changes):
        world = self.first.world  # the other one has the same addresses
        return {"kubelb_backends": [b.endpoint for b in world.backends], "kubelb_probe": QUICK,
                "kubelb_settings": {"slowStart": "0"}, "kubelb_kubelet": False,
                "kubelb_batches": [1, 1], "kubelb_wait": 30, **changes}

    def play(self, *args, book="kubelb.yml", plain=False, **changes):
        settings = changes if plain else self.settings(**changes)
        done = subprocess.run(
            ["ansible-playbook", "-i", self.inventory, "-e", json.dumps(settings), *args,
             os.path.join(ROLE, book)], cwd=self.directory, capture_output=True, text=True,
            check=False, timeout=600,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_PIPELINING": "1",
                 "ANSIBLE_CONNECTION_PLUGINS": os.path.join(ROOT, "tests/e2e/ansible"),
                 "ANSIBLE_LOCAL_TEMP": os.path.join(self.directory, "ansible"),
                 "ANSIBLE_CONFIG": "/dev/null"})
        print(done.stdout, done.stderr)
        return Run(done)


@pytest.fixture(scope="module", name="package")
def package_fixture(world):
    directory = os.path.join(world.dir, "deb-ansible")
    done = subprocess.run(["nice", os.path.join(ROOT, "scripts/deb.sh"), "", directory],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module", name="next_package")
def next_package_fixture(package):
    programs = os.path.join(BUILD, "abi-next")
    if not os.access(os.path.join(programs, "kubelb-load"), os.X_OK):
        pytest.skip(f"{programs}/kubelb-load is not built (make abi-next)")
    return repack(package, os.path.dirname(package), NEXT, programs)


def give_ca(machine):
    os.makedirs(machine.path("/etc/kubernetes/pki"), exist_ok=True)
    shutil.copy(machine.world.ca, machine.path("/etc/kubernetes/pki/ca.crt"))


@pytest.fixture(scope="module", name="nodes")
def nodes_fixture(world):
    with World(backends=3) as other:
        other.client = world.client
        with Machine(world) as first, Machine(other) as second:
            for machine in (first, second):
                give_ca(machine)
            yield Nodes(world.dir, (first, second))
    world.reset()


@pytest.fixture(autouse=True)
def well_fixture(request):
    """What a test has done to the apiservers ends with it."""
    yield
    if "nodes" in request.fixturenames:
        nodes = request.getfixturevalue("nodes")
        for machine in nodes.machines:
            for backend in machine.world.backends:
                backend.restore(machine.world.pki)


def read(machine, path=CONFIG):
    with open(machine.path(path), encoding="utf-8") as f:
        return f.read()


def there(machine, path):
    return os.path.exists(machine.path(path))


def installed(machine):
    return machine.exec("dpkg-query", "-W", "-f", "${db:Status-Abbrev}${Version}", "kubelb").stdout


def brief(machine):
    return machine.exec("kubelbctl", "status", "--brief").stdout


class Untouched:
    """Nothing of the machine's has changed when the block ends."""

    places = ("/etc", "/usr", "/lib", "/var/lib", "/var/cache", "/opt")

    def __init__(self, machine):
        self.machine = machine

    def state(self):
        files = self.machine.run("find", *self.places, "-xdev", "-printf", "%p %s %T@ %l\n")
        units = self.machine.run("systemctl", "show", "--property=ActiveState,MainPID", *UNITS)
        return set(files.splitlines()) | {units}

    def __enter__(self):
        self.before = self.state()

    def __exit__(self, kind, *exc):
        if not kind:
            assert sorted(self.state() ^ self.before) == []


MISTAKES = {
    "misspelt": ({"kubelb_backend": ["10.0.0.1"]}, ["kubelb_backend: ", "no such variable"]),
    "no-apiservers": ({"kubelb_backends": []}, ["kubelb_backends: is empty"]),
    "policy": ({"kubelb_policy": "leastconn"}, ["kubelb_policy", "least-conn", "got: leastconn"]),
    "state": ({"kubelb_state": "there"}, ["kubelb_state", "present, absent", "got: there"]),
    "probe": ({"kubelb_probe": {"intervall": "1s"}}, ["intervall", "interval,"]),
    "number": ({"kubelb_wait": "soon"}, ["kubelb_wait", "soon"]),
    "list": ({"kubelb_backends": {"address": "10.0.0.1"}}, ["kubelb_backends", "list"]),
    "package": ({"kubelb_package": "/nowhere/kubelb.deb"}, ["kubelb_package: '/nowhere/kubelb.deb'"]),
}


@pytest.mark.parametrize("changes, words", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_the_variables(nodes, package, changes, words):
    """It stops at the first node, before anything is changed, and the line names the variable."""
    with Untouched(nodes.first), Untouched(nodes.second):
        run = nodes.play(**{"kubelb_package": package, **changes}).refused(*words)
    assert run.changed() == {"node1": 0}


def test_not_on_a_control_plane(nodes, package):
    nodes.first.write("/etc/kubernetes/manifests/kube-apiserver.yaml", "kind: Pod\n")
    with Untouched(nodes.first):
        nodes.play(kubelb_package=package).refused("node1: is a control plane")
    os.unlink(nodes.first.path("/etc/kubernetes/manifests/kube-apiserver.yaml"))


def test_check_mode_on_a_bare_node(nodes, package):
    with Untouched(nodes.first), Untouched(nodes.second):
        run = nodes.play("--check", "--diff", kubelb_package=package).well()
    assert "nothing can judge the configuration with --check" in run.text
    assert all(n > 0 for n in run.changed().values())


def test_roll_out(nodes, package):
    """Both nodes, one after the other."""
    run = nodes.play(kubelb_package=package).well()
    assert set(run.changed()) == {"node1", "node2"}
    assert run.text.count("PLAY [KubeLB]") == 2
    for machine in nodes.machines:
        assert installed(machine).startswith("ii ")
        assert "  ca: /etc/kubernetes/pki/ca.crt\n" in read(machine)
        for unit in UNITS:
            assert machine.run("systemctl", "is-active", unit) == "active\n"
            assert machine.run("systemctl", "is-enabled", unit) == "enabled\n"
        assert brief(machine).startswith("KUBELB OK")
        assert served_set(machine.world) == ALL


def test_a_second_run_changes_nothing(nodes, package):
    with Untouched(nodes.first), Untouched(nodes.second):
        run = nodes.play(kubelb_package=package).well()
    assert run.changed() == {"node1": 0, "node2": 0}


def test_check_mode_shows_what_would_change(nodes, package):
    two = [b.endpoint for b in nodes.first.world.backends[:2]]
    with Untouched(nodes.first), Untouched(nodes.second):
        run = nodes.play("--check", "--diff", kubelb_package=package, kubelb_backends=two).well()
    assert all(n > 0 for n in run.changed().values())
    gone = nodes.first.world.cp(3).endpoint
    assert f"\n-- {gone}" in run.text  # the file
    assert f"  - backend {gone}" in run.text  # what kubelb-load would do


def test_a_changed_list_is_applied_under_traffic(nodes, package):
    two = [b.endpoint for b in nodes.first.world.backends[:2]]
    with Traffic(nodes.first.world), Traffic(nodes.second.world):
        run = nodes.play(kubelb_package=package, kubelb_backends=two).well()
        for machine in nodes.machines:
            wait_until(lambda m=machine: served_set(m.world, 10) == {"cp1", "cp2"}, "two backends")
        nodes.play(kubelb_package=package).well()
    assert all(n > 0 for n in run.changed().values())
    for machine in nodes.machines:
        wait_until(lambda m=machine: served_set(m.world) == ALL, "three backends")


def test_what_kubelb_load_refuses_is_not_written(nodes, package):
    twice = [nodes.first.world.cp(1).endpoint] * 2
    with Untouched(nodes.first), Untouched(nodes.second):
        run = nodes.play(kubelb_package=package, kubelb_backends=twice).refused(
            "kubelb.yaml:", "backends[1]", "the configuration of node1 is as it was")
    assert run.changed() == {"node1": 0}


def test_a_dead_backend_stops_the_roll_out(nodes, package):
    """At the first node. The others keep what they have."""
    nodes.first.world.cp(2).kill()
    wait_until(lambda: "WARNING" in brief(nodes.first), "the agent to notice")
    with Untouched(nodes.second):
        run = nodes.play(kubelb_package=package, kubelb_policy="random", kubelb_wait=3).refused(
            "node1: KUBELB WARNING", nodes.first.world.cp(2).endpoint, "the roll-out ends")
    assert set(run.counts) == {"node1"}
    assert "policy: random" in read(nodes.first)
    assert "policy" not in read(nodes.second)
    nodes.play(kubelb_package=package, kubelb_policy="random", kubelb_wait=3,
               kubelb_accept_warning=True).well()
    assert "policy: random" in read(nodes.second)


def test_an_upgrade_with_a_mistake(nodes, next_package):
    """The new package's own programs judge the configuration, and nothing is installed."""
    before = installed(nodes.first)
    with Traffic(nodes.first.world):
        nodes.play(kubelb_package=next_package, kubelb_settings={"policy": "nonsense"}).refused(
            "kubelb.yaml:", "nonsense", "the configuration of node1 is as it was")
    assert installed(nodes.first) == before


def test_an_upgrade_under_traffic(nodes, next_package):
    with Traffic(nodes.first.world), Traffic(nodes.second.world):
        nodes.play(kubelb_package=next_package).well()
    for machine in nodes.machines:
        assert installed(machine) == f"ii {NEXT}"
        assert served_set(machine.world) == ALL
    assert nodes.play(kubelb_package=next_package).well().changed() == {"node1": 0, "node2": 0}


def test_kubespray_names_the_apiservers(nodes, next_package):
    """The same configuration as by hand, from the inventory's groups."""
    settings = nodes.settings(kubelb_package=next_package)
    del settings["kubelb_backends"]
    nodes.play(book="kubespray.yml", plain=True, **settings).well()
    backends = "".join(f"- {b.endpoint}\n" for b in nodes.first.world.backends)
    for machine in nodes.machines:
        assert f"backends:\n{backends}" in read(machine)
        assert "http: 127.0.0.1:8082\n" in read(machine)
        assert served_set(machine.world) == ALL
