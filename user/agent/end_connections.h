/* SPDX-License-Identifier: BSD-2-Clause */
/* Ends connections: balance/rebalance.h picks them, net/sock_diag.h ends them. */
#ifndef KUBELB_AGENT_END_CONNECTIONS_H
#define KUBELB_AGENT_END_CONNECTIONS_H

#include "datapath/datapath.h"

struct agent_ended {
	unsigned int ended[KLB_MAX_IDS]; /* by id */
	unsigned int remaining; /* how many are still to be ended; call again soon */
};

/* Ends one batch of the connections to the backends in dead (by id). */
int agent_end_dead(const struct datapath *dp, const bool *dead, struct agent_ended *ret,
		   struct err *e);

/* Ends the oldest connection to the backend with this id. */
int agent_end_oldest(const struct datapath *dp, __u32 id, struct agent_ended *ret, struct err *e);

#endif
