/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Discovery as a whole against an apiserver in the same event loop (finder.h), which says
 * exactly what a test tells it to, and when: list, watch, back off.
 */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>

#include "finder.h"
#include "net/endpoint.h"
#include "pki.h"
#include "slices.h"
#include "unit.h"

static void test_list_and_watch(void **state)
{
	struct discovery_state s;
	struct finder f;

	(void)state;
	finder_open(&f);
	s = state_of(&f);
	assert_true(!s.watching && !s.changed_ns && !s.version[0] && !s.error[0]);
	finder_watch(&f);
	assert_int_equal(f.updates, 1);
	assert_string_equal(f.list, "10.0.0.1:6443");
	assert_int_equal(f.results[DISCOVERY_APPLIED], 1);
	assert_says(f.detail, "1 endpoint: 10.0.0.1:6443");
	/* On the same connection, with all that a watch needs. */
	assert_int_equal(f.server.accepted, 1);
	assert_non_null(strstr(f.server.path, "&resourceVersion=42"));
	assert_non_null(strstr(f.server.path, "&allowWatchBookmarks=true"));
	assert_non_null(strstr(f.server.path, "&timeoutSeconds="));
	assert_true(atoi(strstr(f.server.path, "timeoutSeconds=") + 15) >= 300);
	assert_true(atoi(strstr(f.server.path, "timeoutSeconds=") + 15) <= 600);
	assert_non_null(strstr(f.server.request, "\r\nAuthorization: Bearer " TOKEN "\r\n"));
	assert_non_null(strstr(f.server.request, "\r\nHost: 127.0.0.1:"));

	send_chunk(&f, EVENT("ADDED", OBJECT("b", "43", READY("10.0.0.2"))) "\n");
	finder_run(&f, &f.updates, 2);
	assert_string_equal(f.list, "10.0.0.1:6443 10.0.0.2:6443");
	send_chunk(&f, EVENT("MODIFIED", OBJECT("b", "44", READY("10.0.0.2"))) "\n");
	await_result(&f, DISCOVERY_UNCHANGED, 1);
	send_chunk(&f, EVENT("DELETED", OBJECT("a", "45", READY("10.0.0.1"))) "\n");
	finder_run(&f, &f.updates, 3);
	assert_string_equal(f.list, "10.0.0.2:6443");
	s = state_of(&f);
	assert_true(s.watching && s.changed_ns && s.heard_ns >= s.changed_ns && !s.error[0]);
	assert_string_equal(s.version, "45");
	assert_int_equal(s.n_endpoints, 1);
	assert_int_equal(f.warnings, 0);
	finder_close(&f);
}

static void test_bookmarks(void **state)
{
	struct finder f;

	(void)state;
	finder_open(&f);
	finder_watch(&f);
	send_chunk(&f, BOOKMARK("100") "\n");
	send_text(&f, "0\r\n\r\n");
	/* Its time was up: goes on where it was, without a list, on a new connection. */
	await_request(&f, 3, LIST_PATH "&watch=true");
	assert_non_null(strstr(f.server.path, "&resourceVersion=100"));
	assert_int_equal(f.server.accepted, 2);
	assert_int_equal(f.updates, 1);
	assert_int_equal(f.results[DISCOVERY_UNCHANGED], 0);
	assert_int_equal(f.results[DISCOVERY_ERROR], 0);
	finder_close(&f);
}

/* Events by the byte, several in one chunk, and blank lines. */
static void test_pieces(void **state)
{
	static const char text[] = EVENT("ADDED", OBJECT("b", "43", READY("10.0.0.2"))) "\n";
	char one[2] = "";
	struct finder f;
	size_t i;

	(void)state;
	finder_open(&f);
	finder_watch(&f);
	for (i = 0; i < sizeof(text) - 1; i++) {
		one[0] = text[i];
		send_chunk(&f, one);
		if (i % 16 == 0)
			assert_true(event_base_loop(f.base, EVLOOP_NONBLOCK) >= 0);
	}
	finder_run(&f, &f.updates, 2);
	assert_string_equal(f.list, "10.0.0.1:6443 10.0.0.2:6443");
	/* Gone and back in one breath: that is no news. */
	send_chunk(&f, EVENT("DELETED", OBJECT("b", "44", "")) "\n\n" EVENT(
			       "ADDED", OBJECT("b", "45", READY("10.0.0.2"))) "\n");
	await_result(&f, DISCOVERY_UNCHANGED, 1);
	assert_int_equal(f.updates, 2);
	assert_string_equal(state_of(&f).version, "45");
	finder_close(&f);
}

