/* SPDX-License-Identifier: BSD-2-Clause */
/* The relay as its caller sees it: threads, plan, limits, counts. */
#include "relay/internal.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "net/connection.h"
#include "net/endpoint.h"

/* --- limits ------------------------------------------------------------------------------------
 */

void relay_set_limits(struct relay *r, const struct relay_limits *limits)
{
	unsigned int connections = limits_raise_descriptors(limits->connections);

	if (connections < limits->connections && connections != atomic_load(&r->limit))
		log_event(LOG_LEVEL_WARN,
			  "the relay takes fewer connections than configured: the limit of open "
			  "files is too low; raise LimitNOFILE= of its unit",
			  "connections=%u configured=%u", connections, limits->connections);
	atomic_store(&r->limit, connections);
	atomic_store(&r->per_source, limits->per_source);
	atomic_store(&r->connect_timeout_ms, limits->connect_timeout_ms);
	atomic_store(&r->dead_peer_timeout_ms, limits->dead_peer_timeout_ms);
	listeners_tune(r);
}

/* --- the plan ----------------------------------------------------------------------------------
 */

/* arg: the plan. */
static void take_plan(struct relay_thread *t, void *arg)
{
	relay_plan_unref(t->plan);
	t->plan = relay_plan_ref(arg);
}

int relay_set_plan(struct relay *r, const struct relay_frontend *frontends, unsigned int n,
		   struct err *e)
{
	struct relay_plan *plan = relay_plan_new(&r->backends, frontends, n);

	if (!plan)
		return err_no_memory_for(e, "the relay's plan");
	for (unsigned int i = 0; i < r->n_threads; i++)
		thread_call(&r->threads[i], take_plan, plan);
	relay_plan_unref(r->plan);
	r->plan = plan;
	backends_forget_unused(&r->backends);
	return 0;
}

struct ending {
	const struct relay_filter *which;
	unsigned int n;
};

static bool is_meant(const struct relay_filter *which, enum relay_from from,
		     const struct klb_endpoint *client, const struct klb_endpoint *frontend)
{
	return which->froms & RELAY_BIT(from) &&
	       (!which->client || endpoint_equal(which->client, client)) &&
	       (!which->frontend || endpoint_equal(which->frontend, frontend));
}

static void end_pairs(struct relay_thread *t, struct ending *ending)
{
	const struct relay_filter *which = ending->which;
	struct relay_pair *p, *next;

	for (p = TAILQ_FIRST(&t->pairs); p; p = next) {
		next = TAILQ_NEXT(p, link);
		if (!is_meant(which, p->origin.from, &p->origin.client, &p->origin.frontend) ||
		    (which->backend && !endpoint_equal(&p->backend->endpoint, which->backend)))
			continue;
		pair_reset(p);
		ending->n++;
	}
}

static void end_clients(struct relay_thread *t, const struct relay_filter *which)
{
	struct relay_client *c, *next;

	for (c = TAILQ_FIRST(&t->clients); c; c = next) {
		next = TAILQ_NEXT(c, link);
		if (is_meant(which, c->request.from, &c->request.client, &c->request.frontend))
			client_refuse(c, t->relay);
	}
}

/* arg: struct ending. */
static void end_some(struct relay_thread *t, void *arg)
{
	struct ending *ending = arg;

	end_pairs(t, ending);
	if (!ending->which->backend)
		end_clients(t, ending->which);
}

unsigned int relay_end(struct relay *r, const struct relay_filter *which)
{
	struct ending ending = { .which = which };

	for (unsigned int i = 0; i < r->n_threads; i++)
		thread_call(&r->threads[i], end_some, &ending);
	return ending.n;
}

/* --- what there is -----------------------------------------------------------------------------
 */

static void read_backend(const struct relay_backend *b, struct relay_backend_counts *ret)
{
	ret->endpoint = b->endpoint;
	ret->failed = atomic_load(&b->failed);
	for (int from = 0; from < RELAY_FROMS; from++) {
		ret->active[from] = atomic_load(&b->active[from]);
		ret->total[from] = atomic_load(&b->total[from]);
	}
}

void relay_read_counts(struct relay *r, struct relay_counts *ret)
{
	struct relay_backend *b;

	memset(ret, 0, sizeof(*ret));
	backends_forget_unused(&r->backends);
	ret->connections = atomic_load(&r->connections);
	ret->refused_limit = atomic_load(&r->refused_limit);
	ret->refused_source = atomic_load(&r->refused_source);
	ret->refused_network = atomic_load(&r->refused_network);
	ret->refused_unknown = atomic_load(&r->refused_unknown);
	for (int from = 0; from < RELAY_FROMS; from++)
		ret->failed[from] = atomic_load(&r->failed[from]);
	for (unsigned int i = 0; i < r->n_threads; i++)
		ret->buffered_bytes += atomic_load(&r->threads[i].buffered_bytes);
	for (b = TAILQ_FIRST(&r->backends); b; b = TAILQ_NEXT(b, link))
		if (ret->n < KLB_MAX_IDS)
			read_backend(b, &ret->at[ret->n++]);
}

