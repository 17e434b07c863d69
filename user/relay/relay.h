/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The relay: takes TCP clients, connects each of them to a backend, and copies bytes both ways. For
 * clients that cannot go straight.
 *
 * It runs on threads of its own, each with its event loop, so that no copied byte holds up the
 * caller's. All functions below are called on the caller's thread, one at a time. The ops are
 * called on the relay's threads, several at a time: they are thread-safe and do not block.
 *
 *   - Nothing is read from a client before it has a backend, so nothing of it can be lost.
 *   - The end of a direction is passed on as such (half-close). Whatever else ends a connection is
 * a reset on the other side, also when the process is killed: a client never takes a part of an
 *     answer for the whole.
 *   - A client that no backend could be found for is reset too.
 */
#ifndef KUBELB_RELAY_H
#define KUBELB_RELAY_H

#include <stdbool.h>

#include <kubelb/abi.h>

#include "base/err.h"
#include "net/cidr.h"

struct relay;
struct relay_listener;

/* Why a client is relayed: the label `from` of the metrics. */
enum relay_from {
	RELAY_RETRANSMIT, /* its backend left its SYN unanswered */
	RELAY_UNREACHABLE, /* its socket can reach no backend itself */
	RELAY_FRONTEND, /* no program rewrites connects here: the relay listens on the frontend */
	RELAY_NETWORK, /* it is on another machine */
	RELAY_FROMS,
};

/* "retransmit", "unreachable", "frontend", "network"; never NULL. */
const char *relay_from_name(enum relay_from from);

/* A backend as the choice sees it, like struct klb_candidate, with what `admin` says of it. */
struct relay_target {
	struct klb_endpoint endpoint;
	__u32 id, generation; /* handed back to the ops; the relay itself goes by the endpoint */
	enum klb_state state;
	__u32 weight; /* 0..KLB_WEIGHT_MAX, an override applied; 0: takes no connections */
	__u32 rank; /* for KLB_POLICY_RENDEZVOUS */
	bool preferred, drained;
};

/* What clients dial, and what they are given. */
struct relay_frontend {
	struct klb_endpoint endpoint;
	enum klb_policy policy;
	unsigned int n;
	struct relay_target at[KLB_MAX_BACKENDS];
};

struct relay_limits {
	unsigned int connections; /* at most, of all listeners, those being connected included */
	/* The same of one source address (IPv6: one /64), for RELAY_NETWORK; 0: no limit. */
	unsigned int per_source;
	unsigned int connect_timeout_ms; /* for all tries of one client together; not 0 */
	/* TCP_USER_TIMEOUT and keepalive on both sides; 0: a silent peer is never given up. */
	unsigned int dead_peer_timeout_ms;
	unsigned int threads; /* 0: one for each processor, at most 4 */
};

/* A client that has been accepted. */
struct relay_request {
	enum relay_from from;
	struct klb_endpoint client, local; /* the two ends of its connection */
	struct klb_endpoint frontend; /* what it dialled */
	struct klb_endpoint failed; /* the backend that is not to be tried; port 0: none */
	__u32 pid; /* its process, where known, otherwise 0 */
	__u64 cgroup_id;
	char comm[16];
};

/* What others know of a backend at this moment. */
struct relay_load {
	__u64 active; /* connections, those being made included */
	__u32 srtt_us; /* 0: not known */
	bool ejected, answered; /* see struct klb_view */
};

/* What has come of a dial. */
struct relay_outcome {
	/*
	 * 0: the client has been joined with the target. Else an errno; ETIMEDOUT is also what a
	 * dial gets that has been overtaken by one that began later.
	 */
	int error;
	__u64 connect_ns; /* how long it took */
	__u64 ejected_ns; /* the backend is ejected by it, for so long; 0: it is not */
	bool restored; /* an ejection, or the trial after one, is over by it */
};

/* Each may be NULL. */
struct relay_ops {
	/*
	 * Fills in what only the kernel's maps know: frontend, failed, the process. Returns 0;
	 * otherwise the client is refused, because no such connect is known. NULL: frontend is the
	 * listener's own. A listener made without a frontend needs it.
	 */
	int (*identify)(void *arg, struct relay_request *request);
	/* Replaces what is set in *load: the relay's own counts, RTT and ejections. */
	void (*look)(void *arg, const struct relay_request *request,
		     const struct relay_target *target, struct relay_load *load);
	/* fd, a new socket, is about to connect to target. What fails in it stays there. */
	void (*dialling)(void *arg, int fd, const struct relay_request *request,
			 const struct relay_target *target);
	void (*outcome)(void *arg, const struct relay_request *request,
			const struct relay_target *target, const struct relay_outcome *o);
};

