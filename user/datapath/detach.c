/* SPDX-License-Identifier: BSD-2-Clause */
/* Detaches the data path and removes its pins. */
#include "datapath/load.h"

#include <errno.h>
#include <unistd.h>

#include "base/array.h"

/* A running agent then knows that this is meant, and does not attach again. */
static void set_detached(const char *pin_dir, __u32 detached)
{
	struct klb_control *control = NULL;
	struct bpf_map_info info;
	int fd = pin_open_map(pin_dir, map_pins[MAP_CONTROL], &info, NULL);

	if (fd < 0)
		return;
	/* The agent of another version does not attach again. */
	if (info.value_size == sizeof(*control))
		control = control_map(fd);
	if (control && control->abi_version == KLB_ABI_VERSION)
		control->detached = detached;
	control_unmap(control);
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

/*
 * Detaches step by step: without the connect programs no new socket is balanced, and without
 * klb_sockops none gets time-outs. Sockets that keep what they have are no failure.
 */
static int release(const char *pin_dir, struct datapath_detached *ret, struct err *e)
{
	static const char *const connects[] = { "connect4", "connect6" };
	static const char *const sockops[] = { "sockops" };
	int r = links_remove_named(pin_dir, connects, ARRAY_SIZE(connects), e);

	if (r)
		return r;
	release_wait(pin_dir);
	r = links_remove_named(pin_dir, sockops, ARRAY_SIZE(sockops), e);
	if (r)
		return r;
	if (!release_sockets(pin_dir, &ret->kept))
		ret->kept.text[0] = '\0';
	return 0;
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
	r = release(pin_dir, ret, e);
	if (!r)
		r = links_remove_all(pin_dir, &ret->removed, e);
	if (r)
		set_detached(pin_dir, 0);
	close(lock);
	return r;
}
