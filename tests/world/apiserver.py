#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""A test apiserver: the part of kube-apiserver that KubeLB meets, and every way to fail.

HTTPS (HTTP/1.1, kept alive, and where asked for HTTP/2; TLS 1.2 and 1.3 with resumption) with
/readyz, /livez, /healthz, /version, and EndpointSlices to get, list and watch as apiserver 1.34
does it: label and field selectors, limit, bookmarks, sendInitialEvents, timeoutSeconds, 410.
The objects come from etcd.py's file, which all apiservers of a world share. The answers
themselves are in apiserver_api.py, TLS and HTTP/1.1 in apiserver_wire.py, HTTP/2 in
apiserver_h2.py, its own client and its place in the list of apiservers in apiserver_life.py;
here is what goes wrong.

For tests (Apiserver is in apiserver_backend.py; everything a Backend can do it can, too):

    api = world.apiserver(1, tokens={"t1": "system:node:worker"})
                                 in the place of cp1's nginx, until world.reset()
    world.etcd.put("kubernetes", ["192.168.77.11"])      what the API serves: see etcd.py

    api.start(), kill(), stop(), cont(), link(up), certificate(kind, pki)   as every Backend
    api.start(sequence=[["refused", .2], ["forbidden", .2], ["unready", .2]])
    api.terminate()              SIGTERM: graceful, see `shutdown`; api.wait_exit()
    api.set(NAME=VALUE, ...)     settings: below; they outlive the process
    api.answer(WHERE, ...)       faults: below; they end with the process
    api.phase(NAME), sequence([[NAME, SECONDS], ...]), shutdown(delay, linger), hang(HOW),
    api.disconnect(HOW, which), freeze(which), goaway(which, last, after), watches(HOW), normal()
    api.counters()               what it has seen: below; wait_counters(condition, what)
    api.clients()                the same, connection by connection: below
    api.requests(uri="/readyz")  the same, request by request, once answered

Settings
    tokens            {token: user}; replace it to rotate
    anonymous         "allow" | "deny" (401 without credentials, as --anonymous-auth=false)
    anonymous_paths   what the anonymous may get; 403 on all else. A `*` ends a prefix.
    forbidden_users   users who get 403 on everything but anonymous_paths
    client_certs      "off" | "optional" | "required" (TLS fails without) | "refused" (asked
                      for, and 401). A certificate's CN is the user; one of an unknown CA
                      fails the handshake. world.pki.client(user) makes one.
    tls_versions      ["TLSv1.2", "TLSv1.3"]
    alpn              ["http/1.1"]; ["h2", "http/1.1"] is what the real one offers. PINGs are
                      answered by the read loop, whatever the handlers do
    idle_timeout      seconds after which a kept connection without a request is closed, one of
                      HTTP/2 by GOAWAY, and in spite of PINGs (the real one: 90)
    bookmark_interval seconds between bookmarks (one comes before a timeout in any case)
    gone              "event" | "status": how a watch from a compacted version is told
    shutdown_delay, shutdown_linger    what SIGTERM uses
    From the process's start on:
    listen            "tcp" | "mptcp", as Go does since 1.24; one socket for both families
    loopback          addresses that its own client dials (the real one: [::1] or 127.0.0.1), with
                      a certificate and a token that only this process has; until each has worked
                      /readyz, /livez and /healthz say 500
    loopback_timeout  seconds after which it gives up on that: the process ends with status 1
    lease             seconds (the real one: 15). It is in the EndpointSlice `kubernetes` from when
                      it is ready until SIGTERM or the command shutdown, before all delays, and
                      renews its lease; one that does not (kill -9, SIGSTOP, etcd-stall) is removed
                      by the others when it has run out. None: the slice is the test's to write

answer(WHERE, status=, body=, headers=, delay=, dribble=, cut=, hang=, times=)
    WHERE is a path, "list", "watch", "get" (of EndpointSlices) or "*". Nothing else given: as
    normal again. Without a status the answer is the true one.
    delay  seconds before it         dribble  milliseconds for each byte (of a watch, too)
    hang   no answer at all          cut      the body up to that share (0..1), then FIN
    times  only for the next so many requests

