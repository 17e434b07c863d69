/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Failback: brings connections that went elsewhere home to the backend of this node, once that is
 * ready again. On a control-plane node its clients are of its version, and Kubernetes' version skew
 * policy does not let a kubelet or a controller stay with an older apiserver. Pure: it ends
 * nothing.
 */
#ifndef KUBELB_FAILBACK_H
#define KUBELB_FAILBACK_H

#include "balance/state.h"
#include "net/connection.h"

/*
 * A local backend takes connections back when it has been ready for so long, and no connect to it
 * has failed meanwhile. An apiserver that ends itself soon after its start (a wrong flag, no etcd)
 * does so before; a kubelet waits ten seconds between two updates of its status.
 */
#define FAILBACK_SETTLED_MS 5000

/* Where connections come from and where they may go. */
struct failback {
	const struct plan *plan;
	bool home[KLB_MAX_IDS]; /* by id: local backends that take connections back now */
};

/*
 * Fills ret for what is applied. Returns whether a backend takes connections back: one that is
 * preferred, ready and settled, with weight and not drained.
 */
bool failback_begin(const struct datapath_state *s, __u64 now_ns, struct failback *ret);

/* The connections that are established with other backends than those, by the kernel's counts. */
__u64 failback_count(const struct failback *f, const struct klb_stats *stats);

/*
 * Whether the connection is to come home: its client will dial a frontend that is still there, and
 * its socket can reach the local backend's address family.
 */
bool failback_takes(const struct failback *f, const struct klb_socket *rec);

/*
 * The connection with the lowest rank comes home first: the oldest one of those that had no data
 * for a second, then the oldest of the others.
 */
__u64 failback_rank(const struct klb_connection *c);

#endif
