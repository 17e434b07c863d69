/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What became of our sockets. Touches none that carries no record of ours.
 */
#include "maps.bpf.h"

#include "socket.bpf.h"

/* The last descriptor of the socket is gone: close, exit or kill -9 alike. */
SEC("cgroup/sock_release")
int klb_release(struct bpf_sock *ctx)
{
	struct klb_socket *rec = bpf_sk_storage_get(&klb_sockets, ctx, 0, 0);

	if (rec)
		klb_socket_uncount(rec);
	return 1;
}

/* Run by kubelb-load alone; see struct klb_adjustment. */
SEC("syscall")
int klb_adjust(struct klb_adjustment *ctx)
{
	struct klb_stats *stats = klb_stats_of(ctx->id);

	if (!stats)
		return 1;
	__sync_fetch_and_add(&stats->active, (__u64)ctx->active);
	__sync_fetch_and_add(&stats->opened, ctx->opened);
	return 0;
}
