# SPDX-License-Identifier: BSD-2-Clause
"""The test apiserver: it is what tests of discovery and probes stand on, so each
of its answers and faults is looked at from the client's side, without KubeLB."""

import contextlib
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import time

import pytest

from backend import PORT
from helpers import Kept, dial, dial_error, ok, served_by, wait_states
from system import WorldError, has_mptcp, wait_until

SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
KUBERNETES = f"{SLICES}?labelSelector=kubernetes.io%2Fservice-name%3Dkubernetes"
TOKEN = "t1"
USER = "system:node:worker"


@pytest.fixture(name="api")
def api_fixture(stage):
    """A test apiserver on cp1. Whatever a test did, none of its faults was an
    exception in the server."""
    api = stage.apiserver(1, tokens={TOKEN: USER})
    yield api
    with contextlib.suppress(OSError):  # killed, stopped or hung by the test
        assert api.counters(timeout=1)["errors"] == 0, api.read("stderr.log")
    assert "Traceback" not in api.read("stderr.log"), api.read("stderr.log")


def connect(world, api, host=None, **kwargs):
    return Kept(world, host or api.v4, **kwargs)


def get(world, api, path, token=None, **kwargs):
    """One request on a connection of its own."""
    with connect(world, api, **kwargs) as connection:
        return connection.get(path, token)


def listed(world, api, path=KUBERNETES):
    status, text = get(world, api, path, TOKEN)
    assert status == 200, text
    return json.loads(text)


def addresses(obj):
    return [a for e in obj["endpoints"] for a in e["addresses"]]


class Watching:
    """A watch, and its events as they come."""

    def __init__(self, world, api, version, more="", path=KUBERNETES):
        self.connection = connect(world, api)
        self.connection.send(f"{path}&watch=true&resourceVersion={version}{more}", TOKEN)
        self.response = self.connection.response()
        self.status = self.response.status

    def event(self):
        """(type, object); None at the end of the response."""
        line = self.response.readline()
        if not line:
            return None
        event = json.loads(line)
        return event["type"], event["object"]

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.connection.close()


def version(obj):
    return int(obj["metadata"]["resourceVersion"])


def answers_nothing(sock, seconds=0.15):
    """Nothing comes; an absence takes its time to be seen."""
    sock.settimeout(seconds)
    try:
        sock.recv(1)
        return False
    except TimeoutError:
        return True
    finally:
        sock.settimeout(5)


def ends_with(connection):
    """How the peer ended a connection: `close` the TLS way, `fin`, or `rst`. Below
    TLS, as Python hides a missing close_notify."""
    data = b""
    with socket.socket(fileno=os.dup(connection.sock.fileno())) as raw:
        raw.settimeout(5)
        try:
            while more := raw.recv(4096):
                data += more
        except ConnectionResetError:
            return "rst"
    return "close" if data else "fin"


def control_by_curl(api, command, **args):
    return json.loads(subprocess.run(
        ["curl", "-sS", "--unix-socket", api.path("control.sock"), f"http://x/{command}", "-d",
         json.dumps(args)], capture_output=True, text=True, check=True).stdout)


# --- what it serves ----------------------------------------------------------


def test_starts_at_once_and_gives_nginx_its_place_back(stage):
    start = time.monotonic()
    api = stage.apiserver(2)
    assert time.monotonic() - start < 3  # 0.3 s in a quiet machine
    assert stage.cp(2) is api
    with connect(stage, api) as connection:
        for path in ("/readyz", "/livez", "/healthz"):
            assert connection.get(path) == (200, "ok")
        assert json.loads(connection.get("/version")[1])["gitVersion"].startswith("v1.34.")
    assert served_by(stage, api.v6) == "cp2"
    assert [r["connection"] for r in api.requests(uri="/readyz")] == [1]
    api.certificate("expired", stage.pki)
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        served_by(stage, api.v4)
    stage.reset()
    assert stage.cp(2) is not api
    assert served_by(stage, stage.cp(2).v4) == "cp2"
    assert "server: nginx" in ok(stage.exec(["curl", "-sSi", "--cacert", stage.ca,
                                             f"https://{api.v4}:{PORT}/readyz"])).stdout.lower()


