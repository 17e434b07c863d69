/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Between the three parts of the probe room: probe.c (one backend's connection
 * and the probes on it), probe_tls.c (TLS and certificates) and probe_http.c
 * (HTTP answers). Nobody else includes this.
 */
#ifndef KUBELB_PROBE_INTERNAL_H
#define KUBELB_PROBE_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>

#include <openssl/ssl.h>

#include <kubelb/abi.h>

#include "endpoint.h"
#include "probe.h"

struct bufferevent;
struct evbuffer;

/* A detail is one line; the names in a certificate are the peer's and may be long. */
#define PROBE_DETAIL_MAX 384

/* What TLS needs to know, and to remember, of one backend. */
struct probe_peer {
	const char *dns; /* the name that the certificate must have, or NULL: address */
	struct klb_endpoint address;
	SSL_SESSION *session; /* to resume on the next connection, or NULL */
	char refusal[PROBE_DETAIL_MAX]; /* why the certificate does not verify, or "" */
};

/* server_name (not copied) may be NULL, an address or a DNS name. */
void probe_peer_init(struct probe_peer *peer, const char *server_name,
		     const struct klb_endpoint *backend);
/* Forgets the session. */
void probe_peer_reset(struct probe_peer *peer);

/*
 * A TLS client for one new connection, which resumes peer's session when there
 * is one; NULL when memory is short. peer must live until probe_tls_hang_up.
 */
SSL *probe_tls_connection(struct probe_tls *tls, struct probe_peer *peer);

/*
 * To be called before ssl is freed. Leaves the session fit to be resumed. polite:
 * tell the other side first, which only a connection that has not failed may do.
 */
void probe_tls_hang_up(SSL *ssl, bool polite);

/*
 * Tells why bev reported BEV_EVENT_ERROR or BEV_EVENT_EOF; os_error: errno as bev's
 * callback found it. Fills detail (PROBE_DETAIL_MAX).
 */
enum klb_reason probe_tls_failure(struct probe_peer *peer, struct bufferevent *bev, short what,
				  int os_error, char *detail);

/* Whether the SANs of the other side's certificate name this address. */
bool probe_tls_covers(SSL *ssl, const struct klb_endpoint *address);

/* The reason for what connect(2) or an established connection failed with. */
enum klb_reason probe_socket_reason(int os_error);

/* The GET for path, to be freed; NULL when memory is short. */
char *probe_request(const char *path, const struct probe_peer *peer);

/* How far an answer has come in. */
enum probe_progress {
	PROBE_PROGRESS_STEP, /* internal: look again */
	PROBE_PROGRESS_MORE, /* not complete */
	PROBE_PROGRESS_DONE, /* status and keep are valid */
	PROBE_PROGRESS_BAD, /* this is not HTTP/1 */
};

enum probe_answer_state {
	PROBE_ANSWER_STATUS,
	PROBE_ANSWER_HEADERS,
	PROBE_ANSWER_BODY,
	PROBE_ANSWER_CHUNK_SIZE,
	PROBE_ANSWER_CHUNK,
	PROBE_ANSWER_CHUNK_END,
	PROBE_ANSWER_TRAILERS,
};

enum probe_framing {
	PROBE_FRAMING_CLOSE, /* the body ends with the connection */
	PROBE_FRAMING_LENGTH,
	PROBE_FRAMING_CHUNKED,
};

/* Reads one answer to a GET. The content is thrown away as it comes in. */
struct probe_answer {
	enum probe_answer_state state;
	enum probe_framing framing;
	unsigned int status;
	bool started; /* a byte of it has arrived */
	bool keep; /* the connection may carry the next request */
	bool coded; /* a Transfer-Encoding was seen */
	size_t lines_left; /* bytes that lines of all kinds may still take */
	size_t body_left; /* bytes that content may still take */
	size_t pending; /* of the body or the chunk */
};

void probe_answer_init(struct probe_answer *a);
/* Takes what belongs to the answer out of in. Never returns PROBE_PROGRESS_STEP. */
enum probe_progress probe_answer_read(struct probe_answer *a, struct evbuffer *in);

#endif
