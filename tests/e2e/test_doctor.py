# SPDX-License-Identifier: BSD-2-Clause
"""kubelbctl doctor: finds each planted fault and names the cure, and finds nothing where nothing is
wrong. Where the cure can be done here it is, and the fault is gone then."""

import json
import os
import re
import shutil
import signal
import stat
import tarfile
import time
from email.utils import formatdate

import pytest

from backend import PORT
from helpers import V4, V6, Listener, fails, load_argv, ok, pins, wait_states, wait_stopped
from system import run_checked, wait_until
from test_effective import Foreign
from test_host_netns import CONTAINER, load_in
from test_refusal import CASES, load_without

DAY = 86400
TOKEN = "eyJhbGciOiJSUzI1NiJ9.c2VjcmV0.c2lnbmF0dXJl"
# A machine with cgroup v1 alone: what is mounted here is mounted for nobody else.
V1_ONLY = ("unshare", "--mount", "--propagation", "private", "sh", "-c",
           'for at in $(findmnt -rno TARGET -t cgroup2); do umount -l "$at"; done; exec "$@"', "v1")
AS_NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")


class Visit:
    """One run of kubelbctl doctor -o json."""

    def __init__(self, stage, prefix=(), **kwargs):
        done = stage.exec([*prefix, stage.program("kubelbctl"), "--pin", stage.pin, "-c",
                           stage.config, "doctor", "-o", "json"], timeout=60, **kwargs)
        assert done.stderr == "", done.stderr
        document = json.loads(done.stdout)
        self.checks = document["checks"]
        assert document["faults"] == len(self.of("fault"))
        assert document["warnings"] == len(self.of("warn"))
        assert done.returncode == (1 if document["faults"] else 0), done.stdout
        for found in self.of("fault") + self.of("warn"):
            assert found["next"], f"no next step: {found}"

    def of(self, result, check=None):
        return [c for c in self.checks if c["result"] == result and check in (None, c["check"])]

    def names(self, result):
        return {c["check"] for c in self.of(result)}

    def one(self, result, check, *words):
        """The only finding of that kind; with these words in it, or in its next step."""
        found = self.of(result, check)
        assert len(found) == 1, self.checks
        text = f"{found[0]['text']}; next: {found[0]['next']}"
        for word in words:
            assert word in text, text
        return found[0]

    def well(self):
        """Nothing is wrong."""
        assert not self.of("fault") and not self.of("warn"), self.checks
        return self


def cure_gone(stage, check, **kwargs):
    """Until that check finds no fault any more: what was done about it takes a moment."""
    wait_until(lambda: check not in Visit(stage, **kwargs).names("fault"),
               lambda: f"no fault of {check}: {Visit(stage, **kwargs).checks}", 15)


# --- nothing is wrong ----------------------------------------------------------


def test_a_healthy_node(balanced):
    """No fault and no warning, and everything could be looked at."""
    visit = Visit(balanced).well()
    # A machine without nft and iptables cannot list its rules.
    assert visit.names("skip") <= {"firewall"}, visit.checks
    assert {"kernel", "cgroup", "bpffs", "feature", "config", "programs", "pins", "netns",
            "connects", "agent", "reload", "relay", "frontend", "http", "backend", "certificate",
            "clock"} <= visit.names("ok")
    assert len(visit.of("ok", "backend")) == 3


def test_for_people(balanced):
    """A line for each check, and a sum."""
    done = ok(balanced.ctl("-c", balanced.config, "doctor"))
    *lines, empty, last = done.stdout.splitlines()
    assert empty == "" and re.fullmatch(r"0 faults, 0 warnings, \d not checked", last)
    assert all(re.match(r"(ok|skip)  +[a-z]+  +\S", line) for line in lines), lines
    balanced.cp(1).kill()
    done = balanced.ctl("-c", balanced.config, "doctor")
    assert done.returncode == 1 and done.stderr == ""
    [line] = [x for x in done.stdout.splitlines() if x.startswith("FAULT")]
    assert re.match(rf"FAULT  backend      {balanced.cp(1).endpoint}: .*refused.*; next: start ", line)


