# SPDX-License-Identifier: BSD-2-Clause
"""The Ansible role, run by a real ansible-playbook against two throw-away machines
(tests/world/machine.py), each with a systemd, a network and apiservers of its own.

The tests of `nodes` build on each other in the order in which they stand here: a roll-out, changes,
what stops one, an upgrade, the way back, and then a migration from a proxy.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess

import pytest
import yaml

from helpers import Traffic, served_set
from kube_tools import kube_tool
from machine import Machine
from packages import NEXT
from system import wait_until
from world import ROOT, World

ALL = {"cp1", "cp2", "cp3"}
UNITS = ("kubelb-load", "kubelb-agent")
ROLE = os.path.join(ROOT, "deploy", "ansible")
KUBEADM = os.path.join(ROOT, "deploy", "kubeadm")
CONFIG = "/etc/kubelb/kubelb.yaml"
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
        with open(self.inventory + ".cfg", "w", encoding="ascii"):  # nobody's own settings
            pass

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
                 "ANSIBLE_CONFIG": self.inventory + ".cfg"})
        print(done.stdout, done.stderr)
        return Run(done)


def give_ca(machine):
    os.makedirs(machine.path("/etc/kubernetes/pki"), exist_ok=True)
    shutil.copy(machine.world.ca, machine.path("/etc/kubernetes/pki/ca.crt"))


@pytest.fixture(scope="module", name="nodes")
def nodes_fixture(world):
    if not os.environ.get("KUBELB_ANSIBLE"):
        pytest.skip("roll-outs on two machines take a quarter of an hour: KUBELB_ANSIBLE=1")
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
    if "nodes" in request.fixturenames and os.environ.get("KUBELB_ANSIBLE"):
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


@contextlib.contextmanager
def steady_traffic(nodes):
    """Clients on both nodes; few, because a playbook takes its time."""
    with Traffic(nodes.first.world, rate=50), Traffic(nodes.second.world, rate=50):
        yield


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
        # It warns while the agent happens to hold the lock.
        wait_until(lambda m=machine: brief(m).startswith("KUBELB OK"), "KubeLB to be well")
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
    with steady_traffic(nodes):
        run = nodes.play(kubelb_package=package, kubelb_backends=two).well()
        for machine in nodes.machines:
            wait_until(lambda m=machine: served_set(m.world, 10) == {"cp1", "cp2"}, "two backends")
    assert all(n > 0 for n in run.changed().values())


def test_what_kubelb_load_refuses_is_not_written(nodes, package):
    twice = [nodes.first.world.cp(1).endpoint] * 2
    with Untouched(nodes.first), Untouched(nodes.second):
        run = nodes.play(kubelb_package=package, kubelb_backends=twice).refused(
            "kubelb.yaml:", "backends[1]", "the configuration of node1 is as it was")
    assert run.changed() == {"node1": 0}


def test_a_dead_backend_stops_the_roll_out(nodes, package):
    """At the first node, before it is configured. The others keep what they have."""
    nodes.first.world.cp(2).kill()
    with Untouched(nodes.first), Untouched(nodes.second):
        run = nodes.play(kubelb_package=package, kubelb_policy="random").refused(
            "node1: 2 of 3 backends answer", nodes.first.world.cp(2).endpoint,
            "nothing is configured")
    assert run.changed() == {"node1": 0}


def test_a_backend_that_is_not_ready_stops_the_roll_out(nodes, package):
    """It answers the preflight, and the agent finds out: the first node has the configuration, the
    others are not touched."""
    nodes.first.world.cp(2).readyz(500)
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
    nodes.play(kubelb_package=next_package, kubelb_settings={"policy": "nonsense"}).refused(
        "kubelb.yaml:", "nonsense", "the configuration of node1 is as it was")
    assert installed(nodes.first) == before


def test_an_upgrade_under_traffic(nodes, next_package):
    with steady_traffic(nodes):
        nodes.play(kubelb_package=next_package).well()
    for machine in nodes.machines:
        assert installed(machine) == f"ii {NEXT}"
        assert served_set(machine.world) == ALL


def test_kubespray_names_the_apiservers(nodes, next_package):
    """The same configuration as by hand, from the inventory's groups."""
    settings = nodes.settings(kubelb_package=next_package)
    del settings["kubelb_backends"]
    run = nodes.play("--limit", "node1", book="kubespray.yml", plain=True, **settings).well()
    backends = "".join(f"- {b.endpoint}\n" for b in nodes.first.world.backends)
    assert set(run.changed()) == {"node1"}
    assert f"backends:\n{backends}" in read(nodes.first)
    assert "http: 127.0.0.1:8082\n" in read(nodes.first)
    assert served_set(nodes.first.world) == ALL


