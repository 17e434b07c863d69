# SPDX-License-Identifier: BSD-2-Clause
"""The Helm chart, linted and rendered by helm itself, with default and with unusual values."""

import copy
import json
import os
import re
import shlex

import pytest

from helpers import ok
from kube_tools import kube_tool
from test_alerts import DASHBOARD, RULES, needs_promtool, promtool, read
from test_image import KUSTOMIZE
from world import ROOT

yaml = pytest.importorskip("yaml", reason="python3-yaml is not installed (scripts/deps.sh)")

import manifests  # noqa: E402  (needs yaml)
from manifest_schema import check_object, runs_on  # noqa: E402

CHART = os.path.join(ROOT, "deploy", "helm", "kubelb")
BACKENDS = ["192.168.17.11", "192.168.17.12"]
# The kustomizations, and the values that lead to the same objects.
VARIANTS = {"base": {}, "overlays/capabilities": {"privileged": False}, "detach": {"detach": True},
            "overlays/control-planes": {"controlPlanes": True}}
PKI = "/var/lib/kubelet/pki"
DIGEST = "sha256:" + "0123456789abcdef" * 4
ZONE = {"key": "zone", "operator": "In", "values": ["a"]}
POOL = {"key": "pool", "operator": "Exists"}


def node_affinity(*terms):
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchExpressions": [e]} for e in terms]}}}


