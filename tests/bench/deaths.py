# SPDX-License-Identifier: BSD-2-Clause
"""The group of bench.py about apiservers that die.

Who dials is somebody outside: a process of its own, a socket of its own for each connect, at
a steady rate whatever became of those before (bench_client dial). Its connects go to every
backend alike, the one that dies included, and that is counted by the servers: where it is
not so, nothing is reported, for "no connect has failed" would say nothing then.
"""

import collections
import contextlib
import json
import os
import signal
import time

from helpers import Accepts, Kept, ok, wait_idle, wait_states
from observe import BackendMap, direct, end_of, is_open
from backend import PORT
from system import WorldError, wait_until
from world import World

USUAL = {"interval": "5s", "timeout": "3s"}  # the defaults
BACKENDS = 3
KEPT = 3  # connections to each backend: as many, or least-conn would avoid one of them
# Of an even share of the connects, a backend that is about to die gets at least and at most.
SHARE = (0.5, 1.5)
# As long as a client waits (client-go's TLSHandshakeTimeout).
HANDSHAKE_SECONDS = 10
# Until a backend that has failed is dialled like the others again.
FORGIVEN_SECONDS = 60

# seconds: the key of how long the dialling goes on after it.
Fault = collections.namedtuple("Fault", "name begin end tls seconds")
Death = collections.namedtuple("Death", "share dials failed worst_ms known_s ends_s")


def begin_kill(cp):
    os.killpg(cp.pgid(), signal.SIGKILL)


def end_kill(cp):
    cp.kill()  # the world's own bookkeeping
    cp.start()


KILL = Fault("kill -9", begin_kill, end_kill, False, "dial_seconds")
HOLE = Fault("black hole", lambda cp: cp.link(up=False), lambda cp: cp.link(up=True), False,
             "dial_seconds")
# Until probes find it, which takes longer: its kernel goes on accepting.
HANG = Fault("hang", lambda cp: cp.stop(), lambda cp: cp.cont(), True, "hang_seconds")


# --- dialling -----------------------------------------------------------------


class Dialler:
    """bench_client dial in the node, for a number of seconds."""

    def __init__(self, world, rate, seconds, tls=False):
        self.seconds = seconds
        self.process = world.spawn([
            world.program("test/bench_client"), "dial", "--rate", rate, "--seconds", seconds,
            "--give-up", HANDSHAKE_SECONDS, *(["--tls"] if tls else []), "127.0.0.1", PORT])
        if self.process.stdout.readline() != "begun\n":
            raise WorldError(f"bench_client dial: {self.process.stderr.read()}")

    def outcomes(self):
        """[start, seconds, None or an errno's name] of every connect, in the end."""
        output, errors = self.process.communicate(timeout=self.seconds + HANDSHAKE_SECONDS + 10)
        if self.process.returncode != 0:
            raise WorldError(f"bench_client dial: {errors.strip()}")
        return json.loads(output)


@contextlib.contextmanager
def even_clients(world):
    """KEPT connections to each control plane: name -> those."""
    kept = collections.defaultdict(list)
    with contextlib.ExitStack() as clients:
        for _ in range(100 * BACKENDS):
            connection = Kept(world)
            name = connection.backend()
            if len(kept[name]) < KEPT:
                kept[name].append(clients.enter_context(connection))
            else:
                connection.close()
            if all(len(kept[b.name]) == KEPT for b in world.backends):
                break
        else:
            raise WorldError(f"no even clients: { {n: len(k) for n, k in kept.items()} }")
        yield kept


def share_of(counts, name):
    """The part of the connects that went to it, in percent; an even one, or nothing here
    would be worth reporting."""
    share = counts[name] / max(1, sum(counts.values()))
    if not SHARE[0] <= share * len(counts) <= SHARE[1]:
        raise WorldError(f"of the connects before the fault {name} got {counts}: no even share")
    return 100 * share


# --- one death ----------------------------------------------------------------


def one_death(world, maps, cp, fault, rate, effort):
    """One fault under traffic; what was seen of it. maps: None without an agent, and then it
    is only about the connects."""
    wait_idle(world)
    known, ends = None, []
    with even_clients(world) as kept, direct(world, cp) as own:
        accepts = Accepts(world)
        dialler = Dialler(world, rate, effort["dial_lead"] + effort[fault.seconds], fault.tls)
        time.sleep(effort["dial_lead"])
        share = share_of(accepts.now(), cp.name)
        start = time.monotonic()
        fault.begin(cp)
        try:
            if maps:
                known = maps.wait(cp.name, ("suspect", "dead"), 30)
                ends = [end_of(connection, 30) for connection in kept[cp.name]]
            after = [o for o in dialler.outcomes() if o[0] + o[1] >= start]
            check_others(kept, cp)
        finally:
            fault.end(cp)
        if fault is HOLE:
            check_own(own)
    if any(how is None for how, _at in ends):
        raise WorldError(f"clients of {cp.name} still wait 30 s after its {fault.name}")
    return Death(share, len(after), len([o for o in after if o[2]]),
                 1000 * max(o[1] for o in after), known and known - start,
                 [at - start for _how, at in ends])


