/* SPDX-License-Identifier: BSD-2-Clause */
/* Networks: text to struct cidr and back, and what lies in them. */
#include "net/cidr.h"

#include <stdio.h>
#include <string.h>

#include "net/endpoint.h"

#define ADDRESS_BITS 128
/* Those of ::ffff:0:0/96, in front of an IPv4 network's own. */
#define IPV4_PREFIX_BITS 96

/* The bits of byte i that belong to the network. */
static __u8 mask_of(unsigned int bits, unsigned int i)
{
	if (bits >= 8 * (i + 1))
		return 0xff;
	return bits <= 8 * i ? 0 : (__u8)(0xff << (8 * (i + 1) - bits));
}

bool cidr_contains(const struct cidr *network, const __u8 addr[16])
{
	for (unsigned int i = 0; i < sizeof(network->addr); i++)
		if ((addr[i] ^ network->addr[i]) & mask_of(network->bits, i))
			return false;
	return true;
}

/* Digits alone, without leading zeros: strtoul would accept " +8". */
static bool parse_bits(const char *text, unsigned int most, unsigned int *ret)
{
	size_t length = strspn(text, "0123456789");
	unsigned int value = 0;

	if (!length || length > 3 || text[length] || (text[0] == '0' && length > 1))
		return false;
	for (; *text; text++)
		value = value * 10 + (unsigned int)(*text - '0');
	*ret = value;
	return value <= most;
}

/* The address in front of the slash, without a port or brackets. */
static int parse_address(const char *text, size_t length, struct klb_endpoint *ret, struct err *e)
{
	char address[CIDR_TEXT_MAX];

	if (length >= sizeof(address) || memchr(text, '[', length))
		return err_set(e, EINVAL, "'%.64s' is no network; write a.b.c.d/n or v6/n", text);
	memcpy(address, text, length);
	address[length] = '\0';
	if (endpoint_parse(address, KLB_PORT_DEFAULT, ret, e))
		return -EINVAL;
	/* With a port, or an IPv4 address in IPv6's form, whose bits could be counted in two ways.
	 */
	if (endpoint_is_ipv4(ret) && memchr(text, ':', length))
		return err_set(e, EINVAL, "'%.64s' is no network; write a.b.c.d/n", text);
	return 0;
}

int cidr_parse(const char *text, struct cidr *ret, struct err *e)
{
	const char *slash = strchr(text, '/');
	struct cidr network = { .bits = ADDRESS_BITS };
	unsigned int prefix, most;
	struct klb_endpoint ep;
	int r = parse_address(text, slash ? (size_t)(slash - text) : strlen(text), &ep, e);

	if (r)
		return r;
	prefix = endpoint_is_ipv4(&ep) ? IPV4_PREFIX_BITS : 0;
	most = ADDRESS_BITS - prefix;
	if (slash && !parse_bits(slash + 1, most, &network.bits))
		return err_set(e, EINVAL, "'%.64s': '%.16s' is no number of bits; write 0..%u",
			       text, slash + 1, most);
	if (slash)
		network.bits += prefix;
	for (unsigned int i = 0; i < sizeof(network.addr); i++)
		network.addr[i] = ep.addr[i] & mask_of(network.bits, i);
	if (memcmp(network.addr, ep.addr, sizeof(network.addr)) != 0) {
		char meant[CIDR_TEXT_MAX];

		return err_set(e, EINVAL, "'%.64s' has bits of its hosts set; write %s", text,
			       cidr_format(&network, meant));
	}
	*ret = network;
	return 0;
}

const char *cidr_format(const struct cidr *network, char *buf)
{
	struct klb_endpoint ep = { .port = 0 };
	char address[ENDPOINT_TEXT_MAX];

	memcpy(ep.addr, network->addr, sizeof(ep.addr));
	snprintf(buf, CIDR_TEXT_MAX, "%.45s/%u", endpoint_format_address(&ep, address),
		 network->bits - (endpoint_is_ipv4(&ep) ? IPV4_PREFIX_BITS : 0));
	return buf;
}
