# SPDX-License-Identifier: BSD-2-Clause
"""What KubeLB leaves in the file system and in the kernel is root's alone: another user can
neither read nor change it."""

import contextlib
import os
import re
import shutil
import stat
import subprocess

import pytest

from helpers import (V4, backend_status, bpftool, dial_error, dump, fails, link_pins, nbconnect, ok,
                     pins, places, served_set, wait_states)
from system import wait_until
from test_privileges import AS_NOBODY, NOBODY
from test_secrets import with_ca

ALL = {"cp1", "cp2", "cp3"}
TOKEN = "canary"


def as_nobody(stage, *argv):
    return stage.exec([*AS_NOBODY, *argv])


def mode(path):
    found = os.lstat(path)
    return (found.st_uid, found.st_gid, oct(stat.S_IMODE(found.st_mode)))


def denied(done):
    """The kernel itself has refused."""
    assert done.returncode != 0, done.stdout
    said = (done.stdout + done.stderr).lower()
    assert "permission denied" in said or "not permitted" in said, said


@pytest.fixture(name="discovering")
def discovering_fixture(stage, tmp_path):
    """An agent with everything: discovery with its cache, in a folder that it makes."""
    for i in (1, 2, 3):
        stage.apiserver(i, tokens={TOKEN: "system:node:worker"})
    os.chmod(tmp_path, 0o755)
    config = tmp_path / "kubeconfig"
    config.write_text(with_ca(stage, {"token": TOKEN}))
    stage.cache = str(tmp_path / "state" / "backends.json")
    stage.configure(discovery={"kubeconfig": str(config), "cache": stage.cache})
    stage.running = stage.agent()
    wait_states(stage, "ready", stage.backends)
    wait_until(lambda: os.path.exists(stage.cache), stage.running.log)
    return stage


def test_modes(discovering):
    """Under any umask, so that nobody's shell settings open what is root's."""
    assert mode(discovering.pin) == (0, 0, "0o700")
    for pin in pins(discovering):
        assert mode(os.path.join(discovering.pin, pin)) == (0, 0, "0o600"), pin
    assert mode(discovering.cache) == (0, 0, "0o600")
    assert mode(os.path.dirname(discovering.cache)) == (0, 0, "0o700")
    assert os.listdir(os.path.dirname(discovering.cache)) == ["backends.json"]


def test_modes_under_a_careless_umask(stage):
    ok(stage.exec(["sh", "-c", 'umask 0 && exec "$@"', "-", stage.program("kubelb-load"), "-c",
                   stage.config, "--pin", stage.pin]))
    assert mode(stage.pin) == (0, 0, "0o700")
    assert {mode(os.path.join(stage.pin, p))[:2] for p in pins(stage)} == {(0, 0)}


@pytest.mark.parametrize("args", [
    ["status"], ["status", "-o", "json"], ["events"], ["connections"], ["drain", "B"],
    ["undrain", "B"], ["weight", "B", "0"], ["kill", "B"]], ids=" ".join)
def test_kubelbctl_is_roots(attached, args):
    backend = attached.cp(1).endpoint
    before = backend_status(attached)[backend]["weight"]
    done = as_nobody(attached, "sh", "-c", 'cd / && exec "$@"', "-", own_copy(attached, "kubelbctl"),
                     "--pin", attached.pin, *[backend if a == "B" else a for a in args])
    fails(done, 1, "root")
    entry = backend_status(attached)[backend]
    assert entry["weight"] == before and not entry["drained"]


def own_copy(stage, name):
    """Where nobody may execute it."""
    path = os.path.join(stage.dir, "bin", name)
    if not os.path.exists(path):
        subprocess.run(["install", "-m", "755", stage.program(name), path], check=True)
    return path


@pytest.mark.parametrize("args", [[], ["--detach"], ["--dry-run"]], ids=str)
def test_kubelb_load_is_roots(attached, args):
    os.chmod(attached.config, 0o644)
    done = as_nobody(attached, own_copy(attached, "kubelb-load"), "--pin", attached.pin,
                     *([] if "--detach" in args else ["-c", attached.config]), *args)
    fails(done, 1, "root")
    assert served_set(attached, 12) <= {"cp1", "cp2", "cp3"} and link_pins(attached)


