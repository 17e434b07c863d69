# SPDX-License-Identifier: BSD-2-Clause
"""What the test apiserver answers: health, EndpointSlices listed and watched,
and refusals, in kube-apiserver's words."""

import asyncio
import base64
import collections
import json
import re

from apiserver_wire import End, Response, common_headers, json_response, text_response
from etcd import GROUP_VERSION, encode, typed

HEALTH = ("/readyz", "/livez", "/healthz")
CHECKS = ("ping", "log", "etcd", "poststarthook/rbac/bootstrap-roles", "shutdown")
BATCH = 500  # events in one write

REASONS = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound",
           405: "MethodNotAllowed", 410: "Expired", 429: "TooManyRequests",
           500: "InternalError", 503: "ServiceUnavailable", 504: "Timeout"}


class Refusal(Exception):
    """A request that gets a Status for an answer."""

    def __init__(self, status, message, reason=None, details=None):
        super().__init__(message)
        self.status = status
        self.object = status_object(status, message, reason, details)


def status_object(status, message, reason=None, details=None):
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason or REASONS.get(status, ""),
            **({"details": details} if details is not None else {}), "code": status}


def health_response(name, failing, verbose):
    if not failing and not verbose:
        return text_response(200, "ok")
    lines = [f"[-]{c} failed: reason withheld" if c == failing else f"[+]{c} ok" for c in CHECKS
             if c != "shutdown" or name == "readyz"]
    lines.append(f"{name} check {'failed' if failing else 'passed'}")
    return text_response(500 if failing else 200, "\n".join(lines) + "\n")


def forced_response(request, rule):
    """What a rule's status and body make, as a real server would word it."""
    if rule.body is not None:
        response = Response(rule.status, rule.body.encode(), "text/plain; charset=utf-8")
    elif request.path in HEALTH and rule.status == 500:
        response = health_response(request.path[1:], "etcd", False)
    elif rule.status < 300:
        response = text_response(rule.status, "ok")
    else:
        response = json_response(rule.status, status_object(
            rule.status, f"the server answered {rule.status} on command"))
    if rule.status == 429:
        response.headers["Retry-After"] = "1"
    return response


# --- EndpointSlices, got and listed ------------------------------------------


class Selection:
    """Which EndpointSlices a request is about."""

    def __init__(self, request):
        self.namespace = request.namespace
        self.labels = [self.requirement(p) for p in
                       self.parts(request.query.get("labelSelector", ""))]
        self.fields = [self.field(p) for p in self.parts(request.query.get("fieldSelector", ""))]

    @staticmethod
    def parts(text):
        return [p.strip() for p in text.split(",") if p.strip()]

    @staticmethod
    def requirement(text):
        """(key, is it wanted?, value or None for any)"""
        match = re.fullmatch(r"(!?)([\w./-]+)\s*(?:(==|=|!=)\s*([\w.-]*))?", text)
        if not match or match[1] and match[3]:
            raise Refusal(400, f"unable to parse requirement: {text}")
        return match[2], not match[1] and match[3] != "!=", match[4]

    @staticmethod
    def field(text):
        match = re.fullmatch(r"metadata\.(name|namespace)(==|=|!=)(.*)", text)
        if not match:
            raise Refusal(400, f"field label not supported: {text}")
        return match[1], match[2] != "!=", match[3]

    def wants(self, obj):
        if obj is None or self.namespace not in (None, obj["metadata"]["namespace"]):
            return False
        labels = obj["metadata"].get("labels", {})
        has = [(labels.get(key), wanted, value) for key, wanted, value in self.labels]
        return all((a is not None if value is None else a == value) == wanted
                   for a, wanted, value in has) and \
            all((obj["metadata"][key] == value) == wanted for key, wanted, value in self.fields)


def version_of(request):
    """resourceVersion as a number; None where none is given."""
    text = request.query.get("resourceVersion", "")
    if text and not text.isdigit():
        raise Refusal(400, f"resourceVersion: Invalid value: {text!r}: strconv.ParseUint: parsing "
                      f"{text!r}: invalid syntax")
    return int(text) if text else None


