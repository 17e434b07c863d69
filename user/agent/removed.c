/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Watches backends that have left the list while they have connections. Discovery removes an
 * apiserver when its lease ends, be it that it hangs: somebody has to end its connections.
 */
#include "agent/internal.h"

#include "base/clock.h"
#include "net/endpoint.h"

__u64 agent_open_connections(struct agent *a, const struct klb_endpoint *endpoint)
{
	const struct plan_backend *b = plan_find(&a->state->applied, endpoint);
	struct klb_stats stats;

	if (!a->dp && b && a->path.relaying)
		return a->state->stats[b->id].active;
	if (!a->dp || !b || datapath_read_stat(a->dp, b->id, &stats, NULL))
		return 0;
	/* What make_plan goes by. */
	a->state->stats[b->id] = stats;
	return stats.active + stats.connecting;
}

void agent_keep_removed(struct agent *a, struct agent_backend *b)
{
	if (!b->left_ns)
		b->left_ns = clock_now_ns();
	if (agent_open_connections(a, &b->endpoint) && a->n_removed < KLB_MAX_IDS)
		a->removed[a->n_removed++] = b;
	else
		agent_rest(a, b);
}

void agent_adopt_removed(struct agent *a, const struct config *cfg, struct probe_tls *tls)
{
	char text[ENDPOINT_TEXT_MAX];

	for (unsigned int i = 0; i < a->state->applied.n_backends; i++) {
		const struct klb_backend *seen = &a->state->applied.backends[i].value;
		__u64 n = agent_open_connections(a, &seen->endpoint);
		struct agent_backend *b;

		if (!n || config_has_backend(cfg, &seen->endpoint) ||
		    agent_make_backend(a, cfg, &seen->endpoint, tls, NULL, &b, NULL))
			continue;
		log_event(LOG_LEVEL_INFO,
			  "a backend that has left the list has connections, they are watched",
			  "backend=%s connections=%llu", endpoint_format(&b->endpoint, text), n);
		b->left_ns = seen->left_ns;
		agent_backend_start(b, 0);
		agent_keep_removed(a, b);
	}
}

struct agent_backend *agent_take_back(struct agent *a, const struct klb_endpoint *endpoint)
{
	for (unsigned int i = 0; i < a->n_removed; i++) {
		struct agent_backend *b = a->removed[i];

		if (!endpoint_equal(&b->endpoint, endpoint))
			continue;
		a->removed[i] = a->removed[--a->n_removed];
		return b;
	}
	return NULL;
}

void agent_review_removed(struct agent *a)
{
	char text[ENDPOINT_TEXT_MAX];

	for (unsigned int i = 0; i < a->n_removed; i++) {
		struct agent_backend *b = a->removed[i];

		if (agent_open_connections(a, &b->endpoint))
			continue;
		log_event(LOG_LEVEL_INFO, "the last connection to a removed backend has ended",
			  "backend=%s", endpoint_format(&b->endpoint, text));
		agent_rest(a, b);
		a->removed[i--] = a->removed[--a->n_removed];
		a->dirty = true;
	}
}

void agent_free_removed(struct agent *a)
{
	while (a->n_removed)
		agent_backend_free(a->removed[--a->n_removed]);
}
