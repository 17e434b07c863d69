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
from helpers import dump, http_call, state_of, wait_states
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


# How long an attack is watched: seven probes, and as many new connections where it ends each.
WATCHED_S = 1.5


def costs_little(stage, bad):
    """While it goes on: memory, processor, bytes taken, and the good ones."""
    agent = stage.running
    before, sent, accepted = memory(agent), bad.sent, bad.accepted
    cpu, start = cpu_seconds(agent), time.monotonic()
    time.sleep(WATCHED_S)  # is what is measured
    took = time.monotonic() - start
    assert memory(agent) - before < 2048, f"{before} KiB, then {memory(agent)} KiB"
    assert (cpu_seconds(agent) - cpu) / took < 0.5
    assert bad.accepted - accepted < 20 * took, f"{bad.accepted - accepted} connections"
    # What its kernel takes by itself is some megabytes for each connection.
    assert (bad.sent - sent) / took < 170 * 2**20, bad.sent
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


def endless_hello_requests(bad, sock):
    """TLS 1.2: requests to begin the handshake that goes on already. OpenSSL skips them."""
    sock.recv(65536)
    while True:
        bad.send(sock, b"\x16\x03\x03\x40\x00" + bytes(16384))


@pytest.mark.parametrize("serve", [half_a_handshake, endless_handshake, endless_hello_requests,
                                   silence, plain_flood],
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


@pytest.mark.parametrize("count, state", [(1000, "ready"), (3000, "dead"),
                                          (30000, "dead")])
def test_certificate_with_thousands_of_names(balanced, count, state):
    """Within 32 KiB it is checked like any other; beyond, refused."""
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


# --- what is no data, without end --------------------------------------------------------

def beat_age(stage):
    control = dump(stage, "control")[0][1]
    return (time.clock_gettime_ns(time.CLOCK_MONOTONIC) - control["heartbeat_ns"]) / 1e9


def healthz_seconds(stage):
    start = time.monotonic()
    assert http_call(stage, "GET", "/healthz")[0] == 200
    return time.monotonic() - start


def goes_on_as_usual(stage, victim):
    """While a backend floods: the heartbeat, /healthz, memory, the processor, and how soon it is
    noticed that another one has died. The figures of a machine of its own are printed."""
    agent = stage.running
    cpu, start = cpu_seconds(agent), time.monotonic()
    beats, pages = [], []
    while time.monotonic() - start < WATCHED_S:
        beats.append(beat_age(stage))
        pages.append(healthz_seconds(stage))
    share = (cpu_seconds(agent) - cpu) / (time.monotonic() - start)
    killed = time.monotonic()
    victim.kill()
    wait_states(stage, "dead", [victim])
    noticed = time.monotonic() - killed
    print(f"MEASURED heartbeat {max(beats):.2f} s, /healthz {max(pages) * 1000:.0f} ms, "
          f"cpu {share:.3f}, memory {memory(agent)} KiB, dead backend {noticed:.2f} s")
    # For a busy machine. On an idle one: a tenth of a second, some milliseconds, one part in 30.
    assert max(beats) < 2
    assert max(pages) < 1
    assert share < 0.5
    assert memory(agent) < 24 * 1024


@contextlib.contextmanager
def flooding(stage, program, cp, what, when):
    cp.kill()
    process = stage.spawn([program, cp.v4, str(PORT), os.path.join(cp.dir, "current.crt"),
                           stage.pki.key, what, when], ns=cp.ns)
    assert process.stdout.readline() == "listening\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("what, when, reason", [
    ("tickets", "asked", "the backend sends too many TLS handshake messages"),
    ("tickets", "idle", "the backend sends TLS handshake messages although nothing is due"),
    ("keys", "asked", "the backend sends too many TLS handshake messages"),
    ("keys", "idle", "the backend sends TLS handshake messages although nothing is due"),
    ("hellos", "asked", "the backend sends too many TLS handshake messages"),
    ("hellos", "idle", "the backend sends TLS handshake messages although nothing is due"),
    ("bytes", "asked", "the backend sends too many small pieces")])
