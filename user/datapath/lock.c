/* SPDX-License-Identifier: BSD-2-Clause */
/* The lock that every writer of the maps holds. */
#include "datapath/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOCK_POLL_MS 20

/* Whether path is still the directory behind fd: neither removed nor renamed. */
static bool same_dir(int fd, const char *path)
{
	struct stat held, there;

	return !fstat(fd, &held) && !stat(path, &there) && held.st_ino == there.st_ino &&
	       held.st_dev == there.st_dev;
}

/*
 * Opens the directory that stands for the data path: pin_dir, or before the first load the one that
 * it is built in, which a rename turns into pin_dir. ret: its name.
 */
static int open_lock_dir(const char *pin_dir, bool create, char *ret, struct err *e)
{
	int r, fd = open(pin_dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	snprintf(ret, PATH_TEXT_MAX, "%s", pin_dir);
	if (fd >= 0 || errno != ENOENT || !create)
		goto out;
	r = path_with_suffix(ret, pin_dir, e);
	if (r)
		return r;
	/*
	 * An empty directory of somebody else is removed. One that does not exist is not touched:
	 * at the time of the rmdir it could belong to a kubelb-load that has just locked it.
	 */
	if (!access(ret, F_OK) && !is_private_dir(ret))
		rmdir(ret);
	if (mkdir(ret, 0700) && errno != EEXIST)
		return err_set(e, errno, "%s: %s%s", pin_dir, err_reason(errno),
			       errno == ENOENT ? ": make the directory that it is to be in first"
					       : "");
	fd = open(ret, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
out:
	return fd >= 0 ? fd : err_set(e, errno, "%s: %s", ret, err_reason(errno));
}

static int lock_failed(const char *pin_dir, struct err *e)
{
	return err_set(
		e, EBUSY,
		"%s: another kubelb-load is at work on it and holds the lock; try again when "
		"it has ended",
		pin_dir);
}

/*
 * The previous holder of the lock may have removed the directory or renamed it to pin_dir. The lock
 * is on nothing then, and we start over.
 */
int datapath_lock(const char *pin_dir, bool create, unsigned int wait_ms, struct err *e)
{
	const struct timespec pause = { .tv_nsec = LOCK_POLL_MS * 1000000L };
	char dir[PATH_TEXT_MAX];
	unsigned int waited = 0;
	int r;

	for (;;) {
		int fd = open_lock_dir(pin_dir, create, dir, e);

		/* Renamed between the two opens: try again. */
		if (fd == -ENOENT && create && waited < wait_ms)
			goto wait;
		if (fd < 0)
			return fd;
		r = dir_check_owner(fd, dir, e);
		if (r) {
			close(fd);
			return r;
		}
		if (!flock(fd, LOCK_EX | LOCK_NB) && same_dir(fd, dir) &&
		    (!strcmp(dir, pin_dir) || access(pin_dir, F_OK)))
			return fd;
		close(fd);
		if (waited >= wait_ms)
			return lock_failed(pin_dir, e);
	wait:
		nanosleep(&pause, NULL);
		waited += LOCK_POLL_MS;
	}
}
