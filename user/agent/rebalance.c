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
	    !agent_read_stats(a, b, &stats))
		return false;
	*ret = (struct rebalance_load){ .id = b->id,
					.active = stats.active,
					.weight = agent_share_weight(a, b),
					.rank = b->rank,
					.ready_ns = h->since_ns };
	return true;
}

/*
 * Reads the loads if every backend is ready and has its full weight. Returns their number,
 * otherwise 0. A preferred backend (the one on this node) should have all connections: failback.c
 * sees to that. It begins anywhere, so that nodes with the same loads do not all take one from the
 * same backend.
 */
static unsigned int read_loads(const struct agent *a, struct rebalance_load *ret)
{
	unsigned int n = a->config->n_backends, first = random_between(0, n - 1);

	/* With the other policies a client may choose the same backend again. */
	if (a->config->policy != KLB_POLICY_LEAST_CONN ||
	    (a->dp && datapath_read_admin(a->dp, a->state->admin, NULL)))
		return 0;
	for (unsigned int i = 0; i < a->config->n_backends; i++) {
		const struct plan_backend *b = agent_planned(a, i);

		if (b && b->preferred)
			return 0;
	}
	for (unsigned int i = 0; i < n; i++)
		if (!read_load(a, (first + i) % n, &ret[i]))
			return 0;
	return n;
}

void agent_forget_moving(struct agent *a)
{
	look_cancel(&a->moving.look);
}

static void begin_list(void *arg)
{
	struct agent *a = arg;

	a->moving.found = false;
}

static int take_oldest(const struct klb_connection *c, void *arg)
{
	struct agent *a = arg;
	struct agent_moving *m = &a->moving;

	if (!rebalance_is_older(c, m->id, m->found ? &m->oldest : NULL))
		return 0;
	m->oldest = *c;
	m->found = true;
	return 0;
}

static void on_listed(void *arg, int result, const struct datapath_found *found,
		      const struct err *e)
{
	struct agent *a = arg;
	struct agent_batch batch = { .n = 1 };
	struct agent_ended ended;

	(void)found;
	(void)e;
	if (result || !a->moving.found)
		return;
	batch.at[0] = a->moving.oldest;
	agent_end_picked(a, &batch, &ended, NULL);
	agent_count_ended(a, &ended, METRICS_ENDED_REBALANCE);
}

/*
 * A client that cannot go elsewhere, because of its address family for example, comes back each
 * time. One that can comes back every second time.
 */
static const struct ration_rules displacing = { .burst = 8, .every_ms = 10 * 60 * 1000 };

/*
 * The backend that one connection is to leave so that the fleet is even; 0: none. Short connections
 * come and go: what is so at two looks in a row is no work of theirs.
 */
static __u32 choose_displaced(struct agent *a, const struct rebalance_load *loads, unsigned int n)
{
	__u32 id = rebalance_displaced(loads, n), before = a->moving.displaced;

	a->moving.displaced = id;
	if (!id || id != before)
		return 0;
	return ration_take(&a->moving.displacing, &displacing, clock_now_ns()) ? id : 0;
}

/* The backend that one connection is to leave; 0: none. */
static __u32 choose(struct agent *a)
{
	struct rebalance_load loads[KLB_MAX_BACKENDS];
	unsigned int n = read_loads(a, loads);
	__u32 id = rebalance_overloaded(loads, n);

	return id ? id : choose_displaced(a, loads, n);
}

void agent_rebalance(struct agent *a)
{
	static const struct look_ops ops = {
		.visitor = { .begin = begin_list, .take = take_oldest }, .done = on_listed
	};
	struct datapath_list_options how = { 0 };
	const struct plan_backend *b;
	__u64 now = clock_now_ns();

	if (!a->config->rebalance || now < a->rebalance_ns ||
	    now < look_rested_ns(&a->moving.look) || look_is_running(&a->moving.look))
		return;
	a->rebalance_ns = now + random_around(REBALANCE_MS, JITTER_PERCENT) * NS_PER_MS;
	a->moving.id = choose(a);
	b = a->moving.id ? plan_find_id(&a->state->applied, a->moving.id) : NULL;
	if (!b)
		return;
	how.backend = &b->value.endpoint;
	agent_look(a, &a->moving.look, &how, &ops);
}
