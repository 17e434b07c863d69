# SPDX-License-Identifier: BSD-2-Clause
"""kubelbctl doctor: what an operator, another version, a load that hangs, or a lacking privilege make
of a node, and what cannot be looked at. As in test_doctor.py each has its finding and a next step."""

import os
import time

from cluster import USER
from helpers import next_version, ok, wait_states
from system import wait_until
from test_clock import AHEAD, write_heartbeat
from test_doctor import Visit
from test_killed_load import standing_still
from test_relay_mode import SOCK_ADDR
from test_relay_rescue import relay_of

# Of a disk that is full: nobody else sees this mount.
SMALL_DISK = ("unshare", "--mount", "--propagation", "private", "sh", "-c",
              'at=$1; shift; mount -t tmpfs -o size=8k none "$at" && "$@"; s=$?; ls "$at"; exit $s', "small")


# A relaying agent was killed there: nobody listens at its socket any more.
STALE_SOCKET = ("unshare", "--mount", "--propagation", "private", "sh", "-c",
                "mount -t tmpfs none /run && mkdir /run/kubelb && /usr/bin/python3 -c 'import socket; "
                'socket.socket(socket.AF_UNIX).bind("/run/kubelb/agent.sock")\' && exec "$@"', "stale")


# --- the operator and the agent have decided ------------------------------------


def test_drained_backend(balanced):
    at = balanced.cp(1).endpoint
    ok(balanced.ctl("drain", at))
    visit = Visit(balanced)
    assert not visit.of("fault") and visit.names("warn") == {"backend"}
    found = visit.one("warn", "backend", f"{at} gets no new connections: drained")
    assert found["next"].startswith(f"kubelbctl undrain {at}")
    ok(balanced.ctl("undrain", at))
    Visit(balanced).well()


def test_backend_without_weight(balanced):
    at = balanced.cp(2).endpoint
    ok(balanced.ctl("weight", at, "0"))
    visit = Visit(balanced)
    visit.one("warn", "backend", f"{at} gets no new connections: its weight is 0", f"weight {at} auto")
    ok(balanced.ctl("weight", at, "auto"))
    Visit(balanced).well()


def test_backend_that_is_back_before_the_agent_knows(stage):
    """No fault: it answers now. A warning: no connect goes there yet."""
    stage.configure(probe={"interval": "60s", "timeout": "1s", "fall": 1, "rise": 1})
    stage.running = stage.agent()
    wait_states(stage, "ready", stage.backends)
    cp = stage.cp(1)
    cp.kill()
    wait_states(stage, "dead", [cp])
    cp.start()
    visit = Visit(stage)
    assert not visit.of("fault")
    visit.one("warn", "backend", f"{cp.endpoint} counts as dead, and has answered now",
              "kubelbctl events")


def test_heartbeat_from_the_future(balanced):
    balanced.running.kill9()
    write_heartbeat(balanced, time.monotonic_ns() + AHEAD * 10**9)
    Visit(balanced).one("fault", "agent", "a clock that is ahead", "time namespace")


def test_agent_that_cannot_be_asked(stage):
    """Without http it goes by the maps."""
    stage.configure(http="")
    stage.running = stage.agent()
    wait_states(stage, "ready", stage.backends)
    visit = Visit(stage).well()
    visit.one("skip", "answers", "http is off")


def test_socket_that_a_killed_agent_has_left(balanced):
    """The agent answers at its address, so nothing is wrong."""
    visit = Visit(balanced, prefix=STALE_SOCKET).well()
    visit.one("ok", "reload", "uses the file as it is")


def test_discovery_without_the_right(cluster):
    """403: the seeds go on, which is no fault, and whose right is lacking."""
    for api in cluster.apis:
        api.set(forbidden_users=[USER])
    cluster.start().wait_log("result=forbidden")
    cluster.wait(1)
    Visit(cluster.stage).one("warn", "discovery", "the configuration's own backends count",
                             "endpointslices", "kubelet.conf")


# --- what is attached is not as it should be ------------------------------------


def test_pins_of_another_version(stage):
    """Nothing of it can be read: the kubelb-load of this version takes them over."""
    ok(stage.exec([next_version(stage), "-c", stage.config, "--pin", stage.pin, "--boot"]))
    visit = Visit(stage)
    assert visit.names("fault") == {"programs"}
    visit.one("fault", "programs", "run the kubelb-load of this version")
    ok(stage.load())
    assert not Visit(stage).of("fault")


def test_maps_without_programs(attached):
    for name in os.listdir(f"{attached.pin}/links"):
        os.unlink(f"{attached.pin}/links/{name}")
    visit = Visit(attached)
    assert visit.names("fault") == {"programs"}
    visit.one("fault", "programs", "none of a program is with them", "run kubelb-load again")
    ok(attached.load())
    assert not Visit(attached).of("fault")


