/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Verifies a server's certificates as Go's crypto/x509 does. OpenSSL differs in three ways:
 *
 *   - Of several trusted certificates with the same name it takes one, and fails when that one has
 *     not signed. During a rotation of kubeadm's CA there are two, often without key identifiers.
 *     Go tries them all.
 *   - It checks the key usage of a server's own certificate and refuses RSA keys below 2048 bits.
 *     Go does not check that key usage and accepts 1024 bits.
 *   - It accepts a trusted issuer without basicConstraints. Go does not, if it is of version 3.
 */
#include "net/tls_verify.h"

#include <stdbool.h>

#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "net/tls_cost.h"

/* Go's limit for RSA keys; SHA-1 signatures are refused by both. */
#define SECURITY_LEVEL 1

/* X509_get_version() counts from 0. */
#define VERSION_3 2

/* Reports a fault through the callback, which describes it. Returns 0. */
static int refuse(X509_STORE_CTX *ctx, X509 *cert, int code)
{
	X509_STORE_CTX_set_error(ctx, code);
	X509_STORE_CTX_set_current_cert(ctx, cert);
	X509_STORE_CTX_get_verify_cb(ctx)(0, ctx);
	return 0;
}

/* Certificate.CheckSignatureFrom, and for intermediates Certificate.isValid. */
static bool may_sign(X509 *issuer, bool is_last)
{
	if (X509_get_version(issuer) < VERSION_3)
		return is_last;
	return X509_check_ca(issuer) == 1;
}

/* checkChainForKeyUsage: without the extension every use is allowed. */
static bool is_for_servers(X509 *cert)
{
	uint32_t usage = X509_get_extended_key_usage(cert);

	return usage == UINT32_MAX || usage & (XKU_SSL_SERVER | XKU_ANYEKU);
}

/* The rules that OpenSSL does not have. The chain begins with the server's certificate. */
static int check_chain(X509_STORE_CTX *ctx, STACK_OF(X509) * chain)
{
	int n = sk_X509_num(chain);

	for (int i = 0; i < n; i++) {
		X509 *cert = sk_X509_value(chain, i);

		if (i > 0 && !may_sign(cert, i == n - 1))
			return refuse(ctx, cert, X509_V_ERR_INVALID_CA);
		if (!is_for_servers(cert))
			return refuse(ctx, cert, X509_V_ERR_INVALID_PURPOSE);
	}
	return 1;
}

static int ignore_fault(int ok, X509_STORE_CTX *ctx)
{
	(void)ctx;
	return ok;
}

/* Verifies with one trusted certificate alone. On success the chain becomes that of ctx. */
static bool verify_with(X509_STORE_CTX *ctx, X509 *issuer)
{
	X509_STORE_CTX *alone = X509_STORE_CTX_new();
	STACK_OF(X509) *trusted = sk_X509_new_null();
	bool ok = alone && trusted && sk_X509_push(trusted, issuer) &&
		  X509_STORE_CTX_init(alone, X509_STORE_CTX_get0_store(ctx),
				      X509_STORE_CTX_get0_cert(ctx),
				      X509_STORE_CTX_get0_untrusted(ctx)) &&
		  X509_VERIFY_PARAM_set1(X509_STORE_CTX_get0_param(alone),
					 X509_STORE_CTX_get0_param(ctx));

	if (ok) {
		X509_STORE_CTX_set0_trusted_stack(alone, trusted);
		X509_STORE_CTX_set_verify_cb(alone, ignore_fault);
		ok = X509_verify_cert(alone) == 1 &&
		     check_chain(alone, X509_STORE_CTX_get0_chain(alone));
	}
	if (ok) {
		X509_STORE_CTX_set0_verified_chain(ctx, X509_STORE_CTX_get1_chain(alone));
		X509_STORE_CTX_set_error(ctx, X509_V_OK);
	}
	sk_X509_free(trusted);
	X509_STORE_CTX_free(alone);
	return ok;
}

/* Tries each of several trusted certificates with that name. */
static bool verify_with_any(X509_STORE_CTX *ctx, const X509_NAME *name)
{
	STACK_OF(X509) *issuers = X509_STORE_CTX_get1_certs(ctx, name);
	bool ok = false;

	for (int i = 0; !ok && sk_X509_num(issuers) > 1 && i < sk_X509_num(issuers); i++)
		ok = verify_with(ctx, sk_X509_value(issuers, i));
	sk_X509_pop_free(issuers, X509_free);
	return ok;
}

/* With OpenSSL's rules and Go's, then with each trusted certificate alone where several have the
 * name of an issuer. */
static bool is_trusted(X509_STORE_CTX *ctx)
{
	const STACK_OF(X509) *sent = X509_STORE_CTX_get0_untrusted(ctx);

	if (X509_verify_cert(ctx) == 1 && check_chain(ctx, X509_STORE_CTX_get0_chain(ctx)))
		return true;
	if (verify_with_any(ctx, X509_get_issuer_name(X509_STORE_CTX_get0_cert(ctx))))
		return true;
	/* The first one sent is the server's own. */
	for (int i = 1; i < sk_X509_num(sent); i++)
		if (verify_with_any(ctx, X509_get_issuer_name(sk_X509_value(sent, i))))
			return true;
	return false;
}

/* Before anything is computed with what the server has sent. */
static int check_cost(X509_STORE_CTX *ctx)
{
	const STACK_OF(X509) *sent = X509_STORE_CTX_get0_untrusted(ctx);
	X509 *costly;

	if (sk_X509_num(sent) > TLS_COST_SENT_MAX)
		return refuse(ctx, X509_STORE_CTX_get0_cert(ctx), X509_V_ERR_CERT_CHAIN_TOO_LONG);
	costly = tls_cost_find(sent);
	if (costly)
		return refuse(ctx, costly, TLS_VERIFY_KEY);
	return 1;
}

static int verify(X509_STORE_CTX *ctx, void *arg)
{
	bool ok;

	(void)arg;
	if (!check_cost(ctx))
		return 0;
	/* Not "ssl_server": see is_for_servers. */
	X509_VERIFY_PARAM_set_purpose(X509_STORE_CTX_get0_param(ctx), X509_PURPOSE_ANY);
	ERR_set_mark();
	ok = is_trusted(ctx);
	/* The errors of attempts that failed before one succeeded. */
	if (ok)
		ERR_pop_to_mark();
	else
		ERR_clear_last_mark();
	return ok;
}

static int verify_cost(X509_STORE_CTX *ctx, void *arg)
{
	(void)arg;
	return check_cost(ctx);
}

void tls_verify_set_up_insecure(SSL_CTX *ctx)
{
	SSL_CTX_set_cert_verify_callback(ctx, verify_cost, NULL);
}

void tls_verify_set_up(SSL_CTX *ctx)
{
	SSL_CTX_set_security_level(ctx, SECURITY_LEVEL);
	SSL_CTX_set_cert_verify_callback(ctx, verify, NULL);
}
