# SPDX-License-Identifier: BSD-2-Clause
"""The groups of bench.py that are about kubelb-agent."""

import glob
import json
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(os.path.dirname(HERE), "world"),
                os.path.join(os.path.dirname(HERE), "e2e")]

from deaths import USUAL, measure_deaths  # noqa: E402  (after sys.path)
from helpers import Kept, dial_error, wait_states  # noqa: E402
from observe import Background, known, kubeconfig, metric, wait_known  # noqa: E402
from system import WorldError, wait_until  # noqa: E402
from world import World  # noqa: E402

INTERVAL = 5  # of USUAL, in seconds
HAPROXY_PORT = 6445
# Kubespray's, less what logs.
HAPROXY = """\
global
	maxconn 4000
defaults
	mode http
	option http-server-close
	option redispatch
	retries 5
	timeout http-request 5m
	timeout queue 5m
	timeout connect 30s
	timeout client 5m
	timeout server 15m
	timeout http-keep-alive 30s
	timeout check 30s
	maxconn 4000
frontend kube_api_frontend
	bind 127.0.0.1:{port}
	mode tcp
	default_backend kube_api_backend
backend kube_api_backend
	mode tcp
	balance leastconn
	default-server inter 15s downinter 15s rise 2 fall 2 slowstart 60s maxconn 1000 maxqueue 256 weight 100
	option httpchk GET /healthz
	http-check expect status 200
{servers}
"""
KEPT = 6  # a node's kubelet, kube-proxy and the like
REQUESTS_A_SECOND = 20


# --- agent -------------------------------------------------------------------


def status_kib(pid, field):
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        for line in f:
            if line.startswith(field + ":"):
                return int(line.split()[1])
    raise WorldError(f"/proc/{pid}/status has no {field}")


def on_cpu_ns(pid):
    """Time on a CPU of all threads, with the scheduler's own precision."""
    total = 0
    for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
        with open(path, encoding="ascii") as f:
            total += int(f.read().split()[0])
    return total


def measure_agent(stage, report, backends):
    report.start("agent", "kubelb-agent at rest, ready backends, probes every 5 s")
    for count, limit in ((3, 8), (64, 16)):
        measure_at_rest(stage, report, backends[:count], limit)


def measure_at_rest(stage, report, backends, limit):
    effort, what = stage.effort, f"{len(backends)} backends"
    stage.world.configure(backends=backends, cgroup=stage.cgroup, probe=USUAL)
    agent = stage.world.agent()

    def ready():
        if not agent.alive():
            raise WorldError(f"kubelb-agent has ended: {agent.log()}")
        done = stage.world.ctl("status", "-o", "json")
        return done.returncode == 0 and [b["state"] for b in json.loads(done.stdout)["backends"]] \
            == ["ready"] * len(backends)

    wait_until(ready, lambda: f"{what} to be ready: {agent.log()}", 30)
    time.sleep(effort["agent_settle"])
    report.at_most(f"{what}: resident memory (VmRSS)",
                   [status_kib(agent.pid, "VmRSS") / 1024], "MiB", limit, 1)
    report.row("  of it anonymous (RssAnon)", [status_kib(agent.pid, "RssAnon") / 1024], "MiB", 1)
    probes = metric(stage.world, "kubelb_probes_total")
    memory, start, begin = status_kib(agent.pid, "RssAnon"), on_cpu_ns(agent.pid), \
        time.monotonic()
    time.sleep(effort["agent_idle"])
    spent, took = on_cpu_ns(agent.pid) - start, time.monotonic() - begin
    report.row(f"{what}: CPU time in {effort['agent_idle']} s", [spent / 1e6], "ms", 2)
    report.at_most("  of one CPU", [100 * spent / 1e9 / took], "%", 1, 4)
    report.at_most("  RssAnon, grown meanwhile", [status_kib(agent.pid, "RssAnon") - memory],
                   "KiB", 64)
    report_made(report, metric(stage.world, "kubelb_probes_total") - probes,
                len(backends) * took / INTERVAL)
    agent.stop()
    stage.detach()


def report_made(report, made, due):
    """Whoever does nothing needs no CPU time."""
    report.row("  probes made meanwhile", [made], "")
    if not 0.5 * due <= made <= 2 * due:
        raise WorldError(f"{made:.0f} probes, where {due:.0f} were due")


# --- probes ------------------------------------------------------------------


def start_haproxy(world, backends):
    servers = "\n".join(f"\tserver {b.name} {b.endpoint} check check-ssl verify none"
                        for b in backends)
    path = os.path.join(world.dir, "haproxy.cfg")
    with open(path, "w", encoding="utf-8") as f:
        f.write(HAPROXY.format(port=HAPROXY_PORT, servers=servers))
    process = world.spawn(["haproxy", "-db", "-f", path], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL)
    wait_until(lambda: process.poll() is not None or not dial_error(world, port=HAPROXY_PORT),
               "haproxy to listen")
    if process.poll() is not None:
        raise WorldError(f"haproxy has ended with {process.returncode}")


