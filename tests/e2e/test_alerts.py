# SPDX-License-Identifier: BSD-2-Clause
"""Alert rules, dashboard and documentation against what the agent really says."""

import json
import os
import re
import shutil
import subprocess

import pytest

from helpers import LABEL, SAMPLE, http_call, metrics, ok
from system import cgroup2_root, wait_until

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
RULES = os.path.join(ROOT, "deploy/prometheus/kubelb-alerts.yaml")
RULES_TEST = os.path.join(ROOT, "deploy/prometheus/kubelb-alerts.test.yaml")
DASHBOARD = os.path.join(ROOT, "deploy/grafana/kubelb.json")
# What Prometheus adds to whatever it scrapes.
SCRAPE_LABELS = {"job", "instance", "cluster"}

needs_promtool = pytest.mark.skipif(
    not shutil.which("promtool"),
    reason="promtool is not installed (Debian's package prometheus; scripts/deps.sh)")


def promtool(*args, stdin=None):
    return subprocess.run(["promtool", *args], input=stdin, capture_output=True, text=True,
                          check=False)


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def rule_expressions():
    """The rules' expressions, and the names that recording rules give to theirs."""
    yaml = pytest.importorskip("yaml", reason="python3-yaml is not installed (scripts/deps.sh)")
    rules = [r for g in yaml.safe_load(read(RULES))["groups"] for r in g["rules"]]
    return [r["expr"] for r in rules], {r["record"] for r in rules if "record" in r}


def dashboard_expressions():
    """Of panels, annotations and variables, with Grafana's variables filled in."""
    board = json.loads(read(DASHBOARD))
    found = [t["expr"] for p in board["panels"] for t in p.get("targets", [])]
    found += [a["expr"] for a in board["annotations"]["list"]]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            match = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            found.append(match.group(1))
    return [re.sub(r"\$(job|cluster|node|backend)", ".*", e.replace("$__rate_interval", "5m"))
            for e in found]


# --- by themselves ---------------------------------------------------------------------


@needs_promtool
def test_rules_are_valid():
    done = promtool("check", "rules", RULES)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_rules_fire_when_they_should():
    done = promtool("test", "rules", RULES_TEST)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_fires_in_a_test():
    alerts = set(re.findall(r"^ *- alert: (\w+)", read(RULES), re.MULTILINE))
    fired = set(re.findall(r'alertname="(\w+)",alertstate="firing"', read(RULES_TEST)))
    assert alerts and alerts == fired


@needs_promtool
def test_a_rule_that_does_not_fire_is_noticed(tmp_path):
    """The same situations against rules that have lost an alert's condition."""
    broken = read(RULES).replace("kubelb_programs_attached == 0", "kubelb_programs_attached == 9")
    assert broken != read(RULES)
    (tmp_path / os.path.basename(RULES)).write_text(broken)
    shutil.copy(RULES_TEST, tmp_path)
    done = promtool("test", "rules", str(tmp_path / os.path.basename(RULES_TEST)))
    assert done.returncode != 0 and "KubelbNotAttached" in done.stderr


def test_dashboard():
    board = json.loads(read(DASHBOARD))
    ids = [p["id"] for p in board["panels"]]
    assert len(set(ids)) == len(ids)
    assert [v["name"] for v in board["templating"]["list"]] == [
        "datasource", "job", "cluster", "node", "backend"]
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        if panel["type"] != "row":
            assert panel["targets"] and panel["datasource"]["uid"] == "${datasource}"
            assert len({t["refId"] for t in panel["targets"]}) == len(panel["targets"])


@needs_promtool
def test_dashboard_parses(tmp_path):
    """Each expression as a recording rule: this promtool has no other way to parse one."""
    rules = tmp_path / "dashboard.yaml"
    rules.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": [
        {"record": f"panel:{i}", "expr": e} for i, e in enumerate(dashboard_expressions())]}]}))
    done = promtool("check", "rules", str(rules))
    assert done.returncode == 0, done.stdout + done.stderr


# --- against a real agent --------------------------------------------------------------


