/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What an earlier connect of the same socket has left behind, which says nothing about what it
 * dials now. Out of line, as it is seldom needed: cold code between the hot one takes time.
 */
#ifndef KUBELB_LEFTOVERS_BPF_H
#define KUBELB_LEFTOVERS_BPF_H

#include "kernel.bpf.h"
#include "maps.bpf.h"
#include "socket.bpf.h"
#include "sockopts.bpf.h"

/* Takes off the mark of an earlier rescue, before the kernel looks for this connect's route. */
__noinline int klb_unmark(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct klb_socket *rec;
	struct tcp_sock *tp;

	if (!sk || !klb_memory.has_marked)
		return 0;
	rec = bpf_sk_storage_get(&klb_sockets, sk, 0, 0);
	tp = klb_addr_tcp_sock(ctx);
	if (rec && tp && rec->flags & KLB_SOCKET_MARKED)
		klb_take_mark_off(ctx, tp, rec);
	return 0;
}

/*
 * The socket dials no frontend. Takes its mark off, and drops a record whose SYN never left
 * (TCP_FASTOPEN_CONNECT, then a connect to AF_UNSPEC), even if it dials that same backend now. The
 * relay's own socket has such a record on purpose.
 */
__noinline int klb_drop_leftovers(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct klb_socket *rec;

	if (!sk)
		return 0;
	klb_unmark(ctx);
	rec = bpf_sk_storage_get(&klb_sockets, sk, 0, 0);
	if (rec && (rec->flags & (KLB_SOCKET_EARLY | KLB_SOCKET_UPSTREAM)) == KLB_SOCKET_EARLY)
		klb_socket_forget(sk, rec);
	return 0;
}

/* The same for a choice in `pending` whose SYN never left: it found no route. Out of line, as it is
 * seldom needed: cold code between the hot one takes time. */
static __noinline int klb_leave_behind(struct bpf_sock_addr *ctx)
{
	struct klb_pending *p;
	struct tcp_sock *tp;
	__u64 number;

	tp = klb_addr_tcp_sock(ctx);
	if (!tp)
		return 0;
	number = klb_socket_number(tp);
	p = klb_pending_of(number);
	if (p && number && *(volatile __u64 *)&p->number == number)
		p->route.chosen_ns -= KLB_SAME_CONNECT_NS;
	return 0;
}

#endif
