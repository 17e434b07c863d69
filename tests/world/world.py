#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""A throw-away cluster's worth of network on one machine.

A World is a set of network namespaces around one bridge: a worker `node`, any
number of control planes, each with a real nginx that answers like an apiserver
(TLS, HTTP/2, /readyz, /livez, /version), and pods on demand. Nothing of it
exists outside of these namespaces, one temporary directory, one pin directory
and, on demand, one cgroup; all of them carry this process's id, so several
worlds stand side by side, and all of them are gone when the World is closed.

    world.py shell [-n 3]            a shell with the world around it
    world.py run [-n 3] -- CMD...    the same with a command; its exit status
    world.py fault cp1 stop          from inside: make a control plane misbehave
    world.py sweep                   remove worlds whose process was killed

As a library:

    with World(backends=3) as world:
        world.load()                            # kubelb-load -c world.config
        world.cp(1).kill()
        world.exec(["curl", ...], ns=world.node)

Python's standard library only.
"""

import argparse
import atexit
import contextlib
import glob
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

import pki
from apiserver_backend import Apiserver
from backend import NODE_HOST, PORT, STATUSES, V4_PREFIX, V6_PREFIX, Backend
from etcd import Etcd
from kubelb import Agent, yaml_text
from system import (BPFFS, NETNS_DIR, WorldError, become_subreaper, cgroup2_root, end_group,
                    end_with_parent, ensure_bpffs, in_cgroup, inside, run_checked, wait_until)

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
POD_HOST = 200  # .201 is the first pod
MAX_BACKENDS = 64
# Options of kubelb-load that do something else than to attach.
OTHER_ACTIONS = ("--detach", "--check", "--from-", "--print-config", "--help", "--version", "-h", "-V")
WORLD_NUMBERS = itertools.count(1)


class World:
    """See the top of this file. Use it as a context manager."""

    def __init__(self, backends=3, prefix=None):
        if not 0 <= backends <= MAX_BACKENDS:
            raise WorldError(f"{backends} backends; want 0..{MAX_BACKENDS}")
        number = next(WORLD_NUMBERS)
        suffix = "" if number == 1 else f"x{number}"  # bpffs allows no dots
        self.owner = os.getpid()
        self.prefix = prefix or f"klb{self.owner}{suffix}"
        self.node = f"{self.prefix}-node"
        self.net = f"{self.prefix}-net"
        self.pin = f"{BPFFS}/klb-{self.prefix[3:]}"
        self.build = os.environ.get("KUBELB_BUILD", os.path.join(ROOT, "build"))
        self.node_v4 = f"{V4_PREFIX}{NODE_HOST}"
        self.node_v6 = f"{V6_PREFIX}{NODE_HOST}"
        self.namespaces = [self.net, self.node]
        self.cgroups = []
        self.attach_to = None  # `cgroup` of the configuration; None: the root
        self.processes = []
        self.local = None
        self.etcd = None
        self.pods = 0
        self.pod_links = []  # (namespace, its port of the bridge)
        self.agents = 0
        self.ctl_options = []
        self.closed = False
        self.dir = tempfile.mkdtemp(prefix=f"{self.prefix}-")
        atexit.register(self.close_quietly)
        try:
            os.chmod(self.dir, 0o755)  # for what runs as nobody; there are no secrets
            os.makedirs(os.path.join(self.dir, "bin"))
            become_subreaper()
            ensure_bpffs()
            self.pki = pki.Pki(os.path.join(self.dir, "pki"))
            self.backends = [Backend(self.dir, self.prefix, i) for i in range(1, backends + 1)]
            self.namespaces += [b.ns for b in self.backends]
            self.make_network()
            self.make_backends()
            self.config = self.configure()
        except BaseException:
            self.close_quietly()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    # making it

    def make_network(self):
        lines = [f"netns add {ns}" for ns in self.namespaces]
        for ns, port in [(self.node, "node")] + [(b.ns, b.name) for b in self.backends]:
            lines.append(self.veth(ns, port))
        self.ip_batch(None, lines)
        self.ip_batch(self.net, ["link set lo up",
                                 "link add name br0 type bridge mcast_snooping 0",
                                 "link set br0 up"])
        self.ip_batch(self.net, [line for port in ["node"] + [b.name for b in self.backends]
                                 for line in self.plug(port)])
        self.address(self.node, NODE_HOST)
        for b in self.backends:
            self.address(b.ns, NODE_HOST + b.index)
        self.wait_forwarding("node", *(b.name for b in self.backends))
        # Tests open thousands of connections to few addresses.
        self.sysctl(self.node, "net.ipv4.ip_local_port_range", "10240 60999")

    def veth(self, ns, port):
        return f"link add name {port} netns {self.net} type veth peer name eth0 netns {ns}"

    def plug(self, port):
        return [f"link set dev {port} master br0", f"link set dev {port} up"]

    def wait_forwarding(self, *ports):
        """A bridge hears of a port's carrier from the kernel's worker, which may come a second
        later on a busy machine. Until then the port drops what comes."""
        def forwards():
            links = json.loads(run_checked(["bridge", "-n", self.net, "-j", "link"]))
            return {li["ifname"] for li in links if li["state"] == "forwarding"}.issuperset(ports)
        wait_until(forwards, f"the bridge to forward for {', '.join(ports)}")

    def address(self, ns, host):
        self.ip_batch(ns, ["link set lo up",
                           f"addr add {V4_PREFIX}{host}/24 dev eth0",
                           f"addr add {V6_PREFIX}{host}/64 dev eth0 nodad",
                           "link set eth0 up"])

    def ip_batch(self, ns, lines):
        run_checked(["ip", *(["-n", ns] if ns else []), "-batch", "-"],
                    stdin="\n".join(lines) + "\n")

    def sysctl(self, ns, name, value):
        with inside(ns), open("/proc/sys/" + name.replace(".", "/"), "w",
                              encoding="ascii") as f:
            f.write(value)

    def make_backends(self):
        for b in self.backends:
            b.prepare(self.pki)
            b.launch()
        for b in self.backends:
            b.wait_up()

    def pod(self, name=None):
        """One more namespace on the bridge, with a loopback of its own, as a
        pod has. Returns the namespace's name."""
        self.pods += 1
        name = name or f"pod{self.pods}"
        ns = f"{self.prefix}-{name}"
        self.namespaces.append(ns)
        self.pod_links.append((ns, name))
        self.ip_batch(None, [f"netns add {ns}", self.veth(ns, name)])
        self.ip_batch(self.net, self.plug(name))
        self.address(ns, POD_HOST + self.pods)
        self.wait_forwarding(name)
        return ns

    def local_apiserver(self):
        """cp0: an apiserver on the node itself, until the next reset(). Not in
        the default configuration. Like a real one it listens on every address."""
        local = self.local_place()
        local.readyz(200)
        local.start()
        self.local = local
        return local

    def local_place(self):
        local = Backend(self.dir, self.prefix, 0)
        if not os.path.isdir(local.dir):
            local.prepare(self.pki)
        return local

    def apiserver(self, index, cgroup=None, **settings):
        """A test apiserver (see apiserver.py) in the place of a control plane's
        nginx until the next reset(); 0 is the node's own. The first one fills
        world.etcd with the slice that names every control plane."""
        if self.etcd is None:
            self.etcd = Etcd(os.path.join(self.dir, "etcd"))
            self.etcd.put("kubernetes", [b.v4 for b in self.backends])
        old = self.cp(index) if index else self.local or self.local_place()
        if isinstance(old, Apiserver):
            raise WorldError(f"{old.name} is a test apiserver already; see its set()")
        old.kill()
        api = Apiserver(self.dir, self.prefix, index, settings, cgroup)
        api.nginx, api.certificate_kind = old, old.certificate_kind
        if index:
            self.backends[index - 1] = api
        else:
            self.local = api
        api.start()
        return api

    def remove_apiservers(self):
        """The nginxes get their places back; restore() starts them."""
        for i, api in enumerate(self.backends):
            if isinstance(api, Apiserver):
                api.kill()
                self.backends[i] = api.nginx
                api.nginx.certificate_kind = api.certificate_kind  # the file is one
        if self.etcd:
            self.etcd.close()
            self.etcd = None

    def cgroup(self, name="group"):
        """A cgroup of this world's own, for what must not be done to the root."""
        path = os.path.join(cgroup2_root(), f"{self.prefix}-{name}")
        if path not in self.cgroups:
            os.mkdir(path)
            self.cgroups.append(path)
        return path

    def cp(self, index):
        return self.backends[index - 1]

    @property
    def ca(self):
        return self.pki.ca

    # configuration

    def settings(self, **changes):
        """What configure() writes, as a dictionary. `probe` is merged; a value
        of None removes the key."""
        settings = {
            "frontends": [f"127.0.0.1:{PORT}", f"[::1]:{PORT}"],
            "backends": [b.endpoint for b in self.backends],
            "policy": "least-conn",
            "probe": {"interval": "200ms", "timeout": "400ms", "rise": 2, "fall": 2,
                      "ca": self.ca},
            "http": "127.0.0.1:8081",
            "cgroup": self.attach_to,
        }
        probe = {**settings["probe"], **changes.pop("probe", {})}
        settings.update(changes, probe=probe)
        refuse_others_frontend(settings)
        return {k: v for k, v in settings.items() if v is not None}

    def configure(self, path=None, text=None, **changes):
        """Writes a configuration (the world's own, unless path is given) at
        once as a whole, and returns its path."""
        path = path or os.path.join(self.dir, "kubelb.yaml")
        with open(path + ".new", "w", encoding="utf-8") as f:
            f.write(yaml_text(self.settings(**changes)) if text is None else text)
        os.rename(path + ".new", path)
        return path

    # running things

    def argv(self, argv, ns=None, cgroup=None):
        command = in_cgroup(cgroup, [str(a) for a in argv])
        return ["nsenter", f"--net={NETNS_DIR}/{ns or self.node}", *command]

    def exec(self, argv, ns=None, cgroup=None, stdin="", timeout=30, **kwargs):
        """Runs a command in a namespace (the node) to its end; text both ways."""
        kwargs = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **kwargs}
        return subprocess.run(self.argv(argv, ns, cgroup), input=stdin, text=True,
                              timeout=timeout, check=False, **kwargs)

    def spawn(self, argv, ns=None, cgroup=None, **kwargs):
        """Starts a command; ended with the world, if not before."""
        kwargs = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, **kwargs}
        process = subprocess.Popen(self.argv(argv, ns, cgroup), start_new_session=True, **kwargs)
        self.processes.append(process)
        return process

    def end_processes(self):
        """Ends what spawn() started and is still running."""
        for process in self.processes:
            if os.environ.get("KUBELB_END") == "TERM":
                end_well(process)
            end_group(process.pid)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=5)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream:
                    with contextlib.suppress(OSError):
                        stream.close()
        self.processes.clear()

    # KubeLB on this stage

    def program(self, name):
        path = os.path.join(self.build, name)
        if not os.access(path, os.X_OK):
            raise WorldError(f"{path} is not there: run make first")
        return path

    def load(self, *args, config=True, cgroup=None, strict=False, **kwargs):
        """kubelb-load in the node. config: True for the world's, a path, or
        None for none. cgroup: attach there instead of at the root. As a unit
        runs it, unless strict: dead backends are what many tests begin with."""
        path = self.config if config is True else config
        extra = (["-c", path] if path else []) + (["--cgroup", cgroup] if cgroup else [])
        if not strict and not any(a.startswith(OTHER_ACTIONS) for a in args):
            extra.append("--boot")
        return self.exec([self.program("kubelb-load"), "--pin", self.pin, *extra, *args],
                         **kwargs)

    def detach(self, **kwargs):
        return self.load("--detach", config=None, **kwargs)

    def ctl(self, *args, **kwargs):
        return self.exec([self.program("kubelbctl"), "--pin", self.pin, *self.ctl_options, *args],
                         **kwargs)

    def agent(self, *args, config=True, prefix=(), **kwargs):
        """Starts kubelb-agent in the node. prefix: a command that starts it."""
        self.agents += 1
        log = os.path.join(self.dir, f"agent{self.agents}.log")
        path = self.config if config is True else config
        with open(log, "wb") as f:
            process = self.spawn([*prefix, self.program("kubelb-agent"), "-c", path, "--pin",
                                  self.pin, *args], stdin=subprocess.DEVNULL, stdout=f, stderr=f, **kwargs)
        return Agent(process, log)

    # the end

    def reset(self):
        """Back to a bare stage: nothing attached, every backend healthy."""
        self.end_processes()
        self.ctl_options = []
        self.attach_to = None
        self.unload()
        self.remove_pods()
        if self.local:
            self.local.kill()
            self.local = None
        self.remove_apiservers()
        for b in self.backends:
            b.restore(self.pki)
        self.config = self.configure()

    def remove_pods(self):
        """Their addresses and names are free again: there are some fifty of them."""
        for ns, port in self.pod_links:
            # The port first: with its namespace it would go at some later time.
            with contextlib.suppress(WorldError):  # or the namespace itself
                self.ip_batch(self.net, [f"link del {port}"])
            if os.path.exists(f"{NETNS_DIR}/{ns}"):  # a test may have taken its name away
                self.ip_batch(None, [f"netns del {ns}"])
            self.namespaces.remove(ns)
        self.pod_links.clear()
        self.pods = 0

    def unload(self):
        """Detaches; whatever stays behind is removed and reported."""
        places = [p for p in self.pin_places() if os.path.isdir(p)]
        if not places:
            return
        try:
            done = self.detach()
            if done.returncode == 0 and not any(map(os.path.exists, places)):
                return
            problem = f"exit {done.returncode}: {done.stderr.strip()}"
        except (WorldError, subprocess.SubprocessError) as e:
            problem = str(e)
        left = {p: tree(p) for p in places if os.path.exists(p)}
        problem = f"{left} was left behind: kubelb-load --detach: {problem}"
        for place in left:
            shutil.rmtree(place, ignore_errors=True)
        raise WorldError(problem)

    def pin_places(self):
        """Where pins are, or were when a kubelb-load was killed."""
        return [self.pin, f"{self.pin}_new"]

    def close(self):
        """Removes everything, checks that it is gone, and raises WorldError
        with what was not. A second call does nothing."""
        if self.closed or os.getpid() != self.owner:
            return
        self.closed = True
        problems = []
        with signals_blocked():
            for step in (self.end_processes, self.end_strays, self.unload, self.kill_backends,
                         self.remove_namespaces, self.remove_cgroups, self.remove_files):
                try:
                    step()
                except Exception as e:  # one failure must not keep the rest
                    problems.append(str(e))
        atexit.unregister(self.close_quietly)
        problems += self.leftovers()
        if problems:
            raise WorldError(f"{self.prefix}: " + "; ".join(problems))

    def close_quietly(self):
        try:
            self.close()
        except WorldError as e:
            print(f"world: {e}", file=sys.stderr)

    def end_strays(self):
        """Ends what was left running in the namespaces by other hands: an agent
        started in the shell, say."""
        inodes = {os.stat(f"{NETNS_DIR}/{ns}").st_ino for ns in self.namespaces
                  if os.path.exists(f"{NETNS_DIR}/{ns}")}
        for entry in os.listdir("/proc"):
            if not entry.isdigit() or int(entry) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{entry}/ns/net").st_ino in inodes:
                    os.kill(int(entry), signal.SIGKILL)

    def kill_backends(self):
        for b in getattr(self, "backends", []) + ([self.local] if self.local else []):
            pgid = b.pgid()
            if pgid is not None:
                end_group(pgid)

    def remove_namespaces(self):
        there = [ns for ns in self.namespaces if os.path.exists(f"{NETNS_DIR}/{ns}")]
        if there:
            self.ip_batch(None, [f"netns del {ns}" for ns in there])

    def remove_cgroups(self):
        for path in self.cgroups:
            wait_until(lambda p=path: rmdir(p), f"{path} to be empty", timeout=5)

    def remove_files(self):
        shutil.rmtree(self.dir)

    def leftovers(self):
        """What a closed world has failed to remove."""
        names = glob.glob(f"{NETNS_DIR}/{self.prefix}-*") + glob.glob(
            f"{glob.escape(cgroup2_root())}/{self.prefix}-*")
        names += [p for p in (self.dir, *self.pin_places()) if os.path.exists(p)]
        return [f"{n} is left" for n in names]

    # for people

    def environment(self):
        return {
            "WORLD_PREFIX": self.prefix,
            "WORLD_DIR": self.dir,
            "WORLD_NODE_NS": self.node,
            "WORLD_NET_NS": self.net,
            "WORLD_PIN": self.pin,
            "WORLD_CONFIG": self.config,
            "WORLD_CA": self.ca,
            "WORLD_NODE": self.node_v4,
            "WORLD_BACKENDS": " ".join(b.endpoint for b in self.backends),
            "PATH": f"{self.dir}/bin:{self.build}:{os.environ.get('PATH', '')}",
        }

    def write_tools(self):
        """Short commands for the shell, in the world's own bin directory."""
        tools = {
            "ns": f'[ $# -gt 1 ] || {{ echo "usage: ns node|cp1|net|... CMD..." >&2; exit 2; }}\n'
                  f'ns=$1; shift; exec nsenter --net={NETNS_DIR}/{self.prefix}-"$ns" "$@"',
            "node": f'exec nsenter --net={NETNS_DIR}/{self.node} "$@"',
            "load": f'exec node kubelb-load -c {self.config} --pin {self.pin} "$@"',
            "detach": f'exec node kubelb-load --detach --pin {self.pin} "$@"',
            "agent": f'exec node kubelb-agent -c {self.config} --pin {self.pin} "$@"',
            "ctl": f'exec node kubelbctl --pin {self.pin} "$@"',
            "fault": f'exec {sys.executable} {os.path.abspath(__file__)} fault "$@"',
        }
        for name, body in tools.items():
            path = os.path.join(self.dir, "bin", name)
            with open(path, "w", encoding="utf-8") as f:
                f.write(f"#!/bin/sh\n{body}\n")
            os.chmod(path, 0o755)
        build_client(os.path.join(self.dir, "bin", "nbconnect"))

    def explain(self):
        lines = [f"world {self.prefix}: a node and {len(self.backends)} control planes"]
        lines.append(f"  node  {self.node_v4}  {self.node_v6}  (namespace {self.node})")
        shown = self.backends if len(self.backends) <= 8 else self.backends[:4] + [None] \
            + self.backends[-1:]
        for b in shown:
            lines.append("  ..." if b is None else
                         f"  {b.name:<5} {b.v4}  {b.v6}  (namespace {b.ns}, log {b.dir})")
        lines += [
            f"  configuration {self.config}, pins {self.pin}, CA {self.ca}",
            "commands:",
            "  load | detach | agent | ctl ARGS    KubeLB's programs, in the node, with these pins",
            "  node CMD... | ns cp1 CMD...         run something in a namespace",
            "  fault cp1 kill|start|stop|cont|link-down|link-up|readyz CODE|livez CODE|cert KIND",
            "  node curl --cacert $WORLD_CA https://127.0.0.1:6443/version",
            "  node nbconnect -n 3000 127.0.0.1 6443",
        ]
        return "\n".join(lines)


