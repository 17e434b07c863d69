/* SPDX-License-Identifier: BSD-2-Clause */
#include "status.h"

#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "endpoint.h"
#include "verdict.h"

#define NS_PER_S 1000000000.0

/* --- text -------------------------------------------------------------------------- */

/* "12s", "3m", "5h", "2d"; "-" for never. */
static const char *age(__u64 then_ns, __u64 now_ns, char *buf, size_t size)
{
	static const struct {
		__u64 seconds;
		char unit;
	} units[] = { { 86400, 'd' }, { 3600, 'h' }, { 60, 'm' }, { 1, 's' } };
	__u64 seconds = now_ns > then_ns ? (now_ns - then_ns) / 1000000000ULL : 0;

	if (!then_ns) {
		snprintf(buf, size, "-");
		return buf;
	}
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (seconds >= 2 * units[i].seconds || units[i].seconds == 1) {
			snprintf(buf, size, "%llu%c", seconds / units[i].seconds, units[i].unit);
			break;
		}
	}
	return buf;
}

/* "0.42ms"; "-" for not measured. */
static const char *milliseconds(__u32 us, char *buf, size_t size)
{
	if (us)
		snprintf(buf, size, "%.*fms", us < 10000 ? 2 : 0, us / 1000.0);
	else
		snprintf(buf, size, "-");
	return buf;
}

static int count_effective(const struct datapath_link *links, int n_links)
{
	int n = 0;

	for (int i = 0; i < n_links; i++)
		n += links[i].effective;
	return n;
}

static void print_head(const struct datapath_state *s, const struct datapath_link *links,
		       int n_links, __u64 now_ns)
{
	int effective = count_effective(links, n_links);
	char text[32];

	printf("programs  %d attached, %s\n", n_links,
	       effective == n_links && n_links ? "all effective"
					       : "NOT ALL EFFECTIVE: run kubelb-load again");
	if (verdict_agent_alive(&s->control, now_ns))
		printf("agent     alive, last sign of life %s ago\n",
		       age(s->control.heartbeat_ns, now_ns, text, sizeof(text)));
	else if (s->control.heartbeat_ns)
		printf("agent     SILENT for %s: its verdicts do not count any more\n",
		       age(s->control.heartbeat_ns, now_ns, text, sizeof(text)));
	else
		printf("agent     none: every backend counts as ready\n");
	if (s->counters.skipped_loopback_source)
		printf("note      connects left alone, bound to a loopback source: %llu\n",
		       s->counters.skipped_loopback_source);
	if (s->counters.skipped_no_backend)
		printf("note      connects left alone, no backend that the socket can reach: "
		       "%llu\n",
		       s->counters.skipped_no_backend);
}

static void print_frontends(const struct plan *p)
{
	char text[ENDPOINT_TEXT_MAX];

	printf("\n%-26s %-11s %-6s %s\n", "FRONTEND", "POLICY", "SCOPE", "BACKENDS");
	for (unsigned int i = 0; i < p->n_frontends; i++)
		printf("%-26s %-11s %-6s %u\n", endpoint_format(&p->frontends[i].endpoint, text),
		       plan_policy_name(p->frontends[i].policy),
		       plan_scope_name(p->frontends[i].scope), p->frontends[i].n_backends);
}

static void print_backend(const struct datapath_state *s, const struct plan_backend *b,
			  __u64 now_ns)
{
	const struct klb_stats *stats = &s->stats[b->id];
	char text[ENDPOINT_TEXT_MAX], weight[16], since[16], probe[16], rtt[16];
	struct verdict v;

	verdict_of(s, b, now_ns, &v);
	snprintf(weight, sizeof(weight), "%u%s", v.weight,
		 verdict_wish(s, b)->weight_set ? "*" : "");
	printf("%-22s %-9s%6s%7llu%9llu%7llu%8s%6s%7s %s\n",
	       endpoint_format(&b->value.endpoint, text), v.state, weight, stats->active,
	       stats->opened, verdict_failed(stats), milliseconds(stats->srtt_us, rtt, sizeof(rtt)),
	       age(b->value.since_ns, now_ns, since, sizeof(since)),
	       age(b->value.last_probe_ns, now_ns, probe, sizeof(probe)), v.why);
}

void status_print_text(const struct datapath_state *s, const struct datapath_link *links,
		       int n_links, __u64 now_ns)
{
	bool overridden = false;

	print_head(s, links, n_links, now_ns);
	print_frontends(&s->applied);
	printf("\n%-22s %-9s%6s%7s%9s%7s%8s%6s%7s %s\n", "BACKEND", "STATE", "WEIGHT", "ACTIVE",
	       "OPENED", "FAILED", "RTT", "SINCE", "PROBED", "WHY");
	for (unsigned int i = 0; i < s->applied.n_backends; i++) {
		print_backend(s, &s->applied.backends[i], now_ns);
		overridden |= verdict_wish(s, &s->applied.backends[i])->weight_set;
	}
	if (overridden)
		printf("\n* set by the operator; `kubelbctl weight BACKEND auto` takes it back\n");
}

/* --- JSON --------------------------------------------------------------------------- */

