# SPDX-License-Identifier: BSD-2-Clause
"""Nobody is left behind: connects whose backend does not answer, and those of sockets that can
reach no backend, are served by the relay."""

import contextlib
import errno
import hashlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time

import pytest

import helpers
from backend import PORT
from helpers import Held, Kept, Listener, dial, dial_error, nbconnect, ok, served_by
from system import WorldError, inside, run_checked, wait_until

CLIENTS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "clients")
sys.path.append(CLIENTS)
from blobserver import blob  # noqa: E402  (after sys.path)

OURS = "proto 75"
MARK = 0x1000
BIG = 100 * 1000 * 1000
# Of the configuration below; a test allows for a busy machine on top of it.
CONNECT_TIMEOUT = 1.0
BUSY = 3.0


# --- looking -------------------------------------------------------------------------------


def routing(world):
    """The node's rules and routes, both families, as text."""
    return "".join(run_checked(["ip", "-n", world.node, *command]) for command in (
        ["rule"], ["-6", "rule"], ["route", "show", "table", "all"],
        ["-6", "route", "show", "table", "all"]))


def has_rule(world):
    return OURS in routing(world)


def listeners(world):
    """address:port of what listens in the node."""
    lines = world.exec(["ss", "-Hltn"]).stdout.splitlines()
    return {line.split()[3] for line in lines}


def relay_of(world):
    return json.loads(ok(world.ctl("status", "-o", "json")).stdout)["relay"]


def relayed(world, name="kubelb_relay_connections_active", **where):
    """Connections by the metrics, of that `from`."""
    samples = helpers.metrics(world).get(name, [])
    return sum(value for labels, value in samples
               if all(labels.get(k) == v for k, v in where.items()))


def failovers(world):
    return {(labels["from"], labels["to"]): value for labels, value
            in helpers.metrics(world).get("kubelb_connect_failovers_total", [])}


def wait_on(world):
    """Until the relay could take both kinds."""
    wait_until(lambda: relay_of(world) and relay_of(world)["rescue"]["on"]
               and relay_of(world)["detour"]["on"],
               lambda: f"the relay to be on, is {relay_of(world)}")


def wait_gone(world, timeout=5):
    """Until nothing of the relay is left in the host's network."""
    wait_until(lambda: not has_rule(world) and not stand_ins(world),
               lambda: f"rule and listeners to go: {routing(world)} {listeners(world)}", timeout)


def stand_ins(world):
    return {at for at in listeners(world)
            if at in {b.endpoint for b in world.backends} | {b.endpoint6 for b in world.backends}}


# --- going through ---------------------------------------------------------------------------


@pytest.fixture(name="relaying")
def relaying_fixture(balanced):
    """An agent that has found every backend ready, with its relay."""
    wait_on(balanced)
    yield balanced
    for b in balanced.backends:
        b.link(up=True)


def cut(world, *indices):
    for i in indices:
        world.cp(i).link(up=False)


@contextlib.contextmanager
def deaf(world, index):
    """A firewall drops new connections to that backend. Its probe connection goes on, so nothing
    but unanswered SYNs can tell the agent."""
    ns = world.cp(index).ns
    rule = ["INPUT", "-p", "tcp", "--dport", PORT, "--syn", "-j", "DROP"]
    ok(world.exec(["iptables", "-w", "-A", *rule], ns=ns))
    try:
        yield
    finally:
        ok(world.exec(["iptables", "-w", "-D", *rule], ns=ns))


