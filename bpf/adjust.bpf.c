/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The program that user space runs to correct counters which the kernel writes.
 */
#include "maps.bpf.h"

#include "outlier.bpf.h"

static __always_inline __u64 magnitude(__s64 x)
{
	return x < 0 ? 0 - (__u64)x : (__u64)x;
}

/* See struct klb_adjustment. */
SEC("syscall")
int klb_adjust(struct klb_adjustment *ctx)
{
	struct klb_stats *stats = klb_stats_of(ctx->id, ctx->generation);
	struct klb_counters *counters = klb_counters_get();

	if (!counters)
		return 1;
	__sync_fetch_and_add(&counters->other_netns, (__u64)ctx->other_netns);
	if (!stats)
		return 1;
	__sync_fetch_and_add(&stats->active, (__u64)ctx->active);
	__sync_fetch_and_add(&stats->connecting, (__u64)ctx->connecting);
	__sync_fetch_and_add(&stats->opened, ctx->opened);
	if (ctx->repair)
		__sync_fetch_and_add(&counters->repaired,
				     magnitude(ctx->active) + magnitude(ctx->connecting));
	return 0;
}
