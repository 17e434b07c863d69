# SPDX-License-Identifier: BSD-2-Clause
"""Dashboard and alerts on what Prometheus has recorded of a healthy fleet, a degraded one and one
of 200 nodes. Prometheus itself answers the dashboard's queries."""

import contextlib
import json
import math
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request

import pytest

import fleet
from helpers import LABEL, SAMPLE
from system import wait_until
from test_alerts import DASHBOARD, RULES, SCRAPE_LABELS, page_fixture, promtool, read  # noqa: F401

pytestmark = pytest.mark.skipif(
    not shutil.which("promtool") or not shutil.which("prometheus"),
    reason="prometheus is not installed (Debian's package prometheus; scripts/deps.sh)")

BEGIN = 1_760_000_000
MINUTES = 10
END = BEGIN + 60 * MINUTES
LINES_MAX = 20  # of one panel: what a legend can show
BOARD = json.loads(read(DASHBOARD))
PANELS = {p["title"]: p for p in BOARD["panels"] if p["type"] != "row"}
assert len(PANELS) == sum(p["type"] != "row" for p in BOARD["panels"]), "a title twice"
# A fleet without trouble has no line here; every other panel shows something.
SILENT = {"Not ready, by backend", "Failed connects by backend and reason",
          "Nodes with the most failed connects", "Connects that another program has diverted",
          "Connections ended by the agent", "Counts repaired", "Features that kernels refuse",
          "Restarts", "Log lines dropped", "Firing alerts", "Relayed connections, by why",
          "Clients that another backend has served", "Clients that the relay has turned away"}
# The stats that a degraded fleet has to colour, with what they show.
TROUBLE = {"Agents down": 1, "Nodes not balanced": 1, "Nodes without a ready backend": 1,
           "Backends dead": 1, "Alerts": 2, "Refused configurations": 1,
           "Discovery not current": 1, "Failed connects": None, "Certificates": None}


class Engine:
    """A Prometheus that has recorded the fleets."""

    def __init__(self, port, process):
        self.port, self.process = port, process

    def ask(self, path, **parameters):
        url = f"http://127.0.0.1:{self.port}/{path}?" + urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as e:
            raise AssertionError(f"{parameters}: {e.read().decode()}") from e

    def is_ready(self):
        assert self.process.poll() is None, "Prometheus has ended"
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=5).close()
            return True
        return False

    def now(self, expression):
        """[(labels, value)] at the end of the record, in Prometheus' order."""
        found = self.ask("api/v1/query", query=expression, time=END)
        return [(s["metric"], float(s["value"][1])) for s in found["result"]]

    def over_time(self, expression):
        """[(labels, [value])] of the second half of the record, where rates have a past."""
        found = self.ask("api/v1/query_range", query=expression, end=END, step=60,
                         start=BEGIN + 30 * MINUTES)
        return [(s["metric"], [float(v) for _t, v in s["values"]]) for s in found["result"]]


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


# What Prometheus makes of the rules itself: two alerts of the degraded fleet.
ALERTS = [f'ALERTS{{alertname="{name}",alertstate="firing",severity="warning",cluster="degraded"'
          f'{labels}}} 1 {END}\n'
          for name, labels in (("KubelbBackendDead", f',backend="{fleet.BACKENDS[0]}"'),
                               ("KubelbAgentDown", ',instance="node2"'))]


@pytest.fixture(scope="module", name="engine")
def engine_fixture(tmp_path_factory):
    home = tmp_path_factory.mktemp("prometheus")
    record, port = home / "record", free_port()
    with open(record, "w", encoding="ascii") as f:
        for name in fleet.FLEETS:
            f.writelines(fleet.openmetrics(name, BEGIN, MINUTES))
        f.writelines([*ALERTS, "# EOF\n"])
    done = promtool("tsdb", "create-blocks-from", "openmetrics", "-q", str(record),
                    str(home / "data"))
    assert done.returncode == 0, done.stdout + done.stderr
    record.unlink()
    (home / "prometheus.yml").write_text("{}")
    with open(home / "log", "wb") as log:
        process = subprocess.Popen(
            ["prometheus", f"--config.file={home}/prometheus.yml",
             "--storage.tsdb.retention.time=99y", f"--storage.tsdb.path={home}/data",
             f"--web.listen-address=127.0.0.1:{port}"],
            stdout=log, stderr=log)
    engine = Engine(port, process)
    try:
        wait_until(engine.is_ready, lambda: read(home / "log"), 30)
        yield engine
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(home)


