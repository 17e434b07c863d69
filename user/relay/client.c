/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A client that has no backend yet. Backends are dialled one after another, and beside each other
 * when one does not answer; the first that does gets the client.
 */
#include "relay/internal.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "net/endpoint.h"

/*
 * A dial that has not been answered after three round trips has probably lost a packet. The floor
 * is what a busy host may take for its answer; it bounds what a vanished backend costs a client.
 */
#define PATIENCE_MIN_MS 50
#define PATIENCE_ROUND_TRIPS 3

/* One line for a burst of clients that have no backend. */
static const struct ration_rules failure_lines = { .burst = 1, .every_ms = 10000 };

struct relay_client *client_new(int fd, const struct relay_request *request)
{
	struct relay_client *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->fd = fd;
	c->request = *request;
	TAILQ_INIT(&c->dials);
	return c;
}

/* What stays is its socket, and its slot. */
static void dissolve(struct relay_client *c)
{
	struct relay_dial *d;

	while ((d = TAILQ_FIRST(&c->dials)))
		dial_free(d);
	if (c->thread) {
		TAILQ_REMOVE(&c->thread->clients, c, link);
		event_del(&c->timer);
	}
	relay_plan_unref(c->plan);
	free(c);
}

void client_refuse(struct relay_client *c, struct relay *r)
{
	limits_give_source_back(r, c->request.from, &c->request.client);
	limits_give_slot_back(r);
	if (c->thread)
		atomic_fetch_sub(&c->thread->n, 1);
	close(c->fd);
	dissolve(c);
}

/* --- outcomes ----------------------------------------------------------------------------------
 */

/* since_ns: when the dial began. */
static void note_outcome(struct relay_client *c, unsigned int target, int error, __u64 since_ns)
{
	const struct relay *r = c->thread->relay;
	struct relay_backend *b = c->choices->backend[target];
	__u64 now_ns = clock_now_ns();
	struct relay_outcome o = { .error = error, .connect_ns = now_ns - since_ns };

	if (error) {
		atomic_fetch_add(&b->failed, 1);
		o.ejected_ns = evidence_failure(b, now_ns);
	} else {
		o.restored = evidence_success(b, o.connect_ns);
	}
	if (r->ops.outcome)
		r->ops.outcome(r->arg, &c->request, &c->choices->frontend.at[target], &o);
}

static void log_failed(struct relay_client *c)
{
	struct relay *r = c->thread->relay;
	char client[ENDPOINT_TEXT_MAX], frontend[ENDPOINT_TEXT_MAX];
	bool tells;

	pthread_mutex_lock(&r->lock);
	tells = ration_take(&r->failure_lines, &failure_lines, clock_now_ns());
	pthread_mutex_unlock(&r->lock);
	if (tells)
		log_event(LOG_LEVEL_WARN,
			  "no backend answers the relay, its clients' connections are reset",
			  "from=%s client=%s frontend=%s tried=%d",
			  relay_from_name(c->request.from),
			  endpoint_format(&c->request.client, client),
			  endpoint_format(&c->request.frontend, frontend),
			  __builtin_popcountll(c->tried));
}

/* Nobody is left. */
static void give_up(struct relay_client *c)
{
	struct relay *r = c->thread->relay;

	atomic_fetch_add(&r->failed[c->request.from], 1);
	log_failed(c);
	client_refuse(c, r);
}

/* The time is over. */
static void fail(struct relay_client *c)
{
	struct relay_dial *d;

	while ((d = TAILQ_FIRST(&c->dials))) {
		note_outcome(c, d->target, ETIMEDOUT, d->since_ns);
		dial_free(d);
	}
	give_up(c);
}

/* Those that had the time to answer, and have not, are failures too. */
static void drop_losers(struct relay_client *c, __u64 now_ns)
{
	struct relay_dial *d;

	while ((d = TAILQ_FIRST(&c->dials))) {
		if (now_ns - d->since_ns >= d->patience_ms * NS_PER_MS)
			note_outcome(c, d->target, ETIMEDOUT, d->since_ns);
		dial_free(d);
	}
}

