#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Clients that each keep a TLS connection and ask for /version on it at a steady pace, as a node's do.
After an error a client makes another connection, at once for the first time and then every 0.1 s.

Prints "begun" when each has its first answer. At the end of standard input it prints one line of
JSON, [[start, seconds, error], ...]: a request each, `start` by CLOCK_MONOTONIC, `error` null, an
errno's name, EOF, or "unanswered" for one that still waited then. Nothing is given up before.
"""

import argparse
import asyncio
import contextlib
import errno
import json
import re
import ssl
import sys
import time

AGAIN = 0.1  # seconds between connects that fail


class Client:
    """One connection at a time."""

    def __init__(self, load):
        self.load = load
        self.reader = self.writer = None
        self.begun = None  # of the request that is under way
        self.answered = asyncio.Event()

    async def connect(self):
        args = self.load.args
        self.reader, self.writer = await asyncio.open_connection(
            args.host, args.port, ssl=self.load.context)

    async def ask(self):
        self.writer.write(b"GET /version HTTP/1.1\r\nHost: kubernetes\r\n\r\n")
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        await self.reader.readexactly(int(length.group(1)))

    def close(self):
        if self.writer:
            self.writer.transport.abort()
        self.reader = self.writer = None

    async def request(self):
        """Its error's name, or None. Connecting is not part of it: others measure that."""
        if not self.writer:
            await self.connect_at_last()
        self.begun = time.monotonic()
        error = None
        try:
            await self.ask()
        except asyncio.IncompleteReadError:
            error = "EOF"
        except ssl.SSLError:
            error = "TLS"
        except OSError as e:
            error = errno.errorcode.get(e.errno, "EIO")
        self.load.outcomes.append([self.begun, time.monotonic() - self.begun, error])
        self.begun = None
        if error:
            self.close()
        else:
            self.answered.set()

    async def connect_at_last(self):
        while not self.writer:
            try:
                await asyncio.wait_for(self.connect(), 10)
            except (OSError, TimeoutError):
                await asyncio.sleep(AGAIN)

    async def run(self):
        while True:
            await self.request()
            await asyncio.sleep(1 / self.load.args.rate)


class Load:
    """All clients, and what became of their requests."""

    def __init__(self, args):
        self.args = args
        self.context = ssl.create_default_context(cafile=args.ca)
        self.context.check_hostname = False
        self.outcomes = []

    async def run(self):
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
        clients = [Client(self) for _ in range(self.args.n)]
        tasks = [asyncio.create_task(client.run()) for client in clients]
        for client in clients:
            await client.answered.wait()
        print("begun", flush=True)
        await ended.wait()
        now = time.monotonic()
        waiting = [[c.begun, now - c.begun, "unanswered"] for c in clients
                   if c.begun and now - c.begun > 1]
        print(json.dumps(sorted(self.outcomes + waiting)), flush=True)
        await cancel(tasks)


async def cancel(tasks):
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def make_parser(doc):
    """doc: of the program."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--ca", required=True)
    parser.add_argument("-n", type=int, default=6, help="clients that keep a connection")
    parser.add_argument("--rate", type=float, default=5, help="requests a second of each")
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    return parser


def main():
    asyncio.run(Load(make_parser(__doc__).parse_args()).run())


if __name__ == "__main__":
    main()
