# SPDX-License-Identifier: BSD-2-Clause
"""The test apiserver in HTTP/2, and the clients that tests and measurements of faults have:
each behaviour by itself, without KubeLB."""

import contextlib
import json
import os
import subprocess
import sys
import time

import pytest

from helpers import Kept, ok
from system import WorldError, inside, wait_until
from world import ROOT

CLIENTS = os.path.join(ROOT, "tests", "clients")
sys.path.append(CLIENTS)

from h2client import H2Client, Lost  # noqa: E402  (after sys.path)

SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
TOKEN = "t1"
H2 = ["h2", "http/1.1"]
SILENT = 0.15  # seconds in which nothing comes


@pytest.fixture(name="api")
def api_fixture(stage):
    """A test apiserver with HTTP/2 on cp1; none of its faults was a mistake of its own."""
    api = stage.apiserver(1, tokens={TOKEN: "system:node:worker"}, alpn=H2)
    yield api
    if not api.stopped():
        with contextlib.suppress(OSError):  # killed by the test
            assert api.counters(timeout=1)["errors"] == 0, api.read("stderr.log")
    assert "Traceback" not in api.read("stderr.log"), api.read("stderr.log")


def connect(stage, api, **kwargs):
    with inside(stage.node):
        return H2Client(api.v4, 6443, stage.ca, **kwargs)


def until(client, condition):
    """Reads until it holds."""
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        client.read(0.1)


def pongs(client, seconds=5):
    """Is a PING answered within that time?"""
    before = client.pongs
    client.ping()
    deadline = time.monotonic() + seconds
    while client.pongs == before and time.monotonic() < deadline:
        client.read(0.02)
    return client.pongs > before


def watch(stage, client):
    response = client.get(f"{SLICES}?watch=true&resourceVersion={stage.etcd.revision}", TOKEN)
    until(client, lambda: response.status is not None)
    assert response.status == 200
    return response


def versions(response):
    return [int(json.loads(line)["object"]["metadata"]["resourceVersion"])
            for line in response.data.splitlines()]


def lost(client):
    """How the connection is lost."""
    with pytest.raises(Lost) as e:
        for _ in range(100):
            client.read(0.1)
    return e.value.name


# --- what it serves ----------------------------------------------------------


def test_http2_where_it_is_set(stage):
    """Not by default; and beside HTTP/1.1, for those that ask for nothing."""
    api = stage.apiserver(1)
    with pytest.raises(Lost, match="PROTOCOL"):
        connect(stage, api)
    api.set(alpn=H2)
    with connect(stage, api) as client, Kept(stage, api.v4) as old:
        assert old.get("/readyz") == (200, "ok")
        for path in ("/readyz", "/livez", "/readyz"):
            assert client.whole(path) == (200, "ok")
        assert json.loads(client.whole("/version")[1])["backend"] == "cp1"
        assert client.whole(SLICES)[0] == 403
        for _ in range(3):
            assert pongs(client)
        [mine] = api.clients(protocol="h2", open=True)
        assert mine == {"client": client.local, "open": True, "protocol": "h2", "handshakes": 1,
                        "pings": 3, "streams": 0,
                        "requests": {"/readyz": 2, "/livez": 1, "/version": 1, "list": 1}}
        assert api.clients(protocol="http/1.1", open=True)[0]["requests"] == {"/readyz": 1}
    api.wait_counters(lambda c: c["open"] == 0, "the end of both")
    assert api.clients(client=mine["client"])[0]["open"] is False
    counters = api.counters()
    assert counters["pings"] == 3
    assert counters["protocols"] == {"http/1.1": 2, "h2": 1}  # the first came to nothing
    assert {r["protocol"] for r in api.requests(uri="/version")} == {"HTTP/2.0"}


def test_list_and_watch(stage, api):
    """Streams beside each other; a list larger than the windows of flow control."""
    stage.etcd.put("large", [f"10.{i // 256}.{i % 256}.1" for i in range(4000)])
    with connect(stage, api) as client:
        status, text = client.whole(SLICES, TOKEN)
        assert status == 200 and len(text) > 200000
        version = int(json.loads(text)["metadata"]["resourceVersion"])
        assert version == stage.etcd.revision
        one, other = watch(stage, client), watch(stage, client)
        for i in range(3):
            stage.etcd.put("kubernetes", [f"10.0.0.{i}"])
        for response in (one, other):
            until(client, lambda r=response: r.data.count(b"\n") == 3)
            assert versions(response) == [version + 1, version + 2, version + 3]
        assert client.whole("/readyz") == (200, "ok")
        assert api.clients(client=client.local)[0]["streams"] == 2
        assert api.watches("end") == 2
        until(client, lambda: one.ended and other.ended)
        assert api.counters()["watches"] == 0


