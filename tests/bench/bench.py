#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""What KubeLB costs, measured on this machine.

Run it by scripts/bench.sh, which builds first. Everything happens in a
throw-away world (tests/world) and below a cgroup of its own, so that other
processes' connects are neither touched nor counted.

Groups:
  programs   nanoseconds per run of each BPF program, by the kernel's own run
             statistics, for every policy, at 3 and at 64 backends
  connects   what a client sees of that, and of the way to the programs: connect()
             to the frontend, and to a backend itself with KubeLB attached and
             without, interleaved
  requests   requests/s and bulk throughput on one kept TLS connection, dialled
             at the frontend and at the backend itself, interleaved; for
             comparison the same through local proxies (nginx, and haproxy where
             it is installed)
  unrelated  connect + accept + close of somebody else's connections, with
             KubeLB attached, without, and with two empty programs in its place
             (what the kernel takes to run any program there), interleaved
  agent      memory and CPU time of kubelb-agent at rest, with 3 and with 64 backends
  probes     TLS handshakes and requests that probes cost an apiserver while there is
             traffic, beside HAProxy's as Kubespray configures it
  deaths     kill -9, black holes and hangs: how soon the agent knows, what fails of the
             connects of somebody outside, how soon clients of the dead hear of it
  watch      thousands of EndpointSlice events: is the last list the cluster's, and
             what did it cost

All of it takes about fifteen minutes, --quick about five. probes, deaths and watch make
worlds of their own, attached at the cgroup's root, for the node's namespace alone.

A missed target is printed as MISSED and is no failure: a busy machine misses
targets too, which the spread shows. Exit status: 0 all was measured, 1 something
could not be measured, 2 the command line is wrong.
"""

import argparse
import contextlib
import ctypes
import glob
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "world"))

from agentbench import AGENT_GROUPS, measure_agent  # noqa: E402  (after sys.path)
from backend import NODE_HOST, V4_PREFIX  # noqa: E402
from system import WorldError, cgroup2_root, group_members, run_checked, wait_until  # noqa: E402
from world import World, raise_on_signals  # noqa: E402

GROUPS = ("programs", "connects", "requests", "unrelated", "agent", "probes", "deaths", "watch")
POLICIES = ("least-conn", "random", "rendezvous", "latency")
SERVERS = [f"{V4_PREFIX}{NODE_HOST + i}" for i in range(1, 65)]
FRONTEND, FRONTEND6, FRONTEND_PORT = "127.0.0.1", "::1", 6443
TLS_PORT = 6443  # nginx, in the servers' namespace
PLAIN_PORT = 7443  # accepts and closes, there as well
PROXIES = {"nginx stream proxy": 6444, "haproxy": 6445}  # on the node's loopback
BULK_BYTES = 8 << 20

# What the measurements take, in full and with --quick.
# Short runs, and many: what disturbs them (another process, a busy neighbour on the
# host) comes and goes within seconds, and then hits both sides of a pair.
FULL = {"connects": 20000, "rounds": 7, "timed": 5000, "pairs": 60,
        "request_pairs": 40, "seconds": 0.5, "bulk_pairs": 20,
        "agent_settle": 10, "agent_idle": 20,
        "probe_seconds": 300, "events": 10000,
        "deaths": 6, "deaths_fast": 3, "dial_rate": 100, "dial_rate_fast": 3000,
        "dial_lead": 3, "dial_seconds": 12, "hang_seconds": 18}
QUICK = {"connects": 20000, "rounds": 3, "timed": 3000, "pairs": 20,
         "request_pairs": 10, "seconds": 0.3, "bulk_pairs": 5,
         "agent_settle": 10, "agent_idle": 5,
         "probe_seconds": 60, "events": 2000,
         "deaths": 3, "deaths_fast": 1, "dial_rate": 100, "dial_rate_fast": 3000,
         "dial_lead": 3, "dial_seconds": 12, "hang_seconds": 18}
# Of the durations in one run: those that nothing disturbed.
UNDISTURBED = "p10_ns"

# Accesses are not logged: that would be most of the server's work.
NGINX_HTTP = """\
daemon off; user root; worker_processes 1; pid nginx.pid; error_log error.log warn;
events {{ worker_connections 1024; }}
http {{
	access_log off;
	client_body_temp_path tmp-body; proxy_temp_path tmp-proxy; fastcgi_temp_path tmp-fastcgi;
	uwsgi_temp_path tmp-uwsgi; scgi_temp_path tmp-scgi;
	keepalive_timeout 1d; keepalive_requests 100000000;
	server {{
		listen 0.0.0.0:{port} ssl;
		ssl_certificate {certificate}; ssl_certificate_key {key};
		location = /readyz {{ return 200 ok; }}
		location = /livez {{ return 200 ok; }}
		location = /version {{ return 200 '{{"major":"1","minor":"34"}}'; }}
		location = /bulk {{ alias {dir}/bulk; }}
	}}
}}
"""
NGINX_STREAM = """\
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; user root; worker_processes 1; pid nginx.pid; error_log error.log warn;
events {{ worker_connections 1024; }}
stream {{ server {{ listen 127.0.0.1:{port}; proxy_pass {backend}; }} }}
"""
HAPROXY = """\
global
	nbthread 1
