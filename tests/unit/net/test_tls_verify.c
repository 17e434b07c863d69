/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which certificates of a server are accepted: those that Go's crypto/x509 accepts. Each case is
 * a handshake in memory.
 */
#include <string.h>

#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/param_build.h>
#include <openssl/rsa.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "net/tls_verify.h"
#include "pki.h"

/* A certificate to be made. */
struct recipe {
	const char *name;
	const struct identity *issuer; /* NULL: itself */
	const char *basic; /* basicConstraints */
	const char *usage; /* keyUsage */
	const char *extended; /* extendedKeyUsage */
	unsigned int rsa_bits; /* 0: P-256 */
	bool version_1;
	const EVP_MD *digest; /* NULL: SHA-256 */
};

static struct identity make(const struct recipe *r)
{
	static long serial = 1000;
	struct identity id = { .key = r->rsa_bits ? EVP_RSA_gen(r->rsa_bits) : EVP_EC_gen("P-256"),
			       .cert = X509_new() };
	X509 *issuer = r->issuer ? r->issuer->cert : id.cert;
	X509_NAME *subject = X509_get_subject_name(id.cert);

	assert_non_null(id.key);
	X509_set_version(id.cert, r->version_1 ? X509_VERSION_1 : X509_VERSION_3);
	ASN1_INTEGER_set(X509_get_serialNumber(id.cert), serial++);
	X509_gmtime_adj(X509_getm_notBefore(id.cert), -86400L);
	X509_gmtime_adj(X509_getm_notAfter(id.cert), 86400L);
	X509_set_pubkey(id.cert, id.key);
	X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)r->name, -1,
				   -1, 0);
	X509_set_issuer_name(id.cert, X509_get_subject_name(issuer));
	if (r->basic)
		pki_extend(id.cert, issuer, NID_basic_constraints, r->basic);
	if (r->usage)
		pki_extend(id.cert, issuer, NID_key_usage, r->usage);
	if (r->extended)
		pki_extend(id.cert, issuer, NID_ext_key_usage, r->extended);
	assert_true(X509_sign(id.cert, r->issuer ? r->issuer->key : id.key,
			      r->digest ? r->digest : EVP_sha256()) > 0);
	return id;
}

#define CA "critical,CA:TRUE"
#define SIGNS "critical,digitalSignature,keyEncipherment,keyCertSign"
#define SERVES "critical,digitalSignature,keyEncipherment"

static struct identity make_ca(const char *name)
{
	return make(&(struct recipe){ .name = name, .basic = CA, .usage = SIGNS });
}

/* Moves what one side has sent to the other. */
static void pass_on(BIO *from, BIO *to)
{
	char buf[4096];
	int n;

	while ((n = BIO_read(from, buf, sizeof(buf))) > 0)
		assert_int_equal(BIO_write(to, buf, n), n);
}

static bool shake_hands(SSL_CTX *client_ctx, SSL_CTX *server_ctx)
{
	BIO *up = BIO_new(BIO_s_mem()), *down = BIO_new(BIO_s_mem());
	BIO *up_end = BIO_new(BIO_s_mem()), *down_end = BIO_new(BIO_s_mem());
	SSL *client = SSL_new(client_ctx), *server = SSL_new(server_ctx);
	bool done = false;

	SSL_set_bio(client, down_end, up);
	SSL_set_bio(server, up_end, down);
	for (int i = 0; i < 10 && !done; i++) {
		done = SSL_connect(client) == 1;
		pass_on(up, up_end);
		SSL_accept(server);
		pass_on(down, down_end);
	}
	SSL_free(client);
	SSL_free(server);
	return done;
}

static bool insecure; /* the client trusts everybody */

/* Whether a client that trusts these accepts the server's certificate, sent with so many times the
 * other. */
static bool accepts_with(const struct identity *const *trusted, const struct identity *server,
			 const struct identity *sent, unsigned int times)
{
	SSL_CTX *client = SSL_CTX_new(TLS_client_method()),
		*peer = SSL_CTX_new(TLS_server_method());
	bool ok;

	SSL_CTX_set_verify(client, SSL_VERIFY_PEER, NULL);
	X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(client), X509_V_FLAG_PARTIAL_CHAIN);
	for (; *trusted; trusted++)
		assert_int_equal(
			X509_STORE_add_cert(SSL_CTX_get_cert_store(client), (*trusted)->cert), 1);
	if (insecure)
		tls_verify_set_up_insecure(client);
	else
		tls_verify_set_up(client);
	/* Whatever the server's own library thinks of its certificate. */
	SSL_CTX_set_security_level(peer, 0);
	assert_int_equal(SSL_CTX_use_certificate(peer, server->cert), 1);
	assert_int_equal(SSL_CTX_use_PrivateKey(peer, server->key), 1);
	for (unsigned int i = 0; i < times; i++)
		assert_int_equal(SSL_CTX_add1_chain_cert(peer, sent->cert), 1);
	ok = shake_hands(client, peer);
	if (ok)
		assert_int_equal(ERR_peek_error(), 0);
	ERR_clear_error();
	SSL_CTX_free(client);
	SSL_CTX_free(peer);
	return ok;
}

