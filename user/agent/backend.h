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

struct agent_backend;
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
};

struct agent_backend {
	struct klb_endpoint endpoint;
	struct health health;
	struct health_rules rules;
	struct metrics_probe metrics;
	struct probe *probe;
	struct liveness *liveness;
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
	__u64 early_until_ns; /* see may_probe_early */
	__u64 left_ns; /* when it left the list; 0: it is in it */
	bool adopted; /* the state is an earlier agent's, and no probe has ended yet */
	const struct agent_backend_ops *ops;
	void *arg;
};

/*
 * Makes a backend that is probed as cfg says. cfg is not needed afterwards; tls must outlive the
 * backend. Starts nothing.
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

/* The kernel has reported an event about it: probe now instead of after the interval. */
void agent_backend_probe_soon(struct agent_backend *b);

/* When it last showed a sign of life; 0: never. */
__u64 agent_backend_alive_ns(const struct agent_backend *b);

/* Both belong to b, and are valid and up to date until agent_backend_free. */
const struct health *agent_backend_health(const struct agent_backend *b);
const struct metrics_probe *agent_backend_metrics(const struct agent_backend *b);

/* Finds a backend in a list of n. NULL when it is not there. */
struct agent_backend *agent_backend_find(struct agent_backend *const *list, unsigned int n,
					 const struct klb_endpoint *endpoint);

#endif
