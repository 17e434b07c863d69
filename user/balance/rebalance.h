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

/* One backend, for rebalance_overloaded and rebalance_displaced. */
struct rebalance_load {
	__u32 id;
	__u64 active;
	unsigned int weight;
	__u32 rank; /* klb_candidate.rank: this node's own order of them */
	__u64 ready_ns; /* since when it is ready */
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

/* One that has become ready later than others by less has been passed over by chance. */
#define REBALANCE_LATER_MS 10000

/*
 * When nothing is overloaded: a node with six connections has one less at one of seven backends,
 * and one more at one of five. All nodes of a fleet have the less at the backend that has been
 * ready for the shortest time, which makes the fleet uneven. So each node has an order of its own,
 * and those that have one more should be the first ones of it. If the latest is one of these and
 * has less, this returns the id of one that has more and is none of them: the last such; 0: there
 * is none. The client comes to the latest, to another one that has less, or back, as they all tie
 * then. When it has come to the latest, the latest stays as it is: nothing goes round in circles.
 */
__u32 rebalance_displaced(const struct rebalance_load *loads, unsigned int n);

/*
 * Whether c is an established connection to the backend with this id, and older than `than`; NULL:
 * than none.
 */
bool rebalance_is_older(const struct klb_connection *c, __u32 id,
			const struct klb_connection *than);

#endif
