/* SPDX-License-Identifier: BSD-2-Clause */
/* Ends connections that have been picked, and looks at those of one backend. */
#ifndef KUBELB_AGENT_END_CONNECTIONS_H
#define KUBELB_AGENT_END_CONNECTIONS_H

#include "balance/rebalance.h"
#include "datapath/datapath.h"

/*
 * What to end. vanished: by id: the backend's host answers nothing, and need not hear of the end;
 * NULL: they all hear. spare_ms: as in struct datapath_ending.
 */
struct agent_batch {
	struct klb_connection at[EVICT_BATCH];
	unsigned int n;
	const bool *vanished;
	unsigned int spare_ms;
};

struct agent_ended {
	unsigned int ended[KLB_MAX_IDS]; /* by id */
	unsigned int destroyed[KLB_MAX_IDS]; /* those of them that no reset has ended */
};

/* Ends them, as they are now; whatever has changed since they were listed. */
int agent_end_batch(const struct datapath *dp, const struct agent_batch *b, struct agent_ended *ret,
		    struct err *e);

/*
 * When a client last had data from the backend with this id and address, as its open connections
 * say; 0: not known. Unlike klb_stats.last_answer_ns it also sees clients that only receive, as a
 * watch does. It looks at all of its connections: call it before a decision, not at each probe.
 */
__u64 agent_last_data_ns(const struct datapath *dp, __u32 id, const struct klb_endpoint *backend);

#endif