static void test_empty(void **state)
{
	struct finder f;

	(void)state;
	finder_open(&f);
	answer_list(&f, LIST(""));
	await_result(&f, DISCOVERY_EMPTY, 1);
	assert_int_equal(f.updates, 0);
	/* Nothing to believe, but to go on from. */
	await_request(&f, 2, LIST_PATH "&watch=true");
	begin_watch(&f);
	send_chunk(&f, EVENT("ADDED", OBJECT("a", "43", READY("10.0.0.1"))) "\n");
	finder_run(&f, &f.updates, 1);
	assert_string_equal(state_of(&f).error, "");
	send_chunk(&f, EVENT("MODIFIED",
			     OBJECT("a", "44",
				    "{\"addresses\":[\"10.0.0.1\"],\"conditions\":{\"ready\":"
				    "false}}")) "\n");
	await_result(&f, DISCOVERY_EMPTY, 2);
	assert_says(f.detail, "1 not ready");
	send_chunk(&f, EVENT("DELETED", OBJECT("a", "45", "")) "\n");
	await_result(&f, DISCOVERY_EMPTY, 3);
	assert_int_equal(f.updates, 1);
	assert_int_equal(state_of(&f).n_endpoints, 1);
	assert_says(state_of(&f).error, "not believed");
	/* A bookmark is no reason to forget that. */
	send_chunk(&f, BOOKMARK("46") "\n");
	await_version(&f, "46");
	assert_says(state_of(&f).error, "not believed");
	/* The same list as before is none that needs to be told. */
	send_chunk(&f, EVENT("ADDED", OBJECT("a", "47", READY("10.0.0.1"))) "\n");
	await_result(&f, DISCOVERY_UNCHANGED, 1);
	assert_string_equal(state_of(&f).error, "");
	finder_close(&f);
}

static void test_believed(void **state)
{
	struct klb_endpoint known[] = { endpoint("10.0.0.2:6443"), endpoint("10.0.0.1:6443") };
	struct finder f;

	(void)state;
	finder_init(&f);
	f.options.initial = known;
	f.options.n_initial = 2;
	finder_start(&f);
	answer_list(&f, TWO);
	await_result(&f, DISCOVERY_UNCHANGED, 1);
	assert_int_equal(f.updates, 0);
	assert_int_equal(state_of(&f).n_endpoints, 2);
	finder_close(&f);
}

static void test_too_many(void **state)
{
	char *text = many(KLB_MAX_BACKENDS + 1, false);
	struct finder f;

	(void)state;
	finder_open(&f);
	answer_list(&f, text);
	finder_run(&f, &f.updates, 1);
	assert_int_equal(f.warnings, 1);
	assert_says(f.warning, "65 apiservers");
	assert_int_equal(state_of(&f).n_endpoints, KLB_MAX_BACKENDS);
	free(text);
	finder_close(&f);
}

static void test_unusable(void **state)
{
	struct finder f;

	(void)state;
	finder_open(&f);
	answer_list(&f, LIST(V4("a", "\"ports\":[{\"port\":443}]",
				READY("10.96.0.1") "," READY("10.0.0.1") "," READY("127.0.0.1"))));
	finder_run(&f, &f.updates, 1);
	assert_string_equal(f.list, "10.0.0.1:443");
	assert_int_equal(f.warnings, 1);
	assert_says(f.warning, "2 endpoints are not used");
	finder_close(&f);
}

