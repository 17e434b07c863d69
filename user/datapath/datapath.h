/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The data path in the kernel: programs, links, maps and their pins. Only this folder uses libbpf
 * and the skeletons. It applies plans; it does not parse or decide anything.
 *
 * A function that takes an err returns a negative errno with e on failure. On success it returns 0,
 * or the number or descriptor that its comment names.
 */
#ifndef KUBELB_DATAPATH_H
#define KUBELB_DATAPATH_H

#include <stdbool.h>

#include <kubelb/abi.h>

#include "base/err.h"
#include "balance/state.h"
#include "net/sock_diag.h"

#define DATAPATH_PIN_DEFAULT "/sys/fs/bpf/kubelb"

/* --- What is attached: open, look, change ------------------------------------ */

struct datapath;

/* Long enough for the end of an upgrade that is under way. */
#define DATAPATH_WAIT_MS 10000

/*
 * Opens the maps pinned in pin_dir. -ENOENT: nothing is there. -EEXIST: something else than
 * kubelb's pins is there. -EPROTO: they are of another ABI version. -EBUSY: an upgrade is half-way,
 * and has not ended within wait_ms. Free it with datapath_close.
 */
int datapath_open(const char *pin_dir, unsigned int wait_ms, struct datapath **ret, struct err *e);
/* NULL is allowed. */
void datapath_close(struct datapath *dp);

/*
 * Whether the pins still lead to the maps that dp holds: no upgrade has replaced a map, and nobody
 * has detached.
 */
bool datapath_is_current(const struct datapath *dp);

/*
 * Whether kubelb-load --detach has removed, or is removing, what dp holds. It works after the pins
 * are gone.
 */
bool datapath_is_detached(const struct datapath *dp);

/*
 * Reads everything, map by map. The kernel goes on counting meanwhile. *ret is invalid on failure.
 */
int datapath_read(const struct datapath *dp, struct datapath_state *ret, struct err *e);
/* Reads the counters of one backend. */
int datapath_read_stat(const struct datapath *dp, __u32 id, struct klb_stats *ret, struct err *e);
/* Reads only the counters: KLB_MAX_IDS elements, by id. */
int datapath_read_stats(const struct datapath *dp, struct klb_stats *ret, struct err *e);
/* Reads the operator's admin states, by id, into ret[KLB_MAX_IDS]. */
int datapath_read_admin(const struct datapath *dp, struct klb_admin *ret, struct err *e);

/*
 * Changes frontends, candidates and backends to match p. Writes only what differs. Each frontend
 * changes from its old set to its new one in one step. based_on: the config_serial of the state
 * that p was planned from. -ESTALE: kubelb-load has changed the maps since; read and plan again.
 * -EBUSY: another kubelb-load holds the lock.
 */
int datapath_apply(const struct datapath *dp, __u64 based_on, const struct plan *p, struct err *e);

/*
 * For when datapath_apply has returned -EBUSY: writes the states and weights of p's backends where
 * these have their ids already, without the lock, and nothing else of p.
 */
int datapath_write_states(const struct datapath *dp, const struct plan *p, struct err *e);

/* What the agent reports about itself; struct klb_control explains each field. */
struct datapath_heartbeat_values {
	__u64 now_ns;
	__u64 max_age_ns;
	bool ends_ejections;
	enum klb_discovery discovery;
	__u64 discovery_heard_ns;
	struct klb_relay relay; /* all zero: none */
};

/*
 * Writes the agent's heartbeat, whoever holds the lock; then looks whether the maps are still those
 * that the programs use. -ESTALE and -EBUSY as above; -EBUSY: that cannot be told now. ret_serial
 * (on 0): the config_serial that is applied. Does not wait.
 */
int datapath_heartbeat(const struct datapath *dp, const struct datapath_heartbeat_values *values,
		       __u64 *ret_serial, struct err *e);

struct datapath_lock_holder {
	__u32 pid;
	char name[32]; /* of the process; "": it cannot be seen */
	__u64 age_ns; /* of the process, so the lock is younger; 0: not known */
};

/* Who holds the lock now. False: nobody, or nobody that can be seen from here. */
bool datapath_lock_holder(const char *pin_dir, struct datapath_lock_holder *ret);

/*
 * Changes the operator's admin state of b; kubelbctl writes nothing else. Calls change under the
 * lock with the current state (all zero when there is none), which change edits.
 */
int datapath_change_admin(const struct datapath *dp, const struct plan_backend *b,
			  void (*change)(struct klb_admin *admin, const void *arg), const void *arg,
			  struct err *e);

/*
 * Whether the calling process is in the host's network namespace, the one that kubelb-load has run
 * in. True also when that cannot be told.
 */
bool datapath_is_host_netns(const struct klb_control *c);
/* Names both namespaces in words. Returns what snprintf does. */
int datapath_describe_netns(const struct klb_control *c, char *ret, unsigned long size);

