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

/* "connect-failed", "suspect", "ejected", "restored", "peer-lost", "closed-early" or "stalled" */
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

#endif
