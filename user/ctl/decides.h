/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Who decides where connects go: what test connects to the frontends have shown, and whose programs
 * run beside KubeLB's.
 */
#ifndef KUBELB_DECIDES_H
#define KUBELB_DECIDES_H

#include <stdio.h>

#include <jansson.h>

#include "datapath/datapath.h"

#define DECIDES_OTHERS_MAX 32

struct decides {
	struct datapath_trial trials[KLB_MAX_FRONTENDS];
	unsigned int n_trials;
	struct datapath_other others[DECIDES_OTHERS_MAX];
	int n_others; /* -EPERM: they cannot be listed */
	struct datapath_running running[DATAPATH_RUNNING_MAX]; /* if another is of KubeLB's */
	unsigned int n_running;
	__u64 serial, taken_ns; /* of the configuration, and when; 0: not yet */
};

/*
 * Makes the test connects and lists the programs, unless that was done for the same configuration
 * less than ten seconds ago.
 */
void decides_take(struct decides *d, const struct datapath *dp, const struct datapath_state *s,
		  const struct datapath_link *links, int n_links, __u64 now_ns);

/* What all test connects together say. */
enum decides_result { DECIDES_KUBELB, DECIDES_ANOTHER, DECIDES_UNKNOWN };
enum decides_result decides_result(const struct decides *d);

/* Print the lines of `status` that begin with `connects` and `other`. */
void decides_print(const struct decides *d, FILE *to);

json_t *decides_json_trials(const struct decides *d);
/* null when they cannot be listed. */
json_t *decides_json_others(const struct decides *d);

#endif
