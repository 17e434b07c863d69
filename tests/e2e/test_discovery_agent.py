# SPDX-License-Identifier: BSD-2-Clause
"""Discovery in the agent: from the seeds to what the cluster says, and through everything
that can go wrong with that, while clients go on connecting."""

import contextlib
import json
import os

import pytest

from cluster import TOKEN, USER
from helpers import (Held, Traffic, backend_ids, backend_status, beats, dial_error, hanging, ok,
                     ready, served_by, served_set, wait_states)
from observe import ended, known, kubeconfig, state_changes
from system import wait_until


# --- probes ------------------------------------------------------------------


def handshakes(api):
    counted = api.counters()["handshakes"]
    return counted["full"] + counted["resumed"]


def test_probes_of_those_that_stay_are_kept(found):
    """The list changes: whoever stays in it is not dialled anew for that. (The connection
    for discovery ends after minutes, and the watch goes on.)"""
    one, two, three = found.apis
    before = [handshakes(api) for api in (one, two)]
    found.say(1, 2)
    found.wait(1, 2)
    probes = [len(api.requests(uri="/readyz")) for api in found.apis]
    found.say(1, 2, 3)
    found.wait(1, 2, 3)
    three.wait_counters(lambda c: c["requests"]["/readyz"] > probes[2], "a new probe")
    for api, n in zip((one, two), probes):
        wait_until(lambda a=api, n=n: len(a.requests(uri="/readyz")) > n + 2, "more probes")
    assert [handshakes(api) for api in (one, two)] == before


# --- from the seeds on -------------------------------------------------------


def test_seeds_then_the_cluster(cluster):
    cluster.start(seeds=(2,))
    cluster.wait(1, 2, 3)
    wait_states(cluster.stage, "ready", cluster.apis)
    assert served_set(cluster.stage, 60) == {"cp1", "cp2", "cp3"}
    assert cluster.results("applied") == 1
    wait_until(lambda: cluster.status()["state"] == "current", "status to say so")
    assert "discovery on: backends as the cluster says" in \
        ok(cluster.stage.ctl("status")).stdout


def test_seed_that_is_none_goes(cluster):
    """What the cluster does not name is no apiserver of it, whatever the file says."""
    cluster.say(2, 3)
    cluster.start(seeds=(1, 2))
    cluster.wait(2, 3)
    assert served_set(cluster.stage, 30) <= {"cp2", "cp3"}


def test_seeds_while_nobody_answers(cluster):
    """No list, no cache: the seeds are what there is, and status says so."""
    for api in cluster.apis:
        api.kill()
    cluster.start(seeds=(1, 2))
    wait_states(cluster.stage, "dead", cluster.apis[:2])
    assert cluster.status()["state"] == "seeds"
    cluster.apis[0].start()
    cluster.wait(1, 2, 3, timeout=30)


def test_weights_of_the_file_stay(cluster):
    """Discovery knows addresses; the file knows what it gives one that it names."""
    cluster.start(backends=[{"address": cluster.apis[0].endpoint, "weight": 7}])
    cluster.wait(1, 2, 3)
    weights = {entry["address"]: entry["weight"]
               for entry in backend_status(cluster.stage).values()}
    assert weights == {cluster.apis[0].endpoint: 7, cluster.apis[1].endpoint: 100,
                       cluster.apis[2].endpoint: 100}


# --- changes -----------------------------------------------------------------


def test_watch_adds_and_removes(found):
    """Control planes come and go under traffic: no connect fails, whoever stays keeps its
    id and its state, and nobody's connection is ended."""
    ids = backend_ids(found.stage)
    with Traffic(found.stage, rate=200), Held(found.stage, 15) as held:
        for listed in ((1, 2), (1, 2, 3), (2, 3), (1, 3), (1, 2, 3)):
            mark = len(found.agent.log())
            found.say(*listed)
            found.wait(*listed)
            staying = [api for i, api in enumerate(found.apis, 1) if i in listed]
            wait_states(found.stage, "ready", staying)
            assert all("dead" not in state_changes(found.agent, api, mark)
                       for api in found.apis)
            before, ids = ids, backend_ids(found.stage)
            stayed = before.keys() & ids.keys()
            assert {name: ids[name] for name in stayed} == {name: before[name] for name in stayed}
            assert len(set(ids.values())) == len(ids)
        assert held.close()["closed"] == 0
    assert ended(found.stage) == 0
    assert found.results("applied") == 6


