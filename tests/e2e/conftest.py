# SPDX-License-Identifier: BSD-2-Clause
"""Fixtures: one world for the whole run (of each worker), a bare stage for every test.

Run as root:  /usr/bin/python3 -m pytest tests/e2e
KUBELB_BUILD names another directory with the programs than build/.
"""

import fcntl
import glob
import os
import signal
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "world")]
pytest.register_assert_rewrite("helpers")

# Seconds that the longest files take, for pytest_collection_modifyitems.
LONG = {"test_hostile_backend.py": 90, "test_states.py": 86, "test_lifecycle.py": 80,
        "test_hostile_user.py": 71, "test_shortage.py": 90, "test_liveness.py": 80,
        "test_local.py": 70, "test_idle_close.py": 60, "test_return.py": 60, "test_faults.py": 60,
        "test_world_h2.py": 60, "test_reset.py": 40, "test_attach_again.py": 40,
        "test_effective.py": 40, "test_migrate.py": 40, "test_discovery_agent.py": 66, "test_killed_load.py": 55,
        "test_agent.py": 54, "test_local_policy.py": 40,
        "test_own_server.py": 52, "test_refusal.py": 52, "test_sentinel.py": 48,
        "test_package.py": 42, "test_secrets.py": 42, "test_image.py": 29, "test_reload.py": 29,
        "test_http_abuse.py": 29, "test_world_h2.py": 36, "test_faults.py": 22,
        "test_scripts.py": 27, "test_operate.py": 25}

import helpers  # noqa: E402  (after sys.path)
import system  # noqa: E402
import world as stage_world  # noqa: E402
from cluster import Cluster  # noqa: E402


def end_as_by_interrupt(_number, _frame):
    raise KeyboardInterrupt


def pytest_configure(config):
    config.addinivalue_line("markers", "alone: what it attaches acts on other worlds too, or it "
                            "measures time; no other test runs meanwhile")
    # SIGTERM ends the run as ^C does: fixtures are torn down, worlds removed.
    signal.signal(signal.SIGTERM, end_as_by_interrupt)


def pytest_collection_modifyitems(items):
    """Workers take a file at a time: the long ones first, or one is left to a single worker."""
    items.sort(key=lambda item: LONG.get(item.path.name, 0), reverse=True)


@pytest.fixture(autouse=True)
def turn(request):
    """Tests of several workers (pytest -n), and of other runs on this machine, run side by side,
    one of `alone` by itself. All pass through a gate, which that one holds until the others are
    done: no new ones begin."""
    alone = request.node.get_closest_marker("alone")
    base = "/run/kubelb-tests"
    with open(f"{base}.turn", "w", encoding="ascii") as lock:
        with open(f"{base}.gate", "w", encoding="ascii") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


@pytest.fixture(scope="session", name="world")
def world_fixture():
    """A node and three control planes. Tests use `stage`, which cleans up."""
    with stage_world.World(backends=3) as world:
        world.client = stage_world.build_client(os.path.join(world.dir, "bin", "nbconnect"))
        yield world


@pytest.fixture(name="library")
def library_fixture(tmp_path):
    """The environment of a program that ends or stops at a moment that no clock hits: see
    tests/clients/killat.c."""
    library = tmp_path / "killat.so"
    system.run_checked(["gcc", "-O2", "-shared", "-fPIC", "-o", str(library),
                        os.path.join(os.path.dirname(HERE), "clients", "killat.c")])
    return {**os.environ, "LD_PRELOAD": str(library)}


@pytest.fixture(name="refuse", scope="session")
def refuse_fixture(tmp_path_factory):
    """The command for which the kernel refuses some things: see tests/clients/refuse.c."""
    path = str(tmp_path_factory.mktemp("refuse") / "refuse")
    system.run_checked(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", path,
                        os.path.join(os.path.dirname(HERE), "clients", "refuse.c")])
    return path


@pytest.fixture(name="stage")
def stage_fixture(world):
    """The world with nothing attached and every backend well, before and after.
    The agents' logs are printed: pytest shows them for tests that failed."""
    logs = set(glob.glob(f"{world.dir}/agent*.log"))
    yield world
    for path in sorted(set(glob.glob(f"{world.dir}/agent*.log")) - logs):
        with open(path, encoding="utf-8", errors="replace") as f:
            print(f"--- {os.path.basename(path)}\n{f.read()}", end="")
    world.reset()


@pytest.fixture(name="cluster")
def cluster_fixture(stage):
    return Cluster(stage)


@pytest.fixture(name="found")
def found_fixture(cluster):
    """An agent that has found all three, has them in its cache, and watches."""
    return cluster.find_all()


@pytest.fixture(name="group")
def group_fixture(stage):
    """A cgroup below the root, and what a test has left in it removed."""
    path = stage.cgroup()
    yield path
    for child in glob.glob(f"{glob.escape(path)}/*/"):
        os.rmdir(child)


@pytest.fixture(name="single")
def single_fixture(stage):
    """One backend, which gets all there is."""
    stage.configure(backends=[stage.cp(1).endpoint])
    helpers.ok(stage.load())
    return stage


@pytest.fixture(name="loads")
def loads_fixture(stage):
    """kubelb-load of this version, and of the next one."""
    return [stage.program("kubelb-load"), helpers.next_version(stage)]


@pytest.fixture(name="attached")
def attached_fixture(stage):
    """The world with KubeLB attached and no agent."""
    helpers.ok(stage.load())
    return stage


@pytest.fixture(name="balanced")
def balanced_fixture(stage):
    """The world with an agent that has found every backend ready."""
    stage.running = stage.agent()
    system.wait_until(
        lambda: not stage.running.alive() or {helpers.state_of(stage, b) for b in stage.backends}
        == {"ready"} and helpers.agent_serves(stage), "every backend to be ready")
    assert stage.running.alive(), stage.running.log()
    return stage
