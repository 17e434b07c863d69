/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The probes against real TLS servers: threads of this process with scripted
 * manners, on ephemeral ports of the loopback.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <cmocka.h>

#include <event2/buffer.h>
#include <event2/event.h>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "pki.h"
#include "agent/probe_internal.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* A condition that has not come about by then never will, even under valgrind. */
#define PATIENCE_S 60
/* Long enough that no probe which is answered runs into it. */
#define TIMEOUT_LONG_MS 20000
#define TIMEOUT_SHORT_MS 300
/* For probes that are to time out after a handshake, also on a busy machine. */
#define TIMEOUT_TLS_MS 1000

#define SERVER_SAN "IP:127.0.0.1,IP:::1,IP:10.96.0.1,DNS:kubernetes.test"

#define OK_ANSWER "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

/*
 * Certificates: one CA that the probes trust, one that they do not, and what
 * the servers and clients show.
 */

static struct {
	char dir[64];
	char ca_file[96], other_ca_file[96], client_cert[96], client_key[96], other_key[96];
	char locked_key[96], text_file[96];
	struct identity ca, other_ca;
	struct identity server, expired, elsewhere, client;
} pki;

static FILE *create(char *path, const char *name)
{
	FILE *f;

	snprintf(path, 96, "%s/%s", pki.dir, name);
	f = fopen(path, "w");
	assert_non_null(f);
	return f;
}

static void write_cert(char *path, const char *name, X509 *cert)
{
	snprintf(path, 96, "%s/%s", pki.dir, name);
	pki_write_cert(path, cert);
}

static void write_key(char *path, const char *name, EVP_PKEY *key, const char *passphrase)
{
	snprintf(path, 96, "%s/%s", pki.dir, name);
	pki_write_key(path, "w", key, passphrase);
}

static int make_pki(void **state)
{
	FILE *f;

	(void)state;
	snprintf(pki.dir, sizeof(pki.dir), "/tmp/test_probe.XXXXXX");
	assert_non_null(mkdtemp(pki.dir));
	pki.ca = pki_issue(NULL, "ca", NULL, 86400);
	pki.other_ca = pki_issue(NULL, "other ca", NULL, 86400);
	pki.server = pki_issue(&pki.ca, "apiserver", SERVER_SAN, 86400);
	pki.expired = pki_issue(&pki.ca, "yesterday", SERVER_SAN, -86400);
	/* The common name is right: it must not count. */
	pki.elsewhere = pki_issue(&pki.ca, "kubernetes.test", "IP:192.0.2.1,DNS:elsewhere", 86400);
	pki.client = pki_issue(&pki.ca, "node", NULL, 86400);
	write_cert(pki.ca_file, "ca.crt", pki.ca.cert);
	write_cert(pki.other_ca_file, "other-ca.crt", pki.other_ca.cert);
	write_cert(pki.client_cert, "client.crt", pki.client.cert);
	write_key(pki.client_key, "client.key", pki.client.key, NULL);
	write_key(pki.other_key, "other.key", pki.server.key, NULL);
	write_key(pki.locked_key, "locked.key", pki.client.key, "secret");
	f = create(pki.text_file, "text");
	fputs("hello\n", f);
	fclose(f);
	return 0;
}

static int remove_pki(void **state)
{
	char *files[] = { pki.ca_file,	 pki.other_ca_file, pki.client_cert, pki.client_key,
			  pki.other_key, pki.locked_key,    pki.text_file };
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(files); i++)
		unlink(files[i]);
	rmdir(pki.dir);
	pki_discard(&pki.ca);
	pki_discard(&pki.other_ca);
	pki_discard(&pki.server);
	pki_discard(&pki.expired);
	pki_discard(&pki.elsewhere);
	pki_discard(&pki.client);
	return 0;
}

/*
 * The servers
 */

enum manner {
	MANNER_ANSWER, /* gives script.answer to every request */
	MANNER_MUTE, /* accepts, and says nothing */
	MANNER_MUTE_TLS, /* shakes hands, and answers nothing */
	MANNER_HANG_UP, /* closes when the request has come */
	MANNER_RESET, /* the same, with a RST */
	MANNER_HANG_UP_AT_ONCE, /* closes in place of a handshake */
	MANNER_PLAIN, /* speaks HTTP where TLS is expected */
	MANNER_TALK, /* answers, and says more when nothing was asked */
};

struct script {
	enum manner manner;
	const char *answer;
	size_t answer_length; /* 0: a string */
	struct identity *identity; /* NULL: pki.server */
	int max_version; /* of TLS; 0: any */
	bool want_client;
	unsigned int answers; /* then the connection is closed; 0: it stays */
	bool hang_up_later; /* every connection after the first is closed unanswered */
	bool abrupt; /* without a close_notify: as the kernel ends a dead process' connections */
	bool h2_only;
	bool ipv6;
};

enum counter { ACCEPTED, HANDSHAKES, RESUMED, REQUESTS, ENDED, COUNTERS };

struct server {
	struct script script;
	int listener;
	int stop, go; /* eventfd */
	struct klb_endpoint at;
	SSL_CTX *ctx;
	pthread_t thread;
	pthread_mutex_t lock; /* all below */
	pthread_cond_t changed;
	unsigned int count[COUNTERS];
	char request[1024];
	char sni[64];
};

