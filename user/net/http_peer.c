/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whose connection it is: the user of a local one, the address of another host's.
 *
 * TCP does not say whose socket the other end is. On the same host the kernel can be asked for it,
 * which takes some 4 µs.
 */
#include "net/http_peer.h"

#include <stdlib.h>

#include "net/endpoint.h"
#include "net/http_places.h"
#include "net/sock_diag.h"
#include "base/hash.h"

struct http_peers {
	struct sock_diag *diag; /* NULL: not yet, or there was no descriptor left */
};

struct http_peers *http_peers_new(void)
{
	return calloc(1, sizeof(struct http_peers));
}

void http_peers_free(struct http_peers *p)
{
	if (!p)
		return;
	sock_diag_close(p->diag);
	free(p);
}

static __u64 key_of_socket(int fd)
{
	struct ucred who;
	socklen_t length = sizeof(who);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &length))
		return HTTP_OTHER(0);
	return who.uid;
}

__u64 http_peer_key(struct http_peers *p, int fd, const struct sockaddr_storage *from)
{
	struct sockaddr_storage own;
	socklen_t length = sizeof(own);
	struct klb_endpoint client, server;
	__u32 uid;

	if (from->ss_family == AF_UNIX)
		return key_of_socket(fd);
	if (endpoint_from_sockaddr((const struct sockaddr *)from, &client) ||
	    getsockname(fd, (struct sockaddr *)&own, &length) ||
	    endpoint_from_sockaddr((const struct sockaddr *)&own, &server))
		return HTTP_OTHER(0);
	if (!p->diag && sock_diag_open(&p->diag, NULL))
		p->diag = NULL;
	if (p->diag && !sock_diag_owner(p->diag, &client, &server, &uid))
		return uid;
	return HTTP_OTHER(hash_bytes(0, client.addr, sizeof(client.addr)));
}