def filled(expression, name):
    """With Grafana's variables as they are for one of the fleets."""
    values = {"$__rate_interval": "4m", "$job": re.escape(fleet.JOB), "$cluster": name,
              "$node": ".*", "$backend": ".*"}
    for variable, value in values.items():
        expression = expression.replace(variable, value.replace("\\", "\\\\"))
    assert "$" not in expression, expression
    return expression


def queries(panel, name):
    return [filled(t["expr"], name) for t in panel["targets"]]


def of_type(kind):
    return [title for title, panel in PANELS.items() if panel["type"] == kind]


def color(panel, value):
    """As Grafana colours a stat: the last step that is not above the value."""
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    return [s["color"] for s in steps if s["value"] is None or s["value"] <= value][-1]


# --- the dashboard -----------------------------------------------------------


def test_every_panel_has_its_thresholds():
    """Grafana's own are red from 80 on: 200 nodes that are well would be red."""
    for title, panel in PANELS.items():
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"], title


@pytest.mark.parametrize("name", fleet.FLEETS)
@pytest.mark.parametrize("title", of_type("stat"))
def test_stats(engine, title, name):
    """One number, always, and in a colour that says how it is."""
    panel = PANELS[title]
    [query] = queries(panel, name)
    [(_labels, value)] = engine.now(query)
    assert math.isfinite(value)
    expected = TROUBLE.get(title, ...) if name == "degraded" else ...
    if expected is ...:
        assert color(panel, value) == "green", value
    else:
        assert color(panel, value) != "green", value
        assert expected in (None, value)


@pytest.mark.parametrize("name", fleet.FLEETS)
@pytest.mark.parametrize("title", of_type("timeseries"))
def test_graphs(engine, title, name):
    """Numbers, no more lines than a legend can show, and none that is empty without a reason."""
    for query in queries(PANELS[title], name):
        lines = engine.over_time(query)
        assert len(lines) <= LINES_MAX, f"{len(lines)} lines"
        assert all(math.isfinite(v) for _labels, values in lines for v in values)
        if name == "degraded" and title != "Log lines dropped":
            assert lines, query
        elif name != "degraded":
            assert bool(lines) == (title not in SILENT), query


def test_numbers(engine):
    """Stats that must be right, not only green."""
    def shown(title, name):
        return engine.now(queries(PANELS[title], name)[0])[0][1]

    assert [shown("Agents up", name) for name in fleet.FLEETS] == [4, 9, 200]
    # Every other node has 12 connections to each of three, and six connects a minute.
    assert shown("Connections", "two hundred") == 100 * 3 * 12
    assert shown("Connects a second", "two hundred") == pytest.approx(100 * 3 * 0.1)
    assert shown("Failed connects", "healthy") == 0
    # One node: two a minute, beside what four have to each of two.
    assert shown("Failed connects", "degraded") == pytest.approx(2 / (2 + 5 * 2 * 6), rel=0.1)
    assert shown("Certificates", "healthy") == pytest.approx(200 * fleet.DAY, rel=0.01)


@pytest.mark.parametrize("node", ["node1", "node2"])
@pytest.mark.parametrize("name", fleet.FLEETS)
def test_one_node_alone(engine, name, node):
    """One without a probe, and one without a connect: with nothing to divide by, numbers all the
    same."""
    for title, panel in PANELS.items():
        for target in panel["targets"]:
            query = filled(target["expr"].replace("$node", node), name)
            assert all(math.isfinite(v) for _labels, v in engine.now(query)), title


