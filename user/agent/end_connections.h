/* SPDX-License-Identifier: BSD-2-Clause */
/* Looks at connections and ends them: balance/rebalance.h picks them, net/sock_diag.h ends them. */
#ifndef KUBELB_AGENT_END_CONNECTIONS_H
#define KUBELB_AGENT_END_CONNECTIONS_H

#include "balance/failback.h"
#include "datapath/datapath.h"

/* By id. */
struct agent_dead {
	bool dead[KLB_MAX_IDS];
	bool vanished[KLB_MAX_IDS]; /* its host answers nothing: it need not hear of the end */
};

struct agent_ended {
	unsigned int ended[KLB_MAX_IDS]; /* by id */
	unsigned int destroyed[KLB_MAX_IDS]; /* those of them that no reset has ended */
	unsigned int remaining; /* how many are still to be ended; call again soon */
};

/* Ends one batch of the connections to the backends that are dead. */
int agent_end_dead(const struct datapath *dp, const struct agent_dead *dead,
		   struct agent_ended *ret, struct err *e);

/* Ends one connection that is to come home. */
int agent_end_away(const struct datapath *dp, const struct failback *f, struct agent_ended *ret,
		   struct err *e);

/* Ends the oldest connection to the backend with this id. */
int agent_end_oldest(const struct datapath *dp, __u32 id, struct agent_ended *ret, struct err *e);

/*
 * When a client last had data from the backend with this id, as its open connections say; 0: not
 * known. Unlike klb_stats.last_answer_ns it also sees clients that only receive, as a watch does.
 * It lists all connections: call it before a decision, not at each probe.
 */
__u64 agent_last_data_ns(const struct datapath *dp, __u32 id);

#endif
