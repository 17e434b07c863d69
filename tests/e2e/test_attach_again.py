# SPDX-License-Identifier: BSD-2-Clause
"""A data path that is lost under a running agent comes back; what was detached on purpose does
not."""

import os
import shutil
import socket
import time

import pytest

from helpers import (Held, dial_error, http_call, link_pins, ok, pins, ready, served_set,
                     wait_states)
from system import BPFFS, run_checked, wait_until
from test_effective import serves
from test_package import capabilities, confined
from test_privileges import children

ALL = {"cp1", "cp2", "cp3"}
AGAIN = "attached again"

# A mount namespace with a bpffs of its own: over the host's, or in its place.
OVER = f"mount --make-rprivate / && mount -t bpf bpf {BPFFS}"
ALONE = (f"mount --make-rprivate / && while umount -l {BPFFS} 2>/dev/null; do :; done && "
         f"mount -t bpf bpf {BPFFS}")


def apart(setup, prefix=()):
    """A command that runs another one in such a namespace."""
    return ["unshare", "-m", "sh", "-c", f'{setup} && exec "$@"', "sh", *prefix]


def in_mounts_of(agent, *argv):
    run_checked(["nsenter", "-t", str(agent.pid), "-m", *argv])


def started(stage, **kwargs):
    """An agent that has attached, if nothing was, and has found every backend ready."""
    agent = stage.agent(**kwargs)
    wait_until(lambda: serves(stage) and ready(stage), agent.log)
    wait_until(lambda: agent.log().count("state=ready") == len(stage.backends), agent.log)
    return agent


def wait_served(stage, agent):
    """As before the loss, by the same process."""
    agent.wait_log(AGAIN, timeout=20)
    wait_until(lambda: ready(stage), agent.log)
    assert served_set(stage, 20) == ALL
    assert agent.alive()


@pytest.mark.parametrize("setup", [OVER, ALONE], ids=["another below", "none below"])
def test_unmounted_bpffs(stage, setup):
    """With the bpffs go the pins, with the pins the programs, and nothing listens on the
    frontend: refused for good, if nobody attaches again. The agent does, and mounts one."""
    agent = started(stage, prefix=apart(setup))
    in_mounts_of(agent, "umount", "-l", BPFFS)
    wait_served(stage, agent)
    assert agent.log().count(AGAIN) == 1
    stage.cp(1).kill()
    agent.wait_log("state=dead")
    assert served_set(stage, 20) == {"cp2", "cp3"}


def test_removed_pins(balanced):
    """By hand: no way to detach, so it is no wish either."""
    shutil.rmtree(balanced.pin)
    wait_served(balanced, balanced.running)
    assert len(link_pins(balanced)) == 5
    wait_states(balanced, "ready", balanced.backends)


@pytest.mark.parametrize("name", ["frontends", "links/connect6", "links/sockops"])
def test_one_pin_removed(balanced, name):
    os.unlink(f"{balanced.pin}/{name}")
    wait_until(lambda: name in pins(balanced), balanced.running.log, 20)
    wait_until(lambda: ready(balanced), balanced.running.log)
    assert served_set(balanced, 20) == ALL


def test_detached_links(balanced):
    """The pins are there and run nothing."""
    for name in link_pins(balanced):
        run_checked(["bpftool", "link", "detach", "pinned", f"{balanced.pin}/{name}"])
    assert dial_error(balanced) == "ECONNREFUSED"
    wait_served(balanced, balanced.running)


def test_detached_on_purpose(balanced):
    """The wish holds for as long as the agent runs; a kubelb-load ends it."""
    agent = balanced.running
    ok(balanced.detach())
    agent.wait_log("no data path to work on")
    beats = http_call(balanced, "GET", "/readyz")
    time.sleep(3)  # several of its looks, at which it must do nothing
    assert beats[0] == 503 and AGAIN not in agent.log() and not os.path.exists(balanced.pin)
    ok(balanced.load())
    wait_until(lambda: ready(balanced), agent.log)
    shutil.rmtree(balanced.pin)
    wait_served(balanced, agent)


