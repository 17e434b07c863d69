/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The program that kubelb-load --detach runs over all TCP sockets of a network namespace, once
 * klb_sockops is gone: the host's values for what klb_sockops has set. Never attached to a hook,
 * and loaded for that moment alone. Linux 5.15, which has bpf_setsockopt for iterators. The kernel
 * holds the socket's lock.
 */
#include "maps.bpf.h"

#include "kernel.bpf.h"
#include "sockopts.bpf.h"

/* Whether the socket still has the keepalive time that klb_keep_alive has set, in jiffies. */
static __always_inline int is_ours(const struct klb_control *control, __u32 has, __u32 set_s)
{
	return !control->tick_ns || has * control->tick_ns / 1000000000ULL == (set_s ? set_s : 1);
}

static __always_inline int seconds_of(const struct klb_control *control, __u64 jiffies)
{
	return (int)(jiffies * control->tick_ns / 1000000000ULL);
}

/*
 * An application that has set its own times wants keepalive, whoever has switched it on first; Go's
 * does so after the connect. Where keepalive is the application's and the times are not, they
 * become the host's, since 0 ("the default") cannot be set.
 */
static __always_inline int restore_keepalive(void *ctx, struct tcp_sock *tp,
					     const struct klb_socket *rec,
					     const struct klb_control *control)
{
	__u32 timeout_ms = control->dead_peer_timeout_ms;
	struct net *net = klb_sock_of(tp)->__sk_common.skc_net.net;
	int idle = rec->flags & KLB_SOCKET_KEEPIDLE &&
		   is_ours(control, tp->keepalive_time, timeout_ms / 2000);
	int interval = rec->flags & KLB_SOCKET_KEEPINTVL &&
		       is_ours(control, tp->keepalive_intvl, timeout_ms / 10000);
	int failed = 0;

	if (rec->flags & KLB_SOCKET_KEEPALIVE && idle && interval)
		failed |= klb_set_option(ctx, SOL_SOCKET, SO_KEEPALIVE, 0);
	if (idle && control->tick_ns)
		failed |= klb_set_option(ctx, SOL_TCP, TCP_KEEPIDLE,
					 seconds_of(control, net->ipv4.sysctl_tcp_keepalive_time));
	if (interval && control->tick_ns)
		failed |= klb_set_option(ctx, SOL_TCP, TCP_KEEPINTVL,
					 seconds_of(control, net->ipv4.sysctl_tcp_keepalive_intvl));
	return failed;
}

static __always_inline int is_open(const struct klb_socket *rec)
{
	return rec->phase == KLB_PHASE_CONNECTING || rec->phase == KLB_PHASE_ACTIVE;
}

/* Writes a letter for each socket that has a record: KLB_RELEASED plus the bits of what is so. */
SEC("iter/tcp")
int klb_release(struct bpf_iter__tcp *ctx)
{
	struct klb_control *control = klb_control_get();
	struct sock_common *common = ctx->sk_common;
	char letter = KLB_RELEASED;
	struct klb_socket *rec;
	struct tcp_sock *tp;

	tp = common ? bpf_skc_to_tcp_sock(common) : 0;
	if (!tp || !control)
		return 0;
	rec = bpf_sk_storage_get(&klb_sockets, tp, 0, 0);
	if (!rec)
		return 0;
	if (rec->flags & KLB_SOCKET_OTHER_NETNS && is_open(rec))
		letter |= KLB_RELEASED_OTHER_NETNS;
	/* A connection to the relay would end: its packets have to be delivered on this host. */
	if (rec->flags & KLB_SOCKET_MARKED && rec->phase != KLB_PHASE_RELAYED &&
	    klb_take_mark_off(tp, tp, rec))
		letter |= KLB_RELEASED_FAILED;
	if (klb_restore_connect(tp, tp, rec) | restore_keepalive(tp, tp, rec, control))
		letter |= KLB_RELEASED_FAILED;
	bpf_seq_write(ctx->meta->seq, &letter, sizeof(letter));
	return 0;
}
