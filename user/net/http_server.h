/* SPDX-License-Identifier: BSD-2-Clause */
/* Serves the agent's HTTP address: GET of a few fixed paths, and nothing else. */
#ifndef KUBELB_HTTP_H
#define KUBELB_HTTP_H

#include <stddef.h>

#include <kubelb/abi.h>

#include "base/err.h"

struct event_base;
struct http;

struct http_ops {
	/* The metrics' text, to be freed; NULL when memory is short. */
	char *(*metrics)(void *arg, size_t *ret_length);
	/* NULL when ready; else why not, in one line. */
	const char *(*not_ready)(void *arg);
};

/*
 * Listens on address. Returns 0, or a negative errno with e, such as -EADDRINUSE. ops must outlive
 * the object.
 */
int http_new(struct event_base *base, const struct klb_endpoint *address,
	     const struct http_ops *ops, void *arg, struct http **ret, struct err *e);
/* NULL is allowed. Closes every connection, answered or not. */
void http_free(struct http *h);

#endif
