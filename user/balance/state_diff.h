/* SPDX-License-Identifier: BSD-2-Clause */
/* What user space has decided between two looks at the maps: the agent about backends, the
 * operator about what he wants of them. Pure. */
#ifndef KUBELB_STATE_DIFF_H
#define KUBELB_STATE_DIFF_H

#include "balance/state.h"

enum change_kind {
	CHANGE_STATE, /* the agent's verdict; was == state: it was another between the two looks */
	CHANGE_REASON, /* the verdict stands, and the reason for it is another */
	CHANGE_ADDED, /* a backend has come */
	CHANGE_REMOVED, /* it has gone */
	CHANGE_DRAINED, /* the operator's drain */
	CHANGE_UNDRAINED,
	CHANGE_WEIGHT, /* the operator's weight, or the end of it */
};

/* state, reason, http_status: of CHANGE_STATE and CHANGE_REASON, as in klb_backend. was: of
 * CHANGE_STATE; unknown where nobody has looked before. was_reason, was_http_status: of
 * CHANGE_REASON. weight: of CHANGE_WEIGHT; -1: the planned one counts again. */
struct change {
	enum change_kind kind;
	struct klb_endpoint backend;
	__u32 id;
	enum klb_state was, state;
	enum klb_reason was_reason, reason;
	__u32 was_http_status, http_status;
	int weight;
	/* CLOCK_MONOTONIC; of when it was seen, but for CHANGE_STATE (since when it stands) and
	 * CHANGE_REASON (the probe that found it). */
	__u64 time_ns;
};

/* A state or a reason, a drain and a weight for each that is there, and those that are gone. */
#define CHANGES_MAX (4 * KLB_MAX_IDS)

/*
 * Fills ret, which has room for CHANGES_MAX, by time. Returns how many there are. was: the
 * look before; NULL for the first one, which finds the last verdict about each backend.
 */
unsigned int changes_between(const struct datapath_state *was, const struct datapath_state *is,
			     __u64 now_ns, struct change *ret);

/* "state", "reason", "added", "removed", "drained", "undrained" or "weight" */
const char *changes_kind_name(enum change_kind kind);

#endif
