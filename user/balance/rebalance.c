/* SPDX-License-Identifier: BSD-2-Clause */
/* Chooses the connections to end: those to dead backends, and those of an overloaded one. */
#include "balance/rebalance.h"

#include "balance/state.h"

/* The agent says dead, but this client still gets data. */
static bool is_served(const struct klb_connection *c)
{
	return c->last_data_ms < REBALANCE_SERVED_MS;
}

static bool is_evictable(const struct klb_connection *c, const bool *dead)
{
	return state_is_open(&c->record) && c->record.id < KLB_MAX_IDS && dead[c->record.id] &&
	       !is_served(c);
}

/* xorshift64* (Vigna). It spreads the choice; nothing about it is secret. */
static __u64 next_random(__u64 *state)
{
	__u64 x = *state ? *state : 1;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*state = x;
	return x * 0x2545f4914f6cdd1dULL;
}

unsigned int rebalance_pick_dead(const struct klb_connection *list, unsigned int n,
				 const bool *dead, __u64 random, unsigned int max,
				 unsigned int *ret, unsigned int *ret_remaining)
{
	unsigned int seen = 0;

	/* Reservoir sampling: one pass over a list of any length. */
	for (unsigned int i = 0; i < n; i++) {
		if (!is_evictable(&list[i], dead))
			continue;
		if (seen < max)
			ret[seen] = i;
		else if (next_random(&random) % (seen + 1) < max)
			ret[next_random(&random) % max] = i;
		seen++;
	}
	*ret_remaining = seen > max ? seen - max : 0;
	return seen - *ret_remaining;
}

__u32 rebalance_overloaded(const struct rebalance_load *loads, unsigned int n)
{
	__u64 active = 0, weight = 0, most = 0;
	__u32 id = 0;

	for (unsigned int i = 0; i < n; i++) {
		active += loads[i].active;
		weight += loads[i].weight;
	}
	for (unsigned int i = 0; i < n && weight; i++) {
		/* Rounded up: a remainder that cannot be shared evenly moves no connection. */
		__u64 share = (active * loads[i].weight + weight - 1) / weight;
		__u64 excess = loads[i].active > share ? loads[i].active - share : 0;

		if (excess < 2 || 10 * excess < share || excess <= most)
			continue;
		most = excess;
		id = loads[i].id;
	}
	return id;
}

unsigned int rebalance_pick_oldest(const struct klb_connection *list, unsigned int n, __u32 id)
{
	unsigned int oldest = n;

	for (unsigned int i = 0; i < n; i++) {
		const struct klb_socket *rec = &list[i].record;

		if (rec->id == id && rec->phase == KLB_PHASE_ACTIVE &&
		    (oldest == n || rec->established_ns < list[oldest].record.established_ns))
			oldest = i;
	}
	return oldest;
}