def test_on_the_same_cgroup(stage, group):
    """kubelb-load was told where; the agent's file says nothing about it."""
    ok(stage.load(cgroup=group))
    agent = stage.agent(cgroup=group)
    wait_until(lambda: serves(stage) and ready(stage), agent.log)
    shutil.rmtree(stage.pin)
    assert f'cgroup="{group}"' in agent.wait_log(AGAIN, timeout=20)


def test_with_a_file_that_is_invalid_by_now(balanced):
    """The last valid one must do: a mistake that waits for a reload must not cost the node."""
    balanced.configure(text="backends: [\n")
    balanced.running.wait_log("not reloaded")
    shutil.rmtree(balanced.pin)
    wait_served(balanced, balanced.running)


def test_hidden_pins_are_not_lost(stage):
    """A bpffs over the pins: what is below runs, and a second attachment would not decide."""
    agent = started(stage, prefix=apart(OVER))
    in_mounts_of(agent, "mount", "-t", "bpf", "bpf", BPFFS)
    line = agent.wait_log("the pins are not to be seen, and the programs run all the same")
    assert "unmount" in line
    assert served_set(stage, 20) == ALL and AGAIN not in agent.log()
    in_mounts_of(agent, "umount", "-l", BPFFS)
    wait_until(lambda: ready(stage), agent.log)
    assert AGAIN not in agent.log()


def test_connections_stay(stage):
    """Established ones are nobody's business, with programs or without."""
    agent = started(stage, prefix=apart(OVER))
    with Held(stage, 9) as held:
        in_mounts_of(agent, "umount", "-l", BPFFS)
        wait_served(stage, agent)
        assert held.close()["closed"] == 0


def unit_agent(stage, setup, **kwargs):
    """With the capabilities of the unit, which do not mount."""
    return stage.agent(prefix=apart(setup, confined(capabilities("kubelb-agent.service"), [])),
                       **kwargs)


def test_without_the_right_to_mount(stage):
    """It says so, goes on, and tries again: as soon as somebody mounts one, it attaches."""
    agent = unit_agent(stage, ALONE)
    wait_until(lambda: serves(stage) and ready(stage), agent.log)
    in_mounts_of(agent, "umount", "-l", BPFFS)
    line = agent.wait_log("cannot attach again")
    assert "cannot mount bpffs" in line
    in_mounts_of(agent, "mount", "-t", "bpf", "bpf", BPFFS)
    wait_served(stage, agent)
    assert agent.log().count("cannot attach again") == 1


def test_under_a_service_manager(stage, tmp_path):
    """It ends, so that the unit's step before it mounts one."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        agent = unit_agent(stage, ALONE, env={**os.environ, "NOTIFY_SOCKET": path})
        wait_until(lambda: serves(stage) and ready(stage), agent.log)
        in_mounts_of(agent, "umount", "-l", BPFFS)
        assert agent.process.wait(timeout=20) == 1, agent.log()
    assert "nothing is attached any more: cannot mount bpffs" in agent.log().splitlines()[-1]


def test_the_process_that_attaches(balanced):
    """One, without a descriptor of the network; it ends with the agent, however that ends."""
    agent = balanced.running
    [child] = children(agent.pid)
    with open(f"/proc/{child}/comm", encoding="ascii") as f:
        assert f.read() == "kubelb-attacher\n"
    kinds = [os.readlink(f"/proc/{child}/fd/{n}") for n in os.listdir(f"/proc/{child}/fd")]
    assert sum(k.startswith("socket:") for k in kinds) == 1
    assert not [k for k in kinds if "bpf" in k]
    agent.kill9()
    wait_until(lambda: not is_running(child), "the process to end")


def is_running(pid):
    """And not only waiting to be reaped."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as f:
            return f.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
