# SPDX-License-Identifier: BSD-2-Clause
"""Defects that were found and mended once, and must not come back."""

import contextlib
import glob
import json
import os
import random
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import time

import pytest

from helpers import (MAPPED, V4, V6, Accepts, Held, Traffic, address_text, agent_serves,
                     attached_ids,
                     attached_programs, backend_ids,
                     bpftool, counters, dial, dial_error, dump, fails, http_call, make_socket,
                     nbconnect, objects, ok, pins, served_set, stats, still_there, wait_states,
                     wait_stopped)
from backend import PORT
from system import (BPFFS, WorldError, cgroup2_root, group_members, inside, wait_until)

ALL = {"cp1", "cp2", "cp3"}
NOBODY = 65534
IPV6_ADDRFORM = 1  # include/uapi/linux/in6.h
IPPROTO_MPTCP = 262


def frontends(stage):
    """What is balanced: as user space has written it, and as the kernel reads it."""
    def text(endpoint):
        return address_text(endpoint["addr"]), endpoint["port"]

    wanted = {text(key) for key, _value in dump(stage, "frontends")}
    if "lookup" in pins(stage):
        read = [entry["endpoint"] for entry in dump(stage, "lookup")[0][1]["at"]]
        assert {text(endpoint) for endpoint in read if endpoint["port"]} == wanted
    return wanted


def carried(stage):
    """id -> connections, of every id that has some: also of those that no
    backend has any more, where a count that went below 0 would show."""
    return {i: value["active"] + value["connecting"] for i, value in dump(stage, "stats")
            if value["active"] or value["connecting"]}


def wait_carried(stage, count, timeout=5):
    wait_until(lambda: sum(carried(stage).values()) == count,
               lambda: f"{count} connections to be counted, are {carried(stage)}", timeout)


def places(stage):
    """Everything at or beside the pin directory: where it is, and which it is."""
    found = {}
    for top in glob.glob(glob.escape(stage.pin) + "*"):
        found[top] = os.lstat(top).st_ino
        for directory, names, files in os.walk(top):
            for name in names + files:
                path = os.path.join(directory, name)
                found[path] = os.lstat(path).st_ino
    return found


@pytest.fixture(name="group")
def group_fixture(stage):
    """A cgroup below the root, and what a test has left in it removed."""
    path = stage.cgroup("regressions")
    yield path
    for child in glob.glob(f"{glob.escape(path)}/*/"):
        os.rmdir(child)


# --- ids and counters --------------------------------------------------------


def test_id_rests_while_connections_carry_it(stage):
    """An agent hands a removed backend's id out again only when the last
    connection to it is closed."""
    one, two, three = stage.backends
    stage.configure(backends=[one.endpoint, two.endpoint])
    agent = stage.agent()
    wait_states(stage, "ready", [one, two])
    with Held(stage, 20):
        old = backend_ids(stage)
        wait_carried(stage, 20)
        for backends in ([two], [two, three]):
            stage.configure(backends=[b.endpoint for b in backends])
            agent.hup()
            wait_until(lambda b=backends: set(backend_ids(stage)) == {x.name for x in b},
                       "the new backends")
        ids = backend_ids(stage)
        assert ids["cp2"] == old["cp2"]
        assert ids["cp3"] != old["cp1"]
        assert carried(stage)[old["cp1"]] > 0
    wait_carried(stage, 0)
    counts = Accepts(stage)
    assert nbconnect(stage, "-n", 100, V4)["ok"] == 100
    # The agent's own connections count at the servers as well: at least.
    wait_until(lambda: sum(counts.now().values()) >= 100, "all of them to be accepted")
    assert counts.now()["cp1"] == 0
    assert counts.now()["cp3"] > 25, counts.now()
    wait_carried(stage, 0)