/* What a look at the connections has found besides them. */
struct datapath_found {
	bool all; /* it is complete: no counted connection is hidden in a network namespace */
	/*
	 * How many more connections the kernel counts outside of the host's network namespace than
	 * were found there. Also 0 when connections were coming and going.
	 */
	__s64 excess;
};

struct datapath_list_options {
	bool info; /* fill in srtt_us, last_data_ms and silent_ms */
	bool host_only; /* the host's network namespace alone; all may be false then */
	bool everywhere; /* if connections are missing, also search every process's descriptors */
	const struct klb_endpoint *backend; /* only sockets that are connected to it; NULL: all */
};

/*
 * Takes the connections one by one, so that nobody has to hold all of them. begin: forget what was
 * taken, because the search starts again, in more places. take returns 0, or a negative errno to
 * stop.
 */
struct datapath_visitor {
	void (*begin)(void *arg);
	int (*take)(const struct klb_connection *c, void *arg);
};

/*
 * Visits the sockets that have a record, in every network namespace in scope. Includes those that
 * are closing (see klb_phase). diag: see sock_diag.h, also for the privileges that it needs. The
 * same diag can end the connections.
 */
int datapath_visit(const struct datapath *dp, struct sock_diag *diag,
		   const struct datapath_list_options *how, const struct datapath_visitor *visitor,
		   void *arg, struct datapath_found *ret, struct err *e);

/* The same in steps. dp and diag have to stay until its end. */
struct datapath_walk;
int datapath_walk_begin(const struct datapath *dp, struct sock_diag *diag,
			const struct datapath_list_options *how,
			const struct datapath_visitor *visitor, void *arg,
			struct datapath_walk **ret, struct err *e);
/* Takes some hundred sockets at most. Returns 1 when there is more to come. */
int datapath_walk_step(struct datapath_walk *w, struct err *e);
/* Frees w; NULL is allowed. ret: what was found, after the last step; NULL if nobody asks. */
void datapath_walk_end(struct datapath_walk *w, struct datapath_found *ret);

struct datapath_connections {
	struct klb_connection *list; /* the caller frees it; NULL for none */
	unsigned int n, capacity;
	bool all; /* as in struct datapath_found */
};

/* Lists what datapath_visit visits. For a process that does not run for long. */
int datapath_connections(const struct datapath *dp, struct sock_diag *diag,
			 const struct datapath_list_options *how, struct datapath_connections *ret,
			 struct err *e);

/*
 * A connection to end, and what has come of it: the last three. result: 0: ended; -ENOENT: it had
 * ended by itself; -EAGAIN: it is spared; else as sock_diag_destroy says, with why. reset: the
 * client reads ECONNRESET, as from its backend (ECONNREFUSED if it was connecting); else
 * ECONNABORTED.
 */
struct datapath_ending {
	const struct klb_connection *connection;
	bool tell_backend; /* it gets a reset as well; not for one whose host has vanished */
	/*
	 * Spares a connection that had data within this time, and one that was connecting and is
	 * not any more: it has to be listed anew. 0: spares none.
	 */
	unsigned int spare_ms;
	int result;
	bool reset;
	struct err why;
};

#define DATAPATH_END_MAX 16

/*
 * Ends n connections, DATAPATH_END_MAX at most, as they are now. The client gets a reset in
 * its backend's name, and where that does not reach it, SOCK_DESTROY ends its socket. It takes up
 * to 7 ms more when resets do not arrive. Call sock_diag_can_destroy before.
 */
void datapath_end(const struct datapath *dp, struct sock_diag *diag, struct datapath_ending *list,
		  unsigned int n);

/*
 * Copies up to max events, the oldest first, from number *next on (0: all that are still there),
 * and moves *next behind them. Returns how many. Any number of readers may follow the events, each
 * with its own next. A reader that falls behind by more than KLB_EVENTS misses some.
 */
int datapath_events(const struct datapath *dp, __u64 *next, struct klb_event *ret, unsigned int max,
		    struct err *e);

/*
 * Returns a descriptor that polls readable when there is a new event. It belongs to dp. For one
 * process only, the agent: clearing it takes the notification away from all others. Returns
 * -EOPNOTSUPP without filling e when the kernel has refused the map; then poll datapath_events.
 */
int datapath_wakeup_fd(struct datapath *dp, struct err *e);
void datapath_wakeup_clear(struct datapath *dp);

/* Lets the kernel change what it writes itself; see struct klb_adjustment. */
int datapath_adjust(const struct datapath *dp, const struct klb_adjustment *a, struct err *e);

/* --- The relay ----------------------------------------------------------------- */

/*
 * Tells the programs at once what the relay takes. Each heartbeat says it again, also to the maps
 * of an upgrade that is under way, so its values must be the same.
 */