def check_others(kept, cp):
    if not all(is_open(c) for name, kept_there in kept.items() if name != cp.name
               for c in kept_there):
        raise WorldError(f"clients of others than {cp.name} were ended as well")


def check_own(own):
    """Somebody's own connection to the same apiserver, which is none of ours."""
    own.sendall(b"GET / HTTP/1.0\r\n\r\n")  # to a TLS port: answered with 400
    if not own.recv(64).startswith(b"HTTP/1.1 400"):
        raise WorldError("somebody's own connection to the backend was ended")


def deaths_of(world, fault, count, rate, effort):
    """That fault for one control plane after another."""
    deaths = []
    with BackendMap(world) as maps:
        for i in range(count):
            cp = world.cp(i % BACKENDS + 1)
            deaths.append(one_death(world, maps, cp, fault, rate, effort))
            wait_states(world, "ready", world.backends, timeout=30)
            wait_forgiven(world)
    return deaths


def deaths_alone(world, fault, count, rate, effort):
    """The same without an agent."""
    deaths = []
    for i in range(count):
        deaths.append(one_death(world, None, world.cp(i % BACKENDS + 1), fault, rate, effort))
        wait_forgiven(world)
    return deaths


def wait_forgiven(world):
    def forgiven():
        done = world.ctl("status", "-o", "json")
        return done.returncode == 0 and not any(b["ejected"] for b in
                                                json.loads(done.stdout)["backends"])

    wait_until(forgiven, "no backend to be ejected", FORGIVEN_SECONDS, 0.1)


# --- report -------------------------------------------------------------------

# What a fault may cost: seconds until the maps know, until clients hear, failed connects.
# Clients of a killed server hear of it from its kernel, whatever we do, and whoever dials it
# is refused at once: that says nothing about us.
LIMITS = {KILL: (0.05, None, 1), HOLE: (3, 5, 4), HANG: (15, 25, 40)}
# Failed connects without an agent: one whenever an ejection is over, which doubles each time.
LIMITS_ALONE = {KILL: 6, HOLE: 6}


def report_worst(report, name, values, unit, limit, digits):
    """The median has the target; the worst, which min .. max shows, is a row as well."""
    report.at_most(name, values, unit, limit, digits)
    report.row("  the worst", [max(values)], unit, digits)


def report_deaths(report, fault, deaths, what):
    known, heard, failed = LIMITS[fault]
    unit, factor, digits = ("ms", 1000, 1) if fault is KILL else ("s", 1, 2)
    report_worst(report, f"{what}: in the maps", [d.known_s * factor for d in deaths], unit,
                 known * factor, digits)
    report_dials(report, fault, deaths, what, failed)
    if heard is not None:
        report_worst(report, f"{what}: its clients hear of it",
                     [s for d in deaths for s in d.ends_s], unit, heard, digits)


def report_dials(report, fault, deaths, what, limit):
    attempts = "TLS handshakes" if fault.tls else "connects"
    dials = min(d.dials for d in deaths)
    report_worst(report, f"{what}: {attempts} that fail, of {dials}",
                 [d.failed for d in deaths], "", limit, 0)
    report.row("  of those before the fault, to the dying one", [d.share for d in deaths], "%", 1)
    # Refused is at once, and who waits for a hung server waits for as long as he likes.
    if fault is HOLE:
        report.row("  the slowest of the connects", [d.worst_ms for d in deaths], "ms", 1)


def measure_deaths(effort, report):
    rate, fast = effort["dial_rate"], effort["dial_rate_fast"]
    report.start("deaths", "An apiserver dies: default intervals",
                 f"{effort['deaths']} rounds each; somebody outside dials {rate} times a second "
                 f"for {effort['dial_seconds']} s after the fault, {effort['hang_seconds']} s "
                 "after a hang",
                 f"{KEPT} kept connections to each backend")
    with World(backends=BACKENDS) as world:
        world.configure(probe=USUAL, slowStart="0")
        world.agent()
        wait_states(world, "ready", world.backends)
        for fault, count, a_second, what in (
                (KILL, effort["deaths"], rate, KILL.name),
                (KILL, effort["deaths_fast"], fast, f"{KILL.name}, {fast}/s"),
                (HOLE, effort["deaths"], rate, HOLE.name),
                (HANG, effort["deaths"], rate, HANG.name)):
            deaths = deaths_of(world, fault, count, a_second, effort)
            report_deaths(report, fault, deaths, what)
    with World(backends=BACKENDS) as world:
        ok(world.load())
        for fault, limit in LIMITS_ALONE.items():
            deaths = deaths_alone(world, fault, effort["deaths_alone"], rate, effort)
            report_dials(report, fault, deaths, f"{fault.name}, no agent", limit)
