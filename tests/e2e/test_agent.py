# SPDX-License-Identifier: BSD-2-Clause
"""kubelb-agent: what it finds out about backends, and what follows from it."""

import os
import re
import shutil
import signal
import time

import pytest

from backend import PORT
from helpers import (V4, Accepts, Held, Kept, about, backend_status, carried, counters, dial_error,
                     fails, http_call, kept_to, nbconnect, ok, pins, places, served_by, served_set,
                     state_of, stats, wait_carried, wait_idle, wait_states, weight_of)
from system import run_checked, wait_until

ALL = {"cp1", "cp2", "cp3"}


def assert_avoided(stage, name, connects=60):
    counts = Accepts(stage)
    assert nbconnect(stage, "-n", connects, V4)["failed"] == 0
    assert counts.settled(connects)[name] == 0


def test_attaches_first(stage):
    """Nothing attached, no kubelb-load ran: the agent sees to it."""
    assert not os.path.exists(stage.pin)
    agent = stage.agent()
    wait_states(stage, "ready", stage.backends)
    assert served_set(stage, 60) == ALL
    assert agent.stop() == 0
    assert served_set(stage, 60) == ALL


@pytest.mark.parametrize("moment", ["map_update:1", "link_create:1", "link_create:3", "obj_pin:1"])
def test_killed_while_it_attaches(stage, library, moment):
    """Its child attaches, and is what the kernel kills for want of memory: said in one line,
    exit 1, nothing is attached, and the next start does it."""
    agent = stage.agent(env={**library, "KILLAT": moment})
    assert agent.process.wait(timeout=20) == 1
    assert agent.log() == ("kubelb-agent: cannot attach: ended by signal 9 (SIGKILL); run "
                           "kubelb-load first, or allow it more memory: attaching takes 16 MiB\n")
    assert dial_error(stage) == "ECONNREFUSED"
    agent = stage.agent()
    wait_states(stage, "ready", stage.backends)
    assert served_set(stage, 60) == ALL
    assert agent.stop() == 0


def test_joins_what_is_attached(attached):
    before = pins(attached)
    attached.agent()
    wait_states(attached, "ready", attached.backends)
    assert pins(attached) == before
    assert served_set(attached, 60) == ALL


def test_starts_before_the_apiservers(stage):
    for b in stage.backends:
        b.kill()
    stage.agent()
    wait_states(stage, "dead", stage.backends)
    for b in stage.backends:
        b.start()
    wait_states(stage, "ready", stage.backends)
    assert served_by(stage) in ALL


# --- states ------------------------------------------------------------------


def test_killed_backend(balanced):
    cp = balanced.cp(1)
    cp.kill()
    wait_states(balanced, "dead", [cp])
    assert "refused" in about(backend_status(balanced)[cp.endpoint])
    assert {state_of(balanced, b) for b in balanced.backends[1:]} == {"ready"}
    assert served_set(balanced) == {"cp2", "cp3"}
    cp.start()
    wait_states(balanced, "ready", [cp])
    # It may come back gently: with a growing share, not with its whole one.
    wait_until(lambda: served_by(balanced) == "cp1", "cp1 to serve again", 20)


def test_hung_backend(balanced):
    """Its kernel accepts, it answers nothing: a TCP check would pass."""
    cp = balanced.cp(2)
    cp.stop()
    wait_states(balanced, "dead", [cp])
    assert served_set(balanced) == {"cp1", "cp3"}
    cp.cont()
    wait_states(balanced, "ready", [cp])


def test_black_hole(balanced):
    cp = balanced.cp(3)
    cp.link(up=False)
    wait_states(balanced, "dead", [cp], timeout=15)
    assert served_set(balanced) == {"cp1", "cp2"}
    cp.link(up=True)
    wait_states(balanced, "ready", [cp], timeout=15)


