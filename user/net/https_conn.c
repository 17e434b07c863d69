/* SPDX-License-Identifier: BSD-2-Clause */
/* One HTTPS connection as a client: TCP connect, TLS handshake, request, answer, end. */
#include "net/https_conn.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/sockios.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <openssl/ssl.h>

#include "net/h2.h"

static void fail(struct https_conn *c, const char *step, int os_error)
{
	const struct https_end end = { .step = step, .os_error = os_error };

	c->ops->ended(c->arg, &end);
}

/* --- an established connection ------------------------------------------------------- */

/* An answer to the GET that is due, and not to one that was cancelled. */
static bool is_due(const struct https_conn *c, const struct h2_event *event)
{
	return c->answering && event->stream == c->stream;
}

/* A server that has answered before has nothing to say until it is asked again. */
static void note_answered(struct https_conn *c)
{
	c->answering = false;
	c->peer.meter.idle = true;
}

static void handle_h2_event(struct https_conn *c, const struct h2_event *event)
{
	const struct https_end refused = { .refused = true };

	switch (event->kind) {
	case H2_ANSWERED:
		if (!is_due(c, event))
			break;
		note_answered(c);
		c->answer.status = event->status;
		c->answer.started = true;
		c->answer.keep = true;
		c->ops->received(c->arg, ANSWER_PROGRESS_DONE);
		break;
	case H2_UNANSWERED:
		if (is_due(c, event))
			c->ops->ended(c->arg, &refused);
		break;
	case H2_PONG:
		if (c->ops->pong)
			c->ops->pong(c->arg);
		break;
	case H2_GOING:
		c->gone = true;
		if (c->ops->going)
			c->ops->going(c->arg);
		break;
	}
}

/*
 * One event in each turn of the event loop, because the owner may free the connection. What came
 * in before a breach of the rules counts.
 */
static void on_read_h2(struct https_conn *c)
{
	struct h2_event event;

	if (!c->breach)
		h2_read(c->h2, &c->breach);
	if (h2_next(c->h2, &event)) {
		bufferevent_trigger(c->bev, EV_READ,
				    BEV_TRIG_IGNORE_WATERMARKS | BEV_TRIG_DEFER_CALLBACKS);
		handle_h2_event(c, &event);
	} else if (c->breach) {
		const struct https_end end = { .breach = c->breach };

		c->ops->ended(c->arg, &end);
	}
}

static void on_read(struct bufferevent *bev, void *arg)
{
	struct https_conn *c = arg;
	enum answer_progress progress;

	if (c->h2) {
		on_read_h2(c);
		return;
	}
	if (!c->answering) {
		c->ops->unasked(c->arg);
		return;
	}
	progress = answer_read(&c->answer, bufferevent_get_input(bev));
	if (progress != ANSWER_PROGRESS_MORE)
		note_answered(c);
	c->ops->received(c->arg, progress);
}

static void on_event(struct bufferevent *bev __attribute__((unused)), short what, void *arg)
{
	struct https_conn *c = arg;
	/* libevent has put the socket's error into errno. */
	const struct https_end end = { .what = what,
				       .os_error = c->peer.meter.excess ? 0 : errno,
				       .excess = c->peer.meter.excess };

	if (!(what & BEV_EVENT_CONNECTED))
		c->ops->ended(c->arg, &end);
	else if (tls_chose_h2(c->ssl) && h2_new(c->bev, &c->h2))
		fail(c, "cannot start HTTP/2", ENOMEM);
	else
		c->ops->opened(c->arg);
}

int https_conn_get(struct https_conn *c, const struct https_get *get)
{
	c->answering = true;
	c->peer.meter.idle = false;
	if (!c->h2)
		return bufferevent_write(c->bev, get->request, strlen(get->request)) < 0 ? -ENOMEM
											 : 0;
	c->stream = h2_get(c->h2, get->path, get->authority);
	return c->stream < 0 ? c->stream : 0;
}

bool https_conn_cancel(struct https_conn *c)
{
	bool kept = c->h2 && !c->gone && (!c->answering || !h2_cancel(c->h2, c->stream));

	if (kept)
		c->answering = false;
	return kept;
}

bool https_conn_is_h2(const struct https_conn *c)
{
	return c->h2;
}

int https_conn_ping(struct https_conn *c)
{
	return h2_ping(c->h2, ++c->pings);
}

bool https_conn_is_open(const struct https_conn *c)
{
	return c->bev;
}

bool https_conn_is_kept(const struct https_conn *c)
{
	if (c->h2)
		return !c->gone;
	return c->bev && !c->answering && c->answer.keep &&
	       !evbuffer_get_length(bufferevent_get_input(c->bev));
}

