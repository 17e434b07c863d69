# SPDX-License-Identifier: BSD-2-Clause
"""The agent as the data path (dataPath: relay, or auto where the kernel refuses): the main job
without a program in the kernel. A connect to a relay succeeds whoever is behind it, so what counts
here is an answer: a TLS handshake, or a request."""

import contextlib
import json
import os
import platform
import re
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time

import pytest

from backend import PORT
from helpers import (V4, V6, Held, Kept, Listener, backend_status, by_backend, dial, dial_error,
                     fails, http_call, kept_to, metrics, ok, served_by, served_set, wait_states)
from observe import ended, is_open
from system import inside, wait_until

NOBODY = 65534
SOCK_ADDR = 18  # include/uapi/linux/bpf.h
VIP = "192.168.77.150"
PASSAGE = 8443  # where other machines dial

# Answers EPERM to every bpf(2) of the command that follows: prctl(2), seccomp filters.
NO_BPF = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
nr = {"x86_64": 321, "aarch64": 280}[sys.argv[1]]
code = b"".join(struct.pack("HBBI", *i) for i in (
    (0x20, 0, 0, 0), (0x15, 0, 1, nr), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7fff0000)))
held = ctypes.create_string_buffer(code)
filter = ctypes.create_string_buffer(struct.pack("HP", 4, ctypes.addressof(held)))
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, filter, 0, 0) == 0
os.execv(sys.argv[2], sys.argv[2:])
"""
WITHOUT_BPF = ["/usr/bin/python3", "-c", NO_BPF, platform.machine()]


class Relayed:
    """A stage whose agent relays."""

    def __init__(self, stage, load=True, prefix=(), args=(), **settings):
        self.stage = stage
        self.state = os.path.join(stage.dir, "state")
        self.socket = os.path.join(stage.dir, "agent.sock")
        self.prefix, self.args = prefix, args
        shutil.rmtree(self.state, ignore_errors=True)
        self.configure(**settings)
        if load:
            ok(stage.load())
        self.agent = self.start()

    def configure(self, **settings):
        self.stage.configure(**{"dataPath": "relay", "http": ["127.0.0.1:8081",
                                                              f"unix:{self.socket}"], **settings})

    def start(self):
        self.stage.ctl_options = ["-c", self.stage.config]
        return self.stage.agent(*self.args, prefix=self.prefix,
                                env={**os.environ, "STATE_DIRECTORY": self.state})

    def ready(self):
        """Waits until it is, and returns self."""
        wait_until(lambda: self.stage.ctl("ping", "ready").returncode == 0,
                   lambda: f"the agent to be ready:\n{self.agent.log()}")
        wait_states(self.stage, "ready", self.stage.backends)
        return self

    def document(self):
        return json.loads(ok(self.stage.ctl("status", "-o", "json")).stdout)


@pytest.fixture(name="relayed")
def relayed_fixture(stage):
    return Relayed(stage).ready()


class Dialled:
    """TLS handshakes at a rate while the block runs; what became of each is in `list`."""

    def __init__(self, stage, rate, seconds, host=V4):
        self.client = os.path.join(stage.build, "test", "bench_client")
        self.argv = [self.client, "dial", "--tls", "--rate", rate, "--seconds", seconds, host, PORT]
        self.stage = stage
        self.list = []

    def __enter__(self):
        self.process = self.stage.spawn(self.argv)
        assert self.process.stdout.readline().strip() == "begun"
        return self

    def __exit__(self, kind, *_exc):
        output, _ = self.process.communicate(timeout=60)
        if not kind:
            self.list = json.loads(output.splitlines()[-1])

    def failed(self):
        return [d for d in self.list if d[2] is not None]


def is_reset(client):
    """Whether the connection ends within five seconds, and by a reset: no client may take a
    part of an answer for the whole."""
    with socket.socket(fileno=os.dup(client.fileno())) as raw:
        raw.settimeout(5)
        try:
            while raw.recv(65536):
                pass
        except ConnectionResetError:
            return True
    return False


# --- the main job --------------------------------------------------------------


def test_main_job(relayed):
    """Nothing is attached, every backend serves, by IPv4 and IPv6, and status says whose work it
    is."""
    stage = relayed.stage
    assert not os.path.exists(stage.pin)
    for host in (V4, V6):
        assert served_set(stage, host=host) == {"cp1", "cp2", "cp3"}
    text = ok(stage.ctl("status")).stdout
    assert text.splitlines()[0].startswith("data path RELAY: kubelb-agent relays every connect: "
                                           "dataPath is relay"), text
    document = relayed.document()
    assert (document["dataPath"], document["attached"], document["effective"]) == ("relay", False,
                                                                                   True)
    assert {x["frontend"] for x in document["listeners"] if x["listens"]} == {
        f"{V4}:{PORT}", f"[{V6}]:{PORT}"}
    wait_until(lambda: sum(b["active"] for b in backend_status(stage).values()) == 0, "no client")
    opened = {b["address"]: b["opened"] for b in backend_status(stage).values()}
    assert sum(opened.values()) == 60 and min(opened.values()) > 5, opened
    shown = metrics(stage)
    assert by_backend(shown["kubelb_connections_opened_total"]) == opened
    assert by_backend(shown["kubelb_backend_state"], state="ready") == dict.fromkeys(opened, 1)
    assert shown["kubelb_relaying"] == [({}, 1)]


def test_the_page_is_what_is_printed(relayed):
    """/status.json, for whoever asks, is the document of kubelbctl status -o json."""
    status, headers, body = http_call(relayed.stage, "GET", "/status.json")
    assert status == 200 and headers["Content-Type"] == "application/json"
    assert json.loads(body).keys() == relayed.document().keys()
    assert http_call(relayed.stage, "GET", "/status")[2].startswith("data path RELAY")


def test_the_page_shows_the_maps(balanced):
    """And the same where the kernel is the data path."""
    page = json.loads(http_call(balanced, "GET", "/status.json")[2])
    document = json.loads(ok(balanced.ctl("status", "-o", "json")).stdout)
    assert page.keys() == document.keys()
    assert page["dataPath"] == document["dataPath"] == "kernel" and page["effective"]
    assert [b["address"] for b in page["backends"]] == [b["address"] for b in document["backends"]]


@pytest.mark.parametrize("fault, cure", [("kill", "start"), ("link", None)])
def test_no_client_fails(relayed, fault, cure):
    """A backend that refuses, and one that swallows SYNs: every client is served by another one,
    also those of the first second. Only a handshake that was under way with it at that moment
    ends, as without a relay."""
    stage = relayed.stage
    with Dialled(stage, 100, 4) as clients:
        time.sleep(0.5)  # while all is well
        if fault == "link":
            stage.cp(1).link(up=False)
        else:
            stage.cp(1).kill()
        gone = time.monotonic()
        wait_states(stage, "dead", [stage.cp(1)])
    assert len(clients.list) == 400
    late = [d for d in clients.failed() if d[0] > gone]
    assert not late, late[:3]
    # At 100 a second, with a third at each backend, and some ms for each.
    assert len(clients.failed()) <= 3, clients.failed()
    assert served_set(stage) == {"cp2", "cp3"}
    if cure:
        getattr(stage.cp(1), cure)()
    else:
        stage.cp(1).link(up=True)
    wait_states(stage, "ready", [stage.cp(1)])
    wait_until(lambda: "cp1" in served_set(stage), "cp1 to serve again", timeout=40)


def test_a_hung_backend_loses_its_clients(relayed):
    """Its kernel accepts and it says nothing: new clients go elsewhere once that is known, and
    those that it has hear of it by a reset."""
    stage = relayed.stage
    with kept_to(stage, "cp2") as client:
        stage.cp(2).stop()
        wait_states(stage, "dead", [stage.cp(2)])
        assert is_reset(client.sock)
    assert served_set(stage) == {"cp1", "cp3"}
    ended = metrics(stage)["kubelb_connections_ended_total"]
    assert by_backend(ended, reason="dead")[stage.cp(2).endpoint] == 1
    stage.cp(2).cont()


def test_all_backends_dead(relayed):
    """A client gets an honest end, and not silence; and the service is back with the first."""
    for b in relayed.stage.backends:
        b.kill()
    wait_states(relayed.stage, "dead", relayed.stage.backends)
    assert refused_politely(relayed.stage, host=V4, port=PORT)
    relayed.stage.cp(3).start()
    wait_states(relayed.stage, "ready", [relayed.stage.cp(3)])
    assert served_set(relayed.stage, n=5) == {"cp3"}


def test_frontends_of_the_host_alone(relayed):
    """Another machine does not reach them."""
    pod = relayed.stage.pod()
    assert dial_error(relayed.stage, host=relayed.stage.node_v4, ns=pod) == "ECONNREFUSED"


# --- the operator ----------------------------------------------------------------


def test_drain_and_weight(relayed):
    """As with maps: new connects go elsewhere, what is open stays, and it holds over a restart."""
    stage = relayed.stage
    with kept_to(stage, "cp1") as client:
        done = ok(stage.ctl("drain", stage.cp(1).endpoint))
        assert f"{stage.cp(1).endpoint}: draining; 1 connections to it stay" in done.stdout
        ok(stage.ctl("weight", stage.cp(2).endpoint, "0"))
        assert served_set(stage) == {"cp3"}
        assert client.backend() == "cp1"
    shown = backend_status(stage)
    assert shown[stage.cp(1).endpoint]["drained"]
    assert shown[stage.cp(2).endpoint]["weightOverride"] == 0
    relayed.agent.stop()
    relayed.agent = relayed.start()
    wait_states(stage, "ready", stage.backends[1:])
    assert served_set(stage) == {"cp3"}
    ok(stage.ctl("undrain", stage.cp(1).endpoint))
    ok(stage.ctl("weight", stage.cp(2).endpoint, "auto"))
    assert served_set(stage) == {"cp1", "cp2", "cp3"}


def test_kill_and_connections(relayed):
    stage = relayed.stage
    with kept_to(stage, "cp1") as client:
        local = "{}:{}".format(*client.sock.getsockname()[:2])
        listed = json.loads(ok(stage.ctl("connections", "-o", "json")).stdout)["connections"]
        assert [(c["local"], c["backend"], c["frontend"]) for c in listed] == [
            (local, stage.cp(1).endpoint, f"{V4}:{PORT}")]
        assert local in ok(stage.ctl("connections")).stdout
        assert "1 connection ended" in ok(stage.ctl("kill", stage.cp(1).endpoint)).stdout
        assert is_reset(client.sock)
    wait_until(lambda: not backend_status(stage)[stage.cp(1).endpoint]["active"], "it to be gone")


# --- where connections belong ------------------------------------------------------


def test_rebalance(stage):
    """After a recovery one connection at a time is ended, the oldest one, as with maps."""
    three = stage.cp(3)
    three.kill()
    Relayed(stage, rebalance=True, slowStart="0")
    wait_states(stage, "ready", stage.backends[:2])
    wait_states(stage, "dead", [three])
    with contextlib.ExitStack() as stack:
        kept = [stack.enter_context(Kept(stage)) for _ in range(12)]
        names = [c.backend() for c in kept]
        assert sorted(names) == ["cp1"] * 6 + ["cp2"] * 6
        three.start()
        wait_states(stage, "ready", [three])
        wait_until(lambda: ended(stage, reason="rebalance") == 1, "a move", timeout=30)
        [gone] = [i for i, c in enumerate(kept) if not is_open(c)]
        assert names.index(names[gone]) == gone, (names, gone)
        assert ended(stage) == 1
        with Kept(stage) as moved:
            assert moved.backend() == "cp3"


def test_failback(stage):
    """This node's own apiserver is back: connections come home to it, one by one."""
    own, port = stage.local_apiserver(), 7443  # it has 6443 on every address
    Relayed(stage, frontends=[f"{V4}:{port}"],
            backends=[own.endpoint] + [b.endpoint for b in stage.backends])
    wait_states(stage, "ready", [own, *stage.backends])
    own.kill()
    wait_states(stage, "dead", [own])
    with contextlib.ExitStack() as stack:
        away = [stack.enter_context(Kept(stage, port=port)) for _ in range(3)]
        assert "cp0" not in {c.backend() for c in away}
        own.start()
        wait_states(stage, "ready", [own])
        seen = set()
        wait_until(lambda: seen.add(sum(map(is_open, away))) or 0 in seen,
                   lambda: f"all to come home, {seen}", timeout=30)
        assert seen > {0, 2}, "all at once"
        assert ended(stage, reason="local") == ended(stage) == 3
        with Kept(stage, port=port) as home:
            assert home.backend() == "cp0"


