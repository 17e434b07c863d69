/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One backend's persistent probe connection and the GETs on it.
 *
 *   probe_start ─► DIALLING ─► HANDSHAKE ─► ANSWER ─► done()
 *        └── on the persistent connection ─────▲
 *
 * Between probes the connection stays in the event loop, and its end is reported at once
 * (lost). A connection ends with any probe that leaves doubt about the bytes that would come
 * next on it: a failed one, or one whose answer was not read to its end.
 */
#include "agent/probe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/bufferevent.h>
#include <event2/event.h>

#include "base/array.h"
#include "base/ascii.h"
#include "base/clock.h"
#include "config/probe_tls.h"
#include "net/https_conn.h"
#include "net/https_get.h"
#include "agent/probe_internal.h"

/* A host that vanishes is noticed in about two seconds, also on an idle connection. */
static const struct dial_patience patience = {
	.user_timeout_ms = 2000,
	.keepalive_idle_s = 1,
	.keepalive_interval_s = 1,
	.keepalive_count = 2,
};

/* Certificates and the longest answers at once; then tens of usual answers and PINGs a second. */
static const struct tls_budget budget = {
	.bytes = { .burst = 256 * 1024, .per_s = 128 * 1024 },
	.reads = { .burst = 2000, .per_s = 500 },
};

enum phase {
	PHASE_IDLE, /* the connection, if any, is kept for the next probe */
	PHASE_DIALLING,
	PHASE_HANDSHAKE,
	PHASE_ANSWER,
	PHASE_DECIDED, /* inside probe_start: done() waits for the event loop */
};

struct probe {
	unsigned int timeout_ms, connect_timeout_ms;
	char *server_name; /* or NULL */
	bool certificate; /* it has one of its own */
	bool explains; /* 401 and 403 are not what the configuration expects */
	struct probe_tls *tls;
	struct klb_endpoint backend;
	struct probe_ops ops;
	void *arg;
	struct klb_endpoint *must_cover;
	unsigned int n_must_cover;
	struct https_get gets[2]; /* by enum probe_path */
	struct event *timer;

	struct https_conn conns[2];
	struct https_conn *conn; /* the persistent connection */
	struct https_conn *leaving; /* the one before: closes when this one has its first answer */

	/* The probe under way. */
	enum phase phase;
	bool starting;
	bool fresh; /* tried a new connection */
	bool handshake; /* and got it */
	bool unable;
	enum probe_path path;
	__u64 start_ns;
	enum klb_reason outcome;
	char detail[TLS_DETAIL_MAX];

	bool misbehaved; /* between probes: the next one fails for the reason in offence */
	char offence[TLS_DETAIL_MAX];

	bool speaks_h2; /* the last connection did */
	bool pinging; /* HTTP/1.1: the answer to a GET in place of a PING is due */
	unsigned int rest; /* so many answers to probes before the next such GET */
	__u64 answer_ns; /* when the last GET was answered */

	/* Callbacks may call probe_free: it is done when the last one returns. */
	unsigned int calling;
	bool freed;
};

