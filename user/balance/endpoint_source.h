/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Decides which backends are used when discovery is on: those of the list that it has found, in the
 * cluster now or in the cache from an earlier time, and the configuration's own, which are called
 * seeds. Until the agent has heard from the cluster both are used, because either may be years old.
 * After that only the list is used, as long as one of its backends is usable; the seeds are the
 * last resort.
 */
#ifndef KUBELB_ENDPOINT_SOURCE_H
#define KUBELB_ENDPOINT_SOURCE_H

#include <stdbool.h>

#include "config/config.h"
#include "base/err.h"

/*
 * Copies the list (n endpoints) to ret, followed by c's own backends that are not in the list, as
 * far as there is space. ret has KLB_MAX_BACKENDS elements. Returns how many there are.
 */
unsigned int endpoint_source_with_seeds(const struct config *c, const struct klb_endpoint *list,
					unsigned int n, struct klb_endpoint *ret);

/*
 * Whether the maps hold the list of the cluster, from an agent that is alive. The cache has the
 * same list then.
 */
bool endpoint_source_is_cluster(const struct klb_control *control, __u64 now_ns);

/* --- when the seeds count ------------------------------------------------------------- */

/*
 * The seeds are used again when no backend of the list has been usable for this many probe
 * intervals, and for at least this long.
 */
#define ENDPOINT_SOURCE_INTERVALS 2
#define ENDPOINT_SOURCE_PATIENCE_MIN_MS 5000

/* All zero at the start. */
struct endpoint_source {
	bool list_alone; /* the list is used without the seeds */
	bool seeds_added; /* ENDPOINT_SOURCE_ADD_SEEDS was returned since the list was last usable
			   */
	__u64 unusable_since_ns; /* 0: a backend of the list is usable */
};

struct endpoint_source_facts {
	bool heard; /* the agent has heard from the cluster since it started */
	bool usable; /* a backend of the list is ready, or alive at least */
	bool has_seeds; /* there are seeds that are not in the list */
	unsigned int interval_ms; /* between probes */
	__u64 now_ns; /* of CLOCK_MONOTONIC */
};

enum endpoint_source_step {
	ENDPOINT_SOURCE_UNCHANGED,
	ENDPOINT_SOURCE_DROP_SEEDS, /* stop using the seeds */
	ENDPOINT_SOURCE_ADD_SEEDS, /* no backend of the list is usable: use the seeds too; returned
				      once */
};

/* Call it repeatedly. Pure. */
enum endpoint_source_step endpoint_source_review(struct endpoint_source *s,
						 const struct endpoint_source_facts *f);

#endif
