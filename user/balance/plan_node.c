/* SPDX-License-Identifier: BSD-2-Clause */
/* Makes a plan for this node. */
#include "balance/plan_node.h"

#include "base/clock.h"
#include "host/node.h"

int plan_for_node(const struct config *cfg, const struct datapath_state *state,
		  const struct health *health, const struct plan_watched *watched,
		  unsigned int n_watched, bool new_config, struct plan *ret, struct err *e)
{
	struct klb_endpoint endpoints[KLB_MAX_BACKENDS];
	bool local[KLB_MAX_BACKENDS];
	__u64 n_open[KLB_MAX_IDS];
	const struct plan_input in = {
		.config = cfg,
		.health = health,
		.watched = watched,
		.n_watched = n_watched,
		.local = local,
		.applied = &state->applied,
		.open = n_open,
		.new_config = new_config,
		.node = node_identity(),
		.now_ns = clock_now_ns(),
	};

	for (int id = 0; id < KLB_MAX_IDS; id++)
		n_open[id] = state->stats[id].active + state->stats[id].connecting;
	config_endpoints(cfg, endpoints);
	node_is_local(endpoints, cfg->n_backends, local);
	return plan_make(&in, ret, e);
}
