/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the kernel makes of a backend at this moment, in the words that users know:
 * the agent's verdict if it is alive, the operator's wish, the kernel's own evidence.
 * Pure.
 */
#ifndef KUBELB_VERDICT_H
#define KUBELB_VERDICT_H

#include "balance/state.h"

struct verdict {
	const char *state; /* ready, suspect, draining, dead or ejected */
	char why[160];
	unsigned int weight; /* what counts: the operator's, else the planned one */
};

/* now_ns: CLOCK_MONOTONIC. */
void verdict_of(const struct datapath_state *s, const struct plan_backend *b, __u64 now_ns,
		struct verdict *ret);

/* What `control` says of discovery: a word for JSON, and a line for people. */
const char *verdict_discovery_key(enum klb_discovery d);
const char *verdict_discovery_text(enum klb_discovery d);

/* Connects that failed, for whatever reason. */
__u64 verdict_failed(const struct klb_stats *stats);

/* The word for a reason in metrics and JSON ("timed_out"), and for people ("timed out"). */
const char *verdict_failure_key(enum klb_failure failure);
const char *verdict_failure_name(enum klb_failure failure);

/* Why a backend is in its state, with the status of an answer that was not well: "not ready
 * (HTTP 500)". buf has room for VERDICT_REASON_MAX; returns it. */
#define VERDICT_REASON_MAX 64
const char *verdict_reason_text(enum klb_reason reason, __u32 http_status, char *buf);

/* Whether the agent's heartbeat is fresh, so that its verdicts count. */
bool verdict_agent_alive(const struct klb_control *control, __u64 now_ns);

/* The operator's wish about this backend; all zero when there is none. */
const struct klb_admin *verdict_wish(const struct datapath_state *s, const struct plan_backend *b);

#endif
