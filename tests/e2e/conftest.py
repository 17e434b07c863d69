# SPDX-License-Identifier: BSD-2-Clause
"""Fixtures: one world for the whole run (of each worker), a bare stage for every test.

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
pytest.register_assert_rewrite("helpers", "rollout")

# Seconds that the longest files took, three at a time on a busy machine. Their order counts: see
# pytest_collection_modifyitems.
LONG = {"test_package.py": 793, "test_docs.py": 420, "test_killed_load.py": 307,
        "test_discovery_agent.py": 303, "test_refusal.py": 286, "test_connect.py": 265,
        "test_ctl.py": 256, "test_states.py": 253, "test_operate.py": 248,
        "test_http_abuse.py": 244, "test_own_server.py": 237, "test_idle_close.py": 217,
        "test_live.py": 210, "test_shortage.py": 206, "test_load.py": 204,
        "test_lifecycle.py": 196, "test_hostile_backend.py": 193, "test_reload.py": 188,
        "test_secrets.py": 188, "test_agent.py": 181, "test_cli.py": 171, "test_balance.py": 165,
        "test_image.py": 163, "test_return.py": 156, "test_liveness.py": 138, "test_files.py": 136,
        "test_local.py": 133, "test_apiserver.py": 128, "test_reset.py": 128,
        "test_local_policy.py": 124, "test_fastopen.py": 120, "test_migrate.py": 114,
        "test_relay_rescue.py": 190, "test_relay_mode.py": 150, "test_relay_kernel.py": 90,
        "test_chart.py": 60, "test_rpm.py": 90, "test_host_netns.py": 111,
        "test_doctor.py": 240, "test_doctor_states.py": 180, "test_failed_load.py": 60,
        "test_k8s_check.py": 90, "test_ansible.py": 180,
        "test_ansible_changes.py": 300, "test_ansible_proxy.py": 240, "test_soak.py": 200}

import helpers  # noqa: E402  (after sys.path)
import packages  # noqa: E402
import rollout  # noqa: E402
import system  # noqa: E402
import world as stage_world  # noqa: E402
from cluster import Cluster  # noqa: E402


def end_as_by_interrupt(_number, _frame):
    raise KeyboardInterrupt


def pytest_configure(config):
    # SIGTERM ends the run as ^C does: fixtures are torn down, worlds removed.
    signal.signal(signal.SIGTERM, end_as_by_interrupt)


def pytest_collection_modifyitems(items):
    """Workers take a file at a time: the long ones first, or one is left to a single worker."""
    items.sort(key=lambda item: LONG.get(item.path.name, 0), reverse=True)


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


@pytest.fixture(name="tlsflood", scope="session")
def tlsflood_fixture(tmp_path_factory):
    """A TLS server that sends what is no data: see tests/clients/tlsflood.c."""
    path = str(tmp_path_factory.mktemp("tlsflood") / "tlsflood")
    system.run_checked(["gcc", "-O2", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-o", path,
                        os.path.join(os.path.dirname(HERE), "clients", "tlsflood.c"), "-lssl",
                        "-lcrypto", "-lpthread"])
    return path


@pytest.fixture(name="package", scope="session")
def package_fixture(tmp_path_factory):
    """The Debian package, built from this tree: see packages.py."""
    return packages.once(tmp_path_factory, "deb", packages.build("deb.sh"))


@pytest.fixture(name="next_package", scope="session")
def next_package_fixture(tmp_path_factory, package):
    """Its next version, with maps of the next ABI version."""
    return packages.next_version(tmp_path_factory, package)


@pytest.fixture(name="rpm", scope="session")
def rpm_fixture(tmp_path_factory):
    """The RPM package, built from this tree."""
    return packages.once(tmp_path_factory, "rpm", packages.build("rpm.sh"))


@pytest.fixture(name="two_nodes", scope="module")
def two_nodes_fixture(world):
    with rollout.two_nodes(world) as nodes:
        yield nodes


@pytest.fixture(name="nodes")
def nodes_fixture(two_nodes):
    """Two machines for Ansible, as the test before has left them: see rollout.py. What a test does
    to the apiservers ends with it."""
    yield two_nodes
    two_nodes.restore()


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


@pytest.fixture(name="apart")
def apart_fixture(stage):
    """The stage for scope `all`, which acts on every network namespace: this process and what it
    starts are in a cgroup of their own, and KubeLB is attached there, not at the root. Other worlds
    notice nothing."""
    with open("/proc/self/cgroup", encoding="ascii") as f:
        before = next(line for line in f if line.startswith("0::"))[3:].strip("/\n")
    stage.attach_to = stage.cgroup("apart")
    stage.configure()
    system.move_to(stage.attach_to)
    yield stage
    system.move_to(os.path.join(system.cgroup2_root(), before))


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
