# SPDX-License-Identifier: BSD-2-Clause
"""kubelbctl top, on a terminal and for a file."""

import os
import re
import signal
import subprocess
import termios

import pytest

from helpers import Held, backend_status, fails, nbconnect, ok, wait_states
from system import wait_until
from test_relay_mode import Relayed
from vt import Terminal

ROW = re.compile(r"(?P<address>\S+:6443) +(?P<state>[a-z]+) +(?P<weight>\d+\*?) +(?P<active>\d+) +"
                 r"(?P<rate>[\d.]+|-) +(?P<failed>[\d.]+|-) +(?P<rtt>\S+) (?P<why>.*)")
KEYS = "q quit"


def argv(stage, *args):
    return stage.argv([stage.program("kubelbctl"), "--pin", stage.pin, "-c", stage.config, "top",
                       *args])


def rows(text):
    return {m["address"]: m for m in map(ROW.fullmatch, text) if m}


def order(text):
    return list(rows(text))


@pytest.fixture(name="top")
def top_fixture(balanced):
    """On a terminal of 80 by 24, once it shows something."""
    with Terminal(argv(balanced)) as terminal:
        terminal.shows(KEYS)
        yield terminal


def is_restored(terminal):
    """The terminal is as it was before: its settings, the screen, the cursor and the wrapping."""
    return (terminal.settings() == terminal.before
            and terminal.screen.modes == {25: True, 7: True, 1049: False})


# --- what is shown -----------------------------------------------------------------


def test_a_screen(balanced, top):
    """Each backend with state and rates, and the process that has connections, on 80 by 24."""
    text = top.until(lambda t: all(r["rate"] == "0.0" for r in rows(t).values()) and rows(t),
                     "rates")
    assert text[0].startswith("kubelbctl top - ")
    assert text[1] == "KUBELB OK: 3 of 3 backends ready"
    assert set(rows(text)) == {b.endpoint for b in balanced.backends}
    assert {r["state"] for r in rows(text).values()} == {"ready"}
    assert text[-1].startswith(KEYS) and text[-1].endswith("h help")
    assert top.screen.modes == {25: False, 7: False, 1049: True}
    with Held(balanced, 30):
        text = top.until(lambda t: any(re.match(r"\S+\[\d+\] +30 +", line) for line in t),
                         "the process with its 30 connections")
        assert {r["active"] for r in rows(text).values()} == {"10"}
        line = next(line for line in text if re.match(r"\S+\[\d+\] +30 +", line))
        assert line.split()[3] == "3" and line.split()[4].endswith("ms")
        assert any("Connections: 30 active" in line for line in text)
    top.shows("Connections: 0 active")


def test_rates(balanced, top):
    """Connects a second, by the difference of two samples and not since the beginning."""
    nbconnect(balanced, "-n", 300, "127.0.0.1", 6443)
    text = top.until(lambda t: sum(float(r["rate"].replace("-", "0")) for r in rows(t).values()) > 50,
                     "rates")
    total = re.search(r"Connects: ([\d.]+)/s", text[2])
    assert float(total[1]) == pytest.approx(sum(float(r["rate"]) for r in rows(text).values()),
                                            abs=0.5)
    top.until(lambda t: {r["rate"] for r in rows(t).values()} == {"0.0"}, "the end of the rates")


def test_a_dead_backend(balanced, top):
    cp = balanced.cp(2)
    cp.kill()
    text = top.until(lambda t: rows(t)[cp.endpoint]["state"] == "dead", "the dead one", 20)
    assert rows(text)[cp.endpoint]["why"] == "refused"
    assert text[1].startswith(f"KUBELB WARNING: 2 of 3 backends ready; {cp.endpoint} dead (refused)")
    assert {31, 32, 33} <= top.screen.colors


# --- keys ---------------------------------------------------------------------------


def test_drain_and_undrain(balanced, top):
    """By the same code as the commands, on the selected backend."""
    cp = balanced.cp(2)
    assert [order([line])[0] for line in top.screen.reversed()] == [balanced.cp(1).endpoint]
    top.press("j")
    top.until(lambda _t: cp.endpoint in "".join(top.screen.reversed()), "the selection")
    top.press("d")
    text = top.shows(f"{cp.endpoint}: draining; 0 connections to it stay until they close")
    text = top.until(lambda t: rows(t)[cp.endpoint]["state"] == "draining", "the drain")
    assert backend_status(balanced)[cp.endpoint]["drained"] is True
    assert [b["drained"] for b in backend_status(balanced).values()].count(True) == 1
    top.press("u")
    top.shows(f"{cp.endpoint}: takes new connections again")
    text = top.until(lambda t: rows(t)[cp.endpoint]["state"] == "ready", "the end of the drain")
    assert text[1] == "KUBELB OK: 3 of 3 backends ready"
    assert not any(b["drained"] for b in backend_status(balanced).values())
    top.press("\x1b[B\x1b[A\x1b[B")
    top.until(lambda _t: balanced.cp(3).endpoint in "".join(top.screen.reversed()), "the arrows")


