# SPDX-License-Identifier: BSD-2-Clause
"""A cluster of test apiservers that an agent with discovery finds its backends in."""

import json
import os
import shutil

from helpers import ok, wait_states
from observe import kubeconfig, metric, wait_known
from system import wait_until

TOKEN = "secret-t1"
USER = "system:node:worker"


def watches_at(api):
    return api.counters()["watches"] if api.pgid() is not None else 0


class Cluster:
    """Three test apiservers, a kubeconfig, and what discovery is told."""

    def __init__(self, stage):
        self.stage = stage
        self.apis = [stage.apiserver(i, tokens={TOKEN: USER}) for i in (1, 2, 3)]
        self.etcd = stage.etcd
        self.cache = os.path.join(stage.dir, "cache", "backends.json")
        shutil.rmtree(os.path.dirname(self.cache), ignore_errors=True)
        self.kubeconfig = kubeconfig(stage, f"token: {TOKEN}")
        self.agent = None

    def configure(self, seeds=(1,), **changes):
        discovery = {"kubeconfig": self.kubeconfig, "cache": self.cache}
        return self.stage.configure(**{
            "backends": [self.apis[i - 1].endpoint for i in seeds], "slowStart": "0",
            # By least-conn the one with the watch would get none of a few connects.
            "policy": "random", "discovery": discovery, **changes})

    def start(self, **kwargs):
        self.configure(**kwargs)
        self.agent = self.stage.agent()
        return self.agent

    def say(self, *indexes):
        """What the cluster names as its apiservers from now on."""
        self.etcd.put("kubernetes", [self.apis[i - 1].v4 for i in indexes])

    def wait(self, *indexes, timeout=10):
        wait_known(self.stage, [self.apis[i - 1] for i in indexes], timeout)

    def results(self, result):
        return metric(self.stage, "kubelb_discovery_updates_total", result=result)

    def wait_result(self, result, more_than, timeout=10):
        wait_until(lambda: self.results(result) > more_than,
                   lambda: f"a result {result!r}; the log:\n{self.agent.log()}", timeout)

    def watched(self):
        """How many watches there are, at all apiservers together."""
        return sum(watches_at(api) for api in self.apis)

    def wait_watch(self, timeout=10):
        wait_until(lambda: self.watched() == 1, lambda: f"a watch, there are {self.watched()}",
                   timeout)

    def watching(self):
        """The apiserver that has the watch."""
        self.wait_watch()
        return next(api for api in self.apis if watches_at(api))

    def wait_cached(self, count):
        """The agent's maps have a list before its file has: the file is written aside."""
        def cached():
            try:
                with open(self.cache, encoding="utf-8") as f:
                    return len(json.load(f)["backends"]) == count
            except (FileNotFoundError, ValueError):  # none yet, or one that a test spoilt
                return False

        wait_until(cached, f"{count} backends in {self.cache}")

    def status(self):
        return json.loads(ok(self.stage.ctl("status", "-o", "json")).stdout)["discovery"]

    def find_all(self, **changes):
        """An agent that has found all three, has them in its cache, and watches."""
        self.start(**changes)
        self.wait(1, 2, 3)
        wait_states(self.stage, "ready", self.apis)
        self.wait_watch()
        self.wait_cached(3)
        return self
