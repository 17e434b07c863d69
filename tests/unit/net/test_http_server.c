/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The agent's HTTP address, with real clients on an ephemeral port of the loopback. Both
 * ends are in one event loop.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/event.h>

#include "net/endpoint.h"
#include "net/http_server.h"
#include "unit.h"

/* So many descriptors lead to half as many places, see http_server.c. */
#define DESCRIPTORS 128
#define CONNECTIONS_MAX (DESCRIPTORS / 2)

/* --- the server ------------------------------------------------------------------------ */

static struct event_base *base;
static struct http *http;
static struct klb_endpoint at;
static const char *metrics_text; /* NULL: there is no memory for it */
static const char *why_not_ready; /* NULL: it is ready */

static unsigned int metrics_made;

static char *on_metrics(void *arg, size_t *ret_length)
{
	assert_ptr_equal(arg, &at);
	metrics_made++;
	if (!metrics_text)
		return NULL;
	*ret_length = strlen(metrics_text);
	return strdup(metrics_text);
}

static const char *on_not_ready(void *arg)
{
	assert_ptr_equal(arg, &at);
	return why_not_ready;
}

/* Other pages and orders; NULL: there are none. */
static unsigned int (*page_op)(void *arg, const char *path, struct http_text *ret);
static unsigned int (*order_op)(void *arg, const char *path, struct http_text *ret);
static struct http_ops ops;

static unsigned int echo(struct http_text *ret, const char *what, const char *path)
{
	char text[256];

	snprintf(text, sizeof(text), "%s %s\n", what, path);
	ret->text = strdup(text);
	ret->length = strlen(text);
	ret->type = strcmp(path, "/page.json") ? NULL : "application/json";
	return 200;
}

static unsigned int on_page(void *arg, const char *path, struct http_text *ret)
{
	static const char fixed[] = "it stays\n";

	assert_ptr_equal(arg, &at);
	if (!strcmp(path, "/page/fixed")) {
		*ret = (struct http_text){ .fixed = fixed,
					   .length = strlen(fixed),
					   .headers = "X-A: b\r\nX-C: d\r\n" };
		return 200;
	}
	return strncmp(path, "/page", 5) != 0 ? 404 : echo(ret, "page", path);
}

static unsigned int on_order(void *arg, const char *path, struct http_text *ret)
{
	assert_ptr_equal(arg, &at);
	return strncmp(path, "/order", 6) != 0 ? 404 : echo(ret, "order", path);
}

/* The port was the kernel's choice. */
static void find_address(void)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	bool found = false;

	assert_non_null(dir);
	while ((entry = readdir(dir))) {
		struct sockaddr_storage ss;
		socklen_t length = sizeof(int);
		int fd = atoi(entry->d_name), listens = 0;

		if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) || !listens)
			continue;
		length = sizeof(ss);
		assert_int_equal(getsockname(fd, (struct sockaddr *)&ss, &length), 0);
		assert_int_equal(endpoint_from_sockaddr((struct sockaddr *)&ss, &at), 0);
		found = true;
	}
	closedir(dir);
	assert_true(found);
}

/* With few places: both ends are in this process. */
static void listen_here(void)
{
	const struct http_address address = { .ip = at };
	struct rlimit all, few;
	struct err e;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &all), 0);
	few = all;
	few.rlim_cur = DESCRIPTORS;
	ops = (struct http_ops){
		.metrics = on_metrics, .not_ready = on_not_ready, .page = page_op, .order = order_op
	};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	if (http_new(base, &address, &ops, &at, &http, &e))
		fail_msg("%s", e.text);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &all), 0);
}

static int start(void **state)
{
	count_files(state);
	metrics_text = "kubelb_up 1\n";
	metrics_made = 0;
	why_not_ready = NULL;
	base = event_base_new();
	assert_non_null(base);
	at = endpoint("127.0.0.1:1");
	at.port = 0;
	listen_here();
	find_address();
	return 0;
}

static int start_with_orders(void **state)
{
	page_op = on_page;
	order_op = on_order;
	return start(state);
}

static int stop(void **state)
{
	http_free(http);
	event_base_free(base);
	page_op = order_op = NULL;
	return check_leftovers(state);
}

/* --- clients --------------------------------------------------------------------------- */

