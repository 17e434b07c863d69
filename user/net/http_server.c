/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Serves the agent's pages over HTTP.
 *
 *   accept ─► READING ─► its turn ─► ANSWERING ─► (kept) READING ─► …
 *                │                        └─────► closed
 *                └── refused ─► LEAVING ─► closed
 *   accept ─► no place: http_refused.c ─► closed
 *
 * Anybody on the machine can ask here, as often as they like, and the agent has other work. So
 * there is a budget of processor time for answers, and one for accepting. While a budget is
 * overdrawn, only root is answered: the kubelet ends an agent that does not answer. A connection is
 * read once in each turn of TURN_MS, which makes many wake-ups into one.
 *
 * A connection has one time limit for each request. It runs from the beginning of the request
 * (or the end of the last answer) to the answer's last byte. Who gets a place, and whose turn it
 * is: http_places.c.
 *
 * libevent's evhttp is not used. As of 2.1.12 it does not limit the number of connections. Its
 * time-out begins again with each byte, so that a slow client is never closed. And without free
 * descriptors its listener keeps the event loop busy.
 */
#include "net/http_server.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/event.h>

#include "base/clock.h"
#include "base/cpu_budget.h"
#include "net/http_answer.h"
#include "net/http_listen.h"
#include "net/http_peer.h"
#include "net/http_places.h"
#include "net/http_refused.h"
#include "net/http_request.h"

/* The places; fewer where descriptors are few, because the agent needs most of them itself. */
#define CONNECTIONS_MAX 512
#define CONNECTIONS_ROOT 16
/* Of those that get no place; fewer where descriptors are few. */
#define REFUSED_MAX 2048
/* A scrape is a short GET and needs less. */
#define REQUEST_NS (10 * NS_PER_S)
/* A refused client may read the reason for so long; what it still sends is dropped. */
#define LEAVING_NS NS_PER_S
/* How exact these times are. */
#define SWEEP_MS 100
/* After descriptors have run out. */
#define PAUSE_MS 1000
#define TURN_MS 5
/* So often in a turn the listener wakes the agent; then connects wait for the next turn. */
#define WAKES_MAX 8
/* To look at the processor's clock costs as much as a tenth of a connect. */
#define PAY_EVERY 16
/* So many connects in a row, before others get their turn. */
#define ACCEPTS_MAX 512
/* Of one processor. To accept costs about 3 µs, an answer 15 µs, the metrics anew some 500 µs. */
#define ACCEPT_PERMILLE 65
#define ANSWER_PERMILLE 15
#define BURST_NS ((__s64)(20 * NS_PER_MS))

enum phase { PHASE_READING, PHASE_ANSWERING, PHASE_LEAVING };

struct connection {
	struct http *h;
	struct http_place place;
	TAILQ_ENTRY(connection) age; /* in http.ages or http.leaving */
	TAILQ_ENTRY(connection) rest; /* in http.resting, if rests is set */
	int fd;
	struct event *readable, *writable;
	struct evbuffer *in, *out;
	enum phase phase;
	__u64 since_ns; /* the beginning of the request */
	bool rests;
	bool served; /* at least once */
	bool keep;
	bool refused;
};

TAILQ_HEAD(connections, connection);

struct http {
	struct event_base *base;
	struct http_listen *socket;
	struct event *listener, *turn, *sweep, *pause;
	struct http_answers *answers;
	struct http_peers *peers;
	struct http_places *places;
	struct http_refused *refused;
	struct connections ages, leaving; /* by since_ns */
	struct connections resting; /* to be looked at in the next turn */
	struct cpu_budget answering, accepting;
	__u64 mark_ns; /* up to here the work is paid for */
	unsigned int wakes; /* of the listener, in this turn */
	bool paused; /* see PAUSE_MS */
};

static void wait_for(struct event *timer, unsigned int ms)
{
	const struct timeval tv = clock_timeval(ms);

	if (!event_pending(timer, EV_TIMEOUT, NULL))
		event_add(timer, &tv);
}

/* --- budgets --------------------------------------------------------------------------- */

static void begin_work(struct http *h)
{
	h->mark_ns = cpu_budget_clock_ns();
}

static void pay(struct http *h, struct cpu_budget *b)
{
	__u64 now = cpu_budget_clock_ns();

	cpu_budget_pay(b, now - h->mark_ns);
	h->mark_ns = now;
}

