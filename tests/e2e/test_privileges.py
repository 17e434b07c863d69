# SPDX-License-Identifier: BSD-2-Clause
"""What the agent may do once it has started, and that its work is done with it: exactly
the capabilities that docs/security.md names."""

import glob
import os
import platform
import subprocess

import pytest

from backend import PORT
from helpers import V4, Held, dial_error, fails, http_call, ok, served_set, stats, wait_states
from system import run_checked, wait_until

# linux/capability.h
NET_BIND_SERVICE, NET_ADMIN, SYS_PTRACE, SYS_ADMIN, BPF = 10, 12, 19, 21, 39
NOBODY = 65534
AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
PODS_TOO = {"frontends": [{"address": f"{V4}:{PORT}", "scope": "all"}]}

# Before Linux 5.19, using maps that are there takes CAP_BPF; from then on it is for lists of
# connections alone, and asleep in between.
ALWAYS = {NET_ADMIN, BPF}
AWAKE = ALWAYS if tuple(map(int, platform.release().split(".")[:2])) < (5, 19) else {NET_ADMIN}


def status_of(path):
    with open(path, encoding="ascii") as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


def sets_of_all(pid):
    found = []
    for path in glob.glob(f"/proc/{pid}/task/*/status"):
        fields = status_of(path)
        sets = {name: {i for i in range(64) if int(fields[name], 16) >> i & 1}
                for name in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")}
        found.append({**sets, "NoNewPrivs": fields["NoNewPrivs"]})
    return found


def sets_of(pid):
    """CapEff and the like of every thread, which must agree; not in the moment in which one of them
    lists connections."""
    def agreed():
        found = sets_of_all(pid)
        return found and all(f == found[0] for f in found) and found[0]

    return wait_until(agreed, lambda: f"one set in {sets_of_all(pid)}")


def ready_agent(stage, config=True, prefix=(), **settings):
    """An agent that has found every backend ready."""
    if settings:
        stage.configure(**settings)
    agent = stage.agent(config=config, prefix=prefix)
    wait_states(stage, "ready", stage.backends)
    assert agent.alive(), agent.log()
    return agent


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
        return [int(x) for x in f.read().split()]


def without(*names):
    """A command that takes capabilities away from what it starts."""
    return ["setpriv", "--bounding-set=" + ",".join(f"-{n}" for n in names),
            "--inh-caps=" + ",".join(f"-{n}" for n in names)]


# --- the sets ----------------------------------------------------------------


def test_capabilities_are_exactly_these(stage):
    """Effective, permitted and bounding: one set, of what the work takes; nothing comes
    back by executing something."""
    agent = ready_agent(stage)
    assert sets_of(agent.pid) == {"CapEff": AWAKE, "CapPrm": ALWAYS, "CapBnd": ALWAYS,
                                  "CapInh": set(), "CapAmb": set(), "NoNewPrivs": "1"}


def test_capabilities_for_pods(apart):
    """With scope all, those that lead into pods' namespaces are kept, and asleep."""
    agent = ready_agent(apart, **PODS_TOO)
    more = ALWAYS | {SYS_ADMIN, SYS_PTRACE}
    assert sets_of(agent.pid) == {"CapEff": AWAKE, "CapPrm": more, "CapBnd": more,
                                  "CapInh": set(), "CapAmb": set(), "NoNewPrivs": "1"}


def test_capabilities_for_a_low_port(stage):
    agent = ready_agent(stage, http="127.0.0.1:81")
    assert sets_of(agent.pid)["CapPrm"] == ALWAYS | {NET_BIND_SERVICE}
    wait_until(lambda: dial_error(stage, port=81) is None, "the agent to listen")
    assert http_call(stage, "GET", "/healthz", port=81)[0] == 200


def read_as(path, *capabilities):
    """cat's exit, as root with these capabilities alone."""
    only = "-all" + "".join(f",+{c}" for c in capabilities)
    return subprocess.run(["setpriv", f"--bounding-set={only}", "--inh-caps=-all", "cat", path],
                          capture_output=True, check=False).returncode


def test_memory_is_nobodys_to_read(stage):
    """Another process of root's with the same capabilities, which reads any other such
    process: not this one, whose memory holds tokens and keys."""
    agent = ready_agent(stage)
    with subprocess.Popen(["setpriv", "--bounding-set=-all,+net_admin", "--inh-caps=-all",
                           "sleep", "60"]) as other:
        try:
            wait_until(lambda: read_as(f"/proc/{other.pid}/environ", "net_admin") == 0,
                       "a process like any other to be readable")
            for pid in (agent.pid, *children(agent.pid)):
                for name in ("environ", "mem", "maps", "auxv"):
                    assert read_as(f"/proc/{pid}/{name}", "net_admin") != 0, name
        finally:
            other.kill()


def writes_no_core(pid):
    with open(f"/proc/{pid}/limits", encoding="ascii") as f:
        (limit,) = (line for line in f if line.startswith("Max core file size"))
    return limit.split()[4:6] == ["0", "0"]


def test_no_core_file_is_written(stage):
    """Of the agent, the process that attaches, and the importer of kubeconfigs."""
    agent = ready_agent(stage)
    assert all(writes_no_core(pid) for pid in (agent.pid, *children(agent.pid)))
    with subprocess.Popen([stage.program("kubelb-load"), "--from-kubeconfig", "-"],
                          stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as importer:
        try:
            wait_until(lambda: writes_no_core(importer.pid), "kubelb-load to read its input")
            assert read_as(f"/proc/{importer.pid}/environ", "net_admin") != 0
        finally:
            importer.kill()


def filters_of(pid):
    """How many seccomp filters are on each of its threads."""
    return {int(status_of(path)["Seccomp_filters"]) for path in glob.glob(f"/proc/{pid}/task/*/status")}


def test_calls_are_filtered(stage):
    """By the agent itself, whoever has started it. The process that attaches loads programs, and
    nothing that it never does is left to it either. What the filters refuse:
    tests/unit/host/test_seccomp.c."""
    outside = filters_of("self")
    agent = ready_agent(stage)
    (attacher,) = children(agent.pid)
    (of_agent,), (of_attacher,), (before,) = filters_of(agent.pid), filters_of(attacher), outside
    assert before < of_attacher < of_agent


def test_files_of_others_are_refused_at_start(stage, tmp_path):
    """What the agent could not read again after a change, it does not read at all: said
    at the start, not when a certificate is rotated."""
    path = stage.configure(str(tmp_path / "kubelb.yaml"))
    os.chmod(path, 0o600)
    os.chown(path, NOBODY, NOBODY)
    done = stage.exec([stage.program("kubelb-agent"), "-c", path, "--pin", stage.pin])
    fails(done, 2, path, "Permission denied", "chown")
    os.chown(path, 0, 0)
    ready_agent(stage, config=path)


# --- and the work ------------------------------------------------------------


def test_connections_to_a_dead_backend_are_ended(stage):
    """CAP_NET_ADMIN is for this. (Upgrades of the maps, killed ones among them, and the
    audit's repair under a running agent: test_upgrade.py, test_killed_load.py and
    test_agent.py.)"""
    agent = ready_agent(stage)
    cp = stage.cp(1)
    with Held(stage, 9) as held:
        cp.stop()  # accepts, and answers nothing: only the agent knows
        wait_states(stage, "dead", [cp])
        wait_until(lambda: stats(stage, "active")["cp1"] == 0, "cp1's connections to be ended")
        assert held.close()["closed"] == 3
    cp.cont()
    agent.wait_log("connections ended")


def test_connections_of_pods_are_ended(apart):
    """Another user's process, in a namespace that has no name any more: found through
    /proc, which takes CAP_SYS_PTRACE, and entered, which takes CAP_SYS_ADMIN."""
    agent = ready_agent(apart, **PODS_TOO)
    pod, cp = apart.pod(), apart.cp(1)
    with Held(apart, 6, ns=pod, prefix=AS_NOBODY) as held:
        run_checked(["ip", "netns", "del", pod])
        cp.stop()
        wait_states(apart, "dead", [cp])
        wait_until(lambda: stats(apart, "active")["cp1"] == 0, agent.log)
        assert held.close()["closed"] == 2
    cp.cont()
    assert sets_of(agent.pid)["CapEff"] == AWAKE


def count_lines(agent, words):
    return sum(words in line for line in agent.log().splitlines())


def test_scope_all_comes_later(apart):
    """What was given up does not come back: said once, with what to do."""
    agent = ready_agent(apart)
    apart.configure(**PODS_TOO)
    for n in (1, 2):
        agent.hup()
        wait_until(lambda n=n: count_lines(agent, "configuration reloaded") == n, agent.log)
    assert count_lines(agent, "connections of pods are not ended") == 1
    assert count_lines(agent, "restart the agent") == 1


def test_without_net_admin(stage):
    """A container or a unit may give less: said once what will not work, and everything
    else works."""
    ok(stage.load())
    agent = ready_agent(stage, prefix=without("net_admin"))
    assert count_lines(agent, "CAP_NET_ADMIN is missing") == 1
    assert sets_of(agent.pid)["CapEff"] == AWAKE - {NET_ADMIN}
    cp = stage.cp(1)
    with Held(stage, 9) as held:
        cp.stop()
        wait_states(stage, "dead", [cp])
        assert served_set(stage) == {"cp2", "cp3"}
        agent.hup()
        agent.wait_log("configuration reloaded")
        assert stats(stage, "active")["cp1"] == 3
        cp.cont()
        assert held.close()["closed"] == 0
    assert count_lines(agent, "CAP_NET_ADMIN is missing") == 1
    assert count_lines(agent, "level=error") == 0


def test_without_what_leads_to_pods(apart):
    """As in a container with single capabilities: the host's own connections are ended."""
    ok(apart.load())
    agent = ready_agent(apart, prefix=without("sys_admin", "sys_ptrace"), **PODS_TOO)
    assert count_lines(agent, "connections of pods are not ended") == 1
    pod, cp = apart.pod(), apart.cp(1)
    with Held(apart, 6, ns=pod, prefix=AS_NOBODY) as podded, Held(apart, 6) as held:
        before = stats(apart, "active")["cp1"]
        assert before == 4
        cp.stop()
        wait_states(apart, "dead", [cp])
        wait_until(lambda: stats(apart, "active")["cp1"] < before, agent.log)
        wait_until(lambda: count_lines(agent, "cannot end connections") == 1, agent.log)
        assert held.close()["closed"] == 2
        cp.cont()
        assert podded.close()["closed"] == 0
    assert count_lines(agent, "cannot end connections") == 1
