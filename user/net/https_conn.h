/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One HTTPS connection as a client, with one GET at a time on it; and PINGs, where the owner offers
 * HTTP/2 and the other side takes it.
 *
 *   https_conn_open ─► connected() ─► opened()
 *   https_conn_get  ─► received()…
 *   https_conn_ping ─► pong()
 *
 * The owner has the time limits, and decides what a failure means.
 */
#ifndef KUBELB_HTTPS_CONN_H
#define KUBELB_HTTPS_CONN_H

#include <stdbool.h>
#include <stddef.h>

#include <kubelb/abi.h>

#include "net/http_response.h"
#include "net/tcp_connect.h"
#include "net/tls.h"

struct bufferevent;
struct event;
struct event_base;

/* How a connection ended, or why there is none. */
struct https_end {
	const char *step; /* "connect": which step failed; NULL: an established connection ended */
	const char *breach; /* how the other side has broken HTTP/2's rules; or NULL */
	const char *excess; /* what it has sent too much of; or NULL */
	bool refused; /* HTTP/2: the other side has ended the GET without an answer */
	short what; /* BEV_EVENT_…, of an established connection */
	int os_error; /* an errno; 0: the other side closed it, or TLS failed */
};

/*
 * Each is the last thing that the connection does in its turn of the event loop: the owner may
 * close it and free it inside. None is called from inside a function below.
 */
struct https_conn_ops {
	/* TCP is connected, and the TLS handshake begins. NULL is allowed. */
	void (*connected)(void *arg);
	/* The handshake is complete, and the certificate verifies. */
	void (*opened)(void *arg);
	/* More of the answer has come in; never ANSWER_PROGRESS_STEP. See c->answer. */
	void (*received)(void *arg, enum answer_progress progress);
	/* The other side sent something while no answer was due. Not with HTTP/2. */
	void (*unasked)(void *arg);
	/* HTTP/2: the last PING was answered. NULL is allowed, as for the next one. */
	void (*pong)(void *arg);
	/* HTTP/2: the other side takes no more GETs (GOAWAY), and is going to close. */
	void (*going)(void *arg);
	/* The connection failed: the owner closes it. */
	void (*ended)(void *arg, const struct https_end *end);
};

/* The owner sets the first group, and peer with tls_peer_init; the rest begins as zero. */
struct https_conn {
	struct event_base *base;
	const struct dial_patience *patience;
	size_t input_max; /* decrypted bytes that may wait in this process; 0: no limit */
	const struct tls_budget *budget; /* of what the other side sends */
	bool offer_h2; /* offer HTTP/2 as well */
	const struct https_conn_ops *ops;
	void *arg;

	struct tls_peer peer; /* keeps the session from one connection to the next */
	struct answer answer; /* to the last GET; with HTTP/2 the status alone */
	bool answering; /* and it is not complete */
	struct ssl_st *ssl; /* NULL: TCP is not connected */

	/* Private. */
	struct tls *tls;
	struct event *dialled; /* waits for the connect; NULL: not under way */
	int fd; /* belongs to dialled */
	struct bufferevent *bev;
	struct h2 *h2; /* NULL: the connection speaks HTTP/1.1 */
	int stream; /* of the GET that is not answered */
	__u64 pings;
	bool gone; /* GOAWAY has come */
	const char *breach; /* see https_end */
};

/* A GET, for either protocol. */
struct https_get {
	const char *request; /* HTTP/1.1: all of it */
	const char *path, *authority; /* HTTP/2; not used where it is not offered */
};

/* Begins to connect; c is closed. tls must live until it is closed. Returns 0 or -errno. */
int https_conn_open(struct https_conn *c, const struct klb_endpoint *to, struct tls *tls);
/* Whether the handshake has begun or is complete. */
bool https_conn_is_open(const struct https_conn *c);

/*
 * Sends a GET, of which it keeps no pointer; when open, and not while an answer is due. The owner
 * prepares c->answer first. Returns 0, -ENOMEM, or -ESHUTDOWN when HTTP/2 takes no more.
 */
int https_conn_get(struct https_conn *c, const struct https_get *get);
/* Gives up the answer that is due. Returns whether the connection can carry another GET. */
bool https_conn_cancel(struct https_conn *c);
/* Whether the connection can carry another GET after an answer. */
bool https_conn_is_kept(const struct https_conn *c);
/* Whether it is open and speaks HTTP/2. */
bool https_conn_is_h2(const struct https_conn *c);
/* Sends a PING, on HTTP/2; the answer to an earlier one is not reported any more. Returns 0 or
 * -ENOMEM. */
int https_conn_ping(struct https_conn *c);
/* Whether the other side's kernel has acknowledged all that was sent; true when not open. */
bool https_conn_is_acknowledged(const struct https_conn *c);

/* For ended(), before the close: why, also in one line of at most TLS_DETAIL_MAX bytes. */
enum klb_reason https_conn_reason(struct https_conn *c, const struct https_end *end, char *detail);

/* Ends what there is. polite: tells the other side, unless the connection has failed. */
void https_conn_close(struct https_conn *c, bool polite);
/* Closes, and forgets the session. */
void https_conn_reset(struct https_conn *c);

#endif
