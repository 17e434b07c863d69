/* SPDX-License-Identifier: BSD-2-Clause */
/* Prints what is attached and the state of the backends, as tables and as JSON. */
#include "ctl/status.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "balance/names.h"
#include "ctl/json.h"
#include "ctl/relay_status.h"
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

/* Whether the agent listens on every frontend. */
static enum effect effect_of_relay(const struct status_relay *r)
{
	for (unsigned int i = 0; i < r->n; i++)
		if (r->at[i].error[0])
			return EFFECT_NONE;
	return r->n ? EFFECT_ALL : EFFECT_NONE;
}

/* Of all links, with what test connects have shown: a program that runs may still not decide. */
static enum effect effect_of_all(const struct status *st)
{
	enum effect effect = effect_of(st->links, st->n_links);
	enum decides_result result = decides_result(st->decides);

	if (st->relay)
		return effect_of_relay(st->relay);
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
static void print_notes(const struct klb_counters *c, FILE *to)
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
			fprintf(to, "note      %s: %llu\n", notes[i].what, notes[i].n);
	if (c->diverted)
		fprintf(to,
			"note      connects that another program sent elsewhere, after KubeLB had "
			"chosen: %llu, the last one to %s\n",
			c->diverted, endpoint_format(&c->diverted_to, text));
}

/* What does not work on this kernel. */
static void print_losses(const struct status *st, FILE *to)
{
	for (unsigned int i = 0; i < st->n_features; i++) {
		const struct datapath_feature *f = &st->features[i];

		if (!f->present && !f->quiet)
			fprintf(to, "OFF       %s (%s): %s\n", f->name, f->detail, f->loss);
	}
}

static void print_netns(const struct klb_control *c, FILE *to)
{
	char text[128];

	if (datapath_is_host_netns(c))
		return;
	datapath_describe_netns(c, text, sizeof(text));
	fprintf(to, "netns     ANOTHER ONE than this command's: %s\n", text);
}

/* What this node's own backends are to it, and which they are. */
static void print_local(const struct plan *p, FILE *to)
{
	char text[ENDPOINT_TEXT_MAX];
	unsigned int n = 0;

	if (!p->local)
		return;
	fprintf(to, "local     %s", config_local_name(p->local));
	for (unsigned int i = 0; i < p->n_backends; i++)
		if (p->backends[i].preferred)
			fprintf(to, "%s %s", n++ ? "," : ":",
				endpoint_format(&p->backends[i].value.endpoint, text));
	if (!n && p->local != KLB_LOCAL_IGNORE)
		fprintf(to, ": no backend is this node's, so all are used");
	fputc('\n', to);
}

/* Who carries connects, where it is not the kernel. */
static void print_relay(const struct status_relay *r, FILE *to)
{
	char text[ENDPOINT_TEXT_MAX];

	fprintf(to, "data path RELAY: kubelb-agent relays every connect: %s\n", r->why);
	for (unsigned int i = 0; i < r->n; i++)
		if (r->at[i].error[0])
			fprintf(to, "frontend  %s is NOT SERVED: %s\n",
				endpoint_format(&r->at[i].frontend, text), r->at[i].error);
}

/* A kubelb-load that runs undisturbed has ended by then. */
#define LOCK_PATIENCE_NS (3 * NS_PER_S)

static void print_lock(const struct status *st, FILE *to)
{
	const struct datapath_lock_holder *l = &st->lock;
	char text[FORMAT_TIME_MAX];

	if (l->pid && l->age_ns > LOCK_PATIENCE_NS)
		fprintf(to,
			"lock      HELD by %s (PID %u), which runs for %s: changes of the "
			"configuration wait for it\n",
			l->name[0] ? l->name : "a process", l->pid,
			format_duration(l->age_ns, text));
}