@pytest.mark.parametrize("host", [V4, V6])
def test_mptcp(attached, host):
    """The kernel connects a socket of its own on the client's behalf, the subflow, which
    sock_ops sees from its SYN to its end: balanced, counted while it is there, and then not."""
    context = ssl.create_default_context(cafile=attached.ca)
    family = socket.AF_INET6 if host == V6 else socket.AF_INET
    counts = Accepts(attached)
    for _ in range(12):
        try:
            with inside(attached.node):
                raw = socket.socket(family, socket.SOCK_STREAM, IPPROTO_MPTCP)
        except OSError as e:
            pytest.skip(f"no MPTCP: {e}")
        with raw:
            raw.settimeout(5)
            raw.connect((host, PORT))
            with context.wrap_socket(raw, server_hostname=host) as tls:
                tls.sendall(b"GET /version HTTP/1.0\r\n\r\n")
                assert tls.recv(4096).startswith(b"HTTP/1.1 200")
                wait_carried(attached, 1)
    counts.settled(12)
    assert sum(stats(attached, "opened").values()) == 12
    wait_carried(attached, 0)


# --- a socket's second life --------------------------------------------------


def retry(stage, family, host, tries):
    """connect(2) on one blocking socket until it succeeds; how often it was
    refused. One that hangs ends as BlockingIOError."""
    with make_socket(stage, family) as sock:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 3, 0))
        for refused in range(tries):
            with contextlib.suppress(ConnectionRefusedError):
                sock.connect((host, PORT))
                assert sock.getpeername()[:2] == (host, PORT)
                return refused
        return tries


@pytest.mark.parametrize("policy", ["least-conn", "random"])
def test_retry_of_an_ipv6_socket(stage, policy):
    """A socket that has tried an IPv4 backend cannot go to an IPv6 one any
    more: its SYN would never be answered. It stays with IPv4."""
    dead, ipv6, alive = stage.backends
    stage.configure(policy=policy, backends=[dead.endpoint, ipv6.endpoint6, alive.endpoint])
    ok(stage.load())
    dead.kill()
    refused = [retry(stage, socket.AF_INET6, V6, 6) for _ in range(40)]
    assert 0 in refused
    assert set(refused) != {0}, "not a retry among them"
    wait_carried(stage, 0)


def test_retry_draws_anew(stage):
    """A refused socket is not sent to the same backend for ever."""
    stage.configure(policy="random")
    ok(stage.load())
    stage.cp(1).kill()
    refused = [retry(stage, socket.AF_INET, V4, 40) for _ in range(20)]
    assert max(refused) in range(1, 40), refused


@pytest.mark.parametrize("host", [V6, MAPPED])
def test_peer_of_a_socket_turned_into_ipv4(attached, host):
    """IPV6_ADDRFORM: an address that has no IPv4 form is not cut down to one."""
    with dial(attached, host) as connection:
        connection.setsockopt(socket.IPPROTO_IPV6, IPV6_ADDRFORM, socket.AF_INET)
        address, port = connection.getpeername()
        assert port == PORT
        assert address in ({V4} if host == MAPPED else {b.v4 for b in attached.backends})
    wait_carried(attached, 0)


# --- a host's sysctls ----------------------------------------------------------


@pytest.fixture(name="ipv6_only")
def ipv6_only_fixture(stage):
    """A host whose IPv6 sockets are IPv6-only unless they say otherwise."""
    stage.sysctl(stage.node, "net.ipv6.bindv6only", "1")
    yield stage
    stage.sysctl(stage.node, "net.ipv6.bindv6only", "0")


def test_host_whose_ipv6_sockets_are_ipv6_only(ipv6_only):
    """Its default is not for the test connect: that dials an IPv4 address."""
    ok(ipv6_only.load())
    for args in ([V4], ["-6", MAPPED], [V6]):
        result = nbconnect(ipv6_only, "-n", 9, "--peer", *args)
        assert result["ok"] == 9 and len(set(result["lines"])) == 1, result
    assert sum(stats(ipv6_only, "opened").values()) == 27
    # Who has not said otherwise reaches no IPv4 backend: left alone, and said so.
    assert dial_error(ipv6_only, V6) == "ECONNREFUSED"
    assert counters(ipv6_only)["skipped_no_backend"] == 1


