/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Sets time-outs on the client's socket: how long its SYN may stay unanswered, and how long
 * its peer may be silent. Options that the application has set itself stay.
 *
 * TCP_USER_TIMEOUT bounds both, one after the other: connectTimeout until the connection
 * is established, deadPeerTimeout from then on.
 */
#ifndef KUBELB_SOCKOPTS_BPF_H
#define KUBELB_SOCKOPTS_BPF_H

#include "kernel.bpf.h"
#include "maps.bpf.h"

/* Macros in the kernel's headers, hence not in vmlinux.h: include/uapi/asm-generic/socket.h,
 * include/uapi/linux/tcp.h. */
#define SOL_SOCKET 1
#define SO_KEEPALIVE 9
#define SO_MARK 36
#define SOL_TCP 6
#define TCP_KEEPIDLE 4
#define TCP_KEEPINTVL 5
#define TCP_SYNCNT 7
#define TCP_USER_TIMEOUT 18

/* How long the first SYN waits. Three round trips leave room for a busy peer. */
#define KLB_SYN_MIN_MS 20
#define KLB_SYN_UNKNOWN_MS 200
#define KLB_SYN_RETRIES_MAX 12

/* ctx: of a sock_ops call, or in an iterator the socket. */
static __always_inline int klb_set_option(void *ctx, int level, int name, int value)
{
	return bpf_setsockopt(ctx, level, name, &value, sizeof(value));
}

/*
 * Takes the mark off, and with it the cached route. Not from one that the application has set
 * since. Returns whether that failed.
 */
static __always_inline int klb_take_mark_off(void *ctx, struct tcp_sock *tp, struct klb_socket *rec)
{
	int failed = 0;

	if (klb_sock_of(tp)->sk_mark == rec->mark)
		failed = klb_set_option(ctx, SOL_SOCKET, SO_MARK, 0) != 0;
	if (!failed)
		rec->flags &= ~KLB_SOCKET_MARKED;
	return failed;
}

/* The timer of the first SYN: short, so that a backend that does not answer is suspect
 * before the next connect is sent to it, but never more than a quarter of connectTimeout. */
static __always_inline __u32 klb_syn_ms(const struct klb_control *control, __u32 srtt_us)
{
	__u32 ms = srtt_us ? 3 * srtt_us / 1000 + 1 : KLB_SYN_UNKNOWN_MS;
	__u32 most = control->connect_timeout_ms / 4;
	__u32 least = srtt_us / 1000 * 3 / 2;

	/* A backend far away: a timer below the round trip would make a suspect of it with
	 * every connect. */
	if (most < least)
		most = least < most * 2 ? least : most * 2;
	if (ms < KLB_SYN_MIN_MS)
		ms = KLB_SYN_MIN_MS;
	return ms < most ? ms : most;
}

/* So many retransmissions fill the time: the timer doubles with each of them
 * (tcp_retransmit_timer; a kernel that keeps the first ones even needs no fewer). */
static __always_inline int klb_syn_retries(const struct klb_control *control, __u32 syn_ms)
{
	__u32 wait = syn_ms, left = control->connect_timeout_ms;
	int n;

	for (n = 1; n < KLB_SYN_RETRIES_MAX; n++) {
		if (left <= wait)
			break;
		left -= wait;
		wait *= 2;
	}
	return n;
}

/*
 * Before the SYN. rec->user_timeout_ms: what an earlier connect of this socket has set. When
 * the application limits its connects itself, by time or by the number of SYNs, nothing is
 * changed, not even the first timer: a short one would use up its SYNs early.
 */
static __always_inline void klb_limit_connect(struct bpf_sock_ops *ctx, struct tcp_sock *tp,
					      struct klb_socket *rec,
					      const struct klb_control *control, __u32 srtt_us)
{
	struct inet_connection_sock *icsk = &tp->inet_conn;
	__u32 own = icsk->icsk_user_timeout;
	__u32 retries = icsk->icsk_syn_retries;
	__u32 syn_ms;

	if (!control->connect_timeout_ms || (own && own != rec->user_timeout_ms) ||
	    (retries && !(rec->flags & KLB_SOCKET_SYN_TIMER)))
		return;
	if (klb_set_option(ctx, SOL_TCP, TCP_USER_TIMEOUT, control->connect_timeout_ms))
		return;
	rec->user_timeout_ms = control->connect_timeout_ms;
	syn_ms = klb_syn_ms(control, srtt_us);
	if (syn_ms && !klb_set_option(ctx, SOL_TCP, TCP_SYNCNT, klb_syn_retries(control, syn_ms)))
		rec->flags |= KLB_SOCKET_SYN_TIMER;
}

/* The answer to BPF_SOCK_OPS_TIMEOUT_INIT: jiffies, not milliseconds (tcp_timeout_init). Their
 * length is known. */
static __always_inline __u32 klb_syn_jiffies(const struct klb_control *control, __u32 srtt_us)
{
	__u64 jiffies = klb_syn_ms(control, srtt_us) * 1000000ULL / control->tick_ns;

	return jiffies ? (__u32)jiffies : 1;
}

