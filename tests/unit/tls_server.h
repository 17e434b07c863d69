/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A TLS server whose behaviour a test sets: a thread of the test, on an ephemeral port of the
 * loopback. One connection at a time.
 */
#ifndef KUBELB_TESTS_TLS_SERVER_H
#define KUBELB_TESTS_TLS_SERVER_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include <kubelb/abi.h>

#include <openssl/ssl.h>

struct identity;

#define OK_ANSWER "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

enum manner {
	MANNER_ANSWER, /* gives script.answer to every request */
	MANNER_MUTE, /* accepts, and says nothing */
	MANNER_MUTE_TLS, /* shakes hands, and answers nothing */
	MANNER_HANG_UP, /* closes when the request has come */
	MANNER_RESET, /* the same, with a RST */
	MANNER_HANG_UP_AT_ONCE, /* closes in place of a handshake */
	MANNER_PLAIN, /* speaks HTTP where TLS is expected */
	MANNER_TALK, /* answers, and says more when nothing was asked */
	MANNER_TICKETS, /* answers, and when told to, sends TLS session tickets without end */
	MANNER_TICKETS_FIRST, /* sends tickets without end in place of an answer */
	MANNER_LATE_GARBAGE, /* answers once; later what is no answer, twice, when told to */
	MANNER_KEY_UPDATES, /* the same with requests for new keys */
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
	const char *ciphers, *groups; /* OpenSSL's lists; NULL: any */
	bool no_http; /* turns down HTTP of any version (ALPN) */
	bool ipv6;
};

enum counter { ACCEPTED, HANDSHAKES, RESUMED, REQUESTS, ENDED, COUNTERS };

struct tls_server {
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

/* Returns false when the host has no such loopback. */
bool tls_server_start(struct tls_server *s, const struct script *script);
void tls_server_stop(struct tls_server *s);

unsigned int tls_server_count(struct tls_server *s, enum counter which);
/* Until the count is n or more; runs no event loop. */
void tls_server_await(struct tls_server *s, enum counter which, unsigned int n);

/* With keys of its own, as after a restart. */
SSL_CTX *tls_server_context(const struct script *script);

#endif
