# SPDX-License-Identifier: BSD-2-Clause
"""The agent takes up what changes on disk: its configuration, however it is replaced, and
the certificates that it names. What is no good is said, and the old stays."""

import contextlib
import os
import shutil
import signal
import time

import pytest

from helpers import (V4, V6, Accepts, Held, Kept, Traffic, backend_ids, backend_status, beats,
                     carried, hanging, nbconnect, ok, ready, served_set, wait_carried, wait_states,
                     wait_stopped, weight_of)
from observe import known, metric, state_changes, wait_known
from system import WorldError, replace, wait_until

ALL = {"cp1", "cp2", "cp3"}


def reloads(stage, result):
    return metric(stage, "kubelb_config_reloads_total", result=result)


@pytest.mark.parametrize("how", ["renamed", "in-place"])
@pytest.mark.parametrize("result", ["ok", "error"])
def test_an_edit_counts_once(balanced, how, result):
    with open(balanced.config, encoding="utf-8") as f:
        text = f.read() + ("# more\n" if result == "ok" else "polisy: random\n")
    before = {r: reloads(balanced, r) for r in ("ok", "error")}
    if how == "renamed":
        balanced.configure(text=text)
    else:
        with open(balanced.config, "w", encoding="utf-8") as f:
            f.write(text)
    wait_until(lambda: reloads(balanced, result) > before[result], "the edit to be noticed")
    for _ in range(3):
        assert beats(balanced)
    before[result] += 1
    assert {r: reloads(balanced, r) for r in before} == before


def two_of(stage):
    return [b.endpoint for b in stage.backends[:2]]


def test_sighup(balanced):
    before = reloads(balanced, "ok")
    balanced.configure(backends=two_of(balanced))
    balanced.running.hup()
    wait_known(balanced, balanced.backends[:2])
    wait_until(lambda: reloads(balanced, "ok") > before, "the reload to be counted")
    assert reloads(balanced, "error") == 0


def test_renamed_over(balanced):
    """As most editors and configuration management write: no signal needed."""
    with Traffic(balanced, rate=100), Kept(balanced) as connection:
        name = connection.backend()
        balanced.configure(backends=two_of(balanced))
        wait_known(balanced, balanced.backends[:2])
        assert connection.backend() == name
    balanced.configure()
    wait_known(balanced, balanced.backends)
    wait_states(balanced, "ready", balanced.backends)


def test_written_in_place(balanced):
    one = balanced.cp(1)
    with open(balanced.config, encoding="utf-8") as f:
        text = f.read()
    assert f"- {one.endpoint}\n" in text
    with open(balanced.config, "w", encoding="utf-8") as f:
        f.write(text.replace(f"- {one.endpoint}\n",
                             f"- address: {one.endpoint}\n    weight: 7\n"))
    wait_until(lambda: weight_of(balanced, one) == 7, "the new weight")


def test_config_map(stage):
    """kubelb.yaml -> ..data/kubelb.yaml, and ..data is what is replaced."""
    mount = os.path.join(stage.dir, "mount")
    os.mkdir(mount)

    def update(number, **changes):
        version = os.path.join(mount, f"..version{number}")
        os.mkdir(version)
        stage.configure(os.path.join(version, "kubelb.yaml"), **changes)
        os.symlink(os.path.basename(version), os.path.join(mount, "..data_tmp"))
        os.rename(os.path.join(mount, "..data_tmp"), os.path.join(mount, "..data"))
        if number > 1:
            shutil.rmtree(os.path.join(mount, f"..version{number - 1}"))

    try:
        update(1)
        os.symlink("..data/kubelb.yaml", os.path.join(mount, "kubelb.yaml"))
        agent = stage.agent(config=os.path.join(mount, "kubelb.yaml"))
        wait_states(stage, "ready", stage.backends)
        update(2, backends=two_of(stage))
        wait_known(stage, stage.backends[:2])
        update(3)
        wait_known(stage, stage.backends)
        assert reloads(stage, "ok") == 2
        assert agent.stop() == 0
    finally:
        shutil.rmtree(mount)