def test_not_ready_drains(balanced):
    """/readyz 500: no new connections, the old ones are left alone."""
    cp = balanced.cp(1)
    with kept_to(balanced, "cp1") as connection:
        cp.readyz(500)
        wait_states(balanced, "draining", [cp])
        assert_avoided(balanced, "cp1")
        assert connection.backend() == "cp1"
    # With no connection left, least-conn has no other reason to avoid it.
    wait_idle(balanced)
    assert_avoided(balanced, "cp1")
    cp.readyz(200)
    wait_states(balanced, "ready", [cp])
    wait_until(lambda: served_by(balanced) == "cp1", "cp1 to serve again", 20)


@pytest.mark.parametrize("status", [401, 403, 404, 503])
def test_other_answers_are_not_ready(balanced, status):
    """Alive, but not ready: a starting apiserver answers 403 for a moment."""
    cp = balanced.cp(1)
    cp.readyz(status)
    wait_until(lambda: state_of(balanced, cp) != "ready", "cp1 not to be ready")
    # The verdict stays: an answer is not a failure that adds up to death.
    seen = len(cp.requests(uri="/readyz"))
    wait_until(lambda: len(cp.requests(uri="/readyz")) >= seen + 4, "four more probes")
    assert state_of(balanced, cp) == "draining"
    assert str(status) in about(backend_status(balanced)[cp.endpoint])
    assert served_set(balanced) == {"cp2", "cp3"}


@pytest.mark.parametrize("kind", ["expired", "wrong_ca", "wrong_name"])
def test_certificate_that_does_not_verify(stage, kind):
    cp = stage.cp(1)
    cp.certificate(kind, stage.pki)
    agent = stage.agent()
    wait_states(stage, "draining", [cp])
    wait_states(stage, "ready", stage.backends[1:])
    assert "certificate" in about(backend_status(stage)[cp.endpoint])
    agent.wait_log(r"(?i)certificate")
    assert served_set(stage) == {"cp2", "cp3"}
    cp.certificate("good", stage.pki)
    wait_states(stage, "ready", [cp])


def test_server_name(stage):
    """probe.serverName is the name that the certificate must have."""
    stage.configure(probe={"serverName": "kubernetes"})
    agent = stage.agent()
    wait_states(stage, "ready", stage.backends)
    assert agent.stop() == 0
    stage.configure(probe={"serverName": "elsewhere.example"})
    agent = stage.agent()
    wait_states(stage, "draining", stage.backends)
    assert agent.stop() == 0


def test_insecure_skip_verify_is_loud(stage):
    stage.cp(1).certificate("wrong_ca", stage.pki)
    stage.configure(probe={"insecureSkipVerify": True})
    agent = stage.agent()
    wait_states(stage, "ready", stage.backends)
    agent.wait_log(r"(?i)level=warn.*insecureSkipVerify")


def test_certificate_without_loopback_is_reported(stage):
    """Clients verify the frontend's address: said at start, with the remedy."""
    stage.cp(2).certificate("no_loopback", stage.pki)
    agent = stage.agent()
    line = agent.wait_log(r"apiServer\.certSANs")
    assert "127.0.0.1" in line
    assert stage.cp(2).v4 in line
    wait_states(stage, "ready", stage.backends)
    assert not [text for text in agent.log().splitlines()
                if "certSANs" in text and stage.cp(1).v4 in text]


def test_all_draining_goes_on(balanced):
    """etcd stalls: nobody is ready, everybody serves."""
    for b in balanced.backends:
        b.readyz(500)
    wait_states(balanced, "draining", balanced.backends)
    assert served_set(balanced, 60) == ALL


def test_draining_goes_before_dead(balanced):
    balanced.cp(1).readyz(500)
    balanced.cp(2).kill()
    balanced.cp(3).kill()
    wait_states(balanced, "draining", [balanced.cp(1)])
    wait_states(balanced, "dead", balanced.backends[1:])
    assert served_set(balanced) == {"cp1"}


def test_all_dead_is_still_tried(balanced):
    """A wrong verdict must not cut the node off: connects go out, and their
    failure is the network's own."""
    for b in balanced.backends:
        b.kill()
    wait_states(balanced, "dead", balanced.backends)
    assert dial_error(balanced) == "ECONNREFUSED"
    assert nbconnect(balanced, "-n", 20, V4)["errors"] == {"ECONNREFUSED": 20}
    balanced.cp(3).start()
    wait_states(balanced, "ready", [balanced.cp(3)])
    assert served_set(balanced) == {"cp3"}


