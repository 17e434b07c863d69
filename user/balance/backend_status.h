/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The status of a backend at this moment, as users see it. It combines the agent's state (while the
 * agent is alive), the operator's admin state, and the kernel's outlier detection. Pure.
 */
#ifndef KUBELB_BACKEND_STATUS_H
#define KUBELB_BACKEND_STATUS_H

#include "balance/state.h"

struct backend_status {
	const char *state; /* ready, suspect, draining, dead or ejected */
	char why[160];
	unsigned int weight; /* the effective one: the operator's, otherwise the planned one */
};

/* now_ns: CLOCK_MONOTONIC. */
void backend_status_of(const struct datapath_state *s, const struct plan_backend *b, __u64 now_ns,
		       struct backend_status *ret);

/* The number of connects that failed, for any reason. */
__u64 backend_status_failures(const struct klb_stats *stats);

/* Whether the agent's heartbeat is recent, so that the kernel uses its states. */
bool backend_status_agent_alive(const struct klb_control *control, __u64 now_ns);

/* The operator's admin state of this backend; all zero when there is none. */
const struct klb_admin *backend_status_admin(const struct datapath_state *s,
					     const struct plan_backend *b);

#endif
