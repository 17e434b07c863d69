/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The client's side of TLS, with OpenSSL. A certificate is checked as Kubernetes' own clients check
 * it (Go's crypto/x509), so that both accept and refuse the same ones.
 */
#include "net/tls.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <openssl/x509_vfy.h>

#include "base/file.h"
#include "net/endpoint.h"
#include "net/tls_cost.h"
#include "net/tls_verify.h"

/* The first 12 bytes of an IPv4 address are its ::ffff: prefix (abi.h). */
#define IPV4_OFFSET 12
/* A system's whole trust store is a quarter of that. */
#define PEM_BYTES_MAX ((size_t)1024 * 1024)

/* SHA-256 */
#define DIGEST_BYTES 32

struct tls {
	SSL_CTX *ctx;
	bool verify;
	bool any_name;
	const struct tls_words *words;
	unsigned char digest[DIGEST_BYTES]; /* of all PEM that was read, in its order */
	bool unknown; /* not all that it goes by is in digest */
};

/* PEM that is being read. */
struct pem {
	const char *name; /* for messages: the file, or "the value" */
	BIO *bio; /* reads from text, or from what the caller holds */
	char *text;
	size_t length;
};

static void pem_close(struct pem *p)
{
	BIO_free(p->bio);
	file_forget(p->text, p->length);
}

/* Adds data to the digest, by which two objects are compared without a copy of the key. */
static void digest(struct tls *tls, const char *data, size_t length)
{
	unsigned char both[2 * DIGEST_BYTES];

	memcpy(both, tls->digest, DIGEST_BYTES);
	if (!EVP_Digest(data, length, both + DIGEST_BYTES, NULL, EVP_sha256(), NULL) ||
	    !EVP_Digest(both, sizeof(both), tls->digest, NULL, EVP_sha256(), NULL))
		tls->unknown = true;
}

/* Reads the file itself: OpenSSL's messages about files are only codes. */
static int pem_open(struct tls *tls, const struct tls_pem *from, struct pem *ret, struct err *e)
{
	struct pem p = { .name = "the value", .length = from->length };
	const char *data = from->data;
	struct err why;

	if (!data) {
		p.name = from->file;
		if (file_read(from->file, PEM_BYTES_MAX, &p.text, &p.length, &why) < 0)
			return err_set(e, EINVAL, "%s: %s; correct the path", from->key, why.text);
		data = p.text;
	}
	p.bio = BIO_new_mem_buf(data, (int)p.length);
	if (!p.bio) {
		pem_close(&p);
		return err_set(e, EINVAL, "%s: out of memory", from->key);
	}
	digest(tls, data, p.length);
	*ret = p;
	return 0;
}

/* Without this, OpenSSL would ask for a passphrase on the terminal and wait. */
static int no_passphrase(char *buf __attribute__((unused)), int size __attribute__((unused)),
			 int writing __attribute__((unused)), void *arg __attribute__((unused)))
{
	return -1;
}

static bool is_absent(const struct tls_pem *pem)
{
	return !pem->data && !pem->file;
}

/* Adds certificates and revocation lists to the store. False when there is no certificate. */
static bool trust(SSL_CTX *ctx, BIO *bio)
{
	STACK_OF(X509_INFO) *found = PEM_X509_INFO_read_bio(bio, NULL, no_passphrase, NULL);
	X509_STORE *store = SSL_CTX_get_cert_store(ctx);
	bool some = false, ok = true;
	int i;

	for (i = 0; found && i < sk_X509_INFO_num(found); i++) {
		const X509_INFO *info = sk_X509_INFO_value(found, i);

		if (info->x509) {
			some = true;
			ok = ok && X509_STORE_add_cert(store, info->x509) == 1;
		}
		if (info->crl)
			ok = ok && X509_STORE_add_crl(store, info->crl) == 1;
	}
	sk_X509_INFO_pop_free(found, X509_INFO_free);
	return some && ok;
}

static int load_ca(struct tls *tls, const struct tls_pem *ca, struct err *e)
{
	struct pem pem = { 0 };
	int r;

	if (is_absent(ca)) {
		/*
		 * OpenSSL reads the system's trust store, a directory by hash, only when it needs
		 * to.
		 */
		SSL_CTX_set_default_verify_paths(tls->ctx);
		tls->unknown = true;
		return 0;
	}
	r = pem_open(tls, ca, &pem, e);
	if (r)
		return r;
	if (!trust(tls->ctx, pem.bio))
		r = err_set(e, EINVAL,
			    "%s: %s holds no certificate in PEM; give the certificate of the "
			    "cluster's CA",
			    ca->key, pem.name);
	pem_close(&pem);
	/* The named certificates are trusted, whether they are roots or intermediates. */
	X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(tls->ctx), X509_V_FLAG_PARTIAL_CHAIN);
	return r;
}

