/* SPDX-License-Identifier: BSD-2-Clause */
/* The probes against real TLS servers whose behaviour the tests set (tls_server.h). */
#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/event.h>

#include "net/endpoint.h"
#include "pki.h"
#include "prober.h"
#include "tls_server.h"
#include "unit.h"

#define TIMEOUT_SHORT_MS 300
/* For probes that are to time out after a handshake, also on a busy machine. */
#define TIMEOUT_TLS_MS 1000

/*
 * Outcomes
 */

static void test_statuses(void **state)
{
	static const struct {
		const char *answer;
		enum klb_reason outcome;
		unsigned int status;
	} cases[] = {
		{ OK_ANSWER, KLB_REASON_OK, 200 },
		{ "HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno", KLB_REASON_NOT_READY, 500 },
		{ "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", KLB_REASON_NOT_READY, 503 },
		{ "HTTP/1.1 204 No\r\n\r\n", KLB_REASON_NOT_READY, 204 },
		{ "HTTP/1.1 301 No\r\nContent-Length: 0\r\n\r\n", KLB_REASON_NOT_READY, 301 },
		{ "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", KLB_REASON_UNAUTHORIZED, 403 },
		{ "HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", KLB_REASON_UNAUTHORIZED, 401 },
		{ "\x01\x02 garbage\r\n\r\n", KLB_REASON_PROTOCOL, 0 },
		{ "SSH-2.0-OpenSSH_9.2\r\n", KLB_REASON_PROTOCOL, 0 },
	};
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		struct prober p = { 0 };

		expect_outcome(&p, &(struct script){ .answer = cases[i].answer }, cases[i].outcome,
			       cases[i].status);
		assert_true(p.result.handshake);
		assert_true(p.result.duration_ns > 0);
		assert_true(p.result.duration_ns < TIMEOUT_LONG_MS * 1000000ULL);
	}
}

/* 401 and 403 say what to do next, unless the configuration expects them. */
static void test_refusals_are_explained(void **state)
{
	static const struct {
		unsigned int status;
		bool certificate, anonymous;
		const char *says;
	} cases[] = {
		{ 401, false, true, "401: it answers no anonymous probe; set probe.clientCert" },
		{ 401, false, true, "or probe.anonymousAuth: false" },
		{ 403, false, true, "403: anonymous probes may not get probe.path" },
		{ 403, false, true, "or probe.anonymousAuth: false" },
		{ 401, true, true, "401: probe.clientCert is not accepted" },
		{ 403, true, true, "403: the user of probe.clientCert may not get probe.path" },
		{ 401, false, false, NULL },
		{ 403, false, false, NULL },
		{ 503, false, true, NULL },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct prober p = { .cfg = { .anonymous_auth = cases[i].anonymous } };
		char answer[64];

		if (cases[i].certificate) {
			p.cfg.client_cert = pki.client_cert;
			p.cfg.client_key = pki.client_key;
		}
		snprintf(answer, sizeof(answer), "HTTP/1.1 %u No\r\nContent-Length: 0\r\n\r\n",
			 cases[i].status);
		expect_outcome(&p, &(struct script){ .answer = answer },
			       cases[i].status == 503 ? KLB_REASON_NOT_READY
						      : KLB_REASON_UNAUTHORIZED,
			       cases[i].status);
		assert_int_equal(!p.detail[0], !cases[i].says);
		if (cases[i].says)
			assert_non_null(strstr(p.detail, cases[i].says));
	}
}

static void test_connect_failures(void **state)
{
	struct klb_endpoint at;
	struct prober p = { 0 };
	int fd = bind_loopback(false, &at);

	(void)state;
	/* Bound, so that nobody else can have the port, and not listening. */
	assert_true(fd >= 0);
	prober_open(&p, &at);
	prober_once(&p);
	assert_outcome(&p, KLB_REASON_REFUSED, 0);
	assert_says(p.detail, "refused");
	assert_false(p.result.handshake);
	/* Nothing of the failure stays. */
	prober_once(&p);
	assert_outcome(&p, KLB_REASON_REFUSED, 0);
	prober_close(&p);
	close(fd);

	/* TCP to a broadcast address fails inside connect(2): done() must wait for the loop. */
	memset(&p, 0, sizeof(p));
	at = endpoint("255.255.255.255:6443");
	prober_open(&p, &at);
	prober_start(&p);
	assert_int_equal(p.done, 0);
	prober_start(&p); /* under way: ignored */
	prober_run(&p, &p.done, 1);
	assert_outcome(&p, KLB_REASON_UNREACHABLE, 0);
	prober_once(&p);
	prober_start(&p);
	prober_close(&p); /* and never if the prober is gone */
	assert_int_equal(p.done, 2);
}

