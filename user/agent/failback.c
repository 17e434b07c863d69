/* SPDX-License-Identifier: BSD-2-Clause */
/* Brings connections home to the local backend: ends one now and then, and its client dials anew.
 */
#include "agent/internal.h"

#include "balance/failback.h"
#include "base/clock.h"
#include "base/random.h"

/* The time between two connections, and after a look that has found none to end. */
#define FAILBACK_MS 1000
#define FAILBACK_IDLE_MS 10000
/* The clients of one node must not all connect again at once. */
#define JITTER_PERCENT 50

static bool some_preferred(const struct agent *a)
{
	for (unsigned int i = 0; i < a->config->n_backends; i++) {
		const struct plan_backend *b = agent_planned(a, i);

		if (b && b->preferred)
			return true;
	}
	return false;
}

/* The operator's settings and the counters change without a notification. */
static bool is_due(struct agent *a, struct failback *ret)
{
	if (!some_preferred(a) || datapath_read_admin(a->dp, a->state->admin, NULL) ||
	    datapath_read_stats(a->dp, a->state->stats, NULL))
		return false;
	return failback_begin(a->state, clock_now_ns(), ret) &&
	       failback_count(ret, a->state->stats);
}

static bool ended_one(const struct agent_ended *result)
{
	for (__u32 id = 0; id < KLB_MAX_IDS; id++)
		if (result->ended[id])
			return true;
	return false;
}

void agent_failback(struct agent *a)
{
	struct agent_ended result = { .remaining = 0 };
	struct err e = { "" };
	struct failback f;
	bool ended;

	if (clock_now_ns() < a->failback_ns || !privileges_can_end_connections())
		return;
	if (!is_due(a, &f)) {
		a->failing_back = false;
		return;
	}
	if (!a->failing_back)
		log_event(LOG_LEVEL_INFO,
			  "the backend of this node is ready, connections come back to it one by "
			  "one",
			  "connections=%llu", failback_count(&f, a->state->stats));
	a->failing_back = true;
	agent_end_away(a->dp, &f, &result, &e);
	log_failure(a->failback_error, LOG_LEVEL_ERROR,
		    "cannot bring connections back to the backend of this node", &e);
	agent_count_ended(a, &result, METRICS_ENDED_LOCAL);
	ended = ended_one(&result);
	a->failback_ns =
		clock_now_ns() +
		random_around(ended ? FAILBACK_MS : FAILBACK_IDLE_MS, JITTER_PERCENT) * NS_PER_MS;
}
