# SPDX-License-Identifier: BSD-2-Clause
"""A kernel that refuses one kind of program or map and takes the rest. tests/clients/refuse.c
makes it do so. The main job needs the connect programs and nothing else; what is missing
is said wherever somebody looks, and a later load on a better kernel adds it."""

import contextlib
import json
import os
import subprocess

import pytest

from backend import PORT
from helpers import (V4, V6, Held, Traffic, backend_status, dial, dial_error, fails, link_pins,
                     metrics, nbconnect, objects, ok, pins, served_set, stats, still_there,
                     wait_states)
from system import wait_until

# include/uapi/linux/bpf.h
SOCK_OPS, SOCK_ADDR, SYSCALL, RINGBUF = 13, 18, 31, 27
CONNECT4, CONNECT6, GETPEERNAME4, GETPEERNAME6, SOCK_OPS_HOOK = 10, 11, 29, 30, 3
ENOMEM, EINVAL = 12, 22

GETPEERNAME = (f"prog={SOCK_ADDR}/{GETPEERNAME4}", f"prog={SOCK_ADDR}/{GETPEERNAME6}")

# What is refused, the feature that is off then, and the kernel's own word.
CASES = {
    "getpeername": (GETPEERNAME, "getpeername", "Operation not permitted"),
    "getpeername6-alone": (GETPEERNAME[1:], "getpeername", "Operation not permitted"),
    "getpeername-link": ((f"link={GETPEERNAME4}",), "getpeername", "Operation not permitted"),
    "sockops": ((f"prog={SOCK_OPS}",), "sockops", "Operation not permitted"),
    "sockops-unknown": ((f"errno={EINVAL}", f"prog={SOCK_OPS}"), "sockops",
                        "does not know it"),
    "sockops-link": ((f"link={SOCK_OPS_HOOK}",), "sockops", "Operation not permitted"),
    "wakeup": ((f"map={RINGBUF}",), "wakeup", "Operation not permitted"),
    "adjust": ((f"prog={SYSCALL}",), "adjust", "Operation not permitted"),
    "casts": (("kfunc",), "casts", "not supported"),
    "casts-and-atomics": (("kfunc", "atomics"), "casts", "not supported"),
}
EVERYTHING = (*GETPEERNAME, f"prog={SOCK_OPS}", f"map={RINGBUF}", f"prog={SYSCALL}", "kfunc",
              "atomics")


def load_without(stage, refuse, what, *args):
    return stage.exec([refuse, *what, "--", stage.program("kubelb-load"), "--pin", stage.pin,
                       "-c", stage.config, *args])


def check_without(stage, refuse, what):
    """What --check says: its exit status, and each feature by name."""
    done = stage.exec([refuse, *what, "--", stage.program("kubelb-load"), "--check", "-o", "json"])
    return done.returncode, {f["name"]: f for f in json.loads(done.stdout)["features"]}


def features(stage):
    shown = json.loads(ok(stage.ctl("status", "-o", "json")).stdout)["features"]
    return {f["name"]: f for f in shown}


def off(stage):
    return {name for name, f in features(stage).items() if not f["present"]}


def served_everywhere(stage, peername=True):
    """The main job, by IPv4 and IPv6."""
    for host in (V4, V6):
        assert served_set(stage, host=host) == {"cp1", "cp2", "cp3"}
        with dial(stage, host) as sock:
            assert (sock.getpeername()[:2] == (host, PORT)) == peername


# --- each feature ------------------------------------------------------------


@pytest.mark.parametrize("what, name, word", CASES.values(), ids=CASES)
def test_works_without(stage, refuse, what, name, word):
    done = ok(load_without(stage, refuse, what))
    quiet = name == "casts"
    assert quiet or (f"without {name}" in done.stderr and word in done.stderr), done.stderr
    served_everywhere(stage, peername=name != "getpeername")
    assert off(stage) == {name}
    assert word in features(stage)[name]["detail"] and features(stage)[name]["loss"]
    text = ok(stage.ctl("status")).stdout
    assert quiet or (f"OFF       {name}" in text and word in text), text
    assert "all effective" in text
    ids = objects(stage)
    ok(stage.detach())
    wait_until(lambda: not any(still_there(ids).values()), "everything to be gone")
    assert not os.path.exists(stage.pin)


