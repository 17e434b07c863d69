/* SPDX-License-Identifier: BSD-2-Clause */
#include "peer.h"

#include <dirent.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/event.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "fuzz.h"
#include "net/endpoint.h"

struct peer {
	int fd;
	SSL *ssl;
	BIO *in, *out; /* belong to ssl */
	size_t sent;
};

uint8_t script_byte(struct script *s)
{
	if (!s->n)
		return 0;
	s->n--;
	return *s->bytes++;
}

const uint8_t *script_bytes(struct script *s, size_t n, size_t *ret_n)
{
	const uint8_t *bytes = s->bytes;

	*ret_n = n < s->n ? n : s->n;
	s->bytes += *ret_n;
	s->n -= *ret_n;
	return bytes;
}

/* --- certificates --------------------------------------------------------------------- */

static X509 *make_cert(EVP_PKEY *key, const char *name, X509 *issuer, EVP_PKEY *signer, int nid,
		       const char *value)
{
	X509 *cert = X509_new();
	X509V3_CTX ctx;
	X509_EXTENSION *extension;

	X509_set_version(cert, X509_VERSION_3);
	ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
	X509_gmtime_adj(X509_getm_notBefore(cert), -86400L);
	X509_gmtime_adj(X509_getm_notAfter(cert), 864000L);
	X509_set_pubkey(cert, key);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
				   (const unsigned char *)name, -1, -1, 0);
	X509_set_issuer_name(cert, X509_get_subject_name(issuer ? issuer : cert));
	X509V3_set_ctx(&ctx, issuer ? issuer : cert, cert, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	require(extension && X509_add_ext(cert, extension, -1) == 1);
	X509_EXTENSION_free(extension);
	require(X509_sign(cert, signer, EVP_sha256()) > 0);
	return cert;
}

/* Made once. */
static struct {
	SSL_CTX *ctx;
	char ca[4096];
} pki;

static void make_pki(void)
{
	EVP_PKEY *ca_key, *key;
	X509 *ca, *cert;
	BIO *text;

	/* The first call, which decides: as in tls_new. */
	OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, NULL);
	ca_key = EVP_EC_gen("P-256");
	key = EVP_EC_gen("P-256");
	ca = make_cert(ca_key, "ca", NULL, ca_key, NID_basic_constraints, "critical,CA:TRUE");
	cert = make_cert(key, "peer", ca, ca_key, NID_subject_alt_name, "IP:127.0.0.1");
	text = BIO_new(BIO_s_mem());
	require(PEM_write_bio_X509(text, ca) == 1);
	require(BIO_read(text, pki.ca, sizeof(pki.ca) - 1) > 0);
	pki.ctx = SSL_CTX_new(TLS_server_method());
	require(SSL_CTX_use_certificate(pki.ctx, cert) == 1);
	require(SSL_CTX_use_PrivateKey(pki.ctx, key) == 1);
	BIO_free(text);
	X509_free(cert);
	X509_free(ca);
	EVP_PKEY_free(key);
	EVP_PKEY_free(ca_key);
}

const char *peers_ca(void)
{
	if (!pki.ctx)
		make_pki();
	return pki.ca;
}

const char *peers_file(const char *text)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	char *name;

	require(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	require(asprintf(&name, "/proc/%d/fd/%d", getpid(), fd) > 0);
	return name;
}

/* --- connections ---------------------------------------------------------------------- */

static void end(struct peer *peer)
{
	if (!peer)
		return;
	SSL_free(peer->ssl);
	if (peer->fd >= 0)
		close(peer->fd);
	free(peer);
	ERR_clear_error();
}

/* Takes HTTP/2, or whatever is offered last. */
static int choose(SSL *ssl, const unsigned char **out, unsigned char *length,
		  const unsigned char *in, unsigned int in_length, void *arg)
{
	const struct peers *p = arg;

	(void)ssl;
	for (unsigned int at = 0; at < in_length; at += 1u + in[at]) {
		*out = in + at + 1;
		*length = in[at];
		if (p->h2)
			break;
	}
	return SSL_TLSEXT_ERR_OK;
}

