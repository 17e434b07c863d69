/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The probe room's TLS: what is loaded once, how a certificate is judged, and
 * what a failure means. A certificate is judged as Kubernetes' own clients do it
 * (Go's crypto/x509), so that a probe fails where they would and nowhere else.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <openssl/x509_vfy.h>

#include "probe_internal.h"

/* The first 12 bytes of an IPv4 address are its ::ffff: prefix (abi.h). */
#define IPV4_OFFSET 12

struct probe_tls {
	SSL_CTX *ctx;
	bool verify;
};

/* OpenSSL's own messages for this are codes: says what the system says. */
static int check_readable(const char *key, const char *path, struct err *e)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return err_set(e, EINVAL, "%s: cannot read %s: %s; correct the path", key, path,
			       strerror(errno));
	close(fd);
	return 0;
}

/* Without this, OpenSSL would ask for a passphrase on the terminal and wait. */
static int no_passphrase(char *buf __attribute__((unused)), int size __attribute__((unused)),
			 int writing __attribute__((unused)), void *arg __attribute__((unused)))
{
	return -1;
}

static int load_ca(SSL_CTX *ctx, const char *path, struct err *e)
{
	int err;

	if (!path) {
		/* A directory by hash: nothing is read before it is needed. */
		SSL_CTX_set_default_verify_paths(ctx);
		return 0;
	}
	err = check_readable("probe.ca", path, e);
	if (err)
		return err;
	if (SSL_CTX_load_verify_file(ctx, path) != 1)
		return err_set(e, EINVAL,
			       "probe.ca: %s holds no certificate in PEM; name the file with the "
			       "certificate of the cluster's CA",
			       path);
	/* What the file names is trusted, be it a root or an intermediate. */
	X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(ctx), X509_V_FLAG_PARTIAL_CHAIN);
	return 0;
}

static int load_client_certificate(SSL_CTX *ctx, const struct config_probe *cfg, struct err *e)
{
	int err;

	if (!cfg->client_cert)
		return 0;
	err = check_readable("probe.clientCert", cfg->client_cert, e);
	if (!err)
		err = check_readable("probe.clientKey", cfg->client_key, e);
	if (err)
		return err;
	/*
	 * The key goes first: OpenSSL drops one that does not fit the certificate
	 * that follows, which tells a wrong pair from an unusable file.
	 */
	if (SSL_CTX_use_PrivateKey_file(ctx, cfg->client_key, SSL_FILETYPE_PEM) != 1)
		return err_set(e, EINVAL,
			       "probe.clientKey: %s holds no private key in PEM that can be read "
			       "without a passphrase",
			       cfg->client_key);
	if (SSL_CTX_use_certificate_chain_file(ctx, cfg->client_cert) != 1)
		return err_set(e, EINVAL, "probe.clientCert: %s holds no usable certificate in PEM",
			       cfg->client_cert);
	if (SSL_CTX_check_private_key(ctx) != 1)
		return err_set(e, EINVAL,
			       "probe.clientKey: %s is not the key of the certificate in %s; name "
			       "the two files of one pair",
			       cfg->client_key, cfg->client_cert);
	return 0;
}

/* subject and issuer come from outside: printed with everything odd escaped. */
static void format_name(const X509_NAME *name, char *buf, size_t size)
{
	BIO *out = BIO_new(BIO_s_mem());
	int n = 0;

	if (out && name && X509_NAME_print_ex(out, name, 0, XN_FLAG_RFC2253) >= 0)
		n = BIO_read(out, buf, (int)size - 1);
	buf[n > 0 ? n : 0] = '\0';
	BIO_free(out);
}

static void format_expected(const struct probe_peer *peer, char *buf, size_t size)
{
	char address[ENDPOINT_TEXT_MAX];

	snprintf(buf, size, "%s",
		 peer->dns ? peer->dns : endpoint_format_address(&peer->address, address));
}

static void describe_refusal(struct probe_peer *peer, X509_STORE_CTX *store)
{
	int code = X509_STORE_CTX_get_error(store);
	const char *why = X509_verify_cert_error_string(code);
	X509 *cert = X509_STORE_CTX_get_current_cert(store);
	char subject[128], other[128];

	format_name(cert ? X509_get_subject_name(cert) : NULL, subject, sizeof(subject));
	if (code == X509_V_ERR_HOSTNAME_MISMATCH || code == X509_V_ERR_IP_ADDRESS_MISMATCH) {
		format_expected(peer, other, sizeof(other));
		snprintf(peer->refusal, sizeof(peer->refusal),
			 "%s: the certificate of %s does not name %s", why, subject, other);
		return;
	}
	format_name(cert ? X509_get_issuer_name(cert) : NULL, other, sizeof(other));
	snprintf(peer->refusal, sizeof(peer->refusal), "%s: %s, issued by %s", why, subject, other);
}