def refuse_others_frontend(settings):
    """Every world has the same addresses, and scope `all` at the root acts on all of them: a
    connect of another world would be balanced here."""
    taken = [f["address"] for f in settings.get("frontends") or ()
             if isinstance(f, dict) and f.get("scope") == "all"
             and str(f.get("address")).startswith(("127.", "[::1]"))]
    if taken and not settings.get("cgroup"):
        raise WorldError(f"scope all of {taken[0]} at the root acts on other worlds, too: "
                         "use the fixture apart, or set attach_to")


def tree(path):
    """The names below a directory, for messages."""
    return " ".join(sorted(os.path.relpath(os.path.join(d, n), path)
                           for d, dirs, files in os.walk(path) for n in dirs + files))


def end_well(process):
    """For a build that writes its counters when it ends (scripts/coverage.sh)."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)
        os.killpg(process.pid, signal.SIGCONT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=3)


def rmdir(path):
    """Removes a cgroup and those below it; whether it is gone."""
    for directory, _dirs, _files in os.walk(path, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(directory)
    return not os.path.exists(path)


@contextlib.contextmanager
def signals_blocked():
    """Cleaning up is not interrupted by the signal that asked for it twice."""
    old = signal.pthread_sigmask(signal.SIG_BLOCK,
                                 {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def build_client(path):
    """Compiles tests/clients/nbconnect.c to path."""
    source = os.path.join(ROOT, "tests", "clients", "nbconnect.c")
    run_checked(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", path, source])
    return path


# --- command line ------------------------------------------------------------


def raise_on_signals():
    """SIGTERM and SIGHUP end us the way SIGINT does: through every `finally`."""
    def handler(number, _frame):
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, handler)


def in_world(count, argv, interactive):
    """Runs argv in a new world's environment; returns its exit status."""
    with World(backends=count) as world:
        world.write_tools()
        if interactive:
            print(world.explain(), flush=True)
        process = subprocess.Popen(argv, env={**os.environ, **world.environment()},
                                   preexec_fn=end_with_parent)
        if interactive:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C is for the shell's programs
        try:
            status = process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        status = status if status >= 0 else 128 - status
    # What `fault` replaced came to us when it ended.
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0] != 0:
            pass
    return status