# --- the node as the kubelet and the apiservers see it ---------------------------

# The parts of a kubelet that are seen from outside: its health, and the static pod of the proxy.
KUBELET = r"""
import http.server, os, signal, subprocess, threading, time

MANIFEST = "/etc/kubernetes/manifests/nginx-proxy.yml"
PID = "/run/nginx-proxy.pid"  # nginx removes it when it ends

class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(500 if os.path.exists("/run/kubelet-ill") else 200)
        self.end_headers()
    def log_message(self, *args):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 10248), Health)
threading.Thread(target=server.serve_forever, daemon=True).start()
pod = None
while True:
    wanted, runs = os.path.exists(MANIFEST), os.path.exists(PID)
    if wanted and not runs and (pod is None or pod.poll() is not None):
        pod = subprocess.Popen(["nginx", "-c", "/etc/nginx/nginx.conf", "-g",
                                f"daemon off; pid {PID};"])
    if runs and not wanted:
        with open(PID) as f:
            os.kill(int(f.read()), signal.SIGTERM)
        while os.path.exists(PID):
            time.sleep(0.1)
    time.sleep(0.1)
"""
KUBELET_UNIT = """[Unit]
Description=the visible parts of a kubelet
[Service]
ExecStart=/usr/bin/python3 /opt/kubelet.py
# Static pods outlive the kubelet.
KillMode=process
[Install]
WantedBy=multi-user.target
"""


KUBELET_CONF = "clusters:\n- cluster:\n    server: https://127.0.0.1:6443\n"
ELSEWHERE = KUBELET_CONF.replace("127.0.0.1", "192.168.77.11")


def write_kubelet_conf(machine, text):
    machine.write("/etc/kubernetes/kubelet.conf", text)


def start_kubelet(machine):
    write_kubelet_conf(machine, KUBELET_CONF)
    machine.write("/opt/kubelet.py", KUBELET)
    machine.write("/etc/systemd/system/kubelet.service", KUBELET_UNIT)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "enable", "--now", "kubelet")


def node_object(ready):
    return json.dumps({"kind": "Node", "status": {"conditions": [
        {"type": "MemoryPressure", "status": "False", "message": "enough"},
        {"type": "Ready", "status": ready, "message": f"the kubelet says {ready}"}]}})


def test_an_ill_kubelet_stops_the_roll_out(nodes, next_package):
    for machine in nodes.machines:
        start_kubelet(machine)
    settings = {"kubelb_package": next_package, "kubelb_kubelet": True, "kubelb_wait": 5}
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
    settings = {"kubelb_package": next_package, "kubelb_kubelet": True, "kubelb_wait": 5}
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


# --- the way back, and a migration from a proxy ------------------------------------

MANIFEST = "/etc/kubernetes/manifests/nginx-proxy.yml"
CLIENT = r"""while printf 'GET /version HTTP/1.1\r\nHost: a\r\n\r\n'; do sleep 5; done |
openssl s_client -quiet -connect 127.0.0.1:6443"""


def listens(machine):
    return bool(machine.run("ss", "-Hltn", "sport = :6443").strip())


def give_proxy(machine):
    with open(os.path.join(ROOT, "tests/data/import/kubespray-nginx.conf"), encoding="utf-8") as f:
        text = f.read()
    module = "/usr/lib/nginx/modules/ngx_stream_module.so"
    machine.write("/etc/nginx/nginx.conf", f"load_module {module};\nuser root;\n" + text)
    machine.write(MANIFEST, "kind: Pod\n")
    wait_until(lambda: listens(machine), "the proxy to listen")