__u64 relay_count_active(const struct relay_counts *c, unsigned int froms,
			 const struct klb_endpoint *backend)
{
	__u64 n = 0;

	for (unsigned int i = 0; i < c->n; i++)
		for (int from = 0; from < RELAY_FROMS; from++)
			if (froms & RELAY_BIT(from) &&
			    (!backend || endpoint_equal(&c->at[i].endpoint, backend)))
				n += c->at[i].active[from];
	return n;
}

struct listing {
	struct relay_connection *to;
	unsigned int n, max;
};

/* What the kernel knows of the connection to the backend. */
static void fill_info(int fd, struct relay_connection *ret)
{
	struct tcp_info info = { 0 };
	socklen_t length = sizeof(info);

	ret->last_data_ms = CONNECTION_NO_DATA;
	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length))
		return;
	ret->srtt_us = info.tcpi_rtt;
	if (info.tcpi_bytes_received)
		ret->last_data_ms = info.tcpi_last_data_recv;
}

static void add_pair(struct listing *list, const struct relay_pair *p)
{
	struct relay_connection *c = &list->to[list->n++];
	struct sockaddr_storage ss;
	socklen_t length = sizeof(ss);

	*c = (struct relay_connection){ .from = p->origin.from,
					.client = p->origin.client,
					.frontend = p->origin.frontend,
					.backend = p->backend->endpoint,
					.since_ns = p->since_ns,
					.pid = p->origin.pid };
	memcpy(c->comm, p->origin.comm, sizeof(c->comm));
	fill_info(p->server->fd, c);
	if (!getsockname(p->server->fd, (struct sockaddr *)&ss, &length))
		endpoint_from_sockaddr((struct sockaddr *)&ss, &c->upstream);
}

static void list_thread(struct relay_thread *t, void *arg)
{
	struct listing *list = arg;
	struct relay_pair *p;

	for (p = TAILQ_FIRST(&t->pairs); p && list->n < list->max; p = TAILQ_NEXT(p, link))
		add_pair(list, p);
}

unsigned int relay_list(struct relay *r, struct relay_connection *ret, unsigned int max)
{
	struct listing list = { .to = ret, .max = max };

	for (unsigned int i = 0; i < r->n_threads; i++)
		thread_call(&r->threads[i], list_thread, &list);
	return list.n;
}

bool relay_is_idle(struct relay *r)
{
	return !atomic_load(&r->connections);
}

/* --- beginning and end -------------------------------------------------------------------------
 */

static unsigned int count_threads(const struct relay_limits *limits)
{
	long n = limits->threads ? (long)limits->threads : sysconf(_SC_NPROCESSORS_ONLN);

	if (n < 1)
		return 1;
	return n < RELAY_THREADS_MAX ? (unsigned int)n : RELAY_THREADS_MAX;
}

int relay_new(const struct relay_limits *limits, const struct relay_ops *ops, void *arg,
	      struct relay **ret, struct err *e)
{
	struct relay *r = calloc(1, sizeof(*r));
	unsigned int n = count_threads(limits);
	int code = 0;

	if (!r)
		return err_no_memory(e);
	if (ops)
		r->ops = *ops;
	r->arg = arg;
	TAILQ_INIT(&r->backends);
	TAILQ_INIT(&r->listeners);
	pthread_mutex_init(&r->lock, NULL);
	r->sources = sources_new();
	if (!r->sources)
		code = err_no_memory(e);
	relay_set_limits(r, limits);
	while (!code && r->n_threads < n) {
		unsigned int i = r->n_threads++;

		/* One that could not be started is counted, too: it is half made. */
		code = thread_start(r, &r->threads[i], i, e);
	}
	if (code) {
		relay_free(r);
		return code;
	}
	*ret = r;
	return 0;
}

void relay_free(struct relay *r)
{
	if (!r)
		return;
	listeners_end(r);
	for (unsigned int i = 0; i < r->n_threads; i++)
		thread_stop(&r->threads[i]);
	relay_plan_unref(r->plan);
	backends_forget_unused(&r->backends);
	sources_free(r->sources);
	pthread_mutex_destroy(&r->lock);
	free(r);
}
