# SPDX-License-Identifier: BSD-2-Clause
"""A user who has very many connections, or makes very many connects that fail: it costs them their
own time, and neither the agent's nor anybody else's."""

import sys
import time

import pytest

from backend import PORT
from helpers import MAPPED, V4, V6, agent_serves, dial, ok, state_of, stats
from system import wait_until
from test_privileges import AS_NOBODY

# Most of the local ports to one backend.
MANY = 15000
# Takes connections and says nothing, like a process that hangs.
SILENT = f"""
import signal, socket
server = socket.create_server(("", {PORT}), backlog=65535)
print("listens", flush=True)
signal.pause()
"""
# Holds so many connections until stdin ends.
HOLDER = f"""
import resource, socket, sys
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
held = []
while len(held) < {MANY}:
    try:
        held.append(socket.create_connection(("127.0.0.1", {PORT})))
    except OSError:
        pass
print("held", flush=True)
sys.stdin.read()
"""
# Makes connects that fail on this host, from a port that has a connection to each backend already.
FAILER = f"""
import socket, sys, time
end = time.monotonic() + float(sys.argv[1])
held, failed, sock = [], 0, None
while time.monotonic() < end:
    if not sock:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("0.0.0.0", 30001))
    if sock.connect_ex(("127.0.0.1", {PORT})):
        failed += 1
    else:
        held.append(sock)
        sock = None
print(failed)
"""


def peak_kib(agent):
    """The most memory that it has had."""
    with open(f"/proc/{agent.pid}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmHWM"))


def wakeups(agent):
    with open(f"/proc/{agent.pid}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("voluntary"))


@pytest.fixture
def silent(stage):
    """cp1 hangs, and is the only backend that is attached."""
    cp = stage.cp(1)
    cp.kill()
    stage.sysctl(cp.ns, "net.core.somaxconn", "65535")
    process = stage.spawn([sys.executable, "-c", SILENT], ns=cp.ns)
    assert process.stdout.readline() == "listens\n"
    stage.configure(backends=[cp.endpoint])
    ok(stage.load())
    stage.configure()
    return cp


def wait_ended(sock):
    sock.settimeout(60)
    with pytest.raises(ConnectionResetError):
        sock.recv(1)


def test_users_take_turns(stage, silent):
    """Of all that a dead backend has, root's connections are among the first to end, though
    another user has thousands. The agent does not hold all of them in memory."""
    agent = stage.agent()
    wait_until(lambda: agent_serves(stage), "the agent to serve")
    alone = peak_kib(agent)
    agent.stop()
    stage.configure(backends=[silent.endpoint])
    ok(stage.load())
    stage.configure()
    holder = stage.spawn([*AS_NOBODY, sys.executable, "-c", HOLDER])
    assert holder.stdout.readline() == "held\n"
    with dial(stage, timeout=60) as kubelet:
        agent = stage.agent()
        wait_ended(kubelet)
        assert stats(stage, "active")["cp1"] > MANY * 9 / 10
        assert state_of(stage, silent) == "dead"
        # The others follow, a batch at a time.
        wait_until(lambda: stats(stage, "active")["cp1"] < MANY - 500, "more to end", 60)
        assert peak_kib(agent) < alone + 3 * 1024


def test_failing_connects_wake_nobody_up(balanced):
    """The kernel writes an event for each. The agent reads them now and then."""
    agent = balanced.running
    began, before = time.monotonic(), wakeups(agent)
    done = balanced.exec([*AS_NOBODY, sys.executable, "-c", FAILER, 4])
    seconds, after = time.monotonic() - began, wakeups(agent)
    assert int(done.stdout) > 4000
    assert (after - before) / seconds < 400


@pytest.mark.parametrize("host,v6", [(V4, False), (MAPPED, False), (V6, True), (V6, False)])
def test_one_dead_backend_of_each_family(stage, host, v6):
    """The agent has the kernel list what is connected to that backend alone."""
    cp = stage.cp(1)
    backends = [b.endpoint6 if v6 else b.endpoint for b in stage.backends]
    stage.configure(backends=backends[:1])
    ok(stage.load())
    with dial(stage, host, timeout=60) as sock:
        stage.configure(backends=backends)
        agent = stage.agent()
        wait_until(lambda: agent.log().count("state=ready") == len(backends), "all to be ready")
        with dial(stage, host) as other:
            assert sum(stats(stage, "active").values()) == 2
            cp.stop()
            wait_ended(sock)
            agent.wait_log("connections=1 destroyed=0 reason=dead")
            assert stats(stage, "active")["cp1"] == 0
            assert sum(stats(stage, "active").values()) == 1
            other.sendall(b"x")  # it is open