def test_invalid_file(balanced):
    """Said with file, line and key; counted; and the old one goes on, until there is a
    good one."""
    mark = len(balanced.running.log())
    path = balanced.configure(text="backends:\n  - 192.168.77.11\nslowStart: soon\n")
    line = balanced.running.wait_log(r"level=error", start=mark)
    assert f"{path}:3" in line and "slowStart" in line and "old one stays" in line
    wait_until(lambda: reloads(balanced, "error") == 1, "the failure to be counted")
    assert known(balanced) == {b.endpoint for b in balanced.backends}
    assert served_set(balanced, 60) == {"cp1", "cp2", "cp3"}
    balanced.configure(backends=two_of(balanced))
    wait_known(balanced, balanced.backends[:2])


def test_file_that_the_new_configuration_names_comes_later(balanced):
    """As configuration management writes them, one after the other: refused, and taken up
    when the other one is there."""
    late = os.path.join(balanced.dir, "late-ca.crt")
    before = reloads(balanced, "ok")
    balanced.configure(backends=two_of(balanced), probe={"ca": late})
    balanced.running.wait_log(r"configuration not reloaded.*late-ca\.crt")
    assert known(balanced) == {b.endpoint for b in balanced.backends}
    shutil.copy(balanced.ca, late)
    wait_known(balanced, balanced.backends[:2])
    wait_until(lambda: reloads(balanced, "ok") > before, "the reload to be counted")
    wait_states(balanced, "ready", balanced.backends[:2])


def test_directory_that_the_new_configuration_names_is_missing(balanced):
    """Refused, and the configuration that is mended after it is noticed."""
    missing = os.path.join(balanced.dir, "nowhere", "ca.crt")
    balanced.configure(backends=two_of(balanced), probe={"ca": missing})
    balanced.running.wait_log(r"configuration not reloaded.*nowhere/ca\.crt")
    balanced.configure(backends=two_of(balanced))
    wait_known(balanced, balanced.backends[:2])


def test_directory_that_the_new_configuration_names_comes_later(balanced):
    """Level by level, and the file in it last: it is taken up by itself."""
    late = os.path.join(balanced.dir, "late", "pki", "ca.crt")
    balanced.configure(backends=two_of(balanced), probe={"ca": late})
    balanced.running.wait_log(r"configuration not reloaded.*late/pki/ca\.crt")
    os.mkdir(os.path.join(balanced.dir, "late"))
    time.sleep(0.5)  # the agent has seen that level
    os.mkdir(os.path.dirname(late))
    shutil.copy(balanced.ca, late)
    wait_known(balanced, balanced.backends[:2])
    wait_states(balanced, "ready", balanced.backends[:2])
    shutil.rmtree(os.path.join(balanced.dir, "late"))


@pytest.mark.parametrize("what", ["configuration", "ca"])
@pytest.mark.parametrize("when", ["start", "reload"])
def test_changes_between_being_read_and_being_watched(stage, library, when, what):
    """The agent is stopped at that very moment, at the start and at a reload."""
    ca = os.path.join(stage.dir, "short-lived-ca.crt")
    replace(ca, stage.ca)
    stage.configure(probe={"ca": ca})
    number = 1 if when == "start" else 2
    agent = stage.agent(env={**library, "STOPAT": f"inotify:{number}"})
    if when == "reload":
        wait_states(stage, "ready", stage.backends)
        stage.configure(probe={"ca": ca}, policy="random")
        agent.hup()
    wait_stopped(agent.process)
    if what == "configuration":
        stage.configure(backends=two_of(stage), probe={"ca": ca})
    else:
        replace(ca, stage.pki.authority("other", "kubelb untrusted CA"))
    agent.signal(signal.SIGCONT)
    if what == "configuration":
        wait_known(stage, stage.backends[:2])
    else:
        wait_states(stage, "draining", stage.backends)