/* Whether this connection's work may be done now. */
static bool is_affordable(struct connection *c)
{
	return http_places_is_root(&c->place) || cpu_budget_has(&c->h->answering, clock_now_ns());
}

/* --- connections ----------------------------------------------------------------------- */

static struct connections *list_of(struct connection *c)
{
	return c->phase == PHASE_LEAVING ? &c->h->leaving : &c->h->ages;
}

static void set_at(struct connection *c, enum http_at at)
{
	http_places_set(&c->place, at, clock_now_ns());
}

static void stop_resting(struct connection *c)
{
	if (c->rests)
		TAILQ_REMOVE(&c->h->resting, c, rest);
	c->rests = false;
}

/* Looks at it again in the next turn. */
static void rest(struct connection *c, enum http_at at)
{
	set_at(c, at);
	if (!c->rests)
		TAILQ_INSERT_TAIL(&c->h->resting, c, rest);
	c->rests = true;
	wait_for(c->h->turn, TURN_MS);
}

static void connection_free(struct connection *c)
{
	if (c->readable)
		event_free(c->readable);
	if (c->writable)
		event_free(c->writable);
	if (c->in)
		evbuffer_free(c->in);
	if (c->out)
		evbuffer_free(c->out);
	close(c->fd);
	free(c);
}

static void hang_up(struct connection *c)
{
	stop_resting(c);
	TAILQ_REMOVE(list_of(c), c, age);
	http_places_leave(c->h->places, &c->place);
	connection_free(c);
}

static void begin(struct connection *c, enum phase phase)
{
	if (c->since_ns)
		TAILQ_REMOVE(list_of(c), c, age);
	c->phase = phase;
	c->since_ns = clock_now_ns();
	TAILQ_INSERT_TAIL(list_of(c), c, age);
	wait_for(c->h->sweep, SWEEP_MS);
}

/* --- answers --------------------------------------------------------------------------- */

/*
 * Closing a socket with unread bytes sends a reset, which may arrive before the client has read the
 * answer. So the socket is shut down for writing first.
 */
static void leave(struct connection *c)
{
	begin(c, PHASE_LEAVING);
	shutdown(c->fd, SHUT_WR);
	rest(c, HTTP_IDLE);
}

/* The answer is written completely. */
static void end_answer(struct connection *c)
{
	c->served = true;
	if (c->refused) {
		leave(c);
	} else if (!c->keep) {
		hang_up(c);
	} else {
		begin(c, PHASE_READING);
		rest(c, HTTP_BUSY);
	}
}

/* It does not read. So it gives its place to others where there is none left. */
static void wait_for_reader(struct connection *c)
{
	set_at(c, HTTP_IDLE);
	event_add(c->writable, NULL);
}

static void write_answer(struct connection *c)
{
	while (evbuffer_get_length(c->out)) {
		if (evbuffer_write(c->out, c->fd) >= 0)
			continue;
		if (errno == EAGAIN)
			wait_for_reader(c);
		else
			hang_up(c);
		return;
	}
	end_answer(c);
}

static void refuse(struct connection *c, unsigned int status)
{
	c->phase = PHASE_ANSWERING;
	c->refused = true;
	set_at(c, HTTP_BUSY);
	http_answer_refusal(status, c->out);
	write_answer(c);
}

/* Its first request is complete, and it is its turn. */
static void answer(struct connection *c)
{
	size_t n = evbuffer_get_length(c->in);
	char *text = (char *)evbuffer_pullup(c->in, -1);
	size_t used = text ? request_length(text, n) : 0;
	struct request q;
	unsigned int status = used ? request_parse(text, used, &q) : 500;

	evbuffer_drain(c->in, used);
	if (status) {
		refuse(c, status);
		return;
	}
	c->phase = PHASE_ANSWERING;
	c->keep = q.keep;
	c->refused = q.body;
	set_at(c, HTTP_BUSY);
	http_answer(c->h->answers, &q, clock_now_ns(), c->out);
	write_answer(c);
}

