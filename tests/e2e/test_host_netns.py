# SPDX-License-Identifier: BSD-2-Clause
"""The host's network namespace is the one of kubelb-load; a load from another one must not take
the balancer away from it unnoticed."""

import json
import os
import subprocess
import urllib.error
import urllib.request

import pytest

from helpers import V4, Traffic, bpftool, dial_error, dump, fails, ok, raw_maps, served_by
from system import NETNS_DIR, inside, wait_until

# klb_control.host_netns, include/kubelb/abi.h
OFFSET_INODE = 96
# A container: its own processes are all that it sees, and no name of a namespace.
CONTAINER = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c",
             'umount -R /run/netns && exec "$@"', "container")


def load_argv(stage, *args):
    return [stage.program("kubelb-load"), "--pin", stage.pin, "-c", stage.config, *args]


def load_in(stage, ns, *args, prefix=()):
    return stage.exec([*prefix, *load_argv(stage, *args)], ns=ns)


def inode(ns):
    return os.stat(f"{NETNS_DIR}/{ns}").st_ino


def status(stage, **kwargs):
    return json.loads(ok(stage.ctl("status", "-o", "json", **kwargs)).stdout)


def readyz(stage, ns=None):
    try:
        with inside(ns or stage.node), urllib.request.urlopen("http://127.0.0.1:8081/readyz") as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()
    except urllib.error.URLError:
        return 0, "nobody listens yet"


def remove_pod(stage, ns):
    subprocess.run(["ip", "netns", "del", ns], check=True)


@pytest.mark.parametrize("extra", [[], ["-n"]], ids=["load", "dry-run"])
@pytest.mark.parametrize("prefix", [(), CONTAINER], ids=["ip netns exec", "container"])
def test_load_in_a_pod_is_refused(attached, prefix, extra):
    """A pod without hostNetwork, kubectl exec, ip netns exec, PrivateNetwork=."""
    pod, before = attached.pod(), raw_maps(attached)
    with Traffic(attached):
        line = fails(load_in(attached, pod, *extra, prefix=prefix), 1, attached.pin,
                     f"net:[{inode(attached.node)}]", f"net:[{inode(pod)}]", "--this-netns",
                     "hostNetwork")
    assert ("cannot be seen from here" in line) == bool(prefix)
    assert raw_maps(attached) == before
    assert dial_error(attached, ns=pod) == "ECONNREFUSED"


def test_the_refusal_names_a_process(attached):
    agent = attached.agent()
    agent.wait_log("running")
    fails(load_in(attached, attached.pod()), 1, f"(that of PID {agent.process.pid}, kubelb-agent)")
    agent.stop()


def test_asked_for(attached):
    """--this-netns moves it; each side is told, and it comes back the same way."""
    pod, agent = attached.pod(), attached.agent()
    wait_until(lambda: readyz(attached)[0] == 200, "the agent to be ready", 10)
    done = ok(load_in(attached, pod, "-n", "--this-netns"))
    assert "moves here" in done.stderr
    assert served_by(attached)
    done = ok(load_in(attached, pod, "--this-netns"))
    assert "not balanced any more" in done.stderr and f"net:[{inode(attached.node)}]" in done.stderr
    assert dial_error(attached) == "ECONNREFUSED"
    assert served_by(attached, ns=pod)
    agent.wait_log("belongs to another network namespace")
    wait_until(lambda: readyz(attached)[0] == 503, "the agent not to be ready")
    assert "another network namespace" in readyz(attached)[1]
    assert "netns     ANOTHER ONE" in ok(attached.ctl("status")).stdout
    assert not status(attached)["inHostNetns"] and status(attached, ns=pod)["inHostNetns"]
    assert status(attached)["hostNetns"] == inode(pod)
    assert "ANOTHER" not in ok(attached.ctl("status", ns=pod)).stdout
    fails(attached.load(), 1, "--this-netns")
    ok(attached.load("--this-netns"))
    assert served_by(attached)
    wait_until(lambda: readyz(attached)[0] == 200, "the agent to be ready again", 10)
    assert agent.log().count("belongs to another network namespace") == 1
    agent.stop()


