/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The clients of a node: watches that are open for good, as a kubelet's or kube-proxy's, and short
 * connections, as a command's. What ends a watch makes its client connect again as client-go does:
 * at once after the end of a connection, later and later after connects that fail.
 */
#include <stdlib.h>

#include "sim.h"

#define ROUND_TRIP_NS (NS_PER_MS / 2)
/* A client notices the end of its connection, and dials. */
#define NOTICE_NS (20 * NS_PER_MS)
/* Reflectors wait between two tries: 0.8 s, doubled up to 30 s, plus up to as much again. */
#define BACKOFF_NS (800 * NS_PER_MS)
#define BACKOFF_MAX_NS (30 * NS_PER_S)
/* How long a short connection is open. */
#define BRIEF_NS (500 * NS_PER_MS)
/* Data on a watch, and what its client sends: a lease, a status, an event. */
#define BEAT_NS (10 * NS_PER_S)
/* The kernel sends what is not acknowledged again. */
#define RETRANSMIT_NS (250 * NS_PER_MS)
/* The relay has answered the second SYN: docs/bench.md. */
#define RESCUE_NS (30 * NS_PER_MS)
/* deadPeerTimeout. */
#define DEAD_PEER_NS (10 * NS_PER_S)

__u64 failed_connects;

/* The last beat up to now; after its server fell silent, up to then. */
__u64 client_last_data(const struct connection *c)
{
	__u64 until = sim_now(), base = clock_now_ns() - sim_now(), beats;

	if (!server_serves(c->server) || c->life != c->server->life)
		until = c->server->silent_since_ns < until ? c->server->silent_since_ns : until;
	if (c->watch && until >= c->beat_ns) {
		beats = (until - c->beat_ns) / BEAT_NS;
		until = c->beat_ns + beats * BEAT_NS;
		if (base + until > c->established_ns)
			return base + until;
	}
	return c->established_ns;
}

static struct klb_candidate *candidate_of(const struct connection *c)
{
	for (unsigned int i = 0; i < c->node->n_table; i++)
		if (c->node->table[i].id == c->id)
			return &c->node->table[i];
	return NULL;
}

static void give_back(struct connection *c)
{
	struct connection **at = &c->node->brief;

	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	c->next = c->node->idle;
	c->node->idle = c;
}

static void leave(struct connection *c)
{
	struct node *n = c->node;

	kernel_answered(n, c->id, client_last_data(c));
	kernel_closed(n, c->id);
	c->server->open--;
	c->phase = CLIENT_IDLE;
}

/* The connection is over: watches come again after so long. */
static void again(struct connection *c, __u64 wait_ns)
{
	event_del(&c->timer);
	if (c->watch)
		sim_event_in(&c->timer, wait_ns);
	else
		give_back(c);
}

static void fail(struct connection *c)
{
	__u64 wait = BACKOFF_NS << (c->failures < 6 ? c->failures : 6);

	failed_connects++;
	c->phase = CLIENT_IDLE;
	c->failures += c->failures < 6;
	wait = wait < BACKOFF_MAX_NS ? wait : BACKOFF_MAX_NS;
	again(c, wait + sim_uniform_ns(wait));
}

static void aim(struct connection *c, int index)
{
	const struct klb_candidate *to = &c->node->table[index];

	c->id = to->id;
	c->generation = to->generation;
	c->endpoint = to->endpoint;
	c->server = server_of(&to->endpoint);
	c->connect_ns = sim_now();
	c->phase = CLIENT_DIALS;
}

static void dial(struct connection *c)
{
	int index = c->node->runs ? kernel_choose(c->node, -1) : -1;

	if (index < 0) {
		fail(c);
		return;
	}
	aim(c, index);
	c->node->stats[c->id].connecting++;
	server_count(c->server->rates.connects);
	sim_event_in(&c->timer, c->server->state == SERVER_GONE ? RESCUE_NS : ROUND_TRIP_NS);
}

static void open_connection(struct connection *c)
{
	c->phase = CLIENT_OPEN;
	c->failures = 0;
	c->life = c->server->life;
	c->established_ns = clock_now_ns();
	c->server->open++;
	kernel_opened(c->node, c->id);
	if (!c->watch)
		sim_event_in(&c->timer, BRIEF_NS);
	else
		c->beat_ns = sim_uniform_ns(BEAT_NS);
}

