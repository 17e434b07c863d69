# SPDX-License-Identifier: BSD-2-Clause
"""The agent's status page, over HTTP and as a browser shows it."""

import base64
import contextlib
import hashlib
import http.server
import json
import os
import re
import signal
import threading
import time

import pytest

from browser import Browser, find_chromium
from helpers import V4, Kept, http_call, nbconnect, ok, wait_states
from system import inside, wait_until

PORT = 8081
BYTES_MAX = 60 * 1024
FIRST_PAINT_MS = 200
MEMORY_MAX_KIB = 512
HOSTILE = "<img src=x onerror=\"window.hacked=1\"></script><script>window.hacked=1</script>&lt;"


def url(port=PORT):
    return f"http://{V4}:{port}/"


def page(stage):
    status, headers, body = http_call(stage, "GET", "/")
    assert status == 200
    return headers, body


def history(stage):
    status, headers, body = http_call(stage, "GET", "/history.json")
    assert status == 200 and headers["Content-Type"] == "application/json"
    return json.loads(body)


def policy(headers):
    """Directive -> its sources."""
    parts = [p.split() for p in headers["Content-Security-Policy"].split(";")]
    return {name: sources for name, *sources in parts}


# --- over HTTP ---------------------------------------------------------------


def test_the_page_needs_nothing_else(balanced):
    """One document, small, without a word of another address."""
    headers, body = page(balanced)
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert len(body.encode()) <= BYTES_MAX
    print(f"MEASURED {len(body.encode())} bytes")
    addresses = set(re.findall(r"https?://[^\s'\"`<>]+", body))
    assert addresses <= {"http://www.w3.org/2000/svg"}, addresses
    assert not re.search(r"<(script|link|img|iframe)[^>]* (src|href)=\"(?!data:)", body)
    assert not re.search(r"\son\w+=|\sstyle=", body), "the policy would refuse it"


