# SPDX-License-Identifier: BSD-2-Clause
"""kubelb-load: attach, again, in parallel, beside others, and away again."""

import contextlib
import glob
import os
import random
import subprocess
import time

import pytest

from backend import PORT
from helpers import (V4, V6, Accepts, Held, Listener, Traffic, attached_ids, attached_programs,
                     backend_ids, backend_status, bpftool, bpftool_ok, counters, dial, dial_error,
                     dump, fails, klb_names, link_pins, nbconnect, next_version, objects, ok, pins,
                     places, raw_maps, served_by,
                     served_set, stats, still_there, wait_carried, wait_idle)
from system import BPFFS, cgroup2_root, mountinfo, wait_until

ALL = {"cp1", "cp2", "cp3"}


def assert_gone(world, ids, before):
    """Nothing of ours is left. The kernel frees programs a moment after their
    last reference is gone."""
    assert not os.path.exists(world.pin)
    wait_until(lambda: not any(still_there(ids).values()),
               lambda: f"the kernel to free {still_there(ids)}", 5)
    assert not attached_ids(cgroup2_root()) & ids["prog"]
    assert_no_new_names(before)


def assert_no_new_names(before):
    """No program or map of our name that was not there before; unless somebody
    else is at work with KubeLB, whose names are the same."""
    wait_until(lambda: klb_names() <= before or others_hold_bpf(),
               lambda: f"{klb_names() - before} to go", 5)


def others_hold_bpf():
    """Is anything pinned, or held by a process? With nothing attached and no
    agent running, that is not this world's."""
    if any(set(os.listdir(path)) - {"maps.debug", "progs.debug"}
           for path, _root, kind in mountinfo() if kind == "bpf"):
        return True
    for fd in glob.iglob("/proc/[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.readlink(fd).startswith("anon_inode:bpf-"):
                return True
    return False


def test_attach_and_detach(stage):
    before = klb_names()
    ok(stage.load())
    assert served_set(stage) <= {"cp1", "cp2", "cp3"}
    assert {"frontends", "backends", "stats", "admin", "control"} <= set(pins(stage))
    assert link_pins(stage)
    assert os.stat(stage.pin).st_mode & 0o777 == 0o700
    ids = objects(stage)
    assert attached_ids(cgroup2_root()) & ids["prog"]
    with Listener(stage, V4, PORT), Listener(stage, V6, PORT):
        done = ok(stage.detach())
    assert done.stderr == ""
    assert_gone(stage, ids, before)
    assert dial_error(stage) == "ECONNREFUSED"


def test_detach_with_nothing_there(stage):
    assert not os.path.exists(stage.pin)
    assert ok(stage.detach()).stderr == ""
    assert ok(stage.detach()).stderr == ""


def warning(done):
    """The one line about addresses that fail from now on: with what to do."""
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("kubelb-load: warning: ")
    assert "from now on" in done.stderr and "kubelb-load again" in done.stderr
    return done.stderr


def test_detach_says_who_is_refused(attached):
    """Nobody needs to listen while KubeLB is attached; afterwards somebody does."""
    assert dial_error(attached) is None
    line = warning(ok(attached.detach()))
    assert f"{V4}:{PORT}" in line and f"[{V6}]:{PORT}" in line
    assert dial_error(attached) == "ECONNREFUSED"


def test_detach_asks_each_frontend(stage):
    """By its address: a listener on one says nothing about another."""
    stage.configure(frontends=[f"{V4}:{PORT}", f"[{V6}]:{PORT}", "127.0.0.1:7443",
                               {"address": f"{stage.node_v4}:7444", "scope": "all"}])
    ok(stage.load())
    with Listener(stage, V4, PORT), Listener(stage, "0.0.0.0", 7444):
        line = warning(ok(stage.detach()))
    assert f"[{V6}]:{PORT}" in line and "127.0.0.1:7443" in line
    assert f"{V4}:{PORT}" not in line and "7444" not in line


def test_detach_from_another_network_namespace(attached):
    """What listens there says nothing about the host."""
    pod = attached.pod()
    with Listener(attached, V4, PORT, ns=pod), Listener(attached, V6, PORT, ns=pod):
        line = warning(ok(attached.detach(ns=pod)))
    assert "which is not this one" in line and f"{V4}:{PORT}" in line


def test_detach_of_another_version_warns_too(attached):
    done = ok(attached.exec([next_version(attached), "--pin", attached.pin, "--detach"]))
    assert f"{V4}:{PORT}" in warning(done)


def test_detach_leaves_connections_alone(attached):
    with dial(attached) as connection:
        wait_until(lambda: sum(stats(attached, "active").values()) == 1, "the connection")
        ok(attached.detach())
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)  # still open: neither data nor an end


