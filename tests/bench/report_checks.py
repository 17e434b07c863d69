# SPDX-License-Identifier: BSD-2-Clause
"""What the checks of an apiserver's health cost it, while clients have traffic: counted for five
minutes, or one with --quick, and never scaled. nginx's stream proxy and the DNAT check nothing."""

from agentbench import count_probes, steady_load
from system import WorldError

KINDS = ("handshakes", "PINGs", "requests")  # as steady_load has them


def measure_checks(effort, figures):
    """As kube-apiserver is: HTTP/2, and a connection without a stream is closed after 90 s."""
    seconds = effort["check_seconds"]
    before, after, _skipped = count_probes(seconds, steady_load, alpn=["h2", "http/1.1"],
                                           idle_timeout=90)
    for i, name in enumerate(("kubelb", "haproxy")):
        seen = {kind: [a[k] - b[k] for a, b in zip(after[i], before[i])]
                for k, kind in enumerate(KINDS)}
        if not all(map(any, zip(seen["PINGs"], seen["requests"]))):
            raise WorldError(f"{name} does not look at each apiserver in {seconds} s: {seen}")
        for kind, counts in seen.items():
            figures.add(f"checks: {kind}", name, "", counts, seconds=seconds)
    for name in ("nginx", "nft"):
        for kind in KINDS:
            figures.note(f"checks: {kind}", name, "none: it has no active check")
    figures.say(f"checks are counted, {seconds} s")
