/* SPDX-License-Identifier: BSD-2-Clause */
/* How fast something may come: so much at once, and then so much a second. */
#ifndef KUBELB_PACE_H
#define KUBELB_PACE_H

#include <stdbool.h>

#include <linux/types.h>

struct pace_limit {
	unsigned int burst, per_s; /* per_s: at least 1 */
};

/* Begins as zero. */
struct pace {
	__u64 until_ns; /* when all that has come would have come at per_s */
};

/* Counts n more at now_ns (a clock that does not go back). False: more than the limit. */
bool pace_take(struct pace *p, const struct pace_limit *limit, unsigned int n, __u64 now_ns);

#endif
