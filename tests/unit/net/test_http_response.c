/* SPDX-License-Identifier: BSD-2-Clause */
/* Answers to a GET: every framing, in pieces of every size, and what is none. */
#include <stdio.h>
#include <string.h>

#include <event2/buffer.h>

#include "discovery/internal.h"
#include "net/http_response.h"
#include "unit.h"

#define OK_ANSWER "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

static const struct {
	const char *what, *text;
	enum answer_progress progress;
	unsigned int status;
	bool keep;
	size_t rest; /* bytes that are left over */
} answers[] = {
	{ "a length", OK_ANSWER, ANSWER_PROGRESS_DONE, 200, true, 0 },
	{ "no reason phrase", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", ANSWER_PROGRESS_DONE,
	  200, true, 0 },
	{ "bare line feeds", "HTTP/1.1 200 OK\ncontent-length:0\n\n", ANSWER_PROGRESS_DONE, 200,
	  true, 0 },
	{ "chunks",
	  "HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n"
	  "0\r\nTrailer: x\r\n\r\n",
	  ANSWER_PROGRESS_DONE, 500, true, 0 },
	{ "close", "HTTP/1.1 200 OK\r\nConnection: foo, Close\r\nContent-Length: 2\r\n\r\nok",
	  ANSWER_PROGRESS_DONE, 200, false, 0 },
	{ "up to the end", "HTTP/1.1 200 OK\r\n\r\n", ANSWER_PROGRESS_DONE, 200, false, 0 },
	{ "1.0", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", ANSWER_PROGRESS_DONE, 200, false,
	  0 },
	{ "no content", "HTTP/1.1 204 No\r\n\r\n", ANSWER_PROGRESS_DONE, 204, true, 0 },
	{ "interim", "HTTP/1.1 103 Early\r\nConnection: close\r\n\r\n" OK_ANSWER,
	  ANSWER_PROGRESS_DONE, 200, true, 0 },
	{ "pipelined", OK_ANSWER "HTTP", ANSWER_PROGRESS_DONE, 200, true, 4 },
	{ "equal lengths", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
	  ANSWER_PROGRESS_DONE, 200, true, 0 },
	{ "length and coding",
	  "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	  ANSWER_PROGRESS_DONE, 200, false, 0 },
	{ "coding and length",
	  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
	  ANSWER_PROGRESS_DONE, 200, false, 0 },
	{ "two codings",
	  "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
	  ANSWER_PROGRESS_DONE, 200, false, 0 },
	{ "too long a length", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
	  ANSWER_PROGRESS_DONE, 200, false, 0 },
	{ "too long a chunk",
	  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
	  ANSWER_PROGRESS_DONE, 200, false, 0 },

	{ "nothing", "", ANSWER_PROGRESS_MORE, 0, true, 0 },
	{ "half a status line", "HTTP/1.1 20", ANSWER_PROGRESS_MORE, 0, true, 11 },
	{ "headers", "HTTP/1.1 200 OK\r\nA: b\r\n", ANSWER_PROGRESS_MORE, 200, true, 0 },
	{ "half a body", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", ANSWER_PROGRESS_MORE, 200,
	  true, 0 },
	{ "half a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
	  ANSWER_PROGRESS_MORE, 200, true, 0 },
	{ "interim alone", "HTTP/1.1 100 Continue\r\n\r\n", ANSWER_PROGRESS_MORE, 0, true, 0 },

	{ "garbage", "S", ANSWER_PROGRESS_BAD, 0, true, 1 },
	{ "HTTP/2", "HTTP/2 200\r\n\r\n", ANSWER_PROGRESS_BAD, 0, true, 14 },
	{ "1.2", "HTTP/1.2 200 OK\r\n", ANSWER_PROGRESS_BAD, 0, true, 0 },
	{ "no status", "HTTP/1.1 OK\r\n", ANSWER_PROGRESS_BAD, 0, true, 0 },
	{ "a long status", "HTTP/1.1 2000 OK\r\n", ANSWER_PROGRESS_BAD, 0, true, 0 },
	{ "a low status", "HTTP/1.1 099 OK\r\n", ANSWER_PROGRESS_BAD, 0, true, 0 },
	{ "switching", "HTTP/1.1 101 Switch\r\n\r\n", ANSWER_PROGRESS_BAD, 101, true, 0 },
	{ "no colon", "HTTP/1.1 200 OK\r\nnonsense\r\n", ANSWER_PROGRESS_BAD, 200, true, 0 },
	{ "no name", "HTTP/1.1 200 OK\r\n: x\r\n", ANSWER_PROGRESS_BAD, 200, true, 0 },
	{ "a space before the colon", "HTTP/1.1 200 OK\r\nA : x\r\n", ANSWER_PROGRESS_BAD, 200,
	  true, 0 },
	{ "a folded line", "HTTP/1.1 200 OK\r\nA: x\r\n y\r\n", ANSWER_PROGRESS_BAD, 200, true, 0 },
	{ "a signed length", "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n", ANSWER_PROGRESS_BAD, 200,
	  true, 0 },
	{ "an empty length", "HTTP/1.1 200 OK\r\nContent-Length:\r\n", ANSWER_PROGRESS_BAD, 200,
	  true, 0 },
	{ "two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n",
	  ANSWER_PROGRESS_BAD, 200, true, 0 },
	{ "a bad chunk size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\n",
	  ANSWER_PROGRESS_BAD, 200, true, 0 },
	{ "no chunk size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n;x\r\n",
	  ANSWER_PROGRESS_BAD, 200, true, 0 },
	{ "a chunk without its end",
	  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", ANSWER_PROGRESS_BAD,
	  200, true, 0 },
};

/* Feeds text in pieces of the given size, as far as the reader goes along. */
static void check_answer(size_t which, size_t piece)
{
	const char *text = answers[which].text;
	size_t length = strlen(text), at = 0;
	enum answer_progress progress = ANSWER_PROGRESS_MORE;
	struct evbuffer *in = evbuffer_new();
	struct answer a;

	answer_init(&a);
	do {
		size_t n = length - at < piece ? length - at : piece;

		evbuffer_add(in, text + at, n);
		at += n;
		progress = answer_read(&a, in);
	} while (progress == ANSWER_PROGRESS_MORE && at < length);
	if (progress != answers[which].progress)
		fail_msg("%s by %zu: progress %d", answers[which].what, piece, (int)progress);
	assert_int_equal(a.status, answers[which].status);
	if (progress == ANSWER_PROGRESS_DONE)
		assert_int_equal(a.keep, answers[which].keep);
	if (piece >= length)
		assert_int_equal(evbuffer_get_length(in), answers[which].rest);
	assert_int_equal(a.started, length > 0);
	evbuffer_free(in);
}

static void test_answers(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(answers); i++) {
		check_answer(i, SIZE_MAX);
		check_answer(i, 1);
		check_answer(i, 7);
	}
}

