/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/pace.h"

#include "base/clock.h"

bool pace_take(struct pace *p, const struct pace_limit *limit, unsigned int n, __u64 now_ns)
{
	if (p->until_ns < now_ns)
		p->until_ns = now_ns;
	p->until_ns += n * NS_PER_S / limit->per_s;
	return p->until_ns - now_ns <= limit->burst * NS_PER_S / limit->per_s;
}
