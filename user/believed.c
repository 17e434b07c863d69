/* SPDX-License-Identifier: BSD-2-Clause */
#include "believed.h"

#include <errno.h>
#include <string.h>

#include "discovery.h"

int believed_from_cache(const struct config *c, struct klb_endpoint *ret, unsigned int *ret_n,
			struct err *e)
{
	struct klb_endpoint frontends[KLB_MAX_FRONTENDS];
	struct discovery_cached cached;
	int r;

	*ret_n = 0;
	if (!c->discovery || !c->discovery_cache)
		return -ENOENT;
	for (unsigned int i = 0; i < c->n_frontends; i++)
		frontends[i] = c->frontends[i].endpoint;
	r = discovery_cache_load(c->discovery_cache, frontends, c->n_frontends, &cached, e);
	if (r)
		return r;
	memcpy(ret, cached.list, cached.n * sizeof(*ret));
	*ret_n = cached.n;
	return 0;
}
