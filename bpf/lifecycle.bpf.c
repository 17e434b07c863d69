/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Follows balanced sockets from SYN to close. Changes no socket that has no record.
 *
 * sock_ops runs for every TCP socket below the cgroup, about nine times in the life of a
 * connection. The callbacks that come after the SYN are switched on for balanced sockets only.
 */
#include "maps.bpf.h"

#include "address.bpf.h"
#include "rescue.bpf.h"
#include "sockopts.bpf.h"
#include "socket.bpf.h"

#define CALLBACKS (BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RTO_CB_FLAG)
/* And once there is a connection. */
#define CALLBACKS_ESTABLISHED (CALLBACKS | BPF_SOCK_OPS_RTT_CB_FLAG)

/* Keeps the flags that other programs have set. */
static __always_inline void want_callbacks(struct bpf_sock_ops *ctx, int wanted)
{
	int flags = ctx->bpf_sock_ops_cb_flags;

	if ((flags & wanted) != wanted)
		bpf_sock_ops_cb_flags_set(ctx, flags | wanted);
}

/* --- the SYN leaves ------------------------------------------------------------ */

/* The SYN goes to another address than the one that was chosen. */
static __always_inline void note_diverted(const struct klb_endpoint *remote, struct tcp_sock *tp)
{
	struct klb_counters *counters = klb_counters_get();

	if (!counters || klb_is_test(tp))
		return;
	__sync_fetch_and_add(&counters->diverted, 1);
	counters->diverted_to = *remote;
}

/* Takes the choice that the connect program has stored for this socket out of `pending`. */
static __always_inline int fetch(struct bpf_sock_ops *ctx, struct tcp_sock *tp,
				 struct klb_route *ret, const struct klb_socket **ret_owner)
{
	__u64 number = klb_socket_number(tp);
	struct klb_pending *p = klb_pending_of(number);
	struct klb_endpoint remote;

	if (!p || !number || *(volatile __u64 *)&p->number != number)
		return -1;
	*ret = p->route;
	if (KLB_IS_OLD)
		*ret_owner = &p->left;
	*(volatile __u64 *)&p->number = 0;
	/* The choice may be one of an earlier connect that found no route. */
	klb_ops_remote(ctx, &remote);
	if (klb_endpoint_equal(&remote, &ret->backend))
		return 0;
	if (klb_may_be_of_now(ret->chosen_ns))
		note_diverted(&remote, tp);
	return -1;
}

/* Records which process connects. This task is that process; when the connect fails, some
 * other task runs. */
static __always_inline void record_owner(struct klb_socket *rec, struct tcp_sock *tp,
					 const struct klb_socket *owner)
{
	/* Where sock_ops cannot read it, the connect hook has. NULL: into this record. */
	if (!KLB_IS_OLD)
		klb_set_owner(rec, tp);
	else if (owner)
		klb_copy_owner(rec, owner);
}

static __always_inline void begin(struct bpf_sock_ops *ctx, struct tcp_sock *tp,
				  struct klb_socket *rec, const struct klb_socket *owner)
{
	struct klb_stats *stats = klb_stats_of_record(rec);
	struct klb_control *control = klb_control_get();

	rec->flags &= ~KLB_SOCKET_EARLY;
	if (rec->flags & KLB_SOCKET_REPAIR && klb_is_test(tp)) {
		rec->phase = KLB_PHASE_ENDED;
		return;
	}
	if (!(rec->flags & KLB_SOCKET_UPSTREAM))
		record_owner(rec, tp, owner);
	if (rec->flags & KLB_SOCKET_DETOURED) {
		klb_detoured(ctx);
		return;
	}
	rec->connect_ns = bpf_ktime_get_ns();
	rec->send_base = tp->write_seq;
	rec->flags |= KLB_SOCKET_SEQUENCES;
	want_callbacks(ctx, CALLBACKS);
	klb_socket_begin(rec, stats);
	if (control)
		klb_limit_connect(ctx, tp, rec, control, stats ? stats->srtt_us : 0);
}

