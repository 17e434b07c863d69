/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The status of a backend at this moment, as users see it. It combines the agent's state (while the
 * agent is alive), the operator's admin state, and the kernel's outlier detection. Pure.
 */
#ifndef KUBELB_BACKEND_STATUS_H
#define KUBELB_BACKEND_STATUS_H

#include "balance/state.h"

/* What users see as the state, with the names in that order. */
enum status_state {
	STATUS_READY,
	STATUS_SUSPECT,
	STATUS_DRAINING,
	STATUS_EJECTED, /* by outlier detection */
	STATUS_DEAD,
	STATUS_REMOVED, /* it has left the list */
	STATUS_STATES
};

/* "ready", "suspect", "draining", "ejected", "dead" or "removed" */
const char *backend_status_name(enum status_state state);

struct backend_status {
	enum status_state state;
	char why[160];
	unsigned int weight; /* the effective one: the operator's, otherwise the planned one */
};

/* now_ns: CLOCK_MONOTONIC. */
void backend_status_of(const struct datapath_state *s, const struct plan_backend *b, __u64 now_ns,
		       struct backend_status *ret);

/* Whether the operator has drained it, or has set its weight. */
bool backend_status_is_held(const struct datapath_state *s, const struct plan_backend *b);

/*
 * Whether there is anything to show: not for a removed backend without connections, unless the
 * operator's drain or weight waits for it.
 */
bool backend_status_is_shown(const struct datapath_state *s, const struct plan_backend *b);

/* The effective weight: the operator's, otherwise the planned one. */
unsigned int backend_status_weight(const struct datapath_state *s, const struct plan_backend *b);

/* The number of connects that failed, for any reason. */
__u64 backend_status_failures(const struct klb_stats *stats);

/* Whether the agent's heartbeat is recent, so that the kernel uses its states. */
bool backend_status_agent_alive(const struct klb_control *control, __u64 now_ns);

/* Whether the heartbeat is of a clock that is ahead of the kernel's, so that it does not count. */
bool backend_status_heartbeat_is_ahead(const struct klb_control *control, __u64 now_ns);

/* The operator's admin state of this backend; all zero when there is none. */
const struct klb_admin *backend_status_admin(const struct datapath_state *s,
					     const struct plan_backend *b);

#endif