def test_tls_without_data(balanced, tlsflood, what, when, reason):
    """Such records keep OpenSSL reading: no call would end, and nothing else run."""
    cp, victim = balanced.cp(1), balanced.cp(2)
    with flooding(balanced, tlsflood, cp, what, when):
        balanced.running.wait_log(reason)
        goes_on_as_usual(balanced, victim)
    victim.start()
    cp.start()
    wait_states(balanced, "ready", balanced.backends)


def certificate_with_company(stage, cp, count):
    """What the backend shows, followed by so many others."""
    path = os.path.join(stage.dir, f"company-{count}.crt")
    other = path + ".other"
    run_checked(["openssl", "req", "-x509", "-newkey", "ed25519", "-noenc", "-keyout", other + ".key",
                 "-subj", "/CN=a", "-days", "30", "-out", other])
    with open(path, "w", encoding="ascii") as f:
        for name in [os.path.join(cp.dir, "current.crt")] + [other] * count:
            with open(name, encoding="ascii") as part:
                f.write(part.read())
    return path


@pytest.mark.parametrize("count, state", [(9, "ready"), (80, "draining"), (250, "dead")])
def test_certificates_of_others(balanced, count, state):
    """Each one that a server sends is tried: the number is bounded."""
    cp, victim = balanced.cp(1), balanced.cp(2)
    context = context_of(balanced, certificate_with_company(balanced, cp, count))

    def serve(bad, raw):
        with context.wrap_socket(raw, server_side=True) as sock:
            bad.sockets.append(sock)
            while sock.recv(65536):
                bad.send(sock, OK + b"Content-Length: 2\r\n\r\nok")

    with Bad(cp, serve):
        if state == "draining":
            balanced.running.wait_log("detail=\"certificate chain too long")
        if state == "dead":
            balanced.running.wait_log("sends more than 32 KiB of certificates")
        wait_states(balanced, state, [cp])
        goes_on_as_usual(balanced, victim)
    victim.start()
    cp.start()
    wait_states(balanced, "ready", balanced.backends)


# Length, type, flags, stream, content (RFC 9113, 4.1).
FRAMES = {
    "PING": b"\0\0\x08\x06\0\0\0\0\0abcdefgh",
    "answers to PINGs": b"\0\0\x08\x06\x01\0\0\0\0abcdefgh",
    "SETTINGS": b"\0\0\0\x04\0\0\0\0\0",
    "WINDOW_UPDATE": b"\0\0\x04\x08\0\0\0\0\0\0\0\0\x01",
    "empty DATA": b"\0\0\0\0\0\0\0\0\x01",
    "CONTINUATION": b"\0\0\0\x09\0\0\0\0\x01",
}
SETTINGS, HEADERS = FRAMES["SETTINGS"], b"\0\0\x01\x01%c\0\0\0\x01\x88"  # :status: 200
END_STREAM, END_HEADERS = 1, 4
# What has to go before.
FIRST = {"empty DATA": HEADERS % END_HEADERS, "CONTINUATION": HEADERS % 0}


def sending_frames(stage, name, certificate):
    context = context_of(stage, certificate)
    context.set_alpn_protocols(["h2"])

    def serve(bad, raw):
        with context.wrap_socket(raw, server_side=True) as sock:
            bad.sockets.append(sock)
            sock.recv(65536)
            bad.send(sock, SETTINGS + FIRST.get(name, HEADERS % (END_STREAM | END_HEADERS)))
            while True:
                bad.send(sock, FRAMES[name] * 50)

    return serve


@pytest.mark.parametrize("name", FRAMES)
def test_frames_without_end(balanced, name):
    cp, victim = balanced.cp(1), balanced.cp(2)
    certificate = os.path.join(cp.dir, "current.crt")
    with Bad(cp, sending_frames(balanced, name, certificate)):
        balanced.running.wait_log("detail=\"HTTP/2: ")
        goes_on_as_usual(balanced, victim)
    victim.start()
    cp.start()
    wait_states(balanced, "ready", balanced.backends)
