/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A share of one processor for work that others ask for. Work is paid for after it is done, so the
 * budget may be overdrawn; then there is nothing until it is filled again. Pure but for the clock.
 */
#ifndef KUBELB_CPU_BUDGET_H
#define KUBELB_CPU_BUDGET_H

#include <stdbool.h>

#include <linux/types.h>

struct cpu_budget {
	unsigned int permille; /* of one processor */
	__s64 burst_ns; /* the most that is saved up, and the most that can be owed */
	__s64 left_ns; /* negative: owed */
	__u64 filled_ns; /* CLOCK_MONOTONIC; 0: never */
};

/* The processor time of this thread. */
__u64 cpu_budget_clock_ns(void);

/* Fills it up for the time since the last call. Returns whether anything is left. */
bool cpu_budget_has(struct cpu_budget *b, __u64 now_ns);
void cpu_budget_pay(struct cpu_budget *b, __u64 spent_ns);

#endif
