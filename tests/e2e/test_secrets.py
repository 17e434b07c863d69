# SPDX-License-Identifier: BSD-2-Clause
"""Nothing secret gets out: not into logs at the highest verbosity, not into error messages,
status, events or metrics. Canaries go in wherever a secret may stand, rightly or by mistake;
then not even sixteen characters of them may come out."""

import base64
import json
import os

import pytest

from helpers import http_call, ok, wait_states
from system import run_checked, wait_until

# Shaped like a service account's token (its payload names nobody).
TOKEN = "eyJhbGciOiJSUzI1NiIsImtpZCI6IkNhbmFyeSJ9.eyJpc3MiOiJjYW5hcnktaXNzdWVyIiwic3ViIjoiY2" \
    "FuYXJ5LXN1YmplY3QifQ.Q2FuYXJ5U2lnbmF0dXJlVGhhdE5vYm9keU1heVJlYWQ"
BOOTSTRAP = "canary.0123456789abcdef"
PASSWORD = "CanaryPassword4711ThatNobodyMayRead"
PIECE = 16


class Canaries:
    """Secrets, and every piece of them that would give one away."""

    def __init__(self, directory):
        self.key_file = os.path.join(directory, "canary.key")
        run_checked(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt",
                     "ec_paramgen_curve:P-256", "-out", self.key_file])
        with open(self.key_file, encoding="ascii") as f:
            self.key = f.read()
        self.key_data = base64.b64encode(self.key.encode()).decode()
        body = "".join(line for line in self.key.splitlines() if "-----" not in line)
        self.pieces = set()
        for secret in (TOKEN, BOOTSTRAP, PASSWORD, body, self.key_data[36:-36]):
            self.pieces |= {secret[i:i + PIECE] for i in range(len(secret) - PIECE + 1)}
        self.token_file = self.write(directory, "token", TOKEN + "\n")

    def write(self, directory, name, text):
        path = os.path.join(directory, name)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        return path

    def found_in(self, text):
        return sorted(p for p in self.pieces if p in text)

    def check(self, text):
        assert not self.found_in(text), f"{self.found_in(text)} in: {text}"


@pytest.fixture(name="canaries")
def canaries_fixture(tmp_path):
    return Canaries(str(tmp_path))


def test_canaries_would_be_found(canaries):
    """The check itself: pieces of each, in the middle of something."""
    for text in (f"x{TOKEN[40:60]}x", canaries.key, canaries.key_data, PASSWORD[:20], BOOTSTRAP):
        assert canaries.found_in(text), text
    assert not canaries.found_in("client-key: no such file; -----BEGIN PRIVATE KEY-----")


def indented(text, by=4):
    return "".join(" " * by + line + "\n" for line in text.splitlines())


# --- mistakes in kubelb.yaml -------------------------------------------------

