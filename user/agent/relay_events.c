/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What has happened to connects and backends while this process is the data path: in place of the
 * kernel's log (the map `events`), and of what kubelbctl sees by comparing the maps.
 */
#include "agent/relay_internal.h"

#include <stdlib.h>
#include <string.h>

#include "balance/state_diff.h"
#include "base/clock.h"
#include "ctl/events.h"

/* What the log holds, the oldest go first: as many as the kernel's. */
#define EVENTS_MAX KLB_EVENTS

enum event_kind { EVENT_CONNECT, EVENT_CHANGE, EVENT_REFUSED };

struct event_entry {
	enum event_kind kind;
	union {
		struct klb_event connect;
		struct state_change change;
		struct events_refused refused;
	};
};

/* What was there when it was last looked: see note_changes, note_refused. */
struct seen {
	bool valid;
	struct datapath_state state, now;
	struct state_change changes[STATE_CHANGES_MAX];
	__u64 refused[EVENTS_REFUSED];
};

struct relay_events {
	pthread_mutex_t lock; /* of next and at */
	/*
	 * Number of the next one. They begin with the time, in microseconds: who follows them over
	 * a restart of the agent finds the new ones behind the old ones.
	 */
	__u64 first, next;
	struct event_entry at[EVENTS_MAX];
	struct seen seen; /* the loop's own */
};

struct relay_events *relay_events_new(void)
{
	struct relay_events *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	pthread_mutex_init(&l->lock, NULL);
	l->first = l->next = clock_now_ns() / 1000;
	return l;
}

void relay_events_free(struct relay_events *l)
{
	if (l)
		pthread_mutex_destroy(&l->lock);
	free(l);
}

static void add(struct relay_events *l, struct event_entry *e)
{
	pthread_mutex_lock(&l->lock);
	if (e->kind == EVENT_CONNECT)
		e->connect.number = l->next + 1;
	l->at[l->next++ % EVENTS_MAX] = *e;
	pthread_mutex_unlock(&l->lock);
}

/* --- connects, on the relay's threads ----------------------------------------------------- */

static void add_connect(struct relay_events *l, enum klb_event_kind kind,
			const struct relay_target *target, const struct relay_outcome *o)
{
	struct event_entry e = { .kind = EVENT_CONNECT,
				 .connect = { .kind = kind,
					      .time_ns = clock_now_ns(),
					      .latency_ns = o->connect_ns,
					      .ejected_ns = o->ejected_ns,
					      .backend = target->endpoint,
					      .id = target->id } };

	if (o->error)
		e.connect.failure = relay_stats_failure(o->error);
	add(l, &e);
}

void relay_events_outcome(struct relay_events *l, const struct relay_target *target,
			  const struct relay_outcome *o)
{
	if (o->error)
		add_connect(l, KLB_EVENT_CONNECT_FAILED, target, o);
	if (o->ejected_ns)
		add_connect(l, KLB_EVENT_EJECTED, target, o);
	if (o->restored)
		add_connect(l, KLB_EVENT_RESTORED, target, o);
}

/* --- decisions and limits, in the loop ------------------------------------------------------ */

static void note_changes(struct relay_events *l, const struct datapath_state *now)
{
	struct seen *s = &l->seen;
	unsigned int n = state_diff(s->valid ? &s->state : NULL, now, clock_now_ns(), s->changes);

	for (unsigned int i = 0; i < n; i++) {
		struct event_entry e = { .kind = EVENT_CHANGE, .change = s->changes[i] };

		add(l, &e);
	}
	s->state = *now;
	s->valid = true;
}

/* One event for all since the last look: who comes too often must not fill the log. */
static void note_refused(struct relay_events *l, enum events_refused_why why, __u64 total)
{
	struct event_entry e = { .kind = EVENT_REFUSED,
				 .refused = { .why = why,
					      .time_ns = clock_now_ns(),
					      .n = total - l->seen.refused[why] } };

	if (e.refused.n)
		add(l, &e);
	l->seen.refused[why] = total;
}

void agent_note_events(struct agent *a)
{
	struct agent_relay *r = a->relay;

	if (!r || !a->path.relaying || !a->state->applied.n_backends)
		return;
	note_changes(r->events, a->state);
	relay_read_counts(r->relay, &r->counts);
	note_refused(r->events, EVENTS_REFUSED_LIMIT, r->counts.refused_limit);
	note_refused(r->events, EVENTS_REFUSED_SOURCE, r->counts.refused_source);
	note_refused(r->events, EVENTS_REFUSED_NETWORK, r->counts.refused_network);
}

/* --- the page ------------------------------------------------------------------------------- */

static int print(const struct event_entry *e, bool json, __u64 offset_ns, FILE *to)
{
	switch (e->kind) {
	case EVENT_CONNECT:
		if (json)
			return events_print_json(&e->connect, offset_ns, to);
		events_print_text(&e->connect, offset_ns, to);
		return 0;
	case EVENT_CHANGE:
		if (json)
			return events_print_change_json(&e->change, offset_ns, to);
		events_print_change_text(&e->change, offset_ns, to);
		return 0;
	case EVENT_REFUSED:
		if (json)
			return events_print_refused_json(&e->refused, offset_ns, to);
		events_print_refused_text(&e->refused, offset_ns, to);
		return 0;
	}
	return 0;
}

/* Copies those from first on, so that no thread of the relay waits for a line. Returns how many. */
static unsigned int copy(struct relay_events *l, __u64 first, struct event_entry *ret,
			 __u64 *ret_next)
{
	unsigned int n = 0;

	pthread_mutex_lock(&l->lock);
	if (first < l->first)
		first = l->first;
	if (l->next - l->first > EVENTS_MAX && first < l->next - EVENTS_MAX)
		first = l->next - EVENTS_MAX;
	for (; first < l->next; first++)
		ret[n++] = l->at[first % EVENTS_MAX];
	*ret_next = l->next;
	pthread_mutex_unlock(&l->lock);
	return n;
}

int relay_events_write(struct relay_events *l, bool numbered, __u64 first, bool json, FILE *to)
{
	struct event_entry *list = calloc(EVENTS_MAX, sizeof(*list));
	__u64 offset = clock_wall_ns() - clock_now_ns(), next;
	unsigned int n;
	int r = 0;

	if (!list)
		return -1;
	n = copy(l, first, list, &next);
	if (numbered)
		fprintf(to, "%llu\n", (unsigned long long)next);
	for (unsigned int i = 0; i < n && !r; i++)
		r = print(&list[i], json, offset, to);
	free(list);
	return r;
}
