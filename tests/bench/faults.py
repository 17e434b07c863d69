#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""What a fault of an apiserver costs its clients: how long until their connections are ended and
with what, until an informer hears the next event, and how many lists it takes for that; which
new clients fail, and for how long new ones still go there.

Three apiservers of tests/world that speak HTTP/2 and are in the cluster's list by a lease; an
agent with the default probes and discovery; on each backend kept connections and an informer
that behaves as client-go's (tests/clients/informer.py); new clients at a steady rate; a writer
that changes an object ten times a second.

    kill       kill -9                       vanish    the host: its link is cut
    hang       the process: SIGSTOP          shutdown  the host vanishes while it shuts down
    handlers   no new request is answered; PINGs are, and open watches go on
    unread     new connections are taken and not read from; the others go on
    drain      kubelbctl drain
    glitch     the link is cut for 0.8 s     pause     the process is stopped for 0.8 s

Run it by scripts/faults.sh, which builds first. After the last five faults nothing may be ended.
It prints a table, median and worst of the rounds; --json writes every round as well, "-" to
standard output. A fault takes from 15 s to over a minute a round. Exit status: 0 all was measured
(however bad), 1 something was not, 2 the command line is wrong.
"""

import argparse
import collections
import contextlib
import errno
import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)
sys.path[:0] = [HERE, os.path.join(TESTS, "world"), os.path.join(TESTS, "e2e")]

from deaths import BACKENDS, USUAL, begin_kill, end_kill, even_clients, wait_forgiven  # noqa: E402
from etcd import Etcd  # noqa: E402  (after sys.path)
from helpers import backend_status, ok, stats, wait_states  # noqa: E402
from observe import is_open, kubeconfig, wait_known  # noqa: E402
from system import WorldError, wait_until  # noqa: E402
from world import World, raise_on_signals  # noqa: E402

TOKEN = "t1"
LEASE = 15  # seconds, kube-apiserver's own
TICK = 0.1  # seconds between changes of the object that informers watch
RATE = 10  # new clients a second
ATTEMPTS = 5  # at even numbers of connections
BLINK = 0.8  # seconds of a glitch
LEAD = 1.5  # seconds of new clients before the fault
OBSERVED = 10  # seconds after the fault, at least
LIMIT = 70  # seconds after which nobody waits for an end or an event any more

# blink: it is over by itself. target: milliseconds until all of its clients' connections are
# ended; None: none of them may be.
Fault = collections.namedtuple("Fault", "prepare begin end blink target")


def nothing(_world, _cp):
    pass


def begin_shutdown(world, cp):
    """SIGTERM, and nobody's choice any more; its connections go on."""
    cp.terminate()

    def left():
        entry = backend_status(world).get(cp.endpoint)
        return entry is None or entry["state"] != "ready"

    wait_until(left, f"{cp.name} to be taken for one that shuts down", 30, 0.05)


def end_shutdown(_world, cp):
    cp.link(up=True)
    end_kill(cp)


def cut(_world, cp):
    cp.link(up=False)


def join(_world, cp):
    cp.link(up=True)


FAULTS = {
    "kill": Fault(nothing, lambda _world, cp: begin_kill(cp), lambda _world, cp: end_kill(cp), False, 200),
    "vanish": Fault(nothing, cut, join, False, 2200),
    "hang": Fault(nothing, lambda _world, cp: cp.stop(), lambda _world, cp: cp.cont(), False, 3500),
    "shutdown": Fault(begin_shutdown, cut, end_shutdown, False, 2200),
    "handlers": Fault(nothing, lambda _world, cp: cp.hang("handlers"),
                      lambda _world, cp: cp.hang(None), False, None),
    "unread": Fault(nothing, lambda _world, cp: cp.hang("tcp"), lambda _world, cp: cp.hang(None),
                    False, None),
    "drain": Fault(nothing, lambda world, cp: ok(world.ctl("drain", cp.endpoint)),
                   lambda world, cp: ok(world.ctl("undrain", cp.endpoint)), False, None),
    "glitch": Fault(nothing, cut, join, True, None),
    "pause": Fault(nothing, lambda _world, cp: cp.stop(), lambda _world, cp: cp.cont(), True, None),
}