@pytest.fixture(name="page")
def page_fixture(stage):
    """The metrics of an agent with everything turned on, and with connections of each
    kind behind it."""
    stage.configure(discovery={"kubeconfig": os.path.join(stage.dir, "no-such-kubeconfig"),
                               "cache": ""})
    stage.running = stage.agent()
    stage.running.wait_log("backend changed state.*state=ready")
    # Discovery has looked for its kubeconfig.
    wait_until(lambda: any(labels["result"] == "credentials" and value for labels, value in
                           metrics(stage).get("kubelb_discovery_updates_total", [])),
               "a first attempt of discovery")
    # It looks where connects end when its states are applied, and a moment later on a busy machine.
    wait_until(lambda: metrics(stage).get("kubelb_frontend_balanced"), "a first look at frontends")
    return http_call(stage, "GET", "/metrics")[2]


@needs_promtool
def test_page_is_good(page):
    """promtool's linter, which knows the conventions for names, units and help."""
    done = promtool("check", "metrics", stdin=page)
    assert done.returncode == 0 and not done.stderr + done.stdout, done.stdout + done.stderr


def test_only_metrics_that_exist(page):
    """Of rules and dashboard: metrics, the labels that they are asked for, and values."""
    types = set(re.findall(r"^# TYPE (\S+) ", page, re.MULTILINE))
    labels, values = {}, {}
    for line in page.splitlines():
        match = None if line.startswith("#") else SAMPLE.fullmatch(line)
        if match:
            for key, value in LABEL.findall(match.group(2) or ""):
                labels.setdefault(match.group(1), set()).add(key)
                values.setdefault((match.group(1), key), set()).add(value)
    rules, recorded = rule_expressions()
    used = rules + dashboard_expressions()
    for expression in used:
        for name, matchers in re.findall(r"\b((?:kubelb|process)_\w+|kubelb:\w+)(?:\{([^}]*)\})?",
                                         expression):
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            assert name in types or base in types or name in recorded, f"{name} in {expression}"
            for key, value in re.findall(r'(\w+)[!=~]+"([^"]*)"', matchers):
                assert key in SCRAPE_LABELS | labels.get(name, set()), f"{key} in {expression}"
                # A result that has never occurred is left out of the probes' counter.
                if key in SCRAPE_LABELS or name == "kubelb_probes_total" or value == ".*":
                    continue
                assert set(value.split("|")) <= values[name, key], f"{value} in {expression}"
    assert sum("kubelb_" in e for e in used) > 40, "the expressions were not found"


def only(stage, name):
    [(_labels, value)] = metrics(stage)[name]
    return value


def test_programs(balanced):
    """What status calls effective, as numbers; and the heartbeat's age."""
    attached = only(balanced, "kubelb_programs_attached")
    assert attached == only(balanced, "kubelb_programs_effective") == 5
    assert 0 <= only(balanced, "kubelb_heartbeat_age_seconds") < 3
    ok(balanced.detach())
    wait_until(lambda: only(balanced, "kubelb_programs_attached") == 0, "none to be attached")
    assert only(balanced, "kubelb_programs_effective") == 0


def metrics_or_none(stage):
    try:
        return metrics(stage)
    except OSError:
        return None


# The agent as it is, and one that may not read what a cgroup runs.
BLIND = ["setpriv", "--bounding-set", "-sys_admin,-dac_read_search"]


@pytest.mark.parametrize("wrapper", [[], BLIND], ids=["root", "without CAP_SYS_ADMIN"])
def test_programs_of_a_removed_cgroup(stage, wrapper):
    """Their links stay pinned and run nothing; it takes no privileges to see that."""
    group = os.path.join(cgroup2_root(), f"{stage.prefix}-alerts")
    log = os.path.join(stage.dir, "alerts.log")
    os.mkdir(group)
    try:
        ok(stage.load(cgroup=group))
        with open(log, "wb") as f:
            stage.spawn([*wrapper, stage.program("kubelb-agent"), "-c", stage.config,
                         "--pin", stage.pin], stdout=f, stderr=f)
        wait_until(lambda: metrics_or_none(stage), lambda: f"the agent's page:\n{read(log)}")
        assert only(stage, "kubelb_programs_attached") == 5
        assert only(stage, "kubelb_programs_effective") == 5
    finally:
        os.rmdir(group)
    wait_until(lambda: only(stage, "kubelb_programs_effective") == 0, "no program to be effective")
    assert only(stage, "kubelb_programs_attached") == 5
