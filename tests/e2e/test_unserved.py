# SPDX-License-Identifier: BSD-2-Clause
"""New connections that a backend's kernel takes and nobody serves, or that are refused, while the
persistent probe connection is answered: new clients go elsewhere until the agent has reached it by
a new connection. Nothing is ended."""

import contextlib
import json
import os
import signal
import subprocess
import time

import pytest

from helpers import (backend_status, dial, kept_to, ok, served_set, stats,
                     wait_states)
from observe import end_of, is_open, kinds, metric
from system import run_checked, wait_until
from world import ROOT

DEFAULTS = {"interval": "5s", "timeout": "3s"}
ALL = {"cp1", "cp2", "cp3"}


@pytest.fixture(name="usual")
def usual_fixture(stage):
    stage.second = stage.apiserver(2, alpn=["h2", "http/1.1"])
    stage.configure(probe=DEFAULTS, slowStart="0", policy="random")
    stage.running = stage.agent()
    wait_states(stage, "ready", stage.backends)
    # Each backend has served this process, so what it says is believed.
    assert served_set(stage) == ALL
    return stage


@contextlib.contextmanager
def dialling(stage, rate=20):
    """New clients, each with a TLS handshake; their outcomes are in the list afterwards."""
    outcomes = []
    process = stage.spawn(["/usr/bin/python3", os.path.join(ROOT, "tests", "clients", "tlsdial.py"), "--ca",
                           stage.ca, "--rate", rate])
    assert process.stdout.readline() == "begun\n"
    try:
        yield outcomes
    finally:
        output, _ = process.communicate(timeout=30)
        outcomes.extend(json.loads(output))


def events(stage):
    return [json.loads(line) for line in ok(stage.ctl("events", "-o", "json")).stdout.splitlines()]


def is_ejected(stage, cp):
    return backend_status(stage)[cp.endpoint]["state"] == "ejected"


def wait_served(stage, cp):
    """Until new clients get there again."""
    wait_until(lambda: cp.name in served_set(stage, 6), f"{cp.name} to serve new clients", 15)


def firewall(cp, action):
    """New connects alone are refused, as by a server that has closed its port and serves what it
    has."""
    run_checked(["nsenter", f"--net=/run/netns/{cp.ns}", "iptables", action, "INPUT", "-p", "tcp",
                 "--syn", "--dport", "6443", "-j", "REJECT", "--reject-with", "tcp-reset"])


def refuse_connects(cp):
    firewall(cp, "-I")


def accept_connects(cp):
    firewall(cp, "-D")


def test_unread_handshakes(usual):
    """PINGs are answered, kept connections served; only new ones are not read from."""
    cp = usual.second
    with kept_to(usual, cp.name) as kept:
        with dialling(usual) as outcomes:
            cp.hang("tcp")
            # 2 s on a quiet machine.
            wait_until(lambda: is_ejected(usual, cp), "cp2 to be ejected", 20)
            known = time.monotonic()
            assert kept.get()[0] == 200
            assert "it sends no data on new connections; until the agent reaches it" in \
                ok(usual.ctl("status")).stdout
            # An ejection of a second would be over.
            wait_until(lambda: time.monotonic() > known + 2.5, "more clients")
            cp.hang(None)
        assert is_open(kept) and kept.get()[0] == 200
    late = [o for o in outcomes if o[0] > known + 0.1]
    assert len(late) > 20 and not [o for o in late if o[2]], late
    assert "silent" in kinds(events(usual), cp)
    assert metric(usual, "kubelb_connections_ended_total") == 0
    wait_served(usual, cp)
    assert stats(usual, "silent")["cp2"] == 0


def test_refused_until_it_is_reached(usual):
    """One client finds that out. Before an ejection was held, one after each of them did."""
    cp = usual.second
    with kept_to(usual, cp.name) as kept, dialling(usual) as outcomes:
        refuse_connects(cp)
        wait_until(lambda: is_ejected(usual, cp), "cp2 to be ejected", 10)
        since = time.monotonic()
        wait_until(lambda: time.monotonic() > since + 4, "ejections of 1 and 2 s to be over")
        assert is_ejected(usual, cp) and kept.get()[0] == 200
        accept_connects(cp)
        wait_until(lambda: not is_ejected(usual, cp), "the ejection to end", 10)
    assert 1 <= len([o for o in outcomes if o[2]]) <= 2, [o for o in outcomes if o[2]]
    wait_served(usual, cp)