defaults
	mode tcp
	timeout connect 5s
	timeout client 1h
	timeout server 1h
listen apiserver
	bind 127.0.0.1:{port}
	server backend {backend}
"""
FLOOR = "bench_floor"
TOGETHER = "all, connect to close"
FLOOR_C = """\
__attribute__((section("cgroup/connect4"), used)) int bench_floor(void *ctx)
{ (void)ctx; return 1; }
__attribute__((section("sockops"), used)) int bench_floor_ops(void *ctx)
{ (void)ctx; return 1; }
char bench_license[] __attribute__((section("license"), used)) = "Dual BSD/GPL";
"""


# --- report ------------------------------------------------------------------


class Report:
    """Prints rows as they are measured, and keeps them for --json."""

    def __init__(self):
        self.rows = []
        self.problems = []
        self.group = ""

    def start(self, group, title, *notes):
        self.group = group
        print(f"\n{title}")
        for note in notes:
            print(f"  ({note})")
        print(f"  {'':<54} {'median':>9}  {'min .. max':<18} {'middle half':<18} "
              "target", flush=True)

    def row(self, name, values, unit, digits=0, target=None, met=None):
        """values: one per round. target: its text; met: does a median meet it?"""
        median = statistics.median(values)
        verdict = None if met is None else bool(met(median))
        enough = len(values) > 3
        quarters = statistics.quantiles(values, n=4)[::2] if enough else [median, median]
        self.rows.append({"group": self.group, "name": name, "unit": unit, "median": median,
                          "min": min(values), "max": max(values), "n": len(values),
                          "quartiles": quarters, "target": target, "met": verdict,
                          "values": list(values)})
        spread = f"{min(values):.{digits}f} .. {max(values):.{digits}f}"
        middle = f"{quarters[0]:.{digits}f} .. {quarters[1]:.{digits}f}" if enough else ""
        words = {None: "", True: "met", False: "MISSED"}[verdict]
        text = f"  {name:<54} {median:>9.{digits}f}  {spread:<18} {middle:<18} "
        print(f"{text}{target or '':<8} {words}".rstrip(), flush=True)

    def at_most(self, name, values, unit, limit, digits=0):
        self.row(name, values, unit, digits, f"<= {limit:g}", lambda m: m <= limit)

    def problem(self, what, why):
        self.problems.append(f"{what}: {why}")
        print(f"  {what} could not be measured: {why}", flush=True)

    def end(self):
        missed = [r for r in self.rows if r["met"] is False]
        met = [r for r in self.rows if r["met"]]
        print(f"\n{len(met)} targets met, {len(missed)} missed")
        for r in missed:
            print(f"  MISSED {r['group']}: {r['name']}: {r['median']:.4g} {r['unit']}, "
                  f"target {r['target']}")
        if missed:
            print("  A wide spread beside a miss points at other load on this machine.")
        for p in self.problems:
            print(f"  NOT MEASURED {p}")


# --- the machine -------------------------------------------------------------


class Cpus:
    """One CPU for the client, another one for the server that accepts its plain
    connects, where there are two. TLS requests go back and forth on the client's:
    one side waits for the other, so a second CPU would add nothing but its wake-ups,
    and on one, requests/s are the inverse of the work that a request takes."""

    def __init__(self):
        have = sorted(os.sched_getaffinity(0))
        self.client, self.server = {have[0]}, {have[-1]}
        self.text = (f"on CPU {have[0]}, accepting on CPU {have[-1]}" if len(have) > 1
                     else "on a single CPU")

    def pin(self, pid, cpus):
        for member in group_members(pid) or [pid]:
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(member, cpus)

    def as_client(self, argv):
        return ["taskset", "-c", str(min(self.client)), *argv]


def cpu_times():
    """(stolen by the hypervisor, all) ticks of this machine since its start."""
    with open("/proc/stat", encoding="ascii") as f:
        fields = [int(x) for x in f.readline().split()[1:9]]
    return fields[7], sum(fields)


def machine():
    model = platform.machine()
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        for line in f:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {"kernel": platform.release(), "cpu": model, "cpus": os.cpu_count()}


def bpftool(*args):
    return json.loads(run_checked(["bpftool", "-j", *map(str, args)]).strip() or "null")


@contextlib.contextmanager
def bpf_statistics():
    """The kernel measures BPF programs for as long as the descriptor is open,
    as with kernel.bpf_stats_enabled=1, which however would outlive a kill -9."""
    numbers = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
    number = numbers.get(platform.machine())
    if number is None:
        raise WorldError(f"the number of bpf(2) on {platform.machine()} is not known here")
    enable_stats, run_time = 32, ctypes.c_uint64(0)
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(number, enable_stats, ctypes.byref(run_time), 8)
    if fd < 0:
        raise WorldError(f"bpf(BPF_ENABLE_STATS): {os.strerror(ctypes.get_errno())}")
    try:
        yield
    finally:
        os.close(fd)


STATISTICS = "/proc/sys/kernel/bpf_stats_enabled"


@contextlib.contextmanager
def no_bpf_statistics():
    """Somebody may have them on; they would add two clock reads to every run of a
    program, and so to what is timed. Puts the setting back afterwards."""
    with open(STATISTICS, encoding="ascii") as f:
        before = f.read()
    if before.strip() == "0":
        yield
        return
    write_statistics("0")
    try:
        yield
    finally:
        write_statistics(before)


def write_statistics(value):
    with open(STATISTICS, "w", encoding="ascii") as f:
        f.write(value)


def other_programs():
    """How many connect4 programs are attached at the root by somebody else:
    they run on our connects as well, and on both sides of every comparison."""
    try:
        attached = bpftool("cgroup", "show", cgroup2_root()) or []
    except WorldError:
        return 0  # one of them went away while it was being listed
    return sum(p.get("attach_type") in ("connect4", "cgroup_inet4_connect") for p in attached)


# --- the stage ---------------------------------------------------------------


class Stage:
    """A node, and one namespace with the 64 addresses that all servers share."""

    def __init__(self, world, cpus, effort):
        self.world = world
        self.cpus = cpus
        self.effort = effort
        self.cgroup = world.cgroup("bench")
        self.client = world.program("test/bench_client")
        self.servers = world.pod("servers")
        world.ip_batch(self.servers, [f"addr add {a}/24 dev eth0" for a in SERVERS])
        self.start_plain()
        self.start_nginx()

    def directory(self, name):
        path = os.path.join(self.world.dir, name)
        os.mkdir(path)
        return path

    def start(self, argv, ns, cpus, **kwargs):
        process = self.world.spawn(argv, ns=ns, **kwargs)
        self.cpus.pin(process.pid, cpus)
        return process

    def start_plain(self):
        process = self.start([self.client, "serve", "0.0.0.0", PLAIN_PORT], self.servers,
                             self.cpus.server)
        if process.stdout.readline() != "ready\n":
            raise WorldError("bench_client serve has not started")

    def start_config(self, argv, name, text, ns, cpus, probe):
        """Starts a server with a configuration and waits until it is there."""
        path = self.directory(name)
        with open(os.path.join(path, "conf"), "w", encoding="utf-8") as f:
            f.write(text)
        process = self.start([a.format(dir=path) for a in argv], ns, cpus,
                             stdout=subprocess.DEVNULL)

        def up():
            if process.poll() is not None:
                raise WorldError(f"{name} has ended with {process.returncode}")
            return self.run("connects", "-n", 1, *probe, check=False)

        wait_until(up, f"{name} to listen", interval=0.05)
        self.cpus.pin(process.pid, cpus)  # the workers by now

    def start_nginx(self):
        bulk = os.path.join(self.world.dir, "bulk")
        with open(bulk, "wb") as f:
            f.write(os.urandom(1 << 20) * (BULK_BYTES >> 20))
        certificate = self.world.pki.certificate("good", SERVERS, "bench")
        text = NGINX_HTTP.format(port=TLS_PORT, dir=self.world.dir, certificate=certificate,
                                 key=self.world.pki.key)
        self.start_config(["nginx", "-p", "{dir}/", "-e", "error.log", "-c", "{dir}/conf"],
                          "bench-nginx", text, self.servers, self.cpus.client,
                          (SERVERS[0], TLS_PORT))

    def start_proxies(self):
        """The local proxies that are installed, name -> port."""
        backend = f"{SERVERS[0]}:{TLS_PORT}"
        there = {}
        if os.path.exists("/usr/lib/nginx/modules/ngx_stream_module.so"):
            there["nginx stream proxy"] = (
                ["nginx", "-p", "{dir}/", "-e", "error.log", "-c", "{dir}/conf"], NGINX_STREAM)
        if shutil.which("haproxy"):
            there["haproxy"] = (["haproxy", "-db", "-f", "{dir}/conf"], HAPROXY)
        for name, (argv, text) in there.items():
            port = PROXIES[name]
            self.start_config(argv, name.replace(" ", "-"), text.format(port=port, backend=backend),
                              self.world.node, self.cpus.client, (FRONTEND, port))
        return {name: PROXIES[name] for name in there}

    def run(self, *args, check=True):
        """bench_client in the node and in our cgroup; what it measured."""
        done = self.world.exec(self.cpus.as_client([self.client, *args]), cgroup=self.cgroup,
                               timeout=300)
        if done.returncode != 0:
            if check:
                raise WorldError(f"bench_client {args}: {done.stderr.strip()}")
            return None
        return json.loads(done.stdout)

    def attach(self, backends=1, policy="least-conn", port=PLAIN_PORT):
        self.world.configure(backends=[f"{a}:{port}" for a in SERVERS[:backends]], policy=policy,
                             cgroup=self.cgroup)
        done = self.world.load()
        if done.returncode != 0:
            raise WorldError(f"kubelb-load: {done.stderr.strip()}")

    def detach(self):
        done = self.world.detach()
        if done.returncode != 0:
            raise WorldError(f"kubelb-load --detach: {done.stderr.strip()}")

    def set_attached(self, attached):
        """Attached with three plain backends, or not at all."""
        if attached:
            self.attach(3)
        else:
            self.detach()

    def warn_of_statistics(self):
        """They can be held on by an open descriptor of another process as well."""
        self.attach(1)
        self.run("connects", "-n", 10, FRONTEND, FRONTEND_PORT)
        if any(count for _time, count in run_counts(self.program_ids()).values()):
            print("  (another process has the kernel measure BPF programs: two clock reads for "
                  "each run are in these figures)")

    def program_ids(self):
        """Name -> id of the programs that kubelb-load has attached for us."""
        ids = {}
        for path in glob.glob(f"{self.world.pin}/links/*"):
            program = bpftool("link", "show", "pinned", path)["prog_id"]
            ids[bpftool("prog", "show", "id", program)["name"]] = program
        return ids


# --- programs ----------------------------------------------------------------


def load_floor(stage):
    """The empty programs, by attach type; their pins."""
    source = os.path.join(stage.world.dir, "floor.bpf.c")
    pin = stage.world.pin + "-floor"
    with open(source, "w", encoding="ascii") as f:
        f.write(FLOOR_C)
    run_checked(["clang", "-O2", "-target", "bpf", "-c", source, "-o", source + ".o"])
    os.makedirs(pin)
    run_checked(["bpftool", "prog", "loadall", source + ".o", pin])
    return {"connect4": f"{pin}/{FLOOR}", "sock_ops": f"{pin}/{FLOOR}_ops"}


@contextlib.contextmanager
def floor_programs(stage, *kinds):
    """Programs that do nothing, attached; their ids. What they cost is what the kernel
    takes to run a program there, and to measure it."""
    pins = load_floor(stage)
    ids = {}
    try:
        for kind in kinds:
            ids[kind] = bpftool("prog", "show", "pinned", pins[kind])["id"]
            run_checked(["bpftool", "cgroup", "attach", stage.cgroup, kind, "pinned",
                         pins[kind], "multi"])
    finally:
        shutil.rmtree(stage.world.pin + "-floor")  # being attached keeps them
    try:
        yield ids
    finally:
        for kind, program in ids.items():
            run_checked(["bpftool", "cgroup", "detach", stage.cgroup, kind, "id", str(program)])


@contextlib.contextmanager
def floor_program(stage):
    """The one beside KubeLB's connect program."""
    with floor_programs(stage, "connect4") as ids:
        yield ids["connect4"]


