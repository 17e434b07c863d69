# SPDX-License-Identifier: BSD-2-Clause
"""What a test apiserver needs for its own life, as the real one does: a client that dials its
own serving address, and a place in the cluster's list of apiservers."""

import asyncio
import os
import secrets
import ssl
import subprocess
import time

from etcd import GROUP_VERSION, Etcd, addresses_of, endpoint_slice

USER = "system:apiserver"
HOOK = "poststarthook/rbac/bootstrap-roles"
RETRY = 0.05  # seconds between the hooks' attempts
RENEWALS = 1.5  # in the time of a lease: every 10 s where it is 15


# --- its own client ----------------------------------------------------------


class Loopback:
    """The loopback client of genericapiserver: a certificate, asked for by a name that is no
    host's, and a token that no other process has."""

    NAME = "apiserver-loopback-client"

    def __init__(self, addresses, port):
        self.addresses = addresses
        self.port = port
        self.token = secrets.token_hex(16)
        pem = private_pem(self.NAME)
        self.server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        load_pem(self.server_context, pem)
        self.client_context = ssl.create_default_context(
            cadata=pem[pem.index("-----BEGIN CERTIFICATE-----"):])

    def choose(self, tls, name, _context):
        """For SSLContext.sni_callback of what everybody is served with."""
        if name == self.NAME:
            tls.context = self.server_context

    async def problem(self, address):
        """Why the API cannot be used at that address; None when it can."""
        try:
            return await asyncio.wait_for(self.list_slices(address), 10)
        except TimeoutError:
            return f"{address}: no answer"
        except (OSError, EOFError) as e:  # ssl.SSLError is the former
            return f"{address}: {e}"

    async def list_slices(self, address):
        reader, writer = await asyncio.open_connection(
            address, self.port, ssl=self.client_context, server_hostname=self.NAME)
        try:
            writer.write(f"GET /apis/{GROUP_VERSION}/endpointslices?resourceVersion=0 HTTP/1.1\r\n"
                         f"Host: {self.NAME}\r\nAuthorization: Bearer {self.token}\r\n"
                         "Connection: close\r\n\r\n".encode())
            status = (await reader.readuntil(b"\r\n")).split()[1].decode()
            return None if status == "200" else f"{address}: status {status}"
        finally:
            writer.transport.abort()


def private_pem(name):
    """A key that is in no file, and a certificate that signs itself."""
    return subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "30", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}",
         "-keyout", "-", "-out", "-"], capture_output=True, text=True, check=True).stdout


def load_pem(context, pem):
    fd = os.memfd_create("loopback")
    try:
        os.write(fd, pem.encode())
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


# --- its place in the list ---------------------------------------------------


class Membership:
    """The lease by which an apiserver is in the EndpointSlice `kubernetes`, and the list that it
    makes of all leases whenever it renews its own: whoever has stopped renewing is removed by
    the others. The last one is never removed. The times are CLOCK_MONOTONIC, which all
    processes of a machine share."""

    def __init__(self, etcd_path, address, seconds):
        self.etcd = Etcd(etcd_path)
        self.address = address
        self.seconds = seconds
        self.interval = seconds / RENEWALS

    def renew(self):
        self.write(time.monotonic() + self.seconds)

    def leave(self):
        self.write(0)

    def write(self, until):
        self.etcd.transact(lambda store: self.changes(store, until))

    def changes(self, store, until):
        now = time.monotonic()
        leases = {**store.leases, self.address: until}
        alive = sorted(address for address, end in leases.items() if end > now)
        changes = [{"lease": [self.address, until]}]
        old = store.objects.get(("default", "kubernetes"), {"endpoints": []})
        if alive and alive != addresses_of(old["endpoints"]):
            changes.append({"put": endpoint_slice("kubernetes", alive)})
        return changes