def test_wrong_orders(relayed):
    stage = relayed.stage
    fails(stage.ctl("drain", "192.0.2.1"), 1, "no such backend; there are: ", stage.cp(1).endpoint)
    fails(stage.ctl("weight", stage.cp(1).endpoint, "1001"), 2)


def events(stage):
    return [json.loads(line) for line in
            ok(stage.ctl("events", "-o", "json")).stdout.splitlines()]


def test_events(relayed):
    """As with maps: what was decided, who has set what, and which connects have failed."""
    stage, cp = relayed.stage, relayed.stage.cp(1).endpoint
    shown = {(e["event"], e["state"]) for e in events(stage) if e["backend"] == cp}
    assert ("state", "ready") in shown, shown
    ok(stage.ctl("drain", cp))
    assert events(stage)[-1]["event"] == "drained"
    ok(stage.ctl("undrain", cp))
    # While another one serves, the agent knows before any client has met the dead one.
    for b in stage.backends:
        b.kill()
    wait_states(stage, "dead", stage.backends)
    assert refused_politely(stage, host=V4, port=PORT)
    shown = [e for e in events(stage) if e["backend"] == cp]
    assert [e["state"] for e in shown if e["event"] == "state"][-1] == "dead"
    assert [e["reason"] for e in shown if e["event"] == "connect-failed"] == ["refused"]
    assert [e["ejectedSeconds"] for e in shown if e["event"] == "ejected"] == [1]
    stage.cp(1).start()
    wait_states(stage, "ready", [stage.cp(1)])
    assert served_set(stage, n=3) == {"cp1"}
    assert [e["event"] for e in events(stage)].count("restored") == 1
    assert "ejected" in ok(stage.ctl("events")).stdout


