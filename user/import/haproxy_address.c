/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads the addresses, times and numbers of a haproxy.cfg. */
#include <stdio.h>
#include <string.h>

#include "import/haproxy.h"
#include "net/endpoint.h"

/*
 * `a.b.c.d:port`, `*:port`, `:port`, `[v6]:port`, and `v6:port`, where the last colon
 * separates the port. default_port as in endpoint_parse.
 */
int haproxy_parse_address(const char *text, unsigned int default_port, struct klb_endpoint *ret,
			  struct err *e)
{
	const char *colon = strrchr(text, ':'), *host = text;
	char full[2 * ENDPOINT_TEXT_MAX];
	int length;

	if (strncmp(text, "ipv4@", 5) == 0 || strncmp(text, "ipv6@", 5) == 0)
		host += 5;
	if (strncmp(host, "tcp@", 4) == 0)
		host += 4;
	if (!colon || *host == '[')
		return endpoint_parse(strcmp(host, "*") == 0 ? "0.0.0.0" : host, default_port, ret,
				      e);
	length = colon > host ? (int)(colon - host) : 0;
	if (!length || strncmp(host, "*:", 2) == 0)
		snprintf(full, sizeof(full), "0.0.0.0%.32s", colon);
	else if (memchr(host, ':', (size_t)length))
		snprintf(full, sizeof(full), "[%.*s]%.32s", length < 64 ? length : 64, host, colon);
	else
		snprintf(full, sizeof(full), "%.100s", host);
	return endpoint_parse(full, default_port, ret, e);
}

/* HAProxy's times: one number and a unit, milliseconds where none is given. */
static bool parse_time(const char *text, unsigned int *ret_ms)
{
	static const struct import_unit units[] = {
		{ "ms", 1000 },	     { "us", 1 },	   { "s", 1000000 }, { "m", 60000000 },
		{ "h", 3600000000 }, { "d", 86400000000 }, { NULL, 0 },
	};

	return import_parse_time(text, units, false, ret_ms);
}
/* Calls one for each address of a bind line. It stops at a result that is not 0, and returns it. */
int haproxy_each_address(struct import *m, size_t item,
			 int (*one)(struct import *m, size_t item, const char *address))
{
	char copy[512], *save = NULL;
	int r = 0;

	if (strlen(import_word(&m->words, item, 1)) >= sizeof(copy))
		return import_fail(m, m->words.items[item].line,
				   "bind: too many addresses; write some on a line of their own");
	snprintf(copy, sizeof(copy), "%s", import_word(&m->words, item, 1));
	for (char *a = strtok_r(copy, ",", &save); r == 0 && a; a = strtok_r(NULL, ",", &save))
		r = one(m, item, a);
	return r;
}

/* The same for each bind line of a section. */
int haproxy_each_bind(struct import *m, size_t section,
		      int (*one)(struct import *m, size_t item, const char *address))
{
	IMPORT_EACH(&m->words, i, section + 1, m->words.items[section].end)
	{
		int r = import_is(&m->words, i, "bind") ? haproxy_each_address(m, i, one) : 0;

		if (r)
			return r;
	}
	return 0;
}
bool haproxy_is_6443(const char *address)
{
	struct klb_endpoint ep;

	return haproxy_parse_address(address, 0, &ep, NULL) == 0 && ep.port == KLB_PORT_DEFAULT;
}

/* Whether an address is a unix socket of either kind. */
bool haproxy_is_unix(const char *address)
{
	return address[0] == '/' || strncmp(address, "unix@", 5) == 0 ||
	       strncmp(address, "abns@", 5) == 0;
}

int haproxy_read_time(struct import *m, unsigned int line, const char *origin, const char *value,
		      struct import_number *ret)
{
	struct import_number n = { .line = line, .origin = origin };

	if (!parse_time(value, &n.value))
		return import_fail(m, line, "%s '%.64s' is no time; write one such as 5s", origin,
				   value);
	*ret = n;
	return 0;
}

int haproxy_read_count(struct import *m, unsigned int line, const char *origin, const char *value,
		       struct import_number *ret)
{
	struct import_number n = { .line = line, .origin = origin };

	if (!import_uint(value, &n.value))
		return import_fail(m, line, "%s '%.64s' is no number; write digits", origin, value);
	*ret = n;
	return 0;
}
