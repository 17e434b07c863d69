/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Text to struct klb_endpoint and back: the one place where an address is
 * parsed or printed. IPv4 and ::ffff:a.b.c.d are the same address, held as the
 * latter (include/kubelb/abi.h).
 */
#ifndef KUBELB_ENDPOINT_H
#define KUBELB_ENDPOINT_H

#include <stdbool.h>
#include <sys/socket.h>

#include <kubelb/abi.h>

#include "base/err.h"

/* "[ffff:…:255.255.255.255]:65535" and its NUL. */
#define ENDPOINT_TEXT_MAX 64

/*
 * Parses `a.b.c.d`, `a.b.c.d:port`, `v6`, `[v6]` or `[v6]:port`. Names are not looked up: the way
 * to the apiserver must not depend on a DNS server. default_port: used when the text has none; 0
 * makes the port required. Returns 0, or -EINVAL with e saying what is wrong (a zone id, port 0, a
 * name, trailing text); *ret is then untouched.
 */
int endpoint_parse(const char *text, unsigned int default_port, struct klb_endpoint *ret,
		   struct err *e);

/* A port number alone, 1..65535, without leading zeros; *ret is untouched when it is none. */
bool endpoint_parse_port(const char *text, unsigned int *ret);

/* Prints `a.b.c.d:port` or `[v6]:port` into buf (ENDPOINT_TEXT_MAX); returns buf. */
const char *endpoint_format(const struct klb_endpoint *ep, char *buf);
/* The address alone, without port and brackets. */
const char *endpoint_format_address(const struct klb_endpoint *ep, char *buf);

/* Address and port. */
bool endpoint_equal(const struct klb_endpoint *a, const struct klb_endpoint *b);
/* Whether one of the n in list is equal to ep. */
bool endpoint_is_in(const struct klb_endpoint *list, unsigned int n, const struct klb_endpoint *ep);
/* Whether the address is IPv4, which is held as ::ffff:a.b.c.d. */
bool endpoint_is_ipv4(const struct klb_endpoint *ep);
/* 0.0.0.0 or :: */
bool endpoint_is_unspecified(const struct klb_endpoint *ep);
/* 224/4, 255.255.255.255 or ff00::/8 */
bool endpoint_is_multicast(const struct klb_endpoint *ep);
/* 127/8 or ::1 */
bool endpoint_is_loopback(const struct klb_endpoint *ep);
/* 169.254/16 or fe80::/10 */
bool endpoint_is_link_local(const struct klb_endpoint *ep);
/* fe80::/10. Such an address needs a zone; one of 169.254/16 does not. */
bool endpoint_is_link_local_v6(const struct klb_endpoint *ep);
/* 192.0.2/24, 198.51.100/24, 203.0.113/24 (RFC 5737), 2001:db8::/32 (RFC 3849), 3fff::/20 (9637) */
bool endpoint_is_documentation(const struct klb_endpoint *ep);

/* Fills ss for connect(2) or bind(2): AF_INET for IPv4. Returns its length. */
socklen_t endpoint_to_sockaddr(const struct klb_endpoint *ep, struct sockaddr_storage *ss);
/* Returns 0, or -EAFNOSUPPORT for what is neither AF_INET nor AF_INET6. */
int endpoint_from_sockaddr(const struct sockaddr *sa, struct klb_endpoint *ret);

#endif
