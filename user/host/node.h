/* SPDX-License-Identifier: BSD-2-Clause */
/* Who this node is, and what it has. */
#ifndef KUBELB_NODE_H
#define KUBELB_NODE_H

#include <stdbool.h>

#include <kubelb/abi.h>

/* A hash of /etc/machine-id, or of the host name where there is none: the same
 * across restarts, another one on each node (rendezvous). */
__u64 node_identity(void);

/* Whether the host has IPv6 at all (/proc/self/net/if_inet6). */
bool node_has_ipv6(void);

/*
 * For each of n endpoints, whether an interface of this network namespace has its
 * address now. ret has room for n.
 */
void node_is_local(const struct klb_endpoint *endpoints, unsigned int n, bool *ret);

/* Whether /proc shows the processes of the whole machine, and not of a container. */
bool node_sees_every_process(void);

/* Whether the kernel is of that version or a later one; false when it cannot be told. */
bool node_kernel_is(unsigned int major, unsigned int minor);

#endif
