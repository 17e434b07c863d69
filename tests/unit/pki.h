/* SPDX-License-Identifier: BSD-2-Clause */
/* Certificates for the tests that need them. Whatever fails here fails the test. */
#ifndef KUBELB_TESTS_PKI_H
#define KUBELB_TESTS_PKI_H

#include <openssl/evp.h>
#include <openssl/x509.h>

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

#endif