/* Seconds since then, or null for never. */
static json_t *seconds_since(__u64 then_ns, __u64 now_ns)
{
	if (!then_ns)
		return json_null();
	return json_real(now_ns > then_ns ? (double)(now_ns - then_ns) / NS_PER_S : 0);
}

static json_t *json_failures(const struct klb_stats *stats)
{
	json_t *by_reason = json_object();

	for (int i = 0; i < KLB_FAILURES; i++)
		json_object_set_new(by_reason, verdict_failure_key((enum klb_failure)i),
				    json_integer((json_int_t)stats->failed[i]));
	return by_reason;
}

static json_t *json_backend(const struct datapath_state *s, const struct plan_backend *b,
			    __u64 now_ns)
{
	const struct klb_stats *stats = &s->stats[b->id];
	const struct klb_admin *wish = verdict_wish(s, b);
	char text[ENDPOINT_TEXT_MAX];
	struct verdict v;

	verdict_of(s, b, now_ns, &v);
	return json_pack(
		"{s:i, s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:o, s:b, s:b, s:I, s:I, s:I, s:o, "
		"s:I, s:I, s:o, s:o, s:o, s:o}",
		"id", (int)b->id, "address", endpoint_format(&b->value.endpoint, text), "state",
		v.state, "why", v.why, "reason", health_reason_name(b->value.reason), "httpStatus",
		(int)b->value.http_status, "weight", (int)v.weight, "configuredWeight",
		(int)b->value.weight, "weightOverride",
		wish->weight_set ? json_integer(wish->weight) : json_null(), "drained",
		(int)wish->drained, "ejected", stats->ejected_until_ns > now_ns, "active",
		(json_int_t)stats->active, "opened", (json_int_t)stats->opened, "connecting",
		(json_int_t)stats->connecting, "failed", json_failures(stats), "lost",
		(json_int_t)stats->lost, "ejections", (json_int_t)stats->ejections, "rttSeconds",
		stats->srtt_us ? json_real(stats->srtt_us / 1e6) : json_null(), "sinceSeconds",
		seconds_since(b->value.since_ns, now_ns), "lastProbeSecondsAgo",
		seconds_since(b->value.last_probe_ns, now_ns), "lastSuccessSecondsAgo",
		seconds_since(stats->last_success_ns, now_ns));
}

static json_t *json_backends(const struct datapath_state *s, __u64 now_ns)
{
	json_t *list = json_array();

	for (unsigned int i = 0; i < s->applied.n_backends; i++)
		json_array_append_new(list, json_backend(s, &s->applied.backends[i], now_ns));
	return list;
}

static json_t *json_frontends(const struct plan *p)
{
	json_t *list = json_array();
	char text[ENDPOINT_TEXT_MAX];

	for (unsigned int i = 0; i < p->n_frontends; i++) {
		const struct plan_frontend *f = &p->frontends[i];
		json_t *backends = json_array();

		for (unsigned int j = 0; j < f->n_backends; j++) {
			const struct plan_backend *b = plan_find_id(p, f->ids[j]);

			if (b)
				json_array_append_new(backends, json_string(endpoint_format(
									&b->value.endpoint, text)));
		}
		json_array_append_new(list,
				      json_pack("{s:s, s:s, s:s, s:o}", "address",
						endpoint_format(&f->endpoint, text), "policy",
						plan_policy_name(f->policy), "scope",
						plan_scope_name(f->scope), "backends", backends));
	}
	return list;
}

static json_t *json_programs(const struct datapath_link *links, int n_links)
{
	json_t *list = json_array();

	for (int i = 0; i < n_links; i++)
		json_array_append_new(list, json_pack("{s:s, s:i, s:b}", "name", links[i].name,
						      "programId", (int)links[i].prog_id,
						      "effective", links[i].effective));
	return list;
}

void status_print_json(const struct datapath_state *s, const struct datapath_link *links,
		       int n_links, const char *pin_dir, __u64 now_ns, bool compact)
{
	bool effective = n_links > 0 && count_effective(links, n_links) == n_links;
	json_t *root = json_pack(
		"{s:b, s:b, s:s, s:i, s:I, s:{s:b, s:o}, s:{s:I, s:I, s:I}, s:o, s:o, s:o}",
		"attached", n_links > 0, "effective", effective, "pin", pin_dir, "abiVersion",
		(int)s->control.abi_version, "configSerial", (json_int_t)s->control.config_serial,
		"agent", "alive", verdict_agent_alive(&s->control, now_ns), "heartbeatSecondsAgo",
		seconds_since(s->control.heartbeat_ns, now_ns), "skipped", "loopbackSource",
		(json_int_t)s->counters.skipped_loopback_source, "noBackend",
		(json_int_t)s->counters.skipped_no_backend, "otherNetns",
		(json_int_t)s->counters.skipped_other_netns, "programs",
		json_programs(links, n_links), "frontends", json_frontends(&s->applied), "backends",
		json_backends(s, now_ns));

	json_dumpf(root, stdout, compact ? JSON_COMPACT : JSON_INDENT(2));
	putchar('\n');
	json_decref(root);
}
