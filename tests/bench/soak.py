#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Many connects under random kills of clients and servers; then the counts must be 0,
no record may be left and the kernel's memory must be where it was.

Run it by scripts/soak.sh, which builds first. No agent: nobody repairs anything.

Exit status: 0 all held, 1 something did not, 2 the command line is wrong.
"""

import argparse
import os
import random
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(os.path.dirname(HERE), "world"),
                os.path.join(os.path.dirname(HERE), "e2e")]

from helpers import dump, ok, stats  # noqa: E402  (after sys.path)
from system import WorldError, wait_until  # noqa: E402
from world import World, build_client, raise_on_signals  # noqa: E402

RECORD_BYTES = 184  # struct klb_connection
HOSTS = ("127.0.0.1", "::1", "::ffff:127.0.0.1")
CLIENTS = 3
MEMORY_LIMIT_KIB = 8 << 10


def connects(world):
    """Decided so far, whichever way."""
    return sum(stats(world, "opened").values()) + \
        sum(sum(reasons) for reasons in stats(world, "failed").values())


def records(world):
    with open(os.path.join(world.pin, "connections"), "rb") as f:
        return len(f.read()) // RECORD_BYTES


def kernel_memory_kib():
    """Slab that cannot be reclaimed, and per-CPU memory: where records would pile up."""
    with open("/proc/meminfo", encoding="ascii") as f:
        fields = {line.split(":")[0]: int(line.split()[1]) for line in f}
    return fields["SUnreclaim"] + fields.get("Percpu", 0)


def client(world, dice):
    """One of several ways to open connections, for as long as it lives."""
    ways = (["-n", 4000], ["--hold", 40], ["--rate", 1000, "--seconds", 3])
    return world.spawn([world.client, *dice.choice(ways), dice.choice(HOSTS)],
                       stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)


def disturb(world, dice, clients):
    """One random thing happens."""
    what = dice.random()
    victim = dice.randrange(CLIENTS)
    if what < 0.6:
        clients[victim].kill()
        clients[victim].wait()
    elif what < 0.8:
        backend = dice.choice(world.backends)
        if backend.pgid() is None:
            backend.start()
        else:
            backend.kill()
    elif what < 0.9:
        backend = dice.choice(world.backends)
        backend.link(up=False)
        time.sleep(dice.uniform(0, 0.3))  # the disturbance itself
        backend.link(up=True)
    for i, process in enumerate(clients):
        if process.poll() is not None:
            world.processes.remove(process)
            process.stdin.close()
            clients[i] = client(world, dice)


def soak(world, total, seed):
    dice = random.Random(seed)
    clients = [client(world, dice) for _ in range(CLIENTS)]
    warm = None
    while connects(world) < total:
        time.sleep(dice.uniform(0, 0.2))  # the pace of the disturbances
        disturb(world, dice, clients)
        if warm is None and connects(world) > total / 4:
            warm = kernel_memory_kib()
        print(f"\r{connects(world):>8} connects", end="", flush=True)
    print()
    world.end_processes()
    return warm


def idle(world):
    return not any(v["active"] or v["connecting"] for _k, v in dump(world, "stats"))


def judge(world, warm):
    """The problems that are left."""
    problems = []
    for backend in world.backends:
        backend.link(up=True)
    try:
        # As long as a FIN to a backend that is gone may be sent again.
        wait_until(lambda: idle(world), "active and connecting to be 0", timeout=30)
        wait_until(lambda: records(world) == 0, "the last record to go", timeout=150)
    except WorldError as e:
        problems.append(str(e))
    grown = kernel_memory_kib() - warm
    print(f"active {stats(world, 'active')}, connecting {stats(world, 'connecting')}, "
          f"records {records(world)}, kernel memory {grown:+d} KiB since the first quarter")
    print(f"opened {stats(world, 'opened')}, failed {stats(world, 'failed')}")
    if grown > MEMORY_LIMIT_KIB:
        problems.append(f"the kernel's memory has grown by {grown} KiB")
    return problems


def main():
    parser = argparse.ArgumentParser(prog="soak.sh", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=200000, help="connects (default 200000)")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32),
                        help="of the disturbances, to repeat a run")
    args = parser.parse_args()
    raise_on_signals()
    print(f"seed {args.seed}")
    with World(backends=3) as world:
        world.client = build_client(os.path.join(world.dir, "bin", "nbconnect"))
        # Thousands of connections a second in TIME_WAIT would be most of the memory measured.
        for ns in [world.node] + [b.ns for b in world.backends]:
            world.sysctl(ns, "net.ipv4.tcp_max_tw_buckets", "0")
        ok(world.load())
        problems = judge(world, soak(world, args.n, args.seed))
    for problem in problems:
        print(f"soak.sh: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