def fault(args):
    """A fault in the world whose environment we run in."""
    prefix, directory = os.environ.get("WORLD_PREFIX"), os.environ.get("WORLD_DIR")
    if not prefix or not directory:
        raise WorldError("WORLD_DIR is not set: run this inside `world.py shell` or `run`")
    match = re.fullmatch(r"cp(\d+)", args.backend)
    if not match or not os.path.isdir(os.path.join(directory, args.backend)):
        raise WorldError(f"no control plane {args.backend} in {directory}")
    backend = Backend(directory, prefix, int(match.group(1)))
    plain = {"kill": backend.kill, "start": backend.start, "stop": backend.stop,
             "cont": backend.cont, "link-down": lambda: backend.link(up=False),
             "link-up": lambda: backend.link(up=True)}
    if args.what in plain and args.value is None:
        plain[args.what]()
    elif args.what in ("readyz", "livez") and args.value and args.value.isdigit():
        backend.answer(args.what, int(args.value))
    elif args.what == "cert" and args.value in pki.KINDS:
        backend.certificate(args.value, pki.ExistingPki(os.path.join(directory, "pki")))
    else:
        raise WorldError(f"unknown fault: {args.what} {args.value or ''}; see --help")


def sweep():
    """Removes what worlds left behind whose process was killed."""
    prefixes = set()
    for path in glob.glob(f"{NETNS_DIR}/klb*-net") + glob.glob(f"{tempfile.gettempdir()}/klb*-*"):
        match = re.match(r"(klb(\d+)(?:x\d+)?)-", os.path.basename(path))
        if match and not os.path.exists(f"/proc/{match.group(2)}"):
            prefixes.add(match.group(1))
    for prefix in sorted(prefixes):
        sweep_one(prefix)
        print(f"removed {prefix}")


