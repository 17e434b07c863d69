/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Lists the balanced sockets of network namespaces by NETLINK_SOCK_DIAG, each with the record that
 * the kernel programs have stored with it (INET_DIAG_REQ_SK_BPF_STORAGES, Linux 5.7). It runs no
 * BPF program.
 */
#ifndef KUBELB_SOCK_DIAG_H
#define KUBELB_SOCK_DIAG_H

#include <stdbool.h>
#include <stddef.h>

#include "net/connection.h"
#include "base/err.h"

/*
 * Netlink sockets in the namespaces that were visited. To be opened for one task and closed after
 * it: namespaces come and go.
 */
struct sock_diag;

/* Returns 0, or a negative errno with e. Close with sock_diag_close; NULL is allowed there. */
int sock_diag_open(struct sock_diag **ret, struct err *e);
void sock_diag_close(struct sock_diag *d);

struct sock_diag_query {
	int map_fd; /* of the map `sockets` */
	__u64 netns; /* the namespace to list first: the host's; 0: this process's own */
	bool elsewhere; /* and in every other namespace that a process or a name leads to */
	bool everywhere; /* and in those to which only a process's socket leads */
	bool info; /* fill in srtt_us, last_data_ms and silent_ms, for which the kernel locks each
		      socket */
	const struct klb_endpoint *peer; /* only sockets that are connected to it; NULL: all */
};

/*
 * A list of the balanced sockets in steps, for a process that has other work between them; a socket
 * that comes or goes meanwhile may be missing. diag serves this walk alone meanwhile. The fields
 * belong to sock_diag.c.
 */
struct sock_diag_walk {
	struct sock_diag *diag;
	struct sock_diag_query query;
	__u64 first; /* the namespace that comes first */
	size_t place; /* which namespace now */
	int family; /* of that namespace */
	bool asked; /* an answer is to be received */
};

/* Returns 0 or a negative errno with e. What q points to has to stay. */
int sock_diag_walk_begin(struct sock_diag_walk *w, struct sock_diag *d,
			 const struct sock_diag_query *q, struct err *e);
/*
 * Calls visit for some hundred sockets at most, once for each; visit returns 0 to go on, or a
 * negative errno to stop. Needs CAP_BPF (or CAP_SYS_ADMIN), and what netns.h says for other
 * namespaces. Returns 1 when there is more to come, 0 at the end, or a negative errno with e:
 * -EOPNOTSUPP where the kernel cannot do it.
 */
int sock_diag_walk_step(struct sock_diag_walk *w,
			int (*visit)(const struct klb_connection *c, void *arg), void *arg,
			struct err *e);

/* Whether such a walk works here: returns 0, or what its step would. */
int sock_diag_can_list(struct sock_diag *d, int map_fd, struct err *e);

#define SOCK_DIAG_PORT_WORDS 1024

/*
 * Adds the TCP ports that have a listener in this process's network namespace: for port n it sets
 * bit n % 64 of ret[n / 64]. ret has SOCK_DIAG_PORT_WORDS words. Returns 0 or a negative errno with
 * e.
 */
int sock_diag_listeners(struct sock_diag *d, __u64 *ret, struct err *e);

struct sock_diag_listener {
	__u32 uid, inode;
};

/*
 * Who listens on that address, or on its port of all addresses, in this process's own network
 * namespace. Returns 0; -ENOENT when nobody does; else -errno. Needs no privilege.
 */
int sock_diag_find_listener(struct sock_diag *d, const struct klb_endpoint *at,
			    struct sock_diag_listener *ret);

/*
 * How far a connection is. The bytes that were received, acknowledged by the peer, and sent, those
 * that were sent again not counted; in- and excluding SYN and FIN as struct tcp_info does.
 * last_data_ms: as in struct klb_connection. cookie: of the socket.
 */
struct sock_diag_progress {
	__u32 tcp_state;
	__u64 received, acknowledged, sent;
	__u32 last_data_ms;
	__u64 cookie;
};

/* In klb_connection.cookie: whichever socket has these addresses and ports. */
#define SOCK_DIAG_ANY_COOKIE (~0ULL)

/*
 * Looks at the socket that c describes. Returns 0; -ENOENT when it has ended; else -errno. Needs no
 * privilege but for other network namespaces. Asked for any cookie, it may find the listener: see
 * tcp_state.
 */
int sock_diag_look(struct sock_diag *d, const struct klb_connection *c,
		   struct sock_diag_progress *ret);

/*
 * The user whose process holds the socket that is bound to client and connected to server, in this
 * process's own network namespace. Returns 0; -ENOENT when there is none, or its process has closed
 * it; else -errno. Needs no privilege.
 */
int sock_diag_owner(struct sock_diag *d, const struct klb_endpoint *client,
		    const struct klb_endpoint *server, __u32 *ret_uid);

/* Whether a socket in that TCP state is a connection's, and not a listener's. */
bool sock_diag_is_connection(__u32 tcp_state);
/* Whether the client's SYN has not been answered yet. */
bool sock_diag_is_syn_sent(__u32 tcp_state);
/* Whether the client has sent its FIN. */
bool sock_diag_has_sent_fin(__u32 tcp_state);

/*
 * Opens a TCP socket in c's network namespace, of the family of its backend's address, for the
 * caller to close. Returns a descriptor or -errno.
 */
int sock_diag_tcp_socket(struct sock_diag *d, const struct klb_connection *c);

/*
 * Whether this kernel can end sockets at all: 0, or -EOPNOTSUPP with e. To be called once, before
 * the first sock_diag_destroy.
 */
int sock_diag_can_destroy(struct sock_diag *d, struct err *e);

/*
 * Ends the socket that c describes, which it finds by addresses, ports and cookie in its own
 * network namespace. So it cannot end a direct connection to the same apiserver, or a new socket
 * with the same ports. The owner gets ECONNABORTED at the next read or write, and keeps the
 * descriptor. The peer gets a RST, or nothing if the connect was still under way.
 *
 * Returns 0 when it has ended the socket; -ENOENT, with e unchanged, when the socket had ended by
 * itself; -ESRCH when its network namespace cannot be found; -EPERM without CAP_NET_ADMIN in it. It
 * sends one request, which the kernel answers at once.
 */
int sock_diag_destroy(struct sock_diag *d, const struct klb_connection *c, struct err *e);

#endif
