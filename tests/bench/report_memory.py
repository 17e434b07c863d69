# SPDX-License-Identifier: BSD-2-Clause
"""The memory of what balances while clients hold connections, each with a TLS handshake and an
answered request behind it: what is anonymous of its processes, and for KubeLB also its maps and its
record of each socket."""

import contextlib
import glob
import subprocess

import peers
from agentbench import status_kib
from report_speed import BACKENDS, ENDPOINTS
from runs import bpftool
from system import WorldError

COUNTS = (10, 1000, 10000)


def possible(count):
    """A proxy has two descriptors for a connection, HAProxy in one process, and some of its own."""
    return min(count, (peers.hard_limit() - 200) // 2)


@contextlib.contextmanager
def holder(stage, target):
    """A function that makes so many connections in all. They have to outlast the block."""
    process = stage.world.spawn([stage.client, "hold", target.address, target.port], ns=target.ns,
                                cgroup=target.cgroup, stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def hold(count):
        process.stdin.write(f"{count}\n")
        process.stdin.flush()
        if process.stdout.readline() != f"held {count}\n":
            raise WorldError(f"{count} connections to {target.name}: {process.stderr.read()}")

    try:
        yield hold
        process.stdin.close()
        if process.stdout.readline() != "all answered\n":
            raise WorldError(f"{target.name} has lost connections: {process.stderr.read()}")
    finally:
        process.kill()
        process.wait()


# The kernel's bpf_local_storage, which a socket with a record has, and bpf_local_storage_elem around
# the record, which no interface tells: upper bounds, of 64-bit kernels.
STORAGE, AROUND_RECORD = 192, 80


def map_bytes(pin, connections):
    """What the kernel has taken for KubeLB's pinned maps, and for the records of so many sockets,
    which are in none of the maps' own figures."""
    sizes = {}
    for path in glob.glob(f"{pin}/*"):
        with contextlib.suppress(WorldError):  # a directory
            shown = bpftool("map", "show", "pinned", path)
            sizes[shown["id"]] = shown["bytes_memlock"]
            if shown["type"] == "sk_storage":
                sizes["records"] = connections * allocated(AROUND_RECORD + shown["bytes_value"])
    if "records" not in sizes:
        raise WorldError(f"no map with sockets' records in {pin}")
    return sum(sizes.values())


def allocated(size):
    """What kmalloc takes for it, and for the storage beside it."""
    return STORAGE + next(n for n in (96, 128, 192, 256, 512, 1024) if n >= size)


def measure_one(stage, figures, target, pids, maps=None):
    """maps: a function that gives the bytes of the maps with so many connections."""
    with holder(stage, target) as hold:
        for count in COUNTS:
            n = possible(count)
            hold(n)
            for what, field in (("anonymous", "RssAnon"), ("resident", "VmRSS")):
                kib = sum(status_kib(pid, field) for pid in pids())
                figures.add(f"memory at {count} connections: {what}", target.name, "MiB",
                            [kib / 1024], connections=n)
            if maps:
                figures.add(f"memory at {count} connections: maps", target.name, "MiB",
                            [maps(n) / (1 << 20)], connections=n)
    figures.say(f"memory of {target.name} is measured")


def measure_memory(stage, figures):
    """One after the other: each by itself has no more connections than the servers can have."""
    world = stage.world
    agent = stage.start_kubelb()
    target = stage.kubelb_target(agent)
    peers.prove(world, target, BACKENDS, world.ca)
    measure_one(stage, figures, target, lambda: [agent.pid], lambda n: map_bytes(world.pin, n))
    agent.stop()
    n = possible(max(COUNTS))
    for start, settings in ((peers.start_nginx, {"workers": 2, "connections": peers.hard_limit(),
                                                 "listen": " reuseport backlog=4096"}),
                            (peers.start_haproxy, {"maxconn": n + 50})):
        proxy = start(world, ENDPOINTS, **settings)
        peers.prove(world, proxy.target(world), BACKENDS, world.ca)
        measure_one(stage, figures, proxy.target(world), proxy.pids)
        proxy.stop()