def test_load_twice_changes_nothing(attached):
    """Idempotent: same objects attached, counters kept."""
    assert nbconnect(attached, "-n", 30, V4)["ok"] == 30
    wait_idle(attached)
    opened, links, ids = stats(attached, "opened"), link_pins(attached), backend_ids(attached)
    assert sum(opened.values()) == 30
    ok(attached.load())
    assert stats(attached, "opened") == opened
    assert link_pins(attached) == links
    assert backend_ids(attached) == ids
    served_by(attached)
    assert sum(stats(attached, "opened").values()) == 31


def test_counters_survive_a_change(attached):
    """Backends keep their counters and ids, also one that leaves the list."""
    nbconnect(attached, "-n", 60, V4)
    opened, ids = stats(attached, "opened"), backend_ids(attached)
    attached.configure(backends=[attached.cp(3).endpoint, attached.cp(1).endpoint])
    ok(attached.load())
    assert set(backend_status(attached)) == {attached.cp(1).endpoint, attached.cp(3).endpoint}
    assert stats(attached, "opened") == opened
    assert backend_ids(attached) == ids
    assert served_set(attached) == {"cp1", "cp3"}


def test_removed_backend_keeps_its_connections(attached):
    with dial(attached) as connection:
        attached.configure(backends=[b.endpoint for b in attached.backends][:1])
        ok(attached.load())
        attached.configure(backends=[b.endpoint for b in attached.backends][1:])
        ok(attached.load())
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)
    assert served_set(attached) == {"cp2", "cp3"}


def test_flags_instead_of_a_file(stage):
    ok(stage.load("-f", "127.0.0.1:7443", "-b", stage.cp(1).v4, "-b",
                  stage.cp(2).endpoint + ",weight=0", config=None))
    assert served_set(stage, port=7443) == {"cp1"}
    assert dial_error(stage) == "ECONNREFUSED"
    ok(stage.load("-b", stage.cp(3).v4, config=None))
    assert served_set(stage) == {"cp3"}
    assert served_set(stage, host="::1") == {"cp3"}
    assert dial_error(stage, port=7443) == "ECONNREFUSED"


def test_dry_run_before_attaching(stage):
    before = klb_names()
    done = ok(stage.load("--dry-run"))
    for b in stage.backends:
        assert b.v4 in done.stdout, done.stdout
    assert not os.path.exists(stage.pin)
    assert_no_new_names(before)
    assert dial_error(stage) == "ECONNREFUSED"


def test_dry_run_tells_the_change(attached):
    maps, ids = raw_maps(attached), objects(attached)
    unchanged = ok(attached.load("-n")).stdout
    attached.configure(backends=[attached.cp(1).endpoint,
                                 {"address": attached.cp(2).endpoint, "weight": 55}])
    done = ok(attached.load("-n"))
    assert done.stdout != unchanged
    assert attached.cp(3).v4 in done.stdout, "removed"
    assert attached.cp(2).v4 in done.stdout and "55" in done.stdout, "changed"
    assert raw_maps(attached) == maps
    assert objects(attached) == ids


def test_dry_run_of_a_bad_configuration(stage):
    path = stage.configure(policy="roulette")
    fails(stage.load("--dry-run"), 2, path, "policy")


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


