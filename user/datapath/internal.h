/* SPDX-License-Identifier: BSD-2-Clause */
/* Shared by the files of the datapath room; nobody else includes this. */
#ifndef KUBELB_DATAPATH_INTERNAL_H
#define KUBELB_DATAPATH_INTERNAL_H

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <limits.h>

#include "datapath/datapath.h"
#include "host/mounts.h"

#define PATH_TEXT_MAX 512

/*
 * The maps, in the order in which they are pinned. Of those that a plan is written to, the
 * ones that programs read come last: where their pins are an upgrade's, the others' are.
 */
enum map_index {
	MAP_FRONTENDS,
	MAP_BACKENDS,
	MAP_LOOKUP,
	MAP_CANDIDATES,
	MAP_STATS,
	MAP_ADMIN,
	MAP_CONTROL,
	MAP_COUNTERS,
	MAP_PENDING,
	MAP_EVENTS,
	MAP_WAKEUP,
	MAP_SOCKETS,
	MAP_COUNT
};

/* Pin names; the kernel's names have klb_ before. */
extern const char *const map_pins[MAP_COUNT];

/* Whether a kernel may refuse this one, and there is no pin then. */
bool map_is_optional(int index);

struct datapath {
	char pin_dir[PATH_TEXT_MAX];
	int fds[MAP_COUNT];
	struct ring_buffer *wakeup; /* NULL: nobody listens here */
};

void datapath_init(struct datapath *dp, const char *pin_dir);

/* -EPERM with e for everybody but root: one line, before anything is touched. */
int require_root(struct err *e);

/* A directory, no link to one, that root alone can change. */
bool is_private_dir(const char *path);

/* joins "a/b"; -ENAMETOOLONG with e. */
int path_join(char *ret, const char *dir, const char *name, struct err *e);

/* The directory that a first attachment is built in: "<dir>_new". bpffs allows no
 * dots in names. */
int path_with_suffix(char *ret, const char *dir, struct err *e);

/*
 * Opens one pinned map of kubelb's. Returns the descriptor, -ENOENT when there is
 * no such pin, -EEXIST with e when the pin is something else.
 */
int pin_open_map(const char *pin_dir, const char *name, struct bpf_map_info *ret_info,
		 struct err *e);

/* The errno of a bpf(2) call, in words that say what to do. */
const char *bpf_errno_hint(int code);

/*
 * The lock that whoever changes the maps holds: a flock(2) on the pin directory,
 * which containers that mount the same bpffs share. create: the directory may not
 * be there yet (a first load). Returns a descriptor to close, -ENOENT when there is
 * nothing to lock, or -EBUSY when another holds it for wait_ms.
 */
int datapath_lock(const char *pin_dir, bool create, unsigned int wait_ms, struct err *e);

/* Writes one place of the map `lookup`, which must be of this version; entry NULL empties
 * it. */
int lookup_set(int fd, __u32 slot, const struct klb_lookup_entry *entry);

/* datapath_apply, by somebody who holds the lock already. */
int apply_plan(const struct datapath *dp, const struct plan *p, struct err *e);

/* --- links --- */
#define LINK_COUNT_MAX 8

/* A pin beside the maps: the program klb_adjust. */
#define PIN_ADJUST "adjust"
/* And one of versions up to 0.1: an iterator over the records. */
#define RETIRED_CONNECTIONS "connections"

/* One program's attachment while a load is under way. */
struct link_slot {
	const char *name; /* of the pin */
	struct bpf_program *prog;
	int link_fd; /* -1: none */
	int old_prog_fd; /* what it ran before, to go back to; -1: the link is new */
	bool replaced;
};

/* Opens what is pinned under links/ into the slots; a link to another cgroup or to
 * one that is gone counts as none. */
int links_open(const char *pin_dir, unsigned long long cgroup_id, struct link_slot *slots,
	       unsigned int n, struct err *e);
/* Replaces in place or attaches anew, all or nothing. */
int links_attach(const char *cgroup, int cgroup_fd, struct link_slot *slots, unsigned int n,
		 struct err *e);
/* Puts back what was before links_attach. */
void links_rollback(struct link_slot *slots, unsigned int n);
void links_close(struct link_slot *slots, unsigned int n);
/* Detaches and unpins the links and maps below one directory. e: NULL is allowed. */
int links_remove_tree(const char *dir, bool *ret_removed, struct err *e);
/*
 * Opens the map with this pin name that the pinned links' programs run on. Returns
 * its descriptor, -ENOENT, or -EPERM when we may not look.
 */
int links_live_map(const char *pin_dir, const char *name, struct bpf_map_info *ret_info);
/* Opens the memory of the program that the link ran before: struct klb_memory, or another
 * version's, of which the first page is there and begins alike. -ENOENT: none. */
int links_old_memory(const struct link_slot *slot);
/* The id of the program that the pinned link connect4 runs; 0 when there is none. */
__u32 links_connect4_prog(const char *pin_dir);
/* Detaches and removes those under links/ that no slot names: an older version's. */
int links_retire(const char *pin_dir, const struct link_slot *slots, unsigned int n, struct err *e);
/* Removes one pin of kubelb's beside the links, if it is there. */
int links_retire_pin(const char *pin_dir, const char *name, struct err *e);
/* Detaches and removes the passing names (…_new) of a killed upgrade. */
int links_remove_leftovers(const char *pin_dir, struct err *e);
/* The same below a directory, which itself stays. */
int links_empty_tree(const char *dir, struct err *e);
/* links_remove_tree for pin_dir and for what a killed load left aside. */
int links_remove_all(const char *pin_dir, bool *ret_removed, struct err *e);

/* --- selftest --- */

struct selftest {
	const char *cgroup;
	unsigned long long cgroup_id;
	enum klb_scope scope; /* of the frontend that is dialled */
	/* Whether getpeername is looked at. Not where its program is left out, nor where the
	 * programs still run on another cgroup as well, above or below: they undo each
	 * other's record. */
	bool peername;
};

/*
 * Connects through the attached programs, from inside the cgroup, by way of a
 * frontend of its own that leads to a listener of its own: nothing leaves the host,
 * no apiserver notices. klb_counters.selftest then tells what the programs have seen.
 * -EIO with e when they are not effective.
 */
int selftest_connect(const struct datapath *dp, const struct selftest *t, struct err *e);

/* Takes away what a killed test connect has left in `lookup` (-1: none) and in the cgroup. */
void selftest_remove_leftovers(int lookup_fd, const char *cgroup);

#endif