/* Verification has found a fault; OpenSSL will not let the certificate be seen later. */
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
 * With TLS 1.3 tickets arrive after the handshake, and each is to be used once:
 * the newest is kept. Returns 1 for taking the reference over.
 */
static int session_callback(SSL *ssl, SSL_SESSION *session)
{
	struct probe_peer *peer = SSL_get_app_data(ssl);

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
	/* An idle connection then keeps no 32 KiB of buffers. */
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
	/*
	 * A process that dies says no goodbye: its session is as good as before, and
	 * HTTP's own framing tells a truncated answer.
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

static int load(struct probe_tls *tls, const struct config_probe *cfg, struct err *e)
{
	int err;

	set_up(tls->ctx);
	tls->verify = !cfg->insecure_skip_verify;
	if (tls->verify) {
		SSL_CTX_set_verify(tls->ctx, SSL_VERIFY_PEER, verify_callback);
		err = load_ca(tls->ctx, cfg->ca, e);
		if (err)
			return err;
	}
	return load_client_certificate(tls->ctx, cfg, e);
}

/* A program that has a handler of its own, or ignores it already, is left alone. */
static void ignore_sigpipe(void)
{
	struct sigaction now;

	if (sigaction(SIGPIPE, NULL, &now) == 0 && now.sa_handler == SIG_DFL)
		signal(SIGPIPE, SIG_IGN);
}

int probe_tls_new(const struct config_probe *cfg, struct probe_tls **ret, struct err *e)
{
	struct probe_tls *tls;
	int err;

	/* Half a megabyte resident, for texts that nobody sees; see describe_error. */
	OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_SSL_STRINGS | OPENSSL_INIT_NO_LOAD_CRYPTO_STRINGS,
			 NULL);
	ignore_sigpipe();
	tls = calloc(1, sizeof(*tls));
	if (tls)
		tls->ctx = SSL_CTX_new(TLS_client_method());
	if (!tls || !tls->ctx) {
		free(tls);
		return err_set(e, EINVAL,
			       "probe: cannot set up TLS; look at OpenSSL's own "
			       "configuration (openssl version -d)");
	}
	err = load(tls, cfg, e);
	ERR_clear_error();
	if (err) {
		probe_tls_free(tls);
		return err;
	}
	*ret = tls;
	return 0;
}

void probe_tls_free(struct probe_tls *tls)
{
	if (!tls)
		return;
	SSL_CTX_free(tls->ctx);
	free(tls);
}

void probe_peer_init(struct probe_peer *peer, const char *server_name,
		     const struct klb_endpoint *backend)
{
	*peer = (struct probe_peer){ .address = *backend };
	if (server_name && endpoint_parse(server_name, backend->port, &peer->address, NULL) != 0)
		peer->dns = server_name;
	peer->address.port = backend->port;
}

void probe_peer_reset(struct probe_peer *peer)
{
	SSL_SESSION_free(peer->session);
	peer->session = NULL;
}

/*
 * A resumed handshake shows no certificate: one that has expired since would
 * go on being accepted, though new clients refuse it.
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

static bool expect_name(SSL *ssl, const struct probe_peer *peer)
{
	X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
	const unsigned char *bytes;
	size_t length;

	if (peer->dns)
		return X509_VERIFY_PARAM_set1_host(param, peer->dns, 0) == 1;
	bytes = address_bytes(&peer->address, &length);
	return X509_VERIFY_PARAM_set1_ip(param, bytes, length) == 1;
}

static bool configure(SSL *ssl, const struct probe_tls *tls, struct probe_peer *peer)
{
	SSL_set_app_data(ssl, peer);
	if (tls->verify && !expect_name(ssl, peer))
		return false;
	/* RFC 6066, 3: no addresses in SNI. */
	if (peer->dns && SSL_set_tlsext_host_name(ssl, peer->dns) != 1)
		return false;
	if (peer->session && !may_resume(peer->session))
		probe_peer_reset(peer);
	if (peer->session)
		SSL_set_session(ssl, peer->session);
	return true;
}

SSL *probe_tls_connection(struct probe_tls *tls, struct probe_peer *peer)
{
	SSL *ssl = SSL_new(tls->ctx);

	peer->refusal[0] = '\0';
	if (ssl && !configure(ssl, tls, peer)) {
		SSL_free(ssl);
		ssl = NULL;
	}
	ERR_clear_error();
	return ssl;
}

