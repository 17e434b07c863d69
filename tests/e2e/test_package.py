# SPDX-License-Identifier: BSD-2-Clause
"""The Debian package and its systemd units, in a throw-away machine (tests/world/machine.py)
that runs a real systemd: from `apt-get install` to purge.

The tests of `node` build on each other in the order in which they stand here, as the life of
a package on one node does.
"""

import contextlib
import glob
import os
import re
import shutil
import signal
import subprocess

import pytest

from hardening import weaknesses
from helpers import (V6, Held, Traffic, dial_error, dump, fails, objects, ok, served_set,
                     still_there, wait_idle, wait_states)
from machine import Machine
from packages import BUILD, NEXT
from system import run_checked, wait_until
from world import ROOT

ALL = {"cp1", "cp2", "cp3"}
UNITS = ("kubelb-load.service", "kubelb-agent.service")
NOTHING_YET = "kubelb: nothing is started yet"
START = "systemctl enable --now kubelb-load kubelb-agent && kubelbctl status\n"
# Exposure that `systemd-analyze security` may find, in tenths (4.2 and 2.4 with systemd
# 252). kubelb-load must see the host's own mounts, and that costs it.
EXPOSURE = {"kubelb-load.service": 42, "kubelb-agent.service": 24}

pytestmark = pytest.mark.skipif(
    not shutil.which("dpkg-buildpackage") or not shutil.which("dh"),
    reason="dpkg-buildpackage or debhelper is not installed (scripts/deps.sh)")


def unit_path(name):
    return os.path.join(ROOT, "deploy", "systemd", name)


def capabilities(unit):
    """A unit's CapabilityBoundingSet, as it stands in the file."""
    with open(unit_path(unit), encoding="utf-8") as f:
        sets = re.findall(r"^CapabilityBoundingSet=(.*)$", f.read(), re.MULTILINE)
    assert len(sets) == 1, f"{unit}: {len(sets)} lines of CapabilityBoundingSet"
    names = sets[0].split()
    assert names and all(n.startswith("CAP_") for n in names), names
    return [n.removeprefix("CAP_").lower() for n in names]


def confined(names, argv):
    """argv with these capabilities alone, as systemd would start it."""
    bounding = "-all" + "".join(f",+{n}" for n in names)
    return ["setpriv", f"--bounding-set={bounding}", "--no-new-privs", *argv]


# --- the units, without systemd ------------------------------------------------


def with_capabilities(stage, names, program, *args):
    return stage.exec(confined(names, [stage.program(program), "--pin", stage.pin, *args]))


def test_capabilities_of_load(stage):
    """With what the unit gives it: attach, do it again, detach. With one less, it cannot do
    all of that."""
    stage.configure(dataPath="kernel")
    names = capabilities("kubelb-load.service")
    steps = (["-c", stage.config], ["-c", stage.config], ["--detach"])
    for args in steps:
        ok(with_capabilities(stage, names, "kubelb-load", *args))
    for name in names:
        less = [n for n in names if n != name]
        done = [with_capabilities(stage, less, "kubelb-load", *args) for args in steps]
        assert any(d.returncode == 1 and "not permitted" in d.stderr for d in done), \
            f"kubelb-load.service has CAP_{name.upper()} and needs it for nothing"
        stage.reset()
        stage.configure(dataPath="kernel")


@contextlib.contextmanager
def confined_agent(stage, names, prefix=()):
    with open(os.path.join(stage.dir, "confined.log"), "w+", encoding="utf-8") as log:
        process = stage.spawn(
            [*prefix, *confined(names, [stage.program("kubelb-agent"), "-c", stage.config, "--pin",
                                        stage.pin])],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        yield process, lambda: open(log.name, encoding="utf-8").read()


def test_capabilities_of_the_agent(stage):
    """With what the unit gives it: attach and do all of an agent's work. With one less, it
    cannot attach to a bare node."""
    stage.configure(dataPath="kernel")
    names = capabilities("kubelb-agent.service")
    with confined_agent(stage, names) as (process, log):
        wait_states(stage, "ready", stage.backends)
        assert served_set(stage) == ALL
        stage.cp(1).kill()
        wait_states(stage, "dead", [stage.cp(1)])
        assert served_set(stage) == {"cp2", "cp3"}
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: "configuration reloaded" in log(), log)
        assert "level=error" not in log()
    stage.reset()
    stage.configure(dataPath="kernel")
    for name in names:
        less = [n for n in names if n != name]
        with confined_agent(stage, less) as (process, log):
            assert process.wait(timeout=10) == 1, log()
            assert "not permitted" in log().splitlines()[-1]
        assert not os.path.exists(stage.pin)


# What ProcSubset=pid leaves of /proc: processes, and neither /proc/net nor /proc/sys.
ONLY_PROCESSES = ("unshare", "-m", "sh", "-c",
                  'mount -t proc -o subset=pid,hidepid=invisible proc /proc && exec "$@"', "sh")


