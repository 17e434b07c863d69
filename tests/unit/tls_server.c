/* SPDX-License-Identifier: BSD-2-Clause */
#include "tls_server.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <openssl/err.h>

#include "pki.h"

static void bump(struct tls_server *s, enum counter which)
{
	pthread_mutex_lock(&s->lock);
	s->count[which]++;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

unsigned int tls_server_count(struct tls_server *s, enum counter which)
{
	unsigned int n;

	pthread_mutex_lock(&s->lock);
	n = s->count[which];
	pthread_mutex_unlock(&s->lock);
	return n;
}

void tls_server_await(struct tls_server *s, enum counter which, unsigned int n)
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
static bool wait_for(struct tls_server *s, int fd, short events)
{
	struct pollfd fds[] = { { .fd = fd, .events = events },
				{ .fd = s->stop, .events = POLLIN } };

	while (poll(fds, 2, -1) < 0)
		;
	return !fds[1].revents;
}

/* Returns false when the connection has ended or the server is to stop. */
static bool read_request(struct tls_server *s, SSL *ssl)
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
static bool talk(struct tls_server *s, SSL *ssl)
{
	static const char timeout[] = "HTTP/1.1 408 Request Timeout\r\n\r\n";
	uint64_t n;

	if (!wait_for(s, s->go, POLLIN))
		return false;
	return read(s->go, &n, sizeof(n)) == sizeof(n) &&
	       SSL_write(ssl, timeout, sizeof(timeout) - 1) > 0;
}

/*
 * Messages of the handshake's protocol, until the other side has had enough. OpenSSL says nothing
 * of a ticket that could not be sent.
 */
static void flood(SSL *ssl, bool key_updates)
{
	struct pollfd fd = { .fd = SSL_get_fd(ssl), .events = POLLRDHUP };
	int r = 1;

	while (r == 1 && !(poll(&fd, 1, 0) && fd.revents)) {
		r = key_updates ? SSL_key_update(ssl, SSL_KEY_UPDATE_REQUESTED)
				: SSL_new_session_ticket(ssl);
		if (r == 1)
			r = SSL_do_handshake(ssl);
	}
}

static bool speak_garbage(struct tls_server *s, SSL *ssl)
{
	static const char garbage[] = "\x01\x02 garbage\r\n\r\n";
	uint64_t n;

	return wait_for(s, s->go, POLLIN) && read(s->go, &n, sizeof(n)) == sizeof(n) &&
	       SSL_write(ssl, garbage, sizeof(garbage) - 1) > 0 &&
	       SSL_write(ssl, garbage, sizeof(garbage) - 1) > 0;
}

/* Returns false when the connection is over. */
static bool speak(struct tls_server *s, SSL *ssl, size_t length)
{
	enum manner manner = s->script.manner;
	uint64_t n;

	if (manner == MANNER_TICKETS_FIRST || manner == MANNER_KEY_UPDATES) {
		flood(ssl, manner == MANNER_KEY_UPDATES);
		return false;
	}
	if (manner == MANNER_LATE_GARBAGE && tls_server_count(s, REQUESTS) > 1)
		return speak_garbage(s, ssl);
	if (SSL_write(ssl, s->script.answer, (int)length) <= 0)
		return false;
	if (manner == MANNER_TICKETS && wait_for(s, s->go, POLLIN) &&
	    read(s->go, &n, sizeof(n)) == sizeof(n))
		flood(ssl, false);
	return manner != MANNER_TALK || talk(s, ssl);
}

static void answer_requests(struct tls_server *s, SSL *ssl, unsigned int connection)
{
	const struct script *script = &s->script;
	size_t length = script->answer_length;
	unsigned int n = 0;

	if (!length && script->answer)
		length = strlen(script->answer);
	while (read_request(s, ssl)) {
		if (script->manner == MANNER_MUTE_TLS)
			continue;
		if (script->manner == MANNER_HANG_UP || script->manner == MANNER_RESET)
			return;
		if (script->hang_up_later && connection > 1)
			return;
		if (!speak(s, ssl, length))
			return;
		if (++n == script->answers)
			return;
	}
}

static void note_client(struct tls_server *s, SSL *ssl)
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

static void serve_tls(struct tls_server *s, int fd, unsigned int connection)
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

static void serve(struct tls_server *s, int fd, unsigned int connection)
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
	struct tls_server *s = arg;
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

/* Turns down whatever is offered. */
static int choose_none(SSL *ssl, const unsigned char **out, unsigned char *length,
		       const unsigned char *in, unsigned int in_length, void *arg)
{
	(void)ssl;
	(void)out;
	(void)length;
	(void)in;
	(void)in_length;
	(void)arg;
	return SSL_TLSEXT_ERR_ALERT_FATAL;
}

SSL_CTX *tls_server_context(const struct script *script)
{
	struct identity *id = script->identity ? script->identity : &pki.server;
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());

	assert_non_null(ctx);
	assert_int_equal(SSL_CTX_use_certificate(ctx, id->cert), 1);
	assert_int_equal(SSL_CTX_use_PrivateKey(ctx, id->key), 1);
	SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"t", 1);
	if (script->max_version)
		SSL_CTX_set_max_proto_version(ctx, script->max_version);
	SSL_CTX_set_dh_auto(ctx, 1);
	if (script->ciphers)
		assert_int_equal(SSL_CTX_set_cipher_list(ctx, script->ciphers), 1);
	if (script->groups)
		assert_int_equal(SSL_CTX_set1_groups_list(ctx, script->groups), 1);
	if (script->no_http)
		SSL_CTX_set_alpn_select_cb(ctx, choose_none, NULL);
	if (script->want_client) {
		SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
		assert_int_equal(SSL_CTX_load_verify_file(ctx, pki.ca_file), 1);
	}
	return ctx;
}

bool tls_server_start(struct tls_server *s, const struct script *script)
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
	s->ctx = tls_server_context(script);
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, NULL);
	assert_int_equal(pthread_create(&s->thread, NULL, run_server, s), 0);
	return true;
}

void tls_server_stop(struct tls_server *s)
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
