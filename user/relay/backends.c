/* SPDX-License-Identifier: BSD-2-Clause */
/* The relay's backends, each of them once, whatever frontends have it. */
#include "relay/internal.h"

#include <stdlib.h>

#include "net/endpoint.h"

struct relay_backend *backends_find(struct relay_backends *list, const struct klb_endpoint *ep)
{
	struct relay_backend *b;

	for (b = TAILQ_FIRST(list); b; b = TAILQ_NEXT(b, link))
		if (endpoint_equal(&b->endpoint, ep))
			return b;
	b = calloc(1, sizeof(*b));
	if (!b)
		return NULL;
	b->endpoint = *ep;
	TAILQ_INSERT_TAIL(list, b, link);
	return b;
}

void backends_forget_unused(struct relay_backends *list)
{
	struct relay_backend *b, *next;

	for (b = TAILQ_FIRST(list); b; b = next) {
		next = TAILQ_NEXT(b, link);
		/* Nobody can refer to it again but this thread, which makes the plans. */
		if (atomic_load(&b->refs))
			continue;
		TAILQ_REMOVE(list, b, link);
		free(b);
	}
}
