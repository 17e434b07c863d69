# SPDX-License-Identifier: BSD-2-Clause
"""A control plane with the test apiserver in it; its use is told in apiserver.py."""

import contextlib
import http.client
import json
import os
import signal
import sys

from backend import Backend, UnixHTTP
from etcd import locked
from system import WorldError, end_group, group_members, in_cgroup, wait_until

PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "apiserver.py")


class Apiserver(Backend):
    """See the top of apiserver.py. Takes over the directory of a Backend, with
    its certificates; what the process knows is asked over its control socket."""

    program = "apiserver"

    def __init__(self, world_dir, prefix, index, settings, cgroup=None):
        super().__init__(world_dir, prefix, index)
        self.cgroup = cgroup
        self.etcd_path = os.path.join(world_dir, "etcd")
        self.nginx = None  # whose place it has taken
        self.sequence_at_start = None
        self.write_settings(settings)
        for name in ("access.log", "stderr.log"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path(name))

    def write_settings(self, settings):
        self.settings = settings
        with open(self.path("settings.json"), "w", encoding="utf-8") as f:
            json.dump(settings, f)

    def argv(self):
        # Without site-packages: it starts in half the time.
        argv = [sys.executable, "-S", PROGRAM, self.dir, "--name", self.name, "--etcd",
                self.etcd_path, "--advertise", self.v4, "--key",
                os.path.join(self.pki_dir, "server.key"), "--ca",
                os.path.join(self.pki_dir, "ca.crt")]
        if self.sequence_at_start:
            argv += ["--sequence", json.dumps(self.sequence_at_start)]
        return in_cgroup(self.cgroup, argv)

    # its life

    def start(self, sequence=None):
        if self.pgid() is not None and not group_members(self.pgid()):
            self.forget()  # ended by itself
        self.sequence_at_start = sequence
        super().start()

    def terminate(self):
        """SIGTERM: a graceful shutdown, by the settings shutdown_*."""
        os.killpg(self.pgid(), signal.SIGTERM)

    def stop(self):
        # Not in the middle of a write, which would keep all others from writing.
        with locked(self.etcd_path):
            super().stop()

    def wait_exit(self, timeout=10):
        """After terminate() or shutdown(), or by itself; its status (None: another's child)."""
        wait_until(lambda: not group_members(self.pgid()), f"the end of {self.name}'s apiserver",
                   timeout, interval=0.005)
        status = None
        with contextlib.suppress(ChildProcessError):
            status = os.waitid(os.P_PID, self.pgid(), os.WEXITED).si_status
        self.forget()
        return status

    def wait_ready(self, timeout=10):
        """Until its own client has done its work; why it has ended, should it."""
        def ready():
            if not group_members(self.pgid()):
                raise WorldError(f"{self.name} ended: {self.read('stderr.log')}")
            return self.counters()["ready"]

        wait_until(ready, lambda: f"{self.name} to be ready; counters: {self.counters()}", timeout,
                   interval=0.005)

    def forget(self):
        end_group(self.pgid())
        os.unlink(self.pgid_file)

    def restore(self, _pki):
        self.link(up=True)
        if self.stopped():
            self.cont()
        self.start()
        self.normal()

    # the control channel

    def ask(self, command, timeout=10.0, **args):
        """A command, or a question, to the process; its answer."""
        connection = UnixHTTP(self.path("control.sock"), timeout)
        try:
            connection.request("POST", f"/{command}", json.dumps(args))
            response = connection.getresponse()
            answer = json.loads(response.read())
        except http.client.HTTPException as e:
            raise ConnectionError(f"{self.name}: {command}: {e}") from e
        except TimeoutError as e:
            raise TimeoutError(f"{self.name}: {command}: no answer within {timeout:g} s; is the "
                               "process stopped?") from e
        finally:
            connection.close()
        if response.status != 200:
            raise WorldError(f"{self.name}: {command}: {answer['error']}")
        return answer

    def set(self, **settings):
        self.ask("set", **settings)
        self.write_settings({**self.settings, **settings})

    def answer(self, path, status=None, **rule):
        """Backend's readyz() and livez() come here with a name and a status."""
        if path in ("readyz", "livez"):
            path, status = f"/{path}", None if status == 200 else status
        self.ask("answer", where=path, status=status, **rule)

    def phase(self, name, **args):
        self.ask("phase", phase=name, **args)

    def sequence(self, steps):
        self.ask("sequence", steps=steps)

    def shutdown(self, delay=0.0, linger=0.0):
        self.ask("shutdown", delay=delay, linger=linger)

    def hang(self, how):
        self.ask("hang", how=how)

    def disconnect(self, how="fin", which="all"):
        return self.ask("disconnect", how=how, which=which)

    def freeze(self, which):
        return self.ask("freeze", which=which)

    def goaway(self, which="all", last=None, after=None):
        return self.ask("goaway", which=which, last=last, after=after)

    def watches(self, how):
        return self.ask("watches", how=how)

    def normal(self):
        self.ask("normal")

    # what it has seen

    def counters(self, timeout=10.0):
        return self.ask("counters", timeout)

    def clients(self, **fields):
        """Its connections with these fields."""
        return [c for c in self.ask("clients") if all(c[k] == v for k, v in fields.items())]

    def accepted_now(self, timeout=5.0):
        return self.counters(timeout)["accepted"]

    def wait_counters(self, condition, what, timeout=10.0):
        """Until condition(counters) is true; the counters."""
        seen = {}

        def right():
            seen.update(self.counters())
            return condition(seen)

        wait_until(right, lambda: f"{what} at {self.name}; counters: {seen}", timeout)
        return seen
