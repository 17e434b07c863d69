# SPDX-License-Identifier: BSD-2-Clause
"""What others' packets cost on a node with KubeLB at rest: datagrams that the node sends, and those
that it forwards. Rescue adds an `ip rule` for as long as a backend is suspect or dead, and with a
rule the kernel leaves the short way of every route lookup; at rest there must be none."""

import contextlib
import json

from stage import SERVERS, TLS_PORT
from system import NETNS_DIR, WorldError, run_checked, wait_until

SINK_PORT = 7444
BEHIND = "198.18.0.1"  # in the servers' namespace; the node forwards to it
LIMIT = 1.01
# As rescue's: for comparison, so that one sees what a rule would cost that stays.
RULE = "rule {} fwmark 0x1000/0x3fff lookup 100"


class Packets:
    """The node as a router between a pod and the servers."""

    def __init__(self, stage):
        self.stage = stage
        self.world = stage.world
        self.pod = self.world.pod("sender")
        self.route()
        sink = stage.start([stage.client, "sink", "0.0.0.0", SINK_PORT], stage.servers,
                           stage.cpus.server)
        if sink.stdout.readline() != "ready\n":
            raise WorldError("bench_client sink has not started")

    def route(self):
        node = self.world.node
        self.world.sysctl(node, "net.ipv4.ip_forward", "1")
        for name in ("all", "eth0"):  # all of them share one bridge
            self.world.sysctl(node, f"net.ipv4.conf.{name}.send_redirects", "0")
        self.world.ip_batch(self.stage.servers, [f"addr add {BEHIND}/32 dev lo"])
        self.world.ip_batch(node, [f"route add {BEHIND}/32 via {SERVERS[0]}"])
        self.world.ip_batch(self.pod, [f"route add {BEHIND}/32 via {self.world.node_v4}"])

    @contextlib.contextmanager
    def nothing(self):
        self.stage.detach()
        yield

    @contextlib.contextmanager
    def kubelb(self):
        """Attached, with an agent that has found every backend ready."""
        self.stage.attach(3, port=TLS_PORT)
        agent = self.world.agent()
        try:
            wait_until(self.ready, "the agent to find every backend ready")
            yield
        finally:
            agent.stop()

    @contextlib.contextmanager
    def rule(self):
        with self.nothing():
            self.world.ip_batch(self.world.node, [RULE.format("add")])
            try:
                yield
            finally:
                self.world.ip_batch(self.world.node, [RULE.format("del")])

    def ready(self):
        backends = self.stage.status()["backends"]
        return len(backends) == 3 and all(b["state"] == "ready" for b in backends)

    def send(self, ns, address):
        """Nanoseconds for one datagram, from its sender until it is dropped at the sink: on one
        CPU the kernel does it all in the sender's call."""
        before = self.arrived()
        done = self.world.exec(self.stage.cpus.as_client(
            [self.stage.client, "datagrams", "-n", self.stage.effort["datagrams"], address,
             SINK_PORT]), ns=ns, cgroup=self.stage.cgroup)
        if done.returncode != 0:
            raise WorldError(f"bench_client datagrams: {done.stderr.strip()}")
        measured = json.loads(done.stdout)
        if self.arrived() - before < self.stage.effort["datagrams"]:
            raise WorldError(f"datagrams to {address} got lost before the sink")
        return measured["p10_ns"]

    def arrived(self):
        """Packets that the sink's namespace has taken as its own, in all. UDP counts only those that
        are read or dropped, and the first ones wait in the sink's buffer."""
        text = run_checked(["nsenter", f"--net={NETNS_DIR}/{self.stage.servers}", "nstat", "-aszj"])
        return json.loads(text)["kernel"]["IpInDelivers"]


def measure_packets(stage, report):
    packets = Packets(stage)
    states = {"without KubeLB": packets.nothing, "with KubeLB": packets.kubelb,
              "with a rule": packets.rule}
    paths = {"sent by the node": (stage.world.node, SERVERS[0]), "forwarded": (packets.pod, BEHIND)}
    report.start("packets", "A datagram from a socket that is not connected, ns",
                 f"{stage.effort['packet_rounds']} interleaved rounds; the 10th percentile of each "
                 "run; ratios are by round",
                 "with a rule: no KubeLB, but an ip rule as rescue's; it is there only while a "
                 "backend is suspect or dead")
    values = {(path, state): [] for path in paths for state in states}
    names = list(states)
    for i in range(stage.effort["packet_rounds"]):
        for state in names[i % 3:] + names[:i % 3]:
            with states[state]():
                for path, target in paths.items():
                    values[path, state].append(packets.send(*target))
    for path in paths:
        report_path(report, path, {state: values[path, state] for state in names})
    stage.detach()


def report_path(report, path, values):
    base, ours, rule = values
    for state, runs in values.items():
        report.row(f"{path}, {state}", runs, "ns")
    ratios = {state: [a / b for a, b in zip(values[state], values[base])] for state in (ours, rule)}
    report.at_most(f"{path}, with / without KubeLB", ratios[ours], "ratio", LIMIT, 4)
    report.row(f"{path}, with a rule / without", ratios[rule], "ratio", 4)
