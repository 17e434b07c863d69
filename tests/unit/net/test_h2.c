/* SPDX-License-Identifier: BSD-2-Clause */
/* The client's side of HTTP/2 against libnghttp2's server, over a pair of buffers. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <nghttp2/nghttp2.h>

#include "net/h2.h"
#include "unit.h"

#define STREAMS 16

/* Both sides of one session; the server answers when the test says so. */
struct pair {
	struct event_base *base;
	struct bufferevent *sides[2];
	nghttp2_session *server;
	struct h2 *client;
	int requests[STREAMS]; /* streams */
	unsigned int n_requests, n_cancelled, n_pings;
	char path[64], authority[64];
	const char *why;
};

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
		     size_t name_length, const uint8_t *value, size_t value_length, uint8_t flags,
		     void *arg)
{
	struct pair *p = arg;

	(void)session;
	(void)frame;
	(void)flags;
	if (name_length == 5 && !memcmp(name, ":path", 5))
		snprintf(p->path, sizeof(p->path), "%.*s", (int)value_length, (const char *)value);
	if (name_length == 10 && !memcmp(name, ":authority", 10))
		snprintf(p->authority, sizeof(p->authority), "%.*s", (int)value_length,
			 (const char *)value);
	return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
	struct pair *p = arg;

	(void)session;
	if (frame->hd.type == NGHTTP2_HEADERS && p->n_requests < STREAMS)
		p->requests[p->n_requests++] = frame->hd.stream_id;
	if (frame->hd.type == NGHTTP2_RST_STREAM)
		p->n_cancelled++;
	if (frame->hd.type == NGHTTP2_PING)
		p->n_pings++;
	return 0;
}

static void begin(struct pair *p)
{
	nghttp2_session_callbacks *callbacks;

	memset(p, 0, sizeof(*p));
	p->base = event_base_new();
	assert_int_equal(bufferevent_pair_new(p->base, 0, p->sides), 0);
	for (unsigned int i = 0; i < 2; i++)
		bufferevent_enable(p->sides[i], EV_READ | EV_WRITE);
	assert_int_equal(nghttp2_session_callbacks_new(&callbacks), 0);
	nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
	nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
	assert_int_equal(nghttp2_session_server_new(&p->server, callbacks, p), 0);
	nghttp2_session_callbacks_del(callbacks);
	assert_int_equal(nghttp2_submit_settings(p->server, 0, NULL, 0), 0);
	assert_int_equal(h2_new(p->sides[0], &p->client), 0);
}

static void end(struct pair *p)
{
	h2_free(p->client);
	nghttp2_session_del(p->server);
	bufferevent_free(p->sides[0]);
	bufferevent_free(p->sides[1]);
	event_base_free(p->base);
}

static void serve(struct pair *p)
{
	struct evbuffer *in = bufferevent_get_input(p->sides[1]);
	const uint8_t *bytes;
	ssize_t n = (ssize_t)evbuffer_get_length(in);

	if (n)
		assert_int_equal(
			nghttp2_session_mem_recv(p->server, evbuffer_pullup(in, -1), (size_t)n), n);
	evbuffer_drain(in, (size_t)n);
	while ((n = nghttp2_session_mem_send(p->server, &bytes)) > 0)
		bufferevent_write(p->sides[1], bytes, (size_t)n);
}

/* Until neither side has more to say. Returns what h2_read has returned last. */
static int talk(struct pair *p)
{
	int r = 0;

	for (unsigned int i = 0; i < 4 && !r; i++) {
		event_base_loop(p->base, EVLOOP_NONBLOCK);
		serve(p);
		event_base_loop(p->base, EVLOOP_NONBLOCK);
		r = h2_read(p->client, &p->why);
	}
	return r;
}

static void answer(struct pair *p, int stream, const char *status)
{
	const nghttp2_nv headers[] = { { (uint8_t *)":status", (uint8_t *)status, 7, strlen(status),
					 NGHTTP2_NV_FLAG_NONE } };

	assert_int_equal(nghttp2_submit_response(p->server, stream, headers, 1, NULL), 0);
}

static void expect_event(struct pair *p, enum h2_event_kind kind, int stream, unsigned int status)
{
	struct h2_event event;

	assert_true(h2_next(p->client, &event));
	assert_int_equal(event.kind, kind);
	assert_int_equal(event.stream, stream);
	assert_int_equal(event.status, status);
}

static void expect_no_event(struct pair *p)
{
	struct h2_event event;

	assert_false(h2_next(p->client, &event));
}

