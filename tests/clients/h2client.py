# SPDX-License-Identifier: BSD-2-Clause
"""One HTTP/2 connection over TLS as Go's client has it: requests as streams, its own PING on a
silent connection, and one name for each way in which it can be lost."""

import errno
import socket
import ssl
import time

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions


FRAME_HEADER = 9  # bytes: the length in three, the type, flags, the stream
GOAWAY = 7


class Lost(Exception):
    """There is no connection (any more). name: EOF, GOAWAY (its end after one), PING (not
    answered), DIAL or HANDSHAKE (timed out), TLS, PROTOCOL, or an errno's name."""

    def __init__(self, name):
        super().__init__(name)
        self.name = name


def name_of(error):
    """What an OSError of a socket under TLS is called."""
    if isinstance(error, ssl.SSLEOFError):
        return "EOF"
    if isinstance(error, ssl.SSLError):
        return "TLS"
    return errno.errorcode.get(error.errno, "EIO")


class Tls:
    """TLS on a socket, done beside it: Python's SSLSocket takes a reset for the end of the
    stream. Raises OSError, TimeoutError without an errno where it is ours."""

    def __init__(self, sock, context, name):
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name)

    def handshake(self, seconds):
        until = time.monotonic() + seconds
        while True:
            try:
                self.tls.do_handshake()
                return self.send(b"", seconds)
            except ssl.SSLWantReadError:
                self.send(b"", seconds)
            if not self.fill(until - time.monotonic()):
                raise ssl.SSLEOFError("in the handshake")

    def fill(self, seconds):
        """Takes more from the socket; False at its end."""
        self.sock.settimeout(max(seconds, 0.001))
        data = self.sock.recv(65536)
        self.incoming.write(data)
        return bool(data)

    def send(self, data, seconds):
        if data:
            self.tls.write(data)  # a MemoryBIO takes it all
        self.sock.settimeout(seconds)
        self.sock.sendall(self.outgoing.read())

    def receive(self, seconds):
        """What comes within that time; empty at the end of the stream."""
        until = time.monotonic() + seconds
        while True:
            try:
                return self.tls.read(65536)
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLZeroReturnError:
                return b""
            if not self.fill(until - time.monotonic()):
                return b""


class Response:
    """What has come on one stream so far."""

    def __init__(self):
        self.status = None
        self.data = b""
        self.ended = False
        self.reset = None  # the error code, where it was reset; "GOAWAY": nobody serves it


