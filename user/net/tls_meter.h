/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the other side of a TLS connection may send, and how much of it OpenSSL reads at a time.
 *
 * Some of what TLS carries is no data: tickets, key updates, requests for another handshake.
 * OpenSSL reads on behind it, and one call can last as long as more comes in. Reading through this,
 * each call ends after some kilobytes, and the connection ends after too much.
 */
#ifndef KUBELB_TLS_METER_H
#define KUBELB_TLS_METER_H

#include <stdbool.h>

#include <linux/types.h>

#include "base/pace.h"

struct bio_st;
struct ssl_st;

struct tls_budget {
	struct pace_limit bytes; /* as on the wire, handshake included */
	struct pace_limit reads; /* of the socket: a record takes two or more */
};

struct tls_meter {
	/* Set by the owner before tls_meter_attach; the rest begins as zero. */
	const struct tls_budget *budget; /* must outlive the connection */
	void (*exceeded)(void *arg); /* once, from within OpenSSL: see excess */
	void *arg;

	bool idle; /* the owner's: nothing is due from the other side, and it has answered before */
	/* What it has sent too much of, after "the apiserver "; NULL: all is within the budget. No
	 * more is read then. */
	const char *excess;

	/* Private. */
	struct pace bytes, reads;
	unsigned int in_a_row; /* bytes since OpenSSL was last told to wait */
	unsigned int messages; /* of the handshake's protocol */
};

/*
 * Has ssl read and write fd, which stays the caller's, through m, which must live until
 * tls_meter_detach. False when memory is short.
 */
bool tls_meter_attach(struct tls_meter *m, struct ssl_st *ssl, int fd);
/* Nothing is read any more. */
void tls_meter_detach(struct ssl_st *ssl);

#endif
