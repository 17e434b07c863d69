# SPDX-License-Identifier: BSD-2-Clause
"""The part of Kubernetes' object schema that KubeLB's manifests use: which fields there
are, of what type, and which are required. An unknown field is an error, as it is for
kubectl; that is where most mistakes show.

A type is a Python type, a Need of one (required), [type] for lists, {name: type} for
objects, {str: type} for maps, or a function that judges a value.
"""

import re

QUANTITY = re.compile(r"\d+(\.\d+)?(m|[KMGT]i?)?")
NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


class Need:
    """A required field."""

    def __init__(self, kind):
        self.kind = kind


def matches(pattern):
    return lambda value: isinstance(value, str) and bool(pattern.fullmatch(value))


def one_of(*values):
    return lambda value: value in values


def int_or_percent(value):
    return isinstance(value, int) or bool(re.fullmatch(r"\d+%", str(value)))


NAMED = matches(NAME)
AMOUNTS = {str: matches(QUANTITY)}
METADATA = {"name": Need(NAMED), "namespace": Need(NAMED), "labels": {str: str},
            "annotations": {str: str}}
PROFILE = {"type": Need(one_of("Unconfined", "RuntimeDefault", "Localhost"))}
SECURITY = {"privileged": bool, "readOnlyRootFilesystem": bool, "allowPrivilegeEscalation": bool,
            "capabilities": {"add": [str], "drop": [str]}}
PROBE = {"httpGet": {"host": str, "port": Need(int), "path": str}, "exec": {"command": Need([str])},
         "periodSeconds": int, "timeoutSeconds": int, "failureThreshold": int}
CONTAINER = {
    "name": Need(NAMED), "image": Need(str), "command": [str], "args": [str],
    "imagePullPolicy": one_of("Always", "IfNotPresent", "Never"), "securityContext": Need(SECURITY),
    "resources": Need({"requests": AMOUNTS, "limits": AMOUNTS}),
    "livenessProbe": PROBE, "readinessProbe": PROBE,
    "ports": [{"name": Need(NAMED), "containerPort": Need(int), "protocol": one_of("TCP")}],
    "volumeMounts": [{"name": Need(NAMED), "mountPath": Need(str), "readOnly": bool,
                      "mountPropagation": one_of("None", "HostToContainer", "Bidirectional")}],
}
VOLUME = {"name": Need(NAMED), "configMap": {"name": Need(NAMED)},
          "hostPath": {"path": Need(str), "type": Need(one_of("File", "Directory",
                                                              "DirectoryOrCreate"))}}
AFFINITY = {"nodeAffinity": Need({"requiredDuringSchedulingIgnoredDuringExecution": Need({
    "nodeSelectorTerms": Need([{"matchExpressions": Need([{
        "key": Need(str), "operator": Need(one_of("In", "NotIn", "Exists", "DoesNotExist")),
        "values": [str]}])}])})})}
POD = {
    "serviceAccountName": NAMED, "hostNetwork": bool,
    "dnsPolicy": one_of("Default", "ClusterFirst", "ClusterFirstWithHostNet"),
    "priorityClassName": str, "terminationGracePeriodSeconds": int, "nodeSelector": {str: str},
    "affinity": AFFINITY,
    "tolerations": [{"operator": one_of("Exists", "Equal"), "key": str, "effect": str}],
    "imagePullSecrets": [{"name": Need(NAMED)}],
    "securityContext": {"appArmorProfile": PROFILE, "seccompProfile": PROFILE,
                        "seLinuxOptions": {"type": str, "level": str}},
    "initContainers": [CONTAINER], "containers": Need([CONTAINER]), "volumes": [VOLUME],
}
KINDS = {
    # monitoring.coreos.com: as far as the chart uses the operator's API.
    ("monitoring.coreos.com/v1", "PodMonitor"): {"spec": Need({
        "selector": Need({"matchLabels": Need({str: str})}),
        "podMetricsEndpoints": Need([{
            "port": Need(NAMED), "path": str, "interval": str,
            "relabelings": [{"sourceLabels": Need([str]), "targetLabel": Need(str)}]}])})},
    ("monitoring.coreos.com/v1", "PrometheusRule"): {"spec": Need({"groups": Need([{
        "name": Need(str), "rules": Need([{
            "record": str, "alert": str, "expr": Need(str), "for": str, "labels": {str: str},
            "annotations": {str: str}}])}])})},
    ("v1", "ServiceAccount"): {},
    ("v1", "ConfigMap"): {"data": Need({str: str})},
    ("v1", "Pod"): {"spec": Need(POD)},
    ("rbac.authorization.k8s.io/v1", "Role"): {
        "rules": Need([{"apiGroups": Need([str]), "resources": Need([str]),
                        "verbs": Need([str])}])},
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): {
        "roleRef": Need({"apiGroup": Need(str), "kind": Need(str), "name": Need(NAMED)}),
        "subjects": Need([{"kind": Need(str), "name": Need(NAMED), "namespace": Need(NAMED)}])},
    ("apps/v1", "DaemonSet"): {"spec": Need({
        "selector": Need({"matchLabels": Need({str: str})}),
        "updateStrategy": {"type": one_of("RollingUpdate", "OnDelete"),
                           "rollingUpdate": {"maxUnavailable": int_or_percent}},
        "template": Need({"metadata": Need({"labels": Need({str: str}), "annotations": {str: str}}),
                          "spec": Need(POD)})})},
}