def test_sort(balanced, top):
    """s goes through the columns, r turns the order round, and the selection stays."""
    ok(balanced.ctl("drain", balanced.cp(1).endpoint))
    by_address = [b.endpoint for b in balanced.backends]
    top.until(lambda t: rows(t)[by_address[0]]["state"] == "draining", "the drain")
    assert order(top.screen.text()) == by_address
    top.press("r")
    top.until(lambda t: order(t) == by_address[::-1], "the other way round")
    top.press("rs")
    text = top.shows("sort: state")
    assert order(text) == [*by_address[1:], by_address[0]]
    assert by_address[0] in "".join(top.screen.reversed())
    top.press("S")
    top.shows("sort: backend")
    top.press("S")
    top.shows("sort: rtt")


def test_help_and_pause(top):
    top.press("h")
    text = top.shows("Any key goes back.")
    assert not rows(text)
    top.press("q")
    text = top.until(rows, "the way back")
    top.press("p")
    clock = top.shows("PAUSED")[0].split()[3]
    # What is tested is that nothing happens: two frames' time.
    with pytest.raises(Exception, match="waited in vain"):
        top.until(lambda t: t[0].split()[3] != clock, "a frame", timeout=2.5)
    top.press("p")
    top.until(lambda t: "PAUSED" not in t[0] and t[0].split()[3] != clock, "the next frame")


@pytest.mark.parametrize("size", [(120, 40), (40, 12), (20, 5), (1, 1)], ids=str)
def test_resize(top, size):
    """No line is longer than the screen, and it does not scroll (vt.py fails otherwise)."""
    top.resize(*size)
    text = top.until(lambda t: t[0].startswith("kubelbctl top"[:size[0]]), "the frame")
    if size[1] > 10:
        text = top.until(lambda t: KEYS in t[-1], "the keys in the last row")
        assert any(line.startswith("BACKEND") for line in text)
    top.press("h")
    top.press("h")
    top.resize(80, 24)
    top.until(lambda t: KEYS in t[-1] and len(rows(t)) == 3, "the frame of before")


# --- the end -------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["q", "\x03", signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT,
                                 signal.SIGSEGV, signal.SIGABRT], ids=repr)
def test_the_terminal_is_restored(top, how):
    assert not is_restored(top)
    if isinstance(how, str):
        top.press(how)
    else:
        os.kill(top.pid, how)
    status = top.end()
    assert status == (-how if how in (signal.SIGSEGV, signal.SIGABRT) else 0)
    assert is_restored(top)


def test_stop_and_go_on(balanced):
    """^Z in a shell: the shell gets the terminal as it was, and fg brings the screen back."""
    with Terminal(["bash", "--norc", "--noprofile", "-i"], PS1="READY> ") as terminal:
        terminal.screen.modes[2004] = False
        terminal.shows("READY>")
        terminal.press(" ".join(argv(balanced)) + "\n")
        terminal.shows(KEYS)
        assert terminal.screen.modes[1049]
        terminal.press("\x1a")
        terminal.until(lambda _t: not terminal.screen.modes[1049], "the stop")
        terminal.shows("READY>")
        assert terminal.screen.modes[25] and terminal.screen.modes[7]
        terminal.press("stty -a | grep -c ' icanon.*' ; fg\n")
        terminal.until(lambda _t: terminal.screen.modes[1049], "fg")
        terminal.shows(KEYS)
        assert not terminal.settings()[3] & termios.ICANON
        terminal.press("q")
        terminal.until(lambda _t: not terminal.screen.modes[1049], "the end")
        terminal.press("exit\n")
        terminal.end()


def test_detached_and_attached_again(balanced, top):
    """Nothing is attached any more: it says so, goes on, and shows what comes."""
    balanced.running.kill9()
    ok(balanced.detach())
    text = top.shows("nothing is attached; run kubelb-load")
    assert not rows(text)
    top.press("d")
    top.shows("no backend is selected")
    ok(balanced.load())
    text = top.until(lambda t: len(rows(t)) == 3, "the backends")
    assert text[1].startswith("KUBELB WARNING: 3 of 3 backends ready; no agent")