def empty_programs(stage):
    """At the hooks that every IPv4 connection passes."""
    return floor_programs(stage, "connect4", "sock_ops")


def run_counts(ids):
    shown = {name: bpftool("prog", "show", "id", i) for name, i in ids.items()}
    return {name: (s.get("run_time_ns", 0), s.get("run_cnt", 0)) for name, s in shown.items()}


def cost_of(stage, ids, host, port):
    """Name -> nanoseconds per run in one round of connects, of those that ran
    for each of them; TOGETHER -> of all programs for one connection, less what
    measuring each run takes."""
    n = stage.effort["connects"]
    before = run_counts(ids)
    stage.run("connects", "-n", n, "--peer", host, port)
    after = run_counts(ids)
    runs = {name: (after[name][0] - before[name][0], after[name][1] - before[name][1])
            for name in ids}
    cost = {name: time_ns / count for name, (time_ns, count) in runs.items()
            if count >= 0.99 * n}
    cost[TOGETHER] = sum(time_ns - count * cost.get(FLOOR, 0)
                         for name, (time_ns, count) in runs.items()
                         if name != FLOOR and "getpeer" not in name) / n
    return cost


def rounds_of(stage, ids, host, port=FRONTEND_PORT):
    """Name -> nanoseconds per run, one value for each round."""
    connect = "klb_connect6" if ":" in host else "klb_connect4"
    rounds = [cost_of(stage, ids, host, port) for _ in range(stage.effort["rounds"])]
    if any(connect not in r for r in rounds):
        raise WorldError(f"{connect} did not run for every connect to {host}")
    return {name: [r[name] for r in rounds] for name in rounds[0]
            if all(name in r for r in rounds)}


