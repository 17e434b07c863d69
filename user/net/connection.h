/* SPDX-License-Identifier: BSD-2-Clause */
/* One balanced connection, as sock_diag.h finds it. */
#ifndef KUBELB_CONNECTION_H
#define KUBELB_CONNECTION_H

#include <kubelb/abi.h>

/*
 * A balanced socket as it is now.
 * local: its own address. uid: of its owner, as this user namespace sees it. cookie: as SO_COOKIE.
 * tcp_state: enum of include/net/tcp_states.h (1: established, 2: SYN sent). srtt_us: 0 for not
 * measured, or not asked for. last_data_ms: how long ago data came from the peer;
 * CONNECTION_NO_DATA for never, when the connection is not established any more, or when it was not
 * asked for. silent_ms: how long ago the client last sent data, all of which the peer's kernel has
 * acknowledged, if there has never been data from the peer; else 0. bound_if: the interface that it
 * is bound to, 0 for none; part of what the kernel finds a socket by. netns: inode number of its
 * network namespace. netns_cookie: the same as
 * SO_NETNS_COOKIE; 0 before Linux 5.14.
 */
#define CONNECTION_NO_DATA (~0u)

struct klb_connection {
	struct klb_socket record;
	struct klb_endpoint local;
	__u32 tcp_state;
	__u32 srtt_us;
	__u32 last_data_ms;
	__u32 silent_ms;
	__u32 bound_if;
	__u32 uid;
	__u64 cookie;
	__u64 netns;
	__u64 netns_cookie;
};

#endif
