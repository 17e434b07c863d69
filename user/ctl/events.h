/* SPDX-License-Identifier: BSD-2-Clause */
/* What has happened to connects and to backends, one line an event, for people and as JSON
 * lines. Pure. */
#ifndef KUBELB_EVENTS_H
#define KUBELB_EVENTS_H

#include <stdio.h>

#include <kubelb/abi.h>

#include "balance/state_diff.h"

/* "connect-failed", "suspect", "ejected", "restored", "peer-lost" or "closed-early" */
const char *events_kind_name(enum klb_event_kind kind);

/*
 * wall_offset_ns: what to add to CLOCK_MONOTONIC to get CLOCK_REALTIME. Text gives the
 * time of this host's zone, JSON that of UTC.
 */
void events_print_text(const struct klb_event *event, __u64 wall_offset_ns, FILE *to);
/* Returns 0 or -ENOMEM. */
int events_print_json(const struct klb_event *event, __u64 wall_offset_ns, FILE *to);

/* The same for what user space has decided. */
void events_print_change_text(const struct change *change, __u64 wall_offset_ns, FILE *to);
int events_print_change_json(const struct change *change, __u64 wall_offset_ns, FILE *to);

#endif
