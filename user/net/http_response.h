/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads the answer to an HTTP GET as it comes in. */
#ifndef KUBELB_ANSWER_H
#define KUBELB_ANSWER_H

#include <stdbool.h>
#include <stddef.h>

#include <linux/types.h>

struct evbuffer;

/* How far an answer has come in. */
enum answer_progress {
	ANSWER_PROGRESS_STEP, /* internal: look again */
	ANSWER_PROGRESS_MORE, /* not complete */
	ANSWER_PROGRESS_DONE, /* status and keep are valid */
	ANSWER_PROGRESS_BAD, /* not HTTP/1; or content that is wanted is not complete */
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
 * Receives content as it comes in; the bytes are valid during the call. Returns false to stop,
 * which makes the answer bad. Must not free the answer.
 */
typedef bool answer_content(void *arg, const void *bytes, size_t n);

/* An answer that is being read. */
struct answer {
	enum answer_state state;
	enum answer_framing framing;
	unsigned int status;
	__s64 date_s; /* the sender's clock, in Unix time; 0: it does not say */
	bool started; /* a byte of it has arrived */
	bool keep; /* the connection may carry the next request */
	bool coded; /* a Transfer-Encoding was seen */
	bool too_large; /* the reason for ANSWER_PROGRESS_BAD */
	answer_content *content; /* NULL: content is dropped */
	void *arg;
	size_t lines_left; /* bytes that lines of all kinds may still take */
	size_t body_left; /* bytes that content may still take */
	size_t pending; /* of the body or the chunk */
};

/* Prepares for an answer of which only the status matters. */
void answer_init(struct answer *a);
/* Prepares for one whose content matters: at most body_max bytes, or SIZE_MAX for a stream. */
void answer_init_content(struct answer *a, size_t body_max, answer_content *content, void *arg);
/* Takes what belongs to the answer out of in. Never returns ANSWER_PROGRESS_STEP. */
enum answer_progress answer_read(struct answer *a, struct evbuffer *in);

#endif
