/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads the pinned links, and whether the kernel runs their programs. */
#include "datapath/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* FILEID_KERNFS, include/linux/exportfs.h. */
#define KERNFS_HANDLE 0xfe

/*
 * Opens a cgroup by its id. The handle of a kernfs node (name_to_handle_at(2)) is its id
 * (fs/kernfs/mount.c). Returns -EPERM without the privileges for that, and another negative errno
 * when the cgroup does not exist any more.
 */
static int open_cgroup_id(__u64 id)
{
	union {
		struct file_handle handle;
		char bytes[sizeof(struct file_handle) + sizeof(__u64)];
	} u = { .handle = { .handle_bytes = sizeof(__u64), .handle_type = KERNFS_HANDLE } };
	char root[PATH_TEXT_MAX];
	unsigned long long root_id;
	int root_fd, fd;
	int r = id ? mounts_cgroup2_root(root, sizeof(root), NULL) : -ENOENT;

	if (r)
		return r;
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
static int read_effect(const struct bpf_link_info *info, struct datapath_link *ret)
{
	__u32 ids[64], count = 64, flags = 0;
	int fd = open_cgroup_id(info->cgroup.cgroup_id);

	ret->hidden = fd == -EPERM;
	if (fd < 0)
		return fd;
	if (!bpf_prog_query(fd, info->cgroup.attach_type, BPF_F_QUERY_EFFECTIVE, &flags, ids,
			    &count))
		for (__u32 i = 0; i < count && !ret->effective; i++)
			ret->effective = ids[i] == info->prog_id;
	else
		ret->hidden = errno == EPERM;
	close(fd);
	return 0;
}

/*
 * Returns 1, 0 for something else than a link of kubelb, or the negative errno of a shortage, which
 * must not look as if the kernel ran nothing.
 */
static int read_link(int fd, const char *name, struct datapath_link *ret)
{
	struct bpf_link_info info;
	int r = link_check(fd, &info);

	if (r && r != -EPERM)
		return r == -EEXIST ? 0 : r;
	*ret = (struct datapath_link){ .prog_id = info.prog_id, .hidden = r == -EPERM };
	snprintf(ret->name, sizeof(ret->name), "%.31s", name);
	/*
	 * The cgroup does not exist any more, so the program does not run. No privileges are needed
	 * to see that.
	 */
	if (info.type == BPF_LINK_TYPE_CGROUP && !info.cgroup.cgroup_id)
		ret->hidden = false;
	else if (!r)
		r = read_effect(&info, ret);
	return err_is_shortage(-r) ? r : 1;
}

static int read_pin(const char *dir, const char *name, struct datapath_link *ret, struct err *e)
{
	char path[PATH_TEXT_MAX];
	int fd, r = path_join(path, dir, name, e);

	if (r)
		return r;
	fd = pin_open(path, "link", e);
	if (fd < 0)
		return fd == -ENOENT || fd == -EEXIST ? 0 : fd;
	r = read_link(fd, name, ret);
	close(fd);
	return r < 0 ? link_error(path, -r, e) : r;
}

int datapath_links(const char *pin_dir, struct datapath_link *ret, unsigned int max, struct err *e)
{
	char dir[PATH_TEXT_MAX];
	struct dirent *d;
	unsigned int n = 0;
	DIR *handle;
	int r = links_open_dir(pin_dir, dir, &handle, e);

	if (r)
		return r;
	while (r >= 0 && n < max && (d = readdir(handle)))
		if (d->d_name[0] != '.') {
			r = read_pin(dir, d->d_name, &ret[n], e);
			n += r > 0;
		}
	closedir(handle);
	return r < 0 ? r : (int)n;
}