@pytest.mark.parametrize("what, name, word", CASES.values(), ids=CASES)
def test_check_says_it(stage, refuse, what, name, word):
    status, found = check_without(stage, refuse, what)
    assert status == 0
    assert {n for n, f in found.items() if not f["present"] and n != "bpffs"} == {name}
    assert word in found[name]["detail"] and not found[name]["required"] and found[name]["loss"]


def test_works_without_all_of_it(stage, refuse):
    ok(load_without(stage, refuse, EVERYTHING))
    served_everywhere(stage, peername=False)
    assert off(stage) == {"getpeername", "sockops", "wakeup", "adjust", "casts"}
    assert set(link_pins(stage)) == {"links/connect4", "links/connect6"}
    assert not {"wakeup", "adjust", "connections"} & set(pins(stage))
    ok(stage.detach())
    assert not os.path.exists(stage.pin)


def test_peers_name_without_sockops(stage, refuse):
    """The record is made in the connect hook then; and it is signed."""
    ok(load_without(stage, refuse, CASES["sockops"][0]))
    for host in (V4, V6):
        with dial(stage, host) as sock:
            assert sock.getpeername()[:2] == (host, PORT)


def test_nothing_is_held_against_backends_without_sockops(stage, refuse):
    """Nobody fetches the choices that the connect programs make: none counts as left behind."""
    ok(load_without(stage, refuse, CASES["sockops"][0]))
    for _ in range(3):  # more connects than there are places for choices
        nbconnect(stage, "-n", 200, V4)
    assert {b["state"] for b in backend_status(stage).values()} == {"ready"}
    assert sum(stats(stage, "ejections").values()) == 0


# --- the agent ---------------------------------------------------------------


@pytest.mark.parametrize("what", [CASES["sockops"][0], CASES["wakeup"][0], CASES["adjust"][0],
                                  EVERYTHING], ids=["sockops", "wakeup", "adjust", "everything"])
def test_agent_works_without(stage, refuse, what):
    """It finds a dead backend by its own probes, says what is off, once, and as a metric."""
    ok(load_without(stage, refuse, what))
    agent = stage.agent()
    wait_states(stage, "ready", stage.backends)
    shown = {labels["name"]: value for labels, value in metrics(stage)["kubelb_feature"]}
    for name in off(stage):
        assert shown.get(name) == 0
        if name != "casts":
            assert agent.log().count(f"feature={name}") == 1, agent.log()
    assert shown["destroy"] == 1
    stage.cp(1).kill()
    wait_states(stage, "dead", [stage.cp(1)])
    for _ in range(10):
        assert dial_error(stage) is None
    assert agent.alive()


def test_failed_connects_reach_the_agent_without_a_ring_buffer(stage, refuse):
    """It asks with its tick: within about a second."""
    stage.configure(probe={"interval": "1m"})
    ok(load_without(stage, refuse, CASES["wakeup"][0]))
    stage.agent()
    wait_states(stage, "ready", stage.backends)
    stage.cp(1).link(up=False)
    with contextlib.suppress(AssertionError):
        nbconnect(stage, "-n", 60, V4)
    wait_states(stage, "dead", [stage.cp(1)], timeout=15)


# --- what a user is told when it cannot be listed ------------------------------


@pytest.mark.parametrize("command", ["connections", "kill"])
def test_connections_cannot_be_listed(attached, refuse, command):
    with Held(attached, 3) as held:
        args = [attached.cp(1).endpoint] if command == "kill" else []
        done = attached.exec([refuse, "sock_diag", "--", attached.program("kubelbctl"), "--pin",
                              attached.pin, command, *args])
        fails(done, 1, "sock_diag", "not permitted")
        status = attached.exec([refuse, "sock_diag", "--", attached.program("kubelbctl"), "--pin",
                                attached.pin, "status"])
        assert "OFF       connections" in ok(status).stdout
        assert held.close()["closed"] == 0