static void assert_took(const struct prober *p, unsigned int ms)
{
	/* libevent's time is that of the loop's turn, which began before the probe did. */
	assert_in_range(p->result.duration_ns, (ms - 100) * 1000000ULL, PATIENCE_S * 1000000000ULL);
}

static void test_connect_timeout(void **state)
{
	struct klb_endpoint at;
	struct sockaddr_storage ss;
	struct prober p = { .cfg.timeout_ms = TIMEOUT_SHORT_MS };
	socklen_t length;
	int fd = bind_loopback(false, &at), filler;

	(void)state;
	/* A full accept queue drops the next SYN. */
	assert_true(fd >= 0);
	assert_int_equal(listen(fd, 0), 0);
	length = endpoint_to_sockaddr(&at, &ss);
	filler = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(filler, (struct sockaddr *)&ss, length), 0);

	prober_open(&p, &at);
	prober_once(&p);
	assert_outcome(&p, KLB_REASON_CONNECT_TIMEOUT, 0);
	assert_took(&p, TIMEOUT_SHORT_MS);
	prober_start(&p);
	prober_close(&p); /* while dialling */
	assert_int_equal(p.done, 1);
	close(filler);
	close(fd);
}

static void test_no_answer(void **state)
{
	struct prober mute = { .cfg.timeout_ms = TIMEOUT_SHORT_MS };
	struct prober tls = { .cfg.timeout_ms = TIMEOUT_TLS_MS };
	struct prober half = { .cfg.timeout_ms = TIMEOUT_TLS_MS };

	(void)state;
	expect_outcome(&mute, &(struct script){ .manner = MANNER_MUTE }, KLB_REASON_NO_ANSWER, 0);
	assert_took(&mute, TIMEOUT_SHORT_MS);
	assert_says(mute.detail, "handshake");
	assert_false(mute.result.handshake);
	expect_outcome(&tls, &(struct script){ .manner = MANNER_MUTE_TLS }, KLB_REASON_NO_ANSWER,
		       0);
	assert_took(&tls, TIMEOUT_TLS_MS);
	assert_true(tls.result.handshake);
	expect_outcome(
		&half,
		&(struct script){ .answer = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok" },
		KLB_REASON_NO_ANSWER, 0);
}

/* A handshake is due: its owner waits for that as for the answer to a PING. */
static void test_ping_while_a_connection_is_made(void **state)
{
	struct prober p = { .cfg.timeout_ms = TIMEOUT_SHORT_MS };
	struct tls_server s;

	(void)state;
	prober_begin(&p, &s, &(struct script){ .manner = MANNER_MUTE });
	prober_start(&p);
	assert_int_equal(probe_ping(p.probe), -EINPROGRESS);
	while (!tls_server_count(&s, ACCEPTED)) {
		event_base_loop(p.base, EVLOOP_NONBLOCK);
		assert_int_equal(probe_ping(p.probe), -EINPROGRESS);
	}
	prober_run(&p, &p.done, 1);
	assert_int_equal(probe_ping(p.probe), -EAGAIN);
	prober_end(&p, &s);
}

/* An answer that comes late must not become the next probe's. */
static void test_timeout_drops_connection(void **state)
{
	struct prober p = { .cfg.timeout_ms = TIMEOUT_TLS_MS };
	struct tls_server s;

	(void)state;
	prober_begin(&p, &s, &(struct script){ .manner = MANNER_MUTE_TLS });
	prober_once(&p);
	prober_once(&p);
	assert_int_equal(tls_server_count(&s, HANDSHAKES), 2);
	tls_server_await(&s, ENDED, 2);
	prober_end(&p, &s);
	assert_int_equal(p.lost, 0);
}

static void test_closed(void **state)
{
	static const struct script scripts[] = {
		{ .manner = MANNER_HANG_UP },
		{ .manner = MANNER_HANG_UP, .abrupt = true },
		{ .manner = MANNER_RESET },
		{ .manner = MANNER_HANG_UP_AT_ONCE },
		{ .answer = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", .answers = 1 },
	};
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(scripts); i++) {
		struct prober p = { 0 };

		expect_outcome(&p, &scripts[i], KLB_REASON_CLOSED, 0);
		assert_says(p.detail, "connection");
	}
}

static void test_ipv6(void **state)
{
	struct prober p = { 0 };
	struct tls_server s;

	(void)state;
	if (!tls_server_start(&s, &(struct script){ .answer = OK_ANSWER, .ipv6 = true }))
		skip();
	prober_open(&p, &s.at);
	prober_once(&p);
	assert_outcome(&p, KLB_REASON_OK, 200);
	prober_close(&p);
	assert_non_null(strstr(s.request, "Host: [::1]:"));
	tls_server_stop(&s);
}

/*
 * What goes over the wire
 */

static void test_request(void **state)
{
	static const char *const names[] = { NULL, "kubernetes.test", "10.96.0.1" };
	char line[128];
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(names); i++) {
		struct prober p = { .cfg = { .path = (char *)"/readyz?verbose",
					     .server_name = (char *)names[i] } };
		struct tls_server s;

		prober_begin(&p, &s, &(struct script){ .answer = OK_ANSWER });
		prober_once(&p);
		assert_outcome(&p, KLB_REASON_OK, 200);
		prober_end(&p, &s);
		assert_ptr_equal(strstr(s.request, "GET /readyz?verbose HTTP/1.1\r\n"), s.request);
		snprintf(line, sizeof(line), "\r\nHost: %s:%u\r\n",
			 names[i] ? names[i] : "127.0.0.1", s.at.port);
		assert_non_null(strstr(s.request, line));
		assert_non_null(strstr(s.request, "\r\nUser-Agent: kubelb-agent/"));
		assert_non_null(strstr(s.request, "\r\nConnection: keep-alive\r\n"));
		/* No addresses in SNI. */
		assert_string_equal(s.sni, i == 1 ? "kubernetes.test" : "");
	}
}