def test_table_of_states(engine):
    """A cell for each node and backend; those of the nodes that see trouble come first."""
    panel = PANELS["Each node's view of each backend"]
    words = {int(k): v["text"]
             for k, v in panel["fieldConfig"]["defaults"]["mappings"][0]["options"].items()}

    def cells(name):
        [query] = queries(panel, name)
        return [(labels["instance"], labels["backend"], words[int(value)])
                for labels, value in engine.now(query)]

    assert len(cells("two hundred")) == 600 and {c[2] for c in cells("two hundred")} == {"ready"}
    found = cells("degraded")
    assert len(found) == 27, "three for each node that has an agent"
    assert [c[1:] for c in found[:9]] == [(fleet.BACKENDS[0], "dead")] * 9
    assert found[9:11] == [("node4", b, "draining") for b in fleet.BACKENDS[1:]] or \
        sorted(found[9:11]) == [("node4", b, "draining") for b in fleet.BACKENDS[1:]]
    assert {c[2] for c in found[11:]} == {"ready"}


def test_table_of_alerts(engine):
    [query] = queries(PANELS["Firing alerts"], "degraded")
    assert sorted(labels["alertname"] for labels, _value in engine.now(query)) == \
        ["KubelbAgentDown", "KubelbBackendDead"]
    assert engine.now(queries(PANELS["Firing alerts"], "healthy")[0]) == []


def test_variables(engine):
    """What one can choose from: whatever the job is called, and the nodes of a cluster."""
    def choices(variable, name):
        [query] = [v["query"]["query"] for v in BOARD["templating"]["list"]
                   if v["name"] == variable]
        match = re.fullmatch(r"label_values\((.*), (\w+)\)", query)
        return engine.ask(f"api/v1/label/{match.group(2)}/values",
                          **{"match[]": filled(match.group(1), name), "start": BEGIN, "end": END})

    assert choices("job", "healthy") == [fleet.JOB]
    assert choices("cluster", "healthy") == sorted(fleet.FLEETS)
    assert len(choices("node", "two hundred")) == 200 and len(choices("node", "healthy")) == 4
    assert choices("backend", "degraded") == list(fleet.BACKENDS)


def test_nothing_names_a_job():
    for path in (DASHBOARD, RULES):
        assert not re.search(r'job=\\?"', read(path)), path


# --- the alerts --------------------------------------------------------------

# Of the degraded fleet: alert, severity, and the labels that name the culprit.
FIRING = [
    ("KubelbAgentDown", "warning", {"instance": "node2"}),
    ("KubelbAgentRestarting", "warning", {"instance": "node10"}),
    ("KubelbBackendDead", "warning", {"backend": fleet.BACKENDS[0]}),
    ("KubelbBackendNotReady", "warning", {"backend": fleet.BACKENDS[1]}),
    ("KubelbBackendNotReady", "warning", {"backend": fleet.BACKENDS[2]}),
    ("KubelbCertificateExpires", "warning", {"instance": "node9"}),
    ("KubelbClockWrong", "warning", {"instance": "node7"}),
    ("KubelbConfigReloadFailed", "warning", {"instance": "node1"}),
    ("KubelbConnectFailures", "warning", {"instance": "node3"}),
    ("KubelbConnectsLeftAlone", "critical", {"instance": "node8"}),
    ("KubelbCountsRepaired", "info", {"instance": "node10"}),
    ("KubelbDiscoveryFailing", "warning", {"instance": "node6"}),
    ("KubelbEjectionsFlapping", "warning", {"instance": "node3", "backend": fleet.BACKENDS[1]}),
    ("KubelbNoBackendReady", "critical", {"instance": "node4"}),
    ("KubelbProgramsNotEffective", "critical", {"instance": "node5"}),
]
# Those that are summed over the jobs of a cluster.
OF_THE_CLUSTER = {"KubelbBackendDead", "KubelbBackendNotReady"}


