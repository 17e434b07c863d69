# SPDX-License-Identifier: BSD-2-Clause
"""What an operator sees and does: connections, events, kill."""

import contextlib
import datetime
import errno
import json
import os
import re
import signal
import socket
import struct
import time

import pytest

from backend import PORT
from helpers import (MAPPED, V4, V6, Held, Kept, backend_status, bpftool, dial, dial_error, fails,
                     kept_to, make_socket, nbconnect, next_version, ok, served_set, stats,
                     wait_states, wait_stopped)
from observe import Follower, kinds
from system import run_checked, wait_until

SERVICE = "10.96.0.1"
PODS_TOO = {"frontends": [f"{V4}:{PORT}", f"[{V6}]:{PORT}",
                          {"address": f"{SERVICE}:443", "scope": "all"}]}
NOBODY = 65534
SO_BINDTODEVICE = 25


def connections(world):
    return json.loads(ok(world.ctl("connections", "-o", "json")).stdout)["connections"]


def of_process(world, process):
    return [c for c in connections(world) if c["process"]["pid"] == process.pid]


def to_backend(world, backend):
    return [c for c in connections(world) if c["backend"] == backend.endpoint]


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def events(world):
    return lines(ok(world.ctl("events", "-o", "json")).stdout)


def identity(event):
    """What two readers agree on: each turns it into wall-clock time by itself."""
    return event["monotonicNs"], event["number"], event["event"], event["backend"]


def name_of(sock):
    """Its own address, as kubelbctl writes it."""
    host, port = sock.getsockname()[:2]
    host = host.removeprefix("::ffff:")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def only(world, backend):
    """Every new connect goes to this one."""
    for b in world.backends:
        if b is not backend:
            ok(world.ctl("weight", b.endpoint, "0"))


def alive(sock):
    """Neither data nor an end, nor an error."""
    sock.settimeout(0)
    try:
        sock.recv(1)
    except BlockingIOError:
        return True
    return False


def was_reset(sock, error=ConnectionResetError):
    """What read(2) says, as after a reset of the backend's own; OpenSSL makes an end of it."""
    sock.settimeout(5)
    with pytest.raises(error):
        socket.socket.recv(sock, 1)


@contextlib.contextmanager
def closing(*sockets):
    try:
        yield sockets
    finally:
        for sock in sockets:
            sock.close()


# --- connections -------------------------------------------------------------


@pytest.mark.parametrize("host,frontend,family", [
    (V4, "127.0.0.1:6443", "v4"),
    (V6, "[::1]:6443", "v4"),
    (V6, "[::1]:6443", "v6"),
    (MAPPED, "127.0.0.1:6443", "v4"),
])
def test_connections_are_listed(stage, host, frontend, family):
    """Exactly those that are open, each with where it comes from and goes to."""
    endpoints = {b.endpoint if family == "v4" else b.endpoint6 for b in stage.backends}
    stage.configure(backends=sorted(endpoints))
    ok(stage.load())
    assert connections(stage) == []
    with closing(*(dial(stage, host) for _ in range(6))) as sockets:
        found = connections(stage)
        assert {c["local"] for c in found} == {name_of(s) for s in sockets}
        assert {c["backend"] for c in found} == endpoints
        for c in found:
            assert c["frontend"] == frontend
            assert c["process"]["pid"] == os.getpid()
            assert (c["state"], c["tcpState"]) == ("active", "established")
            assert c["hostNetns"] is True
            assert 0 <= c["ageSeconds"] < 60 and 0 < c["rttSeconds"] < 5
            assert 0 < c["connectSeconds"] <= c["ageSeconds"]
    wait_until(lambda: connections(stage) == [], "the list to be empty")


