# SPDX-License-Identifier: BSD-2-Clause
"""The figures of README.md and docs/bench/README.md are those of docs/bench/report.json, which is a
report that can be. Nothing is measured here."""

import json
import os
import re
import shutil
import statistics
import subprocess

import pytest

from world import ROOT

REPORT = os.path.join(ROOT, "docs/bench/report.json")
TEXT = os.path.join(ROOT, "tests/bench/report_text.py")
# Words of a measurement, none of which stands in README.md outside of the block.
MEASURED = re.compile(r"\d\s*(?:µs|us|ns|MB/s|GB/s|MiB|KiB|requests/s|% of)\b|\d\s*requests a second")


def check(root):
    return subprocess.run(["/usr/bin/python3", os.path.join(root, "tests/bench/report_text.py"),
                           "--check"], capture_output=True, text=True, timeout=30, check=False)


@pytest.fixture(name="copy")
def copy_of_pages(tmp_path):
    """What report_text.py reads and writes, to be changed."""
    for path in ("README.md", "docs/bench/README.md", "docs/bench/report.json",
                 "tests/bench/report_text.py"):
        os.makedirs(os.path.dirname(tmp_path / path), exist_ok=True)
        shutil.copy(os.path.join(ROOT, path), tmp_path / path)
    return tmp_path


def test_pages_say_what_was_measured():
    done = check(ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", ["README.md", "docs/bench/README.md"])
def test_a_changed_figure_is_found(copy, page):
    """One digit of one cell."""
    path = copy / page
    text = path.read_text(encoding="utf-8")
    begin = text.index("<!-- ")
    match = re.compile(r"\| (\d)").search(text, begin)
    digit = str((int(match.group(1)) + 1) % 10)
    path.write_text(text[:match.start(1)] + digit + text[match.end(1):], encoding="utf-8")
    done = check(copy)
    assert done.returncode == 1
    assert f"{page} differs from docs/bench/report.json" in done.stderr


def test_a_changed_report_is_found(copy):
    path = copy / "docs/bench/report.json"
    report = json.loads(path.read_text(encoding="utf-8"))
    for row in report["figures"]:
        row["median"] *= 1.5
    path.write_text(json.dumps(report), encoding="utf-8")
    done = check(copy)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 2


def test_no_other_figures():
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as f:
        text = f.read()
    begin, end = text.index("<!-- figures:"), text.index("<!-- end of figures -->")
    for sample in ("1,293 µs", "375 MB/s", "7.2 MiB", "20,807 requests a second"):
        assert MEASURED.search(sample)
    found = MEASURED.search(text[:begin] + text[end:])
    assert not found, f"{found.group(0)}: not from the report"


def test_figures_follow_from_their_rounds():
    with open(REPORT, encoding="utf-8") as f:
        report = json.load(f)
    assert {"date", "commit", "kernel", "cpu", "cpus", "versions", "effort"} <= set(report["about"])
    for row in report["figures"]:
        values = row["values"]
        assert row["n"] == len(values) >= 1, row
        for key, value in (("median", statistics.median(values)), ("min", min(values)),
                           ("max", max(values))):
            assert row[key] == pytest.approx(value, abs=1e-5, rel=1e-5), (row["what"], key)


def test_pictures_are_there():
    """Those of the page, and each as PNG as well."""
    with open(os.path.join(ROOT, "docs/bench/README.md"), encoding="utf-8") as f:
        names = re.findall(r"!\[[^]]+\]\((\S+)\.svg\)", f.read())
    assert len(names) >= 6
    for name in names:
        with open(os.path.join(ROOT, f"docs/bench/{name}.svg"), encoding="utf-8") as f:
            assert "</svg>" in f.read()
        with open(os.path.join(ROOT, f"docs/bench/{name}.png"), "rb") as f:
            assert f.read(8) == b"\x89PNG\r\n\x1a\n"
