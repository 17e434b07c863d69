# SPDX-License-Identifier: BSD-2-Clause
"""A throw-away machine around a world's node: this machine's root file system, or another
one, under an overlay, with a process, a mount and the node's network namespace of its own, and
with a real systemd as its init where one is asked for.

What is installed, enabled or written in there is gone when it is closed. Its bpffs is its
own, too, so the default pin directory is free; its kernel is the real one, cgroups included.
"""

import contextlib
import itertools
import os
import shutil
import subprocess

from kubelb import yaml_text
from system import WorldError, end_group, run_checked, wait_until

# In the new namespaces, as their first process. $1: an empty directory; $2: the init; $3: the
# root file system.
# Nothing that this machine's own installation would start at boot is left in there.
BOOT = r"""
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=$3,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
cd "$1/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t bpf -o mode=0700 bpf sys/fs/bpf
mount -t tmpfs -o mode=755 tmpfs run
mount --bind /tmp tmp
mount -t tmpfs -o mode=755 tmpfs dev
for node in null zero full random urandom tty; do
	: >"dev/$node"
	mount --bind "/dev/$node" "dev/$node"
done
ln -s /proc/self/fd dev/fd
mkdir -p run/put dev/shm dev/pts
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
pivot_root . run/put
umount -l /run/put
rmdir /run/put
rm -f /usr/sbin/policy-rc.d /lib/systemd/system-generators/* /etc/fstab
for unit in /lib/systemd/system /etc/systemd/system; do
	rm -rf "$unit"/*.wants
done
cat >/etc/systemd/system/machine.target <<END
[Unit]
Requires=sysinit.target systemd-journald.service
END
export container=kubelb-test PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec </dev/null $2
"""
SYSTEMD = "/lib/systemd/systemd --system --unit=machine.target --log-target=console " \
    "--show-status=no"
SLEEP = "sleep infinity"
NUMBERS = itertools.count(1)


class Machine:
    """See the top of this file. Use it as a context manager."""

    def __init__(self, world, systemd=True, root="/"):
        self.world = world
        name = f"machine{next(NUMBERS)}"
        self.dir = os.path.join(world.dir, name)
        self.cgroup = world.cgroup(name)
        self.systemd = systemd
        os.mkdir(self.dir)
        self.log_path = os.path.join(world.dir, f"{name}.log")
        with open(self.log_path, "wb") as log:
            self.process = world.spawn(
                ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", BOOT,
                 "boot", self.dir, SYSTEMD if systemd else SLEEP, root],
                cgroup=self.cgroup, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self.init = wait_until(self.find_init, self.why, 10)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def why(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f"the machine to be up:\n{f.read()}"

    def find_init(self):
        """The pid of the machine's init, once that is what we asked for."""
        if self.process.poll() is not None:
            raise WorldError(self.why())
        path = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        with contextlib.suppress(OSError, IndexError):  # not there yet
            with open(path, encoding="ascii") as f:
                pid = f.read().split()[0]
            with open(f"/proc/{pid}/comm", encoding="ascii") as f:
                ready = f.read().strip() == ("systemd" if self.systemd else "sleep")
            if ready and (not self.systemd or os.path.exists(
                    f"/proc/{pid}/root/run/systemd/private")):
                return int(pid)
        return None

    def path(self, path):
        """A file of the machine's, for this process to use."""
        return f"/proc/{self.init}/root{path}"

    @property
    def pin(self):
        return self.path("/sys/fs/bpf/kubelb")

    def exec(self, *argv, timeout=60, **kwargs):
        return self.world.exec(
            ["nsenter", f"--target={self.init}", "--mount", "--pid", "env", "-i",
             "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C",
             "DEBIAN_FRONTEND=noninteractive", *argv], timeout=timeout, **kwargs)

    def run(self, *argv, **kwargs):
        """exec(), and it must succeed; its standard output."""
        done = self.exec(*argv, **kwargs)
        assert done.returncode == 0, \
            f"{argv}: exit {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def spawn(self, *argv, **kwargs):
        return self.world.spawn(
            ["nsenter", f"--target={self.init}", "--mount", "--pid", *argv], **kwargs)

    def write(self, path, text):
        path = self.path(path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)

    def configure(self, text=None, **changes):
        """/etc/kubelb/kubelb.yaml, with the CA where a cluster's nodes have it: a service
        has a /tmp of its own and would not see the world's. Without a slow start: a backend
        that is back would serve few of the connects that ask for all backends."""
        os.makedirs(self.path("/etc/kubernetes/pki"), exist_ok=True)
        shutil.copy(self.world.ca, self.path("/etc/kubernetes/pki/ca.crt"))
        probe = {"ca": "/etc/kubernetes/pki/ca.crt", **changes.pop("probe", {})}
        settings = self.world.settings(probe=probe, **{"slowStart": "0", **changes})
        self.write("/etc/kubelb/kubelb.yaml", yaml_text(settings) if text is None else text)

    def show(self, unit, *properties):
        """`systemctl show`, as a dictionary."""
        text = self.run("systemctl", "show", "--property", ",".join(properties), unit)
        return dict(line.split("=", 1) for line in text.splitlines())

    def journal(self, unit):
        """What the unit's programs have said since the machine is up."""
        self.run("journalctl", "--sync")
        return self.run("journalctl", "--quiet", "--no-pager", "--output=cat", "--unit", unit)

    def close(self):
        end_group(self.process.pid)
        # The init was its child, in a group of its own, and dies with it.
        wait_until(self.no_processes, "the end of the machine's processes", 10)

    def no_processes(self):
        for directory, _dirs, files in os.walk(self.cgroup):
            with contextlib.suppress(OSError):
                with open(os.path.join(directory, "cgroup.events"), encoding="ascii") as f:
                    if "populated 1" in f.read():
                        return False
        return True


def repack(package, directory, version, programs):
    """Another version of a package, with other programs in it; its path."""
    tree = os.path.join(directory, "tree")
    run_checked(["dpkg-deb", "--raw-extract", package, tree])
    for name in ("kubelb-load", "kubelb-agent", "kubelbctl"):
        shutil.copy(os.path.join(programs, name), os.path.join(tree, "usr/sbin", name))
    control = os.path.join(tree, "DEBIAN/control")
    with open(control, encoding="utf-8") as f:
        lines = [f"Version: {version}\n" if line.startswith("Version:") else line for line in f]
    with open(control, "w", encoding="utf-8") as f:
        f.writelines(lines)
    path = os.path.join(directory, f"kubelb_{version}_repacked.deb")
    run_checked(["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", tree, path])
    shutil.rmtree(tree)
    return path
