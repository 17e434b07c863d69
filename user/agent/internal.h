/* SPDX-License-Identifier: BSD-2-Clause */
/* Shared by the files of the agent's loop; no other file includes it. */
#ifndef KUBELB_AGENT_INTERNAL_H
#define KUBELB_AGENT_INTERNAL_H

#include <stdbool.h>
#include <stdio.h>

#include <event2/util.h>

#include "agent/agent.h"
#include "agent/backend.h"
#include "agent/data_path.h"
#include "agent/end_connections.h"
#include "agent/look.h"
#include "balance/failback.h"
#include "balance/fair_list.h"
#include "balance/plan.h"
#include "base/ration.h"
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

/* Where the agent serves its pages. */
enum { AGENT_PAGES_IP, AGENT_PAGES_SOCKET, AGENT_PAGES };

struct agent_pages {
	struct http *http; /* NULL: it does not, for now */
	__u64 retry_ns; /* no earlier try */
	char error[ERR_TEXT_MAX]; /* the last one that was logged; "": none */
};

/* By id. */
struct agent_dead {
	bool dead[KLB_MAX_IDS];
	bool vanished[KLB_MAX_IDS]; /* its host answers nothing: it need not hear of the end */
};

/* Connections that are being ended: see evict.c. */
struct agent_evicting {
	struct agent_dead dead; /* whose connections are listed */
	struct look look;
	struct fair_list list;
	__u64 seed; /* of the order */
	bool hidden; /* some are not to be seen from here */
};

/* Connections that come home: see failback.c. */
struct agent_homing {
	struct failback to; /* where they come from, and where to, while they are listed */
	struct look look;
	struct fair_list list;
	__u64 listed_ns;
};

/* The connection that is to move: see rebalance.c. */
struct agent_moving {
	__u32 id; /* from this backend */
	struct look look;
	bool found;
	struct klb_connection oldest;
	__u32 displaced; /* what rebalance_displaced has said at the last look */
	struct ration displacing;
};

/* Connections that a backend has taken and does not serve: see silence.c. */
struct agent_silence {
	struct look look;
	__u64 due_ns; /* no earlier look */
	__u64 began_ns; /* when the last one was begun, */
	__u64 before_ns; /* and the one before */
	__u64 opened; /* the connections that had been opened then */
	bool again; /* it has found one that may become silent */
};

/* What the last looks have found: see make_backend.c. */
struct agent_data {
	__u64 last_ns[KLB_MAX_IDS]; /* by id: as agent_last_data_ns */
	__u64 rested_ns; /* when the next look at a dead backend may be */
};

struct agent_relay;