static void bump(struct server *s, enum counter which)
{
	pthread_mutex_lock(&s->lock);
	s->count[which]++;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

static unsigned int count(struct server *s, enum counter which)
{
	unsigned int n;

	pthread_mutex_lock(&s->lock);
	n = s->count[which];
	pthread_mutex_unlock(&s->lock);
	return n;
}

/* Without running the event loop. */
static void await(struct server *s, enum counter which, unsigned int n)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += PATIENCE_S;
	pthread_mutex_lock(&s->lock);
	while (s->count[which] < n)
		if (pthread_cond_timedwait(&s->changed, &s->lock, &until))
			break;
	if (s->count[which] < n)
		fail_msg("counter %d stays at %u, wanted %u", (int)which, s->count[which], n);
	pthread_mutex_unlock(&s->lock);
}

/* False when the server is to stop. */
static bool wait_for(struct server *s, int fd, short events)
{
	struct pollfd fds[] = { { .fd = fd, .events = events },
				{ .fd = s->stop, .events = POLLIN } };

	while (poll(fds, 2, -1) < 0)
		;
	return !fds[1].revents;
}

/* Returns false when the connection has ended or the server is to stop. */
static bool read_request(struct server *s, SSL *ssl)
{
	char buf[sizeof(s->request)];
	size_t length = 0;
	int n;

	for (;;) {
		if (!SSL_pending(ssl) && !wait_for(s, SSL_get_fd(ssl), POLLIN))
			return false;
		n = SSL_read(ssl, buf + length, (int)(sizeof(buf) - 1 - length));
		if (n <= 0)
			return false;
		length += (size_t)n;
		buf[length] = '\0';
		if (strstr(buf, "\r\n\r\n"))
			break;
	}
	pthread_mutex_lock(&s->lock);
	memcpy(s->request, buf, length + 1);
	pthread_mutex_unlock(&s->lock);
	bump(s, REQUESTS);
	return true;
}

/* Once told to, so that it cannot be taken for a part of the answer. */
static bool talk(struct server *s, SSL *ssl)
{
	static const char timeout[] = "HTTP/1.1 408 Request Timeout\r\n\r\n";
	uint64_t n;

	if (!wait_for(s, s->go, POLLIN))
		return false;
	return read(s->go, &n, sizeof(n)) == sizeof(n) &&
	       SSL_write(ssl, timeout, sizeof(timeout) - 1) > 0;
}

static void answer_requests(struct server *s, SSL *ssl, unsigned int connection)
{
	const struct script *script = &s->script;
	size_t length = script->answer_length;
	unsigned int n = 0;

	if (!length && script->answer)
		length = strlen(script->answer);
	while (read_request(s, ssl)) {
		if (script->manner == MANNER_MUTE_TLS)
			continue;
		if (script->manner != MANNER_ANSWER && script->manner != MANNER_TALK)
			return;
		if (script->hang_up_later && connection > 1)
			return;
		if (SSL_write(ssl, script->answer, (int)length) <= 0)
			return;
		if (script->manner == MANNER_TALK && !talk(s, ssl))
			return;
		if (++n == script->answers)
			return;
	}
}

static void note_client(struct server *s, SSL *ssl)
{
	const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);

	pthread_mutex_lock(&s->lock);
	snprintf(s->sni, sizeof(s->sni), "%s", name ? name : "");
	pthread_mutex_unlock(&s->lock);
	if (SSL_session_reused(ssl))
		bump(s, RESUMED);
	bump(s, HANDSHAKES);
}

static void reset(int fd)
{
	struct linger linger = { .l_onoff = 1 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

static void serve_tls(struct server *s, int fd, unsigned int connection)
{
	SSL *ssl = SSL_new(s->ctx);

	SSL_set_fd(ssl, fd);
	if (SSL_accept(ssl) == 1) {
		note_client(s, ssl);
		answer_requests(s, ssl, connection);
		if (s->script.manner == MANNER_RESET)
			reset(fd);
		else if (!s->script.abrupt)
			SSL_shutdown(ssl);
	}
	SSL_free(ssl);
	ERR_clear_error();
}

static void serve(struct server *s, int fd, unsigned int connection)
{
	static const char plain[] = "HTTP/1.0 400 Bad Request\r\n\r\nthis is not TLS\n";
	char buf[512];

	switch (s->script.manner) {
	case MANNER_MUTE:
		wait_for(s, fd, POLLRDHUP);
		break;
	case MANNER_HANG_UP_AT_ONCE:
		break;
	case MANNER_PLAIN:
		if (wait_for(s, fd, POLLIN) && recv(fd, buf, sizeof(buf), 0) > 0)
			send(fd, plain, sizeof(plain) - 1, MSG_NOSIGNAL);
		break;
	default:
		serve_tls(s, fd, connection);
	}
}

static void *run_server(void *arg)
{
	struct server *s = arg;
	unsigned int connection = 0;
	int fd;

	while (wait_for(s, s->listener, POLLIN)) {
		fd = accept(s->listener, NULL, NULL);
		if (fd < 0)
			continue;
		bump(s, ACCEPTED);
		serve(s, fd, ++connection);
		close(fd);
		bump(s, ENDED);
	}
	return NULL;
}

/* Turns down who offers HTTP/1.1 and nothing else. */
static int choose_h2(SSL *ssl, const unsigned char **out, unsigned char *length,
		     const unsigned char *in, unsigned int in_length, void *arg)
{
	static const unsigned char http11[] = "\x08http/1.1";

	(void)ssl;
	(void)out;
	(void)length;
	(void)arg;
	if (in_length == sizeof(http11) - 1 && memcmp(in, http11, in_length) == 0)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	return SSL_TLSEXT_ERR_NOACK;
}

static SSL_CTX *server_context(const struct script *script)
{
	struct identity *id = script->identity ? script->identity : &pki.server;
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());

	assert_non_null(ctx);
	assert_int_equal(SSL_CTX_use_certificate(ctx, id->cert), 1);
	assert_int_equal(SSL_CTX_use_PrivateKey(ctx, id->key), 1);
	SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"t", 1);
	if (script->max_version)
		SSL_CTX_set_max_proto_version(ctx, script->max_version);
	if (script->h2_only)
		SSL_CTX_set_alpn_select_cb(ctx, choose_h2, NULL);
	if (script->want_client) {
		SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
		assert_int_equal(SSL_CTX_load_verify_file(ctx, pki.ca_file), 1);
	}
	return ctx;
}

