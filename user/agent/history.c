/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Keeps what the status page shows of the last ten minutes: a sample of the counts every five
 * seconds, and the last decisions. The kernel keeps its own events. That takes some 50 KiB, and 1.5
 * KiB for each backend.
 */
#include "agent/internal.h"

#include <stdlib.h>

#include <event2/event.h>

#include "balance/history.h"
#include "balance/state_diff.h"
#include "base/clock.h"
#include "ctl/events.h"
#include "net/endpoint.h"

/* So many events and so many decisions are shown. */
#define NEWS_MAX 32

struct agent_history {
	struct event *timer;
	struct history counts;
	struct datapath_state *seen; /* NULL: nothing was seen yet */
	struct state_change changes[NEWS_MAX]; /* a ring */
	unsigned int n_changes; /* ever; the next one's place is this % NEWS_MAX */
};

/* --- look ---------------------------------------------------------------------------- */

static void note_changes(struct agent_history *h, const struct datapath_state *now)
{
	struct state_change *list = h->seen ? calloc(STATE_CHANGES_MAX, sizeof(*list)) : NULL;
	unsigned int n = list ? state_diff(h->seen, now, clock_now_ns(), list) : 0;

	for (unsigned int i = 0; i < n; i++)
		h->changes[h->n_changes++ % NEWS_MAX] = list[i];
	free(list);
}

/* sample: it is time for one. Without memory this look is left out. */
static void look(struct agent *a, bool sample)
{
	struct agent_history *h = a->history;
	struct datapath_state *now = malloc(sizeof(*now));
	const struct datapath_state *is = now ? agent_read_state(a, now) : NULL;

	if (!is) {
		free(now);
		return;
	}
	if (is != now)
		*now = *is;
	note_changes(h, now);
	if (sample)
		history_add(&h->counts, now, clock_now_ns());
	free(h->seen);
	h->seen = now;
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	look(arg, true);
}

void agent_begin_history(struct agent *a)
{
	const struct timeval interval = clock_timeval(HISTORY_INTERVAL_MS);
	struct agent_history *h = calloc(1, sizeof(*h));

	a->history = h;
	if (!h)
		return;
	h->timer = event_new(a->base, -1, EV_PERSIST, on_timer, a);
	if (h->timer)
		event_add(h->timer, &interval);
	look(a, true);
}

void agent_free_history(struct agent *a)
{
	if (!a->history)
		return;
	if (a->history->timer)
		event_free(a->history->timer);
	history_clear(&a->history->counts);
	free(a->history->seen);
	free(a->history);
	a->history = NULL;
}

/* --- the page ------------------------------------------------------------------------ */

/* One of the numbers of each sample; without a JSON library, which would take ten times as much. */
static void write_points(const struct history *h, const struct history_backend *b, size_t offset,
			 const char *name, FILE *to)
{
	fprintf(to, ",\"%s\":[", name);
	for (unsigned int i = 0; i < h->n; i++) {
		const char *point = (const char *)&b->points[history_index(h, i)];
		__u32 value = *(const __u32 *)(point + offset);

		if (i)
			fputc(',', to);
		if (value == HISTORY_UNKNOWN)
			fputs("null", to);
		else
			fprintf(to, "%u", value);
	}
	fputc(']', to);
}

static void write_counts(const struct history *h, FILE *to)
{
	char text[ENDPOINT_TEXT_MAX];

	fprintf(to, "\"newestSecondsAgo\":%.3f,\"seconds\":[",
		h->last_ns ? clock_seconds(h->last_ns, clock_now_ns()) : 0);
	for (unsigned int i = 0; i < h->n; i++)
		fprintf(to, "%s%.3f", i ? "," : "", h->lengths_ms[history_index(h, i)] / 1e3);
	fputs("],\"backends\":[", to);
	for (unsigned int i = 0; i < h->n_backends; i++) {
		const struct history_backend *b = h->backends[i];

		fprintf(to, "%s{\"address\":\"%s\"", i ? "," : "",
			endpoint_format(&b->endpoint, text));
		write_points(h, b, offsetof(struct history_point, active), "active", to);
		write_points(h, b, offsetof(struct history_point, opened), "opened", to);
		write_points(h, b, offsetof(struct history_point, failed), "failed", to);
		fputc('}', to);
	}
	fputc(']', to);
}

/* Whoever asks need not be root, and others' processes are none of their business. */
static int write_event(struct klb_event event, __u64 offset, FILE *to)
{
	event.pid = 0;
	event.cgroup_id = 0;
	event.comm[0] = '\0';
	return events_print_json(&event, offset, to);
}

static int write_events(struct agent *a, __u64 offset, FILE *to)
{
	struct klb_event events[NEWS_MAX];
	__u64 all = a->history->seen ? a->history->seen->counters.events : 0;
	__u64 next = all > NEWS_MAX ? all - NEWS_MAX : 0;
	int n = a->dp ? datapath_events(a->dp, &next, events, NEWS_MAX, NULL) : 0, r = 0;

	fputs(",\"events\":[", to);
	for (int i = 0; !r && i < n; i++) {
		fputs(i ? "," : "", to);
		r = write_event(events[i], offset, to);
	}
	fputs("]", to);
	return r;
}

static int write_changes(const struct agent_history *h, __u64 offset, FILE *to)
{
	unsigned int first = h->n_changes > NEWS_MAX ? h->n_changes - NEWS_MAX : 0;
	int r = 0;

	fputs(",\"changes\":[", to);
	for (unsigned int i = first; !r && i < h->n_changes; i++) {
		fputs(i > first ? "," : "", to);
		r = events_print_change_json(&h->changes[i % NEWS_MAX], offset, to);
	}
	fputs("]", to);
	return r;
}

unsigned int agent_write_history(struct agent *a, FILE *to)
{
	__u64 offset = clock_wall_ns() - clock_now_ns();
	int r;

	if (!a->history)
		return 503;
	look(a, false);
	fputc('{', to);
	write_counts(&a->history->counts, to);
	r = write_events(a, offset, to);
	if (!r)
		r = write_changes(a->history, offset, to);
	fputs("}\n", to);
	return r ? 503 : 200;
}
