/* SPDX-License-Identifier: BSD-2-Clause */
/* The credentials as a value: checks the server's URL, and frees. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/ascii.h"
#include "base/file.h"
#include "discovery/internal.h"
#include "net/endpoint.h"
#include "net/url.h"

static void credential_free(struct credential *c)
{
	free(c->key);
	free(c->file);
	file_forget(c->data, c->length);
}

void credentials_free(struct credentials *c)
{
	if (!c)
		return;
	free(c->host);
	free(c->path);
	free(c->server_name);
	credential_free(&c->ca);
	credential_free(&c->cert);
	credential_free(&c->key);
	credential_free(&c->token);
	free(c);
}

bool credentials_is_header_text(const char *text)
{
	return ascii_all_graph(text);
}

/* --- the server ---------------------------------------------------------------------- */

static bool is_host(const char *host, bool bracketed)
{
	struct klb_endpoint ep;

	if (bracketed)
		return strchr(host, ':') && endpoint_parse(host, 1, &ep, NULL) == 0;
	return url_is_dns_name(host);
}

/* authority: "host", "host:port", "[v6]" or "[v6]:port". */
static int set_authority(struct credentials *c, const char *authority, struct err *e)
{
	bool bracketed = authority[0] == '[';
	const char *host = authority + bracketed;
	const char *end = bracketed ? strchr(host, ']') : host + strcspn(host, ":"), *port;

	if (!end)
		return err_set(e, EINVAL, "the host lacks its closing bracket");
	c->host = strndup(host, (size_t)(end - host));
	if (!c->host)
		return err_no_memory(e);
	if (!is_host(c->host, bracketed))
		return err_set(e, EINVAL, "no host, or a character that no host's name has");
	port = end + bracketed;
	c->port = URL_HTTPS_PORT;
	if (*port && (*port != ':' || !endpoint_parse_port(port + 1, &c->port)))
		return err_set(e, EINVAL, "no port number after the host; write 1..65535");
	return 0;
}

int credentials_set_server(struct credentials *c, const char *url, struct err *e)
{
	struct url parts;
	size_t length;
	int r = url_split(url, &parts);

	if (r == -ENAMETOOLONG)
		return err_set(e, EINVAL, "no host, or a character that no host's name has");
	if (r < 0)
		return err_set(e, EINVAL, "does not begin with https://; there must be TLS");
	if (strchr(parts.authority, '@'))
		return err_set(e, EINVAL, "a user name in the URL; remove it");
	if (!credentials_is_header_text(parts.rest) || strpbrk(parts.rest, "?#"))
		return err_set(e, EINVAL,
			       "a query, a blank or a character that is not ASCII in the path");
	length = strlen(parts.rest);
	while (length && parts.rest[length - 1] == '/')
		length--;
	c->path = strndup(parts.rest, length);
	if (!c->path)
		return err_no_memory(e);
	return set_authority(c, parts.authority, e);
}
