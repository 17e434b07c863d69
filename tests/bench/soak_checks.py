# SPDX-License-Identifier: BSD-2-Clause
"""What has to hold whenever the soak test's node is at rest: the counts are exact, nothing has
been left behind, and what the agent says agrees with that."""

import collections
import glob
import json
import os
import re

from agentbench import status_kib
from helpers import (bpftool_ok, carried, dump, http_call, link_pins, metrics_of, metrics_page,
                     objects, ok, pins, stats)
from soak_clients import listed, sockets
from system import WorldError, run_checked, wait_until

EVEN = 60  # seconds until counts agree: a FIN to one that was cut off is sent again by then
GONE = 30  # seconds until what is not used any more is gone
AGENT_KIB = 24 << 10
AGENT_GROWS_KIB = 2 << 10
YOUNG = 5  # quiet points in which an agent may still grow
KERNEL_KIB = 64 << 10
RELAY_RULE = "proto 75"

CHECKED = """\
- the kernel's counts of each backend, its list of connections, the sockets of the node (`ss`) and those that
  the backend itself has are the same, connection by connection; nothing is connecting; no id without a backend has a count
- pins, maps, programs and links: those of the version that is attached, and none of what was before
- the agent: processes, descriptors, threads, at most 24 MiB, and not 2 MiB more than when it was young; no counter of it goes backwards while it runs
- the node's rules, routes, nftables and qdiscs are as at first; the rescue's rule is there only while somebody may need it
- no file beside those that were there at first
- `kubelbctl status`, `/status.json` and `kubelbctl doctor`: all are ready, and nothing is wrong
- each client has an answer to a question asked since, each watch the newest change"""


class Problem(Exception):
    """Something does not hold."""


def one_each(checks, stage):
    """What is wrong, of all of them. What has been told is how it is from then on: whatever comes
    next is told as well, and nobody waits for the first again."""
    problems = []
    for check in checks:
        try:
            check(stage)
        except (Problem, WorldError, AssertionError, OSError, KeyError, ValueError) as e:
            problems.append(f"{check.__name__}: {e}")
            stage.forget(check.__name__)
    return problems


def hold(condition, what, seconds=None):
    """condition() is a list of what is wrong; it has to be empty within that time, or GONE."""
    wrong = []

    def right():
        wrong[:] = condition() or ()
        return not wrong

    try:
        wait_until(right, "", seconds or GONE, 0.1)
    except WorldError:
        raise Problem(f"{what}: {'; '.join(wrong)}") from None


# --- counts -------------------------------------------------------------------


def views(stage):
    """Backend -> its connections, as the kernel has them in records, and as node and backend see
    them; and the node's connections that no backend knows: they go to the relay. A connection
    is (ADDRESS:PORT, endpoint)."""
    records, node = listed(stage.world), sockets(stage.world)
    stage.foreign &= node - records
    known, probes = set(), set()
    for backend in stage.world.backends:
        for client in backend.clients(open=True):
            pair = client["client"], backend.endpoint
            known.add(pair)
            if client["requests"].keys() & {"/readyz", "/livez"}:
                probes.add(pair)
    real = (node & known) - probes - stage.foreign
    return records, real, node - known - stage.foreign


def split(pairs, endpoint):
    return sorted(local for local, remote in pairs if remote == endpoint)


def uneven(stage):
    records, real, relayed = views(stage)
    active, connecting = stats(stage.world, "active"), stats(stage.world, "connecting")
    wrong = []
    for backend in stage.world.backends:
        name, count = backend.name, len(split(real, backend.endpoint))
        if active.get(name) != count or connecting.get(name):
            wrong.append(f"{name}: active {active.get(name)}, connecting {connecting.get(name)}, "
                         f"has {count} connections")
        for what, odd in (("records without a connection", records - real),
                          ("connections without a record", real - records)):
            if split(odd, backend.endpoint):
                wrong.append(f"{name}: {what}: {split(odd, backend.endpoint)}")
    lost = sum(carried(stage.world).values()) - sum(active.values()) - sum(connecting.values())
    if lost:
        wrong.append(f"ids without a backend carry {lost}: {carried(stage.world)}")
    if len(relayed) != stage.relayed():
        wrong.append(f"no backend knows {sorted(relayed)}, the agent relays {stage.relayed()}")
    return wrong