def test_two_at_once(attached):
    """They wait for each other, or one says who is in the way."""
    links = link_pins(attached)
    paths = [attached.configure(os.path.join(attached.dir, f"w{w}.yaml"), backends=[
        {"address": b.endpoint, "weight": w} for b in attached.backends]) for w in range(1, 9)]
    running = [attached.spawn([attached.program("kubelb-load"), "-c", p, "--pin", attached.pin],
                              stderr=subprocess.PIPE) for p in paths]
    statuses = []
    for process in running:
        _, err = process.communicate(timeout=30)
        statuses.append(process.returncode)
        assert process.returncode in (0, 1), err
        if process.returncode:
            assert len(err.splitlines()) == 1 and "lock" in err, err
    assert 0 in statuses
    assert link_pins(attached) == links
    weights = {value["weight"] for _key, value in dump(attached, "backends")
               if value["endpoint"]["port"]}
    assert len(weights) == 1, "one configuration, not a mixture"
    assert served_set(attached) <= {"cp1", "cp2", "cp3"}


def test_two_first_loads_at_once(stage):
    """The same with nothing attached yet."""
    before = klb_names()
    running = [stage.spawn([stage.program("kubelb-load"), "-c", stage.config, "--pin",
                            stage.pin], stderr=subprocess.PIPE) for _ in range(4)]
    statuses = []
    for process in running:
        _, err = process.communicate(timeout=30)
        statuses.append(process.returncode)
        assert process.returncode == 0 or (process.returncode == 1 and "lock" in err), err
    assert 0 in statuses
    served_by(stage)
    opened = sum(stats(stage, "opened").values())
    assert opened == 1, "every connect passes through one set of programs"
    ids = objects(stage)
    ok(stage.detach())
    assert_gone(stage, ids, before)


def test_killed_load_leaves_a_working_data_path(attached):
    """SIGKILL at whatever moment: connects go on, the next run mends."""
    moments = random.Random(6443)
    before = klb_names()
    with Traffic(attached):
        for i in range(20):
            attached.configure(backends=[
                {"address": b.endpoint, "weight": 1 + (i * 7 + b.index) % 50}
                for b in attached.backends[i % 2:]], policy=("random", "least-conn")[i % 2])
            process = attached.spawn([attached.program("kubelb-load"), "-c", attached.config,
                                      "--pin", attached.pin], stderr=subprocess.DEVNULL)
            time.sleep(moments.uniform(0, 0.06))  # the moment is what is being tested
            process.kill()
            process.wait()
    attached.configure()
    ok(attached.load())
    assert served_set(attached, 60) == {"cp1", "cp2", "cp3"}
    ids = objects(attached)
    ok(attached.detach())
    assert_gone(attached, ids, before - {("prog", i) for i in ids["prog"]}
                - {("map", i) for i in ids["map"]})


def test_killed_first_load_leaves_nothing_in_the_way(stage):
    """The same before anything is attached: afterwards it attaches, or
    detaches, as if nothing had happened."""
    moments = random.Random(77)
    for _ in range(12):
        process = stage.spawn([stage.program("kubelb-load"), "-c", stage.config, "--pin",
                               stage.pin], stderr=subprocess.DEVNULL)
        time.sleep(moments.uniform(0, 0.12))  # the moment is what is being tested
        process.kill()
        process.wait()
        if moments.random() < 0.5:
            ok(stage.detach())
            assert not os.path.exists(stage.pin)
    ok(stage.load())
    assert served_set(stage) <= {"cp1", "cp2", "cp3"}


# --- beside others -----------------------------------------------------------


