/* SPDX-License-Identifier: BSD-2-Clause */
/* An answer to an HTTP GET, read as it comes in. */
#ifndef KUBELB_ANSWER_H
#define KUBELB_ANSWER_H

#include <stdbool.h>
#include <stddef.h>

struct evbuffer;

/* How far an answer has come in. */
enum answer_progress {
	ANSWER_PROGRESS_STEP, /* internal: look again */
	ANSWER_PROGRESS_MORE, /* not complete */
	ANSWER_PROGRESS_DONE, /* status and keep are valid */
	ANSWER_PROGRESS_BAD, /* this is not HTTP/1, or (content wanted) too large */
};

enum answer_state {
	ANSWER_AT_STATUS,
	ANSWER_AT_HEADERS,
	ANSWER_AT_BODY,
	ANSWER_AT_CHUNK_SIZE,
	ANSWER_AT_CHUNK,
	ANSWER_AT_CHUNK_END,
	ANSWER_AT_TRAILERS,
};

enum answer_framing {
	ANSWER_FRAMING_CLOSE, /* the body ends with the connection */
	ANSWER_FRAMING_LENGTH,
	ANSWER_FRAMING_CHUNKED,
};

/*
 * Takes content as it comes in, bytes that are valid during the call. Returns false
 * when it wants no more. Must not free the answer.
 */
typedef bool answer_content(void *arg, const void *bytes, size_t n);

/* Reads one answer to a GET. */
struct answer {
	enum answer_state state;
	enum answer_framing framing;
	unsigned int status;
	bool started; /* a byte of it has arrived */
	bool keep; /* the connection may carry the next request */
	bool coded; /* a Transfer-Encoding was seen */
	bool too_large; /* why it is bad */
	answer_content *content; /* NULL: thrown away */
	void *arg;
	size_t lines_left; /* bytes that lines of all kinds may still take */
	size_t body_left; /* bytes that content may still take */
	size_t pending; /* of the body or the chunk */
};

/* For an answer whose status says it all. */
void answer_init(struct answer *a);
/* For one whose content matters, body_max bytes of it; SIZE_MAX: a stream. */
void answer_init_content(struct answer *a, size_t body_max, answer_content *content, void *arg);
/* Takes what belongs to the answer out of in. Never returns ANSWER_PROGRESS_STEP. */
enum answer_progress answer_read(struct answer *a, struct evbuffer *in);

#endif
