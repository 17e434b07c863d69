/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One backend's connection and the probes on it.
 *
 *   probe_start ─► DIALLING ─► HANDSHAKE ─► ANSWER ─► done()
 *        └── on the kept connection ───────────▲
 *
 * Between probes the connection stays in the event loop: that it ends there is
 * news (lost). Whatever leaves doubt about what would come next on a connection
 * (a failed probe, an answer not read to its end) ends that connection.
 */
#include "agent/probe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>

#include <openssl/ssl.h>

#include "base/ascii.h"
#include "base/clock.h"
#include "net/tcp_connect.h"
#include "agent/probe_internal.h"

/* A host that vanishes is noticed in about two seconds, an idle connection's too. */
static const struct dial_patience patience = {
	.user_timeout_ms = 2000,
	.keepalive_idle_s = 1,
	.keepalive_interval_s = 1,
	.keepalive_count = 2,
};

enum phase {
	PHASE_IDLE, /* bev, if any, is the kept connection */
	PHASE_DIALLING,
	PHASE_HANDSHAKE,
	PHASE_ANSWER,
	PHASE_DECIDED, /* inside probe_start: done() waits for the event loop */
};

struct probe {
	struct event_base *base;
	unsigned int timeout_ms, connect_timeout_ms;
	char *server_name; /* or NULL */
	struct probe_tls *tls;
	struct klb_endpoint backend;
	struct probe_ops ops;
	void *arg;
	struct klb_endpoint *must_cover;
	unsigned int n_must_cover;
	char *requests[2]; /* by enum probe_path */
	struct event *timer;

	/* The connection: dialled while it is being made, then bev and its ssl. */
	struct event *dialled;
	int fd; /* belongs to dialled */
	struct bufferevent *bev;
	SSL *ssl;
	struct tls_peer peer;

	/* The probe under way. */
	enum phase phase;
	bool starting;
	bool fresh; /* tried a new connection */
	bool handshake; /* and got it */
	enum probe_path path;
	__u64 start_ns;
	enum klb_reason outcome;
	struct answer answer;
	char detail[TLS_DETAIL_MAX];

	/* Callbacks may call probe_free: it is done when the last one returns. */
	unsigned int calling;
	bool freed;
};

static void release(struct probe *p)
{
	if (p->timer)
		event_free(p->timer);
	tls_peer_reset(&p->peer);
	free(p->must_cover);
	free(p->server_name);
	free(p->requests[PROBE_READY]);
	free(p->requests[PROBE_LIVE]);
	free(p);
}

static void enter_callback(struct probe *p)
{
	p->calling++;
}

/* p may be gone afterwards. */
static void leave_callback(struct probe *p)
{
	if (--p->calling == 0 && p->freed)
		release(p);
}

static void hang_up(struct probe *p, bool polite)
{
	if (p->dialled) {
		event_free(p->dialled);
		close(p->fd);
		p->dialled = NULL;
	}
	if (p->bev) {
		tls_hang_up(p->ssl, polite);
		bufferevent_free(p->bev); /* with ssl and the socket */
		p->bev = NULL;
		p->ssl = NULL;
	}
}

/* Ends the probe; the last thing to happen in an event. p may be gone afterwards. */
static void report(struct probe *p)
{
	/* A copy: done() may start the next probe, which uses p->detail. */
	char detail[TLS_DETAIL_MAX];
	struct probe_result result = {
		.path = p->path,
		.outcome = p->outcome,
		.http_status = p->answer.status,
		.duration_ns = clock_now_ns() - p->start_ns,
		.detail = p->detail[0] ? detail : NULL,
		.handshake = p->handshake,
	};

	memcpy(detail, p->detail, sizeof(detail));
	event_del(p->timer);
	p->phase = PHASE_IDLE;
	enter_callback(p);
	p->ops.done(p->arg, &result);
	leave_callback(p);
}

/* As report(), but not from inside probe_start. */
static void decide(struct probe *p, enum klb_reason outcome)
{
	p->outcome = outcome;
	if (!p->starting) {
		report(p);
		return;
	}
	p->phase = PHASE_DECIDED;
	event_active(p->timer, EV_TIMEOUT, 0);
}

/* There was no answer, or none to build on; p->detail says why. */
static void fail(struct probe *p, enum klb_reason outcome, bool polite)
{
	hang_up(p, polite);
	p->answer.status = 0;
	decide(p, outcome);
}

static void fail_dialling(struct probe *p, const char *what, int os_error)
{
	snprintf(p->detail, sizeof(p->detail), "%s: %s", what, strerror(os_error));
	fail(p, tls_socket_reason(os_error), false);
}

static void on_lost(struct probe *p, bool timed_out)
{
	hang_up(p, false);
	enter_callback(p);
	p->ops.lost(p->arg, timed_out);
	leave_callback(p);
}

