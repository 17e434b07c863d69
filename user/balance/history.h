/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the counts of the backends were in the last ten minutes, for graphs. Pure, and bounded: 120
 * samples for each of KLB_MAX_IDS backends at the most, some 1.5 KiB a backend.
 */
#ifndef KUBELB_HISTORY_H
#define KUBELB_HISTORY_H

#include "balance/state.h"

#define HISTORY_SAMPLES 120
/* Between two samples: ten minutes in all. */
#define HISTORY_INTERVAL_MS 5000
/* The backend was not there, or its counts began anew. */
#define HISTORY_UNKNOWN (~0u)

struct history_point {
	__u32 active; /* connections at the end of the sample */
	__u32 opened, failed; /* connects in the sample */
};

struct history_backend {
	struct klb_endpoint endpoint;
	bool there; /* at the last look; these are its generation and counts then: */
	__u32 generation;
	__u64 opened, failed;
	struct history_point points[HISTORY_SAMPLES]; /* by history_index */
};

struct history {
	__u64 last_ns; /* the end of the newest sample; 0: there was no look yet */
	__u32 lengths_ms[HISTORY_SAMPLES];
	unsigned int next, n; /* where the next sample goes, and how many there are */
	struct history_backend *backends[KLB_MAX_IDS];
	unsigned int n_backends;
};

/*
 * Adds what has happened since the last call as a sample; the first call only notes the counts.
 * Backends that no sample has any more are forgotten. Without memory a backend is left out.
 */
void history_add(struct history *h, const struct datapath_state *s, __u64 now_ns);

/* Where sample i is, with i from 0 (the oldest) to n - 1. */
static inline unsigned int history_index(const struct history *h, unsigned int i)
{
	return (h->next + HISTORY_SAMPLES - h->n + i) % HISTORY_SAMPLES;
}

/* Frees the backends, not h. */
void history_clear(struct history *h);

#endif