static __always_inline void on_connect(struct bpf_sock_ops *ctx)
{
	struct tcp_sock *tp = klb_ops_tcp_sock(ctx);
	struct bpf_sock *sk = klb_ops_sk(ctx);
	struct klb_endpoint remote;
	struct klb_socket *rec;
	const struct klb_socket *owner = 0;
	struct klb_route route;

	if (!sk || !tp)
		return;
	if (!fetch(ctx, tp, &route, &owner)) {
		rec = klb_socket_record(sk, &route);
		if (rec)
			begin(ctx, tp, rec, owner);
		return;
	}
	if (!klb_has_storage(tp))
		return;
	rec = bpf_sk_storage_get(&klb_sockets, sk, 0, 0);
	if (!rec)
		return;
	/* Recorded in the connect hook already, for this SYN. */
	klb_ops_remote(ctx, &remote);
	if (rec->flags & KLB_SOCKET_EARLY && klb_endpoint_equal(&remote, &rec->backend)) {
		begin(ctx, tp, rec, 0);
		return;
	}
	if (rec->flags & KLB_SOCKET_EARLY)
		note_diverted(&remote, tp);
	klb_restore_sockopts(ctx, tp, rec);
	klb_socket_forget(sk, rec);
}

/* --- later ------------------------------------------------------------------------ */

/* The kernel asks how long the first SYN waits for an answer. */
static __always_inline void on_timeout_init(struct bpf_sock_ops *ctx)
{
	struct klb_socket *rec = klb_record_of(ctx);
	struct klb_control *control = klb_control_get();
	struct klb_stats *stats;

	if (!rec || !control || rec->phase != KLB_PHASE_CONNECTING)
		return;
	want_callbacks(ctx, CALLBACKS);
	/* The length of a jiffy is not known yet: a first load has not made its test connect. */
	if (!(rec->flags & KLB_SOCKET_SYN_TIMER) || !control->tick_ns)
		return;
	stats = klb_stats_of_record(rec);
	ctx->reply = klb_syn_jiffies(control, stats ? stats->srtt_us : 0);
}

static __always_inline void on_established(struct bpf_sock_ops *ctx)
{
	struct klb_control *control = klb_control_get();
	struct klb_socket *rec = klb_record_of(ctx);
	struct tcp_sock *tp;
	struct klb_stats *stats;

	if (!rec || !control || rec->phase != KLB_PHASE_CONNECTING)
		return;
	if (rec->flags & KLB_SOCKET_MARKED && klb_answered_by_relay(ctx))
		return;
	want_callbacks(ctx, CALLBACKS_ESTABLISHED);
	stats = klb_stats_of_record(rec);
	klb_socket_establish(rec, stats);
	rec->established_ns = bpf_ktime_get_ns();
	if (stats)
		klb_succeeded(stats, rec, ctx->srtt_us >> 3, rec->established_ns);
	tp = klb_ops_tcp_sock(ctx);
	if (!tp)
		return;
	/* The kernel counts in both at the same places (tcp_rcv_nxt_update). */
	rec->receive_base = tp->rcv_nxt - (__u32)tp->bytes_received;
	klb_limit_silence(ctx, tp, rec, control);
}

/* A SYN, or data, goes out once more. */
static __always_inline void on_retransmit(struct bpf_sock_ops *ctx)
{
	struct klb_control *control = klb_control_get();
	struct klb_socket *rec = klb_record_of(ctx);
	struct klb_stats *stats;
	struct tcp_sock *tp;

	if (!rec || !control)
		return;
	tp = klb_ops_tcp_sock(ctx);
	if (tp && rec->phase == KLB_PHASE_ACTIVE) {
		klb_window_opened(ctx, tp, rec);
		klb_stalled(rec, bpf_ktime_get_ns());
	}
	if (!tp || rec->phase != KLB_PHASE_CONNECTING)
		return;
	klb_distrust_limited(rec, tp);
	rec->flags |= KLB_SOCKET_RETRANSMITTED;
	stats = klb_stats_of_record(rec);
	if (stats)
		klb_suspected(stats, rec, bpf_ktime_get_ns(), klb_decision_ns(control));
	if (control->relay.mark)
		klb_rescue(ctx);
}

#define SHUTDOWN_MASK 3 /* include/net/sock.h */

/* Whether the peer has ever sent data. bytes_received counts its FIN as well
 * (tcp_rcv_nxt_update), which sets SOCK_DONE (tcp_fin). */
static __always_inline int has_sent_data(struct tcp_sock *tp)
{
	return tp->bytes_received > klb_has_flag(klb_sock_of(tp), SOCK_DONE);
}

/*
 * When the peer last sent data, if it ever did. The time is what the kernel has noted for
 * its delayed acknowledgements (icsk_ack.lrcvtime); the connection's start to begin with.
 */
static __always_inline void note_answer(struct tcp_sock *tp, const struct klb_socket *rec,
					struct klb_stats *stats, const struct klb_control *control)
{
	__u64 jiffies = bpf_jiffies64();
	__u32 age = (__u32)jiffies - tp->inet_conn.icsk_ack.lrcvtime;

