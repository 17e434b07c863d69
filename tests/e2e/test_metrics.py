# SPDX-License-Identifier: BSD-2-Clause
"""The agent's HTTP server: /metrics, /healthz, /readyz, and nothing else."""

import calendar
import contextlib
import errno
import shutil
import socket
import subprocess
import time

import pytest

from helpers import (V4, Accepts, Held, Listener, agent_serves, by_backend, dial, dial_error,
                     http_call, make_socket, metrics, metrics_of, metrics_page, nbconnect, ok,
                     served_set, state_of, stats, wait_states)
from backend import PORT
from system import run_checked, wait_until


# The contract: name -> (type, labels). kubelb_connect_failovers_total comes with the
# transparent failover.
CONTRACT = {
    "kubelb_build_info": ("gauge", {"version"}),
    "kubelb_frontend_balanced": ("gauge", {"frontend"}),
    "kubelb_other_programs": ("gauge", {"hook"}),
    "kubelb_connects_diverted_total": ("counter", set()),
    "kubelb_connects_left_alone_total": ("counter", {"cause"}),
    "kubelb_feature": ("gauge", {"name"}),
    "kubelb_heartbeat_age_seconds": ("gauge", set()),
    "kubelb_heartbeat_timestamp_seconds": ("gauge", set()),
    "kubelb_backend_state": ("gauge", {"backend", "state"}),
    "kubelb_backend_weight": ("gauge", {"backend"}),
    "kubelb_backend_preferred": ("gauge", {"backend"}),
    "kubelb_connections_active": ("gauge", {"backend"}),
    "kubelb_connections_connecting": ("gauge", {"backend"}),
    "kubelb_connections_opened_total": ("counter", {"backend"}),
    "kubelb_connect_failures_total": ("counter", {"backend", "reason"}),
    "kubelb_ejections_total": ("counter", {"backend"}),
    "kubelb_connections_ended_total": ("counter", {"backend", "reason"}),
    "kubelb_connections_destroyed_total": ("counter", {"backend"}),
    "kubelb_backend_rtt_seconds": ("gauge", {"backend"}),
    "kubelb_probes_total": ("counter", {"backend", "result"}),
    "kubelb_probe_duration_seconds": ("histogram", {"backend"}),
    "kubelb_probes_skipped_total": ("counter", {"backend"}),
    "kubelb_probe_pings_total": ("counter", {"backend"}),
    "kubelb_probe_pings_unanswered_total": ("counter", {"backend"}),
    "kubelb_backend_certificate_expiry_timestamp_seconds": ("gauge", {"backend"}),
    "kubelb_client_certificate_expiry_timestamp_seconds": ("gauge", set()),
    "kubelb_discovery_state": ("gauge", {"state"}),
    "kubelb_discovery_updates_total": ("counter", {"result"}),
    "kubelb_config_reloads_total": ("counter", {"result"}),
    "kubelb_config_last_reload_successful": ("gauge", set()),
    "kubelb_config_last_reload_success_timestamp_seconds": ("gauge", set()),
    "kubelb_log_lines_dropped_total": ("counter", set()),
    "process_cpu_seconds_total": ("counter", set()),
    "process_resident_memory_bytes": ("gauge", set()),
    "process_virtual_memory_bytes": ("gauge", set()),
    "process_open_fds": ("gauge", set()),
    "process_max_fds": ("gauge", set()),
    "process_start_time_seconds": ("gauge", set()),
}


@pytest.fixture(name="discovering")
def discovering_fixture(stage):
    """An agent that does all that it can count."""
    client = stage.pki.client("system:node:worker")
    stage.configure(discovery={"kubeconfig": f"{stage.dir}/absent.conf", "cache": ""},
                    probe={"clientCert": client, "clientKey": client})
    stage.running = stage.agent()
    wait_states(stage, "ready", stage.backends)
    return stage


