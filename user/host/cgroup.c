/* SPDX-License-Identifier: BSD-2-Clause */
/* Finds cgroups by their ids. */
#include "host/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "host/mounts.h"

/* A node has some hundreds of cgroups. */
#define CGROUPS_MAX 10000

void cgroup_visit_below(char *dir, void (*visit)(void *arg, const char *dir), void *arg)
{
	char *const roots[] = { dir, NULL };
	FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_NOSTAT | FTS_XDEV, NULL);
	unsigned int seen = 0;
	FTSENT *entry;

	while (tree && (entry = fts_read(tree)) && seen < CGROUPS_MAX) {
		if (entry->fts_info != FTS_D || entry->fts_level == FTS_ROOTLEVEL)
			continue;
		seen++;
		visit(arg, entry->fts_path);
	}
	if (tree)
		fts_close(tree);
}

/* FILEID_KERNFS, include/linux/exportfs.h. */
#define KERNFS_HANDLE 0xfe

struct by_id {
	__u64 id;
	char path[CGROUP_PATH_MAX];
};

static void compare_id(void *arg, const char *dir)
{
	struct by_id *found = arg;
	struct stat st;

	if (!found->path[0] && !stat(dir, &st) && st.st_ino == found->id)
		snprintf(found->path, sizeof(found->path), "%s", dir);
}

/* Without the privileges that a handle takes. -EPERM: the whole hierarchy is not to be seen. */
static int search_cgroup(char *root, __u64 root_id, __u64 id)
{
	/* The agent asks for the same one again and again. */
	static struct by_id found;
	unsigned long long there = 0;
	int fd = -1;

	if (found.id == id && found.path[0])
		fd = mounts_open_cgroup(found.path, &there, NULL);
	if (fd >= 0 && there == id)
		return fd;
	if (fd >= 0)
		close(fd);
	found = (struct by_id){ .id = id };
	cgroup_visit_below(root, compare_id, &found);
	fd = found.path[0] ? open(found.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (fd >= 0)
		return fd;
	return root_id == 1 ? -ENOENT : -EPERM;
}

/* The handle of a kernfs node (name_to_handle_at(2)) is its id (fs/kernfs/mount.c). */
int cgroup_open_id(__u64 id)
{
	union {
		struct file_handle handle;
		char bytes[sizeof(struct file_handle) + sizeof(__u64)];
	} u = { .handle = { .handle_bytes = sizeof(__u64), .handle_type = KERNFS_HANDLE } };
	char root[CGROUP_PATH_MAX];
	unsigned long long root_id;
	int root_fd, fd;

	if (!id || mounts_cgroup2_root(root, sizeof(root), NULL))
		return -ENOENT;
	root_fd = mounts_open_cgroup(root, &root_id, NULL);
	if (root_fd < 0 || root_id == id)
		return root_fd;
	memcpy(u.handle.f_handle, &id, sizeof(id));
	fd = open_by_handle_at(root_fd, &u.handle, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		fd = -errno;
	close(root_fd);
	return fd == -EPERM ? search_cgroup(root, root_id, id) : fd;
}

bool cgroup_path_of(__u64 id, char *ret)
{
	int fd = cgroup_open_id(id);
	char link[64];
	ssize_t n;

	if (fd < 0)
		return false;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, ret, CGROUP_PATH_MAX - 1);
	close(fd);
	ret[n > 0 ? n : 0] = '\0';
	return n > 0;
}

bool cgroup_contains_self(__u64 id)
{
	char root[512], own[2048], path[2560];
	size_t n;

	if (id == 1)
		return true;
	if (mounts_cgroup2_root(root, sizeof(root), NULL) ||
	    !file_read_line("/proc/self/cgroup", "0::", own, sizeof(own)))
		return false;
	n = strlen(root);
	snprintf(path, sizeof(path), "%s%s", root, own);
	for (;;) {
		char *slash = strrchr(path, '/');
		struct stat st;

		if (!stat(path, &st) && st.st_ino == id)
			return true;
		if (!slash || (size_t)(slash - path) < n)
			return false;
		*slash = '\0';
	}
}
