/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sends a reset in the name of one end of a TCP connection, so that the other end takes it for its
 * peer's own. The kernel makes the segment: a socket in repair mode (TCP_REPAIR) becomes that end
 * without a handshake and is closed without lingering. It takes CAP_NET_ADMIN alone.
 */
#ifndef KUBELB_RESET_H
#define KUBELB_RESET_H

#include <kubelb/abi.h>

#include "base/err.h"

/*
 * from: the end in whose name it is sent; need not be an address of this host. seq: what `to`
 * expects next from there; it takes no other (RFC 5961). ack: what it has sent until now.
 */
struct reset {
	struct klb_endpoint from, to;
	__u32 seq, ack;
};

/*
 * fd: a new TCP socket of the address's family in the network namespace of `to`; it is closed in
 * any case. Returns 0 when the segment is on its way, which does not mean that it arrives. Else
 * -errno: EADDRNOTAVAIL when `from` is a socket of this namespace, EPERM without CAP_NET_ADMIN
 * there.
 */
int reset_send(int fd, const struct reset *r);

/*
 * Whether this kernel and this process can do it, as far as that is known without sending. Returns
 * 0 or a negative errno with e.
 */
int reset_can_send(struct err *e);

#endif
