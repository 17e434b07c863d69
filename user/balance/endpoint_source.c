/* SPDX-License-Identifier: BSD-2-Clause */
#include "balance/endpoint_source.h"

#include <errno.h>
#include <string.h>

#include "net/endpoint.h"
#include "balance/backend_status.h"

static bool has(const struct klb_endpoint *list, unsigned int n, const struct klb_endpoint *ep)
{
	for (unsigned int i = 0; i < n; i++)
		if (endpoint_equal(&list[i], ep))
			return true;
	return false;
}

unsigned int believed_with_seeds(const struct config *c, const struct klb_endpoint *list,
				 unsigned int n, struct klb_endpoint *ret)
{
	if (n > KLB_MAX_BACKENDS)
		n = KLB_MAX_BACKENDS;
	for (unsigned int i = 0; i < n; i++)
		ret[i] = list[i];
	for (unsigned int i = 0; i < c->n_backends && n < KLB_MAX_BACKENDS; i++)
		if (!has(ret, n, &c->backends[i].endpoint))
			ret[n++] = c->backends[i].endpoint;
	return n;
}

bool believed_was_heard(const struct klb_control *control, __u64 now_ns)
{
	return verdict_agent_alive(control, now_ns) &&
	       (control->discovery == KLB_DISCOVERY_CURRENT ||
		control->discovery == KLB_DISCOVERY_FAILING);
}

static __u64 patience_ns(const struct believed_facts *f)
{
	__u64 ms = (__u64)f->interval_ms * BELIEVED_INTERVALS;

	return (ms > BELIEVED_PATIENCE_MIN_MS ? ms : BELIEVED_PATIENCE_MIN_MS) * 1000000ULL;
}

/*
 * A list that is new goes on with the seeds that counted before it: they go when it is of
 * use. One that was of use is given time, as all of it may restart at once.
 */
enum believed_step believed_review(struct believed *b, const struct believed_facts *f)
{
	if (f->takes) {
		b->idle_ns = 0;
		b->told = false;
		if (b->alone || !f->heard)
			return BELIEVED_AS_BEFORE;
		b->alone = true;
		return f->more ? BELIEVED_ALONE : BELIEVED_AS_BEFORE;
	}
	if (!b->idle_ns)
		b->idle_ns = f->now_ns;
	/* Before the cluster is heard the seeds count anyhow. */
	if (b->told || !f->more || (!f->heard && !b->alone) ||
	    f->now_ns - b->idle_ns < patience_ns(f))
		return BELIEVED_AS_BEFORE;
	b->alone = false;
	b->told = true;
	return BELIEVED_SEEDS;
}
