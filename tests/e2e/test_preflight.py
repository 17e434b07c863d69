# SPDX-License-Identifier: BSD-2-Clause
"""The preflight: what the first kubelb-load, and a dry run, refuse, and what they must not."""

import errno
import json
import os
import time

import pytest

from helpers import dial_error, fails, ok, served_by, served_set, wait_states
from kubelb import yaml_text
from system import wait_until

ALL = {"cp1", "cp2", "cp3"}
NONE = "no backend answers as an apiserver"


def refused(done, *words):
    """Exit 1: the last line says what comes of it, those before it give the causes."""
    assert done.returncode == 1, f"{done.args}: exit {done.returncode}: {done.stderr}"
    *causes, last = done.stderr.splitlines()
    for word in (NONE, "nothing is attached", *words):
        assert word in last, f"{word!r} is not in: {last}"
    assert causes and all(line.startswith("kubelb-load: warning: ") for line in causes)
    return causes


def nothing_is_attached(stage):
    assert not os.path.exists(stage.pin)
    assert dial_error(stage) == "ECONNREFUSED"


def kill_all(stage):
    for b in stage.backends:
        b.kill()


def serve_frontend(stage):
    """Somebody listens on 127.0.0.1:6443, as a proxy does. Connects show whose they are."""
    local = stage.local_apiserver()
    assert served_by(stage) == local.name
    return local


# --- none answers ----------------------------------------------------------------


@pytest.mark.parametrize("args", [[], ["-n"]], ids=["load", "dry-run"])
def test_none_answers(stage, args):
    """One line for the cause, one for what comes of it, and nothing is attached."""
    kill_all(stage)
    cause, = refused(stage.load(*args, strict=True), "--force")
    for b in stage.backends:
        assert b.endpoint in cause
    assert "Connection refused" in cause and "is the apiserver up" in cause
    nothing_is_attached(stage)


@pytest.mark.parametrize("option", ["--force", "--boot"])
def test_none_answers_and_it_is_to_be(stage, option):
    """Nobody serves the frontend: a node that boots must come up, whoever else is down. The
    first apiserver that is back serves it."""
    kill_all(stage)
    ok(stage.load(option, strict=True))
    assert dial_error(stage) == "ECONNREFUSED"
    stage.cp(2).start()
    # The dead ones are tried again now and then.
    wait_until(lambda: dial_error(stage) is None and served_by(stage) == "cp2",
               "the apiserver that is back")


def test_what_is_served_is_not_taken_away(stage):
    """A proxy that works, and backends that do not: not even a unit's --boot attaches. With
    --force somebody wants it."""
    local = serve_frontend(stage)
    kill_all(stage)
    for args in ([], ["--boot"], ["--boot", "-n"]):
        refused(stage.load(*args, strict=True), "cut this node off", "127.0.0.1:6443")
        assert not os.path.exists(stage.pin)
        assert served_by(stage) == local.name
    ok(stage.load("--force", strict=True))
    assert dial_error(stage) == "ECONNREFUSED"


def test_a_proxy_without_upstreams_serves_nobody(stage):
    """It takes connects and shakes no hands: nothing to lose, and the node comes up."""
    local = serve_frontend(stage)
    kill_all(stage)
    local.stop()
    try:
        ok(stage.load("--boot", strict=True))
    finally:
        local.cont()


def test_time_is_bounded(stage):
    """Black holes and servers that say nothing: two seconds for all of them together."""
    stage.cp(1).link(up=False)
    stage.cp(2).link(up=False)
    stage.cp(3).stop()
    try:
        start = time.monotonic()
        causes = refused(stage.load(strict=True))
        took = time.monotonic() - start
    finally:
        stage.cp(3).cont()
    assert [line.split(";")[0].split(": ")[-1] for line in causes] == \
        ["no answer within 2 s", "connected, and no TLS within 2 s"]
    assert 1.9 < took < 9, took  # to load the programs takes a second or more
    nothing_is_attached(stage)


def test_a_shortage_says_nothing_of_backends(stage, refuse):
    """No backend can be dialled for want of memory. Whether one answers nobody knows."""
    done = stage.exec([refuse, f"errno={errno.ENOMEM}", "tcp4", "--", stage.program("kubelb-load"),
                       "-n", "--pin", stage.pin, "-c", stage.config])
    ok(done)
    assert "connect: out of memory" in done.stderr and NONE not in done.stderr


