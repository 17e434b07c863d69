# SPDX-License-Identifier: BSD-2-Clause
"""Reads deploy/: a kustomization into its objects, as far as KubeLB's own use the
language, and a Helm chart's templates. Both refuse what they do not know."""

import glob
import hashlib
import json
import os
import re

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

ACTION = re.compile(r"\{\{(-?)\s*(.*?)\s*(-?)\}\}", re.DOTALL)
TERM = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s|]+|\|')


class HelmError(Exception):
    """The chart's own refusal: {{ fail }}."""


def merged(values, changes):
    """values with changes on top, mappings merged, as helm does with --set."""
    out = dict(values)
    for key, value in changes.items():
        out[key] = merged(out[key], value) if isinstance(value, dict) else value
    return out


def to_yaml(value):
    if not isinstance(value, (dict, list)):
        return "null" if value is None else str(value)
    return yaml.safe_dump(value, default_flow_style=False).rstrip("\n")


def indented(count, text):
    return "\n".join(" " * count + line for line in str(text).split("\n"))


def fail(text):
    raise HelmError(text)


# As helm's own of these names: a pipe's value comes as the last argument.
FUNCTIONS = {
    "toYaml": to_yaml,
    "nindent": lambda count, text: "\n" + indented(count, text),
    "quote": json.dumps,
    "default": lambda otherwise, value: value or otherwise,
    "not": lambda value: not value,
    "sha256sum": lambda text: hashlib.sha256(text.encode()).hexdigest(),
    "fail": fail,
}


class Template:
    """A Go template, as far as the chart uses the language: values, pipes, if."""

    def __init__(self, text, context):
        self.context = context
        self.out = []
        self.parts = list(self.split(text))
        self.parts.reverse()
        self.block(True)

    @staticmethod
    def split(text):
        """Texts as strings, and the actions between them as 1-tuples."""
        at, cut_after = 0, False
        for match in ACTION.finditer(text):
            cut_before, action, cut = match.groups()
            yield Template.trimmed(text[at:match.start()], cut_after, cut_before)
            yield (action,)
            at, cut_after = match.end(), cut
        yield Template.trimmed(text[at:], cut_after, False)

    @staticmethod
    def trimmed(text, front, back):
        text = text.lstrip() if front else text
        return text.rstrip() if back else text

    def block(self, active):
        """Up to the end, or an {{ else }} or {{ end }}, which it returns."""
        while self.parts:
            part = self.parts.pop()
            if isinstance(part, str):
                if active:
                    self.out.append(part)
                continue
            (action,) = part
            if action in ("else", "end"):
                return action
            if action.startswith("if "):
                self.condition(action[3:], active)
            elif active:
                self.out.append(str(self.value(action)))
        return None

    def condition(self, expression, active):
        holds = bool(self.value(expression)) if active else False
        if self.block(active and holds) == "else":
            self.block(active and not holds)

    def value(self, expression):
        value, call = None, []
        for term in [*TERM.findall(expression), "|"]:
            if term != "|":
                call.append(term)
                continue
            piped = [] if value is None else [value]
            value = self.call(call, piped)
            call = []
        return value

    def call(self, terms, piped):
        head, *rest = terms
        if head in FUNCTIONS:
            return FUNCTIONS[head](*[self.term(t) for t in rest], *piped)
        assert not rest and not piped, terms
        return self.term(head)

    def term(self, term):
        if term.startswith('"'):
            return json.loads(term)
        if term.isdigit():
            return int(term)
        assert term.startswith("."), f"{term}: not known here"
        value = self.context
        for name in term[1:].split("."):
            value = value[name]
        return value


def render(text, context):
    return "".join(Template(text, context).out)


def helm(directory, **changes):
    """`helm template kubelb DIRECTORY -n kube-system` with values; NOTES.txt must
    render, too."""
    (chart,) = read_all(os.path.join(directory, "Chart.yaml"))
    (values,) = read_all(os.path.join(directory, "values.yaml"))
    context = {"Values": merged(values, changes), "Chart": {"AppVersion": chart["appVersion"]},
               "Release": {"Namespace": "kube-system", "Name": "kubelb"}}
    objects = []
    for path in sorted(glob.glob(os.path.join(directory, "templates", "*"))):
        with open(path, encoding="utf-8") as f:
            text = render(f.read(), context)
        if path.endswith(".yaml"):
            objects += [o for o in yaml.safe_load_all(text) if o]
    return objects
