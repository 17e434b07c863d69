/* SPDX-License-Identifier: BSD-2-Clause */
/* What the relay may choose from: the same backends as the kernel. */
#include "agent/internal.h"

#include <string.h>

#include "balance/backend_status.h"

static void fill_target(const struct datapath_state *s, const struct plan_backend *b,
			struct relay_target *ret)
{
	ret->endpoint = b->value.endpoint;
	ret->id = b->id;
	ret->generation = b->value.generation;
	ret->state = b->value.state;
	ret->weight = backend_status_weight(s, b);
	ret->rank = b->rank;
	ret->preferred = b->preferred;
	ret->drained = backend_status_admin(s, b)->drained;
}

unsigned int agent_relay_plan(const struct datapath_state *s, struct relay_frontend *ret)
{
	const struct plan *p = &s->applied;

	/* Padding too: two plans are compared as memory. */
	memset(ret, 0, KLB_MAX_FRONTENDS * sizeof(*ret));
	for (unsigned int i = 0; i < p->n_frontends; i++) {
		const struct plan_frontend *f = &p->frontends[i];

		ret[i].endpoint = f->endpoint;
		ret[i].policy = f->policy;
		for (unsigned int j = 0; j < f->n_backends; j++) {
			const struct plan_backend *b = plan_find_id(p, f->ids[j]);

			if (b)
				fill_target(s, b, &ret[i].at[ret[i].n++]);
		}
	}
	return p->n_frontends;
}