def test_a_load_that_hangs(attached, library):
    """It has the lock: who, and for how long; the load that is over is no fault."""
    with standing_still(attached, library, "link_update:2", attached.program("kubelb-load")) as load:
        visit = Visit(attached)
        visit.one("warn", "pins", f"kubelb-load (PID {load.pid}), which runs for", "wait for it")
    assert not Visit(attached).of("warn", "pins")


def test_nobody_serves_in_relay_mode(stage):
    stage.configure(dataPath="relay")
    visit = Visit(stage)
    visit.one("fault", "programs", "nobody serves the frontends", "systemctl start kubelb-agent")


def test_relaying_because_the_kernel_refuses(stage, refuse):
    """It works, and costs: a warning, with the kernel's reason."""
    # Not the default socket, which all worlds share.
    stage.configure(dataPath="auto", http=["127.0.0.1:8081", f"unix:{stage.dir}/agent.sock"])
    stage.running = stage.agent(prefix=[refuse, f"prog={SOCK_ADDR}", "--"])
    stage.ctl_options = ["-c", stage.config]
    wait_until(lambda: stage.ctl("ping").returncode == 0, "the agent to answer")
    Visit(stage).one("warn", "programs", "the agent relays every connect: ", "kubelb-load --check")


# --- the relay beside the kernel ------------------------------------------------


def test_no_relay_without_an_agent(attached):
    Visit(attached).one("skip", "relay", "there is none without an agent")


def test_rescue_whose_mark_is_taken(stage):
    rule = "rule add fwmark 0x1000/0x1000 lookup 99"
    stage.ip_batch(stage.node, [rule])
    try:
        stage.running = stage.agent()
        wait_states(stage, "ready", stage.backends)
        wait_until(lambda: relay_of(stage)["rescue"]["off"] == "taken", "no rescue")
        Visit(stage).one("fault", "relay", "rescue is off", "relay.mark", "relay.table")
    finally:
        stage.ip_batch(stage.node, [rule.replace(" add", " del")])


def test_rescue_without_the_privilege(stage):
    ok(stage.load())
    stage.running = stage.agent(prefix=["setpriv", "--bounding-set=-net_admin", "--inh-caps=-all"])
    wait_states(stage, "ready", stage.backends)
    wait_until(lambda: relay_of(stage)["rescue"]["off"] == "privilege", "no rescue")
    Visit(stage).one("fault", "relay", "rescue is off", "give the agent CAP_NET_ADMIN")


# --- files ----------------------------------------------------------------------


def test_no_configuration(attached):
    """What is attached goes on: a warning. Where nothing is: a fault. No backend is refused for a CA
    that nobody could read."""
    os.unlink(attached.config)
    visit = Visit(attached)
    assert not visit.of("fault")
    visit.one("warn", "config", "there is no such file", "kubelb.yaml.example")
    visit.one("skip", "backend", "3, not dialled")
    ok(attached.detach())
    visit = Visit(attached)
    assert visit.names("fault") == {"config", "programs"}
    visit.one("skip", "backend", "none is known here")


def test_ca_that_is_no_certificate(attached, tmp_path):
    (tmp_path / "ca.crt").write_text("no certificate\n")
    attached.configure(probe={"ca": str(tmp_path / "ca.crt")})
    visit = Visit(attached)
    visit.one("fault", "backend", "not dialled", f"{tmp_path}/ca.crt", attached.config)


def test_names_that_nobody_has_checked(attached):
    """With probe.insecureSkipVerify no certificate is judged, so none is praised."""
    attached.configure(probe={"insecureSkipVerify": True})
    for cp in attached.backends:
        cp.certificate("no_loopback", attached.pki)
    visit = Visit(attached)
    assert not visit.of("fault", "certificate")
    visit.one("skip", "certificate", "3 of 3 seen, not verified")


def test_certificate_that_expires_soon(attached):
    """In 6 days: a warning. In 30 it is none."""
    attached.cp(1).certificate("soon", attached.pki)
    visit = Visit(attached)
    assert not visit.of("fault")
    visit.one("warn", "certificate", f"that of {attached.cp(1).endpoint} expires on ", "certs renew")


def test_cgroup_that_is_none(stage, tmp_path):
    stage.configure(cgroup=str(tmp_path))
    Visit(stage).one("fault", "cgroup", str(tmp_path), "in the key cgroup")


def test_bundle_on_a_full_disk(attached, tmp_path):
    """No half a report stays that looks like one."""
    done = attached.exec([*SMALL_DISK, tmp_path, attached.program("kubelbctl"), "--pin", attached.pin,
                          "-c", attached.config, "doctor", "--bundle", tmp_path / "report.tar"],
                         timeout=120)
    assert done.returncode == 1 and "is the disk full?" in done.stderr, done
    assert "report.tar\n" not in done.stdout.split("not checked")[-1]