def test_names(discovering):
    """Every name, with its type and its labels; one line for each backend from the start,
    so that a rate over it has a beginning."""
    page = metrics_page(discovering)
    found, types = metrics_of(page)
    endpoints = {b.endpoint for b in discovering.backends}
    for name, (kind, labels) in CONTRACT.items():
        assert types.get(name) == kind, name
        samples = found.get(name) or found.get(f"{name}_count")
        assert samples, f"{name} has no value"
        assert all(set(have) == labels for have, _value in samples), (name, samples[0])
        if "backend" in labels:
            assert {have["backend"] for have, _value in samples} == endpoints, name
    assert "secret" not in page and all(name.startswith(("kubelb_", "process_"))
                                        for name in found)
    [(labels, value)] = found["kubelb_build_info"]
    assert value == 1 and labels["version"]


def test_label_values(discovering):
    """What dashboards and alerts select by."""
    found = metrics(discovering)

    def values(name, label):
        return {labels[label] for labels, _value in found[name]}

    assert values("kubelb_backend_state", "state") == {"ready", "suspect", "draining",
                                                       "ejected", "dead", "removed"}
    assert values("kubelb_connections_ended_total", "reason") == {"dead", "rebalance", "local"}
    assert values("kubelb_connect_failures_total", "reason") == {
        "refused", "timed_out", "unreachable", "gave_up", "other"}
    assert values("kubelb_config_reloads_total", "result") == {"ok", "error"}
    assert values("kubelb_connects_left_alone_total", "cause") == {
        "loopback_source", "no_backend", "other_netns", "own_listener"}
    assert values("kubelb_discovery_state", "state") == {
        "off", "seeds", "cache", "current", "failing"}
    assert values("kubelb_discovery_updates_total", "result") == {
        "applied", "unchanged", "empty", "expired", "forbidden", "credentials", "error"}


@pytest.mark.skipif(not shutil.which("promtool"),
                    reason="promtool (of the package prometheus) is not installed")