def test_a_healthy_node_with_discovery(found, stage):
    assert found
    visit = Visit(stage).well()
    visit.one("ok", "discovery", "as the cluster says")


class Relaying:
    """A stage whose agent relays, as dataPath says."""

    def __init__(self, stage):
        self.stage = stage
        state = os.path.join(stage.dir, "state")
        shutil.rmtree(state, ignore_errors=True)
        stage.configure(dataPath="relay", http=["127.0.0.1:8081",
                                                f"unix:{os.path.join(stage.dir, 'agent.sock')}"])
        stage.ctl_options = ["-c", stage.config]
        self.agent = stage.agent(env={**os.environ, "STATE_DIRECTORY": state})
        wait_until(lambda: stage.ctl("ping").returncode == 0,
                   lambda: f"the agent to answer:\n{self.agent.log()}")


def test_a_healthy_relay(stage):
    """Where the agent is the data path on purpose, nothing lacks."""
    Relaying(stage)
    wait_states(stage, "ready", stage.backends)
    visit = Visit(stage).well()
    visit.one("ok", "programs", "relays every connect, as dataPath says")
    assert {"cgroup", "bpffs", "feature"} <= visit.names("skip")
    assert len(visit.of("ok", "frontend")) == 2


def test_without_an_agent(attached):
    """Which is a way to use it: a warning."""
    visit = Visit(attached)
    assert not visit.of("fault")
    visit.one("warn", "agent", "every backend counts as ready", "systemctl enable --now")


def test_nothing_is_attached(stage):
    visit = Visit(stage)
    assert visit.names("fault") == {"programs"}
    visit.one("fault", "programs", "nothing is attached", "systemctl restart kubelb-load")
    assert len(visit.of("ok", "backend")) == 3, "the configuration has them"


def test_as_another_user_than_root(balanced):
    """It says what it cannot see, and finds no fault in that."""
    visit = Visit(balanced, prefix=AS_NOBODY).well()
    assert {"feature", "programs", "http", "firewall"} <= visit.names("skip")
    assert all("root" in c["text"] for c in visit.of("skip") if c["check"] != "agent")
    assert len(visit.of("ok", "backend")) == 3


def test_in_a_container(balanced):
    """With its own processes and mounts; the node's network is its own."""
    visit = Visit(balanced, prefix=CONTAINER).well()
    assert {"programs", "connects", "agent", "reload"} <= visit.names("ok")
    visit.one("skip", "http", "outside of a container")


# --- the planted faults --------------------------------------------------------


def test_stopped_agent(balanced):
    agent = balanced.running
    agent.signal(signal.SIGSTOP)
    try:
        wait_stopped(agent.process)
        found = Visit(balanced).one("fault", "agent", f"PID {agent.pid} is stopped")
        match = re.match(r"kill -CONT (\d+)", found["next"])
        os.kill(int(match.group(1)), signal.SIGCONT)
        cure_gone(balanced, "agent")
    finally:
        agent.signal(signal.SIGCONT)


def test_dead_agent(balanced):
    balanced.running.kill9()
    wait_until(lambda: "agent" in Visit(balanced).names("fault"), "the agent to be missed", 10)
    Visit(balanced).one("fault", "agent", "it has ended", "systemctl start kubelb-agent",
                        "journalctl")
    balanced.agent().wait_log("running")
    cure_gone(balanced, "agent")


def test_wrong_ca(attached):
    """In the configuration: everybody is refused."""
    other = attached.pki.authority("other", "kubelb untrusted CA")
    attached.configure(probe={"ca": other})
    visit = Visit(attached)
    assert visit.names("fault") == {"backend"} and len(visit.of("fault")) == 3
    for found in visit.of("fault"):
        assert found["next"].startswith(f"set probe.ca ({other}) to the CA that has issued it")
    attached.configure()
    assert not Visit(attached).of("fault")