Phases
    refused     the port is closed; open connections live on
    forbidden   403 for everybody: started, but knows no roles yet
    unready     500 on /readyz, /livez and /healthz
    serving     normal
    shutdown    500 on /readyz, all else as normal
    etcd-stall  /readyz and /healthz get no answer, /livez 500 after livez_after (2 s); lists
                do not return, unless with resourceVersion=0; watches are silent
    shutdown(delay, linger): that phase for `delay`, then the port and the idle connections
    are closed, and `linger` later the process ends.

hang(HOW), None ends it and what was held back goes on
    tcp    new connections are accepted and nothing is read
    tls    half of the server's first flight is all that new connections get
    http   nothing is answered any more, on any connection; watches are silent
    handlers  no new request is answered; watches that are open go on
    watch  only watches, open and new, are silent: no events, no bookmarks, no end

which is "all", "idle" (without a request), "watches" (with one), or a client, "ADDRESS:PORT".
Each returns how many connections it was about.
disconnect(HOW, which="all")
    close  the TLS way and FIN       fin  FIN alone       rst  RST
freeze(which)
    nothing is read or written on these any more, no PING answered; new ones are well.
    None lets all go on, with what was held back.
goaway(which="all", last=None, after=None)
    GOAWAY on those of HTTP/2. last: the last stream that is served, by default the highest one
    that was opened; those above get no answer. after: seconds until the connection is closed
    with what is still open on it; None: once nothing is.

watches(HOW), for every open watch; returns how many
    bookmark    those that allow it get one now
    end         the end of the response, as by a timeout
    expire      an ERROR event with 410, and the end
    half-json   half an event, whole as a chunk, and FIN
    half-chunk  half a chunk, and FIN
    garbage     a line that is not JSON; the watch goes on