def test_boot_waits_for_nobody(stage):
    """The kubelet waits for kubelb-load. Where nobody serves a frontend nothing can be lost, and
    black holes cost no time."""
    for b in stage.backends:
        b.link(up=False)
    start = time.monotonic()
    ok(stage.load("--force", strict=True))
    forced = time.monotonic() - start
    ok(stage.detach())
    start = time.monotonic()
    done = ok(stage.load("--boot", strict=True))
    assert time.monotonic() - start < forced + 1.5
    assert done.stderr == ""


# --- some answer -----------------------------------------------------------------


def test_one_answers(stage):
    """It is attached, and the others are named."""
    stage.cp(1).kill()
    stage.cp(3).kill()
    done = ok(stage.load(strict=True))
    assert done.stdout.startswith("attached: 2 frontends, 3 backends")
    line, = done.stderr.splitlines()
    assert stage.cp(1).endpoint in line and stage.cp(3).endpoint in line
    assert stage.cp(2).endpoint not in line and "Connection refused" in line
    assert os.path.isdir(stage.pin)


def test_dry_run_counts(stage):
    stage.cp(1).kill()
    assert "\n2 of 3 backends answer as an apiserver\n" in ok(stage.load("-n", strict=True)).stdout
    assert not os.path.exists(stage.pin)


def test_weight_0_does_not_count(stage):
    """The one that answers gets no connection."""
    stage.configure(backends=[stage.cp(1).endpoint, {"address": stage.cp(2).endpoint, "weight": 0}])
    stage.cp(1).kill()
    refused(stage.load(strict=True))


@pytest.mark.parametrize("answer", [401, 500])
def test_an_apiserver_that_is_not_ready_answers(stage, answer):
    """What it says is the agent's business."""
    for b in stage.backends:
        b.readyz(answer)
    assert ok(stage.load(strict=True)).stderr == ""


# --- certificates ----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["wrong_ca", "expired"])
def test_no_certificate_verifies(stage, kind):
    """A client would refuse each of them."""
    for b in stage.backends:
        b.certificate(kind, stage.pki)
    causes = refused(stage.load(strict=True), "probe.ca")
    assert all("is probe.ca the CA of this cluster?" in line for line in causes)
    nothing_is_attached(stage)
    # Whoever verifies nothing by the file is told nothing.
    settings = stage.settings()
    for change in (lambda probe: probe.update(insecureSkipVerify=True), lambda probe: probe.clear()):
        change(settings["probe"])
        stage.configure(text=yaml_text(settings))
        assert ok(stage.load("-n", strict=True)).stderr == ""


def test_one_certificate_verifies(stage):
    stage.cp(1).certificate("wrong_ca", stage.pki)
    done = ok(stage.load(strict=True))
    assert stage.cp(1).endpoint in done.stderr and stage.cp(2).endpoint not in done.stderr


@pytest.mark.parametrize("kind", ["no_loopback", "wrong_name"])
def test_names_are_a_warning(stage, kind):
    """Clients may expect another name (tls-server-name): who dials the frontend's address is
    told, and a proxy would show the same certificate."""
    for b in stage.backends:
        b.certificate(kind, stage.pki)
    done = ok(stage.load(strict=True))
    lines = done.stderr.splitlines()
    assert ["127.0.0.1" in lines[0], "::1" in lines[1], len(lines)] == [True, True, 2]
    assert all("certSANs" in line and stage.cp(1).endpoint in line for line in lines)


@pytest.mark.parametrize("what", ["missing", "empty"])
def test_a_ca_that_is_not_there_yet(stage, what, tmp_path):
    """kubeadm join brings it; the kernel does not need it."""
    path = tmp_path / "ca.crt"
    if what == "empty":
        path.write_text("")
    stage.configure(probe={"ca": str(path)})
    line, = ok(stage.load(strict=True)).stderr.splitlines()
    assert "warning: probe.ca: " in line and "kubelb-agent will not start with it" in line


def test_backends_of_the_command_line(stage):
    """No file, no CA: whoever speaks TLS answers."""
    args = ("-f", "127.0.0.1:6443", "-b", stage.cp(1).endpoint)
    ok(stage.load(*args, config=None, strict=True))
    ok(stage.detach())
    stage.cp(1).kill()
    refused(stage.load(*args, config=None, strict=True), "command line")


# --- documentation's addresses ---------------------------------------------------


@pytest.mark.parametrize("address", ["192.0.2.11", "198.51.100.1", "203.0.113.255:443",
                                     "[2001:db8::15]:6443", "[3fff:fff::1]:6443"])