def test_connections_of_several_processes(stage):
    """Each with its process; those of a pod too where the frontend is for all."""
    stage.configure(**PODS_TOO)
    ok(stage.load())
    pod = stage.pod()
    with Held(stage, 3) as one, Held(stage, 2, host=V6) as two, \
            Held(stage, 4, SERVICE, host="443", ns=pod) as three:
        found = connections(stage)
        assert len(found) == 9
        for held, count, frontend, host_netns in ((one, 3, "127.0.0.1:6443", True),
                                                  (two, 2, "[::1]:6443", True),
                                                  (three, 4, f"{SERVICE}:443", False)):
            mine = of_process(stage, held.process)
            assert len(mine) == count
            assert {c["process"]["name"] for c in mine} == {"nbconnect"}
            assert {c["frontend"] for c in mine} == {frontend}
            assert {c["hostNetns"] for c in mine} == {host_netns}
        text = ok(stage.ctl("connections")).stdout.splitlines()
        assert "NETNS" in text[0]
        assert sum(line.endswith(" active -") for line in text[1:]) == 5
        three.close()
        wait_until(lambda: len(connections(stage)) == 5, "the pod's to be gone")
        assert "NETNS" not in ok(stage.ctl("connections")).stdout


def test_connections_for_people(attached):
    """Aligned, by backend, the oldest first; nothing ends with blanks."""
    with Held(attached, 3) as old:
        with Held(attached, 3) as young:
            text = ok(attached.ctl("connections")).stdout.splitlines()
            found = connections(attached)
            assert found == sorted(found, key=lambda c: (c["backend"], -c["ageSeconds"]))
            assert [c["process"]["pid"] for c in found] == 3 * [old.process.pid,
                                                                young.process.pid]
    assert len(text) == 7
    assert all(line == line.rstrip() and len(line) <= 120 for line in text)
    for title, cell in (("FRONTEND", "127.0.0.1:6443"), ("BACKEND", "192.168.77.1"),
                        ("STATE", "active")):
        assert {line.index(cell) for line in text[1:]} == {text[0].index(title)}


def test_connecting_is_shown(stage):
    stage.configure(connectTimeout="5s")
    ok(stage.load())
    cp = stage.cp(1)
    only(stage, cp)
    assert "CONNECTING" not in ok(stage.ctl("status")).stdout
    cp.link(up=False)
    with closing(make_socket(stage, socket.AF_INET)) as (sock,):
        sock.setblocking(False)
        sock.connect_ex((V4, PORT))
        found, = connections(stage)
        assert (found["state"], found["tcpState"]) == ("connecting", "syn-sent")
        assert found["rttSeconds"] is None and found["connectSeconds"] is None
        assert "connecting" in ok(stage.ctl("connections")).stdout
        assert "CONNECTING" in ok(stage.ctl("status")).stdout
        assert backend_status(stage)[cp.endpoint]["connecting"] == 1


def test_names_of_processes_are_not_trusted(attached):
    """Whoever runs it chooses the name; a terminal must not obey it."""
    program = ("import socket, sys\n"
               "open('/proc/self/comm', 'wb').write(b'\\x1b[31m\\xff\\n\"evil')\n"
               "s = socket.create_connection(('127.0.0.1', 6443))\n"
               "print('connected', flush=True)\n"
               "sys.stdin.read()\n")
    client = attached.spawn(["/usr/bin/python3", "-c", program])
    assert client.stdout.readline() == "connected\n"
    found, = of_process(attached, client)
    assert found["process"]["name"] == '?[31m??"evil'
    text = ok(attached.ctl("connections")).stdout
    assert f'?[31m??"evil[{client.pid}]' in text
    assert not re.search(r"[^\x20-\x7e\n]", text)


# --- kill --------------------------------------------------------------------


