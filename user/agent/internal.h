/* SPDX-License-Identifier: BSD-2-Clause */
/* Shared by the files of the agent's loop; no other file includes it. */
#ifndef KUBELB_AGENT_INTERNAL_H
#define KUBELB_AGENT_INTERNAL_H

#include <stdbool.h>

#include <event2/util.h>

#include "agent/agent.h"
#include "agent/backend.h"
#include "agent/end_connections.h"
#include "balance/plan.h"
#include "balance/reconcile.h"
#include "balance/endpoint_source.h"
#include "datapath/datapath.h"
#include "discovery/discovery.h"
#include "base/log.h"
#include "host/privileges.h"

#define AGENT_OTHERS_MAX 16

/* What test connects and the cgroup's list of programs have shown. */
struct agent_trials {
	struct datapath_trial at[KLB_MAX_FRONTENDS];
	unsigned int n;
	struct datapath_other others[AGENT_OTHERS_MAX];
	int n_others; /* -EPERM: they cannot be listed */
};

struct agent {
	const struct agent_options *options;
	struct event_base *base;
	struct config *file; /* as it was read */
	struct config *config; /* the same, with the backends that discovery has found */
	struct klb_endpoint found[KLB_MAX_BACKENDS]; /* by discovery */
	unsigned int n_found; /* 0: the file's own backends are used */
	bool heard; /* found is from the cluster, not only from the cache */
	struct endpoint_source source; /* whether the file's own backends are used beside found */
	struct discovery *discovery;
	__u64 discovery_results[DISCOVERY_RESULTS];
	struct filewatch *watch;
	struct probe_tls *tls;
	struct agent_backend **backends; /* by index of config->backends */
	struct agent_backend *removed[KLB_MAX_IDS]; /* have left the list, with connections */
	unsigned int n_removed;
	struct agent_backend *resting[PLAN_KEEP_MAX]; /* have left it, without; the oldest first */
	unsigned int n_resting;
	struct klb_endpoint listed[KLB_MAX_BACKENDS]; /* what of found is in force */
	unsigned int n_listed;
	struct datapath *dp; /* NULL: nothing is attached */
	struct datapath_state *state; /* as last read from or written to the maps */
	int agent_lock; /* on the pins' links directory: one agent for each */
	struct http *http;
	struct notify *notify; /* NULL: there is no service manager */
	bool manager_asked; /* whether there is one is known */
	unsigned int manager_wait_ms; /* after the last try */
	__u64 manager_retry_ns;
	__u64 http_retry_ns;
	struct event *tick, *hup, *term, *interrupt;
	struct event *reconcile_timer, *evict_timer;
	struct event *wakeup; /* the kernel has reported an event */
	__u64 next_event; /* number in the event log */
	__u64 rebalance_ns; /* no earlier rebalancing */
	struct datapath_link links[METRICS_LINKS]; /* as they were while all was well */
	int n_links;
	__u64 cgroup_id; /* that they were on; 0: not known */
	bool on_purpose; /* the data path was detached by kubelb-load --detach */
	bool lost; /* it is gone, and not on purpose */
	bool attaching; /* the attacher has been asked */
	unsigned int hidden_for, cut_for; /* so many looks in a row */
	struct event *attach_result;
	__u64 attach_due_ns, attach_wait_ns;
	char attach_error[ERR_TEXT_MAX];
	struct err fatal; /* why the agent ends; "": it was told to */
	struct agent_trials trials;
	__u64 trials_due_ns;
	unsigned int trials_serial; /* of the configuration that they were made with */
	bool trials_doubtful; /* the last ones were bad, and the ones before were not */
	__u64 failback_ns; /* no earlier failback */
	__u64 local_review_ns; /* no earlier look at this node's addresses */
	__u64 local_listed_ns; /* when the cluster last listed a backend of this node; 0: never */
	bool local_missing_logged; /* local: only, and no backend of this node */
	bool failing_back; /* logged */
	struct reconcile reconcile;
	__s64 excess; /* see reconcile_other_netns */
	bool reconciled; /* at least once */
	bool heartbeat_written; /* a heartbeat of this process is in the maps */
	bool reload_refused; /* the current file was refused */
	bool dirty; /* something can be written with the next tick */
	bool detached_logged;
	bool short_of; /* descriptors or memory, to open the data path */
	bool other_netns; /* see agent_not_ready */
	bool netns_logged; /* that the data path balances another network namespace */
	bool discovery_failed; /* logged */
	bool missing_logged[PRIVILEGES_FUNCTIONS]; /* that a capability is missing */
	bool feature_logged[DATAPATH_FEATURES_MAX]; /* that the feature is off */
	/* The last errors that were logged; empty while there is none. */
	char evict_error[ERR_TEXT_MAX];
	char failback_error[ERR_TEXT_MAX];
	char reconcile_error[ERR_TEXT_MAX];
	char http_error[ERR_TEXT_MAX];
	char watch_error[ERR_TEXT_MAX];
	char notify_error[ERR_TEXT_MAX];
	char heartbeat_error[ERR_TEXT_MAX];
	char maps_error[ERR_TEXT_MAX];
	bool config_pending; /* the configuration is not in the maps yet */
	__u64 reloads_ok, reloads_failed;
	double start_time;
};