def measure_programs(stage, report):
    effort = stage.effort
    report.start("programs", "BPF programs, nanoseconds per run",
                 f"each round is the mean over {effort['connects']} connects in a row; "
                 f"{effort['rounds']} rounds",
                 "two clock reads by the kernel are part of every figure: see the empty program",
                 "connect to close: all runs of all programs but getpeername's, less that")
    with bpf_statistics(), floor_program(stage) as floor:
        stage.attach(3)
        cost = rounds_of(stage, {**stage.program_ids(), FLOOR: floor}, SERVERS[0], PLAIN_PORT)
        report.row("empty program (the measurement itself)", cost.pop(FLOOR), "ns")
        for name, values in cost.items():
            report.row(f"{name}, somebody else's socket", values, "ns")
        for count, limit in ((3, 250), (64, 900)):
            for policy in POLICIES:
                stage.attach(count, policy)
                measure_policy(stage, report, {**stage.program_ids(), FLOOR: floor}, count,
                               policy, limit)
        stage.detach()


def measure_policy(stage, report, ids, count, policy, limit):
    what = f"{policy}, {count} backends"
    cost = rounds_of(stage, ids, FRONTEND)
    cost.pop(FLOOR)
    connect4 = cost.pop("klb_connect4")
    if policy in ("least-conn", "random"):
        report.at_most(f"klb_connect4, {what}", connect4, "ns", limit)
    else:
        report.row(f"klb_connect4, {what}", connect4, "ns")
    if policy != POLICIES[0]:
        return
    cost6 = rounds_of(stage, ids, FRONTEND6)
    report.row(f"klb_connect6, {what}", cost6.pop("klb_connect6"), "ns")
    if count == 3:
        for name in (FLOOR, TOGETHER):
            cost6.pop(name, None)
        for name, values in {**cost6, **cost}.items():
            report.row(f"{name}, balanced socket", values, "ns")
    else:
        report.row(f"{TOGETHER}, {count} backends", cost[TOGETHER], "ns")


