/* SPDX-License-Identifier: BSD-2-Clause */
/* Who is at the other end of a connection to the agent's HTTP address. */
#ifndef KUBELB_HTTP_PEER_H
#define KUBELB_HTTP_PEER_H

#include <sys/socket.h>

#include <linux/types.h>

struct http_peers;

/* Returns NULL without memory. Without sock_diag all local users are one peer. */
struct http_peers *http_peers_new(void);
/* NULL is allowed. */
void http_peers_free(struct http_peers *p);

/* The key for http_places_enter. from: as accept(2) has given it. */
__u64 http_peer_key(struct http_peers *p, int fd, const struct sockaddr_storage *from);

#endif
