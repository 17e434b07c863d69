/* SPDX-License-Identifier: BSD-2-Clause */
/* The clocks. All count nanoseconds. */
#ifndef KUBELB_CLOCK_H
#define KUBELB_CLOCK_H

#include <sys/time.h>

#include <linux/types.h>

#include "base/err.h"

#define NS_PER_MS 1000000ULL
#define NS_PER_S 1000000000ULL

/*
 * CLOCK_MONOTONIC as the kernel has it: the time in the maps. In a time namespace
 * (time_namespaces(7)) only after clock_adopt_kernels.
 */
__u64 clock_now_ns(void);

/*
 * To be called once, before the first clock_now_ns and before threads: finds out what a time
 * namespace has added to this process's clock, and takes it off from then on. ret_offset_ns: that,
 * 0 outside of time namespaces. Returns 0, or a negative errno with e when it cannot be told: no
 * time in the maps can be understood or written then.
 */
int clock_adopt_kernels(__s64 *ret_offset_ns, struct err *e);
/* CLOCK_REALTIME: the time that people see. */
__u64 clock_wall_ns(void);
/* CLOCK_THREAD_CPUTIME_ID: what the calling thread has had of a CPU. */
__u64 clock_cpu_ns(void);

/* Seconds from then to now; 0 when then is later. */
static inline double clock_seconds(__u64 then_ns, __u64 now_ns)
{
	return now_ns > then_ns ? (double)(now_ns - then_ns) / NS_PER_S : 0;
}

/* A time-out for libevent. */
static inline struct timeval clock_timeval(unsigned int ms)
{
	return (struct timeval){ .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };
}

#endif