def test_events_of_limits(stage):
    """Who is refused is counted into one line at a time."""
    Relayed(stage, relay={"connections": 3}).ready()
    with Held(stage, 3):
        for _ in range(5):
            assert refused_politely(stage, host=V4, port=PORT)
        wait_until(lambda: sum(e["clients"] for e in events(stage)
                               if (e["event"], e.get("reason")) == ("refused", "limit")) == 5,
                   lambda: f"five refused: {events(stage)}")
    assert "limit" in ok(stage.ctl("events")).stdout


def test_events_are_followed(relayed):
    """Over a restart of the agent, none of them twice; and by the maps from when there are some."""
    stage, cp = relayed.stage, relayed.stage.cp(2).endpoint
    argv = [stage.program("kubelbctl"), "--pin", stage.pin, *stage.ctl_options, "events", "-f"]
    follower = stage.spawn(argv, stderr=subprocess.STDOUT)
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(follower.stdout), daemon=True)
    reader.start()
    try:
        wait_until(lambda: follower.poll() is not None or lines, "the first lines")
        ok(stage.ctl("drain", cp))
        wait_until(lambda: sum("drained" in x for x in lines) == 1, lambda: f"it: {lines}")
        relayed.agent.stop()
        wait_until(lambda: any("waiting for it" in x for x in lines), lambda: f"it: {lines}")
        relayed.agent = relayed.start()
        ok_later(stage, "undrain", cp)
        wait_until(lambda: sum("undrained" in x for x in lines) == 1, lambda: f"it: {lines}")
        assert sum(" drained " in x and "by the operator" in x for x in lines) == 1, lines
        relayed.configure(dataPath="auto")
        ok(stage.load())
        relayed.agent.wait_log("the kernel takes connects now")
        ok(stage.ctl("weight", cp, "7"))
        wait_until(lambda: any("7, by the operator" in x for x in lines), lambda: f"it: {lines}")
    finally:
        follower.terminate()
        follower.wait(timeout=10)
        reader.join(timeout=10)


