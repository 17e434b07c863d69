/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One connection to an apiserver: looks its name up, connects, and collects the content of the
 * answers.
 *
 *   link_open ─► (look up) ─► connect ─► handshake ─► opened()
 *   link_get ─► content()… ─► answered()
 *
 * Content is taken off the socket only as fast as the event loop turns, and a limited amount of
 * it is kept: a sender that is too fast has to wait.
 */
#include <errno.h>
#include <netdb.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <event2/buffer.h>

#include "discovery/internal.h"
#include "net/endpoint.h"
#include "net/https_conn.h"

/* The most decrypted bytes that wait in this process. */
#define INPUT_MAX ((size_t)64 * 1024)
#define ADDRESSES_MAX 16

/* It does no harm to notice a lost apiserver some seconds late. */
static const struct dial_patience patience = {
	.user_timeout_ms = 15000,
	.keepalive_idle_s = 10,
	.keepalive_interval_s = 5,
	.keepalive_count = 2,
};

/* A name that is being looked up on another thread. */
struct lookup {
	char *host;
	unsigned int port;
	int r; /* of getaddrinfo */
	unsigned int n;
	struct klb_endpoint found[ADDRESSES_MAX];
};

struct link {
	const struct credentials *credentials;
	struct tls *tls;
	struct link_ops ops;
	void *arg;
	unsigned int nth;
	struct klb_endpoint to;
	struct worker *lookup;
	struct https_conn conn;
	bool began; /* the owner knows that the headers are in */
	bool grew; /* there is content that the owner does not know of */
	struct text text;
};

/* --- bytes --------------------------------------------------------------------------- */

size_t text_length(const struct text *t)
{
	return t->bytes ? evbuffer_get_length(t->bytes) : 0;
}

bool text_add(struct text *t, const void *bytes, size_t n, size_t max)
{
	if (n > max || text_length(t) > max - n)
		return false;
	if (!t->bytes)
		t->bytes = evbuffer_new();
	return t->bytes && evbuffer_add(t->bytes, bytes, n) == 0;
}

const char *text_all(struct text *t, size_t *ret_length)
{
	const void *all = text_length(t) ? evbuffer_pullup(t->bytes, -1) : NULL;

	*ret_length = all ? text_length(t) : 0;
	return all ? all : "";
}

const char *text_line(struct text *t, size_t *ret_length)
{
	struct evbuffer_ptr from, end;

	if (text_length(t) <= t->searched ||
	    evbuffer_ptr_set(t->bytes, &from, t->searched, EVBUFFER_PTR_SET) < 0)
		return NULL;
	end = evbuffer_search(t->bytes, "\n", 1, &from);
	if (end.pos < 0) {
		t->searched = text_length(t);
		return NULL;
	}
	*ret_length = (size_t)end.pos;
	return (const char *)evbuffer_pullup(t->bytes, end.pos + 1);
}

void text_drop(struct text *t, size_t n)
{
	if (t->bytes)
		evbuffer_drain(t->bytes, n);
	t->searched = 0;
}

void text_free(struct text *t)
{
	if (t->bytes)
		evbuffer_free(t->bytes);
	*t = (struct text){ 0 };
}

/* --- failing ------------------------------------------------------------------------- */

/* l may be gone afterwards. */
static void fail(struct link *l, const char *why)
{
	char text[ENDPOINT_TEXT_MAX];
	struct err e;

	https_conn_close(&l->conn, false);
	err_set(&e, EIO, "%s: %s", endpoint_format(&l->to, text), why);
	l->ops.failed(l->arg, e.text);
}

static void on_ended(void *arg, const struct https_end *end)
{
	char why[TLS_DETAIL_MAX];
	struct link *l = arg;

	https_conn_reason(&l->conn, end, why);
	fail(l, why);
}

static void fail_connect(struct link *l, int os_error)
{
	const struct https_end end = { .step = "connect", .os_error = os_error };

	on_ended(l, &end);
}

/* --- answers ------------------------------------------------------------------------- */

static bool on_content(void *arg, const void *bytes, size_t n)
{
	struct link *l = arg;
	size_t max = l->conn.answer.status == 200 ? DISCOVERY_TEXT_MAX : DISCOVERY_STATUS_MAX;

	/* Of an error, the beginning is enough: the connection will not be kept. */
	if (l->conn.answer.status != 200 && text_length(&l->text) + n > max)
		return true;
	if (text_add(&l->text, bytes, n, max)) {
		l->grew = true;
		return true;
	}
	l->conn.answer.too_large = true;
	return false;
}