/* Binds the loopback's next free port; -1 when there is no such loopback. */
static int bind_loopback(bool ipv6, struct klb_endpoint *at)
{
	struct sockaddr_storage ss;
	socklen_t length = sizeof(ss);
	struct err e;
	int fd;

	assert_int_equal(endpoint_parse(ipv6 ? "::1" : "127.0.0.1", 1, at, &e), 0);
	at->port = 0;
	length = endpoint_to_sockaddr(at, &ss);
	fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&ss, length) != 0) {
		if (fd >= 0)
			close(fd);
		return -1;
	}
	assert_int_equal(getsockname(fd, (struct sockaddr *)&ss, &length), 0);
	assert_int_equal(endpoint_from_sockaddr((struct sockaddr *)&ss, at), 0);
	return fd;
}

/* Returns false when the host has no such loopback. */
static bool server_start(struct server *s, const struct script *script)
{
	memset(s, 0, sizeof(*s));
	s->script = *script;
	s->listener = bind_loopback(script->ipv6, &s->at);
	if (s->listener < 0)
		return false;
	assert_int_equal(listen(s->listener, 16), 0);
	s->stop = eventfd(0, EFD_CLOEXEC);
	s->go = eventfd(0, EFD_CLOEXEC);
	assert_true(s->stop >= 0 && s->go >= 0);
	s->ctx = server_context(script);
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, NULL);
	assert_int_equal(pthread_create(&s->thread, NULL, run_server, s), 0);
	return true;
}

static void signal_event(int fd)
{
	uint64_t one = 1;

	assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
}

static void server_stop(struct server *s)
{
	signal_event(s->stop);
	pthread_join(s->thread, NULL);
	pthread_cond_destroy(&s->changed);
	pthread_mutex_destroy(&s->lock);
	SSL_CTX_free(s->ctx);
	close(s->listener);
	close(s->stop);
	close(s->go);
}

/*
 * The prober under test and what it reported
 */

enum hook {
	HOOK_NONE,
	HOOK_FREE_IN_DONE,
	HOOK_FREE_IN_LOST,
	HOOK_FREE_IN_NOT_COVERED,
	HOOK_START_IN_DONE,
	HOOK_START_IN_LOST
};

struct world {
	struct event_base *base;
	struct config_probe cfg;
	struct probe_tls *tls;
	struct probe *probe;
	enum hook hook;
	unsigned int starts_left; /* for HOOK_START_IN_DONE */
	bool inside_start;
	unsigned int done, lost, uncovered;
	struct probe_result result; /* the last one; detail is copied */
	char detail[TLS_DETAIL_MAX];
	struct klb_endpoint uncovered_at;
};

static void world_free_probe(struct world *w)
{
	probe_free(w->probe);
	w->probe = NULL;
}

static void start(struct world *w)
{
	w->inside_start = true;
	probe_start(w->probe, PROBE_READY);
	w->inside_start = false;
}

static void on_done(void *arg, const struct probe_result *result)
{
	struct world *w = arg;

	assert_false(w->inside_start);
	w->done++;
	if (w->hook == HOOK_FREE_IN_DONE)
		world_free_probe(w);
	if (w->hook == HOOK_START_IN_DONE && w->starts_left) {
		w->starts_left--;
		start(w);
	}
	/* After the hook: the result must outlive what it does. */
	w->result = *result;
	snprintf(w->detail, sizeof(w->detail), "%s", result->detail ? result->detail : "");
	w->result.detail = w->detail;
	assert_true(result->outcome != KLB_REASON_NONE);
}

static void on_lost(void *arg, bool timed_out)
{
	(void)timed_out;
	struct world *w = arg;

	assert_false(w->inside_start);
	w->lost++;
	if (w->hook == HOOK_FREE_IN_LOST)
		world_free_probe(w);
	if (w->hook == HOOK_START_IN_LOST)
		start(w);
}

static void on_not_covered(void *arg, const struct klb_endpoint *address)
{
	struct world *w = arg;

	w->uncovered++;
	w->uncovered_at = *address;
	if (w->hook == HOOK_FREE_IN_NOT_COVERED)
		world_free_probe(w);
}

static const struct probe_ops ops = { .done = on_done,
				      .lost = on_lost,
				      .not_covered = on_not_covered };

static struct klb_endpoint endpoint(const char *text)
{
	struct klb_endpoint ep;
	struct err e;

	if (endpoint_parse(text, 0, &ep, &e) != 0)
		fail_msg("%s", e.text);
	return ep;
}

/* Fills what is not set in w->cfg. */
static void world_open_covering(struct world *w, const struct klb_endpoint *backend,
				const struct klb_endpoint *must_cover, unsigned int n)
{
	struct err e;

	if (!w->cfg.path)
		w->cfg.path = (char *)"/readyz";
	if (!w->cfg.timeout_ms)
		w->cfg.timeout_ms = TIMEOUT_LONG_MS;
	if (!w->cfg.ca)
		w->cfg.ca = pki.ca_file;
	w->base = event_base_new();
	assert_non_null(w->base);
	if (probe_tls_new(&w->cfg, &w->tls, &e) != 0)
		fail_msg("%s", e.text);
	if (probe_new(w->base, &w->cfg, w->tls, backend, must_cover, n, &ops, w, &w->probe, &e))
		fail_msg("%s", e.text);
}

