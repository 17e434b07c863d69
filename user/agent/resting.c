/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Remembers backends that are in no list, so that they are the same when they come back. The maps
 * hold most of it (plan.h), also for the next agent; here are the counters of the probes.
 */
#include "agent/internal.h"

#include "balance/backend_status.h"
#include "base/clock.h"
#include "net/endpoint.h"

/* Frees the resting one with this index; the others keep their order. */
static void drop(struct agent *a, unsigned int index)
{
	agent_backend_free(a->resting[index]);
	a->n_resting--;
	for (unsigned int i = index; i < a->n_resting; i++)
		a->resting[i] = a->resting[i + 1];
}

void agent_rest(struct agent *a, struct agent_backend *b)
{
	agent_backend_stop(b);
	if (a->n_resting == PLAN_KEEP_MAX)
		drop(a, 0);
	a->resting[a->n_resting++] = b;
}

const struct agent_backend *agent_find_resting(const struct agent *a,
					       const struct klb_endpoint *endpoint)
{
	return agent_backend_find(a->resting, a->n_resting, endpoint);
}

void agent_wake(struct agent *a, const struct klb_endpoint *endpoint)
{
	for (unsigned int i = 0; i < a->n_resting; i++)
		if (endpoint_equal(&a->resting[i]->endpoint, endpoint))
			drop(a, i--);
}

__u64 agent_left_ns(const struct agent *a, const struct klb_endpoint *endpoint)
{
	const struct plan_backend *seen = plan_find(&a->state->applied, endpoint);
	const struct agent_backend *b = agent_backend_find(a->removed, a->n_removed, endpoint);

	if (!b)
		b = agent_find_resting(a, endpoint);
	if (b)
		return b->left_ns;
	return seen ? seen->value.left_ns : 0;
}

/* Whether the maps still hold one that only a plan is needed to forget. */
static bool some_forgotten(const struct agent *a, __u64 now_ns)
{
	for (unsigned int i = 0; i < a->state->applied.n_backends; i++) {
		const struct plan_backend *b = &a->state->applied.backends[i];
		const struct klb_stats *stats = &a->state->stats[b->id];

		if (plan_is_forgotten(b, now_ns) && !stats->active && !stats->connecting &&
		    !backend_status_is_held(a->state, b))
			return true;
	}
	return false;
}

void agent_review_resting(struct agent *a)
{
	__u64 now = clock_now_ns();

	while (a->n_resting && now - a->resting[0]->left_ns >= PLAN_KEEP_NS)
		drop(a, 0);
	if (some_forgotten(a, now))
		a->dirty = true;
}

void agent_free_resting(struct agent *a)
{
	while (a->n_resting)
		drop(a, a->n_resting - 1);
}