static int load_key(struct tls *tls, const struct tls_pem *key, struct err *e)
{
	struct pem pem = { 0 };
	EVP_PKEY *private;
	int r = pem_open(tls, key, &pem, e);

	if (r)
		return r;
	private = PEM_read_bio_PrivateKey(pem.bio, NULL, no_passphrase, NULL);
	if (!private || SSL_CTX_use_PrivateKey(tls->ctx, private) != 1)
		r = err_set(e, EINVAL,
			    "%s: %s holds no private key in PEM that can be read without a "
			    "passphrase",
			    key->key, pem.name);
	EVP_PKEY_free(private);
	pem_close(&pem);
	return r;
}

/* The first certificate is the client's own; those that follow lead to its CA. */
static bool use_chain(SSL_CTX *ctx, BIO *bio)
{
	X509 *cert = PEM_read_bio_X509_AUX(bio, NULL, no_passphrase, NULL);
	bool ok = cert && SSL_CTX_use_certificate(ctx, cert) == 1;

	X509_free(cert);
	while (ok && (cert = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL))) {
		ok = SSL_CTX_add0_chain_cert(ctx, cert) == 1;
		if (!ok)
			X509_free(cert);
	}
	/*
	 * The end of the list is an error too; this tells it from a certificate that cannot be
	 * read.
	 */
	return ok && ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
}

static int load_certificate(struct tls *tls, const struct tls_pem *from, struct err *e)
{
	struct pem pem = { 0 };
	int r = pem_open(tls, from, &pem, e);

	if (r)
		return r;
	if (!use_chain(tls->ctx, pem.bio))
		r = err_set(e, EINVAL, "%s: %s holds no usable certificate in PEM", from->key,
			    pem.name);
	pem_close(&pem);
	return r;
}

static int load_client_certificate(struct tls *tls, const struct tls_options *o, struct err *e)
{
	int r;

	if (is_absent(&o->cert))
		return 0;
	/*
	 * The key is loaded first. OpenSSL drops a key that does not fit the certificate that
	 * follows, so a wrong pair can be told from an unusable file.
	 */
	r = load_key(tls, &o->key, e);
	if (!r)
		r = load_certificate(tls, &o->cert, e);
	if (r)
		return r;
	if (SSL_CTX_check_private_key(tls->ctx) != 1)
		return err_set(e, EINVAL,
			       "%s: %s is not the key of the certificate in %s; name the two of "
			       "one pair",
			       o->key.key, o->key.file ? o->key.file : "the value",
			       o->cert.file ? o->cert.file : o->cert.key);
	return 0;
}

/* Subject and issuer come from outside, so unusual characters are escaped. */
static void format_name(const X509_NAME *name, char *buf, size_t size)
{
	BIO *out = BIO_new(BIO_s_mem());
	int n = 0;

	if (out && name && X509_NAME_print_ex(out, name, 0, XN_FLAG_RFC2253) >= 0)
		n = BIO_read(out, buf, (int)size - 1);
	buf[n > 0 ? n : 0] = '\0';
	BIO_free(out);
}