/* Answers as many as the budget allows: each has one request at the most. */
static void serve(struct http *h)
{
	bool all = cpu_budget_has(&h->answering, clock_now_ns());
	struct http_place *next;

	while ((next = http_places_next(h->places, all))) {
		answer((struct connection *)((char *)next - offsetof(struct connection, place)));
		pay(h, &h->answering);
		all = all && cpu_budget_has(&h->answering, clock_now_ns());
	}
	if (!all && http_places_next(h->places, true))
		wait_for(h->turn, TURN_MS);
}

/* --- requests -------------------------------------------------------------------------- */

/* Returns true when what has come decides what is next: a request, or what is none. */
static bool take_request(struct connection *c)
{
	size_t n = evbuffer_get_length(c->in), used;
	char *text = (char *)evbuffer_pullup(c->in, -1);

	if (!n || !text)
		return false;
	used = request_length(text, n);
	/* A client that speaks TLS, for example, would wait for its answer for ever. */
	if (!used && (text[0] < 'A' || text[0] > 'Z'))
		refuse(c, 400);
	else if (used > REQUEST_MAX || (!used && n >= REQUEST_MAX))
		refuse(c, 431);
	else if (used)
		set_at(c, c->served ? HTTP_AGAIN : HTTP_FIRST);
	else
		return false;
	return true;
}

/* What else comes from a refused client. */
static void drop_bytes(struct connection *c)
{
	char bytes[REQUEST_MAX];
	ssize_t n = recv(c->fd, bytes, sizeof(bytes), 0);

	for (int i = 0; i < 16 && n == (ssize_t)sizeof(bytes); i++)
		n = recv(c->fd, bytes, sizeof(bytes), 0);
	if (n > 0)
		rest(c, HTTP_IDLE);
	else if (n < 0 && errno == EAGAIN)
		event_add(c->readable, NULL);
	else
		hang_up(c);
}

static void wait_for_bytes(struct connection *c)
{
	set_at(c, HTTP_IDLE);
	event_add(c->readable, NULL);
}

/* One read. What comes later is read in the next turn. */
static void read_bytes(struct connection *c)
{
	char bytes[REQUEST_MAX];
	ssize_t n = recv(c->fd, bytes, REQUEST_MAX - evbuffer_get_length(c->in), 0);

	if (n < 0 && errno == EAGAIN)
		wait_for_bytes(c);
	else if (n <= 0 || evbuffer_add(c->in, bytes, (size_t)n))
		hang_up(c);
	else if (!take_request(c))
		rest(c, HTTP_IDLE);
}

static void look(struct connection *c)
{
	stop_resting(c);
	if (c->phase == PHASE_LEAVING)
		drop_bytes(c);
	else if (!take_request(c))
		read_bytes(c);
}

static void on_readable(evutil_socket_t fd __attribute__((unused)),
			short what __attribute__((unused)), void *arg)
{
	struct connection *c = arg;
	struct http *h = c->h;

	begin_work(h);
	if (is_affordable(c))
		look(c);
	else
		rest(c, c->phase == PHASE_LEAVING ? HTTP_IDLE : HTTP_BUSY);
	pay(h, &h->answering);
	serve(h);
}

static void on_writable(evutil_socket_t fd __attribute__((unused)),
			short what __attribute__((unused)), void *arg)
{
	struct connection *c = arg;
	struct http *h = c->h;

	begin_work(h);
	write_answer(c);
	pay(h, &h->answering);
}

/* --- accepting -------------------------------------------------------------------------
 */

static struct connection *connection_new(struct http *h, int fd)
{
	struct connection *c = calloc(1, sizeof(*c));

	if (!c) {
		close(fd);
		return NULL;
	}
	c->h = h;
	c->fd = fd;
	return c;
}

static bool connection_open(struct connection *c)
{
	c->readable = event_new(c->h->base, c->fd, EV_READ, on_readable, c);
	c->writable = event_new(c->h->base, c->fd, EV_WRITE, on_writable, c);
	c->in = evbuffer_new();
	c->out = evbuffer_new();
	return c->readable && c->writable && c->in && c->out;
}

/* There is no place for it. */
static void turn_away(struct connection *c)
{
	http_refused_add(c->h->refused, c->fd, clock_now_ns());
	wait_for(c->h->sweep, SWEEP_MS);
	free(c);
}

