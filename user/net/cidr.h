/* SPDX-License-Identifier: BSD-2-Clause */
/* A network: an address and how many of its bits count (RFC 4632, RFC 4291). */
#ifndef KUBELB_CIDR_H
#define KUBELB_CIDR_H

#include <stdbool.h>

#include <kubelb/abi.h>

#include "base/err.h"

/* "[ffff:…:255.255.255.255]" and "/128". */
#define CIDR_TEXT_MAX 64

/*
 * addr: IPv4 as ::ffff:a.b.c.d, as in struct klb_endpoint; the bits behind the network's are 0.
 * bits: of these 128; those of an IPv4 network are 96 more than people write.
 */
struct cidr {
	__u8 addr[16];
	unsigned int bits;
};

/*
 * Parses `a.b.c.d/n`, `v6/n` or an address alone, which is a network of one. Returns 0, or -EINVAL
 * with e saying what is wrong: a bit behind the network's that is set is an error too, because one
 * of the two numbers is not what was meant. *ret is then untouched.
 */
int cidr_parse(const char *text, struct cidr *ret, struct err *e);

/* Prints `a.b.c.d/n` or `v6/n` into buf (CIDR_TEXT_MAX); returns buf. */
const char *cidr_format(const struct cidr *network, char *buf);

/* addr: 16 bytes as above. */
bool cidr_contains(const struct cidr *network, const __u8 addr[16]);

#endif
