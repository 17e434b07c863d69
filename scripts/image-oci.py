#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Makes an OCI image archive of a folder, by a Dockerfile that only copies it.

    image-oci.py DOCKERFILE ROOT[:ROOT...] ARCHIVE NAME=VALUE...

With several ROOTs the image has one platform for each, as its programs say. NAME=VALUE is for an ARG of
the Dockerfile. For where there is neither buildah nor podman. Of the Dockerfile's language it knows what
ours uses, and refuses the rest. The same files make the same archive, byte by byte.
Formats: github.com/opencontainers/image-spec, image-layout.md, config.md, manifest.md, image-index.md.
"""

import gzip
import hashlib
import io
import json
import os
import re
import shlex
import struct
import sys
import tarfile
import time

# By the machine that an ELF file is for (elf.h, EM_*).
ARCHITECTURES = {62: "amd64", 183: "arm64"}
PROGRAM = "usr/sbin/kubelb-agent"
EPOCH = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))


def instructions(text):
    """(word, rest) of each line, continuations joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word:
            yield word.upper(), rest.strip()


def substitute(text, values):
    """Each $NAME by its value."""
    def value(match):
        if match.group(1) not in values:
            raise ValueError(f"{match.group()}: no ARG of this name")
        return values[match.group(1)]
    return re.sub(r"\$(\w+)", value, text)


def image_config(dockerfile, given):
    """The part of the image's configuration that the Dockerfile asks for."""
    config, values = {"Env": [], "Labels": {}}, {}
    for word, rest in instructions(dockerfile):
        if word == "LABEL":
            for pair in shlex.split(rest):
                key, _, value = pair.partition("=")
                config["Labels"][key] = substitute(value, values)
        elif word == "ARG":
            key, _, value = rest.partition("=")
            values[key] = given.get(key, value)
        elif word == "ENV":
            config["Env"].append(rest)
        elif word == "ENTRYPOINT":
            config["Entrypoint"] = json.loads(rest)
        elif word == "STOPSIGNAL":
            config["StopSignal"] = rest
        elif (word, rest) not in (("FROM", "scratch"), ("COPY", ". /")):
            raise ValueError(f"{word} {rest}: not known here; use buildah or podman")
    unknown = sorted(set(given) - set(values))
    if unknown:
        raise ValueError(f"no ARG {' '.join(unknown)} in it")
    return config


def layer(root):
    """The folder's files as a tar archive: sorted, root's, of one time."""
    def plain(entry):
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mtime = EPOCH
        return entry

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for directory, directories, files in os.walk(root):
            directories.sort()
            for name in sorted(directories + files):
                path = os.path.join(directory, name)
                tar.add(path, os.path.relpath(path, root), recursive=False, filter=plain)
    return out.getvalue()


def architecture(root):
    """What the image's program runs on."""
    with open(os.path.join(root, PROGRAM), "rb") as f:
        head = f.read(20)
    machine = struct.unpack_from("<H", head, 18)[0] if head[:6] == b"\x7fELF\x02\x01" else None
    if machine not in ARCHITECTURES:
        raise ValueError(f"{PROGRAM}: not of a known architecture")
    return ARCHITECTURES[machine]


class Archive:
    """An OCI image layout in a tar file."""

    def __init__(self, path):
        self.tar = tarfile.open(path, mode="w", format=tarfile.USTAR_FORMAT)

    def add(self, name, data):
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode, entry.mtime = len(data), 0o644, EPOCH
        self.tar.addfile(entry, io.BytesIO(data))

    def blob(self, kind, data):
        """Adds a blob; its descriptor."""
        digest = hashlib.sha256(data).hexdigest()
        self.add(f"blobs/sha256/{digest}", data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}",
                "size": len(data)}


def text(value):
    return json.dumps(value, sort_keys=True).encode()


def add_platform(archive, root, settings):
    """Adds the image of one folder; its descriptor."""
    arch, tar = architecture(root), layer(root)
    packed = archive.blob("layer.v1.tar+gzip", gzip.compress(tar, 9, mtime=0))
    config = archive.blob("config.v1+json", text({
        "architecture": arch, "os": "linux",
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(EPOCH)),
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(tar).hexdigest()]},
    }))
    manifest = archive.blob("manifest.v1+json", text({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": [packed]}))
    return {**manifest, "platform": {"architecture": arch, "os": "linux"}}


def write(dockerfile, roots, path, given):
    settings, version = image_config(dockerfile, given), given.get("VERSION", "latest")
    names = [architecture(root) for root in roots]
    if len(set(names)) != len(names):
        raise ValueError(f"{' and '.join(names)}: one folder for each architecture")
    archive = Archive(path)
    platforms = [add_platform(archive, root, settings) for root in roots]
    entry = platforms[0] if len(roots) == 1 else archive.blob("index.v1+json", text({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": platforms}))
    entry["annotations"] = {  # podman reads one, containerd the other
        "org.opencontainers.image.ref.name": f"docker.io/library/kubelb:{version}",
        "io.containerd.image.name": f"docker.io/library/kubelb:{version}"}
    archive.add("index.json", text({"schemaVersion": 2, "manifests": [entry]}))
    archive.add("oci-layout", text({"imageLayoutVersion": "1.0.0"}))
    archive.tar.close()


def main(argv):
    if len(argv) < 3 or not all("=" in a for a in argv[3:]):
        print("usage: image-oci.py DOCKERFILE ROOT[:ROOT...] ARCHIVE NAME=VALUE...", file=sys.stderr)
        return 2
    dockerfile, root, path = argv[:3]
    try:
        with open(dockerfile, encoding="utf-8") as f:
            write(f.read(), root.split(":"), path, dict(a.split("=", 1) for a in argv[3:]))
    except (OSError, ValueError) as e:
        print(f"image-oci.py: {dockerfile}, {root}: {e}", file=sys.stderr)
        return 1
    print(f"{path}: {os.path.getsize(path)} bytes, without buildah or podman")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