def test_wrong_ca_of_one_apiserver(attached):
    attached.cp(1).certificate("wrong_ca", attached.pki)
    Visit(attached).one("fault", "backend", attached.cp(1).endpoint, "untrusted CA", "probe.ca")


def test_missing_san(attached):
    """The frontend's addresses, as kubeadm leaves them out; and the backend's own."""
    attached.cp(1).certificate("no_loopback", attached.pki)
    attached.cp(2).certificate("wrong_name", attached.pki)
    visit = Visit(attached)
    assert visit.names("fault") == {"certificate", "backend"}
    visit.one("fault", "certificate", f"{attached.cp(1).endpoint} does not name {V4}, {V6}",
              "certSANs")
    visit.one("fault", "backend", f"does not name {attached.cp(2).v4}", "certSANs",
              "probe.serverName")


@pytest.fixture(name="foreign")
def foreign_fixture(stage, tmp_path, group):  # pylint: disable=unused-argument
    """Detached before its cgroup goes."""
    programs = Foreign(stage, tmp_path)
    yield programs
    stage.end_processes()
    programs.detach()


def test_foreign_program(stage, foreign, group):
    """Another owner's program sends what KubeLB has sent to a backend elsewhere."""
    stage.configure(backends=[stage.cp(1).endpoint])
    ok(stage.load(cgroup=group))
    assert not Visit(stage, cgroup=group).of("fault")
    program = foreign.attach(group, to=(stage.cp(2).v4, PORT))
    visit = Visit(stage, cgroup=group)
    # The doctor's own connect to the backend is sent elsewhere, too: another certificate is there.
    assert visit.names("fault") == {"connects", "backend"}
    visit.one("fault", "connects", f"{V4}:{PORT} is sent to {stage.cp(2).endpoint}",
              f"program somebody (id {program['id']}) at connect4",
              f"bpftool cgroup detach CGROUP connect4 id {program['id']}")
    foreign.detach()
    assert not Visit(stage, cgroup=group).of("fault")


def test_a_program_that_changes_nothing(stage, foreign, group):
    """Others live at these hooks as well, as Cilium does: no fault."""
    ok(stage.load(cgroup=group))
    foreign.attach(group)
    visit = Visit(stage, cgroup=group)
    assert not visit.of("fault") and visit.names("warn") == {"agent"}


def test_other_namespace(stage):
    """A pod has loaded first: the balancer is its own."""
    pod = stage.pod()
    ok(load_in(stage, pod))
    Visit(stage).one("fault", "netns", "another network namespace", "kubelb-load --this-netns")
    assert "netns" in Visit(stage, ns=pod).names("ok")
    ok(stage.load("--this-netns"))
    assert not Visit(stage).of("fault")


@pytest.mark.parametrize("how", ["detached", "cgroup removed"])
def test_stale_pins(stage, group, how):
    """The pins are there, and the kernel does not run what they lead to."""
    inner = os.path.join(group, "inner")
    os.mkdir(inner)
    ok(stage.load(cgroup=inner))
    assert not Visit(stage).of("fault")
    if how == "detached":
        [pin] = [p for p in pins(stage) if p.endswith("connect4")]
        run_checked(["bpftool", "link", "detach", "pinned", f"{stage.pin}/{pin}"])
    else:
        os.rmdir(inner)
        # The kernel takes a removed cgroup's programs away a moment later.
        wait_until(lambda: all("stale" in f["text"] for f in Visit(stage).of("fault")),
                   "the links to lose their cgroup")
    visit = Visit(stage)
    assert visit.names("fault") == {"programs"}
    for found in visit.of("fault"):
        assert "stale" in found["text"] and "run kubelb-load again" in found["next"]
    assert any("connect4" in found["text"] for found in visit.of("fault"))
    ok(stage.load(cgroup=group))
    assert not Visit(stage).of("fault")


