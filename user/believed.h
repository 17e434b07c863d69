/* SPDX-License-Identifier: BSD-2-Clause */
/* Which backends count before the cluster has been asked: those of the cache, if discovery
 * is on and has left one, else the configuration's own. */
#ifndef KUBELB_BELIEVED_H
#define KUBELB_BELIEVED_H

#include "config.h"
#include "err.h"

/*
 * Reads the cache that c names into ret (room for KLB_MAX_BACKENDS). *ret_n is 0 where
 * discovery is off or there is no list to believe; then -ENOENT, or what is wrong with the
 * cache, with e: a reason to say so and to go on without.
 */
int believed_from_cache(const struct config *c, struct klb_endpoint *ret, unsigned int *ret_n,
			struct err *e);

#endif
