/* SPDX-License-Identifier: BSD-2-Clause */
/* What a certificate is worth, sessions, and the files, with a prober as the client. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "net/endpoint.h"
#include "pki.h"
#include "prober.h"
#include "tls_server.h"
#include "unit.h"

static void test_tls_failures(void **state)
{
	struct prober plain = { 0 }, old = { 0 }, none = { 0 };

	(void)state;
	expect_outcome(&plain, &(struct script){ .manner = MANNER_PLAIN }, KLB_REASON_TLS, 0);
	assert_says(plain.detail, "does not speak TLS");
	assert_false(plain.result.handshake);
	expect_outcome(&old, &(struct script){ .max_version = TLS1_1_VERSION }, KLB_REASON_TLS, 0);
	assert_says(old.detail, "TLS");
	expect_outcome(&none, &(struct script){ .no_http = true }, KLB_REASON_TLS, 0);
	assert_says(none.detail, "does not offer HTTP/1.1");
}

/* pki.server with an RSA key: DHE goes with no other. */
static struct identity rsa_server(void)
{
	struct identity id = pki_issue(&pki.ca, "rsa", PKI_SERVER_SAN, 86400);

	EVP_PKEY_free(id.key);
	id.key = EVP_RSA_gen(2048);
	assert_non_null(id.key);
	X509_set_pubkey(id.cert, id.key);
	assert_true(X509_sign(id.cert, pki.ca.key, EVP_sha256()) > 0);
	return id;
}

/* Finite fields cost as much as the server likes; elliptic curves do not. */
static void test_costly_agreements(void **state)
{
	struct identity rsa = rsa_server();
	const struct script refused[] = {
		{ .identity = &rsa, .max_version = TLS1_2_VERSION, .ciphers = "DHE" },
		{ .identity = &rsa, .max_version = TLS1_2_VERSION, .ciphers = "kRSA" },
		{ .groups = "ffdhe8192" },
		{ .groups = "X448" },
	};
	const struct script taken[] = {
		{ .answer = OK_ANSWER, .identity = &rsa, .max_version = TLS1_2_VERSION },
		{ .answer = OK_ANSWER, .max_version = TLS1_2_VERSION, .ciphers = "ECDHE" },
		{ .answer = OK_ANSWER, .groups = "P-521" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		struct prober p = { 0 };

		expect_outcome(&p, &refused[i], KLB_REASON_TLS, 0);
		assert_says(p.detail, "the alert 'handshake failure'");
	}
	for (size_t i = 0; i < ARRAY_SIZE(taken); i++) {
		struct prober p = { 0 };

		expect_outcome(&p, &taken[i], KLB_REASON_OK, 200);
	}
	pki_discard(&rsa);
}

static void assert_expires(const struct identity *id, __s64 expires_s)
{
	assert_int_equal(ASN1_TIME_cmp_time_t(X509_get0_notAfter(id->cert), expires_s), 0);
}

static void test_certificates(void **state)
{
	static const struct {
		const char *what;
		struct identity *identity;
		char *ca;
		const char *server_name;
		const char *detail; /* NULL: accepted */
	} cases[] = {
		{ "address", &pki.server, pki.ca_file, NULL, NULL },
		{ "name", &pki.server, pki.ca_file, "kubernetes.test", NULL },
		{ "other address", &pki.server, pki.ca_file, "10.96.0.1", NULL },
		{ "IPv6 address", &pki.server, pki.ca_file, "::1", NULL },
		{ "wrong CA", &pki.server, pki.other_ca_file, NULL, "issued by CN=ca" },
		{ "wrong name", &pki.server, pki.ca_file, "example.org",
		  "CN=apiserver does not name example.org" },
		{ "wrong address", &pki.server, pki.ca_file, "192.0.2.9",
		  "CN=apiserver does not name 192.0.2.9" },
		{ "common name", &pki.elsewhere, pki.ca_file, "kubernetes.test",
		  "does not name kubernetes.test" },
		{ "own address", &pki.elsewhere, pki.ca_file, NULL, "does not name 127.0.0.1" },
		{ "expired", &pki.expired, pki.ca_file, NULL,
		  "certificate has expired: CN=yesterday, issued by CN=ca" },
	};
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		struct script script = { .answer = OK_ANSWER, .identity = cases[i].identity };
		struct prober p = { .cfg = { .ca = cases[i].ca,
					     .server_name = (char *)cases[i].server_name } };
		struct prober blind = { .cfg = { .insecure_skip_verify = true,
						 .ca = (char *)"/nonexistent",
						 .server_name = (char *)cases[i].server_name } };

		expect_outcome(&p, &script,
			       cases[i].detail ? KLB_REASON_CERTIFICATE : KLB_REASON_OK,
			       cases[i].detail ? 0 : 200);
		assert_says(p.detail, cases[i].detail ? cases[i].detail : "");
		/* Of a certificate that is refused as well: above all of one that has expired. */
		assert_expires(cases[i].identity, p.result.certificate_expires_s);
		expect_outcome(&blind, &script, KLB_REASON_OK, 200);
	}
}