# --- kubelb-load, killed -----------------------------------------------------


def next_load(stage, variant):
    path = os.path.join(stage.build, variant, "kubelb-load")
    if not os.access(path, os.X_OK):
        pytest.skip(f"{path} is not built (make abi-next)")
    return path


@pytest.fixture(name="loads")
def loads_fixture(stage):
    """kubelb-load of this version, and of the next one."""
    return [stage.program("kubelb-load"), next_load(stage, "abi-next")]


@pytest.fixture(name="lookup_load")
def lookup_load_fixture(stage):
    """kubelb-load of a next version in which `lookup` has grown, and `backends` has not."""
    return next_load(stage, "abi-lookup")


def load_argv(stage, program, group):
    return [program, "-c", stage.config, "--pin", stage.pin, "--cgroup", group]


def load_killed(stage, program, group, moment):
    """Starts it and ends it with SIGKILL that many seconds later."""
    with subprocess.Popen(stage.argv(load_argv(stage, program, group)), start_new_session=True,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        time.sleep(moment)  # the moment is what is being tested
        process.kill()
        process.wait()
        # The child of a test connect ends by itself.
        wait_until(lambda: not group_members(process.pid), "the end of its child")


@pytest.fixture(name="killat")
def killat_fixture(stage, library):
    """Runs a kubelb-load that is killed at a moment that no clock hits."""

    def killat(moment, program, group, may_end=False):
        """Whether it was; may_end: it may be done before that moment comes."""
        done = stage.exec(load_argv(stage, program, group), env={**library, "KILLAT": moment})
        killed = done.returncode == -signal.SIGKILL
        assert killed or may_end and done.returncode == 0, (moment, done.returncode, done.stderr)
        return killed

    return killat


def load_whole(stage, program, group):
    """A kubelb-load after a killed one: done, and nothing of that one is left.
    Returns how long it took."""
    start = time.monotonic()
    ok(stage.exec(load_argv(stage, program, group)))
    took = time.monotonic() - start
    assert nbconnect(stage, "-n", 9, V4, cgroup=group)["ok"] == 9
    assert [p for p in pins(stage) if p.endswith("_new")] == []
    assert not os.path.exists(stage.pin + "_new")
    assert frontends(stage) == {(V4, PORT), (V6, PORT)}
    assert glob.glob(f"{glob.escape(group)}/kubelb-selftest-*") == []
    return took


def detach_whole(stage, group):
    ok(stage.detach())
    assert places(stage) == {}
    wait_until(lambda: not attached_ids(group), "the programs to go")


def test_first_load_killed_at_any_moment(stage, group, loads):
    moments = random.Random(4)
    took = 0.15
    for i in range(8):
        load_killed(stage, loads[i % 2], group, moments.uniform(0, took))
        if i % 3 == 2:
            detach_whole(stage, group)
        took = load_whole(stage, loads[0], group)
        with Held(stage, 6, cgroup=group):
            wait_carried(stage, 6)
        wait_carried(stage, 0)
        detach_whole(stage, group)


def test_first_load_killed_between_two_steps(stage, group, loads, killat):
    for moment in ("link_create:3", "fork:1", "obj_pin:4", "rename:9"):
        killat(moment, loads[0], group)
        load_whole(stage, loads[0], group)
        wait_carried(stage, 0)
        detach_whole(stage, group)
        killat(moment, loads[0], group)
        detach_whole(stage, group)


def test_first_load_killed_before_it_has_its_name(stage, group, loads, killat):
    """It balances, and whoever comes next takes it over, counts and all."""
    killat(f"rename:{stage.pin}", loads[0], group)
    with Held(stage, 6, cgroup=group):
        load_whole(stage, loads[0], group)
        wait_carried(stage, 6)
    wait_carried(stage, 0)
    detach_whole(stage, group)


def test_upgrade_killed_at_any_moment(stage, group, loads):
    """From this ABI to the next and back, under connections that stay open."""
    moments = random.Random(44)
    took = load_whole(stage, loads[0], group)
    with contextlib.ExitStack() as held:
        for i in range(12):
            held.enter_context(Held(stage, 2, cgroup=group))
            load_killed(stage, loads[(i + 1) % 2], group, moments.uniform(0, took))
            took = load_whole(stage, loads[moments.randrange(2)], group)
        wait_carried(stage, 24)
    wait_carried(stage, 0)
    detach_whole(stage, group)


def test_upgrade_killed_between_two_steps(stage, group, loads, killat):
    """The same, at the moments that count."""
    with contextlib.ExitStack() as held:
        for i, moment in enumerate(("link_update:2", "link_update:5", "fork:1", "obj_pin:4",
                                    "rename:4")):
            load_whole(stage, loads[0], group)
            held.enter_context(Held(stage, 2, cgroup=group))
            killat(moment, loads[1], group)
            load_whole(stage, loads[i % 2], group)
        wait_carried(stage, 10)
    wait_carried(stage, 0)
    load_whole(stage, loads[0], group)
    killat("rename:2", loads[1], group)
    ids = objects(stage)
    detach_whole(stage, group)
    wait_until(lambda: not any(still_there(ids).values()), "the kernel to free them")


def test_upgrade_of_lookup_alone(stage, group, lookup_load, killat):
    """What the new programs read is filled before they run, and not only when all is
    done: killed before the first pin, it balances."""
    load_whole(stage, stage.program("kubelb-load"), group)
    killat("obj_pin:1", lookup_load, group)
    assert nbconnect(stage, "-n", 9, V4, cgroup=group)["ok"] == 9
    load_whole(stage, lookup_load, group)
    load_whole(stage, stage.program("kubelb-load"), group)


def test_load_after_a_killed_upgrade_balances_all_along(stage, group, lookup_load, killat):
    """The frontend lies in another place of the maps that the programs run on than the
    pinned ones say: killed at any of its writes, the next load leaves it balanced."""
    writes = 0
    while True:
        for frontends_then in ([f"{V4}:7443", f"{V4}:{PORT}"], [f"{V4}:{PORT}"]):
            stage.configure(frontends=frontends_then)
            ok(stage.load(cgroup=group))
        killat("rename:1", lookup_load, group)
        if not killat(f"map_update:{writes + 1}", lookup_load, group, may_end=True):
            break
        writes += 1
        assert nbconnect(stage, "-n", 6, V4, cgroup=group)["ok"] == 6, f"write {writes}"
        detach_whole(stage, group)
    assert writes > 5


# --- kubelb-load, where it must not leave or touch anything ------------------


@pytest.fixture(name="somebodys")
def somebodys_fixture(stage):
    """Makes something as another user, as bpffs allows by default; removes it."""
    made = []

    def make(*argv):
        subprocess.run(argv, user=NOBODY, group=NOBODY, check=True)
        made.append(argv[-1])
        return argv[-1]

    yield make
    ours = os.path.isdir(stage.pin) and os.stat(stage.pin).st_uid == 0
    if ours:
        stage.detach()
    for path in made:
        shutil.rmtree(path, ignore_errors=True)
        if os.path.islink(path):
            os.unlink(path)


@pytest.mark.parametrize("suffix, inside_it", [("", ""), ("", "/theirs"), ("_new", "/theirs")],
                         ids=["empty", "full", "full, of the passing name"])
def test_pin_directory_of_somebody_else(stage, somebodys, suffix, inside_it):
    """Who owns the directory owns the pins: refused, and left alone."""
    path = somebodys("mkdir", stage.pin + suffix)
    if inside_it:
        somebodys("mkdir", path + inside_it)
    before = places(stage)
    fails(stage.load(), 1, path, str(NOBODY))
    assert places(stage) == before
    agent = [stage.program("kubelb-agent"), "-c", stage.config, "--pin", stage.pin]
    fails(stage.exec(agent), 1, path)
    assert places(stage) == before
    assert dial_error(stage) == "ECONNREFUSED"


@contextlib.contextmanager
def open_directory(path):
    """A descriptor: the inode, and with it its number, stays the directory's own."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def test_passing_name_taken_by_somebody_else(stage, somebodys):
    """An empty directory there is nobody's loss: replaced, and not filled."""
    path = somebodys("mkdir", stage.pin + "_new")
    with open_directory(path) as theirs:
        ok(stage.load())
        assert os.listdir(theirs) == []
        assert not os.path.lexists(path)
        assert not os.path.samestat(os.stat(stage.pin), os.fstat(theirs))
    assert os.stat(stage.pin).st_uid == 0
    assert os.stat(stage.pin).st_mode & 0o777 == 0o700
    assert served_set(stage) == ALL


@pytest.mark.parametrize("kind", ["directory", "full directory", "symbolic link"])
def test_passing_name_of_what_is_attached(attached, somebodys, kind):
    """What others have under it is nothing to an attachment that has its name:
    that works, is brought up to date, and goes."""
    path = attached.pin + "_new"
    if kind == "symbolic link":
        somebodys("ln", "-s", attached.pin, path)
    else:
        somebodys("mkdir", path)
    if kind == "full directory":
        somebodys("mkdir", path + "/theirs")
    done = attached.load()
    assert nbconnect(attached, "-n", 9, V4)["ok"] == 9
    ok(done)
    ok(attached.detach())
    assert not os.path.exists(attached.pin)
    assert kind == "directory" or os.path.lexists(path)


def test_dry_run_leaves_no_trace_of_a_killed_load(stage, group, killat):
    """What lies around stays as it is; it is for the next real run to clear."""
    killat("rename:3", stage.program("kubelb-load"), group)
    before = places(stage)
    assert len(before) > 2, "the killed run has left nothing behind"
    done = ok(stage.load("--dry-run"))
    assert "would attach" in done.stdout
    assert places(stage) == before
    ok(stage.detach())
    assert places(stage) == {}


def test_dry_run_leaves_no_trace(stage):
    """Neither directory nor pin, nor a bpffs where none is mounted."""
    assert "would attach" in ok(stage.load("--dry-run")).stdout
    assert places(stage) == {}
    script = ('while umount -l "$0" 2>/dev/null; do :; done; ! mountpoint -q "$0" || exit 3; '
              '"$@" || exit; ! mountpoint -q "$0" || exit 4; [ -z "$(ls -A "$0")" ] || exit 5')
    done = ok(stage.exec(["unshare", "--mount", "sh", "-c", script, BPFFS,
                          stage.program("kubelb-load"), "-c", stage.config, "--pin",
                          stage.pin, "--dry-run"]))
    assert "would attach" in done.stdout
    assert places(stage) == {}


# --- cgroups -----------------------------------------------------------------


def test_from_one_cgroup_to_another_and_back(stage, group):
    child = os.path.join(group, "child")
    os.mkdir(child)
    for where in (group, child, group):
        ok(stage.load(cgroup=where))
        ids = attached_programs(stage)
        wait_until(lambda i=ids: attached_ids(group) == i,
                   lambda i=ids: f"{attached_ids(group)} to be {i}")
        assert attached_ids(child) == (ids if where == child else set())
        counts = Accepts(stage)
        result = nbconnect(stage, "-n", 40, "--peer", V4, cgroup=child)
        assert result["lines"] == ["peer: 127.0.0.1:6443"] * 40
        assert all(counts.settled(40).values()), "spread over all of them"
        outside = nbconnect(stage, "-n", 5, V4, cgroup=group)
        assert outside["ok"] == (0 if where == child else 5)
        wait_carried(stage, 0)
    ok(stage.detach())


def status_effective(stage):
    status = ok(stage.ctl("status")).stdout
    assert ("all effective" in status) != ("NOT ALL EFFECTIVE" in status)
    return "NOT ALL EFFECTIVE" not in status


def test_removed_cgroup(stage, group):
    """A socket keeps a removed cgroup, and with it the links, half alive."""
    lost = os.path.join(group, "lost")
    os.mkdir(lost)
    ok(stage.load(cgroup=lost))
    assert status_effective(stage)
    with Held(stage, 3, cgroup=lost) as held:
        with open(f"{cgroup2_root()}/cgroup.procs", "w", encoding="ascii") as f:
            f.write(str(held.process.pid))
        os.rmdir(lost)
        assert not status_effective(stage)
        assert dial_error(stage) == "ECONNREFUSED"
        ok(stage.load())
        assert status_effective(stage)
        assert served_set(stage, 60) == ALL
        assert held.close()["closed"] == 0
    wait_carried(stage, 0)


# --- kubelbctl and the agent -------------------------------------------------


def test_two_wishes_at_once(attached):
    """Each is read, changed and written under a lock: neither is lost."""
    program, cp = attached.program("kubelbctl"), attached.cp(1)
    number = backend_ids(attached)["cp1"]
    for i in range(1, 61):
        commands = [["drain" if i % 2 else "undrain", cp.endpoint],
                    ["weight", cp.endpoint, i]]
        running = [subprocess.Popen(attached.argv([program, "--pin", attached.pin, *command]),
                                    stdout=subprocess.DEVNULL) for command in commands]
        assert [process.wait(timeout=20) for process in running] == [0, 0]
        wish = dict(dump(attached, "admin"))[number]
        assert (wish["drained"], wish["weight"]) == (i % 2, i), f"round {i}"


@pytest.mark.parametrize("kind", ["missing", "empty", "no certificate", "directory"])
def test_agent_without_a_usable_ca(stage, tmp_path, kind):
    """An error of the configuration: said before anything is attached."""
    ca = tmp_path / "ca.crt"
    if kind == "directory":
        ca.mkdir()
    elif kind != "missing":
        ca.write_text("" if kind == "empty" else "not a certificate\n")
    path = stage.configure(probe={"ca": str(ca)})
    done = stage.exec([stage.program("kubelb-agent"), "-c", path, "--pin", stage.pin])
    line = fails(done, 2, path)
    assert str(ca) in line
    assert places(stage) == {}
    assert dial_error(stage) == "ECONNREFUSED"


def ready(stage):
    return http_call(stage, "GET", "/readyz")[0] == 200


def beats(stage):
    """Does the agent's heart beat where the programs look?"""
    def last():
        return dump(stage, "control")[0][1]["heartbeat_ns"]

    before = last()
    with contextlib.suppress(WorldError):
        return wait_until(lambda: last() > before, "", 2)
    return False


def test_agent_after_an_upgrade_of_the_maps(balanced, loads):
    """It works on the new ones, or says that it cannot: in its log, and to
    whoever asks. It finds back by itself."""
    def in_order(mark):
        if ready(balanced):
            return beats(balanced)
        return any("level=warn" in line and balanced.pin in line
                   for line in balanced.running.log()[mark:].splitlines())

    for program in (loads[1], loads[0]):
        mark = len(balanced.running.log())
        ok(balanced.exec(load_argv(balanced, program, cgroup2_root())))
        wait_until(lambda m=mark: len(balanced.running.log()) > m, "a word from the agent", 5)
        wait_until(lambda m=mark: in_order(m), "the agent to work, or to say that it cannot", 5)
        assert served_set(balanced, 60) == ALL
    wait_until(lambda: ready(balanced) and beats(balanced), "the agent to find back", 5)
    assert balanced.running.alive()


def test_changes_in_quick_succession(balanced):
    """Three at a time, none waiting for a connect that is under way."""
    one, two, three = (b.endpoint for b in balanced.backends)
    changes = [{"backends": [three]}, {"backends": [two, {"address": one, "weight": 7}]},
               {"backends": [one, two, three], "policy": "random"}]
    with contextlib.ExitStack() as clients:
        for host in (V4, V4, V6):
            clients.enter_context(Traffic(balanced, host=host))
        for _ in range(10):
            for change in changes:
                mark = len(balanced.running.log())
                balanced.configure(**change)
                balanced.running.hup()
                balanced.running.wait_log(r"configuration reloaded", start=mark)
    assert served_set(balanced, 60) == ALL
    wait_carried(balanced, 0)


# --- a list that takes several reads -----------------------------------------------


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


@pytest.fixture(name="single")
def single_fixture(stage):
    """One backend, which gets all there is."""
    stage.configure(backends=[stage.cp(1).endpoint])
    ok(stage.load())
    return stage


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


# --- upgrades and wishes ---------------------------------------------------------


def events_of(stage, program=None):
    """What `kubelbctl events` prints, of this version or another."""
    done = ok(stage.exec([program or stage.program("kubelbctl"), "--pin", stage.pin, "events",
                          "-o", "json"]))
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_events_after_an_upgrade(stage, loads):
    """What went before can still be read, and what happens next is not lost behind it."""
    following = os.path.join(os.path.dirname(loads[1]), "kubelbctl")
    stage.configure(backends=[stage.cp(1).endpoint])
    ok(stage.load())
    stage.cp(1).kill()
    assert dial_error(stage) == "ECONNREFUSED"
    before = events_of(stage)
    ok(stage.exec([loads[1], "-c", stage.config, "--pin", stage.pin]))
    stage.cp(1).start()
    assert dial_error(stage) is None
    after = events_of(stage, following)
    assert [e["event"] for e in after[:-1]] == [e["event"] for e in before] and len(after) == 3


def test_an_event_that_was_never_finished(attached):
    """Nobody waits for it once there are others."""
    for b in attached.backends:
        b.kill()
        wait_until(lambda b=b: dial_error(attached) == "ECONNREFUSED", "a connect to fail")
    before = [line["monotonicNs"] for line in events_of(attached)]
    assert len(before) >= 6
    size = bpftool("map", "show", "pinned", f"{attached.pin}/events")["bytes_value"]
    bpftool("map", "update", "pinned", f"{attached.pin}/events", "key", 1, 0, 0, 0,
            "value", *([0] * size))
    assert [line["monotonicNs"] for line in events_of(attached)] == before[:1] + before[2:]


def drained(stage):
    return lambda: ok(stage.ctl("drain", stage.cp(1).endpoint))


def of_little_weight(stage):
    return lambda: ok(stage.ctl("weight", stage.cp(1).endpoint, 10))


def beside_a_local_one(stage):
    stage.configure(rebalance=True, backends=[f"{stage.node_v4}:{PORT}",
                                              *(b.endpoint for b in stage.backends)])
    stage.local_apiserver()
    return lambda: None


def by_rendezvous(stage):
    stage.configure(rebalance=True, policy="rendezvous")
    return lambda: None


@pytest.mark.parametrize("kind", [drained, of_little_weight, beside_a_local_one, by_rendezvous],
                         ids=lambda f: f.__name__)
def test_rebalancing_ends_no_connection_in_vain(stage, kind):
    """What is wanted is no imbalance; a client that is ended for it comes back to where it
    was, and is ended again."""
    stage.configure(rebalance=True)
    wish = kind(stage)
    agent = stage.agent()
    wait_states(stage, "ready", stage.backends)
    wish()
    with Held(stage, 42):
        assert max(stats(stage, "active").values()) != 14
        # The longest time between two looks (REBALANCE_MS and a half), and one more second.
        with contextlib.suppress(WorldError):
            wait_until(lambda: "reason=rebalance" in agent.log(), "an end", timeout=16)
        assert "reason=rebalance" not in agent.log()


# --- between a killed upgrade and the next kubelb-load -------------------------


def test_closes_between_two_links_of_a_killed_upgrade(stage, group, loads, killat):
    """Some programs are the new ones and some still the old, until somebody runs
    kubelb-load again."""
    ok(stage.load(cgroup=group))
    killat("link_update:2", loads[1], group)
    assert nbconnect(stage, "-n", 12, V4, cgroup=group)["ok"] == 12
    load_whole(stage, loads[1], group)
    wait_carried(stage, 0, timeout=1)


def test_wish_after_a_killed_upgrade(stage, group, loads, killat):
    """The pinned maps are not those that the programs read: refused, not taken and lost; and
    a wish from before goes on to be obeyed."""
    ok(stage.load(cgroup=group))
    ok(stage.ctl("drain", stage.cp(2).endpoint))
    killat("rename:1", loads[1], group)
    fails(stage.ctl("drain", stage.cp(1).endpoint), 1, stage.pin, "killed half-way",
          "run kubelb-load")
    counts = Accepts(stage)
    assert nbconnect(stage, "-n", 60, V4, cgroup=group)["ok"] == 60
    seen = counts.settled(60)
    assert seen["cp2"] == 0 and seen["cp1"] > 0, seen
    load_whole(stage, loads[0], group)
    ok(stage.ctl("drain", stage.cp(1).endpoint))
    counts = Accepts(stage)
    assert nbconnect(stage, "-n", 60, V4, cgroup=group)["ok"] == 60
    assert counts.settled(60) == {"cp1": 0, "cp2": 0, "cp3": 60}


def test_agent_after_a_killed_upgrade(balanced, loads, killat):
    """Its verdicts do not count, and it says so, in its log and on /readyz, until somebody
    runs kubelb-load: then the programs know what it has found meanwhile."""
    agent = balanced.running
    killat("rename:1", loads[1], cgroup2_root())
    line = agent.wait_log("no data path to work on, waiting for kubelb-load")
    assert "level=warn" in line and balanced.pin in line and "killed half-way" in line
    assert not ready(balanced)
    balanced.cp(1).kill()
    agent.wait_log(rf"{balanced.cp(1).v4}.*state=dead")
    assert not ready(balanced)
    ok(balanced.exec(load_argv(balanced, loads[0], cgroup2_root())))
    wait_until(lambda: ready(balanced), "the agent to go on")
    wait_states(balanced, "dead", [balanced.cp(1)])
    assert nbconnect(balanced, "-n", 60, V4)["failed"] == 0


@pytest.mark.parametrize("moment", [f"link_update:{n}" for n in range(1, 6)] + ["obj_pin:1"])
def test_agent_after_a_killed_load_of_its_own_version(balanced, killat, moment):
    """The maps are the same ones as before: it goes on, whatever it is allowed to ask,
    and one that is started now does too."""
    killat(moment, balanced.program("kubelb-load"), cgroup2_root())
    assert ready(balanced) and beats(balanced)
    assert balanced.running.stop() == 0
    balanced.running = balanced.agent()
    wait_until(lambda: agent_serves(balanced) and ready(balanced) and beats(balanced),
               "the next agent")
    assert "attached" not in balanced.running.log()


def test_connections_that_are_left_outside(stage, group):
    """Counted below the parent, closed while only the child is attached to: no
    program sees them end. The agent finds out from the sockets."""
    child = os.path.join(group, "child")
    os.mkdir(child)
    ok(stage.load(cgroup=group))
    with Held(stage, 6, cgroup=group):
        ok(stage.load(cgroup=child))
    ok(stage.load(cgroup=group))
    assert sum(carried(stage).values()) == 6
    with Held(stage, 4, cgroup=group):
        agent = stage.agent()
        wait_carried(stage, 4, timeout=10)
        assert counters(stage)["repaired"] == 6
        agent.wait_log("count corrected")
    wait_carried(stage, 0)
