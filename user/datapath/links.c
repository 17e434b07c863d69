/* SPDX-License-Identifier: BSD-2-Clause */
/* The attachments: one bpf link for each program, pinned under links/. */
#include "datapath/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* FILEID_KERNFS, include/linux/exportfs.h. */
#define KERNFS_HANDLE 0xfe

static int prog_info(__u32 id, struct bpf_prog_info *ret)
{
	int fd = bpf_prog_get_fd_by_id(id);
	int r;

	if (fd < 0)
		return -errno;
	r = bpf_info(fd, ret, sizeof(*ret));
	close(fd);
	return r;
}

/*
 * Returns 0 for a link of kubelb, -EEXIST for something else, and -EPERM without the privileges to
 * look, which says nothing about the owner.
 */
static int check_link(int fd, struct bpf_link_info *ret_info)
{
	struct bpf_prog_info prog;
	int r = bpf_info(fd, ret_info, sizeof(*ret_info));

	if (!r && ret_info->type == BPF_LINK_TYPE_CGROUP) {
		r = prog_info(ret_info->prog_id, &prog);
		if (!r && is_our_name(prog.name))
			return 0;
	}
	return r == -EPERM || r == -EACCES ? -EPERM : -EEXIST;
}

static int link_error(const char *path, int code, struct err *e)
{
	if (code == EPERM || code == EACCES)
		return err_set(e, code, "%s: %s", path, bpf_errno_hint(code));
	return err_set(e, EEXIST,
		       "%s: not a link of kubelb's; move it away, or use another directory with "
		       "--pin",
		       path);
}

/*
 * A link whose cgroup was removed still exists and is still pinned, but runs nothing; its cgroup id
 * is 0. It counts as no link.
 */
static int open_link(const char *links_dir, unsigned long long cgroup_id, struct link_slot *s,
		     struct err *e)
{
	struct bpf_link_info info;
	char path[PATH_TEXT_MAX];
	int fd, r;

	r = path_join(path, links_dir, s->name, e);
	if (r)
		return r;
	fd = bpf_obj_get(path);
	if (fd < 0)
		return errno == ENOENT ? 0 : link_error(path, errno, e);
	r = check_link(fd, &info);
	if (r) {
		close(fd);
		return link_error(path, -r, e);
	}
	if (info.cgroup.cgroup_id != cgroup_id) {
		close(fd);
		return 0;
	}
	s->link_fd = fd;
	s->old_prog_fd = bpf_prog_get_fd_by_id(info.prog_id);
	return 0;
}

/* Opens the map of that name if the program uses it. */
static int map_of_prog(int prog_fd, const char *name, struct bpf_map_info *ret_info)
{
	__u32 ids[MAP_COUNT + 8], length = sizeof(struct bpf_prog_info);
	struct bpf_prog_info prog = { .map_ids = (__u64)(unsigned long)ids,
				      .nr_map_ids = MAP_COUNT + 8 };
	int found = -ENOENT;

	if (bpf_obj_get_info_by_fd(prog_fd, &prog, &length))
		prog.nr_map_ids = 0;
	for (__u32 i = 0; i < prog.nr_map_ids && i < MAP_COUNT + 8 && found < 0; i++) {
		int fd = bpf_map_get_fd_by_id(ids[i]);

		if (fd >= 0 && !bpf_info(fd, ret_info, sizeof(*ret_info)) &&
		    !strcmp(ret_info->name, name))
			found = fd;
		else if (fd >= 0)
			close(fd);
	}
	return found;
}

int links_old_memory(const struct link_slot *slot)
{
	struct bpf_map_info info;
	int fd;

	if (slot->old_prog_fd < 0)
		return -ENOENT;
	fd = map_of_prog(slot->old_prog_fd, "kubelb.bss", &info);
	/* Another version's memory may have another size; listens_known is always first. */
	if (fd >= 0 && info.value_size < sizeof(__u32)) {
		close(fd);
		return -ENOENT;
	}
	return fd;
}

/* Opens the pinned link connect4; -ENOENT when there is none. */
static int open_connect4(const char *pin_dir)
{
	char path[PATH_TEXT_MAX];
	int fd = -1;

	if (!path_join(path, pin_dir, "links/connect4", NULL))
		fd = bpf_obj_get(path);
	return fd < 0 ? -ENOENT : fd;
}

