/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the relay itself has seen of a backend: outlier detection as the kernel does it for straight
 * connects (bpf/outlier.bpf.h). Threads race here, and may: the worst is one dial more.
 */
#include "relay/internal.h"

#include "base/clock.h"

/* A new round trip counts for an eighth (RFC 6298, 2.3). */
#define SRTT_SHIFT 3

bool evidence_success(struct relay_backend *b, __u64 connect_ns)
{
	unsigned int now_us = (unsigned int)(connect_ns / 1000);
	unsigned int srtt_us = atomic_load(&b->srtt_us);

	if (srtt_us)
		now_us = srtt_us - (srtt_us >> SRTT_SHIFT) + (now_us >> SRTT_SHIFT);
	atomic_store(&b->srtt_us, now_us ? now_us : 1);
	if (!atomic_exchange(&b->streak, 0))
		return false;
	atomic_store(&b->ejected_until_ns, 0);
	atomic_store(&b->trial_until_ns, 0);
	return true;
}

__u64 evidence_failure(struct relay_backend *b, __u64 now_ns)
{
	unsigned int streak = atomic_load(&b->streak);
	__u64 period_ns = KLB_EJECT_MIN_NS << streak;

	/* Those that were under way together are one failure. */
	if (streak && now_ns < atomic_load(&b->ejected_until_ns))
		return 0;
	if (period_ns >= KLB_EJECT_MAX_NS)
		period_ns = KLB_EJECT_MAX_NS;
	else
		streak++;
	atomic_store(&b->ejected_until_ns, now_ns + period_ns);
	atomic_store(&b->trial_until_ns, 0);
	atomic_store(&b->streak, streak);
	return period_ns;
}

bool evidence_is_ejected(struct relay_backend *b, __u64 now_ns)
{
	return atomic_load(&b->streak) && (now_ns < atomic_load(&b->ejected_until_ns) ||
					   now_ns < atomic_load(&b->trial_until_ns));
}

void evidence_begin_trial(struct relay_backend *b, __u64 until_ns)
{
	if (atomic_load(&b->streak))
		atomic_store(&b->trial_until_ns, until_ns);
}
