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

/*
 * Which namespace. inode: it is free for another one when the namespace is gone. cookie: unique
 * until the next boot. 0: not known.
 */
struct netns_id {
	__u64 inode, cookie;
};

/* The calling thread's namespace; without what cannot be read. */
struct netns_id netns_self(void);

/* Whether both are one namespace. False when nothing is known of one of them. */
bool netns_same(const struct netns_id *x, const struct netns_id *y);

/*
 * The cookie of the namespace that path leads to: /proc/PID/ns/net, a name in /run/netns. Takes
 * CAP_SYS_ADMIN. Returns 0 or -errno.
 */
int netns_cookie_at(const char *path, __u64 *ret);

/* Whether the calling thread is in the network namespace that the kernel has booted with. False
 * also where /proc/sys is hidden. */
bool netns_is_initial(void);

/* Whether the calling process is in a PID namespace of its own, as most containers are. */
bool netns_pids_are_hidden(void);

enum netns_presence {
	NETNS_FOUND,
	NETNS_GONE, /* no process and no name leads to it */
	NETNS_UNSEEN, /* not found, but not every process can be looked at from here */
};

/*
 * Looks for a namespace that is not the caller's own: in /run/netns, and in every process of /proc
 * with its descriptors and mounts. ret_pid: a process that is in it, or 0.
 */
enum netns_presence netns_find(const struct netns_id *id, __u32 *ret_pid);

/*
 * Opens a socket in the network namespace that the socket `beside` is in. Needs CAP_NET_ADMIN, and
 * CAP_SYS_ADMIN for another namespace than the calling thread's, which is in its own when it
 * returns. Returns a descriptor to close, or -errno.
 */
int netns_socket(int beside, int family, int type, int protocol);

struct netns_visitor {
	/* Whether that namespace is of interest; false for one that is known already. */
	bool (*wants)(void *arg, __u64 netns);
	/* Opens something in the namespace that the thread is in then; NULL: a netlink socket of
	 * the call's protocol. Returns a descriptor, or a negative errno to pass over it. */
	int (*makes)(void *arg);
	/* fd: that, the visitor's to close. Returns whether to go on. */
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