def test_kill_ends_those_and_no_others(stage):
    """The clients' own read fails at once; direct connections to the same
    address, other backends' and unrelated ones never notice."""
    stage.configure(**PODS_TOO)
    ok(stage.load())
    pod, cp = stage.pod(), stage.cp(1)
    with Held(stage, 6) as held, Held(stage, 3, SERVICE, host="443", ns=pod) as podded, \
            kept_to(stage, "cp1") as mine, kept_to(stage, "cp2") as other, \
            Kept(stage, host=cp.v4) as direct, Kept(stage, host=cp.v4, ns=pod) as pods_direct:
        doomed = {p.pid: len([c for c in of_process(stage, p) if c["backend"] == cp.endpoint])
                  for p in (held.process, podded.process)}
        assert doomed == {held.process.pid: 2, podded.process.pid: 1}
        done = ok(stage.ctl("kill", cp.endpoint))
        assert "4 connections ended" in done.stdout
        assert "kubelbctl drain" in done.stdout
        was_reset(mine.sock)
        assert other.backend() == "cp2"
        assert direct.backend() == "cp1" and pods_direct.backend() == "cp1"
        assert to_backend(stage, cp) == []
        assert stats(stage, "active")["cp1"] == 0
        assert podded.close()["closed"] == 1
        assert held.close()["closed"] == 2
    # That was no evidence about the backend.
    assert events(stage) == []
    entry = backend_status(stage)[cp.endpoint]
    assert (entry["state"], entry["lost"], sum(entry["failed"].values())) == ("ready", 0, 0)


@pytest.mark.parametrize("host,family", [(V4, "v4"), (V6, "v4"), (V6, "v6"), (MAPPED, "v4")])
def test_kill_every_kind_of_socket(stage, host, family):
    cp = stage.cp(1)
    endpoint = cp.endpoint if family == "v4" else cp.endpoint6
    stage.configure(backends=[endpoint])
    ok(stage.load())
    with closing(*(dial(stage, host) for _ in range(3)),
                 dial(stage, cp.v4 if family == "v4" else cp.v6)) as sockets:
        assert "3 connections ended" in ok(stage.ctl("kill", endpoint)).stdout
        for sock in sockets[:3]:
            was_reset(sock)
        assert alive(sockets[3])


def test_kill_a_socket_bound_to_a_device(attached):
    """The kernel finds such a socket by its device as well."""
    with closing(make_socket(attached, socket.AF_INET),
                 make_socket(attached, socket.AF_INET6)) as sockets:
        for sock, host in zip(sockets, (V4, MAPPED)):
            sock.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, b"eth0")
            sock.settimeout(5)
            sock.connect((host, PORT))
        for c in connections(attached):
            assert "1 connection ended\n" in ok(attached.ctl("kill", c["backend"])).stdout
        for sock in sockets:
            was_reset(sock)


def test_kill_while_connecting(stage):
    """The client's connect fails; the backend is not blamed for it."""
    stage.configure(connectTimeout="5s")
    ok(stage.load())
    cp = stage.cp(1)
    only(stage, cp)
    cp.link(up=False)
    with closing(make_socket(stage, socket.AF_INET)) as (sock,):
        sock.setblocking(False)
        sock.connect_ex((V4, PORT))
        assert "1 connection ended" in ok(stage.ctl("kill", cp.endpoint)).stdout
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
        assert connections(stage) == []
    entry = backend_status(stage)[cp.endpoint]
    assert entry["connecting"] == 0 and sum(entry["failed"].values()) == 0
    assert entry["ejections"] == 0
    assert "ejected" not in kinds(events(stage), cp)


def test_kill_after_drain_moves_them(attached):
    cp = attached.cp(2)
    with Held(attached, 9) as held:
        ok(attached.ctl("drain", cp.endpoint))
        done = ok(attached.ctl("kill", cp.endpoint))
        assert "3 connections ended" in done.stdout and "drain" not in done.stdout
        assert served_set(attached) == {"cp1", "cp3"}
        assert held.close()["closed"] == 3


def test_kill_nothing(attached):
    with kept_to(attached, "cp2") as other:
        done = ok(attached.ctl("kill", attached.cp(1).v4))
        assert done.stdout == f"{attached.cp(1).endpoint}: 0 connections ended\n"
        assert other.backend() == "cp2"


def test_kill_what_has_left_the_configuration(attached):
    cp = attached.cp(3)
    with kept_to(attached, "cp3") as connection:
        attached.configure(backends=[b.endpoint for b in attached.backends[:2]])
        ok(attached.load())
        assert connection.backend() == "cp3"
        assert ok(attached.ctl("kill", cp.endpoint)).stdout == \
            f"{cp.endpoint}: 1 connection ended\n"
        was_reset(connection.sock)
    fails(attached.ctl("kill", cp.endpoint), 1, cp.endpoint, "no such backend")