static int socket_option(int level, int name)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	int value, found = -1;

	assert_non_null(dir);
	while (found < 0 && (entry = readdir(dir))) {
		socklen_t length = sizeof(value);
		struct sockaddr_storage ss;
		socklen_t peer = sizeof(ss);
		int fd = (int)strtol(entry->d_name, NULL, 10);

		/* The client's socket is the one that has a user timeout. */
		if (getpeername(fd, (struct sockaddr *)&ss, &peer) != 0 ||
		    getsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &value, &length) != 0 || !value)
			continue;
		length = sizeof(value);
		assert_int_equal(getsockopt(fd, level, name, &value, &length), 0);
		assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
		assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
		found = value;
	}
	closedir(dir);
	return found;
}

static void test_socket_options(void **state)
{
	struct prober p = { 0 };
	struct tls_server s;

	(void)state;
	prober_begin(&p, &s, &(struct script){ .answer = OK_ANSWER });
	prober_once(&p);
	assert_int_equal(socket_option(IPPROTO_TCP, TCP_NODELAY), 1);
	assert_int_equal(socket_option(SOL_SOCKET, SO_KEEPALIVE), 1);
	assert_int_equal(socket_option(IPPROTO_TCP, TCP_KEEPIDLE), 1);
	assert_int_equal(socket_option(IPPROTO_TCP, TCP_KEEPINTVL), 1);
	assert_int_equal(socket_option(IPPROTO_TCP, TCP_KEEPCNT), 2);
	assert_int_equal(socket_option(IPPROTO_TCP, TCP_USER_TIMEOUT), 2000);
	prober_end(&p, &s);
}

/*
 * The kept connection
 */

static void check_keep_alive(const char *answer)
{
	struct prober p = { 0 };
	struct tls_server s;
	unsigned int i;

	prober_begin(&p, &s, &(struct script){ .answer = answer });
	for (i = 0; i < 50; i++) {
		prober_once(&p);
		assert_outcome(&p, KLB_REASON_OK, 200);
		assert_int_equal(p.result.handshake, i == 0);
	}
	assert_int_equal(tls_server_count(&s, ACCEPTED), 1);
	assert_int_equal(tls_server_count(&s, HANDSHAKES), 1);
	assert_int_equal(tls_server_count(&s, REQUESTS), 50);
	assert_int_equal(p.lost, 0);
	prober_close(&p);
	tls_server_await(&s, ENDED, 1);
	tls_server_stop(&s);
}

