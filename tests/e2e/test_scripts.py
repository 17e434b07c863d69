# SPDX-License-Identifier: BSD-2-Clause
"""What a person types in a checkout: its scripts, make help."""

import glob
import os
import re
import signal
import subprocess
import tempfile
import time
import types

import pytest

from helpers import objects, still_there
from system import BPFFS, NETNS_DIR, WorldError, cgroup2_root, end_group, group_members, wait_until
from world import ROOT


def script(name, *args, **kwargs):
    return subprocess.run([os.path.join(ROOT, "scripts", name), *args], capture_output=True,
                          text=True, timeout=60, check=False, **kwargs)


# --- the demonstration ---------------------------------------------------------


class Demo:
    """scripts/demo.sh without a terminal, and everything that it has made, as it was seen from
    outside."""

    def __init__(self, directory):
        self.output = os.path.join(directory, "output")
        with open(self.output, "wb") as f:
            # The script becomes the program that makes the world: one process id for all.
            self.process = subprocess.Popen([os.path.join(ROOT, "scripts", "demo.sh")], stdout=f,
                                            stderr=f, stdin=subprocess.DEVNULL,
                                            start_new_session=True)
        self.prefix = f"klb{self.process.pid}"
        self.pin = f"{BPFFS}/klb-{self.process.pid}"
        self.programs = set()  # (pid, when it was started)
        self.objects = None

    def text(self):
        with open(self.output, encoding="utf-8") as f:
            return f.read()

    def namespaces(self):
        return glob.glob(f"{NETNS_DIR}/{self.prefix}-*")

    def look(self):
        """Takes note of the processes in its namespaces, and of what is attached."""
        inodes = {inode_of(path) for path in self.namespaces()} - {None}
        self.programs |= {(pid, started(pid)) for pid in os.listdir("/proc")
                          if pid.isdigit() and inode_of(f"/proc/{pid}/ns/net") in inodes}
        if self.objects is None and "attach    attached" in self.text():
            self.objects = objects(types.SimpleNamespace(pin=self.pin))

    def wait(self, condition, what, timeout):
        def looked():
            self.look()
            return condition()

        wait_until(looked, lambda: f"{what}; the demo says:\n{self.text()}", timeout, 0.1)

    def wait_end(self, timeout):
        self.wait(lambda: self.process.poll() is not None, "its end", timeout)
        return self.process.returncode

    def assert_nothing_left(self):
        assert self.objects and len(self.programs) > 3, "it was not looked at"
        assert self.namespaces() == []
        assert [p for p in (self.pin, self.pin + "_new") if os.path.lexists(p)] == []
        assert glob.glob(f"{tempfile.gettempdir()}/{self.prefix}-*") == []
        assert glob.glob(f"{glob.escape(cgroup2_root())}/{self.prefix}-*") == []
        assert group_members(self.process.pid) == []
        assert [pid for pid, when in self.programs if started(pid) == when] == []
        none = {kind: [] for kind in self.objects}
        wait_until(lambda: still_there(self.objects) == none, "the programs and maps to go", 5)


def inode_of(path):
    try:
        return os.stat(path).st_ino
    except OSError:
        return None


