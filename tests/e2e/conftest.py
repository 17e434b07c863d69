# SPDX-License-Identifier: BSD-2-Clause
"""Fixtures: one world for the whole run, a bare stage for every test.

Run as root:  /usr/bin/python3 -m pytest tests/e2e
KUBELB_BUILD names another directory with the programs than build/.
"""

import glob
import os
import signal
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "world")]
pytest.register_assert_rewrite("helpers")

import helpers  # noqa: E402  (after sys.path)
import system  # noqa: E402
import world as stage_world  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def end_on_sigterm():
    """SIGTERM ends the run as ^C does: fixtures are torn down, worlds removed."""
    def handler(_number, _frame):
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGTERM, handler)
    yield
    signal.signal(signal.SIGTERM, old)


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