# Preloaded: no connect gets to a backend (a test connect does not leave the host).
CUT_OFF = """
#include <arpa/inet.h>
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>
int connect(int fd, const struct sockaddr *to, socklen_t length)
{
	const struct sockaddr_in *in = (const void *)to;

	if (to->sa_family == AF_INET && ntohl(in->sin_addr.s_addr) >> 16 == (192 << 8 | 168)) {
		errno = EHOSTUNREACH;
		return -1;
	}
	return (int)syscall(SYS_connect, fd, to, length);
}
"""


@pytest.mark.parametrize("asks", [False, True], ids=["connects", "requests"])
def test_wrong_about_all_but_one(stage, tmp_path, asks):
    """An agent whose own connects fail holds every backend for dead; one of them is. What
    the kernel itself has seen counts among the dead, too."""
    source, library = tmp_path / "cut_off.c", tmp_path / "cut_off.so"
    source.write_text(CUT_OFF)
    run_checked(["gcc", "-shared", "-fPIC", "-o", str(library), str(source)])
    stage.agent(env={**os.environ, "LD_PRELOAD": str(library)})
    wait_states(stage, "dead", stage.backends)
    stage.cp(1).kill()
    if asks:
        failed = 0
        for _ in range(100):
            try:
                assert served_by(stage) in {"cp2", "cp3"}
            except OSError:
                failed += 1
    else:
        failed = nbconnect(stage, "-n", 500, V4)["failed"]
    # Five before this process is believed, and whoever tries when an ejection is over.
    assert failed <= (6 if asks else 10)


def test_established_connections_to_healthy_backends_stay(balanced):
    counts = Accepts(balanced)
    with Held(balanced, 30) as held:
        assert counts.settled(30) == {"cp1": 10, "cp2": 10, "cp3": 10}
        balanced.cp(1).kill()
        wait_states(balanced, "dead", [balanced.cp(1)])
        balanced.cp(1).start()
        wait_states(balanced, "ready", [balanced.cp(1)])
        assert held.close()["closed"] == 10, "those to cp1, and no other"
        assert counts.now()["cp2"] == counts.now()["cp3"] == 10, "probes kept theirs as well"


def open_sockets(stage):
    """The node's connections to apiservers of which the kernel will still report the end."""
    return ok(stage.exec(["ss", "-Htn", "exclude", "time-wait", "exclude", "listening",
                          "dport", "=", f":{PORT}"])).stdout


def test_connections_that_are_left_outside(stage, group):
    """Counted below the parent, closed while only the child is attached to: no
    program sees them end. The agent finds out from the sockets."""
    child = os.path.join(group, "child")
    os.mkdir(child)
    ok(stage.load(cgroup=group))
    with Held(stage, 6, cgroup=group):
        ok(stage.load(cgroup=child))
    wait_until(lambda: not open_sockets(stage), "the servers to close as well")
    ok(stage.load(cgroup=group))
    assert sum(carried(stage).values()) == 6
    with Held(stage, 4, cgroup=group):
        agent = stage.agent()
        wait_carried(stage, 4, timeout=10)
        assert counters(stage)["repaired"] == 6
        agent.wait_log("count corrected")
    wait_carried(stage, 0)


# --- a control-plane node: see also test_local.py ---------------------------


@pytest.mark.parametrize("policy", ["least-conn", "latency", "random", "rendezvous"])
def test_prefers_the_local_backend(stage, policy):
    """The apiserver on the node itself, while it serves; the others then."""
    local = stage.local_apiserver()
    backends = [b.endpoint for b in stage.backends] + [local.endpoint]
    stage.configure(policy=policy, backends=backends)
    stage.agent()  # local: prefer is the default
    wait_states(stage, "ready", [*stage.backends, local])
    assert served_set(stage) == {"cp0"}
    local.kill()
    wait_states(stage, "dead", [local])
    assert served_set(stage) <= ALL
    local.start()
    wait_states(stage, "ready", [local])
    wait_until(lambda: served_by(stage) == "cp0", "cp0 to serve again", 20)


