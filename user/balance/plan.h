/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the maps should hold: a pure function of the configuration, the backends'
 * health, what is applied now, and who this node is. No I/O, no clock.
 */
#ifndef KUBELB_PLAN_H
#define KUBELB_PLAN_H

#include <kubelb/abi.h>

#include "config/config.h"
#include "base/err.h"
#include "balance/health.h"

struct plan_backend {
	__u32 id; /* 1..KLB_MAX_IDS-1 */
	__u32 rank; /* klb_candidate.rank */
	bool preferred; /* klb_candidate.preferred */
	bool local; /* its address is one of this node's */
	bool new_id; /* the id is handed to this address anew: its counters start at 0 */
	struct klb_backend value;
};

struct plan_frontend {
	struct klb_endpoint endpoint;
	enum klb_policy policy;
	enum klb_scope scope;
	__u32 n_backends;
	__u16 ids[KLB_MAX_BACKENDS];
};

struct plan {
	__u32 serial; /* klb_control.config_serial that goes with it */
	__u32 connect_timeout_ms; /* klb_control's */
	__u32 dead_peer_timeout_ms;
	unsigned int n_frontends;
	struct plan_frontend frontends[KLB_MAX_FRONTENDS];
	unsigned int n_backends;
	struct plan_backend backends[KLB_MAX_IDS];
};

struct plan_input {
	const struct config *config;
	/* By index of config->backends; NULL when nobody probes: all unknown. A backend that
	 * has come back gets its weight over config->slow_start_ms. */
	const struct health *health;
	/* By index too: whether the address is one of this node's; NULL: none is. */
	const bool *local;
	/* What is applied; NULL for nothing. Backends that stay keep their id. */
	const struct plan *applied;
	/* Connections, open or under way, of each id, so that none is reused while one
	 * carries it; NULL: none does. */
	const __u64 *active;
	/* The configuration is another than the one applied, and gets a new serial. */
	bool new_config;
	__u64 node; /* a hash of this node's identity */
	__u64 now_ns;
};

/*
 * Returns 0, or -ENOSPC with e when every id is applied or still carried by
 * connections. ret is untouched then.
 */
int plan_make(const struct plan_input *in, struct plan *ret, struct err *e);

/* The backend with this address, or NULL. */
const struct plan_backend *plan_find(const struct plan *p, const struct klb_endpoint *endpoint);
const struct plan_backend *plan_find_id(const struct plan *p, __u32 id);

#endif
