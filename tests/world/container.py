# SPDX-License-Identifier: BSD-2-Clause
"""A pod's containers on a world's node, as a kubelet with containerd runs them: the
mounts, capabilities, limits and command of the manifest, in namespaces of their own,
with runc. Of a pod it knows what KubeLB's manifests use, and refuses the rest."""

import contextlib
import json
import os
import shutil
import subprocess

from kubelb import Agent
from system import NETNS_DIR, WorldError, run_checked, wait_until

# What containerd hides from a container that is not privileged, and shows read-only.
MASKED = ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
          "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",
          "/sys/firmware"]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
DEFAULT_CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID",
                        "SETUID", "SETFCAP", "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL",
                        "AUDIT_WRITE"]
# capability.h, in order of their numbers.
CAPABILITIES = """CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP
    LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE
    SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME
    SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG
    WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE""".split()
PROPAGATION = {"None": "rprivate", "HostToContainer": "rslave", "Bidirectional": "rshared"}
UNITS = {"m": 0.001, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


def quantity(text):
    """A Kubernetes quantity as a number: 10m, 64Mi."""
    for unit, factor in UNITS.items():
        if str(text).endswith(unit):
            return float(str(text)[:-len(unit)]) * factor
    return float(text)


def own_capabilities():
    """All that this process could hand on: a virtual machine's root may lack some."""
    with open("/proc/self/status", encoding="ascii") as f:
        bits = int(next(line.split()[1] for line in f if line.startswith("CapBnd")), 16)
    return [name for i, name in enumerate(CAPABILITIES) if bits & 1 << i]


def capabilities(context):
    if context.get("privileged"):
        return own_capabilities()
    asked = context.get("capabilities", {})
    held = [] if "ALL" in asked.get("drop", []) else \
        [c for c in DEFAULT_CAPABILITIES if c not in asked.get("drop", [])]
    return held + [c for c in asked.get("add", []) if c not in held]


def write_atomically(directory, files):
    """A ConfigMap's volume as the kubelet writes it: names are links through ..data to
    a folder of this generation."""
    generation = os.path.join(directory, "..2024_01_01")
    os.makedirs(generation)
    for name, text in files.items():
        with open(os.path.join(generation, name), "w", encoding="utf-8") as f:
            f.write(text)
        os.symlink(os.path.join("..data", name), os.path.join(directory, name))
    os.symlink("..2024_01_01", os.path.join(directory, "..data"))


class Pod:
    """spec: the pod's. maps: ConfigMaps, name -> {file: text}. root: the image's files.
    instead: host paths that a test has something else for. Use it as a context
    manager: what is still running ends with it."""

    def __init__(self, world, spec, root, maps=None, instead=None):
        self.world = world
        self.spec = spec
        self.maps = maps or {}
        self.instead = instead or {}
        self.root = root
        self.count = 0
        self.ids = []
        self.dir = os.path.join(world.dir, f"pod{len(os.listdir(world.dir))}")
        os.mkdir(self.dir)
        self.state = os.path.join(self.dir, "runc")
        assert spec.get("hostNetwork"), "only pods in the node's network namespace"

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for name in self.ids:
            self.runc("delete", "--force", name)
        shutil.rmtree(self.dir)

    # the manifest's words into the runtime's

    def source(self, volume):
        """Where a volume is on this host, after the kubelet's own checks."""
        if "configMap" in volume:
            path = os.path.join(self.dir, f"configmap-{volume['name']}")
            if not os.path.exists(path):
                write_atomically(path, self.maps[volume["configMap"]["name"]])
            return path
        asked = volume["hostPath"]
        path = self.instead.get(asked["path"], asked["path"])
        kind = asked.get("type", "")
        if kind == "DirectoryOrCreate":
            os.makedirs(path, exist_ok=True)
        there = {"File": os.path.isfile, "Directory": os.path.isdir,
                 "DirectoryOrCreate": os.path.isdir}[kind]
        if not there(path):
            raise WorldError(f"hostPath type check failed: {path} is not a {kind}")
        return path

    def mount(self, mount, volumes):
        options = ["rbind", PROPAGATION[mount.get("mountPropagation", "None")],
                   "ro" if mount.get("readOnly") else "rw"]
        return {"destination": mount["mountPath"], "type": "bind",
                "source": self.source(volumes[mount["name"]]), "options": options}

    def service_account(self):
        path = os.path.join(self.dir, "serviceaccount")
        if not os.path.exists(path):
            with open(self.world.ca, encoding="ascii") as f:
                write_atomically(path, {"ca.crt": f.read(), "namespace": "kube-system",
                                        "token": "of this world"})
        return {"destination": SERVICE_ACCOUNT, "type": "bind", "source": path,
                "options": ["rbind", "rprivate", "ro"]}

    def mounts(self, container, privileged):
        volumes = {v["name"]: v for v in self.spec["volumes"]}
        kernel = ["nosuid", "noexec", "nodev", "rw" if privileged else "ro"]
        mounts = [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": kernel},
            # As on a host with cgroup v2 alone: the container's own cgroup is its root.
            {"destination": "/sys/fs/cgroup", "type": "cgroup2", "source": "cgroup",
             "options": kernel},
        ]
        if "serviceAccountName" in self.spec:
            mounts.append(self.service_account())
        mounts += [self.mount(m, volumes) for m in container["volumeMounts"]]
        return mounts

    def bundle(self, container, args, mask, add=()):
        """What runc runs: config.json in a folder of its own."""
        context = container["securityContext"]
        privileged = context.get("privileged", False)
        held = [f"CAP_{c}" for c in [*capabilities(context), *add]]
        modes = {m.get("mountPropagation", "None") for m in container["volumeMounts"]}
        limits = container["resources"]
        self.count += 1
        name = f"{self.world.prefix}-c{self.count}-{os.path.basename(self.dir)}"
        directory = os.path.join(self.dir, name)
        os.mkdir(directory)
        config = {
            "ociVersion": "1.0.2",
            "root": {"path": self.root, "readonly": context.get("readOnlyRootFilesystem", False)},
            "hostname": "node",
            "process": {
                "args": [*container["command"], *container.get("args", []), *args], "cwd": "/",
                "user": {"uid": 0, "gid": 0}, "env": ["PATH=/usr/sbin"],
                "noNewPrivileges": context.get("allowPrivilegeEscalation") is False,
                "capabilities": {k: held for k in ("bounding", "effective", "permitted")},
            },
            "mounts": self.mounts(container, privileged),
            "linux": {
                "cgroupsPath": f"/{name}",
                "rootfsPropagation": "rshared" if "Bidirectional" in modes else "rslave",
                "maskedPaths": ([] if privileged else MASKED) + list(mask),
                "readonlyPaths": [] if privileged else READ_ONLY,
                "resources": {
                    "devices": [{"allow": privileged, "access": "rwm"}],
                    "memory": {"limit": int(quantity(limits["limits"]["memory"]))},
                },
                "namespaces": [{"type": t} for t in ("pid", "ipc", "uts", "mount", "cgroup")] +
                              [{"type": "network", "path": f"{NETNS_DIR}/{self.world.node}"}],
            },
        }
        with open(os.path.join(directory, "config.json"), "w", encoding="utf-8") as f:
            json.dump(config, f, indent=1)
        self.ids.append(name)
        return directory, name

    def runc(self, *args):
        return subprocess.run(["runc", "--root", self.state, *args], capture_output=True, text=True,
                              check=False)

    # running

    def find(self, name):
        every = self.spec.get("initContainers", []) + self.spec["containers"]
        return next(c for c in every if c["name"] == name)

    def run(self, name, *args, mask=(), container=None, prefix=()):
        """Runs a container to its end."""
        container = container or self.find(name)
        directory, ident = self.bundle(container, args, mask)
        done = subprocess.run([*prefix, "runc", "--root", self.state, "run", "--bundle", directory,
                               ident], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=30, check=False)
        self.runc("delete", "--force", ident)
        self.ids.remove(ident)
        return done

    def start(self, name, *args, container=None):
        container = container or self.find(name)
        directory, ident = self.bundle(container, args, ())
        log = os.path.join(self.world.dir, f"agent-{ident}.log")
        with open(log, "wb") as f:
            process = self.world.spawn(["runc", "--root", self.state, "run", "--bundle", directory,
                                        ident], stdin=subprocess.DEVNULL, stdout=f, stderr=f)
        return Container(self, ident, process, log)


class Container(Agent):
    """A running container; signals go to its first process, as the kubelet sends them."""

    def __init__(self, pod, ident, process, log):
        super().__init__(process, log)
        self.pod = pod
        self.ident = ident
        wait_until(lambda: not self.alive() or self.first(), f"{ident} to run")
        if not self.alive():
            raise WorldError(f"{ident}: exit {process.returncode}: {self.log()}")

    def first(self):
        done = self.pod.runc("state", self.ident)
        with contextlib.suppress(ValueError, KeyError):
            state = json.loads(done.stdout)
            return state["pid"] if state["status"] == "running" else None
        return None

    @property
    def pid(self):
        return self.first()

    def signal(self, number):
        run_checked(["runc", "--root", self.pod.state, "kill", self.ident, str(int(number))])

    def exec(self, *argv):
        return self.pod.runc("exec", self.ident, *argv)

    def memory(self, field="VmRSS"):
        """In bytes, of the first process."""
        with open(f"/proc/{self.pid}/status", encoding="ascii") as f:
            return next(int(line.split()[1]) for line in f if line.startswith(field)) * 1024

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.alive():
            self.kill9()
        self.pod.runc("delete", "--force", self.ident)
