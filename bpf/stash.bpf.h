/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A connect on its way through the hook, and how its choice is kept until the SYN leaves.
 */
#ifndef KUBELB_STASH_BPF_H
#define KUBELB_STASH_BPF_H

#include "kernel.bpf.h"
#include "maps.bpf.h"
#include "socket.bpf.h"

#define KLB_COUNT(field)                                             \
	do {                                                         \
		struct klb_counters *counters_ = klb_counters_get(); \
		if (counters_)                                       \
			__sync_fetch_and_add(&counters_->field, 1);  \
	} while (0)

/* The same, but a test counts among the tests. */
#define KLB_COUNT_LEFT_ALONE(field, tp)              \
	do {                                         \
		if (klb_is_test(tp))                 \
			KLB_COUNT(tests_left_alone); \
		else                                 \
			KLB_COUNT(field);            \
	} while (0)

/* One connect on its way through the hook. */
struct klb_connect {
	struct tcp_sock *tp;
	struct klb_pending *pending; /* the entry for this socket; another one may be using it */
	__u64 number;
	__u64 netns; /* the cookie of its network namespace */
	__u64 now;
	__u32 agent; /* 1 while it is alive, else 0 */
};

static __always_inline void klb_describe(struct klb_route *ret, const struct klb_endpoint *frontend,
					 const struct klb_candidate *cand, __u32 flags, __u64 now)
{
	ret->frontend = *frontend;
	ret->backend = cand->endpoint;
	ret->id = cand->id;
	ret->generation = cand->generation;
	ret->flags = flags;
	ret->pad = 0;
	ret->chosen_ns = now;
}

/* The claimed entry p is filled: hands it over to klb_sockops. */
static __always_inline void klb_stash_ready(const struct klb_connect *conn, struct klb_pending *p)
{
	if (KLB_IS_OLD)
		klb_set_owner(&p->left, conn->tp);
	*(volatile __u64 *)&p->number = conn->number;
	/* Read first: a cache line that many CPUs write to is expensive. */
	if (klb_memory.chosen_ns != conn->now)
		klb_memory.chosen_ns = conn->now;
}

/* Whether the SYN leaves later than the connect, with the first data. */
static __always_inline int klb_syn_waits(const struct klb_connect *conn)
{
	return BPF_CORE_READ_BITFIELD(conn->tp, fastopen_connect);
}

/*
 * Stores the choice in `pending` for the sock_ops program. The record is made at once when
 * there is no such program, when the SYN leaves later with the first data
 * (TCP_FASTOPEN_CONNECT), and when another connect uses the entry.
 */
static __always_inline void klb_stash(struct bpf_sock_addr *ctx, const struct klb_connect *conn,
				      const struct klb_endpoint *frontend,
				      const struct klb_candidate *cand, __u32 flags)
{
	struct klb_pending *p = 0;
	struct klb_route route = {};
	struct klb_socket *rec;

	if (klb_options.sockops && !klb_syn_waits(conn))
		p = klb_pending_claim(conn->pending, conn->number, conn->now);
	if (p) {
		klb_describe(&p->route, frontend, cand, flags, conn->now);
		klb_stash_ready(conn, p);
		return;
	}
	klb_describe(&route, frontend, cand, flags | KLB_SOCKET_EARLY, conn->now);
	rec = klb_socket_record(ctx->sk, &route);
	if (!rec)
		return;
	klb_memory.has_early = 1;
	/* The sock_ops program does not do it later. */
	if (KLB_IS_OLD || !klb_options.sockops)
		klb_set_owner(rec, conn->tp);
}

#endif
