/* SPDX-License-Identifier: BSD-2-Clause */
/* Prints what is attached and the state of the backends, as tables and as JSON. */
#include "ctl/status.h"

#include <stdio.h>
#include <string.h>

#include "balance/names.h"
#include "ctl/json.h"
#include "base/array.h"
#include "base/clock.h"
#include "net/endpoint.h"
#include "base/table.h"
#include "base/format.h"
#include "balance/backend_status.h"

/* --- text -------------------------------------------------------------------------- */

enum effect { EFFECT_NONE, EFFECT_ALL, EFFECT_HIDDEN, EFFECT_OVERRULED, EFFECT_UNTRIED };

static enum effect effect_of(const struct datapath_link *links, int n_links)
{
	int effective = 0, hidden = 0;

	for (int i = 0; i < n_links; i++) {
		effective += links[i].effective;
		hidden += links[i].hidden;
	}
	if (n_links && effective == n_links)
		return EFFECT_ALL;
	return effective + hidden < n_links || !n_links ? EFFECT_NONE : EFFECT_HIDDEN;
}

/* Of all links, with what test connects have shown: a program that runs may still not decide. */
static enum effect effect_of_all(const struct status *st)
{
	enum effect effect = effect_of(st->links, st->n_links);
	enum decides_result result = decides_result(st->decides);

	if (effect != EFFECT_NONE && result == DECIDES_ANOTHER)
		return EFFECT_OVERRULED;
	return effect == EFFECT_ALL && result == DECIDES_UNKNOWN ? EFFECT_UNTRIED : effect;
}

static const char *effect_text(enum effect effect)
{
	switch (effect) {
	case EFFECT_ALL:
		return "all effective";
	case EFFECT_HIDDEN:
		return "whether they are effective takes CAP_SYS_ADMIN and CAP_DAC_READ_SEARCH to "
		       "see";
	case EFFECT_OVERRULED:
		return "NOT ALL EFFECTIVE: other programs decide where connects end";
	case EFFECT_UNTRIED:
		return "all run; where connects end is not checked";
	default:
		return "NOT ALL EFFECTIVE: run kubelb-load again";
	}
}

static json_t *effect_json(enum effect effect)
{
	if (effect == EFFECT_HIDDEN || effect == EFFECT_UNTRIED)
		return json_null();
	return json_boolean(effect == EFFECT_ALL);
}

/* The counters that belong to no backend, if they are not 0. */
static void print_notes(const struct klb_counters *c)
{
	const struct {
		__u64 n;
		const char *what;
	} notes[] = {
		{ c->skipped_loopback_source, "connects left alone, bound to a loopback source" },
		{ c->skipped_no_backend,
		  "connects left alone, no backend that the socket can reach" },
		{ c->skipped_other_netns,
		  "connects left alone, from another network namespace (scope: host)" },
		{ c->skipped_own_listener,
		  "connects left alone, of this node's own apiserver to itself" },
		{ c->repaired, "corrections to the counts of connections" },
	};
	char text[ENDPOINT_TEXT_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(notes); i++)
		if (notes[i].n)
			printf("note      %s: %llu\n", notes[i].what, notes[i].n);
	if (c->diverted)
		printf("note      connects that another program sent elsewhere, after KubeLB had "
		       "chosen: %llu, the last one to %s\n",
		       c->diverted, endpoint_format(&c->diverted_to, text));
}

/* What does not work on this kernel. */
static void print_losses(const struct status *st)
{
	for (unsigned int i = 0; i < st->n_features; i++) {
		const struct datapath_feature *f = &st->features[i];

		if (!f->present && !f->quiet)
			printf("OFF       %s (%s): %s\n", f->name, f->detail, f->loss);
	}
}

static void print_netns(const struct klb_control *c)
{
	char text[128];

	if (datapath_is_host_netns(c))
		return;
	datapath_describe_netns(c, text, sizeof(text));
	printf("netns     ANOTHER ONE than this command's: %s\n", text);
}

