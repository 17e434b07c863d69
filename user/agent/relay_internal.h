/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Shared by the files that have to do with the agent's relay. What is relayed: a connect whose
 * backend does not answer (rescue), one of a socket that can reach no backend (detour), and those
 * to frontends that the agent listens on (data_path_*.c).
 */
#ifndef KUBELB_AGENT_RELAY_INTERNAL_H
#define KUBELB_AGENT_RELAY_INTERNAL_H

#include <pthread.h>

#include "agent/internal.h"
#include "agent/metrics.h"
#include "net/local_delivery.h"
#include "relay/relay.h"

/* For one backend: a listener on its own address, in its place. */
struct relay_stand_in {
	struct klb_endpoint endpoint;
	__u32 id; /* of the maps; 0: the backend has left the list */
	struct relay_listener *listener; /* NULL: it could not listen */
	int error; /* why, an errno */
	__u64 needed_ns; /* the last time that the backend did not answer */
	__u64 dropped_ns; /* since when the kernel sends nothing new here; 0: it does */
};

/* The kernel sends these here, and its maps have a record of the relay's own connection. */
#define RELAY_RECORDED (RELAY_BIT(RELAY_RETRANSMIT) | RELAY_BIT(RELAY_UNREACHABLE))
#define RELAY_ANY (RELAY_BIT(RELAY_FROMS) - 1)

struct agent_relay;
struct relay_events;

/* The rule and the route that lead marked packets to the listeners. */
struct relay_route {
	void (*changed)(struct agent_relay *r); /* after a piece of work */
	struct worker *job; /* at work on them; NULL: none is */
	struct local_delivery there; /* what was added, while on */
	struct local_delivery checked; /* what can be added; mark 0: nothing is known yet */
	bool on;
	bool stale; /* an earlier process may have left some */
	bool over; /* nothing new is begun */
	int error; /* of the last check or change, an errno */
	struct local_delivery failed; /* what it was about, */
	__u64 retry_ns; /* which is not tried before */
	char text[ERR_TEXT_MAX]; /* the error as it was logged; "": none */
};

struct relay_rescue {
	struct relay_stand_in at[KLB_MAX_BACKENDS];
	unsigned int n;
	struct relay_route route;
	__u64 rested_ns; /* the rule stays until then for what is on its way */
};

/* Where clients are taken that can reach no backend. */
enum { RELAY_DETOUR_IPV4, RELAY_DETOUR_IPV6, RELAY_DETOURS };

struct relay_detour {
	struct relay_listener *at[RELAY_DETOURS];
	__u64 retry_ns;
	char text[ERR_TEXT_MAX];
};

/* Clients that one backend has not answered and another one serves. */
struct relay_failovers {
	pthread_mutex_t lock;
	struct metrics_failover at[METRICS_FAILOVERS];
	unsigned int n;
	struct metrics_failover shown[METRICS_FAILOVERS]; /* a copy for the metrics */
};

/* Dials for the other clients. They are counted on the relay's threads. */
struct relay_stats {
	pthread_mutex_t lock;
	struct klb_stats at[KLB_MAX_IDS];
};

struct agent_relay {
	struct agent *agent;
	struct relay *relay;
	/* The relay's threads read the maps while the loop may close them. */
	pthread_rwlock_t lock;
	const struct datapath *dp; /* NULL: not open */
	struct relay_failovers failovers;
	struct relay_stats stats;
	struct relay_events *events;
	struct klb_relay told; /* what the kernel goes by */
	struct relay_frontend plan[KLB_MAX_FRONTENDS]; /* what the relay goes by */
	unsigned int n_plan;
	struct relay_limits limits;
	bool rescues; /* rescue and detour are in force; they are not while nothing is attached */
	struct relay_rescue rescue;
	struct relay_detour detour;
	struct relay_counts counts; /* as last read */
	__u64 ending_ns; /* since when the agent ends; 0: it does not */
	bool ended; /* nothing runs any more, or has to be reset */
};

/* Tells the kernel r->told. Before a listener closes, and after one is there. */
static inline void relay_tell(struct agent_relay *r)
{
	if (r->agent->dp)
		datapath_set_relay(r->agent->dp, &r->told);
}

/* --- relay_ops.c: called on the relay's threads --- */

extern const struct relay_ops relay_agent_ops;

/* --- relay_stats.c --- */

/* On the relay's threads. */
void relay_stats_note(struct relay_stats *all, const struct relay_target *target,
		      const struct relay_outcome *o);
/* As the kernel would say an errno. */
enum klb_failure relay_stats_failure(int error);
/* What has been counted for b, but for the open connections. */
struct klb_stats relay_stats_of(struct relay_stats *all, const struct plan_backend *b);

/* --- relay_events.c --- */

/* NULL: no memory. */
struct relay_events *relay_events_new(void);
/* NULL is allowed. */
void relay_events_free(struct relay_events *l);
/* On the relay's threads. */
void relay_events_outcome(struct relay_events *l, const struct relay_target *target,
			  const struct relay_outcome *o);
/*
 * Writes those from number first on that are still there. numbered: a line with the number of the
 * next one goes before them. Returns 0, or not: no memory.
 */
int relay_events_write(struct relay_events *l, bool numbered, __u64 first, bool json, FILE *to);

/* --- relay_detour.c --- */

/* Opens and closes the listeners as the configuration says. Fills in r->told. */
void relay_detour_review(struct agent_relay *r);
void relay_detour_close(struct agent_relay *r);

/* --- relay_rescue.c --- */

/* A backend has not answered a SYN: stands in for it. */
void relay_rescue_need(struct agent_relay *r, const struct klb_endpoint *backend);
/* Ends what is not needed any more, goes on with what was begun, and fills in r->told. */
void relay_rescue_review(struct agent_relay *r);
/* Closes the listeners; the rule stays. */
void relay_rescue_close(struct agent_relay *r);

/* --- relay_route.c --- */

/*
 * Brings rule and route nearer to what is wanted; the work is done on a thread, after which
 * `changed` is called. wanted: they are to be there. d: as they should be; while on,
 * those that are there stay as they are.
 */
void relay_route_step(struct agent_relay *r, bool wanted, const struct local_delivery *d);
/* Whether they are there, or can be had. */
bool relay_route_is_possible(const struct relay_route *t, const struct local_delivery *d);
/* Removes them now. */
void relay_route_end(struct agent_relay *r);

#endif
