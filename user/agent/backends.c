/* SPDX-License-Identifier: BSD-2-Clause */
/* Makes, replaces and frees the backends of a configuration. */
#include "agent/internal.h"

#include <stdlib.h>

#include "balance/backend_status.h"
#include "base/clock.h"
#include "net/endpoint.h"

/* The health comes from the maps, if the agent that wrote it was alive until now. */
static void adopt_health(const struct agent *a, unsigned int weight, struct agent_backend *b)
{
	const struct plan_backend *seen = plan_find(&a->state->applied, &b->endpoint);

	if (!seen)
		return;
	/* This agent itself, or one before it, has written what is known of one that left. */
	if (a->config ? seen->removed
		      : backend_status_agent_alive(&a->state->control, clock_now_ns()))
		agent_backend_adopt(b, &seen->value, weight);
}

/* Makes one; what is known of its address goes on. */
static int make_one(struct agent *a, const struct config *cfg, const struct config_backend *one,
		    struct probe_tls *tls, const struct agent_backend *before,
		    struct agent_backend **ret, struct err *e)
{
	int r;

	if (!before)
		before = agent_find_resting(a, &one->endpoint);
	r = agent_make_backend(a, cfg, &one->endpoint, tls, before, ret, e);
	if (r)
		return r;
	if (!before)
		adopt_health(a, one->weight, *ret);
	if (agent_left_ns(a, &one->endpoint))
		agent_backend_came_back(*ret);
	return 0;
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
		r = make_one(a, cfg, one, tls, before, &list[i], e);
		if (r)
			return r;
	}
	return 0;
}

/* The existing backend with this address, taken out of where it is; NULL: there is none. */
static struct agent_backend *take_existing(struct agent *a, const struct klb_endpoint *endpoint)
{
	unsigned int n = a->config ? a->config->n_backends : 0;
	struct agent_backend *b;

	for (unsigned int k = 0; k < n; k++) {
		b = a->backends[k];
		if (!b || !endpoint_equal(&b->endpoint, endpoint))
			continue;
		a->backends[k] = NULL;
		return b;
	}
	b = agent_take_back(a, endpoint);
	if (b)
		agent_backend_came_back(b);
	return b;
}

/* Fills the gaps of list with the existing backends, and lets go of the rest. */
void agent_replace_backends(struct agent *a, const struct config *cfg, struct agent_backend **list)
{
	unsigned int n = a->config ? a->config->n_backends : 0;
	/*
	 * At start the state is unknown, so probe at once. Later all nodes may get the same change,
	 * so spread the probes.
	 */
	unsigned int within_ms = a->config ? cfg->probe.interval_ms : 0;

	for (unsigned int i = 0; i < cfg->n_backends; i++) {
		struct agent_backend *existing = take_existing(a, &cfg->backends[i].endpoint);

		if (list[i]) {
			agent_backend_free(existing);
			agent_backend_start(list[i], within_ms);
		} else {
			list[i] = existing;
		}
		agent_wake(a, &cfg->backends[i].endpoint);
	}
	for (unsigned int k = 0; k < n; k++) {
		if (a->backends[k]) {
			agent_keep_removed(a, a->backends[k]);
			a->backends[k] = NULL;
		}
	}
	agent_stop_backends(a);
	a->backends = list;
}