/* Nothing that a backend sends makes the reader go on for ever. */
static void check_limit(const char *head, const char *more, enum answer_progress end)
{
	enum answer_progress progress = ANSWER_PROGRESS_MORE;
	struct evbuffer *in = evbuffer_new();
	struct answer a;
	size_t fed = strlen(head);

	answer_init(&a);
	evbuffer_add(in, head, fed);
	while (progress == ANSWER_PROGRESS_MORE) {
		evbuffer_add(in, more, strlen(more));
		fed += strlen(more);
		progress = answer_read(&a, in);
		assert_true(fed <= 256 * 1024UL);
	}
	assert_int_equal(progress, end);
	assert_false(a.keep && progress == ANSWER_PROGRESS_DONE);
	evbuffer_free(in);
}

static void test_answer_limits(void **state)
{
	(void)state;
	check_limit("HTTP/1.1 200 ", "aaaaaaaa", ANSWER_PROGRESS_BAD);
	check_limit("HTTP/1.1 200 OK\r\n", "A: b\r\n", ANSWER_PROGRESS_BAD);
	check_limit("HTTP/1.1 200 OK\r\nA: ", "bbbbbbbb", ANSWER_PROGRESS_BAD);
	check_limit("", "HTTP/1.1 100 Go on\r\n\r\n", ANSWER_PROGRESS_BAD);
	check_limit("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "4\r\naaaa\r\n",
		    ANSWER_PROGRESS_BAD);
	check_limit("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
		    "40\r\n0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\r\n",
		    ANSWER_PROGRESS_DONE);
	check_limit("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "A: b\r\n",
		    ANSWER_PROGRESS_BAD);
}