static void test_get(void **state)
{
	struct pair p;
	int stream;

	(void)state;
	begin(&p);
	stream = h2_get(p.client, "/readyz?verbose", "192.0.2.1:6443");
	assert_true(stream > 0);
	assert_int_equal(talk(&p), 0);
	assert_int_equal(p.requests[0], stream);
	assert_string_equal(p.path, "/readyz?verbose");
	assert_string_equal(p.authority, "192.0.2.1:6443");
	expect_no_event(&p);
	answer(&p, stream, "503");
	assert_int_equal(talk(&p), 0);
	expect_event(&p, H2_ANSWERED, stream, 503);
	expect_no_event(&p);
	end(&p);
}

static void test_answers_in_another_order(void **state)
{
	struct pair p;
	int slow, quick;

	(void)state;
	begin(&p);
	slow = h2_get(p.client, "/readyz", "a");
	quick = h2_get(p.client, "/livez", "a");
	assert_int_equal(talk(&p), 0);
	answer(&p, quick, "200");
	assert_int_equal(talk(&p), 0);
	expect_event(&p, H2_ANSWERED, quick, 200);
	answer(&p, slow, "500");
	assert_int_equal(talk(&p), 0);
	expect_event(&p, H2_ANSWERED, slow, 500);
	end(&p);
}

static void test_interim_answer(void **state)
{
	static const nghttp2_nv early[] = { { (uint8_t *)":status", (uint8_t *)"103", 7, 3,
					      NGHTTP2_NV_FLAG_NONE } };
	struct pair p;
	int stream;

	(void)state;
	begin(&p);
	stream = h2_get(p.client, "/readyz", "a");
	assert_int_equal(talk(&p), 0);
	nghttp2_submit_headers(p.server, NGHTTP2_FLAG_NONE, stream, NULL, early, 1, NULL);
	assert_int_equal(talk(&p), 0);
	expect_no_event(&p);
	answer(&p, stream, "200");
	assert_int_equal(talk(&p), 0);
	expect_event(&p, H2_ANSWERED, stream, 200);
	end(&p);
}

static void test_refused(void **state)
{
	struct pair p;
	int stream;

	(void)state;
	begin(&p);
	stream = h2_get(p.client, "/readyz", "a");
	assert_int_equal(talk(&p), 0);
	nghttp2_submit_rst_stream(p.server, NGHTTP2_FLAG_NONE, stream, NGHTTP2_REFUSED_STREAM);
	assert_int_equal(talk(&p), 0);
	expect_event(&p, H2_UNANSWERED, stream, 0);
	end(&p);
}

static void test_cancelled(void **state)
{
	struct pair p;
	int stream;

	(void)state;
	begin(&p);
	for (unsigned int i = 0; i < 3 * H2_STREAMS_MAX; i++) {
		stream = h2_get(p.client, "/readyz", "a");
		assert_true(stream > 0);
		assert_int_equal(talk(&p), 0);
		assert_int_equal(h2_cancel(p.client, stream), 0);
		assert_int_equal(talk(&p), 0);
		expect_no_event(&p);
	}
	assert_int_equal(p.n_cancelled, 3 * H2_STREAMS_MAX);
	end(&p);
}

static void test_too_many(void **state)
{
	struct pair p;

	(void)state;
	begin(&p);
	for (unsigned int i = 0; i < H2_STREAMS_MAX; i++)
		assert_true(h2_get(p.client, "/", "a") > 0);
	assert_int_equal(h2_get(p.client, "/", "a"), -EBUSY);
	end(&p);
}

static void test_ping(void **state)
{
	struct h2_event event;
	struct pair p;

	(void)state;
	begin(&p);
	assert_true(h2_get(p.client, "/readyz", "a") > 0);
	assert_int_equal(h2_ping(p.client, 41), 0);
	assert_int_equal(h2_ping(p.client, 42), 0);
	assert_int_equal(talk(&p), 0);
	assert_int_equal(p.n_pings, 2);
	/* The answer to the last one alone, and no answer to the GET was needed for it. */
	assert_true(h2_next(p.client, &event));
	assert_int_equal(event.kind, H2_PONG);
	assert_int_equal(event.number, 42);
	expect_no_event(&p);
	end(&p);
}