	if (has_sent_data(tp))
		klb_answered(stats, rec, klb_jiffies_to_ns(control, jiffies - age));
}

/* The peer has acknowledged data. */
static __always_inline void on_acknowledged(struct bpf_sock_ops *ctx)
{
	struct klb_control *control = klb_control_get();
	struct klb_socket *rec = klb_record_of(ctx);
	struct klb_stats *stats;
	struct tcp_sock *tp;

	if (!rec || !control || rec->phase != KLB_PHASE_ACTIVE)
		return;
	tp = klb_ops_tcp_sock(ctx);
	if (!tp)
		return;
	if (tp->snd_wnd < tp->mss_cache)
		klb_window_shut(ctx, tp, rec);
	else
		klb_window_opened(ctx, tp, rec);
	stats = klb_stats_of_record(rec);
	if (stats)
		note_answer(tp, rec, stats, control);
}

static __always_inline enum klb_failure failure_of(int error)
{
	switch (error) {
	case ECONNREFUSED:
		return KLB_FAILURE_REFUSED;
	case ETIMEDOUT:
		return KLB_FAILURE_TIMED_OUT;
	case EACCES:
	case ENETUNREACH:
	case EHOSTDOWN:
	case EHOSTUNREACH:
		return KLB_FAILURE_UNREACHABLE;
	case 0:
		return KLB_FAILURE_GAVE_UP;
	default:
		return KLB_FAILURE_OTHER;
	}
}

/* The kernel sets the socket's error before it closes it (tcp_reset, tcp_write_err,
 * tcp_v4_err). What an ICMP message said while the client held the lock is a soft one. */
static __always_inline int error_of(struct sock *sk)
{
	int error = sk->sk_err;

	return error ? error : sk->sk_err_soft;
}

/*
 * Whether a connection that timed out had a peer that acknowledged everything to the end.
 * That is what happens when an application's own TCP_USER_TIMEOUT meets a peer that takes
 * no data for so long (tcp_probe_timer): neither data nor a probe was left unanswered.
 */
static __always_inline int was_answering(struct tcp_sock *tp)
{
	return !tp->inet_conn.icsk_retransmits && !tp->inet_conn.icsk_probes_out;
}

/*
 * Whether the connection was ended from this side: by SOCK_DESTROY, or by a reset that user space
 * has sent in the backend's name. Neither says anything about the backend. A function of its own,
 * which the verifier checks once.
 */
__noinline int klb_is_ended_here(struct bpf_sock_ops *ctx, int error)
{
	__u64 cookie, *ending;
	__u32 index;

	if (error == ECONNABORTED)
		return 1;
	/* What a reset leads to before the connection is established, and after. */
	if (error != ECONNREFUSED && error != ECONNRESET)
		return 0;
	cookie = bpf_get_socket_cookie(ctx);
	index = cookie % KLB_ENDING_SLOTS;
	ending = bpf_map_lookup_elem(&klb_ending, &index);
	return ending && *ending == cookie;
}

/* Takes what a connection that ended normally says about its backend. */
static __always_inline void note_normal_end(struct bpf_sock_ops *ctx, struct tcp_sock *tp,
					    const struct klb_socket *rec, struct klb_stats *stats)
{
	struct klb_control *control = klb_control_get();

	klb_smooth_rtt(stats, ctx->srtt_us >> 3);
	if (control)
		note_answer(tp, rec, stats, control);
}

/*
 * Whether the peer ends the connection without having served it: it has sent no data,
 * although the client has, or at once. A server that closes an idle connection is healthy.
 */
static __always_inline int is_early(struct tcp_sock *tp, const struct klb_socket *rec, __u64 now)
{
	return !has_sent_data(tp) &&
	       (tp->bytes_sent || klb_age(now, rec->established_ns) < (__s64)KLB_CLOSED_EARLY_NS);
}

/* Takes what the end of an established connection says about its backend. */
static __always_inline void note_end(struct bpf_sock_ops *ctx, struct tcp_sock *tp,
				     struct klb_socket *rec, struct klb_stats *stats, int error,
				     enum klb_failure failure, __u64 now)
{
	if (failure == KLB_FAILURE_UNREACHABLE ||
	    (failure == KLB_FAILURE_TIMED_OUT && !was_answering(tp))) {
		klb_distrust_limited(rec, tp);
		klb_peer_lost(stats, rec, now);
	} else if (error == ECONNRESET && is_early(tp, rec, now)) {
		klb_distrust_limited(rec, tp);
		klb_closed_early(stats, rec, now);
	} else {
		note_normal_end(ctx, tp, rec, stats);
	}
}