def test_file_goes_and_comes_back(balanced):
    mark = len(balanced.running.log())
    os.unlink(balanced.config)
    balanced.running.wait_log(r"level=error.*kubelb\.yaml", start=mark)
    assert len(known(balanced)) == 3
    balanced.configure(backends=two_of(balanced))
    wait_known(balanced, balanced.backends[:2])


def test_touched_for_nothing(balanced):
    """The same again: states, ids and counters stay, and nobody is suspected."""
    before = {address: (entry["id"], entry["generation"], entry["opened"])
              for address, entry in backend_status(balanced).items()}
    mark = len(balanced.running.log())
    balanced.configure()
    balanced.running.wait_log(r"configuration reloaded", start=mark)
    wait_states(balanced, "ready", balanced.backends)
    assert {address: (entry["id"], entry["generation"], entry["opened"])
            for address, entry in backend_status(balanced).items()} == before
    assert not any(state_changes(balanced.running, b, mark) for b in balanced.backends)


def test_changes_in_quick_succession(balanced):
    """Three at a time, none waiting for a connect that is under way."""
    one, two, three = (b.endpoint for b in balanced.backends)
    changes = [{"backends": [three]}, {"backends": [two, {"address": one, "weight": 7}]},
               {"backends": [one, two, three], "policy": "random"}]
    with contextlib.ExitStack() as clients:
        for host in (V4, V4, V6):
            clients.enter_context(Traffic(balanced, host=host))
        for _ in range(10):
            for change in changes:
                mark = len(balanced.running.log())
                balanced.configure(**change)
                balanced.running.hup()
                balanced.running.wait_log(r"configuration reloaded", start=mark)
    assert served_set(balanced, 60) == ALL
    wait_carried(balanced, 0)


def test_id_rests_while_connections_carry_it(stage):
    """An agent hands a removed backend's id out again only when the last
    connection to it is closed."""
    one, two, three = stage.backends
    stage.configure(backends=[one.endpoint, two.endpoint])
    agent = stage.agent()
    wait_states(stage, "ready", [one, two])
    with Held(stage, 20):
        old = backend_ids(stage)
        wait_carried(stage, 20)
        for backends in ([two], [two, three]):
            stage.configure(backends=[b.endpoint for b in backends])
            agent.hup()
            wait_known(stage, backends)
        ids = backend_ids(stage)
        assert ids["cp2"] == old["cp2"]
        assert ids["cp3"] != old["cp1"]
        assert carried(stage)[old["cp1"]] > 0
    wait_carried(stage, 0)
    wait_states(stage, "ready", [two, three])
    counts = Accepts(stage)
    assert nbconnect(stage, "-n", 100, V4)["ok"] == 100
    # The agent's own connections count at the servers as well: at least.
    wait_until(lambda: sum(counts.now().values()) >= 100, "all of them to be accepted")
    assert counts.now()["cp1"] == 0
    assert counts.now()["cp3"] > 25, counts.now()
    wait_carried(stage, 0)


# --- probes that stay --------------------------------------------------------


def probe_connections(backend, since=0):
    """The connections that probes came on, with the time of each one's first request."""
    first = {}
    for entry in backend.requests(since=since, uri="/readyz"):
        first.setdefault(entry["connection"], entry["time"])
    return first


def wait_probed(stage, backends, count=3):
    """Some more probes of each."""
    seen = {b.name: len(b.requests(uri="/readyz")) for b in backends}
    for b in backends:
        wait_until(lambda b=b: len(b.requests(uri="/readyz")) >= seen[b.name] + count,
                   f"{count} more probes of {b.name}")


@pytest.mark.parametrize("change", [
    {"policy": "random"}, {"slowStart": "1s", "deadPeerTimeout": "7s"}, {"http": "127.0.0.1:8082"},
], ids=str)
def test_probes_are_kept(balanced, change):
    """What probes do not depend on makes none anew: no handshake, and the same connections."""
    before = {b.name: set(probe_connections(b)) for b in balanced.backends}
    mark = len(balanced.running.log())
    balanced.configure(**change)
    balanced.running.wait_log(r"configuration reloaded", start=mark)
    wait_probed(balanced, balanced.backends)
    assert {b.name: set(probe_connections(b)) for b in balanced.backends} == before
    assert not any(state_changes(balanced.running, b, mark) for b in balanced.backends)


