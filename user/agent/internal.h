/* SPDX-License-Identifier: BSD-2-Clause */
/* Shared by the files of the agent's loop; nobody else includes this. */
#ifndef KUBELB_AGENT_INTERNAL_H
#define KUBELB_AGENT_INTERNAL_H

#include <stdbool.h>

#include <event2/util.h>

#include "agent/agent.h"
#include "agent/backend.h"
#include "balance/reconcile.h"
#include "balance/endpoint_source.h"
#include "datapath/datapath.h"
#include "discovery/discovery.h"
#include "base/log.h"
#include "host/privileges.h"

struct agent {
	const struct agent_options *options;
	struct event_base *base;
	struct config *file; /* as it was read */
	struct config *config; /* the same with the backends that discovery has found */
	struct klb_endpoint found[KLB_MAX_BACKENDS]; /* by discovery */
	unsigned int n_found; /* 0: the file's own backends count */
	bool heard; /* found is the cluster's word, and not only a cache's */
	struct endpoint_source source; /* whether the file's own backends count beside found */
	struct discovery *discovery;
	__u64 discovery_results[DISCOVERY_RESULTS];
	struct filewatch *watch;
	struct probe_tls *tls;
	struct agent_backend **backends; /* by index of config->backends */
	struct datapath *dp; /* NULL: nothing is attached */
	struct datapath_state *state; /* as last read from or written to the maps */
	int agent_lock; /* held on the pins' links directory: one agent for each */
	struct http *http;
	struct notify *notify; /* NULL: nobody asked to be told */
	__u64 http_retry_ns;
	struct event *tick, *hup, *term, *interrupt;
	struct event *reconcile_timer, *evict_timer;
	struct event *wakeup; /* the kernel has seen something */
	__u64 next_event; /* of the event log */
	__u64 rebalance_ns; /* not before */
	struct reconcile reconcile;
	__s64 excess; /* see reconcile_other_netns */
	bool reconciled; /* once */
	bool heartbeat_written; /* a heartbeat of this process is in the maps */
	bool reload_refused; /* the file is not the configuration that is in force */
	bool dirty; /* something to write that can wait for the tick */
	bool detached_logged;
	bool discovery_failed; /* logged */
	bool missing_logged[PRIVILEGES_FUNCTIONS]; /* that a privilege is missing */
	bool feature_logged[DATAPATH_FEATURES_MAX]; /* that it is off */
	/* The last ones logged; empty while it works. */
	char evict_error[ERR_TEXT_MAX];
	char reconcile_error[ERR_TEXT_MAX];
	char http_error[ERR_TEXT_MAX];
	char heartbeat_error[ERR_TEXT_MAX];
	char maps_error[ERR_TEXT_MAX];
	bool config_pending; /* the configuration has not reached the maps yet */
	__u64 reloads_ok, reloads_failed;
	double start_time;
};

/* --- pages.c: what it serves --- */

/* Serves http if the configuration wants it and nothing does yet; a failure is logged. */
void agent_listen_http(struct agent *a);
/* Why connects are not balanced, or the kernel does not believe this agent; NULL: all is well. */
const char *agent_not_ready(const struct agent *a);

/* --- reload.c: how a configuration gets in --- */

/* The tick at the configuration's pace, from now on. */
void agent_set_tick(struct agent *a);

/* The file anew; an invalid one is logged, and the old one stays. */
void agent_reload(struct agent *a);
/* Puts file in force. Owns it once a->file is it, which it can be on failure as well. */
int agent_take_file(struct agent *a, struct config *file, struct err *e);
/* At each tick: whether the file's own backends count beside those that were found. */
void agent_review_list(struct agent *a);
/* Whether some do although the cluster has been heard. */
bool agent_uses_seeds(const struct agent *a);
/* What discovery has found at an earlier time; before agent_take_file, with a->state. */
void agent_read_cache(struct agent *a, const struct config *file);
/* None are there any more; before a->config goes. */
void agent_stop_backends(struct agent *a);

/* --- sync.c: the data path --- */

/* Opens, locks and reads it, and listens. On failure a->dp is NULL. */
int agent_open_datapath(struct agent *a, struct err *e);
/* Lets go of all that; a->dp is NULL then. */
void agent_drop_datapath(struct agent *a);
/* Those of what is attached; ret has room for DATAPATH_FEATURES_MAX. Needs a->dp. */
unsigned int agent_features(struct agent *a, const struct klb_control *control,
			    struct datapath_feature *ret);
/* Drops and opens after somebody else's change; a failure is logged once, a->dp NULL then. */
void agent_reopen(struct agent *a);
/* Writes what has changed; what fails is logged and stays dirty. May reopen. */
void agent_apply(struct agent *a);

/* --- kernel_events.c: what the kernel reports --- */

/* Sets up a->wakeup; needs a->dp and a->state. agent_drop_datapath takes it away. */
int agent_subscribe_events(struct agent *a, struct err *e);
/* What the kernel has seen since the last time. */
void agent_handle_events(struct agent *a);

/* --- upkeep.c: what is done about what is known --- */

/* At each tick, with a->dp: ends connections that have come to a dead backend since. */
void agent_check_dead_backends(struct agent *a);
/* At each tick, with a->dp: moves one connection when it is time to. */
void agent_rebalance(struct agent *a);
/* Of a->evict_timer: one batch of connections to dead backends. arg: the agent, here and below. */
void agent_on_evict(evutil_socket_t fd, short what, void *arg);
/* Of a->reconcile_timer: compares counts and sockets, and sets the timer again. */
void agent_on_reconcile(evutil_socket_t fd, short what, void *arg);
/* For struct agent_backend_ops. */
void agent_on_backend_changed(void *arg, bool state_changed);
__u64 agent_on_last_answer(void *arg, const struct klb_endpoint *backend);

#endif
