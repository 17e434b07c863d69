# SPDX-License-Identifier: BSD-2-Clause
"""The stage itself: what every other test stands on, without KubeLB."""

import glob
import signal
import subprocess
import sys

import pytest

import world as stage_world
from helpers import Accepts, Held, Kept, Listener, dial_error, nbconnect, served_by
from backend import PORT
from system import WorldError, cgroup2_root, group_members, wait_until
from world import World

WORLD_PY = stage_world.__file__


def names_of(prefix):
    """Whatever in the system carries that prefix."""
    return (glob.glob(f"/run/netns/{prefix}-*") + glob.glob(f"/tmp/{prefix}-*")
            + glob.glob(f"/sys/fs/bpf/klb-{prefix[3:]}")
            + glob.glob(f"{cgroup2_root()}/{prefix}-*"))


def test_two_worlds_come_and_go(world):
    """Several worlds coexist, and closing one leaves nothing of it."""
    with World(backends=2) as second:
        assert second.prefix != world.prefix
        assert served_by(second, second.cp(2).v4) == "cp2"
        groups = [b.pgid() for b in second.backends]
        second.pod()
        second.cgroup()
        held = second.spawn(["sleep", "1000"])
        second.cp(1).kill()
        assert names_of(second.prefix)
    assert names_of(second.prefix) == []
    assert held.poll() is not None
    assert [g for g in groups if group_members(g)] == []
    assert served_by(world, world.cp(1).v4) == "cp1"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_removes_the_world(number, tmp_path):
    ready = tmp_path / "ready"
    process = subprocess.Popen([sys.executable, WORLD_PY, "run", "-n", "1", "--", "sh", "-c",
                                f"echo $WORLD_PREFIX > {ready}; exec sleep 1000"],
                               stderr=subprocess.DEVNULL)
    prefix = wait_until(lambda: ready.exists() and ready.read_text().strip(), "the world")
    process.send_signal(number)
    assert process.wait(timeout=10) == 128 + number
    assert names_of(prefix) == []


def test_run_passes_on_the_exit_status():
    done = subprocess.run([sys.executable, WORLD_PY, "run", "-n", "0", "--", "sh", "-c",
                           "echo $WORLD_PREFIX; exit 7"], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 7
    assert names_of(done.stdout.strip()) == []


def test_families_and_names(stage):
    for b in stage.backends:
        assert served_by(stage, b.v4) == b.name
        assert served_by(stage, b.v6) == b.name
    assert dial_error(stage, "127.0.0.1") == "ECONNREFUSED"
    pod = stage.pod()
    assert served_by(stage, stage.cp(3).v4, ns=pod) == "cp3"
    assert dial_error(stage, "127.0.0.1", ns=pod) == "ECONNREFUSED"


def test_kill_and_start(stage):
    cp = stage.cp(1)
    counts = Accepts(stage)
    with Held(stage, 5, host=cp.v4) as held:
        counts.settled(5)
        cp.kill()
        assert dial_error(stage, cp.v4) == "ECONNREFUSED"
        assert held.close()["closed"] == 5
    cp.start()
    assert served_by(stage, cp.v4) == "cp1"
    assert counts.settled(6) == {"cp1": 6, "cp2": 0, "cp3": 0}


def test_stop_and_cont(stage):
    cp = stage.cp(1)
    cp.stop()
    assert dial_error(stage, cp.v4) is None  # the kernel still accepts
    with pytest.raises(TimeoutError):
        served_by(stage, cp.v4, timeout=0.3)
    cp.cont()
    assert served_by(stage, cp.v4) == "cp1"


def test_readyz_changes_without_closing_connections(stage):
    cp = stage.cp(1)
    with Kept(stage, cp.v4) as connection:
        for status in (200, 500, 403, 200):
            cp.readyz(status)
            assert connection.get("/readyz")[0] == status
            assert connection.get("/livez")[0] == 200


@pytest.mark.parametrize("kind, complaint", [
    ("expired", "certificate has expired"),
    ("wrong_ca", "self-signed certificate|unable to get local issuer|verify failed"),
    ("wrong_name", "not valid for|mismatch"),
])
def test_certificates(stage, kind, complaint):
    cp = stage.cp(1)
    cp.certificate(kind, stage.pki)
    with pytest.raises(OSError, match=complaint):
        served_by(stage, cp.v4)
    cp.certificate("no_loopback", stage.pki)
    assert served_by(stage, cp.v4) == "cp1"
    cp.restore(stage.pki)
    assert served_by(stage, cp.v4) == "cp1"


def test_link_down_is_a_black_hole(stage):
    cp = stage.cp(1)
    with Kept(stage, cp.v4) as connection:
        cp.link(up=False)
        assert nbconnect(stage, "--timeout", 300, cp.v4)["errors"] == {"ETIMEDOUT": 1}
        cp.link(up=True)
        assert served_by(stage, cp.v4) == "cp1"
        assert connection.backend() == "cp1"


def test_counts_agree(stage):
    """The client's, the listener's and nginx's counts of the same connects."""
    counts = Accepts(stage)
    assert nbconnect(stage, "-n", 200, stage.cp(2).v4)["ok"] == 200
    assert nbconnect(stage, "-n", 50, "--reconnect", stage.cp(3).v6)["ok"] == 50
    assert counts.settled(300) == {"cp1": 0, "cp2": 200, "cp3": 100}
    with Listener(stage, "127.0.0.1", PORT) as listener:
        nbconnect(stage, "-n", 20, "127.0.0.1")
        listener.wait(20)


def test_handshakes_are_visible(stage):
    """Requests on one kept connection carry one connection number."""
    cp = stage.cp(2)
    seen = len(cp.requests())
    with Kept(stage, cp.v4) as connection:
        for _ in range(5):
            connection.get("/readyz")
    entries = cp.requests(since=seen, uri="/readyz")
    assert len(entries) == 5
    assert len({e["connection"] for e in entries}) == 1


def test_misuse_is_told(stage):
    with pytest.raises(WorldError):
        stage.cp(1).launch()  # runs already
    with pytest.raises(WorldError):
        stage.cp(1).answer("readyz", 299)
