# SPDX-License-Identifier: BSD-2-Clause
"""Certificates for a world, good ones and bad ones, made by openssl."""

import os

from system import run_checked

KINDS = ("good", "expired", "wrong_ca", "wrong_name", "no_loopback")


class Pki:
    """Two CAs, one of which nobody trusts, and certificates made on demand.

    One key for all of them: nobody's security hangs on it, and making keys
    is what takes time.
    """

    def __init__(self, directory):
        self.dir = directory
        os.makedirs(directory)
        self.ca = self.path("ca.crt")
        with open(self.path("openssl.cnf"), "w", encoding="utf-8") as f:
            f.write("[req]\ndistinguished_name=dn\nprompt=no\n[dn]\n")
        self.key = self.path("server.key")
        run_checked(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt",
                     "ec_paramgen_curve:P-256", "-out", self.key])
        self.authority("ca", "kubelb test CA")

    def path(self, name):
        return os.path.join(self.dir, name)

    def req(self, *args):
        run_checked(["openssl", "req", "-config", self.path("openssl.cnf"), "-new",
                     "-key", self.key, *args])

    def authority(self, name, subject):
        path = self.path(name + ".crt")
        if not os.path.exists(path):
            self.req("-x509", "-days", "30", "-subj", f"/CN={subject}", "-addext",
                     "basicConstraints=critical,CA:TRUE", "-addext",
                     "keyUsage=critical,keyCertSign", "-out", path)
        return path

    def certificate(self, kind, addresses, name):
        """The path of a certificate of that kind for a host with these addresses."""
        path = self.path(f"{name}-{kind}.crt")
        if os.path.exists(path):
            return path
        ca = self.authority("other", "kubelb untrusted CA") if kind == "wrong_ca" else self.ca
        san = "subjectAltName=" + ",".join(self.names(kind, addresses))
        leaf = ["-subj", f"/CN={name}", "-addext", san]
        if kind == "expired":
            request = self.path(f"{name}-{kind}.csr")
            self.req(*leaf, "-out", request)
            run_checked(["openssl", "x509", "-req", "-in", request, "-CA", ca, "-CAkey",
                         self.key, "-days", "-1", "-copy_extensions", "copy", "-out", path])
        else:
            self.req("-x509", "-CA", ca, "-CAkey", self.key, "-days", "6" if kind == "soon" else "30",
                     "-addext", "basicConstraints=CA:FALSE", *leaf, "-out", path)
        return path

    def client(self, user, groups=(), trusted=True):
        """The path of a file with a client's certificate and its key."""
        name = "".join(c if c.isalnum() else "-" for c in user)
        path = self.path(f"client-{name}{'' if trusted else '-untrusted'}.pem")
        if os.path.exists(path):
            return path
        ca = self.ca if trusted else self.authority("other", "kubelb untrusted CA")
        subject = "".join(f"/O={g}" for g in groups) + f"/CN={user}"
        self.req("-x509", "-CA", ca, "-CAkey", self.key, "-days", "30", "-addext",
                 "basicConstraints=CA:FALSE", "-addext", "extendedKeyUsage=clientAuth",
                 "-subj", subject, "-out", path)
        with open(path, "a", encoding="ascii") as f, open(self.key, encoding="ascii") as key:
            f.write(key.read())
        return path

    @staticmethod
    def names(kind, addresses):
        if kind == "wrong_name":
            return ["DNS:somebody.else.example", "IP:192.0.2.1"]
        names = ["DNS:kubernetes"] + [f"IP:{a}" for a in addresses]
        if kind != "no_loopback":
            names += ["IP:127.0.0.1", "IP:::1"]
        return names


class ExistingPki(Pki):
    """The Pki that a world of another process has made."""

    def __init__(self, directory):  # pylint: disable=super-init-not-called
        self.dir = directory
        self.ca = self.path("ca.crt")
        self.key = self.path("server.key")
