/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The apiservers, and what agents' probes see of them: the place of user/agent/probe.c and of the
 * network behind it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "net/syn_burst.h"
#include "sim.h"

/* A round trip, an answer, and a TLS handshake with a GET: docs/scale.md. */
#define ROUND_TRIP_NS (NS_PER_MS / 2)
#define HANDSHAKE_NS (6 * NS_PER_MS)
/* Keepalive of the probe connection: user/agent/probe.c. */
#define KEEPALIVE_NS NS_PER_S
#define SILENCE_NS (2 * NS_PER_S)

struct server servers[SIM_SERVERS];

struct probe {
	const struct probe_ops *ops;
	void *arg;
	struct server *server;
	unsigned int timeout_ms, connect_timeout_ms;
	enum probe_path path;
	unsigned int life; /* of the server's process that it is connected to; 0: not connected */
	bool asked, connects;
	__u64 began_ns;
	struct event answer, pong, lost;
	struct probe *next, **before; /* all of them */
};

static struct probe *probes;

struct probe_tls {
	unsigned int owners;
};

void servers_init(void)
{
	for (unsigned int i = 0; i < SIM_SERVERS; i++) {
		struct server *s = &servers[i];

		s->index = i;
		s->life = 1;
		s->endpoint.addr[10] = s->endpoint.addr[11] = 0xff;
		s->endpoint.addr[12] = 10;
		s->endpoint.addr[15] = (__u8)(i + 1);
		s->endpoint.port = KLB_PORT_DEFAULT;
	}
}

struct server *server_of(const struct klb_endpoint *endpoint)
{
	return &servers[endpoint->addr[15] - 1];
}

bool server_serves(const struct server *s)
{
	return s->state == SERVER_UP || s->state == SERVER_NOT_READY;
}

void server_count(unsigned int *rates)
{
	rates[sim_now() / NS_PER_S]++;
}

/* --- probes ------------------------------------------------------------------------------ */

static void deliver(struct probe *p, struct probe_result *result)
{
	bool alive = result->http_status && result->handshake;

	p->asked = false;
	result->path = p->path;
	result->duration_ns = sim_now() - p->began_ns;
	if (alive)
		p->ops->alive(p->arg);
	p->ops->done(p->arg, result);
}

/* Nothing has come until its time was over. */
static void give_up(struct probe *p)
{
	struct probe_result r = { .outcome = p->connects ? KLB_REASON_CONNECT_TIMEOUT
							 : KLB_REASON_UNREACHABLE };

	p->life = 0;
	deliver(p, &r);
}

static void wait_in_vain(struct probe *p)
{
	__u64 wait = p->connects ? p->connect_timeout_ms * NS_PER_MS : SILENCE_NS;

	if (sim_now() - p->began_ns >= wait)
		give_up(p);
	else
		sim_event_at(&p->answer, p->began_ns + wait);
}

static void on_answer(evutil_socket_t fd, short what, void *arg)
{
	struct probe *p = arg;
	struct server *s = p->server;
	struct probe_result r = { .handshake = p->connects };

	(void)fd;
	(void)what;
	if (s->state == SERVER_GONE) {
		wait_in_vain(p);
		return;
	}
	if (s->state == SERVER_DOWN || (!p->connects && p->life != s->life)) {
		r.outcome = p->connects ? KLB_REASON_REFUSED : KLB_REASON_CLOSED;
		r.handshake = false;
		p->life = 0;
		deliver(p, &r);
		return;
	}
	if (p->connects)
		server_count(s->rates.handshakes);
	server_count(s->rates.gets);
	p->life = s->life;
	r.http_status = s->state == SERVER_NOT_READY && p->path == PROBE_READY ? 500 : 200;
	r.outcome = r.http_status == 200 ? KLB_REASON_OK : KLB_REASON_NOT_READY;
	deliver(p, &r);
}

static void on_pong(evutil_socket_t fd, short what, void *arg)
{
	struct probe *p = arg;

	(void)fd;
	(void)what;
	if (p->life == p->server->life && server_serves(p->server))
		p->ops->alive(p->arg);
}

static void on_lost(evutil_socket_t fd, short what, void *arg)
{
	struct probe *p = arg;
	bool timed_out = p->server->state == SERVER_GONE;

	(void)fd;
	(void)what;
	if (p->asked || !p->life || (p->life == p->server->life && !timed_out))
		return;
	p->life = 0;
	p->ops->lost(p->arg, timed_out);
}