static void test_keep_alive(void **state)
{
	(void)state;
	check_keep_alive(OK_ANSWER);
	check_keep_alive("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
			 "2\r\nok\r\n0\r\n\r\n");
	check_keep_alive("HTTP/1.1 100 Continue\r\n\r\n" OK_ANSWER);
}

/* An answer other than 200 leaves no doubt about the connection. */
static void test_keep_alive_not_ready(void **state)
{
	struct prober p = { 0 };
	struct tls_server s;

	(void)state;
	prober_begin(
		&p, &s,
		&(struct script){ .answer = "HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno" });
	prober_once(&p);
	prober_once(&p);
	assert_outcome(&p, KLB_REASON_NOT_READY, 500);
	assert_int_equal(tls_server_count(&s, HANDSHAKES), 1);
	prober_end(&p, &s);
}

static void fill(char *answer, size_t size, const char *head)
{
	memset(answer, 'x', size);
	snprintf(answer, size, "%s", head);
}

/* Answers after which the connection is closed by us: not lost, and made anew. */
static void test_not_kept(void **state)
{
	static char huge[300 * 1024];
	static char no_length[100 * 1024];
	const struct {
		const char *answer;
		size_t length;
	} cases[] = {
		{ "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", 0 },
		{ "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 0 },
		{ OK_ANSWER OK_ANSWER, 0 },
		{ huge, sizeof(huge) },
		{ no_length, sizeof(no_length) },
	};
	size_t i;

	(void)state;
	fill(huge, sizeof(huge), "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
	fill(no_length, sizeof(no_length), "HTTP/1.1 200 OK\r\n\r\n");
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		struct prober p = { 0 };
		struct tls_server s;

		prober_begin(&p, &s,
			     &(struct script){ .answer = cases[i].answer,
					       .answer_length = cases[i].length });
		prober_once(&p);
		assert_outcome(&p, KLB_REASON_OK, 200);
		prober_once(&p);
		assert_outcome(&p, KLB_REASON_OK, 200);
		assert_true(p.result.handshake);
		tls_server_await(&s, ENDED, 2);
		assert_int_equal(tls_server_count(&s, HANDSHAKES), 2);
		prober_end(&p, &s);
		assert_int_equal(p.lost, 0);
	}
}

static void test_endless_headers(void **state)
{
	static char headers[100 * 1024];
	struct prober p = { 0 };
	size_t at;

	(void)state;
	at = (size_t)sprintf(headers, "HTTP/1.1 200 OK\r\n");
	while (at < sizeof(headers) - 16)
		at += (size_t)sprintf(headers + at, "X: yyyyy\r\n");
	expect_outcome(&p, &(struct script){ .answer = headers, .answer_length = at },
		       KLB_REASON_PROTOCOL, 0);
}

static void test_lost(void **state)
{
	struct prober p = { 0 };
	struct tls_server s;

	(void)state;
	prober_begin(&p, &s, &(struct script){ .answer = OK_ANSWER, .answers = 2 });
	prober_once(&p);
	assert_int_equal(p.lost, 0);
	prober_once(&p);
	prober_run(&p, &p.lost, 1);
	/* Once: nothing is left in the loop that could report it again. */
	assert_int_equal(event_base_loop(p.base, EVLOOP_NONBLOCK), 1);
	prober_once(&p);
	assert_outcome(&p, KLB_REASON_OK, 200);
	assert_true(p.result.handshake);
	prober_once(&p);
	prober_run(&p, &p.lost, 2);
	assert_int_equal(p.done, 4);
	prober_end(&p, &s);
	assert_int_equal(p.lost, 2);
}

static void test_unasked(void **state)
{
	struct prober p = { 0 };
	struct tls_server s;

	(void)state;
	prober_begin(&p, &s, &(struct script){ .manner = MANNER_TALK, .answer = OK_ANSWER });
	prober_once(&p);
	assert_outcome(&p, KLB_REASON_OK, 200);
	signal_event(s.go);
	prober_run(&p, &p.lost, 1);
	tls_server_await(&s, ENDED, 1);
	prober_end(&p, &s);
	assert_int_equal(p.done, 1);
	assert_int_equal(p.lost, 1);
}

/* A connection that is given up for a new one may still say anything. */
static void test_garbage_on_the_one_that_is_left(void **state)
{
	const struct script script = { .manner = MANNER_LATE_GARBAGE, .answer = OK_ANSWER };
	struct prober p = { 0 };
	struct tls_server s;

	(void)state;
	prober_begin(&p, &s, &script);
	prober_once(&p);
	assert_int_equal(probe_ping(p.probe), 0);
	while (tls_server_count(&s, REQUESTS) < 2)
		event_base_loop(p.base, EVLOOP_NONBLOCK);
	probe_renew(p.probe);
	signal_event(s.go);
	while (!tls_server_count(&s, ENDED))
		event_base_loop(p.base, EVLOOP_NONBLOCK);
	assert_int_equal(p.lost, 0);
	prober_end(&p, &s);
}

/* Tickets and key updates are no data: without a limit no call into OpenSSL would end. */
static void test_endless_messages(void **state)
{
	static const enum manner manners[] = { MANNER_TICKETS_FIRST, MANNER_KEY_UPDATES };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(manners); i++) {
		struct prober p = { 0 };

		expect_outcome(&p, &(struct script){ .manner = manners[i] }, KLB_REASON_PROTOCOL,
			       0);
		assert_says(p.detail, "the backend sends too many TLS handshake messages");
	}
}