bool https_conn_is_acknowledged(const struct https_conn *c)
{
	int unacknowledged = 0;

	return !c->bev || ioctl(bufferevent_getfd(c->bev), SIOCOUTQ, &unacknowledged) ||
	       !unacknowledged;
}

/* --- connecting ---------------------------------------------------------------------- */

/* Called from within OpenSSL: the connection ends when that has returned. */
static void on_exceeded(void *arg)
{
	struct https_conn *c = arg;

	bufferevent_trigger_event(c->bev, BEV_EVENT_ERROR, BEV_TRIG_DEFER_CALLBACKS);
}

/* The socket is connected; ownership passes to c->bev. False when memory is short. */
static bool start_tls(struct https_conn *c)
{
	c->peer.meter =
		(struct tls_meter){ .budget = c->budget, .exceeded = on_exceeded, .arg = c };
	c->ssl = tls_connection(c->tls, &c->peer, c->fd);
	if (c->ssl && c->offer_h2 && !tls_offer_h2(c->ssl)) {
		tls_hang_up(c->ssl, false);
		SSL_free(c->ssl);
		c->ssl = NULL;
	}
	if (c->ssl)
		/* Deferred: inside a callback the connection may be freed, or another be made. */
		c->bev = bufferevent_openssl_socket_new(
			c->base, c->fd, c->ssl, BUFFEREVENT_SSL_CONNECTING,
			BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
	if (!c->bev) {
		/* Whether libevent has freed ssl depends on where memory ran out: it is leaked. */
		close(c->fd);
		c->ssl = NULL;
		return false;
	}
	bufferevent_setcb(c->bev, on_read, NULL, on_event, c);
	bufferevent_setwatermark(c->bev, EV_READ, 0, c->input_max);
	bufferevent_enable(c->bev, EV_READ | EV_WRITE);
	return true;
}

static void on_dialled(evutil_socket_t fd, short what __attribute__((unused)), void *arg)
{
	struct https_conn *c = arg;
	int os_error = dial_result(fd);

	if (os_error) {
		fail(c, "connect", os_error);
		return;
	}
	event_free(c->dialled);
	c->dialled = NULL;
	if (!start_tls(c))
		fail(c, "cannot start TLS", ENOMEM);
	else if (c->ops->connected)
		c->ops->connected(c->arg);
}

int https_conn_open(struct https_conn *c, const struct klb_endpoint *to, struct tls *tls)
{
	int fd = dial_open(to, c->patience);

	if (fd < 0)
		return fd;
	c->tls = tls;
	c->answering = false;
	c->fd = fd;
	c->dialled = event_new(c->base, fd, EV_WRITE, on_dialled, c);
	if (c->dialled && event_add(c->dialled, NULL) == 0)
		return 0;
	if (c->dialled)
		event_free(c->dialled);
	c->dialled = NULL;
	close(fd);
	return -ENOMEM;
}

/* --- the end ------------------------------------------------------------------------- */

enum klb_reason https_conn_reason(struct https_conn *c, const struct https_end *end, char *detail)
{
	if (end->refused) {
		snprintf(detail, TLS_DETAIL_MAX, "the request was refused (HTTP/2)");
		return KLB_REASON_CLOSED;
	}
	if (end->excess) {
		snprintf(detail, TLS_DETAIL_MAX, "the %s %s", c->peer.words->peer, end->excess);
		return KLB_REASON_PROTOCOL;
	}
	if (end->breach) {
		snprintf(detail, TLS_DETAIL_MAX, "HTTP/2: %s", end->breach);
		return KLB_REASON_PROTOCOL;
	}
	if (!end->step)
		return tls_failure(&c->peer, c->bev, end->what, end->os_error, detail);
	snprintf(detail, TLS_DETAIL_MAX, "%s: %s", end->step, err_reason(end->os_error));
	return tls_socket_reason(end->os_error);
}

void https_conn_close(struct https_conn *c, bool polite)
{
	if (c->dialled) {
		event_free(c->dialled);
		close(c->fd);
		c->dialled = NULL;
	}
	h2_free(c->h2);
	c->h2 = NULL;
	c->gone = false;
	c->breach = NULL;
	if (c->bev) {
		tls_hang_up(c->ssl, polite);
		bufferevent_free(c->bev); /* with ssl and the socket */
		c->bev = NULL;
		c->ssl = NULL;
	}
	c->answering = false;
}

void https_conn_reset(struct https_conn *c)
{
	https_conn_close(c, true);
	tls_peer_reset(&c->peer);
}