static void world_open(struct world *w, const struct klb_endpoint *backend)
{
	world_open_covering(w, backend, NULL, 0);
}

static void world_close(struct world *w)
{
	probe_free(w->probe);
	event_base_free(w->base);
	probe_tls_free(w->tls);
}

static void run_out(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	*(bool *)arg = true;
}

/* Runs the event loop until *counter is n. */
static void run_until(struct world *w, const unsigned int *counter, unsigned int n)
{
	const struct timeval patience = { .tv_sec = PATIENCE_S };
	bool out = false;
	struct event *timer = evtimer_new(w->base, run_out, &out);

	event_add(timer, &patience);
	while (*counter < n && !out)
		assert_int_equal(event_base_loop(w->base, EVLOOP_ONCE), 0);
	event_free(timer);
	assert_false(out);
	assert_int_equal(*counter, n);
}

static void probe_once(struct world *w)
{
	unsigned int before = w->done;

	start(w);
	run_until(w, &w->done, before + 1);
}

static void assert_outcome(const struct world *w, enum klb_reason outcome, unsigned int status)
{
	if (w->result.outcome != outcome || w->result.http_status != status)
		fail_msg("outcome %d, status %u (%s); wanted %d, %u", (int)w->result.outcome,
			 w->result.http_status, w->detail, (int)outcome, status);
}

static void assert_detail(const struct world *w, const char *part)
{
	if (!strstr(w->detail, part))
		fail_msg("'%s' does not say '%s'", w->detail, part);
}

/* One server, one probe with cfg, one outcome. Returns with both stopped. */
static void expect(struct world *w, const struct script *script, enum klb_reason outcome,
		   unsigned int status)
{
	struct server s;

	assert_true(server_start(&s, script));
	world_open(w, &s.at);
	probe_once(w);
	world_close(w);
	server_stop(&s);
	assert_outcome(w, outcome, status);
	assert_int_equal(w->done, 1);
	assert_int_equal(w->lost, 0);
}

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
		struct world w = { 0 };

		expect(&w, &(struct script){ .answer = cases[i].answer }, cases[i].outcome,
		       cases[i].status);
		assert_true(w.result.handshake);
		assert_true(w.result.duration_ns > 0);
		assert_true(w.result.duration_ns < TIMEOUT_LONG_MS * 1000000ULL);
	}
}

static void test_connect_failures(void **state)
{
	struct klb_endpoint at;
	struct world w = { 0 };
	int fd = bind_loopback(false, &at);

	(void)state;
	/* Bound, so that nobody else can have the port, and not listening. */
	assert_true(fd >= 0);
	world_open(&w, &at);
	probe_once(&w);
	assert_outcome(&w, KLB_REASON_REFUSED, 0);
	assert_detail(&w, "refused");
	assert_false(w.result.handshake);
	/* Nothing of the failure stays. */
	probe_once(&w);
	assert_outcome(&w, KLB_REASON_REFUSED, 0);
	world_close(&w);
	close(fd);

	/* TCP to a broadcast address fails inside connect(2): done() must wait for the loop. */
	memset(&w, 0, sizeof(w));
	at = endpoint("255.255.255.255:6443");
	world_open(&w, &at);
	start(&w);
	assert_int_equal(w.done, 0);
	start(&w); /* under way: ignored */
	run_until(&w, &w.done, 1);
	assert_outcome(&w, KLB_REASON_UNREACHABLE, 0);
	probe_once(&w);
	start(&w);
	world_close(&w); /* and never if the prober is gone */
	assert_int_equal(w.done, 2);
}

static void assert_took(const struct world *w, unsigned int ms)
{
	/* libevent's clock is a coarse one: it may be behind by a tick of the kernel's. */
	assert_in_range(w->result.duration_ns, (ms - 20) * 1000000ULL, PATIENCE_S * 1000000000ULL);
}

static void test_connect_timeout(void **state)
{
	struct klb_endpoint at;
	struct sockaddr_storage ss;
	struct world w = { .cfg.timeout_ms = TIMEOUT_SHORT_MS };
	socklen_t length;
	int fd = bind_loopback(false, &at), filler;

	(void)state;
	/* A full accept queue drops the next SYN. */
	assert_true(fd >= 0);
	assert_int_equal(listen(fd, 0), 0);
	length = endpoint_to_sockaddr(&at, &ss);
	filler = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(filler, (struct sockaddr *)&ss, length), 0);

	world_open(&w, &at);
	probe_once(&w);
	assert_outcome(&w, KLB_REASON_CONNECT_TIMEOUT, 0);
	assert_took(&w, TIMEOUT_SHORT_MS);
	start(&w);
	world_close(&w); /* while dialling */
	assert_int_equal(w.done, 1);
	close(filler);
	close(fd);
}