@pytest.mark.parametrize("first", [True, False], ids=["first load", "later load"])
def test_stale_pins_of_a_killed_load(stage, library, group, first):
    """What has temporary names: nothing uses it."""
    argv = load_argv(stage, stage.program("kubelb-load"), group)
    if not first:
        ok(stage.exec(argv))
    killed = stage.exec(argv, env={**library, "KILLAT": "link_create:3" if first else
                                   "link_update:2"})
    assert killed.returncode == -signal.SIGKILL, killed
    left = [p for p in pins(stage) if p.endswith("_new")] or os.path.exists(stage.pin + "_new")
    if not left:
        pytest.skip("a load that is killed there leaves no pin")
    Visit(stage).one("fault", "pins", "stale pins", "killed", "run kubelb-load again")
    ok(stage.exec(argv))
    assert not Visit(stage).of("fault")


def test_http_port_taken(attached):
    """127.0.0.1:8081, where Kubespray's proxy has its health check."""
    with Listener(attached, V4, 8081):
        visit = Visit(attached)
        assert visit.names("fault") == {"http"}
        visit.one("fault", "http", f"{V4}:8081 is taken", f"pid {os.getpid()}", "key http")
        agent = attached.agent()
        agent.wait_log("no metrics for now")
        assert "http" in Visit(attached).names("fault"), "with an agent as well"
    cure_gone(attached, "http")
    agent.stop()


def test_frontends_port_taken_in_relay_mode(stage):
    """The agent cannot serve what somebody else listens on."""
    with Listener(stage, V4, PORT):
        agent = Relaying(stage).agent
        visit = Visit(stage)
        visit.one("fault", "frontend", f"{V4}:{PORT} is taken", f"pid {os.getpid()}", "end that")
        assert len(visit.of("ok", "frontend")) == 1
    cure_gone(stage, "frontend")
    agent.stop()


def test_frontends_port_taken_beside_the_kernel(balanced):
    """A local proxy that is still there disturbs nobody, and is no good any more."""
    with Listener(balanced, V4, PORT):
        visit = Visit(balanced)
        assert not visit.of("fault")
        visit.one("warn", "frontend", f"pid {os.getpid()}", "listens there as well", "remove it")


@pytest.mark.parametrize("how, words", [("kill", ("refused", "start kube-apiserver")),
                                        ("stop", ("nothing answers within", "restart it")),
                                        ("link", ("the connect is not answered", "firewall"))])
def test_dead_backend(attached, how, words):
    cp = attached.cp(2)
    if how == "link":
        cp.link(up=False)
    else:
        getattr(cp, how)()
    visit = Visit(attached)
    assert visit.names("fault") == {"backend"}
    visit.one("fault", "backend", cp.endpoint, *words)
    assert len(visit.of("ok", "backend")) == 2
    cp.restore(attached.pki)
    assert not Visit(attached).of("fault")


def test_backend_that_is_not_ready(attached):
    attached.cp(1).readyz(500)
    attached.cp(2).readyz(401)
    visit = Visit(attached)
    [unready, refuses] = visit.of("fault", "backend")
    assert "answers 500 to /readyz" in unready["text"] and "?verbose" in unready["next"]
    assert "answers 401" in refuses["text"] and "probe.clientCert" in refuses["next"]


def tells(api, seconds):
    """The apiserver's clock, in its answers."""
    api.answer("*", status=200, body="ok",
               headers={"Date": formatdate(time.time() + seconds, usegmt=True)})


def test_own_clock_off_by_a_day(attached):
    """Of three apiservers, two say so."""
    apis = [attached.apiserver(i) for i in (1, 2, 3)]
    tells(apis[0], 0)
    for api in apis[1:]:
        tells(api, DAY)
    visit = Visit(attached)
    assert visit.names("fault") == {"clock"}
    visit.one("fault", "clock", "this node's is", "behind that of 2 of 3", "timedatectl")
    for api in apis:
        tells(api, 0)
    assert not Visit(attached).of("fault")