static void begin(struct peers *p, int fd)
{
	struct peer *peer = calloc(1, sizeof(*peer));
	const int on = 1;

	require(peer != NULL);
	/* All arrives in the turn in which it is sent. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	SSL_CTX_set_alpn_select_cb(pki.ctx, choose, p);
	peer->fd = fd;
	peer->ssl = SSL_new(pki.ctx);
	peer->in = BIO_new(BIO_s_mem());
	peer->out = BIO_new(BIO_s_mem());
	BIO_set_mem_eof_return(peer->in, -1);
	SSL_set_bio(peer->ssl, peer->in, peer->out);
	if (p->tls12)
		SSL_set_max_proto_version(peer->ssl, TLS1_2_VERSION);
	SSL_set_accept_state(peer->ssl);
	end(p->list[PEERS_MAX - 1]);
	memmove(p->list + 1, p->list, sizeof(p->list) - sizeof(p->list[0]));
	p->list[0] = peer;
}

/* False when the connection is over. */
static bool take(struct peer *peer)
{
	char buf[4096];
	ssize_t n;

	while ((n = recv(peer->fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0)
		BIO_write(peer->in, buf, (int)n);
	if (!SSL_is_init_finished(peer->ssl))
		SSL_do_handshake(peer->ssl);
	while (SSL_is_init_finished(peer->ssl) && SSL_read(peer->ssl, buf, sizeof(buf)) > 0)
		;
	ERR_clear_error();
	return n != 0;
}

static void give(const struct peers *p, struct peer *peer)
{
	unsigned char buf[4096];
	int n;

	while ((n = BIO_read(peer->out, buf, sizeof(buf))) > 0) {
		if (p->flip_at >= peer->sent && p->flip_at - peer->sent < (size_t)n)
			buf[p->flip_at - peer->sent] ^= p->flip;
		peer->sent += (size_t)n;
		send(peer->fd, buf, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
	}
}

void peers_turn(struct peers *p)
{
	int fd;

	event_base_loop(p->base, EVLOOP_NONBLOCK);
	while (p->listener >= 0 && (fd = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC)) >= 0)
		begin(p, fd);
	for (unsigned int i = 0; i < PEERS_MAX; i++) {
		struct peer *peer = p->list[i];

		if (!peer || peer->fd < 0)
			continue;
		if (!take(peer)) {
			close(peer->fd);
			peer->fd = -1;
			continue;
		}
		give(p, peer);
	}
}

/* --- what a script may say ------------------------------------------------------------- */

void peers_send(struct peers *p, const void *bytes, size_t n)
{
	struct peer *peer = p->list[0];

	if (!peer || peer->fd < 0 || !n || !SSL_is_init_finished(peer->ssl))
		return;
	SSL_write(peer->ssl, bytes, (int)n);
	ERR_clear_error();
	give(p, peer);
}

static void send_from(struct peers *p, struct script *s, unsigned int times)
{
	size_t n;
	const uint8_t *bytes = script_bytes(s, script_byte(s), &n);

	while (times--)
		peers_send(p, bytes, n);
}

/* Past TLS. */
static void send_raw(const struct peer *peer, struct script *s)
{
	size_t n;
	const uint8_t *bytes = script_bytes(s, script_byte(s), &n);

	send(peer->fd, bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void send_messages(struct peer *peer, bool tickets, unsigned int n)
{
	while (n-- && SSL_is_init_finished(peer->ssl) && SSL_version(peer->ssl) == TLS1_3_VERSION)
		if ((tickets ? SSL_new_session_ticket(peer->ssl)
			     : SSL_key_update(peer->ssl, SSL_KEY_UPDATE_REQUESTED)) != 1 ||
		    SSL_do_handshake(peer->ssl) != 1)
			break;
}

static void hang_up(struct peer *peer, bool reset)
{
	const struct linger linger = { .l_onoff = reset };

	setsockopt(peer->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	close(peer->fd);
	peer->fd = -1;
}

void peers_act(struct peers *p, struct script *s)
{
	uint8_t what = script_byte(s);
	struct peer *peer = p->list[0];

	if (!peer || peer->fd < 0)
		return;
	switch (what % 8) {
	case 0:
		send_from(p, s, 1);
		break;
	case 1:
		send_from(p, s, 1u + script_byte(s));
		break;
	case 2:
	case 3:
		send_messages(peer, what % 2 == 0, 1u + script_byte(s));
		break;
	case 4:
		send_raw(peer, s);
		break;
	case 5:
	case 6:
		hang_up(peer, what % 2);
		break;
	case 7:
		SSL_shutdown(peer->ssl);
		break;
	}
	if (peer->fd >= 0)
		give(p, peer);
	ERR_clear_error();
}

/* --- life ------------------------------------------------------------------------------ */

static unsigned int count_threads(void)
{
	DIR *tasks = opendir("/proc/self/task");
	unsigned int n = 0;

	require(tasks != NULL);
	while (readdir(tasks))
		n++;
	closedir(tasks);
	return n;
}

void peers_open(struct peers *p, struct event_base *base)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(at);

	peers_ca();
	p->base = base;
	p->threads = count_threads();
	p->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	require(!bind(p->listener, (struct sockaddr *)&at, length) && !listen(p->listener, 16));
	require(!getsockname(p->listener, (struct sockaddr *)&at, &length));
	require(endpoint_from_sockaddr((struct sockaddr *)&at, &p->at) == 0);
}

void peers_close(struct peers *p)
{
	for (unsigned int i = 0; i < PEERS_MAX; i++) {
		if (p->list[i] && p->list[i]->fd >= 0)
			hang_up(p->list[i], true);
		end(p->list[i]);
		p->list[i] = NULL;
	}
	if (p->listener >= 0)
		close(p->listener);
	p->listener = -1;
	while (count_threads() > p->threads)
		sched_yield();
}