def probe_load(apis):
    """(handshakes, requests for health) that each of them has seen."""
    counters = [api.counters() for api in apis]
    return [(c["handshakes"]["full"] + c["handshakes"]["resumed"],
             sum(c["requests"].get(path, 0) for path in ("/readyz", "/livez", "/healthz")))
            for c in counters]


class Clients(Background):
    """Clients that keep a connection each and ask for something all the time, as a node's do.
    Their own handshakes are over when the block begins."""

    def __init__(self, world, port):
        super().__init__()
        self.connections = [Kept(world, port=port) for _ in range(KEPT)]
        self.answers = 0

    def work(self):
        while not self.ending.is_set():
            for connection in self.connections:
                connection.get("/version")
                self.answers += 1
                self.ending.wait(1 / REQUESTS_A_SECOND)

    def __enter__(self):
        return self.begun(lambda: self.answers, "answers to begin")

    def stop(self):
        super().stop()
        for connection in self.connections:
            connection.close()


def measure_probes(effort, report):
    seconds = effort["probe_seconds"]
    report.start("probes", "What probes cost one apiserver, per minute",
                 f"{seconds} s; three apiservers each, {REQUESTS_A_SECOND} requests a second "
                 f"on {KEPT} connections through either; a value for each apiserver",
                 "haproxy: GET /healthz every 15 s, as Kubespray has it")
    before, after, skipped = count_probes(seconds, probe_load)
    check_due(sum(a[1] - b[1] for a, b in zip(after[0], before[0])) + skipped,
              len(before[0]) * seconds / INTERVAL)
    report_probes(report, before, after, seconds / 60)
    report.row("probes that kubelb left out, all apiservers", [skipped], "")


def count_probes(seconds, load, **settings):
    """What load() sees of KubeLB's and of HAProxy's three apiservers, with these settings, before and
    after so many seconds with traffic, and how many probes KubeLB left out."""
    with World(backends=6) as world:
        apis = [world.apiserver(i, **settings) for i in range(1, 7)]
        ours, theirs = apis[:3], apis[3:]
        world.configure(backends=[api.endpoint for api in ours], probe=USUAL)
        world.agent()
        wait_states(world, "ready", ours)
        start_haproxy(world, theirs)
        for api in theirs:
            api.wait_counters(lambda c: c["requests"].get("/healthz", 0) >= 1, "a check", 40)
        with Clients(world, 6443), Clients(world, HAPROXY_PORT):
            skipped = metric(world, "kubelb_probes_skipped_total")
            before = [load(ours), load(theirs)]
            time.sleep(seconds)
            after = [load(ours), load(theirs)]
            skipped = metric(world, "kubelb_probes_skipped_total") - skipped
    return before, after, skipped


def check_due(looked, due):
    """Made or left out because clients had just had data: looking never is the cheapest."""
    if looked < 0.5 * due:
        raise WorldError(f"{looked:.0f} probes made or left out, where {due:.0f} were due")


def report_probes(report, before, after, minutes):
    for kind, text, share in ((0, "TLS handshakes", 0.1), (1, "requests", 0.5)):
        kubelb, haproxy = ([(a[kind] - b[kind]) / minutes for a, b in zip(after[i], before[i])]
                           for i in (0, 1))
        report.row(f"{text}, haproxy", haproxy, "per minute", 2)
        report.row(f"{text}, kubelb", kubelb, "per minute", 2)
        if not sum(haproxy):
            raise WorldError(f"haproxy made no {text}: nothing to compare with")
        report.at_most(f"{text}, kubelb / haproxy", [sum(kubelb) / sum(haproxy)], "ratio", share,
                       3)


# --- steady ------------------------------------------------------------------

SPARSE = 6 * INTERVAL  # seconds between requests for /readyz while clients have data


def steady_load(apis):
    """(handshakes, PINGs, requests for health) that each of them has seen."""
    pings = [api.counters()["pings"] for api in apis]
    return [(load[0], seen, load[1]) for load, seen in zip(probe_load(apis), pings)]


def measure_steady(effort, report):
    """With --steady-seconds 3600: what an hour costs."""
    seconds = effort["steady_seconds"]
    report.start("steady", "What the agent costs an apiserver with HTTP/2 while nothing happens",
                 f"{seconds} s; three apiservers, {REQUESTS_A_SECOND} requests a second on {KEPT} "
                 "connections; a value for each apiserver")
    with World(backends=3) as world:
        # As kube-apiserver has it: a connection without a stream is closed after 90 s.
        apis = [world.apiserver(i, alpn=["h2", "http/1.1"], idle_timeout=90) for i in (1, 2, 3)]
        world.configure(probe=USUAL)
        agent = world.agent()
        wait_states(world, "ready", apis)
        with Clients(world, 6443):
            # The last connection that the start has needed, the last probe of it.
            time.sleep(SPARSE)
            before, spent, begin = steady_load(apis), on_cpu_ns(agent.pid), time.monotonic()
            time.sleep(seconds)
            after, took = steady_load(apis), time.monotonic() - begin
            spent = on_cpu_ns(agent.pid) - spent
        report_steady(report, before, after, took)
        report.at_most("CPU time of the agent, of one CPU", [100 * spent / 1e9 / took], "%", 0.3, 3)
        report.at_most("resident memory of the agent",
                       [status_kib(agent.pid, "VmRSS") / 1024], "MiB", 6.5, 2)


