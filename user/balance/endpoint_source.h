/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which backends count where discovery is on: the list that it has found, in the cluster or
 * at another time in the cache, and the configuration's own, the seeds, which stay the last
 * resort. Until the cluster is heard both count, as either may be years old; then its list
 * alone, for as long as it leads anywhere.
 */
#ifndef KUBELB_ENDPOINT_SOURCE_H
#define KUBELB_ENDPOINT_SOURCE_H

#include <stdbool.h>

#include "config/config.h"
#include "base/err.h"

/*
 * The list (n of them) and behind it those of c's own backends that it has not, as far as
 * there is room: ret has it for KLB_MAX_BACKENDS. Returns how many that are.
 */
unsigned int endpoint_source_with_seeds(const struct config *c, const struct klb_endpoint *list,
					unsigned int n, struct klb_endpoint *ret);

/* Whether the maps hold the cluster's own word, by an agent that lives: then the cache does. */
bool endpoint_source_is_cluster(const struct klb_control *control, __u64 now_ns);

/* --- when the seeds count ------------------------------------------------------------- */

/* Nobody of the list takes connections for so many probe intervals, and so long at least. */
#define ENDPOINT_SOURCE_INTERVALS 2
#define ENDPOINT_SOURCE_PATIENCE_MIN_MS 5000

/* All 0: nothing is known yet. */
struct endpoint_source {
	bool list_alone; /* the list counts without the seeds */
	bool seeds_added; /* ENDPOINT_SOURCE_ADD_SEEDS, since the list was of use last */
	__u64 idle_ns; /* since when nobody of the list takes connections; 0: somebody does */
};

struct endpoint_source_facts {
	bool heard; /* the cluster, since this program's start */
	bool usable; /* somebody of the list is ready, or lives at least */
	bool has_seeds; /* there are seeds that are not in the list */
	unsigned int interval_ms; /* between probes */
	__u64 now_ns; /* of CLOCK_MONOTONIC */
};

enum endpoint_source_step {
	ENDPOINT_SOURCE_UNCHANGED,
	ENDPOINT_SOURCE_DROP_SEEDS, /* the seeds do not count any more */
	ENDPOINT_SOURCE_ADD_SEEDS, /* the list leads nowhere: the seeds count beside it; once */
};

/* To be called again and again. Pure. */
enum endpoint_source_step endpoint_source_review(struct endpoint_source *b,
						 const struct endpoint_source_facts *f);

#endif