static void test_no_answer(void **state)
{
	struct world mute = { .cfg.timeout_ms = TIMEOUT_SHORT_MS };
	struct world tls = { .cfg.timeout_ms = TIMEOUT_TLS_MS };
	struct world half = { .cfg.timeout_ms = TIMEOUT_TLS_MS };

	(void)state;
	expect(&mute, &(struct script){ .manner = MANNER_MUTE }, KLB_REASON_NO_ANSWER, 0);
	assert_took(&mute, TIMEOUT_SHORT_MS);
	assert_detail(&mute, "handshake");
	assert_false(mute.result.handshake);
	expect(&tls, &(struct script){ .manner = MANNER_MUTE_TLS }, KLB_REASON_NO_ANSWER, 0);
	assert_took(&tls, TIMEOUT_TLS_MS);
	assert_true(tls.result.handshake);
	expect(&half,
	       &(struct script){ .answer = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok" },
	       KLB_REASON_NO_ANSWER, 0);
}

/* An answer that comes late must not become the next probe's. */
static void test_timeout_drops_connection(void **state)
{
	struct world w = { .cfg.timeout_ms = TIMEOUT_TLS_MS };
	struct server s;

	(void)state;
	assert_true(server_start(&s, &(struct script){ .manner = MANNER_MUTE_TLS }));
	world_open(&w, &s.at);
	probe_once(&w);
	probe_once(&w);
	assert_int_equal(count(&s, HANDSHAKES), 2);
	await(&s, ENDED, 2);
	world_close(&w);
	server_stop(&s);
	assert_int_equal(w.lost, 0);
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
		struct world w = { 0 };

		expect(&w, &scripts[i], KLB_REASON_CLOSED, 0);
		assert_detail(&w, "connection");
	}
}

static void test_tls_failures(void **state)
{
	struct world plain = { 0 }, old = { 0 }, h2 = { 0 };

	(void)state;
	expect(&plain, &(struct script){ .manner = MANNER_PLAIN }, KLB_REASON_TLS, 0);
	assert_detail(&plain, "does not speak TLS");
	assert_false(plain.result.handshake);
	expect(&old, &(struct script){ .max_version = TLS1_1_VERSION }, KLB_REASON_TLS, 0);
	assert_detail(&old, "TLS");
	expect(&h2, &(struct script){ .h2_only = true }, KLB_REASON_TLS, 0);
	assert_detail(&h2, "does not offer HTTP/1.1");
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
		struct world w = { .cfg = { .ca = cases[i].ca,
					    .server_name = (char *)cases[i].server_name } };
		struct world blind = { .cfg = { .insecure_skip_verify = true,
						.ca = (char *)"/nonexistent",
						.server_name = (char *)cases[i].server_name } };

		expect(&w, &script, cases[i].detail ? KLB_REASON_CERTIFICATE : KLB_REASON_OK,
		       cases[i].detail ? 0 : 200);
		assert_detail(&w, cases[i].detail ? cases[i].detail : "");
		expect(&blind, &script, KLB_REASON_OK, 200);
	}
}

/* Trusted is what the file names, root or not, as for Kubernetes' own clients. */
static void test_intermediate_as_ca(void **state)
{
	struct identity middle = pki_issue(&pki.other_ca, "middle", NULL, 86400);
	struct identity leaf;
	struct world w = { 0 };
	char path[96];

	(void)state;
	pki_extend(middle.cert, pki.other_ca.cert, NID_basic_constraints, "critical,CA:TRUE");
	assert_true(X509_sign(middle.cert, pki.other_ca.key, EVP_sha256()) > 0);
	leaf = pki_issue(&middle, "leaf", SERVER_SAN, 86400);
	write_cert(path, "middle.crt", middle.cert);
	w.cfg.ca = path;
	expect(&w, &(struct script){ .answer = OK_ANSWER, .identity = &leaf }, KLB_REASON_OK, 200);
	unlink(path);
	pki_discard(&leaf);
	pki_discard(&middle);
}

static void check_client(int max_version)
{
	struct script script = { .answer = OK_ANSWER,
				 .want_client = true,
				 .max_version = max_version };
	struct world with = { .cfg = { .client_cert = pki.client_cert,
				       .client_key = pki.client_key } };
	struct world without = { 0 };

	expect(&with, &script, KLB_REASON_OK, 200);
	expect(&without, &script, KLB_REASON_TLS, 0);
	assert_true(strlen(without.detail) > 0);
	if (max_version != TLS1_2_VERSION)
		assert_detail(&without, "probe.clientCert");
}

static void test_client_certificate(void **state)
{
	(void)state;
	check_client(0);
	check_client(TLS1_2_VERSION);
}

static void test_ipv6(void **state)
{
	struct world w = { 0 };
	struct server s;

	(void)state;
	if (!server_start(&s, &(struct script){ .answer = OK_ANSWER, .ipv6 = true }))
		skip();
	world_open(&w, &s.at);
	probe_once(&w);
	assert_outcome(&w, KLB_REASON_OK, 200);
	world_close(&w);
	assert_non_null(strstr(s.request, "Host: [::1]:"));
	server_stop(&s);
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
		struct world w = { .cfg = { .path = (char *)"/readyz?verbose",
					    .server_name = (char *)names[i] } };
		struct server s;

		assert_true(server_start(&s, &(struct script){ .answer = OK_ANSWER }));
		world_open(&w, &s.at);
		probe_once(&w);
		assert_outcome(&w, KLB_REASON_OK, 200);
		world_close(&w);
		server_stop(&s);
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
	struct world w = { 0 };
	struct server s;

	(void)state;
	assert_true(server_start(&s, &(struct script){ .answer = OK_ANSWER }));
	world_open(&w, &s.at);
	probe_once(&w);
	assert_int_equal(socket_option(IPPROTO_TCP, TCP_NODELAY), 1);
	assert_int_equal(socket_option(SOL_SOCKET, SO_KEEPALIVE), 1);
	assert_int_equal(socket_option(IPPROTO_TCP, TCP_KEEPIDLE), 1);
	assert_int_equal(socket_option(IPPROTO_TCP, TCP_KEEPINTVL), 1);
	assert_int_equal(socket_option(IPPROTO_TCP, TCP_KEEPCNT), 2);
	assert_int_equal(socket_option(IPPROTO_TCP, TCP_USER_TIMEOUT), 2000);
	world_close(&w);
	server_stop(&s);
}

