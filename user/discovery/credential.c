/* SPDX-License-Identifier: BSD-2-Clause */
/* The credentials themselves, whoever reads them: made, checked and freed here. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/ascii.h"
#include "base/file.h"
#include "discovery/internal.h"
#include "net/endpoint.h"

#define PORT_DEFAULT 443
/* RFC 1035, 2.3.4 */
#define DNS_NAME_MAX 253

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
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789.-_";
	size_t length = strlen(host);
	struct klb_endpoint ep;

	if (bracketed)
		return strchr(host, ':') && endpoint_parse(host, 1, &ep, NULL) == 0;
	return length && length <= DNS_NAME_MAX && strspn(host, allowed) == length;
}

static bool read_port(const char *text, size_t length, unsigned int *ret)
{
	unsigned int port = 0;
	size_t i;

	for (i = 0; i < length && i < 6; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		port = port * 10 + (unsigned int)(text[i] - '0');
	}
	*ret = port;
	return length && length < 6 && port >= 1 && port <= 65535;
}

/* authority: "host", "host:port", "[v6]" or "[v6]:port" of the given length. */
static int set_authority(struct credentials *c, const char *authority, size_t length, struct err *e)
{
	const char *end = authority + length, *host = authority, *after;
	bool bracketed = length && authority[0] == '[';

	if (bracketed) {
		host++;
		after = memchr(host, ']', length - 1);
	} else {
		after = memchr(host, ':', length);
		after = after ? after : end;
	}
	if (!after)
		return err_set(e, EINVAL, "the host lacks its closing bracket");
	c->host = strndup(host, (size_t)(after - host));
	if (!c->host)
		return err_no_memory(e);
	if (!is_host(c->host, bracketed))
		return err_set(e, EINVAL, "no host, or a character that no host's name has");
	if (bracketed)
		after++;
	c->port = PORT_DEFAULT;
	if (after < end &&
	    (*after != ':' || !read_port(after + 1, (size_t)(end - after - 1), &c->port)))
		return err_set(e, EINVAL, "no port number after the host; write 1..65535");
	return 0;
}

int credentials_set_server(struct credentials *c, const char *url, struct err *e)
{
	static const char scheme[] = "https://";
	const char *authority = url + sizeof(scheme) - 1;
	size_t length;

	if (strncasecmp(url, scheme, sizeof(scheme) - 1) != 0)
		return err_set(e, EINVAL, "does not begin with https://; there must be TLS");
	length = strcspn(authority, "/?#");
	if (memchr(authority, '@', length))
		return err_set(e, EINVAL, "a user name in the URL; remove it");
	url = authority + length;
	if (!credentials_is_header_text(url) || url[strcspn(url, "?#")])
		return err_set(e, EINVAL,
			       "a query, a blank or a character that is not ASCII in the path");
	length = strlen(url);
	while (length && url[length - 1] == '/')
		length--;
	c->path = strndup(url, length);
	if (!c->path)
		return err_no_memory(e);
	return set_authority(c, authority, (size_t)(url - authority), e);
}