# --- connects ----------------------------------------------------------------


def measure_connects(stage, report):
    effort = stage.effort
    report.start("connects", "connect() to a server on the same machine, ns",
                 f"{effort['pairs']} interleaved rounds of {effort['timed']} connects; "
                 "the 10th percentile of each run")
    stage.warn_of_statistics()
    direct, frontend = (SERVERS[0], PLAIN_PORT), (FRONTEND, FRONTEND_PORT)
    targets = {"direct, without KubeLB": (False, direct), "direct": (True, direct),
               "frontend": (True, frontend)}

    def measure(target):
        stage.set_attached(target[0])
        return stage.run("connects", "-n", effort["timed"], *target[1])

    values = by_key(interleaved(targets, effort["pairs"], measure), UNDISTURBED)
    base, *others = targets
    for name in targets:
        report.row(name, values[name], "ns")
    for name in others:
        report.row(f"  {name}, more than without KubeLB",
                   [a - b for a, b in zip(values[name], values[base])], "ns")
    stage.detach()


# --- requests ----------------------------------------------------------------


def interleaved(targets, rounds, measure):
    """name -> values. Every round measures every target once, each time
    starting with another one, so that drift hits all alike."""
    names = list(targets)
    values = {name: [] for name in names}
    for i in range(rounds):
        for name in names[i % len(names):] + names[:i % len(names)]:
            values[name].append(measure(targets[name]))
    return values


