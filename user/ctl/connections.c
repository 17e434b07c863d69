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
	{ .title = "PROCESS" }, { .title = "FRONTEND" },     { .title = "BACKEND" },
	{ .title = "LOCAL" },	{ "AGE", .right = true },    { "RTT", .right = true },
	{ .title = "STATE" },	{ "VIA", .optional = true }, { "NETNS", .optional = true },
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
	table_cell(t, "%s", r->flags & KLB_SOCKET_UPSTREAM ? "relay" : "-");
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

static void print_seconds(const char *key, bool known, __u64 ns, FILE *to)
{
	fprintf(to, ",\n      \"%s\": ", key);
	if (known)
		ctl_print_json_seconds(ns, to);
	else
		fputs("null", to);
}

static int print_process(const struct klb_socket *r, FILE *to)
{
	char comm[FORMAT_COMM_MAX];
	int e;

	fprintf(to, "      \"process\": {\n        \"name\": ");
	e = ctl_print_json_value(json_string(format_comm(r->comm, comm)), to);
	fprintf(to, ",\n        \"pid\": %u,\n        \"cgroupId\": %llu\n      }", r->pid,
		r->cgroup_id);
	return e;
}

static void print_addresses(const struct klb_connection *c, FILE *to)
{
	const struct klb_socket *r = &c->record;
	char frontend[ENDPOINT_TEXT_MAX], backend[ENDPOINT_TEXT_MAX], local[ENDPOINT_TEXT_MAX];

	fprintf(to,
		",\n      \"frontend\": \"%s\",\n      \"backend\": \"%s\""
		",\n      \"backendId\": %u,\n      \"local\": \"%s\""
		",\n      \"state\": \"%s\",\n      \"tcpState\": \"%s\"",
		endpoint_format(&r->frontend, frontend), endpoint_format(&r->backend, backend),
		r->id, endpoint_format(&c->local, local), connections_state_name(c),
		tcp_state_name(c->tcp_state));
}

static void print_times(const struct klb_connection *c, __u64 now_ns, FILE *to)
{
	const struct klb_socket *r = &c->record;

	print_seconds("ageSeconds", true, now_ns > r->connect_ns ? now_ns - r->connect_ns : 0, to);
	print_seconds("connectSeconds", r->established_ns, r->established_ns - r->connect_ns, to);
	print_seconds("rttSeconds", c->srtt_us, c->srtt_us * 1000ULL, to);
}

static void print_ids(const struct klb_connection *c, __u64 host, FILE *to)
{
	fprintf(to, ",\n      \"relayed\": %s,\n      \"hostNetns\": %s,\n      \"netns\": %llu",
		c->record.flags & KLB_SOCKET_UPSTREAM ? "true" : "false",
		c->netns == host ? "true" : "false", c->netns);
	if (c->netns_cookie)
		fprintf(to, ",\n      \"netnsCookie\": %llu", c->netns_cookie);
	else
		fputs(",\n      \"netnsCookie\": null", to);
	fprintf(to, ",\n      \"cookie\": %llu", c->cookie);
}

static int print_one(const struct klb_connection *c, __u64 host, __u64 now_ns, FILE *to)
{
	int e;

	fputs("    {\n", to);
	e = print_process(&c->record, to);
	print_addresses(c, to);
	print_times(c, now_ns, to);
	print_ids(c, host, to);
	fputs("\n    }", to);
	return e;
}

/*
 * As ctl_print_json would print all of them. One by one, because a tree of a hundred thousand takes
 * seconds, and more memory than the rest of the program.
 */
int connections_print_json(const struct klb_connection *list, unsigned int n, __u64 host,
			   __u64 now_ns, FILE *to)
{
	int e = 0;

	fputs("{\n  \"connections\": [", to);
	for (unsigned int i = 0; !e && i < n; i++) {
		fputs(i ? ",\n" : "\n", to);
		e = print_one(&list[i], host, now_ns, to);
	}
	fputs(n ? "\n  ]\n}\n" : "]\n}\n", to);
	return e;
}