def one_slice(store, request):
    obj = store.objects.get((request.namespace, request.name))
    if obj is None:
        raise Refusal(404, f'endpointslices.discovery.k8s.io "{request.name}" not found',
                      details={"name": request.name, "group": "discovery.k8s.io",
                               "kind": "endpointslices"})
    return json_response(200, typed(obj))


def list_slices(store, request, version):
    if version and version > store.revision:
        raise Refusal(504, f"Too large resource version: {version}, current: {store.revision}",
                      details={"causes": [{"reason": "ResourceVersionTooLarge",
                                           "message": "Too large resource version"}],
                               "retryAfterSeconds": 1})
    selection = Selection(request)
    found = sorted(key for key, obj in store.objects.items() if selection.wants(obj))
    revision, start = store.revision, ("", "")
    token = request.query.get("continue")
    if token:
        revision, start = continued(store, token)
    rest = [key for key in found if key > start]
    limit = request.query.get("limit", "")
    # From the watch cache, as real servers do, a list comes whole.
    limit = int(limit) if limit.isdigit() and version != 0 else 0
    page = rest[:limit] if limit else rest
    metadata = {"resourceVersion": str(revision)}
    if len(page) < len(rest):
        metadata["continue"] = base64.urlsafe_b64encode(
            encode([revision, page[-1]])).decode()
        metadata["remainingItemCount"] = len(rest) - len(page)
    return json_response(200, {
        "kind": "EndpointSliceList", "apiVersion": GROUP_VERSION, "metadata": metadata,
        "items": [store.objects[key] for key in page]})


def continued(store, token):
    try:
        revision, start = json.loads(base64.urlsafe_b64decode(token))
    except ValueError as e:
        raise Refusal(400, "continue key is not valid") from e
    if revision < store.compacted:
        raise Refusal(410, "The provided continue parameter is too old to display a "
                      "consistent list result.")
    return revision, tuple(start)


def documents(name):
    """What is the same for everybody: enough for kubectl to find its way."""
    group = {"groupVersion": GROUP_VERSION, "version": "v1"}
    return {
        "/version": {
            "major": "1", "minor": "34", "gitVersion": "v1.34.0",
            "gitCommit": "0" * 40, "gitTreeState": "clean",
            "buildDate": "2025-08-27T10:00:00Z", "goVersion": "go1.24.5",
            "compiler": "gc", "platform": "linux/amd64", "backend": name},
        "/api": {"kind": "APIVersions", "versions": ["v1"],
                 "serverAddressByClientCIDRs": []},
        "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": []},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [
            {"name": "discovery.k8s.io", "versions": [group], "preferredVersion": group}]},
        f"/apis/{GROUP_VERSION}": {
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": GROUP_VERSION,
            "resources": [{"name": "endpointslices", "singularName": "endpointslice",
                           "namespaced": True, "kind": "EndpointSlice",
                           "verbs": ["get", "list", "watch"]}]},
    }


# --- and watched -------------------------------------------------------------


def event_line(kind, text):
    return b'{"type":"%s","object":%s}\n' % (kind.encode(), text)


def bookmark_line(revision, initial=False):
    metadata = {"resourceVersion": str(revision), "creationTimestamp": None}
    if initial:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    return event_line("BOOKMARK", encode({
        "kind": "EndpointSlice", "apiVersion": GROUP_VERSION, "metadata": metadata,
        "addressType": "", "endpoints": None, "ports": None}))


def expired(revision, oldest):
    return f"too old resource version: {revision} ({oldest})"