static void test_answer_nul(void **state)
{
	static const char text[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\0\r\n\r\nok";
	struct evbuffer *in = evbuffer_new();
	struct answer a;

	(void)state;
	answer_init(&a);
	evbuffer_add(in, text, sizeof(text) - 1);
	assert_int_equal(answer_read(&a, in), ANSWER_PROGRESS_BAD);
	evbuffer_free(in);
}

/*
 * With the content
 */

static bool collect(void *arg, const void *bytes, size_t n)
{
	return text_add(arg, bytes, n, 100);
}

static void test_answer_content(void **state)
{
	static const struct {
		const char *text;
		enum answer_progress progress;
		const char *content;
		bool too_large;
	} cases[] = {
		{ "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", ANSWER_PROGRESS_DONE,
		  "hello", false },
		{ "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ANSWER_PROGRESS_DONE, "", false },
		{ "HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
		  "2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
		  ANSWER_PROGRESS_DONE, "hello", false },
		{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel",
		  ANSWER_PROGRESS_MORE, "hel", false },
		/* Where it ends, nobody can tell. */
		{ "HTTP/1.1 200 OK\r\n\r\nhello", ANSWER_PROGRESS_BAD, "", false },
		{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello", ANSWER_PROGRESS_BAD,
		  "", false },
		{ "HTTP/1.1 200 OK\r\nContent-Length: 51\r\n\r\n", ANSWER_PROGRESS_BAD, "", true },
		{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n33\r\n",
		  ANSWER_PROGRESS_BAD, "", true },
		{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff0\r\n",
		  ANSWER_PROGRESS_BAD, "", true },
	};
	size_t i, piece;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		for (piece = 1; piece <= strlen(cases[i].text); piece++) {
			enum answer_progress progress = ANSWER_PROGRESS_MORE;
			struct evbuffer *in = evbuffer_new();
			struct text t = { 0 };
			struct answer a;
			const char *content;
			size_t at, length;

			answer_init_content(&a, 50, collect, &t);
			for (at = 0; at < strlen(cases[i].text); at += piece) {
				evbuffer_add(in, cases[i].text + at,
					     strnlen(cases[i].text + at, piece));
				progress = answer_read(&a, in);
				if (progress != ANSWER_PROGRESS_MORE)
					break;
			}
			assert_int_equal(progress, cases[i].progress);
			content = text_all(&t, &length);
			assert_int_equal(length, strlen(cases[i].content));
			assert_memory_equal(content, cases[i].content, length);
			assert_int_equal(a.too_large, cases[i].too_large);
			text_free(&t);
			evbuffer_free(in);
		}
	}
}

/* More chunks than the lines of one answer may have bytes. */
static void test_answer_stream(void **state)
{
	enum answer_progress progress;
	struct evbuffer *in = evbuffer_new();
	struct text t = { 0 };
	struct answer a;
	unsigned int i;

	(void)state;
	answer_init_content(&a, SIZE_MAX, collect, &t);
	evbuffer_add_printf(in, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
	for (i = 0; i < 20000; i++) {
		evbuffer_add_printf(in, "1\r\nx\r\n");
		progress = answer_read(&a, in);
		assert_int_equal(progress, ANSWER_PROGRESS_MORE);
		text_drop(&t, text_length(&t));
	}
	evbuffer_add_printf(in, "0\r\n\r\n");
	assert_int_equal(answer_read(&a, in), ANSWER_PROGRESS_DONE);
	text_free(&t);
	evbuffer_free(in);
}

/* The sender's clock. What is no date, or one of the old forms, counts as none. */
static void test_answer_date(void **state)
{
	static const struct {
		const char *value;
		__s64 date_s;
	} dates[] = {
		{ "Thu, 01 Jan 1970 00:00:01 GMT", 1 },
		{ "Sun, 29 Nov 2026 16:00:33 GMT", 1795968033 },
		{ "Sun, 29 Nov 2026 16:00:33 GMT, x", 0 },
		{ "Sun, 29 Nov 2026 16:00:33 CET", 0 },
		{ "Sunday, 29-Nov-26 16:00:33 GMT", 0 },
		{ "", 0 },
		{ "now", 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(dates); i++) {
		struct evbuffer *in = evbuffer_new();
		struct answer a;

		answer_init(&a);
		evbuffer_add_printf(in, "HTTP/1.1 200 OK\r\ndate: %s\r\nContent-Length: 0\r\n\r\n",
				    dates[i].value);
		assert_int_equal(answer_read(&a, in), ANSWER_PROGRESS_DONE);
		assert_int_equal(a.date_s, dates[i].date_s);
		evbuffer_free(in);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		LEAVES_NOTHING(test_answers),	     LEAVES_NOTHING(test_answer_date),
		LEAVES_NOTHING(test_answer_limits),  LEAVES_NOTHING(test_answer_nul),
		LEAVES_NOTHING(test_answer_content), LEAVES_NOTHING(test_answer_stream),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