@pytest.mark.parametrize("seconds, words", [(DAY, "ahead of"), (-DAY, "behind"), (50, None)])
def test_clock_of_one_apiserver(attached, seconds, words):
    """Nobody notices less than a minute."""
    apis = [attached.apiserver(i) for i in (1, 2, 3)]
    for api in apis:
        tells(api, 0)
    tells(apis[2], seconds)
    visit = Visit(attached)
    if not words:
        assert not visit.of("fault")
        return
    assert visit.names("fault") == {"clock"}
    visit.one("fault", "clock", f"that of {apis[2].endpoint} is", words, "of that host")


def test_expired_certificate(attached):
    """The clocks agree, so the certificate is at fault."""
    attached.cp(1).certificate("expired", attached.pki)
    visit = Visit(attached)
    assert visit.names("fault") == {"backend"}
    visit.one("fault", "backend", "expired", "kubeadm certs renew apiserver")


def test_certificate_that_the_clock_has_expired(attached):
    """All of them, and the apiservers' own clocks say another time: that is the fault to mend."""
    for i in (1, 2, 3):
        api = attached.apiserver(i)
        api.certificate("expired", attached.pki)
        tells(api, -3 * DAY)
    visit = Visit(attached)
    assert visit.names("fault") == {"backend", "clock"}
    assert all(f["next"] == "set the clock first: see the check clock"
               for f in visit.of("fault", "backend"))
    visit.one("fault", "clock", "ahead of that of 3 of 3")


def test_cgroup_v1_only(stage):
    """And the cure, as it is printed, in the same mount namespace."""
    found = Visit(stage, prefix=V1_ONLY).one("fault", "cgroup", "there is only v1",
                                             "dataPath: relay")
    match = re.match(r"mkdir -p (\S+) && (mount -t cgroup2 none \S+), ", found["next"])
    cure = f'mkdir -p {match.group(1)} 2>/dev/null; {match.group(2)} && exec "$@"'
    visit = Visit(stage, prefix=(*V1_ONLY, "sh", "-c", cure, "cure"))
    assert "cgroup" in visit.names("ok")


def test_refused_feature(stage, refuse):
    """At the load and not any more; and at any time."""
    what, name, word = CASES["sockops"]
    ok(load_without(stage, refuse, what))
    visit = Visit(stage)
    visit.one("fault", "feature", f"{name} was refused when KubeLB was attached ({word})",
              "run kubelb-load again")
    visit = Visit(stage, prefix=(refuse, *what, "--"))
    assert not visit.of("fault", "feature")
    visit.one("warn", "feature", f"{name} is off", "kubelb-load --check")
    ok(stage.load())
    assert not Visit(stage).of("fault")


def test_refused_connect_program(stage, refuse):
    """What balancing needs is a fault."""
    visit = Visit(stage, prefix=(refuse, "prog=18/10", "--"))
    visit.one("fault", "feature", "cgroup/connect4 is missing", "relay")


def test_refused_reload(balanced):
    """The file and the agent's own word for it; it is taken up by itself once it is right."""
    mark = len(balanced.running.log())
    balanced.configure(backends=["apiserver.example"])
    balanced.running.wait_log("configuration not reloaded", start=mark)
    visit = Visit(balanced)
    assert visit.names("fault") == {"config", "reload"}
    visit.one("fault", "config", f"{balanced.config}:", "backends", "kubelb-load -n")
    visit.one("fault", "reload", "goes on with what it read before", "taken up by itself")
    balanced.configure()
    cure_gone(balanced, "reload")
    assert not Visit(balanced).of("fault")


@pytest.mark.skipif(not shutil.which("iptables"), reason="no iptables here")
def test_firewall_rule(attached):
    """One that drops connects to backends is named; rules about other things are not."""
    def rule(*words):
        return attached.exec(["iptables", *words])

    others = [("-A", "INPUT", "-p", "tcp", "--dport", str(PORT), "-j", "DROP"),
              ("-A", "OUTPUT", "-p", "tcp", "--dport", "64430", "-j", "DROP"),
              ("-A", "OUTPUT", "-p", "tcp", "--dport", str(PORT), "-j", "ACCEPT")]
    if rule("-L").returncode:
        pytest.skip("iptables does not work here")
    try:
        for words in others:
            ok(rule(*words))
        assert not Visit(attached).of("warn", "firewall")
        ok(rule("-A", "OUTPUT", "-p", "tcp", "--dport", str(PORT), "-j", "DROP"))
        # As the tool that is here writes it; iptables' own rules are among nft's.
        drop = "drop" if shutil.which("nft") else "DROP"
        Visit(attached).one("warn", "firewall", drop, f"{PORT}", "let this node's connects")
    finally:
        rule("-F")