/* One that has answered has nothing to say about TLS. The next probe says what it did. */
static void test_unasked_messages(void **state)
{
	const struct script script = { .manner = MANNER_TICKETS, .answer = OK_ANSWER };
	struct prober p = { 0 };
	struct tls_server s;

	(void)state;
	prober_begin(&p, &s, &script);
	prober_once(&p);
	assert_outcome(&p, KLB_REASON_OK, 200);
	signal_event(s.go);
	prober_run(&p, &p.lost, 1);
	prober_once(&p);
	assert_outcome(&p, KLB_REASON_PROTOCOL, 0);
	assert_says(p.detail, "sends TLS handshake messages although nothing is due");
	/* Without a connection of its own; the one after it tries again. */
	assert_int_equal(tls_server_count(&s, ACCEPTED), 1);
	prober_once(&p);
	assert_outcome(&p, KLB_REASON_OK, 200);
	prober_end(&p, &s);
}

static void test_lost_then_start(void **state)
{
	struct prober p = { .hook = HOOK_START_IN_LOST };
	struct tls_server s;

	(void)state;
	prober_begin(&p, &s, &(struct script){ .answer = OK_ANSWER, .answers = 1 });
	prober_start(&p);
	prober_run(&p, &p.done, 3);
	assert_outcome(&p, KLB_REASON_OK, 200);
	assert_true(p.lost >= 2);
	prober_end(&p, &s);
}

/* The connection had ended before the request was sent: asked again on a new one. */
static void check_stale(bool abrupt)
{
	struct prober p = { 0 };
	struct tls_server s;

	prober_begin(&p, &s,
		     &(struct script){ .answer = OK_ANSWER, .answers = 1, .abrupt = abrupt });
	prober_once(&p);
	assert_int_equal(p.lost, 0);
	tls_server_await(&s, ENDED, 1);
	/* The loop has not run since: the prober cannot know. */
	prober_once(&p);
	assert_outcome(&p, KLB_REASON_OK, 200);
	assert_true(p.result.handshake);
	assert_int_equal(tls_server_count(&s, HANDSHAKES), 2);
	assert_int_equal(p.lost, 0);
	assert_int_equal(p.done, 2);
	assert_string_equal(p.detail, "");
	prober_end(&p, &s);
}

static void test_stale(void **state)
{
	unsigned int i;

	(void)state;
	for (i = 0; i < 10; i++)
		check_stale(i % 2);
}

static void test_stale_once(void **state)
{
	struct prober p = { 0 };
	struct tls_server s;

	(void)state;
	prober_begin(&p, &s,
		     &(struct script){ .answer = OK_ANSWER, .answers = 1, .hang_up_later = true });
	prober_once(&p);
	tls_server_await(&s, ENDED, 1);
	prober_once(&p);
	assert_outcome(&p, KLB_REASON_CLOSED, 0);
	assert_int_equal(tls_server_count(&s, HANDSHAKES), 2);
	prober_end(&p, &s);
	assert_int_equal(p.lost, 0);
}

/*
 * Callbacks that call back
 */