/*
 * The kept connection
 */

static void check_keep_alive(const char *answer)
{
	struct world w = { 0 };
	struct server s;
	unsigned int i;

	assert_true(server_start(&s, &(struct script){ .answer = answer }));
	world_open(&w, &s.at);
	for (i = 0; i < 50; i++) {
		probe_once(&w);
		assert_outcome(&w, KLB_REASON_OK, 200);
		assert_int_equal(w.result.handshake, i == 0);
	}
	assert_int_equal(count(&s, ACCEPTED), 1);
	assert_int_equal(count(&s, HANDSHAKES), 1);
	assert_int_equal(count(&s, REQUESTS), 50);
	assert_int_equal(w.lost, 0);
	world_close(&w);
	await(&s, ENDED, 1);
	server_stop(&s);
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
	struct world w = { 0 };
	struct server s;

	(void)state;
	assert_true(server_start(
		&s,
		&(struct script){ .answer = "HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno" }));
	world_open(&w, &s.at);
	probe_once(&w);
	probe_once(&w);
	assert_outcome(&w, KLB_REASON_NOT_READY, 500);
	assert_int_equal(count(&s, HANDSHAKES), 1);
	world_close(&w);
	server_stop(&s);
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
		struct world w = { 0 };
		struct server s;

		assert_true(server_start(&s, &(struct script){ .answer = cases[i].answer,
							       .answer_length = cases[i].length }));
		world_open(&w, &s.at);
		probe_once(&w);
		assert_outcome(&w, KLB_REASON_OK, 200);
		probe_once(&w);
		assert_outcome(&w, KLB_REASON_OK, 200);
		assert_true(w.result.handshake);
		await(&s, ENDED, 2);
		assert_int_equal(count(&s, HANDSHAKES), 2);
		world_close(&w);
		server_stop(&s);
		assert_int_equal(w.lost, 0);
	}
}

static void test_endless_headers(void **state)
{
	static char headers[100 * 1024];
	struct world w = { 0 };
	size_t at;

	(void)state;
	at = (size_t)sprintf(headers, "HTTP/1.1 200 OK\r\n");
	while (at < sizeof(headers) - 16)
		at += (size_t)sprintf(headers + at, "X: yyyyy\r\n");
	expect(&w, &(struct script){ .answer = headers, .answer_length = at }, KLB_REASON_PROTOCOL,
	       0);
}

static void test_lost(void **state)
{
	struct world w = { 0 };
	struct server s;

	(void)state;
	assert_true(server_start(&s, &(struct script){ .answer = OK_ANSWER, .answers = 2 }));
	world_open(&w, &s.at);
	probe_once(&w);
	assert_int_equal(w.lost, 0);
	probe_once(&w);
	run_until(&w, &w.lost, 1);
	/* Once: nothing is left in the loop that could report it again. */
	assert_int_equal(event_base_loop(w.base, EVLOOP_NONBLOCK), 1);
	probe_once(&w);
	assert_outcome(&w, KLB_REASON_OK, 200);
	assert_true(w.result.handshake);
	probe_once(&w);
	run_until(&w, &w.lost, 2);
	assert_int_equal(w.done, 4);
	world_close(&w);
	server_stop(&s);
	assert_int_equal(w.lost, 2);
}

static void test_unasked(void **state)
{
	struct world w = { 0 };
	struct server s;

	(void)state;
	assert_true(
		server_start(&s, &(struct script){ .manner = MANNER_TALK, .answer = OK_ANSWER }));
	world_open(&w, &s.at);
	probe_once(&w);
	assert_outcome(&w, KLB_REASON_OK, 200);
	signal_event(s.go);
	run_until(&w, &w.lost, 1);
	await(&s, ENDED, 1);
	world_close(&w);
	server_stop(&s);
	assert_int_equal(w.done, 1);
	assert_int_equal(w.lost, 1);
}

static void test_lost_then_start(void **state)
{
	struct world w = { .hook = HOOK_START_IN_LOST };
	struct server s;

	(void)state;
	assert_true(server_start(&s, &(struct script){ .answer = OK_ANSWER, .answers = 1 }));
	world_open(&w, &s.at);
	start(&w);
	run_until(&w, &w.done, 3);
	assert_outcome(&w, KLB_REASON_OK, 200);
	assert_true(w.lost >= 2);
	world_close(&w);
	server_stop(&s);
}

/* The connection had ended before the request was sent: asked again on a new one. */
static void check_stale(bool abrupt)
{
	struct world w = { 0 };
	struct server s;

	assert_true(server_start(
		&s, &(struct script){ .answer = OK_ANSWER, .answers = 1, .abrupt = abrupt }));
	world_open(&w, &s.at);
	probe_once(&w);
	assert_int_equal(w.lost, 0);
	await(&s, ENDED, 1);
	/* The loop has not run since: the prober cannot know. */
	probe_once(&w);
	assert_outcome(&w, KLB_REASON_OK, 200);
	assert_true(w.result.handshake);
	assert_int_equal(count(&s, HANDSHAKES), 2);
	assert_int_equal(w.lost, 0);
	assert_int_equal(w.done, 2);
	assert_string_equal(w.detail, "");
	world_close(&w);
	server_stop(&s);
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
	struct world w = { 0 };
	struct server s;

	(void)state;
	assert_true(server_start(
		&s, &(struct script){ .answer = OK_ANSWER, .answers = 1, .hang_up_later = true }));
	world_open(&w, &s.at);
	probe_once(&w);
	await(&s, ENDED, 1);
	probe_once(&w);
	assert_outcome(&w, KLB_REASON_CLOSED, 0);
	assert_int_equal(count(&s, HANDSHAKES), 2);
	world_close(&w);
	server_stop(&s);
	assert_int_equal(w.lost, 0);
}