static enum klb_reason status_outcome(unsigned int status)
{
	switch (status) {
	case 200:
		return KLB_REASON_OK;
	case 401:
	case 403:
		return KLB_REASON_UNAUTHORIZED;
	default:
		return KLB_REASON_NOT_READY;
	}
}

static void take_answer(struct probe *p, struct evbuffer *in)
{
	switch (answer_read(&p->answer, in)) {
	case ANSWER_PROGRESS_DONE:
		/* What follows the answer was not asked for. */
		if (!p->answer.keep || evbuffer_get_length(in))
			hang_up(p, true);
		decide(p, status_outcome(p->answer.status));
		break;
	case ANSWER_PROGRESS_BAD:
		snprintf(p->detail, sizeof(p->detail), "the answer is not HTTP/1.1");
		fail(p, KLB_REASON_PROTOCOL, true);
		break;
	case ANSWER_PROGRESS_MORE:
	case ANSWER_PROGRESS_STEP:
		break;
	}
}

static void on_read(struct bufferevent *bev, void *arg)
{
	struct probe *p = arg;

	if (p->phase == PHASE_ANSWER)
		take_answer(p, bufferevent_get_input(bev));
	else if (p->phase == PHASE_IDLE)
		/* "408 Request Timeout", say: servers send it ahead of closing. */
		on_lost(p, false);
}

static void send_request(struct probe *p)
{
	p->phase = PHASE_ANSWER;
	answer_init(&p->answer);
	if (bufferevent_write(p->bev, p->requests[p->path], strlen(p->requests[p->path])) == 0)
		return;
	fail_dialling(p, "cannot send", ENOMEM);
}

static void report_uncovered(struct probe *p)
{
	unsigned int i;

	for (i = 0; i < p->n_must_cover && p->ssl; i++)
		if (!tls_covers(p->ssl, &p->must_cover[i]))
			p->ops.not_covered(p->arg, &p->must_cover[i]);
}

static void dial(struct probe *p);

/*
 * The kept connection had ended when the request was sent, by the other side's
 * idle timeout or its restart: that says nothing about now. Once a probe.
 */
static bool was_stale(const struct probe *p, enum klb_reason reason)
{
	return reason == KLB_REASON_CLOSED && !p->fresh && !p->answer.started;
}

static void on_end(struct probe *p, short what, int os_error)
{
	enum klb_reason reason;

	if (p->phase == PHASE_IDLE) {
		on_lost(p, what & BEV_EVENT_ERROR &&
				   (os_error == ETIMEDOUT || os_error == EHOSTUNREACH));
		return;
	}
	reason = tls_failure(&p->peer, p->bev, what, os_error, p->detail);
	if (!was_stale(p, reason)) {
		fail(p, reason, false);
		return;
	}
	hang_up(p, false);
	p->detail[0] = '\0';
	dial(p);
}

static void on_event(struct bufferevent *bev __attribute__((unused)), short what, void *arg)
{
	int os_error = errno; /* libevent has put the socket's error there */
	struct probe *p = arg;

	if (!(what & BEV_EVENT_CONNECTED)) {
		on_end(p, what, os_error);
		return;
	}
	enter_callback(p);
	p->handshake = true;
	send_request(p);
	report_uncovered(p);
	leave_callback(p);
}

/* Arms the timer for so many milliseconds from now, but never for later than the probe's
 * end. most_ms 0: for that end. */
static void arm(struct probe *p, unsigned int most_ms)
{
	unsigned int passed = (unsigned int)((clock_now_ns() - p->start_ns) / 1000000);
	unsigned int left = p->timeout_ms > passed ? p->timeout_ms - passed : 0;
	unsigned int ms = most_ms && most_ms < left ? most_ms : left;
	struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

	event_add(p->timer, &tv);
}

