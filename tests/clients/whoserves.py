#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Makes connections, one after the other, with a TLS handshake and GET /version on each, and prints
one line of JSON: [[status, backend by its own account], ...]. The certificate is verified, less
its name: a service's address is in none. The first failure ends it, with one line and status 1.
"""

import argparse
import json
import socket
import ssl
import sys


def ask(context, host, port):
    with socket.create_connection((host, port), timeout=5) as raw, \
            context.wrap_socket(raw) as connection:
        connection.sendall(b"GET /version HTTP/1.0\r\n\r\n")
        answer = b""
        while part := connection.recv(65536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body).get("backend")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ca", required=True)
    parser.add_argument("-n", type=int, default=1)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    args = parser.parse_args()
    context = ssl.create_default_context(cafile=args.ca)
    context.check_hostname = False
    try:
        print(json.dumps([ask(context, args.host, args.port) for _ in range(args.n)]))
    except (OSError, ValueError, IndexError, AttributeError) as e:
        print(f"whoserves.py: {args.host}:{args.port}: {type(e).__name__}: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
