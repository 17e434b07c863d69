/* SPDX-License-Identifier: BSD-2-Clause */
/* Makes a GET for an HTTPS connection. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/endpoint.h"
#include "net/http_header.h"
#include "net/https_get.h"

/* As in a Host header: with the port, unless it is in an address already. */
static char *make_authority(const struct tls_peer *peer)
{
	char address[ENDPOINT_TEXT_MAX];
	char *authority;

	if (!peer->dns)
		return strdup(endpoint_format(&peer->address, address));
	if (asprintf(&authority, "%s:%u", peer->dns, peer->address.port & 0xffff) < 0)
		return NULL;
	return authority;
}

bool https_get_make(const char *path, const struct tls_peer *peer, struct https_get *ret)
{
	char *request = NULL;

	ret->path = strdup(path);
	ret->authority = make_authority(peer);
	if (!ret->path || !ret->authority)
		return false;
	if (asprintf(&request,
		     "GET %s HTTP/1.1\r\n"
		     "Host: %s\r\n"
		     "User-Agent: " HTTP_USER_AGENT "\r\n"
		     "Accept: */*\r\n"
		     "Connection: keep-alive\r\n"
		     "\r\n",
		     path, ret->authority) < 0)
		return false;
	ret->request = request;
	return true;
}

void https_get_free(struct https_get *get)
{
	free((char *)get->request);
	free((char *)get->path);
	free((char *)get->authority);
}
