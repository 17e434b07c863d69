/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Attaches the data path for a configuration. kubelb-load does this, and so does kubelb-agent when
 * nothing is attached.
 */
#ifndef KUBELB_ATTACH_H
#define KUBELB_ATTACH_H

#include "config/config.h"
#include "datapath/datapath.h"
#include "base/err.h"
#include "balance/plan.h"
#include "load/preflight.h"

/* What attach_run has done, or would do. */
struct attach_report {
	bool upgrade; /* programs were attached already, and replaced in place */
	bool dry_run;
	bool refused; /* attach_run has failed because the kernel refuses it, and nothing is
			 attached */
	bool agent_alive; /* an agent manages the attached data path */
	bool from_cache; /* the backends are those that discovery has found earlier */
	unsigned int seeds; /* the number of the configuration's own backends that are used beside
			       them */
	bool local_missing; /* local: only, and no backend has an address of this node */
	char cache_error[ERR_TEXT_MAX]; /* why the cache is not used although it exists; or "" */
	char cgroup[512];
	char moved[200]; /* from another network namespace: in words; or "" */
	struct preflight preflight;
	bool misconfigured; /* attach_run has failed because of what the configuration says */
	bool first_in_container; /* a first attachment, for a container's own network namespace */
	struct datapath_feature
		features[DATAPATH_FEATURES_MAX]; /* those that a kernel may refuse */
	unsigned int n_features;
	struct plan before; /* empty for a first attachment */
	struct plan after;
};

/*
 * Attaches, or updates what is attached to match cfg. If discovery has left a list in its cache,
 * the backends are those of the list and cfg's own; while a living agent uses the list alone, only
 * those of the list. The options' cgroup is used in place of the configuration's; NULL for none.
 * dry_run: does everything but the last step. A first attachment, and a dry run, has the preflight
 * of that mode; one that would only update is not refused by it. Returns 0, or a negative errno
 * with e; nothing has changed then.
 */
int attach_run(const struct config *cfg, const struct datapath_load_options *options,
	       enum preflight_mode mode, struct attach_report *ret, struct err *e);

#endif
