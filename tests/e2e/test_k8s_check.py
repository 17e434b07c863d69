# SPDX-License-Identifier: BSD-2-Clause
"""scripts/k8s-check.sh: what it says of a cluster is what the cluster's clients have felt, and a
mistake is one line."""

import base64
import json
import os
import re
import subprocess
import threading

import pytest

from cluster import TOKEN, watches_at
from helpers import fails, ok, wait_states
from observe import kubeconfig
from system import wait_until
from world import ROOT

SCRIPT = os.path.join(ROOT, "scripts", "k8s-check.sh")


class Ticks:
    """An object changes twenty times a second, as leases do in a cluster."""

    def __init__(self, etcd):
        self.etcd = etcd
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        number = 0
        while not self.over.wait(0.05):  # the rate is what is wanted
            number += 1
            self.etcd.put("tick", [f"10.0.0.{number % 250 + 1}"], service="tick")

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.over.set()
        self.thread.join()


@pytest.fixture(name="ticking")
def ticking_fixture(found):
    """All three found, and something to hear of in a watch."""
    with Ticks(found.etcd):
        yield found


def argv(stage, config, *args):
    return [SCRIPT, config, "--kubelbctl", f"{stage.program('kubelbctl')} --pin {stage.pin}", *args]


class Check:
    """A running check that has begun."""

    def __init__(self, found, *args, config=None):
        self.found = found
        self.process = found.stage.spawn(argv(found.stage, config or found.kubeconfig, *args),
                                         stderr=subprocess.STDOUT)
        first = self.process.stdout.readline()
        assert "make the fault now" in first, first + self.process.stdout.read()

    def victim(self):
        """The apiserver that has its watch, which is its first connection."""
        wait_until(lambda: self.found.watched() == 2 and self.own(), "the check's watch")
        address = max(self.own(), key=lambda c: c["ageSeconds"])["backend"]
        return next(api for api in self.found.apis if api.endpoint == address)

    def own(self):
        listed = json.loads(ok(self.found.stage.ctl("connections", "-o", "json")).stdout)
        return [c for c in listed["connections"] if c["process"]["pid"] == self.process.pid]

    def report(self, timeout=60):
        out, _ = self.process.communicate(timeout=timeout)
        return Said(out, self.process.returncode)


class Said:
    """The report, by its heads."""

    def __init__(self, text, status):
        self.text, self.status = text, status
        self.lines = [(line[:16].strip(), line[16:]) for line in text.splitlines()]

    def under(self, head):
        return [rest for name, rest in self.lines if name == head]

    def numbers(self, head, pattern):
        return tuple(float(n) for n in re.search(pattern, self.under(head)[0]).groups())

    def sent(self):
        """(requests sent, failed, retried)"""
        return self.numbers("requests", r"^(\d+) sent .*, (\d+) failed, (\d+) retried$")

    def watch(self):
        """(events, longest silence, ended, resumed, listed anew)"""
        return self.numbers("watch", r": (\d+) events, longest silence ([\d.]+) s .*; ended (\d+) "
                            r"times, resumed (\d+), listed anew (\d+)$")

    def honest(self):
        """The numbers, the lines, the verdict and the exit status say one thing."""
        counts = [re.match(r"at [\d.]+(?: to [\d.]+)? s, (\d+) on", line)
                  for line in self.under("failed") if "watch:" not in line]
        assert sum(int(count[1]) for count in counts) == self.sent()[1], self.text
        well = not self.under("failed")
        assert self.under("result") == ["nothing failed" if well else "something failed"], self.text
        assert self.status == (0 if well else 1), self.text
        return self


# --- a cluster, well and not -------------------------------------------------


def test_healthy(ticking):
    said = Check(ticking, "--seconds", "4", "--rate", "10").report().honest()
    assert said.status == 0, said.text
    assert said.sent() == (40, 0, 0)
    events, silence, *ends = said.watch()
    assert events > 20 and silence < 2 and ends == [0, 0, 0], said.text
    p50, p99, worst = said.numbers("latency", r"p50 ([\d.]+) ms, p99 ([\d.]+) ms, worst ([\d.]+)")
    assert 0 < p50 <= p99 <= worst < 4000
    served = {line.split(": ")[0]: int(re.search(r": (\d+) connects", line)[1])
              for line in said.under("served by")}
    assert set(served) == {api.endpoint for api in ticking.apis}
    assert sum(served.values()) >= 20, said.text  # each second request
    own = sum(int(re.search(r"(\d+) of this check", line)[1]) for line in said.under("served by"))
    assert own >= 2, said.text  # the watch and a kept one
    assert "kubelbctl" in said.under("KubeLB")[0], said.text