def test_probes_of_those_that_stay_are_kept(balanced):
    """One backend goes and comes back: that one alone is dialled."""
    mark = [len(b.requests()) for b in balanced.backends]
    handshakes = metric(balanced, "kubelb_probe_handshakes_total")
    before = [set(probe_connections(b)) for b in balanced.backends[:2]]
    balanced.configure(backends=two_of(balanced))
    wait_known(balanced, balanced.backends[:2])
    balanced.configure()
    wait_known(balanced, balanced.backends)
    wait_states(balanced, "ready", balanced.backends)
    wait_probed(balanced, balanced.backends)
    assert [set(probe_connections(b)) for b in balanced.backends[:2]] == before
    assert len(probe_connections(balanced.cp(3), mark[2])) <= 2, "the old one, and a new one"
    assert metric(balanced, "kubelb_probe_handshakes_total") == handshakes + 1, \
        "its counters go on"


@pytest.mark.parametrize("what", ["ca", "timeout"])
def test_new_probes_are_spread(stage, what):
    """What the probes' connections depend on changes: all are made anew, within 5 s whatever the
    interval, and not all at one instant. Three at random fall into the same 250 ms of 5 s once in
    130 times, twice in a row once in 17,000."""
    bundle = os.path.join(stage.dir, "ca-bundle.crt")
    replace(bundle, stage.ca)
    stage.configure(probe={"ca": bundle, "interval": "1s"})
    agent = stage.agent()
    wait_states(stage, "ready", stage.backends)
    spreads = []
    for turn in (1, 2):
        mark = len(agent.log())
        seen = {b.name: len(b.requests()) for b in stage.backends}
        old = {b.name: set(probe_connections(b)) for b in stage.backends}
        if what == "ca":
            with open(bundle, "a", encoding="ascii") as f:
                f.write("# the same CA, and a line more\n")
        else:
            stage.configure(probe={"ca": bundle, "interval": "1s", "timeout": f"{900 + turn}ms"})
        agent.wait_log(r"configuration reloaded", start=mark)
        first = []
        for b in stage.backends:
            def fresh(b=b):
                found = probe_connections(b, seen[b.name])
                return [t for c, t in found.items() if c not in old[b.name]]
            first += wait_until(fresh, f"a new probe of {b.name}", 8)
        assert max(first) - min(first) < 5.5
        spreads.append(max(first) - min(first))
        assert not any(state_changes(agent, b, mark) for b in stage.backends)
    assert max(spreads) > 0.25, spreads


# --- certificates ------------------------------------------------------------


def test_client_certificate_rotates(stage):
    """As the kubelet's does: the link kubelet-client-current.pem leads to another file."""
    api = stage.apiserver(1, anonymous="deny")
    current = os.path.join(stage.dir, "kubelet-client-current.pem")
    os.symlink(stage.pki.client("system:node:old"), current)
    try:
        stage.configure(probe={"clientCert": current, "clientKey": current})
        agent = stage.agent()
        wait_states(stage, "ready", [api])
        assert set(api.counters()["users"]) == {"system:node:old"}
        os.symlink(stage.pki.client("system:node:new"), current + ".tmp")
        os.rename(current + ".tmp", current)
        api.wait_counters(lambda c: "system:node:new" in c["users"], "the new certificate")
        wait_states(stage, "ready", [api])
        assert state_changes(agent, api) == ["ready"], "nobody was suspected meanwhile"
    finally:
        os.unlink(current)