def check_counts(stage):
    hold(lambda: uneven(stage), "counts", EVEN)


def check_waiting(stage):
    """Nothing waits for a connect or an accept that is over."""
    hold(lambda: [f"relayed: {e}" for e in dump(stage.world, "relayed")], "map relayed")


# --- what may leak ------------------------------------------------------------


def check_pins(stage):
    stage.first(("check_pins", stage.world.build), pins(stage.world))
    if glob.glob(f"{glob.escape(stage.world.pin)}_*"):
        raise Problem(f"left beside the pins: {glob.glob(stage.world.pin + '_*')}")
    if len(link_pins(stage.world)) != 5:
        raise Problem(f"links: {link_pins(stage.world)}")


def check_objects(stage):
    """Whatever was ours once and is not now has gone."""
    now = {(kind, i) for kind, ids in objects(stage.world).items() for i in ids}
    stage.first(("check_objects", stage.world.build),
                collections.Counter(kind for kind, _i in now))
    old, stage.seen_objects = stage.seen_objects - now, now
    hold(lambda: [f"{kind} {i}" for kind, i in sorted(old) if bpftool_ok(kind, "show", "id", i)],
         "the kernel still has")


def descriptors(pid):
    """Kind -> how many."""
    found = collections.Counter()
    for path in glob.glob(f"/proc/{pid}/fd/*"):
        try:
            target = os.readlink(path)
        except FileNotFoundError:
            continue
        found[re.sub(r":\[\d+\]$", "", target) if target[:1] != "/" else "file"] += 1
    return found


def check_agent(stage):
    """Its descriptors but for sockets, its threads, its memory."""
    pid = stage.agent.pid
    first = stage.baseline.setdefault(("check_agent", stage.world.build), agent_has(pid))

    def more():
        return [f"{what}: {n}, at first {first[what]}" for what, n in agent_has(pid).items()
                if n > first[what]]

    hold(more, f"the agent {pid} has more")
    limit = 2 * stage.relayed() + 16
    hold(lambda: [f"{n} sockets" for n in [descriptors(pid)["socket"]] if n > limit],
         f"the agent {pid} has more than {limit}")
    check_memory(stage, pid)


def check_memory(stage, pid):
    now = status_kib(pid, "VmRSS")
    stage.grow("agent, KiB", now)
    life = stage.lives[pid]
    life.append(now)
    if now > AGENT_KIB or now - max(life[:YOUNG]) > AGENT_GROWS_KIB:
        raise Problem(f"the agent's memory, KiB: {life[:YOUNG]} at first, now {now}")


def agent_has(pid):
    found = descriptors(pid)
    del found["socket"]
    found["thread"] = len(os.listdir(f"/proc/{pid}/task"))
    return found


def check_processes(stage):
    """The agent, and its attacher."""
    def odd():
        pids = run_checked(["ip", "netns", "pids", stage.world.node]).split()
        names = collections.Counter()
        for pid in pids:
            try:
                with open(f"/proc/{pid}/comm", encoding="ascii") as f:
                    names[f.read().strip()] += 1
            except OSError:
                continue
        first = stage.baseline.setdefault(("check_processes",), names)
        return [f"{n} {name}, at first {first[name]}" for name, n in names.items()
                if n != first[name]]

    hold(odd, "processes in the node")


def network(stage):
    node = stage.world.node
    text = "".join(run_checked(argv) for argv in (
        ["ip", "-n", node, "rule"], ["ip", "-n", node, "-6", "rule"],
        ["ip", "-n", node, "route", "show", "table", "all"],
        ["ip", "-n", node, "-6", "route", "show", "table", "all"],
        ["tc", "-n", node, "qdisc", "show"], ["tc", "-n", stage.world.net, "qdisc", "show"]))
    tables = stage.world.exec(["nft", "list", "ruleset"])
    # The kernel adds a link's own address when it likes.
    return [line for line in (text + tables.stdout).splitlines() if "fe80:" not in line]


def check_network(stage):
    first = stage.baseline.setdefault(("check_network",), network(stage))

    def changed():
        now = network(stage)
        if stage.rescues():
            now = [line for line in now if RELAY_RULE not in line]
        return sorted({*now} ^ {*first})

    hold(changed, "rules, routes, tables or qdiscs")


