/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Serves the agent's pages over HTTP.
 *
 *   accept ─► READING ─► ANSWERING ─► (kept) READING ─► …
 *                │            └─────► closed
 *                └── refused ─► LEAVING ─► closed
 *
 * A connection has one time limit for each request. It runs from the beginning of the request
 * (or the end of the last answer) to the answer's last byte. When there are too many
 * connections, the one with the oldest request is closed, so that idle ones never keep a probe
 * out.
 *
 * libevent's evhttp is not used. As of 2.1.12 it does not limit the number of connections. Its
 * time-out begins again with each byte, so that a slow client is never closed. And without free
 * descriptors its listener keeps the event loop busy.
 */
#include "net/http_server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <time.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>

#include "net/endpoint.h"
#include "net/http_request.h"

#define CONNECTIONS_MAX 64
/* A scrape is a short GET and needs less. */
#define REQUEST_S 10
/* A refused client may read the reason for so long; what it still sends is dropped. */
#define LEAVING_S 1
/* After descriptors have run out. */
#define PAUSE_S 1
#define BACKLOG 128

enum phase { PHASE_READING, PHASE_ANSWERING, PHASE_LEAVING };

struct connection {
	struct http *h;
	TAILQ_ENTRY(connection) link;
	struct bufferevent *bev;
	struct event *limit;
	enum phase phase;
	bool keep;
	bool refused;
};

struct http {
	struct event_base *base;
	struct evconnlistener *listener;
	struct event *pause;
	const struct http_ops *ops;
	void *arg;
	TAILQ_HEAD(connections, connection) connections; /* by the beginning of the request */
	unsigned int n;
};

/* An answer to be sent. */
struct reply {
	unsigned int status;
	const char *type;
	const char *text;
	size_t length;
};

static void append(struct connection *c)
{
	TAILQ_INSERT_TAIL(&c->h->connections, c, link);
	c->h->n++;
}

static void take_out(struct connection *c)
{
	TAILQ_REMOVE(&c->h->connections, c, link);
	c->h->n--;
}

static void hang_up(struct connection *c)
{
	take_out(c);
	event_free(c->limit);
	bufferevent_free(c->bev);
	free(c);
}

static void limit(struct connection *c, int seconds)
{
	struct timeval tv = { .tv_sec = seconds };

	event_add(c->limit, &tv);
}

static void begin(struct connection *c)
{
	c->phase = PHASE_READING;
	limit(c, REQUEST_S);
}

/* --- answers ------------------------------------------------------------------------- */

static const char *phrase(unsigned int status)
{
	switch (status) {
	case 200:
		return "OK";
	case 400:
		return "Bad Request";
	case 404:
		return "Not Found";
	case 405:
		return "Method Not Allowed";
	case 413:
		return "Content Too Large";
	case 431:
		return "Request Header Fields Too Large";
	case 503:
		return "Service Unavailable";
	case 505:
		return "HTTP Version Not Supported";
	default:
		return "Internal Server Error";
	}
}

static void send_reply(struct connection *c, const struct reply *r, bool head)
{
	struct evbuffer *out = bufferevent_get_output(c->bev);
	time_t now = time(NULL);
	char date[64];
	struct tm tm;

	strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&now, &tm));
	c->phase = PHASE_ANSWERING;
	evbuffer_add_printf(out, "HTTP/1.1 %u %s\r\nDate: %s\r\nContent-Type: %s\r\n", r->status,
			    phrase(r->status), date, r->type);
	evbuffer_add_printf(out, "Content-Length: %zu\r\n%s%s\r\n", r->length,
			    r->status == 405 ? "Allow: GET, HEAD\r\n" : "",
			    c->keep ? "" : "Connection: close\r\n");
	if (!head)
		evbuffer_add(out, r->text, r->length);
}

/* text: one line, with its end. */
static void send_text(struct connection *c, unsigned int status, const char *text, bool head)
{
	const struct reply r = { status, "text/plain; charset=utf-8", text, strlen(text) };

	send_reply(c, &r, head);
}