static void format_expected(const struct tls_peer *peer, char *buf, size_t size)
{
	char address[ENDPOINT_TEXT_MAX];

	snprintf(buf, size, "%s",
		 peer->dns ? peer->dns : endpoint_format_address(&peer->address, address));
}

/* Unix time; 0: it cannot be read. */
static __s64 expires_s(const X509 *cert)
{
	struct tm at;

	return ASN1_TIME_to_tm(X509_get0_notAfter(cert), &at) ? timegm(&at) : 0;
}

static enum tls_fault fault_of(int code)
{
	switch (code) {
	case X509_V_ERR_HOSTNAME_MISMATCH:
	case X509_V_ERR_IP_ADDRESS_MISMATCH:
		return TLS_FAULT_NAME;
	case X509_V_ERR_CERT_NOT_YET_VALID:
	case X509_V_ERR_CERT_HAS_EXPIRED:
		return TLS_FAULT_TIME;
	default:
		return TLS_FAULT_ISSUER;
	}
}

static void describe_refusal(struct tls_peer *peer, X509_STORE_CTX *store)
{
	int code = X509_STORE_CTX_get_error(store);
	const char *why = code == TLS_VERIFY_KEY ? "a key that costs too much to compute with"
						 : X509_verify_cert_error_string(code);
	X509 *cert = X509_STORE_CTX_get_current_cert(store);
	char subject[128], other[128];

	peer->refused_expires_s = expires_s(X509_STORE_CTX_get0_cert(store));
	peer->fault = fault_of(code);
	format_name(cert ? X509_get_subject_name(cert) : NULL, subject, sizeof(subject));
	if (peer->fault == TLS_FAULT_NAME) {
		format_expected(peer, other, sizeof(other));
		snprintf(peer->refusal, sizeof(peer->refusal),
			 "%s: the certificate of %s does not name %s", why, subject, other);
		return;
	}
	format_name(cert ? X509_get_issuer_name(cert) : NULL, other, sizeof(other));
	snprintf(peer->refusal, sizeof(peer->refusal), "%s: %s, issued by %s", why, subject, other);
}

/* Describes a fault in a certificate at once: OpenSSL does not keep the certificate. */
static int verify_callback(int ok, X509_STORE_CTX *store)
{
	SSL *ssl;

	if (ok)
		return 1;
	ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	if (ssl && SSL_get_app_data(ssl))
		describe_refusal(SSL_get_app_data(ssl), store);
	return 0;
}

/*
 * With TLS 1.3, tickets arrive after the handshake, and each should be used only once: the newest
 * is kept. Returns 1 when it keeps the reference.
 */
static int session_callback(SSL *ssl, SSL_SESSION *session)
{
	struct tls_peer *peer = SSL_get_app_data(ssl);

	if (!peer)
		return 0;
	SSL_SESSION_free(peer->session);
	peer->session = session;
	return 1;
}

static void set_up(SSL_CTX *ctx)
{
	static const unsigned char alpn[] = "\x08http/1.1";

	SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
	/* So that an idle connection does not keep 32 KiB of buffers. */
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
	/* A call ends after a message that is no data: others may follow without end. */
	SSL_CTX_clear_mode(ctx, SSL_MODE_AUTO_RETRY);
	/*
	 * A process that dies sends no close_notify. Its session stays usable, and HTTP's framing
	 * detects a truncated answer.
	 */
	SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
					 SSL_OP_IGNORE_UNEXPECTED_EOF);
	SSL_CTX_set_alpn_protos(ctx, alpn, sizeof(alpn) - 1);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
	SSL_CTX_sess_set_new_cb(ctx, session_callback);
	SSL_CTX_set_default_passwd_cb(ctx, no_passphrase);
	X509_VERIFY_PARAM_set_hostflags(SSL_CTX_get0_param(ctx),
					X509_CHECK_FLAG_NEVER_CHECK_SUBJECT |
						X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
}

