/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The state of one backend, from the outcomes of its probes and from time. Pure: no I/O and no
 * clock. Times are arguments, in nanoseconds of CLOCK_MONOTONIC.
 *
 *   ready     `rise` answers of 200 in a row (at start the first one is enough)
 *   draining  an answer other than 200; or none on the readiness path but one on the liveness
 *             path; or a certificate that does not verify; or failures while clients get data: the
 *             backend is alive, and others are preferred for new connections
 *   suspect   fewer than `fall` failures in a row: the state is not settled
 *   dead      `fall` failures in a row
 *
 * A probe without an answer is a failure. So is a time-out of the persistent probe connection: it
 * means that the host has acknowledged nothing for two seconds.
 */
#ifndef KUBELB_HEALTH_H
#define KUBELB_HEALTH_H

#include <stdbool.h>

#include <kubelb/abi.h>

struct health_rules {
	unsigned int rise;
	unsigned int fall;
	unsigned int interval_ms;
	/*
	 * The apiservers do not answer anonymous clients (--anonymous-auth=false), so 401 and 403
	 * are the best answers that a probe without a certificate can get.
	 */
	bool no_anonymous;
	/*
	 * When to probe at the latest, so that the server keeps the persistent probe connection
	 * open (idle_close.h); 0: HEALTH_IDLE_MS is what counts.
	 */
	unsigned int keep_ms;
};

/* While clients get answers, one probe is made in this many intervals, */
#define HEALTH_SKIP_INTERVALS 6
/*
 * and sooner where the persistent probe connection would be idle for too long: kube-apiserver
 * closes it after 90 s (IdleTimeout of its http.Server), others after 60.
 */
#define HEALTH_IDLE_MS 60000

struct health {
	enum klb_state state;
	enum klb_reason reason;
	unsigned int http_status; /* of the last answer; 0: there was no answer */
	unsigned int successes; /* in a row, up to rise */
	unsigned int failures; /* in a row, up to fall */
	__u64 since_ns;
	__u64 last_probe_ns;
	bool silent; /* PINGs are not answered */
	enum klb_state before_silence;
	enum klb_reason silence; /* reason, as long as no probe has said something else */
	bool was_down; /* it was dead or draining after it was last ready */
	bool was_draining; /* it was draining after it was last ready, or an adopted state may hide
			      that */
	__u64 back_ns; /* when it became ready after being down, or came back; 0: never */
};

/* Whether a connect prefers a backend in state `state` to one in state `was` (klb_tier). */
bool health_is_better(enum klb_state state, enum klb_state was);

/* Initialises a backend that has not been probed. */
void health_init(struct health *h, __u64 now_ns);

/*
 * The state that a plan was made of: one that has not been probed is suspect in the maps while
 * another backend serves.
 */
enum klb_state health_applied_state(const struct klb_backend *seen);

/*
 * Takes the state that an earlier agent left in the maps, so that a restart changes no state before
 * the first probe has ended. weight: the configured one. Less in the maps means that a slow start
 * is going on; it continues.
 */
void health_adopt(struct health *h, const struct klb_backend *seen, unsigned int weight);

/*
 * The backend has left the list and is back: its slow start begins now, or when it becomes ready.
 */
void health_came_back(struct health *h, __u64 now_ns);

/* Adds the outcome of one probe. Returns true when the state has changed. */
bool health_probed(struct health *h, const struct health_rules *rules, enum klb_reason outcome,
		   unsigned int http_status, __u64 now_ns);

/* Whether this outcome, added by health_probed, makes the backend dead. */
bool health_is_last_failure(const struct health *h, const struct health_rules *rules,
			    enum klb_reason outcome);

/*
 * Adds such an outcome while clients get data from the backend, which makes it draining. Returns
 * true when the state has changed.
 */
bool health_failed_serving(struct health *h, const struct health_rules *rules,
			   enum klb_reason outcome, __u64 now_ns);

/*
 * The other side has acknowledged nothing any more on the persistent probe connection: a failure.
 * Returns true when the state has changed. A connection that the other side closes is none: the
 * probe that follows at once decides.
 */
bool health_timed_out(struct health *h, const struct health_rules *rules, __u64 now_ns);

/*
 * Whether the last probe had the answer of a ready backend. If the other side closes the persistent
 * probe connection then, it may just not keep idle ones: only the next probe says more.
 */
bool health_is_well(const struct health *h);

/*
 * There was no answer on the readiness path, and the one on the liveness path is pending; or the
 * persistent probe connection was closed, and there is no quick answer on a new one. Other backends
 * are preferred until it comes. Returns true when the state has changed.
 */
bool health_unanswered(struct health *h, __u64 now_ns);

/*
 * A PING was not answered in time. Other backends are preferred until there is a sign of life.
 * Returns true when the state has changed.
 */
bool health_silent(struct health *h, enum klb_reason reason, __u64 now_ns);
/*
 * There was no sign of life on a new connection either, or (reason) the host is gone: the backend
 * is dead. If clients get data from it (serving), it is draining. Returns true when the state has
 * changed.
 */
bool health_lost(struct health *h, const struct health_rules *rules, enum klb_reason reason,
		 bool serving, __u64 now_ns);
/*
 * Adds a sign of life: a PING's answer, or a complete handshake. It ends what silence has caused;
 * a dead backend becomes suspect, and probes decide. Returns true when the state has changed.
 */
bool health_alive(struct health *h, __u64 now_ns);

/*
 * Whether the probe that is due can be skipped: clients have had answers within the last interval,
 * and the last probe is recent enough. last_answer_ns: from klb_stats. Successful connects would
 * prove nothing: the kernel of a hung backend accepts them.
 */
bool health_may_skip(const struct health *h, const struct health_rules *rules, __u64 last_answer_ns,
		     __u64 now_ns);

/* How long a backend that shuts down may take to answer open requests. */
#define HEALTH_LINGER_MS 60000

/*
 * Whether no more answers can be expected on connections to the backend, so that they can be ended.
 * It is not enough that it is dead: an apiserver that shuts down (it was draining before) first
 * closes its port and then answers open requests for up to a minute. When its process ends, its
 * kernel closes the rest. When its host fails, connects are no longer refused but time out, and the
 * connections can be ended at once.
 */
bool health_may_evict(const struct health *h, __u64 now_ns);

/*
 * The part of its weight that a backend gets after coming back, in 1/1000: a tenth at first, all of
 * it after ramp_ms. 1000 for a backend that was never down nor away, and for ramp_ms 0.
 */
unsigned int health_share(const struct health *h, unsigned int ramp_ms, __u64 now_ns);

/*
 * The wait until the next probe, in milliseconds and without jitter: the interval when the backend
 * is ready (keep_ms where that is less), 5 s at most when it is dead, otherwise a second at most.
 */
unsigned int health_next_probe_ms(const struct health *h, const struct health_rules *rules);

#endif