struct agent {
	const struct agent_options *options;
	struct event_base *base;
	struct config *file; /* as it was read */
	struct config *config; /* the same, with the backends that discovery has found */
	struct klb_endpoint found[KLB_MAX_BACKENDS]; /* by discovery */
	unsigned int n_found; /* 0: the file's own backends are used */
	/* What the cluster says, of which found is what may be used so far: see plausible_admit. */
	struct klb_endpoint said[KLB_MAX_BACKENDS];
	unsigned int n_said;
	struct ration fresh;
	bool heard; /* found is from the cluster, not only from the cache */
	struct endpoint_source source; /* whether the file's own backends are used beside found */
	struct discovery *discovery;
	__u64 discovery_results[DISCOVERY_RESULTS];
	struct filewatch *watch;
	struct worker *reading; /* the configuration's files, for a reload */
	bool read_again, reading_logged;
	__u64 reading_since_ns;
	__u64 apply_after_ns; /* nothing is written before, for a reload comes first; 0: none does
			       */
	struct probe_tls *tls;
	struct agent_backend **backends; /* by index of config->backends */
	struct agent_backend *removed[KLB_MAX_IDS]; /* have left the list, with connections */
	unsigned int n_removed;
	struct agent_backend *resting[PLAN_KEEP_MAX]; /* have left it, without; the oldest first */
	unsigned int n_resting;
	struct klb_endpoint listed[KLB_MAX_BACKENDS]; /* what of found is in force */
	unsigned int n_listed;
	struct datapath *dp; /* NULL: nothing is attached */
	struct agent_data_path path; /* the agent's own */
	struct datapath_state *state; /* as last read from or written to the maps */
	int agent_lock; /* on the pins' links directory: one agent for each */
	struct agent_pages pages[AGENT_PAGES];
	struct notify *notify; /* NULL: there is no service manager */
	bool manager_asked; /* whether there is one is known */
	unsigned int manager_wait_ms; /* after the last try */
	__u64 manager_retry_ns;
	struct event *tick, *hup, *term, *interrupt;
	unsigned int tick_ms; /* how often tick comes, as it was set */
	struct event *drain_timer; /* the end, when what is relayed has had its time */
	struct event *reconcile_timer, *evict_timer;
	struct agent_history *history; /* NULL: memory was short */
	struct event *wakeup; /* the kernel has reported an event */
	struct event *wakeup_pause; /* until it is listened to again */
	struct ration wakeups;
	__u64 next_event; /* number in the event log */
	__u64 rebalance_ns; /* no earlier rebalancing */
	struct datapath_link links[METRICS_LINKS]; /* as they were while all was well */
	int n_links;
	__u64 cgroup_id; /* that they were on; 0: not known */
	bool ending; /* it waits for what is relayed */
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
	bool implausible_logged; /* discovery names addresses that no apiserver has */
	bool rationed_logged; /* found is only a part of said */
	bool local_missing_logged; /* local: only, and no backend of this node */
	bool failing_back; /* logged */
	struct reconcile reconcile;
	struct look reconcile_look;
	struct agent_evicting evicting;
	struct agent_homing homing;
	struct agent_moving moving;
	struct agent_silence silence;
	struct agent_data data;
	struct agent_relay *relay; /* NULL: nothing has been relayed yet */
	char relay_error[ERR_TEXT_MAX]; /* the last one that was logged */
	__s64 excess; /* see reconcile_other_netns */
	bool reconciled; /* at least once */
	__u64 locked_since_ns; /* since when another process holds the lock; 0: it is free */
	bool lock_logged;
	bool heartbeat_written; /* a heartbeat of this process is in the maps */
	bool reload_refused; /* the current file was refused, */
	char reload_error[ERR_TEXT_MAX]; /* and why */
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
	char ejection_error[ERR_TEXT_MAX];
	char watch_error[ERR_TEXT_MAX];
	char notify_error[ERR_TEXT_MAX];
	char heartbeat_error[ERR_TEXT_MAX];
	char maps_error[ERR_TEXT_MAX];
	bool config_pending; /* the configuration is not in the maps yet */
	__u64 reloads_ok, reloads_failed;
	double start_time, reload_time; /* Unix time; of the start, until there is a reload */
};

/* --- pages.c: what it serves --- */

/* Starts to serve where the configuration wants it and nothing does yet. Logs a failure. */
void agent_listen_http(struct agent *a);
/* Ends that where cfg wants it elsewhere, or nowhere. cfg NULL: everywhere. */
void agent_close_http(struct agent *a, const struct config *cfg);
/* Why it is not served where it should be; NULL: it is. */
const char *agent_http_missing(const struct agent *a);
/*
 * Why connects are not balanced, or why the kernel does not use this agent's states; NULL:
 * everything works.
 */
const char *agent_not_ready(const struct agent *a);

/* --- status_page.c: what kubelbctl shows where there are no maps --- */

/* Writes the page of this path. private: the asker is root. Returns the HTTP status. */
unsigned int agent_write_page(struct agent *a, const char *path, bool private, FILE *to);

/* --- page.c: the status page --- */

struct http_text;
/* Fills ret with the page. Returns the HTTP status. */
unsigned int agent_show_page(struct http_text *ret);

/* --- history.c: the last ten minutes, for the page --- */

/* Keeps them from now on. Without memory there is no history. */
void agent_begin_history(struct agent *a);
/* Writes /history.json. Returns the HTTP status. */
unsigned int agent_write_history(struct agent *a, FILE *to);
void agent_free_history(struct agent *a);

/* --- operator.c: the operator's settings and orders where there are no maps --- */

/* Carries out what the path says; writes what has come of it. Returns the HTTP status. */
unsigned int agent_take_order(struct agent *a, const char *path, FILE *to);
/* Takes the settings over that the maps had, and those of the file. */
void agent_keep_settings(struct agent *a);
/* Puts them into a->state, for what has just been applied. */
void agent_apply_settings(struct agent *a);
/* Puts them into the maps. At each tick, with a->dp. */
void agent_hand_over_settings(struct agent *a);
/* Writes them to the file, on a thread. */
void agent_save_settings(struct agent *a);
/* At the end: gives a disk a moment. */
void agent_end_saving(struct agent *a);

