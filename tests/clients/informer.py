#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Informers that take a lost connection as client-go's reflector does.

Each lists EndpointSlices and watches them from the list's version, over one HTTP/2 connection
to the frontend. It pings a connection on which nothing has come for 30 s, and gives up 15 s
later; a TLS handshake may take 10 s. After the end of a watch it

    resumes the watch at once, from the last version that it has seen, after EOF, ECONNRESET,
    GOAWAY with the connection's end, or a time-out of TCP (IsProbableEOF and IsTimeout of
    apimachinery), or the watch's own end;
    backs off for 0.8 to 1.6 s, and twice as long each time up to 30 s, and then lists anew after
    anything else, as ECONNABORTED or a PING without an answer, and after a watch that has ended
    within a second without an event.

A watch that cannot be started is tried again from its version: after a second, ten times, on
those errors; after the back-off on ECONNREFUSED. A list is tried again after EOF and ECONNRESET.

It prints a line of JSON each time something happens: `at` (CLOCK_MONOTONIC, in seconds),
`informer` (its number, from 0), `what`:

    connected  local: its ADDRESS:PORT          failed  error: why a connect or request did
    list       version; lists: how many so far  watch   version: from where it has begun
    event      kind, name, version              lost    error: the connection's end
    backoff    seconds                          end     error: of a watch, where it was told so;
                                                        then: "resume" or "list"
"""

import argparse
import json
import random
import sys
import threading
import time
import urllib.parse

from h2client import H2Client, Lost

SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
PROBABLE_EOF = ("EOF", "ECONNRESET", "GOAWAY")
TIMEOUTS = ("ETIMEDOUT", "DIAL", "HANDSHAKE")
RETRIES = 10
BACKOFF = (0.8, 30.0)  # the first and the longest
BACKOFF_RESET = 120.0
SHORT = 1.0  # seconds of a watch that are too few, when nothing came


class Refused(Exception):
    """An answer that is none of those that were wanted."""


class Backoff:
    """The reflector's: longer each time, and from the start after two quiet minutes."""

    def __init__(self):
        self.seconds, self.last = BACKOFF[0], time.monotonic()

    def next(self):
        now = time.monotonic()
        if now - self.last > BACKOFF_RESET:
            self.seconds = BACKOFF[0]
        self.last = now
        seconds = self.seconds * (1 + random.random())
        self.seconds = min(2 * self.seconds, BACKOFF[1])
        return seconds


class Informer:
    """One reflector. report(what, **fields) is called each time something happens."""

    def __init__(self, connect, report, token=None, name=None):
        self.connect, self.report, self.token = connect, report, token
        self.query = {"fieldSelector": f"metadata.name={name}"} if name else {}
        self.client = None
        self.backoff = Backoff()
        self.version = 0
        self.lists = 0

    def run(self):
        while True:
            try:
                self.list()
                self.watch()
            except Lost:
                pass  # has been reported
            except Refused as e:
                self.report("end", error=str(e), then="list")
            self.back_off()

    def back_off(self):
        seconds = self.backoff.next()
        self.report("backoff", seconds=round(seconds, 3))
        time.sleep(seconds)

    # the connection

    def usable(self):
        """The connection for the next request: after GOAWAY that is another one."""
        if self.client is None or self.client.goaway is not None:
            self.drop()
            self.client = self.connect()
            self.report("connected", local=self.client.local)
        return self.client

    def drop(self):
        if self.client:
            self.client.close()
            self.client = None

    def path(self, **query):
        return f"{SLICES}?{urllib.parse.urlencode({**self.query, **query})}"

    def ask(self, path, retriable, condition):
        """The response to that once condition(response) holds, with rest's retries."""
        attempts = 0
        while True:
            try:
                response = self.ask_once(path, condition)
            except Lost as e:
                self.drop()
                self.report("failed", error=e.name)
                attempts += 1
                if attempts > RETRIES or e.name not in retriable:
                    raise
                time.sleep(1)
                continue
            if response.reset is None:
                return response
            if response.reset != "GOAWAY":  # else on another connection, at once
                raise Refused(f"stream reset: {response.reset}")

    def ask_once(self, path, condition):
        client = self.usable()
        response = client.get(path, self.token)
        while not condition(response) and not response.ended:
            client.read()
        return response

    # list and watch

    def list(self):
        response = self.ask(self.path(resourceVersion=self.version), PROBABLE_EOF,
                            lambda r: r.ended)
        if response.status != 200:
            raise Refused(f"list: status {response.status}")
        self.version = int(json.loads(response.data)["metadata"]["resourceVersion"])
        self.lists += 1
        self.report("list", version=self.version, lists=self.lists)

    def watch(self):
        """Until it takes a list to go on."""
        while True:
            start = time.monotonic()
            try:
                response = self.ask(self.path(
                    watch="true", allowWatchBookmarks="true", resourceVersion=self.version,
                    timeoutSeconds=random.randint(300, 600)), PROBABLE_EOF + TIMEOUTS,
                    lambda r: r.status is not None)
            except Lost as e:
                if e.name != "ECONNREFUSED":
                    raise
                self.back_off()
                continue
            if response.status == 429:
                self.back_off()
                continue
            if response.status != 200:
                raise Refused(f"watch: status {response.status}")
            self.report("watch", version=self.version)
            if not self.resumes(start, *self.follow(response)):
                return

    def follow(self, response):
        """Takes events to the end of the watch: how many there were, and an error's name."""
        count = 0
        while True:
            *lines, response.data = response.data.split(b"\n")
            for line in lines:
                self.take(json.loads(line))
                count += 1
            if response.ended and response.reset is not None:
                return count, "RESET"
            if response.ended:
                return count, None
            try:
                self.client.read()
            except Lost as e:
                self.drop()
                return count, e.name

    def take(self, event):
        if event["type"] == "ERROR":
            raise Refused(f"watch: {event['object']['code']}")
        metadata = event["object"]["metadata"]
        self.version = int(metadata["resourceVersion"])
        self.report("event", kind=event["type"], name=metadata.get("name"), version=self.version)

    def resumes(self, start, count, error):
        """Does it go on without a list?"""
        short = time.monotonic() - start < SHORT and count == 0
        resume = not short and (error is None or error in PROBABLE_EOF + TIMEOUTS)
        self.report("lost" if error else "end", error=error, then="resume" if resume else "list")
        return resume


class Reports:
    """Lines on standard output, whole ones."""

    def __init__(self):
        self.lock = threading.Lock()

    def of(self, number):
        def report(what, **fields):
            line = json.dumps({"at": time.monotonic(), "informer": number, "what": what, **fields})
            with self.lock:
                print(line, flush=True)

        return report


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                     epilog="The top of the source has the rest.")
    parser.add_argument("--ca", required=True)
    parser.add_argument("--token")
    parser.add_argument("--name", help="watch that EndpointSlice alone")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=6443)
    parser.add_argument("-n", type=int, default=1, metavar="N", help="so many informers")
    for name, seconds in (("ping-idle", 30), ("ping-timeout", 15), ("handshake-timeout", 10)):
        parser.add_argument(f"--{name}", type=float, default=seconds, metavar="SECONDS")
    args = parser.parse_args()

    def connect():
        return H2Client(args.host, args.port, args.ca, handshake_timeout=args.handshake_timeout,
                        ping_idle=args.ping_idle, ping_timeout=args.ping_timeout)

    reports = Reports()
    threads = [threading.Thread(target=Informer(connect, reports.of(i), args.token,
                                                args.name).run) for i in range(args.n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
