/* SPDX-License-Identifier: BSD-2-Clause */
/* Facts about this node: its identity, its addresses, its kernel. */
#ifndef KUBELB_NODE_H
#define KUBELB_NODE_H

#include <stdbool.h>

#include <kubelb/abi.h>

/*
 * A hash of /etc/machine-id, or of the host name if that file is missing: the same after a restart,
 * and different on each node (rendezvous hashing).
 */
__u64 node_identity(void);

/* Whether the host has IPv6 (/proc/self/net/if_inet6). */
bool node_has_ipv6(void);

/*
 * For each of n endpoints: whether an interface of this network namespace has its address now. ret
 * has n elements.
 */
void node_is_local(const struct klb_endpoint *endpoints, unsigned int n, bool *ret);

/* Whether /proc shows the processes of the whole machine, not only of a container. */
bool node_sees_every_process(void);

/* Whether the kernel is of this version or a later one; false when the version is unknown. */
bool node_kernel_is(unsigned int major, unsigned int minor);

#endif
