/* SPDX-License-Identifier: BSD-2-Clause */
/* Keeps the counts of the last ten minutes in a ring. */
#include "balance/history.h"

#include <stdlib.h>

#include "balance/backend_status.h"
#include "base/clock.h"
#include "net/endpoint.h"

static const struct history_point unknown = { HISTORY_UNKNOWN, HISTORY_UNKNOWN, HISTORY_UNKNOWN };

static struct history_backend *find(const struct history *h, const struct klb_endpoint *endpoint)
{
	for (unsigned int i = 0; i < h->n_backends; i++)
		if (endpoint_equal(&h->backends[i]->endpoint, endpoint))
			return h->backends[i];
	return NULL;
}

static struct history_backend *add(struct history *h, const struct klb_endpoint *endpoint)
{
	struct history_backend *b = h->n_backends < KLB_MAX_IDS ? calloc(1, sizeof(*b)) : NULL;

	if (!b)
		return NULL;
	b->endpoint = *endpoint;
	for (unsigned int i = 0; i < HISTORY_SAMPLES; i++)
		b->points[i] = unknown;
	h->backends[h->n_backends++] = b;
	return b;
}

/* The difference of two counts as a sample has it. */
static __u32 since(__u64 was, __u64 is)
{
	return is - was < HISTORY_UNKNOWN ? (__u32)(is - was) : HISTORY_UNKNOWN - 1;
}

/* Whether its counts are those of the last look, gone on: another data path begins with 0. */
static bool goes_on(const struct history_backend *b, const struct plan_backend *p,
		    const struct klb_stats *stats)
{
	return b->there && b->generation == p->value.generation && stats->opened >= b->opened &&
	       backend_status_failures(stats) >= b->failed;
}

static void sample(const struct history_backend *b, const struct datapath_state *s,
		   const struct plan_backend *p, struct history_point *ret)
{
	const struct klb_stats *stats = &s->stats[p->id];

	if (goes_on(b, p, stats)) {
		ret->opened = since(b->opened, stats->opened);
		ret->failed = since(b->failed, backend_status_failures(stats));
	}
	ret->active = since(0, stats->active);
}

/* p: NULL: it is not there. first: of looks, without a sample. */
static void take(struct history_backend *b, const struct datapath_state *s,
		 const struct plan_backend *p, bool first, unsigned int at)
{
	if (!first)
		b->points[at] = unknown;
	if (!first && p)
		sample(b, s, p, &b->points[at]);
	b->there = p;
	b->generation = p ? p->value.generation : 0;
	b->opened = p ? s->stats[p->id].opened : 0;
	b->failed = p ? backend_status_failures(&s->stats[p->id]) : 0;
}

static const struct plan_backend *find_shown(const struct datapath_state *s,
					     const struct klb_endpoint *endpoint)
{
	const struct plan_backend *p = plan_find_used(&s->applied, endpoint);

	if (!p)
		p = plan_find(&s->applied, endpoint);
	return p && backend_status_is_shown(s, p) ? p : NULL;
}

static void take_all(struct history *h, const struct datapath_state *s, bool first)
{
	unsigned int n = h->n_backends;

	for (unsigned int i = 0; i < n; i++)
		take(h->backends[i], s, find_shown(s, &h->backends[i]->endpoint), first, h->next);
	for (unsigned int i = 0; i < s->applied.n_backends; i++) {
		const struct klb_endpoint *endpoint = &s->applied.backends[i].value.endpoint;
		const struct plan_backend *p = find(h, endpoint) ? NULL : find_shown(s, endpoint);
		struct history_backend *b = p ? add(h, endpoint) : NULL;

		if (b)
			take(b, s, p, first, h->next);
	}
}

static bool is_empty(const struct history_backend *b)
{
	for (unsigned int i = 0; i < HISTORY_SAMPLES; i++)
		if (b->points[i].active != HISTORY_UNKNOWN)
			return false;
	return !b->there;
}

static void forget_empty(struct history *h)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < h->n_backends; i++) {
		if (is_empty(h->backends[i]))
			free(h->backends[i]);
		else
			h->backends[n++] = h->backends[i];
	}
	h->n_backends = n;
}

void history_add(struct history *h, const struct datapath_state *s, __u64 now_ns)
{
	bool first = !h->last_ns;
	__u64 ms = (now_ns - h->last_ns) / NS_PER_MS;

	take_all(h, s, first);
	forget_empty(h);
	if (!first) {
		h->lengths_ms[h->next] = since(0, ms);
		h->next = (h->next + 1) % HISTORY_SAMPLES;
		h->n += h->n < HISTORY_SAMPLES;
	}
	h->last_ns = now_ns;
}

void history_clear(struct history *h)
{
	for (unsigned int i = 0; i < h->n_backends; i++)
		free(h->backends[i]);
	*h = (struct history){ .n = 0 };
}