# Nothing may be ended, and new clients are to leave it. To the others they may go on.
AVOIDED = ("unread", "drain")


# --- who is there -------------------------------------------------------------


class Writer:
    """Changes the object `tick`, which none but informers want, for the length of the block."""

    def __init__(self, world):
        self.etcd = Etcd(os.path.join(world.dir, "etcd"))
        self.revision = self.put(0)
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.work, daemon=True)

    def put(self, number):
        return self.etcd.put("tick", [f"10.0.{number // 250 % 250}.{number % 250}"],
                             service="tick")

    def work(self):
        number = 0
        while not self.ending.wait(TICK):
            number += 1
            self.revision = self.put(number)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.ending.set()
        self.thread.join(timeout=10)


class Informers:
    """So many of them, in one process."""

    def __init__(self, world, count):
        self.count = count
        self.path = os.path.join(world.dir, "informers.log")
        with open(self.path, "wb") as f:
            self.process = world.spawn(
                ["/usr/bin/python3", os.path.join(TESTS, "clients", "informer.py"), "--ca",
                 world.ca, "--token", TOKEN, "--name", "tick", "-n", count],
                stdin=subprocess.DEVNULL, stdout=f)

    def lines(self, what, **fields):
        with open(self.path, encoding="ascii") as f:
            lines = [json.loads(line) for line in f.read().rpartition("\n")[0].splitlines()]
        return [line for line in lines if line["what"] == what
                and all(line[k] == v for k, v in fields.items())]

    def wait_events(self):
        """Until each has heard of something."""
        wait_until(lambda: len({e["informer"] for e in self.lines("event")}) == self.count,
                   "events at every informer")

    def of(self, cp):
        """The informers that are on that one."""
        there = {c["client"] for c in cp.clients(protocol="h2", open=True)}
        last = {line["informer"]: line["local"] for line in self.lines("connected")}
        return [number for number, local in last.items() if local in there]

    def next_event(self, number, revision, seconds):
        """When that informer first hears of what was written after that revision; None."""
        def come():
            return next((e["at"] for e in self.lines("event", informer=number)
                         if e["version"] > revision), None)

        with contextlib.suppress(WorldError):
            return wait_until(come, "", seconds)
        return None

    def close(self):
        self.process.kill()
        self.process.wait(timeout=10)


class Dialler:
    """tlsdial.py in the node."""

    def __init__(self, world):
        self.process = world.spawn(
            ["/usr/bin/python3", os.path.join(TESTS, "clients", "tlsdial.py"), "--ca", world.ca,
             "--rate", RATE])
        if self.process.stdout.readline() != "begun\n":
            raise WorldError("tlsdial.py has not begun")

    def outcomes(self):
        """[start, seconds, errno's name or None, who served] of each new client, in the end."""
        output, _ = self.process.communicate(timeout=30)
        return json.loads(output)


def ends_of(connections, seconds):
    """[errno's name or EOF, when] of those that end within that time, below TLS."""
    ends = []
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as waiting, contextlib.ExitStack() as sockets:
        for connection in connections:
            raw = sockets.enter_context(socket.socket(fileno=os.dup(connection.sock.fileno())))
            raw.setblocking(False)
            waiting.register(raw, selectors.EVENT_READ)
        while waiting.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _events in waiting.select(left):
                how = end_of(key.fileobj)
                if how:
                    ends.append([how, time.monotonic()])
                    waiting.unregister(key.fileobj)
    return ends


def end_of(raw):
    try:
        return None if raw.recv(4096) else "EOF"
    except BlockingIOError:
        return None
    except OSError as e:
        return errno.errorcode[e.errno]


# --- one round ----------------------------------------------------------------


@contextlib.contextmanager
def crowd(world):
    """(kept, informers): connections to each backend, and informers on each, so that all have
    as many. By least-conn new clients would avoid one that has more, and none could fail."""
    with even_clients(world) as kept:
        for _ in range(ATTEMPTS):
            # The agent's own watch is somewhere, too.
            carried = sum(stats(world, "active").values())
            informers = Informers(world, 2 * BACKENDS + -carried % BACKENDS)
            try:
                informers.wait_events()
                if is_even(world) and all(informers.of(b) for b in world.backends):
                    yield kept, informers
                    return
            finally:
                informers.close()
        raise WorldError(f"no even clients in {ATTEMPTS} attempts: {stats(world, 'active')}")