void datapath_set_relay(const struct datapath *dp, const struct klb_relay *relay);

/*
 * Takes the entry of a client that the relay has accepted out of the kernel's map. client, local:
 * the two ends of the accepted socket. -ENOENT: the kernel has sent no such connect to the relay,
 * or so long ago that it is not this one; refuse it. Another negative errno: the map cannot be
 * read. May be called on any thread, for as long as dp is open.
 */
int datapath_take_relayed(const struct datapath *dp, const struct klb_endpoint *client,
			  const struct klb_endpoint *local, struct klb_relayed *ret);

/* Which backend the relay dials, and for whom: pid, cgroup_id and comm are the client's. */
struct datapath_upstream {
	struct klb_endpoint frontend, backend;
	__u32 id, generation;
	__u32 pid;
	__u64 cgroup_id;
	char comm[16];
};

/*
 * Makes the record of the TCP socket fd, which the caller connects to u->backend next: the kernel
 * then counts it, lists it and judges the backend by it as by a client's own connection. A
 * socket that fails and dials again needs a new call. Returns 0 or a negative errno; without a
 * record the connect works all the same. Threads: as above.
 */
int datapath_record_upstream(const struct datapath *dp, int fd, const struct datapath_upstream *u);

/* --- Attach and detach ------------------------------------------------------- */

/*
 * An attachment under construction. Nothing that is attached changes before datapath_load_commit.
 */
struct datapath_load;

struct datapath_load_options {
	const char *pin_dir;
	const char *cgroup; /* NULL: the root of the cgroup2 mount */
	bool dry_run; /* there will be no commit; mounts nothing and creates no directory */
	bool this_netns; /* even if another network namespace is balanced now */
};

/*
 * Takes the lock, mounts a bpffs if none is, checks cgroup, pins and network namespace, and loads
 * the programs (the verifier checks them here). -EXDEV: what is attached belongs to another network
 * namespace. -EOPNOTSUPP: this kernel refuses what balancing needs (datapath_features: required).
 * Call datapath_load_free at the end.
 */
int datapath_load_begin(const struct datapath_load_options *o, struct datapath_load **ret,
			struct err *e);
/* What is applied already, to plan from. n_backends is 0 when nothing is. */
const struct datapath_state *datapath_load_state(const struct datapath_load *l);
/* The directory of the cgroup that the programs attach to. */
const char *datapath_load_cgroup(const struct datapath_load *l);
/* The features that this kernel refuses, as in klb_control.refused. */
const __u16 *datapath_load_refused(const struct datapath_load *l);
/* Whether programs are attached already. They are replaced in place. */
bool datapath_load_is_upgrade(const struct datapath_load *l);

/* "", or what becomes of the network namespace that was balanced before, in words. */
const char *datapath_load_moved(const struct datapath_load *l);

/*
 * Fills the maps, attaches or replaces the programs, pins everything, and makes test connects to
 * check that the programs work. On failure what was attached before is unchanged.
 */
int datapath_load_commit(struct datapath_load *l, const struct plan *p, struct err *e);
void datapath_load_free(struct datapath_load *l);

struct datapath_detached {
	bool removed; /* there was something */
	bool is_host_netns; /* the caller is in the namespace whose connects were balanced */
	struct klb_endpoint frontends[KLB_MAX_FRONTENDS]; /* that were balanced */
	unsigned int n_frontends;
	struct err kept; /* why some connections keep the time-outs that were set; "": none does */
};

/* Whether there are pins of an attachment, which may or may not run. Asks the kernel nothing. */
bool datapath_is_pinned(const char *pin_dir);

/*
 * Removes every program, link, map and pin of kubelb below pin_dir, of any version, and gives the
 * sockets the host's time-outs back. Waits for connects that are under way, five seconds at most.
 * On failure some may be removed already.
 */
int datapath_detach(const char *pin_dir, struct datapath_detached *ret, struct err *e);

/* --- Looking at the kernel and the attachment ----------------------------------- */

/*
 * A feature of the kernel that kubelb uses. purpose: what it is needed for. loss: what does not
 * work without it; NULL for a required one. quiet: its absence only costs a little time and
 * deserves no warning. detail: why it is absent.
 */
struct datapath_feature {
	const char *name;
	const char *purpose;
	const char *loss;
	bool required;
	bool present;
	bool quiet;
	char detail[400];
};

#define DATAPATH_FEATURES_MAX 32

/*
 * Finds out what this kernel can do, by doing it. ret has max elements. Returns how many there are.
 */
unsigned int datapath_features(const char *pin_dir, const char *cgroup,
			       struct datapath_feature *ret, unsigned int max);

/* The features that a kernel may refuse, from klb_control.refused. */
unsigned int datapath_features_refused(const __u16 *refused, struct datapath_feature *ret,
				       unsigned int max);

