/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Attaches the data path: the first time, again, or over an older version.
 *
 * Maps that fit are reused, and the programs are loaded with them. Then the links are switched to
 * the new programs one by one; the kernel runs a program at every moment. What has to be new is
 * made under another name and renamed.
 */
#include "datapath/load.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct datapath_load *load_new(const char *pin_dir)
{
	struct datapath_load *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	snprintf(l->pin_dir, sizeof(l->pin_dir), "%s", pin_dir);
	l->cgroup_fd = l->lock_fd = -1;
	for (int i = 0; i < MAP_COUNT; i++)
		l->old_fds[i] = -1;
	datapath_init(&l->view, pin_dir);
	return l;
}

int datapath_load_begin(const struct datapath_load_options *o, struct datapath_load **ret,
			struct err *e)
{
	struct datapath_load *l = load_new(o->pin_dir);
	int r;

	if (!l)
		return err_no_memory(e);
	r = require_root(e);
	if (!r)
		r = path_with_suffix(l->new_dir, o->pin_dir, e);
	if (!r)
		r = load_find_cgroup(l, o->cgroup, e);
	/* What takes long comes before the lock: meanwhile the agent goes on writing. */
	if (!r)
		load_programs_ahead(l);
	if (!r)
		r = o->dry_run ? load_inspect_place(l, e) : load_prepare_place(l, e);
	if (!r)
		r = load_check_netns(l, o->this_netns, e);
	if (!r)
		r = load_programs(l, o->dry_run, e);
	if (!r)
		r = load_carry_maps(l, e);
	if (!r)
		r = load_read_state(l, e);
	if (r) {
		datapath_load_free(l);
		return r;
	}
	*ret = l;
	return 0;
}

const struct datapath_state *datapath_load_state(const struct datapath_load *l)
{
	return &l->state;
}

const char *datapath_load_cgroup(const struct datapath_load *l)
{
	return l->cgroup;
}

const __u16 *datapath_load_refused(const struct datapath_load *l)
{
	return l->request.refused;
}

const char *datapath_load_moved(const struct datapath_load *l)
{
	return l->moved;
}

bool datapath_load_is_upgrade(const struct datapath_load *l)
{
	return l->exists;
}

/*
 * New tables are filled before a program reads them. Tables in use change after the programs, when
 * nothing else can fail.
 */
static int commit(struct datapath_load *l, const struct plan *p, struct err *e)
{
	int r = load_write_control(l, e);

	if (!r && l->new_tables)
		r = apply_plan(&l->view, p, e);
	if (!r)
		r = load_pin_maps_ahead(l, e);
	if (!r) {
		load_forget_old_listeners(l);
		r = links_attach(l->cgroup, l->cgroup_fd, l->slots, l->n_slots, e);
	}
	if (!r) {
		load_carry_late_heartbeat(l);
		load_publish_listeners(l);
		r = load_run_selftests(l, e);
	}
	if (!r) {
		load_carry_late_stats(l);
		load_carry_late_other_netns(l);
	}
	if (!r)
		r = l->exists ? load_pin_all(l, l->pin_dir, e) : load_pin_first(l, e);
	if (!r && !l->new_tables)
		r = apply_plan(&l->view, p, e);
	/* Last, so that after a rollback no program that does not run is named. */
	if (!r)
		r = load_set_connect4_prog(l, e);
	return r;
}

int datapath_load_commit(struct datapath_load *l, const struct plan *p, struct err *e)
{
	int r = commit(l, p, e);

	if (r) {
		links_rollback(l->slots, l->n_slots);
		load_restore_control(l);
		if (l->exists)
			links_remove_leftovers(l->pin_dir, NULL);
	}
	return r;
}

void datapath_load_free(struct datapath_load *l)
{
	if (!l)
		return;
	links_close(l->slots, l->n_slots);
	control_unmap(l->view.control);
	object_close(&l->o);
	/* Unless a first load has renamed it to pin_dir, it is not needed any more. */
	if (l->lock_fd >= 0)
		rmdir(l->new_dir);
	for (int i = 0; i < MAP_COUNT; i++)
		if (l->old_fds[i] >= 0)
			close(l->old_fds[i]);
	if (l->cgroup_fd >= 0)
		close(l->cgroup_fd);
	if (l->lock_fd >= 0)
		close(l->lock_fd);
	free(l);
}