static void refuse(struct connection *c, unsigned int status, const char *text)
{
	c->keep = false;
	c->refused = true;
	send_text(c, status, text, false);
}

static void send_metrics(struct connection *c, bool head)
{
	struct http *h = c->h;
	struct reply r = { .status = 200, .type = "text/plain; version=0.0.4; charset=utf-8" };
	char *text = h->ops->metrics(h->arg, &r.length);

	r.text = text;
	if (text)
		send_reply(c, &r, head);
	else
		send_text(c, 500, "out of memory\n", head);
	free(text);
}

static void send_ready(struct connection *c, bool head)
{
	const char *why = c->h->ops->not_ready(c->h->arg);
	char line[256];

	snprintf(line, sizeof(line), "%s\n", why ? why : "ok");
	send_text(c, why ? 503 : 200, line, head);
}

static void answer(struct connection *c, const struct request *q)
{
	bool head = q->method == REQUEST_HEAD;

	c->keep = q->keep;
	c->refused = q->body;
	if (q->method == REQUEST_OTHER)
		send_text(c, 405, "only GET\n", false);
	else if (!strcmp(q->path, "/metrics"))
		send_metrics(c, head);
	else if (!strcmp(q->path, "/healthz"))
		send_text(c, 200, "ok\n", head);
	else if (!strcmp(q->path, "/readyz"))
		send_ready(c, head);
	else
		send_text(c, 404, "not found; there are /metrics, /healthz and /readyz\n", head);
}

/* --- requests ------------------------------------------------------------------------ */

static void refuse_head(struct connection *c, unsigned int status)
{
	switch (status) {
	case 413:
		refuse(c, status, "a request here has no body\n");
		break;
	case 505:
		refuse(c, status, "only HTTP/1.1 and HTTP/1.0\n");
		break;
	default:
		refuse(c, status, "this is not an HTTP request\n");
	}
}

static void take_request(struct connection *c)
{
	struct evbuffer *in = bufferevent_get_input(c->bev);
	size_t n = evbuffer_get_length(in), used;
	char *text = (char *)evbuffer_pullup(in, -1);
	struct request q;
	unsigned int status;

	if (!n || !text)
		return;
	used = request_length(text, n);
	/* A client that speaks TLS, for example, would wait for its answer for ever. */
	if (!used && (text[0] < 'A' || text[0] > 'Z')) {
		refuse_head(c, 400);
		return;
	}
	if (used > REQUEST_MAX || (!used && n >= REQUEST_MAX)) {
		refuse(c, 431, "the request and its headers are longer than 8 KiB\n");
		return;
	}
	if (!used)
		return;
	status = request_parse(text, used, &q);
	evbuffer_drain(in, used);
	if (status)
		refuse_head(c, status);
	else
		answer(c, &q);
}

static void on_read(struct bufferevent *bev, void *arg)
{
	struct connection *c = arg;

	if (c->phase == PHASE_READING)
		take_request(c);
	else if (c->phase == PHASE_LEAVING)
		evbuffer_drain(bufferevent_get_input(bev),
			       evbuffer_get_length(bufferevent_get_input(bev)));
}

/*
 * Closing a socket with unread bytes sends a reset, which may arrive before the client has read the
 * answer. So the socket is shut down for writing first.
 */
static void leave(struct connection *c)
{
	c->phase = PHASE_LEAVING;
	shutdown(bufferevent_getfd(c->bev), SHUT_WR);
	limit(c, LEAVING_S);
	on_read(c->bev, c);
}

/* An answer is written completely. A request that came meanwhile is read now. */
static void on_written(struct bufferevent *bev __attribute__((unused)), void *arg)
{
	struct connection *c = arg;

	if (c->phase != PHASE_ANSWERING)
		return;
	if (c->refused) {
		leave(c);
		return;
	}
	if (!c->keep) {
		hang_up(c);
		return;
	}
	take_out(c);
	append(c);
	begin(c);
	take_request(c);
}

