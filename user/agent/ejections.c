/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ends the ejections that the kernel holds until somebody knows better: once this agent has reached
 * the backend by a new connection. One that has been open since before the fault proves nothing.
 */
#include "agent/internal.h"

bool agent_can_end_ejections(const struct agent *a)
{
	return !a->state->control.refused[KLB_FEATURE_ADJUST];
}

static bool is_held(const struct klb_stats *stats)
{
	return stats->evidence == KLB_EVIDENCE_EJECTED && stats->held_ms;
}

static void end_ejection(struct agent *a, const struct plan_backend *b, __u64 reached_ns)
{
	const struct klb_adjustment fix = { .id = b->id,
					    .generation = b->value.generation,
					    .what = KLB_ADJUST_REACHED,
					    .reached_ns = reached_ns };
	struct err e = { "" };

	datapath_adjust(a->dp, &fix, &e);
	log_failure(a->ejection_error, LOG_LEVEL_ERROR,
		    "cannot end an ejection, it lasts for a minute", &e);
}

void agent_review_ejection(struct agent *a, struct agent_backend *backend)
{
	const struct plan_backend *b = plan_find(&a->state->applied, &backend->endpoint);
	__u64 reached_ns = agent_backend_reached_ns(backend);
	struct klb_stats stats;

	if (!a->dp || !b || datapath_read_stat(a->dp, b->id, &stats, NULL) || !is_held(&stats))
		return;
	if (reached_ns > stats.ejected_ns)
		end_ejection(a, b, reached_ns);
	else
		agent_backend_dial(backend);
}

void agent_review_ejections(struct agent *a)
{
	for (unsigned int i = 0; i < a->config->n_backends; i++)
		agent_review_ejection(a, a->backends[i]);
}
