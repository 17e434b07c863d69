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

/* Whether it is to be ended, because it is to one of the backends in dead (by id). */
bool rebalance_is_evictable(const struct klb_connection *c, const bool *dead);

/* One backend, for rebalance_overloaded. */
struct rebalance_load {
	__u32 id;
	__u64 active;
	unsigned int weight;
};

/*
 * Returns the id of the backend that exceeds its fair share (its part, by weight, of all
 * connections) the most, if the excess is at least a tenth of the share, and one connection less
 * there and one more at the emptiest backend makes the two more even; otherwise 0. A node has few
 * connections, and all nodes have the same ones too many after a restart: two and two and none of
 * ten thousand nodes is an apiserver without a connection. Of several that exceed it alike it is
 * the first one: callers begin with another one each time.
 */
__u32 rebalance_overloaded(const struct rebalance_load *loads, unsigned int n);

/*
 * Whether c is an established connection to the backend with this id, and older than `than`; NULL:
 * than none.
 */
bool rebalance_is_older(const struct klb_connection *c, __u32 id,
			const struct klb_connection *than);

#endif
