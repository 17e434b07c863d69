/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The network namespaces of this machine. User space names one by the inode number of its
 * nsfs file, which `lsns -t net` and /proc/PID/ns/net show as well; the kernel programs name
 * one by its cookie (SO_NETNS_COOKIE, Linux 5.14).
 */
#ifndef KUBELB_NETNS_H
#define KUBELB_NETNS_H

#include <stdbool.h>

#include <linux/types.h>

#include "base/err.h"

/* The cookie of the namespace that a socket is in. Returns 0, or -errno: -ENOPROTOOPT before
 * Linux 5.14. */
int netns_cookie(int fd, __u64 *ret);

/* The inode number of the calling thread's namespace. Returns 0 or -errno. */
int netns_own(__u64 *ret);

struct netns_visitor {
	/* Whether that namespace is of interest; false for one that is known already. */
	bool (*wants)(void *arg, __u64 netns);
	/* fd: a netlink socket in it, the visitor's to close. Returns whether to go on. */
	bool (*takes)(void *arg, __u64 netns, int fd);
	void *arg;
};

/*
 * Visits the namespaces that a process of /proc is in, or that have a name in /run/netns. It visits
 * each as often as it finds it, until the visitor does not want it any more. pid: the process to
 * begin with, 0 for none. Needs CAP_SYS_ADMIN, and CAP_SYS_PTRACE for other users' processes; it
 * passes over what it cannot open. The calling thread is in its own namespace when it returns.
 * Returns 0 or a negative errno with e.
 */
int netns_visit(__u32 pid, int protocol, const struct netns_visitor *v, struct err *e);

/*
 * The same for namespaces to which only a process's socket leads. It looks at every descriptor of
 * every process, and also needs CAP_NET_ADMIN and Linux 5.6.
 */
int netns_visit_sockets(int protocol, const struct netns_visitor *v, struct err *e);

#endif