def test_id_stays_while_a_removed_backend_is_connected(found):
    """Back in the list, a backend with connections is the same as before."""
    old = backend_ids(found.stage)
    with Held(found.stage, 30):
        found.say(1, 2)
        found.wait(1, 2)
        found.say(2)
        found.wait(2)
        found.say(1, 2, 3)
        found.wait(1, 2, 3)
        now = backend_ids(found.stage)
        assert now == old


def test_restart_of_an_apiserver(found):
    """Its watch goes with it; the next connection is the kernel's choice among the others."""
    api = found.watching()
    api.kill()
    found.wait_watch(timeout=20)
    found.say(1, 2)
    found.wait(1, 2)
    api.start()
    found.say(1, 2, 3)
    found.wait(1, 2, 3)


# --- what is not believed ----------------------------------------------------


def test_empty_list_is_never_believed(found):
    before = found.results("empty")
    mark = len(found.agent.log())
    found.etcd.put("kubernetes", [])
    found.wait_result("empty", before)
    found.etcd.delete("kubernetes")
    found.wait_result("empty", before + 1)
    assert len(known(found.stage)) == 3
    assert served_set(found.stage, 60) == {"cp1", "cp2", "cp3"}
    assert not any(state_changes(found.agent, api, mark) for api in found.apis)
    found.say(1, 2)
    found.wait(1, 2)


def test_frontends_are_never_backends(found):
    before = found.results("applied")
    found.etcd.put("kubernetes", ["127.0.0.1", found.apis[0].v4, found.apis[1].v4])
    found.wait_result("applied", before)
    found.wait(1, 2)


@pytest.mark.parametrize("what", ["half-json", "half-chunk", "garbage", "expire", "end"])
def test_watch_goes_wrong(found, what):
    """Half an event, no event, 410, the end: the list stays, and what comes afterwards is
    heard of, whether the watch was broken for it or not."""
    mark = len(found.agent.log())
    assert found.watching().watches(what) == 1
    found.say(1, 2)
    found.wait(1, 2, timeout=20)
    found.say(1, 2, 3)
    found.wait(1, 2, 3, timeout=20)
    assert found.agent.alive()
    assert not any("dead" in state_changes(found.agent, api, mark) for api in found.apis)


def test_works_again_is_said(found):
    """Once for each failure, and as soon as a watch is there: the list may never change."""
    for _ in range(2):
        mark = len(found.agent.log())
        found.watching().disconnect("rst", which="watches")
        found.agent.wait_log("level=warn.*discovery does not work", start=mark)
        found.agent.wait_log('level=info msg="discovery works" result=unchanged', start=mark)
        found.wait_watch()
        wait_until(lambda: found.status()["state"] == "current", "status to say so")
        assert found.agent.log()[mark:].count('msg="discovery works"') == 1
    assert found.results("applied") == 1


def test_gone(found):
    """What happened during a broken watch was compacted away: listed anew."""
    api = found.watching()
    found.etcd.advance(50)
    api.watches("end")
    found.say(1, 2)
    found.etcd.compact()
    found.wait(1, 2, timeout=20)


def test_disconnected(found):
    for how in ("close", "fin", "rst"):
        for api in found.apis:
            api.disconnect(how)
        found.say(1, 2)
        found.wait(1, 2, timeout=20)
        found.say(1, 2, 3)
        found.wait(1, 2, 3, timeout=20)


# --- the cache ---------------------------------------------------------------


def forget(cluster):
    """As after a reboot: nothing attached, nobody alive."""
    assert cluster.agent.stop() == 0
    ok(cluster.stage.detach())
    for api in cluster.apis:
        api.kill()


def test_cache_at_boot(found):
    """No apiserver alive: the list of before counts, with kubelb-load and with the agent,
    until the cluster has another one."""
    with open(found.cache, encoding="utf-8") as f:
        assert sorted(json.load(f)["backends"]) == sorted(api.endpoint for api in found.apis)
    forget(found)
    ok(found.stage.load())
    found.wait(1, 2, 3)
    found.agent = found.stage.agent()
    wait_states(found.stage, "dead", found.apis)
    assert found.status()["state"] == "cache"
    found.apis[2].start()  # which is no seed
    wait_states(found.stage, "ready", [found.apis[2]])
    found.say(2, 3)
    found.wait(2, 3, timeout=40)
    wait_until(lambda: found.status()["state"] == "current", "status to say so")
    found.wait_cached(2)


