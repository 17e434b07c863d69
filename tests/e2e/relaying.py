# SPDX-License-Identifier: BSD-2-Clause
"""A small relay in the agent's place, for tests of what the kernel programs do for one: it tells
them what it takes (struct klb_relay), asks whose a connection is (map `relayed`), and puts a record
on its own sockets. The offsets are those of include/kubelb/abi.h."""

import collections
import contextlib
import ctypes
import mmap
import os
import platform
import socket
import struct
import threading
import time

from backend import PORT
from helpers import backend_ids, make_socket
from system import run_checked

MARK, TABLE = 0x3000, 4242
SO_MARK = socket.SO_MARK
IP_TRANSPARENT, IPV6_TRANSPARENT = 19, 75
RETRANSMIT, UNREACHABLE = 1, 2  # enum klb_relayed_from
EARLY, TRUSTED, UPSTREAM = 2, 1, 32768  # klb_socket.flags
HEARTBEAT, RELAY = 16, 128  # in struct klb_control
SECOND_NS = 10 ** 9
HOUR_NS = 3600 * SECOND_NS
SYSCALL = {"x86_64": 321, "aarch64": 280}
LOOKUP, UPDATE, DELETE, OBJ_GET = 1, 2, 3, 7

Record = collections.namedtuple("Record", "phase flags send_base")
Relayed = collections.namedtuple("Relayed", "frontend backend from_ pid comm")


def bpf(command, attributes):
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attributes, 128)
    result = libc.syscall(SYSCALL[platform.machine()], command, buffer, 128)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf({command})")
    return result


def element(command, fd, key, value):
    """value: a buffer to read into or from, or None."""
    key = ctypes.create_string_buffer(key, len(key))
    bpf(command, struct.pack("=IIQQQ", fd, 0, ctypes.addressof(key),
                             ctypes.addressof(value) if value else 0, 0))


def pinned(world, name):
    path = ctypes.create_string_buffer(f"{world.pin}/{name}".encode())
    return bpf(OBJ_GET, struct.pack("=QII", ctypes.addressof(path), 0, 0))


def packed(address):
    """struct klb_endpoint of what getsockname() and the like return."""
    host, port = address[:2]
    if ":" not in host:
        host = "::ffff:" + host
    return socket.inet_pton(socket.AF_INET6, host) + struct.pack("=I", port)


def unpacked(data):
    host = socket.inet_ntop(socket.AF_INET6, data[:16]).removeprefix("::ffff:")
    return host, struct.unpack("=I", data[16:20])[0]


