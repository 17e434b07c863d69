/* SPDX-License-Identifier: BSD-2-Clause */
/* Prints what is attached and the state of the backends, for people and as JSON. */
#ifndef KUBELB_STATUS_H
#define KUBELB_STATUS_H

#include <stdio.h>

#include "ctl/decides.h"
#include "ctl/running.h"
#include "datapath/datapath.h"

/* The agent as the data path: see kubelb.yaml(5), dataPath. */
struct status_relay {
	char why[ERR_TEXT_MAX]; /* it is not the kernel */
	unsigned int n; /* frontends */
	struct {
		struct klb_endpoint frontend;
		char error[ERR_TEXT_MAX]; /* why it does not listen there; "": it does */
	} at[KLB_MAX_FRONTENDS];
};

/* When the certificates expire that the agent has seen: Unix time; 0: none seen. */
struct status_certificates {
	__s64 backends[KLB_MAX_IDS]; /* by id */
	__s64 own; /* of the agent's probes, as clients */
	__u64 wall_ns; /* Unix time now */
};

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
	struct datapath_lock_holder lock; /* pid 0: nobody that can be seen holds it */
	const char *pin_dir;
	const struct status_relay *relay; /* NULL: the kernel is the data path */
	const struct status_certificates *certificates; /* NULL: only the agent knows */
	const char *http; /* who has taken the agent's http address; NULL: nobody known */
	const struct running *running;
	bool wide; /* text: with all columns */
	__u64 now_ns;
};

/* The document, or NULL without memory. */
json_t *status_json(const struct status *st);

/* Both return 0 or -ENOMEM. */
int status_print_text(const struct status *st, FILE *to);
int status_print_json(const struct status *st, bool compact, FILE *to);

#endif