def test_list_is_as_the_real_one(stage, api):
    document = listed(stage, api)
    assert document["kind"] == "EndpointSliceList"
    assert document["apiVersion"] == "discovery.k8s.io/v1"
    assert version(document) == stage.etcd.revision
    [item] = document["items"]
    assert item["metadata"]["labels"] == {"kubernetes.io/service-name": "kubernetes"}
    assert item["addressType"] == "IPv4"
    assert item["ports"] == [{"name": "https", "protocol": "TCP", "port": 6443}]
    assert item["endpoints"] == [{"addresses": [b.v4], "conditions": {"ready": True}}
                                 for b in stage.backends]
    assert "kind" not in item  # of items in a list
    status, text = get(stage, api, f"{SLICES}/kubernetes", TOKEN)
    assert (status, json.loads(text)) == (200, {"kind": "EndpointSlice", "apiVersion":
                                                "discovery.k8s.io/v1", **item})
    assert get(stage, api, f"{SLICES}/nobody", TOKEN)[0] == 404


def test_several_slices_selected_and_in_pages(stage, api):
    stage.etcd.put("kubernetes-6", ["fd00::1"])
    stage.etcd.put("dns", ["10.0.0.10"], service="kube-dns", port=53)
    stage.etcd.put("elsewhere", ["10.0.0.11"], namespace="kube-system")
    stage.etcd.put("none", [])

    def names(query):
        return [i["metadata"]["name"] for i in listed(stage, api, SLICES + query)["items"]]

    assert names("?labelSelector=kubernetes.io%2Fservice-name%3Dkubernetes") == \
        ["kubernetes", "kubernetes-6", "none"]
    assert names("?labelSelector=kubernetes.io%2Fservice-name!%3Dkubernetes") == ["dns"]
    assert names("?fieldSelector=metadata.name%3Ddns") == ["dns"]
    assert names("?limit=2&resourceVersion=0") == ["dns", "kubernetes", "kubernetes-6", "none"]
    assert len(listed(stage, api, SLICES.replace("/namespaces/default", ""))["items"]) == 5
    page = listed(stage, api, f"{SLICES}?limit=3")
    rest = listed(stage, api, f"{SLICES}?limit=3&continue={page['metadata']['continue']}")
    assert [i["metadata"]["name"] for i in page["items"] + rest["items"]] == \
        ["dns", "kubernetes", "kubernetes-6", "none"]
    assert "continue" not in rest["metadata"]
    assert rest["items"][0]["endpoints"] == []
    for query, status in (("?labelSelector=a%20in%20(b)", 400), ("?fieldSelector=spec.x%3D1", 400),
                          ("?resourceVersion=x", 400), ("?resourceVersion=99999", 504)):
        assert get(stage, api, SLICES + query, TOKEN)[0] == status, query


def test_watch(stage, api):
    start = version(listed(stage, api))
    with Watching(stage, api, start) as watch:
        assert watch.status == 200
        stage.etcd.put("kubernetes", ["10.0.0.1"])
        stage.etcd.put("dns", ["10.0.0.10"], service="kube-dns")  # not of this watch
        stage.etcd.put("second", ["10.0.0.2"])
        stage.etcd.put("second", ["10.0.0.2"], service="other")  # leaves the selection
        stage.etcd.put("kubernetes", [])
        last = stage.etcd.delete("kubernetes")
        events = [watch.event() for _ in range(5)]
    assert [(kind, o["metadata"]["name"], addresses(o)) for kind, o in events] == [
        ("MODIFIED", "kubernetes", ["10.0.0.1"]), ("ADDED", "second", ["10.0.0.2"]),
        ("DELETED", "second", ["10.0.0.2"]), ("MODIFIED", "kubernetes", []),
        ("DELETED", "kubernetes", [])]
    assert [version(o) for _k, o in events] == [start + 1, start + 3, start + 4, start + 5, last]
    assert events[0][1]["kind"] == "EndpointSlice"
    with Watching(stage, api, start + 3) as watch:  # from the middle
        assert version(watch.event()[1]) == start + 4


