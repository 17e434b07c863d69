/* SPDX-License-Identifier: BSD-2-Clause */
/* Dials all backends and frontends at once, in an event loop of its own. */
#include "load/preflight.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/clock.h"
#include "net/https_conn.h"

/* The end of the preflight comes first: it says for how long nobody has answered. */
static const struct dial_patience patience = { .user_timeout_ms = 2 * PREFLIGHT_MS };

/* A handshake with the largest certificates. */
static const struct tls_budget budget = {
	.bytes = { .burst = 256 * 1024, .per_s = 128 * 1024 },
	.reads = { .burst = 2000, .per_s = 500 },
};

struct flight;

struct dial {
	struct flight *flight;
	struct preflight_answer *answer;
	struct https_conn conn;
	bool pending, connected;
};

struct flight {
	struct event_base *base;
	struct tls *tls;
	struct preflight *result;
	bool brief;
	unsigned int pending, pending_frontends;
	struct dial dials[KLB_MAX_BACKENDS + KLB_MAX_FRONTENDS];
	unsigned int n;
};

static bool is_frontend(const struct dial *d)
{
	const struct preflight *p = d->flight->result;

	return d->answer >= p->frontends && d->answer < p->frontends + KLB_MAX_FRONTENDS;
}

static bool serves_frontend(const struct preflight *p)
{
	for (unsigned int i = 0; i < p->n_frontends; i++)
		if (p->frontends[i].serves || p->frontends[i].unable)
			return true;
	return false;
}

static bool is_over(const struct flight *f)
{
	return !f->pending || (f->brief && !f->pending_frontends && !serves_frontend(f->result));
}

static void settle(struct dial *d)
{
	struct flight *f = d->flight;

	https_conn_close(&d->conn, d->answer->accepted);
	tls_peer_reset(&d->conn.peer);
	d->pending = false;
	f->pending--;
	if (is_frontend(d))
		f->pending_frontends--;
	if (is_over(f))
		event_base_loopbreak(f->base);
}

static void on_connected(void *arg)
{
	struct dial *d = arg;

	d->connected = true;
}

static void on_opened(void *arg)
{
	struct dial *d = arg;
	const struct preflight *p = d->flight->result;

	d->answer->serves = d->answer->accepted = true;
	for (unsigned int i = 0; i < p->n_frontends; i++)
		if (!tls_covers(d->conn.ssl, &p->frontends[i].endpoint))
			d->answer->uncovered |= 1U << i;
	settle(d);
}

static void on_ended(void *arg, const struct https_end *end)
{
	struct dial *d = arg;

	d->answer->unable = end->step && err_is_shortage(end->os_error);
	d->answer->reason = https_conn_reason(&d->conn, end, d->answer->detail);
	d->answer->serves = d->answer->reason == KLB_REASON_CERTIFICATE;
	settle(d);
}

/* Nothing was asked, so neither of these is about a dial. */
static void on_received(void *arg, enum answer_progress progress)
{
	(void)arg;
	(void)progress;
}

static void on_unasked(void *arg)
{
	(void)arg;
}

static void begin(struct dial *d)
{
	static const struct https_conn_ops ops = {
		.connected = on_connected,
		.opened = on_opened,
		.received = on_received,
		.unasked = on_unasked,
		.ended = on_ended,
	};
	struct flight *f = d->flight;
	int r;

	d->conn = (struct https_conn){
		.base = f->base, .patience = &patience, .budget = &budget, .ops = &ops, .arg = d
	};
	tls_peer_init(&d->conn.peer, NULL, &d->answer->endpoint);
	r = https_conn_open(&d->conn, &d->answer->endpoint, f->tls);
	d->pending = !r;
	if (r) {
		d->answer->unable = err_is_shortage(-r);
		d->answer->reason = tls_socket_reason(-r);
		snprintf(d->answer->detail, sizeof(d->answer->detail), "connect: %s",
			 err_reason(-r));
		return;
	}
	f->pending++;
	if (is_frontend(d))
		f->pending_frontends++;
}

