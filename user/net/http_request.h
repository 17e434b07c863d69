/* SPDX-License-Identifier: BSD-2-Clause */
/* Parses a request to the agent's HTTP address from bytes: pure. */
#ifndef KUBELB_REQUEST_H
#define KUBELB_REQUEST_H

#include <stdbool.h>
#include <stddef.h>

/* The request line and the headers together, with the empty line. */
#define REQUEST_MAX ((size_t)8192)
/* Longer than each path that exists. A longer one is cut, and so matches none of them. */
#define REQUEST_PATH_MAX 112

enum request_method { REQUEST_OTHER, REQUEST_GET, REQUEST_HEAD, REQUEST_POST };

struct request {
	enum request_method method;
	bool body; /* the request has a body */
	bool keep; /* the connection may carry another one */
	char path[REQUEST_PATH_MAX]; /* without the query */
};

/* The length of the head at the beginning of text; 0 if it is not complete. */
size_t request_length(const char *text, size_t n);

/*
 * Parses a whole head, and changes its bytes. Returns 0, or the HTTP status to refuse it with; then
 * the connection cannot carry another request.
 */
unsigned int request_parse(char *text, size_t n, struct request *ret);

#endif