static void test_free_in_done(void **state)
{
	struct prober kept = { .hook = HOOK_FREE_IN_DONE };
	struct prober closed = { .hook = HOOK_FREE_IN_DONE };
	struct prober late = { .hook = HOOK_FREE_IN_DONE, .cfg.timeout_ms = TIMEOUT_SHORT_MS };

	(void)state;
	expect_outcome(&kept, &(struct script){ .answer = OK_ANSWER }, KLB_REASON_OK, 200);
	expect_outcome(&closed, &(struct script){ .manner = MANNER_HANG_UP }, KLB_REASON_CLOSED, 0);
	assert_says(closed.detail, "closed");
	expect_outcome(&late, &(struct script){ .manner = MANNER_MUTE }, KLB_REASON_NO_ANSWER, 0);
	assert_says(late.detail, "within");
}

static void test_free_in_done_deferred(void **state)
{
	struct prober p = { .hook = HOOK_FREE_IN_DONE };
	struct klb_endpoint at = endpoint("255.255.255.255:6443");

	(void)state;
	prober_open(&p, &at);
	prober_once(&p);
	assert_null(p.probe);
	prober_close(&p);
}

static void test_free_in_lost(void **state)
{
	struct prober p = { .hook = HOOK_FREE_IN_LOST };
	struct tls_server s;

	(void)state;
	prober_begin(&p, &s, &(struct script){ .answer = OK_ANSWER, .answers = 1 });
	prober_once(&p);
	prober_run(&p, &p.lost, 1);
	assert_null(p.probe);
	prober_end(&p, &s);
}

static void test_free_in_not_covered(void **state)
{
	struct klb_endpoint want[] = { endpoint("10.0.0.9:443"), endpoint("10.0.0.10:443") };
	struct prober p = { .hook = HOOK_FREE_IN_NOT_COVERED };
	struct tls_server s;

	(void)state;
	assert_true(tls_server_start(&s, &(struct script){ .answer = OK_ANSWER }));
	prober_open_covering(&p, &s.at, want, ARRAY_SIZE(want));
	prober_start(&p);
	prober_run(&p, &p.uncovered, 1);
	assert_null(p.probe);
	tls_server_await(&s, ACCEPTED, 1);
	prober_end(&p, &s);
	assert_int_equal(p.done, 0);
	assert_int_equal(p.uncovered, 1);
}

static void test_start_in_done(void **state)
{
	struct prober kept = { .hook = HOOK_START_IN_DONE, .starts_left = 20 };
	struct prober refused = { .hook = HOOK_START_IN_DONE, .starts_left = 5 };
	struct klb_endpoint at = endpoint("255.255.255.255:6443");
	struct tls_server s;

	(void)state;
	prober_begin(&kept, &s, &(struct script){ .answer = OK_ANSWER });
	prober_start(&kept);
	prober_run(&kept, &kept.done, 21);
	assert_outcome(&kept, KLB_REASON_OK, 200);
	assert_int_equal(tls_server_count(&s, HANDSHAKES), 1);
	prober_end(&kept, &s);

	prober_open(&refused, &at);
	prober_start(&refused);
	prober_run(&refused, &refused.done, 6);
	assert_outcome(&refused, KLB_REASON_UNREACHABLE, 0);
	assert_says(refused.detail, "connect: ");
	prober_close(&refused);
}

/* Frees the prober at every step of the event loop that a probe takes. */
static void test_free_at_any_time(void **state)
{
	struct tls_server s;
	unsigned int steps, n;

	(void)state;
	assert_true(tls_server_start(&s, &(struct script){ .answer = OK_ANSWER }));
	for (n = 0;; n++) {
		struct prober p = { 0 };

		prober_open(&p, &s.at);
		prober_start(&p);
		for (steps = 0; steps < n && !p.done; steps++)
			event_base_loop(p.base, EVLOOP_ONCE);
		prober_free(&p);
		event_base_loop(p.base, EVLOOP_NONBLOCK);
		prober_close(&p);
		if (p.done)
			break;
		assert_true(n < 1000);
	}
	assert_true(n > 2);
	tls_server_stop(&s);
}

/*
 * Set-up
 */