def is_even(world):
    """For as long as new informers' connections may take to be counted."""
    with contextlib.suppress(WorldError):
        return wait_until(lambda: len(set(stats(world, "active").values())) == 1, "", 1)
    return False


def one_round(world, writer, name, cp):
    """What one fault of that apiserver costs."""
    fault = FAULTS[name]
    wait_idle_but_discovery(world)
    with crowd(world) as (kept, informers):
        dialler = Dialler(world)
        time.sleep(LEAD)
        fault.prepare(world, cp)
        numbers = informers.of(cp)
        start = time.monotonic()
        fault.begin(world, cp)
        revision = writer.revision
        try:
            if fault.blink:
                time.sleep(BLINK)
                fault.end(world, cp)
            seen = observe(fault, kept, informers, cp, (start, numbers, revision))
            outcomes = dialler.outcomes()
        finally:
            if not fault.blink:
                fault.end(world, cp)
    return {"fault": name, "backend": cp.name, **seen, **dials_of(outcomes, cp, start)}


def observe(fault, kept, informers, cp, fault_seen):
    """What becomes of those that are there."""
    start, numbers, revision = fault_seen
    ends = ends_of(kept[cp.name], OBSERVED if fault.target is None else LIMIT)
    events = [informers.next_event(n, revision, LIMIT) for n in numbers]
    time.sleep(max(0, start + OBSERVED - time.monotonic()))
    lost = [line for line in informers.lines("lost") if line["at"] >= start]
    lists = [line for line in informers.lines("list") if line["at"] >= start]
    failed = [line for line in informers.lines("failed") if line["at"] >= start]
    mine = [line for line in lost if line["informer"] in numbers]
    return {
        "clients": len(kept[cp.name]),
        "ended_ms": [ms(at - start) for _how, at in ends],
        "ended_by": collections.Counter(how for how, _at in ends),
        "informers": len(numbers),
        "informers_lost_ms": [ms(line["at"] - start) for line in mine],
        "informers_lost_by": collections.Counter(line["error"] for line in mine),
        "informers_failed_by": collections.Counter(line["error"] for line in failed),
        "event_ms": [event and ms(event - start) for event in events],
        "lists": len([line for line in lists if line["informer"] in numbers]),
        "others_ended": sum(not is_open(c) for name, connections in kept.items()
                            if name != cp.name for c in connections),
        "others_lost": len([line for line in lost if line["informer"] not in numbers]),
    }


def ms(seconds):
    return round(1000 * seconds, 1)


def dials_of(outcomes, cp, start):
    """Of the new clients since the fault: those that failed, and the last that went there."""
    since = [o for o in outcomes if o[0] >= start]
    there = [o for o in since if o[2] or o[3] == cp.name]
    return {"dials": len(since), "failed": collections.Counter(o[2] for o in since if o[2]),
            "there": len(there),
            "last_there_ms": ms(there[-1][0] - start) if there else None,
            "slowest_ms": ms(max((o[1] for o in since if not o[2]), default=0))}


def wait_idle_but_discovery(world):
    """The agent's own watch, at the most, is left of the connections."""
    wait_until(lambda: sum(stats(world, "active").values()) <= 1,
               lambda: f"active to return to 1, is {stats(world, 'active')}", 30)


# --- all of them --------------------------------------------------------------


def start_world(world):
    for i in range(1, BACKENDS + 1):
        world.apiserver(i, tokens={TOKEN: "system:node:worker"}, alpn=["h2", "http/1.1"],
                        lease=LEASE, shutdown_delay=600, idle_timeout=90)
    world.configure(probe=USUAL, slowStart="0", discovery={
        "kubeconfig": kubeconfig(world, f"token: {TOKEN}"),
        "cache": os.path.join(world.dir, "cache", "backends.json")})
    world.agent()
    wait_well(world)