@pytest.mark.parametrize("content", [b"", b'{"kind": "kubelb-backends", "vers', b"\0" * 4096,
                                     b'{"kind":"kubelb-backends","version":1,"written":'
                                     b'"2026-01-01T00:00:00Z","backends":[]}'],
                         ids=["empty", "half", "zeros", "nobody"])
def test_corrupt_cache(found, content):
    """Said, with the file's name; the seeds count; and replaced by the next list."""
    forget(found)
    with open(found.cache, "wb") as f:
        f.write(content)
    loaded = ok(found.stage.load())
    assert found.cache in loaded.stderr
    found.wait(1)
    found.agent = found.stage.agent()
    found.agent.wait_log(r"level=warn.*cache.*" + found.cache)
    found.wait(1)
    found.apis[0].start()
    found.wait(1, 2, 3, timeout=40)
    found.wait_cached(3)


def test_cache_of_another_name(found):
    """Changed in the file, and the list is still the same: the new one has it."""
    found.cache = os.path.join(os.path.dirname(found.cache), "other.json")
    found.configure()
    found.wait_cached(3)
    # One that has vanished is written with the next whole list.
    os.unlink(found.cache)
    assert found.watching().watches("expire") == 1
    found.wait_cached(3)
    assert found.results("applied") == 1


def test_cache_that_others_can_write(found):
    """It decides where the node's connects go."""
    forget(found)
    os.chmod(found.cache, 0o666)
    assert "others can write it" in ok(found.stage.load()).stderr
    found.wait(1)


def test_cache_on_a_disk_that_hangs(found):
    """Neither kubelb-load nor the agent waits for it: the seeds count, then the cluster's list."""
    forget(found)
    with hanging(found.cache):
        assert "does not answer" in ok(found.stage.load()).stderr
        found.wait(1)
        found.agent = found.stage.agent()
        line = found.agent.wait_log("the cache of discovery is not used")
        assert found.cache in line and "does not answer" in line
        found.apis[0].start()
        found.wait(1, 2, 3, timeout=40)
        assert beats(found.stage) and ready(found.stage)
        assert found.agent.stop() == 0


def test_cache_is_no_state_of_the_seeds(cluster):
    """No discovery in the file, no cache: kubelb-load goes by the file."""
    cluster.start()
    cluster.wait(1, 2, 3)
    forget(cluster)
    cluster.configure(discovery=None)
    ok(cluster.stage.load())
    cluster.wait(1)


# --- credentials -------------------------------------------------------------


def test_exec_plugin_is_refused_clearly(cluster):
    """The agent runs no programs of a kubeconfig; the seeds count, and it says what to do."""
    kubeconfig(cluster.stage, "exec:\n  apiVersion: client.authentication.k8s.io/v1\n"
                              "  command: aws")
    agent = cluster.start()
    line = agent.wait_log(r"level=warn.*exec")
    assert cluster.kubeconfig in line and "token" in line
    cluster.wait(1)
    assert cluster.results("credentials") >= 1
    # Mended, it is taken up without a restart.
    kubeconfig(cluster.stage, f"token: {TOKEN}")
    cluster.wait(1, 2, 3, timeout=40)


def test_kubeconfig_that_is_not_there_yet(cluster):
    """The kubelet's own arrives with its first certificate: nothing needs to be first."""
    os.unlink(cluster.kubeconfig)
    agent = cluster.start()
    agent.wait_log(r"level=warn.*discovery.*kubelet\.conf")
    cluster.wait(1)
    kubeconfig(cluster.stage, f"token: {TOKEN}")
    cluster.wait(1, 2, 3, timeout=40)


def test_token_file_rotates(cluster):
    path = os.path.join(cluster.stage.dir, "token")

    def rotate(token):
        with open(path + ".new", "w", encoding="ascii") as f:
            f.write(token + "\n")
        os.rename(path + ".new", path)

    rotate(TOKEN)
    kubeconfig(cluster.stage, f"tokenFile: {path}")
    agent = cluster.start()
    cluster.wait(1, 2, 3)
    cluster.wait_watch()
    rotate("secret-t2")
    for api in cluster.apis:
        api.set(tokens={"secret-t2": USER})
    cluster.watching().watches("end")
    cluster.say(1, 2)
    cluster.wait(1, 2, timeout=20)
    assert any(api.counters()["tokens"].get("secret-t2") for api in cluster.apis)
    assert "secret-t" not in agent.log(), "a secret in the log"


