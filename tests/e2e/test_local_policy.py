# SPDX-License-Identifier: BSD-2-Clause
"""What a policy does to one cgroup's or one socket's connects says nothing about a backend: somebody
else's connect program that refuses, IPAddressDeny= of a unit, a socket filter. While an agent
runs, such failures eject no backend, and what everybody sees still does."""

import contextlib
import ctypes
import errno
import os
import signal
import socket
import struct
import sys
import time

import pytest

from backend import PORT
from helpers import V4, make_socket, nbconnect, ok, served_by, served_set, stats, wait_states
from system import BPFFS, run_checked, wait_until

ALL = {"cp1", "cp2", "cp3"}

# Connect programs and filters of other people's.
DENY = ("connect4", "int policy(void *ctx) { return 0; }")
REACHES = """
static long (*load_bytes)(const void *skb, int at, void *to, int size) = (void *)26;
int policy(void *skb)
{
	unsigned int to;

	return load_bytes(skb, 16, &to, 4) || (to & 255) == 127 || to == %du;
}
"""
LOOPBACK_ONLY = ("egress", REACHES % 0)
SECTIONS = {"connect4": "cgroup/connect4", "egress": "cgroup_skb/egress"}

# Connects and closes, again and again; prints what has become of each connect.
CLIENT = f"""
import errno, socket, time
while True:
    with socket.socket() as s:
        result = s.connect_ex(("{V4}", {PORT}))
        print(errno.errorcode[result] if result else "ok", flush=True)
    time.sleep(0.02)
"""


class Policy:
    """A program, and the cgroup that it can be attached to."""

    def __init__(self, stage, hook, text):
        self.hook = hook
        self.group = stage.cgroup("policy")
        self.pin = f"{BPFFS}/{stage.prefix}-policy"
        self.imposed = False
        source = os.path.join(stage.dir, "policy.c")
        section = f'__attribute__((section("{SECTIONS[hook]}"), used)) int policy'
        with open(source, "w", encoding="ascii") as f:
            f.write(text.replace("int policy", section))
            f.write('\nchar _license[] __attribute__((section("license"), used)) = "GPL";\n')
        run_checked(["clang", "-O2", "-g", "-target", "bpf", "-c", source, "-o", source + ".o"])
        run_checked(["bpftool", "prog", "load", source + ".o", self.pin])

    def command(self, what):
        return ["bpftool", "cgroup", what, self.group, self.hook, "pinned", self.pin]

    def impose(self):
        run_checked([*self.command("attach"), "multi"])
        self.imposed = True

    def remove(self):
        if self.imposed:
            run_checked(self.command("detach"))
        os.unlink(self.pin)


@pytest.fixture(name="policy")
def policy_fixture(stage):
    """Makes one."""
    made = []

    def make(hook, text):
        made.append(Policy(stage, hook, text))
        return made[0]

    yield make
    stage.end_processes()
    for policy in made:
        policy.remove()


class Client:
    """CLIENT in a cgroup."""

    def __init__(self, stage, group):
        self.process = stage.spawn(["python3", "-u", "-c", CLIENT], cgroup=group)

    def until(self, outcome, count, timeout=30):
        """Waits for so many connects with that outcome; returns all until then."""
        seen = []
        deadline = time.monotonic() + timeout
        while seen.count(outcome) < count:
            assert time.monotonic() < deadline, seen
            seen.append(self.process.stdout.readline().strip())
        return seen


def attached_with_a_stalled_agent(stage, backends=None, **more):
    """The agent counts as alive for a while and says nothing new: the kernel alone decides."""
    backends = backends or stage.backends
    stage.configure(probe={"interval": "5s"}, policy="random",
                    backends=[b.endpoint for b in backends], **more)
    ok(stage.load())
    agent = stage.agent()
    wait_states(stage, "ready", backends)
    agent.signal(signal.SIGSTOP)
    return agent


def counted(stage, field):
    """The names of the backends of which the field is not 0."""
    return {name for name, n in stats(stage, field).items() if n}