class StandIn:
    """The relay. It serves clients by backend `to`, in the node's network namespace."""

    def __init__(self, world, to):
        self.world, self.to = world, to
        self.served, self.refused, self.listeners, self.undo, self.open = [], [], [], [], []
        self.errors = []
        self.relayed, self.sockets = pinned(world, "relayed"), pinned(world, "sockets")
        fd = pinned(world, "control")
        self.control = mmap.mmap(fd, mmap.PAGESIZE)
        os.close(fd)
        self.ports, self.bits = [0, 0], [0, 0]
        self.beat()

    # what the programs are told

    def beat(self, old=False):
        """A heartbeat that is good for an hour, or one that was good until a second ago."""
        age, good_for = (2 * SECOND_NS, SECOND_NS) if old else (0, HOUR_NS)
        struct.pack_into("=QQ", self.control, HEARTBEAT, time.monotonic_ns() - age, good_for)

    def tell(self, mark=MARK):
        struct.pack_into("=IHHQQ", self.control, RELAY, mark, *self.ports, *self.bits)

    def stand_in(self, *backends):
        for b in backends:
            number = backend_ids(self.world)[b.name]
            self.bits[number // 64] |= 1 << number % 64
        self.tell()

    def record(self, sock):
        """Of a client's socket."""
        value = ctypes.create_string_buffer(136)
        element(LOOKUP, self.sockets, struct.pack("=I", sock.fileno()), value)
        return Record(*struct.unpack_from("=II", value.raw, 48),
                      struct.unpack_from("=I", value.raw, 104)[0])

    # the host's side

    def route(self):
        """Marked packets are delivered here."""
        for family in ("-4", "-6"):
            ip = ["ip", family, "-n", self.world.node]
            run_checked([*ip, "rule", "add", "fwmark", str(MARK), "lookup", str(TABLE)])
            self.undo.append([*ip, "rule", "del", "fwmark", str(MARK), "lookup", str(TABLE)])
            run_checked([*ip, "route", "add", "local", "default", "dev", "lo",
                         "table", str(TABLE)])
            self.undo.append([*ip, "route", "flush", "table", str(TABLE)])

    def listen(self, host, port=PORT):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = make_socket(self.world, family)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
        sock.bind((host, port))
        sock.listen(64)
        self.listeners.append(sock)
        threading.Thread(target=self.accept, args=(sock,), daemon=True).start()
        return sock.getsockname()[1]

    def replace(self, *backends):
        """Everything that a rescue takes."""
        self.route()
        for b in backends:
            self.listen(b.v4)
            self.listen(b.v6)
        self.stand_in(*backends)
        return self

    def detour(self):
        self.ports = [self.listen("127.0.0.1", 0), self.listen("::1", 0)]
        self.tell()
        return self

    # one client

    def accept(self, listener):
        with contextlib.suppress(OSError):
            while True:
                self.serve(listener.accept()[0])

    def identify(self, client):
        key = packed(client.getpeername()) + packed(client.getsockname())
        value = ctypes.create_string_buffer(88)
        element(LOOKUP, self.relayed, key, value)
        element(DELETE, self.relayed, key, None)
        _id, _generation, why, pid = struct.unpack_from("=IIII", value.raw, 40)
        return value.raw, Relayed(unpacked(value.raw[:20]), unpacked(value.raw[20:40]), why, pid,
                                  value.raw[72:88].rstrip(b"\0").decode())

    def claim(self, sock, entry):
        """Puts the record on a socket that is about to be connected to the backend for a client,
        of which entry is the value of `relayed`."""
        number = backend_ids(self.world)[self.to.name]
        key = struct.pack("=I", number)
        backend = ctypes.create_string_buffer(64)
        fd = pinned(self.world, "backends")
        element(LOOKUP, fd, key, backend)
        os.close(fd)
        generation = struct.unpack_from("=I", backend.raw, 20)[0]
        record = bytearray(136)
        record[:20], record[20:40] = entry[:20], backend.raw[:20]
        struct.pack_into("=IIII", record, 40, number, generation, 0, EARLY | TRUSTED | UPSTREAM)
        record[60:64], record[80:104] = entry[52:56], entry[56:64] + entry[72:88]
        element(UPDATE, self.sockets, struct.pack("=I", sock.fileno()),
                ctypes.create_string_buffer(bytes(record), 136))

    def dial(self, entry):
        up = make_socket(self.world, socket.AF_INET)
        self.claim(up, entry)
        up.settimeout(5)
        up.connect((self.to.v4, PORT))
        up.settimeout(None)
        return up

    def serve(self, client):
        try:
            entry, told = self.identify(client)
        except OSError:  # nobody has sent it here
            self.refused.append(client.getpeername())
            client.close()
            return
        up = self.dial(entry)
        self.open += [client, up]
        self.served.append(told)
        for a, b in ((client, up), (up, client)):
            threading.Thread(target=self.pump, args=(a, b), daemon=True).start()

    def pump(self, source, to):
        try:
            while data := source.recv(1 << 16):
                to.sendall(data)
            to.shutdown(socket.SHUT_WR)
        except OSError as e:  # ended by a reset: the other side is, too
            self.errors.append(e.errno)
            for sock in (source, to):
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    sock.shutdown(socket.SHUT_RDWR)
                    sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.ports, self.bits = [0, 0], [0, 0]
        self.tell(mark=0)
        struct.pack_into("=Q", self.control, HEARTBEAT, 0)
        for sock in self.listeners + self.open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for argv in self.undo:
            run_checked(argv)
        self.control.close()
        os.close(self.relayed)
        os.close(self.sockets)