def test_agent_in_a_pod(attached):
    """A DaemonSet without hostNetwork: it says so, and is not ready."""
    pod = attached.pod()
    agent = attached.agent(ns=pod)
    agent.wait_log("belongs to another network namespace")
    agent.wait_log("running")
    wait_until(lambda: readyz(attached, pod)[0], "an answer")
    assert readyz(attached, pod)[0] == 503
    agent.stop()


def test_the_other_one_is_gone(stage):
    """A record of a dead namespace locks nobody out."""
    pod = stage.pod()
    ok(load_in(stage, pod))
    fails(stage.load(), 1, f"net:[{inode(pod)}]")
    number = inode(pod)
    remove_pod(stage, pod)
    done = ok(stage.load())
    assert f"from the network namespace net:[{number}], which is gone" in done.stderr
    assert done.stderr.count("\n") == 1
    assert served_by(stage)
    assert ok(stage.load()).stderr == ""


@pytest.mark.parametrize("holder", ["descriptor", "mount", "process"])
def test_what_has_lost_its_name_still_exists(stage, holder, tmp_path):
    pod = stage.pod()
    ok(load_in(stage, pod))
    place = tmp_path / "ns"
    place.touch()
    held = None
    if holder == "descriptor":
        held = open(f"{NETNS_DIR}/{pod}", "rb")
    elif holder == "mount":
        subprocess.run(["mount", "--bind", f"{NETNS_DIR}/{pod}", place], check=True)
    else:
        held = stage.spawn(["sleep", "60"], ns=pod).stdin
        wait_until(lambda: subprocess.run(["ip", "netns", "pids", pod], capture_output=True,
                                          check=True).stdout, "the process to be there")
    try:
        remove_pod(stage, pod)
        fails(stage.load(), 1, "--this-netns")
    finally:
        if holder == "mount":
            subprocess.run(["umount", place], check=True)
        if holder == "descriptor":
            held.close()
        stage.end_processes()
    wait_until(lambda: stage.load().returncode == 0, "the namespace to be gone")
    assert served_by(stage)


def test_the_machines_own_namespace_takes_what_it_cannot_see(stage):
    """A DaemonSet that has lacked hostNetwork and has it now: its pods see nobody's processes.
    The machine's namespace is no other's to keep, and is not locked out."""
    if not os.path.exists("/proc/sys/net/core/dev_weight"):
        pytest.skip("this is a container's network itself")
    ok(stage.load())
    done = ok(subprocess.run([*CONTAINER, *load_argv(stage, "-n")], capture_output=True, text=True,
                             check=False))
    assert "which nothing here leads to" in done.stderr


def test_detach_from_anywhere(attached):
    done = attached.exec([attached.program("kubelb-load"), "--pin", attached.pin, "--detach"],
                         ns=attached.pod())
    assert "detached" in ok(done).stdout
    assert not os.path.exists(attached.pin)


def test_first_load_in_a_container(stage):
    """Nothing is there to compare with; a node may be a container."""
    done = ok(load_in(stage, stage.node, prefix=CONTAINER))
    assert "hostNetwork: true" in done.stderr and done.stderr.count("\n") == 1
    assert served_by(stage)
    assert ok(load_in(stage, stage.node, prefix=CONTAINER)).stderr == ""


def test_maps_without_a_record(attached):
    """Of a load that was killed, or of an older version: anybody may complete them."""
    value = [int(b, 16) for b in bpftool("map", "dump", "pinned",
                                         f"{attached.pin}/control")[0]["value"]]
    value[8:16] = [0] * 8  # host_netns_cookie
    value[OFFSET_INODE:OFFSET_INODE + 8] = [0] * 8
    bpftool("map", "update", "pinned", f"{attached.pin}/control", "key", 0, 0, 0, 0, "value",
            *value)
    assert dump(attached, "control")[0][1]["host_netns"] == 0
    assert dial_error(attached) == "ECONNREFUSED"
    done = ok(attached.load())
    assert done.stderr == "" and served_by(attached)