# --- the bundle ----------------------------------------------------------------


def bundle(stage, path, *args):
    done = stage.ctl("-c", stage.config, "doctor", "--bundle", path, *args, timeout=120)
    with tarfile.open(path) as archive:
        texts = {m.name: archive.extractfile(m).read().decode() for m in archive.getmembers()}
    return done, texts


def test_bundle(balanced, tmp_path):
    """Everything that support would ask for."""
    path = tmp_path / "report.tar"
    done, texts = bundle(balanced, path)
    ok(done)
    assert f"{path}: written" in done.stdout.splitlines()[-1]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {os.path.basename(name) for name in texts} == {
        "version.txt", "doctor.txt", "doctor.json", "kubelb.yaml", "status.txt", "status.json",
        "maps.txt", "connections.json", "events.txt", "metrics.txt", "kernel.txt", "network.txt",
        "firewall.txt", "journal.txt"}
    at = {os.path.basename(name): text for name, text in texts.items()}
    assert json.loads(at["doctor.json"])["faults"] == 0
    assert "ok     kernel" in at["doctor.txt"]
    assert balanced.cp(1).endpoint in at["kubelb.yaml"]
    assert {b["address"] for b in json.loads(at["status.json"])["backends"]} == {
        b.endpoint for b in balanced.backends}
    assert "kubelb_backend_state" in at["metrics.txt"] and "Linux" in at["kernel.txt"]
    assert all(text for text in texts.values()), "none is empty"


def test_bundle_has_no_secrets(balanced, tmp_path):
    """Of a configuration, even in its comments, and of what its files hold."""
    secrets = [TOKEN, "hunter2", "abcdef.0123456789abcdef"]
    with open(balanced.config, "a", encoding="utf-8") as f:
        f.write(f"# token: hunter2\n# {TOKEN}\n# https://me:hunter2@proxy.example\n"
                "# kubeadm join --token abcdef.0123456789abcdef\n")
        with open(balanced.pki.key, encoding="ascii") as key:
            pem = key.read()
        f.write("".join(f"# {line}\n" for line in pem.splitlines()))
    _done, texts = bundle(balanced, tmp_path / "report.tar")
    assert "[removed]" in "".join(texts.values())
    for name, text in texts.items():
        for secret in secrets + [line for line in pem.splitlines() if len(line) > 16]:
            assert secret not in text, f"{name} has {secret}"


def test_bundle_of_a_node_with_faults(stage, tmp_path):
    """The exit status is the doctor's, and what cannot be had is said to be so."""
    done, texts = bundle(stage, tmp_path / "report.tar", "-o", "json")
    assert done.returncode == 1 and json.loads(done.stdout)["faults"] == 1
    assert "nothing is attached" in texts["kubelb/status.txt"]


def test_bundle_replaces_nothing(stage, tmp_path):
    """A name that somebody else may have made, in /tmp, is not written to."""
    path = tmp_path / "there"
    path.write_text("mine")
    done = stage.ctl("-c", stage.config, "doctor", "--bundle", path)
    assert done.returncode == 1 and f"--bundle {path}: exists already" in done.stderr
    assert path.read_text() == "mine"
    done = stage.ctl("-c", stage.config, "doctor", "--bundle", tmp_path / "no" / "folder")
    assert done.returncode == 1 and "No such file" in done.stderr


def test_command_line(stage):
    fails(stage.ctl("status", "--bundle", "x"), 2, "status does not take --bundle")
    fails(stage.ctl("doctor", "now"), 2, "doctor takes no argument")
