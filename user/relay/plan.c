/* SPDX-License-Identifier: BSD-2-Clause */
/* The plan of the relay: which frontend leads to which backends. Shared by the threads. */
#include "relay/internal.h"

#include <stdlib.h>

#include "net/endpoint.h"

static bool fill(struct relay_choices *c, struct relay_backends *list,
		 const struct relay_frontend *frontend)
{
	c->frontend = *frontend;
	for (unsigned int i = 0; i < frontend->n; i++) {
		struct relay_backend *b = backends_find(list, &frontend->at[i].endpoint);

		c->backend[i] = b;
		if (!b)
			return false;
		atomic_fetch_add(&b->refs, 1);
	}
	return true;
}

struct relay_plan *relay_plan_new(struct relay_backends *list,
				  const struct relay_frontend *frontends, unsigned int n)
{
	struct relay_plan *p = calloc(1, sizeof(*p) + n * sizeof(p->at[0]));

	if (!p)
		return NULL;
	atomic_init(&p->refs, 1);
	for (; p->n < n; p->n++)
		if (!fill(&p->at[p->n], list, &frontends[p->n])) {
			p->n++;
			relay_plan_unref(p);
			return NULL;
		}
	return p;
}

struct relay_plan *relay_plan_ref(struct relay_plan *p)
{
	if (p)
		atomic_fetch_add(&p->refs, 1);
	return p;
}

void relay_plan_unref(struct relay_plan *p)
{
	if (!p || atomic_fetch_sub(&p->refs, 1) != 1)
		return;
	for (unsigned int i = 0; i < p->n; i++)
		/* One that could not be filled ends early. */
		for (unsigned int j = 0; j < p->at[i].frontend.n && p->at[i].backend[j]; j++)
			atomic_fetch_sub(&p->at[i].backend[j]->refs, 1);
	free(p);
}

const struct relay_choices *relay_plan_find(const struct relay_plan *p,
					    const struct klb_endpoint *frontend)
{
	for (unsigned int i = 0; p && i < p->n; i++)
		if (endpoint_equal(&p->at[i].frontend.endpoint, frontend))
			return &p->at[i];
	return NULL;
}
