/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Outlier detection: what clients' own connects say about a backend goes into `stats`, and
 * a backend whose connects fail is ejected for a while. It needs no agent.
 *
 *   a SYN had to be sent again   suspect, until the connect succeeds or fails
 *   a connect failed, a peer     ejected for 1 s; doubles up to 60 s with consecutive ejections
 *   was lost, or it closed a
 *   connection before it sent
 *   any data, or sent none
 *   the ejection is over         half-open: one connect tries, the others go elsewhere
 *                                until it succeeds or fails
 *   a connect succeeded          nothing is held against the backend any more; but if it closed
 *                                connections without data, or sent none, only data to a client
 *                                that has connected since restores it
 *
 * While an agent lives, an ejection for a trusted reporter is held: it is over when the agent has
 * reached the backend by a new connection, but no sooner than by itself.
 *
 * Only connects of trusted reporters count (KLB_SOCKET_TRUSTED), and once in a while those of
 * untrusted ones; of both only those of a reporter whose connects work otherwise
 * (reporter.bpf.h). The outcome of any other connect is counted in `stats` and ejects nothing.
 *
 * While a backend is ejected, others are preferred (select.bpf.h); the last one is used all
 * the same.
 */
#ifndef KUBELB_OUTLIER_BPF_H
#define KUBELB_OUTLIER_BPF_H

#include "clock.bpf.h"
#include "event_log.bpf.h"
#include "maps.bpf.h"
#include "reporter.bpf.h"

/* At most one update of last_answer_ns in this time: a cache line that many CPUs write to is
 * expensive. */
#define KLB_ANSWER_NS 100000000ULL

/* An untrusted reporter's failure counts once in this time. */
#define KLB_UNTRUSTED_INTERVAL_NS 10000000000ULL

/* How long a backend counts as answering after clients had data from it, in units of
 * 2^KLB_ANSWERED_SHIFT ns. */
#define KLB_ANSWERED_UNITS 60

static __always_inline __u64 klb_ejection_ns(__u32 streak)
{
	__u64 period = KLB_EJECT_MIN_NS << (streak & 7);

	return period < KLB_EJECT_MAX_NS ? period : KLB_EJECT_MAX_NS;
}

/*
 * Whether a failure began before the ejection that is in force, so that it says nothing
 * new: ten connects that fail together are one failure, not ten doublings. began_ns: the
 * earliest time at which the backend can have stopped answering this socket.
 */
static __always_inline int klb_predates_ejection(const struct klb_stats *stats, __u64 began_ns)
{
	return stats->evidence == KLB_EVIDENCE_EJECTED && began_ns < stats->ejected_until_ns;
}

/*
 * Whether this socket's failure counts against the backend. A trusted reporter's does. An
 * untrusted reporter's does when no connect has succeeded since, and when it is the first
 * failure for a while, so that somebody who makes connects fail on purpose, again and again,
 * has an effect once. Untrusted reporters exist only while an agent runs, which probes the
 * backend itself.
 */
static __always_inline int klb_is_report_accepted(const struct klb_stats *stats,
						  const struct klb_socket *rec, __u64 now)
{
	if (!klb_reporter_counts(rec, now))
		return 0;
	if (rec->flags & KLB_SOCKET_TRUSTED)
		return 1;
	return rec->flags & KLB_SOCKET_UNTRUSTED && stats->last_success_ns < rec->connect_ns &&
	       klb_age(now, stats->last_failure_ns) > (__s64)KLB_UNTRUSTED_INTERVAL_NS;
}

/* Whether an agent lives that ends ejections. */
static __always_inline int klb_is_held(__u64 now)
{
	struct klb_control *control = klb_control_get();

	return control && control->ends_ejections && klb_agent_alive(control, now);
}

/* To be called before the failure is noted as the last one. */
static __noinline int klb_eject(struct klb_stats *stats, const struct klb_socket *rec,
				enum klb_failure failure, __u64 began_ns, __u64 now)
{
	__u64 period = KLB_EJECT_MIN_NS;
	int accepted, held = 0;

	if (!stats || !rec || klb_predates_ejection(stats, began_ns))
		return 0;
	accepted = klb_is_report_accepted(stats, rec, now);
	klb_reporter_failed(rec, accepted, now);
	if (!accepted)
		return 0;
	if (rec->flags & KLB_SOCKET_TRUSTED) {
		period = klb_ejection_ns(stats->streak);
		if (stats->streak < 6)
			stats->streak++;
		held = klb_is_held(now);
	}
	stats->held_ms = held ? (__u32)(period / 1000000) : 0;
	stats->ejected_ns = now;
	stats->ejected_until_ns = now + (held ? KLB_EJECT_MAX_NS : period);
	stats->evidence = KLB_EVIDENCE_EJECTED;
	/* Answers from before the failure do not count any more. */
	stats->answered_until = 0;
	__sync_fetch_and_add(&stats->ejections, 1);
	klb_emit_event(rec, KLB_EVENT_EJECTED, failure, now, period);
	return 0;
}