void probe_tls_hang_up(SSL *ssl, bool polite)
{
	SSL_set_app_data(ssl, NULL);
	/* One attempt: nothing depends on whether the alert arrives. */
	if (polite && SSL_is_init_finished(ssl))
		SSL_shutdown(ssl);
	/* Or SSL_free spoils the session: it trusts no connection that just broke off. */
	SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
	ERR_clear_error();
}

bool probe_tls_covers(SSL *ssl, const struct klb_endpoint *address)
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

/*
 * Of several queued errors the first is the cause; libevent hands out the last one
 * first, and at the end, among them, what SSL_get_error() said: a bare number below
 * those that name a library.
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
 * A write that meets a reset says "connection reset", though the alert which told
 * why the other side went away may have come before it: a server that wants a
 * client certificate, say, speaks up only after a TLS 1.3 client is done.
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
 * In words for whoever runs the cluster. OpenSSL's own strings are not loaded
 * (probe_tls_new), and what it calls the common ones helps nobody:
 * a plain HTTP server is "wrong version number".
 */
static void describe_error(unsigned long code, char *detail)
{
	/* 0 is no reason of OpenSSL's: other libraries number theirs anew. */
	int reason = ERR_GET_LIB(code) == ERR_LIB_SSL ? ERR_GET_REASON(code) : 0;
	const char *text = NULL;

	switch (reason) {
	case SSL_R_WRONG_VERSION_NUMBER:
	case SSL_R_PACKET_LENGTH_TOO_LONG:
	case SSL_R_BAD_RECORD_TYPE:
		text = "the backend does not speak TLS on this port";
		break;
	case SSL_R_UNSUPPORTED_PROTOCOL:
	case SSL_AD_REASON_OFFSET + SSL_AD_PROTOCOL_VERSION:
		text = "the backend offers no TLS version from 1.2 on";
		break;
	case SSL_AD_REASON_OFFSET + SSL_AD_NO_APPLICATION_PROTOCOL:
		text = "the backend does not offer HTTP/1.1";
		break;
	case SSL_AD_REASON_OFFSET + SSL_AD_CERTIFICATE_REQUIRED:
		text = "the backend requires a client certificate; set probe.clientCert and "
		       "probe.clientKey";
		break;
	}
	if (text)
		snprintf(detail, PROBE_DETAIL_MAX, "%s", text);
	else if (reason > SSL_AD_REASON_OFFSET && reason <= SSL_AD_REASON_OFFSET + 255)
		snprintf(detail, PROBE_DETAIL_MAX, "the backend ended TLS with the alert '%s' (%d)",
			 SSL_alert_desc_string_long(reason - SSL_AD_REASON_OFFSET),
			 reason - SSL_AD_REASON_OFFSET);
	else
		snprintf(detail, PROBE_DETAIL_MAX, "TLS failed: error %08lX (openssl errstr %08lX)",
			 code, code);
}

/* The connection is gone, and not because of TLS. */
static enum klb_reason describe_end(short what, int os_error, char *detail)
{
	enum klb_reason reason = KLB_REASON_CLOSED;

	if ((what & BEV_EVENT_EOF) || !os_error) {
		snprintf(detail, PROBE_DETAIL_MAX, "the backend closed the connection");
		return reason;
	}
	/* TCP_USER_TIMEOUT or keepalive: the host is there no more. */
	if (os_error == ETIMEDOUT)
		reason = KLB_REASON_NO_ANSWER;
	else if (os_error != ECONNRESET && os_error != EPIPE)
		reason = probe_socket_reason(os_error);
	snprintf(detail, PROBE_DETAIL_MAX, "the connection ended: %s", strerror(os_error));
	return reason;
}

enum klb_reason probe_tls_failure(struct probe_peer *peer, struct bufferevent *bev, short what,
				  int os_error, char *detail)
{
	unsigned long code = first_error(bev);

	if (!code && (what & BEV_EVENT_WRITING))
		code = last_words(bufferevent_openssl_get_ssl(bev));
	if (peer->refusal[0]) {
		probe_peer_reset(peer);
		snprintf(detail, PROBE_DETAIL_MAX, "%s", peer->refusal);
		return KLB_REASON_CERTIFICATE;
	}
	if (!code)
		return describe_end(what, os_error, detail);
	/* Perhaps the session was the trouble: the next handshake is a whole one. */
	probe_peer_reset(peer);
	describe_error(code, detail);
	return KLB_REASON_TLS;
}
