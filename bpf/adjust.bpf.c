/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The program that user space runs to change what the kernel writes: counters, and what is held
 * against a backend.
 */
#include "maps.bpf.h"

#include "outlier.bpf.h"

static __always_inline __u64 magnitude(__s64 x)
{
	return x < 0 ? 0 - (__u64)x : (__u64)x;
}

static __always_inline int add_counts(const struct klb_adjustment *ctx, struct klb_stats *stats)
{
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

static __always_inline int note_silent(const struct klb_adjustment *ctx, struct klb_stats *stats)
{
	struct klb_control *control = klb_control_get();
	struct klb_socket rec = {
		.id = ctx->id,
		.generation = ctx->generation,
		.flags = ctx->silent.flags,
		.pid = ctx->silent.pid,
		.cgroup_id = ctx->silent.cgroup_id,
	};
	struct klb_backend *backend = bpf_map_lookup_elem(&klb_backends, &rec.id);

	if (!control || !stats || !backend)
		return 1;
	rec.backend = backend->endpoint;
	__builtin_memcpy(rec.comm, ctx->silent.comm, sizeof(rec.comm));
	klb_silent(stats, &rec, klb_now_ns(control));
	return 0;
}

/* See struct klb_adjustment. */
SEC("syscall")
int klb_adjust(struct klb_adjustment *ctx)
{
	struct klb_stats *stats = klb_stats_of(ctx->id, ctx->generation);

	switch (ctx->what) {
	case KLB_ADJUST_COUNTS:
		return add_counts(ctx, stats);
	case KLB_ADJUST_REACHED:
		if (!stats)
			return 1;
		klb_reached(stats, ctx->reached_ns);
		return 0;
	case KLB_ADJUST_SILENT:
		return note_silent(ctx, stats);
	}
	return 1;
}