static int load(struct tls *tls, const struct tls_options *o, struct err *e)
{
	int r;

	set_up(tls->ctx);
	tls->verify = !o->insecure;
	SSL_CTX_set_verify(tls->ctx, SSL_VERIFY_PEER, verify_callback);
	if (tls->verify) {
		tls_verify_set_up(tls->ctx);
		r = load_ca(tls, &o->ca, e);
		if (r)
			return r;
	} else {
		tls_verify_set_up_insecure(tls->ctx);
	}
	return load_client_certificate(tls, o, e);
}

/* Does nothing in a program that handles or ignores SIGPIPE already. */
static void ignore_sigpipe(void)
{
	struct sigaction now;

	if (sigaction(SIGPIPE, NULL, &now) == 0 && now.sa_handler == SIG_DFL)
		signal(SIGPIPE, SIG_IGN);
}

static int cannot_set_up(struct err *e)
{
	return err_set(e, EINVAL,
		       "cannot set up TLS; look at OpenSSL's own configuration (openssl version "
		       "-d)");
}

int tls_new(const struct tls_options *o, struct tls **ret, struct err *e)
{
	struct tls *tls;
	int r;

	/*
	 * The strings would take half a megabyte of memory and are not used: see describe_error. At
	 * the process's end OpenSSL would free what a thread may still use that reads files.
	 */
	OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_SSL_STRINGS | OPENSSL_INIT_NO_LOAD_CRYPTO_STRINGS |
				 OPENSSL_INIT_NO_ATEXIT,
			 NULL);
	ignore_sigpipe();
	tls = calloc(1, sizeof(*tls));
	if (tls)
		tls->ctx = SSL_CTX_new(TLS_client_method());
	if (!tls || !tls->ctx) {
		free(tls);
		return cannot_set_up(e);
	}
	tls->words = o->words;
	tls->any_name = o->any_name;
	r = tls_cost_set_up(tls->ctx) ? load(tls, o, e) : cannot_set_up(e);
	ERR_clear_error();
	if (r) {
		tls_free(tls);
		return r;
	}
	*ret = tls;
	return 0;
}

void tls_free(struct tls *tls)
{
	if (!tls)
		return;
	SSL_CTX_free(tls->ctx);
	free(tls);
}

bool tls_is_same(const struct tls *x, const struct tls *y)
{
	return !x->unknown && !y->unknown && x->verify == y->verify &&
	       !memcmp(x->digest, y->digest, DIGEST_BYTES);
}

void tls_peer_init(struct tls_peer *peer, const char *server_name,
		   const struct klb_endpoint *address)
{
	*peer = (struct tls_peer){ .address = *address };
	if (server_name && endpoint_parse(server_name, address->port, &peer->address, NULL) != 0)
		peer->dns = server_name;
	peer->address.port = address->port;
}

void tls_peer_reset(struct tls_peer *peer)
{
	SSL_SESSION_free(peer->session);
	peer->session = NULL;
}

/*
 * A resumed handshake shows no certificate. Without this check, one that has expired since would
 * still be accepted here, while new clients refuse it.
 */
static bool may_resume(SSL_SESSION *session)
{
	X509 *cert = SSL_SESSION_get0_peer(session);

	return SSL_SESSION_is_resumable(session) && cert &&
	       X509_cmp_current_time(X509_get0_notAfter(cert)) > 0;
}

static const unsigned char *address_bytes(const struct klb_endpoint *address, size_t *length)
{
	size_t offset = endpoint_is_ipv4(address) ? IPV4_OFFSET : 0;

	*length = sizeof(address->addr) - offset;
	return address->addr + offset;
}

static bool expect_name(SSL *ssl, const struct tls_peer *peer)
{
	X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
	const unsigned char *bytes;
	size_t length;

	if (peer->dns)
		return X509_VERIFY_PARAM_set1_host(param, peer->dns, 0) == 1;
	bytes = address_bytes(&peer->address, &length);
	return X509_VERIFY_PARAM_set1_ip(param, bytes, length) == 1;
}

