/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Refused connections that are not closed at once.
 *
 * A client that is turned away at the door comes back at once, as fast as it can, and those who
 * stand behind it wait: the kernel's queue knows no order but arrival. One that is left standing
 * for a moment comes back a moment later.
 */
#ifndef KUBELB_HTTP_REFUSED_H
#define KUBELB_HTTP_REFUSED_H

#include <stdbool.h>

#include <linux/types.h>

struct http_refused;

/* max: how many wait at the same time; each has a descriptor. Returns NULL without memory. */
struct http_refused *http_refused_new(unsigned int max);
/* Closes all. NULL is allowed. */
void http_refused_free(struct http_refused *r);

/* Takes ownership of fd. It is closed 400 ms later; at once when as many wait as may. */
void http_refused_add(struct http_refused *r, int fd, __u64 now_ns);
/* Closes those whose time has come. Returns false when none waits any more. */
bool http_refused_sweep(struct http_refused *r, __u64 now_ns);

#endif