def test_kill_an_unknown_backend(attached):
    with Held(attached, 3) as held:
        fails(attached.ctl("kill", "192.0.2.7"), 1, "192.0.2.7:6443", attached.cp(1).endpoint)
        assert held.close()["closed"] == 0


def test_kill_finds_a_namespace_by_its_name(stage):
    """No process lives there; whoever connected lives elsewhere."""
    stage.configure(**PODS_TOO)
    ok(stage.load())
    pods = [stage.pod(), stage.pod()]
    with closing(*(dial(stage, SERVICE, 443, ns=pod) for pod in pods for _ in range(3))) as sockets:
        for b in stage.backends:
            assert "2 connections ended" in ok(stage.ctl("kill", b.endpoint)).stdout
        for sock in sockets:
            was_reset(sock)


def test_kill_finds_a_namespace_by_a_socket(stage):
    """No process lives there and it has no name; whoever connected lives elsewhere."""
    stage.configure(**PODS_TOO, backends=[stage.cp(1).endpoint])
    ok(stage.load())
    pod, cp = stage.pod(), stage.cp(1)
    with closing(dial(stage, SERVICE, 443, ns=pod), dial(stage)) as (far, mine):
        run_checked(["ip", "netns", "del", pod])
        assert {c["local"] for c in connections(stage)} == {name_of(far), name_of(mine)}
        assert "2 connections ended" in ok(stage.ctl("kill", cp.endpoint)).stdout
        was_reset(far)
        was_reset(mine)


def test_kill_what_cannot_be_found(stage):
    """A socket in a namespace that no process, no name and no descriptor leads to (it is on its
    way from one process to another): said, with the others ended all the same."""
    stage.configure(**PODS_TOO, backends=[stage.cp(1).endpoint])
    ok(stage.load())
    pod, cp = stage.pod(), stage.cp(1)
    ours, theirs = socket.socketpair()
    with closing(dial(stage, SERVICE, 443, ns=pod), dial(stage), ours, theirs) as (lost, mine, *_):
        socket.send_fds(ours, [b"x"], [lost.fileno()])
        lost.close()
        run_checked(["ip", "netns", "del", pod])
        done = stage.ctl("kill", cp.endpoint)
        fails(done, 1, cp.endpoint, "1 of 2", "namespace")
        assert "1 connection ended, 1 not" in done.stdout
        was_reset(mine)
        _data, fds, _flags, _address = socket.recv_fds(theirs, 1, 1)
        with socket.socket(fileno=fds[0]) as found:
            assert alive(found)


# --- a list that takes several reads -----------------------------------------


MANY = 400  # a part of the list is 32 KiB at most: some 120 sockets


class InTheMiddle:
    """kubelbctl, stopped before it takes the n-th part of the list; how it ended."""

    def __init__(self, stage, library, *args, read=2):
        self.process = stage.spawn([stage.program("kubelbctl"), "--pin", stage.pin, *args],
                                   env={**library, "STOPAT": f"connections:{read}"})

    def __enter__(self):
        wait_stopped(self.process)
        return self

    def __exit__(self, *exc):
        self.process.send_signal(signal.SIGCONT)
        self.stdout, _ = self.process.communicate(timeout=20)


