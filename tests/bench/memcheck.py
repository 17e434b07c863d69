#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""The programs under valgrind's memcheck, through all that an agent does: attaches, probes by
TLS and HTTP/2, finds its backends, reads its configuration again, notices backends that hang,
die and come back, ends connections, relays, shows its pages, and ends.

Run it by scripts/valgrind.sh, which builds first. What a thing costs here says nothing: it is
some thirty times slower.

Exit status: 0 no errors and nothing lost, 1 something was found or did not happen, 2 the command
line is wrong.
"""

import argparse
import glob
import os
import re
import shutil
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(os.path.dirname(HERE), "world"),
                os.path.join(os.path.dirname(HERE), "e2e")]

import helpers  # noqa: E402  (after sys.path)
from cluster import Cluster  # noqa: E402
from observe import end_of, known  # noqa: E402
from system import WorldError, run_checked, wait_until  # noqa: E402
from world import World, raise_on_signals  # noqa: E402

SUPPRESSIONS = os.path.join(os.path.dirname(HERE), "data", "memcheck.supp")
# Seconds that a step may take under valgrind.
PATIENCE = 90
# What valgrind 3.19 lets through without knowing it: the newer commands of bpf(2); see
# tests/clients/memcheck.c. It answers ENOSYS to seccomp(2) itself, so the agent has no filters here.
UNHANDLED = re.compile(r"WARNING: unhandled (.*)")
KNOWN = {f"eBPF command {n}" for n in (24, 28, 29, 33, 34, 35)} | {"amd64-linux syscall: 317"}
SUMMARY = re.compile(r"ERROR SUMMARY: (\d+) errors from (\d+) contexts")
# Each is looked at once.
PAGES = ("/", "/status", "/status.json", "/metrics", "/connections", "/history.json", "/livez",
         "/readyz", "/nothing-here")


def preload(world):
    """Builds what tells valgrind of the kernel's writes."""
    path = os.path.join(world.dir, "memcheck.so")
    run_checked(["gcc", "-O2", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", path,
                 os.path.join(os.path.dirname(HERE), "clients", "memcheck.c")])
    return path


def valgrind(world, name):
    """The command that runs a program under memcheck; one log for each process."""
    return ["valgrind", "--leak-check=full", "--show-leak-kinds=definite,indirect",
            "--errors-for-leak-kinds=definite,indirect", "--num-callers=30", "--fair-sched=yes",
            f"--suppressions={SUPPRESSIONS}", f"--log-file={world.dir}/memcheck-{name}.%p", "--"]


class Run:
    """An agent under memcheck, and what is done to it."""

    def __init__(self, world, name, *args, **settings):
        self.world, self.name = world, name
        self.cluster = Cluster(world)
        self.settings = {"probe": {"interval": "1s", "timeout": "2s", "rise": 1, "fall": 2},
                         "connectTimeout": "2s", **settings}
        self.cluster.configure(**self.settings)
        if settings.get("dataPath") == "relay":
            world.ctl_options = ["-c", world.config]
        self.agent = world.agent(*args, "-v", prefix=valgrind(world, name),
                                 env={**os.environ, "STATE_DIRECTORY": f"{world.dir}/state",
                                      "LD_PRELOAD": world.preload})

    def until(self, condition, what):
        def happened():
            if not self.agent.alive():
                raise WorldError(f"the agent has ended; its log:\n{self.agent.log()}")
            return condition()

        wait_until(happened, lambda: f"{what}; the agent's log:\n{self.agent.log()}", PATIENCE, 0.2)

    def states(self, state, *indexes):
        def right():
            try:
                return all(helpers.state_of(self.world, self.cluster.apis[i - 1]) == state
                           for i in indexes)
            except (AssertionError, KeyError, StopIteration, OSError):
                return False

        self.until(right, f"{indexes} to be {state}")

    def step(self, text):
        print(f"  {self.name}: {text}", flush=True)

    # what is done

    def find(self):
        self.step("attaches, finds its backends, probes")
        self.until(lambda: helpers.agent_serves(self.world), "the agent to serve its pages")
        self.states("ready", 1, 2, 3)
        self.until(lambda: self.cluster.watched() >= 1, "a watch")

    def pages(self):
        self.step("shows its pages")
        for path in PAGES:
            status, _headers, _body = helpers.http_call(self.world, "GET", path)
            if status >= 500:
                raise WorldError(f"{path}: {status}")
        helpers.http_call(self.world, "POST", "/status")

    def reload(self):
        self.step("reads its configuration again, a wrong one too")
        start = len(self.agent.log())
        self.cluster.configure(**{**self.settings, "policy": "least-conn"})
        self.agent.hup()
        self.agent.wait_log("configuration reloaded", PATIENCE, start)
        start = len(self.agent.log())
        self.world.configure(path=self.world.config, text="frontends: nonsense\n")
        self.agent.hup()
        self.agent.wait_log("configuration not reloaded", PATIENCE, start)
        self.cluster.configure(**self.settings)
        self.agent.hup()
        self.states("ready", 1, 2, 3)

    def operator(self):
        self.step("does what the operator says")
        for order in ("drain", "undrain"):
            self.under_memcheck("kubelbctl", "--pin", self.world.pin, order, self.cluster.apis[0].endpoint)

    def hang(self):
        self.step("notices a process that hangs, and ends its connections")
        api = self.cluster.apis[1]
        connection = helpers.kept_to(self.world, api.name)
        api.stop()
        self.states("dead", 2)
        self.until(lambda: end_of(connection, 0.2)[0] is not None, "the client's connection to end")
        connection.close()
        api.cont()
        self.states("ready", 2)

    def die(self):
        self.step("notices a process that dies and comes back")
        api = self.cluster.apis[2]
        api.kill()
        self.states("dead", 3)
        api.start()
        self.states("ready", 3)

    def goaway(self):
        self.step("is told to go away on HTTP/2, and gets failures")
        for api in self.cluster.apis:
            api.goaway()
        self.cluster.apis[0].answer("readyz", 500)
        self.states("draining", 1)
        self.cluster.apis[0].answer("readyz", 200)
        self.states("ready", 1, 2, 3)

    def shrink(self):
        self.step("loses a backend from the cluster's list, and finds it again")
        self.cluster.say(1, 2)
        self.until(lambda: len(known(self.world)) == 2, "two backends")
        self.cluster.say(1, 2, 3)
        self.until(lambda: len(known(self.world)) == 3, "three backends")
        self.states("ready", 1, 2, 3)

    def rescue(self):
        """With the links of two cut, one in three first connects goes straight to the third."""
        self.step("relays for clients whose backend does not answer")
        for index in (2, 3):
            self.cluster.apis[index - 1].link(up=False)
        served = [helpers.served_by(self.world, timeout=PATIENCE) for _ in range(6)]
        if set(served) != {self.cluster.apis[0].name}:
            raise WorldError(f"served by {served}")
        for index in (2, 3):
            self.cluster.apis[index - 1].link(up=True)
        self.states("ready", 1, 2, 3)

    def carry(self):
        self.step("carries requests itself")
        for _ in range(6):
            with helpers.Kept(self.world, timeout=PATIENCE) as connection:
                for _ in range(5):
                    connection.get()

    def hang_relayed(self):
        self.step("carries on while a backend hangs and another one dies")
        self.cluster.apis[1].stop()
        self.cluster.apis[2].kill()
        self.states("dead", 2, 3)
        self.carry()
        self.cluster.apis[1].cont()
        self.cluster.apis[2].start()
        self.states("ready", 1, 2, 3)

    def stop(self):
        self.step("ends")
        status = self.agent.stop(PATIENCE)
        if status != 0:
            raise WorldError(f"the agent has ended with {status}; its log:\n{self.agent.log()}")

    def under_memcheck(self, program, *args, status=0):
        done = self.world.exec([*valgrind(self.world, program), self.world.program(program), *args],
                               timeout=PATIENCE, env={**os.environ, "LD_PRELOAD": self.world.preload})
        if done.returncode != status:
            raise WorldError(f"{program} {' '.join(args)}: exit {done.returncode}: {done.stderr}")


