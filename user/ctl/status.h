/* SPDX-License-Identifier: BSD-2-Clause */
/* Prints what is attached and the state of the backends, for people and as JSON. */
#ifndef KUBELB_STATUS_H
#define KUBELB_STATUS_H

#include "ctl/decides.h"
#include "datapath/datapath.h"

/*
 * links, n_links: from datapath_links. features: from datapath_features_in_force. decides: from
 * decides_take.
 */
struct status {
	const struct datapath_state *state;
	const struct datapath_link *links;
	int n_links;
	const struct datapath_feature *features;
	unsigned int n_features;
	const struct decides *decides;
	const char *pin_dir;
	__u64 now_ns;
};

/* Print to stdout. Return 0 or -ENOMEM. */
int status_print_text(const struct status *st);
int status_print_json(const struct status *st, bool compact);

#endif
