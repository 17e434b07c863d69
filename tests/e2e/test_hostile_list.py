# SPDX-License-Identifier: BSD-2-Clause
"""An apiserver in bad hands that has discovery's watch: it says what it likes, as often as it likes.
Who stays in the list keeps their probes, nobody new is used before they have answered, and the agent
has time for everything else."""

import contextlib
import json
import time

import pytest

from helpers import agent_serves, dump, http_call, nbconnect, ok, state_of, wait_states
from observe import kubeconfig, known, metric
from system import wait_until
from test_hostile_backend import Bad, context_of
from test_http_abuse import cpu_seconds, memory

SLICES = "endpointslices"


class Liar:
    """In the place of cp1: names the three control planes, and what more(n) adds in its nth event,
    rate times a second from go() on."""

    def __init__(self, stage):
        self.stage = stage
        self.context = context_of(stage, stage.cp(1).dir + "/current.crt")
        self.port, self.more, self.rate, self.sent = 6443, lambda n: [], 0, 0
        self.said = []

    def slice(self, extra, version):
        addresses = [b.v4 for b in self.stage.backends] + extra
        return {"kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"name": "kubernetes", "resourceVersion": str(version),
                             "labels": {"kubernetes.io/service-name": "kubernetes"}},
                "ports": [{"name": "https", "port": self.port, "protocol": "TCP"}],
                "endpoints": [{"addresses": [a], "conditions": {"ready": True}}
                              for a in addresses]}

    def event(self):
        self.sent += 1
        self.said = self.more(self.sent)
        line = json.dumps({"type": "MODIFIED", "object": self.slice(self.said, self.sent + 1)})
        data = (line + "\n").encode()
        return b"%x\r\n%s\r\n" % (len(data), data)

    def watch(self, bad, tls):
        bad.send(tls, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        due = time.monotonic()
        while True:
            rate = self.rate
            if not rate:
                due = time.monotonic()
                time.sleep(0.02)
                continue
            bad.send(tls, self.event())
            due += 1 / rate
            time.sleep(max(0.0, due - time.monotonic()))

    def serve(self, bad, sock):
        with contextlib.suppress(OSError), \
                self.context.wrap_socket(sock, server_side=True) as tls:
            while request := tls.recv(8192).decode():
                path = request.split(" ")[1]
                if "watch=true" in path:
                    self.watch(bad, tls)
                body = b"ok"
                if SLICES in path:
                    body = json.dumps({"kind": "EndpointSliceList",
                                       "metadata": {"resourceVersion": "1"},
                                       "items": [self.slice([], 1)]}).encode()
                bad.send(tls, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


@pytest.fixture(name="liar")
def liar_fixture(stage):
    """An agent that has its list, and the watch, from a Liar at cp1."""
    liar = Liar(stage)
    ok(stage.detach())  # discovery finds nobody but cp1 through the frontend
    with Bad(stage.cp(1), liar.serve):
        stage.configure(backends=[stage.cp(1).endpoint], policy="random", connectTimeout="200ms",
                        # Without a cache: the list of the test before would be no news.
                        discovery={"kubeconfig": kubeconfig(stage, "token: abc"), "cache": ""},
                        probe={"interval": "5s", "timeout": "3s"})
        liar.agent = stage.agent()
        wait_states(stage, "ready", stage.backends)
        wait_until(lambda: metric(stage, "kubelb_discovery_updates_total", result="applied") >= 1,
                   "the list")
        yield liar
        liar.rate = 1  # the threads see that the connection is gone
        assert liar.agent.alive()
        assert liar.agent.stop() == 0


def accepted(stage):
    return [cp.accepted() for cp in stage.backends[1:]]


class Measured:
    """What the agent does for others meanwhile: the age of its heartbeat, and how soon /healthz is
    answered, at the worst."""

    def __init__(self, stage, agent):
        self.stage, self.agent = stage, agent
        self.beat = self.health = 0.0

    def for_seconds(self, seconds):
        cpu, began = cpu_seconds(self.agent), time.monotonic()
        written = len(self.agent.log())
        while time.monotonic() - began < seconds:
            beat = dump(self.stage, "control")[0][1]["heartbeat_ns"]
            age = time.clock_gettime_ns(time.CLOCK_MONOTONIC) - beat
            self.beat = max(self.beat, age / 1e9)
            asked = time.monotonic()
            assert http_call(self.stage, "GET", "/healthz")[0] == 200
            self.health = max(self.health, time.monotonic() - asked)
            time.sleep(0.05)
        passed = time.monotonic() - began
        self.cpu = (cpu_seconds(self.agent) - cpu) / passed
        self.written = (len(self.agent.log()) - written) / passed
        return self


def one_more(n):
    return [f"192.168.77.{99 + n % 2}"]


def dozens_more(n):
    return [f"192.168.77.{40 + 61 * (n % 3) + i}" for i in range(61)]


@pytest.mark.parametrize("more, rate", [(one_more, 500), (dozens_more, 500), (dozens_more, 1e6)],
                         ids=["one", "dozens", "as-fast-as-it-can"])
def test_events_without_end(stage, liar, more, rate):
    """The others see nothing of it; the agent has time, and its log stays small. (Idle, it takes one
    or two per cent of a CPU.)"""
    before = accepted(stage)
    liar.more, liar.rate = more, rate
    wait_until(lambda: liar.sent > 100, "events")
    found = Measured(stage, liar.agent).for_seconds(8)
    # Discovery may go to another one, which it finds through the frontend.
    assert all(now - was <= 4 for now, was in zip(accepted(stage), before))
    assert found.beat < 2 and found.health < 1, vars(found)
    assert found.cpu < 0.2, vars(found)
    assert found.written < 16 * 1024, vars(found)
    assert memory(liar.agent) < 24 * 1024
    assert {b.endpoint for b in stage.backends} <= known(stage)


def test_newest_list_counts(stage, liar):
    """Of hundreds of lists the last one is in force when it is quiet again."""
    liar.more, liar.rate = one_more, 500
    wait_until(lambda: liar.sent > 1000, "events", timeout=20)
    liar.rate = 0
    time.sleep(0.1)  # the last one is on its way
    want = {b.endpoint for b in stage.backends} | {f"{a}:6443" for a in liar.said}
    wait_until(lambda: known(stage) == want, lambda: f"{want}, is {known(stage)}")


def test_hung_apiserver_is_noticed(stage, liar):
    """With a change a second, and three times as fast: as soon as without."""
    cp = stage.cp(2)
    for rate in (1, 3):
        liar.more, liar.rate = one_more, rate
        cp.stop()
        try:
            wait_until(lambda: state_of(stage, cp) == "dead", "the hung one to be dead", timeout=6)
        finally:
            cp.cont()
        wait_states(stage, "ready", [cp], timeout=20)


def test_nobody_new_is_used_before_they_have_answered(stage, liar):
    """61 addresses a second where nobody is: no connect goes there."""
    liar.more, liar.rate = dozens_more, 1
    wait_until(lambda: len(known(stage)) > 20, "the new ones")
    result = nbconnect(stage, "--rate", "50", "--seconds", "8", "127.0.0.1")
    assert (result["ok"], result["failed"]) == (400, 0)
    # They are rationed: 61 at once, and then one in ten seconds.
    wait_until(lambda: liar.sent > 8, "a second round")
    liar.agent.wait_log(r"level=warn.*brings too many new addresses")


@pytest.mark.parametrize("port", [22, 10250, 2379, 8081])
def test_ports_that_no_apiserver_has(stage, liar, port):
    """Nor are the node's own services dialled, whatever their port."""
    liar.port = port
    liar.more, liar.rate = lambda n: [stage.node_v4, "127.0.0.2", "169.254.1.1", "224.0.0.1", "0.0.0.0",
                                      "255.255.255.255", "0.1.2.3"], 1
    liar.agent.wait_log(r"level=warn.*addresses that no apiserver has|level=warn.*not used")
    refused = {f"{address}:{port}" for address in liar.said}
    wait_until(lambda: liar.sent > 3, "some lists")
    assert not refused & known(stage)
    assert nbconnect(stage, "-n", 20, "127.0.0.1")["ok"] == 20
    assert agent_serves(stage)
