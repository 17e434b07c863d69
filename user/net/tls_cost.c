/* SPDX-License-Identifier: BSD-2-Clause */
#include "net/tls_cost.h"

#include <stdio.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/evp.h>

#include "base/array.h"

/* Go's limits: crypto/tls' maxRSAKeySize, and an exponent that fits into 31 bits (crypto/rsa). */
#define RSA_BITS_MAX 8192
#define EXPONENT_BITS_MAX 31

/* OpenSSL decodes each certificate, in a fifth of a millisecond, before anybody can count them. */
#define CERTIFICATES_BYTES_MAX 32768

/* Without DHE: the server chooses the prime, and OpenSSL computes with 10,000 bits for a second. */
#define CIPHERS "ECDHE:!aNULL:!eNULL:!3DES:!RC4"

/* Nor the finite fields of TLS 1.3, of up to 8192 bits. FIPS builds may lack the first curve. */
static bool set_groups(SSL_CTX *ctx)
{
	return SSL_CTX_set1_groups_list(ctx, "X25519:P-256:P-384:P-521") == 1 ||
	       SSL_CTX_set1_groups_list(ctx, "P-256:P-384:P-521") == 1;
}

bool tls_cost_set_up(SSL_CTX *ctx)
{
	SSL_CTX_set_verify_depth(ctx, TLS_COST_SENT_MAX);
	SSL_CTX_set_max_cert_list(ctx, CERTIFICATES_BYTES_MAX);
#ifdef SSL_OP_NO_RX_CERTIFICATE_COMPRESSION
	SSL_CTX_set_options(ctx, SSL_OP_NO_RX_CERTIFICATE_COMPRESSION);
#endif
	return SSL_CTX_set_cipher_list(ctx, CIPHERS) == 1 && set_groups(ctx);
}

static bool is_good_rsa(EVP_PKEY *key)
{
	BIGNUM *exponent = NULL;
	bool good = EVP_PKEY_get_bits(key) <= RSA_BITS_MAX &&
		    EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_E, &exponent) == 1 &&
		    BN_num_bits(exponent) <= EXPONENT_BITS_MAX;

	BN_free(exponent);
	return good;
}

static bool is_good_curve(EVP_PKEY *key)
{
	static const char *const curves[] = { "secp224r1", "prime256v1", "secp384r1", "secp521r1" };
	char name[32];

	if (EVP_PKEY_get_group_name(key, name, sizeof(name), NULL) != 1)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(curves); i++)
		if (!strcmp(name, curves[i]))
			return true;
	return false;
}

static bool is_good(X509 *cert)
{
	EVP_PKEY *key = X509_get0_pubkey(cert);

	/* With none that OpenSSL can read, nothing is computed. */
	if (!key || EVP_PKEY_is_a(key, "ED25519"))
		return true;
	if (EVP_PKEY_is_a(key, "RSA") || EVP_PKEY_is_a(key, "RSA-PSS"))
		return is_good_rsa(key);
	return EVP_PKEY_is_a(key, "EC") && is_good_curve(key);
}

X509 *tls_cost_find(const STACK_OF(X509) * sent)
{
	for (int i = 0; i < sk_X509_num(sent); i++)
		if (!is_good(sk_X509_value(sent, i)))
			return sk_X509_value(sent, i);
	return NULL;
}
