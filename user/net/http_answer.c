/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Makes the answers of the agent's HTTP address.
 *
 * The metrics are made anew for each of a few requests, and for many requests four times a second:
 * to make them costs as much as a hundred answers. All answers share one copy of the text.
 */
#include "net/http_answer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <event2/buffer.h>

#include "base/clock.h"

/* Metrics are made so many times in a row, and then once in a period. */
#define FRESH_MAX 8
#define FRESH_NS (250 * NS_PER_MS)

/* A text that several answers share. */
struct page {
	unsigned int users;
	char *text;
	size_t length;
};

struct http_answers {
	const struct http_ops *ops;
	void *arg;
	struct page *metrics; /* the last one; NULL: there was none */
	unsigned int fresh; /* how many may be made now */
	__u64 fresh_ns; /* when the last one was added */
};

/* An answer to be sent. */
struct reply {
	unsigned int status;
	const char *type;
	const char *headers; /* more of them; NULL: none */
	struct page *page; /* NULL: text is sent */
	const char *text;
	size_t length;
	bool fixed; /* the text stays; else it is copied */
	bool head; /* without the text */
	bool keep;
};

struct http_answers *http_answers_new(const struct http_ops *ops, void *arg)
{
	struct http_answers *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	a->ops = ops;
	a->arg = arg;
	return a;
}

/* --- pages --------------------------------------------------------------------------- */

static void page_put(struct page *p)
{
	if (!p || --p->users)
		return;
	free(p->text);
	free(p);
}

static void on_page_sent(const void *data, size_t length, void *arg)
{
	(void)data;
	(void)length;
	page_put(arg);
}

void http_answers_free(struct http_answers *a)
{
	if (!a)
		return;
	page_put(a->metrics);
	free(a);
}

/* Takes ownership of text; NULL without memory, and text is freed. */
static struct page *page_new(char *text, size_t length)
{
	struct page *p = text ? malloc(sizeof(*p)) : NULL;

	if (!p) {
		free(text);
		return NULL;
	}
	*p = (struct page){ .users = 1, .text = text, .length = length };
	return p;
}

static bool may_make(struct http_answers *a, __u64 now_ns)
{
	__u64 periods = (now_ns - a->fresh_ns) / FRESH_NS;

	if (!a->fresh_ns || periods > FRESH_MAX - a->fresh) {
		a->fresh = FRESH_MAX;
		a->fresh_ns = now_ns;
	} else {
		a->fresh += (unsigned int)periods;
		a->fresh_ns += periods * FRESH_NS;
	}
	if (!a->fresh)
		return false;
	a->fresh--;
	return true;
}

/* The current text; NULL without memory. */
static struct page *metrics_page(struct http_answers *a, __u64 now_ns)
{
	size_t length = 0;
	char *text;

	if (a->metrics && !may_make(a, now_ns))
		return a->metrics;
	page_put(a->metrics);
	text = a->ops->metrics(a->arg, &length);
	a->metrics = page_new(text, length);
	return a->metrics;
}

/* --- bytes --------------------------------------------------------------------------- */

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
	case 409:
		return "Conflict";
	case 413:
		return "Content Too Large";
	case 431:
		return "Request Header Fields Too Large";
	case 501:
		return "Not Implemented";
	case 503:
		return "Service Unavailable";
	case 505:
		return "HTTP Version Not Supported";
	default:
		return "Internal Server Error";
	}
}

static void add_text(const struct reply *r, struct evbuffer *out)
{
	if (!r->page && r->fixed)
		evbuffer_add_reference(out, r->text, r->length, NULL, NULL);
	else if (!r->page)
		evbuffer_add(out, r->text, r->length);
	if (!r->page)
		return;
	r->page->users++;
	if (evbuffer_add_reference(out, r->page->text, r->page->length, on_page_sent, r->page))
		page_put(r->page);
}

