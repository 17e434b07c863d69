/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a server may have this client compute. A handshake is one call: with a key of its choice the
 * server would decide how long that takes.
 */
#ifndef KUBELB_TLS_COST_H
#define KUBELB_TLS_COST_H

#include <stdbool.h>

#include <openssl/ssl.h>

/* Has ctx offer those ways of agreeing on a key that cost about a millisecond, as Go does. False
 * when OpenSSL has none of them. */
bool tls_cost_set_up(SSL_CTX *ctx);

/* Of the certificates that a server has sent, the first with a key that Kubernetes' own clients
 * do not take either, because it costs too much or they do not know its kind; NULL: none. */
X509 *tls_cost_find(const STACK_OF(X509) * sent);

/* Certificates that a server may send, its own included. */
#define TLS_COST_SENT_MAX 10

#endif
