/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sockets in other network namespaces of this machine, which are named by their cookie
 * (SO_NETNS_COOKIE), as the kernel programs name them.
 */
#ifndef KUBELB_NETNS_H
#define KUBELB_NETNS_H

#include <linux/types.h>

#include "err.h"

/* The cookie of the namespace that a socket is in. Returns 0 or -errno. */
int netns_cookie(int fd, __u64 *ret);

/*
 * A netlink socket in the namespace with that cookie. It is looked for in the process pid
 * (0: none comes to mind), in /run/netns, and in every process of /proc. Takes
 * CAP_SYS_ADMIN. The calling thread is in its own namespace when it returns.
 * Returns a descriptor, or -ESRCH with e when no such namespace is found.
 */
int netns_netlink(__u64 cookie, __u32 pid, int protocol, struct err *e);

#endif