# --- what the main job needs -----------------------------------------------------


@pytest.mark.parametrize("hook", [CONNECT4, CONNECT6])
def test_connect_programs_are_needed(stage, refuse, hook):
    """One line that names what is missing and the likely cause; nothing is left behind. Without
    dataPath: kernel the agent serves the node (test_relay_mode.py)."""
    stage.configure(dataPath="kernel")
    name = {CONNECT4: "cgroup/connect4", CONNECT6: "cgroup/connect6"}[hook]
    done = load_without(stage, refuse, (f"prog={SOCK_ADDR}/{hook}",))
    fails(done, 1, f"{name} is missing", "seccomp", "--check")
    assert "run as root" not in done.stderr
    assert not os.path.exists(stage.pin)
    status, found = check_without(stage, refuse, (f"prog={SOCK_ADDR}/{hook}",))
    assert status == 1 and not found[name]["present"] and found[name]["required"]
    assert {n for n, f in found.items() if not f["present"] and n != "bpffs"} == {name}


def test_refused_now_what_ran_before(attached, refuse):
    """A load that the kernel refuses leaves what was there, under traffic."""
    with Traffic(attached):
        fails(load_without(attached, refuse, (f"prog={SOCK_ADDR}",)), 1)
        assert served_set(attached) == {"cp1", "cp2", "cp3"}


def test_nothing_is_attached_a_second_time(attached, library):
    """What runs is replaced and not tried beside itself: two sock_ops programs would spoil each
    other's records."""
    ok(attached.load(env={**library, "KILLAT": "link_create:1"}))


def test_out_of_memory_is_no_refusal(attached, refuse):
    """What is for lack of something is an error, and what runs stays."""
    before = objects(attached)
    fails(load_without(attached, refuse, (f"errno={ENOMEM}", f"prog={SOCK_OPS}")), 1,
          "out of memory")
    assert objects(attached) == before and off(attached) == set()


def test_counts_that_nobody_keeps_do_not_count(attached, refuse):
    """The kernel refuses klb_sockops from now on: what it has counted stays as it was then."""
    for b in attached.backends[1:]:
        ok(attached.ctl("drain", b.endpoint))
    with Held(attached, 10):
        assert stats(attached, "active")["cp1"] == 10
        for b in attached.backends[1:]:
            ok(attached.ctl("undrain", b.endpoint))
        ok(load_without(attached, refuse, CASES["sockops"][0]))
        assert served_set(attached) == {"cp1", "cp2", "cp3"}


# --- there and back ----------------------------------------------------------------


@pytest.mark.parametrize("what, name, _word", [CASES[k] for k in ("getpeername", "sockops", "wakeup",
                                                                  "adjust", "casts")],
                         ids=["getpeername", "sockops", "wakeup", "adjust", "casts"])
def test_a_later_load_adds_it(stage, refuse, what, name, _word):
    """And one on a worse kernel takes it away again; no connect fails on the way."""
    ok(load_without(stage, refuse, what))
    with Traffic(stage):
        ok(stage.load())
        assert off(stage) == set()
        ok(load_without(stage, refuse, what))
        # A map that is there is used again, which nobody is asked for.
        assert off(stage) == ({name} if name != "wakeup" else set())
        ok(stage.load())
        assert off(stage) == set()
    served_everywhere(stage)


def test_advice_fits_the_case(stage):
    """EPERM as root is not "run as root": it names what is missing."""
    stage.configure(dataPath="kernel")
    done = stage.exec(["setpriv", "--bounding-set=-all,+net_admin", "--inh-caps=-all",
                       stage.program("kubelb-load"), "--pin", stage.pin, "-c", stage.config])
    fails(done, 1, "CAP_SYS_ADMIN is missing")
    assert "run as root" not in done.stderr
    done = subprocess.run(["unshare", "--user", "--map-root-user", stage.program("kubelb-load"),
                           "--check"], capture_output=True, text=True, check=False)
    fails(done, 1)
    assert "user namespace" in done.stdout
