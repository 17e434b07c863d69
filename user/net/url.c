/* SPDX-License-Identifier: BSD-2-Clause */
/* Splits https URLs, and knows what names of hosts are made of. */
#include "net/url.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

/* RFC 1035, 2.3.4 */
#define DNS_NAME_MAX 253

int url_split(const char *text, struct url *ret)
{
	static const char scheme[] = "https://";
	const char *authority = text + strlen(scheme);
	size_t length;

	if (strncasecmp(text, scheme, strlen(scheme)) != 0)
		return -EINVAL;
	length = strcspn(authority, "/?#");
	if (length >= sizeof(ret->authority))
		return -ENAMETOOLONG;
	memcpy(ret->authority, authority, length);
	ret->authority[length] = '\0';
	ret->rest = authority + length;
	return 0;
}

/* Underscores are in no host's name by RFC 1123, but in many DNS names. */
bool url_is_dns_name(const char *text)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789.-_";
	size_t length = strlen(text);

	return length && length <= DNS_NAME_MAX && strspn(text, allowed) == length;
}