def test_reached_at_once(usual):
    """A backend that has only restarted is ejected for no longer than without an agent."""
    cp = usual.second
    usual.running.signal(signal.SIGSTOP)  # or it knows before any client
    cp.kill()
    wait_until(lambda: dial_until_refused(usual), "a refused connect", 5)
    cp.start()
    usual.running.signal(signal.SIGCONT)
    began = stats(usual, "ejected_ns")["cp2"]
    wait_states(usual, "ready", [cp], timeout=20)
    assert stats(usual, "ejected_until_ns")["cp2"] in (0, began + 1_000_000_000)
    wait_served(usual, cp)


def dial_until_refused(stage):
    with contextlib.suppress(ConnectionRefusedError):
        dial(stage).close()
        return False
    return True


HALF = b"\x16\x03\x01"  # of a TLS record's head


def few_seconds(stage):
    """With new clients all the time, so that the agent looks."""
    ping = metric(stage, "kubelb_probe_pings_total", backend=stage.cp(1).endpoint)
    wait_until(lambda: served_set(stage, 1) and metric(
        stage, "kubelb_probe_pings_total", backend=stage.cp(1).endpoint) >= ping + 5,
               "a few seconds", 15)


def test_a_client_that_sends_half_a_handshake(usual):
    """Its connection is silent for as long as it likes: that counts once, for a second."""
    with dial(usual) as half:
        half.sendall(HALF)
        wait_until(lambda: [e for e in events(usual) if e["event"] == "silent"], "the event", 10)
        name = [e for e in events(usual) if e["event"] == "silent"][0]["backend"]
        cp = next(b for b in usual.backends if b.endpoint == name)
        wait_until(lambda: not is_ejected(usual, cp), "the ejection to end", 5)
        few_seconds(usual)
        assert kinds(events(usual), cp).count("silent") == 1
        assert stats(usual, "ejections")[cp.name] == 1


def test_a_handshake_restores_nothing(stage):
    """The last backend is dialled all the same, and its kernel answers."""
    only = stage.apiserver(1)
    stage.configure(probe=DEFAULTS, slowStart="0", backends=[only.endpoint])
    stage.agent()
    wait_states(stage, "ready", [only])
    assert served_set(stage, 1) == {"cp1"}
    only.hang("tcp")
    with dial(stage) as first:
        first.sendall(HALF)
        wait_until(lambda: is_ejected(stage, only), "cp1 to be ejected", 10)
        with dial(stage):
            assert stats(stage, "evidence")["cp1"] == "KLB_EVIDENCE_EJECTED"
            assert stats(stage, "silent")["cp1"] == 1
        only.hang(None)
    wait_until(lambda: served_set(stage, 1) and stats(stage, "silent")["cp1"] == 0,
               "data to restore it", 15)


def test_somebody_elses_half_handshake(usual):
    """Not root's: anybody can do that."""
    script = ("import socket,time\ns=socket.create_connection(('127.0.0.1',6443))\n"
              f"s.sendall({HALF!r})\nprint('sent',flush=True)\ntime.sleep(60)")
    process = usual.spawn(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                           "/usr/bin/python3", "-c", script], stdout=subprocess.PIPE)
    assert process.stdout.readline().strip() == "sent"
    few_seconds(usual)
    assert not any(stats(usual, "ejections").values())
    assert not [e for e in events(usual) if e["event"] == "silent"]
    process.kill()
    process.wait()


def test_idle_clients_are_no_evidence(usual):
    """Who sends nothing is answered nothing."""
    with dial(usual), dial(usual), dial(usual):
        few_seconds(usual)
        assert not any(stats(usual, "ejections").values())


def test_an_agent_that_dies_holds_nothing_for_long(usual):
    """What it has not ended is over after a minute; without it new ejections are ordinary ones."""
    cp = usual.second
    refuse_connects(cp)
    wait_until(lambda: dial_until_refused(usual), "a refused connect", 5)
    usual.running.kill9()
    began, until = stats(usual, "ejected_ns")["cp2"], stats(usual, "ejected_until_ns")["cp2"]
    assert until - began == 60_000_000_000
    accept_connects(cp)
    usual.running = usual.agent()
    wait_until(lambda: not is_ejected(usual, cp), "the next agent to end it", 10)
    wait_served(usual, cp)
