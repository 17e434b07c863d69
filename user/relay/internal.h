/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of the relay share.
 *
 * Who touches what: struct relay is the caller's, with atomics and one lock for what threads read
 * of it. Everything below struct relay_thread is that thread's alone, but for its queue of clients.
 */
#ifndef KUBELB_RELAY_INTERNAL_H
#define KUBELB_RELAY_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/queue.h>

#include <event2/event.h>
#include <event2/event_struct.h>

#include "base/ration.h"
#include "relay/relay.h"

/*
 * What is read at a time, and the most that is held back for one receiver. A core's second-level
 * cache holds it beside the kernel's copy.
 */
#define RELAY_CHUNK ((size_t)64 * 1024)
#define RELAY_THREADS_MAX 4

struct relay_thread;
struct relay_pair;
struct relay_client;

/* --- backends and plans (backends.c, plan.c) ------------------------------------------------ */

/*
 * One backend, by its address. Made by the caller's thread, which also frees it when nobody refers
 * to it any more: each plan that has it, and each pair.
 */
struct relay_backend {
	TAILQ_ENTRY(relay_backend) link;
	struct klb_endpoint endpoint;
	atomic_uint refs;
	atomic_ullong load; /* clients that are joined with it, or being connected to it */
	atomic_ullong active[RELAY_FROMS], total[RELAY_FROMS];
	atomic_ullong failed;
	/* Its own outlier detection, see evidence.c. */
	atomic_ullong ejected_until_ns, trial_until_ns;
	atomic_uint streak;
	atomic_uint srtt_us;
};
TAILQ_HEAD(relay_backends, relay_backend);

/* Both for the caller's thread. find makes one where there is none; NULL: no memory. */
struct relay_backend *backends_find(struct relay_backends *list, const struct klb_endpoint *ep);
void backends_forget_unused(struct relay_backends *list);

/* What a dial has shown of a backend. Returns whether an ejection is over by it. */
bool evidence_success(struct relay_backend *b, __u64 connect_ns);
/* Returns for how long the backend is ejected by it; 0: it was already. */
__u64 evidence_failure(struct relay_backend *b, __u64 now_ns);
bool evidence_is_ejected(struct relay_backend *b, __u64 now_ns);
/* It has been chosen: while its ejection has just ended, others wait for what comes of it. */
void evidence_begin_trial(struct relay_backend *b, __u64 until_ns);

struct relay_choices {
	struct relay_frontend frontend;
	struct relay_backend *backend[KLB_MAX_BACKENDS]; /* of frontend.at */
};

/* Never changes. Freed by whoever drops the last reference. */
struct relay_plan {
	atomic_uint refs;
	unsigned int n;
	struct relay_choices at[];
};

/* Returns NULL when there is no memory. */
struct relay_plan *relay_plan_new(struct relay_backends *list,
				  const struct relay_frontend *frontends, unsigned int n);
struct relay_plan *relay_plan_ref(struct relay_plan *p);
void relay_plan_unref(struct relay_plan *p);
/* NULL: no such frontend. */
const struct relay_choices *relay_plan_find(const struct relay_plan *p,
					    const struct klb_endpoint *frontend);

/* --- the choice (choose.c) ---------------------------------------------------------------------
 */

/* Which of a frontend's backends have been tried: a bit for each. */
typedef __u64 relay_tried;

/* Returns an index into at, or KLB_MAX_BACKENDS: nobody is left. load may be NULL. */
unsigned int choose_backend(const struct relay *r, const struct relay_choices *from,
			    const struct relay_request *request, relay_tried tried, __u32 seed);
/* What is known of it at this moment. */
struct relay_load choose_look(const struct relay *r, const struct relay_choices *from,
			      const struct relay_request *request, unsigned int i, __u64 now_ns);

/* --- one socket in an event loop (stream.c) ----------------------------------------------------
 */

/*
 * Level-triggered: what one turn leaves is reported again, and so is an error that arrived together
 * with data (libevent shows an error as readable and writable, which an edge would show only once).
 */
struct stream {
	struct event readable, writable;
	int fd;
	bool ended; /* its sender has ended the direction, and everything has been read */
	/* what: EV_READ or EV_WRITE */
	void (*on_event)(struct stream *s, short what);
	void *owner;
	/* Read from it and not yet taken by its peer: RELAY_CHUNK at most, NULL while there is
	 * none. */
	char *held;
	size_t held_from, held_to;
};