def in_kernel(world):
    """The programs balance; the agent attaches them itself."""
    run = Run(world, "agent")
    for part in (run.find, run.pages, run.reload, run.operator, run.goaway, run.hang, run.die,
                 run.shrink, run.rescue, run.stop):
        part()
    for program, args in (("kubelb-load", ("-c", world.config, "--boot")),
                          ("kubelbctl", ("status",)), ("kubelbctl", ("status", "-o", "json")),
                          ("kubelb-load", ("--detach",))):
        run.step(f"{program} {' '.join(args)}")
        run.under_memcheck(program, "--pin", world.pin, *args)
    world.reset()


def as_relay(world):
    """The agent is the data path."""
    run = Run(world, "relay", dataPath="relay", discovery=None, backends=[b.endpoint for b in world.backends],
              http=["127.0.0.1:8081", f"unix:{world.dir}/agent.sock"])
    run.step("attaches nothing")
    run.until(lambda: helpers.agent_serves(world), "the agent to serve its pages")
    run.until(lambda: helpers.ready(world), "the agent to be ready")
    for part in (run.carry, run.pages, run.hang_relayed, run.carry, run.stop):
        part()
    world.reset()


def judge(world):
    """The problems in the logs: errors, with where they are, and logs without a summary."""
    problems = []
    logs = sorted(glob.glob(f"{world.dir}/memcheck-*"))
    for path in logs:
        with open(path, encoding="utf-8", errors="replace") as f:
            text = f.read()
        summary = SUMMARY.search(text)
        if not summary:
            problems.append(f"{os.path.basename(path)} has no summary: the process was killed\n{text}")
        elif summary[1] != "0" or set(UNHANDLED.findall(text)) - KNOWN:
            problems.append(f"{os.path.basename(path)}:\n{text}")
    if not logs:
        problems.append("valgrind has written no log")
    print(f"{len(logs)} processes under memcheck, {len(problems)} with errors")
    return problems


def main():
    parser = argparse.ArgumentParser(prog="valgrind.sh", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("kernel", "relay"), help="one of the two data paths")
    args = parser.parse_args()
    if not shutil.which("valgrind"):
        print("valgrind.sh: valgrind is not installed (scripts/deps.sh installs it)", file=sys.stderr)
        return 1
    raise_on_signals()
    with World(backends=3) as world:
        world.preload = preload(world)
        try:
            if args.only != "relay":
                in_kernel(world)
            if args.only != "kernel":
                as_relay(world)
            problems = []
        except (WorldError, AssertionError) as e:
            problems = [str(e)]
        problems += judge(world)
    for problem in problems:
        print(f"valgrind.sh: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
