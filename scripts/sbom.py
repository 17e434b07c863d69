#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Prints the bill of materials of an image's files, in SPDX 2.3's JSON.

    sbom.py ROOT BUILD VERSION

ROOT has the files, BUILD the programs that they were made from, with the linker's maps beside them. A
library is named after the package that dpkg has for the very bytes on this machine, or in SYSROOT. What is linked into
the programs comes from the maps; which headers the kernel programs have, from the compiler's lists.
SOURCE_DATE_EPOCH is the time in it. Nothing is taken for granted: a file without a known package is
listed without one.
Format: spdx.github.io/spdx-spec/v2.3
"""

import glob
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from urllib.parse import quote

PROGRAMS = ("kubelb-load", "kubelb-agent", "kubelbctl")
LICENSE = "BSD-2-Clause AND (GPL-2.0-only OR BSD-2-Clause)"
AUTHORS = "The KubeLB authors"
# Where the bill itself lies: it cannot have its own checksum.
SELF = "usr/share/doc/kubelb/kubelb.spdx.json"
NOTHING = "NOASSERTION"
# Another architecture's libraries, with what dpkg would know of them (scripts/sysroot.sh).
SYSROOT = os.path.realpath(os.environ["SYSROOT"]) if os.environ.get("SYSROOT") else ""
QUERY = "${source:Package} ${source:Version} ${Version} ${Architecture}"


def digest(path, kind):
    with open(path, "rb") as f:
        return hashlib.new(kind, f.read()).hexdigest()


def files_of(root):
    found = (os.path.relpath(os.path.join(d, f), root)
             for d, _directories, files in os.walk(root) for f in files)
    return sorted(f for f in found if f != SELF)


def spdx_id(kind, name):
    """An identifier has letters, digits, '.' and '-'."""
    return f"SPDXRef-{kind}-" + re.sub(r"[^A-Za-z0-9.-]", lambda m: f"-{ord(m.group()):x}-", name)


# --- whose a file is ------------------------------------------------------------------------


def ask_dpkg(inside, *arguments):
    """What dpkg-query says of this machine, or of what is inside SYSROOT."""
    more = {"DPKG_ADMINDIR": os.path.join(SYSROOT, "var/lib/dpkg")} if inside and SYSROOT else {}
    return subprocess.run(["dpkg-query", *arguments], capture_output=True, text=True, check=False,
                          env={**os.environ, **more, "LC_ALL": "C"})


def aliases(path):
    """The names that dpkg may have for a file: with merged /usr there are two."""
    real = os.path.realpath(path)
    for name in (path, real):
        yield name
        yield name[4:] if name.startswith("/usr/") else "/usr" + name


def owners_at(inside, paths):
    """{path: (inside, package)}, of those that dpkg knows."""
    names = {alias: path for path in paths for alias in aliases(path)}
    try:
        done = ask_dpkg(inside, "-S", *sorted(names))
    except FileNotFoundError:
        return {}
    found = {}
    for line in done.stdout.splitlines():
        package, _, name = line.partition(": ")
        if name in names and not line.startswith("diversion "):
            found[names[name]] = (inside, package.split(", ")[0])
    return found


def owners(paths):
    """The same, of paths inside SYSROOT and elsewhere on this machine."""
    of_sysroot = {p[len(SYSROOT):]: p for p in paths if SYSROOT and p.startswith(SYSROOT + "/")}
    found = owners_at(False, set(paths) - set(of_sysroot.values()))
    if of_sysroot:
        found |= {of_sysroot[p]: owner for p, owner in owners_at(True, of_sysroot).items()}
    return found


def image_owners(root, files):
    """{file: package}, where the file here or in SYSROOT is the image's, byte for byte."""
    same = [f"/{f}" for f in files if os.path.isfile(f"{SYSROOT}/{f}") and
            digest(f"{SYSROOT}/{f}", "sha256") == digest(os.path.join(root, f), "sha256")]
    return {path[1:]: package for path, package in owners_at(bool(SYSROOT), same).items()}


def linked(build):
    """The files of this machine that the linker took into the programs."""
    found = set()
    for program in PROGRAMS:
        with open(os.path.join(build, program + ".map"), encoding="utf-8") as f:
            text = f.read()
        found |= set(re.findall(r"^LOAD (/.*\.o)$", text, re.MULTILINE))
        members = text.partition("Archive member included")[2].partition("\n\n\n")[0]
        found |= set(re.findall(r"^(/.*)\(.*\)", members, re.MULTILINE))
    return {os.path.realpath(f) for f in found}


def included(build):
    """The headers with code that the kernel programs took in."""
    found = set()
    for path in glob.glob(os.path.join(build, "bpf", "*.d")):
        with open(path, encoding="utf-8") as f:
            found |= set(re.findall(r"(?<=\s)/\S+/bpf/\S+\.h(?=[\s:])", f.read()))
    return found


# --- what stands in the bill ----------------------------------------------------------------


def distribution():
    words = {}
    if os.path.exists("/etc/os-release"):
        with open("/etc/os-release", encoding="utf-8") as f:
            words = dict(line.rstrip("\n").replace('"', "").split("=", 1) for line in f if "=" in line)
    return words.get("ID", "linux"), words.get("VERSION_ID", "")


def package(name, identity, version, more):
    return {"SPDXID": identity, "name": name, "versionInfo": version, "downloadLocation": NOTHING,
            "filesAnalyzed": False, "licenseConcluded": NOTHING, "licenseDeclared": NOTHING,
            "copyrightText": NOTHING, **more}