static void test_expired(void **state)
{
	struct finder f;

	(void)state;
	finder_open(&f);
	finder_watch(&f);
	/* What came before it counts. */
	send_chunk(&f, EVENT("ADDED", OBJECT("b", "43", READY("10.0.0.2"))) "\n" EXPIRED "\n");
	await_result(&f, DISCOVERY_EXPIRED, 1);
	assert_int_equal(f.updates, 2);
	/* The newest list, not any apiserver's idea of it. */
	await_request(&f, 3, LIST_PATH);
	assert_null(strstr(f.server.path, "resourceVersion"));
	answer(&f, "200 OK", ONE);
	finder_run(&f, &f.updates, 3);
	await_request(&f, 4, LIST_PATH "&watch=true");
	answer(&f, "410 Gone", "{\"kind\":\"Status\",\"code\":410}");
	await_result(&f, DISCOVERY_EXPIRED, 2);
	await_request(&f, 5, LIST_PATH);
	assert_null(strstr(f.server.path, "watch"));
	finder_close(&f);
}

static void test_statuses(void **state)
{
	static const struct {
		const char *status, *body;
		enum discovery_result result;
		const char *says;
	} cases[] = {
		{ "403 Forbidden",
		  "{\"kind\":\"Status\",\"message\":\"User \\\"system:node:n\\\" cannot list\"}",
		  DISCOVERY_FORBIDDEN,
		  "may not list and watch endpointslices in namespace default: User "
		  "\"system:node:n\" cannot list; allow it by RBAC" },
		{ "401 Unauthorized", "", DISCOVERY_FORBIDDEN,
		  "does not accept the credentials; renew those of discovery.kubeconfig" },
		{ "401 Unauthorized", "{\"message\":\"token " TOKEN " is bad\"}",
		  DISCOVERY_FORBIDDEN, "401" },
		{ "404 Not Found", "404 page not found\n", DISCOVERY_ERROR, "1.21" },
		{ "429 Too Many Requests", "{\"message\":\"a\\nb\"}", DISCOVERY_ERROR,
		  "429: not the answer that was asked for: a?b" },
		{ "500 Oops", "[]", DISCOVERY_ERROR, "500: not the answer that was asked for" },
		{ "302 Found", "", DISCOVERY_ERROR, "302: not the answer that was asked for" },
		{ "204 No Content", "", DISCOVERY_ERROR, "204: not the answer that was asked for" },
		{ "200 OK", "<html>", DISCOVERY_ERROR, "not JSON" },
		{ "200 OK", "{\"kind\":\"EndpointSliceList\",\"metad", DISCOVERY_ERROR,
		  "not JSON" },
		{ "200 OK", "", DISCOVERY_ERROR, "not JSON" },
		{ "200 OK", "\"" TOKEN "\" x", DISCOVERY_ERROR, "not JSON" },
		{ "200 OK", "{\"kind\":\"" TOKEN "\"}", DISCOVERY_ERROR, "not shown" },
	};
	struct finder f;
	size_t i;

	(void)state;
	finder_open(&f);
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		unsigned int before = f.results[cases[i].result];

		await_request(&f, (unsigned int)i + 1, LIST_PATH);
		answer(&f, cases[i].status, cases[i].body);
		await_result(&f, cases[i].result, before + 1);
		assert_says(f.detail, cases[i].says);
		assert_string_equal(state_of(&f).error, f.detail);
	}
	/* And then all is well. */
	await_request(&f, (unsigned int)i + 1, LIST_PATH);
	answer(&f, "200 OK", ONE);
	finder_run(&f, &f.updates, 1);
	assert_string_equal(state_of(&f).error, "");
	finder_close(&f);
}

static void test_bad_watches(void **state)
{
	static const struct {
		const char *chunk;
		bool end;
		const char *says;
	} cases[] = {
		{ "not json\n", false, "an event is not JSON" },
		{ "{\"type\":\"ADDED\",\"object\":{}}\n", false, "an event about" },
		{ EVENT("ERROR", "{\"code\":500,\"reason\":\"InternalError\"}") "\n", false,
		  "500 InternalError" },
		{ "{\"type\":\"ADD", true, "in the middle of an event" },
		{ EVENT("ADDED", OBJECT("b", "43", READY("10.0.0.2"))), true,
		  "in the middle of an event" },
	};
	struct finder f;
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		finder_open(&f);
		finder_watch(&f);
		send_chunk(&f, cases[i].chunk);
		if (cases[i].end)
			send_text(&f, "0\r\n\r\n");
		await_result(&f, DISCOVERY_ERROR, 1);
		assert_says(f.detail, cases[i].says);
		assert_int_equal(f.updates, 1);
		/* What makes no sense puts the version in doubt; what broke off does not. */
		await_request(&f, 3, cases[i].end ? LIST_PATH "&watch" : LIST_PATH);
		assert_true(cases[i].end || !strstr(f.server.path, "watch"));
		finder_close(&f);
	}
}

