/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The client's side of TLS, for the probes and for discovery: what is loaded once, how a
 * certificate is checked, and what a failure means.
 */
#ifndef KUBELB_TLS_H
#define KUBELB_TLS_H

#include <stdbool.h>
#include <stddef.h>

#include <kubelb/abi.h>

#include "base/err.h"
#include "net/tls_meter.h"

struct bufferevent;
struct ssl_session_st;
struct ssl_st;
struct tls;

/* A detail is one line; the names in a certificate are the peer's and may be long. */
#define TLS_DETAIL_MAX 384

/* Something in PEM. With neither data nor file it is absent. */
struct tls_pem {
	const char *key; /* what messages call it: "probe.ca" */
	const char *data; /* the PEM itself; goes before file */
	size_t length; /* of data */
	const char *file;
};

/* What messages call things. */
struct tls_words {
	const char *peer; /* the other side: "backend" */
	const char *give_certificate; /* advice for a peer that asks for a client certificate */
};

struct tls_options {
	struct tls_pem ca; /* absent: the system's trust store */
	struct tls_pem cert, key; /* the client's own; both or neither */
	bool insecure; /* verify nothing */
	bool any_name; /* verify the certificate, whatever it names: the caller has tls_covers */
	const struct tls_words *words; /* must outlive the object */
};

/*
 * Reads the files and keeps their contents: o may be freed afterwards. Returns 0 and an object to
 * free with tls_free, or -EINVAL with e naming the key and the file. Makes the process ignore
 * SIGPIPE unless it handles it already: OpenSSL writes to sockets that a peer may have reset.
 */
int tls_new(const struct tls_options *o, struct tls **ret, struct err *e);
void tls_free(struct tls *tls);
/*
 * Whether both were made from the same contents; the names of files do not count. An object that
 * uses the system's trust store equals none, because the contents are not known.
 */
bool tls_is_same(const struct tls *x, const struct tls *y);

/* What is wrong with a certificate that was refused. */
enum tls_fault {
	TLS_FAULT_NONE, /* nothing: it was not refused */
	TLS_FAULT_NAME, /* it does not have the name */
	TLS_FAULT_TIME, /* it is not valid yet, or not any more */
	TLS_FAULT_ISSUER, /* no trusted CA has issued it, or another of these rules is broken */
};

/* What is known about one server, and kept from one connection to the next. */
struct tls_peer {
	const char *dns; /* the name that the certificate must have, or NULL: address */
	struct klb_endpoint address;
	const struct tls_words *words;
	struct ssl_session_st *session; /* to resume on the next connection, or NULL */
	char refusal[TLS_DETAIL_MAX]; /* why the certificate does not verify, or "" */
	enum tls_fault fault; /* of that certificate */
	__s64 refused_expires_s; /* of that certificate, as tls_expires_s; 0: not refused */
	struct tls_meter meter; /* of the connection there is */
};

/*
 * server_name (not copied) may be NULL, an address or a DNS name: what the
 * certificate must name, by default the address.
 */
void tls_peer_init(struct tls_peer *peer, const char *server_name,
		   const struct klb_endpoint *address);
/* Forgets the session. */
void tls_peer_reset(struct tls_peer *peer);

/*
 * A TLS client for one new connection, which resumes peer's session when there
 * is one; NULL when memory is short. It reads fd, which stays the caller's, through peer->meter,
 * which the caller has set. peer must live until tls_hang_up.
 */
struct ssl_st *tls_connection(struct tls *tls, struct tls_peer *peer, int fd);

/* Offers HTTP/2 before HTTP/1.1 (ALPN, RFC 7301); before the handshake. False: no memory. */
bool tls_offer_h2(struct ssl_st *ssl);
/* Whether the other side has chosen HTTP/2. */
bool tls_chose_h2(struct ssl_st *ssl);

/*
 * To be called before ssl is freed. Leaves the session fit to be resumed. polite: tells the other
 * side first, which is only allowed on a connection that has not failed.
 */
void tls_hang_up(struct ssl_st *ssl, bool polite);

/*
 * Finds out why bev reported BEV_EVENT_ERROR or BEV_EVENT_EOF; os_error: errno in bev's callback.
 * Fills detail (TLS_DETAIL_MAX).
 */
enum klb_reason tls_failure(struct tls_peer *peer, struct bufferevent *bev, short what,
			    int os_error, char *detail);

/* Whether the SANs of the other side's certificate name this address. */
bool tls_covers(struct ssl_st *ssl, const struct klb_endpoint *address);

/*
 * When the other side's certificate expires, in Unix time: that of ssl's connection, or the one
 * that was refused. ssl may be NULL. 0: none has been seen.
 */
__s64 tls_expires_s(const struct tls_peer *peer, struct ssl_st *ssl);
/* The same of the client's own certificate; 0: there is none. */
__s64 tls_own_expires_s(const struct tls *tls);

/* The reason for what connect(2) or an established connection failed with. */
enum klb_reason tls_socket_reason(int os_error);

#endif
