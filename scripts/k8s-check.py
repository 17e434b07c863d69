#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""NAME
    k8s-check.sh - what clients of a real cluster feel while somebody makes a fault

SYNOPSIS
    k8s-check.sh KUBECONFIG [--seconds S] [--rate N] [--timeout S] [--silence S]
                 [--kubelbctl COMMAND]

DESCRIPTION
    Run it on a node, with a kubeconfig whose server is the frontend (https://127.0.0.1:6443), and
    restart, stop or drain an apiserver meanwhile. Through the frontend it holds a watch, and makes
    N requests a second: by turns each on a new connection and on a kept one. Then it prints a
    report.

    It only reads. It asks for one object of a kind and watches that kind: the leases of the nodes;
    where the user may not, EndpointSlices in default; where not even that, Services. Leases
    are renewed every ten seconds by each node, so their watch shows silence best.

    A request on a kept connection that ends before the answer is made once more on a new one, as
    client-go does. It counts as retried, and as failed only if that fails as well. A watch that
    ends goes on from its last version. It is listed anew after what client-go takes so: an
    error other than EOF, reset or time-out, and a version that is gone.

    The proxy variables of the environment are ignored. Credentials that need a command
    (exec, auth-provider) are refused: make a kubeconfig with a token or a client certificate.

OPTIONS
    KUBECONFIG            its current context counts
    --seconds S           how long (60)
    --rate N              requests a second, 1 to 100 (5)
    --timeout S           for a connect, a TLS handshake and an answer, each (10)
    --silence S           a watch without any event for so long has failed, and is begun anew: 45
                          for leases, after which client-go gives its connection up; else 90, as
                          bookmarks come every minute
    --kubelbctl COMMAND   asked for versions, events, and which apiservers served; it needs root
                          (kubelbctl)

REPORT
    failed                when and why; those in a row with one reason on one line
    p50, p99, worst       of the requests that succeeded, retries included
    longest silence       between two events of the watch
    resumed, listed anew  how the watch has gone on after each end
    served by             connects of the whole node to each apiserver, and where this check's own
                          connections were at the end
    events                what KubeLB noted meanwhile

EXIT STATUS
    0  nothing failed
    1  something failed: the report says what
    2  the input is wrong, or the server cannot be used before the check begins: one line says why
"""

import argparse
import base64
import binascii
import concurrent.futures
import dataclasses
import http.client
import itertools
import json
import os
import re
import shlex
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse

KINDS = (("leases", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", 45),
         ("EndpointSlices", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", 90),
         ("Services", "/api/v1/services", 90))
ATTEMPTS = 3  # at the beginning: one apiserver may be dead already
BACKOFF = 1.0  # seconds before a watch that cannot begin is tried again
SHOWN = 20  # lines of failures and of events


class Wrong(Exception):
    """Input, or a server, that cannot be used: what, where, why, what next, in one line."""


# --- YAML, as kubeconfigs have it --------------------------------------------


class Yaml:
    """Block mappings and lists, flow ones on a line, plain and quoted scalars. Every scalar is a
    text. What else there is in YAML has no place in a kubeconfig, and is refused by its line."""

    def __init__(self, text):
        self.lines = []
        for number, line in enumerate(text.splitlines(), 1):
            bare = re.sub(r"(^|\s)#[^\"']*$", "", line).rstrip()
            if bare.strip() and bare.strip() != "---":
                self.lines.append((number, len(bare) - len(bare.lstrip()), bare.strip()))
        self.at = 0

    def document(self):
        value = self.block(self.lines[0][1]) if self.lines else None
        if self.at < len(self.lines):
            self.refuse("does not belong to what is above it")
        return value

    def refuse(self, why):
        raise Wrong(f"line {self.lines[min(self.at, len(self.lines) - 1)][0]} {why}")

    def more(self, indent):
        return self.at < len(self.lines) and self.lines[self.at][1] == indent

    def block(self, indent):
        text = self.lines[self.at][2]
        if text.startswith("- ") or text == "-":
            return self.sequence(indent)
        if text.startswith("{"):
            self.at += 1
            return self.scalar(text)
        return self.mapping(indent)

    def sequence(self, indent):
        items = []
        while self.more(indent) and (self.lines[self.at][2] + " ").startswith("- "):
            number, _, text = self.lines[self.at]
            rest = text[1:].lstrip()
            if not rest:
                self.refuse("has an empty item")
            inner = indent + len(text) - len(rest)
            self.lines[self.at] = (number, inner, rest)
            items.append(self.block(inner))
        return items

    def mapping(self, indent):
        found = {}
        while self.more(indent) and not self.lines[self.at][2].startswith("- "):
            match = re.fullmatch(r"([\w.-]+|\"[^\"]*\"|'[^']*'):(?:\s+(.*))?",
                                 self.lines[self.at][2])
            if not match:
                self.refuse("is not `key: value`")
            key = match[1].strip("\"'")
            if match[2]:
                found[key] = self.scalar(match[2])
                self.at += 1
            else:
                found[key] = self.nested(indent)
        return found

    def nested(self, indent):
        """What stands below a key without a value; a list may be at the key's own indent."""
        self.at += 1
        if self.at == len(self.lines):
            return None
        _, inner, text = self.lines[self.at]
        if inner > indent or inner == indent and (text + " ").startswith("- "):
            return self.block(inner)
        return None

    def scalar(self, text):
        if text[0] in "|>&*!":
            self.refuse(f"begins a value with {text[0]}, which is not read here")
        if text[0] == "{":
            return self.flow(text)
        if text == "[]":
            return []
        if text[0] in "\"'":
            if len(text) < 2 or text[-1] != text[0]:
                self.refuse("has a quote that is not closed")
            return json.loads(text) if text[0] == '"' else text[1:-1].replace("''", "'")
        return None if text in ("null", "~") else text

    def flow(self, text):
        inner = text[1:-1].strip()
        if text[-1] != "}" or "{" in inner or "[" in inner:
            self.refuse("has a flow mapping that is nested or not closed")
        pairs = [p.partition(":") for p in inner.split(",") if p.strip()]
        return {k.strip().strip("\"'"): v.strip().strip("\"'") for k, _, v in pairs}


# --- the kubeconfig ----------------------------------------------------------


@dataclasses.dataclass
class Cluster:
    """Where to ask, and as whom."""

    server: str
    host: str
    port: int
    prefix: str
    tls: ssl.SSLContext
    tls_name: str
    user: str
    headers: dict

    def place(self):
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Kubeconfig:
    """The current context of a file."""

    def __init__(self, path):
        self.path = path
        try:
            with open(path, encoding="utf-8") as f:
                text = f.read()
        except (OSError, UnicodeDecodeError) as e:
            raise Wrong(f"{path}: cannot be read: {getattr(e, 'strerror', None) or 'not UTF-8'}; "
                        "name a kubeconfig that this user may read") from e
        try:
            self.root = json.loads(text) if text.lstrip().startswith("{") else Yaml(text).document()
        except (Wrong, ValueError) as e:
            raise Wrong(f"{path}: {e}; is this a kubeconfig?") from e
        if not isinstance(self.root, dict) or "clusters" not in self.root:
            raise Wrong(f"{path}: has no clusters: it is no kubeconfig; name one")

    def wrong(self, what):
        return Wrong(f"{self.path}: {what}")

    def named(self, kind, name):
        """The entry of `clusters`, `contexts` or `users` with that name."""
        for entry in self.root.get(f"{kind}s") or []:
            if isinstance(entry, dict) and entry.get("name") == name:
                return entry.get(kind) or {}
        raise self.wrong(f"there is no {kind} {name!r}; look at current-context and its names")

    def data(self, section, key):
        """A certificate or key, inline or from its file; None where there is none."""
        if section.get(f"{key}-data"):
            try:
                return base64.b64decode(section[f"{key}-data"], validate=True)
            except binascii.Error as e:
                raise self.wrong(f"{key}-data is not base64; make the kubeconfig anew") from e
        return self.file(key, section[key]) if section.get(key) else None

    def file(self, key, name):
        try:
            with open(os.path.join(os.path.dirname(self.path), name), "rb") as f:
                return f.read()
        except OSError as e:
            raise self.wrong(f"{key}: {name}: {e.strerror}; name a file that this user may "
                             "read") from e

    def cluster(self):
        context = self.named("context", self.root.get("current-context"))
        section = self.named("cluster", context.get("cluster"))
        user = self.named("user", context.get("user"))
        server = section.get("server") or ""
        try:
            url = urllib.parse.urlsplit(server)
            host, port = url.hostname, url.port or 443
        except ValueError:
            url = host = None
        if not host or url.scheme != "https":
            raise self.wrong(f"server {server!r} is not https://HOST:PORT; name the frontend")
        return Cluster(server, host, port, url.path.rstrip("/"), self.tls(section, user),
                       section.get("tls-server-name") or host, context.get("user"),
                       self.headers(user))

    def headers(self, user):
        for key in ("exec", "auth-provider"):
            if user.get(key):
                raise self.wrong(f"the user's credentials come by {key}, which is not run here; "
                                 "use a kubeconfig with a token or a client certificate")
        token = user.get("token")
        if user.get("tokenFile"):
            token = self.file("tokenFile", user["tokenFile"]).decode("ascii", "replace").strip()
        if not token and not self.data(user, "client-certificate"):
            raise self.wrong("the user has neither a token nor a client certificate; use a "
                             "kubeconfig that has")
        return {"Authorization": f"Bearer {token}"} if token else {}

    def tls(self, section, user):
        context = ssl.create_default_context()
        ca = self.data(section, "certificate-authority")
        if ca:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self.load("certificate-authority",
                      lambda: context.load_verify_locations(cadata=ca.decode("ascii")))
        if str(section.get("insecure-skip-tls-verify")).lower() == "true":
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        pair = [self.data(user, f"client-{what}") for what in ("certificate", "key")]
        if pair[0]:
            self.load("client-certificate and client-key", lambda: load_pair(context, pair))
        return context

    def load(self, what, action):
        try:
            action()
        except (ssl.SSLError, UnicodeDecodeError, OSError) as e:
            raise self.wrong(f"{what}: no good PEM ({getattr(e, 'reason', None) or e}); make the "
                             "kubeconfig anew") from e


def load_pair(context, pair):
    """From memory: a private key in the kubeconfig must not come to another file."""
    fd = os.memfd_create("client")
    try:
        with os.fdopen(os.dup(fd), "wb") as f:
            # Once, where one file is both, as the kubelet's is: the chain has no certificate twice.
            f.write(b"\n".join(dict.fromkeys(part for part in pair if part)))
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


# --- a connection ------------------------------------------------------------


class Link(http.client.HTTPConnection):
    """One connection to the frontend, and how far it has come."""

    def __init__(self, cluster, timeout):
        super().__init__(cluster.host, cluster.port, timeout=timeout)
        self.cluster = cluster
        self.stage = "connect"
        self.used = False

    def connect(self):
        self.sock = socket.create_connection((self.host, self.port), self.timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stage = "TLS handshake"
        self.sock = self.cluster.tls.wrap_socket(self.sock, server_hostname=self.cluster.tls_name)
        self.stage = "answer"

    def ask(self, path):
        self.request("GET", self.cluster.prefix + path,
                     headers={**self.cluster.headers, "Accept": "application/json"})
        return self.getresponse()

    def get(self, path):
        """(status, body), to the end."""
        response = self.ask(path)
        body = response.read()
        self.used = True
        return response.status, body


ERRORS = (OSError, http.client.HTTPException)  # ssl.SSLError is the former


def reason(e):
    if isinstance(e, ssl.SSLCertVerificationError):
        return f"certificate: {e.verify_message}"
    if isinstance(e, TimeoutError):
        return "time-out"
    if isinstance(e, (http.client.RemoteDisconnected, http.client.IncompleteRead, ssl.SSLEOFError)):
        return "the peer has closed"
    if isinstance(e, ssl.SSLError):
        return (e.reason or str(e)).lower().replace("_", " ")
    return getattr(e, "strerror", None) or str(e) or type(e).__name__


def is_end(e):
    """EOF or reset: what client-go retries a GET after, and resumes a watch from."""
    return isinstance(e, (ConnectionResetError, BrokenPipeError, http.client.IncompleteRead,
                          ssl.SSLEOFError))


# --- requests ----------------------------------------------------------------


@dataclasses.dataclass
class Sample:
    at: float
    kind: str
    seconds: float = 0.0
    error: str = ""
    retried: str = ""


class Requests:
    """N a second, whether the earlier ones are over or not."""

    def __init__(self, cluster, path, args, start):
        self.cluster, self.path, self.args, self.start = cluster, path, args, start
        self.idle = []
        self.samples = []
        self.lock = threading.Lock()

    def run(self):
        workers = min(1000, int(self.args.rate * self.args.timeout * 6) + 4)
        pool = concurrent.futures.ThreadPoolExecutor(workers)
        try:
            for i in range(round(self.args.rate * self.args.seconds)):
                time.sleep(max(0, self.start + i / self.args.rate - time.monotonic()))
                pool.submit(self.one, "kept" if i % 2 else "new", time.monotonic())
        finally:
            pool.shutdown()

    def one(self, kind, begun):
        sample = Sample(begun - self.start, kind)
        try:
            self.attempt(sample)
        except Exception as e:  # pylint: disable=W0718  # a thread's would be lost
            sample.error = reason(e)
        sample.seconds = time.monotonic() - begun
        with self.lock:
            self.samples.append(sample)

    def attempt(self, sample):
        link = self.take() if sample.kind == "kept" else Link(self.cluster, self.args.timeout)
        error = self.get(link, sample)
        if error and link.used and is_end(error):
            sample.retried = reason(error)
            link = Link(self.cluster, self.args.timeout)
            error = self.get(link, sample)
        if error:
            sample.error = f"{link.stage}: {reason(error)}"

    def get(self, link, sample):
        """Asks; the exception, if there is one, with the connection closed."""
        try:
            status, _ = link.get(self.path)
        except ERRORS as e:
            link.close()
            return e
        if status != 200:
            sample.error = f"status {status}"
        if sample.kind == "kept" and link.sock:
            with self.lock:
                self.idle.append(link)
        else:
            link.close()
        return None

    def take(self):
        with self.lock:
            return self.idle.pop() if self.idle else Link(self.cluster, self.args.timeout)

    def close(self):
        for link in self.idle:
            link.close()


# --- the watch ---------------------------------------------------------------


class Gone(Exception):
    """The watch has to be listed anew: why."""


class Watch(threading.Thread):
    """One watch for the whole time. `ends`: [at, why, how it went on, seconds until then]."""

    def __init__(self, cluster, path, version, args, start):
        super().__init__(daemon=True)
        self.cluster, self.path, self.version = cluster, path, version
        self.args, self.start_time = args, start
        self.link = None
        self.stopping = threading.Event()
        self.events = 0
        self.ends, self.failures = [], []
        self.last = start
        self.longest = (0.0, 0.0)  # seconds, when it began
        self.opened = threading.Event()
        self.anew = False

    def now(self):
        return time.monotonic() - self.start_time

    def run(self):
        while not self.stopping.is_set():
            try:
                if self.anew:
                    self.list()
                self.follow(self.begin())
                self.ended("the peer has closed")
            except Gone as e:
                self.anew = True
                self.ended(str(e))
            except TimeoutError:
                self.timed_out()
            except ERRORS as e:
                self.anew = self.anew or self.opened.is_set() and not is_end(e)
                self.ended(f"{self.link.stage}: {reason(e)}")
            except Exception as e:  # pylint: disable=W0718  # a thread's would be lost
                if not self.stopping.is_set():
                    self.failures.append((self.now(), f"{type(e).__name__}: {e}"))
                self.ended(str(e))

    def timed_out(self):
        if self.opened.is_set():
            self.failures.append((self.now(), f"no event for {self.args.silence:g} s"))
            self.anew = True
        self.ended(f"{self.link.stage}: time-out")

    def list(self):
        self.link = Link(self.cluster, self.args.timeout)
        status, body = self.link.get(f"{self.path}?limit=1")
        self.link.close()
        if status != 200:
            raise Gone(f"list: status {status}")
        self.version = json.loads(body)["metadata"]["resourceVersion"]

    def begin(self):
        query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": self.version,
                 "timeoutSeconds": int(self.args.seconds) + 60}
        self.link = Link(self.cluster, self.args.timeout)
        response = self.link.ask(f"{self.path}?{urllib.parse.urlencode(query)}")
        if response.status != 200:
            raise Gone(f"watch: status {response.status}")
        self.link.sock.settimeout(self.args.silence)
        self.went_on()
        return response

    def went_on(self):
        self.opened.set()
        if self.ends and not self.ends[-1][2]:
            self.ends[-1][2:] = ["listed anew" if self.anew else "resumed",
                                 self.now() - self.ends[-1][0]]
        self.anew = False

    def ended(self, why):
        """Of an open watch, or of another attempt to begin it."""
        self.link.close()
        if self.stopping.is_set():
            return
        if self.opened.is_set():
            self.opened.clear()
            self.ends.append([self.now(), why, "", 0.0])
            return  # at once
        if self.ends:
            self.ends[-1][1] += f"; {why}" if why not in self.ends[-1][1] else ""
        else:
            self.ends.append([self.now(), why, "", 0.0])
        self.stopping.wait(BACKOFF)

    def follow(self, response):
        while line := response.readline():
            event = json.loads(line)
            if event["type"] == "ERROR":
                raise Gone(f"error {event['object'].get('code')}")
            self.version = event["object"]["metadata"]["resourceVersion"]
            self.events += 1
            self.heard()

    def heard(self):
        silence = time.monotonic() - self.last
        if silence > self.longest[0]:
            self.longest = (silence, self.last - self.start_time)
        self.last += silence

    def finish(self):
        """Ends it; what it knows is complete then."""
        self.opened.wait(2 * BACKOFF)  # it may be on its way
        self.stopping.set()
        self.heard()
        if not self.opened.is_set():
            self.failures.append((self.now(), "there is no watch at the end"))
        sock = self.link.sock if self.link else None
        if sock:
            try:
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # below TLS
            except OSError:
                pass  # has ended by itself
        self.join(timeout=self.args.timeout)


# --- what KubeLB says --------------------------------------------------------


class Kubelb:
    """kubelbctl's answers; `why` there are none."""

    def __init__(self, words):
        self.command = words
        self.why = ""
        self.version = self.ask("--version").strip()
        self.before = self.status()

    def ask(self, *args):
        try:
            done = subprocess.run([*self.command, *args], capture_output=True, text=True,
                                  timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired) as e:
            why = getattr(e, "strerror", None) or "no answer within 10 s"
            self.why = f"{self.command[0]}: {why}"
            return ""
        if done.returncode:
            self.why = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[0]
            return ""
        return done.stdout

    def object(self, *args):
        try:
            return json.loads(self.ask(*args) or "{}")
        except ValueError:
            self.why = f"{args[0]}: the answer is no JSON"
            return {}

    def status(self):
        return self.object("status", "-o", "json")

    def served(self):
        """{address: (connects that succeeded, state)} since the beginning, of the whole node."""
        opened = {b["address"]: b.get("opened", 0) for b in self.before.get("backends", [])}
        return {b["address"]: (b.get("opened", 0) - opened.get(b["address"], 0), b.get("state"))
                for b in self.status().get("backends", [])}

    def own(self):
        """Backends of this process's connections."""
        found = self.object("connections", "-o", "json").get("connections", [])
        return [c["backend"] for c in found if c["process"]["pid"] == os.getpid()]

    def events(self, since_ns):
        lines = self.ask("events", "-o", "json").splitlines()
        return [e for e in map(json.loads, lines) if e.get("monotonicNs", 0) >= since_ns]


# --- the check ---------------------------------------------------------------


def usable(cluster, args):
    """(kind, path, seconds of silence, version) of what this user may list."""
    refused = []
    for kind, path, silence in KINDS:
        status, body = first_answer(cluster, f"{path}?limit=1", args)
        if status == 401:
            raise Wrong(f"{cluster.server}: 401, the credentials of user {cluster.user!r} are not "
                        "valid (expired?); make a kubeconfig with valid ones")
        if status == 200:
            try:
                return kind, path, silence, json.loads(body)["metadata"]["resourceVersion"]
            except (ValueError, KeyError, TypeError) as e:
                raise Wrong(f"{cluster.server}: the answer is no list of {kind}; is this an "
                            "apiserver?") from e
        refused.append(f"{kind} {status}")
    raise Wrong(f"{cluster.server}: user {cluster.user!r} gets no list ({', '.join(refused)}); use "
                "a kubeconfig whose user may list and watch one of these")


def first_answer(cluster, path, args):
    for attempt in range(ATTEMPTS):
        link = Link(cluster, args.timeout)
        try:
            return link.get(path)
        except ERRORS as e:
            why = f"{link.stage}: {reason(e)}"
            if isinstance(e, ssl.SSLCertVerificationError):
                break
        finally:
            link.close()
        if attempt + 1 < ATTEMPTS:
            time.sleep(BACKOFF)
    raise Wrong(f"{cluster.server}: {why}; begin while the apiservers are well, and check server "
                "and certificate-authority of the kubeconfig")


def quantile(values, share):
    """The smallest value that so many are not above."""
    return sorted(values)[max(0, -int(-len(values) * share // 1) - 1)]


class Report:
    """Lines, and whether something has failed."""

    def __init__(self):
        self.failed = False

    def line(self, head, text):
        print(f"{head:<16}{text}")

    def listed(self, head, lines):
        for line in lines[:SHOWN]:
            self.line(head, line)
        if len(lines) > SHOWN:
            self.line(head, f"… and {len(lines) - SHOWN} more")

    def requests(self, samples):
        good = [s.seconds * 1000 for s in samples if not s.error]
        bad = sorted((s for s in samples if s.error), key=lambda s: s.at)
        retried = [s for s in samples if s.retried and not s.error]
        kinds = [sum(s.kind == kind for s in samples) for kind in ("new", "kept")]
        self.line("requests", f"{len(samples)} sent ({kinds[0]} on new connections, {kinds[1]} on "
                  f"kept ones), {len(bad)} failed, {len(retried)} retried")
        if good:
            self.line("latency", f"p50 {quantile(good, .5):.1f} ms, p99 {quantile(good, .99):.1f} "
                      f"ms, worst {max(good):.1f} ms")
        self.listed("failed", [failure_text(list(run)) for _, run in
                               itertools.groupby(bad, key=lambda s: s.error)])
        self.listed("retried", [f"at {s.at:.1f} s: {s.retried}; answered after {s.seconds:.2f} s"
                                for s in sorted(retried, key=lambda s: s.at)])
        self.failed = self.failed or bool(bad) or not samples

    def watch(self, kind, watch):
        hows = [end[2] for end in watch.ends]
        self.line("watch", f"of {kind}: {watch.events} events, longest silence "
                  f"{watch.longest[0]:.2f} s from {watch.longest[1]:.1f} s on; ended "
                  f"{len(hows)} times, resumed {hows.count('resumed')}, listed anew "
                  f"{hows.count('listed anew')}")
        self.listed("watch ended", [
            f"at {at:.1f} s: {why}; " + (f"{how} after {after:.2f} s" if how else "not resumed")
            for at, why, how, after in watch.ends])
        self.listed("failed", [f"at {at:.1f} s, watch: {why}" for at, why in watch.failures])
        self.failed = self.failed or bool(watch.failures)

    def kubelb(self, kubelb, cluster, since_ns, own):
        served, events = kubelb.served(), kubelb.events(since_ns)
        self.line("KubeLB", kubelb.version or "not asked")
        if kubelb.why:
            self.line("KubeLB", f"{kubelb.why}: what served is not known")
            return
        frontends = [f if isinstance(f, str) else f.get("address")
                     for f in kubelb.before.get("frontends", [])]
        if cluster.place() not in frontends:
            self.line("KubeLB", f"{cluster.place()} is no frontend: others' answers are shown here")
        for address, (count, state) in served.items():
            self.line("served by", f"{address}: {count} connects of this node, {state} now, "
                      f"{own.count(address)} of this check's connections at the end")
        self.listed("event", [event_text(e) for e in events])
        if not events:
            self.line("event", "none")

    def verdict(self):
        self.line("result", "something failed" if self.failed else "nothing failed")
        return 1 if self.failed else 0


def failure_text(run):
    """Requests that failed one after another for one reason."""
    when = f"{run[0].at:.1f} s" if len(run) == 1 else f"{run[0].at:.1f} to {run[-1].at:.1f} s"
    kinds = " and ".join(sorted({s.kind for s in run}, reverse=True))
    return (f"at {when}, {len(run)} on {kinds} connections, after at most "
            f"{max(s.seconds for s in run):.2f} s: {run[0].error}")


def event_text(e):
    rest = ", ".join(f"{key} {e[key]}" for key in ("was", "state", "reason", "error", "cause")
                     if e.get(key))
    return f"{e.get('time')} {e.get('event')} {e.get('backend') or ''} {rest}".rstrip()


def check(args):
    cluster = Kubeconfig(args.kubeconfig).cluster()
    kind, path, silence, version = usable(cluster, args)
    args.silence = args.silence or silence
    kubelb = Kubelb(args.kubelbctl)
    start, since_ns = time.monotonic(), time.monotonic_ns()
    print(f"{time.strftime('%F %T')}: {args.seconds:g} s through {cluster.server}; make the fault "
          "now", flush=True)
    watch = Watch(cluster, path, version, args, start)
    watch.start()
    requests = Requests(cluster, f"{path}?limit=1", args, start)
    try:
        requests.run()
        time.sleep(max(0, start + args.seconds - time.monotonic()))
    except KeyboardInterrupt:
        print("interrupted: this is what there is", flush=True)
    own = kubelb.own()
    watch.finish()
    requests.close()
    report = Report()
    report.requests(requests.samples)
    report.watch(kind, watch)
    report.kubelb(kubelb, cluster, since_ns, own)
    return report.verdict()


# --- the command line --------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """One line for a mistake."""

    def error(self, message):
        raise Wrong(f"{message}; see --help")


def number(low, high):
    def parse(text):
        try:
            value = float(text)
        except ValueError:
            value = -1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low:g} to {high:g}")
        return value

    return parse


def command(text):
    try:
        words = shlex.split(text)
    except ValueError as e:
        raise argparse.ArgumentTypeError(f"{text!r}: {e}") from e
    if not words:
        raise argparse.ArgumentTypeError("names no command")
    return words


def parse(argv):
    parser = Parser(prog="k8s-check.sh", add_help=False, allow_abbrev=False)
    parser.add_argument("kubeconfig", metavar="KUBECONFIG")
    parser.add_argument("--seconds", type=number(1, 86400), default=60)
    parser.add_argument("--rate", type=number(1, 100), default=5)
    parser.add_argument("--timeout", type=number(0.1, 600), default=10)
    parser.add_argument("--silence", type=number(1, 3600))
    parser.add_argument("--kubelbctl", type=command, default=["kubelbctl"])
    return parser.parse_args(argv)


def main(argv):
    if "-h" in argv or "--help" in argv:
        print(__doc__, end="")
        return 0
    try:
        return check(parse(argv))
    except Wrong as e:
        print(f"k8s-check.sh: {e}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
