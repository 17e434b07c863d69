/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One connection to an apiserver: looks its name up, connects, and collects the content of the
 * answers.
 *
 *   api_connection_open ─► (look up) ─► connect ─► handshake ─► opened()
 *   api_connection_get ─► content()… ─► answered()
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
#include "net/http_header.h"
#include "net/https_conn.h"

/* The most decrypted bytes that wait in this process. */
#define INPUT_MAX ((size_t)64 * 1024)
#define ADDRESSES_MAX 16

/* Twice the longest answer at once; then far more than any cluster has to say. */
static const struct tls_budget budget = {
	.bytes = { .burst = 2 * DISCOVERY_TEXT_MAX, .per_s = 256 * 1024 },
	.reads = { .burst = 16384, .per_s = 1000 },
};

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

struct api_connection {
	const struct credentials *credentials;
	struct tls *tls;
	struct api_connection_ops ops;
	void *arg;
	unsigned int nth;
	struct klb_endpoint to;
	struct worker *lookup;
	struct https_conn https;
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

/* conn may be gone afterwards. */
static void fail(struct api_connection *conn, const char *why)
{
	char text[ENDPOINT_TEXT_MAX];
	struct err e;

	https_conn_close(&conn->https, false);
	err_set(&e, EIO, "%s: %s", endpoint_format(&conn->to, text), why);
	conn->ops.failed(conn->arg, e.text);
}

static void on_ended(void *arg, const struct https_end *end)
{
	char why[TLS_DETAIL_MAX];
	struct api_connection *conn = arg;

	https_conn_reason(&conn->https, end, why);
	fail(conn, why);
}

static void fail_connect(struct api_connection *conn, int os_error)
{
	const struct https_end end = { .step = "connect", .os_error = os_error };

	on_ended(conn, &end);
}

/* --- answers ------------------------------------------------------------------------- */

static bool on_content(void *arg, const void *bytes, size_t n)
{
	struct api_connection *conn = arg;
	size_t max = conn->https.answer.status == 200 ? DISCOVERY_TEXT_MAX : DISCOVERY_STATUS_MAX;

	/* Of an error, the beginning is enough: the connection will not be kept. */
	if (conn->https.answer.status != 200 && text_length(&conn->text) + n > max)
		return true;
	if (text_add(&conn->text, bytes, n, max)) {
		conn->grew = true;
		return true;
	}
	conn->https.answer.too_large = true;
	return false;
}

static void on_received(void *arg, enum answer_progress progress)
{
	struct api_connection *conn = arg;
	const struct answer *a = &conn->https.answer;
	bool grew = conn->grew;

	conn->grew = false;
	if (progress == ANSWER_PROGRESS_BAD) {
		fail(conn, a->too_large ? "the answer is too large"
					: "the answer is not HTTP/1.1 with a length or chunks");
	} else if (progress == ANSWER_PROGRESS_DONE) {
		conn->ops.answered(conn->arg, a->status);
	} else if (api_connection_status(conn) == 200 && (!conn->began || grew)) {
		conn->began = true;
		conn->ops.content(conn->arg);
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
		     "User-Agent: " HTTP_USER_AGENT "\r\n"
		     "Accept: application/json\r\n"
		     "%s%s%s"
		     "\r\n",
		     c->path, path, open, c->host, close, c->port,
		     token ? "Authorization: Bearer " : "", token ? token : "",
		     token ? "\r\n" : "") < 0)
		return NULL;
	return request;
}

int api_connection_get(struct api_connection *conn, const char *path, size_t content_max)
{
	char *request = make_request(conn->credentials, path);
	int r;

	if (!request)
		return -ENOMEM;
	text_free(&conn->text);
	answer_init_content(&conn->https.answer, content_max, on_content, conn);
	conn->began = false;
	conn->grew = false;
	r = https_conn_get(&conn->https, &(struct https_get){ .request = request });
	explicit_bzero(request, strlen(request));
	free(request);
	return r;
}

struct text *api_connection_text(struct api_connection *conn)
{
	return &conn->text;
}

