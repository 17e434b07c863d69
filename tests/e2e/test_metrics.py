# SPDX-License-Identifier: BSD-2-Clause
"""The agent's HTTP server: /metrics, /healthz, /readyz, and nothing else."""

import shutil
import subprocess

import pytest

from helpers import (V4, Accepts, Held, Listener, agent_serves, by_backend, dial, dial_error,
                     http_call, metrics, metrics_of, metrics_page, nbconnect, served_set,
                     state_of, stats, wait_states)
from system import wait_until


# The contract: name -> (type, labels). kubelb_connect_failovers_total comes with the
# transparent failover.
CONTRACT = {
    "kubelb_build_info": ("gauge", {"version"}),
    "kubelb_frontend_balanced": ("gauge", {"frontend"}),
    "kubelb_other_programs": ("gauge", {"hook"}),
    "kubelb_connects_diverted_total": ("counter", set()),
    "kubelb_backend_state": ("gauge", {"backend", "state"}),
    "kubelb_backend_weight": ("gauge", {"backend"}),
    "kubelb_backend_preferred": ("gauge", {"backend"}),
    "kubelb_connections_active": ("gauge", {"backend"}),
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
    "kubelb_discovery_updates_total": ("counter", {"result"}),
    "kubelb_config_reloads_total": ("counter", {"result"}),
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
    stage.configure(discovery={"kubeconfig": f"{stage.dir}/absent.conf", "cache": ""})
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


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health(balanced, path):
    assert http_call(balanced, "GET", path)[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
@pytest.mark.parametrize("path", ["/metrics", "/healthz"])
def test_only_reading(balanced, method, path):
    assert http_call(balanced, method, path)[0] == 405


@pytest.mark.parametrize("path", ["/", "/nothing", "/metrics/", "/metricsx", "/../etc/passwd"])
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