def test_phases(stage, api):
    with connect(stage, api) as client:
        api.phase("unready")
        assert [client.whole(p)[0] for p in ("/readyz", "/livez")] == [500, 500]
        api.phase("etcd-stall", livez_after=0)
        assert client.whole("/readyz", timeout=SILENT) is None
        assert client.whole("/livez")[0] == 500  # no stream waits for another
        assert pongs(client)


def test_shutdown(stage, api):
    """GOAWAY; what is under way goes on until the process ends."""
    with connect(stage, api) as client, connect(stage, api) as idle:
        response = watch(stage, client)
        assert idle.whole("/readyz") == (200, "ok")
        api.shutdown(linger=0.5)
        assert lost(idle) == "GOAWAY" and idle.goaway == 1
        until(client, lambda: client.goaway == 1)
        stage.etcd.put("kubernetes", ["10.0.0.1"])
        until(client, lambda: response.data)
        assert api.wait_exit() == 0
        assert lost(client) in ("GOAWAY", "ECONNRESET")


# --- faults ------------------------------------------------------------------


@pytest.mark.parametrize("how, flows", [("handlers", True), ("http", False)])
def test_handlers_hang_alone(stage, api, how, flows):
    """PINGs are answered, requests are not; open watches as is asked for."""
    with connect(stage, api) as client, connect(stage, api) as other:
        open_watch = watch(stage, other)
        api.hang(how)
        assert client.whole("/readyz", timeout=SILENT) is None
        assert client.whole("/livez", timeout=SILENT) is None
        assert pongs(client) and pongs(other)
        stage.etcd.put("kubernetes", ["10.0.0.1"])
        if flows:
            until(other, lambda: open_watch.data)
        else:
            other.read(SILENT)
            assert not open_watch.data
        api.hang(None)
        until(other, lambda: open_watch.data)
        assert client.whole("/readyz") == (200, "ok")


def test_process_hangs(stage, api):
    with connect(stage, api) as client:
        api.stop()
        assert not pongs(client, SILENT)
        api.cont()
        until(client, lambda: client.pongs == 1)


@pytest.mark.parametrize("http2", [True, False])
def test_one_connection_hangs(stage, api, http2):
    """No PING is answered on it, nothing is read; all others, old and new, are well."""
    with connect(stage, api) as client, connect(stage, api) as other, Kept(stage, api.v4) as old:
        assert old.get("/readyz") == (200, "ok")
        mine = client.local if http2 else "%s:%d" % old.sock.getsockname()[:2]
        assert api.freeze(mine) == 1
        if http2:
            assert not pongs(client, SILENT)
            assert client.whole("/readyz", timeout=SILENT) is None
            assert old.get("/readyz") == (200, "ok")
        else:
            old.send("/readyz")
            old.sock.settimeout(SILENT)
            with pytest.raises(TimeoutError):
                old.sock.recv(1)
            assert pongs(client)
        assert pongs(other)
        with connect(stage, api) as new:
            assert pongs(new) and new.whole("/readyz") == (200, "ok")
        seen = api.clients(client=mine)[0]
        assert (seen["pings"], seen["requests"]) == (0, {} if http2 else {"/readyz": 1})
        assert api.freeze(None) == 1
        if http2:
            until(client, lambda: client.pongs == 1)
            assert client.whole("/readyz") == (200, "ok")


def test_goaway_and_an_end(stage, api):
    """What is open goes on, new streams get nothing, and after a while it is closed."""
    with connect(stage, api) as client, connect(stage, api) as other:
        response = watch(stage, client)
        start = time.monotonic()
        assert api.goaway(client.local, after=0.5) == 1
        until(client, lambda: client.goaway == 1)
        stage.etcd.put("kubernetes", ["10.0.0.1"])
        until(client, lambda: response.data)
        assert client.whole("/readyz", timeout=SILENT) is None
        assert lost(client) == "GOAWAY"
        assert time.monotonic() - start >= 0.5
        assert other.goaway is None and pongs(other)


def test_goaway_without_an_open_stream(stage, api):
    with connect(stage, api) as client, connect(stage, api) as busy:
        response = watch(stage, busy)
        assert api.goaway() == 2
        assert lost(client) == "GOAWAY"
        assert pongs(busy)  # has one
        api.watches("end")
        assert lost(busy) == "GOAWAY" and response.ended and response.reset is None