bool api_connection_is_kept(const struct api_connection *conn)
{
	return https_conn_is_kept(&conn->https);
}

unsigned int api_connection_status(const struct api_connection *conn)
{
	/* While headers come in, the status may be that of an interim answer. */
	return conn->https.answer.state > ANSWER_AT_HEADERS ? conn->https.answer.status : 0;
}

/* --- connecting ---------------------------------------------------------------------- */

static void on_opened(void *arg)
{
	struct api_connection *conn = arg;

	conn->ops.opened(conn->arg);
}

/* Returns 0 or an errno. */
static int dial(struct api_connection *conn, const struct klb_endpoint *to)
{
	const struct credentials *c = conn->credentials;

	conn->to = *to;
	tls_peer_init(&conn->https.peer, c->server_name ? c->server_name : c->host, to);
	return -https_conn_open(&conn->https, to, conn->tls);
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
	struct api_connection *conn = arg;
	struct err why;
	int os_error;

	conn->lookup = NULL;
	if (lookup->r || !lookup->n) {
		err_set(&why, EIO, "cannot look up %s: %s", lookup->host,
			lookup->r ? gai_strerror(lookup->r) : "it has no address");
		conn->ops.failed(conn->arg, why.text);
		return;
	}
	os_error = dial(conn, &lookup->found[conn->nth % lookup->n]);
	if (os_error)
		fail_connect(conn, os_error);
}

static int look_up(struct api_connection *conn, struct err *e)
{
	static const struct worker_ops ops = { .work = lookup_work,
					       .done = lookup_done,
					       .drop = lookup_drop };
	struct lookup *lookup = calloc(1, sizeof(*lookup));

	if (lookup)
		lookup->host = strdup(conn->credentials->host);
	if (!lookup || !lookup->host) {
		free(lookup);
		return err_no_memory(e);
	}
	lookup->port = conn->credentials->port;
	return worker_start(conn->https.base, &ops, conn, lookup, &conn->lookup, e);
}

/* --- life ---------------------------------------------------------------------------- */

static int begin(struct api_connection *conn, const struct klb_endpoint *to, struct err *e)
{
	struct klb_endpoint parsed;
	char text[ENDPOINT_TEXT_MAX];
	int os_error;

	if (!to) {
		if (endpoint_parse(conn->credentials->host, conn->credentials->port, &parsed,
				   NULL) < 0)
			return look_up(conn, e);
		to = &parsed;
	}
	os_error = dial(conn, to);
	if (os_error)
		return err_set(e, os_error, "connect to %s: %s", endpoint_format(to, text),
			       strerror(os_error));
	return 0;
}

static void init_connection(struct api_connection *conn, struct event_base *base)
{
	static const struct https_conn_ops ops = {
		.opened = on_opened,
		.received = on_received,
		.unasked = on_unasked,
		.ended = on_ended,
	};

	conn->https.base = base;
	conn->https.patience = &patience;
	conn->https.input_max = INPUT_MAX;
	conn->https.budget = &budget;
	conn->https.ops = &ops;
	conn->https.arg = conn;
}

int api_connection_open(struct event_base *base, const struct klb_endpoint *to, unsigned int nth,
			const struct credentials *c, struct tls *tls,
			const struct api_connection_ops *ops, void *arg,
			struct api_connection **ret, struct err *e)
{
	struct api_connection *conn = calloc(1, sizeof(*conn));
	int r;

	if (!conn)
		return err_no_memory(e);
	init_connection(conn, base);
	conn->credentials = c;
	conn->tls = tls;
	conn->ops = *ops;
	conn->arg = arg;
	conn->nth = nth;
	r = begin(conn, to, e);
	if (r) {
		api_connection_free(conn);
		return r;
	}
	*ret = conn;
	return 0;
}

void api_connection_free(struct api_connection *conn)
{
	if (!conn)
		return;
	worker_cancel(conn->lookup);
	https_conn_reset(&conn->https);
	text_free(&conn->text);
	free(conn);
}
