/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A TLS server that is no good: shakes hands, and then sends what is no data, without end.
 *
 *	tlsflood ADDRESS PORT CERTIFICATE KEY WHAT WHEN
 *
 * WHAT: "tickets" (session tickets, as many to a record as it holds), "keys" (new keys, a record
 * each), "hellos" (TLS 1.2's requests for another handshake), "bytes" (a chunked answer, a record
 * for each byte).
 *
 * WHEN: "asked" (in place of an answer), "idle" (after it).
 *
 * Python's ssl sends none of these, and OpenSSL itself only one ticket to a record: those records
 * are made here, with the keys that OpenSSL logs.
 */
#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/ssl.h>

#define SECRET_BYTES 32
#define KEY_BYTES 16
#define NONCE_BYTES 12
#define TAG_BYTES 16
#define HEADER_BYTES 5
#define RECORD_MAX 16384
#define CONTENT_HANDSHAKE 22
#define OK "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

static const char *what, *when;
static SSL_CTX *ctx;

/* Keeps the secret of what the server sends: the last field of "SERVER_TRAFFIC_SECRET_0 X Y". */
static void on_key(const SSL *ssl, const char *line)
{
	unsigned char *secret = SSL_get_app_data(ssl);
	const char *hex = strrchr(line, ' ');

	if (!secret || !hex || strncmp(line, "SERVER_TRAFFIC_SECRET_0 ", 24))
		return;
	for (int i = 0; i < SECRET_BYTES; i++)
		sscanf(hex + 1 + 2 * i, "%2hhx", &secret[i]);
}

/* RFC 8446, 7.1: HKDF-Expand-Label(secret, label, "", n). */
static bool expand(unsigned char *secret, const char *label, unsigned char *ret, size_t n)
{
	EVP_KDF *kdf = EVP_KDF_fetch(NULL, "TLS13-KDF", NULL);
	EVP_KDF_CTX *c = EVP_KDF_CTX_new(kdf);
	int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode),
		OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)"SHA256", 0),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, secret, SECRET_BYTES),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_PREFIX, (void *)"tls13 ", 6),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_LABEL, (void *)label,
						  strlen(label)),
		OSSL_PARAM_construct_end(),
	};
	bool ok = EVP_KDF_derive(c, ret, n, params) == 1;

	EVP_KDF_CTX_free(c);
	EVP_KDF_free(kdf);
	return ok;
}

/* As many tickets of the smallest size as a record holds, and the record's inner type. */
static int fill_with_tickets(unsigned char *plain)
{
	static const unsigned char ticket[] = { 4, 0, 0, 14, 0, 1, 0,	0, 1,
						2, 3, 4, 0,  0, 1, 'x', 0, 0 };
	int n = 0;

	for (; n + (int)sizeof(ticket) <= RECORD_MAX; n += (int)sizeof(ticket))
		memcpy(plain + n, ticket, sizeof(ticket));
	plain[n] = CONTENT_HANDSHAKE;
	return n + 1;
}

/* One record with that number (RFC 8446, 5.2). Returns its length. */
static int seal(EVP_CIPHER_CTX *c, const unsigned char *iv, unsigned long long number,
		const unsigned char *plain, int n, unsigned char *record)
{
	unsigned char nonce[NONCE_BYTES];
	int length = n + TAG_BYTES, done;

	memcpy(nonce, iv, NONCE_BYTES);
	for (int i = 0; i < 8; i++)
		nonce[NONCE_BYTES - 1 - i] ^= (unsigned char)(number >> 8 * i);
	memcpy(record, "\x17\3\3", 3);
	record[3] = (unsigned char)(length >> 8);
	record[4] = (unsigned char)length;
	EVP_EncryptInit_ex(c, NULL, NULL, NULL, nonce);
	EVP_EncryptUpdate(c, NULL, &done, record, HEADER_BYTES);
	EVP_EncryptUpdate(c, record + HEADER_BYTES, &done, plain, n);
	EVP_EncryptFinal_ex(c, record + HEADER_BYTES + n, &done);
	EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, TAG_BYTES, record + HEADER_BYTES + n);
	return HEADER_BYTES + length;
}