def check(value, kind, where):
    """AssertionError with the field's path when the value is not of that kind."""
    kind = kind.kind if isinstance(kind, Need) else kind
    if isinstance(kind, list):
        assert isinstance(value, list) and value, f"{where}: want a list, not {value!r}"
        for i, item in enumerate(value):
            check(item, kind[0], f"{where}[{i}]")
    elif isinstance(kind, dict):
        assert isinstance(value, dict) and value, f"{where}: want a mapping, not {value!r}"
        check_mapping(value, kind, where)
    elif isinstance(kind, type):
        assert type(value) is kind, f"{where}: want {kind.__name__}, not {value!r}"
    else:
        assert kind(value), f"{where}: {value!r}"


def check_mapping(value, kind, where):
    if str in kind:
        kind = {name: kind[str] for name in value}
    for name, field in value.items():
        assert name in kind, f"{where}.{name}: no such field"
        check(field, kind[name], f"{where}.{name}")
    for name, field in kind.items():
        assert not isinstance(field, Need) or name in value, f"{where}.{name}: missing"


def check_object(o):
    """One object of a manifest."""
    key = (o.get("apiVersion"), o.get("kind"))
    assert key in KINDS, key
    kind = {"apiVersion": Need(str), "kind": Need(str), "metadata": Need(METADATA), **KINDS[key]}
    check(o, kind, f"{o['kind']}")
    if o["kind"] == "DaemonSet":
        labels = o["spec"]["template"]["metadata"]["labels"]
        assert o["spec"]["selector"]["matchLabels"].items() <= labels.items()
        check_pod(o["spec"]["template"]["spec"])
    elif o["kind"] == "Pod":
        check_pod(o["spec"])


def check_pod(pod):
    """What the apiserver asks beyond single fields (kubernetes, pkg/apis/core/validation)."""
    volumes = [v["name"] for v in pod["volumes"]]
    assert len(volumes) == len(set(volumes)), volumes
    assert all(("configMap" in v) != ("hostPath" in v) for v in pod["volumes"])
    containers = pod.get("initContainers", []) + pod["containers"]
    assert len({c["name"] for c in containers}) == len(containers)
    for c in containers:
        context = c["securityContext"]
        mounts = c.get("volumeMounts", [])
        assert len({m["mountPath"] for m in mounts}) == len(mounts)
        for m in mounts:
            assert m["name"] in volumes, m
            assert m.get("mountPropagation") != "Bidirectional" or context.get("privileged"), m
        if context.get("allowPrivilegeEscalation") is False:
            assert not context.get("privileged"), "the apiserver refuses both together"
            assert "SYS_ADMIN" not in context["capabilities"].get("add", []), "and these"


def matches_node(expression, labels):
    value, wanted = labels.get(expression["key"]), expression.get("values", [])
    return {"Exists": value is not None, "DoesNotExist": value is None, "In": value in wanted,
            "NotIn": value not in wanted}[expression["operator"]]


def runs_on(spec, labels):
    """Whether the scheduler puts the pod on a node with these labels."""
    labels = {"kubernetes.io/os": "linux", **labels}
    if not spec["nodeSelector"].items() <= labels.items():
        return False
    required = spec.get("affinity", {}).get("nodeAffinity", {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution")
    return not required or any(all(matches_node(e, labels) for e in term["matchExpressions"])
                               for term in required["nodeSelectorTerms"])