/* Nothing answers the SYN: the relay stands in, and goes to another one. */
static void rescue(struct connection *c)
{
	struct klb_candidate *lost = candidate_of(c);
	int index;

	if (lost)
		kernel_unanswered(c->node, lost, KLB_EVENT_SUSPECT);
	index = lost ? kernel_choose(c->node, (int)(lost - c->node->table)) : -1;
	if (index < 0 || !server_serves(server_of(&c->node->table[index].endpoint))) {
		fail(c);
		return;
	}
	aim(c, index);
	server_count(c->server->rates.connects);
	open_connection(c);
}

static void on_syn_done(struct connection *c)
{
	struct klb_candidate *to = candidate_of(c);

	c->node->stats[c->id].connecting--;
	if (c->server->state == SERVER_GONE) {
		rescue(c);
	} else if (c->server->state == SERVER_DOWN) {
		if (to)
			kernel_refused(c->node, to);
		fail(c);
	} else {
		open_connection(c);
	}
}

/* What it sends is not acknowledged; later the kernel gives up. connect_ns: when it began. */
static void on_silence(struct connection *c)
{
	struct klb_candidate *to = candidate_of(c);

	if (sim_now() - c->connect_ns >= DEAD_PEER_NS) {
		client_reset(c);
		return;
	}
	if (to)
		kernel_unanswered(c->node, to, KLB_EVENT_STALLED);
	sim_event_at(&c->timer, c->connect_ns + DEAD_PEER_NS);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct connection *c = arg;

	(void)fd;
	(void)what;
	if (c->phase == CLIENT_IDLE) {
		dial(c);
	} else if (c->phase == CLIENT_DIALS) {
		on_syn_done(c);
	} else if (server_serves(c->server) && c->life == c->server->life) {
		/* A short one has what it wants. */
		if (!c->watch) {
			leave(c);
			give_back(c);
		}
	} else if (c->server->state == SERVER_GONE) {
		on_silence(c);
	} else {
		client_reset(c);
	}
}

void client_reset(struct connection *c)
{
	leave(c);
	again(c, sim_uniform_ns(NOTICE_NS));
}

/* --- what happens to all of them ------------------------------------------------------------ */

static void server_went(struct connection *c, const struct server *s)
{
	__u64 beat;

	if (c->phase != CLIENT_OPEN || c->server != s)
		return;
	if (s->state == SERVER_DOWN) {
		sim_event_in(&c->timer, ROUND_TRIP_NS);
	} else if (s->state == SERVER_GONE) {
		/* The request of a short one is on its way. */
		beat = c->watch ? BEAT_NS - (sim_now() + BEAT_NS - c->beat_ns) % BEAT_NS : 0;
		c->connect_ns = sim_now() + beat;
		sim_event_in(&c->timer, beat + RETRANSMIT_NS);
	} else if (c->life != s->life) {
		/* The host is back, and knows nothing of it. */
		sim_event_in(&c->timer, ROUND_TRIP_NS);
	}
}

void client_server_changed(struct server *s)
{
	for (unsigned int k = 0; k < n_nodes; k++) {
		struct node *n = &nodes[k];
		struct connection *next;

		for (unsigned int i = 0; i < n->n_watches; i++)
			server_went(&n->watches[i], s);
		for (struct connection *c = n->brief; c; c = next) {
			next = c->next;
			server_went(c, s);
		}
	}
}

/* --- the beginning ------------------------------------------------------------------------ */

static void client_init(struct connection *c, struct node *n, bool watch)
{
	static __u64 n_made;

	c->cookie = ++n_made;
	sim_event_init(&c->timer, on_timer, c);
	c->node = n;
	c->watch = watch;
	c->phase = CLIENT_IDLE;
}

static void on_arrival(evutil_socket_t fd, short what, void *arg)
{
	struct node *n = arg;
	struct connection *c = n->idle;

	(void)fd;
	(void)what;
	sim_event_in(&n->arrival, sim_exponential_ns(n->per_second));
	if (c) {
		n->idle = c->next;
	} else {
		c = calloc(1, sizeof(*c));
		if (!c)
			abort();
		client_init(c, n, false);
	}
	c->next = n->brief;
	n->brief = c;
	c->failures = 0;
	dial(c);
}

void client_start(struct node *n, unsigned int watches, double per_second)
{
	n->n_watches = watches;
	n->per_second = per_second;
	for (unsigned int i = 0; i < watches; i++) {
		client_init(&n->watches[i], n, true);
		sim_event_in(&n->watches[i].timer, sim_uniform_ns(NS_PER_S));
	}
	sim_event_init(&n->arrival, on_arrival, n);
	if (per_second > 0)
		sim_event_in(&n->arrival, sim_exponential_ns(per_second));
}