def test_absent_stays_where_the_kubelet_would_reach_nobody(nodes):
    with Untouched(nodes.first), Untouched(nodes.second):
        nodes.play(kubelb_state="absent").refused(
            "node1: the kubelet dials", "https://127.0.0.1:6443", "KubeLB stays")
    assert served_set(nodes.first.world) == ALL


def test_absent(nodes):
    for machine in nodes.machines:
        write_kubelet_conf(machine, ELSEWHERE)
    with Untouched(nodes.first):
        nodes.play("--check", "--limit", "node1", kubelb_state="absent").well()
    run = nodes.play(kubelb_state="absent", kubelb_purge=True).well()
    assert all(n > 0 for n in run.changed().values())
    for machine in nodes.machines:
        assert not os.path.isdir(machine.pin)
        assert not installed(machine).startswith("ii")
        assert not there(machine, "/var/cache/kubelb") and not there(machine, CONFIG)
    with Untouched(nodes.first), Untouched(nodes.second):
        run = nodes.play(kubelb_state="absent", kubelb_purge=True).well()
    assert run.changed() == {"node1": 0, "node2": 0}


def test_a_node_that_has_not_joined(nodes, package):
    """It has no CA, and a kubelet that is not well yet. What joins then reaches every apiserver."""
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
        nodes.play(plain=True, **import_settings(nodes, package)).refused("/etc/nginx/nginx.conf:",
                                                                          "cp2.example")
    assert not there(nodes.first, CONFIG) and not os.path.isdir(nodes.first.pin)
    nodes.first.write("/etc/nginx/nginx.conf", good)


def test_from_a_proxy(nodes, package):
    """No connect fails while the node goes from nginx to KubeLB, and the proxy is there until it is
    asked to go."""
    with steady_traffic(nodes):
        nodes.play(plain=True, **import_settings(nodes, package)).well()
        for machine in nodes.machines:
            assert "made by kubelb-load --from-nginx" in read(machine)
            assert there(machine, MANIFEST) and listens(machine)
        nodes.play(plain=True, **import_settings(nodes, package, kubelb_proxy_remove=True)).well()
    for machine in nodes.machines:
        assert not there(machine, MANIFEST) and there(machine, "/etc/kubelb/nginx-proxy.yml")
        assert not listens(machine)
        assert served_set(machine.world) == ALL
    run = nodes.play(plain=True, **import_settings(nodes, package, kubelb_proxy_remove=True)).well()
    assert run.changed() == {"node1": 0, "node2": 0}


def test_the_proxy_stays_while_somebody_is_connected_through_it(nodes, package):
    """As kube-proxy is, for days. Kubespray's next run has written the manifest again."""
    machine = nodes.first
    machine.write(MANIFEST, "kind: Pod\n")
    wait_until(lambda: listens(machine), "the proxy to listen")
    # A client from before KubeLB. It asks from time to time: an idle one would be closed.
    machine.run("systemctl", "stop", *reversed(UNITS))
    machine.run("kubelb-load", "--detach")
    client = machine.spawn("sh", "-c", CLIENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    connected = ["ss", "-Htn", "state", "established", "sport = :6443"]
    wait_until(lambda: machine.run(*connected).strip(), "the connection through the proxy")
    settings = import_settings(nodes, package, kubelb_proxy_remove=True, kubelb_wait=2)
    run = nodes.play("--limit", "node1", plain=True, **settings).well()
    assert "node1: the proxy stays" in run.text
    assert there(machine, MANIFEST) and client.poll() is None
    nodes.play("--limit", "node1", plain=True, **settings, kubelb_proxy_force=True).well()
    assert not there(machine, MANIFEST) and not listens(machine)


def test_back_to_the_proxy(nodes):
    """First the proxy listens, then KubeLB goes: no connect fails."""
    for machine in nodes.machines:
        write_kubelet_conf(machine, KUBELET_CONF)
    with steady_traffic(nodes):
        nodes.play(kubelb_state="absent").well()
        for machine in nodes.machines:
            assert there(machine, MANIFEST) and listens(machine)
            assert not os.path.isdir(machine.pin)
    for machine in nodes.machines:
        assert there(machine, CONFIG)  # not purged