static void join(struct relay_client *c, struct relay_dial *winner)
{
	struct relay_thread *t = c->thread;
	struct relay_backend *backend = c->choices->backend[winner->target];
	struct stream *server = winner->stream;
	const struct relay_request request = c->request;
	__u64 now_ns = clock_now_ns();

	note_outcome(c, winner->target, 0, winner->since_ns);
	stream_tune(server->fd, atomic_load(&t->relay->dead_peer_timeout_ms));
	winner->stream = NULL;
	dial_free(winner);
	drop_losers(c, now_ns);
	/* Its plan keeps the backend until the pair does. */
	pair_new(t, c->fd, server, backend, &request);
	dissolve(c);
}

/* --- one after another -------------------------------------------------------------------------
 */

static unsigned int patience_ms(const struct relay_client *c, unsigned int target)
{
	struct relay_load load =
		choose_look(c->thread->relay, c->choices, &c->request, target, clock_now_ns());
	unsigned int ms = PATIENCE_ROUND_TRIPS * load.srtt_us / 1000 + 1;

	return ms > PATIENCE_MIN_MS ? ms : PATIENCE_MIN_MS;
}

static unsigned int choose(struct relay_client *c)
{
	struct relay_thread *t = c->thread;

	/* Knuth's multiplier (MMIX): the upper half of the product is used. */
	t->seed = t->seed * 6364136223846793005ULL + 1442695040888963407ULL;
	return choose_backend(t->relay, c->choices, &c->request, c->tried, (__u32)(t->seed >> 32));
}

static void wait_for_ms(struct relay_client *c, unsigned int ms)
{
	__u64 now_ns = clock_now_ns();
	__u64 left_ms = now_ns < c->deadline_ns ? (c->deadline_ns - now_ns) / NS_PER_MS + 1 : 0;
	struct timeval tv = clock_timeval(ms < left_ms ? ms : (unsigned int)left_ms);

	event_add(&c->timer, &tv);
}

static void on_dial_done(struct relay_dial *d, int error);

/* Begins the next dial. Returns false when there is none to begin. */
static bool try_next(struct relay_client *c)
{
	unsigned int target;

	while ((target = choose(c)) < c->choices->frontend.n) {
		int error;
		struct relay_dial *d;

		c->tried |= (relay_tried)1 << target;
		evidence_begin_trial(c->choices->backend[target], c->deadline_ns);
		d = dial_new(c, target, on_dial_done, &error);
		if (d) {
			d->patience_ms = patience_ms(c, target);
			wait_for_ms(c, d->patience_ms);
			return true;
		}
		/* What this process lacks says nothing about the backend. */
		if (err_is_shortage(error)) {
			limits_note_shortage(c->thread->relay, error);
			return false;
		}
		note_outcome(c, target, error, clock_now_ns());
	}
	return false;
}

/* The next one, or what is under way may still be answered. */
static void go_on(struct relay_client *c)
{
	if (try_next(c))
		return;
	if (TAILQ_EMPTY(&c->dials))
		give_up(c);
	else
		wait_for_ms(c, ~0u);
}

static void on_dial_done(struct relay_dial *d, int error)
{
	struct relay_client *c = d->client;

	if (!error) {
		join(c, d);
		return;
	}
	note_outcome(c, d->target, error, d->since_ns);
	dial_free(d);
	go_on(c);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct relay_client *c = arg;

	(void)fd;
	(void)what;
	if (clock_now_ns() >= c->deadline_ns)
		fail(c);
	else
		go_on(c);
}

void client_start(struct relay_thread *t, struct relay_client *c)
{
	c->thread = t;
	TAILQ_INSERT_TAIL(&t->clients, c, link);
	c->plan = relay_plan_ref(t->plan);
	c->choices = relay_plan_find(c->plan, &c->request.frontend);
	c->deadline_ns = clock_now_ns() + atomic_load(&t->relay->connect_timeout_ms) * NS_PER_MS;
	evtimer_assign(&c->timer, t->base, on_timer, c);
	if (c->choices)
		go_on(c);
	else
		give_up(c);
}
