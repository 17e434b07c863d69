/* SPDX-License-Identifier: BSD-2-Clause */
/* The parts of an https URL, and names of hosts. */
#ifndef KUBELB_URL_H
#define KUBELB_URL_H

#include <stdbool.h>
#include <stddef.h>

/* The port of an https URL that names none (RFC 9110, 4.2.2). */
#define URL_HTTPS_PORT 443

struct url {
	char authority[320]; /* "host", "host:port", "[v6]" or "[v6]:port"; not checked */
	const char *rest; /* points into the URL: "", or begins with '/', '?' or '#' */
};

/*
 * Splits an https URL (RFC 3986, 3). Returns 0, -EINVAL when it does not begin with https://,
 * or -ENAMETOOLONG when the authority is longer than any host and port.
 */
int url_split(const char *text, struct url *ret);

/* Whether text could be the DNS name of a host: its characters, and its length. */
bool url_is_dns_name(const char *text);

#endif
