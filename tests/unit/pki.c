/* SPDX-License-Identifier: BSD-2-Clause */
#include "pki.h"

#include <stdio.h>

#include <openssl/pem.h>
#include <openssl/x509v3.h>

void pki_extend(X509 *cert, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX ctx;
	X509_EXTENSION *extension;

	X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	assert_non_null(extension);
	assert_int_equal(X509_add_ext(cert, extension, -1), 1);
	X509_EXTENSION_free(extension);
}

struct identity pki_issue(const struct identity *issuer, const char *name, const char *san,
			  long expires_s)
{
	static long serial = 1;
	struct identity id = { .key = EVP_EC_gen("P-256"), .cert = X509_new() };
	X509_NAME *subject;

	assert_non_null(id.key);
	assert_non_null(id.cert);
	X509_set_version(id.cert, X509_VERSION_3);
	ASN1_INTEGER_set(X509_get_serialNumber(id.cert), serial++);
	X509_gmtime_adj(X509_getm_notBefore(id.cert), -2 * 86400L);
	X509_gmtime_adj(X509_getm_notAfter(id.cert), expires_s);
	X509_set_pubkey(id.cert, id.key);
	subject = X509_get_subject_name(id.cert);
	X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1,
				   0);
	X509_set_issuer_name(id.cert, issuer ? X509_get_subject_name(issuer->cert) : subject);
	if (!issuer)
		pki_extend(id.cert, id.cert, NID_basic_constraints, "critical,CA:TRUE");
	if (san)
		pki_extend(id.cert, issuer->cert, NID_subject_alt_name, san);
	assert_true(X509_sign(id.cert, issuer ? issuer->key : id.key, EVP_sha256()) > 0);
	return id;
}

void pki_discard(struct identity *id)
{
	X509_free(id->cert);
	EVP_PKEY_free(id->key);
}

void pki_write_cert(const char *path, X509 *cert)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_int_equal(PEM_write_X509(f, cert), 1);
	fclose(f);
}

void pki_write_key(const char *path, const char *mode, EVP_PKEY *key, const char *passphrase)
{
	FILE *f = fopen(path, mode);
	char secret[16];

	assert_non_null(f);
	snprintf(secret, sizeof(secret), "%s", passphrase ? passphrase : "");
	assert_int_equal(PEM_write_PrivateKey(f, key, passphrase ? EVP_aes_128_cbc() : NULL, NULL,
					      0, NULL, passphrase ? secret : NULL),
			 1);
	fclose(f);
}

struct pki pki;

static void write_cert(char *path, const char *name, X509 *cert)
{
	in_dir(path, name);
	pki_write_cert(path, cert);
}

static void write_key(char *path, const char *name, EVP_PKEY *key, const char *passphrase)
{
	in_dir(path, name);
	pki_write_key(path, "w", key, passphrase);
}

int pki_make(void **state)
{
	make_dir(state);
	pki.ca = pki_issue(NULL, "ca", NULL, 86400);
	pki.other_ca = pki_issue(NULL, "other ca", NULL, 86400);
	pki.server = pki_issue(&pki.ca, "apiserver", PKI_SERVER_SAN, 86400);
	pki.expired = pki_issue(&pki.ca, "yesterday", PKI_SERVER_SAN, -86400);
	/* The common name is right: it must not count. */
	pki.elsewhere = pki_issue(&pki.ca, "kubernetes.test", "IP:192.0.2.1,DNS:elsewhere", 86400);
	pki.client = pki_issue(&pki.ca, "first", NULL, 86400);
	pki.renewed = pki_issue(&pki.ca, "second", NULL, 86400);
	write_cert(pki.ca_file, "ca.crt", pki.ca.cert);
	write_cert(pki.other_ca_file, "other-ca.crt", pki.other_ca.cert);
	write_cert(pki.client_cert, "client.crt", pki.client.cert);
	write_key(pki.client_key, "client.key", pki.client.key, NULL);
	write_key(pki.other_key, "other.key", pki.server.key, NULL);
	write_key(pki.locked_key, "locked.key", pki.client.key, "secret");
	in_dir(pki.text_file, "text");
	write_file(pki.text_file, "hello\n");
	return 0;
}

int pki_remove(void **state)
{
	struct identity *all[] = { &pki.ca,	   &pki.other_ca, &pki.server, &pki.expired,
				   &pki.elsewhere, &pki.client,	  &pki.renewed };

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		pki_discard(all[i]);
	return remove_made_dir(state);
}