/* Trusted is what the file names, root or not, as for Kubernetes' own clients. */
static void test_intermediate_as_ca(void **state)
{
	struct identity middle = pki_issue(&pki.other_ca, "middle", NULL, 86400);
	struct identity leaf;
	struct prober p = { 0 };
	char path[PATH_SIZE];

	(void)state;
	pki_extend(middle.cert, pki.other_ca.cert, NID_basic_constraints, "critical,CA:TRUE");
	assert_true(X509_sign(middle.cert, pki.other_ca.key, EVP_sha256()) > 0);
	leaf = pki_issue(&middle, "leaf", PKI_SERVER_SAN, 86400);
	pki_write_cert(in_dir(path, "middle.crt"), middle.cert);
	p.cfg.ca = path;
	expect_outcome(&p, &(struct script){ .answer = OK_ANSWER, .identity = &leaf },
		       KLB_REASON_OK, 200);
	unlink(path);
	pki_discard(&leaf);
	pki_discard(&middle);
}

static void check_client(int max_version)
{
	struct script script = { .answer = OK_ANSWER,
				 .want_client = true,
				 .max_version = max_version };
	struct prober with = { .cfg = { .client_cert = pki.client_cert,
					.client_key = pki.client_key } };
	struct prober without = { 0 };

	expect_outcome(&with, &script, KLB_REASON_OK, 200);
	expect_outcome(&without, &script, KLB_REASON_TLS, 0);
	assert_true(strlen(without.detail) > 0);
	if (max_version != TLS1_2_VERSION)
		assert_says(without.detail, "probe.clientCert");
}

static void test_client_certificate(void **state)
{
	(void)state;
	check_client(0);
	check_client(TLS1_2_VERSION);
}

/*
 * Sessions
 */

static void check_resumption(int max_version, bool abrupt)
{
	struct prober p = { 0 };
	struct tls_server s;
	unsigned int i;

	prober_begin(&p, &s,
		     &(struct script){ .answer = OK_ANSWER,
				       .answers = 1,
				       .max_version = max_version,
				       .abrupt = abrupt });
	for (i = 0; i < 5; i++) {
		prober_once(&p);
		assert_outcome(&p, KLB_REASON_OK, 200);
		prober_run(&p, &p.lost, i + 1);
	}
	assert_int_equal(tls_server_count(&s, HANDSHAKES), 5);
	assert_int_equal(tls_server_count(&s, RESUMED), 4);
	prober_end(&p, &s);
}

static void test_resumption(void **state)
{
	(void)state;
	check_resumption(0, false);
	check_resumption(0, true);
	check_resumption(TLS1_2_VERSION, false);
	check_resumption(TLS1_2_VERSION, true);
}

