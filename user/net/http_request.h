/* SPDX-License-Identifier: BSD-2-Clause */
/* A request to the agent's http address, from bytes: pure. */
#ifndef KUBELB_REQUEST_H
#define KUBELB_REQUEST_H

#include <stdbool.h>
#include <stddef.h>

/* The request line and the headers together, with the empty line. */
#define REQUEST_MAX ((size_t)8192)
/* Of a path that there is; a longer one is cut, and is none of them. */
#define REQUEST_PATH_MAX 32

enum request_method { REQUEST_OTHER, REQUEST_GET, REQUEST_HEAD };

struct request {
	enum request_method method;
	bool body; /* comes with one */
	bool keep; /* the connection may carry another one */
	char path[REQUEST_PATH_MAX]; /* without the query */
};

/* How many bytes the head at the beginning of text takes; 0 when its end is not there. */
size_t request_length(const char *text, size_t n);

/*
 * Reads a whole head, which is written to. Returns 0, or the HTTP status to refuse it
 * with: nothing is known about where another request would begin then.
 */
unsigned int request_parse(char *text, size_t n, struct request *ret);

#endif