/* sent: the records that OpenSSL has sent with this key. */
static void send_tickets(int fd, unsigned char *secret, unsigned long long sent)
{
	unsigned char key[KEY_BYTES], iv[NONCE_BYTES], plain[RECORD_MAX + 1];
	unsigned char record[HEADER_BYTES + RECORD_MAX + 1 + TAG_BYTES];
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	int n = fill_with_tickets(plain), length;

	if (expand(secret, "key", key, sizeof(key)) && expand(secret, "iv", iv, sizeof(iv)) &&
	    EVP_EncryptInit_ex(c, EVP_aes_128_gcm(), NULL, key, NULL) == 1)
		do
			length = seal(c, iv, sent++, plain, n, record);
		while (send(fd, record, (size_t)length, 0) == length);
	EVP_CIPHER_CTX_free(c);
}

static void send_keys(SSL *ssl)
{
	while (SSL_key_update(ssl, SSL_KEY_UPDATE_NOT_REQUESTED) == 1 && SSL_do_handshake(ssl) == 1)
		;
}

static void send_hellos(SSL *ssl)
{
	while (SSL_renegotiate(ssl) == 1 && SSL_do_handshake(ssl) == 1)
		;
}

static void send_bytes(SSL *ssl)
{
	static const char head[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
	static const char chunk[] = "1\r\na\r\n";
	int r = SSL_write(ssl, head, sizeof(head) - 1);

	for (size_t i = 0; r > 0; i = (i + 1) % (sizeof(chunk) - 1))
		r = SSL_write(ssl, chunk + i, 1);
}

static void answer(SSL *ssl, int fd, unsigned char *secret)
{
	bool idle = !strcmp(when, "idle");
	char request[4096];

	if (SSL_read(ssl, request, sizeof(request)) <= 0)
		return;
	if (idle && SSL_write(ssl, OK, sizeof(OK) - 1) <= 0)
		return;
	if (!strcmp(what, "tickets"))
		send_tickets(fd, secret, idle);
	else if (!strcmp(what, "keys"))
		send_keys(ssl);
	else if (!strcmp(what, "hellos"))
		send_hellos(ssl);
	else
		send_bytes(ssl);
}

static void *serve(void *arg)
{
	unsigned char secret[SECRET_BYTES] = { 0 };
	int fd = (int)(long)arg;
	SSL *ssl = SSL_new(ctx);

	SSL_set_app_data(ssl, secret);
	SSL_set_fd(ssl, fd);
	if (SSL_accept(ssl) == 1)
		answer(ssl, fd, secret);
	SSL_free(ssl);
	close(fd);
	return NULL;
}

static bool set_up(const char *certificate, const char *key)
{
	int version = strcmp(what, "hellos") ? TLS1_3_VERSION : TLS1_2_VERSION;

	ctx = SSL_CTX_new(TLS_server_method());
	SSL_CTX_set_min_proto_version(ctx, version);
	SSL_CTX_set_max_proto_version(ctx, version);
	SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256");
	SSL_CTX_set_num_tickets(ctx, 0);
	SSL_CTX_set_keylog_callback(ctx, on_key);
	return SSL_CTX_use_certificate_file(ctx, certificate, SSL_FILETYPE_PEM) == 1 &&
	       SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) == 1;
}

static int listen_at(const char *address, const char *port)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
				  .sin_port = htons((unsigned short)atoi(port)) };
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (inet_pton(AF_INET, address, &at.sin_addr) != 1 ||
	    bind(fd, (struct sockaddr *)&at, sizeof(at)) || listen(fd, 64))
		return -1;
	return fd;
}

int main(int argc, char **argv)
{
	pthread_t thread;
	int listener, fd;

	if (argc != 7) {
		fprintf(stderr, "usage: tlsflood ADDRESS PORT CERTIFICATE KEY WHAT WHEN\n");
		return 2;
	}
	what = argv[5];
	when = argv[6];
	signal(SIGPIPE, SIG_IGN);
	if (!set_up(argv[3], argv[4]) || (listener = listen_at(argv[1], argv[2])) < 0) {
		perror("tlsflood");
		return 1;
	}
	puts("listening");
	fflush(stdout);
	while ((fd = accept(listener, NULL, NULL)) >= 0)
		if (pthread_create(&thread, NULL, serve, (void *)(long)fd) == 0)
			pthread_detach(thread);
	return 1;
}