static void print_head(const struct status *st, FILE *to)
{
	const struct datapath_state *s = st->state;
	__u64 now_ns = st->now_ns;
	char text[FORMAT_TIME_MAX];

	if (st->relay)
		print_relay(st->relay, to);
	else
		fprintf(to, "programs  %d attached, %s\n", st->n_links,
			effect_text(effect_of_all(st)));
	print_netns(&s->control, to);
	decides_print(st->decides, to);
	print_losses(st, to);
	if (backend_status_agent_alive(&s->control, now_ns))
		fprintf(to, "agent     alive, last sign of life %s ago\n",
			format_age(s->control.heartbeat_ns, now_ns, text));
	else if (backend_status_heartbeat_is_ahead(&s->control, now_ns))
		fprintf(to,
			"agent     CLOCK WRONG: its last sign of life is %s ahead of the kernel's "
			"clock: its verdicts do not count\n",
			format_age(now_ns, s->control.heartbeat_ns, text));
	else if (s->control.heartbeat_ns)
		fprintf(to, "agent     SILENT for %s: its verdicts do not count any more\n",
			format_age(s->control.heartbeat_ns, now_ns, text));
	else
		fprintf(to, "agent     none: every backend counts as ready\n");
	running_print(st->running, s, now_ns, to);
	print_lock(st, to);
	if (st->http)
		fprintf(to, "http      TAKEN: %s\n", st->http);
	if (s->control.discovery)
		fprintf(to, "discovery %s (heard %s%s)\n", names_discovery(s->control.discovery),
			format_age(s->control.discovery_heard_ns, now_ns, text),
			s->control.discovery_heard_ns ? " ago" : "");
	print_local(&s->applied, to);
	relay_status_print(s, backend_status_agent_alive(&s->control, now_ns), to);
	print_notes(&s->counters, to);
}

static const struct table_column frontend_columns[] = {
	{ .title = "FRONTEND" },
	{ .title = "POLICY" },
	{ .title = "SCOPE" },
	{ "BACKENDS", .right = true },
};

static int print_frontends(const struct status *st, FILE *to)
{
	const struct plan *p = &st->state->applied;
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
	fputc('\n', to);
	r = table_print(&t, to);
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

/* Of -o wide: what the table has besides, between RTT and SINCE. */
static const struct table_column wide_columns[] = {
	{ "CONNECT", .right = true }, { "LOST", .right = true },    { "EJECTIONS", .right = true },
	{ "SUCCESS", .right = true }, { "FAILURE", .right = true }, { "ID", .right = true },
};

#define N_BACKEND_COLUMNS (ARRAY_SIZE(backend_columns))
#define N_WIDE_COLUMNS (ARRAY_SIZE(wide_columns))
#define WIDE_AT 8 /* the index of SINCE */

/* ret: room for N_BACKEND_COLUMNS + N_WIDE_COLUMNS. Returns how many there are. */
static size_t choose_columns(bool wide, struct table_column *ret)
{
	size_t n = 0;

	for (size_t i = 0; i < N_BACKEND_COLUMNS; i++) {
		for (size_t k = 0; wide && i == WIDE_AT && k < N_WIDE_COLUMNS; k++)
			ret[n++] = wide_columns[k];
		ret[n] = backend_columns[i];
		ret[n++].optional &= !wide;
	}
	return n;
}

static void add_wide(struct table *t, const struct klb_stats *stats, __u32 id, __u64 now_ns)
{
	char time[FORMAT_TIME_MAX];

	table_cell(t, "%s",
		   stats->opened ? format_duration(stats->connect_ns / stats->opened, time) : "-");
	table_cell(t, "%llu", stats->lost);
	table_cell(t, "%llu", stats->ejections);
	table_cell(t, "%s", format_age(stats->last_success_ns, now_ns, time));
	table_cell(t, "%s", format_age(stats->last_failure_ns, now_ns, time));
	table_cell(t, "%u", id);
}

static void add_backend(struct table *t, const struct datapath_state *s,
			const struct plan_backend *b, bool wide, __u64 now_ns)
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
	if (wide)
		add_wide(t, stats, b->id, now_ns);
	table_cell(t, "%s", format_age(b->value.since_ns, now_ns, time));
	table_cell(t, "%s", format_age(b->value.last_probe_ns, now_ns, time));
	table_cell(t, "%s", status.why);
}

