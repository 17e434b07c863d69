# SPDX-License-Identifier: BSD-2-Clause
"""What the soak test does to a node: the table KINDS, and who may feel what.

Each function is given the stage (soak.py), the window of its disturbance and the step's own dice.
It says window.notice() as soon as new connections have to be served again, and leaves all as it
was. What a step does depends on the seed and its number alone.
"""

import collections
import errno
import itertools
import os
import random
import time

from deaths import begin_kill, end_kill
from helpers import Held, ok, state_of, stats
from observe import state_changes, wait_known
from soak_clients import sockets
from system import run_checked, wait_until

NOTICED = 60  # seconds, on a busy machine; it takes three
POLICIES = ("least-conn", "random", "rendezvous", "latency")
CROWD = 200  # connections that end at once
SLOW = ["tbf", "rate", "512kbit", "burst", "16kb", "latency", "500ms"]

# run(stage, window, dice). ends, connects: see Window in soak_clients.py. says: for the report.
Kind = collections.namedtuple("Kind", "run ends connects says")


def hold(dice, least, most):
    """How long a disturbance lasts is part of it."""
    time.sleep(dice.uniform(least, most))


def wait_noticed(stage, window, victim):
    wait_until(lambda: state_of(stage.world, victim) not in ("ready", None),
               f"the agent to notice what has become of {victim.name}", NOTICED)
    window.notice()


# --- one backend --------------------------------------------------------------


def one(act, undo):
    """Something that a backend does not survive, until it is undone."""
    def run(stage, window, dice):
        victim = dice.choice(stage.world.backends)
        window.open(stage.placed(), [victim])
        act(victim)
        try:
            wait_noticed(stage, window, victim)
            if dice.random() < 0.7:
                wait_ended(stage, victim)
            hold(dice, 0, 1)
        finally:
            undo(victim)
    return run


def wait_ended(stage, victim):
    """It is dead, and nobody is left waiting for it."""
    wait_until(lambda: state_of(stage.world, victim) == "dead", f"{victim.name} to be dead",
               NOTICED)
    wait_until(lambda: stats(stage.world, "active")[victim.name] == 0,
               f"the connections to {victim.name} to be ended", NOTICED)


def slow(stage, _window, dice):
    victim = dice.choice(stage.world.backends)
    ends = ((stage.world.net, victim.port), (victim.ns, "eth0"))
    try:
        for ns, device in ends:
            run_checked(["tc", "-n", ns, "qdisc", "add", "dev", device, "root", *SLOW])
        hold(dice, 1.5, 4)
    finally:
        for ns, device in ends:
            run_checked(["tc", "-n", ns, "qdisc", "del", "dev", device, "root"])


def restart(stage, window, dice):
    """SIGTERM: it says 500 on /readyz for a moment, closes what is idle, and ends."""
    victim = dice.choice(stage.world.backends)
    window.open(stage.placed(), [victim])
    victim.terminate()
    try:
        victim.wait_exit()
        hold(dice, 0, 1)
    finally:
        victim.start()
    wait_until(lambda: state_of(stage.world, victim) == "ready", f"{victim.name} to be back",
               NOTICED)


def drain(stage, _window, dice):
    endpoint = dice.choice(stage.world.backends).endpoint
    ok(stage.world.ctl("drain", endpoint))
    try:
        hold(dice, 0.5, 2)
    finally:
        ok(stage.world.ctl("undrain", endpoint))


def unready(stage, window, dice):
    """500 on /readyz, as one has it that starts or has lost etcd. It goes on serving."""
    victim = dice.choice(stage.world.backends)
    victim.readyz(500)
    try:
        wait_noticed(stage, window, victim)
        hold(dice, 0, 1)
    finally:
        victim.readyz(200)


def blackout(stage, window, dice):
    """Nobody is there for a while."""
    act, undo = dice.choice(((begin_kill, end_kill),
                             (lambda b: b.stop(), lambda b: b.cont()),
                             (lambda b: b.link(up=False), lambda b: b.link(up=True))))
    window.open(stage.placed())
    for backend in stage.world.backends:
        act(backend)
    try:
        hold(dice, 0.5, 2)
    finally:
        for backend in stage.world.backends:
            undo(backend)
    stage.wait_well()


