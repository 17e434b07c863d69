# SPDX-License-Identifier: BSD-2-Clause
"""Chromium without a window, in a world's network namespace, driven over the DevTools protocol.

The protocol comes over two pipes (--remote-debugging-pipe), so that no port is open and no library
is needed: each message is JSON with a NUL behind it.
"""

import base64
import contextlib
import json
import os
import select
import shutil
import time

from system import end_group, wait_until

SWITCHES = ["--headless=new", "--no-sandbox", "--no-first-run", "--disable-gpu",
            "--disable-breakpad", "--disable-crash-reporter", "--disable-extensions",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-dev-shm-usage", "--hide-scrollbars", "--no-proxy-server",
            "--force-color-profile=srgb", "--remote-debugging-pipe"]
ANSWER_S = 30


def find_chromium():
    return shutil.which("chromium")


class Browser:
    """The process, and one page in it. folder: for its profile."""

    def __init__(self, world, folder):
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        self.read_fd, self.write_fd = ours_in, ours_out
        self.log = open(os.path.join(folder, "chromium.log"), "wb")
        argv = ["bash", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}', "bash", find_chromium(),
                *SWITCHES, f"--user-data-dir={folder}/profile", "about:blank"]
        self.process = world.spawn(argv, stderr=self.log, stdout=self.log,
                                   pass_fds=(theirs_in, theirs_out),
                                   env={**os.environ, "HOME": str(folder)})
        os.close(theirs_in)
        os.close(theirs_out)
        self.rest, self.last, self.events = b"", 0, []
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target,
                                 flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        end_group(self.process.pid)
        self.process.wait()
        for fd in (self.read_fd, self.write_fd):
            os.close(fd)
        self.log.close()

    # --- the protocol ---

    def receive(self, deadline):
        while b"\0" not in self.rest:
            if not select.select([self.read_fd], [], [], max(0, deadline - time.monotonic()))[0]:
                raise TimeoutError("chromium does not answer")
            more = os.read(self.read_fd, 1 << 20)
            if not more:
                raise EOFError("chromium has ended; see its log")
            self.rest += more
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, **params):
        """Does it, and keeps the events that come meanwhile."""
        self.last += 1
        message = {"id": self.last, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write_fd, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + ANSWER_S
        while True:
            got = self.receive(deadline)
            if got.get("id") == self.last:
                assert "error" not in got, f"{method}: {got['error']}"
                return got["result"]
            if "method" in got:
                self.events.append((got["method"], got["params"]))

    def seen(self, method):
        """The events of that name so far."""
        self.call("Runtime.evaluate", expression="0")
        return [params for name, params in self.events if name == method]

    # --- the page ---

    def evaluate(self, expression):
        """The value of JavaScript; a promise's when it is there."""
        got = self.call("Runtime.evaluate", expression=expression, returnByValue=True,
                        awaitPromise=True)
        assert "exceptionDetails" not in got, got["exceptionDetails"]
        return got["result"].get("value")

    def look(self, width=1280, height=900, dark=False):
        """How wide the window is, and which colours its user likes."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=width < 600)
        self.call("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def open(self, url):
        self.events.clear()
        self.call("Page.navigate", url=url)

    def text(self, selector="body"):
        """What a reader sees there."""
        return self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText")

    def wait_text(self, words, selector="body", timeout=10):
        """Until they are there. Another document may come in between."""
        seen = []

        def there():
            with contextlib.suppress(AssertionError):
                seen[:] = [self.text(selector)]
            return seen and words in seen[0]

        wait_until(there, lambda: f"{words!r} in {selector}, has {seen}", timeout)
        return seen[0]

    def picture(self, path=None):
        """A PNG of the whole page."""
        data = base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True,
                                          optimizeForSpeed=False)["data"])
        if path:
            with open(path, "wb") as f:
                f.write(data)
        return data