int links_live_map(const char *pin_dir, const char *name, struct bpf_map_info *ret_info)
{
	int r, prog_fd, found = -ENOENT, fd = open_connect4(pin_dir);
	struct bpf_link_info info;
	char map[BPF_OBJ_NAME_LEN];

	/*
	 * The connect programs use all maps but `frontends` and `backends`, which no program reads.
	 */
	if (fd < 0)
		return fd;
	r = check_link(fd, &info);
	prog_fd = r ? r : bpf_prog_get_fd_by_id(info.prog_id);
	snprintf(map, sizeof(map), "klb_%s", name);
	if (prog_fd >= 0) {
		found = map_of_prog(prog_fd, map, ret_info);
		close(prog_fd);
	} else if (r == -EPERM) {
		found = -EPERM;
	}
	close(fd);
	return found;
}

__u32 links_connect4_prog(const char *pin_dir)
{
	struct bpf_link_info info;
	int fd = open_connect4(pin_dir);
	__u32 id = 0;

	if (fd < 0)
		return 0;
	if (!bpf_info(fd, &info, sizeof(info)) && info.type == BPF_LINK_TYPE_CGROUP)
		id = info.prog_id;
	close(fd);
	return id;
}

int links_open(const char *pin_dir, unsigned long long cgroup_id, struct link_slot *slots,
	       unsigned int n, struct err *e)
{
	char dir[PATH_TEXT_MAX];
	int r = path_join(dir, pin_dir, "links", e);

	for (unsigned int i = 0; !r && i < n; i++)
		r = open_link(dir, cgroup_id, &slots[i], e);
	return r;
}

/*
 * EPERM on attach, although other attachments work, means that somebody has attached a program of
 * the same kind exclusively (without BPF_F_ALLOW_MULTI), here or above. Name that program. Never
 * replace it.
 */
static void describe_exclusive(int cgroup_fd, enum bpf_attach_type type, char *ret, size_t size)
{
	__u32 ids[16], count = 16, flags = 0;
	struct bpf_prog_info prog;

	snprintf(ret, size, "a program attached exclusively to it or above it");
	if (bpf_prog_query(cgroup_fd, type, 0, &flags, ids, &count) || !count)
		return;
	if (flags & BPF_F_ALLOW_MULTI || prog_info(ids[0], &prog))
		return;
	snprintf(ret, size, "program '%s' (id %u), which is attached exclusively", prog.name,
		 ids[0]);
}

static int attach_error(const char *cgroup, int cgroup_fd, const struct link_slot *s, int code,
			struct err *e)
{
	char who[160];

	if (code != EPERM || geteuid())
		return err_set(e, code, "cgroup %s: cannot attach %s: %s", cgroup, s->name,
			       bpf_errno_hint(code));
	describe_exclusive(cgroup_fd, bpf_program__expected_attach_type(s->prog), who, sizeof(who));
	return err_set(e, EPERM,
		       "cgroup %s: cannot attach %s beside %s; detach that program or attach it "
		       "with multi (bpftool cgroup attach … multi)",
		       cgroup, s->name, who);
}

static int attach_one(const char *cgroup, int cgroup_fd, struct link_slot *s, struct err *e)
{
	int prog_fd = bpf_program__fd(s->prog);

	if (s->link_fd >= 0) {
		if (!bpf_link_update(s->link_fd, prog_fd, NULL)) {
			s->replaced = true;
			return 0;
		}
		/* ENOLINK: the cgroup was removed after it was opened. */
		if (errno != ENOLINK)
			return attach_error(cgroup, cgroup_fd, s, errno, e);
		close(s->link_fd);
		s->link_fd = -1;
	}
	s->link_fd = bpf_link_create(prog_fd, cgroup_fd, bpf_program__expected_attach_type(s->prog),
				     NULL);
	if (s->link_fd < 0)
		return attach_error(cgroup, cgroup_fd, s, errno, e);
	return 0;
}

int links_attach(const char *cgroup, int cgroup_fd, struct link_slot *slots, unsigned int n,
		 struct err *e)
{
	for (unsigned int i = 0; i < n; i++) {
		int r = attach_one(cgroup, cgroup_fd, &slots[i], e);

		if (r) {
			links_rollback(slots, n);
			return r;
		}
	}
	return 0;
}