/* A watch that broke off goes on where it was; one that never works is not for ever. */
static void test_disconnects(void **state)
{
	unsigned int i;
	struct finder f;

	(void)state;
	finder_open(&f);
	finder_watch(&f);
	send_chunk(&f, EVENT("ADDED", OBJECT("b", "43", READY("10.0.0.2"))) "\n{\"half");
	finder_run(&f, &f.updates, 2);
	hang_up(&f);
	for (i = 3; i < 5; i++) {
		await_request(&f, i, LIST_PATH "&watch");
		assert_non_null(strstr(f.server.path, "&resourceVersion=43"));
		hang_up(&f);
	}
	await_request(&f, 5, LIST_PATH);
	assert_null(strstr(f.server.path, "watch"));
	assert_int_equal(f.results[DISCOVERY_ERROR], 3);
	finder_close(&f);
}

/* After a failure a watch's headers are the first good news, and for an hour the only. */
static void test_works_again(void **state)
{
	struct finder f;

	(void)state;
	finder_open(&f);
	finder_watch(&f);
	hang_up(&f);
	await_result(&f, DISCOVERY_ERROR, 1);
	await_request(&f, 3, LIST_PATH "&watch=true");
	assert_int_equal(f.results[DISCOVERY_UNCHANGED], 0);
	begin_watch(&f);
	await_result(&f, DISCOVERY_UNCHANGED, 1);
	assert_string_equal(state_of(&f).error, "");
	/* Once: neither for what follows, nor for a watch that no failure came before. */
	send_chunk(&f, BOOKMARK("100") "\n");
	send_text(&f, "0\r\n\r\n");
	await_request(&f, 4, LIST_PATH "&watch=true");
	begin_watch(&f);
	send_chunk(&f, BOOKMARK("101") "\n");
	await_version(&f, "101");
	assert_int_equal(f.results[DISCOVERY_UNCHANGED], 1);
	/* The owner may have had enough just then. */
	hang_up(&f);
	await_result(&f, DISCOVERY_ERROR, 2);
	await_request(&f, 5, LIST_PATH "&watch=true");
	f.hook = HOOK_FREE_IN_RESULT;
	begin_watch(&f);
	await_result(&f, DISCOVERY_UNCHANGED, 2);
	finder_close(&f);
}

/* What was not believed before the failure is no good news after it. */
static void test_works_again_with_nobody(void **state)
{
	struct finder f;

	(void)state;
	finder_open(&f);
	answer_list(&f, LIST(""));
	await_request(&f, 2, LIST_PATH "&watch=true");
	hang_up(&f);
	await_result(&f, DISCOVERY_ERROR, 1);
	await_request(&f, 3, LIST_PATH "&watch=true");
	begin_watch(&f);
	send_chunk(&f, BOOKMARK("100") "\n");
	await_version(&f, "100");
	assert_int_equal(f.results[DISCOVERY_UNCHANGED], 0);
	finder_close(&f);
}

/* What is said of the version is a reason for a new list. What is said of the apiserver is
 * none: thousands of nodes would ask an overloaded one for more. */
static void test_refused_watches(void **state)
{
	static const struct {
		const char *status;
		enum discovery_result result;
		bool lists;
	} cases[] = {
		{ "400 Bad Request", DISCOVERY_ERROR, true },
		{ "404 Not Found", DISCOVERY_ERROR, true },
		{ "410 Gone", DISCOVERY_EXPIRED, true },
		{ "401 Unauthorized", DISCOVERY_FORBIDDEN, false },
		{ "403 Forbidden", DISCOVERY_FORBIDDEN, false },
		{ "429 Too Many Requests", DISCOVERY_ERROR, false },
		{ "500 Internal Server Error", DISCOVERY_ERROR, false },
		{ "503 Service Unavailable", DISCOVERY_ERROR, false },
		{ "504 Gateway Timeout", DISCOVERY_ERROR, false },
	};
	struct finder f;
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		unsigned int n = 2;

		finder_open(&f);
		answer_list(&f, ONE);
		do {
			await_request(&f, n++, LIST_PATH "&watch=true");
			answer(&f, cases[i].status, "{\"kind\":\"Status\"}");
			await_result(&f, cases[i].result, n - 2);
		} while (!cases[i].lists && n < 5);
		/* The third in a row puts the version in doubt, whatever it is. */
		await_request(&f, n, LIST_PATH);
		assert_null(strstr(f.server.path, "watch"));
		finder_close(&f);
	}
}

