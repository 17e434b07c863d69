/* SPDX-License-Identifier: BSD-2-Clause */
/* The two clocks. Both count nanoseconds. */
#ifndef KUBELB_CLOCK_H
#define KUBELB_CLOCK_H

#include <linux/types.h>

#define NS_PER_MS 1000000ULL
#define NS_PER_S 1000000000ULL

/* CLOCK_MONOTONIC: the time in the maps, and of all timers. */
__u64 clock_now_ns(void);
/* CLOCK_REALTIME: the time that people see. */
__u64 clock_wall_ns(void);

#endif
