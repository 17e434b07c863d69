#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""An apiserver's stand-in that moves much: whoever downloads or uploads can tell whether every byte
has come through.

    blobserver.py ADDRESS PORT CERT KEY

    GET  /readyz, /livez        200
    GET  /blob/N                N bytes, which depend on their position
    POST /blob                  the SHA-256 of what was sent, in hexadecimal
"""

import hashlib
import http.server
import ssl
import sys

CHUNK = 1 << 16


def blob(length):
    """length bytes, of which no two blocks are the same; in chunks."""
    for start in range(0, length, CHUNK):
        block = start.to_bytes(8, "big") * (CHUNK // 8)
        yield block[:min(CHUNK, length - start)]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, length, chunks):
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        for chunk in chunks:
            self.wfile.write(chunk)

    def do_GET(self):
        length = int(self.path.rpartition("/")[2]) if self.path.startswith("/blob/") else 0
        self.answer(length, blob(length))

    def do_POST(self):
        digest, left = hashlib.sha256(), int(self.headers["Content-Length"])
        while left:
            data = self.rfile.read(min(left, CHUNK))
            if not data:
                return
            digest.update(data)
            left -= len(data)
        text = digest.hexdigest().encode()
        self.answer(len(text), [text])

    def log_message(self, *_args):
        pass


def main():
    address, port, certificate, key = sys.argv[1:]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    http.server.ThreadingHTTPServer.request_queue_size = 1024
    server = http.server.ThreadingHTTPServer((address, int(port)), Handler)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True,
                                        do_handshake_on_connect=False)
    server.serve_forever()


if __name__ == "__main__":
    main()
