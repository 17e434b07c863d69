/* SPDX-License-Identifier: BSD-2-Clause */
/* Finds the cgroup2 mount and the bpffs, and mounts a bpffs where none is. */
#include "host/mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/file.h"

#define BPFFS_MOUNT "/sys/fs/bpf"

/* The fields of one line of mountinfo that matter here. */
struct mount_line {
	char root[512];
	char point[512];
	char type[32];
};

static bool parse_line(const char *line, struct mount_line *ret)
{
	const char *dash = strstr(line, " - ");

	return dash && sscanf(line, "%*s %*s %*s %511s %511s", ret->root, ret->point) == 2 &&
	       sscanf(dash + 3, "%31s", ret->type) == 1;
}

/* mountinfo writes blanks and backslashes as \ooo. */
static void unescape(char *s)
{
	char *to = s;

	for (; *s; s++) {
		if (s[0] == '\\' && s[1] && s[2] && s[3]) {
			*to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 3;
		} else {
			*to++ = *s;
		}
	}
	*to = '\0';
}

/*
 * Ranks a cgroup2 mount by how close its root is to the root of the hierarchy. The path is relative
 * to the root of our cgroup namespace (cgroup_namespaces(7)): "/" is that root, which in a
 * container is the container's own cgroup; "/../.." is two levels above it. "/a" and "/../a" are
 * other branches and rank last.
 */
static int root_rank(const char *root)
{
	int up = 0;

	for (; !strncmp(root, "/..", 3) && (!root[3] || root[3] == '/'); root += 3)
		up++;
	return !*root || !strcmp(root, "/") ? up : -1;
}

/* Fills ret from *line and moves *line to the next one; NULL behind the last. */
static bool take_line(const char **line, struct mount_line *ret)
{
	const char *end = strchr(*line, '\n');
	size_t length = end ? (size_t)(end - *line) : strlen(*line);
	char copy[2048];

	snprintf(copy, sizeof(copy), "%.*s", (int)length, *line);
	*line = end ? end + 1 : NULL;
	return parse_line(copy, ret);
}

int mounts_find_cgroup2(const char *mountinfo, char *ret, size_t size)
{
	int best = INT_MIN;

	for (const char *line = mountinfo; line && *line;) {
		struct mount_line m;

		if (!take_line(&line, &m) || strcmp(m.type, "cgroup2") != 0)
			continue;
		if (root_rank(m.root) <= best)
			continue;
		best = root_rank(m.root);
		unescape(m.point);
		snprintf(ret, size, "%s", m.point);
	}
	return best == INT_MIN ? -ENOENT : 0;
}

/* Far more than the mounts of any host take. */
#define MOUNTINFO_BYTES_MAX ((size_t)16 * 1024 * 1024)

int mounts_cgroup2_root(char *ret, size_t size, struct err *e)
{
	char *text = NULL;
	size_t length = 0;
	int r = file_read("/proc/self/mountinfo", MOUNTINFO_BYTES_MAX, &text, &length, NULL);

	if (r)
		return err_set(e, -r, "/proc/self/mountinfo: %s", err_reason(-r));
	r = mounts_find_cgroup2(text, ret, size);
	free(text);
	if (r)
		return err_set(
			e, ENOENT,
			"no cgroup2 file system is mounted; mount one (mount -t cgroup2 none "
			"/sys/fs/cgroup) or name its directory with --cgroup");
	return 0;
}

int mounts_open_cgroup(const char *dir, unsigned long long *ret_id, struct err *e)
{
	struct statfs fs;
	struct stat st;
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 && err_is_shortage(errno))
		return err_set(e, errno, "cgroup %s: cannot be opened: %s", dir, err_reason(errno));
	if (fd < 0)
		return err_set(e, errno, "cgroup %s: %s; name a cgroup v2 directory with --cgroup",
			       dir, strerror(errno));
	if (fstatfs(fd, &fs) || fs.f_type != CGROUP2_SUPER_MAGIC || fstat(fd, &st)) {
		close(fd);
		return err_set(
			e, EINVAL,
			"cgroup %s: not on a cgroup2 file system; name a cgroup v2 directory "
			"with --cgroup",
			dir);
	}
	/* On 64-bit hosts kernfs shows the cgroup's id as the inode number. */
	*ret_id = st.st_ino;
	return fd;
}