def check_files(stage):
    """In the state's folder, and where the configuration is."""
    def listing():
        return sorted(f"{d}/{name}" for d in (stage.world.dir, stage.state)
                      for name in os.listdir(d) if not re.fullmatch(r"agent\d+\.log", name))

    hold(lambda: sorted({*listing()} ^ {*stage.baseline.setdefault(("check_files",), listing())}), "files")


def check_kernel_memory(stage):
    with open("/proc/meminfo", encoding="ascii") as f:
        fields = {line.split(":")[0]: int(line.split()[1]) for line in f}
    stage.grow("kernel, KiB", fields["SUnreclaim"] + fields.get("Percpu", 0))


# --- what is said -------------------------------------------------------------


def check_status(stage):
    """A state may change for a moment on a busy machine; all places say the same of it."""
    want = {b.endpoint: "ready" for b in stage.world.backends}

    def others():
        shown = {b["address"]: b["state"] for b in json.loads(
            ok(stage.world.ctl("status", "-o", "json")).stdout)["backends"]}
        status, _headers, body = http_call(stage.world, "GET", "/status.json")
        served = {b["address"]: b["state"] for b in json.loads(body)["backends"]}
        if status != 200 or shown != want or served != want:
            return [f"kubelbctl {shown}, /status.json {status} {served}"]
        status, _headers, body = http_call(stage.world, "GET", "/status")
        return [f"/status: {status} {body}"] if status != 200 or not all(
            endpoint in body for endpoint in want) else []

    hold(others, "status")


def check_doctor(stage):
    """Discovery tries again after a while, and doctor says so until then."""
    def faults():
        done = stage.world.ctl("-c", stage.world.config, "doctor")
        return done.returncode and [f"exit {done.returncode}", *(
            line for line in done.stdout.splitlines() if not line.startswith(("ok", "skip")))]

    hold(faults, "doctor", EVEN)


def check_metrics(stage):
    """Counters only go up, for as long as an agent lives, and the kernel's until a detach."""
    found, types = metrics_of(metrics_page(stage.world))
    now = {(name, *sorted(labels.items())): value for name, samples in found.items()
           for labels, value in samples
           if types.get(re.sub(r"_(bucket|sum|count)$", "", name), types.get(name))
           in ("counter", "histogram")}
    pid, before = stage.counters
    stage.counters = stage.agent.pid, now
    if pid == stage.agent.pid:
        back = [f"{key}: {before[key]:g}, then {value:g}" for key, value in now.items()
                if value < before.get(key, 0)]
        if back:
            raise Problem("; ".join(back))


CHECKS = (check_counts, check_waiting, check_pins, check_objects, check_agent, check_processes,
          check_network, check_files, check_kernel_memory, check_status, check_doctor,
          check_metrics)


# --- in the end ---------------------------------------------------------------


def check_nothing_counted(stage):
    """Without clients, only discovery's own connection."""
    hold(lambda: [f"{carried(stage.world)}, {len(stage.foreign)} of before a detach"]
         if sum(carried(stage.world).values()) > 1 else [], "connections without clients", EVEN)
    hold(lambda: [line for line in network(stage) if RELAY_RULE in line], "the rescue's rule", EVEN)


def check_all_gone(stage):
    """Detached, nothing of KubeLB is in the kernel or the network."""
    first = stage.baseline.get(("check_network",), network(stage))
    assert stage.agent.stop(timeout=30) == 0, "the agent's exit status"
    ok(stage.world.detach())
    hold(lambda: [f"{kind} {i}" for kind, i in sorted(stage.seen_objects)
                  if bpftool_ok(kind, "show", "id", i)], "the kernel still has")
    hold(lambda: glob.glob(glob.escape(stage.world.pin) + "*"), "pins")
    hold(lambda: sorted({*network(stage)} ^ {*first}), "the network")


def check_growth(stage):
    """The least of the last third beside the most of the first: what others on the machine do
    goes both ways."""
    values = stage.grown["kernel, KiB"]
    third = len(values) // 3
    if third and min(values[-third:]) - max(values[:third]) > KERNEL_KIB:
        raise Problem(f"the kernel's memory: {max(values[:third])} KiB at most at first, "
                      f"{min(values[-third:])} KiB at least in the end")


END_CHECKS = (check_nothing_counted, check_all_gone, check_growth)