def ok_later(stage, *args):
    """Once the agent answers."""
    wait_until(lambda: stage.ctl(*args).returncode == 0, f"{args}")


def test_orders_are_for_root(relayed):
    """Anybody may ask how things are; nobody else gives orders, or sees whose connections."""
    stage = relayed.stage
    backend = stage.cp(1).endpoint
    assert http_call(stage, "POST", f"/backends/{backend}/drain")[0] == 405
    assert http_call(stage, "GET", f"/backends/{backend}/drain")[0] == 404
    assert http_call(stage, "GET", "/connections")[0] == 404
    assert stat.S_IMODE(os.stat(relayed.socket).st_mode) == 0o600
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(relayed.socket)
        client.sendall(f"GET /backends/{backend}/drain HTTP/1.0\r\n\r\n".encode())
        assert b" 404 " in client.recv(100)
    assert not backend_status(stage)[backend]["drained"]


def test_settings_that_others_can_write(stage):
    """Who can write the file could take every backend from the node."""
    state = os.path.join(stage.dir, "state")
    path = os.path.join(state, "operator.json")
    relayed = Relayed(stage).ready()
    ok(stage.ctl("drain", stage.cp(1).endpoint))
    wait_until(lambda: os.path.exists(path), path)
    relayed.agent.stop()
    os.chmod(path, 0o666)
    relayed.agent = relayed.start()
    relayed.agent.wait_log("the operator's earlier settings do not count")
    wait_states(stage, "ready", stage.backends)
    assert not backend_status(stage)[stage.cp(1).endpoint]["drained"]


# --- discovery, reload -------------------------------------------------------------


def test_discovery(cluster):
    """Through its own frontend, from one seed."""
    stage = cluster.stage
    cluster.configure(dataPath="relay",
                      http=["127.0.0.1:8081", f"unix:{os.path.join(stage.dir, 'agent.sock')}"])
    stage.ctl_options = ["-c", stage.config]
    ok(stage.load())
    stage.agent(env={**os.environ, "STATE_DIRECTORY": os.path.join(stage.dir, "state")})
    cluster.say(1, 2, 3)
    wait_states(stage, "ready", cluster.apis)
    cluster.say(2, 3)
    wait_until(lambda: {a for a, b in backend_status(stage).items() if b["state"] != "removed"}
               == {api.endpoint for api in cluster.apis[1:]}, "cp1 to leave")


