/* SPDX-License-Identifier: BSD-2-Clause */
/* The probes against real TLS servers with scripted manners (tls_server.h). */
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/event.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include "net/endpoint.h"
#include "pki.h"
#include "prober.h"
#include "tls_server.h"
#include "unit.h"

#define TIMEOUT_SHORT_MS 300
/* For probes that are to time out after a handshake, also on a busy machine. */
#define TIMEOUT_TLS_MS 1000

/*
 * The answer reader
 */

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
	/* libevent's clock is a coarse one: it may be behind by a tick of the kernel's. */
	assert_in_range(p->result.duration_ns, (ms - 20) * 1000000ULL, PATIENCE_S * 1000000000ULL);
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

/* An answer that comes late must not become the next probe's. */
static void test_timeout_drops_connection(void **state)
{
	struct prober p = { .cfg.timeout_ms = TIMEOUT_TLS_MS };
	struct tls_server s;

	(void)state;
	assert_true(tls_server_start(&s, &(struct script){ .manner = MANNER_MUTE_TLS }));
	prober_open(&p, &s.at);
	prober_once(&p);
	prober_once(&p);
	assert_int_equal(tls_server_count(&s, HANDSHAKES), 2);
	tls_server_await(&s, ENDED, 2);
	prober_close(&p);
	tls_server_stop(&s);
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

static void test_tls_failures(void **state)
{
	struct prober plain = { 0 }, old = { 0 }, h2 = { 0 };

	(void)state;
	expect_outcome(&plain, &(struct script){ .manner = MANNER_PLAIN }, KLB_REASON_TLS, 0);
	assert_says(plain.detail, "does not speak TLS");
	assert_false(plain.result.handshake);
	expect_outcome(&old, &(struct script){ .max_version = TLS1_1_VERSION }, KLB_REASON_TLS, 0);
	assert_says(old.detail, "TLS");
	expect_outcome(&h2, &(struct script){ .h2_only = true }, KLB_REASON_TLS, 0);
	assert_says(h2.detail, "does not offer HTTP/1.1");
}

static void test_certificates(void **state)
{
	static const struct {
		const char *what;
		struct identity *identity;
		char *ca;
		const char *server_name;
		const char *detail; /* NULL: accepted */
	} cases[] = {
		{ "address", &pki.server, pki.ca_file, NULL, NULL },
		{ "name", &pki.server, pki.ca_file, "kubernetes.test", NULL },
		{ "other address", &pki.server, pki.ca_file, "10.96.0.1", NULL },
		{ "IPv6 address", &pki.server, pki.ca_file, "::1", NULL },
		{ "wrong CA", &pki.server, pki.other_ca_file, NULL, "issued by CN=ca" },
		{ "wrong name", &pki.server, pki.ca_file, "example.org",
		  "CN=apiserver does not name example.org" },
		{ "wrong address", &pki.server, pki.ca_file, "192.0.2.9",
		  "CN=apiserver does not name 192.0.2.9" },
		{ "common name", &pki.elsewhere, pki.ca_file, "kubernetes.test",
		  "does not name kubernetes.test" },
		{ "own address", &pki.elsewhere, pki.ca_file, NULL, "does not name 127.0.0.1" },
		{ "expired", &pki.expired, pki.ca_file, NULL,
		  "certificate has expired: CN=yesterday, issued by CN=ca" },
	};
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		struct script script = { .answer = OK_ANSWER, .identity = cases[i].identity };
		struct prober p = { .cfg = { .ca = cases[i].ca,
					     .server_name = (char *)cases[i].server_name } };
		struct prober blind = { .cfg = { .insecure_skip_verify = true,
						 .ca = (char *)"/nonexistent",
						 .server_name = (char *)cases[i].server_name } };

		expect_outcome(&p, &script,
			       cases[i].detail ? KLB_REASON_CERTIFICATE : KLB_REASON_OK,
			       cases[i].detail ? 0 : 200);
		assert_says(p.detail, cases[i].detail ? cases[i].detail : "");
		expect_outcome(&blind, &script, KLB_REASON_OK, 200);
	}
}