struct client {
	int fd;
	struct event *ev;
	unsigned int reads; /* the end is one as well */
	unsigned int ended;
	bool may_be_reset;
	size_t length;
	char text[16384]; /* all that it was sent */
};

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct client *c = arg;
	ssize_t n = recv(fd, c->text + c->length, sizeof(c->text) - 1 - c->length, 0);

	(void)what;
	if (n < 0 && errno == ECONNRESET && c->may_be_reset && !c->length)
		n = 0;
	/* A reset, say, would be no end of an answer. */
	assert_true(n >= 0);
	c->length += (size_t)n;
	c->text[c->length] = '\0';
	c->reads++;
	if (!n) {
		c->ended = 1;
		event_del(c->ev);
	}
}

static void client_open(struct client *c)
{
	struct sockaddr_storage ss;
	socklen_t length = endpoint_to_sockaddr(&at, &ss);

	memset(c, 0, sizeof(*c));
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(c->fd >= 0);
	assert_int_equal(connect(c->fd, (struct sockaddr *)&ss, length), 0);
	c->ev = event_new(base, c->fd, EV_READ | EV_PERSIST, on_readable, c);
	assert_non_null(c->ev);
	assert_int_equal(event_add(c->ev, NULL), 0);
}

static void client_close(struct client *c)
{
	event_free(c->ev);
	close(c->fd);
}

static void say_bytes(struct client *c, const char *text, size_t n)
{
	assert_int_equal(send(c->fd, text, n, MSG_NOSIGNAL), n);
}

static void say(struct client *c, const char *text)
{
	say_bytes(c, text, strlen(text));
}

/* Until the server has closed the connection. */
static void hear_end(struct client *c)
{
	assert_true(loop_until(base, &c->ended, 1));
}

/* Until that has come. */
static void hear(struct client *c, const char *part)
{
	while (!strstr(c->text, part) && !c->ended)
		assert_true(loop_until(base, &c->reads, c->reads + 1));
	if (!strstr(c->text, part))
		fail_msg("'%s' has no '%s'", c->text, part);
}

static unsigned int count(const struct client *c, const char *part)
{
	unsigned int n = 0;

	for (const char *found = c->text; (found = strstr(found, part)); found++)
		n++;
	return n;
}

static const char *body(const struct client *c)
{
	const char *end = strstr(c->text, "\r\n\r\n");

	assert_non_null(end);
	return end + 4;
}

/* One request on a connection of its own, which ends with the answer. */
static void ask(struct client *c, const char *request)
{
	client_open(c);
	say(c, request);
	hear_end(c);
	client_close(c);
}

static void assert_answer(const struct client *c, const char *status, const char *want)
{
	char line[64];

	snprintf(line, sizeof(line), "HTTP/1.1 %s\r\n", status);
	if (strstr(c->text, line) != c->text)
		fail_msg("not %s: %s", status, c->text);
	assert_string_equal(body(c), want);
	/* Once. */
	assert_int_equal(count(c, "\r\nContent-Length: "), 1);
}

#define END "\r\nConnection: close\r\n\r\n"

/* --- pages ----------------------------------------------------------------------------- */

