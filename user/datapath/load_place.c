/* SPDX-License-Identifier: BSD-2-Clause */
/* Chooses the cgroup, takes the lock, and cleans up after killed loads. */
#include "datapath/load.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int load_find_cgroup(struct datapath_load *l, const char *cgroup, struct err *e)
{
	if (cgroup && strlen(cgroup) >= sizeof(l->cgroup))
		return err_set(e, ENAMETOOLONG, "cgroup %.64s...: path too long", cgroup);
	if (cgroup) {
		snprintf(l->cgroup, sizeof(l->cgroup), "%s", cgroup);
	} else {
		int r = mounts_cgroup2_root(l->cgroup, sizeof(l->cgroup), e);

		if (r == -ENOENT)
			return -EOPNOTSUPP;
		if (r)
			return r;
	}
	l->cgroup_fd = mounts_open_cgroup(l->cgroup, &l->cgroup_id, e);
	if (l->cgroup_fd < 0)
		return l->cgroup_fd;
	/*
	 * A cgroup namespace shows the container's own cgroup as the root. Programs attached there
	 * would balance only the container.
	 */
	if (!cgroup && l->cgroup_id != 1)
		return err_set(e, EINVAL,
			       "cgroup %s: not the host's root but a container's view of its own "
			       "cgroup; mount the host's /sys/fs/cgroup into the container too (at "
			       "/host/cgroup, say: it is found anywhere)",
			       l->cgroup);
	return 0;
}

/* Whether all pins of an attachment exist, apart from those that a kernel may refuse. */
static bool is_complete(const char *dir)
{
	char path[PATH_TEXT_MAX];

	for (int i = 0; i < MAP_COUNT; i++)
		if (!map_is_optional(i) &&
		    (path_join(path, dir, map_pins[i], NULL) || access(path, F_OK)))
			return false;
	return !path_join(path, dir, "links/" LAST_LINK, NULL) && !access(path, F_OK);
}

/*
 * Cleans up new_dir after a first load that was killed. If it had pinned everything, it is
 * balancing already, and only the rename is missing. Otherwise its pins are removed.
 */
static int clean_new_dir(struct datapath_load *l, struct err *e)
{
	bool removed;

	/* A directory of that name that belongs to somebody else is ignored. */
	if (!access(l->pin_dir, F_OK))
		return is_private_dir(l->new_dir) ? links_remove_tree(l->new_dir, &removed, e) : 0;
	if (is_complete(l->new_dir) && !rename(l->new_dir, l->pin_dir))
		return 0;
	/* Before a first load the lock is on this directory, so it stays. */
	return links_empty_tree(l->new_dir, e);
}

/*
 * Removes the pins that a killed upgrade has left under temporary names, and the frontend of its
 * test connect, which would redirect a port of loopback. In a map of another version the frontend
 * stays until the links are switched, because that map's values have another size.
 */
static int remove_leftovers(struct datapath_load *l, struct err *e)
{
	bool ours = l->old[MAP_LOOKUP].value_size == sizeof(struct klb_lookup);
	int r = links_remove_leftovers(l->pin_dir, e);

	selftest_remove_leftovers(ours ? l->old_fds[MAP_LOOKUP] : -1, l->cgroup);
	return r;
}

/* Takes the lock and cleans up, so that the pins can be changed. */
int load_prepare_place(struct datapath_load *l, struct err *e)
{
	int r = mounts_ensure_bpffs(l->pin_dir, e);

	if (r)
		return r;
	l->lock_fd = datapath_lock(l->pin_dir, true, LOCK_WAIT_MS, e);
	if (l->lock_fd < 0)
		return l->lock_fd;
	r = clean_new_dir(l, e);
	if (!r)
		r = load_open_old_maps(l, e);
	return r ? r : remove_leftovers(l, e);
}

/*
 * The same without changing anything: no mount, no directory, and a lock only if there is something
 * to lock.
 */
int load_inspect_place(struct datapath_load *l, struct err *e)
{
	l->lock_fd = datapath_lock(l->pin_dir, false, LOCK_WAIT_MS, e);
	if (l->lock_fd == -ENOENT)
		return 0;
	return l->lock_fd < 0 ? l->lock_fd : load_open_old_maps(l, e);
}
