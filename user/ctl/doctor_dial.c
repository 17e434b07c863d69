/* SPDX-License-Identifier: BSD-2-Clause */
/* Dials the backends for the doctor. */
#include "ctl/doctor_dial.h"

#include <stdlib.h>

#include <event2/event.h>

#include "base/clock.h"
#include "config/probe_tls.h"
#include "net/https_conn.h"
#include "net/https_get.h"

/* Nobody's patience: all ends after DIAL_SECONDS. */
static const struct dial_patience patience = {
	.user_timeout_ms = 2 * DIAL_SECONDS * 1000,
	.keepalive_idle_s = DIAL_SECONDS,
	.keepalive_interval_s = DIAL_SECONDS,
	.keepalive_count = 2,
};

/* Certificates and the longest answer. */
static const struct tls_budget budget = {
	.bytes = { .burst = 256 * 1024, .per_s = 128 * 1024 },
	.reads = { .burst = 2000, .per_s = 500 },
};

struct round {
	struct event_base *base;
	const struct doctor_endpoints *frontends;
	unsigned int pending;
};

struct dial {
	struct https_conn conn;
	struct https_get get;
	struct round *round;
	struct dialled *result;
	__u64 begin_ns;
	bool over;
};

static void finish(struct dial *x, enum klb_reason reason)
{
	struct dialled *r = x->result;

	if (x->over)
		return;
	x->over = true;
	r->reason = reason;
	r->took_ns = clock_now_ns() - x->begin_ns;
	r->fault = x->conn.peer.fault;
	if (!r->expires_s)
		r->expires_s = tls_expires_s(&x->conn.peer, x->conn.ssl);
	https_conn_close(&x->conn, reason == KLB_REASON_OK);
	if (!--x->round->pending)
		event_base_loopbreak(x->round->base);
}

static void fail(struct dial *x, enum klb_reason reason, const char *detail)
{
	if (!x->over)
		snprintf(x->result->detail, sizeof(x->result->detail), "%s", detail);
	finish(x, reason);
}

static void on_opened(void *arg)
{
	struct dial *x = arg;
	const struct doctor_endpoints *frontends = x->round->frontends;

	for (unsigned int i = 0; i < frontends->n; i++)
		x->result->covers[i] = tls_covers(x->conn.ssl, &frontends->list[i]);
	answer_init(&x->conn.answer);
	if (https_conn_get(&x->conn, &x->get))
		fail(x, KLB_REASON_CLOSED, "the request cannot be sent");
}

static void on_received(void *arg, enum answer_progress progress)
{
	struct dial *x = arg;
	const struct answer *a = &x->conn.answer;

	if (progress == ANSWER_PROGRESS_MORE)
		return;
	if (progress != ANSWER_PROGRESS_DONE) {
		fail(x, KLB_REASON_PROTOCOL, "the answer is not HTTP");
		return;
	}
	x->result->status = a->status;
	x->result->dated = a->date_s != 0;
	x->result->ahead_s = a->date_s - (__s64)(clock_wall_ns() / NS_PER_S);
	finish(x, KLB_REASON_OK);
}

static void on_unasked(void *arg)
{
	fail(arg, KLB_REASON_PROTOCOL, "it speaks before it is asked");
}

static void on_ended(void *arg, const struct https_end *end)
{
	struct dial *x = arg;
	char detail[TLS_DETAIL_MAX] = "";
	enum klb_reason reason = https_conn_reason(&x->conn, end, detail);

	fail(x, reason, detail);
}

static const struct https_conn_ops ops = {
	.opened = on_opened,
	.received = on_received,
	.unasked = on_unasked,
	.ended = on_ended,
};

static void begin(struct dial *x, const struct config_probe *cfg, const struct klb_endpoint *to,
		  struct tls *tls)
{
	int r;

	x->conn = (struct https_conn){ .base = x->round->base,
				       .patience = &patience,
				       .budget = &budget,
				       .ops = &ops,
				       .arg = x };
	tls_peer_init(&x->conn.peer, cfg->server_name, to);
	x->begin_ns = clock_now_ns();
	if (!https_get_make(cfg->path, &x->conn.peer, &x->get)) {
		fail(x, KLB_REASON_CLOSED, "out of memory");
		return;
	}
	r = https_conn_open(&x->conn, to, tls);
	if (r)
		fail(x, tls_socket_reason(-r), err_reason(-r));
}

/* Those that have not come to an end in time. */
static void give_up(struct dial *x)
{
	char text[64];
	bool connected = x->conn.ssl != NULL;

	snprintf(text, sizeof(text), "%s within %d s",
		 connected ? "connected, and nothing answers" : "the connect is not answered",
		 DIAL_SECONDS);
	fail(x, connected ? KLB_REASON_NO_ANSWER : KLB_REASON_CONNECT_TIMEOUT, text);
}

static int run(const struct config_probe *cfg, const struct doctor_endpoints *to,
	       struct round *round, struct tls *tls, struct dialled *ret)
{
	const struct timeval limit = { .tv_sec = DIAL_SECONDS };
	struct dial *list = calloc(to->n, sizeof(*list));

	if (!list)
		return -ENOMEM;
	/* One more, so that what fails at once ends no loop that has not begun. */
	round->pending = to->n + 1;
	for (unsigned int i = 0; i < to->n; i++) {
		list[i].round = round;
		list[i].result = &ret[i];
		ret[i] = (struct dialled){ .reason = KLB_REASON_NONE };
		begin(&list[i], cfg, &to->list[i], tls);
	}
	if (--round->pending) {
		event_base_loopexit(round->base, &limit);
		event_base_dispatch(round->base);
	}
	for (unsigned int i = 0; i < to->n; i++) {
		give_up(&list[i]);
		https_conn_reset(&list[i].conn);
		https_get_free(&list[i].get);
	}
	free(list);
	return 0;
}

int dial_backends(const struct config_probe *cfg, const struct doctor_endpoints *to,
		  const struct doctor_endpoints *frontends, bool insecure, struct dialled *ret,
		  struct err *e)
{
	struct round round = { .frontends = frontends };
	struct tls_options options;
	struct tls *tls = NULL;
	int r;

	if (!to->n)
		return 0;
	config_probe_tls(cfg, &options);
	if (insecure)
		options = (struct tls_options){ .insecure = true, .words = options.words };
	r = tls_new(&options, &tls, e);
	if (r)
		return r;
	round.base = event_base_new();
	r = round.base ? run(cfg, to, &round, tls, ret) : -ENOMEM;
	if (r)
		err_no_memory(e);
	if (round.base)
		event_base_free(round.base);
	tls_free(tls);
	return r;
}
