#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""What a local user may do to his own sockets so that connects fail, or seem to.

    hostile.py KIND SECONDS [--at-once N] [--pause SECONDS] [--to ADDRESS:PORT]

Connects again and again, and prints {"errno's name": count} in the end.

    filter      a socket filter that lets nothing in: the SYN's answer is dropped. Exit status
                77 where the kernel lets nobody but root attach one
    md5         a TCP MD5 key that the peer does not have: the SYN is dropped there
    minttl      answers from further than one hop are dropped
    deaf        connects, then lets nothing in any more (as minttl), and sends
    same-port   bound to a port that has a connection to that backend already
    unsent      TCP_FASTOPEN_CONNECT, and never sends anything: no SYN where the peer has given
                a cookie ("deferred"); elsewhere a connect that is let be
    fickle      gives up as soon as the SYN has left
"""

import argparse
import collections
import contextlib
import ctypes
import errno
import json
import select
import socket
import struct
import sys
import time

SO_ATTACH_FILTER, IP_MINTTL, TCP_MD5SIG = 26, 21, 14
TCP_USER_TIMEOUT, TCP_FASTOPEN_CONNECT, SOL_TCP = 18, 30, 6
RET_NOTHING = struct.pack("HBBI", 0x06, 0, 0, 0)
PORT = 10000  # outside ip_local_port_range of the world: no other socket happens to have it


def drop_all(sock):
    program = ctypes.create_string_buffer(RET_NOTHING)
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER,
                        struct.pack("HP", 1, ctypes.addressof(program)))
    except PermissionError:
        sys.exit(77)


def sign(sock, peers):
    """struct tcp_md5sig for each address that the connect may go to."""
    for peer in peers:
        address = struct.pack("=HH4s120x", socket.AF_INET, 0, socket.inet_aton(peer))
        sock.setsockopt(SOL_TCP, TCP_MD5SIG, address + struct.pack("=BBHi80s", 0, 0, 3, 0, b"key"))


def prepare(sock, args):
    sock.setblocking(False)
    if args.kind == "filter":
        drop_all(sock)
    elif args.kind == "md5":
        sign(sock, args.peers)
    elif args.kind == "minttl":
        sock.setsockopt(socket.IPPROTO_IP, IP_MINTTL, 255)
    elif args.kind == "unsent":
        sock.setsockopt(SOL_TCP, TCP_FASTOPEN_CONNECT, 1)
    elif args.kind == "same-port":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("0.0.0.0", PORT))


def outcome(sock, args):
    """The name of what a connect under way has come to; None while it is."""
    _, writable, _ = select.select([], [sock], [], 0)
    if not writable:
        return None
    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if not error and args.kind == "deaf":
        sock.setsockopt(socket.IPPROTO_IP, IP_MINTTL, 255)
        sock.setsockopt(SOL_TCP, TCP_USER_TIMEOUT, 1)
        with contextlib.suppress(OSError):
            sock.send(b"x")
            return None
    return errno.errorcode.get(error, "ok")


def attempt(args, results, pending):
    sock = socket.socket()
    prepare(sock, args)
    error = sock.connect_ex(args.to)
    if args.kind in ("fickle", "unsent") and error in (0, errno.EINPROGRESS):
        results["deferred" if not error else "let be"] += 1
        if args.kind == "fickle":
            sock.close()
        else:
            pending.append(sock)
    elif error == errno.EINPROGRESS:
        pending.append(sock)
    else:
        results[errno.errorcode.get(error, "ok")] += 1
        if error or args.kind != "same-port":
            sock.close()
        else:
            pending.append(sock)


def settle(args, results, pending):
    for sock in list(pending):
        name = None if args.kind == "unsent" else outcome(sock, args)
        if name:
            results[name] += 1
            if args.kind != "same-port" or name != "ok":
                pending.remove(sock)
                sock.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kind")
    parser.add_argument("seconds", type=float)
    parser.add_argument("--at-once", type=int, default=20)
    parser.add_argument("--pause", type=float, default=0)
    parser.add_argument("--to", default="127.0.0.1:6443")
    parser.add_argument("--peers", nargs="*", default=[])
    args = parser.parse_args()
    host, port = args.to.rsplit(":", 1)
    args.to = (host, int(port))
    results, pending = collections.Counter(), []
    end = time.monotonic() + args.seconds
    while time.monotonic() < end:
        if len(pending) < args.at_once:
            attempt(args, results, pending)
            if args.pause:
                select.select([], [], [], args.pause)
        elif args.kind == "unsent":
            pending.pop(0).close()
        else:
            select.select([], [], [], 0.005)
        settle(args, results, pending)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
