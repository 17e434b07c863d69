/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Attaches the data path for a configuration: collects the backends, makes a plan and applies it.
 */
#include "load/attach.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "balance/endpoint_source.h"
#include "balance/local_list.h"
#include "balance/plan_node.h"
#include "base/clock.h"
#include "discovery/discovery.h"
#include "datapath/datapath.h"
#include "balance/backend_status.h"
#include "net/netns.h"
#include "host/node.h"

/* What discovery has found earlier, if there is anything, otherwise the configuration's own. */
static unsigned int list_backends(const struct config *cfg, const struct datapath_state *state,
				  struct attach_report *rep, struct klb_endpoint *ret)
{
	struct klb_endpoint cached[KLB_MAX_BACKENDS];
	struct err cache_error = { "" };
	unsigned int n_cached = 0, n;
	int r = discovery_cached_list(cfg, cached, &n_cached, &cache_error);

	rep->from_cache = n_cached > 0;
	rep->seeds = 0;
	/* A missing cache is normal and not reported. */
	snprintf(rep->cache_error, sizeof(rep->cache_error), "%s",
		 r && r != -ENOENT ? cache_error.text : "");
	if (n_cached && endpoint_source_is_cluster(&state->control, clock_now_ns())) {
		memcpy(ret, cached, n_cached * sizeof(*ret));
		return n_cached;
	}
	n = endpoint_source_with_seeds(cfg, cached, n_cached, ret);
	if (n_cached)
		rep->seeds = n - n_cached;
	return n;
}

static int with_known_backends(const struct config *cfg, const struct datapath_state *state,
			       struct config **ret, struct attach_report *rep, struct err *e)
{
	struct klb_endpoint list[KLB_MAX_BACKENDS];
	unsigned int n = list_backends(cfg, state, rep, list);
	bool some_local;

	n = local_list_apply(cfg, &state->applied, node_is_local, list, n, &some_local);
	rep->local_missing = cfg->local == KLB_LOCAL_ONLY && n && !some_local;
	return config_with_backends(cfg, list, n, ret, e);
}

int attach_run(const struct config *cfg, const struct datapath_load_options *options,
	       struct attach_report *ret, struct err *e)
{
	struct datapath_load_options o = *options;
	const struct datapath_state *state;
	struct config *effective = NULL;
	struct datapath_load *load;
	int r;

	if (!o.cgroup)
		o.cgroup = cfg->cgroup;
	r = datapath_load_begin(&o, &load, e);
	if (r)
		return r;
	state = datapath_load_state(load);
	ret->upgrade = datapath_load_is_upgrade(load);
	ret->dry_run = o.dry_run;
	ret->n_features = datapath_features_refused(datapath_load_refused(load), ret->features,
						    DATAPATH_FEATURES_MAX);
	ret->agent_alive = backend_status_agent_alive(&state->control, clock_now_ns());
	ret->before = state->applied;
	snprintf(ret->moved, sizeof(ret->moved), "%s", datapath_load_moved(load));
	ret->first_in_container = !ret->upgrade && !netns_is_initial() && netns_pids_are_hidden();
	snprintf(ret->cgroup, sizeof(ret->cgroup), "%s", datapath_load_cgroup(load));
	r = with_known_backends(cfg, state, &effective, ret, e);
	if (!r)
		r = plan_for_node(effective, state, NULL, NULL, 0, true, &ret->after, e);
	if (!r && !o.dry_run)
		r = datapath_load_commit(load, &ret->after, e);
	datapath_load_free(load);
	config_free(effective);
	return r;
}