static void on_received(void *arg, enum answer_progress progress)
{
	struct link *l = arg;
	const struct answer *a = &l->conn.answer;
	bool grew = l->grew;

	l->grew = false;
	if (progress == ANSWER_PROGRESS_BAD) {
		fail(l, a->too_large ? "the answer is too large"
				     : "the answer is not HTTP/1.1 with a length or chunks");
	} else if (progress == ANSWER_PROGRESS_DONE) {
		l->ops.answered(l->arg, a->status);
	} else if (link_status(l) == 200 && (!l->began || grew)) {
		l->began = true;
		l->ops.content(l->arg);
	}
}

static void on_unasked(void *arg)
{
	fail(arg, "the apiserver said something that was not asked for");
}

static char *make_request(const struct credentials *c, const char *path)
{
	const char *open = strchr(c->host, ':') ? "[" : "", *close = *open ? "]" : "";
	const char *token = c->token.data;
	char *request;

	if (asprintf(&request,
		     "GET %s%s HTTP/1.1\r\n"
		     "Host: %s%s%s:%u\r\n"
		     "User-Agent: " HTTPS_USER_AGENT "\r\n"
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
	int r;

	if (!request)
		return -ENOMEM;
	text_free(&l->text);
	answer_init_content(&l->conn.answer, content_max, on_content, l);
	l->began = false;
	l->grew = false;
	r = https_conn_get(&l->conn, request);
	explicit_bzero(request, strlen(request));
	free(request);
	return r;
}

struct text *link_text(struct link *l)
{
	return &l->text;
}

bool link_is_kept(const struct link *l)
{
	return https_conn_is_kept(&l->conn);
}

unsigned int link_status(const struct link *l)
{
	/* While headers come in, the status may be that of an interim answer. */
	return l->conn.answer.state > ANSWER_AT_HEADERS ? l->conn.answer.status : 0;
}

/* --- connecting ---------------------------------------------------------------------- */

static void on_opened(void *arg)
{
	struct link *l = arg;

	l->ops.opened(l->arg);
}

/* Returns 0 or an errno. */
static int dial(struct link *l, const struct klb_endpoint *to)
{
	const struct credentials *c = l->credentials;

	l->to = *to;
	tls_peer_init(&l->conn.peer, c->server_name ? c->server_name : c->host, to);
	return -https_conn_open(&l->conn, to, l->tls);
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

	lookup->r = getaddrinfo(lookup->host, NULL, &hints, &list);
	if (lookup->r)
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
	if (lookup->r || !lookup->n) {
		err_set(&why, EIO, "cannot look up %s: %s", lookup->host,
			lookup->r ? gai_strerror(lookup->r) : "it has no address");
		l->ops.failed(l->arg, why.text);
		return;
	}
	os_error = dial(l, &lookup->found[l->nth % lookup->n]);
	if (os_error)
		fail_connect(l, os_error);
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
	return worker_start(l->conn.base, &ops, l, lookup, &l->lookup, e);
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

static void init_connection(struct link *l, struct event_base *base)
{
	static const struct https_conn_ops ops = {
		.opened = on_opened,
		.received = on_received,
		.unasked = on_unasked,
		.ended = on_ended,
	};

	l->conn.base = base;
	l->conn.patience = &patience;
	l->conn.input_max = INPUT_MAX;
	l->conn.ops = &ops;
	l->conn.arg = l;
}

int link_open(struct event_base *base, const struct klb_endpoint *to, unsigned int nth,
	      const struct credentials *c, struct tls *tls, const struct link_ops *ops, void *arg,
	      struct link **ret, struct err *e)
{
	struct link *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return err_no_memory(e);
	init_connection(l, base);
	l->credentials = c;
	l->tls = tls;
	l->ops = *ops;
	l->arg = arg;
	l->nth = nth;
	r = begin(l, to, e);
	if (r) {
		link_free(l);
		return r;
	}
	*ret = l;
	return 0;
}

void link_free(struct link *l)
{
	if (!l)
		return;
	worker_cancel(l->lookup);
	https_conn_reset(&l->conn);
	text_free(&l->text);
	free(l);
}
