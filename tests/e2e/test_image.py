# SPDX-License-Identifier: BSD-2-Clause
"""The image and its manifests: read as objects, and run as containers on the world's
node by runc, with the mounts and the privileges that the manifests give them."""

import copy
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile

import pytest

from hardening import weaknesses
from helpers import (Held, Traffic, agent_serves, dump, fails, http_call, ok, pins, served_by,
                     served_set, stats, wait_states)
from kube_tools import kube_tool
from system import run_checked, wait_until
from test_privileges import ALWAYS, sets_of
from world import ROOT

yaml = pytest.importorskip("yaml", reason="python3-yaml is not installed (scripts/deps.sh)")

import manifests  # noqa: E402  (needs yaml)
from container import Pod, quantity  # noqa: E402
from manifest_schema import check_object, runs_on  # noqa: E402

DEPLOY = os.path.join(ROOT, "deploy")
KUSTOMIZE = os.path.join(DEPLOY, "kustomize")
VARIANTS = ["base", "overlays/capabilities", "detach", "overlays/control-planes"]
RUNNING = ["base", "overlays/capabilities"]
IMAGE_BYTES_MAX = 25 * 2**20
MACHINE_ID = "/etc/machine-id"
# A time for images, and how their labels write it.
TIME, TIME_TEXT = "1700000000", "2023-11-14T22:13:20Z"

needs_runc = pytest.mark.skipif(not shutil.which("runc"),
                                reason="runc is not installed (scripts/deps.sh)")


def kustomize(variant):
    return manifests.kustomize(os.path.join(KUSTOMIZE, variant))


def pod_spec(objects):
    return manifests.find(objects, "DaemonSet")["spec"]["template"]["spec"]


def static_pod():
    (pod,) = manifests.read_all(os.path.join(DEPLOY, "static-pod", "kubelb.yaml"))
    return pod


def make_root(build, directory):
    """The image's files from a build."""
    run_checked([os.path.join(ROOT, "scripts", "image-root.sh"), build, directory])
    return directory


@pytest.fixture(scope="module", name="image")
def image_fixture(world):
    """The image of this version, its files in a folder."""
    return make_root(world.build, os.path.join(world.dir, "image"))


@pytest.fixture(scope="module", name="next_image")
def next_image_fixture(world):
    """The image of the next version (`make abi-next`)."""
    build = os.path.join(world.build, "abi-next")
    if not os.access(os.path.join(build, "kubelb-load"), os.X_OK):
        pytest.skip(f"{build} is not built (make abi-next)")
    return make_root(build, os.path.join(world.dir, "image-next"))


# --- the image ---------------------------------------------------------------


def files_of(root):
    return sorted(os.path.relpath(os.path.join(d, f), root)
                  for d, _dirs, files in os.walk(root) for f in files)


def test_image_holds_what_runs_and_no_more(image):
    """Small; three programs, what they load, licences; each library has one that loads it."""
    assert sum(os.path.getsize(os.path.join(image, f)) for f in files_of(image)) < IMAGE_BYTES_MAX
    files = [f for f in files_of(image) if not f.startswith("usr/share/doc/")]
    programs = [f for f in files if f.startswith("usr/sbin/")]
    assert [os.path.basename(p) for p in programs] == ["kubelb-agent", "kubelb-load", "kubelbctl"]
    wanted = set()
    for f in files:
        if f == "etc/machine-id":  # where the host's is mounted
            continue
        shown = run_checked(["readelf", "-dlW", os.path.join(image, f)])
        wanted |= set(re.findall(r"\(NEEDED\).*\[(.*)\]", shown))
        wanted |= {os.path.basename(p) for p in re.findall(r"interpreter: (.*)\]", shown)}
    libraries = {os.path.basename(f) for f in files if f not in programs} - {"machine-id"}
    assert libraries == wanted
    for p in programs:
        assert ".symtab" not in run_checked(["readelf", "-SW", os.path.join(image, p)]), p


def test_programs_are_hardened(image):
    for name in ("kubelb-load", "kubelb-agent", "kubelbctl"):
        assert weaknesses(os.path.join(image, "usr/sbin", name)) == [], name


def archive(root, path, tool="none"):
    done = subprocess.run([os.path.join(ROOT, "scripts", "image.sh"), root, path, "9.9.9"],
                          capture_output=True, text=True, check=False,
                          env={**os.environ, "KUBELB_IMAGE_TOOL": tool, "SOURCE_DATE_EPOCH": TIME,
                               "SOURCE_URL": "https://example.org/kubelb"})
    ok(done)
    with open(path, "rb") as f:
        return f.read()