# --- probes ------------------------------------------------------------------


def test_probes_keep_one_connection(attached):
    """One TLS handshake for any number of probes. (Who attaches first makes one for its preflight.)"""
    counts = Accepts(attached)
    seen = {b.name: len(b.requests()) for b in attached.backends}
    attached.agent()

    def probes(b):
        return b.requests(since=seen[b.name])

    for b in attached.backends:
        wait_until(lambda b=b: len(probes(b)) >= 10, "ten probes")
        assert {e["uri"] for e in probes(b)} <= {"/readyz", "/livez"}
        assert len({e["connection"] for e in probes(b)}) == 1
    assert counts.now() == {"cp1": 1, "cp2": 1, "cp3": 1}


def test_probe_interval_is_kept(stage):
    """Neither slower nor faster than it says, with 20 % of jitter."""
    cp = stage.cp(1)
    seen = len(cp.requests())
    stage.agent()
    entries = wait_until(lambda: (e := cp.requests(since=seen, uri="/readyz")) and
                         len(e) >= 16 and e, "16 probes")
    gaps = [b["time"] - a["time"] for a, b in zip(entries[4:], entries[5:])]
    mean = sum(gaps) / len(gaps)
    assert 0.13 < mean < 0.30, gaps
    assert len({round(g, 3) for g in gaps}) > 1, "no jitter"


def test_probes_are_not_balanced(balanced):
    """The agent probes each backend itself, not through the frontend."""
    assert sum(stats(balanced, "opened").values()) == 0


def test_probe_path(stage):
    stage.configure(probe={"path": "/readyz?verbose&exclude=etcd"})
    seen = len(stage.cp(1).requests())
    stage.agent()
    wait_states(stage, "ready", stage.backends)
    assert stage.cp(1).requests(since=seen, uri="/readyz")


# --- the verdict and the agent's absence -------------------------------------


def test_verdicts_survive_a_restart(balanced):
    """A new agent goes by what the old one knew until it knows better."""
    cp = balanced.cp(1)
    cp.kill()
    wait_states(balanced, "dead", [cp])
    balanced.running.kill9()
    agent = balanced.agent()
    counts = Accepts(balanced)
    result = nbconnect(balanced, "--rate", 200, "--seconds", 1, V4)
    assert result["failed"] == 0
    assert counts.now()["cp1"] == 0
    assert state_of(balanced, cp) == "dead"
    assert agent.alive()


def test_stale_verdicts_are_not_believed(balanced):
    """The agent dies, a dead backend comes back: after a few intervals the
    kernel tries it again by itself."""
    cp = balanced.cp(1)
    cp.kill()
    wait_states(balanced, "dead", [cp])
    balanced.running.kill9()
    cp.start()
    start = time.monotonic()
    wait_until(lambda: served_by(balanced) == "cp1", "cp1 to be tried again", 15)
    assert time.monotonic() - start < 10


# --- signals and configuration -----------------------------------------------


def test_second_agent_is_refused(balanced):
    """One writer for each map: the second says who is in the way and leaves."""
    second = balanced.agent()
    assert second.process.wait(timeout=10) == 1
    assert len(second.log().splitlines()) == 1 and balanced.pin in second.log()
    assert balanced.running.alive()
    assert served_set(balanced, 60) == ALL


def test_reload(balanced):
    cp = balanced.cp(2)
    balanced.configure(backends=[balanced.cp(1).endpoint,
                                 {"address": cp.endpoint, "weight": 7}])
    balanced.running.hup()
    wait_until(lambda: set(backend_status(balanced)) == {b.endpoint for b in
                                                         balanced.backends[:2]}, "two backends")
    wait_until(lambda: weight_of(balanced, cp) == 7, "the new weight")
    assert served_set(balanced, 60) <= {"cp1", "cp2"}
    balanced.configure(slowStart="0")
    balanced.running.hup()
    wait_states(balanced, "ready", balanced.backends)
    assert served_set(balanced, 60) == ALL


