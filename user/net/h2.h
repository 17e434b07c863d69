/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The client's side of one HTTP/2 session (RFC 9113): GETs of which only the status matters, and
 * PINGs. What is on the wire is libnghttp2's business.
 */
#ifndef KUBELB_H2_H
#define KUBELB_H2_H

#include <stdbool.h>

#include <kubelb/abi.h>

struct bufferevent;
struct h2;

/* GETs that may be open at a time; a cancelled one counts until the other side has heard it. */
#define H2_STREAMS_MAX 8

enum h2_event_kind {
	H2_ANSWERED, /* a GET's whole answer */
	H2_UNANSWERED, /* the other side has ended a GET without one */
	H2_PONG, /* the answer to a PING */
	H2_GOING, /* GOAWAY: no more GETs; those that are open may still be answered */
};

struct h2_event {
	enum h2_event_kind kind;
	int stream; /* of a GET, as h2_get returned it */
	unsigned int status; /* of an answer */
	__u64 number; /* of a PING */
};

/*
 * Begins a session on a connection that has just been made, and sends its first frames. bev must
 * outlive it. Returns 0 or -ENOMEM.
 */
int h2_new(struct bufferevent *bev, struct h2 **ret);
/* NULL is allowed. Sends nothing. */
void h2_free(struct h2 *h);

/*
 * Sends a GET. authority: as in a Host header. Returns the stream, above 0; or -ESHUTDOWN after
 * GOAWAY, -EBUSY with too many streams, -ENOMEM.
 */
int h2_get(struct h2 *h, const char *path, const char *authority);
/* Ends a GET. There will be no event of it. Returns 0 or -ENOMEM. */
int h2_cancel(struct h2 *h, int stream);
/* Sends a PING with that number. Returns 0 or -ENOMEM. */
int h2_ping(struct h2 *h, __u64 number);

/*
 * Takes what has come in on bev. Returns 0, or -EPROTO when it is not HTTP/2 or breaks its rules:
 * *ret_why says how, and the session is over.
 */
int h2_read(struct h2 *h, const char **ret_why);
/* The next thing that h2_read has found. Returns false when there is none. */
bool h2_next(struct h2 *h, struct h2_event *ret);

#endif