Counters
    accepted, open, watches, revision (of etcd, as far as it has read),
    ready, loopback {worked, failed} (its own client's attempts),
    errors (exceptions: our own mistakes),
    handshakes {full, resumed, failed}, tls {version: n}, statuses {status: n},
    requests {path, "list", "watch" or "get": n}, tokens {token: n}, users {user: n},
    pings, protocols {"h2" or "http/1.1": n}
Clients, the open ones and the last thousand others, in the order of their coming:
    client "ADDRESS:PORT", open, protocol ("" before the handshake), handshakes (0 or 1),
    pings, requests {as above}, streams (open ones of HTTP/2)

By hand: apiserver.py --help. Its control channel is HTTP on a unix socket:
    curl --unix-socket DIR/control.sock http://x/counters
    curl --unix-socket DIR/control.sock http://x/phase -d '{"phase": "unready"}'
    curl --unix-socket DIR/control.sock http://x/etcd \\
        -d '{"do": "put", "args": ["kubernetes", ["10.0.0.1"]]}'

Python's standard library, and python3-h2 where alpn has h2.
"""

import argparse
import asyncio
import collections
import contextlib
import ctypes
import dataclasses
import inspect
import json
import os
import resource
import signal
import socket
import ssl
import sys
import traceback

from apiserver_api import (HEALTH, Refusal, Watch, documents, forced_response, health_response,
                           list_slices, one_slice, version_of)
from apiserver_life import HOOK, RETRY, USER, Loopback, Membership
from apiserver_wire import Connection, End, Left, json_response, text_response
from etcd import Etcd, Store
from system import WorldError

PHASES = ("refused", "forbidden", "unready", "serving", "shutdown", "etcd-stall")
HANGS = (None, "tcp", "tls", "http", "handlers", "watch")
WHICH = ("all", "idle", "watches")
DISCONNECTS = ("close", "fin", "rst")
WATCH_ORDERS = ("bookmark", "end", "expire", "half-json", "half-chunk", "garbage")
ANONYMOUS = "system:anonymous"
FAILING = {"unready": HOOK, "shutdown": "shutdown"}
IN_MODIFY = 2  # <sys/inotify.h>

DEFAULTS = {
    "tokens": {},
    "anonymous": "allow",
    "anonymous_paths": [*HEALTH, "/version"],
    "forbidden_users": [],
    "client_certs": "optional",
    "tls_versions": ["TLSv1.2", "TLSv1.3"],
    "alpn": ["http/1.1"],
    "idle_timeout": None,
    "bookmark_interval": None,
    "gone": "event",
    "shutdown_delay": 0.0,
    "shutdown_linger": 0.0,
    "listen": "tcp",
    "loopback": [],
    "loopback_timeout": 30.0,
    "lease": None,
}
CHOICES = {
    "anonymous": ("allow", "deny"),
    "client_certs": ("off", "optional", "required", "refused"),
    "gone": ("event", "status"),
    "listen": ("tcp", "mptcp"),
}
TLS_SETTINGS = {"client_certs", "tls_versions", "alpn"}
PROTOCOLS = ("h2", "http/1.1")
FORGOTTEN_AFTER = 1000  # closed connections
TLS_VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


def one_of(what, value, choices):
    if value not in choices:
        raise WorldError(f"{what}: {value!r} is not one of {list(choices)}")
    return value


def number(what, value):
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        raise WorldError(f"{what}: {value!r} is not a number from 0 on")
    return value


@contextlib.contextmanager
def naming(what):
    """Says what it was that an OSError of the block is about."""
    try:
        yield
    except OSError as e:
        raise WorldError(f"{what}: {e.strerror or e}") from e


@dataclasses.dataclass
class Rule:
    """answer()'s; see the top of this file."""

    status: int | None = None
    body: str | None = None
    headers: dict = dataclasses.field(default_factory=dict)
    delay: float = 0.0
    dribble: float = 0.0
    cut: float | None = None
    hang: bool = False
    times: int | None = None
    where: str = "*"
    over: bool = dataclasses.field(default=False, init=False)

    def __post_init__(self):
        for name in ("delay", "dribble"):
            number(f"answer: {name}", getattr(self, name))
        if self.status is not None and not 200 <= number("answer: status", self.status) <= 599:
            raise WorldError(f"answer: status {self.status} is not in 200..599")
        if self.cut is not None and number("answer: cut", self.cut) > 1:
            raise WorldError(f"answer: cut {self.cut} is not in 0..1")
        if self.body is not None and self.status is None:
            raise WorldError("answer: a body needs a status")
        if self.times is not None and number("answer: times", self.times) < 1:
            raise WorldError(f"answer: times {self.times} is not from 1 on")


def check_settings(settings):
    """Every mistake is told, none is taken."""
    for name, value in settings.items():
        if name not in DEFAULTS:
            raise WorldError(f"no setting {name!r}; there are {', '.join(DEFAULTS)}")
        default = DEFAULTS[name]
        if name in CHOICES:
            one_of(name, value, CHOICES[name])
        elif isinstance(default, (dict, list)):
            if not isinstance(value, type(default)):
                raise WorldError(f"{name}: {value!r} is not a {type(default).__name__}")
        elif value is not None or default is not None:
            number(name, value)
    for version in settings.get("tls_versions", ["TLSv1.3"]) or [None]:
        one_of("tls_versions", version, TLS_VERSIONS)
    for protocol in settings.get("alpn", ["http/1.1"]) or [None]:
        one_of("alpn", protocol, PROTOCOLS)


class Counters:
    """What the server has seen; see the top of this file."""

    def __init__(self):
        self.accepted = self.errors = self.pings = 0
        self.handshakes = {"full": 0, "resumed": 0, "failed": 0}
        self.loopback = {"worked": 0, "failed": 0}
        self.tls, self.requests, self.statuses, self.tokens, self.users, self.protocols = (
            collections.Counter() for _ in range(6))


class Server:
    """The apiserver. Its state changes by do_*() and by the store; notify()
    then wakes every connection, which looks for what concerns it."""

    def __init__(self, args, settings):
        self.args = args
        self.settings = {**DEFAULTS, **settings}
        self.counters = Counters()
        self.rules = {}
        self.used_up = []  # rules whose `times` are over; requests may hang by them
        self.phase = "serving"
        self.livez_after = 2.0
        self.hang = None
        self.connections = {}
        self.closed = collections.deque(maxlen=FORGOTTEN_AFTER)
        self.tasks = set()  # the loop itself holds tasks only weakly
        self.watches = []
        self.listeners = []
        self.accepting = []
        self.timetable = None
        self.closing = False
        self.finished = asyncio.Event()
        self.status = 0
        self.change = asyncio.get_running_loop().create_future()
        self.etcd = None  # to write, once asked to
        self.store = Store(args.etcd)
        self.store.follow()
        self.loopback = Loopback(self.settings["loopback"], args.port) \
            if self.settings["loopback"] else None
        self.started = not self.loopback
        self.membership = self.member()
        self.context = self.tls_context()
        self.log = open(args.access_log, "a", encoding="utf-8")  # pylint: disable=R1732

    def notify(self):
        old, self.change = self.change, asyncio.get_running_loop().create_future()
        old.set_result(None)

    def spawn(self, coroutine):
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def until(self, condition):
        while not condition():
            await asyncio.wait({self.change})

    def tls_context(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with naming(f"certificate {self.args.cert}, key {self.args.key}"):
            context.load_cert_chain(self.args.cert, self.args.key)
        versions = [TLS_VERSIONS[v] for v in self.settings["tls_versions"]]
        context.minimum_version, context.maximum_version = min(versions), max(versions)
        context.set_alpn_protocols(self.settings["alpn"])
        if self.loopback:
            context.sni_callback = self.loopback.choose
        if self.settings["client_certs"] != "off":
            with naming(f"CA {self.args.ca}"):
                context.load_verify_locations(self.args.ca)
            context.verify_mode = ssl.CERT_REQUIRED if \
                self.settings["client_certs"] == "required" else ssl.CERT_OPTIONAL
        return context

    # the store

    def follow_store(self):
        """Reads the file whenever it has been written."""
        libc = ctypes.CDLL(None, use_errno=True)
        fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if fd < 0 or libc.inotify_add_watch(fd, self.args.etcd.encode(), IN_MODIFY) < 0:
            raise OSError(ctypes.get_errno(), "inotify", self.args.etcd)

        def changed():
            with contextlib.suppress(BlockingIOError):
                os.read(fd, 65536)
            if self.store.follow():
                self.notify()

        asyncio.get_running_loop().add_reader(fd, changed)
        changed()  # what came before the watch

    # listening

    def listen(self):
        loop = asyncio.get_running_loop()
        protocol = socket.IPPROTO_MPTCP if self.settings["listen"] == "mptcp" else 0
        sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, protocol)
        self.listeners.append(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        with naming(f"port {self.args.port}"):
            sock.bind(("::", self.args.port))
        sock.listen(4096)
        self.accepting.append(loop.create_task(self.accept(sock, self.accepted)))

    async def unlisten(self):
        for task in self.accepting:
            task.cancel()
        if self.accepting:
            await asyncio.wait(self.accepting)
        for sock in self.listeners:
            sock.close()
        self.accepting.clear()
        self.listeners.clear()

    async def accept(self, listener, accepted):
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, peer = await loop.sock_accept(listener)
            except OSError:  # out of descriptors, say: told, and tried again
                self.counters.errors += 1
                traceback.print_exc()
                await asyncio.sleep(0.1)
                continue
            accepted(sock, peer)

    def accepted(self, sock, peer):
        self.counters.accepted += 1
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(self, sock, self.counters.accepted, peer, self.context)
        self.connections[connection.number] = connection
        connection.task = asyncio.get_running_loop().create_task(self.serve(connection))

    async def serve(self, connection):
        try:
            if connection.state == "doomed":
                raise End(connection.ending)
            connection.state = "handshake"
            await self.until(lambda: self.hang != "tcp")
            if await self.handshake(connection):
                await self.serve_requests(connection)
        except Left:
            pass
        except End as e:
            connection.ending = e.args[0]
        except asyncio.CancelledError:
            pass  # by disconnect(), which has set how
        except Exception:
            self.counters.errors += 1
            traceback.print_exc()
        finally:
            await connection.end()
            del self.connections[connection.number]
            self.closed.append(connection.account())

    async def handshake(self, connection):
        stream = connection.stream
        try:
            await stream.handshake(lambda: self.until(lambda: self.hang != "tls"))
        except (OSError, Left):
            self.counters.handshakes["failed"] += 1
            return False
        self.counters.handshakes["resumed" if stream.tls.session_reused else "full"] += 1
        self.counters.tls[stream.tls.version()] += 1
        self.counters.protocols[stream.tls.selected_alpn_protocol() or "http/1.1"] += 1
        return True

    # requests

    async def serve_requests(self, connection):
        if connection.stream.tls.selected_alpn_protocol() == "h2":
            # pylint: disable-next=import-outside-toplevel
            from apiserver_h2 import Http2  # here: only then is the library wanted
            connection.http2 = Http2(self, connection)
            await connection.http2.serve()
        while not self.closing:
            connection.state = "idle"
            request = await connection.read_request(lambda: self.settings["idle_timeout"])
            connection.state = "busy"
            connection.served += 1
            connection.requests[request.where] += 1
            await self.serve_request(connection, request)
            if not request.keeps_alive():
                raise End("close")

    async def serve_request(self, connection, request):
        """connection: a Connection, or a stream of one."""
        self.counters.requests[request.where] += 1
        status = 499  # the client left, in nginx's words
        try:
            status = await self.answer(connection, request)
        finally:
            self.counters.statuses[str(status)] += 1
            self.write_log(connection, request, status)

    async def answer(self, connection, request):
        rule = self.take_rule(request.where)
        await connection.sleep(rule.delay)
        while self.hang in ("http", "handlers") or rule.hang and not rule.over:
            await connection.wait()
        try:
            if rule.status is not None:
                self.identify(connection, request, quiet=True)
                response = forced_response(request, rule)
            else:
                self.authorize(request, self.identify(connection, request))
                if request.verb == "watch":
                    await Watch(self, connection, request).serve()
                    return 200
                response = await self.true_response(connection, request)
        except Refusal as e:
            response = json_response(e.status, e.object)
        response.headers.update(rule.headers)
        response.cut = rule.cut
        await connection.send_response(request, response, rule.dribble)
        return response.status

    def rule(self, where):
        return self.rules.get(where) or self.rules.get("*") or Rule()

    def take_rule(self, where):
        """The rule for a request, which counts as used."""
        rule = self.rule(where)
        if rule.times is not None:
            rule.times -= 1
            if rule.times <= 0:
                self.rules = {k: r for k, r in self.rules.items() if r is not rule}
                self.used_up.append((rule.where, rule))
        return rule

    def retire(self, where=None):
        """Ends a rule (all), for requests that hang by it, too."""
        for key, rule in [*self.rules.items(), *self.used_up]:
            rule.over = rule.over or where in (None, key)
        self.rules = {k: r for k, r in self.rules.items() if not r.over}
        self.used_up = [(k, r) for k, r in self.used_up if not r.over]

    def identify(self, connection, request, quiet=False):
        """Who asks: by certificate, by token, or nobody; 401 unless quiet."""
        certificate = connection.stream.tls.getpeercert()
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        user = None
        if scheme.lower() == "bearer":
            request.token = token
            if self.loopback and token == self.loopback.token:
                user = USER
            else:
                self.counters.tokens[token] += 1
                user = self.settings["tokens"].get(token)
        elif self.settings["anonymous"] == "allow":
            user = ANONYMOUS
        if certificate:
            names = dict(pair for rdn in certificate["subject"] for pair in rdn)
            refused = self.settings["client_certs"] == "refused"
            user = None if refused else names.get("commonName", "")
        request.user = user or ""
        self.counters.users[request.user] += 1
        if user is None and not quiet:
            raise Refusal(401, "Unauthorized")
        return user

    def authorize(self, request, user):
        public = any(request.path == p or p.endswith("*") and request.path.startswith(p[:-1])
                     for p in self.settings["anonymous_paths"])
        restricted = user == ANONYMOUS or user in self.settings["forbidden_users"]
        if user == USER or self.phase != "forbidden" and (public or not restricted):
            return
        if not request.verb:
            raise Refusal(403, f'forbidden: User "{user}" cannot {request.method.lower()} path '
                          f'"{request.path}"', details={})
        scope = f'in the namespace "{request.namespace}"' if request.namespace else \
            "at the cluster scope"
        raise Refusal(403, f'endpointslices.discovery.k8s.io is forbidden: User "{user}" cannot '
                      f'{request.verb} resource "endpointslices" in API group '
                      f'"discovery.k8s.io" {scope}',
                      details={"group": "discovery.k8s.io", "kind": "endpointslices"})

    # its own life

    def member(self):
        if not self.settings["lease"]:
            return None
        if not self.args.advertise:
            raise WorldError("lease: needs --advertise")
        return Membership(self.args.etcd, self.args.advertise, self.settings["lease"])

    async def live(self):
        """From the listening to the list."""
        if self.membership:
            self.membership.leave()  # what a process that was killed has left
        if self.loopback:
            await self.post_start_hooks()
        self.started = True
        self.notify()
        await self.until(self.is_ready)
        if self.membership:
            await self.renew_lease()

    async def post_start_hooks(self):
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.settings["loopback_timeout"]
        for address in self.loopback.addresses:
            while problem := await self.loopback.problem(address):
                self.counters.loopback["failed"] += 1
                if loop.time() > deadline:
                    self.end(1, f'PostStartHook "{HOOK[len("poststarthook/"):]}" failed: {problem}')
                await asyncio.sleep(RETRY)
            self.counters.loopback["worked"] += 1

    def is_ready(self):
        return self.started and self.phase == "serving"

    async def renew_lease(self):
        while self.membership:
            await self.until(lambda: self.phase != "etcd-stall")
            self.membership.renew()
            await asyncio.sleep(self.membership.interval)

    def leave_list(self):
        """For good: nothing adds it again while it shuts down."""
        if self.membership:
            self.membership.leave()
            self.membership = None

    def end(self, status, why):
        print(f"apiserver.py: {why}", file=sys.stderr)
        self.status = status
        self.finished.set()

    async def true_response(self, connection, request):
        if request.method != "GET":
            raise Refusal(405, "the server does not allow this method on the requested resource")
        if request.path in HEALTH:
            return await self.health(connection, request)
        if request.verb:
            return await self.slices(connection, request)
        document = documents(self.args.name).get(request.path)
        if document is None:
            return text_response(404, "404 page not found\n")
        return json_response(200, document)

    async def health(self, connection, request):
        failing = FAILING.get(self.phase, None if self.started else HOOK)
        if self.phase == "shutdown" and request.path != "/readyz":
            failing = None
        if self.phase == "etcd-stall":
            failing = "etcd"
            if request.path == "/livez":
                await connection.sleep(self.livez_after)
            else:
                await self.stall(connection)
                failing = None
        return health_response(request.path[1:], failing, "verbose" in request.query)

    async def stall(self, connection):
        while self.phase == "etcd-stall":
            await connection.wait()

    async def slices(self, connection, request):
        version = version_of(request)
        if version != 0:
            await self.stall(connection)
        return one_slice(self.store, request) if request.name else \
            list_slices(self.store, request, version)

    def write_log(self, connection, request, status):
        """As nginx of the other control planes writes it, and who it was."""
        tls = connection.stream.tls
        self.log.write(json.dumps({
            "connection": connection.number, "request": connection.served, "time": request.time,
            "method": request.method, "uri": request.path, "query": request.query,
            "status": status, "protocol": request.version, "tls": tls.version(),
            "reused": "r" if tls.session_reused else ".", "client": connection.peer,
            "agent": request.headers.get("user-agent", ""), "user": request.user,
            "token": request.token}) + "\n")
        self.log.flush()

    # faults

    def do_set(self, **settings):
        check_settings(settings)
        self.settings.update(settings)
        if TLS_SETTINGS & settings.keys():
            self.context = self.tls_context()

    def do_answer(self, where, **rule):
        if where == "watch" and rule.get("cut") is not None:
            raise WorldError('answer: "watch" has no length to cut; see watches()')
        if not where.startswith("/") and where not in ("list", "watch", "get", "*"):
            raise WorldError(f"answer: {where!r} is neither a path nor list, watch, get, *")
        known = [f.name for f in dataclasses.fields(Rule) if f.init and f.name != "where"]
        for name in rule:
            one_of("answer", name, known)
        given = {name: value for name, value in rule.items() if value is not None}
        rule = Rule(where=where, **given)  # before the old one goes: it may be refused
        self.retire(where)
        if given:
            self.rules[where] = rule

    async def do_phase(self, phase, livez_after=2.0):
        self.end_timetable()
        self.livez_after = number("phase: livez_after", livez_after)
        await self.enter(one_of("phase", phase, PHASES))

    async def enter(self, phase):
        self.phase = phase
        if phase == "refused":
            await self.unlisten()
        elif not self.listeners and not self.closing:
            self.listen()
        self.notify()

    def end_timetable(self):
        if self.timetable:
            self.timetable.cancel()
            self.timetable = None

    async def do_sequence(self, steps):
        for phase, seconds in steps:
            one_of("sequence", phase, PHASES)
            number("sequence", seconds)
        self.end_timetable()
        if steps:
            await self.enter(steps[0][0])
        self.timetable = asyncio.get_running_loop().create_task(self.keep_to(steps))

    async def keep_to(self, steps):
        for phase, seconds in steps:
            await self.enter(phase)
            await asyncio.sleep(seconds)
        await self.enter("serving")

    async def do_shutdown(self, delay=0.0, linger=0.0):
        number("shutdown: delay", delay)
        number("shutdown: linger", linger)
        self.end_timetable()
        self.leave_list()
        await self.enter("shutdown")
        self.timetable = asyncio.get_running_loop().create_task(self.leave(delay, linger))

    async def leave(self, delay, linger):
        await asyncio.sleep(delay)
        self.closing = True
        await self.unlisten()
        self.do_goaway()
        await self.do_disconnect("close", "idle")
        await asyncio.sleep(linger)
        self.finished.set()

    def terminate(self):
        self.spawn(self.do_shutdown(self.settings["shutdown_delay"],
                                    self.settings["shutdown_linger"]))

    def do_hang(self, how=None):
        self.hang = one_of("hang", how, HANGS)

    def choose(self, which):
        """The connections that a command is about."""
        if not isinstance(which, str) or ":" not in which:
            one_of("which", which, WHICH)
        watching = {w.connection.number for w in self.watches}
        return [c for c in self.connections.values() if which in ("all", c.client)
                or which == "watches" and c.number in watching
                or which == "idle" and c.state == "idle"]

    def do_freeze(self, which=None):
        if which is None:
            chosen = [c for c in self.connections.values() if not c.stream.thawed.is_set()]
        else:
            chosen = self.choose(which)
        for connection in chosen:
            if which is None:
                connection.stream.thawed.set()
            else:
                connection.stream.thawed.clear()
        return len(chosen)

    def do_goaway(self, which="all", last=None, after=None):
        for name, value in (("last", last), ("after", after)):
            if value is not None:
                number(f"goaway: {name}", value)
        chosen = [c for c in self.choose(which) if c.http2]
        for connection in chosen:
            connection.http2.go_away(last, after)
        return len(chosen)

    async def do_disconnect(self, how="fin", which="all"):
        one_of("disconnect", how, DISCONNECTS)
        chosen = self.choose(which)
        for connection in chosen:
            connection.ending = how
            if connection.state == "new":  # a task that never ran cannot clean up
                connection.state = "doomed"
            else:
                connection.task.cancel()
        if chosen:
            await asyncio.wait([c.task for c in chosen])
        return len(chosen)

    async def do_watches(self, how):
        one_of("watches", how, WATCH_ORDERS)
        orders = []
        for watch in self.watches:
            orders.append(asyncio.get_running_loop().create_future())
            watch.orders.append((how, orders[-1]))
        self.notify()
        if orders:
            await asyncio.wait(orders, timeout=2)
        return sum(order.done() and not order.cancelled() for order in orders)

    async def do_normal(self):
        self.retire()
        self.hang = None
        self.do_freeze()
        await self.do_phase("serving")

    def do_counters(self):
        return {**vars(self.counters), "ready": self.is_ready(), "open": len(self.connections),
                "watches": len(self.watches), "revision": self.store.revision}

    def do_clients(self):
        return [*self.closed, *(c.account() for c in self.connections.values())]

    def do_etcd(self, do, args=()):
        """What Etcd's methods do, for those without Python."""
        one_of("etcd", do, ("put", "delete", "burst", "advance", "compact"))
        self.etcd = self.etcd or Etcd(self.args.etcd)
        return getattr(self.etcd, do)(*args)

    # the control channel

    async def listen_control(self):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.args.control)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.bind(self.args.control)
        sock.listen(64)
        return asyncio.get_running_loop().create_task(self.accept(sock, self.control_accepted))

    def control_accepted(self, sock, _peer):
        connection = Connection(self, sock, 0)
        self.spawn(self.serve_control(connection))

    async def serve_control(self, connection):
        try:
            while True:
                request = await connection.read_request()
                try:
                    response = json_response(200, await self.control(request))
                except Exception as e:
                    if not isinstance(e, WorldError):
                        traceback.print_exc()
                    response = json_response(400, {"error": str(e) or repr(e)})
                await connection.send_response(request, response, 0)
                if not request.keeps_alive():
                    return
        except (Left, End):
            pass
        finally:
            await connection.end()

    async def control(self, request):
        command = getattr(self, "do_" + request.path[1:], None)
        if command is None:
            known = sorted(n[3:] for n in dir(self) if n.startswith("do_"))
            raise WorldError(f"no command {request.path[1:]!r}; there are {', '.join(known)}")
        try:
            args = json.loads(request.body or b"{}")
            inspect.signature(command).bind(**args)
        except (TypeError, ValueError) as e:
            raise WorldError(f"{request.path[1:]}: {e}") from e
        result = command(**args)
        if asyncio.iscoroutine(result):
            result = await result
        self.notify()
        return result


async def run(args, settings):
    server = Server(args, settings)
    server.follow_store()
    if args.sequence:
        await server.do_sequence(json.loads(args.sequence))
    else:
        server.listen()
    server.spawn(server.live())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.terminate)
    # Last: whoever is answered here finds everything else in place.
    control = await server.listen_control()
    await server.finished.wait()
    control.cancel()
    return server.status