def test_nothing_attached(stage):
    """As every other command: one line, 1, and the terminal is not touched."""
    fails(stage.ctl("top", "-n", 1), 1, "nothing is attached; run kubelb-load")
    with Terminal(argv(stage)) as terminal:
        assert terminal.end() == 1
        assert "nothing is attached; run kubelb-load" in terminal.raw
        assert "\x1b" not in terminal.raw


# --- frames ---------------------------------------------------------------------------


def frames(text):
    return [f.splitlines() for f in re.split(r"(?m)^(?=kubelbctl top - )", text) if f]


def test_frames(balanced):
    """-n: as many, plain, and with rates in the first one already."""
    done = ok(balanced.exec(argv(balanced, "-n", 2)))
    assert done.stderr == "" and "\x1b" not in done.stdout
    shown = frames(done.stdout)
    assert len(shown) == 2
    for frame in shown:
        assert {r["rate"] for r in rows(frame).values()} == {"0.0"} and len(rows(frame)) == 3
        assert not any(KEYS in line for line in frame)
    done = ok(balanced.exec(argv(balanced, "-n", 1, "--color", "always", "--sort", "state")))
    assert "\x1b[32mready" in done.stdout and "\x1b[?" not in done.stdout


@pytest.mark.parametrize("env, args", [({"TERM": "dumb"}, ()), ({"TERM": None}, ()),
                                       ({}, ("-b",)), ({}, ("-n", "3"))], ids=str)
def test_frames_on_a_terminal(balanced, env, args):
    """Nothing but text where the terminal can no more, or where frames are asked for."""
    with Terminal(argv(balanced, *args), columns=200, rows=60, **env) as terminal:
        terminal.until(lambda _t: terminal.raw.count("kubelbctl top - ") == 2, "two frames")
        assert "\x1b[?" not in terminal.raw and "\x1b[H" not in terminal.raw
        assert ("\x1b" in terminal.raw) == (not env)


def test_frames_to_a_pipe_end_with_it(balanced):
    process = balanced.spawn(argv(balanced)[2:], stderr=subprocess.PIPE)
    assert process.stdout.readline().startswith("kubelbctl top - ")
    process.stdout.close()
    assert process.wait(timeout=5) == 0
    assert process.stderr.read() == ""


def test_no_color(balanced):
    """Not a colour with NO_COLOR, nor with --color never; the selection is in reverse video."""
    for env, args in (({"NO_COLOR": "1"}, ()), ({}, ("--color", "never"))):
        with Terminal(argv(balanced, *args), **env) as terminal:
            terminal.shows(KEYS)
            terminal.until(lambda _t, t=terminal: t.screen.reversed(), "the selection")
            assert not terminal.screen.colors


@pytest.mark.parametrize("args, word", [
    (("-n", 0), "-n 0: want a number of frames"), (("-d", "x"), "-d x: want 1 to 3600 seconds"),
    (("--sort", "size"), "--sort size: want backend, state, active, rate, failed or rtt"),
    (("--color", "red"), "--color red: want auto, always or never"), (("-w",), "does not take -w"),
    (("cp1",), "top takes no argument")], ids=str)
def test_wrong_options(attached, args, word):
    fails(attached.exec(argv(attached, *args)), 2, word)


# --- where the agent relays -------------------------------------------------------------


def test_relayed(stage):
    """The same from the agent: rates, connections, drain; that it relays, and what it cannot know."""
    Relayed(stage).ready()
    with Held(stage, 6), Terminal(argv(stage)) as terminal:
        text = terminal.until(lambda t: any(re.match(r"- +6 +", line) for line in t),
                              "the connections")
        assert any("the relay does not know whose they are" in line for line in text), "\n".join(text)
        assert "the agent relays every connect" in text[0]
        assert text[1] == "KUBELB OK: 3 of 3 backends ready, relayed by the agent"
        terminal.press("d")
        terminal.until(lambda t: rows(t)[stage.cp(1).endpoint]["state"] == "draining", "the drain")
        terminal.press("u")
        terminal.until(lambda t: rows(t)[stage.cp(1).endpoint]["state"] == "ready", "its end")
        terminal.press("q")
        assert terminal.end() == 0
    wait_states(stage, "ready", stage.backends)
    wait_until(lambda: not any(b["active"] for b in backend_status(stage).values()), "no client")
