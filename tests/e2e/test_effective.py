# SPDX-License-Identifier: BSD-2-Clause
"""What is shown as effective is what decides: test connects to the frontends, programs of others
before and after KubeLB's, forgotten attachments, and what still runs after a detach."""

import contextlib
import json
import os
import socket

import pytest

from backend import PORT
from helpers import (V4, V6, Listener, bpftool, counters, dial, dial_error, dump, http_call, make_socket, metrics, nbconnect, ok, served_by,
                     stats)
from system import BPFFS, inside, run_checked, wait_until

TEST = 512  # KLB_SOCKET_REPAIR
HOOKS = {"connect4": "cgroup/connect4", "getpeername4": "cgroup/getpeername4"}


def foreign_program(hook, port, to):
    """A program of somebody else at a hook: sends connects to that port to another address, or
    (to: None) changes nothing. Addresses and ports in network byte order."""
    address, to_port = to or ("0.0.0.0", 0)
    ip = int.from_bytes(socket.inet_aton(address), "little")
    change = f"ctx->ip4 = {ip}u; ctx->port = {socket.htons(to_port)};" if to else ""
    return f"""
struct context {{ unsigned int family, ip4, ip6[4], port; }};
__attribute__((section("{HOOKS[hook]}"), used))
int somebody(struct context *ctx)
{{
	if (ctx->port == {socket.htons(port)}) {{ {change} }}
	return 1;
}}
char _license[] __attribute__((section("license"), used)) = "GPL";
"""


class Foreign:
    """Attaches such programs, without a link as most do, and takes them away again."""

    def __init__(self, stage, directory):
        self.stage, self.directory = stage, directory
        self.attached = []

    def attach(self, cgroup, hook="connect4", port=PORT, to=None):
        number = len(self.attached)
        pin = f"{BPFFS}/{self.stage.prefix}-foreign{number}"
        source, binary = self.directory / f"{number}.c", self.directory / f"{number}.o"
        source.write_text(foreign_program(hook, port, to))
        run_checked(["clang", "-O2", "-g", "-target", "bpf", "-c", str(source), "-o", str(binary)])
        run_checked(["bpftool", "prog", "load", str(binary), pin])
        self.attached.append((cgroup, hook, pin))
        run_checked(["bpftool", "cgroup", "attach", cgroup, hook, "pinned", pin, "multi"])
        return bpftool("prog", "show", "pinned", pin)

    def detach(self):
        while self.attached:
            cgroup, hook, pin = self.attached.pop()
            run_checked(["bpftool", "cgroup", "detach", cgroup, hook, "pinned", pin])
            os.unlink(pin)


@pytest.fixture(name="inner")
def inner_fixture(group):
    """A cgroup below `group`, whose programs run before those of `group`."""
    path = os.path.join(group, "inner")
    os.mkdir(path)
    return path


@pytest.fixture(name="foreign")
def foreign_fixture(stage, tmp_path, inner):  # pylint: disable=unused-argument
    """Detached before its cgroups go."""
    programs = Foreign(stage, tmp_path)
    yield programs
    stage.end_processes()
    programs.detach()


def status(stage, **kwargs):
    """As text, and as the JSON document. cgroup: where kubelbctl runs, and so the test connects."""
    text = ok(stage.ctl("status", **kwargs)).stdout
    return text, json.loads(ok(stage.ctl("status", "-o", "json", **kwargs)).stdout)


def results(document):
    return {c["frontend"]: c["result"] for c in document["connects"]}


def others(document):
    """Programs at KubeLB's hooks, without those of other worlds on this machine."""
    return [o for o in document["otherPrograms"] if not o["kubelb"]]


def balanced_all(document):
    return document["effective"] is True and set(results(document).values()) == {"balanced"}


# --- test connects -----------------------------------------------------------


def test_connects_end_at_a_backend(attached):
    text, document = status(attached)
    assert "all effective" in text and "end at a backend, from each of 2 frontends" in text
    assert results(document) == {f"{V4}:{PORT}": "balanced", f"[{V6}]:{PORT}": "balanced"}
    assert document["effective"] is True


