# SPDX-License-Identifier: BSD-2-Clause
"""scripts/check-docs.py: what it lets pass, and that it notices what it says it does."""

import os
import re
import shutil
import subprocess

import pytest

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
CHECK = os.path.join(ROOT, "scripts", "check-docs.py")
OPERATIONS = "docs/operations.md"


def check(root):
    return subprocess.run(["/usr/bin/python3", CHECK, str(root)], capture_output=True, text=True,
                          check=False)


@pytest.fixture(name="tree")
def tree_fixture(tmp_path):
    """A copy of what the check reads."""
    for part in ("bpf", "user", "include", "docs", "deploy/prometheus"):
        shutil.copytree(os.path.join(ROOT, part), tmp_path / part)
    for page in ("README.md", "CONTRIBUTING.md"):
        shutil.copy(os.path.join(ROOT, page), tmp_path)
    return tmp_path


def change(tree, path, pattern, replacement):
    text = (tree / path).read_text(encoding="utf-8")
    changed = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    assert changed != text, f"/{pattern}/ is not in {path} any more"
    (tree / path).write_text(changed, encoding="utf-8")


def test_pages_are_true(tree):
    done = check(tree)
    assert done.returncode == 0, done.stderr


# What changes in the sources, and the words of the complaint.
SOURCES = [
    ("user/agent/metrics.c", r'"kubelb_ejections_total"', '"kubelb_novel_total"', "kubelb_novel_total"),
    ("user/agent/metrics.c", r'%s\{result=', "%s{novel=",
     "'kubelb_discovery_updates_total' has the labels ['novel']"),
    ("user/agent/metrics.c", r'"%s\{backend=', '"%s{novel=',
     "'kubelb_connections_active' has the labels ['novel']"),
    ("user/balance/names.c", r'\{ "no_answer"', '{ "novel"', "label value 'novel'"),
    ("user/agent/metrics.c", r'"rebalance"', '"novel"', "'novel'"),
    ("user/balance/names.c", r'return "suspect"', 'return "novel"', "state 'novel'"),
    ("user/balance/names.c", r'"tls handshake"', '"novel reason"', "reason 'novel reason'"),
    ("user/ctl/events.c", r'return "peer-lost"', 'return "novel"', "event 'novel'"),
    ("user/balance/names.c", r'\{ "gave_up"', '{ "novel"', "failure 'novel'"),
    ("user/balance/names.c", r'\{ "seeds"', '{ "novel"', "state of discovery 'novel'"),
    ("user/discovery/watch.c", r'= "expired"', '= "novel"', "result of discovery 'novel'"),
    ("user/agent/sync.c", r'"cannot update the maps"', '"novel words of a log"',
     "novel words of a log"),
    ("user/balance/plan.c", r"carried by open", "carried by novel", "carried by novel connections"),
    ("user/config/validate.c", r"would connect to ", "would novel to ", "would novel to itself"),
    ("user/config/schema.c", r'KEY\("connectTimeout"', 'KEY("novelKey"', "key novelKey is missing"),
    ("user/config/schema.c", r"\.min = 10, \.max = 5 \* MINUTE_MS|\.min = 10,\n\s+\.max = 5",
     ".min = 20,\n\t    .max = 5", "its range is '20ms to 5m'"),
    ("user/load/main.c", r'\{ "dry-run", no_argument', '{ "novel-run", no_argument',
     "--novel-run is missing"),
    ("user/ctl/main.c", r'\{ "undrain", "BACKEND"', '{ "novel", "BACKEND"', "command 'novel'"),
    ("user/base/cli.h", r"CLI_USAGE = 2", "CLI_USAGE = 7", "exit status 7"),
    ("user/ctl/status.c", r'"heardSecondsAgo"', '"novelSecondsAgo"', "JSON key 'novelSecondsAgo'"),
    ("user/datapath/pin.c", r'\[MAP_WAKEUP\] = "wakeup"', '[MAP_WAKEUP] = "novel"', "pin 'novel'"),
    ("deploy/prometheus/kubelb-alerts.yaml", r"alert: KubelbAgentDown", "alert: KubelbNovel",
     "there is no alert KubelbAgentDown"),
    ("deploy/prometheus/kubelb-alerts.yaml", r"#kubelbimbalance", "#kubelbnovel", "no runbook"),
]


@pytest.mark.parametrize("path,pattern,replacement,words", SOURCES,
                         ids=[f"{s[0].split('/')[-1]}-{s[3]}" for s in SOURCES])
