/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One TLS connection to an apiserver, and one GET at a time on it.
 *
 *   link_open ─► (name) ─► dial ─► handshake ─► opened()
 *   link_get ─► content()… ─► answered()
 *
 * Content is taken off the socket only as fast as the loop comes round, and what is
 * kept of it is limited: a sender that is too fast waits in its own kernel.
 */
#include <errno.h>
#include <netdb.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>

#include "net/http_response.h"
#include "net/tcp_connect.h"
#include "discovery/internal.h"
#include "net/endpoint.h"

#ifndef KLB_VERSION
#define KLB_VERSION "dev"
#endif

/* Of the socket's bytes, the most that wait decrypted in this process. */
#define INPUT_MAX ((size_t)64 * 1024)
#define ADDRESSES_MAX 16

/* Nothing is lost while an apiserver that vanished is not noticed: seconds will do. */
static const struct dial_patience patience = {
	.user_timeout_ms = 15000,
	.keepalive_idle_s = 10,
	.keepalive_interval_s = 5,
	.keepalive_count = 2,
};

/* A name being looked up, on another thread. */
struct lookup {
	char *host;
	unsigned int port;
	int rc; /* of getaddrinfo */
	unsigned int n;
	struct klb_endpoint found[ADDRESSES_MAX];
};

struct link {
	struct event_base *base;
	const struct credentials *credentials;
	struct tls *tls;
	struct link_ops ops;
	void *arg;
	unsigned int nth;
	struct klb_endpoint to;
	struct worker *lookup;
	struct event *dialled;
	int fd; /* belongs to dialled */
	struct bufferevent *bev;
	struct ssl_st *ssl;
	struct tls_peer peer;
	bool answering, began; /* the headers are in, and the owner knows */
	struct answer answer;
	struct text text;
};

/* --- bytes --------------------------------------------------------------------------- */

static bool text_grow(struct text *t, size_t size)
{
	char *bytes = realloc(t->bytes, size);

	if (!bytes)
		return false;
	t->bytes = bytes;
	t->size = size;
	return true;
}

bool text_add(struct text *t, const void *bytes, size_t n, size_t max)
{
	size_t size = t->size ? t->size : 4096;

	if (n > max || t->length > max - n)
		return false;
	while (size < t->length + n)
		size *= 2;
	if (size != t->size && !text_grow(t, size))
		return false;
	memcpy(t->bytes + t->length, bytes, n);
	t->length += n;
	return true;
}

char *text_line(struct text *t, size_t *ret_length)
{
	char *end = t->bytes ? memchr(t->bytes + t->searched, '\n', t->length - t->searched) : NULL;

	if (!end) {
		t->searched = t->length;
		return NULL;
	}
	*ret_length = (size_t)(end - t->bytes);
	return t->bytes;
}

void text_drop(struct text *t, size_t n)
{
	t->length -= n;
	t->searched = 0;
	if (t->length)
		memmove(t->bytes, t->bytes + n, t->length);
	else if (t->size > INPUT_MAX)
		text_free(t); /* a large one was an exception */
}

void text_free(struct text *t)
{
	free(t->bytes);
	*t = (struct text){ 0 };
}

/* --- failing ------------------------------------------------------------------------- */

static void hang_up(struct link *l, bool polite)
{
	if (l->dialled) {
		event_free(l->dialled);
		close(l->fd);
		l->dialled = NULL;
	}
	if (l->bev) {
		tls_hang_up(l->ssl, polite);
		bufferevent_free(l->bev); /* with ssl and the socket */
		l->bev = NULL;
		l->ssl = NULL;
	}
}

/* l may be gone afterwards. */
static void fail(struct link *l, const char *why)
{
	char text[ENDPOINT_TEXT_MAX];
	struct err e;

	hang_up(l, false);
	err_set(&e, EIO, "%s: %s", endpoint_format(&l->to, text), why);
	l->ops.failed(l->arg, e.text);
}

static void fail_dialling(struct link *l, int os_error)
{
	char why[128];

	snprintf(why, sizeof(why), "connect: %s", strerror(os_error));
	fail(l, why);
}

/* --- answers ------------------------------------------------------------------------- */

