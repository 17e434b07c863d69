/* SPDX-License-Identifier: BSD-2-Clause */
/* Rebalances: now and then ends one connection to a backend that has more than its share. */
#include "agent/internal.h"

#include "base/clock.h"
#include "base/random.h"
#include "balance/rebalance.h"

/* The time between two rebalanced connections. */
#define REBALANCE_MS 10000
/* Nodes must not act at the same time. */
#define JITTER_PERCENT 50

/* What one backend has and should have. */
static bool read_load(const struct agent *a, unsigned int index, struct rebalance_load *ret)
{
	const struct health *h = agent_backend_health(a->backends[index]);
	const struct plan_backend *b = agent_planned(a, index);
	struct klb_stats stats;

	if (!b || !agent_is_available(a, b) ||
	    health_share(h, a->config->slow_start_ms, clock_now_ns()) != 1000 ||
	    datapath_read_stat(a->dp, b->id, &stats, NULL))
		return false;
	*ret = (struct rebalance_load){ .id = b->id,
					.active = stats.active,
					.weight = agent_share_weight(a, b) };
	return true;
}

/*
 * Reads the loads if every backend is ready and has its full weight. Returns their number,
 * otherwise 0. A preferred backend (the one on this node) should have all connections: failback.c
 * sees to that.
 */
static unsigned int read_loads(const struct agent *a, struct rebalance_load *ret)
{
	/* With the other policies a client may choose the same backend again. */
	if (a->config->policy != KLB_POLICY_LEAST_CONN ||
	    datapath_read_admin(a->dp, a->state->admin, NULL))
		return 0;
	for (unsigned int i = 0; i < a->config->n_backends; i++) {
		const struct plan_backend *b = agent_planned(a, i);

		if (b && b->preferred)
			return 0;
	}
	for (unsigned int i = 0; i < a->config->n_backends; i++)
		if (!read_load(a, i, &ret[i]))
			return 0;
	return a->config->n_backends;
}

void agent_rebalance(struct agent *a)
{
	struct rebalance_load loads[KLB_MAX_BACKENDS];
	struct agent_ended result;
	__u64 now = clock_now_ns();
	__u32 id;

	if (!a->config->rebalance || now < a->rebalance_ns)
		return;
	a->rebalance_ns = now + random_around(REBALANCE_MS, JITTER_PERCENT) * NS_PER_MS;
	id = rebalance_overloaded(loads, read_loads(a, loads));
	if (id && !agent_end_oldest(a->dp, id, &result, NULL))
		agent_count_ended(a, &result, METRICS_ENDED_REBALANCE);
}
