/* SPDX-License-Identifier: BSD-2-Clause */
/* The two clocks, in nanoseconds. */
#ifndef KUBELB_CLOCK_H
#define KUBELB_CLOCK_H

#include <linux/types.h>

#define NS_PER_MS 1000000ULL
#define NS_PER_S 1000000000ULL

/* CLOCK_MONOTONIC: what the maps and all timers go by. */
__u64 clock_now_ns(void);
/* CLOCK_REALTIME: for people. */
__u64 clock_wall_ns(void);

#endif