static bool on_content(void *arg, const void *bytes, size_t n)
{
	struct link *l = arg;
	size_t max = l->answer.status == 200 ? DISCOVERY_TEXT_MAX : DISCOVERY_STATUS_MAX;

	/* Of an error the beginning is enough, and the connection will not be kept. */
	if (l->answer.status != 200 && l->text.length + n > max)
		return true;
	if (text_add(&l->text, bytes, n, max))
		return true;
	l->answer.too_large = true;
	return false;
}

static void on_read(struct bufferevent *bev, void *arg)
{
	struct link *l = arg;
	enum answer_progress progress;
	size_t before = l->text.length;

	if (!l->answering) {
		fail(l, "the apiserver said something that was not asked for");
		return;
	}
	progress = answer_read(&l->answer, bufferevent_get_input(bev));
	if (progress == ANSWER_PROGRESS_BAD) {
		fail(l, l->answer.too_large ? "the answer is too large"
					    : "the answer is not HTTP/1.1 with a length or chunks");
	} else if (progress == ANSWER_PROGRESS_DONE) {
		l->answering = false;
		l->ops.answered(l->arg, l->answer.status);
	} else if (link_status(l) == 200 && (!l->began || l->text.length > before)) {
		l->began = true;
		l->ops.content(l->arg);
	}
}

static char *make_request(const struct credentials *c, const char *path)
{
	const char *open = strchr(c->host, ':') ? "[" : "", *close = *open ? "]" : "";
	const char *token = c->token.data;
	char *request;

	if (asprintf(&request,
		     "GET %s%s HTTP/1.1\r\n"
		     "Host: %s%s%s:%u\r\n"
		     "User-Agent: kubelb-agent/" KLB_VERSION "\r\n"
		     "Accept: application/json\r\n"
		     "%s%s%s"
		     "\r\n",
		     c->path, path, open, c->host, close, c->port,
		     token ? "Authorization: Bearer " : "", token ? token : "",
		     token ? "\r\n" : "") < 0)
		return NULL;
	return request;
}

int link_get(struct link *l, const char *path, size_t content_max)
{
	char *request = make_request(l->credentials, path);
	int rc;

	if (!request)
		return -ENOMEM;
	text_free(&l->text);
	answer_init_content(&l->answer, content_max, on_content, l);
	l->answering = true;
	l->began = false;
	rc = bufferevent_write(l->bev, request, strlen(request));
	explicit_bzero(request, strlen(request));
	free(request);
	return rc < 0 ? -ENOMEM : 0;
}

struct text *link_text(struct link *l)
{
	return &l->text;
}

bool link_is_kept(const struct link *l)
{
	return l->bev && !l->answering && l->answer.keep &&
	       !evbuffer_get_length(bufferevent_get_input(l->bev));
}

unsigned int link_status(const struct link *l)
{
	/* Still in the headers, it may be an interim one. */
	return l->answer.state > ANSWER_AT_HEADERS ? l->answer.status : 0;
}

/* --- connecting ---------------------------------------------------------------------- */

static void on_event(struct bufferevent *bev, short what, void *arg)
{
	int os_error = errno; /* libevent has put the socket's error there */
	char why[TLS_DETAIL_MAX];
	struct link *l = arg;

	if (what & BEV_EVENT_CONNECTED) {
		l->ops.opened(l->arg);
		return;
	}
	tls_failure(&l->peer, bev, what, os_error, why);
	fail(l, why);
}

