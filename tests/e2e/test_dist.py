# SPDX-License-Identifier: BSD-2-Clause
"""What a release is made of: the source, and the commit that it says; and the release itself, which
is the same wherever it is made."""

import io
import os
import re
import shutil
import subprocess
import tarfile

import pytest

from helpers import fails
from system import run_checked
from test_image import read_archives
from world import ROOT

# What a copy of the source needs to say what it is.
SOURCE = ("Makefile", "scripts/source.sh")
with open(os.path.join(ROOT, "Makefile"), encoding="utf-8") as makefile:
    VERSION = re.search(r"^VERSION := (\S+)", makefile.read(), re.MULTILINE).group(1)


def say(tree, command):
    return run_checked(["bash", "-c", f"cd {tree} && . scripts/source.sh && {command}"]).strip()


def git(tree, *arguments):
    return run_checked(["git", "-c", "user.name=t", "-c", "user.email=t@t.invalid", "-C", tree,
                        *arguments]).strip()


@pytest.fixture(name="tree")
def tree_fixture(tmp_path):
    """A git tree of one commit."""
    tree = str(tmp_path / "tree")
    for name in SOURCE:
        os.makedirs(os.path.dirname(os.path.join(tree, name)), exist_ok=True)
        with open(os.path.join(ROOT, name), "rb") as f, open(os.path.join(tree, name), "wb") as g:
            g.write(f.read())
    git(tree, "init", "-q")
    git(tree, "add", ".")
    git(tree, "commit", "-q", "-m", "first")
    return tree


def test_commit_of_a_tree(tree):
    """Seven digits; a change shows until it is committed."""
    first = git(tree, "rev-parse", "HEAD")[:7]
    assert say(tree, "source_commit") == first
    with open(os.path.join(tree, "Makefile"), "a", encoding="utf-8") as f:
        f.write("# changed\n")
    assert say(tree, "source_commit") == f"{first}-dirty"
    git(tree, "commit", "-q", "-a", "-m", "second")
    assert say(tree, "source_commit") == git(tree, "rev-parse", "HEAD")[:7] != first


def test_copy_remembers(tree, tmp_path):
    """A copy without git has the commit and the time of its tree, and so has a copy of the copy."""
    commit, time = git(tree, "rev-parse", "HEAD")[:7], git(tree, "log", "-1", "--format=%ct")
    for name in ("copy", "copy-of-the-copy"):
        copy = str(tmp_path / name)
        say(tree, f"source_copy {copy}")
        assert not os.path.exists(os.path.join(copy, ".git"))
        os.utime(os.path.join(copy, "Makefile"))
        assert say(copy, "source_commit") == commit
        assert say(copy, "unset SOURCE_DATE_EPOCH; source_time") == time
        run_checked(["make", "-s", "-C", copy, "build/commit"])
        with open(os.path.join(copy, "build/commit"), encoding="ascii") as f:
            assert f.read().strip() == commit
        tree = copy


def test_export_that_knows_nothing(tree, tmp_path):
    run_checked(["cp", "-r", tree, str(tmp_path / "bare")])
    run_checked(["rm", "-rf", str(tmp_path / "bare/.git")])
    assert say(str(tmp_path / "bare"), "source_commit") == ""


@pytest.mark.parametrize("name", ["kubelb-load", "kubelb-agent", "kubelbctl"])
def test_version_has_the_commit(world, name):
    """The programs say what this build was made of."""
    with open(os.path.join(world.build, "commit"), encoding="ascii") as f:
        commit = f.read().strip()
    want = f"{name} {VERSION} ({commit})\n" if commit else f"{name} {VERSION}\n"
    assert run_checked([os.path.join(world.build, name), "--version"]) == want


# --- the release -----------------------------------------------------------------

CHEAP = "source chart"
TIME = "2023-11-14T22:13:20Z"
# By the machine in an ELF file's header.
MACHINES = {62: "amd64", 183: "arm64"}


def dist(tree, directory, **settings):
    return subprocess.run([os.path.join(tree, "scripts/dist.sh"), directory], check=False,
                          capture_output=True, text=True,
                          env={**os.environ, "SYSROOTS": os.path.join(ROOT, "build/sysroot"), **settings})