int status_print_text(const struct status *st, FILE *to)
{
	const struct datapath_state *s = st->state;
	struct table_column columns[N_BACKEND_COLUMNS + N_WIDE_COLUMNS];
	struct table t = { .columns = columns, .n_columns = choose_columns(st->wide, columns) };
	bool overridden = false;
	int r;

	print_head(st, to);
	r = print_frontends(st, to);
	for (unsigned int i = 0; i < s->applied.n_backends; i++) {
		if (!backend_status_is_shown(s, &s->applied.backends[i]))
			continue;
		add_backend(&t, s, &s->applied.backends[i], st->wide, st->now_ns);
		overridden |= backend_status_admin(s, &s->applied.backends[i])->weight_set;
	}
	fputc('\n', to);
	if (!r)
		r = table_print(&t, to);
	table_free(&t);
	if (overridden)
		fprintf(to,
			"\n* set by the operator; `kubelbctl weight BACKEND auto` takes it back\n");
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

/* Negative: it has expired. null: not known. */
static json_t *seconds_left(const struct status *st, __s64 expires_s)
{
	if (!expires_s)
		return json_null();
	return json_real((double)expires_s - (double)st->certificates->wall_ns / NS_PER_S);
}

static json_t *json_failures(const struct klb_stats *stats)
{
	json_t *by_reason = json_object();

	for (int i = 0; i < KLB_FAILURES; i++)
		json_object_set_new(by_reason, names_failure_key((enum klb_failure)i),
				    json_integer((json_int_t)stats->failed[i]));
	return by_reason;
}

static json_t *json_backend(const struct status *st, const struct plan_backend *b)
{
	const struct datapath_state *s = st->state;
	__u64 now_ns = st->now_ns;
	const struct klb_stats *stats = &s->stats[b->id];
	const struct klb_admin *admin = backend_status_admin(s, b);
	char text[ENDPOINT_TEXT_MAX];
	struct backend_status status;

	backend_status_of(s, b, now_ns, &status);
	/* configuredWeight is the planned one: the maps hold no other. */
	return json_pack(
		"{s:i, s:i, s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:o, s:b, s:b, s:o, s:I, s:I, s:I, "
		"s:o, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:b, s:o}",
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
		seconds_since(b->value.left_ns, now_ns), "preferred", (int)b->preferred,
		"certificateExpiresInSeconds",
		seconds_left(st, st->certificates ? st->certificates->backends[b->id] : 0));
}

static json_t *json_backends(const struct status *st)
{
	const struct datapath_state *s = st->state;
	json_t *list = json_array();

	for (unsigned int i = 0; i < s->applied.n_backends; i++)
		if (backend_status_is_shown(s, &s->applied.backends[i]))
			json_array_append_new(list, json_backend(st, &s->applied.backends[i]));
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

static json_t *json_lock(const struct datapath_lock_holder *l)
{
	if (!l->pid)
		return json_null();
	return json_pack("{s:i, s:s, s:f}", "pid", (int)l->pid, "name", l->name, "processSeconds",
			 (double)l->age_ns / NS_PER_S);
}

static json_t *json_diverted(const struct klb_counters *c)
{
	char text[ENDPOINT_TEXT_MAX];

	return json_pack("{s:I, s:s?}", "count", (json_int_t)c->diverted, "lastTo",
			 c->diverted ? endpoint_format(&c->diverted_to, text) : NULL);
}

/* The frontends that the agent listens on, or should; null: the kernel is the data path. */
static json_t *json_listeners(const struct status_relay *r)
{
	json_t *list = r ? json_array() : json_null();
	char text[ENDPOINT_TEXT_MAX];

	for (unsigned int i = 0; r && i < r->n; i++)
		json_array_append_new(list, json_pack("{s:s, s:b, s:s?}", "frontend",
						      endpoint_format(&r->at[i].frontend, text),
						      "listens", !r->at[i].error[0], "error",
						      r->at[i].error[0] ? r->at[i].error : NULL));
	return list;
}

static json_t *json_agent(const struct status *st)
{
	const struct klb_control *c = &st->state->control;

	return json_pack("{s:b, s:o, s:o}", "alive", backend_status_agent_alive(c, st->now_ns),
			 "heartbeatSecondsAgo", seconds_since(c->heartbeat_ns, st->now_ns),
			 "certificateExpiresInSeconds",
			 seconds_left(st, st->certificates ? st->certificates->own : 0));
}

/* Who says this: the version of this program, and the host's name. */
static void add_speaker(json_t *root)
{
	struct utsname host;
	json_t *name = uname(&host) ? NULL : json_string(host.nodename);

	json_object_set_new(root, "version", json_string(KLB_VERSION));
	json_object_set_new(root, "host", name ? name : json_null());
}

/* Who carries connects, by which configuration, and of which version. */
static void add_origins(json_t *root, const struct status *st)
{
	const struct datapath_state *s = st->state;

	add_speaker(root);
	json_object_set_new(root, "dataPath", json_string(st->relay ? "relay" : "kernel"));
	json_object_set_new(root, "dataPathReason",
			    st->relay ? json_string(st->relay->why) : json_null());
	json_object_set_new(root, "listeners", json_listeners(st->relay));
	json_object_set_new(root, "configuration",
			    running_configuration_json(st->running, s, st->now_ns));
	json_object_set_new(root, "versions", running_versions_json(st->running));
}

json_t *status_json(const struct status *st)
{
	const struct datapath_state *s = st->state;
	__u64 now_ns = st->now_ns;
	json_t *root = json_pack(
		"{s:b, s:o, s:s, s:i, s:I, s:I, s:I, s:b, s:o, s:{s:s, s:o}, s:{s:I, s:I, "
		"s:I, "
		"s:I}, "
		"s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:s?, s:o}",
		"attached", st->n_links > 0, "effective", effect_json(effect_of_all(st)), "pin",
		st->pin_dir, "abiVersion", (int)s->control.abi_version, "configSerial",
		(json_int_t)s->control.config_serial, "hostNetnsCookie",
		(json_int_t)s->control.host_netns_cookie, "hostNetns",
		(json_int_t)s->control.host_netns, "inHostNetns",
		datapath_is_host_netns(&s->control), "agent", json_agent(st), "discovery", "state",
		names_discovery_key(s->control.discovery), "heardSecondsAgo",
		seconds_since(s->control.discovery_heard_ns, now_ns), "skipped", "loopbackSource",
		(json_int_t)s->counters.skipped_loopback_source, "noBackend",
		(json_int_t)s->counters.skipped_no_backend, "otherNetns",
		(json_int_t)s->counters.skipped_other_netns, "ownListener",
		(json_int_t)s->counters.skipped_own_listener, "repaired",
		(json_int_t)s->counters.repaired, "events", (json_int_t)s->counters.events,
		"programs", json_programs(st->links, st->n_links), "features", json_features(st),
		"frontends", json_frontends(&s->applied), "backends", json_backends(st), "connects",
		decides_json_trials(st->decides), "otherPrograms", decides_json_others(st->decides),
		"diverted", json_diverted(&s->counters), "local",
		s->applied.local ? json_string(config_local_name(s->applied.local)) : json_null(),
		"lock", json_lock(&st->lock), "httpTaken", st->http, "relay",
		relay_status_json(s, backend_status_agent_alive(&s->control, now_ns)));

	add_origins(root, st);
	return root;
}

int status_print_json(const struct status *st, bool compact, FILE *to)
{
	return ctl_print_json(status_json(st), compact ? JSON_COMPACT : JSON_INDENT(2), to);
}