/*
 * Time
 */

static void on_dribble(evutil_socket_t fd, short what, void *arg)
{
	struct finder *f = arg;

	(void)fd;
	(void)what;
	if (f->server.now)
		send_chunk(f, f->piece);
}

/* Sends piece again and again, slower than what is too much, until there is an error. */
static void dribble(struct finder *f, const char *piece)
{
	const struct timeval pause = { .tv_usec = 5000 };
	struct event *timer = event_new(f->base, -1, EV_PERSIST, on_dribble, f);

	f->piece = piece;
	assert_int_equal(event_add(timer, &pause), 0);
	await_result(f, DISCOVERY_ERROR, 1);
	event_free(timer);
}

/* Neither data without end nor a record for each byte may take the event loop. */
static void test_floods(void **state)
{
	static const struct {
		const char *piece, *detail;
		unsigned int times; /* in a chunk */
	} cases[] = {
		{ BOOKMARK("50") "\n", "the apiserver sends too many small pieces", 1 },
		{ BOOKMARK("50") "\n", "the apiserver sends too many bytes", 500 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char *chunk = repeat("", cases[i].piece, cases[i].times, "");
		struct finder f;

		finder_open(&f);
		finder_watch(&f);
		while (!f.results[DISCOVERY_ERROR]) {
			if (f.server.now &&
			    evbuffer_get_length(bufferevent_get_output(f.server.now)) < 100000)
				send_chunk(&f, chunk);
			finder_turn(&f);
		}
		assert_says(f.detail, cases[i].detail);
		finder_close(&f);
		free(chunk);
	}
}

/* Tickets without end, on a watch that has begun. */
static void test_tickets(void **state)
{
	struct finder f;
	SSL *ssl;

	(void)state;
	finder_open(&f);
	finder_watch(&f);
	ssl = bufferevent_openssl_get_ssl(f.server.now);
	for (unsigned int i = 0; i < 100; i++) {
		assert_int_equal(SSL_new_session_ticket(ssl), 1);
		assert_int_equal(SSL_do_handshake(ssl), 1);
	}
	await_result(&f, DISCOVERY_ERROR, 1);
	assert_says(f.detail, "the apiserver sends too many TLS handshake messages");
	finder_close(&f);
}

static void test_stalls(void **state)
{
	struct finder f;

	(void)state;
	finder_init(&f);
	f.timing.line = 100;
	f.timing.silence = 600;
	finder_start(&f);
	finder_watch(&f);
	/* Dribbles: every byte is progress, and yet there is none. */
	send_chunk(&f, "{");
	dribble(&f, " ");
	assert_says(f.detail, "an event is not complete within 100 ms");
	await_request(&f, 3, LIST_PATH "&watch");
	begin_watch(&f);
	await_result(&f, DISCOVERY_ERROR, 2);
	assert_says(f.detail, "the watch is silent for 600 ms");
	finder_close(&f);
}

/* A watch that ignores its timeoutSeconds. */
static void test_watch_beyond_its_time(void **state)
{
	struct finder f;

	(void)state;
	finder_init(&f);
	f.timing.watch = 100;
	f.timing.answer = 500;
	finder_start(&f);
	finder_watch(&f);
	dribble(&f, BOOKMARK("50") "\n");
	assert_says(f.detail, "beyond its time");
	finder_close(&f);
}

static void test_relist(void **state)
{
	struct finder f;

	(void)state;
	finder_init(&f);
	f.timing.relist = 1;
	finder_start(&f);
	finder_watch(&f);
	send_text(&f, "0\r\n\r\n");
	await_request(&f, 3, LIST_PATH);
	assert_null(strstr(f.server.path, "watch"));
	finder_close(&f);
}

/* Each wait is at least half of what it doubles to; never more tries than that. */
static void test_backoff(void **state)
{
	static const unsigned int waits[] = { 20, 40, 80, 160, 160, 160 };
	struct finder f;
	size_t i;

	(void)state;
	finder_init(&f);
	f.server.refuse = true;
	f.timing.backoff_min = 20;
	f.timing.backoff_max = 160;
	finder_start(&f);
	finder_run(&f, &f.server.accepted, ARRAY_SIZE(waits) + 1);
	for (i = 0; i < ARRAY_SIZE(waits); i++) {
		__u64 gap = f.server.accepted_ns[i + 1] - f.server.accepted_ns[i];

		/* libevent's clock is a coarse one. */
		if (gap + 5000000 < waits[i] / 2 * 1000000ULL)
			fail_msg("only %llu ms before try %zu", gap / 1000000, i + 2);
	}
	finder_close(&f);
}

/* An apiserver that says something good and hangs up does not get more tries. */
static void test_backoff_of_short_successes(void **state)
{
	struct finder f;
	unsigned int i;

	(void)state;
	finder_init(&f);
	f.timing.backoff_min = 20;
	f.timing.backoff_max = 160;
	finder_start(&f);
	for (i = 1; i <= 9; i += 2) {
		await_request(&f, i, LIST_PATH);
		answer(&f, "200 OK", ONE);
		await_request(&f, i + 1, LIST_PATH "&watch");
		answer(&f, "410 Gone", "");
		await_result(&f, DISCOVERY_EXPIRED, i / 2 + 1);
	}
	/* 10 + 20 + 40 + 80 */
	assert_true(f.server.accepted_ns[4] - f.server.accepted_ns[0] >= 130000000ULL);
	finder_close(&f);

	/* But one that goes on for a while does. */
	finder_init(&f);
	f.timing.backoff_min = 1;
	f.timing.backoff_max = 3600000;
	f.timing.stable = 0;
	finder_start(&f);
	for (i = 1; i <= 79; i += 2) {
		await_request(&f, i, LIST_PATH);
		answer(&f, "200 OK", ONE);
		await_request(&f, i + 1, LIST_PATH "&watch");
		answer(&f, "410 Gone", "");
	}
	finder_close(&f);
}

static void test_forbidden_waits(void **state)
{
	struct finder f;

	(void)state;
	finder_init(&f);
	f.timing.forbidden = 300;
	finder_start(&f);
	await_request(&f, 1, LIST_PATH);
	answer(&f, "403 Forbidden", "");
	await_result(&f, DISCOVERY_FORBIDDEN, 1);
	await_request(&f, 2, LIST_PATH);
	assert_true(f.server.accepted_ns[1] - f.server.accepted_ns[0] >= 130000000ULL);
	finder_close(&f);
}

/*
 * Lifetimes
 */

static void test_free_in_ops(void **state)
{
	static const struct {
		enum hook hook;
		const char *body;
	} cases[] = {
		{ HOOK_FREE_IN_UPDATED, ONE },
		{ HOOK_FREE_IN_RESULT, ONE },
		{ HOOK_FREE_IN_RESULT, LIST("") },
		{ HOOK_FREE_IN_RESULT, "junk" },
		{ HOOK_FREE_IN_WARNING, LIST(V4("a", HTTPS, READY("127.0.0.1"))) },
	};
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		struct finder f;

		finder_init(&f);
		f.hook = cases[i].hook;
		finder_start(&f);
		answer_list(&f, cases[i].body);
		while (f.discovery)
			finder_turn(&f);
		finder_close(&f);
	}
}

