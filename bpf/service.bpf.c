/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What user space runs by itself, on no event: the list of our sockets, corrections to
 * counters that the kernel writes, the clocks.
 */
#include "maps.bpf.h"

#include "address.bpf.h"
#include "evidence.bpf.h"
#include "kernel.bpf.h"

#define AF_INET 2 /* include/linux/socket.h */

static __always_inline void local_of(struct sock *sk, struct klb_endpoint *ret)
{
	if (sk->__sk_common.skc_family == AF_INET) {
		klb_set_ipv4_be(ret, sk->__sk_common.skc_rcv_saddr);
	} else {
		klb_set_word_be(ret, 0, sk->__sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32[0]);
		klb_set_word_be(ret, 1, sk->__sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32[1]);
		klb_set_word_be(ret, 2, sk->__sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32[2]);
		klb_set_word_be(ret, 3, sk->__sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32[3]);
	}
	ret->port = sk->__sk_common.skc_num;
}

/* Yields a struct klb_connection for each socket that carries a record. */
SEC("iter/bpf_sk_storage_map")
int klb_connections(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct klb_socket *rec = ctx->value;
	struct klb_connection c = {};
	struct sock *sk = ctx->sk;
	struct tcp_sock *tp;

	if (!sk || !rec)
		return 0;
	c.record = *rec;
	local_of(sk, &c.local);
	c.tcp_state = sk->__sk_common.skc_state;
	c.bound_if = (__u32)sk->__sk_common.skc_bound_dev_if;
	c.cookie = bpf_get_socket_cookie(sk);
	c.netns_cookie = sk->__sk_common.skc_net.net->net_cookie;
	tp = bpf_skc_to_tcp_sock(sk);
	if (tp)
		c.srtt_us = tp->srtt_us >> 3;
	bpf_seq_write(ctx->meta->seq, &c, sizeof(c));
	return 0;
}

/* See struct klb_clocks. */
SEC("syscall")
int klb_clock(struct klb_clocks *ctx)
{
	ctx->jiffies = bpf_jiffies64();
	ctx->now_ns = bpf_ktime_get_ns();
	return 0;
}

static __always_inline __u64 magnitude(__s64 x)
{
	return x < 0 ? 0 - (__u64)x : (__u64)x;
}

/* See struct klb_adjustment. */
SEC("syscall")
int klb_adjust(struct klb_adjustment *ctx)
{
	struct klb_stats *stats = klb_stats_of(ctx->id);
	struct klb_counters *counters = klb_counters_get();

	if (!stats || !counters)
		return 1;
	__sync_fetch_and_add(&stats->active, (__u64)ctx->active);
	__sync_fetch_and_add(&stats->connecting, (__u64)ctx->connecting);
	__sync_fetch_and_add(&stats->opened, ctx->opened);
	if (ctx->repair)
		__sync_fetch_and_add(&counters->repaired,
				     magnitude(ctx->active) + magnitude(ctx->connecting));
	return 0;
}