/* Trusted is what the file names, root or not, as for Kubernetes' own clients. */
static void test_intermediate_as_ca(void **state)
{
	struct identity middle = pki_issue(&pki.other_ca, "middle", NULL, 86400);
	struct identity leaf;
	struct prober p = { 0 };
	char path[PATH_SIZE];

	(void)state;
	pki_extend(middle.cert, pki.other_ca.cert, NID_basic_constraints, "critical,CA:TRUE");
	assert_true(X509_sign(middle.cert, pki.other_ca.key, EVP_sha256()) > 0);
	leaf = pki_issue(&middle, "leaf", PKI_SERVER_SAN, 86400);
	pki_write_cert(in_dir(path, "middle.crt"), middle.cert);
	p.cfg.ca = path;
	expect_outcome(&p, &(struct script){ .answer = OK_ANSWER, .identity = &leaf },
		       KLB_REASON_OK, 200);
	unlink(path);
	pki_discard(&leaf);
	pki_discard(&middle);
}

static void check_client(int max_version)
{
	struct script script = { .answer = OK_ANSWER,
				 .want_client = true,
				 .max_version = max_version };
	struct prober with = { .cfg = { .client_cert = pki.client_cert,
					.client_key = pki.client_key } };
	struct prober without = { 0 };

	expect_outcome(&with, &script, KLB_REASON_OK, 200);
	expect_outcome(&without, &script, KLB_REASON_TLS, 0);
	assert_true(strlen(without.detail) > 0);
	if (max_version != TLS1_2_VERSION)
		assert_says(without.detail, "probe.clientCert");
}

static void test_client_certificate(void **state)
{
	(void)state;
	check_client(0);
	check_client(TLS1_2_VERSION);
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

		assert_true(tls_server_start(&s, &(struct script){ .answer = OK_ANSWER }));
		prober_open(&p, &s.at);
		prober_once(&p);
		assert_outcome(&p, KLB_REASON_OK, 200);
		prober_close(&p);
		tls_server_stop(&s);
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
	assert_true(tls_server_start(&s, &(struct script){ .answer = OK_ANSWER }));
	prober_open(&p, &s.at);
	prober_once(&p);
	assert_int_equal(socket_option(IPPROTO_TCP, TCP_NODELAY), 1);
	assert_int_equal(socket_option(SOL_SOCKET, SO_KEEPALIVE), 1);
	assert_int_equal(socket_option(IPPROTO_TCP, TCP_KEEPIDLE), 1);
	assert_int_equal(socket_option(IPPROTO_TCP, TCP_KEEPINTVL), 1);
	assert_int_equal(socket_option(IPPROTO_TCP, TCP_KEEPCNT), 2);
	assert_int_equal(socket_option(IPPROTO_TCP, TCP_USER_TIMEOUT), 2000);
	prober_close(&p);
	tls_server_stop(&s);
}

/*
 * The kept connection
 */

static void check_keep_alive(const char *answer)
{
	struct prober p = { 0 };
	struct tls_server s;
	unsigned int i;

	assert_true(tls_server_start(&s, &(struct script){ .answer = answer }));
	prober_open(&p, &s.at);
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
	assert_true(tls_server_start(
		&s,
		&(struct script){ .answer = "HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno" }));
	prober_open(&p, &s.at);
	prober_once(&p);
	prober_once(&p);
	assert_outcome(&p, KLB_REASON_NOT_READY, 500);
	assert_int_equal(tls_server_count(&s, HANDSHAKES), 1);
	prober_close(&p);
	tls_server_stop(&s);
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

		assert_true(
			tls_server_start(&s, &(struct script){ .answer = cases[i].answer,
							       .answer_length = cases[i].length }));
		prober_open(&p, &s.at);
		prober_once(&p);
		assert_outcome(&p, KLB_REASON_OK, 200);
		prober_once(&p);
		assert_outcome(&p, KLB_REASON_OK, 200);
		assert_true(p.result.handshake);
		tls_server_await(&s, ENDED, 2);
		assert_int_equal(tls_server_count(&s, HANDSHAKES), 2);
		prober_close(&p);
		tls_server_stop(&s);
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
	assert_true(tls_server_start(&s, &(struct script){ .answer = OK_ANSWER, .answers = 2 }));
	prober_open(&p, &s.at);
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
	prober_close(&p);
	tls_server_stop(&s);
	assert_int_equal(p.lost, 2);
}

static void test_unasked(void **state)
{
	struct prober p = { 0 };
	struct tls_server s;

	(void)state;
	assert_true(tls_server_start(
		&s, &(struct script){ .manner = MANNER_TALK, .answer = OK_ANSWER }));
	prober_open(&p, &s.at);
	prober_once(&p);
	assert_outcome(&p, KLB_REASON_OK, 200);
	signal_event(s.go);
	prober_run(&p, &p.lost, 1);
	tls_server_await(&s, ENDED, 1);
	prober_close(&p);
	tls_server_stop(&s);
	assert_int_equal(p.done, 1);
	assert_int_equal(p.lost, 1);
}