/*
 * While data is unacknowledged, TCP_USER_TIMEOUT ends the connection to a silent peer. While
 * the client only listens, keepalive probes go out after half of that time, then every tenth
 * of it, and end the connection after the same time (tcp_keepalive_timer).
 */
static __always_inline void klb_keep_alive(struct bpf_sock_ops *ctx, struct tcp_sock *tp,
					   struct klb_socket *rec, __u32 timeout_ms)
{
	__u32 idle_s = timeout_ms / 2000, interval_s = timeout_ms / 10000;

	if (!tp->keepalive_time && !klb_set_option(ctx, SOL_TCP, TCP_KEEPIDLE, idle_s ? idle_s : 1))
		rec->flags |= KLB_SOCKET_KEEPIDLE;
	if (!tp->keepalive_intvl &&
	    !klb_set_option(ctx, SOL_TCP, TCP_KEEPINTVL, interval_s ? interval_s : 1))
		rec->flags |= KLB_SOCKET_KEEPINTVL;
	if (!klb_has_flag(klb_sock_of(tp), SOCK_KEEPOPEN) &&
	    !klb_set_option(ctx, SOL_SOCKET, SO_KEEPALIVE, 1))
		rec->flags |= KLB_SOCKET_KEEPALIVE;
}

/*
 * Options that still have the values set here get the host's defaults again. The number of SYNs
 * becomes the host's present value, since 0 ("the default") cannot be set. Returns whether that
 * failed.
 */
static __always_inline int klb_restore_connect(void *ctx, struct tcp_sock *tp,
					       const struct klb_socket *rec)
{
	struct sock *sk = klb_sock_of(tp);
	__u32 own = tp->inet_conn.icsk_user_timeout;
	int failed = 0;

	if (own && own == rec->user_timeout_ms)
		failed |= klb_set_option(ctx, SOL_TCP, TCP_USER_TIMEOUT, 0);
	if (rec->flags & KLB_SOCKET_SYN_TIMER)
		failed |= klb_set_option(ctx, SOL_TCP, TCP_SYNCNT,
					 sk->__sk_common.skc_net.net->ipv4.sysctl_tcp_syn_retries);
	return failed;
}

/*
 * The socket is now connected to something that is no backend. The keepalive times stay, as they
 * do nothing once keepalive is off.
 */
static __always_inline void klb_restore_sockopts(struct bpf_sock_ops *ctx, struct tcp_sock *tp,
						 const struct klb_socket *rec)
{
	klb_restore_connect(ctx, tp, rec);
	if (rec->flags & KLB_SOCKET_KEEPALIVE)
		klb_set_option(ctx, SOL_SOCKET, SO_KEEPALIVE, 0);
}

/*
 * A peer whose process does not read keeps its window shut and acknowledges every probe: it
 * is alive. TCP_USER_TIMEOUT counts from the first probe (tcp_probe_timer) and would end the
 * connection, so it is lifted meanwhile. A window is shut when it has no room for one
 * segment. It shuts with the acknowledgement of the data that filled it; that it is open again
 * shows with the next acknowledgement, or when data is sent again.
 */
static __always_inline void klb_window_shut(struct bpf_sock_ops *ctx, struct tcp_sock *tp,
					    struct klb_socket *rec)
{
	__u32 own = tp->inet_conn.icsk_user_timeout;

	if (rec->flags & KLB_SOCKET_SHUT || !own || own != rec->user_timeout_ms)
		return;
	if (!klb_set_option(ctx, SOL_TCP, TCP_USER_TIMEOUT, 0))
		rec->flags |= KLB_SOCKET_SHUT;
}

static __always_inline void klb_window_opened(struct bpf_sock_ops *ctx, struct tcp_sock *tp,
					      struct klb_socket *rec)
{
	if (!(rec->flags & KLB_SOCKET_SHUT))
		return;
	rec->flags &= ~KLB_SOCKET_SHUT;
	if (!tp->inet_conn.icsk_user_timeout)
		klb_set_option(ctx, SOL_TCP, TCP_USER_TIMEOUT, rec->user_timeout_ms);
}

/* Changes the limit from connectTimeout to deadPeerTimeout, unless the application has set its
 * own. */
static __always_inline void klb_limit_silence(struct bpf_sock_ops *ctx, struct tcp_sock *tp,
					      struct klb_socket *rec,
					      const struct klb_control *control)
{
	__u32 own = tp->inet_conn.icsk_user_timeout;

	if (own == rec->user_timeout_ms) {
		if (own != control->dead_peer_timeout_ms)
			klb_set_option(ctx, SOL_TCP, TCP_USER_TIMEOUT,
				       control->dead_peer_timeout_ms);
		rec->user_timeout_ms = control->dead_peer_timeout_ms;
	}
	if (control->dead_peer_timeout_ms)
		klb_keep_alive(ctx, tp, rec, control->dead_peer_timeout_ms);
}

#endif