/* One backend's. It is forgotten when it is in no plan and its last connection is gone. */
struct relay_backend_counts {
	struct klb_endpoint endpoint;
	__u64 active[RELAY_FROMS], total[RELAY_FROMS]; /* joined clients */
	__u64 failed; /* dials */
};

struct relay_counts {
	unsigned int connections; /* as limits.connections counts them */
	__u64 buffered_bytes; /* held back for receivers that are slower than their senders */
	__u64 refused_limit, refused_source; /* by limits.connections or descriptors; per_source */
	__u64 refused_network, refused_unknown; /* by the allow-list; by identify */
	__u64 failed[RELAY_FROMS]; /* clients that no backend could be found for */
	unsigned int n;
	struct relay_backend_counts at[KLB_MAX_IDS];
};

/* One relayed connection. */
struct relay_connection {
	enum relay_from from;
	struct klb_endpoint client, frontend, backend;
	struct klb_endpoint upstream; /* the relay's own end towards the backend */
	__u64 since_ns;
	__u32 srtt_us; /* to the backend */
	__u32 last_data_ms; /* as in struct klb_connection */
	__u32 pid;
	char comm[16];
};

/* Connections that have all of this in common. */
struct relay_filter {
	unsigned int froms; /* a bit of RELAY_BIT for each */
	const struct klb_endpoint *backend; /* NULL: any, and who has none yet */
	/* One client, at the frontend that it has dialled; NULL: any. */
	const struct klb_endpoint *client, *frontend;
};

#define RELAY_BIT(from) (1U << (from))

/*
 * Starts the threads; they inherit the calling thread's privileges as they are now, and block all
 * signals. limits and ops are copied. The soft limit of descriptors is raised as far as
 * limits.connections needs; where it cannot be, the log says so and fewer connections are taken.
 * Returns 0 or a negative errno with e.
 */
int relay_new(const struct relay_limits *limits, const struct relay_ops *ops, void *arg,
	      struct relay **ret, struct err *e);

/* New limits for clients that come from now on. The number of threads stays. */
void relay_set_limits(struct relay *r, const struct relay_limits *limits);

/*
 * Replaces the plan for clients that come from now on; it is copied. Returns 0 or -ENOMEM, and the
 * plan before it stays.
 */
int relay_set_plan(struct relay *r, const struct relay_frontend *frontends, unsigned int n,
		   struct err *e);

/*
 * Takes clients from fd: a listening, non-blocking, close-on-exec TCP socket that the caller has
 * bound. On success fd belongs to the relay. frontend: what its clients dial; NULL: identify says.
 * allow: the networks that clients may be in, copied; n_allow 0: any. *ret is valid until
 * relay_unlisten or relay_free. Returns 0 or a negative errno with e.
 */
int relay_listen(struct relay *r, int fd, enum relay_from from, const struct klb_endpoint *frontend,
		 const struct cidr *allow, unsigned int n_allow, struct relay_listener **ret,
		 struct err *e);

/*
 * Takes no new clients from it; those that have been taken stay. On return the socket is closed:
 * the address is free.
 */
void relay_unlisten(struct relay_listener *l);

/* Resets the connections that there are now. Returns how many were joined with a backend. */
unsigned int relay_end(struct relay *r, const struct relay_filter *which);

void relay_read_counts(struct relay *r, struct relay_counts *ret);
/* Those that are joined with backend (NULL: with any), of the kinds in froms. */
__u64 relay_count_active(const struct relay_counts *c, unsigned int froms,
			 const struct klb_endpoint *backend);

/* Fills in up to max connections. Returns how many. */
unsigned int relay_list(struct relay *r, struct relay_connection *ret, unsigned int max);

/* Whether there is no connection, and none is being made. */
bool relay_is_idle(struct relay *r);

/* Ends what is left by a reset, and the threads. NULL is allowed. */
void relay_free(struct relay *r);

#endif
