# SPDX-License-Identifier: BSD-2-Clause
"""A backend that has fallen into bad hands: whatever it sends, the agent's memory and time
are bounded, and the others are probed as before. (What answers are taken for: the unit tests of
user/net/http_response.c and tests/fuzz/fuzz_answer.c.)"""

import contextlib
import itertools
import os
import socket
import ssl
import threading
import time

import pytest

from backend import PORT
from helpers import state_of, wait_states
from system import inside, run_checked, wait_until
from test_http_abuse import cpu_seconds, memory

OK = b"HTTP/1.1 200 OK\r\n"


def forever(piece):
    return itertools.repeat(piece)


def then(first, pieces):
    return itertools.chain([first], pieces)


def late_words():
    """The answer, and when that has been read, something that nobody asked for."""
    yield OK + b"Content-Length: 2\r\n\r\nok"
    time.sleep(0.02)
    yield OK


# What it sends after the handshake, for each request, and the state that it earns.
ANSWERS = {
    "endless headers": (lambda: then(OK, forever(b"X-A: b\r\n" * 500)), "dead"),
    "one endless header": (lambda: then(OK + b"X: ", forever(b"a" * 16384)), "dead"),
    "an endless status line": (lambda: then(b"HTTP/1.1 200 ", forever(b"a" * 16384)), "dead"),
    "endless interim answers": (lambda: forever(b"HTTP/1.1 100 Continue\r\n\r\n" * 500), "dead"),
    "no HTTP at all": (lambda: forever(b"\0" * 16384), "dead"),
    "an absurd chunk": (lambda: then(OK + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
                                     forever(b"a" * 16384)), "ready"),
    "an endless chunk size": (lambda: then(OK + b"Transfer-Encoding: chunked\r\n\r\n",
                                           forever(b"0" * 16384)), "dead"),
    "endless small chunks": (lambda: then(OK + b"Transfer-Encoding: chunked\r\n\r\n",
                                          forever(b"1\r\na\r\n" * 1000)), None),
    "endless trailers": (lambda: then(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n",
                                      forever(b"X-A: b\r\n" * 500)), "dead"),
    "an absurd length": (lambda: then(OK + b"Content-Length: 99999999999999999999\r\n\r\n",
                                      forever(b"a" * 16384)), "ready"),
    "a flood after the answer": (lambda: then(OK + b"Content-Length: 2\r\n\r\nok",
                                              forever(OK * 500)), None),
    "words after the answer": (lambda: late_words(), None),
    "two lengths": (lambda: [OK + b"Content-Length: 2\r\nContent-Length: 5\r\n\r\nok"], "dead"),
    "length and chunks": (lambda: [OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
                                   b"0\r\n\r\n" + OK + b"\r\n"], "ready"),
    "a switch of protocols": (lambda: [b"HTTP/1.1 101 Switching Protocols\r\n\r\n"], "dead"),
    "a dribble": (None, "dead"),
}


class Bad:
    """A server in the place of a control plane's nginx. serve(sock): what it does with one
    connection, in a thread of its own."""

    def __init__(self, backend, serve):
        backend.kill()
        self.serve = serve
        self.sent = 0
        self.accepted = 0
        self.sockets = []
        with inside(backend.ns):
            self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((backend.v4, PORT))
        self.listener.listen(64)
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                self.accepted += 1
                self.sockets.append(sock)
                threading.Thread(target=self.one, args=[sock], daemon=True).start()

    def one(self, sock):
        with contextlib.suppress(OSError, ValueError):
            self.serve(self, sock)

    def send(self, sock, data):
        sock.sendall(data)
        self.sent += len(data)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for sock in [self.listener, *self.sockets]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        self.thread.join(timeout=5)


def context_of(stage, certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, stage.pki.key)
    return context


def answering(stage, name, certificate):
    """serve() for one of ANSWERS."""
    context = context_of(stage, certificate)
    make = ANSWERS[name][0]

    def serve(bad, raw):
        with context.wrap_socket(raw, server_side=True) as sock:
            bad.sockets.append(sock)
            while sock.recv(65536):
                if make:
                    for piece in make():
                        bad.send(sock, piece)
                else:
                    for byte in OK + b"X: " + b"y" * 100000:
                        bad.send(sock, bytes([byte]))
                        time.sleep(0.05)

    return serve