def test_watch_from_zero_starts_with_what_there_is(stage, api):
    with Watching(stage, api, 0) as watch:
        kind, obj = watch.event()
        assert (kind, addresses(obj)) == ("ADDED", [b.v4 for b in stage.backends])
    with Watching(stage, api, "", "&sendInitialEvents=true&allowWatchBookmarks=true"
                  "&resourceVersionMatch=NotOlderThan") as watch:
        assert watch.event()[0] == "ADDED"
        kind, obj = watch.event()
        assert kind == "BOOKMARK"
        assert obj["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    gone = stage.etcd.delete("kubernetes")
    api.wait_counters(lambda c: c["revision"] == gone, "the deletion")
    assert listed(stage, api)["items"] == []
    with Watching(stage, api, 0) as watch:
        stage.etcd.put("kubernetes", ["10.0.0.1"])
        assert watch.event()[0] == "ADDED"


def test_bookmarks_and_the_end_of_a_watch(stage, api):
    start = stage.etcd.revision
    with Watching(stage, api, start, "&allowWatchBookmarks=true&timeoutSeconds=1") as watch, \
            Watching(stage, api, start) as without:
        now = stage.etcd.advance(50)
        api.wait_counters(lambda c: c["revision"] == now, "all revisions")
        assert api.watches("bookmark") == 2
        kind, obj = watch.event()
        assert (kind, version(obj), obj["endpoints"]) == ("BOOKMARK", now, None)
        assert watch.event()[0] == "BOOKMARK"
        assert watch.event() is None  # timeoutSeconds, cleanly
        assert watch.connection.get("/readyz") == (200, "ok")  # the connection is kept
        api.watches("end")
        assert without.event() is None
    api.set(bookmark_interval=0.02)
    with Watching(stage, api, start, "&allowWatchBookmarks=true") as watch:
        assert [watch.event()[0] for _ in range(3)] == ["BOOKMARK"] * 3


def test_too_old_a_version_is_gone(stage, api):
    start = stage.etcd.revision
    page = listed(stage, api, f"{SLICES}?limit=1")
    assert "continue" not in page["metadata"]
    stage.etcd.put("more", ["10.0.0.2"])
    page = listed(stage, api, f"{SLICES}?limit=1")
    stage.etcd.advance(10)
    with Watching(stage, api, start) as running:
        assert running.event()[0] == "ADDED"
        compacted = stage.etcd.compact()
        api.wait_counters(lambda c: c["revision"] == compacted, "the compaction")
        stage.etcd.put("more", ["10.0.0.3"])
        assert running.event()[0] == "MODIFIED"  # whoever kept up is not concerned
    with Watching(stage, api, start) as watch:
        kind, obj = watch.event()
        assert watch.status == 200
        assert (kind, obj["kind"]) == ("ERROR", "Status")
        assert (obj["code"], obj["reason"]) == (410, "Expired")
        assert watch.event() is None
    api.set(gone="status")
    with Watching(stage, api, start) as watch:
        assert watch.status == 410
        assert json.loads(watch.response.read())["reason"] == "Expired"
    with Watching(stage, api, compacted) as watch:
        assert watch.status == 200
    assert get(stage, api, f"{SLICES}?limit=1&continue={page['metadata']['continue']}",
               TOKEN)[0] == 410


def test_control_without_python(stage, api):
    revision = control_by_curl(api, "etcd", do="put", args=["kubernetes", ["10.0.0.1"]])
    assert revision == stage.etcd.revision
    api.wait_counters(lambda c: c["revision"] == revision, "its own change")
    assert addresses(listed(stage, api)["items"][0]) == ["10.0.0.1"]
    control_by_curl(api, "phase", phase="unready")
    assert get(stage, api, "/readyz")[0] == 500
    assert "put" in control_by_curl(api, "etcd", do="drop")["error"]


def test_burst(stage, api):
    start = stage.etcd.revision
    wanted = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    with Watching(stage, api, start) as watch:
        last = stage.etcd.burst(10000, "kubernetes", wanted)
        events = [watch.event() for _ in range(10000)]
    assert {kind for kind, _o in events} == {"MODIFIED"}
    assert [version(o) for _k, o in events] == list(range(start + 1, last + 1))
    assert addresses(events[-1][1]) == wanted
    assert addresses(events[-2][1]) == wanted[:-1]
    assert addresses(listed(stage, api)["items"][0]) == wanted


def test_apiservers_agree_and_outlive_their_deaths(stage, api):
    """One etcd behind them: the same versions everywhere, after a restart too."""
    other = stage.apiserver(2, tokens={TOKEN: USER})
    api.set(tokens={"t2": USER})
    api.answer("/readyz", 500)
    other.stop()
    now = stage.etcd.put("kubernetes", ["10.0.0.1"])
    api.kill()
    assert dial_error(stage, api.v4) == "ECONNREFUSED"
    api.start()
    other.cont()
    assert get(stage, api, "/readyz") == (200, "ok")  # faults end with the process,
    assert get(stage, api, SLICES, TOKEN)[0] == 401  # settings do not
    status, text = get(stage, api, KUBERNETES, "t2")
    assert (status, version(json.loads(text))) == (200, now)
    wait_until(lambda: listed(stage, other) == json.loads(text), "the other one to catch up")


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
def test_kubectl_takes_it_for_real(stage, api):
    """A client that we did not write: finds the resource, lists and watches."""
    kubectl = ["env", f"HOME={os.path.join(stage.dir, 'home')}", "KUBECONFIG=/dev/null", "kubectl",
               "--server", f"https://{api.v4}:{PORT}", "--certificate-authority", stage.ca,
               "--token", TOKEN, "get", "endpointslices", "-o",
               "jsonpath={.metadata.name}={.endpoints[*].addresses[*]}\n"]
    watch = stage.spawn([*kubectl, "--watch"], stderr=subprocess.STDOUT)
    assert watch.stdout.readline() == f"kubernetes={' '.join(b.v4 for b in stage.backends)}\n"
    api.wait_counters(lambda c: c["watches"] == 1, "kubectl's watch")
    stage.etcd.put("kubernetes", ["10.0.0.1"])
    assert watch.stdout.readline() == "kubernetes=10.0.0.1\n"


# --- who may -----------------------------------------------------------------


def test_tokens(stage, api):
    status, text = get(stage, api, SLICES)
    assert status == 403
    assert json.loads(text)["message"] == (
        'endpointslices.discovery.k8s.io is forbidden: User "system:anonymous" cannot list '
        'resource "endpointslices" in API group "discovery.k8s.io" in the namespace "default"')
    with connect(stage, api) as connection:
        assert connection.get(SLICES, "wrong")[0] == 401
        assert connection.get(SLICES, TOKEN)[0] == 200
        api.set(tokens={"t2": USER})
        status, text = connection.get(SLICES, TOKEN)
        assert (status, json.loads(text)["reason"]) == (401, "Unauthorized")
        assert connection.get(SLICES, "t2")[0] == 200
        api.set(forbidden_users=[USER])
        assert connection.get(SLICES, "t2")[0] == 403
        assert connection.get("/readyz", "t2")[0] == 200
        api.set(anonymous_paths=[])
        assert connection.get("/readyz")[0] == 403
        assert connection.get("/version")[0] == 403
        api.set(anonymous_paths=["/apis/*"])
        assert connection.get(SLICES)[0] == 200
        api.set(anonymous="deny")
        assert connection.get("/readyz")[0] == 401
    assert api.counters()["tokens"] == {"wrong": 1, TOKEN: 2, "t2": 3}


@pytest.mark.parametrize("tls", ["TLSv1.2", "TLSv1.3"])
def test_client_certificates(stage, api, tls):
    def context(certificate):
        context = ssl.create_default_context(cafile=stage.ca)
        if certificate:
            context.load_cert_chain(certificate)
        return context

    good = context(stage.pki.client(USER, ["system:nodes"]))
    api.set(anonymous="deny", tls_versions=[tls])
    assert get(stage, api, "/readyz")[0] == 401
    assert get(stage, api, SLICES, context=good)[0] == 200
    with connect(stage, api, context=good) as first:
        assert first.get(SLICES)[0] == 200
        assert first.sock.version() == tls
        with connect(stage, api, context=good, session=first.sock.session) as second:
            assert second.get(SLICES)[0] == 200  # it is who it was, also when resumed
            assert second.sock.session_reused
    assert api.requests()[-1]["user"] == USER
    with pytest.raises(OSError):
        get(stage, api, "/readyz", context=context(stage.pki.client(USER, trusted=False)))
    api.set(client_certs="refused")
    assert get(stage, api, SLICES, context=good)[0] == 401
    assert get(stage, api, SLICES, TOKEN)[0] == 200
    api.set(client_certs="required")
    with pytest.raises(OSError):
        get(stage, api, SLICES, TOKEN)
    assert get(stage, api, SLICES, context=good)[0] == 200
    assert api.counters()["handshakes"]["failed"] == 2
    api.set(client_certs="off")
    assert get(stage, api, SLICES, context=good)[0] == 401


# --- its life ----------------------------------------------------------------


def test_starting_sequence(stage, api):
    """By the clock, from the first moment of the process on."""
    api.kill()
    api.start(sequence=[["refused", 0.3], ["forbidden", 0.3], ["unready", 0.3]])
    seen = []

    def serving():
        try:
            answer = get(stage, api, "/readyz")[0]
        except ConnectionRefusedError:
            answer = "refused"
        if answer not in seen:
            seen.append(answer)
        return answer == 200

    wait_until(serving, lambda: f"200; seen: {seen}", interval=0.005)
    assert seen == ["refused", 403, 500, 200]


def test_phases_on_command(stage, api):
    with connect(stage, api) as connection:
        api.phase("refused")
        assert dial_error(stage, api.v4) == dial_error(stage, api.v6) == "ECONNREFUSED"
        assert connection.get("/readyz")[0] == 200  # open ones live on
        api.phase("forbidden")
        assert get(stage, api, "/readyz")[0] == 403
        assert connection.get(SLICES, TOKEN)[0] == 403
        api.phase("unready")
        status, text = connection.get("/readyz")
        assert (status, "readyz check failed" in text) == (500, True)
        assert connection.get("/livez")[0] == 500
        assert connection.get(SLICES, TOKEN)[0] == 200
        api.normal()
        assert connection.get("/readyz") == (200, "ok")
        assert "[+]etcd ok\n" in connection.get("/readyz?verbose")[1]


@pytest.mark.parametrize("how", ["shutdown", "SIGTERM"])
def test_graceful_shutdown(stage, api, how):
    with connect(stage, api) as idle, Watching(stage, api, 0) as watch:
        if how == "shutdown":
            api.shutdown(delay=0.4, linger=0.4)
        else:
            api.set(shutdown_delay=0.4, shutdown_linger=0.4)
            api.terminate()
        wait_until(lambda: idle.get("/readyz")[0] == 500, "/readyz to be 500", interval=0.001)
        assert idle.get("/livez")[0] == 200
        assert idle.get(SLICES, TOKEN)[0] == 200
        assert served_by(stage, api.v4) == "cp1"
        assert ends_with(idle) == "close"
        wait_until(lambda: dial_error(stage, api.v4) == "ECONNREFUSED", "the port to close")
        assert watch.event()[0] == "ADDED"
        stage.etcd.put("kubernetes", ["10.0.0.1"])
        assert watch.event()[0] == "MODIFIED"  # it lives, but has closed its port
        api.wait_exit()
        with pytest.raises(http.client.IncompleteRead):
            watch.response.read()
    api.start()
    assert get(stage, api, "/readyz") == (200, "ok")


def test_etcd_stall(stage, api):
    with Watching(stage, api, stage.etcd.revision) as watch, connect(stage, api) as ready, \
            connect(stage, api) as lists:
        api.phase("etcd-stall", livez_after=0.1)
        ready.send("/readyz")
        lists.send(SLICES, TOKEN)
        start = time.monotonic()
        assert get(stage, api, "/livez")[0] == 500
        assert time.monotonic() - start >= 0.1
        assert get(stage, api, f"{SLICES}?resourceVersion=0", TOKEN)[0] == 200
        stage.etcd.put("kubernetes", ["10.0.0.1"])
        for connection in (watch.connection, ready, lists):
            assert answers_nothing(connection.sock, 0.05)
        api.phase("serving")
        assert watch.event()[0] == "MODIFIED"
        assert ready.response().read() == b"ok"
        assert lists.response().status == 200


# --- faults ------------------------------------------------------------------


def test_hang_before_tls(stage, api):
    with connect(stage, api) as old:
        api.hang("tcp")
        context = ssl.create_default_context(cafile=stage.ca)
        with dial(stage, api.v4) as raw:
            sock = context.wrap_socket(raw, server_hostname=api.v4, do_handshake_on_connect=False)
            sock.settimeout(0.1)
            with pytest.raises(TimeoutError):
                sock.do_handshake()
            assert old.get("/readyz")[0] == 200
            api.hang(None)  # as SIGCONT would
            sock.settimeout(5)
            sock.do_handshake()
            sock.close()


def test_hang_within_tls(stage, api):
    api.hang("tls")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context(cafile=stage.ca).wrap_bio(incoming, outgoing,
                                                              server_hostname=api.v4)
    with dial(stage, api.v4) as sock:
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        sock.sendall(outgoing.read())
        data = sock.recv(65536)
        assert data[0] == 22  # a handshake record: it has begun to talk TLS,
        incoming.write(data)
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()  # but not to an end
        assert answers_nothing(sock)
        assert api.counters()["handshakes"] == {"full": 0, "resumed": 0, "failed": 0}
        api.hang(None)
        assert sock.recv(65536)


def test_hang_within_http(stage, api):
    with connect(stage, api) as old:
        assert old.get("/readyz")[0] == 200
        api.hang("http")
        with connect(stage, api) as new:
            for connection in (old, new):
                connection.send("/readyz")
                assert answers_nothing(connection.sock, 0.05)
            api.wait_counters(lambda c: c["requests"]["/readyz"] == 3, "three requests")
            api.hang(None)
            for connection in (old, new):
                assert connection.response().read() == b"ok"


def test_silent_watches(stage, api):
    """The connection is well, and nothing comes: the client cannot tell by TCP."""
    start = stage.etcd.revision
    with Watching(stage, api, start) as watch, connect(stage, api) as new:
        api.hang("watch")
        stage.etcd.put("kubernetes", ["10.0.0.1"])
        new.send(f"{KUBERNETES}&watch=true&resourceVersion={start}", TOKEN)
        for connection in (watch.connection, new):
            assert answers_nothing(connection.sock, 0.05)
        assert get(stage, api, "/readyz")[0] == 200
        assert addresses(listed(stage, api)["items"][0]) == ["10.0.0.1"]
        api.hang("http")
        assert answers_nothing(watch.connection.sock, 0.05)
        api.hang(None)
        assert watch.event()[0] == "MODIFIED"
        assert new.response().status == 200


def test_answers_on_command(stage, api):
    with connect(stage, api) as connection:
        api.answer("/readyz", 503, body="not now", headers={"Retry-After": "7"})
        connection.send("/readyz")
        response = connection.response()
        assert (response.status, response.read(), response.headers["Retry-After"]) == \
            (503, b"not now", "7")
        assert connection.get("/livez")[0] == 200
        api.answer("/readyz")
        assert connection.get("/readyz")[0] == 200
        api.answer("list", 429, times=2)
        assert [connection.get(SLICES, TOKEN)[0] for _ in range(3)] == [429, 429, 200]
        api.answer("watch", 500)
        assert connection.get(f"{SLICES}?watch=1", TOKEN)[0] == 500
        api.answer("*", 401)
        assert connection.get("/version")[0] == 401
        api.normal()
        api.readyz(500)  # as every control plane has it
        assert connection.get("/readyz")[0] == 500
        api.readyz(200)
        assert connection.get("/readyz")[0] == 200


def test_slow_answers(stage, api):
    def took(path):
        start = time.monotonic()
        assert connection.get(path)[0] == 200
        return time.monotonic() - start

    with connect(stage, api) as connection:
        api.answer("/readyz", delay=0.3)
        assert took("/readyz") >= 0.3
        assert took("/livez") < 0.3
        api.answer("/readyz", dribble=1)
        connection.send("/readyz")
        assert connection.sock.recv(65536) == b"H"  # a byte at a time
        assert connection.sock.recv(65536) == b"T"
        api.answer("/livez", hang=True, times=1)
    with connect(stage, api) as connection:
        connection.send("/livez")
        assert answers_nothing(connection.sock, 0.05)
        assert get(stage, api, "/livez")[0] == 200  # was for one request
        api.answer("/livez")
        assert connection.response().read() == b"ok"


def test_slow_watch(stage, api):
    with Watching(stage, api, stage.etcd.revision, "&allowWatchBookmarks=true") as watch:
        api.answer("watch", dribble=1)
        before = time.monotonic()
        api.watches("bookmark")
        kind, obj = watch.event()
        assert kind == "BOOKMARK"
        assert time.monotonic() - before > len(json.dumps(obj)) * 0.001


def test_cut_answer(stage, api):
    api.answer("list", cut=0.5)
    with connect(stage, api) as connection:
        connection.send(SLICES, TOKEN)
        response = connection.response()
        assert response.status == 200
        with pytest.raises(http.client.IncompleteRead) as error:
            response.read()
        assert len(error.value.partial) == int(response.headers["Content-Length"]) // 2


@pytest.mark.parametrize("how, share", [("half-json", 1), ("half-chunk", 0.5)])
def test_broken_watches(stage, api, how, share):
    with Watching(stage, api, stage.etcd.revision) as watch:
        assert api.watches(how) == 1
        size, text = watch.response.fp.read().split(b"\r\n")[:2]  # to the FIN
        assert text.startswith(b'{"type":"MODIFIED"')
        with pytest.raises(ValueError):
            json.loads(text)
        assert len(text) == int(size, 16) * share
    assert api.counters()["watches"] == 0


def test_garbage_and_expiry_in_a_watch(stage, api):
    with Watching(stage, api, stage.etcd.revision) as watch:
        assert api.watches("garbage") == 1
        assert watch.response.readline() == b"this is no JSON\n"
        stage.etcd.put("kubernetes", ["10.0.0.1"])
        assert watch.event()[0] == "MODIFIED"  # goes on
        assert api.watches("expire") == 1
        kind, obj = watch.event()
        assert (kind, obj["code"]) == ("ERROR", 410)
        assert watch.event() is None


@pytest.mark.parametrize("how", ["close", "fin", "rst"])
def test_disconnect(stage, api, how):
    with connect(stage, api) as idle, Watching(stage, api, stage.etcd.revision) as watch:
        assert idle.get("/readyz")[0] == 200
        assert api.disconnect(how, "watches") == 1
        assert ends_with(watch.connection) == how
        assert idle.get("/readyz")[0] == 200
        assert api.disconnect(how) == 1
        assert ends_with(idle) == how
    assert api.counters()["open"] == 0
    assert get(stage, api, "/readyz")[0] == 200


def test_idle_timeout(stage, api):
    with connect(stage, api) as connection:
        assert connection.get("/readyz")[0] == 200
        api.set(idle_timeout=0.1)
        assert ends_with(connection) == "close"


# --- its own life ------------------------------------------------------------

LEASE = 0.5  # 15 in real life


def wait_listed(stage, *apis):
    wait_until(lambda: set(stage.etcd.listed()) == {api.v4 for api in apis},
               lambda: f"{[api.name for api in apis]} in the list: {stage.etcd.listed()}")


@pytest.fixture(name="pair")
def pair_fixture(stage):
    """Two apiservers that keep the list themselves."""
    pair = [stage.apiserver(i, lease=LEASE) for i in (1, 2)]
    wait_listed(stage, *pair)
    return pair


def test_leaves_the_list_at_sigterm(stage, pair):
    """Before it does anything else: it serves on, and is in nobody's list. It is in it again
    when it is ready."""
    gone, other = pair
    gone.set(shutdown_delay=1)
    gone.terminate()
    wait_listed(stage, other)
    assert get(stage, gone, "/readyz")[0] == 500
    assert get(stage, gone, "/livez")[0] == 200
    assert gone.wait_exit() == 0
    assert stage.etcd.listed() == [other.v4]
    gone.start(sequence=[["unready", 30]])
    time.sleep(LEASE)  # an absence takes its time to be seen
    assert stage.etcd.listed() == [other.v4]
    gone.phase("serving")
    wait_listed(stage, gone, other)


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_others_remove_what_renews_no_lease(stage, pair, how):
    """One that was killed, or hangs, is in the list until its lease is over."""
    gone, other = pair
    start = time.monotonic()
    if how == "kill":
        gone.kill()
    else:
        gone.stop()
    assert gone.v4 in stage.etcd.listed()
    wait_listed(stage, other)
    assert time.monotonic() - start < 10 * LEASE
    if how == "kill":
        gone.start()
    else:
        gone.cont()
    wait_listed(stage, gone, other)


def test_the_last_one_stays_in_the_list(stage, pair):
    for api in pair:
        api.terminate()
        assert api.wait_exit() == 0
    assert stage.etcd.listed() == [pair[1].v4]


@pytest.mark.parametrize("listen", ["tcp", "mptcp"])
def test_its_own_client(stage, listen):
    """Dials what it serves at, with what no other process has; until that has worked it is
    not ready."""
    if listen == "mptcp" and not has_mptcp():
        pytest.skip("no MPTCP here")
    api = stage.apiserver(1, loopback=["127.0.0.1", "::1"], listen=listen)
    api.wait_ready()
    assert get(stage, api, "/readyz") == (200, "ok")
    assert get(stage, api, "/readyz", host=api.v6) == (200, "ok")
    counters = api.counters()
    assert counters["loopback"] == {"worked": 2, "failed": 0}
    assert counters["users"]["system:apiserver"] == 2
    assert {r["client"] for r in api.requests(user="system:apiserver")} == {"127.0.0.1", "::1"}
    api.kill()
    api.start(sequence=[["refused", 0.3]])
    wait_until(lambda: api.counters()["loopback"]["failed"], "an attempt in vain")
    assert not api.counters()["ready"]
    api.wait_ready()


def test_its_own_client_is_for_itself_alone(stage):
    """Another apiserver has another certificate: for want of itself it is never ready, and
    ends."""
    other = stage.apiserver(2, loopback=["127.0.0.1"], lease=LEASE)
    wait_listed(stage, other)
    api = stage.apiserver(1, loopback=[other.v4], loopback_timeout=0.3, lease=LEASE)
    assert get(stage, api, "/readyz")[0] == 500
    assert api.wait_exit() == 1
    log = api.read("stderr.log")
    assert "rbac/bootstrap-roles" in log and "CERTIFICATE_VERIFY_FAILED" in log
    assert stage.etcd.listed() == [other.v4]


# --- what it counts ----------------------------------------------------------


@pytest.mark.parametrize("tls", ["TLSv1.2", "TLSv1.3"])
def test_counters(stage, api, tls):
    api.set(tls_versions=[tls])
    context = ssl.create_default_context(cafile=stage.ca)
    with connect(stage, api, context=context) as first:
        for _ in range(5):
            first.get("/readyz")
        with connect(stage, api, context=context, session=first.sock.session) as second:
            second.get("/livez")
            second.get(SLICES, TOKEN)
            dial(stage, api.v4).close()  # a bare TCP probe
            counters = api.wait_counters(lambda c: c["open"] == 2 and c["accepted"] == 3,
                                         "two open of three")
            with Watching(stage, api, 0):
                assert api.counters()["watches"] == 1
    assert counters == {
        "accepted": 3, "open": 2, "watches": 0, "errors": 0, "revision": stage.etcd.revision,
        "ready": True, "loopback": {"worked": 0, "failed": 0},
        "handshakes": {"full": 1, "resumed": 1, "failed": 1}, "tls": {tls: 2},
        "requests": {"/readyz": 5, "/livez": 1, "list": 1}, "statuses": {"200": 7},
        "pings": 0, "protocols": {"http/1.1": 2},
        "tokens": {TOKEN: 1}, "users": {"system:anonymous": 6, USER: 1}}
    api.wait_counters(lambda c: c["open"] == 0, "no connection open")
    assert api.accepted() == 4
    assert {r["reused"] for r in api.requests(uri="/livez")} == {"r"}


def test_probes_of_the_agent_are_counted_here(stage):
    """KubeLB's agent finds three of these as ready as nginx, and keeps its
    connection: one handshake, however many probes. (Who attaches first makes one more.)"""
    ok(stage.load())
    apis = [stage.apiserver(i) for i in (1, 2, 3)]
    agent = stage.agent()
    for api in apis:
        seen = api.wait_counters(lambda c: c["requests"].get("/readyz", 0) >= 3, "three probes")
        assert (seen["accepted"], seen["handshakes"]["full"], seen["open"]) == (1, 1, 1)
    wait_states(stage, "ready", apis)
    assert served_by(stage) in {"cp1", "cp2", "cp3"}
    apis[0].phase("unready")
    wait_states(stage, "draining", apis[:1])
    assert agent.alive()


def test_misuse_is_told(stage, api):
    for command, words in (
        (lambda: api.phase("asleep"), "refused.*serving"),
        (lambda: api.hang("udp"), "tls"),
        (lambda: api.disconnect("slam"), "rst"),
        (lambda: api.watches("x"), "half-json"),
        (lambda: api.set(token={}), "no setting 'token'"),
        (lambda: api.set(anonymous="perhaps"), "allow"),
        (lambda: api.set(idle_timeout=-1), "idle_timeout"),
        (lambda: api.set(lease=-1), "lease"),
        (lambda: api.set(tls_versions=[]), "tls_versions"),
        (lambda: api.answer("readyzz", 500), "neither a path"),
        (lambda: api.answer("/readyz", 99), "99"),
        (lambda: api.answer("/readyz", body="x"), "needs a status"),
        (lambda: api.answer("watch", cut=0.5), "watches"),
        (lambda: api.answer("/readyz", sleep=1), "sleep"),
        (lambda: api.sequence([["asleep", 1]]), "asleep"),
        (lambda: api.ask("reboot"), "no command 'reboot'"),
        (lambda: stage.etcd.delete("nobody"), "default/kubernetes"),
        (lambda: stage.apiserver(1), "already"),
    ):
        with pytest.raises(WorldError, match=words):
            command()
    assert get(stage, api, "/readyz") == (200, "ok")
    api.kill()
    for spoil, words in ((lambda: api.write_settings({"tokenz": {}}), "no setting 'tokenz'"),
                        (lambda: os.truncate(api.path("current.crt"), 0), "current.crt")):
        spoil()
        with pytest.raises(WorldError, match=words):
            api.start()
        api.forget()
        api.write_settings({})
    api.use_certificate(stage.pki, "good")
