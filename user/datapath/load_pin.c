/* SPDX-License-Identifier: BSD-2-Clause */
/* Pins what a load has attached. */
#include "datapath/load.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int make_dir(const char *dir, struct err *e)
{
	if (mkdir(dir, 0700) && errno != EEXIST)
		return err_set(e, errno, "%s: %s", dir, strerror(errno));
	return 0;
}

static int pin_new(int fd, const char *dir, const char *name, struct err *e)
{
	char path[PATH_TEXT_MAX], new_path[PATH_TEXT_MAX];
	int r = path_join(path, dir, name, e);

	if (!r)
		r = path_with_suffix(new_path, path, e);
	if (r)
		return r;
	unlink(new_path);
	if (bpf_obj_pin(fd, new_path))
		return err_set(e, errno, "%s: cannot pin: %s", path, bpf_errno_hint(errno));
	return 0;
}

/* Replaces the old pin in one step: everybody finds one or the other. */
static int pin_rename(int fd, const char *dir, const char *name, struct err *e)
{
	char path[PATH_TEXT_MAX], new_path[PATH_TEXT_MAX];
	int r = path_join(path, dir, name, e);

	(void)fd;
	if (!r)
		r = path_with_suffix(new_path, path, e);
	if (!r && rename(new_path, path))
		r = err_set(e, errno, "%s: cannot pin: %s", path, strerror(errno));
	return r;
}

typedef int (*pin_fn)(int fd, const char *dir, const char *name, struct err *e);

/* Calls pin for each map that dir does not hold yet. */
static int pin_maps(struct datapath_load *l, const char *dir, pin_fn pin, struct err *e)
{
	int r = 0;

	for (int i = 0; !r && i < MAP_COUNT; i++)
		if (!load_is_left_out(l, i) && (!l->reused[i] || l->pinned_id[i] != l->old[i].id))
			r = pin(bpf_map__fd(l->o.maps[i]), dir, map_pins[i], e);
	/* It belongs to the programs of this version, whichever maps it uses. */
	if (!r && l->o.progs[PROG_ADJUST])
		r = pin(bpf_program__fd(l->o.progs[PROG_ADJUST]), dir, PIN_ADJUST, e);
	return r;
}

/* The same for links. */
static int pin_links(struct datapath_load *l, const char *links, pin_fn pin, struct err *e)
{
	int r = 0;

	for (unsigned int i = 0; !r && i < l->n_slots; i++)
		if (!l->slots[i].replaced)
			r = pin(l->slots[i].link_fd, links, l->slots[i].name, e);
	return r;
}

/*
 * Removes what an earlier load has pinned and this one has not: the kernel refuses it now, or it is
 * of an older version.
 */
static int retire_pins(struct datapath_load *l, const char *dir, struct err *e)
{
	int r = links_retire(dir, l->slots, l->n_slots, e);

	if (!r && load_is_left_out(l, MAP_WAKEUP))
		r = links_retire_pin(dir, map_pins[MAP_WAKEUP], e);
	if (!r && !l->o.progs[PROG_ADJUST])
		r = links_retire_pin(dir, PIN_ADJUST, e);
	return r ? r : links_retire_pin(dir, RETIRED_CONNECTIONS, e);
}

int load_pin_maps_ahead(struct datapath_load *l, struct err *e)
{
	return l->exists ? pin_maps(l, l->pin_dir, pin_new, e) : 0;
}

/* Everything that can fail happens under temporary names, before the first name changes. */
int load_pin_all(struct datapath_load *l, const char *dir, struct err *e)
{
	char links[PATH_TEXT_MAX];
	int r = make_dir(dir, e);

	if (!r)
		r = path_join(links, dir, "links", e);
	if (!r)
		r = make_dir(links, e);
	if (!r && !l->exists)
		r = pin_maps(l, dir, pin_new, e);
	if (!r)
		r = pin_links(l, links, pin_new, e);
	if (!r)
		r = pin_maps(l, dir, pin_rename, e);
	if (!r)
		r = pin_links(l, links, pin_rename, e);
	return r ? r : retire_pins(l, dir, e);
}

/* A first attachment appears under its name completely or not at all. */
int load_pin_first(struct datapath_load *l, struct err *e)
{
	int r = load_pin_all(l, l->new_dir, e);

	/* An empty directory of that name may exist already. */
	if (!r && rmdir(l->pin_dir) && errno != ENOENT)
		r = err_set(e, errno,
			    "%s: holds something that is not kubelb's (%s); move it away, or use "
			    "another directory with --pin",
			    l->pin_dir, strerror(errno));
	if (!r && rename(l->new_dir, l->pin_dir))
		r = err_set(e, errno, "%s: %s", l->pin_dir, strerror(errno));
	if (r)
		links_empty_tree(l->new_dir, NULL);
	return r;
}