static void the_pages(void **state)
{
	struct client c;

	(void)state;
	ask(&c, "GET /healthz HTTP/1.1" END);
	assert_answer(&c, "200 OK", "ok\n");
	assert_non_null(strstr(c.text, "\r\nContent-Type: text/plain; charset=utf-8\r\n"));
	assert_non_null(strstr(c.text, "\r\nContent-Length: 3\r\n"));
	assert_non_null(strstr(c.text, " GMT\r\n"));
	ask(&c, "GET /metrics HTTP/1.1" END);
	assert_answer(&c, "200 OK", "kubelb_up 1\n");
	assert_non_null(
		strstr(c.text, "\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
	ask(&c, "GET /metrics?x=y HTTP/1.1" END);
	assert_answer(&c, "200 OK", "kubelb_up 1\n");
	ask(&c, "GET /elsewhere HTTP/1.1" END);
	assert_answer(&c, "404 Not Found",
		      "not found; there are /, /metrics, /healthz, /readyz and /status\n");
}

static void ready_or_why_not(void **state)
{
	struct client c;

	(void)state;
	ask(&c, "GET /readyz HTTP/1.1" END);
	assert_answer(&c, "200 OK", "ok\n");
	why_not_ready = "nothing is attached";
	ask(&c, "GET /readyz HTTP/1.1" END);
	assert_answer(&c, "503 Service Unavailable", "nothing is attached\n");
	/* That is another question. */
	ask(&c, "GET /healthz HTTP/1.1" END);
	assert_answer(&c, "200 OK", "ok\n");
}

static void no_memory_for_metrics(void **state)
{
	struct client c;

	(void)state;
	metrics_text = NULL;
	ask(&c, "GET /metrics HTTP/1.1" END);
	assert_answer(&c, "500 Internal Server Error", "out of memory\n");
}

/* HEAD has a length and nothing of it; what is neither is told what there is. */
static void other_methods(void **state)
{
	struct client c;

	(void)state;
	ask(&c, "HEAD /metrics HTTP/1.1" END);
	assert_answer(&c, "200 OK", "");
	assert_non_null(strstr(c.text, "\r\nContent-Length: 12\r\n"));
	ask(&c, "DELETE /metrics HTTP/1.1" END);
	assert_answer(&c, "405 Method Not Allowed", "only GET\n");
	assert_non_null(strstr(c.text, "\r\nAllow: GET, HEAD\r\n"));
	ask(&c, "POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello");
	assert_answer(&c, "405 Method Not Allowed", "only GET\n");
}

/* GET changes nothing, and POST is no way to read. A body is never read. */
static void pages_and_orders(void **state)
{
	struct client c;

	(void)state;
	ask(&c, "GET /page HTTP/1.1" END);
	assert_answer(&c, "200 OK", "page /page\n");
	ask(&c, "GET /page.json HTTP/1.1" END);
	assert_answer(&c, "200 OK", "page /page.json\n");
	assert_non_null(strstr(c.text, "\r\nContent-Type: application/json\r\n"));
	ask(&c, "GET /order HTTP/1.1" END);
	assert_answer(&c, "404 Not Found",
		      "not found; there are /, /metrics, /healthz, /readyz and /status\n");
	ask(&c, "POST /order/[fd00::1]:6443/x HTTP/1.1" END);
	assert_answer(&c, "200 OK", "order /order/[fd00::1]:6443/x\n");
	ask(&c, "POST /page HTTP/1.1" END);
	assert_answer(&c, "404 Not Found",
		      "not found; there are /, /metrics, /healthz, /readyz and /status\n");
	ask(&c, "POST /order HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello");
	assert_answer(&c, "413 Content Too Large", "a request here has no body\n");
}

/* A page of the program itself, with headers of its own; every answer is what it says it is. */
static void a_page_that_stays(void **state)
{
	struct client c;

	(void)state;
	for (int i = 0; i < 2; i++) {
		ask(&c, "GET /page/fixed HTTP/1.1" END);
		assert_answer(&c, "200 OK", "it stays\n");
		assert_non_null(strstr(c.text, "\r\nX-A: b\r\nX-C: d\r\n"));
		assert_non_null(strstr(c.text, "\r\nContent-Type: text/plain; charset=utf-8\r\n"));
	}
	ask(&c, "HEAD /page/fixed HTTP/1.1" END);
	assert_answer(&c, "200 OK", "");
	assert_non_null(strstr(c.text, "\r\nContent-Length: 9\r\n"));
	assert_int_equal(count(&c, "\r\nX-A: "), 1);
	ask(&c, "GET /page HTTP/1.1" END);
	assert_int_equal(count(&c, "\r\nX-A: "), 0);
	assert_int_equal(count(&c, "\r\nX-Content-Type-Options: nosniff\r\n"), 1);
	ask(&c, "GET /metrics HTTP/1.1" END);
	assert_int_equal(count(&c, "\r\nX-Content-Type-Options: nosniff\r\n"), 1);
}

/* More than a socket takes at once. half: the client has said all that it has to say. */
static void check_large_page(bool half)
{
	char *page = repeat("", "kubelb_up 1\n", 300000, "end\n");
	struct client c;
	size_t length = strlen(page), heard = 0;

	metrics_text = page;
	client_open(&c);
	say(&c, "GET /metrics HTTP/1.1" END);
	if (half)
		assert_int_equal(shutdown(c.fd, SHUT_WR), 0);
	hear(&c, "\r\n\r\n");
	while (!c.ended) {
		heard += c.length;
		c.length = 0;
		assert_true(loop_until(base, &c.reads, c.reads + 1));
	}
	heard += c.length;
	assert_in_range(heard, length + 100, length + 500); /* with the headers */
	client_close(&c);
	free(page);
}

static void a_large_page(void **state)
{
	(void)state;
	check_large_page(false);
	check_large_page(true);
}

/* --- connections ----------------------------------------------------------------------- */

static void a_connection_is_kept(void **state)
{
	struct client c;

	(void)state;
	client_open(&c);
	for (unsigned int i = 0; i < 5; i++) {
		c.length = 0;
		say(&c, "GET /healthz HTTP/1.1\r\n\r\n");
		hear(&c, "\r\n\r\nok\n");
		assert_null(strstr(c.text, "Connection: close"));
		c.text[0] = '\0';
	}
	assert_int_equal(c.ended, 0);
	client_close(&c);
}

static void requests_that_do_not_wait_are_answered_in_order(void **state)
{
	struct client c;

	(void)state;
	client_open(&c);
	say(&c, "GET /healthz HTTP/1.1\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n"
		"GET /none HTTP/1.1" END "GET /healthz HTTP/1.1\r\n\r\n");
	hear_end(&c);
	client_close(&c);
	assert_int_equal(count(&c, "HTTP/1.1 200 OK\r\n"), 2);
	assert_int_equal(count(&c, "HTTP/1.1 404 Not Found\r\n"), 1);
	assert_true(strstr(c.text, "ok\n") < strstr(c.text, "kubelb_up"));
	assert_true(strstr(c.text, "kubelb_up") < strstr(c.text, "404"));
}

static void a_request_comes_in_pieces(void **state)
{
	static const char request[] =
		"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
	struct client c;

	(void)state;
	client_open(&c);
	for (size_t i = 0; i < sizeof(request) - 1; i++) {
		assert_int_equal(c.length, 0);
		say_bytes(&c, request + i, 1);
		assert_true(event_base_loop(base, EVLOOP_ONCE) >= 0);
	}
	hear_end(&c);
	client_close(&c);
	assert_answer(&c, "200 OK", "ok\n");
}

static void old_clients_hear_one_answer(void **state)
{
	struct client c;

	(void)state;
	ask(&c, "GET /healthz HTTP/1.0\r\n\r\n");
	assert_answer(&c, "200 OK", "ok\n");
	assert_non_null(strstr(c.text, "\r\nConnection: close\r\n"));
}

/* It has said all that it has to say, and listens. */
static void a_client_that_has_closed_its_side(void **state)
{
	struct client c;

	(void)state;
	client_open(&c);
	say(&c, "GET /healthz HTTP/1.1\r\n\r\n");
	assert_int_equal(shutdown(c.fd, SHUT_WR), 0);
	hear_end(&c);
	client_close(&c);
	assert_answer(&c, "200 OK", "ok\n");
}

/*
 * A flood of requests does not make the metrics a flood of times, and those that are made in a row
 * are new.
 */
static void metrics_are_shared_under_a_flood(void **state)
{
	struct client c;

	(void)state;
	client_open(&c);
	for (unsigned int i = 0; i < 100; i++) {
		c.length = 0;
		metrics_text = i ? "kubelb_up 2\n" : "kubelb_up 1\n";
		say(&c, "GET /metrics HTTP/1.1\r\n\r\n");
		hear(&c, "kubelb_up");
		if (i < 2)
			assert_string_equal(body(&c), metrics_text);
		c.text[0] = '\0';
	}
	client_close(&c);
	/* Each takes a turn of 5 ms at least. */
	assert_in_range(metrics_made, 2, 90);
}

/* Idle ones never keep anybody out: the one that has been at it for longest goes. */
static void too_many_connections(void **state)
{
	static struct client list[CONNECTIONS_MAX + 2];

	(void)state;
	for (unsigned int i = 0; i < CONNECTIONS_MAX; i++) {
		client_open(&list[i]);
		say(&list[i], "GET /healthz HTTP/1.1\r\n\r\n");
		hear(&list[i], "ok\n");
	}
	/* The first begins another request after all others: it is the second's turn. */
	list[0].length = 0;
	say(&list[0], "GET /metrics HTTP/1.1\r\n\r\n");
	hear(&list[0], "kubelb_up");
	for (unsigned int i = CONNECTIONS_MAX; i < CONNECTIONS_MAX + 2; i++) {
		client_open(&list[i]);
		say(&list[i], "GET /healthz HTTP/1.1\r\n\r\n");
		hear(&list[i], "ok\n");
	}
	hear_end(&list[1]);
	hear_end(&list[2]);
	for (unsigned int i = 0; i < CONNECTIONS_MAX + 2; i++) {
		assert_int_equal(list[i].ended, i == 1 || i == 2);
		client_close(&list[i]);
	}
}

/* Their owner has more of them than there are places: the last ones have to come again. */
static void requests_are_not_pushed_out(void **state)
{
	static struct client list[CONNECTIONS_MAX + 8];
	unsigned int refused = 0;

	(void)state;
	for (unsigned int i = 0; i < ARRAY_SIZE(list); i++) {
		client_open(&list[i]);
		list[i].may_be_reset = true;
		say(&list[i], "GET /healthz HTTP/1.1" END);
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(list); i++) {
		hear_end(&list[i]);
		client_close(&list[i]);
		if (list[i].length)
			assert_answer(&list[i], "200 OK", "ok\n");
		refused += !list[i].length;
	}
	assert_int_equal(refused, 8);
}

static void its_end_is_the_end_of_all(void **state)
{
	struct client idle, half;

	(void)state;
	client_open(&idle);
	client_open(&half);
	say(&idle, "GET /healthz HTTP/1.1\r\n\r\n");
	hear(&idle, "ok\n");
	say(&half, "GET /heal");
	assert_true(event_base_loop(base, EVLOOP_NONBLOCK) >= 0);
	http_free(http);
	http = NULL;
	hear_end(&idle);
	client_close(&idle);
	client_close(&half);
}

/* --- what is refused ------------------------------------------------------------------- */

static void what_is_no_request(void **state)
{
	static const struct {
		const char *text, *status, *says;
	} cases[] = {
		{ "\x16\x03\x01\x02", "400 Bad Request", "this is not an HTTP request\n" },
		{ "GET\r\n\r\n", "400 Bad Request", "this is not an HTTP request\n" },
		{ "GET /healthz HTTP/1.1\r\nA : b\r\n\r\n", "400 Bad Request",
		  "this is not an HTTP request\n" },
		{ "GET /healthz HTTP/2.0\r\n\r\n", "505 HTTP Version Not Supported",
		  "only HTTP/1.1 and HTTP/1.0\n" },
		{ "GET /healthz HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
		  "413 Content Too Large", "a request here has no body\n" },
		{ "GET /healthz HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
		  "413 Content Too Large", "a request here has no body\n" },
	};
	struct client c;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		ask(&c, cases[i].text);
		assert_answer(&c, cases[i].status, cases[i].says);
		assert_non_null(strstr(c.text, "\r\nConnection: close\r\n"));
	}
}

/* With its end or without; and the answer is heard by who still talks. */
static void a_request_that_is_too_long(void **state)
{
	static const char *const tails[] = { "", "\r\n\r\n" };
	struct client c;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(tails); i++) {
		char *text = repeat("GET /healthz HTTP/1.1\r\nA: ", "b", 30000, tails[i]);

		ask(&c, text);
		assert_answer(&c, "431 Request Header Fields Too Large",
			      "the request and its headers are longer than 8 KiB\n");
		free(text);
	}
}