/* --- pages.c: what it serves --- */

/* Starts to serve http if the configuration wants it and nothing does yet. Logs a failure. */
void agent_listen_http(struct agent *a);
/*
 * Why connects are not balanced, or why the kernel does not use this agent's states; NULL:
 * everything works.
 */
const char *agent_not_ready(const struct agent *a);

/* --- reload.c: how a configuration gets in --- */

/* Sets the tick to the configuration's interval. */
void agent_set_tick(struct agent *a);

/* Reads the file again. An invalid one is logged, and the old one stays. */
void agent_reload(struct agent *a);
/*
 * Puts file into force. The agent owns it from when a->file is file, which is possible on failure
 * too.
 */
int agent_take_file(struct agent *a, struct config *file, struct err *e);

/* --- sync.c: the data path --- */

/* Opens, locks and reads the data path, and subscribes to its events. On failure a->dp is NULL. */
int agent_open_datapath(struct agent *a, struct err *e);
/* Logs once that it has failed with r; each tick tries again. */
void agent_log_no_datapath(struct agent *a, int r, const struct err *e);
/* Undoes that. a->dp is NULL then. */
void agent_drop_datapath(struct agent *a);
/* The features of what is attached. ret has DATAPATH_FEATURES_MAX elements. Needs a->dp. */
unsigned int agent_features(struct agent *a, const struct klb_control *control,
			    struct datapath_feature *ret);
/*
 * Drops and opens the data path after somebody else has changed it. Logs a failure once; a->dp is
 * NULL then.
 */
void agent_reopen(struct agent *a);
/* Writes what has changed. Logs a failure; the agent stays dirty then. May reopen. */
void agent_apply(struct agent *a);

/* --- attach_again.c: when the data path is lost --- */

/* Waits for the attacher's results, if there is one. Returns 0 or -ENOMEM. */
int agent_listen_attacher(struct agent *a);
/*
 * The data path cannot be opened: code says why. held: it could until now, and a->on_purpose is
 * set. Has it attached again if it was lost.
 */
void agent_note_loss(struct agent *a, bool held, int code);
/*
 * Takes what datapath_links has read. Has it attached again if links run nothing; returns false
 * then.
 */
bool agent_check_links(struct agent *a, const struct datapath_link *links, int n);

/* --- trials.c: where connects end --- */

/* At each tick, with a->dp: makes the test connects when they are due. Logs what has changed. */
void agent_check_trials(struct agent *a);
/* Whether a test connect has shown that another program decides. */
bool agent_is_overruled(const struct agent *a);

/* --- kernel_events.c: what the kernel reports --- */

/* Sets up a->wakeup. Needs a->dp and a->state. agent_drop_datapath undoes it. */
int agent_subscribe_events(struct agent *a, struct err *e);
/* Handles the events since the last call. */
void agent_handle_events(struct agent *a);

/* --- in_force.c: the configuration in force --- */

/*
 * Fills ret (KLB_MAX_BACKENDS elements) with the backends that are used with file: those found, the
 * seeds, this node's own. Returns how many.
 */
unsigned int agent_list_backends(struct agent *a, const struct config *file,
				 struct klb_endpoint *ret);
/*
 * Puts file into force with the backends that discovery has found, if it is on. tls: of file's
 * probes; a->tls when it is the same. Takes ownership of tls on success.
 */
int agent_take_effective(struct agent *a, const struct config *file, struct probe_tls *tls,
			 struct err *e);

/* --- local_backends.c: the backends of this node --- */

/* At each tick: looks whether this node's addresses, and so the list, are others now. */
void agent_review_local(struct agent *a);

/* --- failback.c --- */

/* At each tick, with a->dp: brings one connection home to the local backend if it is due. */
void agent_failback(struct agent *a);

/* --- make_backend.c --- */

/* Makes one that is in no list. before: its predecessor, or NULL. */
int agent_make_backend(struct agent *a, const struct config *cfg,
		       const struct klb_endpoint *endpoint, struct probe_tls *tls,
		       const struct agent_backend *before, struct agent_backend **ret,
		       struct err *e);