def network_counters(stage):
    """What TCP has sent and received in the node, by the kernel's own count."""
    with inside(stage.node), open("/proc/thread-self/net/snmp", encoding="ascii") as f:
        names, values = [line.split()[1:] for line in f if line.startswith("Tcp:")]
    found = dict(zip(names, map(int, values)))
    return {k: found[k] for k in ("ActiveOpens", "PassiveOpens", "InSegs", "OutSegs")}


def test_test_connects_leave_no_trace(attached):
    """No packet, no count, no event; and they make no backend look better or worse."""
    attached.cp(1).kill()
    wait_until(lambda: dial_error(attached) == "ECONNREFUSED", "a connect to fail")
    wait_until(lambda: not sum(stats(attached, "connecting").values()), "nothing to connect")
    fields = ("active", "connecting", "opened", "failed", "evidence", "streak", "ejections",
              "srtt_us", "last_success_ns", "last_failure_ns")
    def seen():
        counts = counters(attached)
        del counts["skipped_other_netns"]  # what other worlds on this machine dial
        return [stats(attached, f) for f in fields], counts, network_counters(attached)

    before = seen()
    for _ in range(5):
        assert balanced_all(status(attached)[1])
    assert seen() == before
    assert ok(attached.ctl("connections")).stdout.count("\n") == 1, "the head alone"


def test_what_listens_on_the_frontend_sees_no_connect(attached):
    """The kernel has lost the frontends: test connects go to what listens there, without a
    packet."""
    size = bpftool("map", "show", "pinned", f"{attached.pin}/lookup")["bytes_value"]
    with Listener(attached, V4, PORT) as listener:
        assert balanced_all(status(attached)[1])
        run_checked(["bpftool", "map", "update", "pinned", f"{attached.pin}/lookup", "key", "0",
                     "0", "0", "0", "value", *["0"] * size])
        text, document = status(attached)
        assert "NOT ALL EFFECTIVE" in text and "untouched" in text
        assert set(results(document).values()) == {"untouched"} and document["effective"] is False
        dial(attached).close()
        listener.wait(1)


def test_no_backend_is_not_checked(attached):
    """Connects are left alone on purpose, and the tests count nowhere."""
    for b in attached.backends:
        ok(attached.ctl("weight", b.endpoint, 0))
    text, document = status(attached)
    assert "no backend takes connects" in text and "all effective" not in text
    assert set(results(document).values()) == {"not_checked"} and document["effective"] is None
    assert counters(attached)["skipped_no_backend"] == 0


def test_no_backend_of_that_family_is_not_checked(stage):
    """An IPv4 connect reaches no IPv6 backend: the kernel leaves it alone, and counts no test."""
    stage.configure(backends=[stage.cp(1).endpoint6])
    ok(stage.load())
    _text, document = status(stage)
    assert results(document) == {f"{V4}:{PORT}": "not_checked", f"[{V6}]:{PORT}": "balanced"}
    assert document["effective"] is None and counters(stage)["skipped_no_backend"] == 0
    assert dial_error(stage) == "ECONNREFUSED"
    assert counters(stage)["skipped_no_backend"] == 1


def test_own_listener_is_not_checked(stage, group):
    """What listens on the frontend is of kubelbctl's own cgroup: left alone, by rule."""
    ok(stage.load())
    server = stage.spawn(["/usr/bin/python3", "-c", "import socket, sys\n"
                          f"s = socket.create_server(('{V4}', {PORT}))\n"
                          "print('listens', flush=True)\nsys.stdin.read()"], cgroup=group)
    assert server.stdout.readline() == "listens\n"
    _text, document = status(stage, cgroup=group)
    assert results(document)[f"{V4}:{PORT}"] == "not_checked"
    assert counters(stage)["skipped_own_listener"] == 0
    assert balanced_all(status(stage)[1]), "another cgroup's connects are balanced"


def test_without_the_privileges_nothing_is_ok(attached):
    command = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin",
               attached.program("kubelbctl"), "--pin", attached.pin, "status"]
    shown = ok(attached.exec(command)).stdout
    assert "all effective" not in shown and "CAP_NET_ADMIN" in shown
    document = json.loads(ok(attached.exec([*command, "-o", "json"])).stdout)
    assert document["effective"] is None
    assert set(results(document).values()) == {"not_checked"}


