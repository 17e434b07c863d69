/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which backends are used on a node that has one of its own (a control-plane node), by
 * config.local.
 *
 * An apiserver leaves the cluster's list while it restarts: it takes its lease away when it shuts
 * down, and writes a new one when it is ready. To its own node it is the apiserver all the same, so
 * a local backend stays in the list.
 */
#ifndef KUBELB_LOCAL_LIST_H
#define KUBELB_LOCAL_LIST_H

#include "balance/plan.h"

/* Says which of n endpoints have an address of this node, as node_is_local does. */
typedef void (*local_list_fn)(const struct klb_endpoint *endpoints, unsigned int n, bool *ret);

/*
 * Changes list, the backends to use (n of them; there is room for KLB_MAX_BACKENDS), as file->local
 * says:
 *
 *   prefer, only  with discovery the local backends stay: those of the file, and those that
 *                 applied has (NULL: none). Without it the file says what there is.
 *   only          the others go. Without a local backend all stay: a worker, which nobody serves
 *                 otherwise.
 *   ignore        nothing changes
 *
 * Returns how many there are. *ret_local: whether one of them is local; with ignore it is not set.
 */
unsigned int local_list_apply(const struct config *file, const struct plan *applied,
			      local_list_fn is_local, struct klb_endpoint *list, unsigned int n,
			      bool *ret_local);

#endif