UNUSUAL = {
    "backends": ["[2001:db8::11]:6443", {"address": "192.168.17.12:7443", "weight": 50}, "fd00::1"],
    "policy": "rendezvous",
    "http": ["[::]:9999", "unix:/run/kubelb/agent.sock"],
    "config": {"local": "only",
               "probe": {"clientCert": f"{PKI}/c.pem", "clientKey": f"{PKI}/c.pem"}},
    "image": {"repository": "registry.example.org:5000/kube/lb", "tag": "no", "digest": DIGEST,
              "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "registry"}],
    "privileged": False,
    "resources": {"limits": {"memory": "1Gi"}},
    "tolerations": [{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}],
    "nodeSelector": {"kubernetes.io/hostname": "worker1"},
    "affinity": node_affinity(ZONE, POOL),
    "maxUnavailable": 3,
    "podAnnotations": {"example.org/team": "net: \"core\""},
    "podLabels": {"team": "net"},
    "extraVolumes": [{"name": "pki", "hostPath": {"path": PKI, "type": "Directory"}}],
    "extraVolumeMounts": [{"name": "pki", "mountPath": PKI, "readOnly": True}],
    "podMonitor": {"enabled": True, "labels": {"release": "stack"}, "interval": "15s"},
    "prometheusRule": {"enabled": True, "labels": {"release": "stack"},
                       "runbookBase": "https://docs.example.org/kubelb/"},
    "dashboard": {"enabled": True, "labels": {"grafana_dashboard": "yes"}},
    "global": {"of": "a parent chart"},
}


@pytest.fixture(scope="module", name="helm")
def helm_fixture():
    return kube_tool("helm")


def render(helm, **values):
    return manifests.render(helm, CHART, **{"backends": BACKENDS, **values})


def pod_spec(objects):
    return manifests.find(objects, "DaemonSet")["spec"]["template"]["spec"]


def configuration(objects):
    return yaml.safe_load(manifests.find(objects, "ConfigMap")["data"]["kubelb.yaml"])


def agent_of(objects):
    (agent,) = pod_spec(objects)["containers"]
    return agent


# --- as a whole --------------------------------------------------------------


@pytest.mark.parametrize("values", [{}, {"backends": BACKENDS}, UNUSUAL,
                                    {"backends": BACKENDS, "detach": True}],
                         ids=["default", "backends", "unusual", "detach"])
def test_lint(helm, tmp_path, values):
    """helm lint --strict has nothing to warn of."""
    path = tmp_path / "values.yaml"
    path.write_text(json.dumps(values))
    shown = manifests.run_tool([helm, "lint", "--strict", CHART, "--values", str(path)])
    assert "1 chart(s) linted, 0 chart(s) failed" in shown
    assert "[WARNING]" not in shown and "[ERROR]" not in shown


def test_package_is_the_chart(helm, tmp_path):
    """What people pull has the alerts and the dashboard in it, and renders to the same."""
    manifests.run_tool([helm, "package", CHART, "--destination", str(tmp_path)])
    (name,) = os.listdir(tmp_path)
    assert manifests.render(helm, str(tmp_path / name), **UNUSUAL) == render(helm, **UNUSUAL)


def test_objects_follow_the_schema(helm):
    """Every field exists, has its type, and is there when it has to be."""
    kinds = []
    for values in [{"backends": BACKENDS, **v} for v in VARIANTS.values()] + [UNUSUAL]:
        objects = manifests.render(helm, CHART, **values)
        for o in objects:
            check_object(o)
        kinds.append(sorted(o["kind"] for o in objects))
    assert kinds[0] == ["ConfigMap", "DaemonSet", "Role", "RoleBinding", "ServiceAccount"]
    assert kinds[-1] == sorted([*kinds[0], "ConfigMap", "PodMonitor", "PrometheusRule"])


def test_version_is_the_projects():
    version = re.search(r"^VERSION := (\S+)", read(os.path.join(ROOT, "Makefile")),
                        re.MULTILINE).group(1)
    (chart,) = manifests.read_all(os.path.join(CHART, "Chart.yaml"))
    assert chart["appVersion"] == chart["version"] == version


def comparable(objects):
    """By kind; without what the chart and the base say in ways of their own."""
    objects = copy.deepcopy(objects)
    for o in objects:
        metadata = [o["metadata"]]
        if o["kind"] == "ConfigMap":
            del o["data"]
        if o["kind"] == "DaemonSet":
            template = o["spec"]["template"]
            metadata.append(template["metadata"])
            template["metadata"].pop("annotations", None)
            for c in template["spec"]["initContainers"] + template["spec"]["containers"]:
                c.pop("imagePullPolicy", None)
        for m in metadata:
            m["labels"] = {k: v for k, v in m["labels"].items() if k == "app.kubernetes.io/name"}
    return {o["kind"]: o for o in objects}


@pytest.mark.parametrize("variant", VARIANTS)
def test_chart_renders_the_base(helm, variant):
    """The chart's values and the kustomizations lead to the same objects."""
    assert comparable(render(helm, **VARIANTS[variant])) == \
        comparable(manifests.kustomize(os.path.join(KUSTOMIZE, variant)))


def test_labels(helm):
    """The standard ones on every object and pod; and the selector, which nobody can change after an
    installation, has none that an upgrade changes."""
    objects = render(helm, **UNUSUAL)
    daemonset = manifests.find(objects, "DaemonSet")
    for o in [*objects, daemonset["spec"]["template"]]:
        labels = o["metadata"]["labels"]
        assert {"name", "instance", "version", "managed-by"} <= \
            {k.removeprefix("app.kubernetes.io/") for k in labels}
        assert labels["helm.sh/chart"].startswith("kubelb-")
    assert daemonset["spec"]["selector"] == {"matchLabels": {"app.kubernetes.io/name": "kubelb"}}
    template = daemonset["spec"]["template"]["metadata"]
    assert template["labels"]["team"] == "net"
    assert template["annotations"]["example.org/team"] == 'net: "core"'


# --- what values do ----------------------------------------------------------


def test_configuration(helm):
    """The values arrive in kubelb.yaml, and a change of them in the pods; other changes do not
    restart them."""
    base = yaml.safe_load(read(os.path.join(KUSTOMIZE, "base", "kubelb.yaml")))
    config = configuration(render(helm, policy="random", config={"probe": {"interval": "9s"}}))
    assert config == {**base, "backends": BACKENDS, "policy": "random",
                      "probe": {**base["probe"], "interval": "9s"}}

    def stamp(**values):
        template = manifests.find(render(helm, **values), "DaemonSet")["spec"]["template"]
        return template["metadata"]["annotations"]["kubelb/config"]

    assert len({stamp(), stamp(policy="random"), stamp(backends=BACKENDS[:1]),
                stamp(http="127.0.0.1:9999")}) == 4
    assert stamp() == stamp(prometheusRule={"enabled": True}, resources={})


def test_configuration_is_good(stage, helm):
    """kubelb-load takes what the unusual values make; their addresses are of documentation."""
    values = {**UNUSUAL, "config": {"local": "only", "probe": {"ca": stage.ca}, "discovery": None}}
    path = os.path.join(stage.dir, "chart.yaml")
    with open(path, "w", encoding="utf-8") as f:
        f.write(manifests.find(manifests.render(helm, CHART, **values),
                               "ConfigMap")["data"]["kubelb.yaml"])
    shown = ok(stage.load("-n", "--force", config=path, strict=True)).stdout
    assert "[2001:db8::11]:6443" in shown and "192.168.17.12:7443" in shown, shown


@pytest.mark.parametrize("http, host", [
    ("127.0.0.1:8081", "127.0.0.1"), ("0.0.0.0:8081", "127.0.0.1"), ("[::]:8081", "::1"),
    ("[::1]:8081", "::1"), ("10.1.2.3:8081", "10.1.2.3"), ("[fd00::5]:8081", "fd00::5"),
    (["unix:/run/kubelb/agent.sock", "0.0.0.0:8081"], "127.0.0.1")])
def test_probes_ask_where_the_agent_listens(helm, http, host):
    objects = render(helm, http=http)
    assert configuration(objects)["http"] == http
    for probe, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert agent_of(objects)[probe]["httpGet"] == {"host": host, "port": 8081, "path": path}


def test_probes_at_a_socket(helm):
    agent = agent_of(render(helm, http="unix:/run/kubelb/agent.sock"))
    assert agent["livenessProbe"]["exec"]["command"] == ["kubelbctl", "ping"]
    assert agent["readinessProbe"]["exec"]["command"] == ["kubelbctl", "ping", "ready"]


def test_no_probes_without_http(helm):
    """Nobody could answer them, and the kubelet would end the agent again and again."""
    objects = render(helm, http="")
    assert not {"livenessProbe", "readinessProbe"} & set(agent_of(objects))
    assert configuration(objects)["http"] == ""


def test_image_and_secrets(helm):
    objects = render(helm, **UNUSUAL)
    spec = pod_spec(objects)
    images = {c["image"] for c in spec["initContainers"] + spec["containers"]}
    assert images == {f"registry.example.org:5000/kube/lb@{DIGEST}"}
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    tagged = pod_spec(render(helm, image={"repository": "r/kubelb", "tag": "1.2"}))
    assert {c["image"] for c in tagged["containers"]} == {"r/kubelb:1.2"}


def test_extra_volumes(helm):
    """In both containers, beside KubeLB's own."""
    spec = pod_spec(render(helm, **UNUSUAL))
    assert [v["name"] for v in spec["volumes"]] == ["config", "machine-id", "cgroup", "bpf",
                                                    "state", "run", "pki"]
    for c in spec["initContainers"] + spec["containers"]:
        assert UNUSUAL["extraVolumeMounts"][0] in c["volumeMounts"]


ROLES = ["control-plane", "master", "controlplane"]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_control_planes_are_left_out(helm, variant, role):
    """Unless they are included, or everything is taken off. Whatever the affinity allows: its
    terms are alternatives, and each has to leave them out."""
    plane = {f"node-role.kubernetes.io/{role}": ""}
    included = variant in ("detach", "overlays/control-planes")
    spec = pod_spec(render(helm, **VARIANTS[variant]))
    assert runs_on(spec, plane) == included and runs_on(spec, {})
    spec = pod_spec(render(helm, **VARIANTS[variant], affinity=node_affinity(ZONE, POOL)))
    for labels in ({"zone": "a"}, {"pool": "x"}):
        assert runs_on(spec, labels) and runs_on(spec, {**labels, **plane}) == included
    assert not runs_on(spec, {}) and not runs_on(spec, {"zone": "b"})


def test_other_affinity_stays(helm):
    """Beside what leaves the control planes out, nothing gets lost."""
    prefer = [{"weight": 1, "preference": {"matchExpressions": [POOL]}}]
    away = {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"a": "b"}}}]}
    found = pod_spec(render(helm, affinity={
        "podAntiAffinity": away,
        "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": prefer}}))["affinity"]
    assert found["podAntiAffinity"] == away
    assert found["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] == prefer
    assert runs_on({"nodeSelector": {}, "affinity": found}, {})
    assert "affinity" not in pod_spec(render(helm, controlPlanes=True))


# --- Prometheus and Grafana --------------------------------------------------


def test_pod_monitor(helm):
    """It finds the agents' pods and their port, and calls them by their nodes' names."""
    objects = render(helm, **UNUSUAL)
    monitor = manifests.find(objects, "PodMonitor")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    pod = manifests.find(objects, "DaemonSet")["spec"]["template"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert monitor["metadata"]["namespace"] == "kube-system"
    assert monitor["metadata"]["labels"]["release"] == "stack"
    assert agent_of(objects)["ports"] == [{"name": endpoint["port"], "containerPort": 9999,
                                           "protocol": "TCP"}]
    assert endpoint["relabelings"] == [{"sourceLabels": ["__meta_kubernetes_pod_node_name"],
                                        "targetLabel": "instance"}]
    assert "ports" not in agent_of(render(helm)), "a host's port that nobody else could use"


@pytest.mark.parametrize("http", ["127.0.0.1:8081", "127.1.1.1:8081", "[::1]:8081", "",
                                  "unix:/run/kubelb.sock", ["unix:/a", "127.0.0.1:8081"]])
def test_pod_monitor_that_could_reach_nobody(helm, http):
    with pytest.raises(manifests.HelmError, match="set http=0.0.0.0:8081"):
        render(helm, http=http, podMonitor={"enabled": True})


@needs_promtool
def test_prometheus_rule(helm, tmp_path):
    """The alerts, to the letter, with the address before each runbook_url."""
    spec = manifests.find(render(helm, prometheusRule={"enabled": True}), "PrometheusRule")["spec"]
    assert spec == yaml.safe_load(read(RULES))
    rule = manifests.find(render(helm, **UNUSUAL), "PrometheusRule")
    based = re.sub("runbook_url: ", "runbook_url: https://docs.example.org/kubelb/", read(RULES))
    assert rule["spec"] == yaml.safe_load(based)
    assert rule["metadata"]["labels"]["release"] == "stack"
    urls = [r["annotations"]["runbook_url"] for g in rule["spec"]["groups"] for r in g["rules"]
            if "alert" in r]
    assert all(re.fullmatch(r"https://docs\.example\.org/kubelb/docs/operations\.md#\w+", u)
               for u in urls) and len(urls) > 20
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(rule["spec"]))
    done = promtool("check", "rules", str(path))
    assert done.returncode == 0, done.stdout + done.stderr


def test_dashboard_for_the_sidecar(helm):
    objects = render(helm, dashboard={"enabled": True})
    board = manifests.find(objects, "ConfigMap", "kubelb-dashboard")
    assert json.loads(board["data"]["kubelb.json"]) == json.loads(read(DASHBOARD))
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"


# --- what is refused, and what is said ---------------------------------------


@pytest.mark.parametrize("backends", [None, []])
def test_without_apiservers(helm, backends):
    with pytest.raises(manifests.HelmError, match="name the apiservers"):
        render(helm, backends=backends)


@pytest.mark.parametrize("values, name", [
    ({"backend": BACKENDS}, "backend"),
    ({"httpPort": 8081}, "httpPort"),
    ({"backends": ["NAME-YOUR-APISERVERS-HERE"]}, "backends"),
    ({"backends": "192.168.17.11"}, "backends"),
    ({"backends": [{"adress": "192.168.17.11"}]}, "backends"),
    ({"backends": [{"address": "192.168.17.11", "weight": 1001}]}, "backends"),
    ({"policy": "round-robin"}, "policy"),
    ({"http": "8081"}, "http"), ({"http": "localhost"}, "http"), ({"http": 8081}, "http"),
    ({"config": {"policy": "random"}}, "policy"),
    ({"image": {"digest": "latest"}}, "digest"),
    ({"image": {"tags": "1"}}, "tags"),
    ({"imagePullSecrets": ["registry"]}, "imagePullSecrets"),
    ({"privileged": "false"}, "privileged"),
    ({"resources": {"memory": "1Gi"}}, "memory"),
    ({"affinity": {"nodeSelectorTerms": []}}, "nodeSelectorTerms"),
    ({"maxUnavailable": "ten"}, "maxUnavailable"), ({"maxUnavailable": 0}, "maxUnavailable"),
    ({"extraVolumes": [{"hostPath": {"path": "/x"}}]}, "extraVolumes"),
    ({"podMonitor": {"enabled": True, "interval": "fast"}}, "interval"),
    ({"prometheusRule": {"runbookBase": "docs"}}, "runbookBase"),
    ({"dashboard": {"enable": True}}, "enable"),
    ({"detach": "yes"}, "detach"),
], ids=str)
def test_bad_values(helm, values, name):
    """Refused by name, before anything is changed."""
    with pytest.raises(manifests.HelmError) as refused:
        render(helm, **values)
    _, schema, faults = str(refused.value).partition("specifications of the schema")
    assert schema and name in faults.replace("kubelb:", ""), refused.value


def leaves(values, path=""):
    """The paths of the values: image.tag. Not below those that are the user's own."""
    for key, value in values.items():
        where = f"{path}{key}"
        if isinstance(value, dict) and where.split(".")[-1] in ("image", "podMonitor",
                                                                "prometheusRule", "dashboard"):
            yield from leaves(value, f"{where}.")
        else:
            yield where


def test_every_value_is_used_and_explained():
    """In a template, in the schema and in the README's table; and the schema has no others."""
    (values,) = manifests.read_all(os.path.join(CHART, "values.yaml"))
    schema = json.loads(read(os.path.join(CHART, "values.schema.json")))
    folder = os.path.join(CHART, "templates")
    templates = "".join(read(os.path.join(folder, name)) for name in sorted(os.listdir(folder)))
    rows = re.findall(r"^\| (`.*?) \|", read(os.path.join(CHART, "README.md")), re.MULTILINE)
    named = set()
    for row in rows:
        names = re.findall(r"`([^`]+)`", row)
        named |= {n if not n.startswith(".") else names[0].partition(".")[0] + n for n in names}
    paths = set(leaves(values))
    assert named == paths
    assert set(schema["properties"]) - {"global"} == set(values)
    for path in paths:
        assert f".Values.{path}" in templates, path


def readmes_commands():
    """The three of the README, a line each."""
    section = read(os.path.join(ROOT, "README.md")).partition("\n### In three commands\n")[2]
    return section.split("```sh\n")[2].partition("```")[0].splitlines()


def test_readmes_installation(helm):
    """Helm takes it as it stands, and makes a DaemonSet of it whose name the next two have."""
    install, wait, look = readmes_commands()
    argv = shlex.split(install)
    assert argv[:4] == ["helm", "install", "kubelb", "deploy/helm/kubelb"]
    objects = list(yaml.safe_load_all(manifests.run_tool([helm, "template", "kubelb", CHART,
                                                          *argv[4:]])))
    daemonset = manifests.find(objects, "DaemonSet")
    assert daemonset["metadata"]["name"] == "kubelb"
    assert daemonset["metadata"]["namespace"] == argv[argv.index("-n") + 1] == "kube-system"
    assert wait == "kubectl -n kube-system rollout status daemonset/kubelb"
    assert look == f"kubectl -n kube-system exec daemonset/kubelb -c {agent_of(objects)['name']} " \
        "-- kubelbctl status"
    assert configuration(objects)["backends"] == BACKENDS


def test_notes(helm):
    """The next step; the apiservers, to be read once more; and how to get rid of it."""
    if manifests.run_tool([helm, "version", "--short"]).startswith("v3"):
        pytest.skip("helm 3 shows notes only where there is a cluster")
    shown = manifests.notes(helm, CHART, backends=[*BACKENDS, {"address": "10.0.0.9", "weight": 1}])
    for words in (*BACKENDS, "10.0.0.9", "kubectl -n kube-system rollout status daemonset/kubelb",
                  "exec daemonset/kubelb -c kubelb-agent -- kubelbctl status", "detach=true",
                  "podMonitor.enabled=true", "Control-plane nodes are left out"):
        assert words in shown, shown
    for command in readmes_commands()[1:]:
        assert f"\n  {command}\n" in shown, shown
    shown = manifests.notes(helm, CHART, **UNUSUAL)
    assert "podMonitor" not in shown
    shown = manifests.notes(helm, CHART, backends=BACKENDS, detach=True)
    assert "helm uninstall kubelb -n kube-system" in shown and "Next:" not in shown
    assert not re.search(r"<no value>|%!", shown)