/* A resumed handshake would not show that the certificate has expired meanwhile. */
static void test_expired_not_resumed(void **state)
{
	struct prober p = { .cfg.insecure_skip_verify = true };
	struct tls_server s;

	(void)state;
	prober_begin(
		&p, &s,
		&(struct script){ .answer = OK_ANSWER, .answers = 1, .identity = &pki.expired });
	prober_once(&p);
	prober_run(&p, &p.lost, 1);
	prober_once(&p);
	assert_outcome(&p, KLB_REASON_OK, 200);
	assert_int_equal(tls_server_count(&s, HANDSHAKES), 2);
	assert_int_equal(tls_server_count(&s, RESUMED), 0);
	prober_end(&p, &s);
}

/* A session that the server does not know must not get in the way. */
static void test_resumption_refused(void **state)
{
	struct script script = { .answer = OK_ANSWER, .answers = 1 };
	struct prober p = { 0 };
	struct tls_server s;
	SSL_CTX *other;

	(void)state;
	prober_begin(&p, &s, &script);
	prober_once(&p);
	prober_run(&p, &p.lost, 1);
	/* Other ticket keys, as after a restart. The thread is waiting for a connection. */
	other = tls_server_context(&script);
	pthread_mutex_lock(&s.lock);
	SSL_CTX_free(s.ctx);
	s.ctx = other;
	pthread_mutex_unlock(&s.lock);
	prober_once(&p);
	assert_outcome(&p, KLB_REASON_OK, 200);
	assert_int_equal(tls_server_count(&s, HANDSHAKES), 2);
	assert_int_equal(tls_server_count(&s, RESUMED), 0);
	prober_end(&p, &s);
}

/*
 * Coverage
 */

static void test_must_cover(void **state)
{
	struct klb_endpoint want[] = { endpoint("127.0.0.1:6443"), endpoint("10.0.0.9:443"),
				       endpoint("[::1]:6443"), endpoint("10.96.0.1:443") };
	struct prober p = { 0 };
	struct tls_server s;

	(void)state;
	assert_true(tls_server_start(&s, &(struct script){ .answer = OK_ANSWER, .answers = 2 }));
	prober_open_covering(&p, &s.at, want, ARRAY_SIZE(want));
	prober_once(&p);
	assert_int_equal(p.uncovered, 1);
	assert_true(endpoint_equal(&p.uncovered_at, &want[1]));
	/* Once a connection. */
	prober_once(&p);
	assert_int_equal(p.uncovered, 1);
	prober_run(&p, &p.lost, 1);
	prober_once(&p);
	assert_int_equal(p.uncovered, 2);
	prober_end(&p, &s);
}

static void test_all_covered(void **state)
{
	struct klb_endpoint want[] = { endpoint("127.0.0.1:6443"), endpoint("[::1]:6443") };
	struct prober p = { 0 };
	struct tls_server s;

	(void)state;
	assert_true(tls_server_start(&s, &(struct script){ .answer = OK_ANSWER }));
	prober_open_covering(&p, &s.at, want, ARRAY_SIZE(want));
	memset(want, 0, sizeof(want)); /* copied */
	prober_once(&p);
	assert_outcome(&p, KLB_REASON_OK, 200);
	assert_int_equal(p.uncovered, 0);
	prober_end(&p, &s);
}

/*
 * Set-up
 */

static void refuse_tls(const struct config_probe *cfg, const char *key, const char *path)
{
	struct probe_tls *tls = NULL;
	struct err e = { "" };

	assert_int_equal(probe_tls_new(cfg, &tls, &e), -EINVAL);
	assert_null(tls);
	if (!strstr(e.text, key) || !strstr(e.text, path))
		fail_msg("'%s' names not both %s and %s", e.text, key, path);
	assert_null(strchr(e.text, '\n'));
	assert_int_equal(probe_tls_new(cfg, &tls, NULL), -EINVAL);
	assert_int_equal(ERR_peek_error(), 0);
}