def test_reload(relayed):
    """Another frontend, another data path, and back: no client is without one of them."""
    stage = relayed.stage
    assert dial_error(stage, port=7443) == "ECONNREFUSED"
    relayed.configure(frontends=[f"{V4}:{PORT}", f"{V4}:7443"])
    relayed.agent.wait_log("configuration reloaded")
    assert served_by(stage, port=7443) in {"cp1", "cp2", "cp3"}
    assert dial_error(stage, host=V6) == "ECONNREFUSED"
    with Dialled(stage, 50, 5) as clients:
        relayed.configure(dataPath="auto")
        relayed.agent.wait_log("the kernel takes connects now")
        wait_until(lambda: not listens(stage, V4, PORT), "the listeners to close")
        assert relayed.document()["dataPath"] == "kernel"
        relayed.configure()
        relayed.agent.wait_log("what is attached goes on sending connects straight")
    assert not clients.failed(), clients.failed()[:3]


def test_detached_on_purpose(stage):
    """Then the operator wants KubeLB gone: the agent does not step in."""
    relayed = Relayed(stage, dataPath="auto").ready()
    ok(stage.detach())
    relayed.agent.wait_log("waiting for kubelb-load")
    assert dial_error(stage) == "ECONNREFUSED"
    fails(stage.ctl("ping", "ready"), 1, "nothing is attached")


def test_pins_lost_and_kernel_refuses(stage, refuse):
    """A data path that is lost, and that the kernel refuses to attach again: the agent steps in."""
    ok(stage.load())
    relayed = Relayed(stage, load=False, dataPath="auto",
                      prefix=[refuse, f"prog={SOCK_ADDR}", "--"]).ready()
    assert relayed.document()["dataPath"] == "kernel"
    shutil.rmtree(stage.pin)
    relayed.agent.wait_log("every connect to the frontends is relayed.*cgroup/connect4 is missing")
    wait_until(lambda: dialled_ok(stage), "a client to be served")
    assert served_set(stage) == {"cp1", "cp2", "cp3"}


# --- who is the data path -----------------------------------------------------------


def test_every_bpf_call_is_refused(stage):
    """As in a hardened container: load says who serves the node, the agent does, and why stands
    at the top of status."""
    stage.configure()
    done = ok(stage.exec([*WITHOUT_BPF, stage.program("kubelb-load"), "--pin", stage.pin, "-c",
                          stage.config]))
    assert "warning: nothing is attached, so kubelb-agent has to run" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and "cgroup/connect4 is missing" in done.stderr
    relayed = Relayed(stage, load=False, prefix=WITHOUT_BPF, dataPath="auto").ready()
    assert relayed.agent.log().count("every connect to the frontends is relayed") == 1
    assert "cgroup/connect4 is missing" in ok(stage.ctl("status")).stdout.splitlines()[0]
    assert served_set(stage) == {"cp1", "cp2", "cp3"}
    stage.cp(1).kill()
    wait_states(stage, "dead", [stage.cp(1)])
    assert served_set(stage) == {"cp2", "cp3"}
    assert not os.path.exists(stage.pin)


def test_kernel_or_nobody(stage):
    """dataPath: kernel: what the kernel refuses is an error, of both."""
    stage.configure(dataPath="kernel")
    fails(stage.exec([*WITHOUT_BPF, stage.program("kubelb-load"), "--pin", stage.pin, "-c",
                      stage.config]), 1, "cgroup/connect4 is missing")
    agent = stage.agent(prefix=WITHOUT_BPF)
    assert agent.process.wait(timeout=20) == 1
    assert "cgroup/connect4 is missing" in agent.log()


def test_check_says_who_it_will_be(stage):
    done = stage.exec([*WITHOUT_BPF, stage.program("kubelb-load"), "--check", "-o", "json"])
    assert done.returncode == 1 and json.loads(done.stdout)["dataPath"] == "relay"
    assert "kubelb-agent relays every connect" in done.stderr
    assert json.loads(ok(stage.exec([stage.program("kubelb-load"), "--check", "-o", "json"]))
                      .stdout)["dataPath"] == "kernel"


