# SPDX-License-Identifier: BSD-2-Clause
"""What Prometheus records of fleets of nodes: a healthy one, a degraded one, and one of 200 nodes.
As text for promtool. tests/e2e/test_fleet.py compares the names and labels with those of a real
agent's page."""

import itertools

JOB = "kube-system/kubelb"  # as the operator names a PodMonitor's
DAY = 86400
STATES = ("ready", "suspect", "draining", "ejected", "dead", "removed")
FAILURES = ("refused", "timed_out", "unreachable", "gave_up", "other")
CAUSES = ("loopback_source", "no_backend", "other_netns", "own_listener")
FEATURES = ("getpeername", "sockops", "wakeup", "adjust", "casts", "connections", "destroy",
            "reset")
DISCOVERY = ("off", "seeds", "cache", "current", "failing")
UPDATES = ("applied", "unchanged", "empty", "expired", "forbidden", "credentials", "error")
REFUSED = ("limit", "source", "network", "unknown")
RELAYED = ("retransmit", "unreachable", "frontend", "network")
HOOKS = ("connect4", "connect6", "getpeername4", "getpeername6")
# The bounds of user/agent/metrics.c.
BUCKETS = ("0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "1", "3", "+Inf")
BACKENDS = ("192.168.17.11:6443", "192.168.17.12:6443", "192.168.17.13:6443")


class Line:
    """A value that begins somewhere and grows by so much a minute; a fault may take over."""

    def __init__(self, start, step=0.0, until=None):
        self.start, self.step, self.until = start, step, until

    def at(self, minute):
        """None: there is no sample any more."""
        if self.until is not None and minute >= self.until:
            return None
        return self.start + self.step * minute

    def promtool(self, minutes, every):
        """As promtool writes it, with a sample in so many minutes."""
        count, step = minutes // every, self.step * every
        if self.until is None:
            return f"{self.start:.10g}+{step:.10g}x{count}"
        ends = self.until // every
        return f"{self.start:.10g}+{step:.10g}x{ends - 1} _x{count - ends}"


class Node:
    """One node's agent. begin: Unix time of its first sample."""

    def __init__(self, name, begin, quiet=False, backends=BACKENDS):
        self.name, self.begin, self.backends = name, begin, backends
        self.rate = 0 if quiet else 6  # connects a minute, to each backend
        self.lines = {}
        self.fill()

    def set(self, metric, start, step=0.0, **labels):
        self.lines[metric, tuple(sorted(labels.items()))] = Line(start, step)

    def one_of(self, metric, names, which, **labels):
        """1 for one of the label's values, 0 for the others."""
        for name in names:
            self.set(metric, float(name == which), state=name, **labels)

    def fill(self):
        self.set("up", 1)
        self.set("kubelb_build_info", 1, version="0.1.0")
        self.set("kubelb_programs_attached", 5)
        self.set("kubelb_programs_effective", 5)
        self.set("kubelb_frontend_balanced", 1, frontend="127.0.0.1:6443")
        self.set("kubelb_connects_diverted_total", 0)
        self.set("kubelb_connections_repaired_total", 0)
        self.set("kubelb_heartbeat_age_seconds", 0.4)
        self.set("kubelb_heartbeat_timestamp_seconds", self.begin - 0.4, 60)
        self.set("kubelb_discovery_heard_timestamp_seconds", self.begin - 20, 60)
        self.set("kubelb_config_last_reload_successful", 1)
        self.set("kubelb_config_last_reload_success_timestamp_seconds", self.begin - 3 * DAY)
        self.set("kubelb_client_certificate_expiry_timestamp_seconds", self.begin + 200 * DAY)
        self.set("kubelb_log_lines_dropped_total", 0)
        self.set("kubelb_relaying", 0)
        self.one_of("kubelb_discovery_state", DISCOVERY, "current")
        for metric, label, values in (("kubelb_connects_left_alone_total", "cause", CAUSES),
                                      ("kubelb_other_programs", "hook", HOOKS),
                                      ("kubelb_relay_refused_total", "reason", REFUSED),
                                      ("kubelb_relay_failed_total", "from", RELAYED),
                                      ("kubelb_config_reloads_total", "result", ("ok", "error"))):
            for value in values:
                self.set(metric, 0, **{label: value})
        for value in FEATURES:
            self.set("kubelb_feature", 1, name=value)
        for value in UPDATES:
            self.set("kubelb_discovery_updates_total", 0, 0.2 * (value == "unchanged"),
                     result=value)
        self.fill_process()
        for backend in self.backends:
            self.fill_backend(backend)

    def fill_process(self):
        self.set("process_cpu_seconds_total", 3, 0.06)
        self.set("process_resident_memory_bytes", 8 * 2**20)
        self.set("process_virtual_memory_bytes", 20 * 2**20)
        self.set("process_open_fds", 40)
        self.set("process_max_fds", 1024)
        self.set("process_start_time_seconds", self.begin - 3 * DAY)

    def fill_backend(self, backend):
        def put(metric, start, step=0.0, **labels):
            self.set(f"kubelb_{metric}", start, step, backend=backend, **labels)

        self.state(backend, "ready")
        put("backend_weight", 100)
        put("backend_preferred", 0)
        put("backend_rtt_seconds", 0.0004 if self.rate else 0)
        put("backend_certificate_expiry_timestamp_seconds", self.begin + 300 * DAY)
        put("connections_active", 2 * self.rate)
        put("connections_connecting", 0)
        put("connections_opened_total", 10 * self.rate, self.rate)
        for reason in FAILURES:
            put("connect_failures_total", 0, reason=reason)
        for counter in ("connections_lost", "ejections", "connections_destroyed",
                        "probe_pings_unanswered"):
            put(f"{counter}_total", 0)
        for reason in ("dead", "rebalance", "local"):
            put("connections_ended_total", 0, reason=reason)
        # Where clients have data all the time, no probe is due.
        probes, skipped = (0, 12) if self.rate else (12, 0)
        put("probes_skipped_total", 5, skipped)
        put("probe_pings_total", 60, 60)
        put("probe_handshakes_total", 1, 0.01)
        put("probes_total", 12, probes, result="ok")
        for bound in BUCKETS:
            reached = float(bound) > 0.002
            put("probe_duration_seconds_bucket", 12 * reached, probes * reached, le=bound)
        put("probe_duration_seconds_sum", 0.024, 0.002 * probes)
        put("probe_duration_seconds_count", 12, probes)

    # --- what can be wrong ---

    def state(self, backend, which):
        self.one_of("kubelb_backend_state", STATES, which, backend=backend)

    def dead(self, backend):
        """Refuses connects; the agent has ended its connections."""
        self.state(backend, "dead")
        self.set("kubelb_connections_active", 0, backend=backend)
        self.set("kubelb_connections_opened_total", 60, backend=backend)
        self.set("kubelb_connections_ended_total", 0, 1, backend=backend, reason="dead")
        self.set("kubelb_connections_lost_total", 0, 0.1, backend=backend)
        self.set("kubelb_probe_pings_unanswered_total", 0, 2, backend=backend)
        self.set("kubelb_probes_total", 0, 12, backend=backend, result="refused")

    def failing(self, backend):
        """Connects to it fail now and then."""
        self.set("kubelb_connect_failures_total", 0, 2, backend=backend, reason="timed_out")
        self.set("kubelb_ejections_total", 0, 1, backend=backend)
        self.set("kubelb_connections_connecting", 1, backend=backend)

    def relaying(self, backend, instead):
        """Every connect is relayed, by what the first of the two does not serve; too many come,
        and for some there is nobody."""
        self.set("kubelb_relaying", 1)
        for kind in RELAYED:
            self.set("kubelb_relay_connections_active", 3, backend=instead, **{"from": kind})
            self.set("kubelb_relay_connections_total", 30, 3, backend=instead, **{"from": kind})
        self.set("kubelb_connect_failovers_total", 0, 3, to=instead, **{"from": backend})
        self.set("kubelb_relay_refused_total", 0, 2, reason="limit")
        self.set("kubelb_relay_failed_total", 0, 1, **{"from": "frontend"})

    def gone(self, minute):
        """The agent answers no more from then on."""
        for (metric, _labels), line in self.lines.items():
            line.until = None if metric == "up" else minute
        self.lines["up", ()] = Line(0)

    def samples(self, cluster):
        for (metric, labels), line in self.lines.items():
            labels = {"job": JOB, "cluster": cluster, "instance": self.name, **dict(labels)}
            text = ",".join(f'{k}="{v}"' for k, v in sorted(labels.items()))
            yield f"{metric}{{{text}}}", line


def nodes(count, begin):
    """Every other one has no client that connects."""
    return [Node(f"node{i}", begin, quiet=i % 2 == 0) for i in range(1, count + 1)]


def healthy(begin):
    return nodes(4, begin)


def two_hundred(begin):
    return nodes(200, begin)


def degraded(begin):
    """One fault for each node; the first backend is dead for all of them."""
    fleet = nodes(10, begin)
    for node in fleet:
        node.dead(BACKENDS[0])
    fleet[0].set("kubelb_config_last_reload_successful", 0)
    fleet[0].set("kubelb_config_reloads_total", 1, 0.5, result="error")
    fleet[1].gone(5)
    fleet[2].failing(BACKENDS[1])
    for backend in BACKENDS[1:]:
        fleet[3].state(backend, "draining")
    fleet[4].set("kubelb_programs_effective", 3)
    fleet[4].set("kubelb_feature", 0, name="wakeup")
    fleet[4].set("kubelb_connects_diverted_total", 0, 1)
    fleet[5].one_of("kubelb_discovery_state", DISCOVERY, "failing")
    fleet[5].set("kubelb_discovery_updates_total", 0, 1, result="forbidden")
    # By its own clock: an hour behind.
    fleet[6].set("kubelb_heartbeat_timestamp_seconds", begin - 3600, 60)
    fleet[6].relaying(BACKENDS[0], BACKENDS[1])
    fleet[7].set("kubelb_connects_left_alone_total", 0, 2, cause="no_backend")
    fleet[8].set("kubelb_client_certificate_expiry_timestamp_seconds", begin + 3 * DAY)
    fleet[9].set("kubelb_connections_repaired_total", 0, 0.1)
    fleet[9].set("process_start_time_seconds", begin, 60)
    return fleet


FLEETS = {"healthy": healthy, "degraded": degraded, "two hundred": two_hundred}


def series(name, begin):
    """(series, line) of a fleet. Its cluster is called as the fleet is."""
    return itertools.chain(*(node.samples(name) for node in FLEETS[name](begin)))


def input_series(name, minutes, every, used):
    """For promtool test rules, whose clock begins at 0; those that used(metric) picks."""
    return [{"series": text, "values": line.promtool(minutes, every)}
            for text, line in series(name, 0) if used(text.partition("{")[0])]


def openmetrics(name, begin, minutes):
    """For promtool tsdb create-blocks-from openmetrics: lines, without the end."""
    for text, line in series(name, begin):
        for minute in range(minutes + 1):
            value = line.at(minute)
            if value is not None:
                yield f"{text} {value:.12g} {begin + 60 * minute}\n"