/* A connect has failed. */
static __always_inline void klb_failed(struct klb_stats *stats, const struct klb_socket *rec,
				       enum klb_failure failure, __u64 now)
{
	__u32 reason = failure;

	if (reason < KLB_FAILURES)
		__sync_fetch_and_add(&stats->failed[reason], 1);
	klb_emit_event(rec, KLB_EVENT_CONNECT_FAILED, failure, now, 0);
	klb_eject(stats, rec, failure, rec->connect_ns, now);
	stats->last_failure_ns = now;
}

/* An established connection has ended because its peer stopped answering. */
static __always_inline void klb_peer_lost(struct klb_stats *stats, const struct klb_socket *rec,
					  __u64 now)
{
	__sync_fetch_and_add(&stats->lost, 1);
	klb_emit_event(rec, KLB_EVENT_PEER_LOST, KLB_FAILURE_TIMED_OUT, now, 0);
	/* The connection may be old, but it worked until now. */
	klb_eject(stats, rec, KLB_FAILURE_TIMED_OUT, now, now);
	stats->last_failure_ns = now;
}

/* A server that closes idle connections waits at least this long after the handshake. A
 * connection that ends earlier was not served. */
#define KLB_CLOSED_EARLY_NS 1000000000ULL

/*
 * The peer has ended an established connection before it sent any data: something accepts
 * connections and serves none, as a proxy without its apiserver does. It counts unless a
 * client had data from the backend since this connection began.
 */
static __always_inline void klb_closed_early(struct klb_stats *stats, struct klb_socket *rec,
					     __u64 now)
{
	if (rec->flags & KLB_SOCKET_CLOSED_EARLY ||
	    klb_age(stats->last_answer_ns + KLB_ANSWER_NS, rec->established_ns) > 0)
		return;
	rec->flags |= KLB_SOCKET_CLOSED_EARLY;
	klb_emit_event(rec, KLB_EVENT_CLOSED_EARLY, KLB_FAILURE_OTHER, now, 0);
	if (rec->flags & KLB_SOCKET_TRUSTED && klb_reporter_counts(rec, now))
		__sync_fetch_and_add(&stats->closed_early, 1);
	klb_eject(stats, rec, KLB_FAILURE_OTHER, rec->established_ns, now);
	stats->last_failure_ns = now;
}

/*
 * The agent has found an established connection that is silent: the backend's kernel takes clients'
 * data, and nobody reads it. A sock_ops program cannot see that by itself: it learns that data has
 * come when the client sends its next acknowledgement.
 */
static __always_inline void klb_silent(struct klb_stats *stats, const struct klb_socket *rec,
				       __u64 now)
{
	if (klb_predates_ejection(stats, now))
		return;
	klb_emit_event(rec, KLB_EVENT_SILENT, KLB_FAILURE_TIMED_OUT, now, 0);
	if (rec->flags & KLB_SOCKET_TRUSTED && klb_reporter_counts(rec, now))
		stats->silent++;
	klb_eject(stats, rec, KLB_FAILURE_TIMED_OUT, now, now);
	stats->last_failure_ns = now;
}

/* At most one event about stalled connections of a backend in this time. */
#define KLB_STALLED_NS 1000000000ULL

/*
 * A client's data was not acknowledged and goes out again. That happens to every lossy link, so it
 * holds nothing against the backend; the agent, which is woken, asks it at once.
 */
static __always_inline void klb_stalled(const struct klb_socket *rec, __u64 now)
{
	__u64 *last = &klb_memory.stalled_ns[rec->id % KLB_MAX_IDS];

	if (!(rec->flags & (KLB_SOCKET_TRUSTED | KLB_SOCKET_UNTRUSTED)) ||
	    klb_age(now, *last) < (__s64)KLB_STALLED_NS)
		return;
	*last = now;
	klb_emit_event(rec, KLB_EVENT_STALLED, KLB_FAILURE_TIMED_OUT, now, 0);
}

/* The first SYN was not answered: others are preferred until this connect succeeds or fails. */
static __always_inline void klb_suspected(struct klb_stats *stats, const struct klb_socket *rec,
					  __u64 now, __u64 wait_ns)
{
	if (!(rec->flags & KLB_SOCKET_TRUSTED) || stats->evidence == KLB_EVIDENCE_EJECTED ||
	    stats->evidence == KLB_EVIDENCE_TRIAL || !klb_reporter_counts(rec, now))
		return;
	if (stats->evidence == KLB_EVIDENCE_NONE) {
		stats->evidence = KLB_EVIDENCE_SUSPECT;
		__sync_fetch_and_add(&stats->suspected, 1);
		klb_emit_event(rec, KLB_EVENT_SUSPECT, KLB_FAILURE_TIMED_OUT, now, 0);
	}
	stats->ejected_until_ns = now + wait_ns;
}

static __always_inline void klb_smooth_rtt(struct klb_stats *stats, __u32 srtt_us)
{
	__u32 old = stats->srtt_us;

	/* The new value counts one eighth (RFC 6298); rounded, so that the average reaches it. */
	if (srtt_us)
		stats->srtt_us = old ? (old * 7ULL + srtt_us + 4) / 8 : srtt_us;
}

