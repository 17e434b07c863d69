/* SPDX-License-Identifier: BSD-2-Clause */
#include "http.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>

#include "endpoint.h"

/* A scrape is a short GET: what is larger or slower is not one. */
#define HEADERS_MAX 8192
#define TIMEOUT_S 10

struct http {
	struct evhttp *server;
	const struct http_ops *ops;
	void *arg;
};

static void reply(struct evhttp_request *req, int code, const char *text)
{
	struct evbuffer *body = evbuffer_new();

	evhttp_add_header(evhttp_request_get_output_headers(req), "Content-Type",
			  "text/plain; charset=utf-8");
	if (body)
		evbuffer_add_printf(body, "%s\n", text);
	evhttp_send_reply(req, code, NULL, body);
	if (body)
		evbuffer_free(body);
}

static void reply_metrics(struct http *h, struct evhttp_request *req)
{
	struct evbuffer *body = evbuffer_new();
	size_t length = 0;
	char *text = h->ops->metrics(h->arg, &length);

	if (!body || !text) {
		reply(req, HTTP_INTERNAL, "out of memory");
	} else {
		evbuffer_add(body, text, length);
		evhttp_add_header(evhttp_request_get_output_headers(req), "Content-Type",
				  "text/plain; version=0.0.4; charset=utf-8");
		evhttp_send_reply(req, HTTP_OK, NULL, body);
	}
	free(text);
	if (body)
		evbuffer_free(body);
}

static void reply_ready(struct http *h, struct evhttp_request *req)
{
	const char *why = h->ops->not_ready(h->arg);

	reply(req, why ? HTTP_SERVUNAVAIL : HTTP_OK, why ? why : "ok");
}

static void on_request(struct evhttp_request *req, void *arg)
{
	const char *path = evhttp_uri_get_path(evhttp_request_get_evhttp_uri(req));
	struct http *h = arg;

	if (evhttp_request_get_command(req) != EVHTTP_REQ_GET) {
		evhttp_add_header(evhttp_request_get_output_headers(req), "Allow", "GET");
		reply(req, HTTP_BADMETHOD, "only GET");
	} else if (path && !strcmp(path, "/metrics")) {
		reply_metrics(h, req);
	} else if (path && !strcmp(path, "/healthz")) {
		reply(req, HTTP_OK, "ok");
	} else if (path && !strcmp(path, "/readyz")) {
		reply_ready(h, req);
	} else {
		reply(req, HTTP_NOTFOUND, "not found; there are /metrics, /healthz and /readyz");
	}
}

int http_new(struct event_base *base, const struct klb_endpoint *address,
	     const struct http_ops *ops, void *arg, struct http **ret, struct err *e)
{
	char text[ENDPOINT_TEXT_MAX];
	struct http *h = calloc(1, sizeof(*h));

	if (!h)
		return err_set(e, ENOMEM, "out of memory");
	h->ops = ops;
	h->arg = arg;
	h->server = evhttp_new(base);
	if (!h->server) {
		http_free(h);
		return err_set(e, ENOMEM, "out of memory");
	}
	evhttp_set_max_headers_size(h->server, HEADERS_MAX);
	evhttp_set_max_body_size(h->server, 0);
	evhttp_set_timeout(h->server, TIMEOUT_S);
	/* Everything, so that what is not GET gets its 405 from us. */
	evhttp_set_allowed_methods(h->server, 0xffff);
	evhttp_set_gencb(h->server, on_request, h);
	if (evhttp_bind_socket(h->server, endpoint_format_address(address, text),
			       (unsigned short)address->port)) {
		int code = errno ? errno : EADDRINUSE;

		http_free(h);
		return err_set(e, code, "http: cannot listen on %s: %s",
			       endpoint_format(address, text), strerror(code));
	}
	*ret = h;
	return 0;
}

void http_free(struct http *h)
{
	if (!h)
		return;
	if (h->server)
		evhttp_free(h->server);
	free(h);
}
