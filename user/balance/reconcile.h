/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Compares the kernel's counts with the sockets. The kernel counts `active` and `connecting` up and
 * down as sockets come and go; the records on the sockets tell which are there. The two differ only
 * after something that no program could see: kubelb-load was killed half-way, or moved the programs
 * to a cgroup that some of the sockets are not in. Pure.
 */
#ifndef KUBELB_RECONCILE_H
#define KUBELB_RECONCILE_H

#include <stdbool.h>

#include "net/connection.h"

/*
 * What the last comparison has found, by id. A difference counts when two comparisons agree on it.
 */
struct reconcile {
	struct {
		__s64 active, connecting;
		bool differs;
	} last[KLB_MAX_IDS];
};

/*
 * Compares once. before and after: the counters read before and after the list of sockets. Backends
 * whose counters changed in between are skipped. Fills ret (KLB_MAX_IDS elements) with the
 * corrections to make now, and returns how many. *ret_again: whether another comparison should
 * follow soon.
 */
unsigned int reconcile_compare(struct reconcile *a, const struct klb_stats *before,
			       const struct klb_stats *after, const struct klb_connection *list,
			       unsigned int n, struct klb_adjustment *ret, bool *ret_again);

#endif
