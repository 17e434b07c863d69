/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads the clocks. */
#include "base/clock.h"

#include <time.h>

static __u64 read_ns(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return (__u64)t.tv_sec * NS_PER_S + (__u64)t.tv_nsec;
}

__u64 clock_now_ns(void)
{
	return read_ns(CLOCK_MONOTONIC);
}

__u64 clock_wall_ns(void)
{
	return read_ns(CLOCK_REALTIME);
}
