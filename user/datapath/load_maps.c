/* SPDX-License-Identifier: BSD-2-Clause */
/* Opens the maps of an earlier load, and reuses those that fit. */
#include "datapath/load.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * An upgrade that was killed after switching the links and before changing the pins leaves programs
 * that run on maps without a pin. The maps that the programs use take precedence over the pinned
 * ones.
 */
static int prefer_live_maps(struct datapath_load *l, struct err *e)
{
	for (int i = 0; i < MAP_COUNT; i++) {
		struct bpf_map_info info = { 0 };
		int fd = links_live_map(l->pin_dir, map_pins[i], &info);

		if (fd < 0 && err_is_shortage(-fd))
			return err_set(e, -fd, "%s: cannot tell which maps its programs use: %s",
				       l->pin_dir, err_reason(-fd));
		if (fd < 0)
			continue;
		if (l->old_fds[i] >= 0)
			close(l->old_fds[i]);
		l->old_fds[i] = fd;
		l->old[i] = info;
	}
	return 0;
}

static int open_old_maps(struct datapath_load *l, struct err *e)
{
	struct stat st;

	if (stat(l->pin_dir, &st))
		return errno == ENOENT ? 0
				       : err_set(e, errno, "%s: %s", l->pin_dir, err_reason(errno));
	if (!S_ISDIR(st.st_mode))
		return err_set(e, ENOTDIR, "%s: not a directory; use another one with --pin",
			       l->pin_dir);
	for (int i = 0; i < MAP_COUNT; i++) {
		struct err why;
		int fd = pin_open_map(l->pin_dir, map_pins[i], &l->old[i], &why);

		if (fd == -ENOENT)
			continue;
		if (fd < 0)
			return err_set(e, -fd, "%s", why.text);
		l->old_fds[i] = fd;
		l->pinned_id[i] = l->old[i].id;
		l->exists = true;
	}
	return l->exists ? prefer_live_maps(l, e) : 0;
}

int load_open_old_maps(struct datapath_load *l, struct err *e)
{
	__u32 ids[MAP_COUNT], pinned[MAP_COUNT];
	int r;

	for (int i = 0; i < MAP_COUNT; i++) {
		ids[i] = l->old[i].id;
		if (l->old_fds[i] >= 0)
			close(l->old_fds[i]);
		l->old_fds[i] = -1;
	}
	memcpy(pinned, l->pinned_id, sizeof(pinned));
	memset(l->old, 0, sizeof(l->old));
	memset(l->pinned_id, 0, sizeof(l->pinned_id));
	l->exists = false;
	r = open_old_maps(l, e);
	/* Another kubelb-load was quicker. */
	for (int i = 0; i < MAP_COUNT; i++)
		l->loaded &= ids[i] == l->old[i].id && pinned[i] == l->pinned_id[i];
	return r;
}

/* The kernel rounds the size up to a multiple of the CPUs where each has its share
 * (htab_map_alloc). */
static bool fits_entries(const struct bpf_map *map, __u32 old)
{
	__u32 wanted = bpf_map__max_entries(map);

	if (bpf_map__map_flags(map) & BPF_F_NO_COMMON_LRU)
		return old >= wanted && old - wanted < (__u32)libbpf_num_possible_cpus();
	return old == wanted;
}

static bool fits(const struct bpf_map *map, const struct bpf_map_info *old)
{
	return old->type == (__u32)bpf_map__type(map) && old->key_size == bpf_map__key_size(map) &&
	       old->value_size == bpf_map__value_size(map) && fits_entries(map, old->max_entries) &&
	       old->map_flags == bpf_map__map_flags(map);
}

static int reuse(struct datapath_load *l, int index, struct err *e)
{
	int r = bpf_map__reuse_fd(l->o.maps[index], l->old_fds[index]);

	l->reused[index] = true;
	return r ? err_set(e, -r, "%s/%s: %s", l->pin_dir, map_pins[index], bpf_errno_hint(-r)) : 0;
}

static bool usable(const struct datapath_load *l, int index)
{
	return l->old_fds[index] >= 0 && fits(l->o.maps[index], &l->old[index]);
}

/* The maps that a plan is written to. */
static bool is_table(int index)
{
	return index == MAP_FRONTENDS || index == MAP_LOOKUP || index == MAP_CANDIDATES ||
	       index == MAP_BACKENDS;
}

/*
 * Reuses each old map that fits. The tables are reused all together or not at all: a plan that is
 * half in an old map and half in a new one would be nonsense to the programs. The same holds when
 * an upgrade was killed before its pins: the tables that programs read are found through the
 * programs, but `frontends` and `backends` are lost.
 */
int load_reuse_maps(struct datapath_load *l, struct err *e)
{
	int r = 0;

	memset(l->reused, 0, sizeof(l->reused));
	l->new_tables = false;
	for (int i = 0; i < MAP_COUNT; i++)
		l->new_tables |= is_table(i) && (!usable(l, i) || l->old[i].id != l->pinned_id[i]);
	for (int i = 0; !r && i < MAP_COUNT; i++)
		if (usable(l, i) && !(is_table(i) && l->new_tables))
			r = reuse(l, i, e);
	return r;
}

/* Whether the kernel refuses this map. The programs work without it. */
bool load_is_left_out(const struct datapath_load *l, int index)
{
	return index == MAP_WAKEUP && l->request.refused[KLB_FEATURE_WAKEUP];
}

int load_read_state(struct datapath_load *l, struct err *e)
{
	for (int i = 0; i < MAP_COUNT; i++)
		l->view.fds[i] = load_is_left_out(l, i) ? -1 : bpf_map__fd(l->o.maps[i]);
	l->view.control = control_map(l->view.fds[MAP_CONTROL]);
	if (!l->view.control)
		return err_set(e, errno, "%s/control: cannot be mapped: %s", l->pin_dir,
			       err_reason(errno));
	return datapath_read(&l->view, &l->state, e);
}
