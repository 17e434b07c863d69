/* SPDX-License-Identifier: BSD-2-Clause */
/* Says who listens on an address. */
#ifndef KUBELB_PORT_OWNER_H
#define KUBELB_PORT_OWNER_H

#include <stdbool.h>

#include <kubelb/abi.h>

#define PORT_OWNER_MAX 64
#define PORT_OWNER_COMM_MAX 17

struct port_owner {
	__u32 uid;
	__u32 inode; /* of the socket */
};

/*
 * Who listens on this TCP address in this network namespace. Returns false when nobody does, or
 * nothing can be told.
 */
bool port_owner_find(const struct klb_endpoint *at, struct port_owner *ret);

/*
 * Which process that is: its id, and its name in comm as one line. Returns 0, with comm as "",
 * where this process may not look at it. Walks through /proc: not for every second.
 */
__u32 port_owner_process(const struct port_owner *who, char comm[PORT_OWNER_COMM_MAX]);

/*
 * Prints "nginx (pid 123)", or "a process of user 65534" where this process may not look at it.
 * Otherwise as above. Returns buf.
 */
const char *port_owner_name(const struct port_owner *who, char buf[PORT_OWNER_MAX]);

#endif
