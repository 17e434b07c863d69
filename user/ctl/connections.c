/* SPDX-License-Identifier: BSD-2-Clause */
/* Prints the balanced connections, as a table and as JSON. */
#include "ctl/connections.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "balance/state.h"
#include "ctl/json.h"
#include "base/array.h"
#include "base/clock.h"
#include "net/endpoint.h"
#include "base/table.h"
#include "base/format.h"

/* --- selection --- */

static int by_backend_then_age(const void *a, const void *b)
{
	const struct klb_socket *x = &((const struct klb_connection *)a)->record;
	const struct klb_socket *y = &((const struct klb_connection *)b)->record;
	int r = memcmp(x->backend.addr, y->backend.addr, sizeof(x->backend.addr));

	if (r)
		return r;
	if (x->backend.port != y->backend.port)
		return x->backend.port < y->backend.port ? -1 : 1;
	return (x->connect_ns > y->connect_ns) - (x->connect_ns < y->connect_ns);
}

unsigned int connections_keep(struct klb_connection *list, unsigned int n)
{
	unsigned int kept = 0;

	for (unsigned int i = 0; i < n; i++)
		if (state_is_open(&list[i].record) && list[i].record.id != KLB_ID_SELFTEST)
			list[kept++] = list[i];
	if (kept)
		qsort(list, kept, sizeof(*list), by_backend_then_age);
	return kept;
}

const char *connections_state_name(const struct klb_connection *c)
{
	return c->record.phase == KLB_PHASE_CONNECTING ? "connecting" : "active";
}

/* --- text ---------------------------------------------------------------------------- */

static const struct table_column columns[] = {
	{ .title = "PROCESS" }, { .title = "FRONTEND" },       { .title = "BACKEND" },
	{ .title = "LOCAL" },	{ "AGE", .right = true },      { "RTT", .right = true },
	{ .title = "STATE" },	{ "NETNS", .optional = true },
};

static void add_row(struct table *t, const struct klb_connection *c, __u64 host, __u64 now_ns)
{
	const struct klb_socket *r = &c->record;
	char text[ENDPOINT_TEXT_MAX], process[FORMAT_PROCESS_MAX], time[FORMAT_TIME_MAX];

	table_cell(t, "%s", format_process(r->comm, r->pid, process));
	table_cell(t, "%s", endpoint_format(&r->frontend, text));
	table_cell(t, "%s", endpoint_format(&r->backend, text));
	table_cell(t, "%s", endpoint_format(&c->local, text));
	table_cell(t, "%s", format_age(r->connect_ns, now_ns, time));
	table_cell(t, "%s", c->srtt_us ? format_duration(c->srtt_us * 1000ULL, time) : "-");
	table_cell(t, "%s", connections_state_name(c));
	if (c->netns == host)
		table_cell(t, "-");
	else
		table_cell(t, "%llu", c->netns);
}

int connections_print_text(const struct klb_connection *list, unsigned int n, __u64 host,
			   __u64 now_ns, FILE *to)
{
	struct table t = { .columns = columns, .n_columns = ARRAY_SIZE(columns) };
	int r;

	for (unsigned int i = 0; i < n; i++)
		add_row(&t, &list[i], host, now_ns);
	r = table_print(&t, to);
	table_free(&t);
	return r;
}

/* --- JSON ---------------------------------------------------------------------------- */

/* include/net/tcp_states.h, with the names of ss(8). */
static const char *tcp_state_name(__u32 state)
{
	static const char *const names[] = {
		[1] = "established", [2] = "syn-sent",	 [3] = "syn-recv", [4] = "fin-wait-1",
		[5] = "fin-wait-2",  [6] = "time-wait",	 [7] = "closed",   [8] = "close-wait",
		[9] = "last-ack",    [10] = "listening", [11] = "closing",
	};

	return state && state < ARRAY_SIZE(names) ? names[state] : "unknown";
}

static json_t *seconds_or_null(bool known, __u64 ns)
{
	return known ? json_real((double)ns / NS_PER_S) : json_null();
}

static json_t *json_connection(const struct klb_connection *c, __u64 host, __u64 now_ns)
{
	char frontend[ENDPOINT_TEXT_MAX], backend[ENDPOINT_TEXT_MAX], local[ENDPOINT_TEXT_MAX];
	const struct klb_socket *r = &c->record;
	char comm[FORMAT_COMM_MAX];

	return json_pack(
		"{s:{s:s, s:I, s:I}, s:s, s:s, s:I, s:s, s:s, s:s, s:o, s:o, s:o, s:b, s:I, s:o, "
		"s:I}",
		"process", "name", format_comm(r->comm, comm), "pid", (json_int_t)r->pid,
		"cgroupId", (json_int_t)r->cgroup_id, "frontend",
		endpoint_format(&r->frontend, frontend), "backend",
		endpoint_format(&r->backend, backend), "backendId", (json_int_t)r->id, "local",
		endpoint_format(&c->local, local), "state", connections_state_name(c), "tcpState",
		tcp_state_name(c->tcp_state), "ageSeconds",
		seconds_or_null(true, now_ns > r->connect_ns ? now_ns - r->connect_ns : 0),
		"connectSeconds",
		seconds_or_null(r->established_ns, r->established_ns - r->connect_ns), "rttSeconds",
		seconds_or_null(c->srtt_us, c->srtt_us * 1000ULL), "hostNetns",
		(int)(c->netns == host), "netns", (json_int_t)c->netns, "netnsCookie",
		c->netns_cookie ? json_integer((json_int_t)c->netns_cookie) : json_null(), "cookie",
		(json_int_t)c->cookie);
}

int connections_print_json(const struct klb_connection *list, unsigned int n, __u64 host,
			   __u64 now_ns, FILE *to)
{
	json_t *array = json_array(), *root;

	for (unsigned int i = 0; i < n; i++)
		json_array_append_new(array, json_connection(&list[i], host, now_ns));
	root = json_pack("{s:o}", "connections", array);
	if (!root || json_array_size(array) != n) {
		json_decref(root);
		return -ENOMEM;
	}
	return ctl_print_json(root, JSON_INDENT(2), to);
}
