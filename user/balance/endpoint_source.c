/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Decides whether the configuration's own backends are used beside those that discovery has found.
 */
#include "balance/endpoint_source.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "net/endpoint.h"
#include "balance/backend_status.h"

unsigned int endpoint_source_with_seeds(const struct config *c, const struct klb_endpoint *list,
					unsigned int n, struct klb_endpoint *ret)
{
	if (n > KLB_MAX_BACKENDS)
		n = KLB_MAX_BACKENDS;
	for (unsigned int i = 0; i < n; i++)
		ret[i] = list[i];
	for (unsigned int i = 0; i < c->n_backends && n < KLB_MAX_BACKENDS; i++)
		if (!endpoint_is_in(ret, n, &c->backends[i].endpoint))
			ret[n++] = c->backends[i].endpoint;
	return n;
}

bool endpoint_source_is_cluster(const struct klb_control *control, __u64 now_ns)
{
	return backend_status_agent_alive(control, now_ns) &&
	       (control->discovery == KLB_DISCOVERY_CURRENT ||
		control->discovery == KLB_DISCOVERY_FAILING);
}

static __u64 patience_ns(const struct endpoint_source_facts *f)
{
	__u64 ms = (__u64)f->interval_ms * ENDPOINT_SOURCE_INTERVALS;

	return (ms > ENDPOINT_SOURCE_PATIENCE_MIN_MS ? ms : ENDPOINT_SOURCE_PATIENCE_MIN_MS) *
	       NS_PER_MS;
}

/*
 * A new list is used together with the seeds until one of its backends is usable; then the seeds
 * are dropped. A list that was usable before gets some time, because all of its apiservers may
 * restart at once.
 */
enum endpoint_source_step endpoint_source_review(struct endpoint_source *s,
						 const struct endpoint_source_facts *f)
{
	if (f->usable) {
		s->unusable_since_ns = 0;
		s->seeds_added = false;
		if (s->list_alone || !f->heard)
			return ENDPOINT_SOURCE_UNCHANGED;
		s->list_alone = true;
		return f->has_seeds ? ENDPOINT_SOURCE_DROP_SEEDS : ENDPOINT_SOURCE_UNCHANGED;
	}
	if (!s->unusable_since_ns)
		s->unusable_since_ns = f->now_ns;
	/* Before the agent has heard from the cluster the seeds are used anyway. */
	if (s->seeds_added || !f->has_seeds || (!f->heard && !s->list_alone) ||
	    f->now_ns - s->unusable_since_ns < patience_ns(f))
		return ENDPOINT_SOURCE_UNCHANGED;
	s->list_alone = false;
	s->seeds_added = true;
	return ENDPOINT_SOURCE_ADD_SEEDS;
}
