/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The programs' clock: CLOCK_MONOTONIC to the jiffy. It costs one load and not
 * a call of a helper.
 */
#ifndef KUBELB_CLOCK_BPF_H
#define KUBELB_CLOCK_BPF_H

#include "branchless.bpf.h"
#include "maps.bpf.h"

/* CLOCK_MONOTONIC at that jiffy, in ns. */
static __always_inline __u64 klb_jiffies_to_ns(const struct klb_control *control, __u64 jiffies)
{
	return jiffies * control->tick_ns + control->tick_offset_ns;
}

/* CLOCK_MONOTONIC in ns, to the jiffy: enough for heartbeats and ejections. */
static __always_inline __u64 klb_now_ns(const struct klb_control *control)
{
	return klb_jiffies_to_ns(control, bpf_jiffies64());
}

/* Signed: another CPU may store a time that is newer than this CPU's now. */
static __always_inline __s64 klb_age(__u64 now, __u64 then)
{
	return (__s64)(now - then);
}

/*
 * Returns 1 while the agent's heartbeat is fresh, so that its states count, else 0. A
 * heartbeat of 0 means that there was none yet. A heartbeat that is written while this runs
 * is newer than now, so the difference is signed. One that is much newer is of another clock, and
 * would otherwise never become old. Without branches, as everything that goes into the choice.
 */
static __always_inline __u32 klb_agent_alive(const struct klb_control *control, __u64 now)
{
	__u64 beat = control->heartbeat_ns;

	return (__u32)(klb_negative(0 - beat) & klb_negative(beat - now - KLB_CLOCK_SLACK_NS - 1) &
		       klb_negative(now - beat - control->heartbeat_max_age_ns - 1));
}

#endif