BACKENDS = "backends: [192.0.2.1]\n"
CONFIGS = {
    "key inline": lambda c: f"{BACKENDS}probe:\n  clientCert: /x\n  clientKey: |\n"
                            f"{indented(c.key)}",
    "key inline, after a slash": lambda c: f"{BACKENDS}probe:\n  clientCert: /x\n  clientKey: |\n"
                                           f"    /\n{indented(c.key)}",
    "key data": lambda c: f"{BACKENDS}probe:\n  clientCert: /x\n  clientKey: {c.key_data}\n",
    "key in the certificate's place": lambda c: f"{BACKENDS}probe:\n  clientCert: |\n"
                                                f"{indented(c.key)}  clientKey: /x\n",
    "key without its certificate": lambda c: f"{BACKENDS}probe:\n  clientKey: {c.key_data}\n",
    "key as a list": lambda c: f"{BACKENDS}probe:\n  clientKey: [{c.key_data}]\n",
    "key twice": lambda c: f"{BACKENDS}probe:\n  clientKey: {c.key_data}\n"
                           f"  clientKey: {c.key_data}\n",
    "ca inline": lambda c: f"{BACKENDS}probe:\n  ca: |\n{indented(c.key)}",
    "token, unknown key": lambda c: f"{BACKENDS}discovery:\n  token: {TOKEN}\n",
    "token at the top": lambda c: f"{BACKENDS}token: {TOKEN}\n",
    "password": lambda c: f"{BACKENDS}discovery:\n  username: a\n  password: {PASSWORD}\n",
    "kubeconfig inline": lambda c: f"{BACKENDS}discovery:\n  kubeconfig: |\n    users:\n"
                                   f"    - user: {{token: {TOKEN}}}\n",
    "token as kubeconfig": lambda c: f"{BACKENDS}discovery:\n  kubeconfig: {TOKEN}\n",
    "token as cache": lambda c: f"{BACKENDS}discovery:\n  cache: {BOOTSTRAP}\n",
    "token as discovery": lambda c: f"{BACKENDS}discovery: {TOKEN}\n",
    "key as probe": lambda c: f"{BACKENDS}probe: |\n{indented(c.key)}",
    "not YAML": lambda c: f"{BACKENDS}probe:\n  clientKey: \"{c.key_data}\n",
    "a tab": lambda c: f"{BACKENDS}probe:\n\tclientKey: {c.key_data}\n",
    "no space": lambda c: f"{BACKENDS}probe:\n  clientKey:{c.key_data}\n",
    "an anchor": lambda c: f"{BACKENDS}probe:\n  clientKey: *{c.key_data.rstrip('=')}\n",
    "a tag": lambda c: f"{BACKENDS}probe:\n  clientKey: !{TOKEN} x\n",
    # The wrong file altogether.
    "a token": lambda c: TOKEN + "\n",
    "a key": lambda c: c.key,
    "a key's data": lambda c: c.key_data,
    "a kubeconfig": lambda c: kubeconfig({"token": TOKEN, "client-key-data": c.key_data}),
    "a kubeconfig in JSON": lambda c: json.dumps({"users": [{"user": {"token": TOKEN}}]}),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_mistakes_in_the_configuration(stage, canaries, tmp_path, name):
    path = canaries.write(tmp_path, "kubelb.yaml", CONFIGS[name](canaries))
    for done in (stage.load("-v", config=path), stage.load("-n", "-v", config=path),
                 stage.exec([stage.program("kubelb-agent"), "-v", "-v", "-c", path, "--pin",
                             stage.pin])):
        assert done.returncode == 2, done.stderr
        assert path in done.stderr
        canaries.check(done.stdout + done.stderr)


# --- the wrong files for the right keys --------------------------------------


@pytest.mark.parametrize("files", [
    ("key", "key"), ("token", "key"), ("key", "token"), ("token", "token"), ("cert", "token"),
    ("cert", "encrypted"), ("cert", "key"), ("key", "cert"), ("half", "half"),
], ids="-".join)
def test_wrong_files_for_the_probes(stage, canaries, tmp_path, files):
    """A pair that is none, whatever is in its files."""
    encrypted = os.path.join(tmp_path, "encrypted.key")
    run_checked(["openssl", "pkcs8", "-topk8", "-in", canaries.key_file, "-out", encrypted,
                 "-passout", f"pass:{PASSWORD}"])
    half = canaries.write(tmp_path, "half.key", canaries.key[:len(canaries.key) // 2])
    at = {"key": canaries.key_file, "token": canaries.token_file, "half": half,
          "encrypted": encrypted, "cert": stage.pki.client("canary")}
    path = stage.configure(str(tmp_path / "kubelb.yaml"),
                           probe={"clientCert": at[files[0]], "clientKey": at[files[1]]})
    done = stage.exec([stage.program("kubelb-agent"), "-v", "-v", "-c", path, "--pin", stage.pin])
    assert done.returncode == 2, done.stderr
    assert "clientKey" in done.stderr or "clientCert" in done.stderr
    canaries.check(done.stdout + done.stderr)


@pytest.mark.parametrize("kind", ["key", "token"])
def test_wrong_file_for_the_ca(stage, canaries, tmp_path, kind):
    ca = canaries.key_file if kind == "key" else canaries.token_file
    path = stage.configure(str(tmp_path / "kubelb.yaml"), probe={"ca": ca})
    done = stage.exec([stage.program("kubelb-agent"), "-v", "-c", path, "--pin", stage.pin])
    assert done.returncode == 2 and "probe.ca" in done.stderr
    canaries.check(done.stderr)


@pytest.mark.parametrize("kind", ["key", "token"])
def test_wrong_file_for_the_cache(stage, canaries, tmp_path, kind):
    """Read at start by both programs; not believed, and not repeated."""
    file = canaries.key_file if kind == "key" else canaries.token_file
    stage.configure(discovery={"kubeconfig": canaries.write(tmp_path, "config", "{}"),
                               "cache": file})
    done = ok(stage.load("-v"))
    assert file in done.stderr
    agent = stage.agent("-v", "-v")
    agent.wait_log(r"cache of discovery is not used")
    canaries.check(done.stdout + done.stderr + agent.log())


# --- kubeconfigs -------------------------------------------------------------


def kubeconfig(user, server="https://127.0.0.1:6443", **cluster):
    """As JSON, which is YAML, too."""
    return json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "u", "user": user}],
    }, indent=1)