def report_ratios(report, values, what, unit, digits, target=None):
    """Every name, and the others against the first by round."""
    base, *others = values
    for name in values:
        report.row(f"{what}, {name}", values[name], unit, digits)
    for name in others:
        medians = statistics.median(values[name]) / statistics.median(values[base])
        pairs = [a / b for a, b in zip(values[name], values[base])]
        label = f"{what}, {name} / {base}"
        if target and name == "frontend":
            report.row(label, pairs, "ratio", 4, f">= {target}", lambda m: m >= target)
        else:
            report.row(label, pairs, "ratio", 4)
        print(f"    ratio of the medians: {medians:.4f}")


def measure_requests(stage, report):
    effort = stage.effort
    stage.attach(1, port=TLS_PORT)
    targets = {"direct": (SERVERS[0], TLS_PORT), "frontend": (FRONTEND, FRONTEND_PORT)}
    for name, port in stage.start_proxies().items():
        targets[name] = (FRONTEND, port)
    report.start("requests", "One kept TLS connection, one backend",
                 f"{effort['request_pairs']} interleaved rounds of {effort['seconds']:g} s "
                 f"({effort['bulk_pairs']} for bulk); ratios are by round",
                 "client, server and proxy share one CPU: the rate is the inverse of the work",
                 "by median time: at the rate that the median request of a run allows, which "
                 "others' load leaves alone")
    values = interleaved(targets, effort["request_pairs"], lambda target: stage.run(
        "requests", "--seconds", effort["seconds"], *target))
    undisturbed = {name: [1e6 / time_us for time_us in runs]
                   for name, runs in by_key(values, "p50_us").items()}
    report_ratios(report, undisturbed, "requests/s by median time", "requests/s", 0, 0.97)
    report_ratios(report, by_key(values, "rps"), "requests/s in all", "requests/s", 0)
    for name, runs in by_key(values, "p99_us").items():
        report.row(f"99th percentile, {name}", runs, "us", 1)
    values = interleaved(targets, effort["bulk_pairs"], lambda target: stage.run(
        "requests", "--path", "/bulk", "--seconds", effort["seconds"], *target))
    report_ratios(report, by_key(values, "mb_per_s"), "MB/s", "MB/s", 0)
    stage.detach()


def by_key(values, key):
    return {name: [run[key] for run in runs] for name, runs in values.items()}


# --- unrelated ---------------------------------------------------------------


