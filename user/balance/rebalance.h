/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which connections are to be ended so that their clients connect again, elsewhere. Pure:
 * decides, and ends nothing.
 */
#ifndef KUBELB_REBALANCE_H
#define KUBELB_REBALANCE_H

#include <stdbool.h>

#include "net/connection.h"

/* So many at a time, so that a node's clients do not all connect again at once. */
#define EVICT_BATCH 16

/*
 * Of the connections to the backends in dead (by id), up to max at random: every node
 * picks others, and no client is always the last. Fills ret with indexes into list;
 * returns how many. *ret_remaining: how many more there are.
 */
unsigned int rebalance_pick_dead(const struct klb_connection *list, unsigned int n,
				 const bool *dead, __u64 random, unsigned int max,
				 unsigned int *ret, unsigned int *ret_remaining);

/* One backend, for rebalance_overloaded. */
struct rebalance_load {
	__u32 id;
	__u64 active;
	unsigned int weight;
};

/*
 * The backend that has most above its fair share (its part, by weight, of all their
 * connections), if that is two connections and a tenth of the share at least; else 0.
 */
__u32 rebalance_overloaded(const struct rebalance_load *loads, unsigned int n);

/* The oldest established connection to it: an index into list, or n. */
unsigned int rebalance_pick_oldest(const struct klb_connection *list, unsigned int n, __u32 id);

#endif
