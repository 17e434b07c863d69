# SPDX-License-Identifier: BSD-2-Clause
"""The test apiserver's wire: TLS and HTTP/1.1 on raw sockets, so that both can
stop half-way, dribble, and end in every way there is; HTTP/2 on top of it is in
apiserver_h2.py. Knows nothing of faults: apiserver.py tells it what to do."""

import asyncio
import collections
import contextlib
import dataclasses
import email.utils
import http
import re
import socket
import ssl
import struct
import time
import urllib.parse

from etcd import GROUP_VERSION, encode

HEADER_LIMIT = 65536


class Left(Exception):
    """The client has gone."""


class End(Exception):
    """Our end of this connection, in one of the ways of DISCONNECTS."""


class Stream:
    """A socket, under TLS unless context is None. The TLS is done here and not
    by asyncio, so that it can stop half-way and end in every way there is."""

    def __init__(self, sock, context=None):
        self.loop = asyncio.get_running_loop()
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context and context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.sending = asyncio.Lock()
        self.thawed = asyncio.Event()  # unset: nothing is read or written
        self.thawed.set()
        self.established = False

    async def handshake(self, pause):
        """pause() is awaited in the middle of what the server says first."""
        done = first_flight = False
        while not done:
            try:
                self.tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                await self.flush()  # the alert
                raise
            if self.outgoing.pending and not first_flight:
                first_flight = True
                await self.loop.sock_sendall(self.sock,
                                             self.outgoing.read(self.outgoing.pending // 2))
                await pause()
            await self.flush()
            if not done:
                await self.fill()
        self.established = True

    async def flush(self):
        async with self.sending:
            await self.thawed.wait()  # under the lock: what waits keeps its order
            if self.outgoing.pending:
                await self.loop.sock_sendall(self.sock, self.outgoing.read())

    async def fill(self):
        await self.thawed.wait()
        data = await self.loop.sock_recv(self.sock, 65536)
        await self.thawed.wait()  # what was being waited for when it froze
        if not data:
            raise Left
        self.incoming.write(data)

    async def receive(self):
        """What comes next; raises Left at its end."""
        try:
            if not self.tls:
                data = await self.loop.sock_recv(self.sock, 65536)
            else:
                data = await self.receive_tls()
        except OSError as e:  # ssl.SSLError is one, too
            raise Left from e
        if not data:
            raise Left
        return data

    async def receive_tls(self):
        while True:
            try:
                return self.tls.read(65536)
            except ssl.SSLWantReadError:
                await self.flush()
                await self.fill()

    async def send(self, data):
        try:
            if not self.tls:
                await self.loop.sock_sendall(self.sock, data)
                return
            self.tls.write(data)  # a MemoryBIO takes it all
            await self.flush()
        except OSError as e:
            raise Left from e

    def close(self, how="close"):
        with contextlib.suppress(OSError):
            if how == "rst":
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                     struct.pack("ii", 1, 0))
            elif how == "close" and self.established:
                with contextlib.suppress(ssl.SSLError):
                    self.tls.unwrap()
                self.sock.send(self.outgoing.read())
        if how != "rst":
            # The FIN first: closing over unread bytes would send RST instead.
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_WR)
                while self.sock.recv(65536):
                    pass
        self.sock.close()


class Request:
    """One request's head. headers: with names in lower case."""

    def __init__(self, method, target, version, headers):
        self.method, self.target, self.version = method, target, version
        self.headers = headers
        url = urllib.parse.urlsplit(self.target)
        self.path = url.path
        self.query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        self.length = int(self.headers.get("content-length", 0))
        self.body = b""
        self.time = time.time()
        self.user = ""
        self.token = ""
        match = re.fullmatch(f"/apis/{GROUP_VERSION}(?:/namespaces/([^/]+))?/endpointslices"
                             "(?:/([^/]+))?", self.path)
        self.namespace, self.name = match.groups() if match else (None, None)
        self.verb = None  # on EndpointSlices
        if match:
            self.verb = "get" if self.name else "watch" if self.flag("watch") else "list"

    @classmethod
    def parse(cls, head):
        """From the bytes of HTTP/1.1."""
        lines = head.decode("latin-1").split("\r\n")
        parts = lines[0].split(" ")
        if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
            raise ValueError(f"not a request line: {lines[0]!r}")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        return cls(*parts, headers)

    @property
    def where(self):
        """What answer() and the counters call it."""
        return self.verb or self.path

    def flag(self, name):
        return self.query.get(name, "").lower() in ("1", "t", "true")

    def keeps_alive(self):
        asked = self.headers.get("connection", "").lower()
        return "close" not in asked and (self.version != "HTTP/1.0" or "keep-alive" in asked)


