/* SPDX-License-Identifier: BSD-2-Clause */
/* Makes one backend of the agent, and handles what it reports and asks for. */
#include "agent/internal.h"

#include "agent/end_connections.h"
#include "base/clock.h"

static void on_changed(void *arg, bool state_changed)
{
	struct agent *a = arg;

	if (state_changed) {
		agent_apply(a);
		agent_start_evicting(a);
		agent_check_relayed(a);
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

/* A look at a dead backend's connections is followed by a rest of so many times its length. */
#define REST_TIMES 19

/*
 * Somebody who holds very many connections to a dead backend must not keep the agent busy: probes
 * of it go on failing, and each asks. Before the verdict the look is always a new one.
 */
static __u64 look_for_data(struct agent *a, const struct plan_backend *b)
{
	struct agent_data *d = &a->data;
	__u64 began = clock_cpu_ns();

	if (b->value.state == KLB_STATE_DEAD && clock_now_ns() < d->rested_ns)
		return d->last_ns[b->id];
	d->last_ns[b->id] = agent_last_data_ns(a->dp, b->id, &b->value.endpoint);
	d->rested_ns = clock_now_ns() + REST_TIMES * (clock_cpu_ns() - began);
	return d->last_ns[b->id];
}

static __u64 on_last_data(void *arg, const struct klb_endpoint *backend)
{
	struct agent *a = arg;
	const struct plan_backend *b = plan_find(&a->state->applied, backend);
	struct klb_stats stats;

	if (!a->dp || !b || datapath_read_stat(a->dp, b->id, &stats, NULL) || !stats.active)
		return 0;
	return look_for_data(a, b);
}

static bool on_others_alive(void *arg, const struct agent_backend *b, __u64 since_ns)
{
	struct agent *a = arg;
	bool others = false;

	for (unsigned int i = 0; a->backends && i < a->config->n_backends; i++) {
		if (!a->backends[i] || a->backends[i] == b)
			continue;
		if (agent_backend_alive_ns(a->backends[i]) >= since_ns)
			return true;
		others = true;
	}
	return !others;
}

static void on_reached(void *arg, struct agent_backend *b)
{
	agent_review_ejection(arg, b);
}

int agent_make_backend(struct agent *a, const struct config *cfg,
		       const struct klb_endpoint *endpoint, struct probe_tls *tls,
		       const struct agent_backend *before, struct agent_backend **ret,
		       struct err *e)
{
	static const struct agent_backend_ops ops = { .changed = on_changed,
						      .last_answer_ns = on_last_answer,
						      .last_data_ns = on_last_data,
						      .others_alive = on_others_alive,
						      .reached = on_reached };
	int r = agent_backend_new(a->base, cfg, endpoint, tls, &ops, a, ret, e);

	/* Backends that stay keep their health over a reload. */
	if (!r && before)
		agent_backend_inherit(*ret, before);
	return r;
}