/* --- data_path.c: the kernel, or this process --- */

/* Why this process is the data path, in one line. */
const char *agent_relaying_reason(const struct agent *a);
/* At the start: opens the maps, unless they are not the data path. Returns as agent_open_datapath.
 */
int agent_begin_data_path(struct agent *a, const struct config *cfg, struct err *e);
/* At each tick, and with a new configuration: decides anew. */
void agent_review_data_path(struct agent *a);
/* In place of the heartbeat in the maps. */
void agent_sign_of_life(struct agent *a, __u64 max_age_ns);

/* --- relay_plan.c --- */

/*
 * What a relay may choose from: what is applied, with the operator's settings. Returns how many
 * elements of ret, which has KLB_MAX_FRONTENDS, and whose rest is 0: plans compare with memcmp.
 */
unsigned int agent_relay_plan(const struct datapath_state *s, struct relay_frontend *ret);

/* --- data_path_relay.c: counts of the relay, and the end of connections --- */

/* While this process is the data path: brings the counts in a->state up to date. */
void agent_read_relayed(struct agent *a);
/*
 * The state as it is now: of the maps, in buf, or the agent's own while it is the data path. NULL:
 * there is none, it cannot be read, or buf is NULL.
 */
const struct datapath_state *agent_read_state(struct agent *a, struct datapath_state *buf);
/* Lists what is relayed; the caller frees *ret. Returns 0 or -ENOMEM. */
int agent_list_relayed(struct agent *a, struct klb_connection **ret, unsigned int *ret_n);
/*
 * Looks at the connections of the data path: those that the maps have records of, in short steps
 * (look_begin); where there are no maps, at those that are relayed, at once.
 */
void agent_look(struct agent *a, struct look *l, const struct datapath_list_options *how,
		const struct look_ops *ops);
/* The counts of b as they are now. Returns false when they cannot be read. */
bool agent_read_stats(const struct agent *a, const struct plan_backend *b, struct klb_stats *ret);
/* Ends connections that agent_look has shown, as agent_end_batch. */
int agent_end_picked(struct agent *a, const struct agent_batch *b, struct agent_ended *ret,
		     struct err *e);
/* Ends what is relayed to this backend. Returns how many connections. */
unsigned int agent_end_relayed(struct agent *a, const struct klb_endpoint *backend);
/* At each tick: ends what is relayed to dead backends, and of what no map has a record. */
void agent_check_relayed(struct agent *a);

/* --- relay_events.c --- */

/* At each tick, and when somebody asks: notes what has changed while this process is the data path.
 */
void agent_note_events(struct agent *a);

/* --- data_path_listen.c --- */

/* Listens where the configuration and the data path want it, and nowhere else. */
void agent_review_listeners(struct agent *a);
/* Why a frontend is not listened on; NULL: all are. */
const char *agent_not_listening(const struct agent *a);

/* --- service_manager.c --- */

/* At each tick: finds out whether there is one. */
void agent_open_manager(struct agent *a);
/* Tells it how things are. */
void agent_notify(struct agent *a);

/* --- reload.c: how a configuration gets in --- */

/* Sets the tick to the configuration's interval. */
void agent_set_tick(struct agent *a);

/*
 * Reads the files again, on a thread, and takes them when they are read; a->reading until then. An
 * invalid one is logged, and the old one stays.
 */
void agent_reload(struct agent *a);
/* At each tick: says once that the files cannot be read because the disk does not answer. */
void agent_review_reading(struct agent *a);
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

/* While this process is the data path: has the attacher try again when that is due. */
void agent_try_attaching(struct agent *a);
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

/* --- ejections.c: what the kernel holds against a backend until the agent reaches it --- */

/* Whether this agent can tell the kernel that it has. Needs a->dp. */
bool agent_can_end_ejections(const struct agent *a);
/* Ends the ejection if the backend was reached since it began; has it dialled if not. */
void agent_review_ejection(struct agent *a, struct agent_backend *backend);
/* At each tick, with a->dp: the same for all. */
void agent_review_ejections(struct agent *a);

/* --- silence.c: connections that are taken and not served --- */

/* At each tick, with a->dp: looks for such connections when there are new ones. */
void agent_look_for_silence(struct agent *a);

/* --- trials.c: where connects end --- */

