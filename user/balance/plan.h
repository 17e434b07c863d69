/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the maps should hold: a pure function of the configuration, the backends' health, what is
 * applied now, and this node's identity. No I/O and no clock.
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
	bool preferred; /* klb_candidate.preferred: local, and what is local goes first */
	bool local; /* its address is one of this node's */
	bool new_id; /* this address has not had the id before, so its counters start at 0 */
	bool removed; /* it has left the list and every frontend, and is kept */
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
	__u32 serial; /* the klb_control.config_serial of this plan */
	__u32 connect_timeout_ms; /* as in klb_control; so is the next */
	__u32 dead_peer_timeout_ms;
	enum klb_local local;
	unsigned int n_frontends;
	struct plan_frontend frontends[KLB_MAX_FRONTENDS];
	unsigned int n_backends;
	struct plan_backend backends[KLB_MAX_IDS];
};

/*
 * A backend that has left the list is kept, in no frontend: while it has connections; until the
 * operator's drain or weight is undone; otherwise for a day, the last ones to leave of more than
 * this many. When it comes back it is the same backend, with its id, counters and admin state.
 */
#define PLAN_KEEP_NS (86400ULL * 1000000000)
#define PLAN_KEEP_MAX 32

/* A backend that has left the configuration and is still probed. */
struct plan_watched {
	struct klb_endpoint endpoint;
	struct health health;
};

struct plan_input {
	const struct config *config;
	/*
	 * By index of config->backends; NULL without probes: the state is unknown. A backend
	 * that has come back gets its weight over config->slow_start_ms.
	 */
	const struct health *health;
	const struct plan_watched *watched;
	unsigned int n_watched;
	/* By index too: whether the address is one of this node's. NULL: none is. */
	const bool *local;
	/* What is applied; NULL for nothing. Backends that stay keep their ids. */
	const struct plan *applied;
	/*
	 * The number of connections of each id, open or being opened. An id with connections is not
	 * reused. NULL: there are none.
	 */
	const __u64 *open;
	/* By id: whether the operator has drained the backend or set its weight. NULL: none. */
	const bool *held;
	/* The configuration differs from the applied one, and gets a new serial. */
	bool new_config;
	__u64 node; /* a hash of this node's identity */
	__u64 now_ns;
};

/*
 * Backends that have left the configuration stay in the plan, without a frontend (PLAN_KEEP_MAX).
 * A new backend without a free id gets that of the kept one that has left first. Returns 0. Returns
 * -ENOSPC with e, and leaves ret unchanged, when every id is in use, has connections or is held by
 * the operator.
 */
int plan_make(const struct plan_input *in, struct plan *ret, struct err *e);

/* Whether b has left the list so long ago that nothing but the operator's setting keeps it. */
bool plan_is_forgotten(const struct plan_backend *b, __u64 now_ns);

/* The frontend with this address; NULL when there is none. */
const struct plan_frontend *plan_find_frontend(const struct plan *p,
					       const struct klb_endpoint *endpoint);

/* Whether a frontend of p uses the backend with this id. */
bool plan_uses(const struct plan *p, __u32 id);

/* The backend with this address, or with this id; NULL when there is none. */
const struct plan_backend *plan_find(const struct plan *p, const struct klb_endpoint *endpoint);
const struct plan_backend *plan_find_id(const struct plan *p, __u32 id);

/* The backend with this address that is not removed; NULL when there is none. */
const struct plan_backend *plan_find_used(const struct plan *p,
					  const struct klb_endpoint *endpoint);
/* The number of backends that are not removed. */
unsigned int plan_count_used(const struct plan *p);

#endif