def test_from_another_namespace_nothing_is_ok(attached):
    pod = attached.pod()
    done = attached.exec([attached.program("kubelbctl"), "--pin", attached.pin, "status"], ns=pod)
    assert "network namespace" in ok(done).stdout and "all effective" not in done.stdout


# --- programs of others ------------------------------------------------------


@pytest.mark.parametrize("to", ["elsewhere", "a backend"])
def test_a_program_before_decides(stage, foreign, group, inner, to):
    """It takes the connect before KubeLB sees a frontend; also when it leads to a backend, as
    a forgotten balancer does."""
    target = (stage.cp(1).v4, PORT)
    if to == "elsewhere":
        stage.configure(backends=[b.endpoint for b in stage.backends[1:]])
    ok(stage.load(cgroup=group))
    assert balanced_all(status(stage, cgroup=inner)[1])
    program = foreign.attach(inner, to=target)
    assert served_by_in(stage, inner) == "cp1"
    text, document = status(stage, cgroup=inner)
    assert "NOT ALL EFFECTIVE" in text and document["effective"] is False
    assert f"{V4}:{PORT} is sent to {stage.cp(1).endpoint} by another program" in text
    assert results(document) == {f"{V4}:{PORT}": "elsewhere", f"[{V6}]:{PORT}": "balanced"}
    [other] = others(document)
    assert other == {"hook": "connect4", "programId": program["id"], "name": "somebody",
                     "tag": program["tag"], "kubelb": False, "before": True, "cgroup": inner,
                     "pin": None}
    assert f"connect4 somebody (id {program['id']}, tag {program['tag']}) runs before" in text
    foreign.detach()
    assert balanced_all(status(stage, cgroup=inner)[1])


def served_by_in(stage, cgroup):
    """The control plane that answers a client in that cgroup."""
    done = stage.exec(["curl", "-sk", "--max-time", "5", f"https://{V4}:{PORT}/version"],
                      cgroup=cgroup)
    return json.loads(ok(done).stdout)["backend"]


def test_a_program_after_decides_without_sockops(stage, refuse, foreign, group, inner):
    """Nothing follows the SYN then; the peer's address tells."""
    ok(stage.exec([refuse, "prog=13", "--", stage.program("kubelb-load"), "--pin", stage.pin,
                   "-c", stage.config, "--cgroup", inner]))
    assert balanced_all(status(stage, cgroup=inner)[1])
    foreign.attach(group, to=(stage.cp(1).v4, 7))
    text, document = status(stage, cgroup=inner)
    assert "NOT ALL EFFECTIVE" in text and results(document)[f"{V4}:{PORT}"] == "elsewhere"


@pytest.mark.parametrize("same", [False, True], ids=["in a parent", "in the same cgroup"])
def test_a_program_after_decides(stage, foreign, group, inner, same):
    """It rewrites what KubeLB has chosen: shown by the test connect, and each connect of a
    client is counted, with where it went."""
    stage.configure(backends=[stage.cp(1).endpoint])
    ok(stage.load(cgroup=inner))
    program = foreign.attach(inner if same else group, to=(stage.cp(2).v4, PORT))
    assert served_by_in(stage, inner) == "cp2"
    text, document = status(stage, cgroup=inner)
    assert "NOT ALL EFFECTIVE" in text and results(document)[f"{V4}:{PORT}"] == "elsewhere"
    assert [(o["programId"], o["before"]) for o in others(document)] == [(program["id"], False)]
    assert document["diverted"] == {"count": 1, "lastTo": stage.cp(2).endpoint}
    nbconnect(stage, "-n", 20, V4, cgroup=inner)
    text, document = status(stage, cgroup=inner)
    assert document["diverted"]["count"] == 21, "test connects are none of them"
    assert f"21, the last one to {stage.cp(2).endpoint}" in text
    assert stats(stage, "opened") == {"cp1": 0}, "the backend is not credited with them"