static bool configure(SSL *ssl, const struct tls *tls, struct tls_peer *peer)
{
	SSL_set_app_data(ssl, peer);
	if (tls->verify && !tls->any_name && !expect_name(ssl, peer))
		return false;
	/* RFC 6066, 3: no addresses in SNI. */
	if (peer->dns && SSL_set_tlsext_host_name(ssl, peer->dns) != 1)
		return false;
	if (peer->session && !may_resume(peer->session))
		tls_peer_reset(peer);
	if (peer->session)
		SSL_set_session(ssl, peer->session);
	return true;
}

SSL *tls_connection(struct tls *tls, struct tls_peer *peer, int fd)
{
	SSL *ssl = SSL_new(tls->ctx);

	peer->refusal[0] = '\0';
	peer->refused_expires_s = 0;
	peer->fault = TLS_FAULT_NONE;
	peer->words = tls->words;
	if (ssl && !(tls_meter_attach(&peer->meter, ssl, fd) && configure(ssl, tls, peer))) {
		SSL_free(ssl);
		ssl = NULL;
	}
	ERR_clear_error();
	return ssl;
}

bool tls_offer_h2(SSL *ssl)
{
	static const unsigned char alpn[] = "\x02h2\x08http/1.1";

	return SSL_set_alpn_protos(ssl, alpn, sizeof(alpn) - 1) == 0;
}

bool tls_chose_h2(SSL *ssl)
{
	const unsigned char *protocol;
	unsigned int length;

	SSL_get0_alpn_selected(ssl, &protocol, &length);
	return length == 2 && !memcmp(protocol, "h2", 2);
}

void tls_hang_up(SSL *ssl, bool polite)
{
	SSL_set_app_data(ssl, NULL);
	tls_meter_detach(ssl);
	/* One attempt is enough: it does not matter whether the alert arrives. */
	if (polite && SSL_is_init_finished(ssl))
		SSL_shutdown(ssl);
	/*
	 * Otherwise SSL_free would make the session unusable, as it does for a connection that
	 * broke off.
	 */
	SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
	ERR_clear_error();
}

bool tls_covers(SSL *ssl, const struct klb_endpoint *address)
{
	X509 *cert = SSL_get0_peer_certificate(ssl);
	const unsigned char *bytes;
	bool covered;
	size_t length;

	bytes = address_bytes(address, &length);
	covered = cert && X509_check_ip(cert, bytes, length, 0) == 1;
	ERR_clear_error();
	return covered;
}

__s64 tls_expires_s(const struct tls_peer *peer, SSL *ssl)
{
	const X509 *cert = ssl ? SSL_get0_peer_certificate(ssl) : NULL;

	return cert ? expires_s(cert) : peer->refused_expires_s;
}

__s64 tls_own_expires_s(const struct tls *tls)
{
	const X509 *cert = SSL_CTX_get0_certificate(tls->ctx);

	return cert ? expires_s(cert) : 0;
}

/*
 * The first of several queued errors is the cause. libevent returns the last one first, and also
 * the result of SSL_get_error(), which is a small number without a library.
 */
static unsigned long first_error(struct bufferevent *bev)
{
	unsigned long code, first = 0;

	while ((code = bufferevent_get_openssl_error(bev)) != 0)
		if (ERR_GET_LIB(code))
			first = code;
	return first;
}

/*
 * A write that meets a reset fails with "connection reset", although an alert with the reason may
 * have arrived before it. For example, a server that wants a client certificate says so only after
 * a TLS 1.3 client has finished its handshake. This looks for such an alert.
 */
static unsigned long last_words(SSL *ssl)
{
	unsigned long code = 0;
	char c;

	ERR_clear_error();
	if (SSL_read(ssl, &c, sizeof(c)) <= 0)
		code = ERR_peek_error();
	ERR_clear_error();
	return code;
}

/*
 * Describes an error for people who run the cluster. OpenSSL's own strings are not loaded
 * (tls_new), and they would not help: it calls a plain HTTP server "wrong version number".
 */