/* What this node's own backends are to it, and which they are. */
static void print_local(const struct plan *p)
{
	char text[ENDPOINT_TEXT_MAX];
	unsigned int n = 0;

	if (!p->local)
		return;
	printf("local     %s", config_local_name(p->local));
	for (unsigned int i = 0; i < p->n_backends; i++)
		if (p->backends[i].preferred)
			printf("%s %s", n++ ? "," : ":",
			       endpoint_format(&p->backends[i].value.endpoint, text));
	if (!n && p->local != KLB_LOCAL_IGNORE)
		printf(": no backend is this node's, so all are used");
	putchar('\n');
}

static void print_head(const struct status *st)
{
	const struct datapath_state *s = st->state;
	__u64 now_ns = st->now_ns;
	char text[FORMAT_TIME_MAX];

	printf("programs  %d attached, %s\n", st->n_links, effect_text(effect_of_all(st)));
	print_netns(&s->control);
	decides_print(st->decides);
	print_losses(st);
	if (backend_status_agent_alive(&s->control, now_ns))
		printf("agent     alive, last sign of life %s ago\n",
		       format_age(s->control.heartbeat_ns, now_ns, text));
	else if (s->control.heartbeat_ns)
		printf("agent     SILENT for %s: its verdicts do not count any more\n",
		       format_age(s->control.heartbeat_ns, now_ns, text));
	else
		printf("agent     none: every backend counts as ready\n");
	if (s->control.discovery)
		printf("discovery %s (heard %s%s)\n", names_discovery(s->control.discovery),
		       format_age(s->control.discovery_heard_ns, now_ns, text),
		       s->control.discovery_heard_ns ? " ago" : "");
	print_local(&s->applied);
	print_notes(&s->counters);
}

static const struct table_column frontend_columns[] = {
	{ .title = "FRONTEND" },
	{ .title = "POLICY" },
	{ .title = "SCOPE" },
	{ "BACKENDS", .right = true },
};

static int print_frontends(const struct plan *p)
{
	struct table t = { .columns = frontend_columns, .n_columns = 4 };
	char text[ENDPOINT_TEXT_MAX];
	int r;

	for (unsigned int i = 0; i < p->n_frontends; i++) {
		const struct plan_frontend *f = &p->frontends[i];

		table_cell(&t, "%s", endpoint_format(&f->endpoint, text));
		table_cell(&t, "%s", config_policy_name(f->policy));
		table_cell(&t, "%s", config_scope_name(f->scope));
		table_cell(&t, "%u", f->n_backends);
	}
	putchar('\n');
	r = table_print(&t, stdout);
	table_free(&t);
	return r;
}

static const struct table_column backend_columns[] = {
	{ .title = "BACKEND" },
	{ .title = "STATE" },
	{ "WEIGHT", .right = true },
	{ "ACTIVE", .right = true },
	{ "CONNECTING", .right = true, .optional = true },
	{ "OPENED", .right = true },
	{ "FAILED", .right = true },
	{ "RTT", .right = true },
	{ "SINCE", .right = true },
	{ "PROBED", .right = true, .optional = true },
	{ .title = "WHY" },
};

#define N_BACKEND_COLUMNS (ARRAY_SIZE(backend_columns))

static void add_backend(struct table *t, const struct datapath_state *s,
			const struct plan_backend *b, __u64 now_ns)
{
	const struct klb_stats *stats = &s->stats[b->id];
	char text[ENDPOINT_TEXT_MAX], time[FORMAT_TIME_MAX];
	struct backend_status status;

	backend_status_of(s, b, now_ns, &status);
	table_cell(t, "%s", endpoint_format(&b->value.endpoint, text));
	table_cell(t, "%s", backend_status_name(status.state));
	table_cell(t, "%u%s", status.weight, backend_status_admin(s, b)->weight_set ? "*" : "");
	table_cell(t, "%llu", stats->active);
	table_cell(t, "%llu", stats->connecting);
	table_cell(t, "%llu", stats->opened);
	table_cell(t, "%llu", backend_status_failures(stats));
	table_cell(t, "%s", stats->srtt_us ? format_duration(stats->srtt_us * 1000ULL, time) : "-");
	table_cell(t, "%s", format_age(b->value.since_ns, now_ns, time));
	table_cell(t, "%s", format_age(b->value.last_probe_ns, now_ns, time));
	table_cell(t, "%s", status.why);
}