@pytest.mark.parametrize("kind, outcome", [(DENY, "EPERM"), (LOOPBACK_ONLY, "ETIMEDOUT")])
def test_from_the_start(stage, policy, kind, outcome):
    denied = policy(*kind)
    denied.impose()
    attached_with_a_stalled_agent(stage)
    Client(stage, denied.group).until(outcome, 100 if outcome == "EPERM" else 4)
    assert not counted(stage, "ejections") and not counted(stage, "suspected")
    assert served_set(stage, 30) == ALL


@pytest.mark.parametrize("kind, outcome", [(DENY, "EPERM"), (LOOPBACK_ONLY, "ETIMEDOUT")])
def test_imposed_later(stage, policy, kind, outcome):
    """Its connects have worked. The first failure may be a backend's, and may eject it; that
    the others fail too shows what it is."""
    later = policy(*kind)
    agent = attached_with_a_stalled_agent(stage)
    client = Client(stage, later.group)
    client.until("ok", 10)
    later.impose()
    client.until(outcome, 100 if outcome == "EPERM" else 6)
    assert sum(stats(stage, "ejections").values()) <= 1
    agent.signal(signal.SIGCONT)  # it reaches the backend, which ends the ejection
    wait_until(lambda: served_set(stage, 12) == ALL, "every backend to serve", 20)


def test_reaches_one_backend_alone(stage, policy):
    """It works now and then, so that it counts; but against one backend in a minute."""
    allowed = int.from_bytes(socket.inet_aton(stage.cp(1).v4), sys.byteorder)
    partial = policy("egress", REACHES % allowed)
    partial.impose()
    attached_with_a_stalled_agent(stage)
    client = Client(stage, partial.group)
    client.until("ETIMEDOUT", 5)
    assert "ok" in client.until("ok", 1)
    assert len(counted(stage, "ejections")) <= 1, stats(stage, "ejections")


def test_accuses_one_backend_in_a_minute(stage, policy):
    """However often it fails at another one, with connects in between that work."""
    allowed = int.from_bytes(socket.inet_aton(stage.cp(1).v4), sys.byteorder)
    partial = policy("egress", REACHES % allowed)
    attached_with_a_stalled_agent(stage, connectTimeout="300ms")
    client = Client(stage, partial.group)
    client.until("ok", 5)
    partial.impose()
    for failures in (1, 8):
        ok(stage.ctl("drain", stage.cp(1).endpoint))
        client.until("ETIMEDOUT", failures)
        ok(stage.ctl("undrain", stage.cp(1).endpoint))
        client.until("ok", 1)
    assert len(counted(stage, "ejections")) == 1, stats(stage, "ejections")


def drop_all(sock):
    """A filter that lets nothing in."""
    program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    sock.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HP", 1, ctypes.addressof(program)))


@pytest.mark.parametrize("agent", [True, False])
def test_filter_of_root(stage, agent):
    """Nothing comes in to such a socket, whoever the backend is."""
    if agent:
        attached_with_a_stalled_agent(stage)
    else:
        ok(stage.load())
    for _ in range(3):
        served_by(stage)
        with make_socket(stage, socket.AF_INET) as sock:
            sock.settimeout(3)
            drop_all(sock)
            with pytest.raises(TimeoutError):
                sock.connect((V4, PORT))
    assert not counted(stage, "ejections") and not counted(stage, "suspected")
    assert sum(sum(n) for n in stats(stage, "failed").values()) == 3


@pytest.mark.parametrize("agent", [True, False])
def test_port_range_of_root(stage, agent):
    """A socket that may have few ports (IP_LOCAL_PORT_RANGE) is like one that is bound to one: a
    firewall or an old connection may be in the way of these."""
    low, high = 31000, 31003
    for b in stage.backends:
        run_checked(["nsenter", f"--net=/run/netns/{b.ns}", "iptables", "-I", "INPUT", "-p", "tcp",
                     "--sport", f"{low}:{high}", "-j", "DROP"])
    try:
        if agent:
            attached_with_a_stalled_agent(stage, connectTimeout="300ms")
        else:
            stage.configure(connectTimeout="300ms")
            ok(stage.load())
        for _ in range(3):
            served_by(stage)
            with make_socket(stage, socket.AF_INET) as sock:
                sock.settimeout(5)
                sock.setsockopt(socket.IPPROTO_IP, 51, low | high << 16)
                with pytest.raises(TimeoutError):
                    sock.connect((V4, PORT))
    finally:
        for b in stage.backends:
            run_checked(["nsenter", f"--net=/run/netns/{b.ns}", "iptables", "-F", "INPUT"])
    assert sum(sum(n) for n in stats(stage, "failed").values()) == 3
    assert not counted(stage, "ejections") and not counted(stage, "suspected")