@pytest.fixture(name="foreign_map")
def foreign_map_fixture(stage):
    """Pins a map of somebody else's at a path; removes it afterwards."""
    made = []

    def make(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        subprocess.run(["bpftool", "map", "create", path, "type", "hash", "key", "4", "value",
                        "4", "entries", "1", "name", "someone_else"], check=True)
        made.append(path)
        return bpftool("map", "show", "pinned", path)["id"]

    yield make
    for path in made:
        if os.path.exists(path):
            os.unlink(path)
    if os.path.isdir(stage.pin) and not os.listdir(stage.pin):
        os.rmdir(stage.pin)


def test_foreign_map_in_the_way(stage, foreign_map):
    path = f"{stage.pin}/frontends"
    number = foreign_map(path)
    fails(stage.load(), 1, path)
    assert bpftool("map", "show", "pinned", path)["id"] == number
    assert pins(stage) == ["frontends"]
    assert dial_error(stage) == "ECONNREFUSED"


def test_foreign_map_survives_detach(attached, foreign_map):
    path = f"{attached.pin}/somebodys"
    number = foreign_map(path)
    attached.detach()
    assert bpftool("map", "show", "pinned", path)["id"] == number
    assert pins(attached) == ["somebodys"]


def test_directory_in_the_way(stage):
    path = f"{stage.pin}/frontends"
    os.makedirs(path)
    try:
        fails(stage.load(), 1, path)
        assert os.path.isdir(path)
        assert pins(stage) == []
    finally:
        os.rmdir(path)
        for directory in (f"{stage.pin}/links", stage.pin):
            if os.path.isdir(directory):
                os.rmdir(directory)


@pytest.fixture(name="foreign_program")
def foreign_program_fixture(stage, tmp_path):
    """Somebody else's connect4 program, pinned; its path and name."""
    source, binary = tmp_path / "others.c", tmp_path / "others.o"
    source.write_text('__attribute__((section("cgroup/connect4"), used))\n'
                      "int others_conn4(void *ctx) { (void)ctx; return 1; }\n"
                      'char _license[] __attribute__((section("license"), used)) = "GPL";\n')
    subprocess.run(["clang", "-O2", "-g", "-target", "bpf", "-c", source, "-o", binary],
                   check=True)
    pin = f"{BPFFS}/{stage.prefix}-others"
    subprocess.run(["bpftool", "prog", "load", binary, pin], check=True)
    yield pin, "others_conn4"
    os.unlink(pin)


def test_exclusive_program_in_the_way(stage, group, foreign_program):
    pin, name = foreign_program
    attach = ["bpftool", "cgroup", "attach", group, "connect4", "pinned", pin]
    subprocess.run(attach, check=True)
    try:
        line = fails(stage.load(cgroup=group), 1, name)
        assert group in line
        assert not os.path.exists(stage.pin)
        assert attached_ids(group) == {bpftool("prog", "show", "pinned", pin)["id"]}
    finally:
        attach[2] = "detach"
        subprocess.run(attach, check=True)
    ok(stage.load(cgroup=group))


def test_others_stay_attached(stage, group, foreign_program):
    pin, _name = foreign_program
    attach = ["bpftool", "cgroup", "attach", group, "connect4", "pinned", pin]
    subprocess.run(attach + ["multi"], check=True)
    try:
        ok(stage.load(cgroup=group))
        assert nbconnect_in(stage, group)["ok"] == 5
        ok(stage.detach())
        assert attached_ids(group) == {bpftool("prog", "show", "pinned", pin)["id"]}
    finally:
        attach[2] = "detach"
        subprocess.run(attach, check=True)


def nbconnect_in(stage, group):
    return nbconnect(stage, "-n", 5, V4, cgroup=group)


def test_cgroup_option_limits_the_reach(stage, group):
    ok(stage.load(cgroup=group))
    assert nbconnect_in(stage, group)["ok"] == 5
    assert nbconnect(stage, "-n", 5, V4)["errors"] == {"ECONNREFUSED": 5}


def test_cgroup_key_is_the_option(stage, group):
    stage.configure(cgroup=group)
    ok(stage.load())
    assert nbconnect_in(stage, group)["ok"] == 5
    assert nbconnect(stage, "-n", 5, V4)["errors"] == {"ECONNREFUSED": 5}


def test_cgroup_is_not_one(stage, tmp_path):
    fails(stage.load(cgroup=str(tmp_path)), 1, str(tmp_path))
    fails(stage.load(cgroup="/nonexistent"), 1, "/nonexistent")
    assert not os.path.exists(stage.pin)


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


def test_pin_is_not_on_bpffs(stage, tmp_path):
    pin = tmp_path / "pins"
    fails(stage.exec([stage.program("kubelb-load"), "-c", stage.config, "--pin", pin]), 1,
          str(pin))
    assert not pin.exists() or not list(pin.iterdir())


def test_failed_run_changes_nothing(attached, tmp_path):
    maps, ids = raw_maps(attached), objects(attached)
    attached.configure(backends=[attached.cp(1).endpoint])
    fails(attached.load(cgroup=str(tmp_path)), 1)
    assert raw_maps(attached) == maps
    assert objects(attached) == ids
    assert served_set(attached, 60) == {"cp1", "cp2", "cp3"}


def test_other_pin_directories_are_independent(stage):
    """Two installations side by side, a frontend each."""
    other = stage.pin + "-other"
    ok(stage.load())
    try:
        ok(stage.exec([stage.program("kubelb-load"), "--pin", other, "-f", "127.0.0.1:7443",
                       "-b", stage.cp(2).v4]))
        assert served_set(stage, port=7443) == {"cp2"}
        ok(stage.detach())
        assert served_set(stage, port=7443) == {"cp2"}
        assert dial_error(stage) == "ECONNREFUSED"
    finally:
        ok(stage.exec([stage.program("kubelb-load"), "--pin", other, "--detach"]))
    assert not os.path.exists(other)


# --- what a person sees with bpftool -----------------------------------------


def test_maps_are_readable(attached):
    backends = [v for _k, v in dump(attached, "backends") if v["endpoint"]["port"]]
    assert len(backends) == 3
    assert {b["endpoint"]["port"] for b in backends} == {6443}
    assert {b["weight"] for b in backends} == {100}
    assert set(backend_ids(attached)) == {"cp1", "cp2", "cp3"}
    assert 0 not in backend_ids(attached).values()
    frontends = dump(attached, "frontends")
    assert len(frontends) == 2
    assert all(key["port"] == 6443 and value["n_backends"] == 3 for key, value in frontends)
    control = dump(attached, "control")[0][1]
    assert control["abi_version"] >= 1
    assert control["host_netns_cookie"] > 0
    assert counters(attached)["skipped_loopback_source"] == 0


def test_effective_in_the_cgroup(attached):
    """What is pinned is what runs: the programs are effective at the root."""
    shown = subprocess.run(["bpftool", "-j", "cgroup", "show", cgroup2_root(), "effective"],
                           capture_output=True, text=True, check=True).stdout
    for prog in attached_programs(attached):
        assert f'"id":{prog},' in shown.replace(" ", ""), f"program {prog} is not in {shown}"
        assert bpftool_ok("prog", "show", "id", prog)


def test_counts_agree_with_the_servers(attached):
    counts = Accepts(attached)
    assert nbconnect(attached, "-n", 300, V4)["ok"] == 300
    assert stats(attached, "opened") == counts.settled(300)


# --- a configuration that cannot work -------------------------------------------------


@pytest.mark.parametrize("frontends, backends, named", [
    (["127.0.0.1:6443"], ["[fd00::1]:6443"], ["127.0.0.1:6443"]),
    (["127.0.0.1:6443", "[::1]:6443"], ["[fd00::1]:6443"], ["127.0.0.1:6443"]),
    (["127.0.0.1:6443"], ["[fd00::1]:6443", {"address": "10.0.0.1:6443", "weight": 0}],
     ["127.0.0.1:6443"]),
    (["127.0.0.1:6443"], ["[fd00::1]:6443", "10.0.0.1:6443"], []),
    (["[::1]:6443"], ["[fd00::1]:6443"], []),
    (["[::1]:6443"], ["10.0.0.1:6443"], []),  # a socket of IPv6 reaches both
])
def test_frontends_that_reach_no_backend_are_named(stage, frontends, backends, named):
    """KubeLB leaves a connect alone that it cannot send to a backend's family."""
    stage.configure(frontends=frontends, backends=backends)
    for args in (["--dry-run"], []):
        lines = [line for line in ok(stage.load(*args)).stderr.splitlines() if "IPv4" in line]
        assert len(lines) == len(named)
        assert all(f"warning: frontend {f} is IPv4" in line for f, line in zip(named, lines))