/* The socket is connected; ownership passes to p->bev. */
static void start_tls(struct probe *p)
{
	p->phase = PHASE_HANDSHAKE;
	arm(p, 0);
	p->ssl = tls_connection(p->tls->tls, &p->peer);
	if (p->ssl)
		/* Deferred: inside a callback the connection may be freed or another be made. */
		p->bev = bufferevent_openssl_socket_new(
			p->base, p->fd, p->ssl, BUFFEREVENT_SSL_CONNECTING,
			BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
	if (!p->bev) {
		/* Out of memory: whether libevent has freed ssl depends on where. Leaked. */
		close(p->fd);
		p->ssl = NULL;
		fail_dialling(p, "cannot start TLS", ENOMEM);
		return;
	}
	bufferevent_setcb(p->bev, on_read, NULL, on_event, p);
	bufferevent_enable(p->bev, EV_READ | EV_WRITE);
}

static void on_dialled(evutil_socket_t fd, short what __attribute__((unused)), void *arg)
{
	struct probe *p = arg;
	int os_error = dial_result(fd);

	if (os_error) {
		fail_dialling(p, "connect", os_error);
		return;
	}
	event_free(p->dialled);
	p->dialled = NULL;
	start_tls(p);
}

static void dial(struct probe *p)
{
	int fd = dial_open(&p->backend, &patience);

	p->phase = PHASE_DIALLING;
	p->fresh = true;
	if (fd < 0) {
		fail_dialling(p, "connect", -fd);
		return;
	}
	/* A SYN waits as long as a client's would. */
	arm(p, p->connect_timeout_ms);
	p->fd = fd;
	p->dialled = event_new(p->base, fd, EV_WRITE, on_dialled, p);
	if (p->dialled && event_add(p->dialled, NULL) == 0)
		return;
	if (!p->dialled)
		close(fd);
	fail_dialling(p, "connect", ENOMEM);
}

static void on_timeout(struct probe *p)
{
	const char *what = "no HTTP answer";
	enum klb_reason outcome = KLB_REASON_NO_ANSWER;

	if (p->phase == PHASE_DIALLING) {
		what = "no answer to the connect";
		outcome = KLB_REASON_CONNECT_TIMEOUT;
	} else if (p->phase == PHASE_HANDSHAKE) {
		what = "connected, but no answer to the TLS handshake";
	}
	snprintf(p->detail, sizeof(p->detail), "%s within %llu ms", what,
		 (clock_now_ns() - p->start_ns) / 1000000);
	fail(p, outcome, true);
}

static void on_timer(evutil_socket_t fd __attribute__((unused)), short what __attribute__((unused)),
		     void *arg)
{
	struct probe *p = arg;

	if (p->phase == PHASE_DECIDED)
		report(p);
	else
		on_timeout(p);
}

void probe_start(struct probe *p, enum probe_path path)
{
	if (p->phase != PHASE_IDLE || p->freed)
		return;
	p->path = path;
	p->start_ns = clock_now_ns();
	p->fresh = false;
	p->handshake = false;
	p->detail[0] = '\0';
	answer_init(&p->answer);
	arm(p, 0);
	p->starting = true;
	if (p->bev)
		send_request(p);
	else
		dial(p);
	p->starting = false;
}

/* Both go into the request as they are: a line break would end up as a header. */
static int check_text(const char *key, const char *text, struct err *e)
{
	if (ascii_all_graph(text))
		return 0;
	return err_set(e, EINVAL,
		       "%s: '%s' has a space, a control or a non-ASCII character in it; remove it",
		       key, text);
}

static int check(const struct config_probe *cfg, struct err *e)
{
	int err = check_text("probe.path", cfg->path, e);

	if (!err && cfg->live_path)
		err = check_text("probe.livePath", cfg->live_path, e);
	if (!err && cfg->path[0] != '/')
		err = err_set(e, EINVAL, "probe.path: '%s' does not begin with /", cfg->path);
	if (!err && cfg->server_name)
		err = check_text("probe.serverName", cfg->server_name, e);
	return err;
}

static bool copy_must_cover(struct probe *p, const struct klb_endpoint *must_cover, unsigned int n)
{
	if (!n)
		return true;
	p->must_cover = calloc(n, sizeof(*must_cover));
	if (!p->must_cover)
		return false;
	memcpy(p->must_cover, must_cover, n * sizeof(*must_cover));
	p->n_must_cover = n;
	return true;
}

int probe_new(struct event_base *base, const struct config_probe *cfg, struct probe_tls *tls,
	      const struct klb_endpoint *backend, const struct klb_endpoint *must_cover,
	      unsigned int n_must_cover, const struct probe_ops *ops, void *arg, struct probe **ret,
	      struct err *e)
{
	struct probe *p;
	int err = check(cfg, e);

	if (err)
		return err;
	p = calloc(1, sizeof(*p));
	if (!p)
		return err_no_memory_for(e, "probe");
	p->base = base;
	p->timeout_ms = cfg->timeout_ms;
	p->connect_timeout_ms = cfg->connect_timeout_ms;
	p->server_name = cfg->server_name ? strdup(cfg->server_name) : NULL;
	p->tls = tls;
	p->backend = *backend;
	p->ops = *ops;
	p->arg = arg;
	tls_peer_init(&p->peer, p->server_name, backend);
	p->timer = evtimer_new(base, on_timer, p);
	p->requests[PROBE_READY] = probe_request(cfg->path, &p->peer);
	p->requests[PROBE_LIVE] =
		probe_request(cfg->live_path ? cfg->live_path : cfg->path, &p->peer);
	if (!p->timer || !p->requests[PROBE_READY] || !p->requests[PROBE_LIVE] ||
	    (cfg->server_name && !p->server_name) ||
	    !copy_must_cover(p, must_cover, n_must_cover)) {
		release(p);
		return err_no_memory_for(e, "probe");
	}
	*ret = p;
	return 0;
}

void probe_free(struct probe *p)
{
	if (!p)
		return;
	hang_up(p, true);
	event_del(p->timer);
	p->freed = true;
	if (!p->calling)
		release(p);
}
