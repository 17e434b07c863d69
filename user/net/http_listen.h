/* SPDX-License-Identifier: BSD-2-Clause */
/* The listening socket of the agent's HTTP address. */
#ifndef KUBELB_HTTP_LISTEN_H
#define KUBELB_HTTP_LISTEN_H

#include <kubelb/abi.h>

#include "base/err.h"

struct http_address {
	const char *socket; /* the path of a Unix socket; NULL: ip counts */
	struct klb_endpoint ip;
};

struct http_listen;

/*
 * Returns 0, or a negative errno with e: -EADDRINUSE when somebody else listens there. The socket
 * does not block.
 */
int http_listen_new(const struct http_address *at, struct http_listen **ret, struct err *e);
/* NULL is allowed. Removes the file of a Unix socket, unless it is another one by now. */
void http_listen_free(struct http_listen *l);

int http_listen_fd(const struct http_listen *l);

#endif