/* Nothing is held against the backend any more. */
static __always_inline void klb_restore(struct klb_stats *stats, const struct klb_socket *rec,
					__u64 now)
{
	stats->evidence = KLB_EVIDENCE_NONE;
	stats->streak = 0;
	stats->closed_early = 0;
	stats->silent = 0;
	stats->ejected_until_ns = 0;
	klb_emit_event(rec, KLB_EVENT_RESTORED, KLB_FAILURE_OTHER, now, 0);
}

/* Whether a handshake is no proof that the backend works. */
static __always_inline int klb_wants_data(const struct klb_stats *stats)
{
	return stats->closed_early || stats->silent;
}

/*
 * A connect has succeeded, which restores the backend, unless it has closed connections
 * without data before. A pod's success does not count: in its own network namespace
 * something else may have answered.
 */
static __always_inline void klb_succeeded(struct klb_stats *stats, const struct klb_socket *rec,
					  __u32 srtt_us, __u64 now)
{
	__sync_fetch_and_add(&stats->opened, 1);
	__sync_fetch_and_add(&stats->connect_ns, now - rec->connect_ns);
	klb_smooth_rtt(stats, srtt_us);
	if (!(rec->flags & (KLB_SOCKET_TRUSTED | KLB_SOCKET_UNTRUSTED)))
		return;
	klb_reporter_succeeded(rec);
	stats->last_success_ns = now;
	if (stats->evidence != KLB_EVIDENCE_NONE && !klb_wants_data(stats))
		klb_restore(stats, rec, now);
}

/*
 * The backend's process, not only its kernel, has sent data to a client at at_ns. Any user's
 * socket counts, since nobody can have data without an answer. A pod's does not: see above.
 */
static __always_inline void klb_answered(struct klb_stats *stats, const struct klb_socket *rec,
					 __u64 at_ns)
{
	if (!(rec->flags & (KLB_SOCKET_TRUSTED | KLB_SOCKET_UNTRUSTED)))
		return;
	/* An older connection may be served for long by one that serves no new ones. */
	if (stats->evidence != KLB_EVIDENCE_NONE && klb_wants_data(stats) &&
	    klb_age(rec->established_ns, stats->ejected_ns) > 0)
		klb_restore(stats, rec, at_ns);
	if (klb_age(at_ns, stats->last_answer_ns) <= (__s64)KLB_ANSWER_NS)
		return;
	stats->last_answer_ns = at_ns;
	/* Data from before the failure does not count. */
	if (stats->evidence == KLB_EVIDENCE_NONE || at_ns >= stats->ejected_until_ns)
		stats->answered_until = (__u32)(at_ns >> KLB_ANSWERED_SHIFT) + KLB_ANSWERED_UNITS;
}

/* The agent's new connection, begun at reached_ns, was answered. */
static __always_inline void klb_reached(struct klb_stats *stats, __u64 reached_ns)
{
	if (stats->evidence != KLB_EVIDENCE_EJECTED || !stats->held_ms ||
	    klb_age(reached_ns, stats->ejected_ns) <= 0)
		return;
	stats->ejected_until_ns = stats->ejected_ns + stats->held_ms * 1000000ULL;
	stats->held_ms = 0;
}

/* How long one connect may take to succeed or fail: connectTimeout and a little more. */
static __always_inline __u64 klb_decision_ns(const struct klb_control *control)
{
	__u32 ms = control->connect_timeout_ms ? control->connect_timeout_ms : 1000;

	return ms * 1000000ULL + 100000000ULL;
}

/*
 * A connect goes to a backend of which failures are known. If the ejection is over, it is the
 * one that tries. Until it is decided, the others go elsewhere: with a backend that drops SYNs
 * each of them would wait for its time-out. A connect whose outcome does not count must not
 * try: a pod that a policy cuts off would keep everybody else from trying. Two connects at the
 * same instant both try. A function of its own, which takes no room among what every connect runs.
 */
static __noinline int klb_half_open(const struct klb_candidate *cand, __u32 flags,
				    struct tcp_sock *tp, __u64 now)
{
	struct klb_control *control = klb_control_get();
	struct klb_stats *stats;
	__u32 which;

	if (!cand || !control)
		return 0;
	which = KLB_WHICH(cand->id, cand->generation);
	stats = klb_stats_of(cand->id, cand->generation);
	if (!stats || stats->evidence == KLB_EVIDENCE_NONE || now < stats->ejected_until_ns ||
	    !(flags & KLB_SOCKET_TRUSTED) || !tp || klb_has_filter(tp) || klb_has_port_range(tp))
		return 0;
	if (klb_agent_alive(control, now) &&
	    !klb_reporter_may_blame(klb_reporter_key_of(tp), which, now))
		return 0;
	stats->evidence = KLB_EVIDENCE_TRIAL;
	stats->ejected_until_ns = now + klb_decision_ns(control);
	return 0;
}

#endif