/* At each tick, with a->dp: makes the test connects when they are due. Logs what has changed. */
void agent_check_trials(struct agent *a);
/* Whether a test connect has shown that another program decides. */
bool agent_is_overruled(const struct agent *a);

/* --- kernel_events.c: what the kernel reports --- */

/* Sets up a->wakeup. Needs a->dp and a->state. */
int agent_subscribe_events(struct agent *a, struct err *e);
void agent_unsubscribe_events(struct agent *a);
/* Handles the events since the last call; of very many, the last ones. */
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

/* At each tick: brings one connection home to the local backend if it is due. */
void agent_failback(struct agent *a);
/* Forgets which come home, and ends the look for them. */
void agent_forget_homing(struct agent *a);

/* --- make_backend.c --- */

/* Makes one that is in no list. before: its predecessor, or NULL. */
int agent_make_backend(struct agent *a, const struct config *cfg,
		       const struct klb_endpoint *endpoint, struct probe_tls *tls,
		       const struct agent_backend *before, struct agent_backend **ret,
		       struct err *e);

/* --- backends.c: the backends of a configuration --- */

/*
 * Makes the backends of cfg that are new. Leaves gaps in list for the others. On failure the caller
 * frees list.
 */
int agent_make_backends(struct agent *a, const struct config *cfg, struct probe_tls *tls,
			struct agent_backend **list, struct err *e);
/*
 * Makes what those that exist, the removed ones too, need for cfg and tls where these differ from
 * what is in force. On failure the caller calls agent_forgo_backends.
 */
int agent_prepare_backends(struct agent *a, const struct config *cfg, struct probe_tls *tls,
			   struct err *e);
void agent_forgo_backends(struct agent *a);
/* Puts what was prepared into force. */
void agent_renew_backends(struct agent *a);
/* Fills the gaps of list with the existing backends, lets go of the rest, and starts the new ones.
 */
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
/* Fills dead. Returns whether there is such a backend, and a ready one to take its clients. */
bool agent_find_dead(struct agent *a, struct agent_dead *dead);
/* Counts and logs connections that were ended. */
void agent_count_ended(struct agent *a, const struct agent_ended *ended, enum metrics_ended why);
/* Ends the next batch in a moment. */
void agent_start_evicting(struct agent *a);
/* At each tick, with a->dp: ends connections that have come to a dead backend since. */
void agent_check_dead_backends(struct agent *a);
/* Forgets whose turn it is, and ends the look for them. */
void agent_forget_evicting(struct agent *a);
/* Callback of a->evict_timer: ends one batch. arg: the agent. */
void agent_on_evict(evutil_socket_t fd, short what, void *arg);

/* --- rebalance.c --- */

/* At each tick: ends one connection if rebalancing is due. */
void agent_rebalance(struct agent *a);
/* Ends the look for the connection that is to move. */
void agent_forget_moving(struct agent *a);

/* --- relay_run.c: the relay --- */

/*
 * At each tick, and when anything has changed: has the relay take what cannot go straight while
 * there is a data path, as is applied and configured, and no more when that was detached.
 */
void agent_relay_review(struct agent *a);
/* Makes the relay, and tells it what has changed. */
int agent_prepare_relay(struct agent *a, struct err *e);
/* The kernel has reported an event. */
void agent_relay_event(struct agent *a, const struct klb_event *event);
/* After a->dp has been opened, and before it is closed (dp NULL). */
void agent_relay_datapath(struct agent *a, const struct datapath *dp);
/* Ends what is relayed to backend and in the maps. For an agent that cannot end connections itself.
 */
void agent_end_recorded(struct agent *a, const struct klb_endpoint *backend);
/* What the heartbeat tells the kernel. */
void agent_relay_told(const struct agent *a, struct klb_relay *ret);
/*
 * The agent is to end (a->ending): nothing new comes to the relay. To be called again and again.
 * Returns whether what runs is finished, or relay.drain is over.
 */
bool agent_relay_drain(struct agent *a);
/* Fills in what in says of the relay, valid until the next call. */
void agent_relay_metrics(struct agent *a, struct metrics_input *in);
/* Resets what still runs. */
void agent_relay_free(struct agent *a);

/* --- reconcile.c: counts and sockets --- */

/* Callback of a->reconcile_timer: compares once, and sets the timer again. arg: the agent. */
void agent_on_reconcile(evutil_socket_t fd, short what, void *arg);

#endif
