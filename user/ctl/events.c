/* SPDX-License-Identifier: BSD-2-Clause */
/* Prints events and changes, as text and as JSON lines. */
#include "ctl/events.h"

#include <errno.h>
#include <stdbool.h>
#include <time.h>

#include "balance/names.h"
#include "base/clock.h"
#include "net/endpoint.h"
#include "base/format.h"
#include "ctl/json.h"

/* "2026-11-22T19:07:08" and its NUL. Years have four digits. */
#define STAMP_MAX 32

const char *events_kind_name(enum klb_event_kind kind)
{
	switch (kind) {
	case KLB_EVENT_CONNECT_FAILED:
		return "connect-failed";
	case KLB_EVENT_SUSPECT:
		return "suspect";
	case KLB_EVENT_EJECTED:
		return "ejected";
	case KLB_EVENT_RESTORED:
		return "restored";
	case KLB_EVENT_PEER_LOST:
		return "peer-lost";
	case KLB_EVENT_CLOSED_EARLY:
		return "closed-early";
	case KLB_EVENT_STALLED:
		return "stalled";
	case KLB_EVENT_SILENT:
		return "silent";
	case KLB_EVENT_UNANSWERED:
		return "unanswered";
	}
	return "unknown";
}

/* The kind of the other events says everything. */
static bool has_reason(const struct klb_event *event)
{
	return event->kind != KLB_EVENT_RESTORED && event->kind != KLB_EVENT_CLOSED_EARLY &&
	       event->kind != KLB_EVENT_STALLED && event->kind != KLB_EVENT_SILENT &&
	       event->kind != KLB_EVENT_UNANSWERED;
}

/* The first columns of every line, with the local time. backend: NULL for none. */
static void print_head(__u64 wall_ns, const char *kind, const struct klb_endpoint *backend,
		       FILE *to)
{
	char when[STAMP_MAX] = "", text[ENDPOINT_TEXT_MAX] = "-";
	time_t seconds = (time_t)(wall_ns / NS_PER_S);
	struct tm local = { 0 };

	localtime_r(&seconds, &local);
	strftime(when, sizeof(when), "%F %T", &local);
	if (backend)
		endpoint_format(backend, text);
	fprintf(to, "%s.%03u %-14s %-21s ", when, (unsigned int)(wall_ns % NS_PER_S / NS_PER_MS),
		kind, text);
}

void events_print_text(const struct klb_event *event, __u64 wall_offset_ns, FILE *to)
{
	char process[FORMAT_PROCESS_MAX], after[FORMAT_TIME_MAX];

	print_head(event->time_ns + wall_offset_ns, events_kind_name(event->kind), &event->backend,
		   to);
	fprintf(to, "%-14s %s after %s", has_reason(event) ? names_failure(event->failure) : "-",
		format_process(event->comm, event->pid, process),
		format_duration(event->latency_ns, after));
	if (event->kind == KLB_EVENT_EJECTED)
		fprintf(to, ", for %gs", (double)event->ejected_ns / NS_PER_S);
	fputc('\n', to);
}

static json_t *json_event(const struct klb_event *event, const char *when)
{
	char backend[ENDPOINT_TEXT_MAX], comm[FORMAT_COMM_MAX];
	bool ejected = event->kind == KLB_EVENT_EJECTED;

	return json_pack("{s:s, s:I, s:s, s:s, s:I, s:s?, s:{s:s, s:I, s:I}, s:f, s:o, s:I}",
			 "time", when, "monotonicNs", (json_int_t)event->time_ns, "event",
			 events_kind_name(event->kind), "backend",
			 endpoint_format(&event->backend, backend), "backendId",
			 (json_int_t)event->id, "reason",
			 has_reason(event) ? names_failure_key(event->failure) : NULL, "process",
			 "name", format_comm(event->comm, comm), "pid", (json_int_t)event->pid,
			 "cgroupId", (json_int_t)event->cgroup_id, "latencySeconds",
			 (double)event->latency_ns / NS_PER_S, "ejectedSeconds",
			 ejected ? json_real((double)event->ejected_ns / NS_PER_S) : json_null(),
			 "number", (json_int_t)(event->number - 1));
}

