/* SPDX-License-Identifier: BSD-2-Clause */
/* Counts the connects that the relay makes as the kernel counts its own: by id. */
#include "agent/relay_internal.h"

#include <errno.h>

#include "base/clock.h"

/* The same weight of a new round trip as in TCP (RFC 6298): 1/8. */
#define SRTT_SHARE 8

enum klb_failure relay_stats_failure(int error)
{
	switch (error) {
	case ECONNREFUSED:
	case ECONNRESET:
		return KLB_FAILURE_REFUSED;
	case ETIMEDOUT:
		return KLB_FAILURE_TIMED_OUT;
	case EHOSTUNREACH:
	case ENETUNREACH:
	case EADDRNOTAVAIL:
		return KLB_FAILURE_UNREACHABLE;
	default:
		return KLB_FAILURE_OTHER;
	}
}

static void count(struct klb_stats *s, const struct relay_outcome *o)
{
	__u32 rtt_us = (__u32)(o->connect_ns / 1000);

	if (o->error) {
		s->failed[relay_stats_failure(o->error)]++;
		s->last_failure_ns = clock_now_ns();
		return;
	}
	s->opened++;
	s->connect_ns += o->connect_ns;
	s->last_success_ns = clock_now_ns();
	s->srtt_us =
		s->srtt_us ? s->srtt_us - s->srtt_us / SRTT_SHARE + rtt_us / SRTT_SHARE : rtt_us;
}

void relay_stats_note(struct relay_stats *all, const struct relay_target *target,
		      const struct relay_outcome *o)
{
	struct klb_stats *s;

	if (target->id >= KLB_MAX_IDS)
		return;
	s = &all->at[target->id];
	pthread_mutex_lock(&all->lock);
	/* The id has been handed to another backend. */
	if (s->generation != target->generation)
		*s = (struct klb_stats){ .generation = target->generation };
	count(s, o);
	pthread_mutex_unlock(&all->lock);
}

struct klb_stats relay_stats_of(struct relay_stats *all, const struct plan_backend *b)
{
	struct klb_stats s = { .generation = b->value.generation };

	pthread_mutex_lock(&all->lock);
	if (all->at[b->id].generation == s.generation)
		s = all->at[b->id];
	pthread_mutex_unlock(&all->lock);
	return s;
}