int probe_new(struct event_base *base, const struct config_probe *cfg, struct probe_tls *tls,
	      const struct klb_endpoint *backend, const struct klb_endpoint *must_cover,
	      unsigned int n_must_cover, const struct probe_ops *ops, void *arg, struct probe **ret,
	      struct err *e)
{
	struct probe *p = calloc(1, sizeof(*p));

	(void)base;
	(void)tls;
	(void)must_cover;
	(void)n_must_cover;
	if (!p)
		return err_no_memory(e);
	p->ops = ops;
	p->arg = arg;
	p->server = server_of(backend);
	p->timeout_ms = cfg->timeout_ms;
	p->connect_timeout_ms = cfg->connect_timeout_ms;
	sim_event_init(&p->answer, on_answer, p);
	sim_event_init(&p->pong, on_pong, p);
	sim_event_init(&p->lost, on_lost, p);
	p->next = probes;
	p->before = &probes;
	if (probes)
		probes->before = &p->next;
	probes = p;
	*ret = p;
	return 0;
}

void probe_free(struct probe *p)
{
	if (!p)
		return;
	event_del(&p->answer);
	event_del(&p->pong);
	event_del(&p->lost);
	*p->before = p->next;
	if (p->next)
		p->next->before = p->before;
	free(p);
}

void probe_start(struct probe *p, enum probe_path path)
{
	if (p->asked)
		return;
	p->asked = true;
	p->path = path;
	p->began_ns = sim_now();
	p->connects = !p->life;
	sim_event_in(&p->answer,
		     p->connects && server_serves(p->server) ? HANDSHAKE_NS : ROUND_TRIP_NS);
}

int probe_ping(struct probe *p)
{
	if (!p->life)
		return p->asked ? -EAGAIN : -ENOTCONN;
	server_count(p->server->rates.pings);
	sim_event_in(&p->pong, ROUND_TRIP_NS);
	return 0;
}

__u64 probe_answer_ns(const struct probe *p)
{
	(void)p;
	return clock_now_ns();
}

bool probe_is_acknowledged(const struct probe *p)
{
	return p->server->state != SERVER_GONE;
}

void probe_renew(struct probe *p)
{
	p->life = 0;
}

void probe_hang_up(struct probe *p)
{
	p->life = 0;
}

/* --- credentials ------------------------------------------------------------------------- */

struct probe_tls *server_credentials(void)
{
	struct probe_tls *tls = calloc(1, sizeof(*tls));

	if (!tls)
		abort();
	tls->owners = 1;
	return tls;
}

struct probe_tls *probe_tls_hold(struct probe_tls *tls)
{
	tls->owners++;
	return tls;
}

void probe_tls_free(struct probe_tls *tls)
{
	if (tls && !--tls->owners)
		free(tls);
}

/* --- SYNs -------------------------------------------------------------------------------- */

/* A burst is nothing but a look whether the host is there. */
struct syn_burst *syn_burst_new(struct event_base *base, const struct klb_endpoint *to,
				unsigned int every_ms)
{
	(void)base;
	(void)every_ms;
	return (struct syn_burst *)server_of(to);
}

void syn_burst_free(struct syn_burst *b)
{
	(void)b;
}

bool syn_burst_is_answered(const struct syn_burst *b)
{
	return ((const struct server *)b)->state != SERVER_GONE;
}

bool syn_burst_has_asked(const struct syn_burst *b)
{
	return b;
}

/* --- changes ----------------------------------------------------------------------------- */

static void tell_probes(const struct server *s)
{
	for (struct probe *p = probes; p; p = p->next) {
		if (p->server != s || !p->life)
			continue;
		if (s->state == SERVER_GONE)
			sim_event_in(&p->lost, sim_uniform_ns(KEEPALIVE_NS) + SILENCE_NS);
		else if (s->state == SERVER_DOWN)
			sim_event_in(&p->lost, ROUND_TRIP_NS / 2 + sim_uniform_ns(ROUND_TRIP_NS));
	}
}

void server_set(struct server *s, enum server_state state)
{
	bool served = server_serves(s), gone = s->state == SERVER_GONE;

	s->state = state;
	if (served && !server_serves(s))
		s->silent_since_ns = sim_now();
	/* A process has ended, or a host has started anew. */
	s->life += state == SERVER_DOWN || (gone && server_serves(s));
	tell_probes(s);
	client_server_changed(s);
}
