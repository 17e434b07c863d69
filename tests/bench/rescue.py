#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""What clients feel that connect while hosts of apiservers vanish: how many fail, and how long
those take that were on their way to a host that is gone.

A node, three control planes (nginx), an agent with the default probes. One program makes connects
at a steady rate, asks on each and waits for the first byte. In the middle the links of one, two
or all three control planes are cut; no carrier event tells. Beside it the same through nginx's
stream proxy on the node (proxy_connect_timeout 1s).

    hit       connects that took longer than 15 ms, or failed: a SYN was sent at least twice
    cut       connections that were there before the cut, at once, and had no answer yet: nothing
              can save these. Through a proxy they cannot be told from others
    killed    the agent is ended by SIGKILL at the moment of the cut

Run it by scripts/rescue.sh, which builds first. It prints a table, each row the sum of its rounds,
with the median round's p99, the worst of all, and
after how long the last error came. Exit status: 0 all was measured (however bad),
1 something was not, 2 the command line is wrong.
"""

import argparse
import collections
import os
import re
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)
sys.path[:0] = [HERE, os.path.join(TESTS, "world"), os.path.join(TESTS, "e2e")]

from helpers import agent_serves, http_call, metrics_of, summary, wait_states  # noqa: E402
from system import WorldError, wait_until  # noqa: E402
from world import World, build_client, raise_on_signals  # noqa: E402

PROXY_PORT = 16443
SLOW_MS = 15
LEAD = 1.5  # seconds of traffic before the cut
AFTER = 4.5  # and after it
STREAM = """\
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; user root; worker_processes auto; pid nginx.pid; error_log error.log warn;
worker_rlimit_nofile 32768;
events {{ worker_connections 16384; }}
stream {{
	upstream apiservers {{ least_conn; {servers} }}
	server {{ listen 127.0.0.1:{port} backlog=4096; proxy_connect_timeout 1s;
		proxy_pass apiservers; }}
}}
"""


def percentile(values, share):
    return sorted(values)[min(int(len(values) * share), len(values) - 1)] if values else 0.0


def start_proxy(world):
    directory = os.path.join(world.dir, "stream")
    os.makedirs(directory, exist_ok=True)
    servers = " ".join(f"server {b.endpoint} max_fails=1 fail_timeout=10s;"
                       for b in world.backends)
    with open(os.path.join(directory, "conf"), "w", encoding="ascii") as f:
        f.write(STREAM.format(servers=servers, port=PROXY_PORT))
    with open(os.path.join(directory, "log"), "wb") as log:
        world.spawn(["nginx", "-p", directory + "/", "-e", "error.log", "-c",
                     os.path.join(directory, "conf")], stdout=log, stderr=log)
    wait_until(lambda: world.exec([world.client, "127.0.0.1", PROXY_PORT]).returncode == 0,
               "the proxy")


def start_agent(world):
    agent = world.agent()
    wait_until(lambda: not agent.alive() or agent_serves(world), "the agent")
    wait_states(world, "ready", world.backends, 30)
    wait_until(lambda: b'"on": true' in world.ctl("status", "-o", "json").stdout.encode(),
               "the relay")
    return agent


def failovers(world):
    found = metrics_of(http_call(world, "GET", "/metrics")[2])[0]
    return sum(v for _labels, v in found.get("kubelb_connect_failovers_total", []))


def measure(world, rate, holes, port, kill):
    """One round: those that failed (milliseconds, error, whether cut), milliseconds of those hit,
    failovers by the metric."""
    agent = None
    if port == 6443:
        agent = start_agent(world)
    else:
        start_proxy(world)
    client = world.spawn([world.client, "--ask", "--slow", SLOW_MS, "--rate", rate, "--seconds",
                          LEAD + AFTER, "127.0.0.1", port])
    try:
        client.wait(timeout=LEAD)
        raise WorldError("the client has ended too soon")
    except subprocess.TimeoutExpired:
        pass
    for i in range(1, holes + 1):
        world.cp(i).link(up=False)
    if kill:
        agent.kill9()
    output = client.communicate(timeout=60)[0]
    result = summary(output)
    slow = [float(ms) for ms in re.findall(r"^slow: (\S+)$", output, re.M)]
    lost = [(float(ms), name, 0 <= float(connected) < SLOW_MS and port == 6443) for
            ms, name, connected in re.findall(r"^lost: (\S+) (\S+) (\S+)$", output, re.M)]
    assert len(lost) == result["failed"]
    moved = failovers(world) if agent and not kill else None
    for b in world.backends:
        b.link(up=True)
    world.reset()
    return lost, slow, moved


def row(world, name, rounds, *args):
    lost, worst, p50, p99, hit, moved = [], 0.0, [], [], 0, []
    for _ in range(rounds):
        more, slow, failovers_ = measure(world, *args)
        lost += more
        hit += len(slow)
        worst = max([worst, *slow])
        p50.append(percentile(slow, 0.5))
        p99.append(percentile(slow, 0.99))
        moved.append(failovers_)
    failed = [(ms, error) for ms, error, was_cut in lost if not was_cut]
    moved = [m for m in moved if m is not None]
    errors = collections.Counter(error for _ms, error in failed)
    print(f"{name:44} {len(failed):6} {len(lost) - len(failed):5} {hit + len(failed):6}"
          f" {statistics.median(p50):8.1f} {statistics.median(p99):8.1f} {worst:8.1f}"
          f" {max([0.0, *(ms for ms, _ in failed)]):9.1f} {sum(moved) if moved else '-':>10}  "
          + ", ".join(f"{e} {n}" for e, n in sorted(errors.items())), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rates", default="100,3000")
    parser.add_argument("--holes", default="1,2,3")
    parser.add_argument("--no-proxy", action="store_true")
    options = parser.parse_args()
    raise_on_signals()
    print(f"{'':44} failed   cut    hit   p50 ms   p99 ms worst ms  error ms  failovers  errors")
    with World(backends=3) as world:
        world.client = build_client(os.path.join(world.dir, "bin", "nbconnect"))
        for rate in map(int, options.rates.split(",")):
            for holes in map(int, options.holes.split(",")):
                name = f"{rate}/s, {holes} of 3 vanish"
                row(world, f"kubelb  {name}", options.rounds, rate, holes, 6443, False)
                if not options.no_proxy:
                    row(world, f"nginx   {name}", options.rounds, rate, holes, PROXY_PORT, False)
            row(world, f"kubelb  {rate}/s, 1 of 3 vanishes, agent killed", options.rounds, rate, 1,
                6443, True)


if __name__ == "__main__":
    main()
