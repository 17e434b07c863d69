/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Learns after how long a server closes connections that are idle, so that it is kept from doing so
 * by probes that come sooner. Pure.
 */
#ifndef KUBELB_IDLE_CLOSE_H
#define KUBELB_IDLE_CLOSE_H

#include <stdbool.h>

/* All zero: nothing is known. */
struct idle_close {
	unsigned int seen_ms; /* the idle time at the last close, plus 1; 0: there was none */
	unsigned int limit_ms; /* the learned time; 0: not known */
};

/*
 * A connection was closed after idle_ms without a request, and the server was well. Two closes in a
 * row after about the same time are a rule; others are by chance. Returns true when the first rule
 * is found.
 */
bool idle_close_learn(struct idle_close *c, unsigned int idle_ms);

/*
 * When to probe at the latest, so that the connection stays open; 0: there is no need, or that
 * would be too often.
 */
unsigned int idle_close_probe_ms(const struct idle_close *c);

#endif
