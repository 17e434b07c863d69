/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An apiserver in the test's own event loop: does nothing by itself but accept and note
 * what it is asked. Its certificate is pki.server's.
 */
#ifndef KUBELB_TESTS_APISERVER_H
#define KUBELB_TESTS_APISERVER_H

#include <stdbool.h>

#include <openssl/ssl.h>

#include <kubelb/abi.h>

struct bufferevent;
struct evconnlistener;
struct event_base;

#define REQUESTS_MAX 256

struct apiserver {
	struct event_base *base;
	struct evconnlistener *listener;
	struct klb_endpoint at;
	SSL_CTX *ctx;
	bool refuse; /* hangs up on whoever comes */
	bool mute; /* accepts, and shakes no hands */
	unsigned int accepted, requests, ended;
	struct bufferevent *now; /* the connection of the last request, while it lives */
	char path[512]; /* of the last request */
	char request[4096];
	char client[64]; /* the common name in its client's certificate */
	__u64 accepted_ns[REQUESTS_MAX];
};

void apiserver_start(struct apiserver *s, struct event_base *base);
/* When every connection has ended. */
void apiserver_stop(struct apiserver *s);

#endif
