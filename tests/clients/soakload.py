#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Clients for hours: some keep a connection and ask on it (keptload.py), others come anew at a
steady rate (tlsdial.py). What becomes of each is told at once, a line of JSON:

    begin, end  CLOCK_MONOTONIC, in seconds       error  null or a name, as those programs have them
    kind        "request" or "connect"            local  ADDRESS:PORT, of a request
    client      number, of a request              since  when its connection was made

A kept connection is left for another one after 20 to 40 s. The lines `pause` and `go` on standard
input hold all back and let them go on; {"kind": "paused"} says that nothing is under way. It ends
with standard input.
"""

import asyncio
import contextlib
import json
import os
import random
import sys
import time

import keptload
import tlsdial

LIFE = (20, 40)  # seconds that a kept connection is kept


def tell(**fields):
    print(json.dumps(fields), flush=True)


class Client(keptload.Client):
    """Tells what becomes of each of its requests."""

    def __init__(self, load, number):
        super().__init__(load)
        self.number = number
        self.local = None
        self.since = 0.0
        self.leaves = 0.0

    async def connect(self):
        await super().connect()
        self.local = "%s:%d" % self.writer.get_extra_info("sockname")[:2]
        self.since = time.monotonic()
        self.leaves = self.since + random.uniform(*LIFE)

    async def request(self):
        await super().request()
        begin, seconds, error = self.load.outcomes.pop()  # nobody else's: nothing was awaited
        tell(kind="request", client=self.number, begin=begin, end=begin + seconds, error=error,
             local=self.local, since=self.since)
        if time.monotonic() > self.leaves:
            self.close()

    async def run(self):
        while True:
            await self.load.going.wait()
            self.load.busy.add(self)
            await self.request()
            self.load.busy.discard(self)
            await asyncio.sleep(1 / self.load.args.rate)


class Dialler(tlsdial.Dialler):
    """Tells what becomes of each connect."""

    async def dial(self):
        await super().dial()
        begin, seconds, error, _name = self.outcomes.pop()
        tell(kind="connect", begin=begin, end=begin + seconds, error=error)


class Load(keptload.Load):
    """All of them."""

    def __init__(self, args):
        super().__init__(args)
        self.going = asyncio.Event()
        self.busy = set()  # clients with a request, and dials
        self.dialler = Dialler(args)

    async def dial(self):
        while True:
            await self.going.wait()
            task = asyncio.create_task(self.dialler.dial())
            self.busy.add(task)
            task.add_done_callback(self.busy.discard)
            await asyncio.sleep(1 / self.args.dials)

    async def pause(self):
        self.going.clear()
        while self.busy:
            await asyncio.sleep(0.01)
        if not self.going.is_set():
            tell(kind="paused")

    async def run(self):
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        tasks = [asyncio.create_task(self.dial())]
        tasks += [asyncio.create_task(Client(self, i).run()) for i in range(self.args.n)]
        self.going.set()
        while line := await reader.readline():
            if line == b"pause\n":
                tasks.append(asyncio.create_task(self.pause()))
            else:
                self.going.set()
        await keptload.cancel(tasks)


def main():
    parser = keptload.make_parser(__doc__)
    parser.add_argument("--dials", type=float, default=10, help="new connections a second")
    parser.add_argument("--give-up", type=float, default=10, metavar="SECONDS",
                        help="for a new connection and its handshake together")
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        asyncio.run(Load(parser.parse_args()).run())
    os._exit(0)  # not through the destructors of half-open transports


if __name__ == "__main__":
    main()
