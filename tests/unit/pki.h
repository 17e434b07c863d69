/* SPDX-License-Identifier: BSD-2-Clause */
/* Certificates for the tests that need them. Whatever fails here fails the test. */
#ifndef KUBELB_TESTS_PKI_H
#define KUBELB_TESTS_PKI_H

#include <openssl/evp.h>
#include <openssl/x509.h>

#include "unit.h"

struct identity {
	EVP_PKEY *key;
	X509 *cert;
};

/* issuer NULL: a CA. expires_s: from now, may lie in the past. san may be NULL. */
struct identity pki_issue(const struct identity *issuer, const char *name, const char *san,
			  long expires_s);
/* Adds an extension, before the certificate is signed (again). */
void pki_extend(X509 *cert, X509 *issuer, int nid, const char *value);
void pki_discard(struct identity *id);

/* In PEM, into a new file. */
void pki_write_cert(const char *path, X509 *cert);
/* mode: "w", or "a" to have it follow what is there. passphrase may be NULL. */
void pki_write_key(const char *path, const char *mode, EVP_PKEY *key, const char *passphrase);

/*
 * One CA that the clients under test trust, one that they do not, and what servers and
 * clients show. In files as well, in the directory of make_dir (unit.h).
 */
struct pki {
	struct identity ca, other_ca;
	struct identity server, expired, elsewhere; /* of servers */
	struct identity client, renewed; /* of clients: "first" and "second" */
	char ca_file[PATH_SIZE], other_ca_file[PATH_SIZE];
	char client_cert[PATH_SIZE], client_key[PATH_SIZE];
	char other_key[PATH_SIZE]; /* another certificate's */
	char locked_key[PATH_SIZE]; /* by a passphrase */
	char text_file[PATH_SIZE]; /* no PEM */
};

extern struct pki pki;

/* What pki.server's certificate names. */
#define PKI_SERVER_SAN                                                                       \
	"IP:127.0.0.1,IP:::1,IP:10.96.0.1,DNS:kubernetes.test,DNS:localhost,DNS:kubernetes." \
	"default.svc"

/* Fixtures of a group, with make_dir and remove_made_dir in them. */
int pki_make(void **state);
int pki_remove(void **state);

#endif