def parse(argv):
    parser = argparse.ArgumentParser(prog="apiserver.py", description="A test apiserver; its "
                                     "faults are described at the top of the source.")
    parser.add_argument("dir", help="where its files are: current.crt, settings.json (both "
                        "optional), control.sock, access.log")
    parser.add_argument("--name", default="apiserver", help="told by /version")
    parser.add_argument("--port", type=int, default=6443)
    parser.add_argument("--cert", help="default DIR/current.crt")
    parser.add_argument("--key", required=True, help="of that certificate")
    parser.add_argument("--ca", required=True, help="CA of the clients' certificates")
    parser.add_argument("--etcd", required=True, metavar="FILE",
                        help="see etcd.py; an empty one will do")
    parser.add_argument("--advertise", metavar="ADDRESS", help="what is listed of it; for a lease")
    parser.add_argument("--sequence", metavar="JSON",
                        help='start with these phases: [["refused", 0.5], ...]')
    args = parser.parse_args(argv)
    args.cert = args.cert or os.path.join(args.dir, "current.crt")
    args.control = os.path.join(args.dir, "control.sock")
    args.access_log = os.path.join(args.dir, "access.log")
    return args


def main(argv=None):
    args = parse(argv)
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        settings = {}
        with contextlib.suppress(FileNotFoundError), \
                open(os.path.join(args.dir, "settings.json"), encoding="utf-8") as f:
            settings = json.load(f)
        check_settings(settings)
        return asyncio.run(run(args, settings))
    except (WorldError, OSError, ValueError) as e:
        print(f"apiserver.py: {e}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
