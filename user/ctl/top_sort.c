/* SPDX-License-Identifier: BSD-2-Clause */
/* The order of the backends in `kubelbctl top`, and the one that is selected. */
#include "ctl/top_draw.h"

#include <stdlib.h>
#include <string.h>

#include "balance/backend_status.h"

const char *top_sort_name(enum top_sort sort)
{
	static const char *const names[TOP_SORTS] = {
		[TOP_SORT_BACKEND] = "backend", [TOP_SORT_STATE] = "state",
		[TOP_SORT_ACTIVE] = "active",	[TOP_SORT_RATE] = "rate",
		[TOP_SORT_FAILED] = "failed",	[TOP_SORT_RTT] = "rtt",
	};

	return names[sort];
}

/* The best state has the highest number, so that the worst comes last, or first in reverse. */
static double rank_of_state(const char *state)
{
	for (enum status_state i = 0; i < STATUS_STATES; i++)
		if (!strcmp(state, backend_status_name(i)))
			return -(double)i;
	return -(double)STATUS_STATES;
}

/* What the order goes by: the greatest first. */
static double weigh(const struct top_backend *b, enum top_sort sort)
{
	switch (sort) {
	case TOP_SORT_STATE:
		return rank_of_state(b->state);
	case TOP_SORT_ACTIVE:
		return (double)(b->active + b->connecting);
	case TOP_SORT_RATE:
		return b->rate;
	case TOP_SORT_FAILED:
		return b->failed_rate > 0 ? b->failed_rate * 1e12 : (double)b->failed;
	case TOP_SORT_RTT:
		return b->rtt_s;
	default:
		return 0;
	}
}

static int compare(const void *a, const void *b, void *arg)
{
	const struct top_backend *x = a, *y = b;
	const struct top_view *v = arg;
	double wx = weigh(x, v->sort), wy = weigh(y, v->sort);
	int r = wx != wy ? (wx < wy) - (wx > wy) : 0;

	/* 192.0.2.9 comes before 192.0.2.10. */
	if (!r)
		r = strverscmp(x->address, y->address);
	return v->reverse ? -r : r;
}

void top_sort_backends(const struct top_view *v, struct top_sample *s)
{
	if (s->n_backends)
		qsort_r(s->backends, s->n_backends, sizeof(s->backends[0]), compare, (void *)v);
}

void top_select(struct top_view *v, const struct top_sample *s, int lines)
{
	int n = (int)s->n_backends, at = 0;

	while (at < n && strcmp(s->backends[at].address, v->selected) != 0)
		at++;
	at = at == n ? 0 : at + lines;
	at = at < 0 ? 0 : at >= n ? n - 1 : at;
	snprintf(v->selected, sizeof(v->selected), "%s", n ? s->backends[at].address : "");
}
