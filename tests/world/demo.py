#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""The main job, shown to a person: a live table of three apiservers under a
steady hundred connects a second, while one is killed and comes back, and while
the agent is killed. Ends by itself; cleans up whatever happens."""

import json
import os
import shutil
import signal
import sys
import time

from world import World, raise_on_signals

RATE = 100
TRAFFIC_SECONDS = 20
TICK = 0.5
BAR = 24


class Table:
    """Draws over itself on a terminal; prints a line a second elsewhere."""

    def __init__(self, world):
        self.world = world
        self.terminal = sys.stdout.isatty()
        self.before = {}
        self.drawn = 0
        self.last = time.monotonic()

    def status(self):
        done = self.world.ctl("status", "-o", "json", "-c", self.world.config)
        if done.returncode:
            raise SystemExit(f"demo: kubelbctl status: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def rows(self, state, seconds):
        for b in state["backends"]:
            opened = b["opened"] - self.before.get(b["address"], b["opened"])
            self.before[b["address"]] = b["opened"]
            rate = opened / seconds
            bar = "#" * min(BAR, round(rate / RATE * BAR))
            yield (f"  {b['address']:<22} {b['state']:<9} {rate:>5.0f}/s {b['opened']:>6}  "
                   f"{bar:<{BAR}}  {b['why']}")

    def draw(self, phase):
        state = self.status()
        now = time.monotonic()
        rows = list(self.rows(state, max(now - self.last, 0.1)))
        self.last = now
        agent = "alive" if state["agent"]["alive"] else "gone: the kernel goes by itself"
        if state["dataPath"] == "relay":
            agent += ", relays every connect"
        lines = [phase, f"  {'BACKEND':<22} {'STATE':<9} {'NOW':>7} {'TOTAL':>6}", *rows,
                 f"  agent: {agent}"]
        if self.terminal:
            if self.drawn:
                sys.stdout.write(f"\033[{self.drawn}A\033[J")
            width = shutil.get_terminal_size().columns
            lines = [line[:width - 1] for line in lines]
            self.drawn = len(lines)
        print("\n".join(lines), flush=True)

    def show(self, phase, seconds):
        end = time.monotonic() + seconds
        step = TICK if self.terminal else 2.0
        self.drawn = 0
        if self.terminal:
            print()
        while time.monotonic() < end:
            time.sleep(min(step, max(end - time.monotonic(), 0.05)))
            self.draw(phase)


def checked(done, what):
    if done.returncode:
        raise SystemExit(f"demo: {what}: {done.stderr.strip()}")
    return done.stdout.strip()


def version_through_frontend(world):
    done = world.exec(["curl", "-s", "--max-time", "5", "--cacert", world.ca,
                       "https://127.0.0.1:6443/version"])
    return json.loads(checked(done, "curl"))["backend"]


def end_agent(world, agent, table, relay):
    """The last act: what depends on the agent. With its relay all does, so an operator drains a
    backend instead."""
    if relay:
        checked(world.ctl("drain", world.cp(2).endpoint, "-c", world.config), "kubelbctl drain")
        table.show("4. the second apiserver is drained: new connects go to the others", 5)
        return
    agent.kill9()
    table.show("4. the agent is killed with -9: nothing depends on it", 5)


def run(world, relay):
    print(f"world     node {world.node_v4}, apiservers "
          + ", ".join(b.endpoint for b in world.backends))
    orders = f"unix:{world.dir}/agent.sock"
    world.configure(probe={"interval": "1s", "timeout": "1s"},
                    **({"dataPath": "relay", "http": ["127.0.0.1:8081", orders]} if relay else {}))
    print("attach    " + checked(world.load(), "kubelb-load"))
    agent = world.agent(env={**os.environ, "STATE_DIRECTORY": world.dir})
    agent.wait_log("connects to the frontend are relayed" if relay else "running")
    served = [version_through_frontend(world) for _ in range(6)]
    print(f"curl      https://127.0.0.1:6443/version, six times: {' '.join(served)}")
    client = os.path.join(world.build, "test", "nbconnect")
    traffic = world.spawn([client, "--rate", str(RATE), "--seconds", str(TRAFFIC_SECONDS),
                           "127.0.0.1", "6443"])
    table = Table(world)
    list(table.rows(table.status(), 1.0))  # where the counts start from
    table.show(f"1. {RATE} connects a second to 127.0.0.1:6443 spread over three", 4)
    world.cp(2).kill()
    table.show("2. the second apiserver is killed: connects go to the others", 5)
    world.cp(2).start()
    table.show("3. it is back: it takes connects again", 5)
    end_agent(world, agent, table, relay)
    out, _ = traffic.communicate(timeout=15)
    result = json.loads(out.strip().splitlines()[-1])
    print(f"\nresult    {result['ok']} connects succeeded, {result['failed']} failed"
          f"{' ' + str(result['errors']) if result['errors'] else ''}; slowest {result['max_ms']:.1f} ms")
    print("detach    " + checked(world.detach(), "kubelb-load --detach"))
    return 0


def main():
    relay = sys.argv[1:] == ["--relay"]
    if len(sys.argv) > 1 and not relay:
        print(f"demo: unexpected argument '{sys.argv[1]}'", file=sys.stderr)
        return 2
    raise_on_signals()  # a closed terminal cleans up as Ctrl-C does
    try:
        with World(backends=3) as world:
            return run(world, relay)
    except SystemExit as e:
        if e.code == 128 + signal.SIGINT:
            print("\ndemo: interrupted; everything it made is removed", file=sys.stderr)
        raise


if __name__ == "__main__":
    sys.exit(main())
