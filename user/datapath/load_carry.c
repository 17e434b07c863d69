/* SPDX-License-Identifier: BSD-2-Clause */
/* Carries values from the maps of an older version over into new maps. */
#include "datapath/load.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/membarrier.h>

#include "base/array.h"

/* Copies the values of an older map into the new map of the same name, as far as they fit. */
static int carry_map(struct datapath_load *l, int index, struct err *e)
{
	size_t size = bpf_map__value_size(l->o.maps[index]);
	size_t old_size = l->old[index].value_size;
	char *value = calloc(1, size > old_size ? size : old_size);
	__u32 key, *previous = NULL;
	int r = 0;

	if (!value)
		return err_no_memory(e);
	while (!r && !bpf_map_get_next_key(l->old_fds[index], previous, &key)) {
		previous = &key;
		if (bpf_map_lookup_elem(l->old_fds[index], &key, value))
			continue;
		if (bpf_map_update_elem(bpf_map__fd(l->o.maps[index]), &key, value, BPF_ANY) &&
		    errno != E2BIG)
			r = err_set(e, errno, "%s/%s: cannot carry it over: %s", l->pin_dir,
				    map_pins[index], bpf_errno_hint(errno));
		memset(value, 0, size > old_size ? size : old_size);
	}
	free(value);
	return r;
}

/* Reads the counters of an older version, of any size, into this version's. */
static void read_old_stats(const struct datapath_load *l, struct klb_stats *ret)
{
	size_t old_size = l->old[MAP_STATS].value_size;
	size_t size = old_size < sizeof(*ret) ? old_size : sizeof(*ret);
	char *value = malloc(old_size);

	for (__u32 id = 0; value && id < KLB_MAX_IDS; id++)
		if (!bpf_map_lookup_elem(l->old_fds[MAP_STATS], &id, value))
			memcpy(&ret[id], value, size);
	free(value);
}

/*
 * Versions up to 0.1 did not record whose counters they are. The counters of a removed backend are
 * cleared: its sockets match no generation.
 */
static void set_generations(const struct datapath_load *l, struct klb_stats *ret)
{
	char value[256] = { 0 };
	struct klb_backend backend;

	if (l->old[MAP_STATS].value_size > offsetof(struct klb_stats, generation) ||
	    l->old[MAP_BACKENDS].value_size > sizeof(value))
		return;
	for (__u32 id = 0; id < KLB_MAX_IDS; id++) {
		if (bpf_map_lookup_elem(l->old_fds[MAP_BACKENDS], &id, value)) {
			memset(&ret[id], 0, sizeof(ret[id]));
			continue;
		}
		memcpy(&backend, value, sizeof(backend));
		ret[id].generation = backend.generation;
	}
}

/* Writes exactly what was read, and keeps it for load_carry_late_stats. */
static int carry_stats(struct datapath_load *l, struct err *e)
{
	if (l->old_fds[MAP_STATS] < 0 || l->reused[MAP_STATS])
		return 0;
	read_old_stats(l, l->carried);
	set_generations(l, l->carried);
	for (__u32 id = 0; id < KLB_MAX_IDS; id++)
		if (bpf_map_update_elem(bpf_map__fd(l->o.maps[MAP_STATS]), &id, &l->carried[id],
					BPF_ANY))
			return err_set(e, errno, "%s/stats: cannot carry it over: %s", l->pin_dir,
				       bpf_errno_hint(errno));
	return 0;
}

/* Reads klb_counters.other_netns of the old map. Returns false when it has none. */
static bool read_old_other_netns(const struct datapath_load *l, __u64 *ret)
{
	char value[256] = { 0 };
	__u32 zero = 0;

	if (l->old_fds[MAP_COUNTERS] < 0 || l->reused[MAP_COUNTERS] ||
	    l->old[MAP_COUNTERS].value_size > sizeof(value) ||
	    l->old[MAP_COUNTERS].value_size < offsetof(struct klb_counters, selftest) ||
	    bpf_map_lookup_elem(l->old_fds[MAP_COUNTERS], &zero, value))
		return false;
	memcpy(ret, value + offsetof(struct klb_counters, other_netns), sizeof(*ret));
	return true;
}

/* The tables are filled from the plan. The sockets keep their records themselves. */
int load_carry_maps(struct datapath_load *l, struct err *e)
{

	static const int carried[] = { MAP_BACKENDS, MAP_ADMIN, MAP_CONTROL, MAP_COUNTERS,
				       MAP_EVENTS };
	int r = 0;

	for (size_t i = 0; !r && i < ARRAY_SIZE(carried); i++) {
		int index = carried[i];

		if (l->old_fds[index] >= 0 && !l->reused[index])
			r = carry_map(l, index, e);
	}
	read_old_other_netns(l, &l->carried_other_netns);
	return r ? r : carry_stats(l, e);
}

/*
 * Between the copy of the old counters and the switch of the last link, connects and closes were
 * still counted in the old map. Adds the difference. The kernel is already counting in the new map,
 * so the kernel itself has to add it.
 */
void load_carry_late_stats(struct datapath_load *l)
{
	static struct klb_stats now[KLB_MAX_IDS];

	if (l->old_fds[MAP_STATS] < 0 || l->reused[MAP_STATS] || !l->o.progs[PROG_ADJUST])
		return;
	/* Waits until no CPU runs an old program any more (synchronize_rcu). */
	syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0);
	memcpy(now, l->carried, sizeof(now));
	read_old_stats(l, now);
	for (__u32 id = 1; id < KLB_MAX_IDS; id++) {
		struct klb_adjustment a = {
			.id = id,
			.generation = l->carried[id].generation,
			.active = (__s64)(now[id].active - l->carried[id].active),
			.connecting = (__s64)(now[id].connecting - l->carried[id].connecting),
			.opened = now[id].opened - l->carried[id].opened,
		};
		LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = &a, .ctx_size_in = sizeof(a));

		if (a.generation && (a.active || a.connecting || a.opened))
			bpf_prog_test_run_opts(bpf_program__fd(l->o.progs[PROG_ADJUST]), &opts);
	}
}

/* The same for the count of sockets outside of the host's network namespace. */
void load_carry_late_other_netns(struct datapath_load *l)
{
	struct klb_adjustment a = { 0 };
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = &a, .ctx_size_in = sizeof(a));
	__u64 now;

	if (!l->o.progs[PROG_ADJUST] || !read_old_other_netns(l, &now))
		return;
	a.other_netns = (__s64)(now - l->carried_other_netns);
	if (a.other_netns)
		bpf_prog_test_run_opts(bpf_program__fd(l->o.progs[PROG_ADJUST]), &opts);
}

/* A heartbeat that the agent has written into the old `control` meanwhile. */
void load_carry_late_heartbeat(struct datapath_load *l)
{
	struct klb_control old;

	if (l->old_fds[MAP_CONTROL] < 0 || l->reused[MAP_CONTROL])
		return;
	control_read(l->old_fds[MAP_CONTROL], &l->old[MAP_CONTROL], &old);
	control_beat(l->view.control, &(struct datapath_heartbeat_values){
					      .now_ns = old.heartbeat_ns,
					      .max_age_ns = old.heartbeat_max_age_ns,
					      .ends_ejections = old.ends_ejections,
					      .discovery = old.discovery,
					      .discovery_heard_ns = old.discovery_heard_ns,
					      .relay = old.relay });
}