def test_news_in_the_sources(tree, path, pattern, replacement, words):
    change(tree, path, pattern, replacement)
    done = check(tree)
    assert done.returncode == 1 and words in done.stderr, done.stderr


@pytest.mark.parametrize("path,pattern,replacement,words", [
    ("README.md", r"`user/balance/health\.c`", "`user/balance/novel.c`",
     "there is no user/balance/novel.c"),
    ("README.md", r"`on_failure`", "`on_novel`", "health.c has no function on_novel"),
    ("README.md", r"`set_state\(h, KLB_STATE_DEAD", "`set_state(h, KLB_STATE_NOVEL",
     "on_failure in user/balance/health.c does not have 'set_state(h, KLB_STATE_NOVEL, now_ns)'"),
    # The line is in the file, but in another function.
    ("README.md", r"`set_state\(h, KLB_STATE_DEAD", "`set_state(h, KLB_STATE_READY",
     "on_failure in user/balance/health.c does not have"),
    ("user/datapath/apply.c", r"MAP_CANDIDATES\], &value", "MAP_NOVEL], &value",
     "apply_frontend in user/datapath/apply.c does not have"),
    ("README.md", r"^## Where to look", "## Novel", "finds no table 'Where to look'")])
def test_where_to_look(tree, path, pattern, replacement, words):
    change(tree, path, pattern, replacement)
    done = check(tree)
    assert done.returncode == 1 and words in done.stderr, done.stderr


@pytest.mark.parametrize("text,words", [
    ("word " * 101, 101), ("- " + "word " * 120, 120), ("| a | " + "word " * 105 + "|\n", 105),
    ("word word\n" * 51, 102)])
def test_long_paragraph(tree, text, words):
    page = tree / OPERATIONS
    page.write_text(page.read_text(encoding="utf-8") + "\n" + text + "\n", encoding="utf-8")
    done = check(tree)
    assert done.returncode == 1 and f"a paragraph of {words} words; at most 100" in done.stderr


def test_paragraph_of_a_hundred_words(tree):
    page = tree / OPERATIONS
    page.write_text(page.read_text(encoding="utf-8") + "\n" + "word " * 100 + "\n\n```\n"
                    + "word " * 200 + "\n```\n", encoding="utf-8")
    done = check(tree)
    assert done.returncode == 0, done.stderr


def test_a_new_file_needs_a_line(tree):
    (tree / "user" / "base" / "novel.c").write_text("")
    (tree / "bpf" / "novel.bpf.h").write_text("")
    done = check(tree)
    assert done.returncode == 1
    assert "user/base/novel.c is in no table" in done.stderr
    assert "bpf/novel.bpf.h is in no table" in done.stderr


def test_a_file_that_is_gone(tree):
    os.remove(tree / "user" / "balance" / "rebalance.c")
    done = check(tree)
    assert done.returncode == 1 and "there is no user/balance/rebalance.c" in done.stderr


def test_a_page_that_forgets(tree):
    """Every message is looked for: without the last part of the page each is missed."""
    listed = subprocess.run(["/usr/bin/python3", CHECK, "--list"], capture_output=True, text=True,
                            check=True).stdout.splitlines()
    assert len(listed) > 200, "the messages are not found any more"
    page = (tree / OPERATIONS).read_text(encoding="utf-8")
    (tree / OPERATIONS).write_text(page[:page.index("\n## Messages")], encoding="utf-8")
    done = check(tree)
    missed = done.stderr.count("is not explained")
    assert done.returncode == 1 and missed > 150, done.stderr


def test_a_metric_that_is_not_there(tree):
    change(tree, OPERATIONS, r"^## Events", "Look at `kubelb_novel_total`.\n\n## Events")
    done = check(tree)
    assert done.returncode == 1 and "there is no metric 'kubelb_novel_total'" in done.stderr


def test_a_link_that_leads_nowhere(tree):
    change(tree, OPERATIONS, r"^## Events", "[See](#novel).\n\n## Events")
    done = check(tree)
    assert done.returncode == 1 and "#novel leads nowhere" in done.stderr


def test_two_rows_for_one_thing(tree):
    change(tree, OPERATIONS, r"^(\| kubelb-load \| `--pin.*)$", r"\1\n| kubelb-load | again |")
    done = check(tree)
    assert done.returncode == 1 and "the table has a row for kubelb-load already" in done.stderr
