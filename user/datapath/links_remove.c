/* SPDX-License-Identifier: BSD-2-Clause */
/* Detaches links, and removes pins. */
#include "datapath/internal.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef int (*remove_fn)(const char *path, int fd, bool *ret_ours, struct err *e);

static int remove_pin(const char *path, struct err *e)
{
	return unlink(path) ? err_set(e, errno, "%s: %s", path, strerror(errno)) : 0;
}

static int remove_link(const char *path, int fd, bool *ret_ours, struct err *e)
{
	struct bpf_link_info info;

	int r = link_check(fd, &info);

	*ret_ours = !r;
	if (r)
		return r == -EEXIST ? 0 : link_error(path, -r, e);
	/*
	 * Detaches at once, even if another process holds the link. ENOLINK: it is detached
	 * already.
	 */
	if (bpf_link_detach(fd) && errno != ENOLINK && errno != EOPNOTSUPP && errno != EINVAL)
		return err_set(e, errno, "%s: cannot detach: %s", path, bpf_errno_hint(errno));
	return remove_pin(path, e);
}

static int check_map(int fd)
{
	struct bpf_map_info info;
	int r = bpf_info(fd, &info, sizeof(info));

	return is_ours(r, info.name);
}

static int check_prog(int fd)
{
	struct bpf_prog_info info;
	int r = bpf_info(fd, &info, sizeof(info));

	return is_ours(r, info.name);
}

static int check_iterator(int fd)
{
	struct bpf_prog_info prog = { .name = "" };
	struct bpf_link_info info;
	int r = bpf_info(fd, &info, sizeof(info));

	if (!r && info.type == BPF_LINK_TYPE_ITER)
		r = link_prog_info(info.prog_id, &prog);
	return is_ours(r, prog.name);
}

/* Only a map is asked for its first key; the answer is not to be stored anywhere. */
static bool is_map(int fd)
{
	return !bpf_map_get_next_key(fd, NULL, NULL) || errno != EINVAL;
}

/* The kernel says how long its structure is. A program's has always been three times as long as a
 * link's. */
static bool is_prog(int fd)
{
	struct bpf_prog_info info = { 0 };
	__u32 length = sizeof(info);

	return !bpf_obj_get_info_by_fd(fd, &info, &length) &&
	       length > offsetof(struct bpf_prog_info, netns_ino);
}

/*
 * Whether a pinned object is kubelb's, as link_check. Each kind of object answers the same query
 * with another structure, so the kind comes first. procfs shows it, but may be hidden.
 */
static int check_object(int fd)
{
	if (is_map(fd))
		return check_map(fd);
	return is_prog(fd) ? check_prog(fd) : check_iterator(fd);
}

static int remove_object(const char *path, int fd, bool *ret_ours, struct err *e)
{
	int r = check_object(fd);

	*ret_ours = !r;
	if (r)
		return r == -EEXIST ? 0 : link_error(path, -r, e);
	return remove_pin(path, e);
}

static bool is_temporary_name(const char *name)
{
	size_t n = strlen(name), suffix = strlen("_new");

	return n > suffix && !strcmp(name + n - suffix, "_new");
}

/*
 * Removes from dir what remove_one recognises as kubelb's. temporary: only the temporary names that
 * a killed upgrade leaves.
 */
static int empty_dir(const char *dir, remove_fn remove_one, bool temporary, bool *ret_removed,
		     struct err *e)
{
	char path[PATH_TEXT_MAX];
	struct dirent *d;
	DIR *handle = opendir(dir);
	int r = 0;

	if (!handle)
		return errno == ENOENT ? 0 : err_set(e, errno, "%s: %s", dir, err_reason(errno));
	while (!r && (d = readdir(handle))) {
		struct err why = { "" };
		bool ours = false;
		int fd;

		if (d->d_type == DT_DIR || (temporary && !is_temporary_name(d->d_name)) ||
		    path_join(path, dir, d->d_name, e))
			continue;
		fd = pin_open(path, "pin", &why);
		if (fd == -ENOENT || fd == -EEXIST)
			continue;
		if (fd < 0) {
			r = err_set(e, -fd, "%s", why.text);
			break;
		}
		r = remove_one(path, fd, &ours, e);
		close(fd);
		if (ours)
			*ret_removed = true;
	}
	closedir(handle);
	return r;
}