def passing_connections(stage):
    """So many that others change their places in a list when these come or go. Gone at once when
    closed: their peer gets a reset."""
    made = []
    for _ in range(MANY // 2):
        made.append(dial(stage))
        made[-1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return made


def close_all(sockets):
    for sock in sockets:
        sock.close()
    sockets.clear()


@pytest.mark.parametrize("change", ["some go", "some come"])
def test_list_while_connections_pass(single, library, change):
    """Whoever is there all the time is listed, and once."""
    passing = []
    with Held(single, MANY) as held:
        if change == "some go":
            passing = passing_connections(single)
        with InTheMiddle(single, library, "connections", "-o", "json") as ctl:
            if passing:
                close_all(passing)
            else:
                passing = passing_connections(single)
        pids = [c["process"]["pid"] for c in json.loads(ctl.stdout)["connections"]]
        close_all(passing)
    assert pids.count(held.process.pid) == MANY


def test_kill_while_connections_go(single, library):
    with Held(single, MANY) as held:
        passing = passing_connections(single)
        with InTheMiddle(single, library, "kill", single.cp(1).endpoint) as ctl:
            close_all(passing)
        assert ctl.process.returncode == 0
        assert held.close()["closed"] == MANY


def test_kill_leaves_newer_ones_alone(single, library):
    """Those that come when the list is made: its second part is its end."""
    endpoint = single.cp(1).endpoint
    with Held(single, 3) as held:
        with InTheMiddle(single, library, "kill", endpoint) as ctl:
            newer = dial(single)
        assert f"{endpoint}: 3 connections ended\n" in ctl.stdout
        assert held.close()["closed"] == 3
    with newer:
        newer.settimeout(0)
        with pytest.raises(BlockingIOError):
            newer.recv(1)


def test_kill_under_traffic(single):
    """All that were there before it are ended, however many come and go beside them."""
    churn = [single.spawn([single.client, "--rate", 1000, "--seconds", 300, V4])
             for _ in range(2)]
    for _ in range(6):
        with Held(single, MANY) as held:
            ok(single.ctl("kill", single.cp(1).endpoint))
            assert held.close()["closed"] == MANY
    assert [process.poll() for process in churn] == [None, None]


@pytest.mark.parametrize("args", [("connections",), ("events",), ("events", "-f"),
                                  ("kill", "192.168.77.11")], ids=" ".join)
def test_without_root(attached, args):
    with Held(attached, 3) as held:
        done = attached.exec(["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}",
                              "--clear-groups", attached.program("kubelbctl"), "--pin",
                              attached.pin, *args])
        fails(done, 1, "root")
        assert held.close()["closed"] == 0


@pytest.mark.parametrize("args", [("connections",), ("events",), ("events", "-f"),
                                  ("kill", "192.168.77.11")], ids=" ".join)
def test_nothing_attached(stage, args):
    fails(stage.ctl(*args), 1, "kubelb-load")


@pytest.mark.parametrize("args", [
    ("kill",),
    ("kill", "192.168.77.11", "192.168.77.12"),
    ("kill", "cp1.example"),
    ("kill", "-o", "json", "192.168.77.11"),
    ("kill", "-f", "192.168.77.11"),
    ("connections", "192.168.77.11"),
    ("connections", "-f"),
    ("connections", "-w"),
    ("events", "192.168.77.11"),
    ("events", "-w"),
    ("events", "-o", "yaml"),
    ("status", "-f"),
    ("drain", "--follow", "192.168.77.11"),
], ids=" ".join)
def test_bad_command_line(attached, args):
    with Held(attached, 3) as held:
        fails(attached.ctl(*args), 2, "name" if args[-1] == "cp1.example" else "--help")
        assert held.close()["closed"] == 0


# --- events ------------------------------------------------------------------


def fail_once(world, backend):
    """Connects until one has failed. Not through `only`: the last one of all
    would be tried again and again."""
    before = stats(world, "ejections")[backend.name]
    wait_until(lambda: nbconnect(world, "-n", 1, V4) and
               stats(world, "ejections")[backend.name] > before, f"{backend.name} to be ejected")


def recover(world, backend, read):
    """Connects until the backend is known to be back."""
    count = kinds(read(), backend).count("restored")
    wait_until(lambda: nbconnect(world, "-n", 3, V4) and
               kinds(read(), backend).count("restored") > count, f"{backend.name} to be restored")


def test_events_of_a_killed_backend(attached):
    cp = attached.cp(1)
    assert events(attached) == []
    cp.kill()
    fail_once(attached, cp)
    failed, ejected = events(attached)
    for event in (failed, ejected):
        assert event["backend"] == cp.endpoint and event["reason"] == "refused"
        assert event["process"]["name"] == "nbconnect" and event["process"]["pid"] > 1
        assert 0 < event["latencySeconds"] < 1
        took = time.time() - datetime.datetime.fromisoformat(event["time"][:-1] + "+00:00") \
            .timestamp()
        assert -0.01 < took < 30, "the time is the wall clock's"
    assert (failed["event"], failed["ejectedSeconds"]) == ("connect-failed", None)
    assert (ejected["event"], ejected["ejectedSeconds"]) == ("ejected", 1.0)
    assert [failed["number"], ejected["number"]] == [0, 1]

    cp.start()
    recover(attached, cp, lambda: events(attached))
    restored = events(attached)[-1]
    assert (restored["event"], restored["reason"]) == ("restored", None)

    text = ok(attached.ctl("events")).stdout.splitlines()
    today = time.strftime("%Y-%m-%d")
    assert len(text) == 3
    pattern = today + r" \d\d:\d\d:\d\d\.\d{3} %s +" + re.escape(cp.endpoint) + \
        r" +%s +nbconnect\[\d+\] after [\d.]+m?s%s"
    for line, words in zip(text, (("connect-failed", "refused", ""),
                                  ("ejected", "refused", ", for 1s"), ("restored", "-", ""))):
        assert re.fullmatch(pattern % words, line), line


def test_events_that_nobody_looked_at(balanced):
    """A state that has come back between two looks has been another meanwhile. Stopped for
    that long, the follower looks as seldom as the shortest of changes would take."""
    cp = balanced.cp(2)
    follower = Follower(balanced)
    for backend in balanced.backends:
        follower.wait("state", backend)
    follower.process.send_signal(signal.SIGSTOP)
    wait_stopped(follower.process)
    count = len(follower.events)
    cp.readyz(500)
    wait_states(balanced, "draining", [cp])
    cp.readyz(200)
    wait_states(balanced, "ready", [cp])
    follower.process.send_signal(signal.SIGCONT)
    follower.wait("state", cp, 2)
    follower.end()
    found = [e for e in follower.events[count:] if e["event"] == "state"]
    assert [(e["backend"], e["was"], e["state"]) for e in found] == [(cp.endpoint, "ready", "ready")]


def test_events_of_a_reason_alone(balanced):
    """The state stays, and why is another."""
    cp = balanced.cp(2)
    cp.readyz(500)
    wait_states(balanced, "draining", [cp])
    follower = Follower(balanced)
    follower.wait("state", cp)
    cp.readyz(403)
    follower.wait("reason", cp)
    follower.end()
    event = next(e for e in follower.events if e["event"] == "reason")
    assert (event["state"], event["reason"], event["wasReason"], event["httpStatus"]) == \
        ("draining", "unauthorized", "not ready", 403)
    assert kinds(follower.events, cp).count("state") == 1


def test_events_of_the_agent_and_the_operator(stage):
    """Changes of state with their reasons, and what the operator does; to whoever follows, and
    the last state of each to whoever asks later."""
    agent = stage.agent()
    wait_states(stage, "ready", stage.backends)
    follower = Follower(stage)
    cp = stage.cp(2)
    for backend in stage.backends:
        follower.wait("state", backend)
    cp.kill()
    wait_states(stage, "dead", [cp])
    wait_until(lambda: [e["state"] for e in follower.events
                        if e["event"] == "state" and e["backend"] == cp.endpoint][-1] == "dead",
               "the state to be told")
    changes = [e for e in follower.events if e["event"] == "state" and e["backend"] == cp.endpoint]
    assert changes[0]["was"] is None and changes[-1]["reason"] == "refused"
    assert all(then["was"] == before["state"] for before, then in zip(changes, changes[1:]))
    ok(stage.ctl("drain", stage.cp(1).v4))
    follower.wait("drained", stage.cp(1))
    ok(stage.ctl("weight", stage.cp(1).v4, 30))
    follower.wait("weight", stage.cp(1))
    ok(stage.ctl("undrain", stage.cp(1).v4))
    follower.wait("undrained", stage.cp(1))
    stage.configure(backends=[stage.cp(1).endpoint, stage.cp(2).endpoint])
    agent.hup()
    follower.wait("removed", stage.cp(3))
    stage.configure()
    agent.hup()
    follower.wait("returned", stage.cp(3))
    follower.end()
    assert [e["weight"] for e in follower.events if e["event"] == "weight"] == [30]

    shown = [e for e in events(stage) if e["event"] == "state" and e["backend"] == cp.endpoint]
    assert [e["state"] for e in shown] == ["dead"]
    times = [e["monotonicNs"] for e in events(stage)]
    assert times == sorted(times)
    text = [line for line in ok(stage.ctl("events")).stdout.splitlines() if cp.endpoint in line]
    assert any(re.search(r" state +\S+ +dead +refused$", line)
               for line in text), text


def test_events_of_a_blackholed_backend(stage):
    stage.configure(connectTimeout="300ms")
    ok(stage.load())
    cp = stage.cp(2)
    nbconnect(stage, "-n", 9, V4)  # its address is known
    cp.link(up=False)
    fail_once(stage, cp)
    assert kinds(events(stage), cp) == ["suspect", "connect-failed", "ejected"]
    suspect, failed, _ejected = events(stage)
    assert suspect["latencySeconds"] < failed["latencySeconds"]
    assert failed["reason"] == "timed_out" and failed["latencySeconds"] > 0.2


def test_events_are_kept(stage):
    """The last 256, whoever looked before."""
    stage.configure(backends=[stage.cp(1).endpoint])
    ok(stage.load())
    stage.cp(1).kill()
    nbconnect(stage, "-n", 300, V4)
    assert len(events(stage)) == 256
    found = events(stage)
    assert [e["number"] for e in found] == list(range(found[0]["number"], found[0]["number"] + 256))
    assert found[-1]["number"] >= 300


def test_an_event_that_was_never_finished(attached):
    """Nobody waits for it once there are others."""
    for b in attached.backends:
        b.kill()
        wait_until(lambda b=b: dial_error(attached) == "ECONNREFUSED", "a connect to fail")
    before = [line["monotonicNs"] for line in events(attached)]
    assert len(before) >= 6
    size = bpftool("map", "show", "pinned", f"{attached.pin}/events")["bytes_value"]
    bpftool("map", "update", "pinned", f"{attached.pin}/events", "key", 1, 0, 0, 0,
            "value", *([0] * size))
    assert [line["monotonicNs"] for line in events(attached)] == before[:1] + before[2:]


def test_followers_see_everything(attached):
    """Each of two, through another load, and through detach and load; nothing twice."""
    cp1, cp2 = attached.cp(1), attached.cp(2)
    followers = [Follower(attached), Follower(attached)]
    cp1.kill()
    fail_once(attached, cp1)
    for f in followers:
        f.wait("ejected", cp1)
    ok(attached.load())
    cp2.kill()
    fail_once(attached, cp2)
    for f in followers:
        f.wait("ejected", cp2)
    cp2.start()
    recover(attached, cp2, lambda: followers[0].events)

    known = kinds(events(attached), cp1).count("ejected")
    ok(attached.detach())
    ok(attached.load())
    # The log has begun anew: number 0 comes again.
    fail_once(attached, cp1)
    for f in followers:
        f.wait("ejected", cp1, known + 1)
        f.wait("restored", cp2)
    recent = events(attached)
    assert recent[0]["number"] == 0
    for f in followers:
        wait_until(lambda f=f: identity(f.events[-1]) == identity(recent[-1]), "the newest event")
        f.end()
        assert len({identity(e) for e in f.events}) == len(f.events)
        assert [identity(e) for e in f.events[-len(recent):]] == [identity(e) for e in recent]
    assert [identity(e) for e in followers[0].events] == [identity(e) for e in followers[1].events]


def text_follower(world):
    """A running `kubelbctl events -f`, which has printed a failure of cp1."""
    world.cp(1).kill()
    fail_once(world, world.cp(1))
    follower = world.spawn([world.program("kubelbctl"), "--pin", world.pin, "events", "-f"],
                           stderr=-1)
    assert " connect-failed " in follower.stdout.readline()
    assert " ejected " in follower.stdout.readline()
    return follower


def test_follower_waits_while_nothing_is_attached(attached):
    follower = text_follower(attached)
    ok(attached.detach())
    assert "waiting for kubelb-load" in follower.stderr.readline()
    ok(attached.load())
    fail_once(attached, attached.cp(1))
    assert " connect-failed " in follower.stdout.readline()
    follower.send_signal(signal.SIGINT)
    assert follower.wait(timeout=5) == 0
    assert follower.stderr.read() == ""


def test_follower_ends_with_an_upgrade_that_it_cannot_read(attached):
    """Maps of the next ABI version: one line, what to run instead."""
    load = next_version(attached)
    follower = text_follower(attached)
    ok(attached.exec([load, "--pin", attached.pin, "-c", attached.config]))
    assert follower.wait(timeout=5) == 1
    assert "version" in follower.stderr.readline()
    assert follower.stderr.read() == ""


@pytest.mark.parametrize("args", [("events", "-f"), ("status", "-w")], ids=" ".join)
def test_follower_ends_with_its_reader(attached, args):
    """At once, though nothing happens that it could print; and quietly."""
    follower = attached.spawn([attached.program("kubelbctl"), "--pin", attached.pin, *args],
                              stderr=-1)
    follower.stdout.close()
    assert follower.wait(timeout=5) == 0
    assert follower.stderr.read() == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_follower_ends_on_a_signal(attached, number):
    attached.cp(1).kill()
    fail_once(attached, attached.cp(1))
    follower = Follower(attached)
    follower.wait("ejected", attached.cp(1))
    follower.end(number)


# --- status ------------------------------------------------------------------


def test_status_json_is_complete(attached):
    attached.cp(1).kill()
    fail_once(attached, attached.cp(1))
    document = json.loads(ok(attached.ctl("status", "-o", "json")).stdout)
    assert {"attached", "effective", "pin", "abiVersion", "configSerial", "hostNetnsCookie",
            "hostNetns", "inHostNetns", "local", "agent", "discovery", "skipped", "repaired", "events", "programs", "features",
            "frontends", "backends", "connects", "otherPrograms", "diverted", "lock",
            "httpTaken", "relay", "version", "host", "dataPath", "dataPathReason", "listeners",
            "configuration", "versions"} == set(document)
    assert document["events"] == 2
    entry = {e["address"]: e for e in document["backends"]}[attached.cp(1).endpoint]
    assert (entry["state"], entry["ejected"], entry["ejections"]) == ("ejected", True, 1)
    assert entry["failed"] == {"refused": 1, "timed_out": 0, "unreachable": 0, "gave_up": 0,
                               "other": 0}
    assert 0 < entry["ejectedForSeconds"] <= 1 and 0 <= entry["lastFailureSecondsAgo"] < 60
    well = {e["address"]: e for e in document["backends"]}[attached.cp(2).endpoint]
    assert well["ejectedForSeconds"] is None and not well["ejected"]
    nbconnect(attached, "-n", 6, V4)
    well = backend_status(attached)[attached.cp(2).endpoint]
    assert well["opened"] > 0 and 0 < well["connectSeconds"] < 5 and 0 < well["rttSeconds"] < 5


def test_status_is_readable(attached):
    """80 columns when all is well, 120 with a reason; a column is where its title is. Other
    worlds on this machine are others' programs."""
    def status():
        lines = ok(attached.ctl("status")).stdout.splitlines(keepends=True)
        return "".join(x for x in lines if not x.startswith("other "))

    nbconnect(attached, "-n", 30, V4)
    text = status()
    assert max(map(len, text.splitlines())) <= 80, text
    attached.cp(1).kill()
    fail_once(attached, attached.cp(1))
    text = status()
    assert max(map(len, text.splitlines())) <= 120, text
    rows = [line for line in text.splitlines() if ":6443 " in line and "least" not in line]
    title = next(line for line in text.splitlines() if line.startswith("BACKEND"))
    assert {bool(row[title.index("WHY") - 1] == " ") for row in rows} == {True}
    assert any(row[title.index("STATE"):].startswith("ejected") and "connects to it failed" in row
               for row in rows)


def test_status_counts_what_is_left_alone(attached):
    pod = attached.pod()
    nbconnect(attached, "-n", 3, V4, ns=pod)
    text = ok(attached.ctl("status")).stdout
    assert re.search(r"note .*another network namespace.*: 3\n", text), text