def test_goaway_with_an_earlier_stream(stage, api):
    """Those above the last one that it names are served no more."""
    with connect(stage, api) as client:
        first, second = watch(stage, client), watch(stage, client)
        api.goaway(client.local, last=1)
        until(client, lambda: second.reset == "GOAWAY")
        api.wait_counters(lambda c: c["watches"] == 1, "the end of the second watch")
        stage.etcd.put("kubernetes", ["10.0.0.1"])
        until(client, lambda: first.data)


def test_idle_in_spite_of_pings(stage, api):
    with connect(stage, api) as client, connect(stage, api) as busy:
        watch(stage, busy)
        start = time.monotonic()
        api.set(idle_timeout=0.6)
        with pytest.raises(Lost, match="GOAWAY"):
            while time.monotonic() - start < 5:
                assert pongs(client)
        assert time.monotonic() - start >= 0.5
        assert client.pongs > 1
        assert pongs(busy) and busy.goaway is None


@pytest.mark.parametrize("how, name", [("close", "EOF"), ("fin", "EOF"), ("rst", "ECONNRESET")])
def test_ends(stage, api, how, name):
    with connect(stage, api) as client, connect(stage, api) as other:
        watch(stage, client)
        assert api.disconnect(how, client.local) == 1
        assert lost(client) == name
        assert pongs(other)
        assert api.disconnect(how, "10.1.1.1:1") == 0


@pytest.mark.parametrize("how", ["half-json", "half-chunk", "garbage", "expire"])
def test_broken_watches(stage, api, how):
    with connect(stage, api) as client:
        response = watch(stage, client)
        assert api.watches(how) == 1
        if how.startswith("half"):
            assert lost(client) == "EOF"
            assert response.data.startswith(b'{"type"') == (how == "half-json")
        else:
            until(client, lambda: response.data)
            assert response.data.startswith(b'{"type":"ERROR"' if how == "expire" else b"this is")


def test_answers_on_command(stage, api):
    with connect(stage, api) as client:
        api.answer("/readyz", 503, body="not now")
        assert client.whole("/readyz") == (503, "not now")
        api.answer("/readyz", dribble=1)
        assert client.whole("/readyz") == (200, "ok")
        api.answer("/readyz", hang=True)
        assert client.whole("/readyz", timeout=SILENT) is None
        api.answer("/livez", cut=0.5)
        response = client.get("/livez")
        assert lost(client) == "EOF" and response.data == b"o"


def test_misuse_is_told(stage, api):
    for command, words in (
        (lambda: api.set(alpn=["h3"]), "alpn"),
        (lambda: api.set(alpn=[]), "alpn"),
        (lambda: api.freeze("some"), "watches"),
        (lambda: api.goaway(after=-1), "after"),
        (lambda: api.goaway(last="x"), "last"),
    ):
        with pytest.raises(WorldError, match=words):
            command()


# --- informers ---------------------------------------------------------------


class Informers:
    """informer.py in the node, and what it has reported."""

    def __init__(self, stage, host, *args):
        self.path = os.path.join(stage.dir, "informer.log")
        with open(self.path, "wb") as f:
            self.process = stage.spawn(
                ["/usr/bin/python3", os.path.join(CLIENTS, "informer.py"), "--ca", stage.ca,
                 "--token", TOKEN, "--host", host, *args], stdin=subprocess.DEVNULL, stdout=f)

    def seen(self, what, **fields):
        with open(self.path, encoding="ascii") as f:
            lines = [json.loads(line) for line in f.read().rpartition("\n")[0].splitlines()]
        return [line for line in lines if line["what"] == what
                and all(line.get(k) == v for k, v in fields.items())]

    def wait(self, what, count=1, **fields):
        def come():
            assert self.process.poll() is None
            return len(self.seen(what, **fields)) >= count and self.seen(what, **fields)[-1]

        return wait_until(come, lambda: f"{count} {what} {fields}; there are "
                          f"{open(self.path, encoding='ascii').read()}")


def put(stage, informers, address):
    """A change, and the informer's hearing of it."""
    revision = stage.etcd.put("kubernetes", [address])
    return informers.wait("event", version=revision)


@pytest.fixture(name="informer")
def informer_fixture(stage, api):
    """One at cp1, that has heard of something: a watch of under a second without an event
    would end with a list in any case."""
    informer = Informers(stage, api.v4)
    informer.wait("watch")
    put(stage, informer, "10.0.0.1")
    return informer


def test_informer(stage, api, informer):
    assert put(stage, informer, "10.0.0.2")["kind"] == "MODIFIED"
    assert len(informer.seen("connected")) == 1
    assert informer.seen("list")[-1]["lists"] == 1
    [client] = api.clients()
    assert client["client"] == informer.seen("connected")[0]["local"]
    assert (client["protocol"], client["requests"]) == ("h2", {"list": 1, "watch": 1})
    assert api.watches("end") == 1
    informer.wait("end", then="resume")
    informer.wait("watch", 2)
    assert len(informer.seen("connected")) == 1, "the next watch is on the same connection"