def test_pins_are_roots(attached):
    """By path, by id, and by the directory's own lock."""
    before = dump(attached, "control")
    for pin in pins(attached):
        path = os.path.join(attached.pin, pin)
        # bpftool has words of its own for not getting there.
        assert as_nobody(attached, "bpftool", "map", "dump", "pinned", path).returncode
        denied(as_nobody(attached, "cat", path))
        denied(as_nobody(attached, "rm", path))
    for name in ("control", "backends", "admin"):
        ident = str(bpftool("map", "show", "pinned", f"{attached.pin}/{name}")["id"])
        denied(as_nobody(attached, "bpftool", "map", "dump", "id", ident))
        denied(as_nobody(attached, "bpftool", "map", "update", "id", ident, "key", "0", "0", "0",
                         "0", "value", "0"))
    for pin in link_pins(attached):
        ident = str(bpftool("link", "show", "pinned", f"{attached.pin}/{pin}")["id"])
        denied(as_nobody(attached, "bpftool", "link", "detach", "id", ident))
    denied(as_nobody(attached, "flock", attached.pin, "true"))
    denied(as_nobody(attached, "ls", attached.pin))
    denied(as_nobody(attached, "mv", attached.pin, attached.pin + "_x"))
    assert dump(attached, "control") == before


def test_cache_is_roots(discovering):
    for command in ("cat", "rm"):
        denied(as_nobody(discovering, command, discovering.cache))
    denied(as_nobody(discovering, "touch", discovering.cache + ".tmp"))


def test_agent_is_roots(discovering):
    """Neither its memory nor its descriptors, and no signal."""
    pid = discovering.running.pid
    for name in ("environ", "mem", "maps", "fd", "cwd/"):
        denied(as_nobody(discovering, "ls" if name in ("fd", "cwd/") else "cat",
                         f"/proc/{pid}/{name}"))
    denied(as_nobody(discovering, "kill", "-HUP", str(pid)))


def test_agent_listens_on_nothing_else(discovering):
    """TCP sockets on loopback: its pages', and the relay's two, which take none but whom the kernel
    programs send; no unix socket, no UDP."""
    shown = ok(discovering.exec(["ss", "-Hlnptux"])).stdout
    mine = [line for line in shown.splitlines() if f"pid={discovering.running.pid}," in line]
    assert len(mine) == 3 and sum(f"{V4}:8081 " in line for line in mine) == 1, shown
    assert all(re.search(r"^tcp .* (127\.0\.0\.1|\[::1\]):\d+ ", line) for line in mine), shown


def test_cache_in_a_folder_for_all(stage, tmp_path):
    """A configuration that names such a place: what another user has put there is neither
    believed nor followed."""
    for i in (1, 2, 3):
        stage.apiserver(i, tokens={TOKEN: "system:node:worker"})
    config, victim = tmp_path / "kubeconfig", tmp_path / "victim"
    config.write_text(with_ca(stage, {"token": TOKEN}))
    victim.write_text("precious")
    shared = tmp_path / "shared"
    shared.mkdir()
    os.chmod(shared, 0o1777)
    cache = shared / "backends.json"
    cache.write_text('{"kind": "kubelb-backends", "version": 1, "backends": ["192.0.2.66:6443"]}')
    os.chown(cache, NOBODY, NOBODY)
    os.symlink(victim, f"{cache}.tmp")
    os.chown(f"{cache}.tmp", NOBODY, NOBODY, follow_symlinks=False)
    stage.configure(discovery={"kubeconfig": str(config), "cache": str(cache)})
    agent = stage.agent()
    agent.wait_log("cache of discovery is not used")
    wait_states(stage, "ready", stage.backends)
    wait_until(lambda: mode(cache)[0] == 0, agent.log)
    assert mode(cache) == (0, 0, "0o600") and victim.read_text() == "precious"
    assert "192.0.2.66" not in str(backend_status(stage))


# --- what somebody else has put there ----------------------------------------


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


def test_pin_directory_that_others_can_change(balanced):
    """What is pinned there is not believed, by whoever looks; and what runs goes on."""
    os.chmod(balanced.pin, 0o777)
    try:
        fails(balanced.ctl("status"), 1, balanced.pin, "0777")
        fails(balanced.load("--dry-run"), 1, balanced.pin, "0777")
        line = balanced.running.wait_log("cannot look whether the maps are the current ones")
        assert "others could change what is pinned there" in line
        assert nbconnect(balanced, "-n", 9, V4)["ok"] == 9
    finally:
        os.chmod(balanced.pin, 0o700)
    ok(balanced.ctl("status"))


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
