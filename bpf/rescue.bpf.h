/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Connects that the relay answers, as klb_sockops sees them.
 *
 * A backend leaves a SYN unanswered. Where the relay stands in for it, the socket gets a mark, by
 * which the retransmitted SYN is delivered on this host, to the relay's listener on the backend's
 * address. Whose answer came shows when the connection is established: the relay's comes in on the
 * loopback device. The backend's own takes the mark off again, before any other packet leaves.
 *
 * All of it is seldom needed. Each function takes the context alone, so that the verifier goes
 * through it once (a global function), and klb_sockops calls it out of line.
 */
#ifndef KUBELB_RESCUE_BPF_H
#define KUBELB_RESCUE_BPF_H

#include "address.bpf.h"
#include "clock.bpf.h"
#include "event_log.bpf.h"
#include "kernel.bpf.h"
#include "maps.bpf.h"
#include "socket.bpf.h"
#include "sockopts.bpf.h"

/* At most one event about a backend's unanswered SYNs in this time. */
#define KLB_UNANSWERED_NS 1000000000ULL

/* Tells the relay whose connection it is about to accept. */
static __always_inline void klb_announce(struct bpf_sock_ops *ctx, const struct klb_socket *rec,
					 enum klb_relayed_from from)
{
	struct klb_relayed relayed = {
		.frontend = rec->frontend,
		.from = from,
		.pid = rec->pid,
		.cgroup_id = rec->cgroup_id,
		.time_ns = bpf_ktime_get_ns(),
	};
	struct klb_relayed_key key;

	if (from == KLB_RELAYED_RETRANSMIT) {
		relayed.backend = rec->backend;
		relayed.id = rec->id;
		relayed.generation = rec->generation;
	}
	__builtin_memcpy(relayed.comm, rec->comm, sizeof(relayed.comm));
	klb_ops_local(ctx, &key.client);
	klb_ops_remote(ctx, &key.local);
	bpf_map_update_elem(&klb_relayed, &key, &relayed, BPF_ANY);
}

/* The SYN of a detoured connect (detour.bpf.h) leaves. */
__noinline int klb_detoured(struct bpf_sock_ops *ctx)
{
	struct klb_socket *rec = klb_record_of(ctx);

	if (!rec)
		return 0;
	rec->phase = KLB_PHASE_RELAYED;
	klb_announce(ctx, rec, KLB_RELAYED_UNREACHABLE);
	return 0;
}

static __always_inline int klb_stands_in(const struct klb_control *control, __u32 id)
{
	return id < KLB_MAX_IDS && control->relay.stands_in[id / 64] >> id % 64 & 1;
}

/* The agent, which this wakes, can make the relay stand in before the next retransmission. */
static __always_inline void klb_unanswered(const struct klb_socket *rec, __u64 now)
{
	__u64 *last = &klb_memory.unanswered_ns[rec->id % KLB_MAX_IDS];

	if (klb_age(now, *last) < (__s64)KLB_UNANSWERED_NS)
		return;
	*last = now;
	klb_emit_event(rec, KLB_EVENT_UNANSWERED, KLB_FAILURE_TIMED_OUT, now, 0);
}

/*
 * Not a socket whose packets have to go a way of their own: marked or bound to a device by the
 * application, or of a network namespace that the rule is not in. The relay's own tries the next
 * backend by itself.
 */
static __always_inline int klb_may_be_rescued(struct tcp_sock *tp, const struct klb_socket *rec)
{
	struct sock *sk = klb_sock_of(tp);

	return !(rec->flags & (KLB_SOCKET_OTHER_NETNS | KLB_SOCKET_REPAIR | KLB_SOCKET_UPSTREAM)) &&
	       !(sk->sk_mark | sk->__sk_common.skc_bound_dev_if);
}

/* A SYN is about to be sent again. */
__noinline int klb_rescue(struct bpf_sock_ops *ctx)
{
	struct klb_control *control = klb_control_get();
	struct klb_socket *rec = klb_record_of(ctx);
	struct tcp_sock *tp = klb_ops_tcp_sock(ctx);
	__u32 mark;
	__u64 now;

	if (!control || !rec || !tp || !klb_may_be_rescued(tp, rec))
		return 0;
	now = bpf_ktime_get_ns();
	mark = control->relay.mark;
	if (!mark || !klb_agent_alive(control, now))
		return 0;
	if (!klb_stands_in(control, rec->id)) {
		klb_unanswered(rec, now);
		return 0;
	}
	klb_memory.has_marked = 1;
	if (klb_set_option(ctx, SOL_SOCKET, SO_MARK, mark))
		return 0;
	rec->mark = mark;
	rec->flags |= KLB_SOCKET_MARKED;
	return 0;
}

/*
 * A marked socket's connection is established. Returns whether the relay has answered: then it
 * counts at no backend, and the relay's slow client must not end it (TCP_USER_TIMEOUT).
 */
__noinline int klb_answered_by_relay(struct bpf_sock_ops *ctx)
{
	struct klb_socket *rec = klb_record_of(ctx);
	struct tcp_sock *tp = klb_ops_tcp_sock(ctx);

	if (!rec || !tp)
		return 0;
	if (klb_received_on(tp) != LOOPBACK_IFINDEX) {
		klb_take_mark_off(ctx, tp, rec);
		return 0;
	}
	klb_socket_end(rec, klb_stats_of_record(rec));
	rec->phase = KLB_PHASE_RELAYED;
	klb_restore_connect(ctx, tp, rec);
	rec->user_timeout_ms = 0;
	rec->flags &= ~KLB_SOCKET_SYN_TIMER;
	klb_announce(ctx, rec, KLB_RELAYED_RETRANSMIT);
	return 1;
}

/*
 * A marked socket closes. A relayed one keeps its mark, as a reset that follows has to reach the
 * relay (tcp_close, tcp_disconnect); should it connect again, klb_unmark takes it off.
 */
__noinline int klb_closed_marked(struct bpf_sock_ops *ctx)
{
	struct klb_socket *rec = klb_record_of(ctx);
	struct tcp_sock *tp = klb_ops_tcp_sock(ctx);

	if (rec && tp && rec->phase != KLB_PHASE_RELAYED)
		klb_take_mark_off(ctx, tp, rec);
	return 0;
}

#endif
