/* SPDX-License-Identifier: BSD-2-Clause */
/* Serves the agent's HTTP address: a few pages, and orders where only root can connect. */
#ifndef KUBELB_HTTP_H
#define KUBELB_HTTP_H

#include <stdbool.h>
#include <stddef.h>

#include <kubelb/abi.h>

#include "base/err.h"
#include "net/http_listen.h"

struct event_base;
struct http;

struct http_text {
	char *text; /* to be freed; NULL: it is fixed, or memory is short */
	const char *fixed; /* in its place: what stays as long as the program */
	size_t length;
	const char *type; /* NULL: text/plain */
	const char *headers; /* more of them, each with its line end; NULL: none */
};

struct http_ops {
	/* The metrics' text, to be freed; NULL when memory is short. */
	char *(*metrics)(void *arg, size_t *ret_length);
	/* NULL when ready; else why not, in one line. */
	const char *(*not_ready)(void *arg);
	/*
	 * Other pages (GET), and orders (POST, without a body). Fill ret and return the HTTP
	 * status; 404 without a text when there is no such path. Either may be NULL: there are
	 * none.
	 */
	unsigned int (*page)(void *arg, const char *path, struct http_text *ret);
	unsigned int (*order)(void *arg, const char *path, struct http_text *ret);
};

/*
 * Listens at an address. Returns 0, or a negative errno with e, such as -EADDRINUSE. ops must
 * outlive the object; at need not.
 */
int http_new(struct event_base *base, const struct http_address *at, const struct http_ops *ops,
	     void *arg, struct http **ret, struct err *e);
/* NULL is allowed. Closes every connection, answered or not, and removes the socket's file. */
void http_free(struct http *h);

#endif
