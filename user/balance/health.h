/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The state of one backend over its probes' outcomes and time. Pure: no I/O, no
 * clock (time is an argument, nanoseconds of CLOCK_MONOTONIC), no memory of its own.
 *
 *   ready     `rise` answers of 200 in a row (the first one is enough at start)
 *   draining  an answer other than 200, or none on the path for readiness but one on the
 *             path for liveness: alive, but asks for no new connections
 *   suspect   fewer than `fall` failures in a row: the verdict is pending
 *   dead      `fall` failures in a row
 *
 * A failure is a probe without an answer. So is the end of the kept connection by a
 * time-out: it stands for two seconds in which the host has acknowledged nothing.
 */
#ifndef KUBELB_HEALTH_H
#define KUBELB_HEALTH_H

#include <stdbool.h>

#include <kubelb/abi.h>

struct health_rules {
	unsigned int rise;
	unsigned int fall;
	unsigned int interval_ms;
	/* The apiservers answer to nobody whom they do not know (--anonymous-auth=false):
	 * 401 and 403 are then all that a probe without a certificate can ever get. */
	bool no_anonymous;
};

/* While clients are answered, a probe is made once so many intervals are over. */
#define HEALTH_SKIP_INTERVALS 6
/* And sooner where that would be too long for the kept connection: kube-apiserver closes one
 * that has been idle for 90 s (IdleTimeout of its http.Server), others after 60. */
#define HEALTH_IDLE_MS 60000

struct health {
	enum klb_state state;
	enum klb_reason reason;
	unsigned int http_status; /* of the last answer; 0: there was none */
	unsigned int successes; /* in a row, up to rise */
	unsigned int failures; /* in a row, up to fall */
	__u64 since_ns;
	__u64 last_probe_ns;
	bool was_down; /* dead or draining since it was ready last */
	bool was_draining; /* draining since it was ready last, or adopted and may have been */
	__u64 back_ns; /* when it became ready after having been down; 0: it never was */
};

/* A backend that nobody has asked yet. */
void health_init(struct health *h, __u64 now_ns);

/*
 * Takes over what an earlier agent left in the maps, so that a restart changes
 * no verdict before the first probe has ended. weight: the configured one; less in the
 * maps means a slow start, which goes on.
 */
void health_adopt(struct health *h, const struct klb_backend *seen, unsigned int weight);

/* Takes in the outcome of one probe. Returns true when the state changed. */
bool health_probed(struct health *h, const struct health_rules *rules, enum klb_reason outcome,
		   unsigned int http_status, __u64 now_ns);

/*
 * The kept connection has ended: closed or reset by the other side, or (timed_out)
 * because nothing was acknowledged any more. Suspect until a probe tells, unless it was
 * closed after it had been idle for so long that any server would: then the probe alone
 * tells. Returns true when the state changed.
 */
bool health_connection_lost(struct health *h, const struct health_rules *rules, bool timed_out,
			    __u64 now_ns);

/*
 * No answer on the path for readiness, and none yet on the one for liveness: others are
 * preferred until that is known. Returns true when the state changed.
 */
bool health_unanswered(struct health *h, __u64 now_ns);

/*
 * Whether the probe that is due can be left out: clients have been answered since the last
 * one was due, and the last one made is not too long ago. last_answer_ns: klb_stats'. That
 * their connects succeed would prove nothing: a hung backend's kernel accepts them.
 */
bool health_may_skip(const struct health *h, const struct health_rules *rules, __u64 last_answer_ns,
		     __u64 now_ns);

/* How long a backend that shuts down may take to answer what is in flight. */
#define HEALTH_LINGER_MS 60000

/*
 * Whether nothing more is to be expected on connections to it, so that they can be ended.
 * Dead is not enough: an apiserver that shuts down (it was draining before) closes its port
 * first and answers what is in flight, for up to a minute. When its process has ended, its
 * kernel has closed what was left; when its host goes, silence follows, and that counts.
 */
bool health_may_evict(const struct health *h, __u64 now_ns);

/*
 * What a backend that has come back gets of its weight, in 1/1000: a tenth at first,
 * all of it after ramp_ms. 1000 for one that was never away, and for ramp_ms 0.
 */
unsigned int health_share(const struct health *h, unsigned int ramp_ms, __u64 now_ns);

/*
 * How long to wait for the next probe, before jitter: the interval when the state
 * is settled, at most a second while a verdict is pending.
 */
unsigned int health_next_probe_ms(const struct health *h, const struct health_rules *rules);

#endif
