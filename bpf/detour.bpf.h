/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Connects that cannot reach a backend themselves: the socket is bound to a loopback address or to
 * that device, or no backend is of its address family. The relay can, if there is one: the connect
 * goes to its listener on the loopback address. Otherwise it is left alone, and so it is where
 * somebody listens on what it dials, whom it reaches as it is.
 *
 * Seldom needed. The functions take the context, so that the verifier goes through them once, and
 * read again what the caller has read.
 */
#ifndef KUBELB_DETOUR_BPF_H
#define KUBELB_DETOUR_BPF_H

#include "address.bpf.h"
#include "clock.bpf.h"
#include "kernel.bpf.h"
#include "leftovers.bpf.h"
#include "listener.bpf.h"
#include "maps.bpf.h"
#include "socket.bpf.h"
#include "stash.bpf.h"

/* Why a connect would be left alone. */
#define KLB_LEFT_LOOPBACK_SOURCE 0
#define KLB_LEFT_NO_BACKEND 1

/* Whether an IPv6 socket was once connected over IPv4, and stays with it: families_from_record. */
static __always_inline int klb_has_been_ipv4(struct bpf_sock *sk)
{
	struct klb_socket *rec = bpf_sk_storage_get(&klb_sockets, sk, 0, 0);

	return rec && klb_is_ipv4(&rec->backend);
}

/* Whether an IPv6 socket has to go by IPv4: what it is bound to decides, or else what it dials. */
__noinline int klb_detours_by_ipv4(struct bpf_sock_addr *ctx)
{
	struct tcp_sock *tp = klb_addr_tcp_sock(ctx);
	struct bpf_sock *sk = ctx->sk;
	__u32 third;

	if (!sk || !tp || klb_is_ipv6_only(klb_sock_of(tp)))
		return 0;
	third = sk->src_ip6[2];
	if (sk->src_ip6[0] | sk->src_ip6[1])
		return 0;
	if (third | sk->src_ip6[3])
		return third == KLB_V4MAPPED;
	third = KLB_CTX_READ(ctx->user_ip6[2]);
	return (!(KLB_CTX_READ(ctx->user_ip6[0]) | KLB_CTX_READ(ctx->user_ip6[1])) &&
		third == KLB_V4MAPPED) ||
	       klb_has_been_ipv4(sk);
}

/* The relay's listener. Port 0: there is none. */
static __always_inline void klb_relay_listener(const struct klb_control *control, int ipv4,
					       struct klb_endpoint *ret)
{
	if (ipv4) {
		klb_set_ipv4_be(ret, bpf_htonl(0x7f000001));
		ret->port = control->relay.port4;
		return;
	}
	klb_set_word_be(ret, 0, 0);
	klb_set_word_be(ret, 1, 0);
	klb_set_word_be(ret, 2, 0);
	klb_set_word_be(ret, 3, bpf_htonl(1));
	ret->port = control->relay.port6;
}

/*
 * Fills conn, and returns whether the relay takes such a socket's connects: of the host's network
 * namespace, not bound to another device, no test, and with a SYN that leaves at once. Without
 * klb_sockops nobody tells the relay whose connect it is.
 */
static __always_inline int klb_may_detour(struct bpf_sock_addr *ctx, struct klb_connect *conn,
					  const struct klb_control *control)
{
	__u32 device;

	conn->tp = klb_addr_tcp_sock(ctx);
	if (!conn->tp || !klb_options.sockops)
		return 0;
	device = klb_sock_of(conn->tp)->__sk_common.skc_bound_dev_if;
	conn->now = klb_now_ns(control);
	conn->netns = klb_netns_of(ctx, conn->tp);
	conn->number = klb_socket_number(conn->tp);
	conn->pending = klb_pending_of(conn->number);
	return conn->pending && conn->netns == control->host_netns_cookie &&
	       (!device || device == LOOPBACK_IFINDEX) &&
	       !BPF_CORE_READ_BITFIELD(conn->tp, repair) && !klb_syn_waits(conn) &&
	       klb_agent_alive(control, conn->now);
}