def made(tree, directory, **settings):
    """{name: content} of a release."""
    done = dist(tree, directory, **settings)
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(os.path.dirname(directory))) == [os.path.basename(directory)]
    found = {}
    for name in sorted(os.listdir(directory)):
        with open(os.path.join(directory, name), "rb") as f:
            found[name] = f.read()
    return found


def differences(one, other):
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


def committed(tree):
    """This tree's source, changes included, as the one commit of a git tree."""
    run_checked(["bash", "-c", f"cd {ROOT} && . scripts/source.sh && source_copy {tree} && "
                 f"rm -f {tree}/COMMIT"])
    git(tree, "init", "-q")
    git(tree, "add", ".")
    run_checked(["env", f"GIT_COMMITTER_DATE={TIME}", f"GIT_AUTHOR_DATE={TIME}", "git", "-C", tree,
                 "-c", "user.name=t", "-c", "user.email=t@t.invalid", "commit", "-q", "-m", "release"])
    return tree


@pytest.fixture(scope="module", name="two_trees")
def two_trees_fixture(tmp_path_factory):
    """The same commit in two places, of two people."""
    one = committed(str(tmp_path_factory.mktemp("one") / "tree"))
    other = committed(str(tmp_path_factory.mktemp("other") / "a-path-that-is-longer" / "than-the-first"))
    run_checked(["chmod", "-R", "g+w,o-rx", other])
    return one, other


def members(packed):
    """{name: content} of the files in a .tar.gz; of a link, where it leads."""
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
        return {m.name: tar.extractfile(m).read() if m.isfile() else m.linkname
                for m in tar.getmembers() if not m.isdir()}


def content_of(tree, names, follow):
    """The same of files below a folder; of a link what is there, if it is followed."""
    found = {}
    for name in names:
        if os.path.islink(os.path.join(tree, name)) and not follow:
            found[name] = os.readlink(os.path.join(tree, name))
            continue
        with open(os.path.join(tree, name), "rb") as f:
            found[name] = f.read()
    return found


def check_sums(release, directory):
    """SHA256SUMS has every other file, and sha256sum agrees."""
    run_checked(["sh", "-c", f"cd {directory} && sha256sum --quiet --strict -c SHA256SUMS"])
    listed = [line.split("  ")[1] for line in release["SHA256SUMS"].decode().splitlines()]
    assert listed == sorted(release.keys() - {"SHA256SUMS"})


def test_release_is_the_same_everywhere(two_trees, tmp_path, monkeypatch):
    """Another folder, another umask, other modes, other times, another language and time zone."""
    one, other = two_trees
    first = made(one, str(tmp_path / "one" / "dist"), PARTS=CHEAP)
    os.utime(os.path.join(other, "Makefile"))
    for name, value in (("TZ", "Asia/Tokyo"), ("LANG", "C.UTF-8"), ("LC_ALL", "C.UTF-8")):
        monkeypatch.setenv(name, value)
    before = os.umask(0o027)
    try:
        second = made(other, str(tmp_path / "other" / "release"), PARTS=CHEAP)
    finally:
        os.umask(before)
    assert not differences(first, second)
    assert set(first) == {"BUILDINFO", "SHA256SUMS", f"kubelb-{VERSION}.tar.gz", f"kubelb-{VERSION}.tgz"}
    check_sums(first, str(tmp_path / "one" / "dist"))


def test_release_has_the_source_and_the_chart(two_trees, tmp_path):
    """All files of the commit and its name, no more; and that source makes the same release."""
    tree = two_trees[0]
    first = made(tree, str(tmp_path / "one" / "dist"), PARTS=CHEAP)
    inside = members(first[f"kubelb-{VERSION}.tar.gz"])
    commit = git(tree, "rev-parse", "HEAD")[:7]
    assert inside.pop(f"kubelb-{VERSION}/COMMIT").decode().split()[0] == commit
    files = git(tree, "ls-files").splitlines()
    assert inside == {f"kubelb-{VERSION}/{n}": c for n, c in content_of(tree, files, False).items()}
    chart = [n.removeprefix("deploy/helm/") for n in files if n.startswith("deploy/helm/kubelb/")]
    assert members(first[f"kubelb-{VERSION}.tgz"]) == \
        content_of(os.path.join(tree, "deploy/helm"), chart, True)
    info = first["BUILDINFO"].decode().splitlines()
    assert info[:3] == [f"kubelb {VERSION}", f"commit {commit}", f"time {TIME}"]
    run_checked(["tar", "-C", str(tmp_path), "-xzf", str(tmp_path / "one" / "dist" / f"kubelb-{VERSION}.tar.gz")])
    again = made(str(tmp_path / f"kubelb-{VERSION}"), str(tmp_path / "other" / "dist"), PARTS=CHEAP)
    assert not differences(first, again)