def test_default_frontends_with_the_units_proc(stage):
    """kubelb-load, which sees all of /proc, and the agent, which does not, have the same
    frontends when the file names none: [::1]:6443 is not lost when the agent starts."""
    with open(unit_path("kubelb-agent.service"), encoding="utf-8") as f:
        assert "\nProcSubset=pid\n" in f.read()
    stage.configure(frontends=None)
    ok(stage.load())
    assert dial_error(stage, host=V6) is None
    names = capabilities("kubelb-agent.service")
    with confined_agent(stage, names, ONLY_PROCESSES) as (process, log):
        wait_states(stage, "ready", stage.backends)
        assert process.poll() is None, log()
        assert dial_error(stage, host=V6) is None, log()
        assert re.search(r'msg="running" .*frontends=2', log()), log()


@pytest.mark.parametrize("unit", UNITS)
def test_exposure(unit):
    done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager",
                           f"--threshold={EXPOSURE[unit]}", unit_path(unit)],
                          capture_output=True, text=True, check=False)
    found = "\n".join(line for line in done.stdout.splitlines() if "✓" not in line)
    assert done.returncode == 0, found + done.stderr
    assert "Overall exposure level" in found


# --- the package ---------------------------------------------------------------


def beside_the_programs():
    """What both packages bring of deploy/ansible and deploy/kubeadm, and the check of a cluster."""
    deploy = os.path.join(ROOT, "deploy")
    found = [os.path.relpath(os.path.join(directory, name), deploy)
             for kind in ("ansible", "kubeadm")
             for directory, _dirs, names in os.walk(os.path.join(deploy, kind))
             for name in names if not name.startswith(".")]
    assert "ansible/roles/kubelb/tasks/main.yml" in found
    return {f"/usr/share/kubelb/{name}" for name in found} | {
        "/usr/libexec/kubelb/k8s-check.sh", "/usr/libexec/kubelb/k8s-check.py"}


def assert_check_runs(tree):
    """Where it lies, and with nothing that asks for a python3."""
    libexec = os.path.join(tree, "usr/libexec/kubelb")
    assert not os.stat(os.path.join(libexec, "k8s-check.py")).st_mode & 0o111
    assert run_checked([os.path.join(libexec, "k8s-check.sh"), "--help"]).startswith("NAME\n")
    with open(os.path.join(libexec, "k8s-check.py"), encoding="utf-8") as f:
        assert not f.readline().startswith("#!")


def test_version_and_files(package):
    """The Makefile's version; everything in its place; no configuration that would be
    asked about when it changes."""
    with open(os.path.join(ROOT, "Makefile"), encoding="utf-8") as f:
        version = re.search(r"^VERSION := (\S+)$", f.read(), re.MULTILINE).group(1)
    field = subprocess.run(["dpkg-deb", "-f", package, "Version"], capture_output=True, text=True,
                           check=True).stdout.strip()
    assert field == version
    listing = subprocess.run(["dpkg-deb", "-c", package], capture_output=True, text=True,
                             check=True).stdout
    files = {line.split()[5].removeprefix(".") for line in listing.splitlines()}
    assert {"/usr/sbin/kubelb-load", "/usr/sbin/kubelb-agent", "/usr/sbin/kubelbctl",
            "/lib/systemd/system/kubelb-load.service", "/lib/systemd/system/kubelb-agent.service",
            "/usr/share/man/man8/kubelb-load.8.gz", "/usr/share/man/man8/kubelb-agent.8.gz",
            "/usr/share/man/man8/kubelbctl.8.gz", "/usr/share/man/man5/kubelb.yaml.5.gz",
            "/usr/share/man/man7/kubelb.7.gz", "/usr/share/doc/kubelb/operations.md.gz",
            "/usr/share/doc/kubelb/changelog.gz", "/usr/share/doc/kubelb/CHANGELOG.md.gz",
            "/usr/share/doc/kubelb/examples/kubelb.yaml",
            "/usr/share/kubelb/grafana/kubelb.json",
            "/usr/share/kubelb/prometheus/kubelb-alerts.yaml",
            "/usr/share/bash-completion/completions/kubelbctl",
            "/usr/share/bash-completion/completions/kubelb-load",
            "/usr/share/bash-completion/completions/kubelb-agent",
            "/usr/share/zsh/vendor-completions/_kubelb",
            "/usr/share/fish/vendor_completions.d/kubelbctl.fish",
            "/usr/share/fish/vendor_completions.d/kubelb-load.fish",
            "/usr/share/fish/vendor_completions.d/kubelb-agent.fish",
            "/usr/libexec/kubelb/next-step", "/etc/kubelb/kubelb.yaml.example",
            *beside_the_programs()} <= files
    assert "/etc/kubelb/kubelb.yaml" not in files


def assert_hardened(sbin):
    for name in ("kubelb-load", "kubelb-agent", "kubelbctl"):
        assert weaknesses(os.path.join(sbin, name)) == [], name