bool mounts_is_bpffs(const char *dir)
{
	struct statfs fs;

	return !statfs(dir, &fs) && fs.f_type == BPF_FS_MAGIC;
}

void mounts_each_bpffs(void (*visit)(void *arg, char *point), void *arg)
{
	char *text = NULL;
	size_t length = 0;

	if (file_read("/proc/self/mountinfo", MOUNTINFO_BYTES_MAX, &text, &length, NULL))
		return;
	for (const char *line = text; line && *line;) {
		struct mount_line m;

		if (!take_line(&line, &m) || strcmp(m.type, "bpf") != 0)
			continue;
		unescape(m.point);
		visit(arg, m.point);
	}
	free(text);
}

/* Finds the nearest directory that exists: path itself or one above it. */
static void find_existing_parent(const char *path, char *ret, size_t size)
{
	struct stat st;

	snprintf(ret, size, "%s", path);
	while (stat(ret, &st) && strlen(ret) > 1) {
		char *slash = strrchr(ret, '/');

		if (!slash)
			break;
		slash[slash == ret ? 1 : 0] = '\0';
	}
}

static int mount_bpffs_locked(const char *point, struct err *e)
{
	if (mount("bpf", point, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RELATIME, "mode=0700"))
		return err_set(e, errno,
			       "cannot mount bpffs at %s: %s; mount it (mount -t bpf bpf %s) and "
			       "try again",
			       point, strerror(errno), point);
	return 0;
}

int mounts_mount_bpffs(const char *point, struct err *e)
{
	/* Two processes at once would mount one bpffs over the other and hide its pins. */
	int lock = open(point, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;

	if (lock >= 0)
		flock(lock, LOCK_EX);
	if (!mounts_is_bpffs(point))
		r = mount_bpffs_locked(point, e);
	if (lock >= 0)
		close(lock);
	return r;
}

struct of_dir {
	const char *dir;
	char *ret;
	size_t size;
};

/* The longest mount point that dir is below. */
static void take_if_above(void *arg, char *point)
{
	struct of_dir *o = arg;
	size_t n = strlen(point);

	if (!strncmp(o->dir, point, n) && (!o->dir[n] || o->dir[n] == '/') && n >= strlen(o->ret))
		snprintf(o->ret, o->size, "%s", point);
}

bool mounts_bpffs_of(const char *dir, char *ret, size_t size)
{
	struct of_dir o = { dir, ret, size };

	*ret = '\0';
	mounts_each_bpffs(take_if_above, &o);
	return *ret;
}

int mounts_ensure_bpffs(const char *dir, struct err *e)
{
	char parent[512];
	size_t n = strlen(BPFFS_MOUNT);

	if (strlen(dir) >= sizeof(parent) - 16)
		return err_set(e, ENAMETOOLONG, "%.64s...: path too long", dir);
	find_existing_parent(dir, parent, sizeof(parent));
	if (strchr(dir + strlen(parent), '.'))
		return err_set(e, EINVAL,
			       "%s: a bpffs allows no dots in names; use another directory with "
			       "--pin",
			       dir);
	if (mounts_is_bpffs(parent))
		return 0;
	if (strncmp(dir, BPFFS_MOUNT, n) != 0 || (dir[n] && dir[n] != '/'))
		return err_set(e, EINVAL,
			       "%s: not on a bpffs; pins live on one only: use a directory "
			       "below " BPFFS_MOUNT " or mount a bpffs there",
			       dir);
	if (access(BPFFS_MOUNT, F_OK))
		return err_set(e, ENOENT,
			       BPFFS_MOUNT
			       " does not exist: sysfs is not mounted, or the kernel has "
			       "no bpffs; see kubelb-load --check");
	return mounts_mount_bpffs(BPFFS_MOUNT, e);
}