class H2Client:
    """Raises Lost from each of its calls, and is of no use then. Times are in seconds."""

    def __init__(self, host, port, ca, dial_timeout=30.0, handshake_timeout=10.0,
                 ping_idle=30.0, ping_timeout=15.0):
        self.ping_idle, self.ping_timeout = ping_idle, ping_timeout
        self.responses = {}
        self.incoming = b""
        self.pongs = 0
        self.pinged = None  # when, until anything comes
        self.goaway = None  # the last stream that the server serves
        self.tls = self.dial(host, port, ca, dial_timeout, handshake_timeout)
        self.local = "%s:%d" % self.tls.sock.getsockname()[:2]
        self.heard = time.monotonic()
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(1 << 30)
        self.flush()

    @staticmethod
    def dial(host, port, ca, dial_timeout, handshake_timeout):
        context = ssl.create_default_context(cafile=ca)
        context.set_alpn_protocols(["h2"])
        try:
            sock = socket.create_connection((host, port), dial_timeout)
        except TimeoutError as e:
            raise Lost(name_of(e) if e.errno else "DIAL") from e
        except OSError as e:
            raise Lost(name_of(e)) from e
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tls = Tls(sock, context, host)
            tls.handshake(handshake_timeout)
        except OSError as e:
            sock.close()
            late = isinstance(e, TimeoutError) and not e.errno
            raise Lost("HANDSHAKE" if late else name_of(e)) from e
        if tls.tls.selected_alpn_protocol() != "h2":
            sock.close()
            raise Lost("PROTOCOL")
        return tls

    def flush(self):
        data = self.h2.data_to_send()
        try:
            if data:
                self.tls.send(data, self.ping_timeout)
        except TimeoutError as e:
            raise Lost(name_of(e) if e.errno else "PING") from e
        except OSError as e:
            raise Lost(name_of(e)) from e

    def get(self, path, token=None):
        """Sends a request; its Response, which read() fills."""
        number = self.h2.get_next_available_stream_id()
        bearer = [("authorization", f"Bearer {token}")] if token else []
        self.h2.send_headers(number, [(":method", "GET"), (":scheme", "https"),
                                      (":authority", "kubernetes"), (":path", path),
                                      ("accept", "application/json"), *bearer], end_stream=True)
        response = self.responses[number] = Response()
        self.flush()
        return response

    def ping(self):
        self.h2.ping(b"kubelb h")
        self.flush()

    def read(self, timeout=None):
        """Takes what comes within that time, and sees to the PING of a silent connection.
        Has anything come?"""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            due = self.next_ping()
            end = due if until is None else min(due, until)
            data = self.receive(max(end - time.monotonic(), 0.001))
            if data:
                self.heard, self.pinged = time.monotonic(), None
                self.take(data)
                return True
            if until is not None and time.monotonic() >= until:
                return False

    def next_ping(self):
        """Sends the PING that is due; when to look again."""
        now = time.monotonic()
        if self.pinged is not None:
            if now >= self.pinged + self.ping_timeout:
                raise Lost("PING")
            return self.pinged + self.ping_timeout
        if now < self.heard + self.ping_idle:
            return self.heard + self.ping_idle
        self.pinged = now
        self.ping()
        return now + self.ping_timeout

    def receive(self, timeout):
        try:
            data = self.tls.receive(timeout)
        except TimeoutError as e:
            if e.errno:  # of TCP
                raise Lost(name_of(e)) from e
            return b""
        except OSError as e:
            raise Lost(name_of(e)) from e
        if not data:
            raise Lost("EOF" if self.goaway is None else "GOAWAY")
        return data

    def take(self, data):
        """Frame by frame. GOAWAY is not for the library, which would take no more data on the
        streams that are left."""
        self.incoming += data
        while len(self.incoming) >= FRAME_HEADER:
            size = FRAME_HEADER + int.from_bytes(self.incoming[:3], "big")
            if len(self.incoming) < size:
                break
            frame, self.incoming = self.incoming[:size], self.incoming[size:]
            if frame[3] == GOAWAY:
                self.take_goaway(int.from_bytes(frame[FRAME_HEADER:FRAME_HEADER + 4], "big"))
            else:
                self.take_frame(frame)
        self.flush()

    def take_goaway(self, last):
        self.goaway = last
        for number in [n for n in self.responses if n > last]:
            response = self.responses.pop(number)
            response.ended, response.reset = True, "GOAWAY"

    def take_frame(self, frame):
        try:
            events = self.h2.receive_data(frame)
        except h2.exceptions.ProtocolError as e:
            raise Lost("PROTOCOL") from e
        for event in events:
            self.take_event(event)

    def take_event(self, event):
        response = self.responses.get(getattr(event, "stream_id", None))
        if isinstance(event, h2.events.PingAckReceived):
            self.pongs += 1
        elif response is None:
            pass  # of the connection, or of a stream that has ended here
        elif isinstance(event, h2.events.ResponseReceived):
            response.status = int(dict(event.headers)[":status"])
        elif isinstance(event, h2.events.DataReceived):
            response.data += event.data
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
            response.ended = True
            response.reset = getattr(event, "error_code", None)
            del self.responses[event.stream_id]

    def whole(self, path, token=None, timeout=5.0):
        """A request and all of its answer: (status, text); None where none came in time."""
        response = self.get(path, token)
        until = time.monotonic() + timeout
        while not response.ended:
            left = until - time.monotonic()
            if left <= 0:
                return None
            self.read(left)
        return response.status, response.data.decode()

    def close(self):
        self.tls.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