def test_packaged_programs_are_hardened(package, tmp_path):
    """With Debian's flags and the Makefile's together."""
    run_checked(["dpkg-deb", "-x", package, str(tmp_path)])
    assert_hardened(tmp_path / "usr/sbin")


def test_packaged_check_runs(package, tmp_path):
    run_checked(["dpkg-deb", "-x", package, str(tmp_path)])
    assert_check_runs(tmp_path)


def test_installed_programs_are_hardened(tmp_path):
    """As plain `make` builds them, without a flag from outside."""
    run_checked(["make", "-s", "-C", ROOT, f"B={BUILD}", f"DESTDIR={tmp_path}", "PREFIX=/usr",
                 "install"])
    assert_hardened(tmp_path / "usr/sbin")


def commands(*arguments):
    """How make would compile a file, and how it would link."""
    done = run_checked(["make", "-n", "-B", "-s", "-C", ROOT, *arguments, "B=build/nowhere",
                        "build/nowhere/kubelbctl"])
    compiled, = (line for line in done.splitlines() if "-c user/ctl/main.c" in line)
    linked, = (line for line in done.splitlines() if "-o build/nowhere/kubelbctl" in line)
    return compiled.split(), linked.split()


def test_flags_from_outside_come_last():
    """A distribution adds its own, and may take back what it does not want. What no mark in the
    program shows is looked for here."""
    compiled, linked = commands()
    assert "-fstack-clash-protection" in compiled
    compiled, linked = commands("CFLAGS=-O1 -fmine", "LDFLAGS=-Wl,--mine", "CPPFLAGS=-DMINE")
    for own in ("-fstack-protector-strong", "-fPIE"):
        assert compiled.index(own) < compiled.index("-fmine")
    assert "-DMINE" in compiled and "-Iinclude" in compiled and "-O2" not in compiled
    assert linked.index("-Wl,-z,relro,-z,now,-z,noexecstack") < linked.index("-Wl,--mine")


@pytest.mark.parametrize("arguments", [
    ["CFLAGS=-O0 -g"], ["CFLAGS=-g"], ["CFLAGS=-O1 -fsanitize=address"], ["SANITIZE=address"]])
def test_fortify_is_left_out_where_it_cannot_be(arguments):
    compiled, _linked = commands(*arguments)
    assert not any("_FORTIFY_SOURCE" in flag for flag in compiled)


@pytest.mark.parametrize("variable", ["CFLAGS", "CPPFLAGS"])
def test_fortify_of_a_distribution_stays(variable):
    compiled, _linked = commands(f"{variable}=-O2 -D_FORTIFY_SOURCE=2")
    assert [flag for flag in compiled if "_FORTIFY_SOURCE" in flag] == ["-D_FORTIFY_SOURCE=2"]


