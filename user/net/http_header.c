/* SPDX-License-Identifier: BSD-2-Clause */
/* Parses one line of HTTP/1 headers, strictly. */
#include "net/http_header.h"

#include <string.h>
#include <strings.h>
#include <time.h>

/* RFC 9110, 5.6.2: what a header's name is made of. */
static size_t token_length(const char *s)
{
	return strspn(s, "!#$%&'*+-.^_`|~0123456789"
			 "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ");
}

bool header_split(char *line, char **ret_value)
{
	size_t length = token_length(line);
	char *value, *end;

	/* Folded lines (RFC 9112, 5.2) begin with a space and are refused here too. */
	if (!length || line[length] != ':')
		return false;
	line[length] = '\0';
	value = line + length + 1;
	value += strspn(value, " \t");
	for (end = value + strlen(value); end > value && strchr(" \t", end[-1]); end--)
		;
	*end = '\0';
	*ret_value = value;
	return true;
}

__s64 header_date_s(const char *value)
{
	struct tm at = { .tm_year = 0 };
	/* The programs set no locale, so the names are English. */
	const char *end = strptime(value, "%a, %d %b %Y %H:%M:%S GMT", &at);

	return end && !*end ? timegm(&at) : 0;
}

bool header_has_token(const char *list, const char *token)
{
	size_t length = strlen(token);

	while (*list) {
		size_t n;

		list += strspn(list, ", \t");
		n = strcspn(list, ", \t");
		if (n == length && strncasecmp(list, token, n) == 0)
			return true;
		list += n;
	}
	return false;
}
