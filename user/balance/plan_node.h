/* SPDX-License-Identifier: BSD-2-Clause */
/* Makes a plan for this node: with its identity, its addresses and the time. */
#ifndef KUBELB_PLAN_NODE_H
#define KUBELB_PLAN_NODE_H

#include "balance/state.h"

/*
 * Plans from state, what is applied now. health: by index of cfg->backends; NULL without
 * probes. watched: see plan_input. new_config: cfg is another configuration than the applied one.
 * Returns as plan_make.
 */
int plan_for_node(const struct config *cfg, const struct datapath_state *state,
		  const struct health *health, const struct plan_watched *watched,
		  unsigned int n_watched, bool new_config, struct plan *ret, struct err *e);

#endif
