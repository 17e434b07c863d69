/* SPDX-License-Identifier: BSD-2-Clause */
/* The agent's ends of connections: what moves.h decides, done by sock_diag.h. */
#ifndef KUBELB_AGENT_EVICT_H
#define KUBELB_AGENT_EVICT_H

#include "datapath/datapath.h"

struct agent_evict_result {
	unsigned int ended[KLB_MAX_IDS]; /* by id */
	unsigned int remaining; /* still to be ended: call again in a moment */
};

/* Ends one batch of the connections to the backends in dead (by id). */
int agent_evict_dead(const struct datapath *dp, const bool *dead, struct agent_evict_result *ret,
		     struct err *e);

/* Ends the oldest connection to the backend with this id. */
int agent_evict_one(const struct datapath *dp, __u32 id, struct agent_evict_result *ret,
		    struct err *e);

#endif
