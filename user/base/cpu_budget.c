/* SPDX-License-Identifier: BSD-2-Clause */
/* A share of one processor, filled as time goes on. */
#include "base/cpu_budget.h"

#include <time.h>

#include "base/clock.h"

__u64 cpu_budget_clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (__u64)t.tv_sec * NS_PER_S + (__u64)t.tv_nsec;
}

bool cpu_budget_has(struct cpu_budget *b, __u64 now_ns)
{
	__u64 passed = now_ns - b->filled_ns;

	/* A longer time fills it anyway, and would overflow. */
	if (!b->filled_ns || passed > 1000 * NS_PER_S)
		b->left_ns = b->burst_ns;
	else
		b->left_ns += (__s64)(passed * b->permille / 1000);
	if (b->left_ns > b->burst_ns)
		b->left_ns = b->burst_ns;
	b->filled_ns = now_ns;
	return b->left_ns > 0;
}

void cpu_budget_pay(struct cpu_budget *b, __u64 spent_ns)
{
	b->left_ns -= (__s64)spent_ns;
	if (b->left_ns < -b->burst_ns)
		b->left_ns = -b->burst_ns;
}