/* timed_out: otherwise nobody waits for the answer any more. */
static void give_up(struct dial *d, bool timed_out)
{
	struct preflight_answer *a = d->answer;

	https_conn_close(&d->conn, false);
	tls_peer_reset(&d->conn.peer);
	if (!timed_out)
		return;
	a->reason = d->connected ? KLB_REASON_NO_ANSWER : KLB_REASON_CONNECT_TIMEOUT;
	snprintf(a->detail, sizeof(a->detail),
		 d->connected ? "connected, and no TLS within %u s" : "no answer within %u s",
		 PREFLIGHT_MS / 1000);
}

/* Dials all, and waits until all is known or the time is over. */
static void dial_all(struct flight *f)
{
	static const struct timeval limit = { .tv_sec = PREFLIGHT_MS / 1000 };

	for (unsigned int i = 0; i < f->n; i++)
		begin(&f->dials[i]);
	if (!is_over(f) && event_base_loopexit(f->base, &limit) == 0)
		event_base_dispatch(f->base);
	for (unsigned int i = 0; i < f->n; i++)
		if (f->dials[i].pending)
			give_up(&f->dials[i], event_base_got_exit(f->base));
}

static void add_all(struct flight *f, struct preflight_answer *answers, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		f->dials[f->n++] = (struct dial){ .flight = f, .answer = &answers[i] };
}

void preflight_add_backend(struct preflight *ret, const struct klb_endpoint *endpoint)
{
	if (ret->n_backends < KLB_MAX_BACKENDS)
		ret->backends[ret->n_backends++].endpoint = *endpoint;
}

void preflight_add_frontend(struct preflight *ret, const struct klb_endpoint *endpoint)
{
	if (ret->n_frontends < KLB_MAX_FRONTENDS)
		ret->frontends[ret->n_frontends++].endpoint = *endpoint;
}

/*
 * Without a CA in the configuration nothing is known of the one that the clients have: the system's
 * trust store does not know a cluster's own. A CA that is not there yet (kubeadm join brings it) or
 * is none is no reason against attaching: the agent needs it, the kernel does not.
 */
static int make_tls(const struct config *cfg, bool verify, struct tls **ret, struct err *e)
{
	static const struct tls_words words = {
		.peer = "backend",
		.give_certificate = "it is no apiserver's way to ask for one",
	};
	const struct tls_options options = {
		.ca = { .key = "probe.ca", .file = cfg->probe.ca },
		.insecure = !verify,
		.any_name = true,
		.words = &words,
	};

	return tls_new(&options, ret, e);
}

static int choose_tls(const struct config *cfg, struct preflight *p, struct tls **ret,
		      struct err *e)
{
	struct err why;

	/* Of a file that cannot be read a warning tells that every load has. */
	if (!cfg->probe.ca || cfg->probe.insecure_skip_verify || access(cfg->probe.ca, R_OK))
		return make_tls(cfg, false, ret, e);
	if (!make_tls(cfg, true, ret, &why))
		return 0;
	snprintf(p->ca_error, sizeof(p->ca_error), "%s", why.text);
	return make_tls(cfg, false, ret, e);
}

int preflight_dial(const struct config *cfg, bool brief, struct preflight *ret, struct err *e)
{
	struct flight *f = calloc(1, sizeof(*f));
	int r = f ? choose_tls(cfg, ret, &f->tls, e) : err_no_memory(e);

	if (!r && !(f->base = event_base_new()))
		r = err_no_memory(e);
	if (!r) {
		f->result = ret;
		f->brief = brief;
		add_all(f, ret->backends, ret->n_backends);
		add_all(f, ret->frontends, ret->n_frontends);
		dial_all(f);
		ret->done = true;
	}
	if (f && f->base)
		event_base_free(f->base);
	if (f)
		tls_free(f->tls);
	free(f);
	return r;
}
