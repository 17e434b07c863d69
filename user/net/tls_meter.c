/* SPDX-License-Identifier: BSD-2-Clause */
/* A BIO between OpenSSL and the socket that counts, and a callback that counts messages. */
#include "net/tls_meter.h"

#include <openssl/bio.h>
#include <openssl/ssl.h>

#include "base/clock.h"

/* Two records of the largest size. The event loop turns before the rest is read. */
#define BYTES_IN_A_ROW 32768
/* A handshake has fewer than ten; servers send one or two tickets after it. */
#define MESSAGES_MAX 64

static void exceed(struct tls_meter *m, const char *what)
{
	if (m->excess)
		return;
	m->excess = what;
	m->exceeded(m->arg);
}

static void count(struct tls_meter *m, int n)
{
	__u64 now = clock_now_ns();

	m->in_a_row += (unsigned int)n;
	if (!pace_take(&m->bytes, &m->budget->bytes, (unsigned int)n, now))
		exceed(m, "sends too many bytes");
	else if (!pace_take(&m->reads, &m->budget->reads, 1, now))
		exceed(m, "sends too many small pieces");
}

static int wait(BIO *bio)
{
	BIO_set_retry_read(bio);
	return -1;
}

static int meter_read(BIO *bio, char *buf, int size)
{
	struct tls_meter *m = BIO_get_data(bio);
	int n;

	BIO_clear_retry_flags(bio);
	if (!m || m->excess)
		return wait(bio);
	if (m->in_a_row >= BYTES_IN_A_ROW) {
		m->in_a_row = 0;
		return wait(bio);
	}
	n = BIO_read(BIO_next(bio), buf, size);
	BIO_copy_next_retry(bio);
	if (n > 0)
		count(m, n);
	else
		m->in_a_row = 0;
	return n;
}

static int meter_write(BIO *bio, const char *buf, int size)
{
	int n = BIO_write(BIO_next(bio), buf, size);

	BIO_clear_retry_flags(bio);
	BIO_copy_next_retry(bio);
	return n;
}

static long meter_ctrl(BIO *bio, int command, long n, void *data)
{
	return BIO_next(bio) ? BIO_ctrl(BIO_next(bio), command, n, data) : 0;
}

/* Made once, and kept to the end of the process. */
static const BIO_METHOD *meter_method(void)
{
	static BIO_METHOD *method;

	if (method)
		return method;
	method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_FILTER, "meter");
	if (method) {
		BIO_meth_set_read(method, meter_read);
		BIO_meth_set_write(method, meter_write);
		BIO_meth_set_ctrl(method, meter_ctrl);
	}
	return method;
}

/* Called with each message before OpenSSL handles it. */
static void on_message(int written, int version, int type, const void *bytes, size_t length,
		       SSL *ssl, void *arg)
{
	struct tls_meter *m = arg;

	(void)version;
	(void)bytes;
	(void)length;
	(void)ssl;
	if (written || type != SSL3_RT_HANDSHAKE)
		return;
	if (m->idle)
		exceed(m, "sends TLS handshake messages although nothing is due");
	else if (++m->messages > MESSAGES_MAX)
		exceed(m, "sends too many TLS handshake messages");
}

bool tls_meter_attach(struct tls_meter *m, SSL *ssl, int fd)
{
	const BIO_METHOD *method = meter_method();
	BIO *bio = method ? BIO_new(method) : NULL, *socket = BIO_new_socket(fd, BIO_NOCLOSE);

	if (!bio || !socket) {
		BIO_free(bio);
		BIO_free(socket);
		return false;
	}
	BIO_set_data(bio, m);
	BIO_push(bio, socket);
	SSL_set_bio(ssl, bio, bio);
	SSL_set_msg_callback(ssl, on_message);
	SSL_set_msg_callback_arg(ssl, m);
	return true;
}

void tls_meter_detach(SSL *ssl)
{
	SSL_set_msg_callback(ssl, NULL);
	if (SSL_get_rbio(ssl))
		BIO_set_data(SSL_get_rbio(ssl), NULL);
}