@pytest.mark.parametrize("state", ["ready", "dead", "without discovery"])
def test_promtool(stage, state):
    """Prometheus' own judge has nothing to say."""
    if state != "without discovery":
        stage.configure(discovery={"kubeconfig": f"{stage.dir}/absent.conf", "cache": ""})
    stage.agent()
    wait_states(stage, "ready", stage.backends)
    if state == "dead":
        stage.cp(1).kill()
        wait_states(stage, "dead", [stage.cp(1)])
        nbconnect(stage, "-n", 20, V4)
    done = subprocess.run(["promtool", "check", "metrics"], input=metrics_page(stage),
                          capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_states_and_weights(balanced):
    endpoints = {b.endpoint for b in balanced.backends}
    found = metrics(balanced)
    assert by_backend(found["kubelb_backend_state"], state="ready") == \
        dict.fromkeys(endpoints, 1.0)
    assert by_backend(found["kubelb_backend_state"], state="dead") == \
        dict.fromkeys(endpoints, 0.0)
    assert by_backend(found["kubelb_backend_weight"]) == dict.fromkeys(endpoints, 100.0)
    cp = balanced.cp(1)
    cp.kill()
    wait_states(balanced, "dead", [cp])
    states = metrics(balanced)["kubelb_backend_state"]
    assert by_backend(states, state="dead")[cp.endpoint] == 1
    assert by_backend(states, state="ready")[cp.endpoint] == 0
    assert all(sum(v for labels, v in states if labels["backend"] == e) == 1 for e in endpoints)


def test_connections(balanced):
    counts = Accepts(balanced)
    with Held(balanced, 30):
        nbconnect(balanced, "-n", 100, V4)
        drawn = counts.settled(130)
        found = metrics(balanced)
        assert by_backend(found["kubelb_connections_opened_total"]) == {
            b.endpoint: float(drawn[b.name]) for b in balanced.backends}
        wait_until(lambda: by_backend(metrics(balanced)["kubelb_connections_active"]) == {
            b.endpoint: float(stats(balanced, "active")[b.name]) for b in balanced.backends}
            and sum(stats(balanced, "active").values()) == 30, "thirty active connections")


def test_probes(balanced):
    before = sum(by_backend(metrics(balanced)["kubelb_probes_total"]).values())
    wait_until(lambda: sum(v for _l, v in metrics(balanced)["kubelb_probes_total"])
               >= before + 6, "six more probes")
    found = metrics(balanced)
    assert {labels["result"] for labels, _v in found["kubelb_probes_total"]}
    cp = balanced.cp(1).endpoint
    buckets = [(float(labels["le"].replace("+Inf", "inf")), value) for labels, value
               in found["kubelb_probe_duration_seconds_bucket"] if labels["backend"] == cp]
    assert buckets == sorted(buckets), "ascending, cumulative"
    assert [v for _le, v in buckets] == sorted(v for _le, v in buckets)
    count = by_backend(found["kubelb_probe_duration_seconds_count"])[cp]
    assert buckets[-1] == (float("inf"), count)
    assert 0 < by_backend(found["kubelb_probe_duration_seconds_sum"])[cp] < count * 0.4
    assert count == sum(v for labels, v in found["kubelb_probes_total"]
                        if labels["backend"] == cp)


def test_failed_probes_are_told_apart(balanced):
    results = {labels["result"] for labels, v in metrics(balanced)["kubelb_probes_total"] if v}
    cp = balanced.cp(1)
    cp.kill()
    wait_states(balanced, "dead", [cp])
    now = {labels["result"]: v for labels, v in metrics(balanced)["kubelb_probes_total"]
           if labels["backend"] == cp.endpoint and v}
    assert set(now) - results, now


def value_of(stage, name, **labels):
    """The value of the one sample with these labels."""
    [value] = [v for have, v in metrics(stage)[name] if labels.items() <= have.items()]
    return value


def test_heartbeat(balanced):
    """Its age and its moment say the same, by the node's clock."""
    age = value_of(balanced, "kubelb_heartbeat_age_seconds")
    assert 0 <= age < 3
    at = value_of(balanced, "kubelb_heartbeat_timestamp_seconds")
    assert abs(time.time() - age - at) < 3
    wait_until(lambda: value_of(balanced, "kubelb_heartbeat_timestamp_seconds") > at,
               "a later heartbeat")


def test_reload_that_is_refused(balanced):
    """It stays told for as long as the bad file is there, and so does the time of the good one."""
    name = "kubelb_config_last_reload_success"
    since = value_of(balanced, f"{name}_timestamp_seconds")
    assert value_of(balanced, f"{name}ful") == 1
    assert abs(since - value_of(balanced, "process_start_time_seconds")) < 0.01
    balanced.configure(text="policy: none\n")
    wait_until(lambda: value_of(balanced, f"{name}ful") == 0, "the refusal to be told")
    assert value_of(balanced, f"{name}_timestamp_seconds") == since
    before = time.time()
    assert since < before - 0.01
    balanced.configure()
    wait_until(lambda: value_of(balanced, f"{name}ful") == 1, "the good file to be told")
    # It is printed to the millisecond.
    assert before - 0.01 < value_of(balanced, f"{name}_timestamp_seconds") < time.time() + 0.01


def expires(path):
    """What openssl says of a certificate, in Unix time."""
    shown = run_checked(["openssl", "x509", "-noout", "-enddate", "-in", path])
    return calendar.timegm(time.strptime(shown.strip(), "notAfter=%b %d %H:%M:%S %Y GMT"))


def test_certificates(stage):
    """The backends', above all when one has expired, and the client's own."""
    name = "kubelb_backend_certificate_expiry_timestamp_seconds"
    client, cp = stage.pki.client("system:node:worker"), stage.cp(1)
    stage.configure(probe={"clientCert": client, "clientKey": client})
    cp.certificate("expired", stage.pki)
    try:
        stage.agent()
        wait_states(stage, "draining", [cp])
        wait_states(stage, "ready", stage.backends[1:])
        found = by_backend(metrics(stage)[name])
        assert found == {b.endpoint: expires(b.path("current.crt")) for b in stage.backends}
        assert found[cp.endpoint] < time.time() < min(found[b.endpoint]
                                                      for b in stage.backends[1:])
        assert value_of(stage, "kubelb_client_certificate_expiry_timestamp_seconds") == \
            expires(client)
    finally:
        cp.certificate("good", stage.pki)


def test_left_alone(attached):
    """By cause: from a pod, bound to a loopback source, and without a backend to go to."""
    attached.configure(relay={"detour": False})
    attached.agent()
    wait_states(attached, "ready", attached.backends)

    def count(cause):
        return value_of(attached, "kubelb_connects_left_alone_total", cause=cause)

    nbconnect(attached, "-n", 3, V4, ns=attached.pod())
    assert dial_error(attached, V4, bind=V4) == "ECONNREFUSED"
    # Other worlds on this machine dial as well.
    wait_until(lambda: count("other_netns") >= 3, "three connects of a pod")
    assert (count("loopback_source"), count("no_backend"), count("own_listener")) == (1, 0, 0)
    for b in attached.backends:
        ok(attached.ctl("weight", b.endpoint, 0))
    assert dial_error(attached, V4) == "ECONNREFUSED"
    wait_until(lambda: count("no_backend") == 1, "a connect that finds no backend")


def test_connecting(single):
    """A connect whose SYN nobody answers is under way, and no open one."""
    single.agent()
    wait_states(single, "ready", single.backends[:1])

    def counts():
        found = metrics(single)
        return [by_backend(found[f"kubelb_connections_{kind}"])[single.cp(1).endpoint]
                for kind in ("connecting", "active")]

    wait_until(lambda: counts() == [0, 0], "no connection")
    single.cp(1).link(up=False)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            sock = stack.enter_context(make_socket(single, socket.AF_INET))
            sock.setblocking(False)
            assert sock.connect_ex((V4, PORT)) == errno.EINPROGRESS
        wait_until(lambda: counts() == [3, 0], lambda: f"three under way: {counts()}")


def test_discovery_state(discovering):
    """One state is 1: the list of the file counts, as there is no kubeconfig."""
    assert {labels["state"]: v for labels, v in
            metrics(discovering)["kubelb_discovery_state"]} == {
        "off": 0, "seeds": 1, "cache": 0, "current": 0, "failing": 0}
    assert "kubelb_discovery_heard_timestamp_seconds" not in metrics(discovering)


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health(balanced, path):
    assert http_call(balanced, "GET", path)[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
@pytest.mark.parametrize("path", ["/metrics", "/healthz"])
def test_only_reading(balanced, method, path):
    assert http_call(balanced, method, path)[0] == 405


@pytest.mark.parametrize("path", ["//", "/nothing", "/metrics/", "/metricsx", "/../etc/passwd"])
def test_unknown_path(balanced, path):
    assert http_call(balanced, "GET", path)[0] == 404


def test_query_is_ignored(balanced):
    assert http_call(balanced, "GET", "/healthz?verbose")[0] == 200


def test_rubbish_does_no_harm(balanced):
    """Half a request, no request, and no HTTP at all."""
    held = [dial(balanced, port=8081) for _ in range(50)]
    try:
        for sock in held[:10]:
            sock.sendall(b"GET /metr")
        for sock in held[10:20]:
            sock.sendall(b"\x16\x03\x01\x02\x00\x01" * 100)
        held[20].sendall(b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n\r\n")
    except (BrokenPipeError, ConnectionResetError):
        pass  # it need not listen to all of that
    finally:
        assert http_call(balanced, "GET", "/healthz")[0] == 200
        for sock in held:
            sock.close()
    assert http_call(balanced, "GET", "/metrics")[0] == 200
    assert balanced.running.alive()
    assert {state_of(balanced, b) for b in balanced.backends} == {"ready"}


def test_turned_off(stage):
    stage.configure(http="")
    stage.agent()
    wait_states(stage, "ready", stage.backends)
    assert dial_error(stage, port=8081) == "ECONNREFUSED"


def test_address_in_use(stage):
    """Somebody else has the port: said once, no reason not to balance, and tried again every
    ten seconds."""
    with Listener(stage, V4, 8081):
        agent = stage.agent()
        agent.wait_log(r'level=warn msg="no metrics for now" error=".*127\.0\.0\.1:8081')
        wait_states(stage, "ready", stage.backends)
        assert served_set(stage) == {"cp1", "cp2", "cp3"}
    wait_until(lambda: agent_serves(stage), "the agent to have its port", 15)
    assert agent.alive()
