/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the connects themselves say of a backend: outcomes into `stats`, ejection, and
 * the events that people read. No agent is needed for any of it.
 *
 *   a SYN had to be sent again   suspect, until the connect is decided
 *   a connect failed             ejected for 1 s, doubling up to 60 s while the failures
 *                                go on
 *   the ejection is over         one connect tries; the others wait for what it finds
 *   a connect succeeded          all of it is forgotten
 *
 * All of these are connects of witnesses (KLB_SOCKET_WITNESS): what others find on ways of
 * their own is counted, and is evidence for nothing.
 *
 * Ejected means that others are preferred (bpf/select.bpf.h): the last one is used all
 * the same.
 */
#ifndef KUBELB_OUTLIER_BPF_H
#define KUBELB_OUTLIER_BPF_H

#include "kernel.bpf.h"
#include "maps.bpf.h"

/* Hearsay is believed once in so long. */
#define KLB_HEARSAY_NS 10000000000ULL

/* How long what clients have had from a backend speaks for it, in 2^KLB_ANSWERED_SHIFT ns. */
#define KLB_ANSWERED_UNITS 60

/* The counters of whoever has the id now. */
static __always_inline struct klb_stats *klb_stats_at(__u32 id)
{
	return bpf_map_lookup_elem(&klb_stats, &id);
}

/* The counters of a backend; NULL when its id is another one's by now. */
static __always_inline struct klb_stats *klb_stats_of(__u32 id, __u32 generation)
{
	struct klb_stats *stats = klb_stats_at(id);

	return stats && stats->generation == generation ? stats : 0;
}

static __always_inline struct klb_stats *klb_stats_of_record(const struct klb_socket *rec)
{
	return klb_stats_of(rec->id, rec->generation);
}

static __always_inline struct klb_control *klb_control_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&klb_control, &zero);
}

/* CLOCK_MONOTONIC at that tick. */
static __always_inline __u64 klb_tick_time_ns(const struct klb_control *control, __u64 jiffies)
{
	return jiffies * control->tick_ns + control->tick_offset_ns;
}

/* To the tick, which is enough for heartbeats, ejections and the like. */
static __always_inline __u64 klb_now_ns(const struct klb_control *control)
{
	return klb_tick_time_ns(control, bpf_jiffies64());
}

/* Signed: what another CPU has stored since this one took the time is newer than now. */
static __always_inline __s64 klb_age(__u64 now, __u64 then)
{
	return (__s64)(now - then);
}

static __always_inline struct klb_counters *klb_counters_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&klb_counters, &zero);
}

/* What there is to say about one event, beyond what the record knows. */
struct klb_note {
	enum klb_event_kind kind;
	enum klb_failure failure;
	__u64 now;
	__u64 ejected_ns;
};

/*
 * A number is handed out first and the entry is marked as unfinished while it is being
 * written, so that no reader takes half of it for whole. Two writers that are KLB_EVENTS
 * apart would have to meet within these lines to spoil one.
 */
static __noinline int klb_event_put(const struct klb_socket *rec, const struct klb_note *note)
{
	struct klb_counters *counters = klb_counters_get();
	struct klb_event *event;
	__u64 number;
	__u32 index;

	if (!counters || !rec || !note)
		return 0;
	number = klb_count_up(&counters->events);
	index = number % KLB_EVENTS;
	event = bpf_map_lookup_elem(&klb_events, &index);
	if (!event)
		return 0;
	*(volatile __u64 *)&event->number = 0;
	event->time_ns = note->now;
	event->latency_ns = rec->connect_ns ? note->now - rec->connect_ns : 0;
	event->ejected_ns = note->ejected_ns;
	event->cgroup_id = rec->cgroup_id;
	event->backend = rec->backend;
	event->id = rec->id;
	event->kind = note->kind;
	event->failure = note->failure;
	event->pid = rec->pid;
	__builtin_memcpy(event->comm, rec->comm, sizeof(event->comm));
	__sync_fetch_and_add(&event->number, number + 1);
	if (klb_options.wakeup)
		bpf_ringbuf_output(&klb_wakeup, &number, sizeof(number), 0);
	return 0;
}