def test_the_kernel_takes_over(stage, refuse):
    """What a kubelb-load attaches is found: the listeners are closed after that, no client fails,
    and the operator's settings go along."""
    relayed = Relayed(stage, load=False, dataPath="auto",
                      prefix=[refuse, f"prog={SOCK_ADDR}", "--"]).ready()
    ok(stage.ctl("drain", stage.cp(1).endpoint))
    with Dialled(stage, 100, 5) as clients:
        ok(stage.load())
        relayed.agent.wait_log("the kernel takes connects now")
        wait_until(lambda: not listens(stage, V4, PORT), "the listeners to close")
    assert not clients.failed(), clients.failed()[:3]
    document = relayed.document()
    assert document["dataPath"] == "kernel" and document["agent"]["alive"]
    wait_until(lambda: backend_status(stage)[stage.cp(1).endpoint]["drained"], "the drain to come")
    assert served_set(stage) == {"cp2", "cp3"}
    with dial(stage) as sock:
        assert sock.getpeername() == (V4, PORT)
    assert not json.loads(read(os.path.join(relayed.state, "operator.json")))["backends"]


def listens(stage, host, port):
    done = ok(stage.exec(["ss", "-Hltn", f"src {host} and sport = :{port}"]))
    return bool(done.stdout.strip())


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def test_what_is_attached_and_not_wanted(attached):
    """dataPath: relay does not take away what serves: it is said, by both, and --detach does."""
    attached.configure(dataPath="relay")
    done = ok(attached.load())
    assert "warning: what is attached" in done.stderr and "--detach" in done.stderr
    relayed = Relayed(attached)
    relayed.agent.wait_log("what is attached goes on sending connects straight")
    relayed.agent.wait_log("connects to the frontend are relayed")
    with Dialled(attached, 100, 4) as clients:
        ok(attached.detach())
    assert not clients.failed(), clients.failed()[:3]
    assert relayed.document()["dataPath"] == "relay"


def test_ordinary_user(stage):
    """A try-out without root, BPF, pins, or directories of root's."""
    home = os.path.join(stage.dir, "home")
    os.makedirs(home)
    os.chown(home, NOBODY, NOBODY)
    try:
        stage.configure(frontends=["127.0.0.1:16443"], http=["127.0.0.1:8081",
                                                             f"unix:{home}/agent.sock"])
        as_nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        agent = stage.agent("--relay", prefix=as_nobody,
                            env={**os.environ, "STATE_DIRECTORY": home})
        agent.wait_log("connects to the frontend are relayed")
        ctl = [*as_nobody, stage.program("kubelbctl"), "-c", stage.config, "--pin", stage.pin]
        wait_until(lambda: stage.exec([*ctl, "ping", "ready"]).returncode == 0,
                   lambda: f"it to be ready:\n{agent.log()}")
        assert served_by(stage, port=16443) in {"cp1", "cp2", "cp3"}
        text = ok(stage.exec([*ctl, "status"])).stdout
        assert text.startswith("data path RELAY: kubelb-agent relays every connect: it was started "
                               "with --relay")
        ok(stage.exec([*ctl, "drain", stage.cp(1).endpoint]))
        wait_until(lambda: os.path.exists(f"{home}/operator.json"), "the settings to be written")
        problems = [line for line in agent.log().splitlines()
                    if "level=error" in line or ("level=warn" in line and "relayed by" not in line)]
        assert not problems, problems
    finally:
        shutil.rmtree(home, ignore_errors=True)


def test_what_an_ordinary_user_cannot_have(stage):
    """One line for each: a low port, the directories."""
    stage.configure(frontends=["127.0.0.1:443", "127.0.0.1:16443"])
    as_nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    agent = stage.agent("--relay", prefix=as_nobody,
                        env={**os.environ, "STATE_DIRECTORY": "/nonexistent/kubelb"})
    agent.wait_log("CAP_NET_BIND_SERVICE; choose a higher one")
    agent.wait_log("connects to the frontend are relayed")
    agent.wait_log("kubelbctl can give no orders for now.*/run/kubelb")
    assert served_by(stage, port=16443) in {"cp1", "cp2", "cp3"}
    assert "127.0.0.1:443" in http_call(stage, "GET", "/readyz")[2]


def test_not_as_root_without_relay(stage):
    stage.configure()
    agent = stage.agent(prefix=["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}",
                                "--clear-groups"])
    assert agent.process.wait(timeout=10) == 1
    assert "must run as root" in agent.log()


# --- addresses in use ----------------------------------------------------------------


