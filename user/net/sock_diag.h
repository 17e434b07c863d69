/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The balanced sockets, by way of NETLINK_SOCK_DIAG: each with the record that the kernel
 * programs have stored with it (INET_DIAG_REQ_SK_BPF_STORAGES, Linux 5.7), network namespace
 * by network namespace. No program of ours runs for it.
 */
#ifndef KUBELB_SOCK_DIAG_H
#define KUBELB_SOCK_DIAG_H

#include <stdbool.h>

#include "net/connection.h"
#include "base/err.h"

/* Sockets into the namespaces that were met; one for each task, they may be gone tomorrow. */
struct sock_diag;

/* Returns 0, or a negative errno with e. Close with sock_diag_close; NULL is allowed there. */
int sock_diag_open(struct sock_diag **ret, struct err *e);
void sock_diag_close(struct sock_diag *d);

struct sock_diag_query {
	int map_fd; /* of the map `sockets` */
	__u64 netns; /* where to look first: the host's; 0: where we are */
	bool elsewhere; /* and in every other namespace that a process or a name leads to */
	bool everywhere; /* and in those that nothing but a process's socket leads to */
	bool rtt; /* fill in srtt_us, for which the kernel locks each socket */
};

/*
 * Calls visit for each socket of ours, once; what comes or goes meanwhile is among them or
 * not. visit returns 0 to go on, or a negative errno to stop. Takes CAP_BPF (or
 * CAP_SYS_ADMIN), and see netns.h for the other namespaces. Returns 0 or a negative errno with e:
 * -EOPNOTSUPP where the kernel cannot do it.
 */
int sock_diag_list(struct sock_diag *d, const struct sock_diag_query *q,
		   int (*visit)(const struct klb_connection *c, void *arg), void *arg,
		   struct err *e);

/* Whether it can: 0, or why not, as sock_diag_list. */
int sock_diag_can_list(struct sock_diag *d, int map_fd, struct err *e);

#define SOCK_DIAG_PORT_WORDS 1024

/* The TCP ports that somebody listens on in the namespace that we are in: adds a bit to ret
 * for each, number n to ret[n / 64], of SOCK_DIAG_PORT_WORDS words. */
int sock_diag_listeners(struct sock_diag *d, __u64 *ret, struct err *e);

/* Whether this kernel can end sockets at all: 0, or -EOPNOTSUPP with e. Once, before the
 * first sock_diag_destroy. */
int sock_diag_can_destroy(struct sock_diag *d, struct err *e);

/*
 * Ends the socket that c describes; never decides which. It is named by its addresses, its
 * ports and its cookie, in its own network namespace: somebody's direct connection to the
 * same apiserver, or a new socket that got the same ports, cannot be hit. What the owner sees
 * is ECONNABORTED at its next read or write; what the peer sees is a RST, and nothing when
 * the connect was still under way. The owner keeps the descriptor.
 *
 * Returns 0 when it has been ended; -ENOENT, without a word in e, when it had ended by
 * itself; -ESRCH when its network namespace cannot be found; -EPERM without CAP_NET_ADMIN in
 * it. One request and its answer, which the kernel gives at once.
 */
int sock_diag_destroy(struct sock_diag *d, const struct klb_connection *c, struct err *e);

#endif