def sweep_one(prefix):
    namespaces = [os.path.basename(p) for p in glob.glob(f"{NETNS_DIR}/{prefix}-*")]
    for ns in namespaces:
        # Only what lives in this dead world's namespaces, by pid.
        for pid in run_checked(["ip", "netns", "pids", ns]).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    for ns in namespaces:
        run_checked(["ip", "netns", "del", ns])
    pin = f"{BPFFS}/klb-{prefix[3:]}"
    for path in glob.glob(f"{tempfile.gettempdir()}/{prefix}-*") + glob.glob(f"{pin}[-_]*") + [pin]:
        shutil.rmtree(path, ignore_errors=True)
    # A container's cgroups are in each hierarchy of version 1, too.
    root = cgroup2_root()
    for path in glob.glob(f"{glob.escape(root)}/{prefix}-*") + glob.glob(
            f"{glob.escape(os.path.dirname(root))}/*/{prefix}-*"):
        wait_until(lambda p=path: rmdir(p), f"{path} to be empty", timeout=5)


def parse(argv):
    parser = argparse.ArgumentParser(prog="world.py",
                                     description="A throw-away world of network namespaces.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("shell", "an interactive shell in a new world"),
                       ("run", "a command in a new world: run [-n N] -- CMD...")):
        sub = commands.add_parser(name, help=text)
        sub.add_argument("-n", "--backends", type=int, default=3, metavar="N",
                         help="control planes (default 3, at most 64)")
        if name == "run":
            sub.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- CMD...")
    sub = commands.add_parser("fault", help="make a control plane of this world misbehave")
    sub.add_argument("backend", help="cp1, cp2, ...")
    sub.add_argument("what", help="kill, start, stop, cont, link-down, link-up, readyz, livez, "
                     "cert")
    sub.add_argument("value", nargs="?",
                     help=f"a status {STATUSES}, 200, or a certificate {pki.KINDS}")
    commands.add_parser("sweep", help="remove what killed worlds left behind")
    args = parser.parse_args(argv)
    if args.command == "run":
        args.argv = args.argv[1:] if args.argv[:1] == ["--"] else args.argv
        if not args.argv:
            parser.error("run: no command given")
    return args


def main(argv=None):
    args = parse(argv)
    if os.geteuid() != 0:
        print("world.py: needs root (network namespaces, bpffs)", file=sys.stderr)
        return 1
    raise_on_signals()
    try:
        if args.command == "shell":
            return in_world(args.backends, [os.environ.get("SHELL", "/bin/bash")], True)
        if args.command == "run":
            return in_world(args.backends, args.argv, False)
        if args.command == "fault":
            fault(args)
        else:
            sweep()
        return 0
    except (WorldError, OSError) as e:
        print(f"world.py: {e}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