def test_client_certificate_is_no_good(stage):
    """Half written, say: said, the old one stays in use, and the good one that follows is
    taken up."""
    api = stage.apiserver(1, anonymous="deny")
    current = os.path.join(stage.dir, "client.pem")
    replace(current, stage.pki.client("system:node:old"))
    stage.configure(probe={"clientCert": current, "clientKey": current})
    agent = stage.agent()
    wait_states(stage, "ready", [api])
    mark = len(agent.log())
    with open(current, "w", encoding="ascii") as f:
        f.write("-----BEGIN CERTIFICATE-----\n")
    line = agent.wait_log(r"level=error.*old one stays", start=mark)
    assert current in line
    probes = metric(stage, "kubelb_probes_total", backend=api.endpoint, result="ok")
    wait_until(lambda: metric(stage, "kubelb_probes_total", backend=api.endpoint, result="ok")
               >= probes + 3, "probes with the old one")
    replace(current, stage.pki.client("system:node:new"))
    api.wait_counters(lambda c: "system:node:new" in c["users"], "the new certificate")


def test_ca_rotates(stage):
    """The cluster's CA is replaced on disk: whom it does not know is not believed, from
    the next connection on, which the reload makes."""
    bundle = os.path.join(stage.dir, "ca-bundle.crt")
    replace(bundle, stage.ca)
    stage.configure(probe={"ca": bundle})
    agent = stage.agent()
    wait_states(stage, "ready", stage.backends)
    replace(bundle, stage.pki.authority("other", "kubelb untrusted CA"))
    wait_states(stage, "draining", stage.backends)
    agent.wait_log(r"reason=\"?certificate")
    replace(bundle, stage.ca)
    wait_states(stage, "ready", stage.backends)


@pytest.mark.parametrize("how", ["hup", "load"])
def test_other_ways_still_work(balanced, how):
    """Whoever signals or runs kubelb-load after a change gets it at once, and only once."""
    mark = len(balanced.running.log())
    balanced.configure(backends=two_of(balanced))
    if how == "hup":
        balanced.running.signal(signal.SIGHUP)
    else:
        ok(balanced.load())
    wait_known(balanced, balanced.backends[:2])
    balanced.running.wait_log(r"configuration reloaded", start=mark)
    assert balanced.running.alive()


# --- a disk that hangs -------------------------------------------------------


def check_alive(stage):
    """The heart beats, and what is found is written."""
    assert beats(stage) and ready(stage)
    stage.cp(1).kill()
    wait_states(stage, "dead", [stage.cp(1)])
    stage.cp(1).start()
    wait_states(stage, "ready", [stage.cp(1)])


@pytest.mark.parametrize("what", ["configuration", "ca"])
def test_files_on_a_disk_that_hangs(balanced, what):
    """A reload waits for its files, and nothing else does; a second wish for one comes after it."""
    agent = balanced.running
    ca = os.path.join(balanced.dir, "hanging-ca.crt")
    shutil.copy(balanced.ca, ca)
    path = balanced.config if what == "configuration" else ca
    mark = len(agent.log())
    if what == "configuration":
        balanced.configure(policy="random", probe={"ca": ca})
        agent.wait_log("configuration reloaded", start=mark)
        mark = len(agent.log())
    with hanging(path):
        if what == "ca":
            balanced.configure(probe={"ca": ca})
        agent.hup()
        line = agent.wait_log("the files of the configuration cannot be read for now", start=mark)
        assert "level=warn" in line
        agent.hup()
        check_alive(balanced)
        assert "configuration reloaded" not in agent.log()[mark:]
    agent.wait_log("the files of the configuration were read after all", start=mark)
    wait_until(lambda: agent.log()[mark:].count("configuration reloaded") >= 2, agent.log)


def test_watched_directory_on_a_disk_that_hangs(balanced):
    """To be told of changes of files, the agent has to look at them."""
    agent = balanced.running
    mark = len(agent.log())
    with hanging(balanced.config):
        os.utime(balanced.config)
        agent.wait_log("a file of the configuration has changed", start=mark)
        check_alive(balanced)
    agent.wait_log("configuration reloaded", start=mark)


