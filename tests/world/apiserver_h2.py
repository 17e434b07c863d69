# SPDX-License-Identifier: BSD-2-Clause
"""The test apiserver's HTTP/2: a read loop that answers PINGs whatever the handlers do, as
Go's does, and for each request a stream that the handlers take for a connection."""

import asyncio
import site
import sys
import traceback

from apiserver_wire import End, Left, Request, Waiting, common_headers

# The apiserver runs without site-packages (-S), where Debian's python3-h2 is.
sys.path += [path for path in site.getsitepackages() if path not in sys.path]

# pylint: disable=wrong-import-position
import h2.config  # noqa: E402
import h2.connection  # noqa: E402
import h2.events as events  # noqa: E402  pylint: disable=consider-using-from-import
import h2.exceptions  # noqa: E402
import hyperframe.frame  # noqa: E402


class Http2:
    """What a Connection speaks once h2 was agreed on."""

    def __init__(self, server, connection):
        self.server = server
        self.connection = connection
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(
            client_side=False, header_encoding="utf-8"))
        self.out = b""  # frames that the library knows nothing of
        self.streams = {}
        self.highest = 0
        self.last = None  # the last stream that is served, after GOAWAY
        self.deadline = None  # when that is closed, whatever is open on it
        self.idle_since = None

    def open_streams(self):
        return len(self.streams)

    async def serve(self):
        """To the end of the connection: by Left or End, or because the server closes."""
        self.h2.initiate_connection()
        self.become_idle()
        try:
            while not self.is_over():
                await self.flush()
                await self.connection.wait(self.next_deadline())
                data, self.connection.buffer = self.connection.buffer, b""
                if data:
                    await self.receive(data)
            await self.flush()
            raise End("close")
        finally:
            for stream in self.streams.values():
                stream.task.cancel()
            if self.streams:
                await asyncio.wait([s.task for s in self.streams.values()])

    async def flush(self):
        """Everything that there is to send, in its order."""
        data, self.out = self.h2.data_to_send() + self.out, b""
        if data:
            await self.connection.stream.send(data)

    # its end

    def become_idle(self):
        self.connection.state = "idle"
        self.idle_since = asyncio.get_running_loop().time()

    def next_deadline(self):
        """When to look again, by the loop's time."""
        times = [self.deadline] if self.deadline is not None else []
        limit = self.server.settings["idle_timeout"]
        if limit is not None and not self.streams:
            times.append(self.idle_since + limit)
        return min(times, default=None)

    def is_over(self):
        now = asyncio.get_running_loop().time()
        limit = self.server.settings["idle_timeout"]
        if self.deadline is not None:
            return now >= self.deadline
        if self.streams:
            return False
        if self.last is None and limit is not None and now >= self.idle_since + limit:
            self.go_away()
        return self.last is not None or self.server.closing

    def go_away(self, last=None, after=None):
        """See goaway() in apiserver.py. Not by the library, which would send nothing more on the
        streams that are left."""
        self.last = self.highest if last is None else last
        self.out += hyperframe.frame.GoAwayFrame(0, last_stream_id=self.last).serialize()
        if after is not None:
            self.deadline = asyncio.get_running_loop().time() + after
        for stream in [s for s in self.streams.values() if s.id > self.last]:
            stream.leave()
        if not self.streams:
            self.connection.state = "leaving"  # no longer idle: it ends by itself
        self.server.notify()

    # what comes

    async def receive(self, data):
        try:
            come = self.h2.receive_data(data)
        except h2.exceptions.ProtocolError as e:
            await self.flush()  # it says why
            raise End("close") from e
        for event in come:
            self.take(event)

    def take(self, event):
        stream = self.streams.get(getattr(event, "stream_id", None))
        if isinstance(event, events.RequestReceived):
            self.open(event.stream_id, dict(event.headers))
        elif isinstance(event, events.PingReceived):  # the library answers it
            self.connection.pings += 1
            self.server.counters.pings += 1
        elif isinstance(event, events.DataReceived):  # of a body, which nobody reads
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, events.StreamReset) and stream:
            stream.leave()
        elif isinstance(event, (events.WindowUpdated, events.RemoteSettingsChanged)):
            for stream in self.streams.values():
                stream.wake()
        elif isinstance(event, events.ConnectionTerminated):
            raise Left

    def open(self, number, headers):
        self.highest = max(self.highest, number)
        if self.last is not None and number > self.last:
            return  # nobody serves it
        request = Request(headers.pop(":method"), headers.pop(":path"), "HTTP/2.0", headers)
        self.connection.served += 1
        self.connection.requests[request.where] += 1
        self.connection.state = "busy"
        stream = self.streams[number] = Http2Stream(self, number)
        stream.task = asyncio.get_running_loop().create_task(self.answer(stream, request))

    async def answer(self, stream, request):
        try:
            await self.server.serve_request(stream, request)
        except (Left, asyncio.CancelledError):
            pass
        except End as e:  # of all of it
            self.connection.ending = e.args[0]
            self.connection.task.cancel()
        except Exception:
            self.server.counters.errors += 1
            traceback.print_exc()
        finally:
            del self.streams[stream.id]
            if not self.streams:
                self.become_idle()
            self.server.notify()  # the read loop looks whether that was the last one


