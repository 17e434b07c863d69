/* SPDX-License-Identifier: BSD-2-Clause */
/* Chooses the connections to end: those to dead backends, and those of an overloaded one. */
#include "balance/rebalance.h"

#include "balance/state.h"
#include "base/clock.h"

/* The agent says dead, but this client still gets data. */
static bool is_served(const struct klb_connection *c)
{
	return c->last_data_ms < REBALANCE_SERVED_MS;
}

bool rebalance_is_evictable(const struct klb_connection *c, const bool *dead)
{
	return state_is_open(&c->record) && c->record.id < KLB_MAX_IDS && dead[c->record.id] &&
	       !is_served(c);
}

/* Whether x has less for its weight than y; of two that tie, the one with the smaller weight. */
static bool is_emptier(const struct rebalance_load *x, const struct rebalance_load *y)
{
	__u64 mine = x->active * y->weight, other = y->active * x->weight;

	return mine < other || (mine == other && x->weight < y->weight);
}

/* Where least-conn leads the client; NULL: nowhere. */
static const struct rebalance_load *find_emptiest(const struct rebalance_load *loads,
						  unsigned int n)
{
	const struct rebalance_load *ret = NULL;

	for (unsigned int i = 0; i < n; i++)
		if (loads[i].weight && (!ret || is_emptier(&loads[i], ret)))
			ret = &loads[i];
	return ret;
}

/*
 * Whether `from` still has no less for its weight than `to` when one connection has moved: what
 * moves then does not come back, and nothing goes round in circles.
 */
static bool is_worth_moving(const struct rebalance_load *from, const struct rebalance_load *to)
{
	return from->active && (from->active - 1) * to->weight >= (to->active + 1) * from->weight;
}

struct sums {
	__u64 active, weight;
};

static struct sums add_up(const struct rebalance_load *loads, unsigned int n)
{
	struct sums ret = { 0 };

	for (unsigned int i = 0; i < n; i++) {
		ret.active += loads[i].active;
		ret.weight += loads[i].weight;
	}
	return ret;
}

/* What it has above its share, times the sum of the weights; 0: less than a tenth of the share. */
static __u64 excess_of(const struct rebalance_load *l, const struct sums *sums)
{
	/* Both times the sum of the weights, so that nothing is rounded. */
	__u64 share = sums->active * l->weight, has = l->active * sums->weight;

	return has > share && 10 * (has - share) >= share ? has - share : 0;
}

__u32 rebalance_overloaded(const struct rebalance_load *loads, unsigned int n)
{
	const struct rebalance_load *to = find_emptiest(loads, n);
	const struct sums sums = add_up(loads, n);
	__u64 most = 0;
	__u32 id = 0;

	for (unsigned int i = 0; i < n && to; i++) {
		__u64 excess = excess_of(&loads[i], &sums);

		if (excess <= most || !is_worth_moving(&loads[i], to))
			continue;
		most = excess;
		id = loads[i].id;
	}
	return id;
}

#define LATER_NS (REBALANCE_LATER_MS * NS_PER_MS)

static bool ties(const struct rebalance_load *x, const struct rebalance_load *y)
{
	return x->active * y->weight == y->active * x->weight;
}

/* The one that has been ready for the shortest time. */
static const struct rebalance_load *find_latest(const struct rebalance_load *loads, unsigned int n)
{
	const struct rebalance_load *ret = NULL;

	for (unsigned int i = 0; i < n; i++)
		if (loads[i].weight && (!ret || loads[i].ready_ns > ret->ready_ns))
			ret = &loads[i];
	return ret;
}

/*
 * So many have more than the emptiest, `to`. Whether x would be one of them if all these were the
 * first ones of this node's own order.
 */
static bool is_due_more(const struct rebalance_load *x, const struct rebalance_load *to,
			const struct rebalance_load *loads, unsigned int n)
{
	unsigned int have_more = 0, ahead = 0;

	for (unsigned int i = 0; i < n; i++) {
		have_more += loads[i].weight && !ties(&loads[i], to);
		ahead += loads[i].weight && loads[i].rank < x->rank;
	}
	return ahead < have_more;
}

/* Whether it would be the same with the two exchanged, and `to` has not been there for as long. */
static bool is_exchangeable(const struct rebalance_load *from, const struct rebalance_load *to)
{
	return from->weight == to->weight && from->active == to->active + 1 &&
	       to->ready_ns >= from->ready_ns + LATER_NS;
}

__u32 rebalance_displaced(const struct rebalance_load *loads, unsigned int n)
{
	const struct rebalance_load *to = find_latest(loads, n), *last = NULL;
	const struct sums sums = add_up(loads, n);

	if (!to || !ties(to, find_emptiest(loads, n)) || !is_due_more(to, to, loads, n))
		return 0;
	for (unsigned int i = 0; i < n; i++)
		if (is_exchangeable(&loads[i], to) && !is_due_more(&loads[i], to, loads, n) &&
		    excess_of(&loads[i], &sums) && (!last || loads[i].rank > last->rank))
			last = &loads[i];
	return last ? last->id : 0;
}

bool rebalance_is_older(const struct klb_connection *c, __u32 id, const struct klb_connection *than)
{
	return c->record.id == id && c->record.phase == KLB_PHASE_ACTIVE &&
	       (!than || c->record.established_ns < than->record.established_ns);
}