def test_it_only_reads(ticking):
    said = Check(ticking, "--seconds", "2").report()
    methods = {r["method"] for api in ticking.apis for r in api.requests()}
    assert methods == {"GET"} and said.sent()[0] == 10


def test_killed(ticking):
    """The apiserver that has the watch dies: its watch goes on elsewhere, from where it was."""
    check = Check(ticking, "--seconds", "6", "--rate", "10")
    victim = check.victim()
    victim.kill()
    said = check.report().honest()
    _, silence, ended, resumed, _ = said.watch()
    assert ended >= 1 and resumed >= 1 and silence < 3, said.text
    assert said.sent()[1] <= 2, said.text
    assert any(victim.endpoint in line and "dead" in line
               for line in said.under("served by") + said.under("event")), said.text


def test_hung(ticking):
    """It is stopped: until KubeLB ends its connections there is silence, and not for longer."""
    check = Check(ticking, "--seconds", "8", "--rate", "10")
    victim = check.victim()
    victim.stop()
    said = check.report().honest()
    _, silence, ended, resumed, _ = said.watch()
    assert ended == resumed == 1 and 0.3 < silence < 6, said.text
    assert not any("watch:" in line for line in said.under("failed")), said.text


def test_without_kubelb(ticking):
    """Straight to one apiserver, which dies: every request after that fails, the watch does too."""
    api = ticking.apis[0]
    config = kubeconfig(ticking.stage, f"token: {TOKEN}", "direct.conf", f"https://{api.v4}:6443")
    ticking.agent.stop()
    ok(ticking.stage.detach())
    check = Check(ticking, "--seconds", "4", "--rate", "10", config=config)
    wait_until(lambda: watches_at(api) == 1, "its watch")
    api.kill()
    said = check.report().honest()
    sent, failed, _ = said.sent()
    assert said.status == 1 and sent == 40 and failed > 15, said.text
    assert any("connect: Connection refused" in line for line in said.under("failed")), said.text
    assert any("there is no watch at the end" in line for line in said.under("failed")), said.text
    assert "what served is not known" in said.under("KubeLB")[-1], said.text


def test_version_that_is_gone(ticking):
    """What client-go lists anew for is said to be listed anew."""
    check = Check(ticking, "--seconds", "3")
    assert check.victim().watches("expire") >= 1
    said = check.report().honest()
    _, _, ended, resumed, anew = said.watch()
    assert (ended, resumed, anew) == (1, 0, 1) and "410" in said.under("watch ended")[0], said.text
    assert said.status == 0, said.text


def test_silent_watch(ticking):
    """A watch that is open and says nothing any more is a failure of its own."""
    check = Check(ticking, "--seconds", "5", "--silence", "2")
    check.victim()
    for api in ticking.apis:
        api.hang("watch")
    said = check.report().honest()
    assert said.status == 1 and said.sent()[1] == 0, said.text
    assert any("watch: no event for 2 s" in line for line in said.under("failed")), said.text
    assert said.watch()[1] >= 2, said.text


def test_answers_of_500_are_failures(ticking):
    check = Check(ticking, "--seconds", "3", "--rate", "10")
    for api in ticking.apis:
        api.answer("list", status=500)
    said = check.report().honest()
    assert said.status == 1 and any("status 500" in line for line in said.under("failed"))


# --- credentials -------------------------------------------------------------


def inline(pem, what):
    """Its certificate, or its key, as a kubeconfig has it."""
    [part] = re.findall(rf"-----BEGIN {what}-----.*?-----END {what}-----\n", pem, re.DOTALL)
    return base64.b64encode(part.encode()).decode()


def inline_user(path):
    with open(path, encoding="ascii") as f:
        pem = f.read()
    return (f"client-certificate-data: {inline(pem, 'CERTIFICATE')}\n"
            f"client-key-data: {inline(pem, '(?:EC )?PRIVATE KEY')}")


