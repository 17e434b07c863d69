/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A configuration into an attachment: what kubelb-load does, and kubelb-agent
 * when it finds nothing attached.
 */
#ifndef KUBELB_ATTACH_H
#define KUBELB_ATTACH_H

#include "config/config.h"
#include "datapath/datapath.h"
#include "base/err.h"
#include "balance/plan.h"

/* What attach_run did, or would do. */
struct attach_report {
	bool upgrade; /* programs were attached already, and replaced in place */
	bool dry_run;
	bool agent_alive; /* an agent works on what is attached */
	bool from_cache; /* the backends are those that discovery has found at another time */
	unsigned int seeds; /* and so many of the configuration's own beside them */
	char cache_error[ERR_TEXT_MAX]; /* why the cache is not used, if it is there; or "" */
	char cgroup[512];
	struct datapath_feature features[DATAPATH_FEATURES_MAX]; /* that can be refused */
	unsigned int n_features;
	struct plan before; /* empty for a first attachment */
	struct plan after;
};

/*
 * Attaches, or brings what is attached in line with cfg: where discovery is on
 * and has left a list in its cache, with that; and with cfg's own backends, unless an agent
 * that lives goes by that list alone. cgroup: goes before the
 * configuration's; NULL for none. dry_run: everything up to the last step. Returns
 * 0 or a negative errno with e; nothing has changed then.
 */
int attach_run(const struct config *cfg, const char *pin_dir, const char *cgroup, bool dry_run,
	       struct attach_report *ret, struct err *e);

#endif
