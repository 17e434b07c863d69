/* SPDX-License-Identifier: BSD-2-Clause */
/* Makes, replaces and frees the backends of a configuration. */
#include "agent/internal.h"

#include <stdlib.h>

#include "balance/backend_status.h"
#include "base/clock.h"
#include "net/endpoint.h"

/* At start the health comes from the maps, if the agent that wrote it was alive until now. */
static void adopt_health(const struct agent *a, unsigned int weight, struct agent_backend *b)
{
	const struct plan_backend *seen = plan_find(&a->state->applied, &b->endpoint);

	if (seen && !a->config && backend_status_agent_alive(&a->state->control, clock_now_ns()))
		agent_backend_adopt(b, &seen->value, weight);
}

void agent_free_backends(struct agent_backend **list, unsigned int n)
{
	for (unsigned int i = 0; list && i < n; i++)
		agent_backend_free(list[i]);
	free(list);
}

void agent_stop_backends(struct agent *a)
{
	if (a->config)
		agent_free_backends(a->backends, a->config->n_backends);
	a->backends = NULL;
}

/*
 * Makes the backends that are new or whose probe has changed. Leaves gaps in list for the others.
 */
int agent_make_backends(struct agent *a, const struct config *cfg, struct probe_tls *tls, bool keep,
			struct agent_backend **list, struct err *e)
{
	unsigned int n = a->config ? a->config->n_backends : 0;

	for (unsigned int i = 0; i < cfg->n_backends; i++) {
		const struct config_backend *one = &cfg->backends[i];
		const struct agent_backend *before =
			agent_backend_find(a->backends, n, &one->endpoint);
		int r;

		if (!before)
			before = agent_backend_find(a->removed, a->n_removed, &one->endpoint);
		if (before && keep)
			continue;
		r = agent_make_backend(a, cfg, &one->endpoint, tls, before, &list[i], e);
		if (r)
			return r;
		if (!before)
			adopt_health(a, one->weight, list[i]);
	}
	return 0;
}

/* Fills the gaps of list with the existing backends, and frees the rest. */
void agent_replace_backends(struct agent *a, const struct config *cfg, struct agent_backend **list)
{
	unsigned int n = a->config ? a->config->n_backends : 0;
	/*
	 * At start the state is unknown, so probe at once. Later all nodes may get the same change,
	 * so spread the probes.
	 */
	unsigned int within_ms = a->config ? cfg->probe.interval_ms : 0;

	for (unsigned int i = 0; i < cfg->n_backends; i++) {
		if (list[i]) {
			agent_backend_start(list[i], within_ms);
			continue;
		}
		for (unsigned int k = 0; k < n && !list[i]; k++) {
			if (!a->backends[k] ||
			    !endpoint_equal(&a->backends[k]->endpoint, &cfg->backends[i].endpoint))
				continue;
			list[i] = a->backends[k];
			a->backends[k] = NULL;
		}
		if (!list[i])
			list[i] = agent_take_back(a, &cfg->backends[i].endpoint);
	}
	for (unsigned int k = 0; k < n; k++) {
		if (a->backends[k] && !config_has_backend(cfg, &a->backends[k]->endpoint)) {
			agent_keep_removed(a, a->backends[k]);
			a->backends[k] = NULL;
		}
	}
	agent_stop_backends(a);
	a->backends = list;
}