/*
 * Stashes the relay's listener as the choice, for a connect to an unnamed frontend. Returns 1; or
 * 0: the connect is left alone. A choice that was abandoned in the entry is not judged: that takes
 * more stack than there is here.
 */
__noinline int klb_stash_detour(struct bpf_sock_addr *ctx, int ipv4)
{
	struct klb_control *control = klb_control_get();
	struct klb_connect conn = {};
	struct klb_socket *rec;
	struct klb_pending *p;
	__u64 seen;

	if (!ctx->sk || !control || !klb_may_detour(ctx, &conn, control) ||
	    !(ipv4 ? control->relay.port4 : control->relay.port6))
		return 0;
	rec = bpf_sk_storage_get(&klb_sockets, ctx->sk, 0, 0);
	if (rec && rec->flags & KLB_SOCKET_UPSTREAM)
		return 0;
	p = klb_pending_take(conn.pending, conn.number, conn.now, &seen);
	if (!p)
		return 0;
	klb_relay_listener(control, ipv4, &p->route.backend);
	p->route.id = 0;
	p->route.generation = 0;
	p->route.flags = KLB_SOCKET_DETOURED;
	p->route.chosen_ns = conn.now;
	klb_stash_ready(&conn, p);
	return 1;
}

/* The entry that klb_stash_detour has just filled for ctx's socket. */
static __always_inline struct klb_pending *klb_stashed_detour(struct bpf_sock_addr *ctx)
{
	struct tcp_sock *tp = klb_addr_tcp_sock(ctx);

	return tp ? klb_pending_of(klb_socket_number(tp)) : 0;
}

/* Sends the connect to the stashed listener, and keeps what it dialled. */
__noinline int klb_send_detour4(struct bpf_sock_addr *ctx)
{
	struct klb_pending *p = klb_stashed_detour(ctx);
	struct bpf_sock *sk = ctx->sk;
	struct klb_endpoint source;

	if (!p || !sk)
		return 0;
	klb_dialled4(ctx, sk, &p->route.frontend, &source);
	klb_ctx_set4(ctx, &p->route.backend);
	return 0;
}

__noinline int klb_send_detour6(struct bpf_sock_addr *ctx)
{
	struct klb_pending *p = klb_stashed_detour(ctx);
	struct bpf_sock *sk = ctx->sk;
	struct klb_endpoint source;

	if (!p || !sk)
		return 0;
	klb_dialled6(ctx, sk, &p->route.frontend, &source);
	klb_ctx_set6(ctx, &p->route.backend);
	return 0;
}

/* Returns 0. */
static __always_inline int klb_count_left_alone(struct bpf_sock_addr *ctx, __u32 why)
{
	struct tcp_sock *tp = klb_addr_tcp_sock(ctx);

	if (!tp)
		return 0;
	if (why == KLB_LEFT_LOOPBACK_SOURCE)
		KLB_COUNT(skipped_loopback_source);
	else
		KLB_COUNT_LEFT_ALONE(skipped_no_backend, tp);
	return 0;
}

__noinline int klb_leave_to_relay4(struct bpf_sock_addr *ctx, __u32 why)
{
	klb_unmark(ctx);
	if (!klb_dials_itself4(ctx) && klb_stash_detour(ctx, 1))
		return klb_send_detour4(ctx);
	return klb_count_left_alone(ctx, why);
}

__noinline int klb_leave_to_relay6(struct bpf_sock_addr *ctx, __u32 why)
{
	klb_unmark(ctx);
	if (!klb_dials_itself6(ctx) && klb_stash_detour(ctx, klb_detours_by_ipv4(ctx)))
		return klb_send_detour6(ctx);
	return klb_count_left_alone(ctx, why);
}

#endif
