/* SPDX-License-Identifier: BSD-2-Clause */
/* The steps of a load (datapath_load_begin and _commit); only load*.c and detach.c include it. */
#ifndef KUBELB_DATAPATH_LOAD_H
#define KUBELB_DATAPATH_LOAD_H

#include "datapath/object.h"

/* How long to wait for another kubelb-load. */
#define LOCK_WAIT_MS 20000
/* The pin that is made last: if it exists, all exist. */
#define LAST_LINK "connect6"

struct datapath_load {
	char pin_dir[PATH_TEXT_MAX];
	char new_dir[PATH_TEXT_MAX]; /* where a first attachment is built */
	char cgroup[PATH_TEXT_MAX];
	int cgroup_fd;
	int lock_fd;
	bool loaded; /* the programs are loaded already, on the maps that were there before the lock
		      */
	bool exists; /* pin_dir holds an attachment of kubelb */
	bool new_tables; /* frontends, lookup, candidates and backends are new maps */
	bool reused[MAP_COUNT];
	unsigned long long cgroup_id;
	struct object_request request; /* what is loaded and what is left out */
	struct object o;
	struct bpf_map_info old[MAP_COUNT]; /* of the pinned maps; id 0: none */
	int old_fds[MAP_COUNT];
	__u32 pinned_id[MAP_COUNT]; /* of the map behind the pin; 0: none */
	struct datapath view; /* the maps in use, old or new */
	struct datapath_state state;
	struct klb_stats carried[KLB_MAX_IDS]; /* the old stats, as they were copied */
	__u64 carried_other_netns; /* and klb_counters.other_netns */
	struct link_slot slots[LINK_COUNT_MAX];
	unsigned int n_slots;
	char moved[200]; /* see datapath_load_moved */
};

/*
 * Each returns 0, or a negative errno with e. The order is that of the calls.
 */

/* --- datapath_load_begin --- */

/* Opens the cgroup; NULL: the root of the cgroup2 mount. Fills in cgroup, cgroup_fd, cgroup_id. */
int load_find_cgroup(struct datapath_load *l, const char *cgroup, struct err *e);
/*
 * Loads the programs on what is attached now, without the lock, and sets loaded if that was
 * possible. Changes nothing.
 */
void load_programs_ahead(struct datapath_load *l);
/* Takes the lock, cleans up after killed loads, and opens the maps of an earlier load. */
int load_prepare_place(struct datapath_load *l, struct err *e);
/* The same without changing anything, for a dry run. */
int load_inspect_place(struct datapath_load *l, struct err *e);
/*
 * Opens the maps that an earlier load of any version has pinned. May be called again: what is
 * loaded already stays only if the maps are the same.
 */
int load_open_old_maps(struct datapath_load *l, struct err *e);
/*
 * Refuses with -EXDEV to take the balancer away from another network namespace. take: takes it.
 * Fills in moved. host_netns.c.
 */
int load_check_netns(struct datapath_load *l, bool take, struct err *e);
/* Makes the opened object use the old maps that fit. */
int load_reuse_maps(struct datapath_load *l, struct err *e);
/* Loads the programs that the kernel accepts, and opens the links to replace. */
int load_programs(struct datapath_load *l, bool dry_run, struct err *e);
/* Copies the values of old maps that do not fit into the new ones. */
int load_carry_maps(struct datapath_load *l, struct err *e);
/* Whether the kernel refuses this map. */
bool load_is_left_out(const struct datapath_load *l, int index);
/* Reads what is applied into l->state. */
int load_read_state(struct datapath_load *l, struct err *e);

/* --- datapath_load_commit --- */

int load_write_control(struct datapath_load *l, struct err *e);
/* Before the links are switched. */
void load_forget_old_listeners(const struct datapath_load *l);
/* After it. */
void load_publish_listeners(const struct datapath_load *l);
/* Tests the attached programs; -EIO with e when they are not effective. */
int load_run_selftests(struct datapath_load *l, struct err *e);
/* Add what was counted in the old maps since load_carry_maps. */
void load_carry_late_stats(struct datapath_load *l);
void load_carry_late_other_netns(struct datapath_load *l);
void load_carry_late_heartbeat(struct datapath_load *l);
/*
 * Pins the new maps of an upgrade under temporary names: the agent writes its heartbeat there too,
 * from when the programs look there.
 */
int load_pin_maps_ahead(struct datapath_load *l, struct err *e);
/* Pins into dir what it does not hold yet; load_pin_first into pin_dir, in one step. */
int load_pin_all(struct datapath_load *l, const char *dir, struct err *e);
int load_pin_first(struct datapath_load *l, struct err *e);
/* Names the program that runs now in `control`. */
int load_set_connect4_prog(struct datapath_load *l, struct err *e);
/* Undoes load_write_control. */
void load_restore_control(struct datapath_load *l);

#endif