def started(pid):
    """When a living process was started; None when there is none (a zombie has ended)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
            fields = f.read().rpartition(") ")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


@pytest.fixture(name="demo")
def demo_fixture(tmp_path):
    demo = Demo(tmp_path)
    yield demo
    if demo.process.poll() is None:
        demo.process.terminate()  # it cleans up
        try:
            demo.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            end_group(demo.process.pid)
            raise WorldError("the demo did not end on SIGTERM") from None


def test_demo(demo):
    """Three apiservers under a hundred connects a second; one is killed and comes back, and
    the agent is killed. What it shows is what KubeLB is for, so it has to be true."""
    assert demo.wait_end(45) == 0, demo.text()
    text = demo.text()
    served = re.search(r"^curl .*, six times: (.*)$", text, re.MULTILINE).group(1).split()
    assert len(served) == 6 and set(served) <= {"cp1", "cp2", "cp3"}
    for n, phase in enumerate(["spread over three", "the second apiserver is killed",
                               "it is back", "the agent is killed with -9"], 1):
        assert re.search(rf"^{n}\. .*{phase}", text, re.MULTILINE), text
    assert "dead" in text and "agent: alive" in text and "agent: gone" in text
    result = re.search(r"^result    (\d+) connects succeeded, (\d+) failed.*; slowest ([\d.]+) ms$",
                       text, re.MULTILINE)
    assert result, text
    succeeded, failed = int(result.group(1)), int(result.group(2))
    # A connect may meet the apiserver in the moment of its death.
    assert succeeded > 1500 and failed <= 3, result.group(0)
    assert re.search(r"^detach    ", text, re.MULTILINE), text
    assert "Traceback" not in text and "\033" not in text
    demo.assert_nothing_left()


def test_demo_interrupted(demo):
    """^C at a terminal goes to the whole process group."""
    demo.wait(lambda: re.search(r"^1\. ", demo.text(), re.MULTILINE), "traffic", 30)
    os.killpg(demo.process.pid, signal.SIGINT)
    assert demo.wait_end(15) == 130, demo.text()
    assert "demo: interrupted; everything it made is removed" in demo.text()
    assert "Traceback" not in demo.text()
    demo.assert_nothing_left()


# --- what is installed -----------------------------------------------------------


@pytest.fixture(name="no_apt")
def no_apt_fixture(tmp_path):
    """An environment in which installing is noticed, and done by nobody."""
    called = tmp_path / "called"
    for name in ("apt-get", "apt", "dpkg"):
        stub = tmp_path / name
        stub.write_text(f'#!/bin/sh\necho "{name} $*" >>{called}\nexit 1\n')
        stub.chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}, called


@pytest.mark.parametrize("args", [(), ("--build",), ("--package",)], ids=" ".join)
def test_deps_when_all_is_there(no_apt, args):
    """Called by other scripts on every run: no word, no change, no time."""
    env, called = no_apt
    names = script("deps.sh", "--list").stdout.split()
    shown = subprocess.run(["dpkg-query", "-W", "-f", "${db:Status-Status} ${Package}\\n", *names],
                           capture_output=True, text=True, check=False).stdout
    missing = set(names) - {line.split()[1] for line in shown.splitlines()
                            if line.startswith("installed ")}
    if missing:
        pytest.skip(f"not installed: {sorted(missing)}")
    start = time.monotonic()
    done = script("deps.sh", *args, env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.monotonic() - start < 2
    assert not called.exists(), called.read_text()


def test_deps_unknown_argument(no_apt):
    env, called = no_apt
    done = script("deps.sh", "--everything", env=env)
    assert done.returncode == 2 and "--everything" in done.stderr
    assert not called.exists()


# --- other kernels -----------------------------------------------------------------


@pytest.mark.parametrize("args", [("6",), ("newer",), ("6.1-locked",), ("6.1", "newest", "6.1")],
                         ids=" ".join)
def test_vmtest_wrong_kernel(no_apt, args):
    env, called = no_apt
    done = script("vmtest.sh", *args, env=env)
    assert done.returncode == 2 and f"'{args[0]}'" in done.stderr and done.stdout == ""
    assert not called.exists()


@pytest.mark.parametrize("mirrors", [False, True], ids=["no mirror", "not there"])
def test_vmtest_kernel_not_to_be_had(no_apt, tmp_path, mirrors):
    """It is skipped, with why, and none of it is a failure."""
    env, _ = no_apt
    with open("/etc/os-release", encoding="utf-8") as f:
        codename = dict(line.strip().split("=", 1) for line in f if "=" in line)["VERSION_CODENAME"]
    if mirrors:
        (tmp_path / "apt-get").write_text(f"""#!/bin/sh
            [ "$1" = indextargets ] || exit 1
            echo http://mirror.invalid/debian/ {codename} main
            echo http://mirror.invalid/security/ {codename}-security main
            """)
    done = script("vmtest.sh", "99.9", "99.9-lockdown", env=env)
    lines = done.stdout.splitlines()
    assert done.returncode == 77, done.stdout + done.stderr
    assert [line.split(":")[0] for line in lines] == ["SKIPPED vm 99.9", "SKIPPED vm 99.9-lockdown"]
    if "not installed" in lines[0]:
        pytest.skip(lines[0])
    if not mirrors:
        assert "apt has no Debian mirror" in lines[0]
        return
    assert f"no linux-image of 99.9 at {codename} {codename}-updates" in lines[0]
    with open(f"{ROOT}/build/vm/apt/{codename}/sources.list", encoding="utf-8") as f:
        at = dict(reversed(line.split()[-3:-1]) for line in f)
    assert at[f"{codename}-security"] == "http://mirror.invalid/security/"
    assert at[f"{codename}-backports"] == at[codename] == "http://mirror.invalid/debian/"


# --- make ------------------------------------------------------------------------


def test_make_help():
    """Every target that is meant for people, each with what it does."""
    done = subprocess.run(["make", "-s", "-C", ROOT, "help"], capture_output=True, text=True,
                          check=True)
    shown = dict(re.findall(r"^  ([a-z-]+) +(\S.*)$", done.stdout, re.MULTILINE))
    with open(os.path.join(ROOT, "Makefile"), encoding="utf-8") as f:
        phony = set(re.search(r"^\.PHONY: (.*)$", f.read(), re.MULTILINE).group(1).split())
    assert set(shown) == phony - {"abi-next"}  # a part of test-tools
    assert {"all", "check", "units", "lint", "install", "deb", "image", "clean"} <= set(shown)
