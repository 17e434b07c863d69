# SPDX-License-Identifier: BSD-2-Clause
"""What the checks of an apiserver's health cost it, while clients have traffic: counted for five
minutes, or one with --quick, and never scaled. nginx's stream proxy and the DNAT check nothing."""

from agentbench import count_probes


def measure_checks(effort, figures):
    seconds = effort["check_seconds"]
    before, after, _skipped = count_probes(seconds)
    for i, name in enumerate(("kubelb", "haproxy")):
        for kind, what in enumerate(("handshakes", "requests")):
            figures.add(f"checks: {what}", name, "",
                        [a[kind] - b[kind] for a, b in zip(after[i], before[i])], seconds=seconds)
    for name in ("nginx", "nft"):
        for what in ("handshakes", "requests"):
            figures.note(f"checks: {what}", name, "none: it has no active check")
    figures.say(f"checks are counted, {seconds} s")
