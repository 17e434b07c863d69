/* SPDX-License-Identifier: BSD-2-Clause */
/* Listens on a TCP address. */
#ifndef KUBELB_TCP_LISTEN_H
#define KUBELB_TCP_LISTEN_H

#include <stdbool.h>

#include <kubelb/abi.h>

#include "base/err.h"

/*
 * Returns a listening, non-blocking, close-on-exec socket, for the caller to close; or a negative
 * errno: -EADDRINUSE when somebody else listens there. at: port 0 takes a free one, and at has it
 * afterwards. transparent: the address need not be this host's (IP_TRANSPARENT; -EPERM without
 * CAP_NET_ADMIN). Such a socket gets what is routed here all the same (net/local_delivery.h).
 */
int tcp_listen(struct klb_endpoint *at, bool transparent);

/* Whether this process may make transparent ones: 0 or a negative errno. */
int tcp_listen_can_be_transparent(void);

#endif