def test_the_policy_allows_what_is_there_and_nothing_else(balanced):
    headers, body = page(balanced)
    allowed = policy(headers)
    assert allowed["default-src"] == ["'none'"] and allowed["frame-ancestors"] == ["'none'"]
    assert allowed["base-uri"] == ["'none'"] and allowed["form-action"] == ["'none'"]
    assert allowed["connect-src"] == ["'self'"]
    assert allowed["require-trusted-types-for"] == ["'script'"]
    assert allowed["trusted-types"] == ["'none'"]
    for element in ("script", "style"):
        text, = re.findall(rf"<{element}>(.*?)</{element}>", body, re.S)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert allowed[f"{element}-src"] == [f"'sha256-{digest}'"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY" and headers["Referrer-Policy"] == "no-referrer"


def test_head_and_other_methods(balanced):
    _headers, body = page(balanced)
    status, headers, told = http_call(balanced, "HEAD", "/")
    assert (status, told) == (200, "") and int(headers["Content-Length"]) == len(body.encode())
    assert "Content-Security-Policy" in headers
    assert http_call(balanced, "POST", "/")[0] == 405
    assert http_call(balanced, "GET", "/?x=y")[0] == 200
    for path in ("/index.html", "/page.js", "/page.css", "//", "/.", "/favicon.ico"):
        status, headers, told = http_call(balanced, "GET", path)
        assert status == 404 and "Content-Security-Policy" not in headers, path
        assert told == "not found; there are /, /metrics, /healthz, /readyz and /status\n"


@pytest.mark.parametrize("path", ["/status.json", "/status", "/history.json", "/metrics", "/none"])
def test_no_browser_takes_an_answer_for_something_else(balanced, path):
    assert http_call(balanced, "GET", path)[1]["X-Content-Type-Options"] == "nosniff"


def test_what_only_the_agent_knows(balanced):
    """The document is that of kubelbctl; the certificates are known to the agent alone."""
    told = json.loads(http_call(balanced, "GET", "/status.json")[2])
    read = json.loads(ok(balanced.ctl("status", "-o", "json")).stdout)
    assert told.keys() == read.keys() and told["agent"].keys() == read["agent"].keys()
    assert told["version"] == read["version"] and told["host"] == read["host"]
    for b in told["backends"]:
        assert b["certificateExpiresInSeconds"] > 0
    assert {b["certificateExpiresInSeconds"] for b in read["backends"]} == {None}


def test_history_counts_each_connect_once(balanced):
    """What the samples have, added up, is what was connected."""
    wait_until(lambda: history(balanced)["seconds"], "the first sample", 15)
    before = len(history(balanced)["seconds"])
    nbconnect(balanced, "-n", 40, V4)
    wait_until(lambda: len(history(balanced)["seconds"]) >= before + 2, "two samples", 15)
    got = history(balanced)
    assert {b["address"] for b in got["backends"]} == {b.endpoint for b in balanced.backends}
    assert sum(sum(v for v in b["opened"] if v) for b in got["backends"]) == 40
    assert all(len(b[key]) == len(got["seconds"]) for b in got["backends"]
               for key in ("active", "opened", "failed"))
    assert all(4 < s < 10 for s in got["seconds"]), got["seconds"]
    assert 0 <= got["newestSecondsAgo"] < 10


def test_history_tells_what_happened_and_not_to_whom(balanced):
    """A failed connect and a backend's death; whose connect it was is for root alone."""
    balanced.running.signal(signal.SIGSTOP)  # it would take the backend out first
    balanced.cp(1).kill()
    assert nbconnect(balanced, "-n", 40, V4)["failed"] > 0
    balanced.running.signal(signal.SIGCONT)
    wait_states(balanced, "dead", [balanced.cp(1)])
    address = balanced.cp(1).endpoint
    wait_until(lambda: any(e["event"] == "state" and e["state"] == "dead" and
                           e["backend"] == address for e in history(balanced)["changes"]),
               "the death to be told")
    balanced.cp(1).start()
    wait_states(balanced, "ready", [balanced.cp(1)])
    wait_until(lambda: history(balanced)["changes"][-1]["state"] == "ready", "the return")
    events = history(balanced)["events"]
    assert {"connect-failed", "ejected"} <= {e["event"] for e in events}
    assert all(e["process"] == {"name": "", "pid": 0, "cgroupId": 0} for e in events), events
    assert "nbconnect" in ok(balanced.ctl("events")).stdout


# --- in a browser ------------------------------------------------------------


@pytest.fixture(name="browser")
def browser_fixture(stage, tmp_path):
    if not find_chromium():
        pytest.skip("there is no chromium (scripts/deps.sh installs it)")
    with Browser(stage, tmp_path) as browser:
        browser.look()
        yield browser


def faults(browser):
    """What the browser has complained about: exceptions, refusals of the policy, failed loads."""
    found = [e["exceptionDetails"] for e in browser.seen("Runtime.exceptionThrown")]
    found += [e for e in browser.seen("Runtime.consoleAPICalled")]
    return found + [e["entry"]["text"] for e in browser.seen("Log.entryAdded")]


def asked(browser):
    """The URLs that were fetched."""
    return {e["request"]["url"] for e in browser.seen("Network.requestWillBeSent")}


class Forged:
    """A server with the agent's page and documents of the test's own."""

    def __init__(self, stage, status, history_document):
        headers, body = page(stage)
        answers = {"/": (headers.items(), body.encode()),
                   "/word": ([("Content-Type", "text/html")], b"<!doctype html>word"),
                   "/status.json": ([("Content-Type", "application/json")],
                                    lambda: json.dumps(self.status).encode()),
                   "/history.json": ([("Content-Type", "application/json")],
                                     lambda: json.dumps(self.history).encode())}
        self.status, self.history = status, history_document

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                head, data = answers[self.path]
                data = data() if callable(data) else data
                self.send_response(200)
                for name, value in head:
                    if name not in ("Content-Length", "Date", "Connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_args):
                pass

        with inside(stage.node):
            self.server = http.server.ThreadingHTTPServer((V4, 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.server.shutdown()
        self.server.server_close()


def documents(stage):
    return json.loads(http_call(stage, "GET", "/status.json")[2]), history(stage)


def test_first_sight(balanced, browser):
    """Everything, without a complaint and from one place only."""
    browser.open(url())
    text = browser.wait_text("All 3 backends are ready")
    for word in [b.endpoint for b in balanced.backends] + ["ready", "least-conn", "Frontends",
                                                           f"{V4}:6443", "balanced", "Relay"]:
        assert word in text, word
    assert browser.evaluate("document.querySelectorAll('#graphs svg').length") == 3
    assert "<main>" not in text and "undefined" not in text and "NaN" not in text
    assert not faults(browser), faults(browser)
    assert asked(browser) <= {url(), url() + "status.json", url() + "history.json", "data:,"} | {
        u for u in asked(browser) if u.startswith("data:image/svg+xml,")}, asked(browser)


def test_first_paint_is_soon(balanced, browser):
    """Within 200 ms; on a busy machine hardly later than a document of one word."""
    paints, words = [], []

    def paint(address, text):
        browser.open(address)
        browser.wait_text(text, timeout=30)
        return round(wait_until(lambda: browser.evaluate(
            "(performance.getEntriesByName('first-contentful-paint')[0] || {}).startTime"),
            "a paint"))

    def soon():
        words.append(paint(url(forged.port) + "word", "word"))
        paints.append(paint(url(), "All 3 backends are ready"))
        return paints[-1] <= max(FIRST_PAINT_MS, min(words) + FIRST_PAINT_MS / 2)

    with Forged(balanced, *documents(balanced)) as forged:
        wait_until(soon, lambda: f"a soon first paint, has {paints} ms; one word: {words}", 60)
    print(f"MEASURED first contentful paint after {paints} ms; one word: {words}")


def test_changes_show_without_a_reload(balanced, browser):
    """A death and a return, in the same document: text that a reader has selected stays."""
    browser.open(url())
    browser.wait_text("All 3 backends are ready")
    browser.evaluate("window.kept = document.querySelector('#backends table')")
    victim = balanced.cp(1)
    victim.kill()
    text = browser.wait_text("2 of 3 backends are ready")
    assert f"{victim.endpoint} is dead" in text or f"{victim.endpoint} is suspect" in text
    browser.wait_text("dead", "#backends")
    browser.wait_text("dead", "#events")
    assert "2 of 3" in browser.evaluate("document.title")
    victim.start()
    browser.wait_text("All 3 backends are ready")
    assert browser.evaluate("window.kept === document.querySelector('#backends table')")
    assert not faults(browser), faults(browser)


def test_connections_show(balanced, browser):
    """Their number, and a curve."""
    browser.open(url())
    browser.wait_text("All 3 backends are ready")
    with contextlib.ExitStack() as stack:
        for _ in range(7):
            stack.enter_context(Kept(balanced))
        wait_until(lambda: browser.text("#graphs .number").strip() == "7", "7 connections")
        wait_until(lambda: "now 7" in (browser.evaluate(
            "document.querySelector('#graphs svg').getAttribute('aria-label')")), "the curve", 15)
    wait_until(lambda: browser.text("#graphs .number").strip() == "0", "no connection")


def test_agent_that_ends(balanced, browser):
    """What was shown stays, in grey and with its time, until the next agent answers."""
    browser.open(url())
    browser.wait_text("All 3 backends are ready")
    balanced.running.stop()
    text = browser.wait_text("The agent does not answer")
    assert "What follows is of" in text and balanced.cp(1).endpoint in text
    assert browser.evaluate("document.querySelector('main').classList.contains('stale')")
    balanced.agent()
    browser.wait_text("All 3 backends are ready")
    assert not browser.evaluate("document.querySelector('main').classList.contains('stale')")


def test_nothing_is_attached(balanced, browser):
    ok(balanced.detach())
    wait_until(lambda: http_call(balanced, "GET", "/status.json")[0] == 503, "the agent to notice")
    browser.open(url())
    text = browser.wait_text("Nothing is balanced here")
    assert "run kubelb-load" in text


def luminance(colour):
    parts = [int(v) / 255 for v in re.findall(r"\d+", colour)[:3]]
    lin = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return 0.2126 * lin[0] + 0.7152 * lin[1] + 0.0722 * lin[2]


CONTRASTS = """[...document.querySelectorAll('body *')].filter((e) => [...e.childNodes].some(
    (n) => n.nodeType === 3 && n.data.trim()) && e.getClientRects().length && !e.closest('script,style')).map((e) => {
  let back = e;
  while (back.parentElement && getComputedStyle(back).backgroundColor === 'rgba(0, 0, 0, 0)') back = back.parentElement;
  return [e.textContent.slice(0, 40), getComputedStyle(e).color, getComputedStyle(back).backgroundColor];
})"""


def test_dark_and_light(balanced, browser):
    """As the reader likes it, and legible in both (a contrast of 4.5, as WCAG asks)."""
    balanced.cp(1).kill()
    wait_states(balanced, "dead", [balanced.cp(1)])
    ok(balanced.ctl("drain", balanced.cp(2).endpoint))
    backs = []
    for dark in (False, True):
        browser.look(dark=dark)
        browser.open(url())
        browser.wait_text("1 of 3 backends is ready")
        browser.wait_text("dead", "#events")
        for text, fore, back in browser.evaluate(CONTRASTS):
            high, low = sorted((luminance(fore), luminance(back)), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, f"{text!r}: {fore} on {back}, dark: {dark}"
        backs.append(luminance(browser.evaluate(
            "getComputedStyle(document.documentElement).backgroundColor")))
    assert backs[0] > 0.8 and backs[1] < 0.05


WIDE = "[...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > innerWidth + 0.5).map((e) => e.outerHTML.slice(0, 200))"


@pytest.mark.parametrize("width", [360, 480, 840, 1280])
def test_no_width_needs_scrolling_sideways(balanced, browser, width):
    """Long addresses, reasons and names, many backends."""
    status, past = documents(balanced)
    model = status["backends"][0]
    status["backends"] = [{**model, "address": f"[2001:db8:1111:2222:3333:4444:5555:{i:x}]:16443",
                           "why": "it closes connections without sending data; " * 3,
                           "state": "ejected" if i % 9 == 0 else "ready", "opened": 10 ** 9,
                           "active": 123456 + i} for i in range(64)]
    status["host"] = "node-with-a-very-long-name." * 5
    status["features"].append({"name": "a" * 70, "present": False, "detail": "x" * 200,
                               "loss": "y" * 200})
    past["backends"] = [{"address": b["address"], "active": [123456] * 120, "opened": [1] * 120,
                         "failed": [0] * 120} for b in status["backends"]]
    past["seconds"] = [5] * 120
    with Forged(balanced, status, past) as forged:
        browser.look(width=width, height=800)
        browser.open(url(forged.port))
        browser.wait_text("56 of 64 backends are ready")
        assert browser.evaluate("document.scrollingElement.scrollWidth") <= width
        assert not browser.evaluate(WIDE)


def hostile(value):
    """The same document with hostile text wherever there is text that the page may show."""
    if isinstance(value, dict):
        return {k: v if k in ("time", "dataPath") else hostile(v) for k, v in value.items()}
    if isinstance(value, list):
        return [hostile(v) for v in value]
    return HOSTILE if isinstance(value, str) else value


def test_hostile_text_is_text(balanced, browser):
    """Whatever the agent's documents have in them: of processes, programs or apiservers."""
    balanced.cp(1).kill()
    wait_states(balanced, "dead", [balanced.cp(1)])
    status, past = map(hostile, documents(balanced))
    status["lock"] = {"pid": 1, "name": HOSTILE, "processSeconds": 99.5}
    status["diverted"] = {"count": 3, "lastTo": HOSTILE}
    status["features"] = [{"name": HOSTILE, "present": False, "detail": HOSTILE, "loss": HOSTILE}]
    status["otherPrograms"] = [{"name": HOSTILE, "programId": 3}]
    status["relay"] = {"rescue": {"on": False, "off": HOSTILE}, "detour": {"on": True, "off": None},
                       "connections": 1, "standsInFor": [HOSTILE]}
    with Forged(balanced, status, past) as forged:
        browser.open(url(forged.port))
        text = browser.wait_text(f"{HOSTILE} is {HOSTILE}: {HOSTILE}")
        assert text.count(HOSTILE) > 20
        forged.status = {**status, "dataPath": "relay", "dataPathReason": HOSTILE, "listeners": [
            {"frontend": HOSTILE, "listens": False, "error": HOSTILE}]}
        browser.wait_text(f"The agent relays every connect: {HOSTILE}")
        browser.wait_text(f"{HOSTILE} is not served: {HOSTILE}")
    assert browser.evaluate("window.hacked") is None
    assert browser.evaluate("document.querySelectorAll('img, body script:not(:last-of-type)').length") == 0
    refused = [f for f in faults(browser) if "ERR_" not in str(f)]  # the forged server has ended
    assert not refused, refused


def test_the_policy_is_enforced(balanced, browser):
    """A script that got in all the same would not run, and could ask nobody else."""
    browser.open(url())
    browser.wait_text("All 3 backends are ready")
    got = browser.evaluate("""(async () => {
        const tried = [];
        const script = document.createElement('script');
        try { script.text = 'window.hacked = 1'; document.body.append(script); } catch (e) { tried.push(e.name); }
        try { document.body.innerHTML = '<b>x</b>'; } catch (e) { tried.push(e.name); }
        try { await fetch('http://127.0.0.2:8081/status'); } catch (e) { tried.push(e.name); }
        return [tried, window.hacked === undefined];
    })()""")
    assert got == [["TypeError"] * 3, True]


def memory(agent, kind="RssAnon"):
    """In KiB: its own (RssAnon), or with the pages of program and libraries (VmRSS)."""
    with open(f"/proc/{agent.pid}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith(f"{kind}:"))


def test_an_open_page_costs_the_agent_little(balanced, browser):
    """For twenty seconds, on two screens."""
    agent = balanced.running
    before, all_before = memory(agent), memory(agent, "VmRSS")
    browser.open(url())
    browser.wait_text("All 3 backends are ready")
    most, end = memory(agent), time.monotonic() + 20  # the time is what is tested
    while time.monotonic() < end:
        most = max(most, memory(agent))
        browser.seen("none")
        time.sleep(0.2)
    print(f"MEASURED {before} KiB without the page, at most {most} KiB with it; "
          f"with code {all_before} and {memory(agent, 'VmRSS')} KiB")
    assert most - before <= MEMORY_MAX_KIB


# --- where the agent is the data path ----------------------------------------


@pytest.fixture(name="relaying")
def relaying_fixture(stage, tmp_path):
    stage.configure(dataPath="relay", http=[f"{V4}:{PORT}", f"unix:{tmp_path}/agent.sock"])
    stage.ctl_options = ["-c", stage.config]
    stage.agent(env={**os.environ, "STATE_DIRECTORY": str(tmp_path)})
    wait_until(lambda: stage.ctl("ping", "ready").returncode == 0, "the agent to be ready")
    wait_states(stage, "ready", stage.backends)
    return stage


def test_relayed_connects_are_counted(relaying):
    wait_until(lambda: history(relaying)["seconds"], "the first sample", 15)
    nbconnect(relaying, "-n", 30, V4)

    def opened():
        return sum(sum(v for v in b["opened"] if v) for b in history(relaying)["backends"])

    wait_until(lambda: opened() == 30, lambda: f"30 connects, has {opened()}", 15)


def test_the_page_says_who_relays(relaying, browser):
    browser.open(url())
    text = browser.wait_text("The agent relays every connect: dataPath is relay")
    assert "All 3 backends are ready" in text and "relayed" in browser.text("#frontends")
    assert not faults(browser), faults(browser)