class Watch:
    """One streamed response."""

    def __init__(self, server, connection, request):
        self.server = server
        self.connection = connection
        self.request = request
        self.selection = Selection(request)
        self.bookmarks = request.flag("allowWatchBookmarks")
        self.seen = version_of(request)
        self.orders = collections.deque()

    async def serve(self):
        store = self.server.store
        old = self.seen is not None and 0 < self.seen < store.compacted
        if old and self.server.settings["gone"] == "status":
            raise Refusal(410, expired(self.seen, store.compacted))
        # First of all: a client that has read the head may count on it.
        self.server.watches.append(self)
        try:
            await self.send(self.connection.send_head, 200, common_headers("application/json"))
            if old:
                await self.expire()
                return
            if not self.seen or self.request.flag("sendInitialEvents"):
                await self.send_initial()
            await self.follow()
        finally:
            self.server.watches.remove(self)
            for _how, done in self.orders:
                done.cancel()

    async def send(self, how, *what):
        """Does that one of the connection's send_*()."""
        while self.server.hang in ("http", "watch"):
            await self.connection.wait()
        await how(*what, self.server.rule("watch").dribble)

    async def send_lines(self, *lines):
        await self.send(self.connection.send_parts, lines)

    async def send_end(self):
        await self.send(self.connection.send_end)

    async def send_initial(self):
        store = self.server.store
        lines = [event_line("ADDED", encode(typed(obj))) for _key, obj in
                 sorted(store.objects.items()) if self.selection.wants(obj)]
        self.seen = store.revision
        if self.request.flag("sendInitialEvents") and self.bookmarks:
            lines.append(bookmark_line(self.seen, initial=True))
        if lines:
            await self.send_lines(*lines)

    async def follow(self):
        loop = asyncio.get_running_loop()
        limit = self.request.query.get("timeoutSeconds", "")
        deadline = loop.time() + float(limit) if limit.isdigit() and int(limit) else None
        last = loop.time()
        while True:
            await self.send_events()
            while self.orders:
                if await self.obey(*self.orders.popleft()):
                    return
            now = loop.time()
            if deadline is not None and now >= deadline:
                await self.bookmark()
                await self.send_end()
                return
            interval = self.server.settings["bookmark_interval"]
            if interval and now >= last + interval:
                await self.bookmark()
                last = now
            until = [t for t in (deadline, interval and last + interval) if t]
            if not self.behind():
                await self.connection.wait(min(until, default=None))

    def behind(self):
        """Is there something to send? What etcd does not tell nobody sees."""
        return self.server.phase != "etcd-stall" and self.seen < self.server.store.revision \
            or bool(self.orders)

    async def send_events(self):
        store = self.server.store
        while self.server.phase != "etcd-stall" and self.seen < store.revision:
            events = store.after(self.seen, BATCH)
            self.seen = events[-1].revision if events else store.revision
            lines = [line for line in map(self.line, events) if line]
            if lines:
                await self.send_lines(*lines)

    def line(self, event):
        """What that event is to this watch; None when nothing."""
        was, is_now = self.selection.wants(event.before), self.selection.wants(event.after)
        if is_now:
            return event_line("MODIFIED" if was else "ADDED", event.encoded())
        if not was:
            return None
        if event.after is None:
            return event_line("DELETED", event.encoded())
        gone = {**typed(event.before), "metadata": {**event.before["metadata"],
                                                    "resourceVersion": str(event.revision)}}
        return event_line("DELETED", encode(gone))

    async def bookmark(self):
        if self.bookmarks:
            await self.send_lines(bookmark_line(self.seen))

    async def expire(self):
        error = status_object(410, expired(self.seen, self.server.store.revision))
        await self.send_lines(event_line("ERROR", encode(error)))
        await self.send_end()

    async def obey(self, how, done):
        """Does what watches() orders; is this the end of the response?"""
        half = event_line("MODIFIED", encode(typed({"metadata": {"name": "kubernetes"}})))[:40]
        try:
            if how == "bookmark":
                await self.bookmark()
            elif how == "garbage":
                await self.send_lines(b"this is no JSON\n")
            elif how == "end":
                await self.send_end()
            elif how == "expire":
                await self.expire()
            elif how == "half-json":
                await self.send_lines(half)
                raise End("fin")
            else:
                await self.send(self.connection.send_half, half)
                raise End("fin")
            return how in ("end", "expire")
        finally:
            if not done.done():
                done.set_result(None)