def test_reload_of_a_bad_configuration(balanced):
    mark = len(balanced.running.log())
    path = balanced.configure(text="backends:\n  - 192.168.77.11\npolicy: roulette\n")
    balanced.running.hup()
    line = balanced.running.wait_log(r"policy", start=mark)
    assert f"{path}:3" in line
    assert balanced.running.alive()
    assert len(backend_status(balanced)) == 3
    assert served_set(balanced, 60) == ALL
    # It goes on probing by the old one.
    balanced.cp(1).readyz(500)
    wait_states(balanced, "draining", [balanced.cp(1)])


def test_reload_of_a_missing_configuration(balanced):
    mark = len(balanced.running.log())
    os.unlink(balanced.config)
    balanced.running.hup()
    balanced.running.wait_log(r"kubelb\.yaml", start=mark)
    assert balanced.running.alive()
    assert served_set(balanced, 60) == ALL


@pytest.mark.parametrize("kind", ["missing", "empty", "no certificate", "directory"])
def test_agent_without_a_usable_ca(stage, tmp_path, kind):
    """An error of the configuration: said before anything is attached."""
    ca = tmp_path / "ca.crt"
    if kind == "directory":
        ca.mkdir()
    elif kind != "missing":
        ca.write_text("" if kind == "empty" else "not a certificate\n")
    path = stage.configure(probe={"ca": str(ca)})
    done = stage.exec([stage.program("kubelb-agent"), "-c", path, "--pin", stage.pin])
    line = fails(done, 2, path)
    assert str(ca) in line
    assert places(stage) == {}
    assert dial_error(stage) == "ECONNREFUSED"


def test_sigterm(balanced):
    assert balanced.running.stop() == 0
    assert served_set(balanced, 60) == ALL
    assert set(backend_status(balanced)) == {b.endpoint for b in balanced.backends}


def test_sigint(balanced):
    balanced.running.signal(signal.SIGINT)
    assert balanced.running.process.wait(timeout=10) == 0


def test_stops_while_probes_hang(balanced):
    """A hung backend does not keep the agent from leaving."""
    for b in balanced.backends:
        b.stop()
    start = time.monotonic()
    assert balanced.running.stop() == 0
    assert time.monotonic() - start < 3


def test_detached_under_the_agent(balanced):
    """Somebody detaches while it runs: that is meant, so it does not attach again. It says
    so, in its log once and on /readyz, waits, and goes on when somebody attaches."""
    agent = balanced.running
    ok(balanced.detach())
    line = agent.wait_log("no data path to work on, waiting for kubelb-load")
    assert "level=warn" in line and "nothing is attached" in line
    status, _headers, body = http_call(balanced, "GET", "/readyz")
    assert (status, body) == (503, "nothing is attached: run kubelb-load\n")
    assert dial_error(balanced) == "ECONNREFUSED"
    ok(balanced.load())
    wait_until(lambda: http_call(balanced, "GET", "/readyz")[0] == 200, "the agent to go on")
    assert agent.log().count("no data path to work on") == 1
    balanced.cp(1).kill()
    wait_states(balanced, "dead", [balanced.cp(1)])
    assert agent.stop() == 0


def test_reload_keeps_connections(balanced):
    with Kept(balanced) as connection:
        name = connection.backend()
        mark = len(balanced.running.log())
        balanced.configure(policy="random")
        balanced.running.hup()
        wait_until(lambda: len(balanced.running.log()) > mark, "a word about the reload")
        assert connection.backend() == name


def test_log_is_logfmt(balanced):
    """Every line: level, msg, and pairs; in a file the time before them."""
    balanced.cp(1).kill()
    wait_states(balanced, "dead", [balanced.cp(1)])
    balanced.running.stop()
    lines = balanced.running.log().splitlines()
    assert lines
    for line in lines:
        assert re.match(r'time=[\d-]{10}T[\d:]{8}\.\d{3}Z level=\w+ msg=', line), line
    assert any(balanced.cp(1).v4 in line and "dead" in line for line in lines)


