/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The record that a socket of ours carries, and the count that hangs on it. Kept
 * in one place, so that every way in and out of `active` goes through the same
 * pair of functions.
 */
#ifndef KUBELB_SOCKET_BPF_H
#define KUBELB_SOCKET_BPF_H

#include "maps.bpf.h"

static __always_inline struct klb_stats *klb_stats_of(__u32 id)
{
	return bpf_map_lookup_elem(&klb_stats, &id);
}

/* Takes the socket out of the active count, if it is in. */
static __always_inline void klb_socket_uncount(struct klb_socket *rec)
{
	struct klb_stats *stats;

	if (!rec->counted)
		return;
	rec->counted = 0;
	stats = klb_stats_of(rec->id);
	if (stats)
		__sync_fetch_and_add(&stats->active, -1);
}

/* active: whether sock_release will tell us of the end. */
static __always_inline void klb_socket_count(struct klb_socket *rec, __u32 active)
{
	struct klb_stats *stats = klb_stats_of(rec->id);

	if (!stats)
		return;
	__sync_fetch_and_add(&stats->opened, 1);
	if (!active)
		return;
	rec->counted = 1;
	__sync_fetch_and_add(&stats->active, 1);
}

#endif