@pytest.mark.parametrize("how, name", [("fin", "EOF"), ("rst", "ECONNRESET"), ("go", "GOAWAY")])
def test_informer_resumes(stage, api, informer, how, name):
    """At once, from its last version: what has happened meanwhile is not lost."""
    if how == "go":
        api.goaway(after=0)
    else:
        api.disconnect(how)
    gone = informer.wait("lost", error=name, then="resume")
    again = informer.wait("watch", 2)
    assert again["at"] - gone["at"] < 0.5
    put(stage, informer, "10.0.0.3")
    assert len(informer.seen("list")) == 1 and not informer.seen("backoff")


def test_informer_lists_anew_when_aborted(stage, informer):
    """Not at once, and not from where it was."""
    local = informer.seen("connected")[0]["local"].split(":")
    ok(stage.exec(["ss", "-K", "-t", "src", local[0], "sport", "=", local[1]]))
    gone = informer.wait("lost", error="ECONNABORTED", then="list")
    assert informer.wait("list", 2)["at"] - gone["at"] >= 0.8
    assert informer.seen("list")[-1]["lists"] == 2
    put(stage, informer, "10.0.0.3")


def test_informer_resumes_when_its_connection_is_killed(stage, api):
    """KubeLB ends a connection by a reset: that is why."""
    stage.configure(backends=[api.endpoint])
    ok(stage.load())
    informer = Informers(stage, "127.0.0.1")
    informer.wait("watch")
    put(stage, informer, "10.0.0.1")
    assert ": 1 connection ended\n" in ok(stage.ctl("kill", api.endpoint)).stdout
    gone = informer.wait("lost", error="ECONNRESET", then="resume")
    again = informer.wait("watch", 2)
    assert again["at"] - gone["at"] < 0.5
    put(stage, informer, "10.0.0.3")
    assert len(informer.seen("list")) == 1 and not informer.seen("backoff")
    wait_until(lambda: len(api.clients(open=True)) == 1, "the apiserver to be rid of the old one")


def test_informer_and_a_dead_apiserver(stage, api, informer):
    """Refused, it comes back later, and has not forgotten where it was."""
    api.kill()
    informer.wait("lost", then="resume")
    informer.wait("failed", error="ECONNREFUSED")
    informer.wait("backoff")
    revision = stage.etcd.put("kubernetes", ["10.0.0.3"])
    api.start()
    informer.wait("event", version=revision)
    assert len(informer.seen("list")) == 1


def test_informer_takes_a_watch_that_was_too_short_for_an_error(stage, api, informer):
    api.watches("end")
    informer.wait("watch", 2)
    api.watches("end")
    informer.wait("end", then="list")
    informer.wait("list", 2)


def test_informer_takes_an_expired_version_for_an_error(stage, api, informer):
    assert api.watches("expire") == 1
    informer.wait("end", error="watch: 410", then="list")
    informer.wait("list", 2)


def test_informer_pings(stage, api):
    """Where nothing has come for a while; without an answer it starts over."""
    informer = Informers(stage, api.v4, "--ping-idle", "0.3", "--ping-timeout", "0.3",
                         "--handshake-timeout", "0.3")
    informer.wait("watch")
    api.wait_counters(lambda c: c["pings"] >= 2, "two PINGs")
    assert not informer.seen("lost")
    api.stop()
    informer.wait("lost", error="PING", then="list")
    informer.wait("failed", error="HANDSHAKE")
    api.cont()
    informer.wait("list", 2)


# --- and those that dial ------------------------------------------------------


def test_tls_dialler(stage, api):
    """Who has served it, or what the error was."""
    outcomes = {}
    for step in (lambda: None, api.stop, api.kill):
        step()
        dialler = stage.spawn(["/usr/bin/python3", os.path.join(CLIENTS, "tlsdial.py"), "--ca",
                               stage.ca, "--host", api.v4, "--rate", "20", "--give-up", "0.5"])
        assert dialler.stdout.readline() == "begun\n"
        with contextlib.suppress(subprocess.TimeoutExpired):
            dialler.wait(0.5)
        output, _ = dialler.communicate(timeout=10)
        for _start, seconds, error, name in json.loads(output):
            outcomes.setdefault((error, name), []).append(seconds)
    assert set(outcomes) == {(None, "cp1"), ("ETIMEDOUT", None), ("ECONNREFUSED", None)}
    assert min(outcomes["ETIMEDOUT", None]) >= 0.5
    assert all(5 <= len(seconds) <= 15 for seconds in outcomes.values())
