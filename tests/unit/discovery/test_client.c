/* SPDX-License-Identifier: BSD-2-Clause */
/* One connection to an apiserver, and the GETs on it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>
#include <event2/listener.h>

#include "finder.h"
#include "pki.h"
#include "slices.h"
#include "unit.h"

static void test_text(void **state)
{
	struct text t = { 0 };
	size_t length, i;
	const char *line;

	(void)state;
	for (i = 0; i < 100000; i++) {
		assert_true(text_add(&t, "x", 1, 100001));
		assert_null(text_line(&t, &length));
	}
	assert_true(text_add(&t, "\n", 1, 100001));
	assert_false(text_add(&t, "y", 1, 100001));
	line = text_line(&t, &length);
	assert_non_null(line);
	assert_int_equal(length, 100000);
	text_drop(&t, length + 1);
	assert_int_equal(text_length(&t), 0);
	assert_true(text_add(&t, "a\n\nbc", 5, 5));
	assert_memory_equal(text_line(&t, &length), "a", 1);
	text_drop(&t, length + 1);
	assert_non_null(text_line(&t, &length));
	assert_int_equal(length, 0);
	text_drop(&t, 1);
	assert_null(text_line(&t, &length));
	assert_int_equal(text_length(&t), 2);
	text_free(&t);
}

static void test_bad_answers(void **state)
{
	static const struct {
		const char *text, *says;
	} cases[] = {
		{ "SSH-2.0-OpenSSH_9.2\r\n", "not HTTP/1.1" },
		{ "HTTP/1.1 200 OK\r\n\r\n" ONE, "not HTTP/1.1" },
		{ "HTTP/1.1 200 OK\r\nContent-Length: 2097153\r\n\r\n", "too large" },
		{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n200001\r\n", "too large" },
		{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", "not HTTP/1.1" },
		{ "HTTP/1.1 101 Switching Protocols\r\n\r\n", "not HTTP/1.1" },
	};
	struct finder f;
	size_t i;

	(void)state;
	finder_open(&f);
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		await_request(&f, (unsigned int)i + 1, LIST_PATH);
		send_text(&f, cases[i].text);
		await_result(&f, DISCOVERY_ERROR, (unsigned int)i + 1);
		assert_says(f.detail, cases[i].says);
		assert_says(f.detail, "127.0.0.1:");
	}
	/* Half a list, and the process dies. */
	await_request(&f, (unsigned int)i + 1, LIST_PATH);
	send_text(&f, "HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n{\"kind\":");
	finder_run(&f, &f.ticks, 0);
	event_base_loop(f.base, EVLOOP_NONBLOCK);
	hang_up(&f);
	await_result(&f, DISCOVERY_ERROR, (unsigned int)i + 1);
	assert_says(f.detail, "closed the connection");
	assert_int_equal(f.updates, 0);
	finder_close(&f);
}

static void test_connection_not_kept(void **state)
{
	struct finder f;
	char text[1024];

	(void)state;
	finder_open(&f);
	await_request(&f, 1, LIST_PATH);
	snprintf(text, sizeof(text),
		 "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s",
		 strlen(ONE), ONE);
	send_text(&f, text);
	finder_run(&f, &f.updates, 1);
	await_request(&f, 2, LIST_PATH "&watch");
	assert_int_equal(f.server.accepted, 2);
	finder_close(&f);
}

static void test_unasked(void **state)
{
	struct finder f;

	(void)state;
	finder_open(&f);
	await_request(&f, 1, LIST_PATH);
	/* More than the answer: such a connection carries no watch. */
	send_text(&f, "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n");
	await_result(&f, DISCOVERY_ERROR, 1);
	assert_says(f.detail, "500: not the answer that was asked for");
	finder_close(&f);
}