static void check_resumption(int max_version, bool abrupt)
{
	struct world w = { 0 };
	struct server s;
	unsigned int i;

	assert_true(server_start(&s, &(struct script){ .answer = OK_ANSWER,
						       .answers = 1,
						       .max_version = max_version,
						       .abrupt = abrupt }));
	world_open(&w, &s.at);
	for (i = 0; i < 5; i++) {
		probe_once(&w);
		assert_outcome(&w, KLB_REASON_OK, 200);
		run_until(&w, &w.lost, i + 1);
	}
	assert_int_equal(count(&s, HANDSHAKES), 5);
	assert_int_equal(count(&s, RESUMED), 4);
	world_close(&w);
	server_stop(&s);
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
	struct world w = { .cfg.insecure_skip_verify = true };
	struct server s;

	(void)state;
	assert_true(server_start(
		&s,
		&(struct script){ .answer = OK_ANSWER, .answers = 1, .identity = &pki.expired }));
	world_open(&w, &s.at);
	probe_once(&w);
	run_until(&w, &w.lost, 1);
	probe_once(&w);
	assert_outcome(&w, KLB_REASON_OK, 200);
	assert_int_equal(count(&s, HANDSHAKES), 2);
	assert_int_equal(count(&s, RESUMED), 0);
	world_close(&w);
	server_stop(&s);
}

/* A session that the server does not know must not get in the way. */
static void test_resumption_refused(void **state)
{
	struct script script = { .answer = OK_ANSWER, .answers = 1 };
	struct world w = { 0 };
	struct server s;
	SSL_CTX *other;

	(void)state;
	assert_true(server_start(&s, &script));
	world_open(&w, &s.at);
	probe_once(&w);
	run_until(&w, &w.lost, 1);
	/* Other ticket keys, as after a restart. The thread is waiting for a connection. */
	other = server_context(&script);
	pthread_mutex_lock(&s.lock);
	SSL_CTX_free(s.ctx);
	s.ctx = other;
	pthread_mutex_unlock(&s.lock);
	probe_once(&w);
	assert_outcome(&w, KLB_REASON_OK, 200);
	assert_int_equal(count(&s, HANDSHAKES), 2);
	assert_int_equal(count(&s, RESUMED), 0);
	world_close(&w);
	server_stop(&s);
}

/*
 * Coverage
 */

static void test_must_cover(void **state)
{
	struct klb_endpoint want[] = { endpoint("127.0.0.1:6443"), endpoint("10.0.0.9:443"),
				       endpoint("[::1]:6443"), endpoint("10.96.0.1:443") };
	struct world w = { 0 };
	struct server s;

	(void)state;
	assert_true(server_start(&s, &(struct script){ .answer = OK_ANSWER, .answers = 2 }));
	world_open_covering(&w, &s.at, want, ARRAY_SIZE(want));
	probe_once(&w);
	assert_int_equal(w.uncovered, 1);
	assert_true(endpoint_equal(&w.uncovered_at, &want[1]));
	/* Once a connection. */
	probe_once(&w);
	assert_int_equal(w.uncovered, 1);
	run_until(&w, &w.lost, 1);
	probe_once(&w);
	assert_int_equal(w.uncovered, 2);
	world_close(&w);
	server_stop(&s);
}

static void test_all_covered(void **state)
{
	struct klb_endpoint want[] = { endpoint("127.0.0.1:6443"), endpoint("[::1]:6443") };
	struct world w = { 0 };
	struct server s;

	(void)state;
	assert_true(server_start(&s, &(struct script){ .answer = OK_ANSWER }));
	world_open_covering(&w, &s.at, want, ARRAY_SIZE(want));
	memset(want, 0, sizeof(want)); /* copied */
	probe_once(&w);
	assert_outcome(&w, KLB_REASON_OK, 200);
	assert_int_equal(w.uncovered, 0);
	world_close(&w);
	server_stop(&s);
}

/*
 * Callbacks that call back
 */

static void test_free_in_done(void **state)
{
	struct world kept = { .hook = HOOK_FREE_IN_DONE };
	struct world closed = { .hook = HOOK_FREE_IN_DONE };
	struct world late = { .hook = HOOK_FREE_IN_DONE, .cfg.timeout_ms = TIMEOUT_SHORT_MS };

	(void)state;
	expect(&kept, &(struct script){ .answer = OK_ANSWER }, KLB_REASON_OK, 200);
	expect(&closed, &(struct script){ .manner = MANNER_HANG_UP }, KLB_REASON_CLOSED, 0);
	assert_detail(&closed, "closed");
	expect(&late, &(struct script){ .manner = MANNER_MUTE }, KLB_REASON_NO_ANSWER, 0);
	assert_detail(&late, "within");
}

static void test_free_in_done_deferred(void **state)
{
	struct world w = { .hook = HOOK_FREE_IN_DONE };
	struct klb_endpoint at = endpoint("255.255.255.255:6443");

	(void)state;
	world_open(&w, &at);
	probe_once(&w);
	assert_null(w.probe);
	world_close(&w);
}

static void test_free_in_lost(void **state)
{
	struct world w = { .hook = HOOK_FREE_IN_LOST };
	struct server s;

	(void)state;
	assert_true(server_start(&s, &(struct script){ .answer = OK_ANSWER, .answers = 1 }));
	world_open(&w, &s.at);
	probe_once(&w);
	run_until(&w, &w.lost, 1);
	assert_null(w.probe);
	world_close(&w);
	server_stop(&s);
}

