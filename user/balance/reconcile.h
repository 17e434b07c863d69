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

#include <kubelb/abi.h>

/*
 * before: the counters, read before the sockets are looked at; the caller fills it in. seen: what
 * the records of the sockets say. last: what the last comparison has found; a difference counts
 * when two comparisons agree on it. seen and last by id.
 */
struct reconcile {
	struct klb_stats before[KLB_MAX_IDS];
	struct {
		__u64 active, connecting;
	} seen[KLB_MAX_IDS];
	struct {
		__s64 active, connecting;
		bool differs;
	} last[KLB_MAX_IDS];
};

/* Nothing is seen yet. */
void reconcile_begin(struct reconcile *a);

/*
 * Counts one socket, by its record. Those of the id's earlier owner are skipped
 * (klb_stats.generation).
 */
void reconcile_count(struct reconcile *a, const struct klb_socket *rec);

/*
 * Compares once, when every socket was counted. after: the counters read then. Backends whose
 * counters changed in between are skipped. Fills ret (KLB_MAX_IDS elements) with the corrections to
 * make now, and returns how many. *ret_again: whether another comparison should follow soon.
 */
unsigned int reconcile_compare(struct reconcile *a, const struct klb_stats *after,
			       struct klb_adjustment *ret, bool *ret_again);

#endif
