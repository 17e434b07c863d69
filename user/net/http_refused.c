/* SPDX-License-Identifier: BSD-2-Clause */
/* Refused connections, in a ring: all wait for the same time, so the oldest is the first to go. */
#include "net/http_refused.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"

/*
 * With a thousand clients it makes two and a half thousand connects a second of what are as many
 * as the agent can close. A client with less patience leaves a descriptor behind until then.
 */
#define WAIT_NS (400 * NS_PER_MS)

struct waiting {
	int fd;
	__u64 since_ns;
};

struct http_refused {
	unsigned int max, n, first;
	struct waiting ring[];
};

struct http_refused *http_refused_new(unsigned int max)
{
	struct http_refused *r = calloc(1, sizeof(*r) + max * sizeof(r->ring[0]));

	if (r)
		r->max = max;
	return r;
}

static void close_first(struct http_refused *r)
{
	close(r->ring[r->first].fd);
	r->first = (r->first + 1) % r->max;
	r->n--;
}

void http_refused_free(struct http_refused *r)
{
	if (!r)
		return;
	while (r->n)
		close_first(r);
	free(r);
}

void http_refused_add(struct http_refused *r, int fd, __u64 now_ns)
{
	if (r->n == r->max) {
		close(fd);
		return;
	}
	r->ring[(r->first + r->n) % r->max] = (struct waiting){ .fd = fd, .since_ns = now_ns };
	r->n++;
}

bool http_refused_sweep(struct http_refused *r, __u64 now_ns)
{
	while (r->n && now_ns - r->ring[r->first].since_ns >= WAIT_NS)
		close_first(r);
	return r->n;
}