def test_programs_that_change_nothing_are_named(stage, foreign, group, inner):
    """At both hooks; and everything is effective all the same."""
    ok(stage.load(cgroup=inner))
    first = foreign.attach(inner)
    second = foreign.attach(group, hook="getpeername4")
    nbconnect(stage, "-n", 10, V4, cgroup=inner)
    _text, document = status(stage, cgroup=inner)
    assert balanced_all(document)
    assert {(o["hook"], o["programId"], o["before"]) for o in others(document)} == \
        {("connect4", first["id"], False), ("getpeername4", second["id"], False)}
    assert document["diverted"] == {"count": 0, "lastTo": None}


def test_a_choice_left_behind_is_no_diversion(single):
    """No route to the backend; then the same socket goes to an address of its own choice, at
    once. Nobody has changed anything."""
    single.cp(1).start()
    single.ip_batch(single.node, [f"route add unreachable {single.cp(1).v4}/32"])
    try:
        for _ in range(20):
            with make_socket(single, socket.AF_INET) as sock:
                sock.settimeout(5)
                with pytest.raises(OSError):
                    sock.connect((V4, PORT))
                sock.connect((single.cp(2).v4, PORT))
    finally:
        single.ip_batch(single.node, [f"route del unreachable {single.cp(1).v4}/32"])
    assert counters(single)["diverted"] == 0


def test_no_route_is_not_checked_and_blames_nobody(single):
    single.ip_batch(single.node, [f"route add unreachable {single.cp(1).v4}/32"])
    try:
        for _ in range(3):
            assert results(status(single)[1])[f"{V4}:{PORT}"] == "not_checked"
    finally:
        single.ip_batch(single.node, [f"route del unreachable {single.cp(1).v4}/32"])

    def left():
        """Choices of test connects that no other connect has replaced yet."""
        nbconnect(single, "-n", 200, V4)  # takes every place between hook and SYN
        return [p for _i, p in dump(single, "pending") if p["number"] and
                p["route"]["flags"] & TEST]

    assert left(), "they are replaced after a second at the earliest"
    wait_until(lambda: not left(), "the choices of the test connects to be replaced")
    assert sum(stats(single, "failed")["cp1"]) == 0
    assert stats(single, "ejections")["cp1"] == 0


# --- another attachment of KubeLB --------------------------------------------


@pytest.fixture(name="forgotten")
def forgotten_fixture(stage, group):
    """An attachment under another pin directory, older than the world's own; its directory."""
    pin = f"{stage.pin}x"
    path = stage.configure(os.path.join(stage.dir, "old.yaml"),
                           backends=[stage.cp(1).endpoint])
    load = [stage.program("kubelb-load"), "--pin", pin]
    ok(stage.exec([*load, "-c", path, "--cgroup", group]))
    yield pin
    stage.exec([*load, "--detach"])


def test_a_forgotten_attachment_decides(stage, group, forgotten):
    """The older one runs first, and the newer one sees no frontend: its backends count."""
    ok(stage.load(cgroup=group))
    assert {served_by_in(stage, group) for _ in range(10)} == {"cp1"}
    text, document = status(stage, cgroup=group)
    assert "NOT ALL EFFECTIVE" in text and document["effective"] is False
    assert f"and 3 more of KubeLB run before; pinned in {forgotten}\n" in text
    assert {(o["hook"], o["kubelb"], o["before"]) for o in document["otherPrograms"]
            if (o["pin"] or "").startswith(forgotten)} == \
        {(h, True, True) for h in ("connect4", "connect6", "getpeername4", "getpeername6")}
    ok(stage.exec([stage.program("kubelb-load"), "--pin", forgotten, "--detach"]))
    assert balanced_all(status(stage, cgroup=group)[1])


def test_detach_says_what_still_runs(stage, group, forgotten):
    ok(stage.load(cgroup=group))
    said = ok(stage.detach()).stdout
    [line] = [x for x in said.splitlines() if forgotten in x]
    assert line.startswith(f"still attached to cgroup {group}: klb_connect4 (id ")
    assert line.count("(id ") == 5
    assert f"kubelb-load --detach --pin {forgotten}" in line
    done = ok(stage.exec([stage.program("kubelb-load"), "--pin", forgotten, "--detach"]))
    assert stage.pin not in done.stdout.replace(forgotten, ""), "nothing else of this world runs"


