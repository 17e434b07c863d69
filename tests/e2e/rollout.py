# SPDX-License-Identifier: BSD-2-Clause
"""Two throw-away machines (tests/world/machine.py), each with a systemd, a network and apiservers of
its own, and a real ansible-playbook that runs the role of deploy/ansible against them.

Tests take the fixture `nodes`. Those of a file share the machines, and build on each other in the
order in which they stand there.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess

import pytest

from helpers import Traffic
from machine import Machine
from system import wait_until
from world import ROOT, World

ALL = {"cp1", "cp2", "cp3"}
UNITS = ("kubelb-load", "kubelb-agent")
ROLE = os.path.join(ROOT, "deploy", "ansible")
CONFIG = "/etc/kubelb/kubelb.yaml"
TEMPORARY = "/run/tmp"  # Ansible's on a node: see ansible/nsenter.py
QUICK = {"interval": "200ms", "timeout": "400ms"}

NEEDS_ANSIBLE = pytest.mark.skipif(
    not shutil.which("ansible-playbook") or not shutil.which("dpkg-buildpackage"),
    reason="ansible-playbook or dpkg-buildpackage is not installed (scripts/deps.sh)")
ALL_OF_THEM = pytest.mark.skipif(
    not os.environ.get("KUBELB_ANSIBLE"),
    reason="test_ansible.py has a roll-out, a stop and an absent; the other roll-outs take four "
           "minutes more: KUBELB_ANSIBLE=1")


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
        self.config = os.path.join(directory, "ansible.cfg")
        with open(self.config, "w", encoding="ascii") as f:  # nobody's own settings
            f.write("[defaults]\ninternal_poll_interval = 0.001\n")

    def inventory(self, again):
        """`again`: a third node, which is the second one once more. It sees whether a batch comes."""
        hosts = [*self.machines, *([self.second] if again else [])]
        nodes = "\n".join(
            f"node{i} ansible_host={m.init} ansible_connection=nsenter ansible_become=false "
            "ansible_python_interpreter=/usr/bin/python3" for i, m in enumerate(hosts, 1))
        planes = "\n".join(f"plane{b.index} ip={b.v4} ansible_connection=local"
                           for b in self.first.world.backends)
        path = os.path.join(self.directory, "inventory")
        with open(path, "w", encoding="ascii") as f:
            f.write(f"[kube_node]\n{nodes}\n[kube_control_plane]\n{planes}\n")
        return path

    def settings(self, **changes):
        """For both nodes at once. Without a slow start, see Machine.configure()."""
        world = self.first.world  # the other one has the same addresses
        return {"kubelb_backends": [b.endpoint for b in world.backends], "kubelb_probe": QUICK,
                "kubelb_settings": {"slowStart": "0"}, "kubelb_kubelet": False,
                "kubelb_batches": [2], "kubelb_wait": 30, **changes}

    def play(self, *args, book="kubelb.yml", plain=False, again=False, **changes):
        settings = changes if plain else self.settings(**changes)
        done = subprocess.run(
            ["ansible-playbook", "-i", self.inventory(again), "-e", json.dumps(settings), *args,
             os.path.join(ROLE, book)], cwd=self.directory, capture_output=True, text=True,
            check=False, timeout=600,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_PIPELINING": "1",
                 "ANSIBLE_CONNECTION_PLUGINS": os.path.join(ROOT, "tests/e2e/ansible"),
                 "ANSIBLE_LOCAL_TEMP": os.path.join(self.directory, "ansible"),
                 "ANSIBLE_CONFIG": self.config})
        print(done.stdout, done.stderr)
        return Run(done)

    def restore(self):
        """The apiservers as they were."""
        for machine in self.machines:
            for backend in machine.world.backends:
                backend.restore(machine.world.pki)


def give_ca(machine):
    os.makedirs(machine.path("/etc/kubernetes/pki"), exist_ok=True)
    shutil.copy(machine.world.ca, machine.path("/etc/kubernetes/pki/ca.crt"))


@contextlib.contextmanager
def two_nodes(world):
    with World(backends=3) as other:
        other.client = world.client
        with Machine(world) as first, Machine(other) as second:
            for machine in (first, second):
                machine.run("mkdir", TEMPORARY)
                give_ca(machine)
            yield Nodes(world.dir, (first, second))
    world.reset()


# --- what is on a node -----------------------------------------------------------


def read(machine, path=CONFIG):
    with open(machine.path(path), encoding="utf-8") as f:
        return f.read()


def there(machine, path):
    return os.path.exists(machine.path(path))


def installed(machine):
    return machine.exec("dpkg-query", "-W", "-f", "${db:Status-Abbrev}${Version}", "kubelb").stdout


def brief(machine):
    return machine.exec("kubelbctl", "status", "--brief").stdout


def listeners(machine):
    """Who listens on the frontend's port."""
    return machine.run("ss", "-Hltnp", "sport = :6443")


@contextlib.contextmanager
def steady_traffic(nodes):
    """Clients on both nodes; few, because a playbook takes its time."""
    with Traffic(nodes.first.world, rate=50), Traffic(nodes.second.world, rate=50):
        yield


def change_time(path):
    """Of the host's file, as find prints it; None: there is none."""
    try:
        ns = os.lstat(path).st_ctime_ns
    except FileNotFoundError:
        return None
    return f"{ns // 10**9}.{ns % 10**9:09d}0"


class Untouched:
    """Nothing of the machines' has changed when the block ends, and nothing of Ansible's is left."""

    places = ("/etc", "/usr/sbin", "/usr/bin", "/lib/systemd", "/var/lib", "/var/cache", "/opt")
    stamp = "/run/untouched"

    def __init__(self, *machines):
        self.machines = machines

    def units(self):
        return [m.run("systemctl", "show", "--property=ActiveState,MainPID", *UNITS)
                for m in self.machines]

    def changed(self, machine):
        """Below a machine's own files lie the host's, which others change: those are left out."""
        found = machine.run("find", *self.places, "-xdev", "-cnewer", self.stamp,
                            "-printf", "%C@ %p\\n")
        return [path for when, path in (line.split(" ", 1) for line in found.splitlines())
                if when != change_time(path)]

    def __enter__(self):
        self.before = self.units()
        for machine in self.machines:
            machine.write(self.stamp, "")

    def __exit__(self, kind, *exc):
        if kind:
            return
        for machine in self.machines:
            assert self.changed(machine) == []
            assert machine.run("find", TEMPORARY, "-mindepth", "1") == ""
        assert self.units() == self.before


# --- the visible parts of a kubelet, and its proxy -----------------------------------

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

MANIFEST = "/etc/kubernetes/manifests/nginx-proxy.yml"


def give_proxy(machine):
    """Kubespray's nginx, of which our kubelet takes care."""
    with open(os.path.join(ROOT, "tests/data/import/kubespray-nginx.conf"), encoding="utf-8") as f:
        text = f.read()
    module = "/usr/lib/nginx/modules/ngx_stream_module.so"
    machine.write("/etc/nginx/nginx.conf", f"load_module {module};\nuser root;\n" + text)
    machine.write(MANIFEST, "kind: Pod\n")
    wait_until(lambda: proxy_listens(machine), "the proxy to listen")


def proxy_listens(machine):
    return '"nginx"' in listeners(machine)