/* --- backends.c: the backends of a configuration --- */

/*
 * Makes the backends of cfg that are new; without keep all of them. Leaves gaps in list for the
 * others. On failure the caller frees list.
 */
int agent_make_backends(struct agent *a, const struct config *cfg, struct probe_tls *tls, bool keep,
			struct agent_backend **list, struct err *e);
/* Fills the gaps of list with the existing backends, frees the rest, and starts the new ones. */
void agent_replace_backends(struct agent *a, const struct config *cfg, struct agent_backend **list);
/* NULL is allowed. */
void agent_free_backends(struct agent_backend **list, unsigned int n);
/* Frees all backends. Call it before a->config is freed. */
void agent_stop_backends(struct agent *a);

/* --- removed.c: backends that have left the list --- */

/* The connections to the backend with this address, open and being opened. */
__u64 agent_open_connections(struct agent *a, const struct klb_endpoint *endpoint);
/*
 * Takes ownership of a backend that has left the list: watches it while it has connections, then
 * lets it rest.
 */
void agent_keep_removed(struct agent *a, struct agent_backend *b);
/* At start: watches those with connections that are in the maps alone. */
void agent_adopt_removed(struct agent *a, const struct config *cfg, struct probe_tls *tls);
/* Takes the backend with this address out of the removed ones; NULL when it is not among them. */
struct agent_backend *agent_take_back(struct agent *a, const struct klb_endpoint *endpoint);
/* Makes them anew, for another configuration of the probes. */
void agent_renew_removed(struct agent *a, const struct config *cfg, struct probe_tls *tls);
/* At each tick: lets those without connections rest. */
void agent_review_removed(struct agent *a);
void agent_free_removed(struct agent *a);

/* --- resting.c: what is known of backends that are in no list --- */

/* Takes ownership of a backend that has left the list and has no connections. */
void agent_rest(struct agent *a, struct agent_backend *b);
/* The resting one with this address, or NULL. */
const struct agent_backend *agent_find_resting(const struct agent *a,
					       const struct klb_endpoint *endpoint);
/* Forgets the resting one with this address: it is in the list again, with what was known. */
void agent_wake(struct agent *a, const struct klb_endpoint *endpoint);
/* When the backend with this address has left the list; 0: it is in it, or nothing is known. */
__u64 agent_left_ns(const struct agent *a, const struct klb_endpoint *endpoint);
/* At each tick: forgets those that have left long ago. */
void agent_review_resting(struct agent *a);
void agent_free_resting(struct agent *a);

/* --- list_changes.c --- */

/*
 * Logs by name who is in force no more, and who is from now on. now: what is about to replace
 * a->config; cluster: its backends are those that discovery has found (a->found), or more.
 */
void agent_log_list_changes(struct agent *a, const struct config *now, bool cluster);

/* --- discovered.c: what discovery finds --- */

/* Starts discovery as a->file wants it, and ends the one before. */
int agent_start_discovery(struct agent *a, struct err *e);
/* Reads what discovery has found earlier. Call it before agent_take_file; needs a->state. */
void agent_read_cache(struct agent *a, const struct config *file);
/* At each tick: decides whether the file's own backends are used beside those found. */
void agent_review_list(struct agent *a);
/* Whether they are, although the cluster has been heard from. */
bool agent_uses_seeds(const struct agent *a);

/* --- evict.c: connections to dead backends --- */

/* The applied plan's backend for config->backends[index], or NULL. */
const struct plan_backend *agent_planned(const struct agent *a, unsigned int index);
/* The effective weight: the operator's, otherwise the planned one; 0 for a drained backend. */
unsigned int agent_share_weight(const struct agent *a, const struct plan_backend *b);
/* Whether the backend is ready and may get new connections. */
bool agent_is_available(const struct agent *a, const struct plan_backend *b);
/* Counts and logs connections that were ended. */
void agent_count_ended(struct agent *a, const struct agent_ended *ended, enum metrics_ended why);
/* Ends the first batch in a moment. */
void agent_start_evicting(struct agent *a);
/* At each tick, with a->dp: ends connections that have come to a dead backend since. */
void agent_check_dead_backends(struct agent *a);
/* Callback of a->evict_timer: ends one batch. arg: the agent. */
void agent_on_evict(evutil_socket_t fd, short what, void *arg);

/* --- rebalance.c --- */

/* At each tick, with a->dp: ends one connection if rebalancing is due. */
void agent_rebalance(struct agent *a);

/* --- reconcile.c: counts and sockets --- */

/* Callback of a->reconcile_timer: compares once, and sets the timer again. arg: the agent. */
void agent_on_reconcile(evutil_socket_t fd, short what, void *arg);

#endif