/* A probe outlives the configuration that it was made from. */
static void test_configuration_goes(void **state)
{
	char path[] = "/readyz", name[] = "kubernetes.test";
	struct prober p = { .cfg = { .path = path, .server_name = name } };
	struct tls_server s;

	(void)state;
	prober_begin(&p, &s, &(struct script){ .answer = OK_ANSWER, .answers = 1 });
	memset(path, 'x', strlen(path));
	memset(name, 'x', strlen(name));
	p.cfg.timeout_ms = 0;
	prober_once(&p);
	assert_outcome(&p, KLB_REASON_OK, 200);
	prober_end(&p, &s);
}

static void test_bad_text(void **state)
{
	static const struct {
		const char *path, *name, *key;
	} cases[] = {
		{ "readyz", NULL, "probe.path" },    { "", NULL, "probe.path" },
		{ "/a b", NULL, "probe.path" },	     { "/a\r\nX: y", NULL, "probe.path" },
		{ "/\xc3\xa4", NULL, "probe.path" }, { "/", "a\r\nX: y", "probe.serverName" },
	};
	struct event_base *base = event_base_new();
	struct klb_endpoint at = endpoint("127.0.0.1:6443");
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		struct config_probe cfg = { .path = (char *)cases[i].path,
					    .timeout_ms = 1000,
					    .server_name = (char *)cases[i].name };
		struct probe_tls *tls;
		struct probe *p = NULL;
		struct err e;

		assert_int_equal(probe_tls_new(&cfg, &tls, &e), 0);
		assert_int_equal(
			probe_new(base, &cfg, tls, &at, NULL, 0, &prober_ops, NULL, &p, &e),
			-EINVAL);
		assert_null(p);
		assert_ptr_equal(strstr(e.text, cases[i].key), e.text);
		probe_tls_free(tls);
	}
	event_base_free(base);
}

/* The next descriptor is one too many: that says nothing about the backend. */
static void test_without_descriptors(void **state)
{
	struct rlimit before, none;
	struct tls_server s;
	struct prober p = { 0 };
	int next;

	(void)state;
	prober_begin(&p, &s, &(struct script){ .answer = OK_ANSWER });
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	next = dup(0);
	close(next);
	none = before;
	none.rlim_cur = (rlim_t)next;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	prober_once(&p);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_true(p.result.unable);
	assert_says(p.detail, "connect: too many open files");
	prober_once(&p);
	assert_false(p.result.unable);
	assert_outcome(&p, KLB_REASON_OK, 200);
	prober_end(&p, &s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		LEAVES_NOTHING(test_statuses),
		LEAVES_NOTHING(test_refusals_are_explained),
		LEAVES_NOTHING(test_connect_failures),
		LEAVES_NOTHING(test_connect_timeout),
		LEAVES_NOTHING(test_no_answer),
		LEAVES_NOTHING(test_ping_while_a_connection_is_made),
		LEAVES_NOTHING(test_timeout_drops_connection),
		LEAVES_NOTHING(test_closed),
		LEAVES_NOTHING(test_ipv6),
		LEAVES_NOTHING(test_request),
		LEAVES_NOTHING(test_socket_options),
		LEAVES_NOTHING(test_keep_alive),
		LEAVES_NOTHING(test_keep_alive_not_ready),
		LEAVES_NOTHING(test_not_kept),
		LEAVES_NOTHING(test_endless_headers),
		LEAVES_NOTHING(test_lost),
		LEAVES_NOTHING(test_unasked),
		LEAVES_NOTHING(test_garbage_on_the_one_that_is_left),
		LEAVES_NOTHING(test_endless_messages),
		LEAVES_NOTHING(test_unasked_messages),
		LEAVES_NOTHING(test_lost_then_start),
		LEAVES_NOTHING(test_stale),
		LEAVES_NOTHING(test_stale_once),
		LEAVES_NOTHING(test_free_in_done),
		LEAVES_NOTHING(test_free_in_done_deferred),
		LEAVES_NOTHING(test_free_in_lost),
		LEAVES_NOTHING(test_free_in_not_covered),
		LEAVES_NOTHING(test_start_in_done),
		LEAVES_NOTHING(test_free_at_any_time),
		LEAVES_NOTHING(test_configuration_goes),
		LEAVES_NOTHING(test_bad_text),
		LEAVES_NOTHING(test_without_descriptors),
	};

	/* SIGPIPE is not ignored here: that it ends nothing is the probe room's affair. */
	return cmocka_run_group_tests(tests, pki_make, pki_remove);
}
