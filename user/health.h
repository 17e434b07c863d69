/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The state of one backend over its probes' outcomes and time. Pure: no I/O, no
 * clock (time is an argument, nanoseconds of CLOCK_MONOTONIC), no memory of its own.
 *
 *   ready     `rise` answers of 200 in a row (the first one is enough at start)
 *   draining  an answer other than 200: alive, but asks for no new connections
 *   suspect   fewer than `fall` failures in a row: the verdict is pending
 *   dead      `fall` failures in a row
 */
#ifndef KUBELB_HEALTH_H
#define KUBELB_HEALTH_H

#include <stdbool.h>

#include <kubelb/abi.h>

struct health_rules {
	unsigned int rise;
	unsigned int fall;
	unsigned int interval_ms;
};

struct health {
	enum klb_state state;
	enum klb_reason reason;
	unsigned int http_status; /* of the last answer; 0: there was none */
	unsigned int successes; /* in a row, up to rise */
	unsigned int failures; /* in a row, up to fall */
	__u64 since_ns;
	__u64 last_probe_ns;
};

/* A backend that nobody has asked yet. */
void health_init(struct health *h, __u64 now_ns);

/*
 * Takes over what an earlier agent left in the maps, so that a restart changes
 * no verdict before the first probe has ended.
 */
void health_adopt(struct health *h, const struct klb_backend *seen);

/* Takes in the outcome of one probe. Returns true when the state changed. */
bool health_probed(struct health *h, const struct health_rules *rules, enum klb_reason outcome,
		   unsigned int http_status, __u64 now_ns);

/*
 * The kept connection was closed by the other side: suspect until a probe tells.
 * Returns true when the state changed.
 */
bool health_connection_lost(struct health *h, __u64 now_ns);

/*
 * How long to wait for the next probe, before jitter: the interval when the state
 * is settled, at most a second while a verdict is pending.
 */
unsigned int health_next_probe_ms(const struct health *h, const struct health_rules *rules);

const char *health_state_name(enum klb_state state);
const char *health_reason_name(enum klb_reason reason);

#endif