static __always_inline void klb_tell(const struct klb_socket *rec, enum klb_event_kind kind,
				     enum klb_failure failure, __u64 now, __u64 ejected_ns)
{
	struct klb_note note = {
		.kind = kind, .failure = failure, .now = now, .ejected_ns = ejected_ns
	};

	klb_event_put(rec, &note);
}

static __always_inline __u64 klb_ejection_ns(__u32 streak)
{
	__u64 period = KLB_EJECT_MIN_NS << (streak & 7);

	return period < KLB_EJECT_MAX_NS ? period : KLB_EJECT_MAX_NS;
}

/*
 * What began before the ejection that is in force proves nothing that it does not know:
 * ten connects that fail together are one failure, not ten doublings. began_ns: when the
 * backend stopped answering this socket, at the earliest.
 */
static __always_inline int klb_is_old_news(const struct klb_stats *stats, __u64 began_ns)
{
	return stats->evidence == KLB_EVIDENCE_EJECTED && began_ns < stats->ejected_until_ns;
}

/*
 * Whether what this socket met may be held against the backend. Hearsay may, for the
 * shortest time, when nobody has reached the backend since, and when it is the first
 * failure for a while: whoever makes his connects fail on purpose, again and again, is
 * heard once. The agent, which there is then, sees for itself.
 */
static __always_inline int klb_is_believed(const struct klb_stats *stats,
					   const struct klb_socket *rec, __u64 now)
{
	if (rec->flags & KLB_SOCKET_WITNESS)
		return 1;
	return rec->flags & KLB_SOCKET_HEARSAY && stats->last_success_ns < rec->connect_ns &&
	       klb_age(now, stats->last_failure_ns) > (__s64)KLB_HEARSAY_NS;
}

/* To be called before the failure is noted as the last one. */
static __always_inline void klb_eject(struct klb_stats *stats, const struct klb_socket *rec,
				      enum klb_failure failure, __u64 began_ns, __u64 now)
{
	__u64 period = KLB_EJECT_MIN_NS;

	if (!klb_is_believed(stats, rec, now) || klb_is_old_news(stats, began_ns))
		return;
	if (rec->flags & KLB_SOCKET_WITNESS) {
		period = klb_ejection_ns(stats->streak);
		if (stats->streak < 6)
			stats->streak++;
	}
	stats->ejected_until_ns = now + period;
	stats->evidence = KLB_EVIDENCE_EJECTED;
	/* What it has answered before is no news any more. */
	stats->answered_until = 0;
	__sync_fetch_and_add(&stats->ejections, 1);
	klb_tell(rec, KLB_EVENT_EJECTED, failure, now, period);
}

/* A connect has failed. */
static __always_inline void klb_failed(struct klb_stats *stats, const struct klb_socket *rec,
				       enum klb_failure failure, __u64 now)
{
	__u32 reason = failure;

	if (reason < KLB_FAILURES)
		__sync_fetch_and_add(&stats->failed[reason], 1);
	klb_tell(rec, KLB_EVENT_CONNECT_FAILED, failure, now, 0);
	klb_eject(stats, rec, failure, rec->connect_ns, now);
	stats->last_failure_ns = now;
}

/* An established connection has ended because its peer stopped answering. */
static __always_inline void klb_peer_lost(struct klb_stats *stats, const struct klb_socket *rec,
					  __u64 now)
{
	__sync_fetch_and_add(&stats->lost, 1);
	klb_tell(rec, KLB_EVENT_PEER_LOST, KLB_FAILURE_TIMED_OUT, now, 0);
	/* However old the connection, it was good until lately. */
	klb_eject(stats, rec, KLB_FAILURE_TIMED_OUT, now, now);
	stats->last_failure_ns = now;
}