# --- the clients --------------------------------------------------------------


def clients(stage, _window, _dice):
    """kill -9 to all of them, and to one with many connections."""
    held = Held(stage.world, CROWD)
    held.kill9()
    stage.world.processes.remove(held.process)
    stage.crowd.restart()


# --- the agent ----------------------------------------------------------------


def agent_killed(stage, window, dice):
    window.open(stage.placed())
    stage.agent.kill9()
    hold(dice, 0.2, 4)
    stage.start_agent()


def agent_restarted(stage, window, dice):
    window.open(stage.placed())
    assert stage.agent.stop(timeout=30) == 0, "the agent's exit status"
    hold(dice, 0, 0.5)
    stage.start_agent()


def reload(stage, _window, dice):
    """By the file alone, by a signal, by kubelb-load, or after a file that is refused."""
    how = dice.choice(("file", "signal", "load", "refused"))
    mark = len(stage.agent.log())
    if how == "refused":
        stage.world.configure(text="policy: nonsense\n")
        stage.agent.wait_log("configuration not reloaded", 30, mark)
        mark = len(stage.agent.log())
    stage.configure(policy=dice.choice([p for p in POLICIES if p != stage.policy]))
    if how == "signal":
        stage.agent.hup()
    elif how == "load":
        ok(stage.world.load())
    stage.agent.wait_log("configuration reloaded", 30, mark)
    if stage.policy == "rendezvous":  # with everybody at one backend the next faults say little
        hold(dice, 0.5, 1)
        mark = len(stage.agent.log())
        stage.configure(policy="least-conn")
        stage.agent.wait_log("configuration reloaded", 30, mark)


# --- what is attached ---------------------------------------------------------


def change_version(build):
    def run(stage, window, dice):
        window.open(stage.placed())
        stage.world.build = stage.builds[build]
        ok(stage.world.load())
        hold(dice, 0, 1)  # of one version's agent with the other one's maps
        assert stage.agent.stop(timeout=30) == 0, "the agent's exit status"
        stage.start_agent()
    return run


def detach(stage, window, dice):
    """Nothing listens on the frontend meanwhile. What is connected stays, and is nobody's
    business from then on."""
    stopped = dice.random() < 0.5
    window.open(stage.placed())
    if stopped:
        assert stage.agent.stop(timeout=30) == 0, "the agent's exit status"
    try:
        ok(stage.world.detach(timeout=60))
        stage.detached()
        hold(dice, 0.2, 1.5)
        stage.foreign.update(sockets(stage.world))
    finally:
        ok(stage.world.load())
        if stopped:
            stage.start_agent()


# --- the agent's surroundings -------------------------------------------------


def lists(stage, _window, dice):
    """What the cluster says of itself: one apiserver fewer, nobody (not believed), or many
    changes in one go."""
    all_ = [b.v4 for b in stage.world.backends]
    how = dice.choice(("fewer", "fewer", "empty", "burst"))
    if how == "fewer":
        left = dice.choice(stage.world.backends)
        stage.etcd.put("kubernetes", [a for a in all_ if a != left.v4])
        wait_known(stage.world, [b for b in stage.world.backends if b is not left], 30)
        hold(dice, 0, 1)
    elif how == "empty":
        stage.etcd.put("kubernetes", [])
        hold(dice, 0.2, 1)
    else:
        stage.etcd.burst(200, "kubernetes", all_)
    stage.etcd.put("kubernetes", all_)
    wait_known(stage.world, stage.world.backends, 30)


def certificates(stage, _window, _dice):
    """The CA beside its successor, then the servers' certificates one after the other, then the
    successor alone; as apiservers do it, without a restart."""
    kind = "good" if stage.certificate == "wrong_ca" else "wrong_ca"  # another CA's, well made
    mark, log = len(stage.agent.log()), stage.agent.log_path
    stage.trust("good", "wrong_ca")
    for api in stage.world.backends:
        api.use_certificate(stage.world.pki, kind)
        api.set(alpn=api.settings["alpn"])
    stage.certificate = kind
    stage.trust(kind)
    assert stage.agent.log_path == log
    changes = [s for b in stage.world.backends for s in state_changes(stage.agent, b, mark)]
    assert not {"dead", "draining"} & set(changes), f"states while certificates change: {changes}"