HOLD = """
import ctypes, os, struct, sys
path = ctypes.create_string_buffer(sys.argv[1].encode())
attr = ctypes.create_string_buffer(struct.pack("QII", ctypes.addressof(path), 0, 0), 16)
fd = ctypes.CDLL(None, use_errno=True).syscall({syscall}, 7, attr, 16)
print(fd, flush=True)
sys.stdin.read()
"""


def test_detach_names_a_process_that_holds_a_link(stage, group):
    """Its pin is removed by hand: the program runs as long as the process."""
    ok(stage.load(cgroup=group))
    holder = stage.spawn(["/usr/bin/python3", "-c",
                          HOLD.format(syscall={"x86_64": 321}.get(os.uname().machine, 280)),
                          f"{stage.pin}/links/connect4"])
    assert int(holder.stdout.readline()) >= 0
    os.unlink(f"{stage.pin}/links/connect4")
    said = ok(stage.detach()).stdout
    assert [x for x in said.splitlines() if group in x and f"({holder.pid})" in x
            and "held by the process" in x]


def test_pins_hidden_under_a_mount(stage, group):
    """A second bpffs over the first one: what runs is named, and what hides it."""
    ok(stage.load(cgroup=group))
    script = (f"mount --make-rprivate / && mount -t bpf bpf {BPFFS} && "
              f"{stage.program('kubelbctl')} --pin {stage.pin} status; echo $?; "
              f"{stage.program('kubelb-load')} --pin {stage.pin} --detach")
    done = stage.exec(["unshare", "-m", "sh", "-c", script])
    assert len(done.stderr.splitlines()) == 1
    for word in ("nothing is attached; run kubelb-load", "klb_", "mounted over", "unmount"):
        assert word in done.stderr, done.stderr
    assert done.stdout.startswith("1\n")
    assert [x for x in done.stdout.splitlines() if f"still attached to cgroup {group}" in x]


# --- the agent ---------------------------------------------------------------


def frontends_balanced(stage):
    return {labels["frontend"]: value
            for labels, value in metrics(stage).get("kubelb_frontend_balanced", [])}


def readiness(stage):
    code, _headers, body = http_call(stage, "GET", "/readyz")
    return code, body


def test_agent_says_who_decides(stage, foreign, group, inner):
    """In metrics and readiness; in the log once when it changes, and once when it is over."""
    ok(stage.load(cgroup=group))
    agent = stage.agent(cgroup=inner)
    both = {f"{V4}:{PORT}": 1, f"[{V6}]:{PORT}": 1}
    wait_until(lambda: serves(stage) and frontends_balanced(stage) == both, agent.log)
    assert readiness(stage)[0] == 200
    program = foreign.attach(inner, to=(stage.cp(1).v4, 7))
    wait_until(lambda: frontends_balanced(stage) == {**both, f"{V4}:{PORT}": 0}, agent.log, 20)
    code, why = readiness(stage)
    assert code == 503 and "connects do not end where KubeLB sends them" in why
    foreign.detach()
    wait_until(lambda: frontends_balanced(stage) == both, agent.log, 20)
    assert readiness(stage)[0] == 200
    log = agent.log()
    assert program and log.count("connects to a frontend do not end where KubeLB sends them") == 1
    assert f"is sent to {stage.cp(1).v4}:7 by another program" in log
    assert log.count("connects to the frontend end at a backend again") == 1


def test_agent_names_other_programs(stage, foreign, group):
    """It has no right to read names: the hook and the program's id."""
    program = foreign.attach(group, hook="getpeername4")
    ok(stage.load(cgroup=group))
    agent = stage.agent(cgroup=group)
    wait_until(lambda: serves(stage) and "kubelb_other_programs" in metrics(stage), agent.log)
    counts = {labels["hook"]: n for labels, n in metrics(stage)["kubelb_other_programs"]}
    assert set(counts) == {"connect4", "connect6", "getpeername4", "getpeername6"}
    assert counts["getpeername4"] == counts["getpeername6"] + 1, "one, beside other worlds' own"
    agent.wait_log(f"program_id={program['id']}")
    nbconnect(stage, "-n", 5, V4, cgroup=group)
    assert metrics(stage)["kubelb_connects_diverted_total"] == [({}, 0)]


def serves(stage):
    with contextlib.suppress(OSError):
        return http_call(stage, "GET", "/healthz")[0] == 200
    return False