@pytest.mark.skipif(not shutil.which("lintian"), reason="lintian is not installed")
def test_lintian(package):
    done = subprocess.run(["nice", "lintian", "--allow-root", "--fail-on", "error,warning",
                           package], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_bad_version_is_refused():
    done = subprocess.run([os.path.join(ROOT, "scripts/deb.sh"), "latest"], capture_output=True,
                          text=True, check=False)
    fails(done, 2, "latest", "no Debian version")


# --- on a node -----------------------------------------------------------------


@contextlib.contextmanager
def machine_on(world, **kwargs):
    """A machine around the world's node, which the helpers then look at."""
    pin, build = world.pin, world.build
    try:
        with Machine(world, **kwargs) as machine:
            world.pin = machine.pin
            world.build = machine.path("/usr/sbin")  # kubelbctl is the version's that runs
            yield machine
    finally:
        world.pin, world.build = pin, build
        world.reset()


@pytest.fixture(scope="module", name="node")
def node_fixture(world):
    with machine_on(world) as machine:
        yield machine


def installed(machine):
    return machine.exec("dpkg-query", "-W", "-f", "${db:Status-Abbrev}${Version}",
                        "kubelb").stdout


def active(machine, unit):
    return machine.exec("systemctl", "is-active", unit).stdout.strip()


def agent_pid(machine):
    return int(machine.show("kubelb-agent", "MainPID")["MainPID"])


def status_text(machine):
    return machine.show("kubelb-agent", "StatusText")["StatusText"]


def assert_gone(machine, ids):
    """No program, no map, no link, no pin, no process, no unit."""
    # Every bpffs has the kernel's own progs.debug and maps.debug.
    assert [n for n in os.listdir(machine.path("/sys/fs/bpf")) if "kubelb" in n] == []
    assert not machine.exec("pgrep", "-l", "kubelb").stdout
    wait_until(lambda: not any(still_there(ids).values()),
               lambda: f"the end of {still_there(ids)}", 5)
    for path in ("/usr/sbin/kubelb*", "/lib/systemd/system/kubelb*", "/usr/sbin/kubelbctl",
                 "/usr/share/*/*/kubelb*", "/usr/share/man/man?/kubelb*"):
        assert glob.glob(machine.path(path)) == []
    links = machine.run("find", "/etc/systemd", "-name", "kubelb*")
    assert links == ""


def test_installed_with_apt(node, package, world):
    """The package starts nothing by itself: nobody has named an apiserver. It says so."""
    said = node.run("apt-get", "install", "-y", package)
    assert NOTHING_YET in said and "Name the apiservers in /etc/kubelb/kubelb.yaml" in said
    assert said.count(START) == 1
    assert installed(node).startswith("ii ")
    assert [active(node, unit) for unit in UNITS] == ["inactive", "inactive"]
    # Enabled too early, it waits for its configuration and is no failure.
    node.run("systemctl", "enable", "--now", *UNITS)
    assert node.show(UNITS[0], "ConditionResult", "Result") \
        == {"ConditionResult": "no", "Result": "success"}
    assert not os.path.exists(node.pin)
    assert dial_error(world) == "ECONNREFUSED"


NEXT_STEP = "/usr/libexec/kubelb/next-step"
IMPORTS = {"nginx": ("/etc/nginx/nginx.conf", "kubespray-nginx.conf"),
           "haproxy": ("/etc/haproxy/haproxy.cfg", "kubespray-haproxy.cfg"),
           "kubeconfig": ("/etc/kubernetes/kubelet.conf", "kubelet-kubeadm.conf")}


def sample(name):
    with open(os.path.join(ROOT, "tests/data/import", name), encoding="utf-8") as f:
        return f.read()


@contextlib.contextmanager
def file_of(node, path, text):
    """A file of the node's, for a while."""
    before = node.exec("cat", path)
    node.write(path, text)
    try:
        yield
    finally:
        if before.returncode:
            node.run("rm", path)
        else:
            node.write(path, before.stdout)


@pytest.mark.parametrize("kind", IMPORTS)
def test_next_step_by_what_there_is(node, kind):
    """The proxy's file, or the kubelet's, goes into a configuration: that is what comes next, and
    it does not change anything yet."""
    path, name = IMPORTS[kind]
    command = f"kubelb-load --from-{kind} {path} >/etc/kubelb/kubelb.yaml"
    with file_of(node, path, sample(name)):
        assert node.run(NEXT_STEP).splitlines()[1:] == [f"  {command}"]
        assert not os.path.exists(node.path("/etc/kubelb/kubelb.yaml"))
        # It does what it promises, and says what comes next.
        assert START in ok(node.exec("sh", "-c", command)).stderr
        assert "/etc/kubelb/kubelb.yaml is there" in node.run(NEXT_STEP)
        assert node.run(NEXT_STEP).endswith(f"\n  {START}")
    node.run("rm", "/etc/kubelb/kubelb.yaml")


def test_next_step_passes_over_what_goes_nowhere(node):
    """A kubeconfig that leads to the proxy, and a control plane's own apiserver."""
    text = sample("kubelet-kubeadm.conf").replace("192.168.77.11", "127.0.0.1")
    with file_of(node, "/etc/kubernetes/kubelet.conf", text):
        assert "Name the apiservers" in node.run(NEXT_STEP)
    assert "control-plane" not in node.run(NEXT_STEP)
    with file_of(node, "/etc/kubernetes/manifests/kube-apiserver.yaml", "kind: Pod\n"):
        assert "this is a control-plane node" in node.run(NEXT_STEP)


def test_units_verify(node):
    """Every key, path and man page of the units is known to systemd."""
    done = node.exec("systemd-analyze", "verify",
                     *[f"/lib/systemd/system/{unit}" for unit in UNITS])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_boot(node, world):
    """The node comes up: when the kubelet starts, its connect is balanced already."""
    node.configure()
    node.write("/etc/systemd/system/kubelet.service", f"""[Unit]
Description=a kubelet
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/curl -sS -m 5 -o /run/first-answer --cacert {world.ca} \
https://127.0.0.1:6443/version
[Install]
WantedBy=multi-user.target
""")
    node.run("systemctl", "daemon-reload")
    node.run("systemctl", "enable", "kubelet")
    node.run("systemctl", "start", "multi-user.target")
    assert [active(node, unit) for unit in (*UNITS, "kubelet")] == ["active"] * 3
    with open(node.path("/run/first-answer"), encoding="utf-8") as f:
        assert "backend" in f.read()
    wait_states(world, "ready", world.backends)
    wait_until(lambda: status_text(node) == "3 of 3 backends ready",
               lambda: f"the status, is {status_text(node)!r}")
    assert served_set(world) == ALL


@contextlib.contextmanager
def without_load(node):
    """The agent's unit wants kubelb-load.service, which cannot start here."""
    node.run("systemctl", "stop", "kubelb-load")
    node.run("systemctl", "mask", "--runtime", "kubelb-load")
    try:
        yield
    finally:
        node.run("systemctl", "unmask", "--runtime", "kubelb-load")
        node.run("systemctl", "start", "kubelb-load")


def test_the_sandbox_lets_the_agent_attach(node, world):
    """Where nothing is attached, a starting agent sees to it, for all the host to see."""
    node.run("kubelb-load", "--detach")
    wait_until(lambda: "nothing is attached" in status_text(node), "the agent to notice")
    with without_load(node):
        node.run("systemctl", "restart", "kubelb-agent")
    assert active(node, "kubelb-agent") == "active"
    assert os.path.isdir(node.pin)
    assert served_set(world) == ALL


def test_a_start_without_a_bpffs(node, world):
    """Somebody has unmounted it. The unit's agent may not mount; its step before it does."""
    node.run("systemctl", "stop", "kubelb-agent")
    node.run("kubelb-load", "--detach")
    node.run("umount", "-l", "/sys/fs/bpf")
    assert not node.exec("findmnt", "-n", "-M", "/sys/fs/bpf").stdout
    with without_load(node):
        node.run("systemctl", "start", "kubelb-agent")
        assert os.path.isdir(node.pin)
    assert node.exec("findmnt", "-n", "-o", "FSTYPE", "-M", "/sys/fs/bpf").stdout == "bpf\n"
    assert os.path.isdir(node.pin)
    assert served_set(world) == ALL


def test_reload(node, world):
    """`systemctl reload` applies the file. With a mistake in it the old configuration
    stays, the journal has the line, and the status says so."""
    node.configure(backends=[b.endpoint for b in world.backends[:2]])
    node.run("systemctl", "reload", "kubelb-agent")
    wait_until(lambda: served_set(world, 10) == {"cp1", "cp2"}, "two backends")
    node.configure(text="backends:\n  - 192.0.2.1\n  - 192.0.2.1\n")
    node.run("systemctl", "reload", "kubelb-agent")
    wait_until(lambda: "NOT reloaded" in status_text(node), lambda: status_text(node))
    assert "kubelb.yaml:3" in node.journal("kubelb-agent")
    assert node.exec("systemctl", "reload", "kubelb-load").returncode != 0
    assert "/etc/kubelb/kubelb.yaml:3: " in node.journal("kubelb-load")
    assert active(node, "kubelb-load") == "active"
    assert served_set(world, 10) == {"cp1", "cp2"}
    node.configure()
    node.run("systemctl", "reload", "kubelb-load")
    wait_until(lambda: status_text(node) == "3 of 3 backends ready", lambda: status_text(node))
    assert active(node, "kubelb-agent") == "active"
    assert served_set(world) == ALL


def test_a_mistake_does_not_keep_the_node_from_booting(node, world):
    """The unit fails with file, line and key; the kubelet starts; what was attached
    stays."""
    node.run("systemctl", "stop", "kubelet", *UNITS)
    node.configure(text="backends:\n  - 192.0.2.1\nprobe:\n  intervall: 5s\n")
    node.run("systemctl", "start", "kubelet")
    assert active(node, "kubelet") == "active"
    assert active(node, "kubelb-load") == "failed"
    assert node.show("kubelb-load", "ExecMainStatus")["ExecMainStatus"] == "2"
    assert "/etc/kubelb/kubelb.yaml:4: probe.intervall" in node.journal("kubelb-load")
    assert served_set(world) == ALL
    node.configure()
    node.run("systemctl", "start", *UNITS)


def test_boot_by_relay(node, world):
    """Where nothing is attached, the agent listens before the kubelet starts."""
    node.run("systemctl", "stop", "kubelet", *UNITS)
    node.run("kubelb-load", "--detach")
    os.unlink(node.path("/run/first-answer"))
    node.configure(dataPath="relay")
    node.run("systemctl", "start", "kubelet")
    assert [active(node, unit) for unit in (*UNITS, "kubelet")] == ["active"] * 3
    with open(node.path("/run/first-answer"), encoding="utf-8") as f:
        assert "backend" in f.read()
    assert not os.path.isdir(node.pin)
    wait_until(lambda: status_text(node) == "3 of 3 backends ready; every connect is relayed",
               lambda: f"the status, is {status_text(node)!r}")
    assert node.run("kubelbctl", "status").startswith("data path RELAY")
    node.run("kubelbctl", "drain", world.cp(1).endpoint)
    assert served_set(world, 10) == {"cp2", "cp3"}
    node.run("kubelbctl", "undrain", world.cp(1).endpoint)
    node.configure()
    node.run("systemctl", "stop", *UNITS)
    node.run("systemctl", "start", *UNITS)
    wait_until(lambda: status_text(node) == "3 of 3 backends ready", lambda: status_text(node))
    assert served_set(world) == ALL


def test_stopped_units_leave_the_data_path(node, world):
    with Traffic(world):
        node.run("systemctl", "stop", *UNITS)
        assert [active(node, unit) for unit in UNITS] == ["inactive", "inactive"]
        assert served_set(world) == ALL
        node.run("systemctl", "start", *UNITS)


STOPPED = "stopped kubelb-load.service as well: systemctl start kubelb-load attaches again"


@pytest.mark.parametrize("agent", [True, False], ids=["agent", "no agent"])
def test_start_after_a_detach(node, world, agent):
    """A unit that stayed active could not be started. A running agent does not attach by itself
    meanwhile, and goes on with what is attached then."""
    if not agent:
        node.run("systemctl", "stop", "kubelb-agent")
    pid = agent_pid(node)
    said = ok(node.exec("kubelb-load", "--detach"))
    assert STOPPED in said.stdout and "kubelb-load.service" not in said.stderr
    assert active(node, "kubelb-load") == "inactive"
    if agent:
        wait_until(lambda: "nothing is attached" in status_text(node), "the agent to notice")
    assert not os.path.exists(node.pin) and dial_error(world) == "ECONNREFUSED"
    again = ok(node.exec("kubelb-load", "--detach"))
    assert again.stdout.startswith("nothing to detach") and STOPPED not in again.stdout
    node.run("systemctl", "start", "kubelb-load")
    assert active(node, "kubelb-load") == "active"
    assert served_set(world) == ALL
    if agent:
        wait_until(lambda: status_text(node) == "3 of 3 backends ready", lambda: status_text(node))
    assert agent_pid(node) == pid
    node.run("systemctl", "start", *UNITS)


def test_status_right_after_a_detach(node):
    """The agent may not have noticed yet: what it says then is the same."""
    said = node.exec("sh", "-c", "kubelb-load --detach >/dev/null 2>&1; kubelbctl status")
    assert said.stderr.endswith("nothing is attached; run kubelb-load\n"), said.stderr
    node.run("systemctl", "start", "kubelb-load")


def test_a_detach_of_another_directory_leaves_the_unit(node, world):
    said = node.run("kubelb-load", "--detach", "--pin", "/sys/fs/bpf/other")
    assert STOPPED not in said
    assert active(node, "kubelb-load") == "active"
    assert served_set(world) == ALL


def test_the_unit_does_not_stop_itself(node, world):
    """A drop-in may have it detach: its own process is no administrator."""
    drop_in(node, "ExecReload=\nExecReload=/usr/sbin/kubelb-load --detach\n", "kubelb-load")
    node.run("systemctl", "reload", "kubelb-load")
    assert active(node, "kubelb-load") == "active"
    assert "detached: removed" in node.journal("kubelb-load")
    assert not os.path.exists(node.pin)
    shutil.rmtree(node.path("/etc/systemd/system/kubelb-load.service.d"))
    node.run("systemctl", "daemon-reload")
    node.run("systemctl", "restart", "kubelb-load")
    assert served_set(world) == ALL


def test_a_service_manager_that_does_not_answer(node, world):
    """The detach has succeeded all the same, and says what attaches again."""
    sockets = [node.path(f"/run/{name}") for name in ("systemd/private", "dbus")]
    hidden = [(path, f"{path}.hidden") for path in sockets if os.path.exists(path)]
    for path, aside in hidden:
        os.rename(path, aside)
    try:
        said = ok(node.exec("kubelb-load", "--detach"))
    finally:
        for path, aside in hidden:
            os.rename(aside, path)
    line, = (line for line in said.stderr.splitlines() if "kubelb-load.service" in line)
    assert "may count as active" in line and "systemctl is-active" in line, line
    assert "systemctl restart kubelb-load attaches again" in line
    assert active(node, "kubelb-load") == "active"
    node.run("systemctl", "restart", "kubelb-load")
    assert served_set(world) == ALL


def drop_in(node, text, unit="kubelb-agent"):
    node.write(f"/etc/systemd/system/{unit}.service.d/test.conf", f"[Service]\n{text}")
    node.run("systemctl", "daemon-reload")
    node.run("systemctl", "restart", unit)


RESULTS = "/run/results"  # why each run of the agent has ended; that machine's init logs nowhere


@pytest.fixture(name="impatient")
def impatient_fixture(node):
    """The agent's unit with a watchdog and a restart that a test can wait for."""
    drop_in(node, "WatchdogSec=600ms\nRestartSec=100ms\nLimitCORE=0\n"
            f"ExecStopPost=+/bin/sh -c 'echo $$SERVICE_RESULT >>{RESULTS}'\n")
    node.run("rm", "-f", RESULTS)
    yield node
    shutil.rmtree(node.path("/etc/systemd/system/kubelb-agent.service.d"))
    node.run("systemctl", "daemon-reload")
    node.run("systemctl", "restart", "kubelb-agent")


def test_watchdog(impatient, world):
    """An agent that hangs is replaced; one that works for longer than the watchdog's
    interval is left alone."""
    old = agent_pid(impatient)
    restarts = int(impatient.show("kubelb-agent", "NRestarts")["NRestarts"])
    served_set(world)
    wait_until(lambda: int(impatient.show("kubelb-agent", "WatchdogTimestampMonotonic")
                           ["WatchdogTimestampMonotonic"]) -
               int(impatient.show("kubelb-agent", "ActiveEnterTimestampMonotonic")
                   ["ActiveEnterTimestampMonotonic"]) > 1_300_000,
               "two intervals' worth of signs of life")
    assert agent_pid(impatient) == old
    impatient.run("kill", "-STOP", str(old))
    wait_until(lambda: agent_pid(impatient) not in (0, old)
               and active(impatient, "kubelb-agent") == "active", "another agent", 10)
    assert int(impatient.show("kubelb-agent", "NRestarts")["NRestarts"]) == restarts + 1
    assert impatient.run("cat", RESULTS).split() == ["watchdog"]
    assert served_set(world) == ALL


def test_a_kernel_that_will_not_do(node, world):
    """The agent serves the node. With dataPath: kernel, exit 1, one line that names what is
    missing, and no tight loop of restarts."""
    node.run("systemctl", "stop", *UNITS)
    node.run("kubelb-load", "--detach")
    node.run("mount", "--bind", "/dev/null", "/sys/kernel/btf/vmlinux")
    try:
        node.run("systemctl", "start", "kubelb-agent")
        assert "BTF is missing" in node.journal("kubelb-load")
        assert node.run("kubelbctl", "status").startswith("data path RELAY")
        assert served_set(world) == ALL
        node.run("systemctl", "stop", *UNITS)
        node.configure(dataPath="kernel")
        before = len(node.journal("kubelb-agent"))
        assert node.exec("systemctl", "start", "kubelb-agent").returncode != 0
        shown = node.show("kubelb-agent", "SubState", "ExecMainStatus", "RestartUSec")
        assert shown == {"SubState": "auto-restart", "ExecMainStatus": "1", "RestartUSec": "5s"}
        lines = node.journal("kubelb-agent")[before:].splitlines()
        assert any(line.startswith("kubelb-agent: ") and "BTF" in line for line in lines), lines
        node.run("systemctl", "stop", "kubelb-agent")
    finally:
        node.run("umount", "/sys/kernel/btf/vmlinux")
        node.configure()
    node.run("systemctl", "start", *UNITS)
    assert served_set(world) == ALL


def abi_version(world):
    return dump(world, "control")[0][1]["abi_version"]


def test_upgrade_under_traffic(node, world, next_package):
    """dpkg replaces the programs, postinst the data path in place, and then the agent."""
    wait_states(world, "ready", world.backends)
    wait_idle(world)
    old, version, agent = objects(world), abi_version(world), agent_pid(node)
    with Held(world, 20) as held:
        with Traffic(world):
            done = node.exec("dpkg", "-i", next_package)
            assert done.returncode == 0, done.stdout + done.stderr
            assert NOTHING_YET not in done.stdout + done.stderr
            wait_states(world, "ready", world.backends)
        assert held.close()["closed"] == 0
    wait_idle(world)
    assert served_set(world) == ALL
    assert installed(node) == f"ii {NEXT}"
    assert abi_version(world) > version
    assert agent_pid(node) not in (0, agent)
    assert [active(node, unit) for unit in UNITS] == ["active", "active"]
    wait_until(lambda: not still_there({"prog": old["prog"]})["prog"], "the old programs to go")


def test_upgrade_with_a_mistake_in_the_configuration(node, world, next_package):
    """The package is installed, what was attached goes on, the agent too, and one is told."""
    node.configure(text="backends:\n  - nonsense\n")
    agent = agent_pid(node)
    with Traffic(world):
        done = node.exec("dpkg", "-i", next_package)
    assert done.returncode == 0, done.stderr
    assert "/etc/kubelb/kubelb.yaml:2: " in done.stderr
    assert "the former version stays attached" in done.stderr
    assert agent_pid(node) == agent
    assert served_set(world) == ALL
    node.configure()


def test_remove(node, world):
    """Connections that are open go on; nothing of the package stays but what its owner
    wrote."""
    ids = objects(world)
    with Held(world, 10) as held:
        said = ok(node.exec("apt-get", "remove", "-y", "kubelb"))
        assert held.close()["closed"] == 0
    output = said.stdout + said.stderr
    assert "127.0.0.1:6443" in output and "fail from now on" in output
    assert dial_error(world) == "ECONNREFUSED"
    assert_gone(node, ids)
    assert node.show(UNITS[0], "LoadState")["LoadState"] == "not-found"
    assert os.path.exists(node.path("/etc/kubelb/kubelb.yaml"))


def test_purge_takes_only_what_is_the_packages(node):
    """The only copy of a manifest may lie in /etc/kubelb: docs/migrate.md says so."""
    others = {"/etc/kubelb/nginx-proxy.yml": "manifest", "/etc/kubelb/.hidden": "hidden",
              "/etc/kubelb/old/kubelet.conf.before": "conf", "/var/lib/kubelb/notes": "notes"}
    for path, text in others.items():
        os.makedirs(os.path.dirname(node.path(path)), exist_ok=True)
        with open(node.path(path), "w", encoding="ascii") as f:
            f.write(text)
    said = ok(node.exec("dpkg", "--purge", "kubelb"))
    for word in ("/etc/kubelb stays", "nginx-proxy.yml", ".hidden", "old", "/var/lib/kubelb stays",
                 "notes"):
        assert word in said.stdout + said.stderr
    for path, text in others.items():
        with open(node.path(path), encoding="ascii") as f:
            assert f.read() == text
    assert sorted(os.listdir(node.path("/etc/kubelb"))) == [".hidden", "nginx-proxy.yml", "old"]
    assert os.listdir(node.path("/var/lib/kubelb")) == ["notes"]
    for path in ("/etc/kubelb", "/var/lib/kubelb"):
        shutil.rmtree(node.path(path))


def test_purge(node, package):
    """Where there is nothing of others, nothing stays."""
    node.run("dpkg", "-i", package)
    node.configure()
    os.makedirs(node.path("/var/lib/kubelb"))
    for name in ("backends.json", "backends.json.tmp", "operator.json", "operator.json.tmp"):
        with open(node.path(f"/var/lib/kubelb/{name}"), "w", encoding="ascii"):
            pass
    node.run("dpkg", "--remove", "kubelb")
    assert os.path.isdir(node.path("/var/lib/kubelb"))  # systemd made it for the agent
    node.run("dpkg", "--purge", "kubelb")
    for path in ("/etc/kubelb", "/var/lib/kubelb"):
        assert not os.path.exists(node.path(path))
    assert installed(node) == ""


# --- from nothing to balanced --------------------------------------------------


def three_commands():
    """The first block of README.md's section, a line each."""
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as f:
        section = f.read().partition("\n### In three commands\n")[2]
    return section.partition("```sh\n")[2].partition("```")[0].splitlines()


def test_three_commands(node, world, package):
    """The page's, on a node with Kubespray's proxy: each but the last prints the next one, and
    then it is balanced."""
    node.exec("kubelb-load", "--detach")  # where test_remove was left out
    first, second, third = three_commands()
    with machine_on(world) as fresh:
        path, name = IMPORTS["nginx"]
        fresh.write(path, sample(name))
        with open(world.ca, encoding="ascii") as f:
            fresh.write("/etc/kubernetes/pki/ca.crt", f.read())
        fresh.run("mkdir", "/root/three")
        shutil.copy(package, fresh.path("/root/three"))
        said = ok(fresh.exec("sh", "-c", f"cd /root/three && {first}"))
        assert f"  {second}\n" in said.stdout
        said = ok(fresh.exec("sh", "-c", second))
        assert said.stderr.endswith(f": {third}\n") and said.stdout == ""
        said = ok(fresh.exec("sh", "-c", third))
        assert "all effective" in said.stdout and "connects  end at a backend" in said.stdout
        wait_states(world, "ready", world.backends)
        assert served_set(world) == ALL
        fresh.run("systemctl", "stop", *UNITS)
        fresh.run("kubelb-load", "--detach")


# --- where systemd does not run ------------------------------------------------


@pytest.fixture(scope="module", name="bare_node")
def bare_node_fixture(world):
    with machine_on(world, systemd=False) as machine:
        yield machine


def test_without_systemd(bare_node, world, package, next_package):
    """Containers and other inits: no script fails, and the data path is treated the same."""
    node = bare_node
    said = node.run("dpkg", "-i", package)
    assert NOTHING_YET in said and "\n  kubelb-load && kubelbctl status\n" in said
    node.configure()
    node.run("kubelb-load")
    assert served_set(world) == ALL
    version = abi_version(world)
    with Traffic(world):
        node.run("dpkg", "-i", next_package)
    assert abi_version(world) > version
    ids = objects(world)
    node.run("dpkg", "--remove", "kubelb")
    assert_gone(node, ids)
    node.run("dpkg", "--purge", "kubelb")
    assert not os.path.exists(node.path("/etc/kubelb"))


def test_in_an_image(bare_node, world, package, next_package):
    """A chroot on a running node, as image builders use it: the node's own data path is not
    the image's to change."""
    node = bare_node
    node.run("dpkg", "-i", package)
    node.configure()
    node.run("kubelb-load")
    before = objects(world)
    node.run("mkdir", "-p", "/mnt/image")
    node.run("mount", "--rbind", "/", "/mnt/image")
    node.run("chroot", "/mnt/image", "dpkg", "-i", next_package)
    node.run("chroot", "/mnt/image", "dpkg", "--purge", "kubelb")
    assert objects(world) == before
    assert served_set(world) == ALL
    ok(node.exec(os.path.join(BUILD, "kubelb-load"), "--detach"))
    wait_until(lambda: not any(still_there(before).values()), "everything to be gone")
