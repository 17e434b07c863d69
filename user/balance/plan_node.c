/* SPDX-License-Identifier: BSD-2-Clause */
/* Makes a plan for this node. */
#include "balance/plan_node.h"

#include <string.h>

#include "balance/backend_status.h"
#include "base/clock.h"
#include "host/node.h"

/* Which ids the operator has drained, or given a weight. */
static void find_held(const struct datapath_state *state, bool *ret)
{
	memset(ret, 0, KLB_MAX_IDS * sizeof(*ret));
	for (unsigned int i = 0; i < state->applied.n_backends; i++)
		ret[state->applied.backends[i].id] =
			backend_status_is_held(state, &state->applied.backends[i]);
}

int plan_for_node(const struct config *cfg, const struct datapath_state *state,
		  const struct health *health, const struct plan_watched *watched,
		  unsigned int n_watched, bool new_config, struct plan *ret, struct err *e)
{
	struct klb_endpoint endpoints[KLB_MAX_BACKENDS];
	bool local[KLB_MAX_BACKENDS], held[KLB_MAX_IDS];
	__u64 n_open[KLB_MAX_IDS];
	const struct plan_input in = {
		.config = cfg,
		.health = health,
		.watched = watched,
		.n_watched = n_watched,
		.local = local,
		.applied = &state->applied,
		.open = n_open,
		.held = held,
		.new_config = new_config,
		.node = node_identity(),
		.now_ns = clock_now_ns(),
	};

	for (int id = 0; id < KLB_MAX_IDS; id++)
		n_open[id] = state->stats[id].active + state->stats[id].connecting;
	find_held(state, held);
	config_endpoints(cfg, endpoints);
	node_is_local(endpoints, cfg->n_backends, local);
	return plan_make(&in, ret, e);
}