class Http2Stream(Waiting):
    """One request's stream, with what handlers use of a Connection."""

    def __init__(self, http2, number):
        self.http2 = http2
        self.id = number
        self.server = http2.server
        connection = http2.connection
        self.stream, self.number, self.peer = connection.stream, connection.number, connection.peer
        self.served = connection.served
        self.left = False
        self.change = asyncio.get_running_loop().create_future()
        self.task = None

    def wake(self):
        old, self.change = self.change, asyncio.get_running_loop().create_future()
        old.set_result(None)

    def leave(self):
        self.left = True
        self.wake()

    async def wait(self, until=None):
        """As Connection.wait()."""
        loop = asyncio.get_running_loop()
        timeout = None if until is None else max(0, until - loop.time())
        if not self.left:
            await asyncio.wait({self.change, self.server.change}, timeout=timeout,
                               return_when=asyncio.FIRST_COMPLETED)
        self.check()

    def check(self):
        if self.left:
            raise Left

    async def send_head(self, status, headers, _dribble=0):
        self.check()
        self.http2.h2.send_headers(self.id, [(":status", str(status)), *(
            (name.lower(), str(value)) for name, value in headers.items())])
        await self.http2.flush()

    async def send_data(self, data, dribble=0):
        """As much at a time as the client takes."""
        while data:
            self.check()
            room = min(self.http2.h2.local_flow_control_window(self.id),
                       self.http2.h2.max_outbound_frame_size)
            if room <= 0:
                await self.wait()
                continue
            piece = data[:1 if dribble else room]
            data = data[len(piece):]
            self.http2.h2.send_data(self.id, piece)
            await self.http2.flush()
            if dribble:
                await self.sleep(dribble / 1000)

    async def send_parts(self, parts, dribble=0):
        await self.send_data(b"".join(parts), dribble)

    async def send_half(self, part, _dribble=0):
        """Half of what would have been twice as long, in the middle of a frame."""
        self.check()
        await self.http2.flush()
        self.http2.h2.send_data(self.id, 2 * part)
        await self.stream.send(self.http2.h2.data_to_send()[:-len(part)])

    async def send_end(self, _dribble=0):
        self.check()
        self.http2.h2.end_stream(self.id)
        await self.http2.flush()

    async def send_response(self, _request, response, dribble):
        body = response.body
        await self.send_head(response.status, {
            **common_headers(response.content_type), "Content-Length": len(body),
            **response.headers})
        if response.cut is not None:
            await self.send_data(body[:int(len(body) * response.cut)], dribble)
            raise End("fin")
        await self.send_data(body, dribble)
        await self.send_end()