def alert_sample(alert, severity, labels):
    job = {} if alert in OF_THE_CLUSTER else {"job": fleet.JOB}
    text = ",".join(f'{k}="{v}"' for k, v in {
        "alertname": alert, "alertstate": "firing", "severity": severity, "cluster": "degraded",
        **job, **labels}.items())
    return {"labels": f"ALERTS{{{text}}}", "value": 1}


def judge(directory, name, firing, rules=RULES):
    """promtool's verdict on a fleet after 100 minutes: the longest `for` of a day-to-day alert is
    an hour."""
    words = set(re.findall(r"\w+", read(rules)))
    test = {"rule_files": [str(rules)], "evaluation_interval": "10m", "tests": [{
        "interval": "2m", "input_series": fleet.input_series(name, 100, 2, words.__contains__),
        "promql_expr_test": [{"expr": 'ALERTS{alertstate="firing"}', "eval_time": "100m",
                              "exp_samples": [alert_sample(*f) for f in firing]}]}]}
    path = directory / "fleet.test.yaml"
    path.write_text(json.dumps(test))
    return promtool("test", "rules", str(path))


@pytest.mark.parametrize("name, firing", [("healthy", []), ("degraded", FIRING)])
def test_alerts(tmp_path, name, firing):
    """All that a degraded fleet needs, each for the node that it is about; and nothing of a fleet
    that is well."""
    done = judge(tmp_path, name, firing)
    assert done.returncode == 0, done.stdout + done.stderr


def alert_expressions():
    """name -> expression, the recording rules filled in."""
    yaml = pytest.importorskip("yaml", reason="python3-yaml is not installed (scripts/deps.sh)")
    rules = [r for g in yaml.safe_load(read(RULES))["groups"] for r in g["rules"]]
    recorded = {r["record"]: f"({r['expr']})" for r in rules if "record" in r}
    for rule in rules:
        if "alert" in rule:
            expression = rule["expr"]
            for name, value in recorded.items():
                expression = expression.replace(name, value)
            yield rule["alert"], expression


def test_alerts_of_200_nodes(engine):
    """No condition holds for one of them, not even for a moment. (promtool takes a minute for so
    many series.) The degraded fleet beside them shows that the conditions do hold."""
    held = {}
    for alert, expression in alert_expressions():
        for labels, _value in engine.now(expression):
            held.setdefault(labels.get("cluster"), set()).add(alert)
    assert set(held) == {"degraded"}, held
    # Not yet in ten minutes, or asked for the past half hour.
    late = {"KubelbConnectFailures", "KubelbEjectionsFlapping", "KubelbConnectsLeftAlone"}
    assert held["degraded"] >= {f[0] for f in FIRING} - late


def test_an_alert_too_many_is_noticed(tmp_path):
    broken = tmp_path / "rules.yaml"
    broken.write_text(read(RULES).replace("< 14 * 86400", "< 400 * 86400"))
    done = judge(tmp_path, "healthy", [], broken)
    assert done.returncode != 0 and "KubelbCertificateExpires" in done.stderr


# --- the record --------------------------------------------------------------


def shape(lines):
    """Name -> the labels that a sample has."""
    found = {}
    for line in lines:
        match = None if line.startswith("#") else SAMPLE.fullmatch(line.strip())
        if match:
            keys = {k for k, _v in LABEL.findall(match.group(2) or "")} - SCRAPE_LABELS
            found.setdefault(match.group(1), set()).add(frozenset(keys))
    return found


def test_the_record_is_like_an_agents_page(page):
    """The same names and labels: what is judged above is what agents say. (What neither dashboard
    nor alerts ask for need not be recorded.)"""
    recorded = shape(f"{text} 1" for text, _line in fleet.series("healthy", 0))
    assert recorded.pop("up") == {frozenset()}
    real = shape(page.splitlines())
    # There is no cluster to hear from in that world, and no client certificate.
    assert set(recorded) - set(real) == {"kubelb_discovery_heard_timestamp_seconds",
                                         "kubelb_client_certificate_expiry_timestamp_seconds"}
    shared = set(real) & set(recorded)
    assert {name: recorded[name] for name in shared} == {name: real[name] for name in shared}
