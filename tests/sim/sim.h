/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A fleet of nodes in virtual time. Each node is a real agent (user/agent: backends, PINGs, plans,
 * evict, rebalance, changes of the list) with user/balance below it, and each connect makes the
 * real choice (bpf/select.bpf.h). What stands around them is modelled: time and chance (loop.c),
 * the apiservers and what probes see of them (server.c), the kernel's counts and evidence
 * (kernel.c), the clients (client.c). No file here decides who is dead, who is chosen, which
 * connection ends or when something is probed.
 *
 * Times are nanoseconds of virtual time since its start, which is at SIM_START_NS of the clocks.
 */
#ifndef KUBELB_SIM_H
#define KUBELB_SIM_H

#include <event2/event.h>

#include "agent/internal.h"
#include "base/clock.h"

#define SIM_SERVERS 9 /* 8 in the list, and one that takes a place in it */
#define SIM_IDS 32 /* more than there are backends, removed ones included */
#define SIM_WATCHES 16 /* of a node, at most */
#define SIM_SECONDS 4000

/* --- loop.c: time, chance, and what libevent is for the agent --- */

/* libevent's own are opaque: these are other ones of the same name. */
struct event {
	event_callback_fn call;
	void *arg;
	unsigned int place; /* in the heap, plus 1; 0: not in it */
};

void sim_seed(__u64 seed);
/* Chance makes no difference between nodes any more: what they spread at random comes together. */
void sim_stop_spreading(void);
/* Not the agents' own, so that a change of the one leaves the other as it was. */
__u64 sim_random(void);
double sim_uniform(void); /* 0 <= x < 1 */
__u64 sim_uniform_ns(__u64 below);
__u64 sim_exponential_ns(double per_second);

__u64 sim_now(void);
void sim_event_init(struct event *e, event_callback_fn call, void *arg);
/* Replaces an earlier time. */
void sim_event_at(struct event *e, __u64 due_ns);
void sim_event_in(struct event *e, __u64 ns);
/* Calls the events until that time. */
void sim_run_until(__u64 ns);
__u64 sim_events_called(void);

/* --- server.c: the apiservers --- */

enum server_state {
	SERVER_UP,
	SERVER_NOT_READY, /* serves, and says 500 on /readyz */
	SERVER_DOWN, /* no process: its kernel refuses */
	SERVER_GONE, /* no host: nothing answers */
};

/* By second since the start. */
struct server_rates {
	unsigned int connects[SIM_SECONDS];
	unsigned int handshakes[SIM_SECONDS]; /* of probes */
	unsigned int pings[SIM_SECONDS];
	unsigned int gets[SIM_SECONDS];
};

struct server {
	unsigned int index;
	struct klb_endpoint endpoint;
	enum server_state state;
	unsigned int life; /* counts its processes */
	__u64 silent_since_ns; /* when it last went down */
	unsigned int open; /* connections of clients */
	struct server_rates rates;
};

extern struct server servers[SIM_SERVERS];

void servers_init(void);
struct server *server_of(const struct klb_endpoint *endpoint);
bool server_serves(const struct server *s);
void server_count(unsigned int *rates);
void server_set(struct server *s, enum server_state state);
/* Another certificate for probes has been loaded. */
struct probe_tls *server_credentials(void);

/* --- kernel.c: the maps of one node, as its agent sees them --- */

struct node;

/* The backend's index in the table, by the real choice; -1: none. failed: not this one; or -1. */
int kernel_choose(struct node *n, int failed);
void kernel_opened(struct node *n, __u32 id);
void kernel_closed(struct node *n, __u32 id);
void kernel_answered(struct node *n, __u32 id, __u64 at_ns);
void kernel_refused(struct node *n, const struct klb_candidate *c);
void kernel_unanswered(struct node *n, const struct klb_candidate *c, enum klb_event_kind kind);

/* --- client.c --- */

enum connection_phase { CLIENT_IDLE, CLIENT_DIALS, CLIENT_OPEN };

struct connection {
	struct event timer;
	struct node *node;
	__u64 cookie; /* no two are alike; an address would be another one in each run */
	enum connection_phase phase;
	bool watch; /* its client connects again whenever it ends */
	__u8 failures; /* in a row */
	__u32 id, generation;
	struct server *server;
	unsigned int life; /* of the server's process that it is to */
	struct klb_endpoint endpoint;
	__u64 connect_ns, established_ns;
	__u64 beat_ns; /* when data comes: at this time of each period */
	struct connection *next; /* short ones: in use, or free */
};

void client_start(struct node *n, unsigned int watches, double per_second);
/* What the clients of a server that has changed its state see. */
void client_server_changed(struct server *s);
/* Their connection was ended. */
void client_reset(struct connection *c);
__u64 client_last_data(const struct connection *c);

/* --- node.c: one node --- */

struct node {
	struct agent agent;
	unsigned int index;
	/* The maps. */
	struct klb_stats stats[SIM_IDS];
	__u64 answer_ns[SIM_IDS]; /* of connections that are over */
	struct klb_candidate table[SIM_SERVERS];
	unsigned int n_table;
	bool trouble; /* some of the table is not ready, or something is held against it */
	struct klb_event events[8];
	unsigned int n_events;
	__u64 stalled_ns[SIM_IDS];
	/* The clients. */
	struct connection watches[SIM_WATCHES];
	unsigned int n_watches;
	struct connection *brief, *idle;
	struct event arrival;
	double per_second;
	struct event boot, change, wakeup;
	bool runs;
};

extern struct node *nodes;
extern unsigned int n_nodes;

/* Boots all nodes at random times within so many seconds. */
void nodes_init(unsigned int n, double within_s, unsigned int watches, double per_second);
/* What all of them are configured with. */
void nodes_configure(struct config *file, struct probe_tls *credentials);
/* Each node takes the configuration and credentials at a random time within a second. */
void nodes_change(void);
extern bool always_first; /* a broken choice, on purpose */
extern __u64 failed_connects;

/* --- scenario.c, report.c --- */

struct sim_options {
	unsigned int n_nodes, n_servers, watches;
	double per_second; /* short connections of a node */
	__u64 seed;
	const char *policy, *scenario, *probe;
	bool slow_start, rebalance;
};

extern struct sim_options options;

int scenario_run(void);
void report_mark(const char *what);
/*
 * The rates of the last minute, and the worst second of the next ones at those that stay. goes,
 * comes: the server that does; -1: none.
 */
void report_watch(const char *what, unsigned int after_s, int goes, int comes);
void report_sample(void);
void report_write(void);

#endif
