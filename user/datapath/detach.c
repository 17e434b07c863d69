/* SPDX-License-Identifier: BSD-2-Clause */
/* Detaches the data path and removes its pins. */
#include "datapath/load.h"

#include <errno.h>
#include <unistd.h>

/* A running agent then knows that this is meant, and does not attach again. */
static void set_detached(const char *pin_dir, __u32 detached)
{
	struct bpf_map_info info;
	struct klb_control control;
	__u32 zero = 0;
	int fd = pin_open_map(pin_dir, map_pins[MAP_CONTROL], &info, NULL);

	if (fd < 0)
		return;
	/* The agent of another version does not attach again. */
	if (info.value_size == sizeof(control) && !bpf_map_lookup_elem(fd, &zero, &control) &&
	    control.abi_version == KLB_ABI_VERSION) {
		control.detached = detached;
		bpf_map_update_elem(fd, &zero, &control, BPF_ANY);
	}
	close(fd);
}

/* Adds the frontends of the pinned map, if it can be read: that must not keep it attached. */
static void read_frontends(const char *pin_dir, struct datapath_detached *ret)
{
	struct klb_endpoint *previous = NULL;
	struct bpf_map_info info;
	int fd = pin_open_map(pin_dir, map_pins[MAP_FRONTENDS], &info, NULL);

	if (fd < 0)
		return;
	while (info.key_size == sizeof(*previous) && ret->n_frontends < KLB_MAX_FRONTENDS &&
	       !bpf_map_get_next_key(fd, previous, &ret->frontends[ret->n_frontends]))
		previous = &ret->frontends[ret->n_frontends++];
	close(fd);
}

static void read_netns(const char *pin_dir, struct datapath_detached *ret)
{
	struct klb_control control;
	struct bpf_map_info info;
	int fd = pin_open_map(pin_dir, map_pins[MAP_CONTROL], &info, NULL);

	control_read(fd, &info, &control);
	ret->is_host_netns = datapath_is_host_netns(&control);
	if (fd >= 0)
		close(fd);
}

int datapath_detach(const char *pin_dir, struct datapath_detached *ret, struct err *e)
{
	int lock, r;

	*ret = (struct datapath_detached){ .removed = false };
	r = require_root(e);
	if (r)
		return r;
	/* Nothing is mounted or pinned, so there is nothing to do. */
	if (access(pin_dir, F_OK) && errno == ENOENT) {
		char new_dir[PATH_TEXT_MAX];

		if (path_with_suffix(new_dir, pin_dir, e) || access(new_dir, F_OK))
			return 0;
	}
	if (!mounts_is_bpffs(pin_dir) && !access(pin_dir, F_OK))
		return err_set(e, EINVAL, "%s: not on a bpffs; nothing of kubelb's can be there",
			       pin_dir);
	lock = datapath_lock(pin_dir, true, LOCK_WAIT_MS, e);
	if (lock < 0)
		return lock;
	read_frontends(pin_dir, ret);
	read_netns(pin_dir, ret);
	set_detached(pin_dir, 1);
	r = links_remove_all(pin_dir, &ret->removed, e);
	if (r)
		set_detached(pin_dir, 0);
	close(lock);
	return r;
}
