# SPDX-License-Identifier: BSD-2-Clause
"""Real clients through the frontend."""

import json
import os
import re
import shutil

import pytest

from helpers import V4, V6, kept_to, ok, stats
from system import wait_until


@pytest.mark.parametrize("options", [[], ["--http1.1"], ["--tlsv1.3"]], ids=str)
@pytest.mark.parametrize("url", [f"https://{V4}:6443", f"https://[{V6}]:6443"])
def test_curl(attached, url, options):
    done = ok(attached.exec(["curl", "-sS", "--fail", "--cacert", attached.ca, *options,
                             f"{url}/version"]))
    assert json.loads(done.stdout)["backend"] in {"cp1", "cp2", "cp3"}


def test_curl_by_name(attached):
    """localhost may be ::1 first: both families are frontends."""
    done = ok(attached.exec(["curl", "-sS", "--fail", "--cacert", attached.ca, "--connect-to",
                             "kubernetes:6443:localhost:6443", "https://kubernetes:6443/readyz"]))
    assert done.stdout == "ok"


def s_client(stage, where, *options):
    """openssl s_client with a request; what it says, certificate and all, and the answer."""
    return stage.exec(["openssl", "s_client", "-connect", where, "-CAfile", stage.ca,
                       "-no-CApath", "-no-CAstore", "-verify_return_error", "-ign_eof", *options],
                      stdin="GET /version HTTP/1.0\r\nHost: kubernetes\r\n\r\n")


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize("where, options", [
    (f"{V4}:6443", ("-verify_ip", V4)),
    (f"[{V6}]:6443", ("-verify_ip", V6)),
    ("localhost:6443", ("-verify_hostname", "kubernetes")),
], ids=["v4", "v6", "name"])
def test_openssl(attached, where, options, version):
    """A handshake with an apiserver's own certificate, judged by the cluster's CA and for the
    address that was dialled, and an answer."""
    option = version.lower().replace("v1.", "1_")
    done = ok(s_client(attached, where, f"-{option}", *options))
    assert f"New, {version}, Cipher is " in done.stdout, done.stdout
    assert "Verify return code: 0 (ok)" in done.stdout
    assert re.search(r"^subject=CN ?= ?cp[123]$", done.stdout, re.MULTILINE), done.stdout
    assert "HTTP/1.1 200 OK" in done.stdout
    answer = re.search(r'^\{"major".*\}', done.stdout, re.MULTILINE).group(0)
    assert json.loads(answer)["backend"] in {"cp1", "cp2", "cp3"}
    assert sum(stats(attached, "opened").values()) == 1


@pytest.mark.parametrize("kind, options", [("good", ("-verify_ip", "192.0.2.1")),
                                           ("wrong_ca", ())], ids=["name", "authority"])
def test_openssl_refuses(attached, kind, options):
    """The judgement above is one."""
    for b in attached.backends:
        b.certificate(kind, attached.pki)
    done = s_client(attached, f"{V4}:6443", *options)
    assert done.returncode != 0
    assert "verify error" in done.stderr and "HTTP/1.1" not in done.stdout


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
def test_kubectl(attached):
    home = os.path.join(attached.dir, "home")
    done = ok(attached.exec(["env", f"HOME={home}", "KUBECONFIG=/dev/null", "kubectl", "--server",
                             "https://127.0.0.1:6443", "--certificate-authority", attached.ca,
                             "--token", "none", "get", "--raw", "/readyz"]))
    assert done.stdout.strip() == "ok"


def test_watch_goes_on(attached):
    """A response without an end keeps coming through changes of the set."""
    with kept_to(attached, "cp1") as connection:
        connection.sock.settimeout(5)
        connection.sock.sendall(b"GET /watch HTTP/1.1\r\nHost: kubernetes\r\n\r\n")
        assert b" 200 " in connection.sock.recv(4096)
        attached.configure(backends=[attached.cp(2).endpoint])
        ok(attached.load())
        for _ in range(2):
            assert connection.sock.recv(4096)


def test_client_that_reconnects(attached):
    """What a client does whose apiserver goes away: dial again, be served."""
    connection = kept_to(attached, "cp2")
    attached.cp(2).kill()
    with pytest.raises(OSError):
        connection.backend()
    connection.close()
    attached.cp(2).start()
    wait_until(lambda: ok(attached.exec(["curl", "-sS", "--cacert", attached.ca,
                                         f"https://{V4}:6443/readyz"])).stdout == "ok", "curl")
