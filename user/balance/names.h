/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The names of the values in the maps, as people, JSON and metrics see them. Every function returns
 * a static string; "invalid" for an invalid value.
 */
#ifndef KUBELB_NAMES_H
#define KUBELB_NAMES_H

#include <kubelb/abi.h>

/* For example "ready" and "connection closed". */
const char *names_state(enum klb_state state);
const char *names_reason(enum klb_reason reason);
/* The same for metrics: "closed". */
const char *names_reason_key(enum klb_reason reason);

/*
 * The reason, with the HTTP status of an answer other than 200: "not ready (HTTP 500)". buf has
 * NAMES_REASON_MAX bytes; the function returns it.
 */
#define NAMES_REASON_MAX 64
const char *names_reason_text(enum klb_reason reason, __u32 http_status, char *buf);

/* Why a connect has failed: for metrics and JSON ("timed_out"), and for people ("timed out"). */
const char *names_failure_key(enum klb_failure failure);
const char *names_failure(enum klb_failure failure);

/* The state of discovery: for JSON, and as a line for people. */
const char *names_discovery_key(enum klb_discovery d);
const char *names_discovery(enum klb_discovery d);

#endif