static void test_free_in_not_covered(void **state)
{
	struct klb_endpoint want[] = { endpoint("10.0.0.9:443"), endpoint("10.0.0.10:443") };
	struct world w = { .hook = HOOK_FREE_IN_NOT_COVERED };
	struct server s;

	(void)state;
	assert_true(server_start(&s, &(struct script){ .answer = OK_ANSWER }));
	world_open_covering(&w, &s.at, want, ARRAY_SIZE(want));
	start(&w);
	run_until(&w, &w.uncovered, 1);
	assert_null(w.probe);
	await(&s, ACCEPTED, 1);
	world_close(&w);
	server_stop(&s);
	assert_int_equal(w.done, 0);
	assert_int_equal(w.uncovered, 1);
}

static void test_start_in_done(void **state)
{
	struct world kept = { .hook = HOOK_START_IN_DONE, .starts_left = 20 };
	struct world refused = { .hook = HOOK_START_IN_DONE, .starts_left = 5 };
	struct klb_endpoint at = endpoint("255.255.255.255:6443");
	struct server s;

	(void)state;
	assert_true(server_start(&s, &(struct script){ .answer = OK_ANSWER }));
	world_open(&kept, &s.at);
	start(&kept);
	run_until(&kept, &kept.done, 21);
	assert_outcome(&kept, KLB_REASON_OK, 200);
	assert_int_equal(count(&s, HANDSHAKES), 1);
	world_close(&kept);
	server_stop(&s);

	world_open(&refused, &at);
	start(&refused);
	run_until(&refused, &refused.done, 6);
	assert_outcome(&refused, KLB_REASON_UNREACHABLE, 0);
	assert_detail(&refused, "connect: ");
	world_close(&refused);
}

/* Frees the prober at every step of the event loop that a probe takes. */
static void test_free_at_any_time(void **state)
{
	struct server s;
	unsigned int steps, n;

	(void)state;
	assert_true(server_start(&s, &(struct script){ .answer = OK_ANSWER }));
	for (n = 0;; n++) {
		struct world w = { 0 };

		world_open(&w, &s.at);
		start(&w);
		for (steps = 0; steps < n && !w.done; steps++)
			event_base_loop(w.base, EVLOOP_ONCE);
		world_free_probe(&w);
		event_base_loop(w.base, EVLOOP_NONBLOCK);
		world_close(&w);
		if (w.done)
			break;
		assert_true(n < 1000);
	}
	assert_true(n > 2);
	server_stop(&s);
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
	char copy[128];
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
	snprintf(copy, sizeof(copy), "%s.copy", pki.ca_file);
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
	struct world w = { .cfg = { .path = path, .server_name = name } };
	struct server s;

	(void)state;
	assert_true(server_start(&s, &(struct script){ .answer = OK_ANSWER, .answers = 1 }));
	world_open(&w, &s.at);
	memset(path, 'x', strlen(path));
	memset(name, 'x', strlen(name));
	w.cfg.timeout_ms = 0;
	probe_once(&w);
	assert_outcome(&w, KLB_REASON_OK, 200);
	world_close(&w);
	server_stop(&s);
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
		assert_int_equal(probe_new(base, &cfg, tls, &at, NULL, 0, &ops, NULL, &p, &e),
				 -EINVAL);
		assert_null(p);
		assert_ptr_equal(strstr(e.text, cases[i].key), e.text);
		probe_tls_free(tls);
	}
	event_base_free(base);
}

static unsigned int open_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static int count_files(void **state)
{
	*state = (void *)(uintptr_t)open_files();
	return 0;
}

/* Whatever happened: no descriptor stays, and no error waits in OpenSSL's queue. */
static int check_leftovers(void **state)
{
	assert_int_equal(open_files(), (unsigned int)(uintptr_t)*state);
	assert_int_equal(ERR_peek_error(), 0);
	return 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, count_files, check_leftovers)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_answers),
		TEST(test_answer_limits),
		TEST(test_answer_nul),
		TEST(test_statuses),
		TEST(test_connect_failures),
		TEST(test_connect_timeout),
		TEST(test_no_answer),
		TEST(test_timeout_drops_connection),
		TEST(test_closed),
		TEST(test_tls_failures),
		TEST(test_certificates),
		TEST(test_intermediate_as_ca),
		TEST(test_client_certificate),
		TEST(test_ipv6),
		TEST(test_request),
		TEST(test_socket_options),
		TEST(test_keep_alive),
		TEST(test_keep_alive_not_ready),
		TEST(test_not_kept),
		TEST(test_endless_headers),
		TEST(test_lost),
		TEST(test_unasked),
		TEST(test_lost_then_start),
		TEST(test_stale),
		TEST(test_stale_once),
		TEST(test_resumption),
		TEST(test_expired_not_resumed),
		TEST(test_resumption_refused),
		TEST(test_must_cover),
		TEST(test_all_covered),
		TEST(test_free_in_done),
		TEST(test_free_in_done_deferred),
		TEST(test_free_in_lost),
		TEST(test_free_in_not_covered),
		TEST(test_start_in_done),
		TEST(test_free_at_any_time),
		TEST(test_bad_files),
		TEST(test_system_store),
		TEST(test_same_files),
		TEST(test_configuration_goes),
		TEST(test_bad_text),
	};

	/* SIGPIPE is not ignored here: that it ends nothing is the probe room's affair. */
	return cmocka_run_group_tests(tests, make_pki, remove_pki);
}
