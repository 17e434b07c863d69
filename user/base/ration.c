/* SPDX-License-Identifier: BSD-2-Clause */
/* Limits how often something happens: a token bucket whose owner waits. */
#include "base/ration.h"

#include "base/clock.h"

unsigned int ration_wait_ms(const struct ration *r, const struct ration_rules *rules, __u64 now_ns)
{
	__u64 burst_ns = (rules->burst - 1) * (__u64)rules->every_ms * NS_PER_MS;
	__u64 from_ns = now_ns + burst_ns;

	if (r->rested_ns <= from_ns)
		return 0;
	return (unsigned int)((r->rested_ns - from_ns + NS_PER_MS - 1) / NS_PER_MS);
}

bool ration_take(struct ration *r, const struct ration_rules *rules, __u64 now_ns)
{
	if (ration_wait_ms(r, rules, now_ns))
		return false;
	if (r->rested_ns < now_ns)
		r->rested_ns = now_ns;
	r->rested_ns += rules->every_ms * NS_PER_MS;
	return true;
}