def test_credentials_on_a_disk_that_hangs(cluster):
    """The seeds count, and the heart beats; discovery goes on when the disk does."""
    path = os.path.join(cluster.stage.dir, "token")
    with open(path, "w", encoding="ascii") as f:
        f.write(TOKEN)
    kubeconfig(cluster.stage, f"tokenFile: {path}")
    with hanging(path):
        agent = cluster.start()
        line = agent.wait_log("discovery does not work", timeout=20)
        assert "the files of the credentials are not read" in line
        cluster.wait(1)
        assert beats(cluster.stage) and ready(cluster.stage)
    cluster.wait(1, 2, 3, timeout=40)


def test_forbidden(cluster):
    """403: said once, with the way out; the seeds go on."""
    for api in cluster.apis:
        api.set(forbidden_users=[USER])
    agent = cluster.start()
    line = agent.wait_log(r"level=warn.*result=forbidden")
    assert "403" in line
    cluster.wait(1)
    assert served_set(cluster.stage, 10) == {"cp1"}


@pytest.mark.parametrize("anonymous, status", [("allow", 403), ("deny", 401)])
def test_no_credentials(cluster, anonymous, status):
    """A kubeconfig whose user has none: what comes next is not RBAC."""
    for api in cluster.apis:
        api.set(anonymous=anonymous)
    kubeconfig(cluster.stage, "{}")
    agent = cluster.start(probe={"anonymousAuth": False})
    line = agent.wait_log(r"level=warn.*result=forbidden")
    assert f"{status}: " in line
    assert "discovery.kubeconfig has no credentials for the current user" in line
    assert "RBAC" not in line


# --- the configuration -------------------------------------------------------


def test_turned_on_and_off(cluster):
    """By a change of the file: the file's backends, the cluster's, the file's."""
    cluster.start(discovery=None)
    cluster.wait(1)
    cluster.configure()
    cluster.wait(1, 2, 3)
    cluster.configure(discovery=None)
    cluster.wait(1)
    wait_until(lambda: cluster.status()["state"] == "off", "status to say so")


def test_reload_keeps_what_was_found(found):
    """A change of something else is no reason to go back to the seeds."""
    mark = len(found.agent.log())
    found.configure(policy="random")
    found.agent.wait_log(r"configuration reloaded.*backends=3", start=mark)
    assert len(known(found.stage)) == 3
    found.say(1, 2)
    found.wait(1, 2)


def test_load_while_the_agent_runs(found):
    """kubelb-load after a change goes by what the cluster said, not back to the seeds."""
    ok(found.stage.load())
    found.wait(1, 2, 3)
    wait_states(found.stage, "ready", found.apis)
    assert served_set(found.stage, 60) == {"cp1", "cp2", "cp3"}


def test_no_seeds_at_all(cluster):
    """Discovery goes through the frontend, so it needs somebody to begin with: said, and
    connects go through untouched. A cache is somebody."""
    cluster.start(backends=None)
    cluster.agent.wait_log(r"level=warn.*discovery.*127\.0\.0\.1:6443")
    assert known(cluster.stage) == set()
    assert dial_error(cluster.stage) == "ECONNREFUSED"
    cluster.configure()
    cluster.wait(1, 2, 3, timeout=20)
    forget(cluster)
    cluster.configure(backends=None)
    ok(cluster.stage.load())
    cluster.wait(1, 2, 3)


# --- the seeds, the last resort ----------------------------------------------

NOBODY = ("192.0.2.7", "192.0.2.8")  # TEST-NET-1: nobody has these addresses
NO_USE = r"level=warn.*none of the cluster's apiservers takes connections"


def served_now(stage):
    """Who serves one more connect; None when it fails."""
    with contextlib.suppress(OSError):
        return served_by(stage)
    return None