static void test_free_in_watch(void **state)
{
	static const enum hook hooks[] = { HOOK_FREE_IN_UPDATED, HOOK_FREE_IN_RESULT };
	static const char *const chunks[] = {
		EVENT("ADDED", OBJECT("b", "43", READY("10.0.0.2"))) "\n",
		EVENT("ADDED", OBJECT("b", "43", READY("10.0.0.2"))) "\njunk\n",
	};
	size_t i, j;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(hooks); i++) {
		for (j = 0; j < ARRAY_SIZE(chunks); j++) {
			struct finder f;

			finder_open(&f);
			finder_watch(&f);
			f.hook = hooks[i];
			send_chunk(&f, chunks[j]);
			while (f.discovery)
				finder_turn(&f);
			finder_close(&f);
		}
	}
}

/* Also while a name is looked up, while it dials, before it began, and never. */
static void test_free_at_any_time(void **state)
{
	unsigned int turns, by_name;

	(void)state;
	discovery_free(NULL);
	for (by_name = 0; by_name < 2; by_name++) {
		for (turns = 0; turns < 12; turns++) {
			struct finder f;
			unsigned int i;

			finder_init(&f);
			finder_kubeconfig(&f, "localhost", "    certificate-authority: ca.crt\n",
					  "");
			if (by_name)
				f.options.server = NULL;
			f.timing.connect = f.timing.answer = f.timing.silence = 50;
			finder_start(&f);
			for (i = 0; i < turns; i++) {
				if (f.server.now && f.server.requests == 1 && !f.updates && i % 2)
					answer(&f, "200 OK", ONE);
				event_base_loop(f.base, EVLOOP_ONCE);
			}
			finder_close(&f);
		}
	}
}

