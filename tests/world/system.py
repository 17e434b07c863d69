# SPDX-License-Identifier: BSD-2-Clause
"""The machine under a world: waiting, processes, namespaces, mounts, files."""

import contextlib
import ctypes
import fcntl
import glob
import os
import shutil
import signal
import socket
import subprocess
import time

BPFFS = "/sys/fs/bpf"
NETNS_DIR = "/run/netns"


class WorldError(Exception):
    """The stage itself failed, as opposed to what is tested on it."""


# --- waiting, processes, namespaces ------------------------------------------


def wait_until(condition, what, timeout=10.0, interval=0.02):
    """Returns the first true value of condition(); WorldError after timeout.

    Every wait of the tests goes through here: it ends as soon as the thing has
    happened and says what it was waiting for when it has not. what: text, or
    a function that makes it in the end, when it knows more.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            what = what() if callable(what) else what
            raise WorldError(f"waited {timeout:g} s in vain for {what}; last seen: {value!r}")
        time.sleep(interval)


def libc():
    """The C library, for the two calls that Python 3.11 has no name for."""
    return ctypes.CDLL(None, use_errno=True)


CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


@contextlib.contextmanager
def inside(ns):
    """Puts the calling thread into a network namespace for the block.

    Sockets keep the namespace that they were made in, so a test makes them in
    here and uses them anywhere. The mount namespace stays, unlike with
    `ip netns exec`, which hides bpffs and cgroups.
    """
    with open("/proc/thread-self/ns/net") as here, open(f"{NETNS_DIR}/{ns}") as there:
        setns(there.fileno())
        try:
            yield
        finally:
            setns(here.fileno())


def setns(fd):
    if libc().setns(fd, CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise WorldError(f"setns: {os.strerror(error)}")


def become_subreaper():
    """Orphans of our children come to us, so that none stays as a zombie."""
    libc().prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_with_parent():
    """For a child, before it executes: SIGTERM should we be killed."""
    libc().prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def group_members(pgid):
    """The living processes of a process group (zombies have ended)."""
    members = []
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path, encoding="utf-8", errors="replace") as f:
                stat = f.read()
        except OSError:
            continue
        state, _ppid, group = stat[stat.rindex(")") + 2 :].split()[:3]
        if int(group) == pgid and state not in "ZX":
            members.append(int(path.split("/")[2]))
    return members


def end_group(pgid):
    """Ends a process group that we made and reaps what is ours of it."""
    def gone():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pgid, signal.SIGKILL)
        reap_group(pgid)
        return not group_members(pgid)

    wait_until(gone, f"the end of process group {pgid}", timeout=10, interval=0.005)
    reap_group(pgid)


def reap_group(pgid):
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-pgid, os.WNOHANG)[0] != 0:
            pass


def in_cgroup(cgroup, argv):
    """argv, to be executed as a member of that cgroup; None: of ours."""
    if not cgroup:
        return argv
    return ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', cgroup, *argv]


def move_to(cgroup):
    """Puts this process there; sockets that it has made stay where they are."""
    with open(os.path.join(cgroup, "cgroup.procs"), "w", encoding="ascii") as f:
        f.write(str(os.getpid()))


def has_mptcp():
    """Whether this kernel speaks it; net.mptcp.enabled says no as well."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_MPTCP).close()
        return True
    except OSError:
        return False


def run_checked(argv, stdin=None):
    """A command of the stage's own; its failure is the stage's failure."""
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise WorldError(f"{' '.join(argv)}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def mountinfo():
    """(mount point, file system type) of everything mounted, root mounts only."""
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        for line in f:
            left, right = line.split(" - ", 1)
            fields = left.split()
            yield fields[4], fields[3], right.split()[0]


def cgroup2_root():
    """The cgroup v2 hierarchy's mount point: unified or hybrid layout alike."""
    for where, root, kind in mountinfo():
        if kind == "cgroup2" and root == "/":
            return where
    raise WorldError("no cgroup2 mount in /proc/self/mountinfo")


def ensure_bpffs():
    """Mounts bpffs where it belongs. It stays: others may be using it by now. Worlds that start at
    once must not mount one over the other: a test that takes the upper one away for itself would
    pin in the lower one, and nothing would end that. kubelb-load takes the same lock."""
    lock = os.open(BPFFS, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not any(where == BPFFS and kind == "bpf" for where, _root, kind in mountinfo()):
            run_checked(["mount", "-t", "bpf", "bpf", BPFFS])
    finally:
        os.close(lock)


# --- files ------------------------------------------------------------------


def replace(path, *sources):
    """A file that is these, one behind the other, at once."""
    with open(path + ".new", "wb") as f:
        for source in sources:
            with open(source, "rb") as part:
                shutil.copyfileobj(part, f)
    os.rename(path + ".new", path)