static void send_reply(const struct reply *r, struct evbuffer *out)
{
	time_t now = time(NULL);
	char date[64];
	struct tm tm;

	strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&now, &tm));
	evbuffer_add_printf(out, "HTTP/1.1 %u %s\r\nDate: %s\r\nContent-Type: %s\r\n", r->status,
			    phrase(r->status), date, r->type);
	evbuffer_add_printf(out,
			    "Content-Length: %zu\r\nX-Content-Type-Options: nosniff\r\n%s%s%s\r\n",
			    r->length, r->headers ? r->headers : "",
			    r->status == 405 ? "Allow: GET, HEAD\r\n" : "",
			    r->keep ? "" : "Connection: close\r\n");
	if (!r->head)
		add_text(r, out);
}

/* how: head and keep count. text: one line, with its end. */
static void send_text(const struct reply *how, unsigned int status, const char *text,
		      struct evbuffer *out)
{
	const struct reply r = { .status = status,
				 .type = "text/plain; charset=utf-8",
				 .text = text,
				 .length = strlen(text),
				 .head = how->head,
				 .keep = how->keep };

	send_reply(&r, out);
}

static void send_metrics(struct http_answers *a, struct reply *r, __u64 now_ns,
			 struct evbuffer *out)
{
	r->page = metrics_page(a, now_ns);
	if (!r->page) {
		send_text(r, 500, "out of memory\n", out);
		return;
	}
	r->status = 200;
	r->type = "text/plain; version=0.0.4; charset=utf-8";
	r->length = r->page->length;
	send_reply(r, out);
}

static void send_ready(struct http_answers *a, struct reply *r, struct evbuffer *out)
{
	const char *why = a->ops->not_ready(a->arg);
	char line[256];

	snprintf(line, sizeof(line), "%s\n", why ? why : "ok");
	send_text(r, why ? 503 : 200, line, out);
}

static void send_not_found(const struct reply *r, struct evbuffer *out)
{
	send_text(r, 404, "not found; there are /, /metrics, /healthz, /readyz and /status\n", out);
}

/* A page that is made for this answer alone, or what has become of an order. */
static void send_made(struct http_answers *a,
		      unsigned int (*make)(void *arg, const char *path, struct http_text *ret),
		      const char *path, struct reply *r, struct evbuffer *out)
{
	struct http_text made = { .text = NULL };

	r->status = make ? make(a->arg, path, &made) : 404;
	r->text = made.fixed ? made.fixed : made.text;
	if (!r->text) {
		if (r->status == 404)
			send_not_found(r, out);
		else
			send_text(r, 500, "out of memory\n", out);
		return;
	}
	r->type = made.type ? made.type : "text/plain; charset=utf-8";
	r->headers = made.headers;
	r->fixed = made.fixed;
	r->length = made.length;
	send_reply(r, out);
	free(made.text);
}

void http_answer(struct http_answers *a, const struct request *q, __u64 now_ns,
		 struct evbuffer *out)
{
	struct reply r = { .head = q->method == REQUEST_HEAD, .keep = q->keep };

	if (q->method == REQUEST_POST && a->ops->order && q->body)
		send_text(&r, 413, "a request here has no body\n", out);
	else if (q->method == REQUEST_POST && a->ops->order)
		send_made(a, a->ops->order, q->path, &r, out);
	else if (q->method == REQUEST_OTHER || q->method == REQUEST_POST)
		send_text(&r, 405, "only GET\n", out);
	else if (!strcmp(q->path, "/metrics"))
		send_metrics(a, &r, now_ns, out);
	else if (!strcmp(q->path, "/healthz"))
		send_text(&r, 200, "ok\n", out);
	else if (!strcmp(q->path, "/readyz"))
		send_ready(a, &r, out);
	else
		send_made(a, a->ops->page, q->path, &r, out);
}

void http_answer_refusal(unsigned int status, struct evbuffer *out)
{
	struct reply r = { .keep = false };

	switch (status) {
	case 413:
		send_text(&r, status, "a request here has no body\n", out);
		break;
	case 431:
		send_text(&r, status, "the request and its headers are longer than 8 KiB\n", out);
		break;
	case 505:
		send_text(&r, status, "only HTTP/1.1 and HTTP/1.0\n", out);
		break;
	default:
		send_text(&r, 400, "this is not an HTTP request\n", out);
	}
}