static void on_end(struct bufferevent *bev __attribute__((unused)), short what, void *arg)
{
	struct connection *c = arg;

	/* The client has closed its sending side only, and still reads the answer. */
	if (what & BEV_EVENT_EOF && c->phase == PHASE_ANSWERING) {
		c->keep = false;
		c->refused = false;
		return;
	}
	hang_up(c);
}

static void on_limit(evutil_socket_t fd __attribute__((unused)), short what __attribute__((unused)),
		     void *arg)
{
	hang_up(arg);
}

/* --- listening ----------------------------------------------------------------------- */

static void on_accept(struct evconnlistener *listener __attribute__((unused)), evutil_socket_t fd,
		      struct sockaddr *address __attribute__((unused)),
		      int length __attribute__((unused)), void *arg)
{
	struct http *h = arg;
	struct connection *c;

	if (h->n >= CONNECTIONS_MAX)
		hang_up(TAILQ_FIRST(&h->connections));
	c = calloc(1, sizeof(*c));
	if (!c) {
		evutil_closesocket(fd);
		return;
	}
	c->h = h;
	c->limit = evtimer_new(h->base, on_limit, c);
	c->bev = c->limit ? bufferevent_socket_new(h->base, fd, BEV_OPT_CLOSE_ON_FREE) : NULL;
	if (!c->bev) {
		if (c->limit)
			event_free(c->limit);
		free(c);
		evutil_closesocket(fd);
		return;
	}
	append(c);
	begin(c);
	bufferevent_setcb(c->bev, on_read, on_written, on_end, c);
	/* More bytes wait in the kernel, which slows the sender down. */
	bufferevent_setwatermark(c->bev, EV_READ, 0, REQUEST_MAX);
	bufferevent_enable(c->bev, EV_READ | EV_WRITE);
}

static void on_accept_failed(struct evconnlistener *listener, void *arg)
{
	const struct timeval tv = { .tv_sec = PAUSE_S };
	struct http *h = arg;

	evconnlistener_disable(listener);
	event_add(h->pause, &tv);
}

static void on_pause_over(evutil_socket_t fd __attribute__((unused)),
			  short what __attribute__((unused)), void *arg)
{
	struct http *h = arg;

	evconnlistener_enable(h->listener);
}

static int listen_on(struct http *h, const struct klb_endpoint *address, struct err *e)
{
	char text[ENDPOINT_TEXT_MAX];
	struct sockaddr_storage ss;
	socklen_t length = endpoint_to_sockaddr(address, &ss);
	int code;

	errno = 0;
	h->listener = evconnlistener_new_bind(h->base, on_accept, h,
					      LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC |
						      LEV_OPT_REUSEABLE,
					      BACKLOG, (struct sockaddr *)&ss, (int)length);
	if (h->listener) {
		evconnlistener_set_error_cb(h->listener, on_accept_failed);
		return 0;
	}
	code = errno ? errno : EADDRINUSE;
	return err_set(e, code, "http: cannot listen on %s: %s", endpoint_format(address, text),
		       err_reason(code));
}

int http_new(struct event_base *base, const struct klb_endpoint *address,
	     const struct http_ops *ops, void *arg, struct http **ret, struct err *e)
{
	struct http *h = calloc(1, sizeof(*h));
	int r;

	if (!h)
		return err_no_memory(e);
	TAILQ_INIT(&h->connections);
	h->base = base;
	h->ops = ops;
	h->arg = arg;
	h->pause = evtimer_new(base, on_pause_over, h);
	r = h->pause ? listen_on(h, address, e) : err_no_memory(e);
	if (r) {
		http_free(h);
		return r;
	}
	*ret = h;
	return 0;
}

void http_free(struct http *h)
{
	struct connection *c, *next;

	if (!h)
		return;
	if (h->listener)
		evconnlistener_free(h->listener);
	if (h->pause)
		event_free(h->pause);
	for (c = TAILQ_FIRST(&h->connections); c; c = next) {
		next = TAILQ_NEXT(c, link);
		hang_up(c);
	}
	free(h);
}
