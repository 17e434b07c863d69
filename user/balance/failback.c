/* SPDX-License-Identifier: BSD-2-Clause */
/* Chooses the connections that come home to the backend of this node. */
#include "balance/failback.h"

#include <string.h>

#include "balance/backend_status.h"
#include "balance/rebalance.h"
#include "base/clock.h"
#include "net/endpoint.h"

/* Whether `then` is long enough ago; false for a time in the future. */
static bool is_settled_since(__u64 then_ns, __u64 now_ns)
{
	return now_ns >= then_ns && now_ns - then_ns >= FAILBACK_SETTLED_MS * NS_PER_MS;
}

static bool takes_back(const struct datapath_state *s, const struct plan_backend *b, __u64 now_ns)
{
	const struct klb_stats *stats = &s->stats[b->id];

	return b->preferred && b->value.state == KLB_STATE_READY &&
	       is_settled_since(b->value.since_ns, now_ns) &&
	       is_settled_since(stats->last_failure_ns, now_ns) &&
	       is_settled_since(stats->ejected_until_ns, now_ns) &&
	       !backend_status_admin(s, b)->drained && backend_status_weight(s, b);
}

bool failback_begin(const struct datapath_state *s, __u64 now_ns, struct failback *ret)
{
	bool some = false;

	memset(ret, 0, sizeof(*ret));
	ret->plan = &s->applied;
	for (unsigned int i = 0; i < s->applied.n_backends; i++) {
		const struct plan_backend *b = &s->applied.backends[i];

		ret->home[b->id] = takes_back(s, b, now_ns);
		some |= ret->home[b->id];
	}
	return some;
}

/* Whether connections to it are to come home; from one local backend to another they do not. */
static bool is_away(const struct failback *f, __u32 id)
{
	const struct plan_backend *b = plan_find_id(f->plan, id);

	return b && !b->preferred;
}

__u64 failback_count(const struct failback *f, const struct klb_stats *stats)
{
	__u64 n = 0;

	for (__u32 id = 1; id < KLB_MAX_IDS; id++)
		if (is_away(f, id))
			n += stats[id].active;
	return n;
}

/* The family that the socket has now; whether it can reach the other one, nobody can tell. */
static bool can_reach_home(const struct failback *f, const struct klb_socket *rec)
{
	for (unsigned int i = 0; i < f->plan->n_backends; i++) {
		const struct plan_backend *b = &f->plan->backends[i];

		if (f->home[b->id] &&
		    endpoint_is_ipv4(&b->value.endpoint) == endpoint_is_ipv4(&rec->backend))
			return true;
	}
	return false;
}

/* Through a frontend that has gone the client would not come back. */
bool failback_takes(const struct failback *f, const struct klb_socket *rec)
{
	return rec->phase == KLB_PHASE_ACTIVE && is_away(f, rec->id) &&
	       plan_find_frontend(f->plan, &rec->frontend) && can_reach_home(f, rec);
}

/* Set in the rank of one that has data; no time is so long. */
#define BUSY (1ULL << 63)

__u64 failback_rank(const struct klb_connection *c)
{
	return c->record.established_ns | (c->last_data_ms < REBALANCE_SERVED_MS ? BUSY : 0);
}
