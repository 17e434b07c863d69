/* SPDX-License-Identifier: BSD-2-Clause */
/* The two clocks. Both count nanoseconds. */
#ifndef KUBELB_CLOCK_H
#define KUBELB_CLOCK_H

#include <sys/time.h>

#include <linux/types.h>

#define NS_PER_MS 1000000ULL
#define NS_PER_S 1000000000ULL

/* CLOCK_MONOTONIC: the time in the maps, and of all timers. */
__u64 clock_now_ns(void);
/* CLOCK_REALTIME: the time that people see. */
__u64 clock_wall_ns(void);

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
