/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Do the kernel's counts agree with the sockets? `active` and `connecting` are counted up
 * and down as sockets come and go; the records on the sockets say who is there. The two
 * differ only after something that no program could see: kubelb-load killed half-way, or
 * moved to a cgroup that some of the sockets are not in. Pure.
 */
#ifndef KUBELB_RECONCILE_H
#define KUBELB_RECONCILE_H

#include <stdbool.h>

#include "net/connection.h"

/* What the last look has found, by id: a difference counts when two looks agree on it. */
struct reconcile {
	struct {
		__s64 active, connecting;
		bool differs;
	} last[KLB_MAX_IDS];
};

/*
 * One look: the counters read before and after the list of sockets was. What moved in
 * between is not judged. Fills ret (room for KLB_MAX_IDS) with what to correct now, and
 * returns how many. *ret_again: whether a second look should follow soon.
 */
unsigned int reconcile_compare(struct reconcile *a, const struct klb_stats *before,
			       const struct klb_stats *after, const struct klb_connection *list,
			       unsigned int n, struct klb_adjustment *ret, bool *ret_again);

#endif
