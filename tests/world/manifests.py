# SPDX-License-Identifier: BSD-2-Clause
"""Reads deploy/: a kustomization into its objects, as far as KubeLB's own use the language (it
refuses the rest), and a Helm chart by helm itself."""

import json
import os
import subprocess

import yaml

GENERATOR_KEYS = {"name", "namespace", "files", "options", "behavior"}
KUSTOMIZATION_KEYS = {"apiVersion", "kind", "resources", "configMapGenerator", "patches", "images"}


def read_all(path):
    """The objects of a YAML file."""
    with open(path, encoding="utf-8") as f:
        return [o for o in yaml.safe_load_all(f) if o]


def find(objects, kind, name="kubelb"):
    """The one object of that kind and name."""
    found = [o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} of {kind}/{name}"
    return found[0]


# --- kustomize ---------------------------------------------------------------


def kustomize(directory):
    """`kubectl kustomize DIRECTORY`, but without the hash after a ConfigMap's name."""
    (top,) = read_all(os.path.join(directory, "kustomization.yaml"))
    assert set(top) <= KUSTOMIZATION_KEYS, f"{directory}: {set(top) - KUSTOMIZATION_KEYS}"
    objects = []
    for name in top.get("resources", []):
        path = os.path.join(directory, name)
        objects += kustomize(path) if os.path.isdir(path) else read_all(path)
    for generator in top.get("configMapGenerator", []):
        generate(objects, directory, generator)
    for patch in top.get("patches", []):
        (operations,) = read_all(os.path.join(directory, patch["path"]))
        target = find(objects, **patch["target"])
        for operation in operations:
            json_patch(target, operation)
    for image in top.get("images", []):
        rename_image(objects, image)
    return objects


def generate(objects, directory, generator):
    assert set(generator) <= GENERATOR_KEYS, generator
    data = {}
    for name in generator["files"]:
        with open(os.path.join(directory, name), encoding="utf-8") as f:
            data[os.path.basename(name)] = f.read()
    if generator.get("behavior", "create") == "replace":
        find(objects, "ConfigMap", generator["name"])["data"] = data
        return
    metadata = {"name": generator["name"], "namespace": generator["namespace"],
                **generator.get("options", {})}
    objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


def json_patch(target, operation):
    """One operation of RFC 6902 on an object."""
    *way, last = operation["path"].lstrip("/").split("/")
    for step in way:
        target = target[int(step) if isinstance(target, list) else step]
    if isinstance(target, list):
        last = int(last)
    if operation["op"] == "remove":
        del target[last]
        return
    assert operation["op"] in ("add", "replace"), operation
    assert operation["op"] == "add" or isinstance(target, list) or last in target, operation
    target[last] = operation["value"]


def rename_image(objects, image):
    for o in objects:
        pod = o.get("spec", {}).get("template", {}).get("spec", {})
        for container in pod.get("initContainers", []) + pod.get("containers", []):
            if container["image"].rpartition(":")[0] == image["name"]:
                container["image"] = f"{image['newName']}:{image['newTag']}"


# --- helm --------------------------------------------------------------------


class HelmError(Exception):
    """What helm has refused, in its words."""


def run_tool(argv, stdin=""):
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=60,
                          check=False)
    if done.returncode:
        raise HelmError(done.stderr + done.stdout)
    return done.stdout


def run_helm(helm, command, chart, values, *args):
    """`helm COMMAND kubelb CHART -n kube-system`; returns what it prints."""
    return run_tool([helm, command, "kubelb", chart, "--namespace", "kube-system", "--values", "-",
                     *args], json.dumps(values))


def render(helm, chart, **values):
    """The objects that the chart makes of these values."""
    return [o for o in yaml.safe_load_all(run_helm(helm, "template", chart, values)) if o]


def notes(helm, chart, **values):
    """What helm prints after an installation."""
    shown = run_helm(helm, "install", chart, values, "--dry-run=client")
    return shown.partition("\nNOTES:\n")[2]
