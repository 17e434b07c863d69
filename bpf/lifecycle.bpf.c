/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What became of our sockets. Touches none that carries no record of ours.
 */
#include "maps.bpf.h"

#include "address.bpf.h"
#include "socket.bpf.h"

#define AF_INET 2 /* include/linux/socket.h */

static __always_inline void remote_of(struct bpf_sock_ops *ctx, struct klb_endpoint *ret)
{
	if (ctx->family == AF_INET) {
		klb_set_ipv4_be(ret, ctx->remote_ip4);
	} else {
		klb_set_word_be(ret, 0, KLB_CTX_READ(ctx->remote_ip6[0]));
		klb_set_word_be(ret, 1, KLB_CTX_READ(ctx->remote_ip6[1]));
		klb_set_word_be(ret, 2, KLB_CTX_READ(ctx->remote_ip6[2]));
		klb_set_word_be(ret, 3, KLB_CTX_READ(ctx->remote_ip6[3]));
	}
	/* Network byte order, in the upper half on little-endian hosts (uapi/linux/bpf.h). */
	ret->port = bpf_ntohl(KLB_CTX_READ(ctx->remote_port));
}

/* Fetches the choice that the connect program has left for this socket. */
static __always_inline int fetch(struct bpf_sock_ops *ctx, struct bpf_sock *sk,
				 struct klb_socket *ret)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	struct klb_endpoint remote;
	struct klb_pending *p;
	__u64 number;

	if (!tp)
		return -1;
	number = klb_socket_number(tp);
	p = klb_pending_of(number);
	if (!p || !number || *(volatile __u64 *)&p->number != number)
		return -1;
	*ret = p->choice;
	*(volatile __u64 *)&p->number = 0;
	/* A connect that found no route leaves its choice behind; the socket may then
	 * have been sent somewhere else. */
	remote_of(ctx, &remote);
	return klb_endpoint_equal(&remote, &ret->backend) ? 0 : -1;
}

/* The SYN is about to leave. */
static __always_inline void on_connect(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct klb_socket choice;
	struct klb_socket *rec;
	struct klb_endpoint remote;

	if (!sk)
		return;
	if (!fetch(ctx, sk, &choice)) {
		klb_socket_record(sk, &choice);
		return;
	}
	rec = bpf_sk_storage_get(&klb_sockets, sk, 0, 0);
	if (!rec)
		return;
	/* Recorded in the connect hook already, for this SYN (klb_socket.early). */
	remote_of(ctx, &remote);
	if (rec->early && klb_endpoint_equal(&remote, &rec->backend))
		rec->early = 0;
	else
		klb_socket_forget(sk);
}

SEC("sockops")
int klb_sockops(struct bpf_sock_ops *ctx)
{
	if (ctx->op == BPF_SOCK_OPS_TCP_CONNECT_CB)
		on_connect(ctx);
	return 1;
}

/* The last descriptor of the socket is gone: close, exit or kill -9 alike. */
SEC("cgroup/sock_release")
int klb_release(struct bpf_sock *ctx)
{
	struct klb_socket *rec = bpf_sk_storage_get(&klb_sockets, ctx, 0, 0);

	if (rec)
		klb_socket_uncount(rec);
	return 1;
}

/* Run by kubelb-load alone; see struct klb_clocks. */
SEC("syscall")
int klb_clock(struct klb_clocks *ctx)
{
	ctx->jiffies = bpf_jiffies64();
	ctx->now_ns = bpf_ktime_get_ns();
	return 0;
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