def one_file(path):
    return f"client-certificate: {path}\nclient-key: {path}"


@pytest.mark.parametrize("user", [inline_user, one_file])
def test_client_certificate(ticking, user):
    """As kubeadm writes it, the key in the kubeconfig, and as the kubelet's own has it."""
    config = kubeconfig(ticking.stage, user(ticking.stage.pki.client("system:node:worker")),
                        "certificate.conf")
    said = Check(ticking, "--seconds", "2", config=config).report().honest()
    assert said.status == 0, said.text
    users = [api.counters()["users"] for api in ticking.apis]
    assert sum(u.get("system:node:worker", 0) for u in users) >= 11


# --- mistakes ----------------------------------------------------------------


def refused(stage, config, *words, args=()):
    done = stage.exec(argv(stage, config, "--timeout", "1", *args), timeout=60)
    assert done.stdout == ""
    return fails(done, 2, "k8s-check.sh: ", *words)


def test_expired_token(cluster):
    cluster.start()
    cluster.wait(1, 2, 3)
    config = kubeconfig(cluster.stage, "token: another", "expired.conf")
    refused(cluster.stage, config, "401", "credentials of user 'u'", "make a kubeconfig")


def test_unreachable(stage):
    config = kubeconfig(stage, f"token: {TOKEN}")
    refused(stage, config, "https://127.0.0.1:6443: connect: Connection refused", "begin while")


def test_certificate_that_cannot_be_verified(cluster):
    cluster.start()
    wait_states(cluster.stage, "ready", cluster.apis)
    for api in cluster.apis:
        api.certificate("expired", cluster.stage.pki)
    refused(cluster.stage, cluster.kubeconfig, "certificate: certificate has expired")


def test_user_who_may_not(cluster):
    cluster.start()
    cluster.wait(1, 2, 3)
    for api in cluster.apis:
        api.set(forbidden_users=["system:node:worker"])
    refused(cluster.stage, cluster.kubeconfig, "gets no list", "EndpointSlices 403")


BAD = {
    "nothing": ("", "has no clusters"),
    "no kubeconfig": ("hello: world\n", "has no clusters"),
    "no YAML": ("clusters:\n  what is this\n", "line 2", "is this a kubeconfig?"),
    "no JSON": ("{\"clusters\": [", "is this a kubeconfig?"),
    "no context": ("clusters: []\ncurrent-context: a\n", "there is no context 'a'"),
}


@pytest.mark.parametrize("what", BAD)
def test_file_that_is_none(stage, tmp_path, what):
    path = tmp_path / "config"
    path.write_text(BAD[what][0])
    refused(stage, str(path), *BAD[what][1:])


@pytest.mark.parametrize("user,words", [
    ("exec: {command: aws}", ["come by exec"]),
    ("username: somebody", ["neither a token nor a client certificate"]),
    ("client-certificate-data: '%'", ["is not base64"]),
    ("client-certificate-data: QUJD\nclient-key-data: QUJD", ["no good PEM"]),
    ("tokenFile: gone", ["tokenFile: gone: No such file"])])
def test_user_that_cannot_be_used(stage, user, words):
    refused(stage, kubeconfig(stage, user), *words)


def test_server_that_is_none(stage):
    refused(stage, kubeconfig(stage, "token: t", server="http://127.0.0.1:6443"),
            "is not https://HOST:PORT")


def test_command_line(stage):
    config = kubeconfig(stage, "token: t")
    refused(stage, config + ".gone", "No such file or directory")
    refused(stage, config, "'0' is not a number from 1 to 86400", args=["--seconds", "0"])
    refused(stage, config, "--bogus", "see --help", args=["--bogus"])
    refused(stage, config, "--kubelbctl: names no command", args=["--kubelbctl", ""])
    done = ok(stage.exec([SCRIPT, "--help"]))
    assert "EXIT STATUS" in done.stdout and "--silence" in done.stdout


def test_no_python(stage, tmp_path):
    done = stage.exec(["/usr/bin/env", f"PATH={tmp_path}", "/bin/sh", SCRIPT, "x"])
    fails(done, 2, "python3 is not installed")
