# SPDX-License-Identifier: BSD-2-Clause
"""The command lines: exit statuses and what is said where."""

import json
import os
import shutil

import pytest

from helpers import fails, ok, pins

PROGRAMS = ("kubelb-load", "kubelb-agent", "kubelbctl")


def run(stage, name, *args, **kwargs):
    return stage.exec([stage.program(name), *args], **kwargs)


@pytest.mark.parametrize("name", PROGRAMS)
def test_is_built(stage, name):
    assert os.access(stage.program(name), os.X_OK), f"{stage.program(name)}: run make first"


@pytest.mark.parametrize("option", ["--help", "--version"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_help_and_version(stage, name, option):
    done = ok(run(stage, name, option))
    assert done.stdout.strip()
    assert done.stderr == ""


@pytest.mark.parametrize("option", ["--help", "--version"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_full_stdout_is_a_failure(stage, name, option):
    with open("/dev/full", "w", encoding="ascii") as full:
        fails(run(stage, name, option, stdout=full), 1)


@pytest.mark.parametrize("name", PROGRAMS)
def test_unknown_option(stage, name):
    done = run(stage, name, "--no-such-option")
    assert done.returncode == 2, done.stderr
    assert "no-such-option" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("name", ["kubelb-load", "kubelb-agent"])
def test_missing_configuration_file(stage, name):
    missing = os.path.join(stage.dir, "no-such-file.yaml")
    fails(run(stage, name, "-c", missing, "--pin", stage.pin), 2, missing)
    assert not os.path.exists(stage.pin)


@pytest.mark.parametrize("name", PROGRAMS)
def test_superfluous_argument(stage, name):
    args = ["status"] if name == "kubelbctl" else ["-c", stage.config]
    done = run(stage, name, "--pin", stage.pin, *args, "superfluous")
    assert done.returncode == 2, done.stderr
    assert not os.path.exists(stage.pin)


@pytest.mark.parametrize("args", [
    ("-b", "192.168.77.11:99999"),
    ("-b", "not-an-address"),
    ("-b", "192.168.77.11,weight=1001"),
    ("-b", "192.168.77.11,wait=1"),
    ("-f", "127.0.0.1", "-b", "192.168.77.11"),
    ("-f", "127.0.0.1:0", "-b", "192.168.77.11"),
    ("-f", "127.0.0.1:6443"),
], ids=" ".join)
def test_bad_flags(stage, args):
    """Of these the last lacks a backend; -f needs a port."""
    fails(stage.load(*args, config=None), 2)
    assert not os.path.exists(stage.pin)


@pytest.mark.parametrize("name, args, words", [
    ("kubelb-load", "--detach --check", "do not go together"),
    ("kubelb-load", "--check --from-nginx FILE", "do not go together"),
    ("kubelb-load", "--from-nginx FILE --from-haproxy FILE", "more than one file"),
    ("kubelb-load", "--pin relative", "absolute paths"),
    ("kubelb-load", "--pin PIN --cgroup relative", "absolute paths"),
    ("kubelb-load", "-c FILE -b 192.168.77.11", "-c and -f/-b"),
    ("kubelb-load", "--detach -c FILE", "take no configuration"),
    ("kubelb-load", "--check -b 192.168.77.11", "take no configuration"),
    ("kubelb-load", "--detach -n", "--dry-run goes with attaching alone"),
    ("kubelb-load", "--print-config -n", "--dry-run goes with attaching alone"),
    ("kubelb-load", "--detach --this-netns", "--this-netns goes with attaching alone"),
    ("kubelb-load", "--check --boot", "--boot and --force"),
    ("kubelb-load", "--detach --force", "--boot and --force"),
    ("kubelb-load", "-c FILE -o json", "goes with --check"),
    ("kubelb-load", "--check -o yaml", "yaml"),
    ("kubelb-load", "-b 192.168.77.11 " * 257, "more than 256"),
    ("kubelb-agent", "--pin relative", "absolute path"),
    ("kubelbctl", "--pin relative status", "absolute path"),
    ("kubelbctl", "status -o xml", "want text, json, wide or yaml"),
    ("kubelbctl", "--color maybe status", "auto, always or never"),
    ("kubelbctl", "ping loudly", "ping takes no argument"),
    ("kubelbctl", "top -b -n 0", "number of frames"),
    ("kubelbctl", "top --sort colour", "want backend, state"),
    ("kubelbctl", "weight 192.168.77.11", "a BACKEND and a number"),
    ("kubelbctl", "weight 192.168.77.11 2000", "0 to 1000, or auto"),
    ("kubelbctl", "kill", "one BACKEND"),
    ("kubelbctl", "help status now", "one COMMAND"),
], ids=lambda text: text[:40])
def test_contradictory_command_line(attached, name, args, words):
    """Nothing is done by halves: what is attached stays as it is."""
    given = [{"FILE": attached.config, "PIN": attached.pin}.get(word, word) for word in args.split()]
    before = pins(attached)
    fails(run(attached, name, *given), 2, words)
    assert pins(attached) == before


def test_check(stage):
    done = ok(stage.load("--check", config=None))
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    assert len(lines) >= 12 and {verdict for verdict, _name, _rest in lines} == {"ok"}, done.stdout
    assert all(rest for _verdict, _name, rest in lines)
    shown = json.loads(ok(stage.load("--check", "-o", "json", config=None)).stdout)
    assert shown["usable"] is True
    assert [f["name"] for f in shown["features"]] == [name for _verdict, name, _rest in lines]
    for name in ("BTF", "cgroup2", "bpffs", "cgroup/connect4", "cgroup/connect6", "getpeername",
                 "sockops", "wakeup", "adjust", "casts", "connections", "destroy"):
        found, _status = feature(stage, name)
        assert found["present"] and found["purpose"], found
    assert not os.path.exists(stage.pin)


def feature(stage, name, **kwargs):
    """What --check says about one, and its exit status."""
    done = stage.load("--check", "-o", "json", config=None, **kwargs)
    found = {f["name"]: f for f in json.loads(done.stdout)["features"]}
    return found[name], done.returncode


def without_btf(argv):
    """Hides the kernel's type information, for that one command."""
    return ["unshare", "--mount", "sh", "-c",
            'mount -t tmpfs none /sys/kernel/btf && exec "$@"', "sh", *argv]


def without_bpf(argv):
    """Root, with no capability that the kernel would take a program from."""
    return ["setpriv", "--bounding-set=-all,+net_admin", "--inh-caps=-all", *argv]


def with_cgroup_of_another_kind(argv):
    return [*argv, "--cgroup", "/tmp"]


HOOKS = {"cgroup/connect4", "cgroup/connect6"}


@pytest.mark.parametrize("lack, missing, why", [
    (without_btf, HOOKS | {"BTF"}, "no /sys/kernel/btf/vmlinux"),
    (without_bpf, HOOKS, "CAP_SYS_ADMIN is missing"),
    (with_cgroup_of_another_kind, {"cgroup2"}, "/tmp: not on a cgroup2 file system"),
], ids=lambda value: getattr(value, "__name__", ""))
def test_check_of_what_will_not_do(stage, lack, missing, why):
    """What is missing is shown as that, with what it is for and why; the rest is listed all the
    same; exit 1 and how many. In JSON too."""
    argv = lack([stage.program("kubelb-load"), "--check"])
    done = stage.exec(argv)
    is_are = "is" if len(missing) == 1 else "are"
    fails(done, 1, f"{len(missing)} of the features", f" {is_are} missing")
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    assert {name for verdict, name, _rest in lines if verdict == "MISSING"} == missing
    assert all(why in rest for verdict, _name, rest in lines if verdict == "MISSING")
    assert ("ok" in {verdict for verdict, name, _rest in lines if name == "sockops"}) == \
        (lack is with_cgroup_of_another_kind)
    assert len([1 for verdict, _name, _rest in lines if verdict == "ok"]) >= 3
    done = stage.exec([*argv, "-o", "json"])
    fails(done, 1)
    shown = json.loads(done.stdout)
    assert shown["usable"] is False
    assert {f["name"] for f in shown["features"] if f["required"] and not f["present"]} == missing
    assert all(why in f["detail"] and f["purpose"] for f in shown["features"]
               if f["name"] in missing)
    assert not os.path.exists(stage.pin)


def test_load_where_something_is_missing(stage):
    """One line that names it and what to do; exit 1; nothing is left behind."""
    cases = [("mount -t tmpfs none /sys/kernel/btf", "BTF is missing", "CONFIG_DEBUG_INFO_BTF"),
             ("umount -l $(findmnt -nro TARGET -t cgroup2)", "no cgroup2", "mount -t cgroup2")]
    stage.configure(dataPath="kernel")
    for command, what, next_step in cases:
        done = stage.exec(["unshare", "--mount", "sh", "-c", f'{command} && exec "$@"', "sh",
                           stage.program("kubelb-load"), "--pin", stage.pin, "-c", stage.config])
        fails(done, 1, what, next_step)
        assert not os.path.exists(stage.pin) and not os.path.exists(stage.pin + "_new")


def test_check_without_what_can_be_made(stage):
    """bpffs: kubelb-load mounts it, so that it is absent is no reason against."""
    done = ok(stage.exec(["unshare", "--mount", "sh", "-c",
                          'mount -t tmpfs none /sys/fs/bpf && exec "$@"', "sh",
                          stage.program("kubelb-load"), "--check"]))
    line = next(line for line in done.stdout.splitlines() if line.split()[1] == "bpffs")
    assert line.startswith("absent ") and "kubelb-load mounts it" in line


def test_check_to_full_stdout(stage):
    with open("/dev/full", "w", encoding="ascii") as full:
        fails(stage.load("--check", config=None, stdout=full), 1)


def test_status_to_full_stdout(attached):
    for args in (("status",), ("status", "-o", "json")):
        with open("/dev/full", "w", encoding="ascii") as full:
            fails(attached.ctl(*args, stdout=full), 1)


def test_dry_run_to_full_stdout(attached):
    attached.configure(policy="random")
    with open("/dev/full", "w", encoding="ascii") as full:
        fails(attached.load("--dry-run", stdout=full), 1)


@pytest.mark.parametrize("name, args", [
    ("kubelb-load", ()),
    ("kubelb-load", ("--detach",)),
    ("kubelb-load", ("--check",)),
    ("kubelb-agent", ()),
    ("kubelbctl", ("status",)),
])
def test_not_root(attached, name, args):
    """As nobody, next to a data path that is attached: one line, no harm."""
    program = os.path.join(attached.dir, "bin", name)
    shutil.copyfile(attached.program(name), program)
    os.chmod(program, 0o755)
    config = [] if name == "kubelbctl" or args else ["-c", attached.config]
    done = attached.exec(["setpriv", "--reuid", "65534", "--clear-groups", program, *config,
                          "--pin", attached.pin, *args])
    fails(done, 1)
    ok(attached.ctl("status"))


def test_status_with_nothing_attached(stage):
    fails(stage.ctl("status"), 1, "kubelb-load")


def test_agent_on_a_bad_configuration(stage):
    stage.configure(policy="roulette")
    done = run(stage, "kubelb-agent", "-c", stage.config, "--pin", stage.pin)
    fails(done, 2, stage.config, "policy")
    assert not os.path.exists(stage.pin)
