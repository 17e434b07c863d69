/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One node: the files of user/agent that decide something, in the order in which loop.c has them.
 * What they call besides has nothing to do here: logs, pages, the relay, privileges.
 */
#include <stdlib.h>
#include <string.h>

#include "host/node.h"
#include "sim.h"

/* HEARTBEAT_MS of user/agent/reload.c. The nodes' ticks come at so many moments of it. */
#define TICK_NS (800 * NS_PER_MS)
#define TICK_GROUPS 80

struct node *nodes;
unsigned int n_nodes;
static struct config *file;
static struct probe_tls *credentials;
static const struct agent_options agent_options = { .pin_dir = "sim" };

/* Whose identity is asked for. */
static const struct node *current;

void __real_agent_apply(struct agent *a);
void __wrap_agent_apply(struct agent *a);

void __wrap_agent_apply(struct agent *a)
{
	current = (const struct node *)a;
	__real_agent_apply(a);
}

__u64 node_identity(void)
{
	return (current->index + 1ULL) * 0x9e3779b97f4a7c15ULL;
}

void node_is_local(const struct klb_endpoint *endpoints, unsigned int n, bool *ret)
{
	(void)endpoints;
	memset(ret, 0, n * sizeof(*ret));
}

/* --- the tick ---------------------------------------------------------------------------- */

/* What on_tick and look_at_maps of user/agent/loop.c do. */
static void tick(struct agent *a)
{
	if (a->dirty)
		agent_apply(a);
	agent_review_removed(a);
	agent_review_resting(a);
	agent_check_dead_backends(a);
	agent_review_ejections(a);
	agent_rebalance(a);
}

/* Whether that would do anything: most of 45 million ticks an hour would not. */
static bool has_work(const struct node *n)
{
	const struct agent *a = &n->agent;

	return a->dirty || n->trouble || a->n_removed ||
	       (a->config->rebalance && clock_now_ns() >= a->rebalance_ns);
}

static void on_ticks(evutil_socket_t fd, short what, void *arg)
{
	static struct event *self;
	static unsigned int group;

	(void)fd;
	(void)what;
	self = arg;
	for (unsigned int i = group; i < n_nodes; i += TICK_GROUPS)
		if (nodes[i].runs && has_work(&nodes[i]))
			tick(&nodes[i].agent);
	group = (group + 1) % TICK_GROUPS;
	sim_event_in(self, TICK_NS / TICK_GROUPS);
}

/* --- a node's life ------------------------------------------------------------------------ */

static void die(const char *what, const struct err *e)
{
	fprintf(stderr, "simulate: %s: %s\n", what, e->text);
	exit(1);
}

static void take(struct agent *a)
{
	struct err e = { "" };

	a->file = file;
	if (agent_take_effective(
		    a, file, credentials == a->tls ? credentials : probe_tls_hold(credentials), &e))
		die("configuration", &e);
	agent_apply(a);
}

static void on_change(evutil_socket_t fd, short what, void *arg)
{
	struct node *n = arg;

	(void)fd;
	(void)what;
	take(&n->agent);
}

static void on_wakeup(evutil_socket_t fd, short what, void *arg)
{
	struct node *n = arg;

	(void)fd;
	(void)what;
	agent_handle_events(&n->agent);
}

static void on_boot(evutil_socket_t fd, short what, void *arg)
{
	struct node *n = arg;
	struct agent *a = &n->agent;
	struct err e = { "no memory" };

	(void)fd;
	(void)what;
	a->options = &agent_options;
	a->dp = (struct datapath *)n;
	a->state = calloc(1, sizeof(*a->state));
	a->evict_timer = event_new(NULL, -1, 0, agent_on_evict, a);
	if (!a->state || !a->evict_timer)
		die("node", &e);
	take(a);
	n->runs = true;
	client_start(n, n->n_watches, n->per_second);
}

void nodes_init(unsigned int n, double within_s, unsigned int watches, double per_second)
{
	static struct event ticks;
	struct err e = { "no memory" };

	nodes = calloc(n, sizeof(*nodes));
	if (!nodes)
		die("nodes", &e);
	n_nodes = n;
	for (unsigned int i = 0; i < n; i++) {
		nodes[i].index = i;
		nodes[i].n_watches = watches;
		nodes[i].per_second = per_second;
		sim_event_init(&nodes[i].boot, on_boot, &nodes[i]);
		sim_event_init(&nodes[i].change, on_change, &nodes[i]);
		sim_event_init(&nodes[i].wakeup, on_wakeup, &nodes[i]);
		sim_event_in(&nodes[i].boot, sim_uniform_ns((__u64)(within_s * NS_PER_S)));
	}
	sim_event_init(&ticks, on_ticks, &ticks);
	sim_event_in(&ticks, 0);
}

void nodes_configure(struct config *new_file, struct probe_tls *new_credentials)
{
	file = new_file;
	credentials = new_credentials;
}

void nodes_change(void)
{
	for (unsigned int i = 0; i < n_nodes; i++)
		sim_event_in(&nodes[i].change, sim_uniform_ns(NS_PER_S));
}