def measure_unrelated(stage, report):
    effort = stage.effort
    others = other_programs()
    notes = [f"{effort['pairs']} interleaved pairs of {effort['timed']} each, KubeLB attached or "
             "detached before every run"]
    if others:
        notes.append(f"{others} connect4 programs of somebody else run on both sides")
    report.start("unrelated", "connect + accept + close on the loopback, not to a frontend, ns",
                 *notes)
    stage.warn_of_statistics()

    def measure(attached):
        if attached is None:
            stage.detach()
            with empty_programs(stage):
                return stage.run("unrelated", "-n", effort["timed"])
        stage.set_attached(attached)
        return stage.run("unrelated", "-n", effort["timed"])

    values = interleaved({"without": False, "with": True, "empty": None}, effort["pairs"],
                         measure)
    for key, text in ((UNDISTURBED, "10th percentile"), ("p50_ns", "median"), ("mean_ns", "mean")):
        runs = by_key(values, key)
        for name, label in (("without", "without KubeLB"), ("with", "with KubeLB"),
                            ("empty", "with empty programs")):
            report.row(f"{text} of a run, {label}", runs[name], "ns")
        report.row(f"{text} of a run, empty programs / without",
                   [a / b for a, b in zip(runs["empty"], runs["without"])], "ratio", 4)
        pairs = [a / b for a, b in zip(runs["with"], runs["without"])]
        label = f"{text} of a run, with / without"
        if key == UNDISTURBED:
            report.at_most(label, pairs, "ratio", 1.02, 4)
        else:
            report.row(label, pairs, "ratio", 4)
    stage.detach()


# --- command line ------------------------------------------------------------


def parse(argv):
    parser = argparse.ArgumentParser(prog="bench.sh", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true",
                        help="fewer and shorter rounds")
    parser.add_argument("--only", metavar="GROUP,...", default=",".join(GROUPS),
                        help=f"some of: {', '.join(GROUPS)}")
    parser.add_argument("--json", metavar="FILE", help="write everything measured there as well")
    args = parser.parse_args(argv)
    args.only = args.only.split(",")
    for group in args.only:
        if group not in GROUPS:
            parser.error(f"--only: no group '{group}'; want some of {', '.join(GROUPS)}")
    return args


def measure(group, stage, report):
    if group == "programs":
        measure_programs(stage, report)
    elif group == "agent":
        measure_agent(stage, report, [f"{a}:{TLS_PORT}" for a in SERVERS])
    elif group in AGENT_GROUPS:
        AGENT_GROUPS[group](stage.effort, report)
    else:
        timed = {"connects": measure_connects, "requests": measure_requests,
                 "unrelated": measure_unrelated}
        with no_bpf_statistics():
            timed[group](stage, report)


def run(args, report):
    cpus = Cpus()
    about = {**machine(), "load_before": os.getloadavg()[0]}
    print(f"KubeLB benchmark: Linux {about['kernel']}, {about['cpus']} x {about['cpu']}, "
          f"load {about['load_before']:.2f}; {cpus.text}")
    stolen, total = cpu_times()
    with World(backends=0) as world:
        stage = Stage(world, cpus, QUICK if args.quick else FULL)
        for group in (g for g in GROUPS if g in args.only):
            try:
                measure(group, stage, report)
            except (WorldError, OSError, KeyError, ValueError, AssertionError,
                    subprocess.SubprocessError) as e:
                report.problem(group, f"{type(e).__name__}: {e}")
                with contextlib.suppress(WorldError):
                    stage.detach()
    stolen_after, total_after = cpu_times()
    about["load_after"] = os.getloadavg()[0]
    about["stolen_percent"] = 100 * (stolen_after - stolen) / max(1, total_after - total)
    report.end()
    print(f"Load at the end {about['load_after']:.2f}; {about['stolen_percent']:.1f} % of the CPU "
          "time was taken by the hypervisor.")
    return about


def main(argv=None):
    args = parse(argv)
    if os.geteuid() != 0:
        print("bench.py: needs root (network namespaces, bpffs)", file=sys.stderr)
        return 1
    raise_on_signals()
    report = Report()
    try:
        about = run(args, report)
        if args.json:
            with open(args.json, "w", encoding="utf-8") as f:
                json.dump({"machine": about, "rows": report.rows, "problems": report.problems}, f,
                          indent=1)
                f.write("\n")
    except (WorldError, OSError) as e:
        print(f"bench.py: {e}", file=sys.stderr)
        return 1
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