/* Returns false when there is no place for it. */
static bool take_place(struct http *h, struct connection *c, __u64 key)
{
	struct http_place *victim = NULL;
	__u64 now = clock_now_ns();
	int r = http_places_enter(h->places, &c->place, key, now, &victim);

	if (r == -EBUSY && victim) {
		hang_up((struct connection *)((char *)victim - offsetof(struct connection, place)));
		r = http_places_enter(h->places, &c->place, key, now, &victim);
	}
	return !r;
}

/* Gives it a place and what it has said so far. */
static void admit(struct http *h, int fd, __u64 key, const char *bytes, size_t n)
{
	struct connection *c = connection_new(h, fd);

	if (!c)
		return;
	if (!take_place(h, c, key)) {
		turn_away(c);
		return;
	}
	begin(c, PHASE_READING);
	if (!connection_open(c))
		hang_up(c);
	else if (!n)
		wait_for_bytes(c);
	else if (evbuffer_add(c->in, bytes, n))
		hang_up(c);
	else if (!take_request(c))
		rest(c, HTTP_IDLE);
}

static bool has_failed(int fd)
{
	int code = 0;
	socklen_t length = sizeof(code);

	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &length) || code;
}

/* Those that have ended already cost as little as possible. */
static void welcome(struct http *h, int fd, const struct sockaddr_storage *from)
{
	char bytes[REQUEST_MAX];
	ssize_t n = recv(fd, bytes, sizeof(bytes), 0);

	if (n < 0 && errno == EAGAIN)
		admit(h, fd, http_peer_key(h->peers, fd, from), "", 0);
	else if (n <= 0 || has_failed(fd))
		close(fd);
	else
		admit(h, fd, http_peer_key(h->peers, fd, from), bytes, (size_t)n);
}

static void pause_accepting(struct http *h)
{
	h->paused = true;
	event_del(h->listener);
	wait_for(h->pause, PAUSE_MS);
}

/* Returns false when nobody is left. */
static bool accept_one(struct http *h)
{
	struct sockaddr_storage from;
	socklen_t length = sizeof(from);
	int fd;

	from.ss_family = AF_UNSPEC;
	fd = accept4(http_listen_fd(h->socket), (struct sockaddr *)&from, &length,
		     SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd >= 0)
		welcome(h, fd, &from);
	else if (errno == EAGAIN)
		return false;
	else if (err_is_shortage(errno))
		pause_accepting(h);
	return !h->paused;
}

/* Returns false when more wait than can be taken now. */
static bool accept_some(struct http *h)
{
	bool more = true;

	for (unsigned int i = 0; more && i < ACCEPTS_MAX; i++) {
		if (i % PAY_EVERY == 0 && !cpu_budget_has(&h->accepting, clock_now_ns()))
			return false;
		more = accept_one(h);
		if (!more || i % PAY_EVERY == PAY_EVERY - 1)
			pay(h, &h->accepting);
	}
	return !more;
}

static void rest_listener(struct http *h)
{
	event_del(h->listener);
	wait_for(h->turn, TURN_MS);
}

static void on_connect(evutil_socket_t fd __attribute__((unused)),
		       short what __attribute__((unused)), void *arg)
{
	struct http *h = arg;

	begin_work(h);
	if (!accept_some(h) || ++h->wakes > WAKES_MAX)
		rest_listener(h);
	serve(h);
}

static void on_pause_over(evutil_socket_t fd __attribute__((unused)),
			  short what __attribute__((unused)), void *arg)
{
	struct http *h = arg;

	h->paused = false;
	event_add(h->listener, NULL);
}

/* --- time ------------------------------------------------------------------------------
 */

static void look_at_resting(struct http *h)
{
	struct connection *c = TAILQ_FIRST(&h->resting), *next, *last;

	last = TAILQ_LAST(&h->resting, connections);
	for (; c; c = next) {
		/* Who comes to rest meanwhile is looked at in the next turn. */
		next = c == last ? NULL : TAILQ_NEXT(c, rest);
		if (!is_affordable(c))
			continue;
		look(c);
		pay(h, &h->answering);
	}
}

