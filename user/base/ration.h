/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How often something may happen: so many times at once, and then once in each period. What comes
 * too soon costs nothing, and waits; see pace.h for what is at fault.
 */
#ifndef KUBELB_RATION_H
#define KUBELB_RATION_H

#include <stdbool.h>

#include <linux/types.h>

struct ration_rules {
	unsigned int burst; /* at once after a quiet time; not 0 */
	unsigned int every_ms; /* once in this time afterwards */
};

/* All zero at the start, which is a quiet time. */
struct ration {
	__u64 rested_ns; /* from when on a whole burst may come */
};

/* Counts one. Returns false, and counts nothing, when it comes too soon. */
bool ration_take(struct ration *r, const struct ration_rules *rules, __u64 now_ns);

/* After how many milliseconds the next one may come; 0: now. */
unsigned int ration_wait_ms(const struct ration *r, const struct ration_rules *rules, __u64 now_ns);

#endif
