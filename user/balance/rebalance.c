/* SPDX-License-Identifier: BSD-2-Clause */
/* Chooses the connections to end: those to dead backends, and those of an overloaded one. */
#include "balance/rebalance.h"

#include "balance/state.h"

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

__u32 rebalance_overloaded(const struct rebalance_load *loads, unsigned int n)
{
	const struct rebalance_load *to = find_emptiest(loads, n);
	__u64 active = 0, weight = 0, most = 0;
	__u32 id = 0;

	for (unsigned int i = 0; i < n; i++) {
		active += loads[i].active;
		weight += loads[i].weight;
	}
	for (unsigned int i = 0; i < n && to; i++) {
		/* Both times the sum of the weights, so that nothing is rounded. */
		__u64 share = active * loads[i].weight, has = loads[i].active * weight;
		__u64 excess = has > share ? has - share : 0;

		if (10 * excess < share || excess <= most || !is_worth_moving(&loads[i], to))
			continue;
		most = excess;
		id = loads[i].id;
	}
	return id;
}

bool rebalance_is_older(const struct klb_connection *c, __u32 id, const struct klb_connection *than)
{
	return c->record.id == id && c->record.phase == KLB_PHASE_ACTIVE &&
	       (!than || c->record.established_ns < than->record.established_ns);
}
