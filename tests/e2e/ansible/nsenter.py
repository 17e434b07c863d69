# SPDX-License-Identifier: BSD-2-Clause
"""Ansible's way into a throw-away machine (tests/world/machine.py): ansible_host is the pid of its
init."""

import shutil
import subprocess

from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
    name: nsenter
    short_description: enter the namespaces of a process
    description: Commands and files of a machine that is made of namespaces.
    author: The KubeLB authors
    options: {}
"""
CLEAN = ["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
         "HOME=/root", "TMPDIR=/run/tmp", "LC_ALL=C.UTF-8"]  # /tmp is everybody's


class Connection(ConnectionBase):
    """See the top of this file."""

    transport = "nsenter"
    has_pipelining = True

    @property
    def pid(self):
        return self._play_context.remote_addr

    def _connect(self):
        self._connected = True
        return self

    def exec_command(self, cmd, in_data=None, sudoable=True):
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        done = subprocess.run(
            ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--net", *CLEAN, "sh", "-c",
             cmd],
            input=in_data or b"", capture_output=True, check=False)
        return done.returncode, done.stdout, done.stderr

    def put_file(self, in_path, out_path):
        super().put_file(in_path, out_path)
        shutil.copyfile(in_path, f"/proc/{self.pid}/root{out_path}")

    def fetch_file(self, in_path, out_path):
        super().fetch_file(in_path, out_path)
        shutil.copyfile(f"/proc/{self.pid}/root{in_path}", out_path)

    def close(self):
        self._connected = False