def purl(url):
    return [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": url}]


def debian_package(inside, name):
    """A package of this machine or of SYSROOT, as dpkg has it."""
    said = ask_dpkg(inside, "-W", "-f", QUERY, name).stdout
    source, source_version, version, arch = said.split()
    system, release = distribution()
    name = name.partition(":")[0]
    url = (f"pkg:deb/{system}/{quote(name)}@{quote(version)}?arch={arch}"
           f"&distro={system}-{release}&upstream={quote(source)}")
    return package(name, spdx_id("deb", f"{name}.{arch}"), version, {
        "supplier": f"Organization: {system.capitalize()}",
        "sourceInfo": f"built from the source package {source} {source_version}",
        "externalRefs": purl(url)})


def own_packages(version, commit, sums):
    """The image, and what of it is KubeLB's."""
    code = hashlib.sha1("".join(sorted(sums)).encode()).hexdigest()
    ours = {"supplier": f"Organization: {AUTHORS}", "licenseDeclared": LICENSE,
            "copyrightText": f"Copyright 2026 {AUTHORS}"}
    return [
        package("kubelb-image", "SPDXRef-image", version, {
            "supplier": ours["supplier"], "primaryPackagePurpose": "CONTAINER"}),
        package("kubelb", "SPDXRef-kubelb", version, {
            **ours, "filesAnalyzed": True, "primaryPackagePurpose": "APPLICATION",
            "packageVerificationCode": {"packageVerificationCodeValue": code},
            "licenseInfoFromFiles": [NOTHING],
            "sourceInfo": f"built from commit {commit or 'unknown'}",
            "externalRefs": purl(f"pkg:generic/kubelb@{quote(version)}")})]


def file_entry(root, name):
    path = os.path.join(root, name)
    with open(path, "rb") as f:
        kind = "BINARY" if f.read(4) == b"\x7fELF" else "TEXT"
    return {"SPDXID": spdx_id("file", name), "fileName": "./" + name, "fileTypes": [kind],
            "checksums": [{"algorithm": kind.upper(), "checksumValue": digest(path, kind)}
                          for kind in ("sha1", "sha256")],
            "licenseConcluded": NOTHING, "licenseInfoInFiles": [NOTHING], "copyrightText": NOTHING}


def is_ours(name):
    return name.startswith(("usr/sbin/", "usr/share/doc/kubelb/", "etc/"))


class Bill:
    """Packages, files, and how they belong together."""

    def __init__(self, root, version, commit):
        self.files = {name: file_entry(root, name) for name in files_of(root)}
        sums = [f["checksums"][0]["checksumValue"] for n, f in self.files.items() if is_ours(n)]
        self.packages = own_packages(version, commit, sums)
        self.relations = []
        self.debs = {}
        self.relate("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-image")
        self.relate("SPDXRef-image", "CONTAINS", "SPDXRef-kubelb")

    def relate(self, one, how, other, **more):
        entry = {"spdxElementId": one, "relationshipType": how, "relatedSpdxElement": other, **more}
        if entry not in self.relations:
            self.relations.append(entry)

    def debian(self, owner):
        if owner not in self.debs:
            entry = debian_package(*owner)
            self.debs[owner] = entry["SPDXID"]
            self.packages.append(entry)
        return self.debs[owner]

    def add_files(self, packages):
        for name, entry in self.files.items():
            owner = "SPDXRef-image"
            if is_ours(name):
                owner = "SPDXRef-kubelb"
            elif name in packages:
                owner = self.debian(packages[name])
                self.relate("SPDXRef-image", "CONTAINS", owner)
                self.relate("SPDXRef-kubelb", "DEPENDS_ON", owner)
            self.relate(owner, "CONTAINS", entry["SPDXID"])

    def add_static(self, files, comment):
        for name in sorted(set(owners(files).values())):
            self.relate("SPDXRef-kubelb", "STATIC_LINK", self.debian(name), comment=comment)

    def document(self, version, epoch):
        body = {"packages": self.packages, "files": list(self.files.values()),
                "relationships": self.relations}
        mark = hashlib.sha256(json.dumps(body).encode()).hexdigest()
        return {"spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT",
                "name": f"kubelb-image-{version}",
                "documentNamespace": f"https://kubelb.invalid/spdx/kubelb-image-{version}-{mark}",
                "creationInfo": {
                    "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch)),
                    "creators": [f"Organization: {AUTHORS}", "Tool: kubelb-sbom"]},
                **body}


def bill_of(root, build, version):
    commit = ""
    if os.path.exists(os.path.join(build, "commit")):
        with open(os.path.join(build, "commit"), encoding="ascii") as f:
            commit = f.read().strip()
    bill = Bill(root, version, commit)
    bill.add_files(image_owners(root, bill.files))
    bill.add_static(linked(build), "start files, and functions of the compiler and the C library")
    bill.add_static(included(build), "inline functions of headers, in the kernel programs")
    return bill.document(version, int(os.environ.get("SOURCE_DATE_EPOCH", "0")))


def main(argv):
    if len(argv) != 3:
        print("usage: sbom.py ROOT BUILD VERSION", file=sys.stderr)
        return 2
    try:
        json.dump(bill_of(*argv), sys.stdout, indent=1)
    except OSError as e:
        print(f"sbom.py: {e.filename}: {e.strerror}; run make first", file=sys.stderr)
        return 1
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