def test_stale_cache_and_good_seeds(cluster):
    """The node was off while the control plane moved: the cache names nobody who is there.
    The seeds count beside it, lead to the cluster, and the cache is renewed."""
    os.makedirs(os.path.dirname(cluster.cache), 0o700)
    with open(cluster.cache, "w", encoding="utf-8") as f:
        json.dump({"kind": "kubelb-backends", "version": 1, "written": "2025-01-01T00:00:00Z",
                   "backends": [f"{address}:6443" for address in NOBODY]}, f)
    os.chmod(cluster.cache, 0o600)
    for api in cluster.apis:
        api.set(forbidden_users=[USER])
    cluster.configure(seeds=(1,))
    assert "and the configuration's own" in ok(cluster.stage.load()).stdout
    both = {f"{address}:6443" for address in NOBODY} | {cluster.apis[0].endpoint}
    assert known(cluster.stage) == both
    wait_until(lambda: served_now(cluster.stage) == "cp1", "the seed to serve without an agent")
    cluster.agent = cluster.stage.agent()
    wait_states(cluster.stage, "ready", cluster.apis[:1])
    assert (known(cluster.stage), cluster.status()["state"]) == (both, "cache")
    assert served_set(cluster.stage, 20) == {"cp1"}
    # A new start tries at once: 45 s after a 403 is no time for a test.
    assert cluster.agent.stop() == 0
    for api in cluster.apis:
        api.set(forbidden_users=[])
    cluster.agent = cluster.stage.agent()
    cluster.wait(1, 2, 3)
    wait_states(cluster.stage, "ready", cluster.apis)
    cluster.wait_cached(3)
    wait_until(lambda: cluster.status()["state"] == "current", "status to say so")


def test_list_that_leads_nowhere(cluster):
    """The cluster names addresses that this node cannot reach: the seeds serve it, the log
    says so, and they go as soon as somebody of the list takes connections."""
    cluster.etcd.put("kubernetes", NOBODY)
    agent = cluster.start(seeds=(1,))
    assert "listed=2 seeds=1" in agent.wait_log(NO_USE, timeout=15)
    assert known(cluster.stage) == {f"{address}:6443" for address in NOBODY} | \
        {cluster.apis[0].endpoint}
    wait_states(cluster.stage, "ready", cluster.apis[:1])
    assert served_set(cluster.stage, 20) == {"cp1"}
    wait_until(lambda: cluster.status()["state"] == "seeds", "status to say so")
    cluster.say(2, 3)
    cluster.wait(2, 3, timeout=20)
    wait_until(lambda: cluster.status()["state"] == "current", "status to say so")
    assert served_set(cluster.stage, 20) <= {"cp2", "cp3"}


def test_seeds_while_the_list_is_dead(cluster):
    """All that the cluster has named die: after a while the seed serves, until one is back."""
    cluster.say(2, 3)
    agent = cluster.start(seeds=(1,))
    cluster.wait(2, 3)
    wait_states(cluster.stage, "ready", cluster.apis[1:])
    for api in cluster.apis[1:]:
        api.kill()
    agent.wait_log(NO_USE, timeout=15)
    cluster.wait(1, 2, 3)
    wait_states(cluster.stage, "ready", cluster.apis[:1])
    assert served_set(cluster.stage, 20) == {"cp1"}
    mark = len(agent.log())
    cluster.apis[1].start()
    agent.wait_log(r"level=info.*apiservers alone count", start=mark, timeout=15)
    cluster.wait(2, 3)
    wait_until(lambda: served_now(cluster.stage) == "cp2", "the one that is back")


def test_restart_is_no_reason_for_seeds(cluster):
    """A seed that is no apiserver gets nothing while the agent restarts or kubelb-load runs:
    what the maps and the cache hold was the cluster's word a moment ago."""
    cluster.say(2, 3)
    cluster.start(seeds=(1,))
    cluster.wait(2, 3)
    wait_states(cluster.stage, "ready", cluster.apis[1:])
    cluster.wait_cached(2)
    wait_until(lambda: cluster.status()["state"] == "current", "status to say so")
    dry = ok(cluster.stage.load("--dry-run"))
    assert cluster.apis[0].endpoint not in dry.stdout
    ok(cluster.stage.load())
    wait_states(cluster.stage, "ready", cluster.apis[1:])
    wait_until(lambda: cluster.status()["state"] == "current", "status to say so")
    accepted = cluster.apis[0].accepted_now()
    assert cluster.agent.stop() == 0
    cluster.agent = cluster.stage.agent()
    cluster.wait_watch(timeout=20)
    cluster.wait(2, 3)
    assert cluster.apis[0].accepted_now() == accepted
    assert not state_changes(cluster.agent, cluster.apis[0])