/* The socket is connected; ownership passes to l->bev. */
static void start_tls(struct link *l)
{
	l->ssl = tls_connection(l->tls, &l->peer);
	if (l->ssl)
		/* Deferred: inside a callback the connection may be freed. */
		l->bev = bufferevent_openssl_socket_new(
			l->base, l->fd, l->ssl, BUFFEREVENT_SSL_CONNECTING,
			BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
	if (!l->bev) {
		/* Out of memory: whether libevent has freed ssl depends on where. Leaked. */
		close(l->fd);
		l->ssl = NULL;
		fail_dialling(l, ENOMEM);
		return;
	}
	bufferevent_setcb(l->bev, on_read, NULL, on_event, l);
	bufferevent_setwatermark(l->bev, EV_READ, 0, INPUT_MAX);
	bufferevent_enable(l->bev, EV_READ | EV_WRITE);
}

static void on_dialled(evutil_socket_t fd, short what __attribute__((unused)), void *arg)
{
	struct link *l = arg;
	int os_error = dial_result(fd);

	if (os_error) {
		fail_dialling(l, os_error);
		return;
	}
	event_free(l->dialled);
	l->dialled = NULL;
	start_tls(l);
}

/* Returns 0 or an errno. */
static int dial(struct link *l, const struct klb_endpoint *to)
{
	const struct credentials *c = l->credentials;
	int fd = dial_open(to, &patience);

	l->to = *to;
	if (fd < 0)
		return -fd;
	tls_peer_init(&l->peer, c->server_name ? c->server_name : c->host, to);
	l->fd = fd;
	l->dialled = event_new(l->base, fd, EV_WRITE, on_dialled, l);
	if (l->dialled && event_add(l->dialled, NULL) == 0)
		return 0;
	if (!l->dialled)
		close(fd);
	return ENOMEM;
}

/* --- names --------------------------------------------------------------------------- */

static void lookup_drop(void *data)
{
	struct lookup *lookup = data;

	free(lookup->host);
	free(lookup);
}

static void lookup_work(void *data)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG };
	struct addrinfo *list = NULL;
	struct lookup *lookup = data;

	lookup->rc = getaddrinfo(lookup->host, NULL, &hints, &list);
	if (lookup->rc)
		return;
	for (const struct addrinfo *a = list; a && lookup->n < ADDRESSES_MAX; a = a->ai_next) {
		struct klb_endpoint *ep = &lookup->found[lookup->n];

		if (endpoint_from_sockaddr(a->ai_addr, ep) == 0) {
			ep->port = lookup->port;
			lookup->n++;
		}
	}
	freeaddrinfo(list);
}

static void lookup_done(void *arg, void *data)
{
	const struct lookup *lookup = data;
	struct link *l = arg;
	struct err why;
	int os_error;

	l->lookup = NULL;
	if (lookup->rc || !lookup->n) {
		err_set(&why, EIO, "cannot look up %s: %s", lookup->host,
			lookup->rc ? gai_strerror(lookup->rc) : "it has no address");
		l->ops.failed(l->arg, why.text);
		return;
	}
	os_error = dial(l, &lookup->found[l->nth % lookup->n]);
	if (os_error)
		fail_dialling(l, os_error);
}

static int look_up(struct link *l, struct err *e)
{
	static const struct worker_ops ops = { .work = lookup_work,
					       .done = lookup_done,
					       .drop = lookup_drop };
	struct lookup *lookup = calloc(1, sizeof(*lookup));

	if (lookup)
		lookup->host = strdup(l->credentials->host);
	if (!lookup || !lookup->host) {
		free(lookup);
		return err_no_memory(e);
	}
	lookup->port = l->credentials->port;
	return worker_start(l->base, &ops, l, lookup, &l->lookup, e);
}

/* --- life ---------------------------------------------------------------------------- */

static int begin(struct link *l, const struct klb_endpoint *to, struct err *e)
{
	struct klb_endpoint parsed;
	char text[ENDPOINT_TEXT_MAX];
	int os_error;

	if (!to) {
		if (endpoint_parse(l->credentials->host, l->credentials->port, &parsed, NULL) < 0)
			return look_up(l, e);
		to = &parsed;
	}
	os_error = dial(l, to);
	if (os_error)
		return err_set(e, os_error, "connect to %s: %s", endpoint_format(to, text),
			       strerror(os_error));
	return 0;
}

int link_open(struct event_base *base, const struct klb_endpoint *to, unsigned int nth,
	      const struct credentials *c, struct tls *tls, const struct link_ops *ops, void *arg,
	      struct link **ret, struct err *e)
{
	struct link *l = calloc(1, sizeof(*l));
	int rc;

	if (!l)
		return err_no_memory(e);
	l->base = base;
	l->credentials = c;
	l->tls = tls;
	l->ops = *ops;
	l->arg = arg;
	l->nth = nth;
	rc = begin(l, to, e);
	if (rc) {
		link_free(l);
		return rc;
	}
	*ret = l;
	return 0;
}

void link_free(struct link *l)
{
	if (!l)
		return;
	worker_cancel(l->lookup);
	hang_up(l, true);
	tls_peer_reset(&l->peer);
	text_free(&l->text);
	free(l);
}