def test_port_taken(stage):
    """By the proxy of yesterday: one line says by whom and what to do; the other frontend is
    served, and this one as soon as it is free."""
    with Listener(stage, V4, PORT) as other:
        # Probes are no occasion to try again.
        relayed = Relayed(stage, probe={"interval": "1m"})
        line = relayed.agent.wait_log("a frontend cannot be listened on")
        assert f"{V4}:{PORT} is in use by" in line and "proxy" in line
        relayed.agent.wait_log("connects to the frontend are relayed")
        wait_until(lambda: stage.ctl("ping").returncode == 0, "the agent to answer")
        fails(stage.ctl("ping", "ready"), 1, f"{V4}:{PORT} is in use")
        document = relayed.document()
        assert not document["effective"]
        assert "NOT SERVED" in ok(stage.ctl("status")).stdout
        assert served_by(stage, host=V6) in {"cp1", "cp2", "cp3"}
        assert relayed.agent.log().count("a frontend cannot be listened on") == 1
        del other
    relayed.ready()
    assert served_set(stage) == {"cp1", "cp2", "cp3"}


def test_address_of_nobody(stage):
    """The Service's address, say, which is on no interface."""
    relayed = Relayed(stage, frontends=["10.96.0.1:443", f"{V4}:{PORT}"])
    line = relayed.agent.wait_log("a frontend cannot be listened on")
    assert "10.96.0.1:443 is no address of this host" in line
    assert served_by(stage) in {"cp1", "cp2", "cp3"}


# --- other machines ------------------------------------------------------------------


def for_others(stage, allow, address=None, **settings):
    return {"frontends": [f"{V4}:{PORT}", {"address": f"{address or stage.node_v4}:{PASSAGE}",
                                           "scope": "network", "allow": allow}], **settings}


def address_of(stage, pod):
    with inside(pod):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.connect((stage.node_v4, 9))
            return s.getsockname()[0]


def refused_politely(stage, pod=None, host=None, port=PASSAGE):
    """Whether a client is turned away: by a reset, before a byte."""
    try:
        with dial(stage, host=host or stage.node_v4, port=port, ns=pod) as sock:
            return is_reset(sock)
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("path", ["kernel", "relay"])
def test_other_machines(stage, path):
    """With programs in the kernel, too: those that are allowed are served there, and no others;
    the loopback frontend stays the host's own."""
    friend, stranger = stage.pod(), stage.pod()
    Relayed(stage, **for_others(stage, [address_of(stage, friend)], dataPath=path)).ready()
    verify = {"host": stage.node_v4, "port": PASSAGE, "ns": friend}
    with Kept(stage, context=unverified(), **verify) as client:
        assert client.backend() in {"cp1", "cp2", "cp3"}
    assert refused_politely(stage, stranger)
    assert dial_error(stage, host=stage.node_v4, ns=friend) == "ECONNREFUSED"
    # The host itself reaches it as well.
    with Kept(stage, host=stage.node_v4, port=PASSAGE, context=unverified()) as client:
        assert client.backend() in {"cp1", "cp2", "cp3"}
    assert f"{stage.node_v4}:{PASSAGE}" in ok(stage.ctl("status")).stdout
    scopes = {f["address"]: f["scope"] for f in backend_document(stage)["frontends"]}
    assert scopes[f"{stage.node_v4}:{PASSAGE}"] == "network"


def test_one_limit_for_all(stage):
    """What other machines hold, and what the kernel sends here, come out of one number; and one
    end of the agent lets both finish."""
    pod = stage.pod()
    relayed = Relayed(stage, **for_others(stage, [address_of(stage, pod)], dataPath="kernel",
                                          relay={"connections": 2, "drain": "20s"})).ready()
    theirs = {"host": stage.node_v4, "port": PASSAGE, "ns": pod}
    with Kept(stage, context=unverified(), **theirs) as first:
        with Kept(stage, bind="127.0.0.1") as second:
            assert {first.backend(), second.backend()} <= {"cp1", "cp2", "cp3"}
            assert refused_politely(stage, pod)
            with pytest.raises(OSError):
                with Kept(stage, bind="127.0.0.1", timeout=2) as third:
                    third.get()
            shown = metrics(stage)
            assert sum(v for _l, v in shown["kubelb_relay_connections_active"]) == 2
            os.kill(relayed.agent.process.pid, signal.SIGTERM)
            assert re.search("connections=2 ", relayed.agent.wait_log("what is relayed may finish"))
            assert first.get()[0] == second.get()[0] == 200
        assert first.get()[0] == 200 and relayed.agent.alive()
    wait_until(lambda: not relayed.agent.alive(), "the agent to end", timeout=5)
    assert "what was relayed is finished" in relayed.agent.log()


def backend_document(stage):
    return json.loads(ok(stage.ctl("status", "-o", "json")).stdout)