static void on_turn(evutil_socket_t fd __attribute__((unused)), short what __attribute__((unused)),
		    void *arg)
{
	struct http *h = arg;

	begin_work(h);
	h->wakes = 0;
	if (!h->paused && !event_pending(h->listener, EV_READ, NULL)) {
		if (accept_some(h) && !h->paused)
			event_add(h->listener, NULL);
		else if (!h->paused)
			wait_for(h->turn, TURN_MS);
	}
	look_at_resting(h);
	serve(h);
	if (!TAILQ_EMPTY(&h->resting))
		wait_for(h->turn, TURN_MS);
}

static void close_older(struct connections *list, __u64 limit_ns, __u64 now_ns)
{
	struct connection *c, *next;

	for (c = TAILQ_FIRST(list); c && now_ns - c->since_ns >= limit_ns; c = next) {
		next = TAILQ_NEXT(c, age);
		hang_up(c);
	}
}

static void on_sweep(evutil_socket_t fd __attribute__((unused)), short what __attribute__((unused)),
		     void *arg)
{
	struct http *h = arg;
	__u64 now = clock_now_ns();

	begin_work(h);
	close_older(&h->ages, REQUEST_NS, now);
	close_older(&h->leaving, LEAVING_NS, now);
	if (http_refused_sweep(h->refused, now) || !TAILQ_EMPTY(&h->ages) ||
	    !TAILQ_EMPTY(&h->leaving))
		wait_for(h->sweep, SWEEP_MS);
	pay(h, &h->accepting);
}

/* --- beginning and end -----------------------------------------------------------------
 */

static unsigned int between(unsigned int least, rlim_t n, unsigned int most)
{
	if (n >= most)
		return most;
	return n > least ? (unsigned int)n : least;
}

static bool make_room(struct http *h)
{
	struct rlimit limit = { 0 };

	getrlimit(RLIMIT_NOFILE, &limit);
	h->places =
		http_places_new(between(2 * CONNECTIONS_ROOT, limit.rlim_cur / 2, CONNECTIONS_MAX),
				CONNECTIONS_ROOT);
	h->refused = http_refused_new(between(1, limit.rlim_cur / 4, REFUSED_MAX));
	return h->places && h->refused;
}

static int set_up(struct http *h)
{
	h->listener =
		event_new(h->base, http_listen_fd(h->socket), EV_READ | EV_PERSIST, on_connect, h);
	h->turn = evtimer_new(h->base, on_turn, h);
	h->sweep = evtimer_new(h->base, on_sweep, h);
	h->pause = evtimer_new(h->base, on_pause_over, h);
	h->peers = http_peers_new();
	if (!h->listener || !h->turn || !h->sweep || !h->pause || !h->peers || !make_room(h) ||
	    !h->answers)
		return -ENOMEM;
	return event_add(h->listener, NULL) ? -ENOMEM : 0;
}

int http_new(struct event_base *base, const struct http_address *at, const struct http_ops *ops,
	     void *arg, struct http **ret, struct err *e)
{
	struct http *h = calloc(1, sizeof(*h));
	int r;

	if (!h)
		return err_no_memory(e);
	TAILQ_INIT(&h->ages);
	TAILQ_INIT(&h->leaving);
	TAILQ_INIT(&h->resting);
	h->base = base;
	h->answering = (struct cpu_budget){ .permille = ANSWER_PERMILLE, .burst_ns = BURST_NS };
	h->accepting = (struct cpu_budget){ .permille = ACCEPT_PERMILLE, .burst_ns = BURST_NS };
	h->answers = http_answers_new(ops, arg);
	r = http_listen_new(at, &h->socket, e);
	if (!r && set_up(h))
		r = err_no_memory(e);
	if (r) {
		http_free(h);
		return r;
	}
	*ret = h;
	return 0;
}

static void close_all(struct connections *list)
{
	struct connection *c, *next;

	for (c = TAILQ_FIRST(list); c; c = next) {
		next = TAILQ_NEXT(c, age);
		hang_up(c);
	}
}

static void free_event(struct event *event)
{
	if (event)
		event_free(event);
}

void http_free(struct http *h)
{
	if (!h)
		return;
	close_all(&h->ages);
	close_all(&h->leaving);
	free_event(h->listener);
	free_event(h->turn);
	free_event(h->sweep);
	free_event(h->pause);
	http_places_free(h->places);
	http_refused_free(h->refused);
	http_peers_free(h->peers);
	http_answers_free(h->answers);
	http_listen_free(h->socket);
	free(h);
}
