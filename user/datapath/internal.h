/* SPDX-License-Identifier: BSD-2-Clause */
/* Shared by the files of this folder; no other folder includes it. */
#ifndef KUBELB_DATAPATH_INTERNAL_H
#define KUBELB_DATAPATH_INTERNAL_H

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <limits.h>

#include "datapath/datapath.h"
#include "host/cgroup.h"
#include "host/mounts.h"

#define PATH_TEXT_MAX 512

/*
 * The maps, in the order in which they are pinned. Of the maps that a plan is written to, those
 * that programs read come last. Renames follow this order. So if a killed upgrade has replaced the
 * pins of these maps, it has replaced the others before them.
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
	MAP_ENDING,
	MAP_RELAYED,
	MAP_WAKEUP,
	MAP_SOCKETS,
	MAP_COUNT
};

/* The names of the pins. The kernel's names begin with klb_. */
extern const char *const map_pins[MAP_COUNT];

/* Whether a kernel may refuse this map. Then it has no pin. */
bool map_is_optional(int index);

struct datapath {
	char pin_dir[PATH_TEXT_MAX];
	int fds[MAP_COUNT];
	struct klb_control *control; /* the map, in memory; NULL: not opened for writing */
	struct ring_buffer *wakeup; /* NULL: this process does not wait for events */
};

void datapath_init(struct datapath *dp, const char *pin_dir);

/* -EPERM with e for every user but root, before anything is touched. */
int require_root(struct err *e);

/* Whether path is a directory, not a link to one, that only root can change. */
bool is_private_dir(const char *path);

/* Joins "dir/name" into ret, which has PATH_TEXT_MAX bytes. -ENAMETOOLONG with e. */
int path_join(char *ret, const char *dir, const char *name, struct err *e);

/*
 * Makes "<dir>_new": the directory that a first attachment is built in, or the temporary name of a
 * pin. bpffs allows no dots in names.
 */
int path_with_suffix(char *ret, const char *dir, struct err *e);

/*
 * -EPERM with e unless only root can change the directory behind fd. By default everybody can write
 * to a bpffs (mode 1777): somebody else could have made the directory before us, and would own what
 * is pinned in it. dir: its name for e.
 */
int dir_check_owner(int fd, const char *dir, struct err *e);

/*
 * Opens what is pinned, in a directory that only root can change; -EPERM with e for another one.
 * what: what it should be, a word for e. Returns a descriptor; -ENOENT when nothing has that name;
 * -EEXIST when it is no pin. Any other errno says nothing about what is
 * there: the kernel lacks descriptors or memory, or the caller privileges.
 */
int pin_open(const char *path, const char *what, struct err *e);

/*
 * Opens one pinned map of kubelb. Returns its descriptor, or as pin_open; -EEXIST also for a pin of
 * something else.
 */
int pin_open_map(const char *pin_dir, const char *name, struct bpf_map_info *ret_info,
		 struct err *e);

/* Whether the kernel's name of a map or program is one of kubelb's. */
bool is_our_name(const char *name);

/*
 * Fills ret, a bpf_map_info, bpf_prog_info or bpf_link_info of that size, about the object behind
 * fd. Returns 0 or a negative errno.
 */
int bpf_info(int fd, void *ret, __u32 size);

/* Reads the only value of a map such as `control` or `counters`. */
int map_get(const struct datapath *dp, enum map_index map, void *ret, struct err *e);

/* --- control.c: writing `control` --- */

/*
 * Maps the value of this version's `control` behind fd into memory, for control_unmap. Returns NULL
 * with errno set; EINVAL: it is another version's.
 */
struct klb_control *control_map(int fd);
/* NULL is allowed. */
void control_unmap(struct klb_control *control);
/* Stores the agent's fields. Needs no lock. */
void control_beat(struct klb_control *control, const struct datapath_heartbeat_values *values);
/* Stores one of them. */
void control_set_relay(struct klb_control *control, const struct klb_relay *relay);
/* Stores all other fields, for who holds the lock. */
void control_put(struct klb_control *control, const struct klb_control *value);

/*
 * Reads `control` of this or another version: values only grow at their end, and what an older one
 * lacks is 0. fd: of the map; negative: there is none, and all is 0.
 */
void control_read(int fd, const struct bpf_map_info *info, struct klb_control *ret);

/* Explains the errno of a bpf(2) call and says what to do. */
const char *bpf_errno_hint(int code);

/*
 * Takes the lock that every writer of the maps holds: a flock(2) on the pin directory. Containers
 * that mount the same bpffs share it. create: the directory may not exist yet (first load). Returns
 * a descriptor to close, -ENOENT when there is nothing to lock, or -EBUSY when somebody else holds
 * the lock for wait_ms.
 */
int datapath_lock(const char *pin_dir, bool create, unsigned int wait_ms, struct err *e);

/* Writes one slot of the map `lookup`, which must be of this version. entry NULL empties it. */
int lookup_set(int fd, __u32 slot, const struct klb_lookup_entry *entry);

/* datapath_apply, for a caller that holds the lock. */
int apply_plan(const struct datapath *dp, const struct plan *p, struct err *e);

/* --- links.c, links_remove.c, links_read.c --- */

#define LINK_COUNT_MAX 8

