/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which addresses the word of an apiserver, or a list on disk that came from one, is enough for.
 * The configuration's own backends need no such word. Loopback, link-local, multicast, broadcast
 * and unspecified addresses do not get so far: discovery_usable.
 */
#ifndef KUBELB_PLAUSIBLE_H
#define KUBELB_PLAUSIBLE_H

#include "balance/local_list.h"
#include "base/ration.h"

/*
 * Removes from list, of n endpoints, what is no backend of file and
 *   - has an address of 0/8 or ::/96
 *   - has a port below 1024 other than 443, or one of another component of Kubernetes, unless a
 *     backend of file has that port
 *   - has an address of this node, and another port than 6443 and those of file's backends
 * Keeps the order. Returns how many are left.
 */
unsigned int plausible_keep(const struct config *file, local_list_fn is_local,
			    struct klb_endpoint *list, unsigned int n);

/*
 * How many addresses that nobody knows yet lists may bring: a whole list, and then one in ten
 * seconds.
 */
#define PLAUSIBLE_NEW_MAX KLB_MAX_BACKENDS
#define PLAUSIBLE_NEW_EVERY_MS 10000

/*
 * Copies to ret, which has room for them, those of the n in list that are known, and as many others
 * as may come now; each costs p. known: by index. Returns how many.
 */
unsigned int plausible_admit(struct ration *p, const struct klb_endpoint *list, const bool *known,
			     unsigned int n, __u64 now_ns, struct klb_endpoint *ret);

#endif
