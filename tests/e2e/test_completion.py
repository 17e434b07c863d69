# SPDX-License-Identifier: BSD-2-Clause
"""What TAB completes, in the shells that people use, each on a terminal of its own."""

import contextlib
import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import termios
import time

import pytest

from system import WorldError
from world import ROOT

COMPLETION = os.path.join(ROOT, "deploy/completion")
PROMPT = "READY> "
# Bound to a key that ends each try: writes the command line as it is then.
DUMP = b"\x18\x04"

STARTUP = {
    "bash": """
. /usr/share/bash-completion/bash_completion
. "$KUBELB_COMPLETION/kubelb.bash"
dump() { printf '%s\\n' "$READLINE_LINE" >"$KUBELB_OUT.new"; mv "$KUBELB_OUT.new" "$KUBELB_OUT"; }
bind -x '"\\C-x\\C-d": dump'
bind 'set bell-style none'
PS1='READY> '
""",
    "zsh": """
fpath=($KUBELB_COMPLETION $fpath)
autoload -Uz compinit; compinit -u -D
setopt no_beep
dump() { print -r -- "$BUFFER" >$KUBELB_OUT.new; mv $KUBELB_OUT.new $KUBELB_OUT }
zle -N dump; bindkey '^X^D' dump
PS1='READY> '
""",
    "fish": """
source $KUBELB_COMPLETION/kubelb.fish
set -g fish_greeting
set -g fish_autosuggestion_enabled 0
function fish_prompt; echo -n 'READY> '; end
function dump; commandline >$KUBELB_OUT.new; mv $KUBELB_OUT.new $KUBELB_OUT; end
bind \\cx\\cd dump
""",
}


def command(shell, directory):
    """The shell, interactive, with the start-up file of this test alone."""
    path = os.path.join(directory, ".zshrc" if shell == "zsh" else f"startup.{shell}")
    with open(path, "w", encoding="ascii") as f:
        f.write(STARTUP[shell])
    return {"bash": ["bash", "--noprofile", "--rcfile", path, "-i"],
            "zsh": ["zsh", "-d", "-i"],
            "fish": ["fish", "--no-config", "--interactive", "-C", f"source {path}"]}[shell]


class Terminal:
    """A shell on a pseudo-terminal. programs: the directory that goes first on its PATH."""

    def __init__(self, shell, directory, programs):
        self.out = os.path.join(directory, "line")
        argv = command(shell, directory)
        env = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "TERM": "xterm",
               "HOME": directory, "ZDOTDIR": directory, "KUBELB_COMPLETION": COMPLETION,
               "KUBELB_OUT": self.out, "XDG_CONFIG_HOME": directory, "XDG_DATA_HOME": directory}
        self.shown = b""
        self.pid, self.fd = pty.fork()
        if not self.pid:
            os.execvpe(argv[0], argv, env)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
        self.until(lambda: PROMPT.encode() in self.shown, "the prompt")

    def until(self, condition, what, timeout=20):
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                raise WorldError(f"waited in vain for {what}; shown: {self.shown.decode()!r}")
            if select.select([self.fd], [], [], 0.02)[0]:
                with contextlib.suppress(OSError):
                    self.shown += os.read(self.fd, 65536)

    def tab(self, line, times=1):
        """The command line after TAB was pressed so many times behind line; and what the
        terminal has shown."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.out)
        mark = len(self.shown)
        os.write(self.fd, line.encode() + times * b"\t" + DUMP)
        self.until(lambda: os.path.exists(self.out), f"the line after {line!r}")
        with open(self.out, encoding="utf-8") as f:
            became = f.read().rstrip("\n")
        os.write(self.fd, b"\x15")
        return became, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\r", "",
                              self.shown[mark:].decode(errors="replace"))

    def close(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.fixture(name="programs")
def programs_fixture(attached):
    """The programs in a directory of its own, with this world's pins."""
    directory = os.path.join(attached.dir, "completion")
    os.makedirs(directory, exist_ok=True)
    for name in ("kubelb-load", "kubelb-agent", "kubelbctl"):
        path = os.path.join(directory, name)
        with open(path, "w", encoding="utf-8") as f:
            f.write(f'#!/bin/sh\nexec {attached.program(name)} --pin {attached.pin} "$@"\n')
        os.chmod(path, 0o755)
    return directory


@pytest.fixture(name="terminal", params=["bash", "zsh", "fish"])
def terminal_fixture(request, attached, programs):
    if not shutil.which(request.param):
        pytest.skip(f"{request.param} is not installed (scripts/deps.sh)")
    directory = os.path.join(attached.dir, "shell")
    os.makedirs(directory)
    terminal = Terminal(request.param, directory, programs)
    yield terminal
    terminal.close()
    shutil.rmtree(directory)


def test_tab(terminal, attached):
    """Options, commands, files, formats, and the backends that there are."""
    whole = {"kubelb-load --detac": "kubelb-load --detach",
             "kubelb-load -c /etc/debian_versi": "kubelb-load -c /etc/debian_version",
             "kubelb-load --from-nginx /etc/debian_versi":
                 "kubelb-load --from-nginx /etc/debian_version",
             "kubelb-agent --config /etc/debian_versi": "kubelb-agent --config /etc/debian_version",
             "kubelbctl -o js": "kubelbctl -o json",
             "kubelbctl status -o ya": "kubelbctl status -o yaml",
             "kubelbctl status --output wi": "kubelbctl status --output wide",
             "kubelbctl status --color ne": "kubelbctl status --color never",
             "kubelbctl top --sort fa": "kubelbctl top --sort failed",
             "kubelbctl -d 5 to": "kubelbctl -d 5 top",
             "kubelbctl status --bri": "kubelbctl status --brief",
             "kubelbctl help undr": "kubelbctl help undrain",
             "kubelbctl ping re": "kubelbctl ping ready",
             "kubelb-load --check -o js": "kubelb-load --check -o json",
             "kubelbctl -o json sta": "kubelbctl -o json status"}
    for line, want in whole.items():
        assert terminal.tab(line)[0].rstrip() == want
    address = attached.cp(2).v4
    for command_ in ("drain", "undrain", "kill", "weight"):
        assert terminal.tab(f"kubelbctl {command_} {address}:6")[0].rstrip() \
            == f"kubelbctl {command_} {attached.cp(2).endpoint}"
    for backend in attached.backends:
        assert terminal.tab(f"kubelbctl drain {backend.v4}")[0].rstrip() \
            == f"kubelbctl drain {backend.endpoint}"
    shared = os.path.commonprefix([b.endpoint for b in attached.backends])
    assert shared and terminal.tab("kubelbctl kill ")[0].startswith(f"kubelbctl kill {shared}")
    for word in ("status", "drain", "weight", "events", "ping", "connections", "help"):
        assert terminal.tab(f"kubelbctl {word[:-2]}")[0].rstrip() == f"kubelbctl {word}"
    shown = terminal.tab("kubelbctl ", 3)[1]
    assert all(word in shown for word in ("status", "drain", "weight", "events", "ping")), shown
    assert terminal.tab("kubelb-load --pin /sys/kern")[0].rstrip() == "kubelb-load --pin /sys/kernel/"
