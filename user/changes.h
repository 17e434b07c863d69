/* SPDX-License-Identifier: BSD-2-Clause */
/* What user space has decided between two looks at the maps: the agent about backends, the
 * operator about what he wants of them. Pure. */
#ifndef KUBELB_CHANGES_H
#define KUBELB_CHANGES_H

#include "datapath.h"

enum change_kind {
	CHANGE_STATE, /* the agent's verdict */
	CHANGE_ADDED, /* a backend has come */
	CHANGE_REMOVED, /* it has gone */
	CHANGE_DRAINED, /* the operator's drain */
	CHANGE_UNDRAINED,
	CHANGE_WEIGHT, /* the operator's weight, or the end of it */
};

/* was, state, reason, http_status: of CHANGE_STATE, as in klb_backend; was is unknown where
 * nobody has looked before. weight: of CHANGE_WEIGHT; -1: the planned one counts again. */
struct change {
	enum change_kind kind;
	struct klb_endpoint backend;
	__u32 id;
	enum klb_state was, state;
	enum klb_reason reason;
	__u32 http_status;
	int weight;
	__u64 time_ns; /* CLOCK_MONOTONIC; of when it was seen, for all but CHANGE_STATE */
};

/* A state, a drain and a weight for each that is there, and those that are gone. */
#define CHANGES_MAX (4 * KLB_MAX_IDS)

/*
 * Fills ret, which has room for CHANGES_MAX, by time. Returns how many there are. was: the
 * look before; NULL for the first one, which finds the last verdict about each backend.
 */
unsigned int changes_between(const struct datapath_state *was, const struct datapath_state *is,
			     __u64 now_ns, struct change *ret);

/* "state", "added", "removed", "drained", "undrained" or "weight" */
const char *changes_kind_name(enum change_kind kind);

#endif