static void describe_error(const struct tls_words *words, unsigned long code, char *detail)
{
	/*
	 * Only reasons of the SSL library count: other libraries use the same numbers. 0 is none.
	 */
	int reason = ERR_GET_LIB(code) == ERR_LIB_SSL ? ERR_GET_REASON(code) : 0;
	const char *text = NULL, *next = "";

	switch (reason) {
	case SSL_R_WRONG_VERSION_NUMBER:
	case SSL_R_PACKET_LENGTH_TOO_LONG:
	case SSL_R_BAD_RECORD_TYPE:
		text = "does not speak TLS on this port";
		break;
	case SSL_R_UNSUPPORTED_PROTOCOL:
	case SSL_AD_REASON_OFFSET + SSL_AD_PROTOCOL_VERSION:
		text = "offers no TLS version from 1.2 on";
		break;
	case SSL_AD_REASON_OFFSET + SSL_AD_NO_APPLICATION_PROTOCOL:
		text = "does not offer HTTP/1.1";
		break;
	case SSL_R_EXCESSIVE_MESSAGE_SIZE:
		text = "sends more than 32 KiB of certificates";
		break;
	case SSL_AD_REASON_OFFSET + SSL_AD_CERTIFICATE_REQUIRED:
		text = "requires a client certificate; ";
		next = words->give_certificate;
		break;
	}
	if (text)
		snprintf(detail, TLS_DETAIL_MAX, "the %s %s%s", words->peer, text, next);
	else if (reason > SSL_AD_REASON_OFFSET && reason <= SSL_AD_REASON_OFFSET + 255)
		snprintf(detail, TLS_DETAIL_MAX, "the %s ended TLS with the alert '%s' (%d)",
			 words->peer, SSL_alert_desc_string_long(reason - SSL_AD_REASON_OFFSET),
			 reason - SSL_AD_REASON_OFFSET);
	else
		snprintf(detail, TLS_DETAIL_MAX, "TLS failed: error %08lX (openssl errstr %08lX)",
			 code, code);
}

/* Describes the end of a connection that has another cause than TLS. */
static enum klb_reason describe_end(const struct tls_words *words, short what, int os_error,
				    char *detail)
{
	enum klb_reason reason = KLB_REASON_CLOSED;

	if ((what & BEV_EVENT_EOF) || !os_error) {
		snprintf(detail, TLS_DETAIL_MAX, "the %s closed the connection", words->peer);
		return reason;
	}
	/*
	 * TCP_USER_TIMEOUT or keepalive: nothing was acknowledged. A host that is alive
	 * acknowledges, even when it has nothing to send.
	 */
	if (os_error == ETIMEDOUT)
		reason = KLB_REASON_UNREACHABLE;
	else if (os_error != ECONNRESET && os_error != EPIPE)
		reason = tls_socket_reason(os_error);
	snprintf(detail, TLS_DETAIL_MAX, "the connection ended: %s", strerror(os_error));
	return reason;
}

enum klb_reason tls_socket_reason(int os_error)
{
	switch (os_error) {
	case ECONNREFUSED:
		return KLB_REASON_REFUSED;
	case ETIMEDOUT:
		return KLB_REASON_CONNECT_TIMEOUT;
	default:
		return KLB_REASON_UNREACHABLE;
	}
}

enum klb_reason tls_failure(struct tls_peer *peer, struct bufferevent *bev, short what,
			    int os_error, char *detail)
{
	unsigned long code = first_error(bev);

	if (!code && (what & BEV_EVENT_WRITING))
		code = last_words(bufferevent_openssl_get_ssl(bev));
	if (peer->refusal[0]) {
		tls_peer_reset(peer);
		snprintf(detail, TLS_DETAIL_MAX, "%s", peer->refusal);
		return KLB_REASON_CERTIFICATE;
	}
	if (!code)
		return describe_end(peer->words, what, os_error, detail);
	/* The session may be the cause, so the next handshake is a full one. */
	tls_peer_reset(peer);
	describe_error(peer->words, code, detail);
	return KLB_REASON_TLS;
}