def test_agent_ends_while_a_disk_hangs(balanced):
    agent = balanced.running
    mark = len(agent.log())
    with hanging(balanced.config):
        agent.hup()
        agent.wait_log("the files of the configuration cannot be read for now", start=mark)
        assert agent.stop() == 0


# --- a change restarts nothing that stays --------------------------------------


def handshakes(stage):
    """The agent's, for probes, of each backend."""
    return {b.name: metric(stage, "kubelb_probe_handshakes_total", backend=b.endpoint)
            for b in stage.backends}


def test_other_intervals_keep_the_connections(balanced):
    """What a connection has nothing to do with does not end it."""
    before = handshakes(balanced)
    for change in ({"interval": "2s"}, {"interval": "1s", "rise": 1}, {"fall": 3}, {"ping": "700ms"}):
        mark = len(balanced.running.log())
        balanced.configure(probe=change)
        balanced.running.wait_log(r"configuration reloaded", start=mark)
        probed = metric(balanced, "kubelb_probes_total", backend=balanced.cp(1).endpoint, result="ok")
        wait_until(lambda n=probed: metric(balanced, "kubelb_probes_total", result="ok",
                                           backend=balanced.cp(1).endpoint) > n, "a probe")
    assert handshakes(balanced) == before


def test_another_ca_keeps_the_probes(balanced):
    """Each backend is dialled once for it, at its own time, and nobody is suspected meanwhile."""
    before = handshakes(balanced)
    mark = len(balanced.running.log())
    ca = os.path.join(balanced.dir, "bundle.crt")
    with open(balanced.ca, encoding="ascii") as old, open(ca, "w", encoding="ascii") as new:
        with open(balanced.pki.authority("next", "kubelb next CA"), encoding="ascii") as more:
            new.write(old.read() + more.read())
    balanced.configure(probe={"ca": ca})
    wait_until(lambda: all(n > before[name] for name, n in handshakes(balanced).items()),
               "every backend to be dialled")
    assert all(n == before[name] + 1 for name, n in handshakes(balanced).items())
    assert not any(state_changes(balanced.running, b, mark) for b in balanced.backends)


def test_apiservers_are_sooner_than_the_new_connections(balanced):
    """Each apiserver starts again with a certificate of the next CA while its probes still wait for
    theirs: no verdict comes from what they knew before."""
    ca = os.path.join(balanced.dir, "bundle.crt")
    replace(ca, balanced.ca)
    mark = len(balanced.running.log())
    balanced.configure(probe={"ca": ca})
    balanced.running.wait_log(r"configuration reloaded", start=mark)
    wait_states(balanced, "ready", balanced.backends)
    mark = len(balanced.running.log())
    with open(ca, "a", encoding="ascii") as f, \
            open(balanced.pki.authority("other", "kubelb untrusted CA"), encoding="ascii") as more:
        f.write(more.read())
    balanced.running.wait_log(r"configuration reloaded", start=mark)
    for b in balanced.backends:
        b.certificate("wrong_ca", balanced.pki)
    try:
        for b in balanced.backends:
            wait_until(lambda b=b: state_changes(balanced.running, b, mark)[-1:] == ["ready"],
                       f"{b.name} to be ready again")
            assert "draining" not in state_changes(balanced.running, b, mark)
    finally:
        for b in balanced.backends:
            b.certificate("good", balanced.pki)


def test_hung_apiserver_is_noticed_while_settings_change(balanced):
    """Once a second something that takes another connection: the old one is probed until that
    comes, and a further change does not put it off."""
    cp = balanced.cp(2)
    cp.stop()
    try:
        began = time.monotonic()
        for n in range(20):
            balanced.configure(probe={"path": f"/readyz?n={n}", "interval": "5s"})
            balanced.running.hup()
            with contextlib.suppress(WorldError):
                wait_states(balanced, "dead", [cp], timeout=1)
                break
        assert time.monotonic() - began < 8
    finally:
        cp.cont()
    wait_states(balanced, "ready", [cp], timeout=20)
