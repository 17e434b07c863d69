/* SPDX-License-Identifier: BSD-2-Clause */
/* Writes the agent's heartbeat and plans, and the operator's settings, under the lock. */
#include "datapath/internal.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* Takes the lock and checks that the pins still lead to the maps. */
static int lock_current(const struct datapath *dp, unsigned int wait_ms, struct klb_control *ret,
			struct err *e)
{
	int r, fd = datapath_lock(dp->pin_dir, false, wait_ms, e);

	/* Detached: only this process still holds the maps. */
	if (fd == -ENOENT)
		return err_set(e, ESTALE, "%s: detached", dp->pin_dir);
	if (fd < 0)
		return fd;
	if (!datapath_is_current(dp)) {
		close(fd);
		return err_set(e, ESTALE,
			       "%s: detached, replaced or left half upgraded; run kubelb-load",
			       dp->pin_dir);
	}
	r = map_get(dp, MAP_CONTROL, ret, e);
	if (r) {
		close(fd);
		return r;
	}
	return fd;
}

/*
 * Into the map that an upgrade under way puts in place of dp's: its programs may run already, and
 * dp's pins lead there only at its end.
 */
static void beat_ahead(const struct datapath *dp, const struct datapath_heartbeat_values *values)
{
	struct klb_control *control = NULL;
	struct bpf_map_info info;
	char name[PATH_TEXT_MAX];
	int fd;

	if (path_with_suffix(name, map_pins[MAP_CONTROL], NULL))
		return;
	fd = pin_open_map(dp->pin_dir, name, &info, NULL);
	if (fd < 0)
		return;
	/* Whatever version it is of: values only grow at their end. */
	if (info.value_size >= sizeof(*control))
		control = control_map(fd);
	if (control)
		control_beat(control, values);
	control_unmap(control);
	close(fd);
}

int datapath_heartbeat(const struct datapath *dp, const struct datapath_heartbeat_values *values,
		       __u64 *ret_serial, struct err *e)
{
	struct klb_control control;
	int fd;

	control_beat(dp->control, values);
	fd = lock_current(dp, 0, &control, e);
	if (fd == -EBUSY)
		beat_ahead(dp, values);
	if (fd < 0)
		return fd;
	*ret_serial = control.config_serial;
	close(fd);
	return 0;
}

int datapath_apply(const struct datapath *dp, __u64 based_on, const struct plan *p, struct err *e)
{
	struct klb_control control;
	int fd = lock_current(dp, 0, &control, e), r;

	if (fd < 0)
		return fd;
	if (control.config_serial != based_on)
		r = err_set(e, ESTALE, "%s: changed by kubelb-load", dp->pin_dir);
	else
		r = apply_plan(dp, p, e);
	close(fd);
	return r;
}

#define ADMIN_WAIT_MS 10000

/* It may have left the list and been forgotten since the caller looked. */
static bool is_known(const struct datapath *dp, const struct plan_backend *b)
{
	struct klb_backend now;

	return !bpf_map_lookup_elem(dp->fds[MAP_BACKENDS], &b->id, &now) &&
	       now.generation == b->value.generation;
}

int datapath_change_admin(const struct datapath *dp, const struct plan_backend *b,
			  void (*change)(struct klb_admin *admin, const void *arg), const void *arg,
			  struct err *e)
{
	struct klb_control control;
	struct klb_admin admin;
	int r = 0, fd = lock_current(dp, ADMIN_WAIT_MS, &control, e);

	if (fd < 0)
		return fd;
	if (!is_known(dp, b)) {
		r = err_set(e, ESTALE, "%s: the list of backends has just changed; try again",
			    dp->pin_dir);
		goto out;
	}
	if (bpf_map_lookup_elem(dp->fds[MAP_ADMIN], &b->id, &admin))
		goto fail;
	/* An admin state of the id's earlier owner is invalid. */
	if (admin.generation != b->value.generation)
		memset(&admin, 0, sizeof(admin));
	admin.generation = b->value.generation;
	change(&admin, arg);
	if (!bpf_map_update_elem(dp->fds[MAP_ADMIN], &b->id, &admin, BPF_ANY))
		goto out;
fail:
	r = err_set(e, errno, "%s/admin: %s", dp->pin_dir, bpf_errno_hint(errno));
out:
	close(fd);
	return r;
}