/* The same, and removes dir itself, which must be empty then. */
static int remove_dir(const char *dir, remove_fn remove_one, bool *ret_removed, struct err *e)
{
	int r = empty_dir(dir, remove_one, false, ret_removed, e);

	if (r)
		return r;
	if (!rmdir(dir))
		*ret_removed = true;
	else if (errno != ENOENT)
		return err_set(
			e, errno,
			"%s: holds something that is not kubelb's (%s); what was kubelb's is "
			"removed, look at the rest with ls",
			dir, strerror(errno));
	return 0;
}

/* First the links: without programs the maps are not read any more. */
int links_remove_tree(const char *pin_dir, bool *ret_removed, struct err *e)
{
	char links[PATH_TEXT_MAX];
	int r = path_join(links, pin_dir, "links", e);

	if (!r)
		r = remove_dir(links, remove_link, ret_removed, e);
	if (!r)
		r = remove_dir(pin_dir, remove_object, ret_removed, e);
	return r;
}

int links_empty_tree(const char *dir, struct err *e)
{
	char links[PATH_TEXT_MAX];
	bool removed;
	int r = path_join(links, dir, "links", e);

	if (!r)
		r = remove_dir(links, remove_link, &removed, e);
	if (!r)
		r = empty_dir(dir, remove_object, false, &removed, e);
	return r;
}

static bool is_slot(const char *name, const struct link_slot *slots, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		if (!strcmp(name, slots[i].name))
			return true;
	return false;
}

static int retire_one(const char *dir, const char *name, remove_fn remove_one, struct err *e)
{
	char path[PATH_TEXT_MAX];
	struct err why = { "" };
	bool ours;
	int fd, r = path_join(path, dir, name, e);

	if (r)
		return r;
	fd = pin_open(path, "pin", &why);
	if (fd == -ENOENT || fd == -EEXIST)
		return 0;
	if (fd < 0)
		return err_set(e, -fd, "%s", why.text);
	r = remove_one(path, fd, &ours, e);
	close(fd);
	return r;
}

int links_retire(const char *pin_dir, const struct link_slot *slots, unsigned int n, struct err *e)
{
	char dir[PATH_TEXT_MAX];
	struct dirent *d;
	DIR *handle;
	int r = links_open_dir(pin_dir, dir, &handle, e);

	if (r)
		return r;
	while (!r && (d = readdir(handle)))
		if (d->d_name[0] != '.' && !is_slot(d->d_name, slots, n))
			r = retire_one(dir, d->d_name, remove_link, e);
	closedir(handle);
	return r;
}

int links_remove_named(const char *pin_dir, const char *const *names, unsigned int n, struct err *e)
{
	char dir[PATH_TEXT_MAX];
	int r = path_join(dir, pin_dir, "links", e);

	for (unsigned int i = 0; !r && i < n; i++)
		r = retire_one(dir, names[i], remove_link, e);
	return r;
}

int links_retire_pin(const char *pin_dir, const char *name, struct err *e)
{
	return retire_one(pin_dir, name, remove_object, e);
}

int links_remove_leftovers(const char *pin_dir, struct err *e)
{
	char links[PATH_TEXT_MAX];
	bool removed;
	int r = path_join(links, pin_dir, "links", e);

	if (!r)
		r = empty_dir(links, remove_link, true, &removed, e);
	if (!r)
		r = empty_dir(pin_dir, remove_object, true, &removed, e);
	return r;
}

int links_remove_all(const char *pin_dir, bool *ret_removed, struct err *e)
{
	char new_dir[PATH_TEXT_MAX];
	bool removed;
	int r = path_with_suffix(new_dir, pin_dir, e);

	*ret_removed = false;
	if (!r && is_private_dir(new_dir))
		r = links_remove_tree(new_dir, &removed, e);
	if (!r)
		r = links_remove_tree(pin_dir, ret_removed, e);
	return r;
}