@contextlib.contextmanager
def rescued(world, n):
    """n TLS connections that begin at once, so that all of them find their backend gone, before
    anybody can have told."""
    barrier, made, errors = threading.Barrier(n), [], []

    def client():
        barrier.wait()
        try:
            made.append(Kept(world))
        except OSError as e:
            errors.append(repr(e))

    threads = [threading.Thread(target=client) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert not errors, (len(errors), errors[:3])
        assert relayed(world, **{"from": "retransmit"}) == n
        yield made
    finally:
        for connection in made:
            connection.close()


def only(world, index):
    """Every connect goes to that backend, until it is suspect: the others are drained, and still
    there for the relay."""
    for i in range(1, 4):
        if i != index:
            ok(world.ctl("drain", world.cp(i).endpoint))


@pytest.fixture(name="hole")
def hole_fixture(relaying):
    """All connects go to cp1, whose host has just vanished."""
    only(relaying, 1)
    cut(relaying, 1)
    return relaying


# --- a black hole -----------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [100, 3000])
@pytest.mark.parametrize("holes", [(1,), (1, 2)])
def test_no_connect_fails(relaying, rate, holes):
    """The hosts of one or two of three vanish under traffic: every connect is served, far sooner
    than connectTimeout. (How soon is measured by scripts/rescue.sh.)"""
    client = relaying.spawn([relaying.client, "--rate", rate, "--seconds", 4, helpers.V4])
    wait_until(lambda: sum(helpers.stats(relaying, "opened").values()) > rate / 2, "traffic")
    cut(relaying, *holes)
    result = helpers.summary(client.communicate(timeout=60)[0])
    assert result["failed"] == 0, result
    assert result["max_ms"] < 1000 * CONNECT_TIMEOUT, result
    assert relayed(relaying, "kubelb_relay_connections_total", **{"from": "retransmit"}) > 0
    served = {to for (frm, to) in failovers(relaying) if frm == relaying.cp(1).endpoint}
    assert served and relaying.cp(1).endpoint not in served


def test_all_vanished(relaying):
    """With nobody left the client hears it when connectTimeout is over: the connection that the
    relay has taken is reset, or its connect fails once everybody is dead."""
    cut(relaying, 1, 2, 3)
    names = []
    for _ in range(4):
        start = time.monotonic()
        try:
            with dial(relaying) as sock:
                assert sock.recv(1) == b"", "data from nobody"
            names.append("EOF")
        except OSError as e:
            names.append(errno.errorcode[e.errno])
        assert time.monotonic() - start < CONNECT_TIMEOUT + BUSY
    assert names[0] == "ECONNRESET", names
    assert set(names) <= {"ETIMEDOUT", "ECONNRESET", "EHOSTUNREACH"}, names


@pytest.mark.parametrize("host", [helpers.V4, helpers.V6, helpers.MAPPED])
def test_whoever_dials(hole, host):
    """IPv4, IPv6 and v4-mapped sockets: TLS works, getpeername shows what was dialled, and the
    list of connections has each once, at the backend that serves it, with its process."""
    with Kept(hole, host) as connection:
        name = connection.backend()
        assert name in {"cp2", "cp3"}
        assert connection.sock.getpeername()[:2] == (host, PORT)
        rows = json.loads(ok(hole.ctl("connections", "-o", "json")).stdout)["connections"]
        mine = [r for r in rows if r["process"]["pid"] == os.getpid()]
        assert [r["backend"] for r in mine] == [hole.cp(int(name[2:])).endpoint], rows
        assert relay_of(hole)["connections"] == 1 or wait_until(
            lambda: relay_of(hole)["connections"] == 1, "status to show the connection")


def test_ordinary_user(relaying):
    """Nothing but the kernel's event tells the agent, and an ordinary user's SYN makes one too."""
    only(relaying, 1)
    with deaf(relaying, 1):
        done = relaying.exec(["setpriv", "--reuid=65534", "--clear-groups", relaying.client,
                              "--ask", helpers.V4])
    assert helpers.summary(done.stdout)["failed"] == 0, done.stdout
    assert relayed(relaying, "kubelb_relay_connections_total", **{"from": "retransmit"}) == 1


def test_only_backend(stage):
    """A SYN of the only backend is lost: nobody else could take its client, so its next SYN has to
    reach the backend itself, and the connect is no error."""
    stage.configure(backends=[stage.cp(1).endpoint])
    stage.agent()
    wait_until(lambda: helpers.agent_serves(stage), "the agent")
    wait_until(lambda: relay_of(stage) and relay_of(stage)["rescue"] ==
               {"on": False, "off": "alone"}, lambda: f"status: {relay_of(stage)}")
    cut(stage, 1)
    client = stage.spawn([stage.client, "--ask", helpers.V4])

    def sent_again():
        lines = stage.exec(["ss", "-Htnpo", "state", "syn-sent"]).stdout.splitlines()
        return any(re.search(r'"nbconnect".*timer:\(on,\w+,[1-9]', line) for line in lines)

    wait_until(sent_again, "the SYN to be sent again")
    stage.cp(1).link(up=True)
    assert helpers.summary(client.communicate(timeout=20)[0])["failed"] == 0
    assert not has_rule(stage)


def test_ipv6_backends(stage):
    """The same where backends are IPv6, and the rule with them."""
    stage.configure(backends=[b.endpoint6 for b in stage.backends], frontends=[f"[::1]:{PORT}"])
    agent = stage.agent()
    wait_until(lambda: not agent.alive() or helpers.agent_serves(stage), "the agent to serve")
    wait_on(stage)
    for b in stage.backends[1:]:
        ok(stage.ctl("drain", b.endpoint6))
    stage.cp(1).link(up=False)
    with Kept(stage, helpers.V6) as connection:
        assert connection.backend() in {"cp2", "cp3"}
        rules = run_checked(["ip", "-n", stage.node, "-6", "rule"])
        assert OURS in rules
        assert OURS not in run_checked(["ip", "-n", stage.node, "rule"])


def test_http2(hole):
    """HTTP/2 through the relay: curl as a client, with five requests on one connection."""
    done = hole.exec(["curl", "-sS", "--http2", "--cacert", hole.ca, "-w", " HTTP/%{http_version}\n",
                      *["https://127.0.0.1:6443/version"] * 5])
    assert done.returncode == 0 and done.stdout.count(" HTTP/2\n") == 5, done
    assert done.stdout.count('"backend":"cp') == 5
    assert relayed(hole, "kubelb_relay_connections_total", **{"from": "retransmit"}) == 1


def test_many_at_once(relaying):
    """20 threads with 100 connections each, all of them relayed; then 100 in one moment, of which
    the first find their backend gone."""
    errors = []

    def client():
        for _ in range(100):
            try:
                served_by(relaying, bind="127.0.0.1")
            except OSError as e:
                errors.append(repr(e))

    threads = [threading.Thread(target=client) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, (len(errors), errors[:5])
    assert relayed(relaying, "kubelb_relay_connections_total") == 2000
    only(relaying, 1)
    with deaf(relaying, 1), Held(relaying, 100) as held:
        assert relayed(relaying, **{"from": "retransmit"}) > 0
        assert held.close()["closed"] == 0


@pytest.fixture(name="big")
def big_fixture(relaying):
    """All connects go to cp1, which has vanished; cp2 moves much."""
    only(relaying, 1)
    ok(relaying.ctl("weight", relaying.cp(3).endpoint, "0"))
    cp = relaying.cp(2)
    cp.kill()
    relaying.spawn([sys.executable, os.path.join(CLIENTS, "blobserver.py"), cp.v4, PORT,
                    cp.path("current.crt"), relaying.pki.key], ns=cp.ns)

    def serves():
        with contextlib.suppress(OSError):
            socket_of = helpers.make_socket(relaying, socket.AF_INET)
            with socket_of:
                return socket_of.connect_ex((cp.v4, PORT)) == 0
        return False

    wait_until(serves, "the server to listen")
    cut(relaying, 1)
    return relaying


def test_much_comes_through_whole(big):
    """100 MB down and 100 MB up: every byte, in its place."""
    want = hashlib.sha256()
    for chunk in blob(BIG):
        want.update(chunk)
    with rescued(big, 2) as (down, up):
        down.send(f"/blob/{BIG}")
        response, got = down.response(), hashlib.sha256()
        while data := response.read(1 << 16):
            got.update(data)
        assert got.hexdigest() == want.hexdigest()
        up.sock.sendall(
            f"POST /blob HTTP/1.1\r\nHost: x\r\nContent-Length: {BIG}\r\n\r\n".encode())
        for chunk in blob(BIG):
            up.sock.sendall(chunk)
        assert up.response().read().decode() == want.hexdigest()


def test_relayed_connection_survives_the_return(hole):
    """The vanished host comes back: what is relayed goes on, and rule and route with it. They go
    after its end."""
    with Kept(hole) as connection:
        connection.backend()
        hole.cp(1).link(up=True)
        helpers.wait_states(hole, "ready", [hole.cp(1)], timeout=20)
        wait_until(lambda: not stand_ins(hole), "the listener to close", 20)
        # Longer than the rule stays for clients on their way.
        time.sleep(CONNECT_TIMEOUT + 2)
        assert has_rule(hole)
        assert connection.backend() in {"cp2", "cp3"}
    wait_gone(hole, 10)


def test_backend_of_relayed_connection_dies(hole):
    """The backend that serves a rescued client vanishes too: its client hears of it as soon as
    the agent knows, like any other."""
    with Kept(hole) as connection:
        name = connection.backend()
        ok(hole.ctl("undrain", hole.cp(2).endpoint))
        ok(hole.ctl("undrain", hole.cp(3).endpoint))
        cut(hole, int(name[2:]))
        connection.sock.settimeout(10)
        connection.send("/version")
        with pytest.raises((ConnectionResetError, ssl.SSLError)):
            connection.response()


# --- the agent's end ----------------------------------------------------------------------------


def test_agent_ends_gently(hole):
    """SIGTERM: what is relayed goes on until it is finished, nothing new comes, and the agent is
    gone soon after; nothing is left in the network."""
    agent = hole.running
    with Kept(hole) as connection:
        connection.backend()
        agent.signal(signal.SIGTERM)
        agent.wait_log("what is relayed may finish")
        wait_until(lambda: not stand_ins(hole), "the listeners to close")
        assert connection.backend() in {"cp2", "cp3"}
        assert agent.alive() and has_rule(hole)
        assert relay_of(hole)["rescue"]["on"] is False
    assert agent.process.wait(timeout=5) == 0
    assert "what was relayed is finished" in agent.log()
    wait_gone(hole)


def test_drain_is_over(stage):
    """relay.drain: what is not finished by then is reset."""
    stage.configure(relay={"drain": "300ms"}, connectTimeout="200ms")
    agent = stage.agent()
    wait_until(lambda: helpers.agent_serves(stage), "the agent")
    wait_on(stage)
    with Kept(stage, bind="127.0.0.1") as connection:
        connection.backend()
        agent.signal(signal.SIGTERM)
        assert agent.process.wait(timeout=5) == 0
        assert "they are reset" in agent.log()
        connection.sock.settimeout(5)
        with pytest.raises(OSError):
            connection.get()


def test_second_signal_does_not_wait(hole):
    with Kept(hole) as connection:
        connection.backend()
        hole.running.signal(signal.SIGTERM)
        hole.running.wait_log("what is relayed may finish")
        hole.running.signal(signal.SIGTERM)
        assert hole.running.process.wait(timeout=5) == 0
    wait_gone(hole)


def test_idle_agent_ends_at_once(relaying):
    start = time.monotonic()
    assert relaying.running.stop() == 0
    assert time.monotonic() - start < 1 + BUSY
    assert "may finish" not in relaying.running.log()


def test_killed_agent(relaying):
    """kill -9 in the middle: straight connections stay, relayed ones end by a reset, the rule goes
    with the agent, and the next agent starts with nothing left over."""
    with Held(relaying, 30) as straight:
        only(relaying, 1)
        cut(relaying, 1)
        with Kept(relaying) as connection:
            connection.backend()
            relaying.running.kill9()
            connection.sock.settimeout(5)
            with pytest.raises(OSError):
                connection.get()
        wait_gone(relaying)
        relaying.cp(1).link(up=True)
        assert straight.close()["closed"] == 0
    for i in (2, 3):
        ok(relaying.ctl("undrain", relaying.cp(i).endpoint))
    assert nbconnect(relaying, "-n", "200", helpers.V4)["failed"] == 0


def test_left_over_by_another_agent(stage):
    """Rule and route of an agent that was killed with all its processes, with other numbers."""
    with inside(stage.node):
        for family in ("-4", "-6"):
            run_checked(["ip", family, "rule", "add", "fwmark", "0x2000/0x2000", "lookup", "77",
                         "priority", "75", "protocol", "75"])
            run_checked(["ip", family, "route", "add", "local", "default", "dev", "lo", "table",
                         "77", "protocol", "75"])
    agent = stage.agent()
    wait_until(lambda: not has_rule(stage), lambda: f"the rule to go: {agent.log()}")


def test_detach(hole):
    """--detach takes rule, route and listeners away; what was relayed is reset at once and does
    not hang; the agent has nothing left."""
    with Kept(hole) as connection:
        connection.backend()
        ok(hole.detach())
        assert not has_rule(hole)
        connection.sock.settimeout(5)
        with pytest.raises(OSError):
            for _ in range(1000):
                connection.get()
    wait_gone(hole)
    wait_until(lambda: not [at for at in listeners(hole) if at.startswith("[::1]")],
               "the detour's listeners to close")


def test_detach_without_an_agent(hole):
    """The agent and its helper were killed: kubelb-load --detach cleans up."""
    wait_until(lambda: dial_error(hole) is None and has_rule(hole), "the rule")
    rules = routing(hole)
    hole.running.kill9()
    wait_gone(hole)
    for line in rules.splitlines():
        if OURS in line and line.startswith("75:"):
            with inside(hole.node):
                run_checked(["ip", "rule", "add", "fwmark", "0x1000/0x3fff", "lookup", "6443",
                             "priority", "75", "protocol", "75"])
                break
    assert has_rule(hole)
    ok(hole.detach())
    assert not has_rule(hole)


# --- others' -----------------------------------------------------------------------------------


FOREIGN = """rule add fwmark 0x200/0xf00 lookup 2004 priority 9
rule add fwmark 0x80/0x80 lookup main priority 1024
rule add fwmark 0x80000/0xff0000 lookup main priority 5210
rule add not fwmark 0xca6c lookup 51820 priority 32764
rule add from 192.0.2.1 lookup 75 priority 75
route add local default dev lo table 2004
"""


def test_rules_of_others_stay(stage):
    """Rules and routes of others are byte for byte the same during and after a rescue."""
    stage.ip_batch(stage.node, FOREIGN.splitlines())
    try:
        before = routing(stage)
        agent = stage.agent()
        wait_until(lambda: helpers.agent_serves(stage), "the agent")
        wait_on(stage)
        assert routing(stage) == before
        only(stage, 1)
        cut(stage, 1)
        with Kept(stage) as connection:
            assert connection.backend() in {"cp2", "cp3"}
            during = routing(stage)
            theirs = "".join(line for line in during.splitlines(True) if OURS not in line)
            assert theirs == before and during != before
        assert agent.stop() == 0
        assert routing(stage) == before
    finally:
        stage.ip_batch(stage.node, [line.replace(" add", " del") for line in FOREIGN.splitlines()])


@pytest.mark.parametrize("theirs, cure", [
    ("rule add fwmark 0x1000/0x1000 lookup 99", "set relay.mark"),
    ("route add 198.51.100.0/24 via 192.168.77.11 table 6443", "set relay.table")])
def test_taken(stage, theirs, cure):
    """Somebody else uses the mark or the table: no rescue, said once with the cure; the rest goes
    on; another number in the configuration helps at once."""
    stage.ip_batch(stage.node, [theirs])
    try:
        before = routing(stage)
        agent = stage.agent()
        wait_until(lambda: helpers.agent_serves(stage), "the agent")
        agent.wait_log(f"are not rescued, the rest works.*{cure}")
        wait_until(lambda: relay_of(stage)["rescue"] == {"on": False, "off": "taken"},
                   lambda: f"status to say it: {relay_of(stage)}")
        assert "OFF (somebody else uses its mark" in ok(stage.ctl("status")).stdout
        assert relay_of(stage)["detour"]["on"]
        assert nbconnect(stage, "-n", "50", helpers.V4)["failed"] == 0
        assert routing(stage) == before
        stage.configure(relay={"mark": "0x400/0xfff", "table": 6444})
        agent.hup()
        wait_on(stage)
        assert agent.log().count("are not rescued, the rest works") == 1
        assert "are rescued again" in agent.log()
    finally:
        stage.ip_batch(stage.node, [theirs.replace(" add", " del")])


def test_address_in_use(relaying):
    """Somebody listens on every address, on the backends' port: no rescue for these, said with the
    owner; connects are as without the relay, and rescue works once that is over."""
    with Listener(relaying, "0.0.0.0", PORT):
        only(relaying, 1)
        cut(relaying, 1)
        # Not in this process: a server that dials itself is left alone.
        result = nbconnect(relaying, helpers.V4)
        assert set(result["errors"]) <= {"ETIMEDOUT", "EHOSTUNREACH"} and result["failed"], result
        line = relaying.running.wait_log("the relay cannot listen in its place")
        assert "owner=" in line and "fix=" in line
        assert relay_of(relaying)["rescue"] == {"on": True, "off": "address"}
    wait_until(lambda: stand_ins(relaying), "the listener")
    with Kept(relaying) as connection:
        assert connection.backend() in {"cp2", "cp3"}


def test_own_backend_keeps_its_port(stage):
    """On a control-plane node the apiserver listens on every address: nothing may listen on its
    port, or it could not restart while another one is dead."""
    local = stage.local_apiserver()
    stage.configure(backends=[local.endpoint, *[b.endpoint for b in stage.backends]],
                    local="ignore")
    stage.agent()
    wait_until(lambda: helpers.agent_serves(stage), "the agent")
    wait_until(lambda: relay_of(stage) and relay_of(stage)["rescue"] ==
               {"on": False, "off": "local"}, lambda: f"no rescue: {relay_of(stage)}")
    cut(stage, 1)
    helpers.wait_states(stage, "dead", [stage.cp(1)])
    assert not stand_ins(stage) and not has_rule(stage)
    local.kill()
    local.start()


def test_without_the_privilege(stage):
    """No CAP_NET_ADMIN: no rescue, and status says why."""
    ok(stage.load())
    agent = stage.agent(prefix=["setpriv", "--bounding-set=-net_admin",
                                "--inh-caps=-all"])
    wait_until(lambda: helpers.agent_serves(stage), lambda: f"the agent: {agent.log()}")
    wait_until(lambda: relay_of(stage) and relay_of(stage)["rescue"] ==
               {"on": False, "off": "privilege"}, lambda: f"status: {relay_of(stage)}")
    assert nbconnect(stage, "-n", "50", helpers.V4)["failed"] == 0


def iptables(world, *rules):
    for rule in rules:
        for command in ("iptables", "ip6tables"):
            if command == "iptables" or "." not in rule:
                ok(world.exec([command, "-w", *rule.split()]))


FIREWALLS = {
    "rp_filter": [],
    "default drop with conntrack": [
        "-A INPUT -i lo -j ACCEPT",
        "-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
        "-A OUTPUT -o lo -j ACCEPT",
        "-A OUTPUT -m conntrack --ctstate NEW,ESTABLISHED,RELATED -j ACCEPT",
        "-A INPUT -m conntrack --ctstate INVALID -j DROP", "-P INPUT DROP", "-P FORWARD DROP",
        "-P OUTPUT DROP"],
    "kube-proxy": [
        "-t nat -N KUBE-SERVICES", "-t nat -N KUBE-POSTROUTING", "-t nat -N KUBE-MARK-MASQ",
        "-N KUBE-FIREWALL",
        "-t nat -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000",
        "-t nat -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
        "-t nat -A KUBE-POSTROUTING -j MARK --xor-mark 0x4000",
        "-t nat -A KUBE-POSTROUTING -j MASQUERADE --random-fully",
        "-t nat -A POSTROUTING -j KUBE-POSTROUTING",
        "-t nat -A OUTPUT -j KUBE-SERVICES", "-t nat -A PREROUTING -j KUBE-SERVICES",
        "-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate "
        "RELATED,ESTABLISHED,DNAT -j DROP",
        "-A KUBE-FIREWALL -m mark --mark 0x8000/0x8000 -j DROP",
        "-A INPUT -j KUBE-FIREWALL", "-A OUTPUT -j KUBE-FIREWALL",
        "-A INPUT -m conntrack --ctstate INVALID -j DROP"],
}


@pytest.fixture(name="firewall")
def firewall_fixture(stage):
    """A firewall of the node; what it was before at the end."""
    yield stage
    for command in ("iptables", "ip6tables"):
        for chain in ("INPUT", "OUTPUT", "FORWARD"):
            stage.exec([command, "-w", "-P", chain, "ACCEPT"])
        for table in ("filter", "nat"):
            stage.exec([command, "-w", "-t", table, "-F"])
            stage.exec([command, "-w", "-t", table, "-X"])
    for name in ("all", "default", "eth0", "lo"):
        stage.sysctl(stage.node, f"net.ipv4.conf.{name}.rp_filter", "0")


@pytest.mark.parametrize("kind", list(FIREWALLS))
def test_firewalls(firewall, kind):
    """Reverse path filters and the firewalls of nodes let rescue and detour work: nothing is sent
    in anybody's name, and no address is translated."""
    for name in ("all", "default", "eth0", "lo"):
        firewall.sysctl(firewall.node, f"net.ipv4.conf.{name}.rp_filter", "1")
    iptables(firewall, *FIREWALLS[kind])
    firewall.agent()
    wait_until(lambda: helpers.agent_serves(firewall), "the agent")
    helpers.wait_states(firewall, "ready", firewall.backends)
    wait_on(firewall)
    with Kept(firewall, bind="127.0.0.1") as connection:
        assert connection.backend()
    only(firewall, 1)
    cut(firewall, 1)
    for host in (helpers.V4, helpers.MAPPED):
        with Kept(firewall, host) as connection:
            assert connection.backend() in {"cp2", "cp3"}
            assert connection.get()[0] == 200


# --- detour ------------------------------------------------------------------------------------


@pytest.mark.parametrize("host, source", [(helpers.V4, "127.0.0.1"), (helpers.V4, "127.0.0.9"),
                                          (helpers.V6, "::1"),
                                          (helpers.MAPPED, "::ffff:127.0.0.1")])
def test_loopback_source(relaying, host, source):
    """A socket bound to a loopback source cannot leave the host: the relay serves it."""
    before = helpers.counters(relaying)["skipped_loopback_source"]
    with Kept(relaying, host, bind=source) as connection:
        assert connection.backend() in {"cp1", "cp2", "cp3"}
        assert connection.sock.getpeername()[:2] == (host, PORT)
        assert relayed(relaying, **{"from": "unreachable"}) == 1
    assert helpers.counters(relaying)["skipped_loopback_source"] == before


@pytest.mark.parametrize("six", [True, False])
def test_another_family(stage, six):
    """An IPv4 socket with only IPv6 backends, and the reverse."""
    stage.configure(backends=[b.endpoint6 if six else b.endpoint for b in stage.backends])
    stage.agent()
    wait_until(lambda: helpers.agent_serves(stage), "the agent")
    wait_on(stage)
    host = helpers.V4 if six else helpers.V6
    kwargs = {} if six else {"v6only": 1}
    with Kept(stage, host, **kwargs) as connection:
        assert connection.backend() in {"cp1", "cp2", "cp3"}
        assert connection.sock.getpeername()[:2] == (host, PORT)


def test_strangers_are_refused(relaying):
    """Who dials the relay's own listeners has not been sent there: it gets no backend."""
    ports = [at for at in listeners(relaying) if re.match(r"127\.0\.0\.1:(?!8081$)", at)]
    assert len(ports) == 1, ports
    with pytest.raises(ConnectionResetError):
        with dial(relaying, helpers.V4, int(ports[0].rpartition(":")[2])) as sock:
            sock.recv(1)
    only(relaying, 1)
    cut(relaying, 1)
    with Kept(relaying):
        pass
    sock = helpers.make_socket(relaying, socket.AF_INET)
    with sock:
        sock.settimeout(5)
        sock.bind((relaying.node_v4, 0))
        sock.setsockopt(socket.SOL_SOCKET, 36, MARK)  # SO_MARK
        with pytest.raises(ConnectionResetError):
            sock.connect((relaying.cp(1).v4, PORT))
            sock.recv(1)
    assert relayed(relaying, "kubelb_relay_refused_total", reason="unknown") == 2


def test_limit(stage):
    """relay.connections: one more is reset, and counted."""
    stage.configure(relay={"connections": 5})
    stage.agent()
    wait_until(lambda: helpers.agent_serves(stage), "the agent")
    wait_on(stage)
    with contextlib.ExitStack() as stack:
        kept = [stack.enter_context(Kept(stage, bind="127.0.0.1")) for _ in range(5)]
        assert all(c.backend() for c in kept)
        with pytest.raises((OSError, WorldError)):
            with Kept(stage, bind="127.0.0.1", timeout=2) as connection:
                connection.get()
        assert all(c.backend() for c in kept)
        assert relayed(stage, "kubelb_relay_refused_total", reason="limit") >= 1


# --- configuration -------------------------------------------------------------------------------


def test_switched_off(hole):
    """rescue: false and detour: false at a reload: listeners close, connects are as without."""
    with Kept(hole) as connection:
        connection.backend()
    hole.configure(relay={"rescue": False, "detour": False})
    hole.running.hup()
    wait_until(lambda: relay_of(hole)["rescue"] == {"on": False, "off": "config"}
               and relay_of(hole)["detour"] == {"on": False, "off": "config"},
               lambda: f"status: {relay_of(hole)}")
    wait_gone(hole, 10)
    assert dial_error(hole, bind="127.0.0.1") == "ECONNREFUSED"


def test_nothing_while_all_is_well(relaying):
    """No rule, no listener in a backend's place: the host's own packets meet nothing of it."""
    assert nbconnect(relaying, "-n", "300", helpers.V4)["failed"] == 0
    assert not has_rule(relaying) and not stand_ins(relaying)
    assert relayed(relaying, "kubelb_relay_connections_total") == 0
    line = [ln for ln in ok(relaying.ctl("status")).stdout.splitlines() if ln.startswith("relay")]
    assert line == ["relay     rescue on, detour on, 0 connections"]
