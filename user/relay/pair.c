/* SPDX-License-Identifier: BSD-2-Clause */
/* A client joined with a backend: runs both directions, and ends both sides alike. */
#include "relay/internal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "net/tcp_connect.h"

static void forget(struct relay_pair *p)
{
	struct relay_thread *t = p->thread;
	enum relay_from from = p->origin.from;

	copy_drop(t, p->client);
	copy_drop(t, p->server);
	TAILQ_REMOVE(&t->pairs, p, link);
	if (p->is_unread)
		TAILQ_REMOVE(&t->unread, p, unread);
	atomic_fetch_sub(&p->backend->active[from], 1);
	atomic_fetch_sub(&p->backend->load, 1);
	/* The last access to the backend. */
	atomic_fetch_sub(&p->backend->refs, 1);
	limits_give_source_back(t->relay, from, &p->origin.client);
	limits_give_slot_back(t->relay);
	atomic_fetch_sub(&t->n, 1);
}

void pair_reset(struct relay_pair *p)
{
	forget(p);
	stream_reset(p->client);
	stream_reset(p->server);
	free(p);
}

static void finish(struct relay_pair *p)
{
	forget(p);
	stream_finish(p->client);
	stream_finish(p->server);
	free(p);
}

static struct stream *other(const struct relay_pair *p, const struct stream *s)
{
	return s == p->client ? p->server : p->client;
}

/*
 * One side is gone. What was sent to it cannot be of use to anybody; but what it had sent itself,
 * say an answer before its reset, would have reached its peer.
 */
static void fail(struct relay_pair *p, struct stream *from, struct stream *to)
{
	if (!to->held && !to->ended)
		copy_read(p->thread, to, from);
	pair_reset(p);
}

/* --- sockets that are not read from --------------------------------------------------------------
 */

/* Such a socket could be reset unnoticed; this is how long it may be. */
#define SWEEP_MS 1000

/* Its bytes are held, or its direction has ended. */
static bool is_unread(const struct stream *s)
{
	return s->held || s->ended;
}

static bool is_lost(const struct stream *s)
{
	return is_unread(s) && dial_result(s->fd);
}

static void note_unread(struct relay_pair *p)
{
	const struct timeval tv = clock_timeval(SWEEP_MS);
	struct relay_thread *t = p->thread;
	bool is = is_unread(p->client) || is_unread(p->server);

	if (is == p->is_unread)
		return;
	p->is_unread = is;
	if (!is) {
		TAILQ_REMOVE(&t->unread, p, unread);
		return;
	}
	TAILQ_INSERT_TAIL(&t->unread, p, unread);
	if (!evtimer_pending(&t->sweep, NULL))
		evtimer_add(&t->sweep, &tv);
}

void pair_on_sweep(evutil_socket_t fd, short what, void *thread)
{
	const struct timeval tv = clock_timeval(SWEEP_MS);
	struct relay_thread *t = thread;
	struct relay_pair *p, *next;

	(void)fd;
	(void)what;
	for (p = TAILQ_FIRST(&t->unread); p; p = next) {
		next = TAILQ_NEXT(p, unread);
		if (is_lost(p->client) || is_lost(p->server))
			pair_reset(p);
	}
	if (!TAILQ_EMPTY(&t->unread))
		evtimer_add(&t->sweep, &tv);
}

/* Reads nothing more from it until its peer has taken what is held. */
static int pause_reading(struct relay_pair *p, struct stream *from, struct stream *to)
{
	note_unread(p);
	stream_ignore(from, EV_READ);
	return stream_await(to, EV_WRITE);
}

static int resume_reading(struct relay_pair *p, struct stream *from, struct stream *to)
{
	note_unread(p);
	stream_ignore(to, EV_WRITE);
	return stream_await(from, EV_READ);
}

/* --- events ------------------------------------------------------------------------------------
 */

static void end_direction(struct relay_pair *p, struct stream *from, struct stream *to)
{
	if (to->ended) {
		finish(p);
		return;
	}
	note_unread(p);
	stream_ignore(from, EV_READ);
}

static void read_from(struct relay_pair *p, struct stream *from)
{
	struct stream *to = other(p, from);

	switch (copy_read(p->thread, from, to)) {
	case COPY_GOES_ON:
		break;
	case COPY_HELD:
		if (pause_reading(p, from, to))
			pair_reset(p);
		break;
	case COPY_ENDED:
		end_direction(p, from, to);
		break;
	case COPY_FAILED:
		fail(p, from, to);
		break;
	}
}

static void write_to(struct relay_pair *p, struct stream *to)
{
	struct stream *from = other(p, to);
	enum copy_result r = copy_flush(p->thread, from, to);

	if (r == COPY_FAILED)
		fail(p, from, to);
	else if (r == COPY_GOES_ON && resume_reading(p, from, to))
		pair_reset(p);
}

static void on_event(struct stream *s, short what)
{
	if (what & EV_WRITE)
		write_to(s->owner, s);
	else
		read_from(s->owner, s);
}

/* --- beginning ---------------------------------------------------------------------------------
 */

static void count(struct relay_pair *p)
{
	struct relay_backend *b = p->backend;

	atomic_fetch_add(&b->refs, 1);
	atomic_fetch_add(&b->load, 1);
	atomic_fetch_add(&b->active[p->origin.from], 1);
	atomic_fetch_add(&b->total[p->origin.from], 1);
}

static void fill_origin(struct relay_origin *ret, const struct relay_request *request)
{
	ret->from = request->from;
	ret->client = request->client;
	ret->frontend = request->frontend;
	ret->pid = request->pid;
	memcpy(ret->comm, request->comm, sizeof(ret->comm));
}

/* NULL: no memory; both stay the caller's. */
static struct relay_pair *make(struct relay_thread *t, int client_fd, struct stream *server)
{
	struct relay_pair *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->client = stream_new(t, client_fd);
	if (!p->client) {
		free(p);
		return NULL;
	}
	p->thread = t;
	p->server = server;
	p->since_ns = clock_now_ns();
	p->client->owner = server->owner = p;
	p->client->on_event = server->on_event = on_event;
	return p;
}

static void give_up(struct relay_thread *t, int client_fd, struct stream *server,
		    const struct relay_request *request)
{
	limits_give_source_back(t->relay, request->from, &request->client);
	limits_give_slot_back(t->relay);
	atomic_fetch_sub(&t->n, 1);
	close(client_fd);
	stream_reset(server);
}

void pair_new(struct relay_thread *t, int client_fd, struct stream *server,
	      struct relay_backend *backend, const struct relay_request *request)
{
	struct relay_pair *p = make(t, client_fd, server);

	if (!p) {
		give_up(t, client_fd, server, request);
		return;
	}
	p->backend = backend;
	fill_origin(&p->origin, request);
	TAILQ_INSERT_TAIL(&t->pairs, p, link);
	count(p);
	stream_ignore(server, EV_WRITE);
	if (stream_await(server, EV_READ) || stream_await(p->client, EV_READ)) {
		pair_reset(p);
		return;
	}
	/* Most clients speak first, and have done so already. */
	read_from(p, p->client);
}