/* New links go with their descriptors, because they are not pinned yet. */
void links_rollback(struct link_slot *slots, unsigned int n)
{
	/*
	 * In reverse order: the new sockops goes last, because it counts the sockets of the new
	 * connect programs and sees them end.
	 */
	for (unsigned int i = n; i-- > 0;) {
		if (slots[i].replaced && slots[i].old_prog_fd >= 0)
			bpf_link_update(slots[i].link_fd, slots[i].old_prog_fd, NULL);
		slots[i].replaced = false;
	}
}

void links_close(struct link_slot *slots, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		if (slots[i].link_fd >= 0)
			close(slots[i].link_fd);
		if (slots[i].old_prog_fd >= 0)
			close(slots[i].old_prog_fd);
	}
}

/* --- detach --------------------------------------------------------------------- */

typedef int (*remove_fn)(const char *path, int fd, bool *ret_ours, struct err *e);

static int remove_pin(const char *path, struct err *e)
{
	return unlink(path) ? err_set(e, errno, "%s: %s", path, strerror(errno)) : 0;
}

static int remove_link(const char *path, int fd, bool *ret_ours, struct err *e)
{
	struct bpf_link_info info;

	int r = check_link(fd, &info);

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

static bool is_our_map(int fd)
{
	struct bpf_map_info info;

	return !bpf_info(fd, &info, sizeof(info)) && is_our_name(info.name);
}

static bool is_our_prog(int fd)
{
	struct bpf_prog_info info;

	return !bpf_info(fd, &info, sizeof(info)) && is_our_name(info.name);
}

static bool is_our_iterator(int fd)
{
	struct bpf_link_info info;
	struct bpf_prog_info prog;

	return !bpf_info(fd, &info, sizeof(info)) && info.type == BPF_LINK_TYPE_ITER &&
	       !prog_info(info.prog_id, &prog) && is_our_name(prog.name);
}

/*
 * Whether a pinned object is kubelb's. Each kind of object answers the same query with another
 * structure, so the kind comes first; procfs shows it.
 */
static bool is_our_object(int fd)
{
	char path[64], kind[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, kind, sizeof(kind) - 1);
	if (n < 0)
		return is_our_map(fd);
	kind[n] = '\0';
	if (strstr(kind, "bpf-prog"))
		return is_our_prog(fd);
	return strstr(kind, "bpf_link") || strstr(kind, "bpf-link") ? is_our_iterator(fd)
								    : is_our_map(fd);
}

static int remove_object(const char *path, int fd, bool *ret_ours, struct err *e)
{
	*ret_ours = is_our_object(fd);
	return *ret_ours ? remove_pin(path, e) : 0;
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
		return errno == ENOENT ? 0 : err_set(e, errno, "%s: %s", dir, strerror(errno));
	while (!r && (d = readdir(handle))) {
		bool ours = false;
		int fd;

		if (d->d_type == DT_DIR || (temporary && !is_temporary_name(d->d_name)) ||
		    path_join(path, dir, d->d_name, e))
			continue;
		fd = bpf_obj_get(path);
		if (fd < 0 && (errno == EPERM || errno == EACCES)) {
			r = err_set(e, errno, "%s: %s", path, bpf_errno_hint(errno));
			break;
		}
		if (fd < 0)
			continue;
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

/* First the links: when the last program has gone, nobody reads the maps any more. */
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
	bool ours;
	int fd, r = path_join(path, dir, name, e);

	if (r)
		return r;
	fd = bpf_obj_get(path);
	if (fd < 0)
		return 0;
	r = remove_one(path, fd, &ours, e);
	close(fd);
	return r;
}

/* Opens the directory of the links. dir: its name, PATH_TEXT_MAX bytes. */
static int open_links_dir(const char *pin_dir, char *dir, DIR **ret, struct err *e)
{
	int r = path_join(dir, pin_dir, "links", e);

	if (r)
		return r;
	*ret = opendir(dir);
	return *ret ? 0 : err_set(e, errno, "%s: %s", dir, strerror(errno));
}

int links_retire(const char *pin_dir, const struct link_slot *slots, unsigned int n, struct err *e)
{
	char dir[PATH_TEXT_MAX];
	struct dirent *d;
	DIR *handle;
	int r = open_links_dir(pin_dir, dir, &handle, e);

	if (r)
		return r;
	while (!r && (d = readdir(handle)))
		if (d->d_name[0] != '.' && !is_slot(d->d_name, slots, n))
			r = retire_one(dir, d->d_name, remove_link, e);
	closedir(handle);
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
	bool aside;
	int r = path_with_suffix(new_dir, pin_dir, e);

	*ret_removed = false;
	if (!r && is_private_dir(new_dir))
		r = links_remove_tree(new_dir, &aside, e);
	if (!r)
		r = links_remove_tree(pin_dir, ret_removed, e);
	return r;
}

/* --- looking -------------------------------------------------------------------- */

/*
 * Opens a cgroup by its id. The handle of a kernfs node (name_to_handle_at(2)) is its id
 * (fs/kernfs/mount.c). Returns -EPERM without the privileges for that, and another negative errno
 * when the cgroup does not exist any more.
 */
static int open_cgroup_id(__u64 id)
{
	union {
		struct file_handle handle;
		char room[sizeof(struct file_handle) + sizeof(__u64)];
	} u = { .handle = { .handle_bytes = sizeof(__u64), .handle_type = KERNFS_HANDLE } };
	char root[PATH_TEXT_MAX];
	unsigned long long root_id;
	int root_fd, fd;

	if (!id || mounts_cgroup2_root(root, sizeof(root), NULL))
		return -ENOENT;
	root_fd = mounts_open_cgroup(root, &root_id, NULL);
	if (root_fd < 0)
		return root_fd;
	memcpy(u.handle.f_handle, &id, sizeof(id));
	fd = open_by_handle_at(root_fd, &u.handle, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		fd = -errno;
	close(root_fd);
	return fd;
}

/*
 * A program is effective when it is in the effective list of its cgroup, which is what the kernel
 * runs. A link to a removed cgroup still exists and is pinned, but runs nothing.
 */
static void read_effect(const struct bpf_link_info *info, struct datapath_link *ret)
{
	__u32 ids[64], count = 64, flags = 0;
	int fd = open_cgroup_id(info->cgroup.cgroup_id);

	ret->hidden = fd == -EPERM;
	if (fd < 0)
		return;
	if (!bpf_prog_query(fd, info->cgroup.attach_type, BPF_F_QUERY_EFFECTIVE, &flags, ids,
			    &count))
		for (__u32 i = 0; i < count && !ret->effective; i++)
			ret->effective = ids[i] == info->prog_id;
	else
		ret->hidden = errno == EPERM;
	close(fd);
}

/* Returns false for something else than a link of kubelb. */
static bool read_link(int fd, const char *name, struct datapath_link *ret)
{
	struct bpf_link_info info;
	int r = check_link(fd, &info);

	if (r && r != -EPERM)
		return false;
	*ret = (struct datapath_link){ .prog_id = info.prog_id, .hidden = r == -EPERM };
	snprintf(ret->name, sizeof(ret->name), "%.31s", name);
	/*
	 * The cgroup does not exist any more, so the program does not run. No privileges are needed
	 * to see that.
	 */
	if (info.type == BPF_LINK_TYPE_CGROUP && !info.cgroup.cgroup_id)
		ret->hidden = false;
	else if (!r)
		read_effect(&info, ret);
	return true;
}

int datapath_links(const char *pin_dir, struct datapath_link *ret, unsigned int max, struct err *e)
{
	char dir[PATH_TEXT_MAX], path[PATH_TEXT_MAX];
	struct dirent *d;
	unsigned int n = 0;
	DIR *handle;
	int r = open_links_dir(pin_dir, dir, &handle, e);

	if (r)
		return r;
	while (n < max && (d = readdir(handle))) {
		int fd;

		if (d->d_name[0] == '.' || path_join(path, dir, d->d_name, e))
			continue;
		fd = bpf_obj_get(path);
		if (fd < 0)
			continue;
		n += read_link(fd, d->d_name, &ret[n]);
		close(fd);
	}
	closedir(handle);
	return (int)n;
}
