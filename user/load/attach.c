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
#include "balance/plausible.h"
#include "balance/plan_node.h"
#include "base/clock.h"
#include "discovery/discovery.h"
#include "datapath/datapath.h"
#include "balance/backend_status.h"
#include "net/netns.h"
#include "host/node.h"

/* Without a list from before it is better to go on than to wait for a disk. */
#define CACHE_WAIT_MS 5000

/* What discovery has found earlier. */
struct known {
	struct klb_endpoint list[KLB_MAX_BACKENDS];
	unsigned int n;
};

static void read_cache(const struct config *cfg, struct known *ret, struct attach_report *rep)
{
	struct err e = { "" };
	int r = discovery_cached_list_within(CACHE_WAIT_MS, cfg, ret->list, &ret->n, &e);

	ret->n = plausible_keep(cfg, node_is_local, ret->list, ret->n);
	rep->from_cache = ret->n > 0;
	/* A missing cache is normal and not reported. */
	snprintf(rep->cache_error, sizeof(rep->cache_error), "%s", r && r != -ENOENT ? e.text : "");
}

/* What discovery has found earlier, if there is anything, otherwise the configuration's own. */
static unsigned int list_backends(const struct config *cfg, const struct datapath_state *state,
				  const struct known *known, struct attach_report *rep,
				  struct klb_endpoint *ret)
{
	unsigned int n;

	rep->seeds = 0;
	if (known->n && endpoint_source_is_cluster(&state->control, clock_now_ns())) {
		memcpy(ret, known->list, known->n * sizeof(*ret));
		return known->n;
	}
	n = endpoint_source_with_seeds(cfg, known->list, known->n, ret);
	if (known->n)
		rep->seeds = n - known->n;
	return n;
}

static int with_known_backends(const struct config *cfg, const struct datapath_state *state,
			       const struct known *known, struct config **ret,
			       struct attach_report *rep, struct err *e)
{
	struct klb_endpoint list[KLB_MAX_BACKENDS];
	unsigned int n = list_backends(cfg, state, known, rep, list);
	bool some_local;

	n = local_list_apply(cfg, &state->applied, node_is_local, list, n, &some_local);
	rep->local_missing = cfg->local == KLB_LOCAL_ONLY && n && !some_local;
	return config_with_backends(cfg, list, n, ret, e);
}

static void describe(const struct datapath_load *load, bool dry_run, struct attach_report *ret)
{
	const struct datapath_state *state = datapath_load_state(load);

	ret->upgrade = datapath_load_is_upgrade(load);
	ret->dry_run = dry_run;
	ret->n_features = datapath_features_refused(datapath_load_refused(load), ret->features,
						    DATAPATH_FEATURES_MAX);
	ret->agent_alive = backend_status_agent_alive(&state->control, clock_now_ns());
	ret->before = state->applied;
	snprintf(ret->moved, sizeof(ret->moved), "%s", datapath_load_moved(load));
	ret->first_in_container = !ret->upgrade && !netns_is_initial() && netns_pids_are_hidden();
	snprintf(ret->cgroup, sizeof(ret->cgroup), "%s", datapath_load_cgroup(load));
}

/* What is attached would send connects to the frontends to the backends. */
static void add_to_preflight(const struct plan *plan, bool attached, struct preflight *ret)
{
	for (unsigned int i = 0; i < plan->n_backends; i++)
		if (!plan->backends[i].removed && plan->backends[i].value.weight)
			preflight_add_backend(ret, &plan->backends[i].value.endpoint);
	for (unsigned int i = 0; !attached && i < plan->n_frontends; i++)
		preflight_add_frontend(ret, &plan->frontends[i].endpoint);
}

/* The lock is held meanwhile, for two seconds at most: nobody else attaches what is refused here.
 */
static int preflight(const struct config *cfg, enum preflight_mode mode, struct attach_report *rep,
		     struct err *e)
{
	int r;

	if (mode == PREFLIGHT_OFF || (rep->upgrade && !rep->dry_run))
		return 0;
	r = rep->upgrade ? 0 : preflight_check_addresses(cfg, e);
	rep->misconfigured = r;
	if (r)
		return r;
	add_to_preflight(&rep->after, rep->upgrade, &rep->preflight);
	r = preflight_dial(cfg, mode == PREFLIGHT_BOOT && !rep->dry_run, &rep->preflight, e);
	return r || rep->upgrade ? r : preflight_judge(&rep->preflight, mode, cfg->source, e);
}

int attach_run(const struct config *cfg, const struct datapath_load_options *options,
	       enum preflight_mode mode, struct attach_report *ret, struct err *e)
{
	struct datapath_load_options o = *options;
	const struct datapath_state *state;
	struct config *effective = NULL;
	struct datapath_load *load;
	struct known known;
	int r;

	if (!o.cgroup)
		o.cgroup = cfg->cgroup;
	/* Before the lock is taken: a disk may hang. */
	read_cache(cfg, &known, ret);
	r = datapath_load_begin(&o, &load, e);
	if (r) {
		ret->refused = r == -EOPNOTSUPP && !datapath_is_pinned(o.pin_dir);
		return r;
	}
	state = datapath_load_state(load);
	describe(load, o.dry_run, ret);
	r = with_known_backends(cfg, state, &known, &effective, ret, e);
	if (!r)
		r = plan_for_node(effective, state, NULL, NULL, 0, true, &ret->after, e);
	if (!r)
		r = preflight(cfg, mode, ret, e);
	if (!r && !o.dry_run)
		r = datapath_load_commit(load, &ret->after, e);
	datapath_load_free(load);
	config_free(effective);
	return r;
}
