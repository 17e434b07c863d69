/* SPDX-License-Identifier: BSD-2-Clause */
/* Compares the kernel's counts of connections with the sockets. */
#include "balance/reconcile.h"

#include <string.h>

void reconcile_begin(struct reconcile *a)
{
	memset(a->seen, 0, sizeof(a->seen));
}

void reconcile_count(struct reconcile *a, const struct klb_socket *rec)
{
	if (rec->id >= KLB_MAX_IDS || rec->generation != a->before[rec->id].generation)
		return;
	a->seen[rec->id].active += rec->phase == KLB_PHASE_ACTIVE;
	a->seen[rec->id].connecting += rec->phase == KLB_PHASE_CONNECTING;
}

/* Whether no socket of this backend was opened, changed or closed between the two readings. */
static bool is_quiet(const struct klb_stats *before, const struct klb_stats *after)
{
	return before->active == after->active && before->connecting == after->connecting &&
	       before->opened == after->opened &&
	       !memcmp(before->failed, after->failed, sizeof(before->failed));
}

unsigned int reconcile_compare(struct reconcile *a, const struct klb_stats *after,
			       struct klb_adjustment *ret, bool *ret_again)
{
	const struct klb_stats *before = a->before;
	unsigned int adjustments = 0;

	*ret_again = false;
	/* kubelb-load uses the last id itself for its test connect. */
	for (__u32 id = 1; id < KLB_ID_SELFTEST; id++) {
		__s64 active = (__s64)(a->seen[id].active - before[id].active);
		__s64 connecting = (__s64)(a->seen[id].connecting - before[id].connecting);
		bool differs = is_quiet(&before[id], &after[id]) && (active || connecting);
		bool confirmed = differs && a->last[id].differs && a->last[id].active == active &&
				 a->last[id].connecting == connecting;

		if (confirmed)
			ret[adjustments++] =
				(struct klb_adjustment){ .id = id,
							 .generation = before[id].generation,
							 .repair = 1,
							 .active = active,
							 .connecting = connecting };
		a->last[id].active = active;
		a->last[id].connecting = connecting;
		a->last[id].differs = differs && !confirmed;
		*ret_again |= a->last[id].differs;
	}
	return adjustments;
}