@pytest.mark.parametrize("name", ["Makefile", "notes.txt"], ids=["changed", "not added"])
def test_no_release_of_a_dirty_tree(tree, tmp_path, name):
    """What no commit has is not released; one line says so. Whoever wants it all the same says so."""
    for needed in ("scripts/dist.sh", "deploy/helm"):
        copy = shutil.copytree if os.path.isdir(os.path.join(ROOT, needed)) else shutil.copy
        os.makedirs(os.path.dirname(os.path.join(tree, needed)), exist_ok=True)
        copy(os.path.join(ROOT, needed), os.path.join(tree, needed))
    git(tree, "add", ".")
    git(tree, "commit", "-q", "-m", "dist")
    with open(os.path.join(tree, name), "a", encoding="utf-8") as f:
        f.write("# changed\n")
    directory = str(tmp_path / "out" / "dist")
    done = dist(tree, directory, PARTS=CHEAP)
    fails(done, 1, "not committed", "DIRTY=yes")
    assert len(done.stderr.splitlines()) == 1 and not os.path.exists(directory)
    release = made(tree, directory, PARTS=CHEAP, DIRTY="yes")
    assert f"kubelb-{VERSION}/{name}" in members(release[f"kubelb-{VERSION}.tar.gz"])
    assert ("-dirty" in release["BUILDINFO"].decode()) == (name == "Makefile")


def programs_of_packages(directory, scratch):
    """{package: architecture of its programs}."""
    found = {}
    for name in sorted(os.listdir(directory)):
        path, to = os.path.join(directory, name), os.path.join(scratch, name)
        if name.endswith(".deb"):
            run_checked(["dpkg-deb", "-x", path, to])
        elif name.endswith(".rpm"):
            os.makedirs(to)
            run_checked(["sh", "-c", f"cd {to} && rpm2cpio {path} | cpio -idm --quiet"])
        else:
            continue
        kinds = set()
        for program in ("kubelb-load", "kubelb-agent", "kubelbctl"):
            with open(os.path.join(to, "usr/sbin", program), "rb") as f:
                kinds.add(machine_of(f.read()))
        (found[name],) = kinds
    return found


def machine_of(program):
    assert program[:4] == b"\x7fELF"
    return MACHINES[int.from_bytes(program[18:20], "little")]


@pytest.mark.skipif(os.environ.get("KUBELB_DIST") != "all",
                    reason="twelve builds take seven minutes: KUBELB_DIST=all")
def test_whole_release_is_the_same_everywhere(two_trees, tmp_path):
    """Everything, of both architectures, twice."""
    first = made(two_trees[0], str(tmp_path / "one" / "dist"))
    assert programs_of_packages(str(tmp_path / "one" / "dist"), str(tmp_path)) == {
        f"kubelb_{VERSION}_amd64.deb": "amd64", f"kubelb_{VERSION}_arm64.deb": "arm64",
        f"kubelb-{VERSION}-1.x86_64.rpm": "amd64", f"kubelb-{VERSION}-1.aarch64.rpm": "arm64"}
    check_sums(first, str(tmp_path / "one" / "dist"))
    images = read_archives(first[f"kubelb-{VERSION}.oci.tar"])
    assert sorted(images) == ["amd64", "arm64"]
    for arch, (config, files) in images.items():
        assert config["architecture"] == arch
        elves = {n for n, (_m, c) in files.items() if c[:4] == b"\x7fELF" and machine_of(c) == arch}
        assert elves == {n for n, (_m, c) in files.items() if c[:4] == b"\x7fELF"} and len(elves) > 10
        bill = files["usr/share/doc/kubelb/kubelb.spdx.json"][1]
        assert first[f"kubelb-{VERSION}-{arch}.spdx.json"] == bill and f"arch={arch}".encode() in bill
    second = made(two_trees[1], str(tmp_path / "other" / "dist"))
    assert not differences(first, second)