def costs_little(stage, bad, seconds=3):
    """While it goes on: memory, processor, bytes taken, and the good ones."""
    agent = stage.running
    before, sent, accepted = memory(agent), bad.sent, bad.accepted
    cpu, start = cpu_seconds(agent), time.monotonic()
    wait_until(lambda: time.monotonic() - start > seconds, "the time to pass", seconds + 5)
    took = time.monotonic() - start
    assert memory(agent) - before < 2048, f"{before} KiB, then {memory(agent)} KiB"
    assert (cpu_seconds(agent) - cpu) / took < 0.5
    assert bad.accepted - accepted < 20 * took, f"{bad.accepted - accepted} connections"
    # What its kernel takes by itself is some megabytes for each connection.
    assert bad.sent - sent < 500 * 2**20, bad.sent
    assert {state_of(stage, b) for b in stage.backends[1:]} == {"ready"}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers(balanced, name):
    cp = balanced.cp(1)
    certificate = os.path.join(cp.dir, "current.crt")
    with Bad(cp, answering(balanced, name, certificate)) as bad:
        wait_until(lambda: bad.accepted, "the agent to come")
        state = ANSWERS[name][1]
        if state:
            wait_states(balanced, state, [cp])
        costs_little(balanced, bad)
    cp.start()
    wait_states(balanced, "ready", balanced.backends)


def half_a_handshake(_bad, sock):
    """A record that says how long it is, and never comes to its end."""
    sock.recv(65536)
    sock.sendall(b"\x16\x03\x03\x40\x00\x02")
    sock.recv(65536)


def endless_handshake(bad, sock):
    """Handshake messages that are none, one after the other."""
    sock.recv(65536)
    while True:
        bad.send(sock, b"\x16\x03\x03\x40\x00" + b"\x02\xff\xff\xff" + bytes(16380))


def silence(_bad, sock):
    sock.recv(1)
    threading.Event().wait(30)


def plain_flood(bad, sock):
    while True:
        bad.send(sock, b"HTTP/1.1 200 OK\r\n\r\n" * 800)


@pytest.mark.parametrize("serve", [half_a_handshake, endless_handshake, silence, plain_flood],
                         ids=lambda f: f.__name__)
def test_handshakes(balanced, serve):
    cp = balanced.cp(1)
    with Bad(cp, serve) as bad:
        wait_states(balanced, "dead", [cp])
        costs_little(balanced, bad)
    cp.start()
    wait_states(balanced, "ready", balanced.backends)


def certificate_with_names(stage, cp, count):
    path = os.path.join(stage.dir, f"names-{count}.crt")
    config = path + ".cnf"
    names = [f"DNS:host-{i:06}.example.org" for i in range(count)] + \
        [f"IP:{cp.v4}", "IP:127.0.0.1", "IP:::1"]
    with open(config, "w", encoding="ascii") as f:
        f.write("[req]\ndistinguished_name=dn\nprompt=no\n[dn]\n[ext]\nsubjectAltName=@names\n"
                "basicConstraints=CA:FALSE\n[names]\n")
        for i, name in enumerate(names):
            kind, value = name.split(":", 1)
            f.write(f"{kind}.{i} = {value}\n")
    run_checked(["openssl", "req", "-config", config, "-new", "-x509", "-key", stage.pki.key,
                 "-CA", stage.ca, "-CAkey", stage.pki.key, "-days", "30", "-subj", "/CN=many",
                 "-extensions", "ext", "-out", path])
    return path


@pytest.mark.parametrize("count, state", [(3000, "ready"), (30000, "dead")])
def test_certificate_with_thousands_of_names(balanced, count, state):
    """Within what OpenSSL takes (100 KiB) it is checked like any other; beyond, refused."""
    cp = balanced.cp(1)
    path = certificate_with_names(balanced, cp, count)
    context = context_of(balanced, path)

    def serve(bad, raw):
        with context.wrap_socket(raw, server_side=True) as sock:
            bad.sockets.append(sock)
            while sock.recv(65536):
                bad.send(sock, OK + b"Content-Length: 2\r\n\r\nok")

    with Bad(cp, serve) as bad:
        wait_until(lambda: bad.accepted, "the agent to come")
        wait_states(balanced, state, [cp])
        costs_little(balanced, bad)
    cp.start()
    wait_states(balanced, "ready", balanced.backends)