def b64(text):
    return base64.b64encode(text.encode()).decode()


KUBECONFIGS = {
    "key data that is no base64": lambda c: kubeconfig({
        "client-certificate-data": b64("x"), "client-key-data": c.key_data + "%"}),
    "key data that is not PEM": lambda c: kubeconfig({
        "client-certificate-data": b64("x"), "client-key-data": b64(PASSWORD)}),
    "key data without a certificate": lambda c: kubeconfig({"client-key-data": c.key_data}),
    "key data as certificate": lambda c: kubeconfig({
        "client-certificate-data": c.key_data, "client-key-data": c.key_data}),
    "key data where a file is named": lambda c: kubeconfig({
        "client-certificate": "/x", "client-key": c.key_data}),
    "key where a file is named": lambda c: kubeconfig({
        "client-certificate": "/x", "client-key": c.key}),
    "key data where the CA is named": lambda c: kubeconfig({}, **{
        "certificate-authority": c.key_data}),
    "key data as CA": lambda c: kubeconfig({}, **{"certificate-authority-data": c.key_data}),
    "token where a file is named": lambda c: kubeconfig({"tokenFile": TOKEN}),
    "bootstrap token where a file is named": lambda c: kubeconfig({"tokenFile": BOOTSTRAP}),
    "token with a blank": lambda c: kubeconfig({"token": TOKEN + " " + TOKEN}),
    "token with a line break": lambda c: kubeconfig({"token": TOKEN + "\r\nX: " + TOKEN}),
    "token with a NUL": lambda c: kubeconfig({"token": TOKEN + "\0"}),
    "token as a list": lambda c: kubeconfig({"token": [TOKEN]}),
    "key file as token": lambda c: kubeconfig({"tokenFile": c.key_file}),
    "password": lambda c: kubeconfig({"username": "a", "password": PASSWORD}),
    "plugin with secrets": lambda c: kubeconfig({"exec": {"command": "x", "args": [TOKEN], "env": [
        {"name": "SECRET", "value": PASSWORD}]}}),
    "auth provider": lambda c: kubeconfig({"auth-provider": {"config": {"token": TOKEN}}}),
    "password in the server": lambda c: kubeconfig({}, f"https://a:{PASSWORD}@192.0.2.1:6443"),
    "token in the server's query": lambda c: kubeconfig({}, f"https://192.0.2.1/?token={TOKEN}"),
    "password in the server's host": lambda c: kubeconfig({}, f"https://{PASSWORD}!/"),
    "password in the server's port": lambda c: kubeconfig({}, f"https://a:{PASSWORD}/"),
    "password in the proxy": lambda c: kubeconfig({}, **{
        "proxy-url": f"http://a:{PASSWORD}@192.0.2.1"}),
    "user as text": lambda c: kubeconfig(TOKEN),
    "twice": lambda c: f"users: {{token: {TOKEN}}}\nusers: {{token: {TOKEN}}}\n"
                       f"current-context: x\n",
    "not YAML": lambda c: f"users:\n- user: {{token: \"{TOKEN}\n",
    "a token": lambda c: TOKEN,
    "a key": lambda c: c.key,
    "a key's data": lambda c: c.key_data,
}