@dataclasses.dataclass
class Response:
    """Status, body, headers; `cut` is answer()'s."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: dict = dataclasses.field(default_factory=dict)
    cut: float | None = None


def json_response(status, value):
    return Response(status, encode(value) + b"\n")


def text_response(status, text):
    return Response(status, text.encode(), "text/plain; charset=utf-8",
                    {"X-Content-Type-Options": "nosniff"})


def common_headers(content_type):
    return {"Content-Type": content_type, "Cache-Control": "no-cache, private",
            "Date": email.utils.formatdate(usegmt=True)}


def head(status, headers):
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    lines = [f"HTTP/1.1 {status} {phrase}"] + [f"{k}: {v}" for k, v in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


class Waiting:
    """What has a wait(), and can sleep by it."""

    async def sleep(self, seconds):
        until = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < until:
            await self.wait(until)


class Connection(Waiting):
    """One client's connection, or one at the control socket. Its only way to
    wait is wait(), which notices the client's leaving and every change."""

    def __init__(self, server, sock, number, peer=("", 0), context=None):
        self.server = server
        self.stream = Stream(sock, context)
        self.number = number
        self.peer = peer[0].removeprefix("::ffff:")
        self.client = f"[{self.peer}]:{peer[1]}" if ":" in self.peer else f"{self.peer}:{peer[1]}"
        self.pings = 0
        self.requests = collections.Counter()
        self.http2 = None  # an Http2, once that was agreed on
        self.state = "new"
        self.served = 0
        self.buffer = b""
        self.filling = None
        self.ending = "close"
        self.task = None

    async def wait(self, until=None):
        """Until more bytes came, the server's state changed, or the loop's time
        `until`; the caller looks which."""
        loop = asyncio.get_running_loop()
        if self.filling is None:
            self.filling = loop.create_task(self.stream.receive())
        timeout = None if until is None else max(0, until - loop.time())
        await asyncio.wait({self.filling, self.server.change}, timeout=timeout,
                           return_when=asyncio.FIRST_COMPLETED)
        if self.filling.done():
            done, self.filling = self.filling, None
            self.buffer += done.result()
            if len(self.buffer) > 16 * HEADER_LIMIT:
                raise End("rst")

    async def read_request(self, idle_timeout=lambda: None):
        loop = asyncio.get_running_loop()
        start = loop.time()
        while b"\r\n\r\n" not in self.buffer:
            limit = idle_timeout()
            until = None if limit is None else start + limit
            if until is not None and loop.time() >= until or len(self.buffer) > HEADER_LIMIT:
                raise End("close")
            await self.wait(until)
        raw, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        try:
            request = Request.parse(raw)
        except ValueError as e:
            await self.send_response(None, text_response(400, f"400 Bad Request: {e}"), 0)
            raise End("close") from e
        while len(self.buffer) < request.length:
            await self.wait()
        request.body, self.buffer = self.buffer[:request.length], self.buffer[request.length:]
        return request

    async def send(self, data, dribble=0):
        if not dribble:
            await self.stream.send(data)
            return
        for i in range(len(data)):
            await self.stream.send(data[i:i + 1])
            await self.sleep(dribble / 1000)

    # a streamed response

    async def send_head(self, status, headers, dribble=0):
        await self.send(head(status, {**headers, "Transfer-Encoding": "chunked"}), dribble)

    async def send_parts(self, parts, dribble=0):
        await self.send(b"".join(map(chunk, parts)), dribble)

    async def send_half(self, part, dribble=0):
        """Half of what would have been twice as long, in the middle of the framing."""
        await self.send(b"%x\r\n%s" % (2 * len(part), part), dribble)

    async def send_end(self, dribble=0):
        await self.send(chunk(b""), dribble)

    # a whole one

    async def send_response(self, request, response, dribble):
        headers = {**common_headers(response.content_type),
                   "Content-Length": len(response.body), **response.headers}
        if request is None or not request.keeps_alive():
            headers["Connection"] = "close"
        body = response.body
        if response.cut is not None:
            body = body[:int(len(body) * response.cut)]
        await self.send(head(response.status, headers) + body, dribble)
        if response.cut is not None:
            raise End("fin")

    def account(self):
        """What clients() tells of it."""
        tls = self.stream.tls
        return {"client": self.client, "open": self.state != "closed",
                "protocol": self.stream.established and (tls.selected_alpn_protocol()
                                                         or "http/1.1") or "",
                "handshakes": int(self.stream.established), "pings": self.pings,
                "requests": dict(self.requests),
                "streams": self.http2.open_streams() if self.http2 else 0}

    async def end(self):
        self.stream.thawed.set()  # or the end would wait for it
        if self.filling:
            self.filling.cancel()
            # In particular out of the event loop's selector, before it is closed.
            await asyncio.wait({self.filling})
            if not self.filling.cancelled():
                self.filling.exception()
        self.stream.close(self.ending)
        self.state = "closed"
