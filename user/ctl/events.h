/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Prints what has happened to connects and to backends, one line for each event, for people and as
 * JSON lines.
 */
#ifndef KUBELB_EVENTS_H
#define KUBELB_EVENTS_H

#include <stdio.h>

#include <kubelb/abi.h>

#include "balance/state_diff.h"

/* "connect-failed", "suspect", "ejected", "restored", "peer-lost", "closed-early", "stalled" or
 * "silent" */
const char *events_kind_name(enum klb_event_kind kind);

/*
 * wall_offset_ns: the difference between CLOCK_REALTIME and CLOCK_MONOTONIC. Text has local time,
 * JSON has UTC.
 */
void events_print_text(const struct klb_event *event, __u64 wall_offset_ns, FILE *to);
/* Returns 0 or -ENOMEM. */
int events_print_json(const struct klb_event *event, __u64 wall_offset_ns, FILE *to);

/* The same for decisions of the agent and the operator. */
void events_print_change_text(const struct state_change *change, __u64 wall_offset_ns, FILE *to);
int events_print_change_json(const struct state_change *change, __u64 wall_offset_ns, FILE *to);

/* Clients that the relay has refused. */
enum events_refused_why {
	EVENTS_REFUSED_LIMIT, /* relay.connections, or descriptors */
	EVENTS_REFUSED_SOURCE, /* relay.connectionsPerSource */
	EVENTS_REFUSED_NETWORK, /* allow */
	EVENTS_REFUSED,
};

struct events_refused {
	enum events_refused_why why;
	__u64 time_ns; /* CLOCK_MONOTONIC: when it was seen */
	__u64 n; /* clients since the event before */
};

void events_print_refused_text(const struct events_refused *r, __u64 wall_offset_ns, FILE *to);
int events_print_refused_json(const struct events_refused *r, __u64 wall_offset_ns, FILE *to);

#endif