/* The pin of the program klb_adjust, beside the maps. */
#define PIN_ADJUST "adjust"
/* A pin of versions up to 0.1: an iterator over the records. */
#define RETIRED_CONNECTIONS "connections"

/* The attachment of one program during a load. */
struct link_slot {
	const char *name; /* name of the pin */
	struct bpf_program *prog;
	int link_fd; /* -1: none */
	int old_prog_fd; /* the program that the link ran before, for a rollback; -1: the link is
			    new */
	bool replaced;
};

/*
 * Returns 0 for a link of kubelb and -EEXIST for something else. -EPERM (without the privileges to
 * look) and the errnos of a shortage say nothing about the owner. link_error is the error for the
 * code of that.
 */
int link_check(int fd, struct bpf_link_info *ret_info);
int link_error(const char *path, int code, struct err *e);
int link_prog_info(__u32 id, struct bpf_prog_info *ret);
/* Opens the directory of the links. dir: its name, PATH_TEXT_MAX bytes. */
int links_open_dir(const char *pin_dir, char *dir, DIR **ret, struct err *e);

/*
 * Opens what is pinned under links/ into the slots. Ignores a link to another cgroup or to one that
 * does not exist any more.
 */
int links_open(const char *pin_dir, unsigned long long cgroup_id, struct link_slot *slots,
	       unsigned int n, struct err *e);
/* Replaces or attaches the programs: all of them or none. */
int links_attach(const char *cgroup, int cgroup_fd, struct link_slot *slots, unsigned int n,
		 struct err *e);
/* Restores what was attached before links_attach. */
void links_rollback(struct link_slot *slots, unsigned int n);
void links_close(struct link_slot *slots, unsigned int n);
/* Detaches and unpins the links and maps below one directory. e: NULL is allowed. */
int links_remove_tree(const char *dir, bool *ret_removed, struct err *e);
/*
 * What the errno r (or 0) of a look at an object, and its kernel's name, say about it: as
 * link_check.
 */
int is_ours(int r, const char *name);
/*
 * Opens the map with this pin name that the programs of the pinned links use. Returns its
 * descriptor, -ENOENT, -EPERM without the privileges, or the errno of a shortage.
 */
int links_live_map(const char *pin_dir, const char *name, struct bpf_map_info *ret_info);
/* The same for the constants of the program: struct klb_options of this or another version. */
int links_live_constants(const char *pin_dir, struct bpf_map_info *ret_info);
/*
 * Opens the memory of the program that the link ran before: struct klb_memory of this or another
 * version. Its first page exists and begins alike in every version. -ENOENT: there is none.
 */
int links_old_memory(const struct link_slot *slot);
/* The id of the program of the pinned link connect4; 0 when there is none. */
__u32 links_connect4_prog(const char *pin_dir);
/* Detaches and removes the links under links/ that no slot names: those of an older version. */
int links_retire(const char *pin_dir, const struct link_slot *slots, unsigned int n, struct err *e);
/* Removes one pin beside the links if it exists. */
int links_retire_pin(const char *pin_dir, const char *name, struct err *e);
/* Detaches and removes what a killed upgrade has left under temporary names (…_new). */
int links_remove_leftovers(const char *pin_dir, struct err *e);
/* Detaches and unpins everything below a directory, but keeps the directory. */
int links_empty_tree(const char *dir, struct err *e);
/* Detaches and removes links by their names; one that is not there is passed over. */
int links_remove_named(const char *pin_dir, const char *const *names, unsigned int n,
		       struct err *e);
/* links_remove_tree for pin_dir, and for what a killed load has left. */
int links_remove_all(const char *pin_dir, bool *ret_removed, struct err *e);

/* --- release --- */

/*
 * Waits until the connects that are under way are decided: as long as connectTimeout lets them
 * take, and five seconds at most. For a time without the connect programs, when no new ones come.
 */
void release_wait(const char *pin_dir);

/*
 * Gives sockets the host's time-outs back, in each network namespace that has balanced ones. For a
 * time without klb_sockops, which would set them again. Returns 0, or a negative errno with e when
 * some or all keep what they have.
 */
int release_sockets(const char *pin_dir, struct err *e);

/* --- selftest --- */

struct selftest {
	const char *cgroup;
	unsigned long long cgroup_id;
	enum klb_scope scope; /* of the frontend that the test connects to */
	/*
	 * Whether to check getpeername. Not when its program is left out, nor while programs still
	 * run on another cgroup above or below too: both would write the same record.
	 */
	bool peername;
};

/*
 * Connects through the attached programs, from inside the cgroup: through a frontend made for the
 * test to a listener made for the test. Nothing leaves the host and no apiserver is involved.
 * klb_counters.selftest then says what the programs have seen. -EIO with e when they are not
 * effective.
 */
int selftest_connect(const struct datapath *dp, const struct selftest *t, struct err *e);

/*
 * Runs test in a child process, in a new cgroup below cgroup. Returns its exit status, which is
 * below 127, or -1 when no process can join the cgroup.
 */
int selftest_inside(const char *cgroup, int (*test)(void *arg), void *arg);

/* Removes what a killed test connect has left in `lookup` (-1: none) and in the cgroup. */
void selftest_remove_leftovers(int lookup_fd, const char *cgroup);

#endif