static bool accepts(const struct identity *const *trusted, const struct identity *server,
		    const struct identity *sent)
{
	return accepts_with(trusted, server, sent, sent ? 1 : 0);
}

#define TRUSTS(...) ((const struct identity *const[]){ __VA_ARGS__, NULL })

/* kubeadm's rotation: old and new CA have one name, and no key identifiers tell them apart. */
static void several_of_one_name(void **state)
{
	struct identity ca[3], stranger = make_ca("kubernetes"), server;

	(void)state;
	for (int i = 0; i < 3; i++)
		ca[i] = make_ca("kubernetes");
	for (int i = 0; i < 3; i++) {
		server = make(&(struct recipe){
			.name = "kube-apiserver", .issuer = &ca[i], .usage = SERVES });
		assert_true(accepts(TRUSTS(&ca[0], &ca[1], &ca[2]), &server, NULL));
		assert_true(accepts(TRUSTS(&ca[2], &ca[1], &ca[0]), &server, NULL));
		assert_true(accepts(TRUSTS(&ca[i], &stranger), &server, NULL));
		assert_false(accepts(TRUSTS(&stranger), &server, NULL));
		assert_false(accepts(TRUSTS(&stranger, &ca[(i + 1) % 3]), &server, NULL));
		pki_discard(&server);
	}
	for (int i = 0; i < 3; i++)
		pki_discard(&ca[i]);
	pki_discard(&stranger);
}

/* The same one level up: the server sends an intermediate. */
static void several_behind_an_intermediate(void **state)
{
	struct identity a = make_ca("root"), b = make_ca("root");
	struct identity between = make(
		&(struct recipe){ .name = "between", .issuer = &b, .basic = CA, .usage = SIGNS });
	struct identity server = make(&(struct recipe){ .name = "server", .issuer = &between });

	(void)state;
	assert_true(accepts(TRUSTS(&a, &b), &server, &between));
	assert_true(accepts(TRUSTS(&b, &a), &server, &between));
	assert_false(accepts(TRUSTS(&a), &server, &between));
	assert_true(accepts(TRUSTS(&between), &server, NULL));
	pki_discard(&server);
	pki_discard(&between);
	pki_discard(&a);
	pki_discard(&b);
}

/* What the server's own certificate may be. */
static void of_the_server(void **state)
{
	const struct {
		struct recipe recipe;
		bool accepted;
	} cases[] = {
		{ { .usage = SERVES, .extended = "serverAuth" }, true },
		{ { .usage = NULL, .extended = NULL }, true },
		{ { .extended = "anyExtendedKeyUsage" }, true },
		{ { .extended = "clientAuth,serverAuth" }, true },
		{ { .extended = "clientAuth" }, false },
		{ { .extended = "codeSigning" }, false },
		/* crypto/x509 does not look at the key usage of a server. */
		{ { .usage = "critical,keyCertSign", .rsa_bits = 2048 }, true },
		{ { .basic = CA, .usage = SIGNS, .extended = "serverAuth" }, true },
		{ { .rsa_bits = 1024 }, true },
		{ { .digest = EVP_sha1() }, false },
		{ { .version_1 = true }, true },
	};
	struct identity ca = make_ca("kubernetes");

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct recipe recipe = cases[i].recipe;
		struct identity server;

		recipe.name = "kube-apiserver";
		recipe.issuer = &ca;
		server = make(&recipe);
		if (accepts(TRUSTS(&ca), &server, NULL) != cases[i].accepted)
			fail_msg("case %zu", i);
		pki_discard(&server);
	}
	pki_discard(&ca);
}