/* Takes over fd. NULL: no memory; fd stays the caller's. */
struct stream *stream_new(struct relay_thread *t, int fd);
/* From now on on_event is called for that, or not any more. Return 0 or -1: no memory. */
int stream_await(struct stream *s, short what);
void stream_ignore(struct stream *s, short what);
/* Sets what every relayed socket has: an end that is no FIN is a reset (SO_LINGER of 0). */
void stream_tune(int fd, unsigned int dead_peer_timeout_ms);
/* Closes it by a reset, once stream_tune was called for it or its listener, and frees it. NULL is
 * allowed. */
void stream_reset(struct stream *s);
/* The same with a FIN. */
void stream_finish(struct stream *s);

/* --- joined clients (pair.c, copy.c) -----------------------------------------------------------
 */

/* What is known of one for relay_list. */
struct relay_origin {
	enum relay_from from;
	struct klb_endpoint client, frontend;
	__u32 pid;
	char comm[16];
};

struct relay_pair {
	TAILQ_ENTRY(relay_pair) link;
	TAILQ_ENTRY(relay_pair)
	unread; /* in relay_thread.unread, while one side is not read from */
	bool is_unread;
	struct relay_thread *thread;
	struct stream *client, *server;
	struct relay_backend *backend;
	struct relay_origin origin;
	__u64 since_ns;
};
TAILQ_HEAD(relay_pairs, relay_pair);

/*
 * Joins a client's socket and a server's stream, both taken over. The client keeps its slot until
 * the pair ends. Where there is no memory both are reset.
 */
void pair_new(struct relay_thread *t, int client_fd, struct stream *server,
	      struct relay_backend *backend, const struct relay_request *request);
/* Ends it by a reset on both sides. */
void pair_reset(struct relay_pair *p);
/* For relay_thread.sweep: resets those whose unread side is gone. */
void pair_on_sweep(evutil_socket_t fd, short what, void *thread);

enum copy_result { COPY_GOES_ON, COPY_HELD, COPY_ENDED, COPY_FAILED };

/*
 * Copies what from has to to, a bounded amount. COPY_HELD: to does not take it all, nothing more is
 * to be read. COPY_ENDED: the direction has ended, and to was told.
 */
enum copy_result copy_read(struct relay_thread *t, struct stream *from, struct stream *to);
/* Writes what from holds to to. Returns COPY_GOES_ON once all of it is taken. */
enum copy_result copy_flush(struct relay_thread *t, struct stream *from, struct stream *to);
/* Forgets what from holds. */
void copy_drop(struct relay_thread *t, struct stream *from);

/* --- clients that are being connected (client.c, dial.c) ---------------------------------------
 */

struct relay_dial {
	TAILQ_ENTRY(relay_dial) link;
	struct relay_client *client;
	/* It is established, or has failed with an errno. */
	void (*done)(struct relay_dial *d, int error);
	struct stream *stream;
	unsigned int target; /* index into choices */
	unsigned int patience_ms; /* after so long another one begins beside it */
	__u64 since_ns;
};
TAILQ_HEAD(relay_dials, relay_dial);

struct relay_client {
	TAILQ_ENTRY(relay_client) link; /* in a thread's inbox, then in its clients */
	struct relay_thread *thread;
	struct relay_request request;
	int fd; /* nothing is read from it yet */
	struct event timer;
	struct relay_plan *plan;
	const struct relay_choices *choices;
	struct relay_dials dials; /* under way, the latest first */
	relay_tried tried;
	__u64 deadline_ns;
};
TAILQ_HEAD(relay_clients, relay_client);

/* Takes over fd and the slot that was taken for it. Returns NULL when there is no memory. */
struct relay_client *client_new(int fd, const struct relay_request *request);
/* Begins to connect it, on this thread. It ends by itself. */
void client_start(struct relay_thread *t, struct relay_client *c);
/* Resets it, and gives its slot back. */
void client_refuse(struct relay_client *c, struct relay *r);
/* Begins a dial of that target for c. NULL: it has failed at once, with *ret_error. */
struct relay_dial *dial_new(struct relay_client *c, unsigned int target,
			    void (*done)(struct relay_dial *, int), int *ret_error);
