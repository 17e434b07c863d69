# SPDX-License-Identifier: BSD-2-Clause
"""KubeLB on a world's stage: a running agent, and configurations as text."""

import json
import re
import signal

from system import wait_until


class Agent:
    """A running kubelb-agent, its log in a file."""

    def __init__(self, process, log):
        self.process = process
        self.log_path = log

    @property
    def pid(self):
        return self.process.pid

    def alive(self):
        return self.process.poll() is None

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def wait_log(self, pattern, timeout=10.0, start=0):
        """Waits until the log, from offset start on, has a line that matches."""
        def found():
            return next((line for line in self.log()[start:].splitlines()
                         if re.search(pattern, line)), None)

        return wait_until(found, lambda: f"/{pattern}/ in the agent's log:\n{self.log()}", timeout)

    def signal(self, number):
        self.process.send_signal(number)

    def hup(self):
        self.signal(signal.SIGHUP)

    def kill9(self):
        self.signal(signal.SIGKILL)
        return self.process.wait(timeout=10)

    def stop(self, timeout=10):
        """SIGTERM; returns the exit status."""
        if self.alive():
            self.signal(signal.SIGTERM)
        return self.process.wait(timeout=timeout)


def yaml_text(value, indent=0):
    """Dictionaries, lists and scalars as block YAML: the configurations that
    people write, without a YAML library."""
    pad = "  " * indent
    if isinstance(value, dict):
        parts = []
        for key, item in value.items():
            nested = isinstance(item, (dict, list)) and item
            parts.append(f"{pad}{key}:" + (f"\n{yaml_text(item, indent + 1)}" if nested
                                           else f" {yaml_scalar(item)}\n"))
        return "".join(parts)
    parts = []
    for item in value:
        if isinstance(item, dict):
            body = yaml_text(item, indent + 1)
            parts.append(f"{pad}- {body.lstrip()}")
        else:
            parts.append(f"{pad}- {yaml_scalar(item)}\n")
    return "".join(parts)


def yaml_scalar(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[]"
    if isinstance(value, str) and (not value or value[0] in "[{&*!|>'\"%@`-#"):
        return json.dumps(value)
    return str(value)