static void test_bad_files(void **state)
{
	char missing[] = "/nonexistent/file";
	struct config_probe cfg = { .ca = missing };

	(void)state;
	refuse_tls(&cfg, "probe.ca", missing);
	cfg.ca = pki.text_file;
	refuse_tls(&cfg, "probe.ca", pki.text_file);
	cfg.ca = pki.ca_file;
	cfg.client_cert = missing;
	cfg.client_key = pki.client_key;
	refuse_tls(&cfg, "probe.clientCert", missing);
	cfg.client_cert = pki.text_file;
	refuse_tls(&cfg, "probe.clientCert", pki.text_file);
	cfg.client_cert = pki.client_cert;
	cfg.client_key = missing;
	refuse_tls(&cfg, "probe.clientKey", missing);
	cfg.client_key = pki.text_file;
	refuse_tls(&cfg, "probe.clientKey", pki.text_file);
	cfg.client_key = pki.other_key;
	refuse_tls(&cfg, "probe.clientKey", pki.other_key);
	/* Asks nobody for the passphrase. */
	cfg.client_key = pki.locked_key;
	refuse_tls(&cfg, "probe.clientKey", pki.locked_key);
	probe_tls_free(NULL);
	probe_free(NULL);
}

static void test_system_store(void **state)
{
	struct config_probe cfg = { 0 };
	struct probe_tls *tls = NULL;
	struct err e;

	(void)state;
	assert_int_equal(probe_tls_new(&cfg, &tls, &e), 0);
	probe_tls_free(tls);
}

static struct probe_tls *load(char *ca, char *cert, char *key, bool insecure)
{
	const struct config_probe cfg = {
		.ca = ca, .client_cert = cert, .client_key = key, .insecure_skip_verify = insecure
	};
	struct probe_tls *tls = NULL;
	struct err e;

	if (probe_tls_new(&cfg, &tls, &e))
		fail_msg("%s", e.text);
	return tls;
}

static void test_own_expiry(void **state)
{
	struct probe_tls *with = load(pki.ca_file, pki.client_cert, pki.client_key, false);
	struct probe_tls *without = load(pki.ca_file, NULL, NULL, false);

	(void)state;
	assert_expires(&pki.client, probe_tls_expires_s(with));
	assert_int_equal(probe_tls_expires_s(without), 0);
	probe_tls_free(with);
	probe_tls_free(without);
}

/* What is in the files counts, and not what they are called. */
static void test_same_files(void **state)
{
	char copy[PATH_SIZE];
	struct probe_tls *all[] = {
		load(pki.ca_file, NULL, NULL, false),
		load(pki.other_ca_file, NULL, NULL, false),
		load(pki.ca_file, pki.client_cert, pki.client_key, false),
		load(pki.ca_file, NULL, NULL, true),
		load(NULL, pki.client_cert, pki.client_key, true),
		load(NULL, NULL, NULL, false),
	};
	const size_t system_store = ARRAY_SIZE(all) - 1;
	struct probe_tls *renamed;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		for (size_t k = 0; k < ARRAY_SIZE(all); k++)
			assert_int_equal(probe_tls_is_same(all[i], all[k]),
					 i == k && i != system_store);
	in_dir(copy, "ca.crt.copy");
	assert_int_equal(link(pki.ca_file, copy), 0);
	renamed = load(copy, NULL, NULL, false);
	assert_true(probe_tls_is_same(all[0], renamed));
	unlink(copy);
	probe_tls_free(renamed);
	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		probe_tls_free(all[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		LEAVES_NOTHING(test_tls_failures),	  LEAVES_NOTHING(test_costly_agreements),
		LEAVES_NOTHING(test_certificates),	  LEAVES_NOTHING(test_intermediate_as_ca),
		LEAVES_NOTHING(test_client_certificate),  LEAVES_NOTHING(test_resumption),
		LEAVES_NOTHING(test_expired_not_resumed), LEAVES_NOTHING(test_resumption_refused),
		LEAVES_NOTHING(test_must_cover),	  LEAVES_NOTHING(test_all_covered),
		LEAVES_NOTHING(test_bad_files),		  LEAVES_NOTHING(test_system_store),
		LEAVES_NOTHING(test_own_expiry),	  LEAVES_NOTHING(test_same_files),
	};

	return cmocka_run_group_tests(tests, pki_make, pki_remove);
}
