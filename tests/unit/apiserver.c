/* SPDX-License-Identifier: BSD-2-Clause */
#include "apiserver.h"

#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <openssl/err.h>

#include "base/clock.h"
#include "host/node.h"
#include "net/endpoint.h"
#include "pki.h"
#include "unit.h"

static void on_server_event(struct bufferevent *bev, short what, void *arg)
{
	struct apiserver *s = arg;

	if (what & BEV_EVENT_CONNECTED)
		return;
	s->ended++;
	if (s->now == bev)
		s->now = NULL;
	bufferevent_free(bev);
	ERR_clear_error();
}

static void note_client(struct apiserver *s, struct bufferevent *bev)
{
	X509 *cert = SSL_get0_peer_certificate(bufferevent_openssl_get_ssl(bev));

	s->client[0] = '\0';
	if (cert)
		X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_commonName, s->client,
					  sizeof(s->client));
}

static void on_server_read(struct bufferevent *bev, void *arg)
{
	struct evbuffer *in = bufferevent_get_input(bev);
	struct apiserver *s = arg;
	struct evbuffer_ptr end = evbuffer_search(in, "\r\n\r\n", 4, NULL);

	if (end.pos < 0)
		return;
	assert_true((size_t)end.pos + 4 < sizeof(s->request));
	assert_int_equal(evbuffer_remove(in, s->request, (size_t)end.pos + 4), end.pos + 4);
	s->request[end.pos + 4] = '\0';
	assert_int_equal(sscanf(s->request, "GET %511s HTTP/1.1", s->path), 1);
	note_client(s, bev);
	s->now = bev;
	s->requests++;
}

static void on_accepted(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *from,
			int length, void *arg)
{
	struct apiserver *s = arg;
	struct bufferevent *bev;

	(void)listener;
	(void)from;
	(void)length;
	s->accepted_ns[s->accepted++ % REQUESTS_MAX] = clock_now_ns();
	if (s->refuse) {
		close(fd);
		return;
	}
	if (s->mute)
		bev = bufferevent_socket_new(s->base, fd, BEV_OPT_CLOSE_ON_FREE);
	else
		bev = bufferevent_openssl_socket_new(s->base, fd, SSL_new(s->ctx),
						     BUFFEREVENT_SSL_ACCEPTING,
						     BEV_OPT_CLOSE_ON_FREE);
	assert_non_null(bev);
	bufferevent_setcb(bev, s->mute ? NULL : on_server_read, NULL, on_server_event, s);
	bufferevent_enable(bev, EV_READ | EV_WRITE);
	s->now = s->mute ? bev : s->now;
}

void apiserver_start(struct apiserver *s, struct event_base *base)
{
	struct klb_endpoint any = endpoint("127.0.0.1:1");
	struct sockaddr_storage ss;
	socklen_t length;

	s->base = base;
	any.port = 0;
	length = endpoint_to_sockaddr(&any, &ss);
	s->listener = evconnlistener_new_bind(base, on_accepted, s,
					      LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 16,
					      (struct sockaddr *)&ss, (int)length);
	assert_non_null(s->listener);
	length = sizeof(ss);
	assert_int_equal(
		getsockname(evconnlistener_get_fd(s->listener), (struct sockaddr *)&ss, &length),
		0);
	assert_int_equal(endpoint_from_sockaddr((struct sockaddr *)&ss, &s->at), 0);
	s->ctx = SSL_CTX_new(TLS_server_method());
	assert_int_equal(SSL_CTX_use_certificate(s->ctx, pki.server.cert), 1);
	assert_int_equal(SSL_CTX_use_PrivateKey(s->ctx, pki.server.key), 1);
	SSL_CTX_set_verify(s->ctx, SSL_VERIFY_PEER, NULL);
	assert_int_equal(X509_STORE_add_cert(SSL_CTX_get_cert_store(s->ctx), pki.ca.cert), 1);
	SSL_CTX_set_session_cache_mode(s->ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_num_tickets(s->ctx, 0);
}

void apiserver_stop(struct apiserver *s)
{
	evconnlistener_free(s->listener);
	SSL_CTX_free(s->ctx);
}