/* Gives up a dial and frees it. Its stream goes with it unless it was taken (NULL). */
void dial_free(struct relay_dial *d);

/* --- limits (limits.c, sources.c) --------------------------------------------------------------
 */

struct relay_sources;

struct relay_sources *sources_new(void);
void sources_free(struct relay_sources *s);
/* Counts one client of that address. Returns false when it has limit already; 0: no limit. */
bool sources_take(struct relay_sources *s, const __u8 addr[16], unsigned int limit);
void sources_give_back(struct relay_sources *s, const __u8 addr[16]);

/* A limit that is met is said once, and once that it is over. */
struct relay_limit {
	atomic_bool met;
	/* under relay.lock */
	bool told;
	struct ration lines;
	unsigned long long refused; /* when it was met */
};

/* A place under limits.connections. */
bool limits_take_slot(struct relay *r);
void limits_give_slot_back(struct relay *r);
/* Of RELAY_NETWORK alone. */
bool limits_take_source(struct relay *r, enum relay_from from, const struct klb_endpoint *client);
void limits_give_source_back(struct relay *r, enum relay_from from,
			     const struct klb_endpoint *client);
/* Descriptors or memory are used up, says an errno; 0: not any more. */
void limits_note_shortage(struct relay *r, int code);
/* Raises the soft limit of descriptors. Returns how many connections they are enough for. */
unsigned int limits_raise_descriptors(unsigned int connections);

/* --- listeners (listen.c) ----------------------------------------------------------------------
 */

TAILQ_HEAD(relay_listeners, relay_listener);

/* Both for the caller's thread: gives them the options of the limits in force; ends them all. */
void listeners_tune(struct relay *r);
void listeners_end(struct relay *r);

/* --- threads (thread.c) ------------------------------------------------------------------------
 */

/* A function that the caller's thread has one of the relay's run, and waits for. */
struct relay_call {
	void (*run)(struct relay_thread *t, void *arg);
	void *arg;
};

struct relay_thread {
	struct relay *relay;
	unsigned int number;
	pthread_t id;
	bool started;
	struct event_base *base;
	int wake_fd; /* an eventfd */
	struct event wake, sweep;
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t called;
	struct relay_clients inbox; /* accepted by other threads */
	struct relay_call call; /* run NULL: none */
	/* The thread's own. */
	struct relay_clients clients;
	struct relay_pairs pairs, unread;
	struct relay_plan *plan; /* in force; NULL: there is none yet */
	__u64 seed;
	int spare_fd;
	char *scratch; /* RELAY_CHUNK */
	atomic_uint n; /* clients and pairs, those in the inbox included */
	atomic_ullong buffered_bytes;
};

int thread_start(struct relay *r, struct relay_thread *t, unsigned int number, struct err *e);
/* Ends its loop, waits for it and resets what it had. It may be half made. */
void thread_stop(struct relay_thread *t);
/* For the caller's thread. */
void thread_call(struct relay_thread *t, void (*run)(struct relay_thread *, void *), void *arg);
/* Runs c there: on this thread, or on a less busy one. */
void thread_place_client(struct relay_thread *t, struct relay_client *c);
/* A descriptor to be closed when there is no other: relay_thread.spare_fd. -1: there is none. */
int thread_open_spare(void);

/* --- the relay ---------------------------------------------------------------------------------
 */

struct relay {
	struct relay_ops ops;
	void *arg;
	unsigned int n_threads;
	struct relay_thread threads[RELAY_THREADS_MAX];
	struct relay_backends backends; /* the caller's thread alone */
	struct relay_listeners listeners; /* the same */
	struct relay_sources *sources;
	/* limits, as the threads read them */
	atomic_uint limit, per_source, connect_timeout_ms, dead_peer_timeout_ms;
	atomic_uint connections;
	atomic_ullong refused_limit, refused_source, refused_network, refused_unknown;
	atomic_ullong failed[RELAY_FROMS];
	struct relay_plan *plan; /* the caller's thread alone; each thread has its own reference */
	pthread_mutex_t lock; /* of what follows */
	struct ration failure_lines;
	struct relay_limit slots, shortage;
};

#endif