def test_what_everybody_sees_counts(stage):
    """A backend that swallows SYNs is ejected by the first cgroup whose connects work otherwise."""
    attached_with_a_stalled_agent(stage)
    client = Client(stage, stage.cgroup("client"))
    client.until("ok", 10)
    stage.cp(1).link(up=False)
    try:
        wait_until(lambda: counted(stage, "ejections"), "cp1 to be ejected", 5)
        seen = client.until("ok", 50)
    finally:
        stage.cp(1).link(up=True)
    assert len(seen) - 50 <= 3, seen
    assert counted(stage, "ejections") == {"cp1"}


def test_does_not_try_for_others(stage, policy):
    """After an ejection one connect tries, and the others go elsewhere until its outcome is
    known. A cgroup whose connects all fail would keep them waiting for ever."""
    denied = policy(*DENY)
    denied.impose()
    agent = attached_with_a_stalled_agent(stage)
    working = Client(stage, stage.cgroup("client"))
    working.until("ok", 10)
    stage.cp(1).kill()
    wait_until(lambda: counted(stage, "ejections"), "cp1 to be ejected", 5)
    working.process.send_signal(signal.SIGSTOP)
    stage.cp(1).start()
    agent.signal(signal.SIGCONT)  # it reaches cp1, and ends the ejection
    wait_until(lambda: not stats(stage, "held_ms")["cp1"], "the agent to reach cp1", 20)
    wait_states(stage, "ready", [stage.cp(1)], timeout=20)
    agent.signal(signal.SIGSTOP)
    over = stats(stage, "ejected_until_ns")["cp1"]
    wait_until(lambda: time.monotonic_ns() > over, "the ejection to be over")
    failing = Client(stage, denied.group)
    failing.until("EPERM", 60)
    failing.process.kill()
    assert stats(stage, "evidence")["cp1"] == "KLB_EVIDENCE_EJECTED"
    working.process.send_signal(signal.SIGCONT)
    wait_until(lambda: stats(stage, "evidence")["cp1"] == "KLB_EVIDENCE_NONE",
               "cp1 to be restored", 10)


@pytest.fixture(name="no_route")
def no_route_fixture(stage):
    """The node has no route to cp1, for as long as it is wanted."""
    route = f"unreachable {stage.cp(1).v4}/32"

    @contextlib.contextmanager
    def without():
        stage.ip_batch(stage.node, [f"route add {route}"])
        try:
            yield
        finally:
            stage.ip_batch(stage.node, [f"route del {route}"])

    return without


def connects_until_one_succeeds(stage):
    """One socket, as often as it takes; the errors before."""
    errors = []
    with make_socket(stage, socket.AF_INET) as sock:
        while error := sock.connect_ex((V4, PORT)):
            errors.append(errno.errorcode[error])
    return errors


def test_no_route_and_the_same_socket_again(stage, no_route):
    """Who connects again says whose connect found no route: of a process whose connects work, it
    counts."""
    attached_with_a_stalled_agent(stage)
    assert served_set(stage) == ALL
    with no_route():
        seen = [connects_until_one_succeeds(stage) for _ in range(40)]
    unlucky = [errors for errors in seen if errors]
    # It is found after the next choice, which may be the same.
    assert unlucky in ([["EHOSTUNREACH"]], [["EHOSTUNREACH"] * 2]), seen
    assert counted(stage, "ejections") == {"cp1"}


def test_no_route_of_somebody_unknown(stage, no_route):
    """Nobody knows whose it was when another socket finds it, so it counts for nothing, not even
    again and again; the agent has its own probes."""
    attached_with_a_stalled_agent(stage, backends=[stage.cp(1)])
    with no_route():
        wait_until(lambda: nbconnect(stage, "-n", 100, V4)["failed"] == 100 and
                   sum(stats(stage, "failed")["cp1"]) > 30, "routes to be found abandoned")
    assert not counted(stage, "ejections")
