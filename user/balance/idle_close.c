/* SPDX-License-Identifier: BSD-2-Clause */
/* Learns after how long a server closes connections that are idle. */
#include "balance/idle_close.h"

/* Two idle times are about the same when they differ by less than a quarter, or by this. */
#define SAME_MS 100
/* Probes must not come more often than in this time only to keep a connection open. */
#define PROBE_MIN_MS 700

static bool is_about(unsigned int ms, unsigned int other_ms)
{
	unsigned int less = ms < other_ms ? ms : other_ms;
	unsigned int more = ms < other_ms ? other_ms : ms;

	return more - less < SAME_MS || more - less < more / 4;
}

bool idle_close_learn(struct idle_close *c, unsigned int idle_ms)
{
	bool rule = c->seen_ms && is_about(idle_ms, c->seen_ms - 1);
	bool first = !c->limit_ms;
	unsigned int less = rule && c->seen_ms - 1 < idle_ms ? c->seen_ms - 1 : idle_ms;

	c->seen_ms = idle_ms + 1;
	if (!rule)
		return false;
	if (first || less < c->limit_ms)
		c->limit_ms = less ? less : 1;
	return first;
}

unsigned int idle_close_probe_ms(const struct idle_close *c)
{
	/* The jitter of a fifth and a round trip still fit. */
	unsigned int ms = c->limit_ms * 6 / 10;

	return ms >= PROBE_MIN_MS ? ms : 0;
}
