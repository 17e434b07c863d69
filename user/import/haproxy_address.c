/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads the addresses, times and numbers of a haproxy.cfg, as HAProxy does (str2sa_range). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/ascii.h"
#include "import/haproxy.h"
#include "net/endpoint.h"

#define PORT_MAX 65535

/* --- addresses --------------------------------------------------------------------------- */

/* The prefixes of TCP addresses, with the family that one demands; 0: either. */
static const struct {
	const char *text;
	int family;
} prefixes[] = {
	{ "ipv4@", 4 }, { "ipv6@", 6 }, { "tcp4@", 4 }, { "tcp6@", 6 }, { "tcp@", 0 },
};

bool haproxy_is_unix(const char *address)
{
	static const char *const kinds[] = { "/",   "unix@",	 "abns@",  "abnsz@",
					     "fd@", "sockpair@", "rhttp@", NULL };

	for (size_t i = 0; kinds[i]; i++)
		if (strncmp(address, kinds[i], strlen(kinds[i])) == 0)
			return true;
	return false;
}

static const char *take_prefix(const char *text, int *ret_family)
{
	*ret_family = 0;
	for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++)
		if (strncmp(text, prefixes[i].text, strlen(prefixes[i].text)) == 0) {
			*ret_family = prefixes[i].family;
			return text + strlen(prefixes[i].text);
		}
	return text;
}

/* The colon before the port, or NULL. A bracket at the end belongs to an address without one. */
static const char *find_port(const char *text)
{
	const char *at = text + strlen(text);

	while (at > text && *at != ':' && *at != ']')
		at--;
	return *at == ':' ? at : NULL;
}

/* HAProxy takes the digits, and passes over what follows: "6443;" is 6443. */
static bool parse_ports(const char *text, struct haproxy_address *ret)
{
	bool minus = *text == '-';
	char *rest;
	long first, last;

	ret->relative = !*text || *text == '+' || minus;
	if (ret->relative && !*text)
		return true;
	if (!ascii_is_digit(text[ret->relative]))
		return false;
	first = strtol(text + ret->relative, &rest, 10);
	last = *rest == '-' && ascii_is_digit(rest[1]) ? strtol(rest + 1, NULL, 10) : first;
	if (first > PORT_MAX || last > PORT_MAX || last < first)
		return false;
	if (!ret->relative && !first)
		ret->relative = true; /* as if there was none */
	else if (ret->relative)
		ret->offset = minus ? -(int)first : (int)first;
	ret->first = (unsigned int)first;
	ret->last = (unsigned int)last;
	return true;
}

static int parse_host(const char *host, int family, struct haproxy_address *ret, struct err *e)
{
	int r;

	if (!*host || strcmp(host, "*") == 0)
		host = family == 6 ? "::" : "0.0.0.0";
	if (strcmp(host, "localhost") == 0)
		host = family == 6 ? "::1" : "127.0.0.1";
	r = endpoint_parse(host, ret->relative ? 1 : ret->first, &ret->endpoint, e);
	if (r < 0)
		return r;
	if (family && (family == 4) != endpoint_is_ipv4(&ret->endpoint))
		return err_set(e, EINVAL, "'%.64s' is no IPv%d address; write one", host, family);
	return 0;
}

int haproxy_parse_address(const char *text, struct haproxy_address *ret, struct err *e)
{
	const char *port, *host;
	char copy[2 * ENDPOINT_TEXT_MAX];
	int family;

	*ret = (struct haproxy_address){ .offset = 0 };
	if (strchr(text, '$'))
		return err_set(e, EINVAL,
			       "'%.64s' has an environment variable of HAProxy's; write its value "
			       "in a copy of the file",
			       text);
	host = take_prefix(text, &family);
	port = find_port(host);
	if (strlen(host) >= sizeof(copy) || !parse_ports(port ? port + 1 : "", ret))
		return err_set(e, EINVAL, "'%.64s': no port that HAProxy takes; write 1..%d", text,
			       PORT_MAX);
	snprintf(copy, sizeof(copy), "%.*s", port ? (int)(port - host) : (int)strlen(host), host);
	return parse_host(copy, family, ret, e);
}

bool haproxy_is_6443(const char *address)
{
	struct haproxy_address a;

	return haproxy_parse_address(address, &a, NULL) == 0 && !a.relative &&
	       a.first <= KLB_PORT_DEFAULT && a.last >= KLB_PORT_DEFAULT;
}

int haproxy_each_address(struct import *m, size_t item, haproxy_address_reader *one, void *arg)
{
	char copy[512], *save = NULL;
	int r = 0;

	if (strlen(import_word(&m->words, item, 1)) >= sizeof(copy))
		return import_fail(m, m->words.items[item].line,
				   "bind: too many addresses; write some on a line of their own");
	snprintf(copy, sizeof(copy), "%s", import_word(&m->words, item, 1));
	for (char *a = strtok_r(copy, ",", &save); r == 0 && a; a = strtok_r(NULL, ",", &save))
		r = one(m, item, a, arg);
	return r;
}

int haproxy_each_bind(struct import *m, size_t section, haproxy_address_reader *one, void *arg)
{
	IMPORT_EACH(&m->words, i, section + 1, m->words.items[section].end)
	{
		int r = 0;

		if (import_is(&m->words, i, "bind"))
			r = haproxy_each_address(m, i, one, arg);
		if (r)
			return r;
	}
	return 0;
}

/* --- times and numbers ------------------------------------------------------------------- */

/* HAProxy's times: one number and a unit, milliseconds where none is given. */
static bool parse_time(const char *text, unsigned int *ret_ms)
{
	static const struct import_unit units[] = {
		{ "ms", 1000 },	     { "us", 1 },	   { "s", 1000000 }, { "m", 60000000 },
		{ "h", 3600000000 }, { "d", 86400000000 }, { NULL, 0 },
	};

	return import_parse_time(text, units, false, ret_ms);
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
