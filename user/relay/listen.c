/* SPDX-License-Identifier: BSD-2-Clause */
/* Where clients come in: listeners, and who may come. Every thread accepts from every listener. */
#include "relay/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "net/endpoint.h"

/* In one turn of the loop; the other sockets come in between. */
#define CLIENTS_PER_TURN 16
/* At the end, so that those whom the kernel has connected already are served: its own default for
 * the longest backlog (net.core.somaxconn). */
#define CLIENTS_AT_END 4096
/* How long accepting rests when descriptors or memory are used up. */
#define REST_MS 100

/* A listener in one thread's loop. */
struct place {
	struct relay_listener *listener;
	struct relay_thread *thread;
	struct event event, rest;
};

struct relay_listener {
	TAILQ_ENTRY(relay_listener) link;
	struct relay *relay;
	int fd;
	enum relay_from from;
	struct klb_endpoint frontend; /* port 0: identify says */
	struct klb_endpoint local;
	struct cidr *allow;
	unsigned int n_allow;
	struct place at[RELAY_THREADS_MAX];
};

/* --- one client --------------------------------------------------------------------------------
 */

static bool is_allowed(const struct relay_listener *l, const struct klb_endpoint *client)
{
	for (unsigned int i = 0; i < l->n_allow; i++)
		if (cidr_contains(&l->allow[i], client->addr))
			return true;
	if (!l->n_allow)
		return true;
	atomic_fetch_add(&l->relay->refused_network, 1);
	return false;
}

/* Fills in who it is. Returns false when it is refused. */
static bool identify(const struct relay_listener *l, int fd, struct relay_request *request)
{
	struct relay *r = l->relay;
	struct sockaddr_storage ss;
	socklen_t length = sizeof(ss);

	if (!r->ops.identify)
		return true;
	if (endpoint_is_unspecified(&l->local) && !getsockname(fd, (struct sockaddr *)&ss, &length))
		endpoint_from_sockaddr((struct sockaddr *)&ss, &request->local);
	if (!r->ops.identify(r->arg, request) && request->frontend.port)
		return true;
	atomic_fetch_add(&r->refused_unknown, 1);
	return false;
}

/* Takes the slots that it needs. Returns false when it is refused, with none taken. */
static bool admit(const struct relay_listener *l, int fd, struct relay_request *request)
{
	struct relay *r = l->relay;

	if (!is_allowed(l, &request->client) || !limits_take_slot(r))
		return false;
	if (limits_take_source(r, request->from, &request->client)) {
		if (identify(l, fd, request))
			return true;
		limits_give_source_back(r, request->from, &request->client);
	}
	limits_give_slot_back(r);
	return false;
}

/* The listener's options are its clients': closing one that is refused resets it (stream_tune). */
static void take(struct place *p, int fd, const struct sockaddr *from)
{
	const struct relay_listener *l = p->listener;
	struct relay_request request = { .from = l->from,
					 .frontend = l->frontend,
					 .local = l->local };
	struct relay_client *c;

	endpoint_from_sockaddr(from, &request.client);
	if (!admit(l, fd, &request)) {
		close(fd);
		return;
	}
	c = client_new(fd, &request);
	if (c) {
		thread_place_client(p->thread, c);
		return;
	}
	limits_give_source_back(l->relay, l->from, &request.client);
	limits_give_slot_back(l->relay);
	close(fd);
}

/* --- accepting ---------------------------------------------------------------------------------
 */

/*
 * Descriptors are used up: the one in reserve is enough to refuse the client, who would otherwise
 * wait in the backlog. Who finds that there are some again is taken. Returns whether there was one.
 */
static bool refuse_with_spare(struct place *p)
{
	struct relay_thread *t = p->thread;
	struct sockaddr_storage ss;
	socklen_t length = sizeof(ss);
	int fd;

	if (t->spare_fd < 0)
		return false;
	close(t->spare_fd);
	fd = accept4(p->listener->fd, (struct sockaddr *)&ss, &length,
		     SOCK_CLOEXEC | SOCK_NONBLOCK);
	t->spare_fd = thread_open_spare();
	if (fd < 0)
		return false;
	if (t->spare_fd >= 0) {
		limits_note_shortage(p->listener->relay, 0);
		take(p, fd, (struct sockaddr *)&ss);
		return true;
	}
	close(fd);
	t->spare_fd = thread_open_spare();
	atomic_fetch_add(&t->relay->refused_limit, 1);
	return true;
}

static void rest(struct place *p)
{
	struct timeval tv = clock_timeval(REST_MS);

	event_del(&p->event);
	event_add(&p->rest, &tv);
}