int status_print_text(const struct status *st)
{
	const struct datapath_state *s = st->state;
	struct table t = { .columns = backend_columns, .n_columns = N_BACKEND_COLUMNS };
	bool overridden = false;
	int r;

	print_head(st);
	r = print_frontends(&s->applied);
	for (unsigned int i = 0; i < s->applied.n_backends; i++) {
		if (!backend_status_is_shown(s, &s->applied.backends[i]))
			continue;
		add_backend(&t, s, &s->applied.backends[i], st->now_ns);
		overridden |= backend_status_admin(s, &s->applied.backends[i])->weight_set;
	}
	putchar('\n');
	if (!r)
		r = table_print(&t, stdout);
	table_free(&t);
	if (overridden)
		printf("\n* set by the operator; `kubelbctl weight BACKEND auto` takes it back\n");
	return r;
}

/* --- JSON --------------------------------------------------------------------------- */

/* Seconds since then_ns; null for never. */
static json_t *seconds_since(__u64 then_ns, __u64 now_ns)
{
	if (!then_ns)
		return json_null();
	return json_real(clock_seconds(then_ns, now_ns));
}

static json_t *json_failures(const struct klb_stats *stats)
{
	json_t *by_reason = json_object();

	for (int i = 0; i < KLB_FAILURES; i++)
		json_object_set_new(by_reason, names_failure_key((enum klb_failure)i),
				    json_integer((json_int_t)stats->failed[i]));
	return by_reason;
}

static json_t *json_backend(const struct datapath_state *s, const struct plan_backend *b,
			    __u64 now_ns)
{
	const struct klb_stats *stats = &s->stats[b->id];
	const struct klb_admin *admin = backend_status_admin(s, b);
	char text[ENDPOINT_TEXT_MAX];
	struct backend_status status;

	backend_status_of(s, b, now_ns, &status);
	/* configuredWeight is the planned one: the maps hold no other. */
	return json_pack(
		"{s:i, s:i, s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:o, s:b, s:b, s:o, s:I, s:I, s:I, "
		"s:o, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:b}",
		"id", (int)b->id, "generation", (int)b->value.generation, "address",
		endpoint_format(&b->value.endpoint, text), "state",
		backend_status_name(status.state), "why", status.why, "reason",
		names_reason(b->value.reason), "httpStatus", (int)b->value.http_status, "weight",
		(int)status.weight, "configuredWeight", (int)b->value.weight, "weightOverride",
		admin->weight_set ? json_integer(admin->weight) : json_null(), "drained",
		(int)admin->drained, "ejected", stats->ejected_until_ns > now_ns,
		"ejectedForSeconds",
		stats->ejected_until_ns > now_ns ? seconds_since(now_ns, stats->ejected_until_ns)
						 : json_null(),
		"active", (json_int_t)stats->active, "opened", (json_int_t)stats->opened,
		"connecting", (json_int_t)stats->connecting, "failed", json_failures(stats), "lost",
		(json_int_t)stats->lost, "ejections", (json_int_t)stats->ejections, "suspected",
		(json_int_t)stats->suspected, "rttSeconds",
		stats->srtt_us ? json_real(stats->srtt_us / 1e6) : json_null(), "connectSeconds",
		stats->opened
			? json_real((double)stats->connect_ns / NS_PER_S / (double)stats->opened)
			: json_null(),
		"sinceSeconds", seconds_since(b->value.since_ns, now_ns), "lastProbeSecondsAgo",
		seconds_since(b->value.last_probe_ns, now_ns), "lastSuccessSecondsAgo",
		seconds_since(stats->last_success_ns, now_ns), "lastFailureSecondsAgo",
		seconds_since(stats->last_failure_ns, now_ns), "leftSecondsAgo",
		seconds_since(b->value.left_ns, now_ns), "preferred", (int)b->preferred);
}