static void test_timeouts(void **state)
{
	struct finder f;

	(void)state;
	finder_init(&f);
	f.server.mute = true;
	f.timing.connect = 50;
	finder_start(&f);
	await_result(&f, DISCOVERY_ERROR, 1);
	assert_says(f.detail, "no connection within 50 ms");
	finder_close(&f);

	finder_init(&f);
	f.timing.answer = 200;
	finder_start(&f);
	await_request(&f, 1, LIST_PATH);
	send_text(&f, "HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n{");
	await_result(&f, DISCOVERY_ERROR, 1);
	assert_says(f.detail, "no whole answer to the list within 200 ms");
	await_request(&f, 2, LIST_PATH);
	answer(&f, "200 OK", ONE);
	await_request(&f, 3, LIST_PATH "&watch");
	/* The body of an error is not a watch, and may not go on for ever. */
	send_text(&f, "HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
	await_result(&f, DISCOVERY_ERROR, 2);
	assert_says(f.detail, "no whole answer to the watch within 200 ms");
	finder_close(&f);
}

/* A list of nearly the greatest size, in one breath: nothing gets stuck on the way. */
static void test_large_list(void **state)
{
	char *text = repeat(ONE, " ", 2 * 1024 * 1024 - sizeof(ONE), "");
	struct finder f;

	(void)state;
	finder_open(&f);
	answer_list(&f, text);
	finder_run(&f, &f.updates, 1);
	free(text);
	await_request(&f, 2, LIST_PATH "&watch");
	finder_close(&f);
}

/*
 * Who answers
 */

static void test_verification(void **state)
{
	static const struct {
		const char *host, *cluster, *says; /* says NULL: it verifies */
	} cases[] = {
		{ "127.0.0.1", "    certificate-authority: ca.crt\n", NULL },
		{ "10.96.0.1", "    certificate-authority: ca.crt\n", NULL },
		{ "localhost", "    certificate-authority: ca.crt\n", NULL },
		{ "elsewhere", "    certificate-authority: ca.crt\n", "does not name elsewhere" },
		{ "10.96.0.2", "    certificate-authority: ca.crt\n", "does not name 10.96.0.2" },
		{ "elsewhere",
		  "    certificate-authority: ca.crt\n    tls-server-name: localhost\n", NULL },
		{ "elsewhere",
		  "    certificate-authority: ca.crt\n    tls-server-name: 127.0.0.1\n", NULL },
		{ "localhost",
		  "    certificate-authority: ca.crt\n    tls-server-name: elsewhere\n",
		  "does not name elsewhere" },
		{ "127.0.0.1", "    certificate-authority: other-ca.crt\n", "issued by CN=ca" },
		{ "127.0.0.1", "", "issued by CN=ca" },
		{ "elsewhere", "    insecure-skip-tls-verify: true\n", NULL },
	};
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		struct finder f;

		finder_init(&f);
		finder_kubeconfig(&f, cases[i].host, cases[i].cluster, "token: " TOKEN);
		finder_start(&f);
		if (cases[i].says) {
			await_result(&f, DISCOVERY_ERROR, 1);
			assert_says(f.detail, cases[i].says);
			assert_int_equal(f.server.requests, 0);
		} else {
			await_request(&f, 1, LIST_PATH);
		}
		assert_int_equal(f.warnings, strstr(cases[i].cluster, "insecure") ? 1 : 0);
		finder_close(&f);
	}
}

static void test_refused(void **state)
{
	struct finder f;

	(void)state;
	finder_init(&f);
	evconnlistener_disable(f.server.listener);
	f.options.server =
		&(struct klb_endpoint){ .addr = { [10] = 255, 255, 127, 0, 0, 1 }, .port = 1 };
	finder_start(&f);
	await_result(&f, DISCOVERY_ERROR, 2);
	assert_says(f.detail, "127.0.0.1:1: connect: Connection refused");
	finder_close(&f);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct finder *f = arg;

	(void)fd;
	(void)what;
	f->ticks++;
}

#define LONG_LABEL "l2345678901234567890123456789012345678901234567890123456789012345"

/* The kubeconfig's own server, by name: looked up beside the loop. */
static void test_names(void **state)
{
	const struct timeval interval = { .tv_usec = 1000 };
	struct event *tick;
	struct finder f;

	(void)state;
	finder_init(&f);
	finder_kubeconfig(&f, "localhost", "    certificate-authority: ca.crt\n", "");
	f.options.server = NULL;
	finder_start(&f);
	await_request(&f, 1, LIST_PATH);
	assert_non_null(strstr(f.server.request, "Host: localhost:"));
	finder_close(&f);

	finder_init(&f);
	finder_kubeconfig(&f, "127.0.0.1", "    certificate-authority: ca.crt\n", "");
	f.options.server = NULL;
	finder_start(&f);
	await_request(&f, 1, LIST_PATH);
	finder_close(&f);

	/* No name server needs to be asked about this one: RFC 1035, 2.3.4. */
	finder_init(&f);
	finder_kubeconfig(&f, LONG_LABEL ".invalid", "    certificate-authority: ca.crt\n", "");
	f.options.server = NULL;
	tick = event_new(f.base, -1, EV_PERSIST, on_tick, &f);
	event_add(tick, &interval);
	finder_start(&f);
	await_result(&f, DISCOVERY_ERROR, 1);
	assert_says(f.detail, "cannot look up " LONG_LABEL ".invalid: ");
	event_free(tick);
	/* While the next one is being looked up, too. */
	finder_run(&f, &f.results[DISCOVERY_ERROR], 2);
	finder_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		LEAVES_NOTHING(test_text),
		LEAVES_NOTHING(test_bad_answers),
		LEAVES_NOTHING(test_connection_not_kept),
		LEAVES_NOTHING(test_unasked),
		LEAVES_NOTHING(test_timeouts),
		LEAVES_NOTHING(test_large_list),
		LEAVES_NOTHING(test_verification),
		LEAVES_NOTHING(test_refused),
		LEAVES_NOTHING(test_names),
	};

	return cmocka_run_group_tests(tests, pki_make, pki_remove);
}