def report_steady(report, before, after, seconds):
    handshakes, pings, requests = ([a[i] - b[i] for a, b in zip(after, before)] for i in range(3))
    report.row("TLS handshakes", handshakes, "", 0, "<= 0", lambda _m: not any(handshakes))
    # Each comes after four fifths to the whole of a second.
    report.at_most("PINGs a second", [n / seconds for n in pings], "", 1.25, 3)
    # Each may come a fifth earlier, and a whole interval does not fit in a run's end.
    report.at_most(f"requests for health in {SPARSE} s", [n * SPARSE / seconds for n in requests],
                   "", 1.25, 3)
    if min(pings) < 0.5 * seconds or not min(requests):
        raise WorldError(f"{pings} PINGs and {requests} requests in {seconds:.0f} s: nobody looks")


# --- watch -------------------------------------------------------------------

SINGLE = 10  # single changes, of which none may be missed


def measure_watch(effort, report):
    events = effort["events"]
    report.start("watch", f"{events} EndpointSlice events in one go, every one another list",
                 f"then {SINGLE} single ones, each waited for, and as many again in one go")
    with World(backends=3) as world:
        apis = [world.apiserver(i, tokens={"t1": "system:node:worker"}) for i in (1, 2, 3)]
        world.configure(backends=[apis[0].endpoint], slowStart="0", probe=USUAL,
                        discovery={"kubeconfig": kubeconfig(world, "token: t1"), "cache": ""})
        agent = world.agent()
        wait_known(world, apis)
        wait_states(world, "ready", apis)
        took, cpu, lists, grown = burst_once(world, agent, apis, events)
        report.row("until the last list is in the maps", [took], "s", 2)
        report.row("  CPU time of the agent for it", [cpu], "s", 2)
        report.row("  lists that it took up", [lists], "")
        report.at_most("  RssAnon, grown by", [grown / 1024], "MiB", 1, 2)
        report.at_most("a single change, until it is in the maps",
                       single_changes(world, apis), "ms", 1000, 0)
        # By now nothing is new: what still grows, grows for ever.
        grown = burst_once(world, agent, apis, events)[3]
        report.at_most("RssAnon, grown by a second burst", [grown], "KiB", 128)


def burst_once(world, agent, apis, events):
    """So many events; (seconds, CPU seconds, lists taken up, KiB grown) until the last one
    counts."""
    addresses = [api.v4 for api in apis]
    memory, cpu, start = status_kib(agent.pid, "RssAnon"), on_cpu_ns(agent.pid), time.monotonic()
    applied = metric(world, "kubelb_discovery_updates_total", result="applied")
    world.etcd.burst(events, "kubernetes", addresses)
    world.etcd.put("kubernetes", addresses[:2])
    took = wait_last(world, agent, apis[:2]) - start
    return (took, (on_cpu_ns(agent.pid) - cpu) / 1e9,
            metric(world, "kubelb_discovery_updates_total", result="applied") - applied,
            status_kib(agent.pid, "RssAnon") - memory)


def single_changes(world, apis):
    """Milliseconds until each was in the maps; the list has two at first."""
    took = []
    for i in range(SINGLE):
        want = apis[:2 + (i + 1) % 2]
        start = time.monotonic()
        world.etcd.put("kubernetes", [api.v4 for api in want])
        wait_known(world, want)
        took.append(1000 * (time.monotonic() - start))
    return took


def wait_last(world, agent, apis):
    """Until the cluster's last word is what counts, and stays it: the list before is the
    same with one more, so nothing short of the last event gives it for good. Since when."""
    want, since = {api.endpoint for api in apis}, [None]

    def settled():
        if not agent.alive():
            raise WorldError(f"kubelb-agent has ended: {agent.log()[-2000:]}")
        if known(world) != want:
            since[0] = None
        elif since[0] is None:
            since[0] = time.monotonic()
        return since[0] and time.monotonic() - since[0] > 2

    wait_until(settled, lambda: f"the last list, have {known(world)}", 120, 0.1)
    errors = sum(metric(world, "kubelb_discovery_updates_total", result=r)
                 for r in ("error", "expired"))
    if errors:
        print(f"    (the watch was made anew {errors:.0f} times)")
    return since[0]


AGENT_GROUPS = {"probes": measure_probes, "steady": measure_steady, "deaths": measure_deaths,
                "watch": measure_watch}
