/* SPDX-License-Identifier: BSD-2-Clause */
/* Paths, pins, and the errors of bpf(2). All other files of this folder use it. */
#include "datapath/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/refusal.h"

const char *const map_pins[MAP_COUNT] = {
	[MAP_FRONTENDS] = "frontends", [MAP_LOOKUP] = "lookup",	    [MAP_CANDIDATES] = "candidates",
	[MAP_BACKENDS] = "backends",   [MAP_STATS] = "stats",	    [MAP_ADMIN] = "admin",
	[MAP_CONTROL] = "control",     [MAP_COUNTERS] = "counters", [MAP_PENDING] = "pending",
	[MAP_EVENTS] = "events",       [MAP_ENDING] = "ending",	    [MAP_WAKEUP] = "wakeup",
	[MAP_SOCKETS] = "sockets",     [MAP_RELAYED] = "relayed",
};

bool map_is_optional(int index)
{
	return index == MAP_WAKEUP;
}

int path_join(char *ret, const char *dir, const char *name, struct err *e)
{
	int n = snprintf(ret, PATH_TEXT_MAX, "%s/%s", dir, name);

	if (n < 0 || n >= PATH_TEXT_MAX)
		return err_set(e, ENAMETOOLONG, "%.100s…: path too long", dir);
	return 0;
}

int path_with_suffix(char *ret, const char *dir, struct err *e)
{
	int n = snprintf(ret, PATH_TEXT_MAX, "%s_new", dir);

	if (n < 0 || n >= PATH_TEXT_MAX)
		return err_set(e, ENAMETOOLONG, "%.100s…: path too long", dir);
	return 0;
}

bool datapath_is_pinned(const char *pin_dir)
{
	char path[PATH_TEXT_MAX];

	return !path_join(path, pin_dir, map_pins[MAP_CONTROL], NULL) && !access(path, F_OK);
}

int require_root(struct err *e)
{
	if (!geteuid())
		return 0;
	return err_set(e, EPERM,
		       "must run as root: it takes CAP_SYS_ADMIN and CAP_NET_ADMIN to see "
		       "and to change what is attached");
}

bool is_private_dir(const char *path)
{
	struct stat st;

	return !lstat(path, &st) && S_ISDIR(st.st_mode) && st.st_uid == 0 && !(st.st_mode & 022);
}

const char *bpf_errno_hint(int code)
{
	switch (code) {
	case EPERM:
	case EACCES:
		return refusal_text();
	case EINVAL:
	case EOPNOTSUPP:
		return "the kernel does not know it; kubelb-load --check says what is missing";
	default:
		return err_reason(code);
	}
}

bool is_our_name(const char *name)
{
	return !strncmp(name, "klb_", 4);
}

int bpf_info(int fd, void *ret, __u32 size)
{
	memset(ret, 0, size);
	return bpf_obj_get_info_by_fd(fd, ret, &size) ? -errno : 0;
}

static int map_error(const struct datapath *dp, enum map_index map, struct err *e)
{
	return err_set(e, errno, "%s/%s: %s", dp->pin_dir, map_pins[map], bpf_errno_hint(errno));
}

int map_get(const struct datapath *dp, enum map_index map, void *ret, struct err *e)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(dp->fds[map], &zero, ret) ? map_error(dp, map, e) : 0;
}

static int foreign(const char *path, const char *what, struct err *e)
{
	return err_set(e, EEXIST,
		       "%s: not a %s of kubelb's; move it away, or use another directory with "
		       "--pin",
		       path, what);
}

/* Whether no bpf(2) call could open it: a directory, a link to nowhere, a file of another kind. */
static bool is_no_pin(const char *path, int code)
{
	struct stat st;

	if (code != EACCES && code != ELOOP && code != ENOTDIR && code != EINVAL)
		return false;
	return stat(path, &st) || !S_ISREG(st.st_mode) || !mounts_is_bpffs(path);
}

int dir_check_owner(int fd, const char *dir, struct err *e)
{
	struct stat st;

	if (fstat(fd, &st))
		return err_set(e, errno, "%s: %s", dir, err_reason(errno));
	if (st.st_uid == 0 && !(st.st_mode & 022))
		return 0;
	return err_set(
		e, EPERM,
		"%s: belongs to user %u (mode %04o): others could change what is pinned there; "
		"remove it, or use another directory with --pin",
		dir, st.st_uid, st.st_mode & 07777);
}

/* Opens the directory that path is in, which only root may be able to change. */
static int open_parent(const char *path, struct err *e)
{
	const char *slash = strrchr(path, '/');
	char dir[PATH_TEXT_MAX];
	int fd, r;

	snprintf(dir, sizeof(dir), "%.*s", slash && slash != path ? (int)(slash - path) : 1,
		 slash ? path : ".");
	fd = open(dir, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = dir_check_owner(fd, dir, e);
	if (r)
		close(fd);
	return r ? r : fd;
}

/*
 * Opens the pin in the very directory that was looked at: its name may lead elsewhere by then. The
 * kernel takes a directory's descriptor here from 6.5 on only, so procfs has to lead there. Where
 * there is none, nobody but root is there either.
 */
static int get_in(int dir_fd, const char *path)
{
	char text[PATH_TEXT_MAX];

	if (access("/proc/self/fd", F_OK))
		return bpf_obj_get(path);
	snprintf(text, sizeof(text), "/proc/self/fd/%d%s", dir_fd, strrchr(path, '/'));
	return bpf_obj_get(text);
}

int pin_open(const char *path, const char *what, struct err *e)
{
	struct err why = { "" };
	int code, fd, dir_fd = open_parent(path, &why);

	if (dir_fd == -EPERM && why.text[0])
		return err_set(e, EPERM, "%s", why.text);
	code = dir_fd < 0 ? -dir_fd : 0;
	if (!code) {
		fd = get_in(dir_fd, path);
		code = errno;
		close(dir_fd);
		if (fd >= 0)
			return fd;
	}
	if (code == ENOENT)
		return err_set(e, ENOENT, "%s: not there; run kubelb-load", path);
	if (is_no_pin(path, code))
		return foreign(path, what, e);
	return err_set(e, code, "%s: cannot be opened: %s", path, bpf_errno_hint(code));
}

int pin_open_map(const char *pin_dir, const char *name, struct bpf_map_info *ret_info,
		 struct err *e)
{
	__u32 length = sizeof(*ret_info);
	char path[PATH_TEXT_MAX];
	int fd, r;

	r = path_join(path, pin_dir, name, e);
	if (r)
		return r;
	fd = pin_open(path, "map", e);
	if (fd < 0)
		return fd;
	memset(ret_info, 0, sizeof(*ret_info));
	r = bpf_obj_get_info_by_fd(fd, ret_info, &length) ? errno : 0;
	/* A link or a program answers with another structure, so its type differs. */
	if (!r && length >= offsetof(struct bpf_map_info, ifindex) && is_our_name(ret_info->name))
		return fd;
	close(fd);
	return r ? err_set(e, r, "%s: cannot be looked at: %s", path, bpf_errno_hint(r))
		 : foreign(path, "map", e);
}