static void test_going(void **state)
{
	struct pair p;
	int stream;

	(void)state;
	begin(&p);
	stream = h2_get(p.client, "/readyz", "a");
	assert_int_equal(talk(&p), 0);
	nghttp2_submit_shutdown_notice(p.server);
	assert_int_equal(talk(&p), 0);
	expect_event(&p, H2_GOING, 0, 0);
	assert_int_equal(h2_get(p.client, "/livez", "a"), -ESHUTDOWN);
	answer(&p, stream, "200");
	assert_int_equal(talk(&p), 0);
	expect_event(&p, H2_ANSWERED, stream, 200);
	end(&p);
}

/* What is no HTTP/2, or breaks its rules, is an end with a reason, and not a crash. */
static void test_breach(void **state)
{
	static const struct {
		const char *bytes;
		size_t n;
	} cases[] = {
		{ "HTTP/1.1 400 Bad Request\r\n\r\n", 28 },
		/* A PING of 7 bytes (RFC 9113, 6.7). */
		{ "\0\0\7\6\0\0\0\0\0abcdefg", 16 },
		/* DATA on stream 0 (6.1). */
		{ "\0\0\1\0\0\0\0\0\0x", 10 },
		/* A frame larger than allowed (4.2). */
		{ "\xff\xff\xff\0\0\0\0\0\1", 9 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct pair p;

		begin(&p);
		assert_true(h2_get(p.client, "/readyz", "a") > 0);
		if (i)
			assert_int_equal(talk(&p), 0);
		bufferevent_write(p.sides[1], cases[i].bytes, cases[i].n);
		event_base_loop(p.base, EVLOOP_NONBLOCK);
		assert_int_equal(h2_read(p.client, &p.why), -EPROTO);
		assert_true(strlen(p.why) > 3);
		end(&p);
	}
}

/* PINGs without end are answered up to a limit. */
static void test_flood(void **state)
{
	struct pair p;
	int r = 0;

	(void)state;
	begin(&p);
	assert_int_equal(talk(&p), 0);
	for (unsigned int i = 0; i < 1000; i++)
		bufferevent_write(p.sides[1], "\0\0\10\6\0\0\0\0\0abcdefgh", 17);
	event_base_loop(p.base, EVLOOP_NONBLOCK);
	r = h2_read(p.client, &p.why);
	assert_int_equal(r, -EPROTO);
	assert_says(p.why, "lood");
	end(&p);
}

/* Whatever the frames: some are answered, others only take time. */
static void test_floods(void **state)
{
	/* Length, type, flags, stream, content; and what goes before. */
	static const struct {
		const char *what, *bytes;
		size_t n;
		const char *first;
		size_t n_first;
	} cases[] = {
		{ "PING", "\0\0\10\6\0\0\0\0\0abcdefgh", 17, "", 0 },
		{ "PING's answer", "\0\0\10\6\1\0\0\0\0abcdefgh", 17, "", 0 },
		{ "SETTINGS", "\0\0\0\4\0\0\0\0\0", 9, "", 0 },
		{ "WINDOW_UPDATE", "\0\0\4\10\0\0\0\0\0\0\0\0\1", 13, "", 0 },
		{ "PRIORITY", "\0\0\5\2\0\0\0\0\3\0\0\0\0\1", 14, "", 0 },
		{ "DATA", "\0\0\0\0\0\0\0\0\1", 9, "\0\0\1\1\4\0\0\0\1\x88", 10 },
		/* libnghttp2 has a limit of its own, or had none. */
		{ "CONTINUATION", "\0\0\0\11\0\0\0\0\1", 9, "\0\0\0\1\0\0\0\0\1", 9 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct pair p;
		int r;

		begin(&p);
		assert_int_equal(h2_get(p.client, "/", "x"), 1);
		r = talk(&p);
		bufferevent_write(p.sides[1], cases[i].first, cases[i].n_first);
		for (unsigned int sent = 0; !r && sent < 3000; sent++) {
			bufferevent_write(p.sides[1], cases[i].bytes, cases[i].n);
			event_base_loop(p.base, EVLOOP_NONBLOCK);
			r = h2_read(p.client, &p.why);
		}
		if (r != -EPROTO)
			fail_msg("%s: %d", cases[i].what, r);
		assert_says(p.why, "oo many");
		end(&p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_get),
		cmocka_unit_test(test_answers_in_another_order),
		cmocka_unit_test(test_interim_answer),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_cancelled),
		cmocka_unit_test(test_too_many),
		cmocka_unit_test(test_ping),
		cmocka_unit_test(test_going),
		cmocka_unit_test(test_breach),
		cmocka_unit_test(test_flood),
		cmocka_unit_test(test_floods),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