static void test_lost_then_start(void **state)
{
	struct prober p = { .hook = HOOK_START_IN_LOST };
	struct tls_server s;

	(void)state;
	assert_true(tls_server_start(&s, &(struct script){ .answer = OK_ANSWER, .answers = 1 }));
	prober_open(&p, &s.at);
	prober_start(&p);
	prober_run(&p, &p.done, 3);
	assert_outcome(&p, KLB_REASON_OK, 200);
	assert_true(p.lost >= 2);
	prober_close(&p);
	tls_server_stop(&s);
}

/* The connection had ended before the request was sent: asked again on a new one. */
static void check_stale(bool abrupt)
{
	struct prober p = { 0 };
	struct tls_server s;

	assert_true(tls_server_start(
		&s, &(struct script){ .answer = OK_ANSWER, .answers = 1, .abrupt = abrupt }));
	prober_open(&p, &s.at);
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
	prober_close(&p);
	tls_server_stop(&s);
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
	assert_true(tls_server_start(
		&s, &(struct script){ .answer = OK_ANSWER, .answers = 1, .hang_up_later = true }));
	prober_open(&p, &s.at);
	prober_once(&p);
	tls_server_await(&s, ENDED, 1);
	prober_once(&p);
	assert_outcome(&p, KLB_REASON_CLOSED, 0);
	assert_int_equal(tls_server_count(&s, HANDSHAKES), 2);
	prober_close(&p);
	tls_server_stop(&s);
	assert_int_equal(p.lost, 0);
}

static void check_resumption(int max_version, bool abrupt)
{
	struct prober p = { 0 };
	struct tls_server s;
	unsigned int i;

	assert_true(tls_server_start(&s, &(struct script){ .answer = OK_ANSWER,
							   .answers = 1,
							   .max_version = max_version,
							   .abrupt = abrupt }));
	prober_open(&p, &s.at);
	for (i = 0; i < 5; i++) {
		prober_once(&p);
		assert_outcome(&p, KLB_REASON_OK, 200);
		prober_run(&p, &p.lost, i + 1);
	}
	assert_int_equal(tls_server_count(&s, HANDSHAKES), 5);
	assert_int_equal(tls_server_count(&s, RESUMED), 4);
	prober_close(&p);
	tls_server_stop(&s);
}

static void test_resumption(void **state)
{
	(void)state;
	check_resumption(0, false);
	check_resumption(0, true);
	check_resumption(TLS1_2_VERSION, false);
	check_resumption(TLS1_2_VERSION, true);
}

/* A resumed handshake would not show that the certificate has expired meanwhile. */
static void test_expired_not_resumed(void **state)
{
	struct prober p = { .cfg.insecure_skip_verify = true };
	struct tls_server s;

	(void)state;
	assert_true(tls_server_start(
		&s,
		&(struct script){ .answer = OK_ANSWER, .answers = 1, .identity = &pki.expired }));
	prober_open(&p, &s.at);
	prober_once(&p);
	prober_run(&p, &p.lost, 1);
	prober_once(&p);
	assert_outcome(&p, KLB_REASON_OK, 200);
	assert_int_equal(tls_server_count(&s, HANDSHAKES), 2);
	assert_int_equal(tls_server_count(&s, RESUMED), 0);
	prober_close(&p);
	tls_server_stop(&s);
}

/* A session that the server does not know must not get in the way. */
static void test_resumption_refused(void **state)
{
	struct script script = { .answer = OK_ANSWER, .answers = 1 };
	struct prober p = { 0 };
	struct tls_server s;
	SSL_CTX *other;

	(void)state;
	assert_true(tls_server_start(&s, &script));
	prober_open(&p, &s.at);
	prober_once(&p);
	prober_run(&p, &p.lost, 1);
	/* Other ticket keys, as after a restart. The thread is waiting for a connection. */
	other = tls_server_context(&script);
	pthread_mutex_lock(&s.lock);
	SSL_CTX_free(s.ctx);
	s.ctx = other;
	pthread_mutex_unlock(&s.lock);
	prober_once(&p);
	assert_outcome(&p, KLB_REASON_OK, 200);
	assert_int_equal(tls_server_count(&s, HANDSHAKES), 2);
	assert_int_equal(tls_server_count(&s, RESUMED), 0);
	prober_close(&p);
	tls_server_stop(&s);
}

/*
 * Coverage
 */