static void on_rested(evutil_socket_t fd, short what, void *arg)
{
	struct place *p = arg;

	(void)fd;
	(void)what;
	event_add(&p->event, NULL);
}

/* Returns 0, or an errno: there is no client, or none can be taken. */
static int accept_one(struct place *p)
{
	struct sockaddr_storage ss;
	socklen_t length = sizeof(ss);
	int fd = accept4(p->listener->fd, (struct sockaddr *)&ss, &length,
			 SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd >= 0) {
		limits_note_shortage(p->listener->relay, 0);
		take(p, fd, (struct sockaddr *)&ss);
		return 0;
	}
	/* A client that has gone again, or a network error that was already pending (accept(2)). */
	return errno == EAGAIN || err_is_shortage(errno) ? errno : 0;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct place *p = arg;
	int code = 0;

	(void)fd;
	(void)what;
	for (unsigned int i = 0; i < CLIENTS_PER_TURN && !code; i++)
		code = accept_one(p);
	if (!code || code == EAGAIN)
		return;
	limits_note_shortage(p->listener->relay, code);
	for (unsigned int i = 0; i < CLIENTS_PER_TURN && refuse_with_spare(p); i++)
		;
	rest(p);
}

/* --- beginning and end -------------------------------------------------------------------------
 */

/* arg: the listener. */
static void begin(struct relay_thread *t, void *arg)
{
	struct relay_listener *l = arg;
	struct place *p = &l->at[t->number];

	*p = (struct place){ .listener = l, .thread = t };
	evtimer_assign(&p->rest, t->base, on_rested, p);
	event_assign(&p->event, t->base, l->fd, EV_READ | EV_PERSIST, on_readable, p);
	/* Without memory for it the listener is served by the other threads, and by this one later.
	 */
	if (event_add(&p->event, NULL))
		rest(p);
}

static void end(struct relay_thread *t, void *arg)
{
	struct relay_listener *l = arg;
	struct place *p = &l->at[t->number];

	event_del(&p->rest);
	event_del(&p->event);
	for (unsigned int i = 0; i < CLIENTS_AT_END && !accept_one(p); i++)
		;
}

static int fill(struct relay_listener *l, const struct cidr *allow, unsigned int n_allow)
{
	struct sockaddr_storage ss;
	socklen_t length = sizeof(ss);

	if (n_allow) {
		l->allow = calloc(n_allow, sizeof(*allow));
		if (!l->allow)
			return ENOMEM;
		memcpy(l->allow, allow, n_allow * sizeof(*allow));
		l->n_allow = n_allow;
	}
	if (getsockname(l->fd, (struct sockaddr *)&ss, &length))
		return errno;
	return -endpoint_from_sockaddr((struct sockaddr *)&ss, &l->local);
}

int relay_listen(struct relay *r, int fd, enum relay_from from, const struct klb_endpoint *frontend,
		 const struct cidr *allow, unsigned int n_allow, struct relay_listener **ret,
		 struct err *e)
{
	struct relay_listener *l = calloc(1, sizeof(*l));
	int code;

	if (!l)
		return err_no_memory(e);
	*l = (struct relay_listener){ .relay = r, .fd = fd, .from = from };
	if (frontend)
		l->frontend = *frontend;
	code = fill(l, allow, n_allow);
	if (code) {
		free(l->allow);
		free(l);
		return err_set(e, code, "the relay cannot listen: %s", err_reason(code));
	}
	stream_tune(fd, atomic_load(&r->dead_peer_timeout_ms));
	TAILQ_INSERT_TAIL(&r->listeners, l, link);
	for (unsigned int i = 0; i < r->n_threads; i++)
		thread_call(&r->threads[i], begin, l);
	*ret = l;
	return 0;
}

void listeners_tune(struct relay *r)
{
	struct relay_listener *l;

	for (l = TAILQ_FIRST(&r->listeners); l; l = TAILQ_NEXT(l, link))
		stream_tune(l->fd, atomic_load(&r->dead_peer_timeout_ms));
}

void relay_unlisten(struct relay_listener *l)
{
	struct relay *r = l->relay;

	for (unsigned int i = 0; i < r->n_threads; i++)
		thread_call(&r->threads[i], end, l);
	TAILQ_REMOVE(&r->listeners, l, link);
	close(l->fd);
	free(l->allow);
	free(l);
}

void listeners_end(struct relay *r)
{
	struct relay_listener *l, *next;

	for (l = TAILQ_FIRST(&r->listeners); l; l = next) {
		next = TAILQ_NEXT(l, link);
		relay_unlisten(l);
	}
}