/* Takes what a connect that has ended says about its backend. A client that gives up before a
 * retransmission says nothing. */
static __always_inline void note_failed_connect(struct tcp_sock *tp, struct klb_socket *rec,
						struct klb_stats *stats, enum klb_failure failure,
						__u64 now)
{
	if (failure == KLB_FAILURE_GAVE_UP && !(rec->flags & KLB_SOCKET_RETRANSMITTED))
		return;
	klb_distrust_limited(rec, tp);
	klb_failed(stats, rec, failure, now);
}

static __always_inline void on_close(struct bpf_sock_ops *ctx)
{
	struct klb_socket *rec = klb_record_of(ctx);
	struct klb_stats *stats;
	enum klb_failure failure;
	struct tcp_sock *tp;
	enum klb_phase was;
	__u64 now;
	int error;

	if (!rec)
		return;
	was = rec->phase;
	if (rec->flags & KLB_SOCKET_MARKED)
		klb_closed_marked(ctx);
	stats = klb_stats_of_record(rec);
	klb_socket_end(rec, stats);
	tp = klb_ops_tcp_sock(ctx);
	if (!tp || !stats)
		return;
	error = error_of(klb_sock_of(tp));
	if (klb_is_ended_here(ctx, error))
		return;
	failure = failure_of(error);
	now = bpf_ktime_get_ns();
	if (was == KLB_PHASE_CONNECTING)
		note_failed_connect(tp, rec, stats, failure, now);
	else if (was == KLB_PHASE_ACTIVE)
		note_end(ctx, tp, rec, stats, error, failure, now);
}

/*
 * The client has closed and the FIN leaves. The connection stops counting here: a round trip
 * before TCP ends it, and much earlier when the peer is gone. Not after shutdown(SHUT_WR): the
 * client still reads the answer.
 */
static __always_inline void on_client_closed(struct bpf_sock_ops *ctx)
{
	struct klb_socket *rec = klb_record_of(ctx);
	struct tcp_sock *tp = klb_ops_tcp_sock(ctx);
	struct klb_stats *stats;

	if (!rec || !tp || rec->phase != KLB_PHASE_ACTIVE ||
	    klb_sock_of(tp)->sk_shutdown != SHUTDOWN_MASK)
		return;
	stats = klb_stats_of_record(rec);
	klb_socket_end(rec, stats);
	if (stats)
		note_normal_end(ctx, tp, rec, stats);
}

/* The peer has closed first. */
static __always_inline void on_peer_closed(struct bpf_sock_ops *ctx)
{
	struct klb_socket *rec = klb_record_of(ctx);
	struct tcp_sock *tp = klb_ops_tcp_sock(ctx);
	struct klb_stats *stats;
	__u64 now;

	if (!rec || !tp || rec->phase != KLB_PHASE_ACTIVE)
		return;
	now = bpf_ktime_get_ns();
	stats = klb_stats_of_record(rec);
	if (!stats || !is_early(tp, rec, now))
		return;
	klb_distrust_limited(rec, tp);
	klb_closed_early(stats, rec, now);
}

static __always_inline void on_state(struct bpf_sock_ops *ctx)
{
	switch (ctx->args[1]) {
	case BPF_TCP_CLOSE_WAIT:
		on_peer_closed(ctx);
		break;
	case BPF_TCP_FIN_WAIT1:
	case BPF_TCP_LAST_ACK:
		on_client_closed(ctx);
		break;
	case BPF_TCP_CLOSE:
		on_close(ctx);
		break;
	}
}

/* A server listens on this port: a connect to it may come from that server itself
 * (listener.bpf.h). */
static __always_inline void on_listen(struct bpf_sock_ops *ctx)
{
	klb_memory.listens[ctx->local_port % KLB_LISTEN_SLOTS] = 1;
}

SEC("sockops")
int klb_sockops(struct bpf_sock_ops *ctx)
{
	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		on_connect(ctx);
		break;
	case BPF_SOCK_OPS_TIMEOUT_INIT:
		on_timeout_init(ctx);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		/* Also the end of a simultaneous open (RFC 9293, 3.5), as when a socket is
		 * connected to itself. */
		if (!(ctx->bpf_sock_ops_cb_flags & CALLBACKS))
			break;
		__attribute__((fallthrough));
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		on_established(ctx);
		break;
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		on_listen(ctx);
		break;
	case BPF_SOCK_OPS_RTO_CB:
		on_retransmit(ctx);
		break;
	case BPF_SOCK_OPS_RTT_CB:
		on_acknowledged(ctx);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		on_state(ctx);
		break;
	}
	return 1;
}