/*
 * The same for what is attached, and whether connections can be listed and ended here and now,
 * which takes CAP_BPF and CAP_NET_ADMIN.
 */
unsigned int datapath_features_in_force(const struct datapath *dp, const struct klb_control *c,
					struct datapath_feature *ret, unsigned int max);

struct datapath_link {
	char name[32];
	__u32 prog_id;
	__u32 hook; /* enum bpf_attach_type */
	__u64 cgroup_id; /* 0: the cgroup was removed */
	bool effective; /* the cgroup runs the program */
	bool hidden; /* the cgroup exists, but its programs cannot be listed without privileges */
};

/*
 * Reads the pinned links and whether each is effective. Returns their number or a negative errno.
 */
int datapath_links(const char *pin_dir, struct datapath_link *ret, unsigned int max, struct err *e);

/*
 * The version of the kubelb-load that has loaded the program of the link connect4. "" when it
 * cannot be seen: it is an older one that did not say, or CAP_SYS_ADMIN is missing.
 */
#define DATAPATH_VERSION_MAX KLB_OPTIONS_VERSION_MAX
void datapath_version(const char *pin_dir, char ret[DATAPATH_VERSION_MAX]);

/* Looks again what the cgroups run, without the pins. */
void datapath_links_refresh(struct datapath_link *links, int n);

/* What a test connect to a frontend has shown. */
enum datapath_trial_result {
	DATAPATH_TRIAL_BALANCED, /* it ends at a backend that KubeLB has chosen */
	DATAPATH_TRIAL_UNTOUCHED, /* it goes to the frontend's own address */
	DATAPATH_TRIAL_ELSEWHERE, /* it ends at `found`, which KubeLB has not chosen */
	DATAPATH_TRIAL_NOT_MADE, /* nothing is known: see why */
};

struct datapath_trial {
	struct klb_endpoint frontend;
	enum datapath_trial_result result;
	struct klb_endpoint found;
	char why[160];
};

/*
 * Connects to each frontend that s holds, as a client does, through all programs of all owners. The
 * sockets are under TCP_REPAIR: no packet leaves, neither to a backend nor to what listens on the
 * frontend's address, and the programs count nothing (KLB_SOCKET_REPAIR). So it shows where the
 * kernel sends connects, not whether something answers there. It costs some ten microseconds for
 * each frontend, and takes CAP_NET_ADMIN. links: of dp, as datapath_links has them. join: a process
 * that is outside of the cgroup makes the connects in a child process inside. Returns the number of
 * elements of ret, which has max.
 */
unsigned int datapath_try_frontends(const struct datapath *dp, const struct datapath_state *s,
				    const struct datapath_link *links, int n_links, bool join,
				    struct datapath_trial *ret, unsigned int max);
#define DATAPATH_TRIAL_TEXT 256
/* Says in ret, of DATAPATH_TRIAL_TEXT bytes, what t has shown. Returns ret. */
const char *datapath_trial_text(const struct datapath_trial *t, char *ret);

/* A program of somebody else, or of another attachment of KubeLB, at a hook that KubeLB uses. */
struct datapath_other {
	__u32 hook; /* enum bpf_attach_type */
	__u32 prog_id;
	char name[16]; /* "": it cannot be read (CAP_SYS_ADMIN) */
	__u8 tag[8];
	bool kubelb; /* by its name, a program of KubeLB */
	bool before; /* it runs before the attachment's own program */
	char cgroup[256]; /* where it is attached; "": to that cgroup or above it */
};

/*
 * Lists the other programs at connect4, connect6, getpeername4 and getpeername6: those of the
 * cgroup of the links and above, as the kernel runs them, and with below those attached to the
 * cgroups below, which run first. -EPERM: they cannot be listed (CAP_NET_ADMIN). Otherwise returns
 * the number of elements of ret.
 */
int datapath_others(const struct datapath_link *links, int n_links, bool below,
		    struct datapath_other *ret, unsigned int max);
/* A program of KubeLB that runs, whoever has attached it and wherever its pins are. */
struct datapath_running {
	__u32 prog_id;
	char name[16];
	char cgroup[256]; /* that it is attached to */
	char pin[256]; /* its link's pin; "": none is to be seen from here */
	char process[64]; /* "NAME (PID)", that holds its link, if there is no pin; or "" */
};

/*
 * Lists them, on all cgroups. Takes CAP_SYS_ADMIN; without it the list is empty. Looks through
 * every bpffs that is mounted here, and through the descriptors of all processes for programs
 * without a pin. Returns the number of elements of ret.
 */
unsigned int datapath_running(struct datapath_running *ret, unsigned int max);
#define DATAPATH_RUNNING_MAX 64

/* "connect4" */
const char *datapath_hook_name(__u32 hook);

#endif