/* The first SYN went unanswered: others are preferred until this connect is decided. */
static __always_inline void klb_suspected(struct klb_stats *stats, const struct klb_socket *rec,
					  __u64 now, __u64 wait_ns)
{
	if (!(rec->flags & KLB_SOCKET_WITNESS) || stats->evidence == KLB_EVIDENCE_EJECTED ||
	    stats->evidence == KLB_EVIDENCE_TRIAL)
		return;
	if (stats->evidence == KLB_EVIDENCE_NONE) {
		stats->evidence = KLB_EVIDENCE_SUSPECT;
		__sync_fetch_and_add(&stats->suspected, 1);
		klb_tell(rec, KLB_EVENT_SUSPECT, KLB_FAILURE_TIMED_OUT, now, 0);
	}
	stats->ejected_until_ns = now + wait_ns;
}

static __always_inline void klb_smooth_rtt(struct klb_stats *stats, __u32 srtt_us)
{
	__u32 old = stats->srtt_us;

	/* An eighth of the news, as RFC 6298 smooths; rounded so that it arrives. */
	if (srtt_us)
		stats->srtt_us = old ? (old * 7ULL + srtt_us + 4) / 8 : srtt_us;
}

/*
 * A connect has succeeded: nothing is held against the backend any more. In a network
 * namespace of its own somebody else may have answered, which a pod can arrange.
 */
static __always_inline void klb_succeeded(struct klb_stats *stats, const struct klb_socket *rec,
					  __u32 srtt_us, __u64 now)
{
	__sync_fetch_and_add(&stats->opened, 1);
	__sync_fetch_and_add(&stats->connect_ns, now - rec->connect_ns);
	klb_smooth_rtt(stats, srtt_us);
	if (!(rec->flags & (KLB_SOCKET_WITNESS | KLB_SOCKET_HEARSAY)))
		return;
	stats->last_success_ns = now;
	if (stats->evidence == KLB_EVIDENCE_NONE)
		return;
	stats->evidence = KLB_EVIDENCE_NONE;
	stats->streak = 0;
	stats->ejected_until_ns = 0;
	klb_tell(rec, KLB_EVENT_RESTORED, KLB_FAILURE_OTHER, now, 0);
}

/* Often enough for the probes that it spares; a line of memory that many CPUs write to is
 * not free. */
#define KLB_ANSWER_NS 100000000ULL

/*
 * The backend itself, and not its kernel alone, has answered a client. at_ns: when. Any
 * user's word will do: without an answer he has none to show. A pod's will not: see above.
 */
static __always_inline void klb_answered(struct klb_stats *stats, const struct klb_socket *rec,
					 __u64 at_ns)
{
	if (rec->flags & (KLB_SOCKET_WITNESS | KLB_SOCKET_HEARSAY) &&
	    klb_age(at_ns, stats->last_answer_ns) > (__s64)KLB_ANSWER_NS) {
		stats->last_answer_ns = at_ns;
		/* What it said before connects to it failed speaks for it no more. */
		if (stats->evidence == KLB_EVIDENCE_NONE || at_ns >= stats->ejected_until_ns)
			stats->answered_until =
				(__u32)(at_ns >> KLB_ANSWERED_SHIFT) + KLB_ANSWERED_UNITS;
	}
}

/*
 * This connect goes to a backend whose ejection is over: it is the one that tries. For
 * as long as it may take, the others go elsewhere: against a backend that swallows SYNs
 * every one of them would wait in vain. may: 0 for one that is no witness: a pod that is cut
 * off from the backend would keep everybody else from trying. Two connects at the same
 * instant both try.
 */
static __always_inline void klb_try(struct klb_stats *stats, __u64 now, __u64 wait_ns, __u32 may)
{
	if (stats->evidence == KLB_EVIDENCE_NONE || now < stats->ejected_until_ns || !may)
		return;
	stats->evidence = KLB_EVIDENCE_TRIAL;
	stats->ejected_until_ns = now + wait_ns;
}

/* How long one connect may take to find out: what connectTimeout allows, and a little. */
static __always_inline __u64 klb_decision_ns(const struct klb_control *control)
{
	__u32 ms = control->connect_timeout_ms ? control->connect_timeout_ms : 1000;

	return ms * 1000000ULL + 100000000ULL;
}

#endif