static void test_must_cover(void **state)
{
	struct klb_endpoint want[] = { endpoint("127.0.0.1:6443"), endpoint("10.0.0.9:443"),
				       endpoint("[::1]:6443"), endpoint("10.96.0.1:443") };
	struct prober p = { 0 };
	struct tls_server s;

	(void)state;
	assert_true(tls_server_start(&s, &(struct script){ .answer = OK_ANSWER, .answers = 2 }));
	prober_open_covering(&p, &s.at, want, ARRAY_SIZE(want));
	prober_once(&p);
	assert_int_equal(p.uncovered, 1);
	assert_true(endpoint_equal(&p.uncovered_at, &want[1]));
	/* Once a connection. */
	prober_once(&p);
	assert_int_equal(p.uncovered, 1);
	prober_run(&p, &p.lost, 1);
	prober_once(&p);
	assert_int_equal(p.uncovered, 2);
	prober_close(&p);
	tls_server_stop(&s);
}

static void test_all_covered(void **state)
{
	struct klb_endpoint want[] = { endpoint("127.0.0.1:6443"), endpoint("[::1]:6443") };
	struct prober p = { 0 };
	struct tls_server s;

	(void)state;
	assert_true(tls_server_start(&s, &(struct script){ .answer = OK_ANSWER }));
	prober_open_covering(&p, &s.at, want, ARRAY_SIZE(want));
	memset(want, 0, sizeof(want)); /* copied */
	prober_once(&p);
	assert_outcome(&p, KLB_REASON_OK, 200);
	assert_int_equal(p.uncovered, 0);
	prober_close(&p);
	tls_server_stop(&s);
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
	assert_true(tls_server_start(&s, &(struct script){ .answer = OK_ANSWER, .answers = 1 }));
	prober_open(&p, &s.at);
	prober_once(&p);
	prober_run(&p, &p.lost, 1);
	assert_null(p.probe);
	prober_close(&p);
	tls_server_stop(&s);
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
	prober_close(&p);
	tls_server_stop(&s);
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
	assert_true(tls_server_start(&s, &(struct script){ .answer = OK_ANSWER }));
	prober_open(&kept, &s.at);
	prober_start(&kept);
	prober_run(&kept, &kept.done, 21);
	assert_outcome(&kept, KLB_REASON_OK, 200);
	assert_int_equal(tls_server_count(&s, HANDSHAKES), 1);
	prober_close(&kept);
	tls_server_stop(&s);

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

static void refuse_tls(const struct config_probe *cfg, const char *key, const char *path)
{
	struct probe_tls *tls = NULL;
	struct err e = { "" };

	assert_int_equal(probe_tls_new(cfg, &tls, &e), -EINVAL);
	assert_null(tls);
	if (!strstr(e.text, key) || !strstr(e.text, path))
		fail_msg("'%s' names not both %s and %s", e.text, key, path);
	assert_null(strchr(e.text, '\n'));
	assert_int_equal(probe_tls_new(cfg, &tls, NULL), -EINVAL);
	assert_int_equal(ERR_peek_error(), 0);
}

static void test_bad_files(void **state)
{
	char missing[] = "/nonexistent/file";
	struct config_probe cfg = { .ca = missing };

	(void)state;
	refuse_tls(&cfg, "probe.ca", missing);
	cfg.ca = pki.text_file;
	refuse_tls(&cfg, "probe.ca", pki.text_file);
	cfg.ca = pki.ca_file;
	cfg.client_cert = missing;
	cfg.client_key = pki.client_key;
	refuse_tls(&cfg, "probe.clientCert", missing);
	cfg.client_cert = pki.text_file;
	refuse_tls(&cfg, "probe.clientCert", pki.text_file);
	cfg.client_cert = pki.client_cert;
	cfg.client_key = missing;
	refuse_tls(&cfg, "probe.clientKey", missing);
	cfg.client_key = pki.text_file;
	refuse_tls(&cfg, "probe.clientKey", pki.text_file);
	cfg.client_key = pki.other_key;
	refuse_tls(&cfg, "probe.clientKey", pki.other_key);
	/* Asks nobody for the passphrase. */
	cfg.client_key = pki.locked_key;
	refuse_tls(&cfg, "probe.clientKey", pki.locked_key);
	probe_tls_free(NULL);
	probe_free(NULL);
}

static void test_system_store(void **state)
{
	struct config_probe cfg = { 0 };
	struct probe_tls *tls = NULL;
	struct err e;

	(void)state;
	assert_int_equal(probe_tls_new(&cfg, &tls, &e), 0);
	probe_tls_free(tls);
}

static struct probe_tls *load(char *ca, char *cert, char *key, bool insecure)
{
	const struct config_probe cfg = {
		.ca = ca, .client_cert = cert, .client_key = key, .insecure_skip_verify = insecure
	};
	struct probe_tls *tls = NULL;
	struct err e;

	if (probe_tls_new(&cfg, &tls, &e))
		fail_msg("%s", e.text);
	return tls;
}

/* What is in the files counts, and not what they are called. */
static void test_same_files(void **state)
{
	char copy[PATH_SIZE];
	struct probe_tls *all[] = {
		load(pki.ca_file, NULL, NULL, false),
		load(pki.other_ca_file, NULL, NULL, false),
		load(pki.ca_file, pki.client_cert, pki.client_key, false),
		load(pki.ca_file, NULL, NULL, true),
		load(NULL, pki.client_cert, pki.client_key, true),
		load(NULL, NULL, NULL, false),
	};
	const size_t system_store = ARRAY_SIZE(all) - 1;
	struct probe_tls *renamed;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		for (size_t k = 0; k < ARRAY_SIZE(all); k++)
			assert_int_equal(probe_tls_is_same(all[i], all[k]),
					 i == k && i != system_store);
	in_dir(copy, "ca.crt.copy");
	assert_int_equal(link(pki.ca_file, copy), 0);
	renamed = load(copy, NULL, NULL, false);
	assert_true(probe_tls_is_same(all[0], renamed));
	unlink(copy);
	probe_tls_free(renamed);
	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		probe_tls_free(all[i]);
}

/* A probe outlives the configuration that it was made from. */
static void test_configuration_goes(void **state)
{
	char path[] = "/readyz", name[] = "kubernetes.test";
	struct prober p = { .cfg = { .path = path, .server_name = name } };
	struct tls_server s;

	(void)state;
	assert_true(tls_server_start(&s, &(struct script){ .answer = OK_ANSWER, .answers = 1 }));
	prober_open(&p, &s.at);
	memset(path, 'x', strlen(path));
	memset(name, 'x', strlen(name));
	p.cfg.timeout_ms = 0;
	prober_once(&p);
	assert_outcome(&p, KLB_REASON_OK, 200);
	prober_close(&p);
	tls_server_stop(&s);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		LEAVES_NOTHING(test_answers),
		LEAVES_NOTHING(test_answer_limits),
		LEAVES_NOTHING(test_answer_nul),
		LEAVES_NOTHING(test_statuses),
		LEAVES_NOTHING(test_connect_failures),
		LEAVES_NOTHING(test_connect_timeout),
		LEAVES_NOTHING(test_no_answer),
		LEAVES_NOTHING(test_timeout_drops_connection),
		LEAVES_NOTHING(test_closed),
		LEAVES_NOTHING(test_tls_failures),
		LEAVES_NOTHING(test_certificates),
		LEAVES_NOTHING(test_intermediate_as_ca),
		LEAVES_NOTHING(test_client_certificate),
		LEAVES_NOTHING(test_ipv6),
		LEAVES_NOTHING(test_request),
		LEAVES_NOTHING(test_socket_options),
		LEAVES_NOTHING(test_keep_alive),
		LEAVES_NOTHING(test_keep_alive_not_ready),
		LEAVES_NOTHING(test_not_kept),
		LEAVES_NOTHING(test_endless_headers),
		LEAVES_NOTHING(test_lost),
		LEAVES_NOTHING(test_unasked),
		LEAVES_NOTHING(test_lost_then_start),
		LEAVES_NOTHING(test_stale),
		LEAVES_NOTHING(test_stale_once),
		LEAVES_NOTHING(test_resumption),
		LEAVES_NOTHING(test_expired_not_resumed),
		LEAVES_NOTHING(test_resumption_refused),
		LEAVES_NOTHING(test_must_cover),
		LEAVES_NOTHING(test_all_covered),
		LEAVES_NOTHING(test_free_in_done),
		LEAVES_NOTHING(test_free_in_done_deferred),
		LEAVES_NOTHING(test_free_in_lost),
		LEAVES_NOTHING(test_free_in_not_covered),
		LEAVES_NOTHING(test_start_in_done),
		LEAVES_NOTHING(test_free_at_any_time),
		LEAVES_NOTHING(test_bad_files),
		LEAVES_NOTHING(test_system_store),
		LEAVES_NOTHING(test_same_files),
		LEAVES_NOTHING(test_configuration_goes),
		LEAVES_NOTHING(test_bad_text),
	};

	/* SIGPIPE is not ignored here: that it ends nothing is the probe room's affair. */
	return cmocka_run_group_tests(tests, pki_make, pki_remove);
}