def wait_well(world):
    """Every backend in the list, ready, and dialled like the others."""
    wait_known(world, world.backends, timeout=60)
    wait_states(world, "ready", world.backends, timeout=60)
    wait_forgiven(world)


def measure(names, rounds):
    results = []
    with World(backends=BACKENDS) as world:
        with contextlib.ExitStack() as stack:
            start_world(world)
            writer = stack.enter_context(Writer(world))
            for name in names:
                for i in range(rounds):
                    results.append(one_round(world, writer, name, world.cp(i % BACKENDS + 1)))
                    print(f"  {name} {i + 1}/{rounds}", file=sys.stderr, flush=True)
                    wait_well(world)
    return results


# --- report -------------------------------------------------------------------

COLUMNS = ("fault", "ended ms", "target", "by", "event ms", "lists", "new failed", "last there ms",
           "others ended")


def spread(values):
    """Median and worst; nothing where one is missing, which is worse than any."""
    if not values:
        return "-"
    if None in values:
        return "never"
    return f"{statistics.median(values):.0f} / {max(values):.0f}"


def last_ends(rounds):
    """Per round, when the last connection was ended; None where some never were."""
    return [max(r["ended_ms"]) if len(r["ended_ms"]) == r["clients"] else None for r in rounds]


def verdict(fault, rounds):
    if fault.target is None:
        ended = sum(len(r["ended_ms"]) + len(r["informers_lost_ms"]) for r in rounds)
        return "none: " + ("MISSED" if ended else "met")
    ends = last_ends(rounds)
    met = None not in ends and max(ends) <= fault.target
    return f"{fault.target}: {'met' if met else 'MISSED'}"


def total(counters):
    """Of names, over the rounds: "2 ETIMEDOUT"."""
    counts = sum(map(collections.Counter, counters), collections.Counter())
    return ", ".join(f"{n} {name}" for name, n in sorted(counts.items())) or "none"


def row(name, rounds):
    fault = FAULTS[name]
    ends, there = [end for r in rounds for end in r["ended_ms"]], []
    if fault.target:
        ends = last_ends(rounds)
    if fault.target or name in AVOIDED:
        there = [r["last_there_ms"] or 0 for r in rounds]
    return (name, spread(ends), verdict(fault, rounds), total(r["ended_by"] for r in rounds),
            spread([event for r in rounds for event in r["event_ms"]]),
            spread([r["lists"] for r in rounds]),
            f"{total(r['failed'] for r in rounds)} of {sum(r['dials'] for r in rounds)}",
            spread(there),
            str(sum(r["others_ended"] + r["others_lost"] for r in rounds)))


def table(results):
    names = list(dict.fromkeys(r["fault"] for r in results))
    rows = [COLUMNS, *(row(n, [r for r in results if r["fault"] == n]) for n in names)]
    widths = [max(len(r[i]) for r in rows) for i in range(len(COLUMNS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(r, widths)).rstrip()
                     for r in rows)


def parse(argv):
    parser = argparse.ArgumentParser(prog="faults.py", formatter_class=argparse.
                                     RawDescriptionHelpFormatter, description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="of each (default 5)")
    parser.add_argument("--only", metavar="FAULT,...", default=",".join(FAULTS))
    parser.add_argument("--json", metavar="FILE", help="write every round there")
    args = parser.parse_args(argv)
    args.only = args.only.split(",")
    unknown = [name for name in args.only if name not in FAULTS]
    if unknown or args.rounds < 1:
        parser.error(f"no fault {unknown[0]!r}; there are {', '.join(FAULTS)}" if unknown
                     else "--rounds: from 1 on")
    return args


def main(argv=None):
    args = parse(argv)
    raise_on_signals()
    try:
        results = measure(args.only, args.rounds)
    except (WorldError, OSError, subprocess.SubprocessError) as e:
        print(f"faults.py: {e}", file=sys.stderr)
        return 1
    print(f"median / worst of {args.rounds}, after the fault")
    print(table(results))
    if args.json == "-":
        json.dump(results, sys.stdout, indent=1)
        print()
    elif args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump(results, f, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