def full_disk(stage, _window, dice):
    """Nothing more can be written where the agent keeps the last list, through a change of the
    list and a start of the agent."""
    left = dice.choice(stage.world.backends)
    filler = os.path.join(stage.state, "filler")
    fill(filler)
    try:
        stage.etcd.put("kubernetes", [b.v4 for b in stage.world.backends if b is not left])
        wait_known(stage.world, [b for b in stage.world.backends if b is not left], 30)
        assert stage.agent.stop(timeout=30) == 0, "the agent's exit status"
        stage.start_agent()
    finally:
        os.unlink(filler)
        stage.etcd.put("kubernetes", [b.v4 for b in stage.world.backends])
    wait_known(stage.world, stage.world.backends, 30)


def fill(path):
    with open(path, "wb", buffering=0) as f:
        while True:
            try:
                f.write(bytes(4096))
            except OSError as e:
                if e.errno != errno.ENOSPC:
                    raise
                return


KINDS = {
    "kill": Kind(one(begin_kill, end_kill), "victim", "begin",
                 "kill -9 of an apiserver"),
    "hang": Kind(one(lambda b: b.stop(), lambda b: b.cont()), "victim", "begin",
                 "an apiserver is stopped (SIGSTOP)"),
    "hole": Kind(one(lambda b: b.link(up=False), lambda b: b.link(up=True)), "victim", "begin",
                 "an apiserver's host takes no packets"),
    "slow link": Kind(slow, "none", "none",
                      "an apiserver's link carries 512 kbit/s"),
    "restart": Kind(restart, "victim", "all",
                    "an apiserver shuts down in order and comes back"),
    "drain": Kind(drain, "none", "none",
                  "`kubelbctl drain` and `undrain`"),
    "unready": Kind(unready, "none", "none",
                    "an apiserver says 500 on /readyz"),
    "blackout": Kind(blackout, "all", "all",
                     "all apiservers are killed, stopped or cut off at once"),
    "clients": Kind(clients, "none", "none",
                    "kill -9 of all clients, and of one with 200 connections"),
    "agent killed": Kind(agent_killed, "relayed", "none",
                         "kill -9 of the agent, and another one up to 4 s later"),
    "agent restarted": Kind(agent_restarted, "relayed", "none",
                            "SIGTERM to the agent, and another one"),
    "reload": Kind(reload, "none", "none",
                   "another policy; by the file, a signal or `kubelb-load`, or after a bad file"),
    "upgrade": Kind(change_version("next"), "relayed", "none",
                    "`kubelb-load` and the agent of the next ABI version"),
    "downgrade": Kind(change_version("this"), "relayed", "none",
                      "back to this version"),
    "detach": Kind(detach, "relayed", "all",
                   "`kubelb-load --detach`, and attached again"),
    "lists": Kind(lists, "none", "none",
                  "discovery hears of fewer apiservers, of none, or of 200 changes"),
    "certificates": Kind(certificates, "none", "none",
                         "the CA and the apiservers' certificates are replaced"),
    "full disk": Kind(full_disk, "relayed", "none",
                      "the disk of the agent's cache is full, while the list changes and the "
                      "agent restarts"),
}

# After these there is another agent.
REPLACING = ("agent killed", "agent restarted", "upgrade", "downgrade", "detach", "full disk")
TURNS = 5  # one of them with these


def order_of(seed):
    """The kinds, without end: all of them, then a few times those that leave the agent alone, so
    that it also gets old. In each turn everything comes once, a downgrade after its upgrade."""
    dice = random.Random(seed)
    for turn in itertools.count():
        bag = [name for name in KINDS if turn % TURNS == 0 or name not in REPLACING]
        dice.shuffle(bag)
        if "upgrade" in bag:
            up, down = sorted((bag.index("upgrade"), bag.index("downgrade")))
            bag[up], bag[down] = "upgrade", "downgrade"
        yield from bag


def dice_of(seed, step):
    """Chance within one step, whatever came before."""
    return random.Random(f"{seed} {step}")