int events_print_json(const struct klb_event *event, __u64 wall_offset_ns, FILE *to)
{
	char when[FORMAT_WALL_MAX];

	format_wall(event->time_ns + wall_offset_ns, when);
	return ctl_print_json(json_event(event, when), JSON_COMPACT, to);
}

/* --- decisions of the agent and the operator --- */

static void print_status(const struct state_change *c, FILE *to)
{
	char reason[NAMES_REASON_MAX], was[NAMES_REASON_MAX];

	names_reason_text(c->reason, c->http_status, reason);
	fprintf(to, "%-14s ", names_state(c->state));
	if (c->kind == CHANGE_REASON)
		fprintf(to, "%s, was %s", reason,
			names_reason_text(c->was_reason, c->was_http_status, was));
	else if (c->found)
		fputs(reason, to);
	else
		fprintf(to, "was %s%s, %s", names_state(c->was),
			c->was == c->state ? " and in between another" : "", reason);
}

static void print_detail(const struct state_change *c, FILE *to)
{
	char age[FORMAT_TIME_MAX];

	if (c->kind == CHANGE_WEIGHT && c->weight < 0)
		fputs("auto, the planned one counts again", to);
	else if (c->kind == CHANGE_WEIGHT)
		fprintf(to, "%d, by the operator", c->weight);
	else if (c->kind == CHANGE_RETURNED && c->left_ns)
		fprintf(to, "after %s, as it was", format_age(c->left_ns, c->time_ns, age));
	else if (c->kind == CHANGE_STATE || c->kind == CHANGE_REASON)
		print_status(c, to);
	else
		fputs(c->kind == CHANGE_DRAINED || c->kind == CHANGE_UNDRAINED ? "by the operator"
									       : "-",
		      to);
}

void events_print_change_text(const struct state_change *c, __u64 wall_offset_ns, FILE *to)
{
	print_head(c->time_ns + wall_offset_ns, state_change_name(c->kind), &c->backend, to);
	print_detail(c, to);
	fputc('\n', to);
}

int events_print_change_json(const struct state_change *c, __u64 wall_offset_ns, FILE *to)
{
	char when[FORMAT_WALL_MAX], backend[ENDPOINT_TEXT_MAX];
	bool state = c->kind == CHANGE_STATE, reason = c->kind == CHANGE_REASON;
	bool status = state || reason, weight = c->kind == CHANGE_WEIGHT && c->weight >= 0;

	format_wall(c->time_ns + wall_offset_ns, when);
	return ctl_print_json(
		json_pack("{s:s, s:I, s:s, s:s, s:I, s:s?, s:s?, s:s?, s:s?, s:o, s:o}", "time",
			  when, "monotonicNs", (json_int_t)c->time_ns, "event",
			  state_change_name(c->kind), "backend",
			  endpoint_format(&c->backend, backend), "backendId", (json_int_t)c->id,
			  "reason", status ? names_reason(c->reason) : NULL, "state",
			  status ? names_state(c->state) : NULL, "was",
			  state && !c->found ? names_state(c->was) : NULL, "wasReason",
			  reason ? names_reason(c->was_reason) : NULL, "httpStatus",
			  status && c->http_status ? json_integer(c->http_status) : json_null(),
			  "weight", weight ? json_integer(c->weight) : json_null()),
		JSON_COMPACT, to);
}

/* --- the relay's limits --- */

static const char *const refused_names[EVENTS_REFUSED] = { "limit", "source", "network" };

void events_print_refused_text(const struct events_refused *r, __u64 wall_offset_ns, FILE *to)
{
	print_head(r->time_ns + wall_offset_ns, "refused", NULL, to);
	fprintf(to, "%-14s %llu client%s\n", refused_names[r->why], (unsigned long long)r->n,
		r->n == 1 ? "" : "s");
}

int events_print_refused_json(const struct events_refused *r, __u64 wall_offset_ns, FILE *to)
{
	char when[FORMAT_WALL_MAX];

	format_wall(r->time_ns + wall_offset_ns, when);
	return ctl_print_json(json_pack("{s:s, s:I, s:s, s:s, s:I}", "time", when, "monotonicNs",
					(json_int_t)r->time_ns, "event", "refused", "reason",
					refused_names[r->why], "clients", (json_int_t)r->n),
			      JSON_COMPACT, to);
}
