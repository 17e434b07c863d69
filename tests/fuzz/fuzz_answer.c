/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A backend may send what it likes, in pieces of any size: what is read of it is limited,
 * where an answer ends does not depend on the pieces, and content is never more than was
 * asked for. The first byte says how large pieces are, the second whether content counts.
 */
#include <event2/buffer.h>

#include "net/http_response.h"
#include "fuzz.h"

/* user/net/http_response.c: lines, and a body that nobody wants. */
#define TAKEN_MAX ((size_t)(16 + 64) * 1024 + 4)
#define CONTENT_MAX ((size_t)300)

struct outcome {
	enum answer_progress progress;
	unsigned int status;
	bool keep;
	size_t left; /* what follows the answer */
	size_t content;
};

static bool take(void *arg, const void *bytes, size_t n)
{
	struct outcome *o = arg;

	require(n && bytes);
	o->content += n;
	return true;
}

static struct outcome read_in_pieces(const uint8_t *data, size_t size, size_t piece, bool content)
{
	struct outcome o = { .progress = ANSWER_PROGRESS_MORE };
	struct evbuffer *in = evbuffer_new();
	struct answer a;
	size_t at = 0;

	require(in != NULL);
	if (content)
		answer_init_content(&a, CONTENT_MAX, take, &o);
	else
		answer_init(&a);
	while (o.progress == ANSWER_PROGRESS_MORE && at < size) {
		size_t n = size - at < piece ? size - at : piece;

		require(!evbuffer_add(in, data + at, n));
		at += n;
		o.progress = answer_read(&a, in);
		require(o.progress != ANSWER_PROGRESS_STEP);
	}
	o.status = a.status;
	o.keep = a.keep;
	o.left = evbuffer_get_length(in) + (size - at);
	evbuffer_free(in);
	return o;
}

static void check(const struct outcome *o, size_t size)
{
	require(o->content <= CONTENT_MAX);
	if (o->progress == ANSWER_PROGRESS_DONE)
		require(o->status >= 200 && o->status <= 999);
	/* It cannot be made to wait for more and more. */
	if (o->progress == ANSWER_PROGRESS_MORE)
		require(size <= TAKEN_MAX + o->left);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct outcome whole, pieces;
	bool content;
	size_t piece;

	if (size < 2)
		return 0;
	piece = data[0] + 1u;
	content = data[1] & 1;
	whole = read_in_pieces(data + 2, size - 2, size, content);
	pieces = read_in_pieces(data + 2, size - 2, piece, content);
	check(&whole, size);
	check(&pieces, size);
	require(whole.progress == pieces.progress);
	if (whole.progress != ANSWER_PROGRESS_DONE)
		return 0;
	require(whole.status == pieces.status && whole.content == pieces.content);
	/* Where the connection goes on, both must mean the same place. */
	require(whole.keep == pieces.keep && (!whole.keep || whole.left == pieces.left));
	return 0;
}