/* What its issuer may be. */
static void of_the_issuer(void **state)
{
	const struct {
		struct recipe recipe;
		bool accepted;
	} cases[] = {
		{ { .basic = CA, .usage = SIGNS }, true },
		{ { .basic = CA }, true },
		{ { .basic = CA, .usage = "digitalSignature" }, false },
		{ { .basic = "CA:FALSE", .usage = SIGNS }, false },
		/* Version 3 without basicConstraints is no CA, whatever it is used for. */
		{ { .basic = NULL }, false },
		{ { .usage = SIGNS }, false },
		{ { .version_1 = true }, true },
		{ { .basic = CA, .extended = "serverAuth" }, true },
		{ { .basic = CA, .extended = "clientAuth" }, false },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct recipe recipe = cases[i].recipe;
		struct identity ca, server;

		recipe.name = "kubernetes";
		ca = make(&recipe);
		server = make(&(struct recipe){ .name = "kube-apiserver", .issuer = &ca });
		if (accepts(TRUSTS(&ca), &server, NULL) != cases[i].accepted)
			fail_msg("case %zu", i);
		pki_discard(&server);
		pki_discard(&ca);
	}
}

/* A trusted certificate that is the server's own. */
static void itself(void **state)
{
	struct identity server = make(&(struct recipe){ .name = "server", .usage = SERVES });

	(void)state;
	assert_true(accepts(TRUSTS(&server), &server, NULL));
	pki_discard(&server);
}

/* A public key that nobody has the other half of. */
static EVP_PKEY *rsa_key(int bits, unsigned long long exponent)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
	BIGNUM *n = BN_new();
	OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
	OSSL_PARAM *params;
	EVP_PKEY *key = NULL;

	assert_int_equal(BN_rand(n, bits, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ODD), 1);
	assert_int_equal(OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, n), 1);
	assert_int_equal(OSSL_PARAM_BLD_push_uint64(build, OSSL_PKEY_PARAM_RSA_E, exponent), 1);
	params = OSSL_PARAM_BLD_to_param(build);
	assert_int_equal(EVP_PKEY_fromdata_init(ctx), 1);
	assert_int_equal(EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params), 1);
	OSSL_PARAM_free(params);
	OSSL_PARAM_BLD_free(build);
	BN_free(n);
	EVP_PKEY_CTX_free(ctx);
	return key;
}

/* A certificate of that key, which becomes its own, signed by whoever. */
static struct identity with_key(const struct identity *signer, EVP_PKEY *key)
{
	struct identity id = make(&(struct recipe){ .name = "idle", .issuer = signer });

	assert_non_null(key);
	EVP_PKEY_free(id.key);
	id.key = key;
	X509_set_pubkey(id.cert, key);
	assert_true(X509_sign(id.cert, signer->key, EVP_sha256()) > 0);
	return id;
}

/* Refused before it is used, be it needed for the chain or not. */
static void costly_keys(void **state)
{
	struct identity ca = make_ca("kubernetes"),
			server = make(&(struct recipe){ .name = "server", .issuer = &ca });
	struct {
		EVP_PKEY *key;
		bool accepted;
	} cases[] = {
		{ rsa_key(8192, 65537), true },
		{ rsa_key(8200, 65537), false },
		{ rsa_key(16384, 65537), false },
		{ rsa_key(2048, (1ULL << 31) - 1), true },
		{ rsa_key(2048, (1ULL << 40) + 1), false },
		{ EVP_EC_gen("P-521"), true },
		{ EVP_EC_gen("sect571r1"), false },
		{ EVP_EC_gen("brainpoolP512r1"), false },
		{ EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"), true },
		{ EVP_PKEY_Q_keygen(NULL, NULL, "ED448"), false },
	};

	(void)state;
	for (size_t i = 0; i < 2 * ARRAY_SIZE(cases); i++) {
		struct identity sent = with_key(&ca, cases[i / 2].key);

		insecure = i % 2;
		EVP_PKEY_up_ref(sent.key);
		if (accepts(TRUSTS(&ca), &server, &sent) != cases[i / 2].accepted)
			fail_msg("case %zu", i);
		insecure = false;
		pki_discard(&sent);
	}
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		EVP_PKEY_free(cases[i].key);
	pki_discard(&server);
	pki_discard(&ca);
}

/* Each certificate may have to be tried with each trusted one of a name. */
static void long_chains(void **state)
{
	struct identity ca = make_ca("kubernetes"),
			server = make(&(struct recipe){ .name = "server", .issuer = &ca });

	(void)state;
	assert_true(accepts_with(TRUSTS(&ca), &server, &ca, 9));
	assert_false(accepts_with(TRUSTS(&ca), &server, &ca, 10));
	pki_discard(&server);
	pki_discard(&ca);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		LEAVES_NOTHING(several_of_one_name),
		LEAVES_NOTHING(several_behind_an_intermediate),
		LEAVES_NOTHING(of_the_server),
		LEAVES_NOTHING(of_the_issuer),
		LEAVES_NOTHING(itself),
		LEAVES_NOTHING(costly_keys),
		LEAVES_NOTHING(long_chains),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