@pytest.mark.parametrize("name", KUBECONFIGS)
def test_mistakes_in_a_kubeconfig(stage, canaries, tmp_path, name):
    """The agent balances without discovery, and says what is wrong with the file."""
    path = canaries.write(tmp_path, "canary.conf", KUBECONFIGS[name](canaries))
    stage.configure(discovery={"kubeconfig": path, "cache": str(tmp_path / "cache.json")})
    agent = stage.agent("-v", "-v")
    line = agent.wait_log(r"canary\.conf.*(detail|error|warning)|(detail|error|warning).*canary")
    assert "level=warn" in line or "level=error" in line or "kubelb-agent:" in line
    wait_states(stage, "ready", stage.backends)
    canaries.check(agent.log() + everything_shown(stage))


def everything_shown(stage):
    """All that people, their scripts and Prometheus get to see."""
    shown = [ok(stage.ctl(*args)).stdout for args in (
        ["status"], ["status", "-o", "json"], ["events"], ["events", "-o", "json"],
        ["connections", "-o", "json"])]
    wait_until(lambda: http_call(stage, "GET", "/healthz")[0] == 200, "the agent to serve")
    shown += [str(http_call(stage, "GET", path)) for path in ("/metrics", "/readyz", "/x")]
    shown.append(ok(stage.load("-n", "-v")).stdout)
    return "".join(shown)


# --- credentials in use ------------------------------------------------------


def with_ca(stage, user):
    with open(stage.ca, encoding="ascii") as f:
        return kubeconfig(user, **{"certificate-authority-data": b64(f.read())})


ANSWERS = {
    "200": {},
    "401 that repeats it": {"status": 401, "body": json.dumps(
        {"kind": "Status", "message": f"invalid bearer token {TOKEN}"})},
    "403 in halves": {"status": 403, "body": json.dumps(
        {"kind": "Status", "message": f"{TOKEN[:60]} {TOKEN[60:]}"})},
    "500 in base64 of nothing": {"status": 500, "body": f"Authorization: Bearer {TOKEN}"},
    "200 that is a token": {"status": 200, "body": TOKEN},
    "200 with a token in it": {"status": 200, "body": json.dumps(
        {"kind": TOKEN, "metadata": {"resourceVersion": TOKEN}, "items": [TOKEN]})},
    "200 with a token as version": {"status": 200, "body": json.dumps(
        {"kind": "EndpointSliceList", "metadata": {"resourceVersion": "/" + TOKEN}, "items": []})},
    "a redirect": {"status": 302, "headers": {"Location": f"https://192.0.2.1/?t={TOKEN}"}},
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_token_in_use(stage, canaries, tmp_path, answer):
    """Whatever the apiserver makes of it, or says about it."""
    apis = [stage.apiserver(i, tokens={TOKEN: "system:node:worker"}) for i in (1, 2, 3)]
    for api in apis:
        if ANSWERS[answer]:
            api.answer("list", **ANSWERS[answer])
    path = canaries.write(tmp_path, "canary.conf", with_ca(stage, {"tokenFile": "token"}))
    stage.configure(discovery={"kubeconfig": path, "cache": str(tmp_path / "cache.json")})
    agent = stage.agent("-v", "-v")
    wait_states(stage, "ready", stage.backends)
    agent.wait_log(r"result=")
    assert any(api.counters()["tokens"].get(TOKEN) for api in apis)
    canaries.check(agent.log() + everything_shown(stage))
    for name in ("cmdline", "environ"):
        with open(f"/proc/{agent.pid}/{name}", encoding="utf-8", errors="replace") as f:
            canaries.check(f.read())
    if os.path.exists(tmp_path / "cache.json"):
        canaries.check((tmp_path / "cache.json").read_text())