static void test_result_names(void **state)
{
	int i, j;

	(void)state;
	for (i = 0; i < DISCOVERY_RESULTS; i++) {
		assert_non_null(discovery_result_name((enum discovery_result)i));
		for (j = 0; j < i; j++)
			assert_string_not_equal(discovery_result_name((enum discovery_result)i),
						discovery_result_name((enum discovery_result)j));
	}
}

/*
 * Memory
 */

static size_t resident(void)
{
	unsigned long size, pages;
	FILE *f = fopen("/proc/self/statm", "r");

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%lu %lu", &size, &pages), 2);
	fclose(f);
	return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* Events that change the list each time, n of them. */
static void send_events(struct finder *f, unsigned int from, unsigned int n)
{
	char text[2048];
	unsigned int i;

	for (i = from; i < from + n; i++) {
		snprintf(text, sizeof(text),
			 EVENT("%s", "{\"kind\":\"EndpointSlice\",\"metadata\":{\"name\":\"s%u\","
				     "\"resourceVersion\":\"%u\",\"labels\":{"
				     "\"kubernetes.io/service-name\":\"kubernetes\"}},"
				     "\"addressType\":\"IPv4\"," HTTPS
				     ",\"endpoints\":[{\"addresses\":[\"10.1.%u.%u\"]}]}") "\n",
			 i % 3 ? "MODIFIED" : "ADDED", i % 32, 1000 + i, i / 256 % 256, i % 256);
		send_chunk(f, text);
		if (i % 50 == 49)
			finder_run(f, &f->updates, f->updates + 1);
	}
	snprintf(text, sizeof(text), "%u", 1000 + from + n - 1);
	await_version(f, text);
}

static void test_memory_is_flat(void **state)
{
	struct mallinfo2 before, after;
	size_t rss_before, rss_after;
	struct finder f;

	(void)state;
#ifdef __SANITIZE_ADDRESS__
	skip(); /* which keeps what is freed */
#endif
	finder_open(&f);
	finder_watch(&f);
	send_events(&f, 0, 2000);
	before = mallinfo2();
	rss_before = resident();
	send_events(&f, 2000, 10000);
	after = mallinfo2();
	rss_after = resident();
	printf("10000 events: heap %zu -> %zu, resident %zu -> %zu\n", before.uordblks,
	       after.uordblks, rss_before, rss_after);
	/* What is on its way between the two ends differs by a record or so. */
	assert_true(after.uordblks < before.uordblks + 64 * 1024UL);
	assert_true(rss_after < rss_before + 512 * 1024UL);
	finder_close(&f);
}

/* --- an apiserver that says something new all the time ---------------------------------- */

/* Of lists in a row the first ones are taken at once, and then the newest at its time. */
static void test_newest_list_counts(void **state)
{
	const struct discovery_pace pace = { .lists = { .burst = 2, .every_ms = 2000 },
					     .events = discovery_pace_default.events };
	struct finder f;
	char text[1024], version[16];

	(void)state;
	finder_init(&f);
	f.options.pace = &pace;
	finder_start(&f);
	finder_watch(&f);
	for (unsigned int i = 1; i <= 30; i++) {
		snprintf(text, sizeof(text),
			 EVENT("MODIFIED",
			       "{\"kind\":\"EndpointSlice\",\"metadata\":{\"name\":\"a\","
			       "\"resourceVersion\":\"%u\",\"labels\":{"
			       "\"kubernetes.io/service-name\":\"kubernetes\"}},"
			       "\"addressType\":\"IPv4\"," HTTPS
			       ",\"endpoints\":[{\"addresses\":[\"10.1.0.%u\"]}]}") "\n",
			 100 + i, i);
		send_chunk(&f, text);
		snprintf(version, sizeof(version), "%u", 100 + i);
		await_version(&f, version);
	}
	/* One of the two was the list. */
	assert_in_range(f.updates, 1, 4);
	while (strcmp(f.list, "10.1.0.30:6443") != 0)
		finder_turn(&f);
	assert_in_range(f.updates, 2, 5);
	finder_close(&f);
}

/* It is left, and what it has said so far counts. */
static void test_too_many_events(void **state)
{
	const struct discovery_pace pace = { .lists = discovery_pace_default.lists,
					     .events = { .burst = 300, .per_s = 1 } };
	struct finder f;

	(void)state;
	finder_init(&f);
	f.options.pace = &pace;
	finder_start(&f);
	finder_watch(&f);
	for (int i = 0; i < 4; i++)
		send_chunk(&f, BOOKMARK("50") "\n");
	await_result(&f, DISCOVERY_ERROR, 1);
	assert_says(f.detail, "more than an apiserver has to say");
	await_request(&f, 3, LIST_PATH);
	finder_close(&f);
}

/* An event without an end: refused in time, and no more is kept of it than allowed. */
static void test_endless_event(void **state)
{
	char *piece = repeat("", "x", 60000, "");
	struct finder f;
	size_t sent = 0;

	(void)state;
	finder_open(&f);
	finder_watch(&f);
	while (!f.results[DISCOVERY_ERROR]) {
		if (f.server.now &&
		    evbuffer_get_length(bufferevent_get_output(f.server.now)) < 100000) {
			send_chunk(&f, piece);
			sent += 60000;
		}
		finder_turn(&f);
		assert_true(sent < 8 * 1024 * 1024UL);
	}
	assert_says(f.detail, "too large");
	free(piece);
	finder_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		LEAVES_NOTHING(test_list_and_watch),
		LEAVES_NOTHING(test_bookmarks),
		LEAVES_NOTHING(test_pieces),
		LEAVES_NOTHING(test_empty),
		LEAVES_NOTHING(test_believed),
		LEAVES_NOTHING(test_too_many),
		LEAVES_NOTHING(test_unusable),
		LEAVES_NOTHING(test_expired),
		LEAVES_NOTHING(test_statuses),
		LEAVES_NOTHING(test_bad_watches),
		LEAVES_NOTHING(test_disconnects),
		LEAVES_NOTHING(test_works_again),
		LEAVES_NOTHING(test_works_again_with_nobody),
		LEAVES_NOTHING(test_refused_watches),
		LEAVES_NOTHING(test_floods),
		LEAVES_NOTHING(test_tickets),
		LEAVES_NOTHING(test_stalls),
		LEAVES_NOTHING(test_watch_beyond_its_time),
		LEAVES_NOTHING(test_relist),
		LEAVES_NOTHING(test_backoff),
		LEAVES_NOTHING(test_backoff_of_short_successes),
		LEAVES_NOTHING(test_forbidden_waits),
		LEAVES_NOTHING(test_free_in_ops),
		LEAVES_NOTHING(test_free_in_watch),
		LEAVES_NOTHING(test_free_at_any_time),
		LEAVES_NOTHING(test_result_names),
		LEAVES_NOTHING(test_memory_is_flat),
		LEAVES_NOTHING(test_newest_list_counts),
		LEAVES_NOTHING(test_too_many_events),
		LEAVES_NOTHING(test_endless_event),
	};

	return cmocka_run_group_tests(tests, pki_make, pki_remove);
}