def test_documentation_is_refused(stage, address):
    """The shipped example as it is: refused at once by each program, also beside backends that
    answer, and whatever the mode."""
    stage.configure(backends=[stage.cp(1).endpoint, address])
    for args in ([], ["-n"], ["--boot"]):
        fails(stage.load(*args, strict=True), 2, stage.config, "backends", "RFC 5737",
              address.strip("[").split("]")[0].split(":443")[0])
    agent = stage.agent()
    assert agent.process.wait(timeout=20) == 2
    assert "RFC 5737" in agent.log()
    nothing_is_attached(stage)
    ok(stage.load("--force", strict=True))


def test_the_shipped_example(stage):
    """Enabled as it is, it takes nothing away."""
    local = serve_frontend(stage)
    path = os.path.join(os.path.dirname(__file__), "../../deploy/kubelb.yaml")
    fails(stage.load("--boot", config=path, strict=True), 2, "192.0.2.11, 192.0.2.12, 192.0.2.13")
    assert served_by(stage) == local.name


# --- the agent attaches, too -----------------------------------------------------


def test_the_agent_refuses_as_a_unit_does(stage):
    """kubelb-load has refused; the agent that comes after it does not do it all the same."""
    local = serve_frontend(stage)
    kill_all(stage)
    agent = stage.agent()
    assert agent.process.wait(timeout=20) == 1
    assert NONE in agent.log() and "Connection refused" in agent.log()
    assert served_by(stage) == local.name


def test_the_agent_attaches_at_boot(stage):
    kill_all(stage)
    stage.agent()
    wait_states(stage, "dead", stage.backends)
    stage.cp(1).start()
    wait_states(stage, "ready", [stage.cp(1)])
    assert served_set(stage) == {"cp1"}


# --- what is attached is not refused ---------------------------------------------


def test_an_update_is_not_refused(attached):
    """A change must be possible while all are down. A dry run says how it is."""
    kill_all(attached)
    attached.configure(policy="random")
    done = ok(attached.load("-n", strict=True))
    assert "0 of 3 backends answer as an apiserver" in done.stdout
    assert "Connection refused" in done.stderr
    ok(attached.load(strict=True))


# --- control planes, discovery, the relay ----------------------------------------


def test_a_control_plane_whose_own_apiserver_is_down(stage):
    """The others serve it; and with all down it boots."""
    own = f"{stage.node_v4}:6443"
    stage.configure(backends=[own, stage.cp(1).endpoint])
    done = ok(stage.load(strict=True))
    assert own in done.stderr
    ok(stage.detach())
    kill_all(stage)
    refused(stage.load(strict=True))
    ok(stage.load("--boot", strict=True))


def test_a_control_plane_whose_own_apiserver_serves(stage):
    """It serves the frontend, and is a backend: nothing is lost."""
    local = serve_frontend(stage)
    stage.configure(backends=[local.endpoint, stage.cp(1).endpoint])
    kill_all(stage)
    ok(stage.load("--boot", strict=True))
    assert served_by(stage) == local.name


def cache_of(stage, tmp_path, addresses):
    path = tmp_path / "backends.json"
    path.write_text(json.dumps({"kind": "kubelb-backends", "version": 1,
                                "written": "2025-01-01T00:00:00Z", "backends": addresses}))
    path.chmod(0o600)
    return {"cache": str(path)}


def test_discovery_alone(stage, tmp_path):
    """Without a list there is nothing to dial, and connects go through untouched; with one from
    before, its backends are dialled."""
    local = serve_frontend(stage)
    discovery = cache_of(stage, tmp_path, [])
    os.unlink(discovery["cache"])
    stage.configure(backends=None, discovery=discovery)
    assert "no backends: connects go through untouched" in ok(stage.load(strict=True)).stderr
    assert served_by(stage) == local.name
    ok(stage.detach())
    cache_of(stage, tmp_path, [b.endpoint for b in stage.backends])
    assert "3 of 3 backends answer" in ok(stage.load("-n", strict=True)).stdout
    kill_all(stage)
    refused(stage.load("--boot", strict=True))
    assert served_by(stage) == local.name


def test_relay(stage):
    """Nothing is attached, and the agent listens beside nobody: only a dry run dials. Addresses
    of documentation are refused."""
    stage.configure(dataPath="relay")
    stage.cp(1).kill()
    assert "2 of 3 backends answer" in ok(stage.load("-n", strict=True)).stdout
    kill_all(stage)
    assert ok(stage.load(strict=True)).stderr == ""
    stage.configure(dataPath="relay", backends=["192.0.2.11"])
    fails(stage.load(strict=True), 2, "192.0.2.11")