static void the_longest_request(void **state)
{
	static const char head[] = "GET /healthz HTTP/1.1\r\nConnection: close\r\nA: ";
	char *text = repeat(head, "b", 8192 - (sizeof(head) - 1) - 4, "\r\n\r\n");
	struct client c;

	(void)state;
	assert_int_equal(strlen(text), 8192);
	ask(&c, text);
	assert_answer(&c, "200 OK", "ok\n");
	free(text);
}

/* --- listening ------------------------------------------------------------------------- */

static void an_address_that_is_taken(void **state)
{
	struct http *second = NULL;
	struct err e = { "" };
	char want[128], text[ENDPOINT_TEXT_MAX];

	(void)state;
	assert_int_equal(http_new(base, &(struct http_address){ .ip = at }, &ops, &at, &second, &e),
			 -EADDRINUSE);
	assert_null(second);
	snprintf(want, sizeof(want), "http: cannot listen on %s: %s", endpoint_format(&at, text),
		 strerror(EADDRINUSE));
	assert_string_equal(e.text, want);
	at = endpoint("192.0.2.1:8081");
	assert_int_equal(http_new(base, &(struct http_address){ .ip = at }, &ops, &at, &second, &e),
			 -EADDRNOTAVAIL);
	assert_null(second);
	http_free(NULL);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_pages),
		TEST(ready_or_why_not),
		TEST(no_memory_for_metrics),
		TEST(other_methods),
		cmocka_unit_test_setup_teardown(pages_and_orders, start_with_orders, stop),
		cmocka_unit_test_setup_teardown(a_page_that_stays, start_with_orders, stop),
		TEST(a_large_page),
		TEST(a_connection_is_kept),
		TEST(requests_that_do_not_wait_are_answered_in_order),
		TEST(a_request_comes_in_pieces),
		TEST(old_clients_hear_one_answer),
		TEST(a_client_that_has_closed_its_side),
		TEST(metrics_are_shared_under_a_flood),
		TEST(too_many_connections),
		TEST(requests_are_not_pushed_out),
		TEST(its_end_is_the_end_of_all),
		TEST(what_is_no_request),
		TEST(a_request_that_is_too_long),
		TEST(the_longest_request),
		TEST(an_address_that_is_taken),
	};

	return cmocka_run_group_tests_name("http_server", tests, NULL, NULL);
}
