#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""New clients at a steady rate, whatever becomes of those before: each connects to the frontend
on a socket of its own, does a TLS handshake, learns from the certificate who serves it, and
leaves. Until standard input ends; then those under way are waited for.

Prints "begun", and in the end one line of JSON, [[start, seconds, error, name], ...]: `start` by
CLOCK_MONOTONIC, `error` null or an errno's name (ETIMEDOUT for a connect or handshake that has
taken too long, TLS for a failed one), `name` the certificate's common name, null on errors.
"""

import argparse
import asyncio
import contextlib
import errno
import json
import ssl
import sys
import time


class Dialler:
    """What was dialled, and what became of it."""

    def __init__(self, args):
        self.args = args
        self.context = ssl.create_default_context(cafile=args.ca)
        self.outcomes = []

    async def dial(self):
        start = time.monotonic()
        error, name = None, None
        try:
            name = await asyncio.wait_for(self.serves(), self.args.give_up)
        except TimeoutError:
            error = "ETIMEDOUT"
        except ssl.SSLError:
            error = "TLS"
        except OSError as e:
            error = errno.errorcode.get(e.errno, "EIO")
        self.outcomes.append([start, time.monotonic() - start, error, name])

    async def serves(self):
        _reader, writer = await asyncio.open_connection(
            self.args.host, self.args.port, ssl=self.context, server_hostname=self.args.host)
        subject = writer.get_extra_info("peercert")["subject"]
        writer.transport.abort()
        return dict(pair for rdn in subject for pair in rdn)["commonName"]

    async def run(self):
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(sys.stdin.fileno(), ended.set)
        tasks, due = set(), loop.time()
        print("begun", flush=True)
        while not ended.is_set():
            task = loop.create_task(self.dial())
            tasks.add(task)
            due += 1 / self.args.rate
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), max(0, due - loop.time()))
        await asyncio.wait(tasks)
        print(json.dumps(sorted(self.outcomes)), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ca", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=6443)
    parser.add_argument("--rate", type=float, default=10, help="connects a second")
    parser.add_argument("--give-up", type=float, default=10, metavar="SECONDS",
                        help="for the connect and the handshake together")
    asyncio.run(Dialler(parser.parse_args()).run())


if __name__ == "__main__":
    main()
