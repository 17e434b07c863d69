/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The data path in the kernel: programs, links, maps and their pins. The only room
 * that includes libbpf and the skeleton. Applies plans; parses and decides nothing.
 *
 * A function with an err returns a negative errno with e filled when it fails, and else 0,
 * or the number or descriptor that it says.
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

/*
 * Opens the maps pinned in pin_dir. -ENOENT: nothing is there. -EEXIST: what is
 * there is not kubelb's. -EPROTO: of another ABI version. Free with datapath_close.
 */
int datapath_open(const char *pin_dir, struct datapath **ret, struct err *e);
/* NULL is allowed. */
void datapath_close(struct datapath *dp);

/* Whether the pins still lead to the maps that dp holds: no upgrade has replaced one, and
 * nobody has detached. */
bool datapath_is_current(const struct datapath *dp);

/* All of it, map by map: what the kernel counts goes on meanwhile. *ret is not to be used on
 * failure. */
int datapath_read(const struct datapath *dp, struct datapath_state *ret, struct err *e);
/* One backend's counters. */
int datapath_read_stat(const struct datapath *dp, __u32 id, struct klb_stats *ret, struct err *e);
/* The counters alone: room for KLB_MAX_IDS, by id. */
int datapath_read_stats(const struct datapath *dp, struct klb_stats *ret, struct err *e);
/* The operator's admins, by id, into ret[KLB_MAX_IDS]. */
int datapath_read_admin(const struct datapath *dp, struct klb_admin *ret, struct err *e);

/*
 * Brings frontends, candidates and backends in line with p, writing only what
 * differs. Each frontend goes from its old set to its new one in one step.
 * based_on: the config_serial of the state that p was planned from. -ESTALE when
 * the maps have moved on from there (kubelb-load was run): read and plan again.
 * -EBUSY: another kubelb-load holds the lock just now.
 */
int datapath_apply(const struct datapath *dp, __u64 based_on, const struct plan *p, struct err *e);

/* What the agent says of itself; see struct klb_control for each. */
struct datapath_heartbeat_values {
	__u64 now_ns;
	__u64 max_age_ns;
	enum klb_discovery discovery;
	__u64 discovery_heard_ns;
};

/* The agent's sign of life. -ESTALE and -EBUSY as above; ret_serial (on 0) is the
 * configuration that is applied. */
int datapath_heartbeat(const struct datapath *dp, const struct datapath_heartbeat_values *values,
		       __u64 *ret_serial, struct err *e);

/*
 * kubelbctl's only way to write: change gets the operator's admin about b as it is
 * (all zero for none), under the lock, and makes it what it shall be.
 */
int datapath_change_admin(const struct datapath *dp, const struct plan_backend *b,
			  void (*change)(struct klb_admin *admin, const void *arg), const void *arg,
			  struct err *e);

struct datapath_connections {
	struct klb_connection *list; /* to be freed; NULL for none */
	unsigned int n;
	bool all; /* none that the kernel counts was hidden from us in a network namespace */
	/* So many more does the kernel count outside of the host's namespace than are found there;
	 * 0 also when they were coming and going. */
	__s64 excess;
};

struct datapath_list_options {
	bool rtt; /* srtt_us is wanted */
	bool everywhere; /* also by way of every process's descriptors, where some are missing */
};

/*
 * The sockets that carry a record, as they are now, in every network namespace in scope;
 * those that are closing too (see klb_phase). diag: see sock_diag.h, also for what it takes;
 * the same one ends them.
 */
int datapath_connections(const struct datapath *dp, struct sock_diag *diag,
			 const struct datapath_list_options *how, struct datapath_connections *ret,
			 struct err *e);

/*
 * Copies up to max events, the oldest first, from number *next on (0: all that are still
 * there), and moves *next behind them. Returns how many. Any number of readers may
 * follow, each with a next of its own; one that falls behind by more than KLB_EVENTS
 * misses some.
 */
int datapath_events(const struct datapath *dp, __u64 *next, struct klb_event *ret, unsigned int max,
		    struct err *e);

/*
 * A descriptor that polls readable when there is a new event; belongs to dp. For one
 * process at a time, the agent: whoever calls clear takes the news from the others.
 * -EOPNOTSUPP without a word in e where the kernel has refused the map: poll datapath_events.
 */
int datapath_wakeup_fd(struct datapath *dp, struct err *e);
void datapath_wakeup_clear(struct datapath *dp);

/* Has the kernel add to its own counters; see struct klb_adjustment. */
int datapath_adjust(const struct datapath *dp, const struct klb_adjustment *a, struct err *e);

/* --- Attach and detach ------------------------------------------------------- */

/* One attach under way. Nothing that is attached has been touched before commit. */
struct datapath_load;

/*
 * Takes the lock, mounts bpffs where it is missing, checks cgroup and pins, and
 * loads the programs (the verifier has its say here). cgroup: NULL for the root of
 * the cgroup2 mount. End with datapath_load_free in any case. dry_run: there will be
 * no commit; mounts nothing and creates no directory.
 */
int datapath_load_begin(const char *pin_dir, const char *cgroup, bool dry_run,
			struct datapath_load **ret, struct err *e);
/* What is applied already, to plan from; n_backends is 0 when there is nothing. */
const struct datapath_state *datapath_load_state(const struct datapath_load *l);
/* The directory that it attaches to. */
const char *datapath_load_cgroup(const struct datapath_load *l);
/* What it does without: as klb_control.refused. */
const __u16 *datapath_load_refused(const struct datapath_load *l);
/* Whether programs are attached already, which will be replaced in place. */
bool datapath_load_is_upgrade(const struct datapath_load *l);

/*
 * Fills the maps, attaches or replaces, pins, and connects once to see that the
 * programs are effective here. On failure what was attached before is as it was.
 */
int datapath_load_commit(struct datapath_load *l, const struct plan *p, struct err *e);
void datapath_load_free(struct datapath_load *l);

/* Removes every program, link, map and pin of kubelb's below pin_dir.
 * ret_removed: whether there was anything. */
int datapath_detach(const char *pin_dir, bool *ret_removed, struct err *e);

/* --- Looking at the kernel and the attachment ----------------------------------- */

/*
 * Something that the kernel does for us.
 * purpose: what it is needed for. loss: what users do without, NULL for what is required.
 * quiet: costs a little time and nothing else: not worth a warning. detail: if absent, why.
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

/* What this kernel can do, by doing it. ret has room for max; returns how many there are. */
unsigned int datapath_features(const char *pin_dir, const char *cgroup,
			       struct datapath_feature *ret, unsigned int max);

/* Those that can be refused, as klb_control.refused says. */
unsigned int datapath_features_refused(const __u16 *refused, struct datapath_feature *ret,
				       unsigned int max);

/* The same of what is attached, and whether connections can be listed and ended from here
 * and now, which takes CAP_BPF and CAP_NET_ADMIN. */
unsigned int datapath_features_in_force(const struct datapath *dp, const struct klb_control *c,
					struct datapath_feature *ret, unsigned int max);

struct datapath_link {
	char name[32];
	__u32 prog_id;
	bool effective; /* the program is among those that the cgroup runs */
	bool hidden; /* or its cgroup is there, but the list not to be seen without privileges */
};

/* The pinned links and whether each is effective. Returns their number or -errno. */
int datapath_links(const char *pin_dir, struct datapath_link *ret, unsigned int max, struct err *e);

#endif