def unverified():
    """The certificates are for the backends' addresses and loopback, not for the node's."""
    import ssl  # pylint: disable=import-outside-toplevel
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def test_drained_for_other_machines(stage):
    """The operator's settings in the maps are the relay's as well."""
    pod = stage.pod()
    Relayed(stage, **for_others(stage, ["192.168.77.0/24"], dataPath="kernel")).ready()
    for b in stage.backends[1:]:
        ok(stage.ctl("drain", b.endpoint))

    def served():
        found = set()
        for _ in range(8):
            with Kept(stage, host=stage.node_v4, port=PASSAGE, ns=pod,
                      context=unverified()) as client:
                found.add(client.backend())
        return found

    wait_until(lambda: served() == {"cp1"}, "the drained ones to be left out")


def test_limit_per_source(stage):
    """One machine cannot take all places; another one is served meanwhile."""
    greedy, modest = stage.pod(), stage.pod()
    Relayed(stage, **for_others(stage, ["192.168.77.0/24"],
                                relay={"connectionsPerSource": 5})).ready()
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(Kept(stage, host=stage.node_v4, port=PASSAGE, ns=greedy,
                                     context=unverified()))
        assert refused_politely(stage, greedy)
        with Kept(stage, host=stage.node_v4, port=PASSAGE, ns=modest,
                  context=unverified()) as client:
            assert client.backend() in {"cp1", "cp2", "cp3"}
    wait_until(lambda: not refused_politely_now(stage, greedy), "a place to be free again")


def refused_politely_now(stage, pod):
    try:
        with Kept(stage, host=stage.node_v4, port=PASSAGE, ns=pod, context=unverified()) as client:
            return client.backend() not in {"cp1", "cp2", "cp3"}
    except OSError:
        return True


def test_address_that_comes(stage):
    """VRRP: served from the moment that the address is on this host, and after it was away."""
    friend = stage.pod()
    Relayed(stage, **for_others(stage, ["192.168.77.0/24"], address=VIP)).ready()
    for _ in range(2):
        stage.ip_batch(stage.node, [f"addr add {VIP}/24 dev eth0"])
        try:
            with Kept(stage, host=VIP, port=PASSAGE, ns=friend, context=unverified()) as client:
                assert client.backend() in {"cp1", "cp2", "cp3"}
        finally:
            stage.ip_batch(stage.node, [f"addr del {VIP}/24 dev eth0"])


def test_allow_changes(stage):
    """With a reload, and nobody who is connected notices."""
    pod = stage.pod()
    relayed = Relayed(stage, **for_others(stage, [address_of(stage, pod)])).ready()
    with Kept(stage, host=stage.node_v4, port=PASSAGE, ns=pod, context=unverified()) as client:
        relayed.configure(**for_others(stage, ["192.0.2.0/24"]))
        relayed.agent.wait_log("configuration reloaded")
        wait_until(lambda: refused_politely(stage, pod), "it to be refused")
        assert client.backend() in {"cp1", "cp2", "cp3"}


# --- hostile clients -------------------------------------------------------------------


def test_silent_clients(stage):
    """Thousands that connect and say nothing take their places, and no more: within the limit
    others are served; beyond it the log says so once."""
    relayed = Relayed(stage, policy="random", relay={"connections": 3000}).ready()
    with Held(stage, 2000):
        assert served_set(stage) == {"cp1", "cp2", "cp3"}
        assert relayed.agent.alive()
    with Held(stage, 3500):
        relayed.agent.wait_log("as many connections as it may.*connections=3000")
        assert relayed.agent.log().count("as many connections as it may") == 1
    wait_until(lambda: dialled_ok(stage), "the places to be free again")
    assert served_set(stage) == {"cp1", "cp2", "cp3"}


def dialled_ok(stage):
    try:
        return served_by(stage) is not None
    except OSError:
        return False


# --- the end -----------------------------------------------------------------------------


def test_the_end_of_the_agent(relayed):
    """No new connects; what runs may finish within relay.drain, and then hears of the end."""
    stage = relayed.stage
    with Kept(stage) as client:
        relayed.agent.signal(signal.SIGTERM)
        relayed.agent.wait_log("ending, no new connects are relayed")
        wait_until(lambda: dial_error(stage) == "ECONNREFUSED", "no new connects")
        assert client.backend() in {"cp1", "cp2", "cp3"}
    assert relayed.agent.process.wait(timeout=5) == 0


def test_the_end_waits_no_longer(stage):
    relayed = Relayed(stage, relay={"drain": "1s"}).ready()
    with Kept(stage) as client:
        begun = time.monotonic()
        assert relayed.agent.stop() == 0
        assert 0.9 < time.monotonic() - begun < 5
        assert is_reset(client.sock)


def test_idle_end(relayed):
    begun = time.monotonic()
    assert relayed.agent.stop() == 0
    assert time.monotonic() - begun < 3