static json_t *json_backends(const struct datapath_state *s, __u64 now_ns)
{
	json_t *list = json_array();

	for (unsigned int i = 0; i < s->applied.n_backends; i++)
		if (backend_status_is_shown(s, &s->applied.backends[i]))
			json_array_append_new(list,
					      json_backend(s, &s->applied.backends[i], now_ns));
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
						config_policy_name(f->policy), "scope",
						config_scope_name(f->scope), "backends", backends));
	}
	return list;
}

static json_t *json_programs(const struct datapath_link *links, int n_links)
{
	json_t *list = json_array();

	for (int i = 0; i < n_links; i++)
		json_array_append_new(list,
				      json_pack("{s:s, s:i, s:o}", "name", links[i].name,
						"programId", (int)links[i].prog_id, "effective",
						effect_json(effect_of(&links[i], 1))));
	return list;
}

static json_t *json_features(const struct status *st)
{
	json_t *list = json_array();

	for (unsigned int i = 0; i < st->n_features; i++) {
		const struct datapath_feature *f = &st->features[i];

		json_array_append_new(list,
				      json_pack("{s:s, s:b, s:s, s:s?}", "name", f->name, "present",
						f->present, "detail", f->detail, "loss", f->loss));
	}
	return list;
}

static json_t *json_diverted(const struct klb_counters *c)
{
	char text[ENDPOINT_TEXT_MAX];

	return json_pack("{s:I, s:s?}", "count", (json_int_t)c->diverted, "lastTo",
			 c->diverted ? endpoint_format(&c->diverted_to, text) : NULL);
}

int status_print_json(const struct status *st, bool compact)
{
	const struct datapath_state *s = st->state;
	__u64 now_ns = st->now_ns;
	json_t *root = json_pack(
		"{s:b, s:o, s:s, s:i, s:I, s:I, s:I, s:b, s:{s:b, s:o}, s:{s:s, s:o}, s:{s:I, s:I, "
		"s:I, "
		"s:I}, "
		"s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
		"attached", st->n_links > 0, "effective", effect_json(effect_of_all(st)), "pin",
		st->pin_dir, "abiVersion", (int)s->control.abi_version, "configSerial",
		(json_int_t)s->control.config_serial, "hostNetnsCookie",
		(json_int_t)s->control.host_netns_cookie, "hostNetns",
		(json_int_t)s->control.host_netns, "inHostNetns",
		datapath_is_host_netns(&s->control), "agent", "alive",
		backend_status_agent_alive(&s->control, now_ns), "heartbeatSecondsAgo",
		seconds_since(s->control.heartbeat_ns, now_ns), "discovery", "state",
		names_discovery_key(s->control.discovery), "heardSecondsAgo",
		seconds_since(s->control.discovery_heard_ns, now_ns), "skipped", "loopbackSource",
		(json_int_t)s->counters.skipped_loopback_source, "noBackend",
		(json_int_t)s->counters.skipped_no_backend, "otherNetns",
		(json_int_t)s->counters.skipped_other_netns, "ownListener",
		(json_int_t)s->counters.skipped_own_listener, "repaired",
		(json_int_t)s->counters.repaired, "events", (json_int_t)s->counters.events,
		"programs", json_programs(st->links, st->n_links), "features", json_features(st),
		"frontends", json_frontends(&s->applied), "backends", json_backends(s, now_ns),
		"connects", decides_json_trials(st->decides), "otherPrograms",
		decides_json_others(st->decides), "diverted", json_diverted(&s->counters), "local",
		s->applied.local ? json_string(config_local_name(s->applied.local)) : json_null());

	return ctl_print_json(root, compact ? JSON_COMPACT : JSON_INDENT(2), stdout);
}
