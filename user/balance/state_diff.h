/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Compares two readings of the maps: what the agent has decided about backends, and what the
 * operator has set. Pure.
 */
#ifndef KUBELB_STATE_DIFF_H
#define KUBELB_STATE_DIFF_H

#include "balance/state.h"

enum state_change_kind {
	CHANGE_STATE, /* the agent has changed the state; was == state: it has changed and changed
			 back */
	CHANGE_REASON, /* the state is the same, for another reason */
	CHANGE_ADDED, /* the backend is new */
	CHANGE_REMOVED, /* the backend has left the list */
	CHANGE_RETURNED, /* it is in the list again, the same as before */
	CHANGE_DRAINED, /* the operator has drained it */
	CHANGE_UNDRAINED,
	CHANGE_WEIGHT, /* the operator has set a weight, or has removed it */
};

/*
 * The fields depend on the kind. state, reason, http_status: of CHANGE_STATE and CHANGE_REASON, as
 * in klb_backend. was: of CHANGE_STATE. found: there is no earlier reading, so what it was is not
 * known. was_reason, was_http_status: of CHANGE_REASON. weight: of CHANGE_WEIGHT; -1: the planned
 * weight applies again. left_ns: of CHANGE_RETURNED: when it had left; 0: not known.
 */
struct state_change {
	enum state_change_kind kind;
	struct klb_endpoint backend;
	__u32 id;
	bool found;
	enum klb_state was, state;
	enum klb_reason was_reason, reason;
	__u32 was_http_status, http_status;
	int weight;
	__u64 left_ns;
	/*
	 * Nanoseconds of CLOCK_MONOTONIC: when the change was seen. For CHANGE_STATE: since when
	 * the state holds; for CHANGE_REASON: when the probe ended.
	 */
	__u64 time_ns;
};

/* A return, a state or a reason, a drain and a weight for each backend, and those that are gone. */
#define STATE_CHANGES_MAX (5 * KLB_MAX_IDS)

/*
 * Fills ret, which has STATE_CHANGES_MAX elements, in the order of time. Returns how many there
 * are. was: the earlier reading; NULL for the first one, which reports the current state of each
 * backend.
 */
unsigned int state_diff(const struct datapath_state *was, const struct datapath_state *is,
			__u64 now_ns, struct state_change *ret);

/* "state", "reason", "added", "removed", "returned", "drained", "undrained" or "weight" */
const char *state_change_name(enum state_change_kind kind);

#endif
