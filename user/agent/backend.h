/* SPDX-License-Identifier: BSD-2-Clause */
/* One backend in the agent: its prober, its health, its next probe. */
#ifndef KUBELB_AGENT_BACKEND_H
#define KUBELB_AGENT_BACKEND_H

#include "config/config.h"
#include "balance/health.h"
#include "balance/idle_close.h"
#include "agent/metrics.h"
#include "agent/liveness.h"
#include "agent/probe.h"
#include "base/ration.h"

struct agent_backend;
struct agent_backend_change;
struct event;
struct event_base;

struct agent_backend_ops {
	/* Something about the backend is new. state_changed: the kernel should know at once. */
	void (*changed)(void *arg, bool state_changed);
	/* The time of its last answer to a client: klb_stats.last_answer_ns. */
	__u64 (*last_answer_ns)(void *arg, const struct klb_endpoint *backend);
	/* The same from the open connections, for a decision: see agent_last_data_ns. */
	__u64 (*last_data_ns)(void *arg, const struct klb_endpoint *backend);
	/*
	 * Whether another backend has shown a sign of life since then, or there is no other. If
	 * none has, this node may be cut off.
	 */
	bool (*others_alive)(void *arg, const struct agent_backend *b, __u64 since_ns);
	/* It has answered on a new connection: see agent_backend_reached_ns. */
	void (*reached)(void *arg, struct agent_backend *b);
};

/* What dials a backend; all NULL: there is none. */
struct agent_backend_probes {
	struct probe *kept; /* agent_backend.probe */
	struct probe *beside;
	struct probe_tls *tls; /* held */
};

struct agent_backend {
	struct klb_endpoint endpoint;
	struct health health;
	struct health_rules rules;
	struct metrics_probe metrics;
	struct probe *probe;
	struct probe *beside; /* dials anew, and keeps no connection */
	bool dialling; /* it is at it */
	__u64 reached_ns; /* see agent_backend_reached_ns */
	struct probe_tls *tls; /* that both use; held */
	struct agent_backend_probes next; /* take their place when renew_timer fires */
	struct event *renew_timer; /* NULL: not needed so far */
	/* Frees what is under way, for agent_backend_stop; NULL: there was no renewal. */
	void (*stop_renewal)(struct agent_backend *b);
	struct agent_backend_change *change; /* between agent_backend_prepare and _renew */
	struct liveness *liveness;
	struct liveness_rules liveness_rules;
	__u64 alive_ns; /* the last sign of life: an answer, or a handshake; 0: never */
	struct event *timer;
	bool coverage_warned;
	struct idle_close idle;
	bool closed; /* the server has closed the connection while it was well: see on_closed */
	unsigned int closed_idle_ms; /* after so long without a request */
	__u64 began_ns; /* when the last probe began, with its readiness path */
	bool begun; /* it has been probed, or the first probe is running */
	bool probing;
	char unable[ERR_TEXT_MAX]; /* why it cannot be probed, as logged; or "" */
	bool again; /* a probe was requested during a probe or too soon after it */
	struct ration early; /* early probes */
	__u64 left_ns; /* when it left the list; 0: it is in it */
	bool adopted; /* the state is an earlier agent's, and no probe has ended yet */
	const struct agent_backend_ops *ops;
	void *arg;
};

/*
 * Makes a backend that is probed as cfg says. cfg is not needed afterwards; tls is held. Starts
 * nothing.
 */
int agent_backend_new(struct event_base *base, const struct config *cfg,
		      const struct klb_endpoint *endpoint, struct probe_tls *tls,
		      const struct agent_backend_ops *ops, void *arg, struct agent_backend **ret,
		      struct err *e);
/* NULL is allowed. */
void agent_backend_free(struct agent_backend *b);

/* Takes over health and counters of the same backend before a reload. */
void agent_backend_inherit(struct agent_backend *b, const struct agent_backend *before);
/* Takes over what an earlier agent has written into the maps. weight: the configured one. */
void agent_backend_adopt(struct agent_backend *b, const struct klb_backend *seen,
			 unsigned int weight);

/* Ends the probes for good; health and counters can be inherited. */
void agent_backend_stop(struct agent_backend *b);
/* It was not in the list, and is back. */
void agent_backend_came_back(struct agent_backend *b);

/* Starts the probes: the first one at a random time within so many milliseconds. */
void agent_backend_start(struct agent_backend *b, unsigned int within_ms);

/* --- backend_renew.c: another configuration for a backend that stays --- */

/*
 * Makes what another configuration takes, in place of what an earlier call has made. tls: NULL when
 * the persistent connection can stay. Changes nothing yet. Returns 0 or a negative errno with e.
 */
int agent_backend_prepare(struct agent_backend *b, const struct config *cfg, struct probe_tls *tls,
			  struct err *e);
/* Drops what was prepared, if anything was. */
void agent_backend_forgo(struct agent_backend *b);
/*
 * Puts what was prepared, if anything was, into force. A ready backend gets the new connection at a
 * random time within so many milliseconds, any other at once; until then the old one is used.
 */
void agent_backend_renew(struct agent_backend *b, unsigned int within_ms);

/* What backend.c does for it. */
void agent_backend_rules(const struct config *cfg, struct health_rules *ret,
			 struct liveness_rules *ret_liveness);
struct liveness *agent_backend_make_liveness(struct agent_backend *b, struct event_base *base,
					     const struct liveness_rules *rules);
/* On failure the caller frees what there is. */
int agent_backend_make_probes(struct agent_backend *b, struct event_base *base,
			      const struct config *cfg, struct probe_tls *tls,
			      struct agent_backend_probes *ret, struct err *e);
void agent_backend_free_probes(struct agent_backend_probes *p);
/* Frees those in use for next, which is empty afterwards. */
void agent_backend_take_probes(struct agent_backend *b, struct agent_backend_probes *next);
void agent_backend_probe_now(struct agent_backend *b);

/* --- */

/* The kernel has reported an event about it: probe now instead of after the interval. */
void agent_backend_probe_soon(struct agent_backend *b);

/*
 * Dials it beside the persistent connection: whether new connections are served is what that cannot
 * tell. Nothing but agent_backend_reached_ns comes of it.
 */
void agent_backend_dial(struct agent_backend *b);
/* When the last new connection was begun on which it has answered, whatever it said; 0: never. */
__u64 agent_backend_reached_ns(const struct agent_backend *b);

/* When it last showed a sign of life; 0: never. */
__u64 agent_backend_alive_ns(const struct agent_backend *b);

/* Both belong to b, and are valid and up to date until agent_backend_free. */
const struct health *agent_backend_health(const struct agent_backend *b);
const struct metrics_probe *agent_backend_metrics(const struct agent_backend *b);

/* Finds a backend in a list of n. NULL when it is not there. */
struct agent_backend *agent_backend_find(struct agent_backend *const *list, unsigned int n,
					 const struct klb_endpoint *endpoint);

#endif