def read_archives(data):
    """{architecture: (configuration, {name: member})} of an OCI archive, every digest checked."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        files = {m.name: tar.extractfile(m).read() for m in tar.getmembers() if m.isfile()}
    for name, content in files.items():
        if name.startswith("blobs/sha256/"):
            assert hashlib.sha256(content).hexdigest() == os.path.basename(name)

    def blob(descriptor):
        content = files["blobs/" + descriptor["digest"].replace(":", "/")]
        assert len(content) == descriptor["size"]
        return content

    (entry,) = json.loads(files["index.json"])["manifests"]
    several = entry["mediaType"].endswith(".index.v1+json")
    found = {}
    for platform in json.loads(blob(entry))["manifests"] if several else [entry]:
        manifest = json.loads(blob(platform))
        config = json.loads(blob(manifest["config"]))
        (packed,) = manifest["layers"]
        with tarfile.open(fileobj=io.BytesIO(blob(packed)), mode="r:gz") as layer:
            found[config["architecture"]] = config, {
                m.name: (m, layer.extractfile(m).read() if m.isfile() else b"") for m in layer.getmembers()}
        assert not several or platform["platform"] == {"os": "linux", "architecture": config["architecture"]}
    return found


def read_archive(data):
    """The same of an archive with this machine's architecture alone."""
    ((architecture, found),) = read_archives(data).items()
    assert architecture == {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    return found


def check_labels(config):
    """What a registry shows, and scanners read; and the image's own time."""
    commit = run_checked(["bash", "-c", f"cd {ROOT} && . scripts/source.sh && source_commit"])
    labels = {k.removeprefix("org.opencontainers.image."): v
              for k, v in config["config"]["Labels"].items() if "opencontainers" in k}
    assert labels.pop("description")
    assert labels == {"title": "KubeLB", "version": "9.9.9", "revision": commit.strip(),
                      "created": TIME_TEXT, "source": "https://example.org/kubelb",
                      "licenses": "BSD-2-Clause AND (GPL-2.0-only OR BSD-2-Clause)"}
    assert re.sub(r"\.0+Z", "Z", config["created"]) == TIME_TEXT


def test_archive_is_the_folder(image, world):
    """The archive of scripts/image-oci.py holds the folder's files, as root's, with the
    Dockerfile's entry point; the same bytes each time, from another folder too."""
    first = archive(image, os.path.join(world.dir, "one.tar"))
    again = make_root(world.build, os.path.join(world.dir, "image-again"))
    assert archive(again, os.path.join(world.dir, "two.tar")) == first
    config, members = read_archive(first)
    assert config["config"]["Entrypoint"] == ["/usr/sbin/kubelb-agent"]
    check_labels(config)
    assert [n for n, (m, _) in sorted(members.items()) if m.isfile()] == files_of(image)
    for name, (member, content) in members.items():
        assert (member.uid, member.gid) == (0, 0) and not member.mode & 0o6022, name
        if member.isfile():
            with open(os.path.join(image, name), "rb") as f:
                assert f.read() == content, name


def of_another_machine(image, directory):
    """A copy whose programs say, in their header, that they are for the other architecture."""
    shutil.copytree(image, directory)
    for name in ("kubelb-load", "kubelb-agent", "kubelbctl"):
        with open(os.path.join(directory, "usr/sbin", name), "r+b") as f:
            f.seek(18)
            (machine,) = f.read(1)
            f.seek(18)
            f.write(bytes([{62: 183, 183: 62}[machine]]))
    return directory


def test_archive_of_two_architectures(image, world):
    """One name, an image for each architecture, and each has its own files."""
    other = of_another_machine(image, os.path.join(world.dir, "image-other"))
    path = os.path.join(world.dir, "both.tar")
    images = read_archives(archive(f"{image}:{other}", path))
    assert sorted(images) == ["amd64", "arm64"]
    for config, members in images.values():
        check_labels(config)
        machine = members["usr/sbin/kubelb-agent"][1][18]
        assert {62: "amd64", 183: "arm64"}[machine] == config["architecture"]
    done = subprocess.run([os.path.join(ROOT, "scripts", "image.sh"), f"{image}:{image}", path, "1"],
                          capture_output=True, text=True, check=False)
    fails(done, 1, "one folder for each architecture")


def test_libraries_are_those_that_the_loader_takes(image, world):
    """For another architecture nobody can ask the loader: what is read from the files is the same."""
    programs = " ".join(os.path.join(world.build, p) for p in ("kubelb-load", "kubelb-agent", "kubelbctl"))
    read = run_checked(["bash", "-c", f'. {ROOT}/scripts/elf.sh && elf_libraries "" {programs}']).split()
    assert len(read) > 5
    assert {p[1:] for p in read} == {f for f in files_of(image) if os.path.basename(f).startswith("lib")}


@pytest.mark.parametrize("tool", ["buildah", "podman"])
def test_archive_of_another_tool(image, world, tool):
    """The tools that people build images with make the same image of the Dockerfile."""
    path = shutil.which(tool)
    if not path:
        pytest.skip(f"no {tool} on this machine")
    config, members = read_archive(archive(image, os.path.join(world.dir, f"{tool}.tar"), path))
    assert config["config"]["Entrypoint"] == ["/usr/sbin/kubelb-agent"]
    check_labels(config)
    assert config["config"]["Env"] == ["PATH=/usr/sbin"]
    assert sorted(n for n, (m, _) in members.items() if m.isfile()) == files_of(image)


# Of SPDX 2.3: what a document, a package and a file have to have.
SPDX_FIELDS = {
    "document": {"spdxVersion", "dataLicense", "SPDXID", "name", "documentNamespace", "creationInfo"},
    "packages": {"SPDXID", "name", "downloadLocation", "filesAnalyzed", "licenseConcluded",
                 "licenseDeclared", "copyrightText"},
    "files": {"SPDXID", "fileName", "checksums", "licenseConcluded", "copyrightText"}}


def check_spdx(bill):
    """The fields that SPDX 2.3 wants, its forms, and no reference that leads nowhere."""
    assert SPDX_FIELDS["document"] <= set(bill)
    assert (bill["spdxVersion"], bill["dataLicense"]) == ("SPDX-2.3", "CC0-1.0")
    assert re.fullmatch(r"https://\S+[^#/]", bill["documentNamespace"])
    assert all(re.match("(Tool|Organization|Person): .", c) for c in bill["creationInfo"]["creators"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", bill["creationInfo"]["created"])
    ids = [bill["SPDXID"]]
    for kind in ("packages", "files"):
        for entry in bill[kind]:
            assert SPDX_FIELDS[kind] <= set(entry), entry
            assert not [k for k, v in entry.items() if v in (None, "", [], {})], entry
            assert re.fullmatch(r"SPDXRef-[A-Za-z0-9.-]+", entry["SPDXID"])
            ids.append(entry["SPDXID"])
    assert len(ids) == len(set(ids))
    for r in bill["relationships"]:
        assert {r["spdxElementId"], r["relatedSpdxElement"]} <= set(ids), r
    assert [r["relatedSpdxElement"] for r in bill["relationships"]
            if r["relationshipType"] == "DESCRIBES"] == ["SPDXRef-image"]


def related(bill, one, how):
    return {r["relatedSpdxElement"] for r in bill["relationships"]
            if (r["spdxElementId"], r["relationshipType"]) == (one, how)}


def read_bill(root):
    with open(os.path.join(root, "usr/share/doc/kubelb/kubelb.spdx.json"), encoding="utf-8") as f:
        return json.load(f)


def test_bill_of_materials_has_every_file(image):
    """The image's own SBOM: valid, every file with its sums, each in one package."""
    bill = read_bill(image)
    check_spdx(bill)
    assert {f["fileName"] for f in bill["files"]} == \
        {"./" + f for f in files_of(image) if not f.endswith("kubelb.spdx.json")}
    for entry in bill["files"]:
        with open(os.path.join(image, entry["fileName"]), "rb") as f:
            content = f.read()
        assert {c["algorithm"]: c["checksumValue"] for c in entry["checksums"]} == \
            {k.upper(): hashlib.new(k, content).hexdigest() for k in ("sha1", "sha256")}
        owners = {r["spdxElementId"] for r in bill["relationships"]
                  if r["relatedSpdxElement"] == entry["SPDXID"]}
        assert len(owners) == 1, entry["fileName"]
    (ours,) = [p for p in bill["packages"] if p["name"] == "kubelb"]
    sums = [f["checksums"][0]["checksumValue"] for f in bill["files"]
            if f["SPDXID"] in related(bill, ours["SPDXID"], "CONTAINS")]
    assert ours["packageVerificationCode"]["packageVerificationCodeValue"] == \
        hashlib.sha1("".join(sorted(sums)).encode()).hexdigest()


def installed(path):
    """(package, version) of a file, as dpkg has it on this machine."""
    real = os.path.realpath(path)
    for name in (path, real, real.removeprefix("/usr"), "/usr" + path):
        done = subprocess.run(["dpkg-query", "-S", name], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            package = done.stdout.split(": ")[0]
            said = run_checked(["dpkg-query", "-W", "-f", "${Package} ${Version}", package])
            return tuple(said.split())
    raise AssertionError(f"no package has {path}")


@pytest.mark.skipif(not shutil.which("dpkg-query"), reason="not a Debian: no packages to compare with")
def test_bill_of_materials_names_the_packages(image, world):
    """Each library under the package and version that dpkg-query says, and no other package
    but those whose objects are linked in; scanners find them by their purl."""
    bill = read_bill(image)
    at = {p["SPDXID"]: p for p in bill["packages"]}
    libraries = [f for f in files_of(image) if not f.startswith(("usr/s", "etc/"))]
    want = {installed("/" + f) for f in libraries}
    got = {(at[i]["name"], at[i]["versionInfo"])
           for i in related(bill, "SPDXRef-image", "CONTAINS") - {"SPDXRef-kubelb"} if i in at}
    assert got == want and len(want) > 5
    static = {at[i]["name"]: at[i]["versionInfo"]
              for i in related(bill, "SPDXRef-kubelb", "STATIC_LINK")}
    start = run_checked(["gcc", "-print-file-name=Scrt1.o"]).strip()
    libgcc = run_checked(["gcc", "-print-libgcc-file-name"]).strip()
    for path in (start, libgcc, "/usr/include/bpf/bpf_helpers.h"):
        name, version = installed(os.path.realpath(path))
        assert static.pop(name) == version
    assert not static
    for p in bill["packages"]:
        (locator,) = [r["referenceLocator"] for r in p.get("externalRefs", [])] or [None]
        if p["SPDXID"].startswith("SPDXRef-deb-"):
            assert locator.startswith(f"pkg:deb/debian/{p['name']}@") and "arch=" in locator
    version = run_checked([os.path.join(world.build, "kubelb-agent"), "--version"])
    assert at["SPDXRef-kubelb"]["versionInfo"] == version.split()[1]
    assert at["SPDXRef-kubelb"]["sourceInfo"].split()[-1] in version


def test_bill_of_materials_needs_a_build(image, tmp_path):
    """Without the linker's maps nobody knows what is in the programs: no bill then."""
    done = subprocess.run([os.path.join(ROOT, "scripts", "sbom.py"), image, str(tmp_path), "1"],
                          capture_output=True, text=True, check=False)
    fails(done, 1, "kubelb-load.map", "run make")
    assert done.stdout == ""


def test_dockerfile_that_is_not_understood(image, world):
    """What the script does not know, it refuses: no image of half a Dockerfile."""
    path = os.path.join(world.dir, "Dockerfile")
    with open(path, "w", encoding="ascii") as f:
        f.write("FROM scratch\nCOPY . /\nRUN true\n")
    done = subprocess.run([sys.executable, os.path.join(ROOT, "scripts", "image-oci.py"), path,
                           image, os.path.join(world.dir, "no.tar")], capture_output=True,
                          text=True, check=False)
    fails(done, 1, "RUN true", "buildah")
    assert not os.path.exists(os.path.join(world.dir, "no.tar"))


# --- the manifests -----------------------------------------------------------


def every_object():
    for variant in VARIANTS:
        yield from kustomize(variant)
    yield static_pod()


def test_objects_follow_the_schema():
    """Every field exists, has its type, and is there when it has to be."""
    count = 0
    for o in every_object():
        check_object(o)
        count += 1
    assert count == 21


def test_version_is_the_projects():
    """The manifests name the image of this very version."""
    with open(os.path.join(ROOT, "Makefile"), encoding="utf-8") as f:
        version = re.search(r"^VERSION := (\S+)", f.read(), re.MULTILINE).group(1)
    with open(os.path.join(DEPLOY, "Dockerfile"), encoding="utf-8") as f:
        assert f"ARG VERSION={version}\n" in f.read()
    for spec in (pod_spec(kustomize("base")), static_pod()["spec"]):
        assert {c["image"] for c in spec["initContainers"] + spec["containers"]} == \
            {f"kubelb:{version}"}


def test_pod_runs_everywhere_and_never_detaches():
    """On every worker, of the host, before others; an update waits for nothing."""
    spec = pod_spec(kustomize("base"))
    assert spec["hostNetwork"] and spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["priorityClassName"] == "system-node-critical"
    # What is relayed gets relay.drain, by default 10 s; nothing else waits.
    assert 10 < spec["terminationGracePeriodSeconds"] <= 20
    assert "--detach" not in json.dumps(spec) and "lifecycle" not in json.dumps(spec)


@pytest.mark.parametrize("role", ["control-plane", "master", "controlplane"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_control_planes_are_left_out(variant, role):
    """Unless they are included, or everything is taken off."""
    included = variant in ("detach", "overlays/control-planes")
    spec = pod_spec(kustomize(variant))
    for value in ("", "true"):
        assert runs_on(spec, {f"node-role.kubernetes.io/{role}": value}) == included
    assert runs_on(spec, {}) and runs_on(spec, {"node-role.kubernetes.io/worker": "true"})


def test_role_is_for_one_namespace_and_reads():
    """The service account may read EndpointSlices of `default`, and nothing else."""
    objects = kustomize("base")
    assert not [o for o in objects if o["kind"].startswith("Cluster")]
    role, binding = (manifests.find(objects, k) for k in ("Role", "RoleBinding"))
    assert role["rules"] == [{"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"],
                              "verbs": ["get", "list", "watch"]}]
    account = manifests.find(objects, "ServiceAccount")["metadata"]
    assert {role["metadata"]["namespace"], binding["metadata"]["namespace"]} == {"default"}
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account["name"],
                                    "namespace": account["namespace"]}]
    assert pod_spec(objects)["serviceAccountName"] == account["name"]


def test_probes_ask_where_the_agent_listens():
    objects = kustomize("base")
    config = yaml.safe_load(manifests.find(objects, "ConfigMap")["data"]["kubelb.yaml"])
    (agent,) = pod_spec(objects)["containers"]
    for probe in ("livenessProbe", "readinessProbe"):
        get = agent[probe]["httpGet"]
        assert f"{get['host']}:{get['port']}" == config["http"]


def test_static_pod_is_the_daemonsets():
    """The same containers, but for the mounts of what a static pod cannot have."""
    base, static = pod_spec(kustomize("base")), static_pod()["spec"]
    for kind in ("initContainers", "containers"):
        ((a, b),) = zip(base[kind], static[kind])
        assert {k: v for k, v in a.items() if k != "volumeMounts"} == \
            {k: v for k, v in b.items() if k != "volumeMounts"}
        extra = [m for m in b["volumeMounts"] if m not in a["volumeMounts"]]
        assert [m for m in a["volumeMounts"] if m not in b["volumeMounts"]] == []
        assert {m["name"] for m in extra} == {"kubernetes", "kubelet-pki"}
        assert all(m["readOnly"] for m in extra)
    assert "serviceAccountName" not in static
    for key in ("hostNetwork", "priorityClassName", "tolerations", "dnsPolicy",
                "terminationGracePeriodSeconds"):
        assert base[key] == static[key]


def without_hash(text):
    return re.sub(r"\bkubelb-[a-z0-9]{10}\b", "kubelb", text)


@pytest.mark.parametrize("variant", VARIANTS)
def test_kubectl_reads_the_same(variant):
    """Kustomize's own idea of the kustomizations."""
    done = subprocess.run([kube_tool("kubectl"), "kustomize", os.path.join(KUSTOMIZE, variant)],
                          capture_output=True, text=True, check=False)
    ok(done)
    theirs = {(o["kind"], o["metadata"]["namespace"], o["metadata"]["name"]): o
              for o in yaml.safe_load_all(without_hash(done.stdout))}
    ours = {(o["kind"], o["metadata"]["namespace"], o["metadata"]["name"]): o
            for o in kustomize(variant)}
    assert theirs == ours


# --- running -----------------------------------------------------------------


def config_map(stage, objects, **changes):
    """The manifest's own configuration with the world's apiservers in it."""
    text = manifests.find(objects, "ConfigMap")["data"]["kubelb.yaml"]
    config = {**yaml.safe_load(text), "backends": [b.endpoint for b in stage.backends], **changes}
    config["probe"].update(interval="200ms", timeout="400ms")
    return {"kubelb": {"kubelb.yaml": yaml.safe_dump(config)}}


@pytest.fixture(name="pod_of")
def pod_of_fixture(stage, image):
    """Makes the pod of a manifest, with the world's apiservers or other ConfigMaps."""
    pods = []

    def make(variant="base", maps=None, spec=None, root=None, settings=None, **instead):
        objects = kustomize(variant)
        if settings:
            maps = config_map(stage, objects)
            config = yaml.safe_load(maps["kubelb"]["kubelb.yaml"])
            maps["kubelb"]["kubelb.yaml"] = yaml.safe_dump({**config, **settings})
        state = {"/var/lib/kubelb": os.path.join(stage.dir, "state"),
                 "/run/kubelb": os.path.join(stage.dir, "run")}
        pod = Pod(stage, spec or pod_spec(objects), root or image,
                  maps or config_map(stage, objects), {**state, **instead})
        pods.append(pod)
        return pod

    yield make
    for pod in reversed(pods):
        pod.__exit__()


# Nothing relays where the kernel refuses.
KERNEL_ALONE = {"dataPath": "kernel"}


def load(stage, pod, **kwargs):
    return pod.run("kubelb-load", "--pin", stage.pin, **kwargs)


def start_agent(stage, pod):
    """A container of the agent that has found every backend ready, and says so. Its own
    kubelbctl is asked: it may be of another version than the world's."""
    agent = pod.start("kubelb-agent", "--pin", stage.pin)
    readiness = pod.find("kubelb-agent")["readinessProbe"]["httpGet"]["path"]

    def is_ready():
        done = agent.exec("kubelbctl", "--pin", stage.pin, "status", "-o", "json")
        return done.returncode == 0 and \
            {b["state"] for b in json.loads(done.stdout)["backends"]} == {"ready"} and \
            agent_serves(stage) and http_call(stage, "GET", readiness)[0] == 200

    wait_until(lambda: not agent.alive() or is_ready(),
               lambda: f"the agent to be ready: {agent.log()}")
    assert agent.alive(), agent.log()
    return agent


@needs_runc
@pytest.mark.parametrize("variant", RUNNING)
def test_life_of_a_node(stage, pod_of, next_image, variant, record_property):
    """As the DaemonSet lives on a node: attach, run, be killed, be updated. No connect
    fails on the way, and no connection ends."""
    pod, after = pod_of(variant), pod_of(variant, root=next_image)
    assert "/host/cgroup" in ok(load(stage, pod)).stdout
    assert served_set(stage) == {"cp1", "cp2", "cp3"}
    # Seven for each, so that the next ones are spread over all of them.
    with start_agent(stage, pod) as agent, Held(stage, 21) as held, Traffic(stage):
        rss = agent.memory()
        record_property("agent_rss_bytes", rss)
        request = pod.find("kubelb-agent")["resources"]["requests"]["memory"]
        assert rss < quantity(request), f"{rss} bytes resident, {request} requested"
        agent.kill9()
        assert served_set(stage) == {"cp1", "cp2", "cp3"}
        with start_agent(stage, pod) as again:
            assert again.stop(timeout=pod.spec["terminationGracePeriodSeconds"]) == 0, again.log()
        version = dump(stage, "control")[0][1]["abi_version"]
        ok(load(stage, after))
        assert dump(stage, "control")[0][1]["abi_version"] > version
        with start_agent(stage, after):
            assert served_set(stage) == {"cp1", "cp2", "cp3"}
            assert held.close()["closed"] == 0
    bare = {**after.find("kubelb-load"), "args": ["--detach"]}
    ok(after.run("kubelb-load", "--pin", stage.pin, container=bare))


@needs_runc
@pytest.mark.parametrize("variant", RUNNING)
def test_detach_takes_all_away(stage, pod_of, variant):
    """The detach variant's init container, after any other."""
    ok(load(stage, pod_of(variant)))
    before = pod_of("detach")
    assert before.find("kubelb-detach")["args"] == ["--detach"]
    assert "detached" in ok(before.run("kubelb-detach", "--pin", stage.pin)).stdout
    assert not os.path.exists(stage.pin)


@needs_runc
def test_static_pod_runs(stage, pod_of, tmp_path):
    """With the node's own files in the place of ConfigMap and service account."""
    for name in ("kubelb", "kubernetes/pki", "pki"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copy(stage.ca, tmp_path / "kubernetes/pki/ca.crt")
    stage.configure(str(tmp_path / "kubelb/kubelb.yaml"),
                    probe={"ca": "/etc/kubernetes/pki/ca.crt"})
    pod = pod_of(spec=static_pod()["spec"], **{
        "/etc/kubelb": str(tmp_path / "kubelb"), "/etc/kubernetes": str(tmp_path / "kubernetes"),
        "/var/lib/kubelet/pki": str(tmp_path / "pki")})
    ok(load(stage, pod))
    with start_agent(stage, pod):
        assert served_by(stage) in {"cp1", "cp2", "cp3"}


@needs_runc
@pytest.mark.parametrize("variant", RUNNING)
def test_agent_needs_no_more(stage, pod_of, variant):
    """Whatever the manifest gives it, the agent keeps what tests/e2e/test_privileges.py
    names: less than the overlay grants. With it, it ends a dead backend's connections."""
    pod, cp = pod_of(variant), stage.cp(1)
    ok(load(stage, pod))
    with start_agent(stage, pod) as agent, Held(stage, 9) as held:
        assert sets_of(agent.pid)["CapPrm"] == ALWAYS
        assert stats(stage, "active")["cp1"] == 3, stats(stage, "active")
        cp.stop()
        wait_states(stage, "dead", [cp])
        wait_until(lambda: stats(stage, "active")["cp1"] == 0, agent.log)
        assert held.close()["closed"] == 3
        cp.cont()


@needs_runc
def test_status_in_the_container(stage, pod_of):
    """kubectl exec: when privileged, and with the capabilities of the overlay."""
    pod = pod_of("base")
    ok(load(stage, pod))
    with start_agent(stage, pod) as agent:
        assert "5 attached, all effective" in \
            ok(agent.exec("kubelbctl", "--pin", stage.pin, "status")).stdout
        agent.kill9()
    with start_agent(stage, pod_of("overlays/capabilities")) as agent:
        shown = ok(agent.exec("kubelbctl", "--pin", stage.pin, "status")).stdout
        assert "5 attached, all effective" in shown
        shown = ok(agent.exec("kubelbctl", "--pin", stage.pin, "status", "-o", "json")).stdout
        assert json.loads(shown)["effective"] is True and json.loads(shown)["attached"] is True


@needs_runc
@pytest.mark.parametrize("variant", RUNNING)
def test_orders_where_connects_are_relayed(stage, pod_of, variant):
    """kubelbctl drains in the pod, and undrains on the host: by the socket in /run/kubelb."""
    pod, cp = pod_of(variant, settings={"dataPath": "relay"}), stage.cp(1).endpoint
    stage.configure(http=f"unix:{os.path.join(stage.dir, 'run', 'agent.sock')}")
    stage.ctl_options = ["-c", stage.config]
    with pod.start("kubelb-agent", "--pin", stage.pin) as agent:
        wait_until(lambda: not agent.alive() or stage.ctl("ping", "ready").returncode == 0,
                   agent.log)
        wait_states(stage, "ready", stage.backends)
        ok(agent.exec("kubelbctl", "--pin", stage.pin, "drain", cp))
        assert served_set(stage) == {"cp2", "cp3"}
        ok(stage.ctl("undrain", cp))
        assert served_set(stage) == {"cp1", "cp2", "cp3"}


@needs_runc
def test_manifest_as_it_comes_changes_nothing(stage, pod_of):
    """Nobody has named the apiservers: refused, and what is attached stays."""
    pod = pod_of(maps={"kubelb": manifests.find(kustomize("base"), "ConfigMap")["data"]})
    fails(load(stage, pod), 2, "kubelb.yaml:4", "NAME-YOUR-APISERVERS-HERE")
    assert not os.path.exists(stage.pin)
    ok(stage.load())
    fails(load(stage, pod), 2, "NAME-YOUR-APISERVERS-HERE")
    assert served_set(stage) == {"cp1", "cp2", "cp3"}


# --- what each thing is for (the table in docs/deploy.md) ---------------------


def without_mount(pod, container, name):
    changed = copy.deepcopy(pod.find(container))
    changed["volumeMounts"] = [m for m in changed["volumeMounts"] if m["name"] != name]
    assert changed != pod.find(container)
    return changed


def with_capabilities(pod, container, add):
    changed = copy.deepcopy(pod.find(container))
    changed["securityContext"]["capabilities"]["add"] = add
    return changed


@needs_runc
def test_without_the_capability(stage, pod_of):
    """kubelb-load needs CAP_SYS_ADMIN: without it, nothing is loaded; with its parts (BPF,
    NET_ADMIN, PERFMON), it attaches, but cannot update in place."""
    pod = pod_of("overlays/capabilities", settings=KERNEL_ALONE)
    assert pod.find("kubelb-load")["securityContext"]["capabilities"]["add"] == ["SYS_ADMIN"]
    for some in ([], ["BPF"], ["BPF", "NET_ADMIN"], ["BPF", "PERFMON"]):
        fails(load(stage, pod, container=with_capabilities(pod, "kubelb-load", some)), 1,
              "not permitted", "CAP_SYS_ADMIN")
        assert not os.path.exists(stage.pin) or pins(stage) == []
    parts = with_capabilities(pod, "kubelb-load", ["BPF", "NET_ADMIN", "PERFMON"])
    ok(load(stage, pod, container=parts))
    fails(load(stage, pod, container=parts), 1, "not permitted", "CAP_SYS_ADMIN")
    ok(load(stage, pod))


@needs_runc
def test_without_the_cgroup_mount(stage, pod_of):
    """The container's own view is no place to attach, for neither of the two."""
    pod = pod_of()
    for name in ("kubelb-load", "kubelb-agent"):
        done = pod.run(name, "--pin", stage.pin, container=without_mount(pod, name, "cgroup"))
        fails(done, 1, "container's view", "/host/cgroup")
    assert not os.path.exists(stage.pin)


@needs_runc
def test_without_the_bpf_mount(stage, pod_of):
    """What is pinned in the container's own bpffs ends with it: so it must be the host's."""
    pod = pod_of()
    ok(load(stage, pod, container=without_mount(pod, "kubelb-load", "bpf")))
    assert not os.path.exists(stage.pin)
    pod = pod_of("overlays/capabilities", settings=KERNEL_ALONE)
    ok(load(stage, pod, container=without_mount(pod, "kubelb-load", "bpf")))
    done = pod.run("kubelb-agent", "--pin", stage.pin)
    fails(done, 1, "cannot load the programs")  # and does not run on nothing


@needs_runc
def test_without_the_configuration(stage, pod_of):
    pod = pod_of()
    for name in ("kubelb-load", "kubelb-agent"):
        done = pod.run(name, "--pin", stage.pin, container=without_mount(pod, name, "config"))
        fails(done, 2, "/etc/kubelb/kubelb.yaml", "no such file")


@needs_runc
def test_machine_id_is_the_nodes(stage, pod_of):
    """Without the host's machine id, rendezvous would rank the backends for another node
    than kubelb-load on the host does."""
    if not os.path.isfile(MACHINE_ID):
        pytest.skip(f"no {MACHINE_ID} on this machine")

    def ranks():
        table = next(v for _k, v in dump(stage, "candidates") if v["n"] == 3)
        return [c["rank"] for c in table["at"][:3]]

    objects = kustomize("base")
    pod = pod_of(maps=config_map(stage, objects, policy="rendezvous"))
    stage.configure(policy="rendezvous")
    ok(stage.load())
    host = ranks()
    stage.detach()
    ok(load(stage, pod))
    assert ranks() == host
    stage.detach()
    ok(load(stage, pod, container=without_mount(pod, "kubelb-load", "machine-id")))
    assert ranks() != host


@needs_runc
def test_root_is_read_only_but_for_the_state(stage, pod_of):
    """Neither program writes anywhere but below the mounts; /var/lib/kubelb is one, and the
    agent's /run/kubelb."""
    pod = pod_of()
    for name in ("kubelb-load", "kubelb-agent"):
        container = pod.find(name)
        assert container["securityContext"]["readOnlyRootFilesystem"]
        writable = {m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")}
        assert writable == {"/sys/fs/bpf", "/var/lib/kubelb"} | \
            ({"/run/kubelb"} if name == "kubelb-agent" else set())
    before = files_of(pod.root)
    ok(load(stage, pod))
    with start_agent(stage, pod):
        pass
    assert files_of(pod.root) == before


@needs_runc
@pytest.mark.parametrize("mask, words", [("/sys/kernel/btf", ["BTF is missing"]),
                                         ("/sys/fs/cgroup", ["cgroup"])])
def test_missing_feature_is_named(stage, pod_of, mask, words):
    """A kernel without BTF, a host without cgroup v2: the pod's log says so in one line,
    and with dataPath: kernel the program ends, so that the kubelet's back-off applies."""
    pod = pod_of(settings=KERNEL_ALONE)
    for name in ("kubelb-load", "kubelb-agent"):
        container = without_mount(pod, name, "cgroup") if "cgroup" in mask else pod.find(name)
        fails(pod.run(name, "--pin", stage.pin, container=container, mask=[mask]), 1, *words)
    assert not os.path.exists(stage.pin)


# A host without a bpffs, its mounts shared as systemd makes them: private first, or what is
# unmounted here would be unmounted for all.
BARE_HOST = ["unshare", "--mount", "--propagation", "private", "sh", "-c",
             'mount --make-rshared / && while umount /sys/fs/bpf 2>/dev/null; do :; done && "$@" && '
             'stat -f -c %T /sys/fs/bpf && ls "$PIN/links"', "host"]


@needs_runc
def test_bpffs_is_mounted_for_the_host(stage, pod_of, monkeypatch):
    """Where the host has no bpffs, the privileged pod mounts it, and it stays: the mount is
    Bidirectional. (What it holds goes with the mount namespace of this test.)"""
    monkeypatch.setenv("PIN", stage.pin)
    done = ok(pod_of().run("kubelb-load", "--pin", stage.pin, prefix=BARE_HOST))
    assert "bpf_fs" in done.stdout and "connect4" in done.stdout
    assert not os.path.exists(stage.pin)
