/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Chooses the connections to end so that their clients connect again, to another backend. Pure: it
 * ends nothing.
 */
#ifndef KUBELB_REBALANCE_H
#define KUBELB_REBALANCE_H

#include <stdbool.h>

#include "net/connection.h"

/* The size of a batch, so that the clients of a node do not all connect again at once. */
#define EVICT_BATCH 16

/* Evict does not end a connection that had data within this time. */
#define REBALANCE_SERVED_MS 1000

/*
 * Picks up to max connections at random from those to the backends in dead (by id). Every node
 * picks differently, and no client is always the last. Fills ret with indexes into list; returns
 * how many. *ret_remaining: how many more there are.
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
 * Returns the id of the backend that exceeds its fair share (its part, by weight, of all
 * connections) the most, if the excess is at least two connections and a tenth of the share;
 * otherwise 0.
 */
__u32 rebalance_overloaded(const struct rebalance_load *loads, unsigned int n);

/*
 * The oldest established connection to the backend with this id: an index into list, or n when
 * there is none.
 */
unsigned int rebalance_pick_oldest(const struct klb_connection *list, unsigned int n, __u32 id);

#endif