# What JOURNAL_STREAM is, in terms of the file that stderr is; the shell's, so that it is known.
OUR_STDERR = '$(stat -L -c %d:%i "/proc/$$/fd/2")'
PRIORITIES = {"error": 3, "warn": 4, "info": 6, "debug": 7}  # syslog(3), sd-daemon(3)


def agent_with_stream(stage, stream):
    """The agent's log after lines of every level; stream: the shell's word, or None."""
    assign = f"export JOURNAL_STREAM={stream};" if stream else "unset JOURNAL_STREAM;"
    agent = stage.agent("-v", prefix=["sh", "-c", f'{assign} exec "$@"', "sh"])
    wait_states(stage, "ready", stage.backends)
    stage.cp(1).kill()
    wait_states(stage, "dead", [stage.cp(1)])
    stage.configure(policy="roulette")
    agent.hup()
    agent.wait_log("level=error")
    assert agent.stop() == 0
    return agent.log().splitlines()


def test_log_for_the_journal(stage):
    """Where stderr is the journal's, as JOURNAL_STREAM says, each line tells its priority."""
    lines = agent_with_stream(stage, OUR_STDERR)
    seen = [re.match(r"<(\d)>level=(\w+) msg=", line) for line in lines]
    assert all(seen), lines
    assert {m.group(2) for m in seen} >= {"error", "warn", "info"}
    assert all(int(m.group(1)) == PRIORITIES[m.group(2)] for m in seen), lines


@pytest.mark.parametrize("stream", [None, "1:1", f"{OUR_STDERR}0", "nonsense", "':'"],
                         ids=["unset", "another", "longer", "nonsense", "empty"])
def test_log_for_a_file(stage, stream):
    """The variable is inherited: one that names another file is about somebody else's stderr."""
    lines = agent_with_stream(stage, stream)
    assert lines and all(re.match(r"time=\S+Z level=", line) for line in lines), lines


@pytest.mark.parametrize("stream, front", [(OUR_STDERR, "<3>"), ("1:1", "")],
                         ids=["journal", "another"])
def test_error_for_the_journal(stage, stream, front):
    """What a program that cannot begin says is an error, as systemd's units have it shown."""
    missing = f"{stage.dir}/no-such-file.yaml"
    done = stage.exec(["sh", "-c", f'export JOURNAL_STREAM={stream}; exec "$@"', "sh",
                       stage.program("kubelb-agent"), "-c", missing, "--pin", stage.pin])
    assert done.returncode == 2
    assert done.stderr.startswith(f"{front}kubelb-agent: {missing}"), done.stderr
    assert len(done.stderr.splitlines()) == 1


# The value of a pair is one word, or stands in quotes.
LOGFMT = re.compile(r'(\w+=([^\s"]*|"([^"\\]|\\.)*") ?)+')


def test_names_of_files_in_the_log(stage, tmp_path, monkeypatch):
    """Whatever they are made of, they add no pairs of their own."""
    config = tmp_path / 'of "mine" level=error.yaml'
    shutil.copy(stage.config, config)
    monkeypatch.setattr(stage, "pin", f'{stage.pin} "x" y=z')
    agent = stage.agent(config=str(config))
    try:
        wait_until(lambda: "running" in agent.log(), agent.log)
        config.write_text(config.read_text().replace("least-conn", "random"))
        wait_until(lambda: "configuration reloaded" in agent.log(), agent.log)
        ok(stage.detach())
        wait_until(lambda: "no data path to work on" in agent.log(), agent.log)
        ok(stage.load())
        wait_until(lambda: "data path changed by kubelb-load" in agent.log(), agent.log)
        assert agent.stop() == 0
    finally:
        ok(stage.detach())
    for message in ("attached", "running", "has changed", "no data path", "data path changed"):
        assert message in agent.log()
    for line in agent.log().splitlines():
        assert LOGFMT.fullmatch(line), line
