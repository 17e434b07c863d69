/* SPDX-License-Identifier: BSD-2-Clause */
/* Addresses with ports: text to struct klb_endpoint and back, and the kinds of addresses. */
#include "net/endpoint.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

/* ::ffff:0:0/96, RFC 4291, 2.5.5.2 */
static const __u8 ipv4_prefix[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

/* A text that has been split, but not yet parsed. */
struct parts {
	const char *at; /* the address, without brackets */
	size_t length;
	char host[INET6_ADDRSTRLEN]; /* the same, terminated */
	const char *port; /* NULL: none */
	bool v6;
};

static int split_bracketed(const char *text, struct parts *p, struct err *e)
{
	const char *end = strchr(text, ']');

	if (!end)
		return err_set(e, EINVAL, "'%.64s' lacks its closing bracket; write [address]:port",
			       text);
	if (end[1] && end[1] != ':')
		return err_set(e, EINVAL,
			       "'%.64s': '%.16s' follows the bracket; write [address]:port", text,
			       end + 1);
	p->at = text + 1;
	p->length = (size_t)(end - p->at);
	p->port = end[1] ? end + 2 : NULL;
	p->v6 = true;
	return 0;
}

/* A single colon separates a port; two make it a bare IPv6 address. */
static void split_bare(const char *text, struct parts *p)
{
	const char *colon = strchr(text, ':');

	p->v6 = colon && strchr(colon + 1, ':');
	p->port = colon && !p->v6 ? colon + 1 : NULL;
	p->at = text;
	p->length = p->port ? (size_t)(colon - text) : strlen(text);
}

/* Whether this could be a DNS name, with or without a port. */
static bool is_name(const char *text)
{
	bool letter = false;

	for (; *text && *text != ':'; text++) {
		if ((*text >= 'a' && *text <= 'z') || (*text >= 'A' && *text <= 'Z'))
			letter = true;
		else if (!strchr("0123456789.-_", *text))
			return false;
	}
	return letter;
}

/* Says why text is no address, and guesses what was meant. */
static int fail_address(const char *text, const struct parts *p, struct err *e)
{
	if (strstr(text, "://"))
		return err_set(e, EINVAL, "'%.64s' is a URL; write the address and port alone",
			       text);
	if (strchr(text, '%'))
		return err_set(e, EINVAL, "'%.64s' has a zone id; write an address without one",
			       text);
	if (!p->v6 && is_name(text))
		return err_set(e, EINVAL,
			       "'%.64s' is a name, and names are not looked up; write the address",
			       text);
	return err_set(e, EINVAL,
		       "'%.64s' is not an IPv%c address; write a.b.c.d:port or [v6]:port", text,
		       p->v6 ? '6' : '4');
}

static int split(const char *text, struct parts *p, struct err *e)
{
	int r = 0;

	if (!text[0])
		return err_set(e, EINVAL, "the address is empty; write a.b.c.d:port or [v6]:port");
	if (text[0] == '[')
		r = split_bracketed(text, p, e);
	else
		split_bare(text, p);
	if (r < 0)
		return r;
	if (p->length >= sizeof(p->host))
		return fail_address(text, p, e);
	memcpy(p->host, p->at, p->length);
	p->host[p->length] = '\0';
	return 0;
}

static int parse_host(const char *text, const struct parts *p, __u8 *ret_addr, struct err *e)
{
	if (p->v6) {
		if (inet_pton(AF_INET6, p->host, ret_addr) != 1)
			return fail_address(text, p, e);
		return 0;
	}
	memcpy(ret_addr, ipv4_prefix, sizeof(ipv4_prefix));
	if (inet_pton(AF_INET, p->host, ret_addr + sizeof(ipv4_prefix)) != 1)
		return fail_address(text, p, e);
	return 0;
}

/* Only decimal digits: strtoul would accept " +6443". */
bool endpoint_parse_port(const char *text, unsigned int *ret)
{
	size_t length = strspn(text, "0123456789");
	unsigned int value = 0;

	if (!length || text[length] || length > 5 || text[0] == '0')
		return false;
	for (; *text; text++)
		value = value * 10 + (unsigned int)(*text - '0');
	if (value > 65535)
		return false;
	*ret = value;
	return true;
}

int endpoint_parse(const char *text, unsigned int default_port, struct klb_endpoint *ret,
		   struct err *e)
{
	struct klb_endpoint ep = { .port = default_port };
	struct parts p = { .at = text };
	int r;

	r = split(text, &p, e);
	if (r < 0)
		return r;
	r = parse_host(text, &p, ep.addr, e);
	if (r < 0)
		return r;
	if (p.port && !endpoint_parse_port(p.port, &ep.port))
		return err_set(e, EINVAL, "'%.64s': port '%.16s' is no port number; write 1..65535",
			       text, p.port);
	if (!p.port && !default_port)
		return err_set(e, EINVAL, "'%.64s' has no port; write %s%.45s%s:PORT", text,
			       p.v6 ? "[" : "", p.host, p.v6 ? "]" : "");
	*ret = ep;
	return 0;
}

const char *endpoint_format_address(const struct klb_endpoint *ep, char *buf)
{
	const char *text;

	if (endpoint_is_ipv4(ep))
		text = inet_ntop(AF_INET, ep->addr + sizeof(ipv4_prefix), buf, ENDPOINT_TEXT_MAX);
	else
		text = inet_ntop(AF_INET6, ep->addr, buf, ENDPOINT_TEXT_MAX);
	if (!text)
		buf[0] = '\0';
	return buf;
}

const char *endpoint_format(const struct klb_endpoint *ep, char *buf)
{
	char address[ENDPOINT_TEXT_MAX];

	endpoint_format_address(ep, address);
	snprintf(buf, ENDPOINT_TEXT_MAX, endpoint_is_ipv4(ep) ? "%.45s:%u" : "[%.45s]:%u", address,
		 ep->port);
	return buf;
}

bool endpoint_equal(const struct klb_endpoint *a, const struct klb_endpoint *b)
{
	return a->port == b->port && memcmp(a->addr, b->addr, sizeof(a->addr)) == 0;
}

bool endpoint_is_in(const struct klb_endpoint *list, unsigned int n, const struct klb_endpoint *ep)
{
	for (unsigned int i = 0; i < n; i++)
		if (endpoint_equal(&list[i], ep))
			return true;
	return false;
}

bool endpoint_is_ipv4(const struct klb_endpoint *ep)
{
	return memcmp(ep->addr, ipv4_prefix, sizeof(ipv4_prefix)) == 0;
}

bool endpoint_is_unspecified(const struct klb_endpoint *ep)
{
	static const __u8 zero[16];
	size_t from = endpoint_is_ipv4(ep) ? sizeof(ipv4_prefix) : 0;

	return memcmp(ep->addr + from, zero, sizeof(zero) - from) == 0;
}

bool endpoint_is_multicast(const struct klb_endpoint *ep)
{
	static const __u8 broadcast[4] = { 255, 255, 255, 255 };
	const __u8 *ipv4 = ep->addr + sizeof(ipv4_prefix);

	if (!endpoint_is_ipv4(ep))
		return ep->addr[0] == 0xff;
	return (ipv4[0] & 0xf0) == 0xe0 || memcmp(ipv4, broadcast, sizeof(broadcast)) == 0;
}

bool endpoint_is_link_local_v6(const struct klb_endpoint *ep)
{
	return ep->addr[0] == 0xfe && (ep->addr[1] & 0xc0) == 0x80;
}

bool endpoint_is_link_local(const struct klb_endpoint *ep)
{
	const __u8 *ipv4 = ep->addr + sizeof(ipv4_prefix);

	if (endpoint_is_ipv4(ep))
		return ipv4[0] == 169 && ipv4[1] == 254;
	return endpoint_is_link_local_v6(ep);
}

bool endpoint_is_loopback(const struct klb_endpoint *ep)
{
	static const __u8 one[16] = { [15] = 1 };

	if (endpoint_is_ipv4(ep))
		return ep->addr[sizeof(ipv4_prefix)] == 127;
	return memcmp(ep->addr, one, sizeof(one)) == 0;
}

bool endpoint_is_documentation(const struct klb_endpoint *ep)
{
	static const __u8 ipv4[][3] = { { 192, 0, 2 }, { 198, 51, 100 }, { 203, 0, 113 } };
	static const __u8 ipv6[] = { 0x20, 0x01, 0x0d, 0xb8 };

	if (!endpoint_is_ipv4(ep))
		return !memcmp(ep->addr, ipv6, sizeof(ipv6)) ||
		       (ep->addr[0] == 0x3f && ep->addr[1] == 0xff && ep->addr[2] < 0x10);
	for (size_t i = 0; i < sizeof(ipv4) / sizeof(ipv4[0]); i++)
		if (!memcmp(ep->addr + sizeof(ipv4_prefix), ipv4[i], sizeof(ipv4[i])))
			return true;
	return false;
}

/* The fields are copied: a cast would break the rules of alignment and aliasing. */
socklen_t endpoint_to_sockaddr(const struct klb_endpoint *ep, struct sockaddr_storage *ss)
{
	struct sockaddr_in in = { .sin_family = AF_INET };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6 };

	memset(ss, 0, sizeof(*ss));
	if (endpoint_is_ipv4(ep)) {
		in.sin_port = htons((uint16_t)ep->port);
		memcpy(&in.sin_addr, ep->addr + sizeof(ipv4_prefix), sizeof(in.sin_addr));
		memcpy(ss, &in, sizeof(in));
		return sizeof(in);
	}
	in6.sin6_port = htons((uint16_t)ep->port);
	memcpy(&in6.sin6_addr, ep->addr, sizeof(in6.sin6_addr));
	memcpy(ss, &in6, sizeof(in6));
	return sizeof(in6);
}

int endpoint_from_sockaddr(const struct sockaddr *sa, struct klb_endpoint *ret)
{
	struct sockaddr_in in;
	struct sockaddr_in6 in6;

	switch (sa->sa_family) {
	case AF_INET:
		memcpy(&in, sa, sizeof(in));
		memcpy(ret->addr, ipv4_prefix, sizeof(ipv4_prefix));
		memcpy(ret->addr + sizeof(ipv4_prefix), &in.sin_addr, sizeof(in.sin_addr));
		ret->port = ntohs(in.sin_port);
		return 0;
	case AF_INET6:
		memcpy(&in6, sa, sizeof(in6));
		memcpy(ret->addr, &in6.sin6_addr, sizeof(ret->addr));
		ret->port = ntohs(in6.sin6_port);
		return 0;
	default:
		return -EAFNOSUPPORT;
	}
}
