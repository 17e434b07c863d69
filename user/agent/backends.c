/* SPDX-License-Identifier: BSD-2-Clause */
/* Makes, replaces and frees the backends of a configuration, and handles what they report. */
#include "agent/internal.h"

#include <stdlib.h>

#include "agent/end_connections.h"
#include "balance/backend_status.h"
#include "base/clock.h"
#include "net/endpoint.h"

static void on_changed(void *arg, bool state_changed)
{
	struct agent *a = arg;

	if (state_changed) {
		agent_apply(a);
		agent_start_evicting(a);
	} else
		a->dirty = true;
}

static __u64 on_last_answer(void *arg, const struct klb_endpoint *backend)
{
	struct agent *a = arg;
	const struct plan_backend *b = plan_find(&a->state->applied, backend);
	struct klb_stats stats;

	if (!a->dp || !b || datapath_read_stat(a->dp, b->id, &stats, NULL))
		return 0;
	return stats.last_answer_ns;
}

static __u64 on_last_data(void *arg, const struct klb_endpoint *backend)
{
	struct agent *a = arg;
	const struct plan_backend *b = plan_find(&a->state->applied, backend);
	struct klb_stats stats;

	if (!a->dp || !b || datapath_read_stat(a->dp, b->id, &stats, NULL) || !stats.active)
		return 0;
	return agent_last_data_ns(a->dp, b->id);
}

/*
 * Backends that stay keep their health over a reload. At start the health comes from the maps, if
 * the agent that wrote it was alive until now.
 */
static void inherit_health(const struct agent *a, const struct config_backend *cfg,
			   struct agent_backend *b, const struct agent_backend *before)
{
	const struct plan_backend *seen = plan_find(&a->state->applied, &cfg->endpoint);

	if (before)
		agent_backend_inherit(b, before);
	else if (seen && !a->config &&
		 backend_status_agent_alive(&a->state->control, clock_now_ns()))
		agent_backend_adopt(b, &seen->value, cfg->weight);
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
	static const struct agent_backend_ops ops = { .changed = on_changed,
						      .last_answer_ns = on_last_answer,
						      .last_data_ns = on_last_data };
	unsigned int n = a->config ? a->config->n_backends : 0;

	for (unsigned int i = 0; i < cfg->n_backends; i++) {
		const struct config_backend *one = &cfg->backends[i];
		const struct agent_backend *before =
			agent_backend_find(a->backends, n, &one->endpoint);
		int r;

		if (before && keep)
			continue;
		r = agent_backend_new(a->base, cfg, i, tls, &ops, a, &list[i], e);
		if (r)
			return r;
		inherit_health(a, one, list[i], before);
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
	}
	agent_stop_backends(a);
	a->backends = list;
}