static void release(struct probe *p)
{
	if (p->timer)
		event_free(p->timer);
	https_conn_reset(p->conn);
	https_conn_reset(p->leaving);
	free(p->must_cover);
	free(p->server_name);
	https_get_free(&p->gets[PROBE_READY]);
	https_get_free(&p->gets[PROBE_LIVE]);
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

/* Ends the probe; the last thing to happen in an event. p may be gone afterwards. */
static void report(struct probe *p)
{
	/* A copy: done() may start the next probe, which uses p->detail. */
	char detail[TLS_DETAIL_MAX];
	struct probe_result result = {
		.path = p->path,
		.outcome = p->outcome,
		.http_status = p->conn->answer.status,
		.duration_ns = clock_now_ns() - p->start_ns,
		.detail = p->detail[0] ? detail : NULL,
		.handshake = p->handshake,
		.certificate_expires_s = tls_expires_s(&p->conn->peer, p->conn->ssl),
		.unable = p->unable,
	};

	memcpy(detail, p->detail, sizeof(detail));
	event_del(p->timer);
	p->phase = PHASE_IDLE;
	enter_callback(p);
	p->ops.done(p->arg, &result);
	leave_callback(p);
}

/* Like report(), but inside probe_start it waits for the event loop. */
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

/* The probe has no answer that counts; p->detail says why. */
static void fail(struct probe *p, enum klb_reason outcome, bool polite)
{
	https_conn_close(p->conn, polite);
	p->pinging = false;
	p->conn->answer.status = 0;
	decide(p, outcome);
}

static void on_alive(struct probe *p)
{
	enter_callback(p);
	p->ops.alive(p->arg);
	leave_callback(p);
}

static void on_lost(struct probe *p, bool timed_out)
{
	https_conn_close(p->conn, false);
	p->pinging = false;
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

/* A GET has its answer, be it a probe's or one in place of a PING. */
static void note_answer(struct probe *p)
{
	p->answer_ns = clock_now_ns();
	if (p->rest)
		p->rest--;
	https_conn_close(p->leaving, true);
	/* More bytes than the answer has were not asked for. */
	if (!https_conn_is_kept(p->conn))
		https_conn_close(p->conn, true);
}

static void on_answer(struct probe *p)
{
	unsigned int status = p->conn->answer.status;
	enum klb_reason outcome = status_outcome(status);

	note_answer(p);
	if (outcome == KLB_REASON_UNAUTHORIZED && p->explains)
		config_explain_refusal(status, p->certificate, p->detail);
	enter_callback(p);
	/* Without PINGs it is the sign of life. */
	if (!p->speaks_h2)
		p->ops.alive(p->arg);
	if (!p->freed)
		decide(p, outcome);
	leave_callback(p);
}

/* --- HTTP/1.1: a GET in place of a PING ------------------------------------------------ */

static bool send_request(struct probe *p);
static void dial(struct probe *p);

/* The connection is free, or closed: a probe that has begun meanwhile has its turn. */
static void end_ping(struct probe *p)
{
	p->pinging = false;
	if (p->phase != PHASE_ANSWER)
		return;
	if (https_conn_is_open(p->conn))
		send_request(p);
	else
		dial(p);
}

/* What it says does not count: that it is answered shows that the process runs. */
static void on_ping_received(struct probe *p, enum answer_progress progress)
{
	if (progress != ANSWER_PROGRESS_DONE && progress != ANSWER_PROGRESS_BAD)
		return;
	if (progress == ANSWER_PROGRESS_DONE)
		note_answer(p);
	else
		https_conn_close(p->conn, true);
	enter_callback(p);
	p->ops.alive(p->arg);
	if (!p->freed)
		end_ping(p);
	leave_callback(p);
}

/* Not again soon when one was slow: each would cost a new connection. The probes go on. */
static int ping_by_get(struct probe *p)
{
	int r;

	if (p->phase != PHASE_IDLE || p->pinging || p->rest || !https_conn_is_open(p->conn))
		return -EAGAIN;
	answer_init(&p->conn->answer);
	r = https_conn_get(p->conn, &p->gets[PROBE_LIVE]);
	p->pinging = !r;
	return r;
}

static void on_received(void *arg, enum answer_progress progress)
{
	struct probe *p = arg;

	if (p->pinging) {
		on_ping_received(p, progress);
		return;
	}
	switch (progress) {
	case ANSWER_PROGRESS_DONE:
		on_answer(p);
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

/* Servers send "408 Request Timeout", for example, ahead of closing. */
static void on_unasked(void *arg)
{
	struct probe *p = arg;

	if (p->phase == PHASE_IDLE)
		on_lost(p, false);
}

static void fail_step(struct probe *p, const char *step, int os_error)
{
	const struct https_end end = { .step = step, .os_error = os_error };

	p->unable = err_is_shortage(os_error);
	fail(p, https_conn_reason(p->conn, &end, p->detail), false);
}

/* Returns whether the request is on its way; if not, p may be gone. */
static bool send_request(struct probe *p)
{
	int r;

	p->phase = PHASE_ANSWER;
	answer_init(&p->conn->answer);
	r = https_conn_get(p->conn, &p->gets[p->path]);
	if (r)
		fail_step(p, "cannot send", -r);
	return !r;
}

static void report_uncovered(struct probe *p)
{
	unsigned int i;

	for (i = 0; i < p->n_must_cover && p->conn->ssl; i++)
		if (!tls_covers(p->conn->ssl, &p->must_cover[i]))
			p->ops.not_covered(p->arg, &p->must_cover[i]);
}

/*
 * The persistent connection had ended when the request was sent, by the other side's
 * idle timeout or its restart: that says nothing about now. Once a probe.
 */
static bool was_stale(const struct probe *p, enum klb_reason reason)
{
	return reason == KLB_REASON_CLOSED && !p->fresh && !p->conn->answer.started;
}

/* The next probe fails for it, whatever would be answered. */
static void note_offence(struct probe *p, const struct https_end *end)
{
	if (!end->excess && !end->breach)
		return;
	https_conn_reason(p->conn, end, p->offence);
	p->misbehaved = true;
}

static void on_ended(void *arg, const struct https_end *end)
{
	struct probe *p = arg;
	bool had_turn = !p->pinging;
	enum klb_reason reason;

	if (p->phase == PHASE_IDLE) {
		note_offence(p, end);
		on_lost(p, end->what & BEV_EVENT_ERROR &&
				   (end->os_error == ETIMEDOUT || end->os_error == EHOSTUNREACH));
		return;
	}
	reason = https_conn_reason(p->conn, end, p->detail);
	p->unable = end->step && err_is_shortage(end->os_error);
	p->pinging = false;
	if (had_turn && !was_stale(p, reason)) {
		fail(p, reason, false);
		return;
	}
	https_conn_close(p->conn, false);
	p->detail[0] = '\0';
	dial(p);
}

static void on_opened(void *arg)
{
	struct probe *p = arg;

	p->handshake = true;
	p->speaks_h2 = https_conn_is_h2(p->conn);
	if (!send_request(p))
		return;
	enter_callback(p);
	report_uncovered(p);
	p->ops.alive(p->arg);
	leave_callback(p);
}

static void on_pong(void *arg)
{
	on_alive(arg);
}

/* --- a connection that is left ------------------------------------------------------- */

static void on_left_received(void *arg, enum answer_progress progress)
{
	struct probe *p = arg;

	if (progress == ANSWER_PROGRESS_MORE)
		return;
	https_conn_close(p->leaving, true);
	if (progress == ANSWER_PROGRESS_DONE)
		on_alive(p);
}

static void on_left_unasked(void *arg)
{
	struct probe *p = arg;

	https_conn_close(p->leaving, true);
}

static void on_left_ended(void *arg, const struct https_end *end __attribute__((unused)))
{
	struct probe *p = arg;

	https_conn_close(p->leaving, false);
}

/* A late answer still shows that the process runs. */
static const struct https_conn_ops left_ops = {
	.received = on_left_received,
	.unasked = on_left_unasked,
	.pong = on_pong,
	.ended = on_left_ended,
};

/* The persistent connection is about to end, or does not answer. It stays until another does. */
static void leave(struct probe *p)
{
	struct https_conn *left = p->conn;

	https_conn_close(p->leaving, true);
	https_conn_cancel(left);
	p->conn = p->leaving;
	p->conn->ops = left->ops;
	p->leaving = left;
	left->ops = &left_ops;
	p->pinging = false;
}

/* GOAWAY: a server sends it before it closes, as when it shuts down. */
static void on_going(void *arg)
{
	struct probe *p = arg;

	/* The answer that is due still comes, and ends the connection. */
	if (p->phase != PHASE_IDLE)
		return;
	leave(p);
	enter_callback(p);
	p->ops.going(p->arg);
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

static void on_connected(void *arg)
{
	struct probe *p = arg;

	p->phase = PHASE_HANDSHAKE;
	arm(p, 0);
}

static void dial(struct probe *p)
{
	int r = https_conn_open(p->conn, &p->backend, p->tls->tls);

	p->phase = PHASE_DIALLING;
	p->fresh = true;
	if (r)
		fail_step(p, "connect", -r);
	else
		/* A SYN waits as long as a client's would. */
		arm(p, p->connect_timeout_ms);
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
	/* On HTTP/2 an answer that does not come is in nobody's way. */
	if (p->phase == PHASE_ANSWER && https_conn_cancel(p->conn))
		decide(p, outcome);
	else
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

/* No new connection is made for this probe. */
static void fail_for_offence(struct probe *p)
{
	p->misbehaved = false;
	memcpy(p->detail, p->offence, sizeof(p->detail));
	fail(p, KLB_REASON_PROTOCOL, false);
}

void probe_start(struct probe *p, enum probe_path path)
{
	if (p->phase != PHASE_IDLE || p->freed)
		return;
	p->path = path;
	p->start_ns = clock_now_ns();
	p->fresh = false;
	p->handshake = p->unable = false;
	p->detail[0] = '\0';
	answer_init(&p->conn->answer);
	arm(p, 0);
	p->starting = true;
	if (p->misbehaved)
		fail_for_offence(p);
	else if (p->pinging)
		p->phase = PHASE_ANSWER;
	else if (https_conn_is_open(p->conn))
		send_request(p);
	else
		dial(p);
	p->starting = false;
}

int probe_ping(struct probe *p)
{
	if (p->phase == PHASE_DIALLING || p->phase == PHASE_HANDSHAKE)
		return -EINPROGRESS;
	if (https_conn_is_h2(p->conn))
		return https_conn_ping(p->conn);
	if (!p->speaks_h2)
		return ping_by_get(p);
	return p->phase == PHASE_IDLE ? -ENOTCONN : -EAGAIN;
}

__u64 probe_answer_ns(const struct probe *p)
{
	return p->answer_ns;
}

bool probe_is_acknowledged(const struct probe *p)
{
	return https_conn_is_acknowledged(p->conn);
}

void probe_renew(struct probe *p)
{
	if (p->freed || (p->phase != PHASE_IDLE && p->phase != PHASE_ANSWER))
		return;
	/* That of the probe which comes at once, and of one in the usual time. */
	p->rest = p->pinging ? 2 : 0;
	leave(p);
	if (p->phase == PHASE_IDLE)
		return;
	p->starting = true;
	dial(p);
	p->starting = false;
}

void probe_hang_up(struct probe *p)
{
	https_conn_close(p->conn, true);
}

/* Path and name go into the request as they are: a line break would become a header. */
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
	int r = check_text("probe.path", cfg->path, e);

	if (!r && cfg->live_path)
		r = check_text("probe.livePath", cfg->live_path, e);
	if (!r && cfg->path[0] != '/')
		r = err_set(e, EINVAL, "probe.path: '%s' does not begin with /", cfg->path);
	if (!r && cfg->server_name)
		r = check_text("probe.serverName", cfg->server_name, e);
	return r;
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

static void init_connections(struct probe *p, struct event_base *base)
{
	static const struct https_conn_ops ops = {
		.connected = on_connected,
		.opened = on_opened,
		.received = on_received,
		.unasked = on_unasked,
		.pong = on_pong,
		.going = on_going,
		.ended = on_ended,
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(p->conns); i++) {
		p->conns[i] = (struct https_conn){ .base = base,
						   .patience = &patience,
						   .offer_h2 = true,
						   .budget = &budget,
						   .ops = &ops,
						   .arg = p };
		tls_peer_init(&p->conns[i].peer, p->server_name, &p->backend);
	}
	p->conn = &p->conns[0];
	p->leaving = &p->conns[1];
}

/* Copies what the probe needs of cfg. False when memory is short. */
static bool copy_config(struct probe *p, const struct config_probe *cfg)
{
	p->timeout_ms = cfg->timeout_ms;
	p->connect_timeout_ms = cfg->connect_timeout_ms;
	p->certificate = cfg->client_cert;
	p->explains = cfg->anonymous_auth;
	if (cfg->server_name)
		p->server_name = strdup(cfg->server_name);
	return p->server_name || !cfg->server_name;
}

static bool make_gets(struct probe *p, const struct config_probe *cfg)
{
	const char *live_path = cfg->live_path ? cfg->live_path : cfg->path;

	return https_get_make(cfg->path, &p->conn->peer, &p->gets[PROBE_READY]) &&
	       https_get_make(live_path, &p->conn->peer, &p->gets[PROBE_LIVE]);
}

int probe_new(struct event_base *base, const struct config_probe *cfg, struct probe_tls *tls,
	      const struct klb_endpoint *backend, const struct klb_endpoint *must_cover,
	      unsigned int n_must_cover, const struct probe_ops *ops, void *arg, struct probe **ret,
	      struct err *e)
{
	struct probe *p;
	int r = check(cfg, e);
	bool ok;

	if (r)
		return r;
	p = calloc(1, sizeof(*p));
	if (!p)
		return err_no_memory_for(e, "probe");
	p->tls = tls;
	p->backend = *backend;
	p->ops = *ops;
	p->arg = arg;
	ok = copy_config(p, cfg) && copy_must_cover(p, must_cover, n_must_cover);
	init_connections(p, base);
	p->timer = evtimer_new(base, on_timer, p);
	if (!ok || !p->timer || !make_gets(p, cfg)) {
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
	https_conn_close(p->conn, true);
	https_conn_close(p->leaving, true);
	event_del(p->timer);
	p->freed = true;
	if (!p->calling)
		release(p);
}
