/* SPDX-License-Identifier: BSD-2-Clause */
/* Makes, replaces and frees the backends of a configuration. */
#include "agent/internal.h"

#include <stdlib.h>

#include "balance/backend_status.h"
#include "base/clock.h"
#include "net/endpoint.h"

/*
 * All nodes may get the same change. What is dialled for it is dialled at a random time within this
 * one, whatever the interval of the probes: 10,000 nodes make 2,000 handshakes a second.
 */
#define SPREAD_MS 5000

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
		    struct probe_tls *tls, struct agent_backend **ret, struct err *e)
{
	const struct agent_backend *before = agent_find_resting(a, &one->endpoint);
	int r = agent_make_backend(a, cfg, &one->endpoint, tls, before, ret, e);

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

/* Calls f for each backend that exists, until one fails. Returns what that one has returned. */
static int each_existing(struct agent *a, int (*f)(struct agent_backend *b, void *arg), void *arg)
{
	unsigned int n = a->backends && a->config ? a->config->n_backends : 0;
	int r = 0;

	for (unsigned int i = 0; !r && i < n; i++)
		r = f(a->backends[i], arg);
	for (unsigned int i = 0; !r && i < a->n_removed; i++)
		r = f(a->removed[i], arg);
	return r;
}

struct preparation {
	const struct config *cfg;
	struct probe_tls *tls;
	struct err *e;
};

static int prepare(struct agent_backend *b, void *arg)
{
	const struct preparation *p = arg;

	return agent_backend_prepare(b, p->cfg, p->tls, p->e);
}

static int forgo(struct agent_backend *b, void *arg)
{
	(void)arg;
	agent_backend_forgo(b);
	return 0;
}

static int renew(struct agent_backend *b, void *arg)
{
	(void)arg;
	agent_backend_renew(b, SPREAD_MS);
	return 0;
}

int agent_prepare_backends(struct agent *a, const struct config *cfg, struct probe_tls *tls,
			   struct err *e)
{
	bool same = tls == a->tls && config_same_connection(a->config, cfg);
	struct preparation p = { cfg, same ? NULL : tls, e };

	if (same && config_same_probe(a->config, cfg))
		return 0;
	return each_existing(a, prepare, &p);
}

void agent_forgo_backends(struct agent *a)
{
	each_existing(a, forgo, NULL);
}

void agent_renew_backends(struct agent *a)
{
	each_existing(a, renew, NULL);
}

/* Makes the backends that are new. Leaves gaps in list for the others. */
int agent_make_backends(struct agent *a, const struct config *cfg, struct probe_tls *tls,
			struct agent_backend **list, struct err *e)
{
	unsigned int n = a->config ? a->config->n_backends : 0;

	for (unsigned int i = 0; i < cfg->n_backends; i++) {
		const struct config_backend *one = &cfg->backends[i];
		int r;

		if (agent_backend_find(a->backends, n, &one->endpoint) ||
		    agent_backend_find(a->removed, a->n_removed, &one->endpoint))
			continue;
		r = make_one(a, cfg, one, tls, &list[i], e);
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

static bool some_ready(const struct agent *a)
{
	for (unsigned int i = 0; a->config && i < a->config->n_backends; i++)
		if (agent_backend_health(a->backends[i])->state == KLB_STATE_READY)
			return true;
	return false;
}

/* Fills the gaps of list with the existing backends, and lets go of the rest. */
void agent_replace_backends(struct agent *a, const struct config *cfg, struct agent_backend **list)
{
	unsigned int n = a->config ? a->config->n_backends : 0;
	/* Where nobody is known to serve, clients wait for the first answer. */
	unsigned int within_ms = some_ready(a) ? SPREAD_MS : 0;

	for (unsigned int i = 0; i < cfg->n_backends; i++) {
		if (list[i])
			agent_backend_start(list[i], within_ms);
		else
			list[i] = take_existing(a, &cfg->backends[i].endpoint);
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
