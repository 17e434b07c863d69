# SPDX-License-Identifier: BSD-2-Clause
"""A terminal for programs that draw: a pseudo-terminal, and what stands on its screen. It knows the
sequences that kubelbctl uses, and fails on any other, and when a screen scrolls."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time

from system import WorldError

SEQUENCE = re.compile(r"\x1b\[(\??)([0-9;]*)([A-Za-z])")

SETTLES_S = 2  # after a change of size


class Screen:
    """What the other side of the terminal sees."""

    def __init__(self, columns=80, rows=24):
        self.settled_at = 0
        self.columns, self.rows = columns, rows
        self.modes = {25: True, 7: True, 1049: False}  # cursor, wrapping, other screen
        self.colors = set()  # those that were ever used
        self.style = ""
        self.clear()

    def clear(self):
        self.lines = [[(" ", "")] * self.columns for _ in range(self.rows)]
        self.x = self.y = 0

    def control(self, private, numbers, letter):
        values = [int(n) for n in numbers.split(";") if n]
        if private:
            assert letter in "hl" and values[0] in self.modes, (numbers, letter)
            self.modes[values[0]] = letter == "h"
            if values[0] == 1049:
                self.clear()
        elif letter == "m":
            self.style = "" if values in ([], [0]) else f"{self.style};{numbers}".strip(";")
            self.colors.update(v for v in values if 30 <= v < 50 or v == 2)
        elif letter == "H":
            assert not values
            self.x = self.y = 0
        elif letter == "K":
            self.lines[self.y][self.x:] = [(" ", "")] * (self.columns - self.x)
        elif letter == "J":
            self.lines[self.y][self.x:] = [(" ", "")] * (self.columns - self.x)
            for y in range(self.y + 1 if values != [2] else 0, self.rows):
                self.lines[y] = [(" ", "")] * self.columns
        else:
            raise WorldError(f"unknown sequence {numbers}{letter}")

    def put(self, character):
        assert self.fits(self.x < self.columns), f"too long: {self.text()[self.y]}"
        if self.x < self.columns:
            self.lines[self.y][self.x] = (character, self.style)
        self.x += 1

    def fits(self, where):
        """A frame may have been on its way when the size changed: as on any terminal, what does
        not fit any more is not to be seen."""
        return not self.modes[1049] or where or time.monotonic() < self.settled_at

    def feed(self, text):
        """Returns what is left: the beginning of a sequence."""
        i = 0
        while i < len(text):
            match = SEQUENCE.match(text, i)
            if match:
                self.control(*match.groups())
                i = match.end()
                continue
            if text[i] == "\x1b":
                if len(text) - i < 12:
                    return text[i:]
                raise WorldError(f"unknown sequence {text[i:i + 12]!r}")
            if text[i] == "\n":
                assert self.fits(self.y < self.rows - 1), "the screen scrolls"
                self.y = min(self.y + 1, self.rows - 1)
            elif text[i] == "\r":
                self.x = 0
            elif text[i] >= " ":
                self.put(text[i])
            i += 1
        return ""

    def text(self):
        return ["".join(c for c, _style in line).rstrip() for line in self.lines]

    def reversed(self):
        """The lines in reverse video."""
        return [t for t, line in zip(self.text(), self.lines) if "7" in line[0][1].split(";")]


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, argv, columns=80, rows=24, **env):
        self.screen, self.raw, self.left = Screen(columns, rows), "", ""
        self.master, slave = pty.openpty()
        self.resize(columns, rows, tell=False)
        self.before = termios.tcgetattr(slave)
        environment = {**os.environ, "TERM": "xterm-256color", **env}
        environment.pop("NO_COLOR", None) if "NO_COLOR" not in env else None
        self.pid = os.fork()
        if not self.pid:
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
            for fd in (0, 1, 2):
                os.dup2(slave, fd)
            os.closerange(3, 64)
            os.execvpe(argv[0], argv, {k: v for k, v in environment.items() if v is not None})
        self.slave, self.status = slave, None

    def resize(self, columns, rows, tell=True):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if tell:
            self.screen.columns, self.screen.rows = columns, rows
            self.screen.settled_at = time.monotonic() + SETTLES_S
            self.screen.clear()

    def read(self, timeout=0.02):
        if not select.select([self.master], [], [], timeout)[0]:
            return False
        try:
            data = os.read(self.master, 65536).decode(errors="replace")
        except OSError:
            return False
        self.raw += data
        self.left = self.screen.feed(self.left + data)
        return True

    def until(self, condition, what, timeout=10):
        end = time.monotonic() + timeout
        while not condition(self.screen.text()):
            if time.monotonic() > end:
                shown = "\n".join(self.screen.text())
                raise WorldError(f"waited in vain for {what}; shown:\n{shown}")
            self.read()
        return self.screen.text()

    def shows(self, words, timeout=10):
        return self.until(lambda text: any(words in line for line in text), repr(words), timeout)

    def press(self, keys):
        os.write(self.master, keys.encode())

    def settings(self):
        return termios.tcgetattr(self.slave)

    def end(self, timeout=10):
        """The exit status of the program, or less than 0: the signal that ended it."""
        end = time.monotonic() + timeout
        while self.status is None:
            self.read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > end:
                raise WorldError(f"the program goes on; shown:\n{self.screen.text()}")
        while self.read():
            pass
        return self.status

    def close(self):
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.master)
        os.close(self.slave)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
