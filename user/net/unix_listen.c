/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Listens at a path.
 *
 * Whoever can write the directory can put a socket of their own there, and answer in the agent's
 * place. So the directory is checked first, and whatever the path leads to then is root's.
 */
#include "net/unix_listen.h"

#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define SOCKET_MODE 0600
#define DIRECTORY_MODE 0755

static struct sockaddr_un address_of(const char *path)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };

	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
	return sun;
}

/* Makes the directory if only that is missing, and checks whose it is. */
static int prepare_directory(const char *path, struct err *e)
{
	char copy[UNIX_PATH_MAX_BYTES], *directory;
	struct stat st;

	snprintf(copy, sizeof(copy), "%s", path);
	directory = dirname(copy);
	if (mkdir(directory, DIRECTORY_MODE) && errno != EEXIST && errno != EROFS)
		return err_set(e, errno, "http: cannot create %s for the socket: %s", directory,
			       err_reason(errno));
	if (stat(directory, &st))
		return err_set(e, errno, "http: cannot examine %s for the socket: %s", directory,
			       err_reason(errno));
	if (st.st_uid != 0 && st.st_uid != geteuid())
		return err_set(
			e, EACCES,
			"http: %s belongs to user %u, who could answer in the agent's place; "
			"choose another directory, or chown it to root",
			directory, st.st_uid);
	if (st.st_mode & (S_IWGRP | S_IWOTH))
		return err_set(e, EACCES,
			       "http: others can write %s, and could answer in the agent's place; "
			       "choose another directory, or chmod 755 it",
			       directory);
	return 0;
}

/* Returns 0 when somebody listens there, or a negative errno. */
static int try_connect(const char *path)
{
	const struct sockaddr_un sun = address_of(path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int r;

	if (fd < 0)
		return -errno;
	r = connect(fd, (const struct sockaddr *)&sun, sizeof(sun)) ? -errno : 0;
	close(fd);
	/* Its backlog is full. */
	return r == -EAGAIN ? 0 : r;
}

/* Removes what an agent that was killed has left. */
static int remove_stale(const char *path, struct err *e)
{
	struct stat st;
	int r;

	if (lstat(path, &st))
		return errno == ENOENT ? 0
				       : err_set(e, errno, "http: cannot examine %s: %s", path,
						 err_reason(errno));
	if (!S_ISSOCK(st.st_mode))
		return err_set(
			e, EEXIST,
			"http: %s exists and is no socket; remove it, or choose another path",
			path);
	r = try_connect(path);
	if (!r)
		return err_set(e, EADDRINUSE,
			       "http: cannot listen on %s: somebody else listens there", path);
	if (r != -ECONNREFUSED && r != -ENOENT)
		return err_set(e, -r, "http: cannot tell whether somebody listens on %s: %s", path,
			       err_reason(-r));
	if (unlink(path) && errno != ENOENT)
		return err_set(e, errno, "http: cannot remove the old socket %s: %s", path,
			       err_reason(errno));
	return 0;
}

static int listen_at(const char *path, int backlog, struct unix_listen *ret)
{
	const struct sockaddr_un sun = address_of(path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct stat st;
	int code;

	if (fd < 0)
		return -errno;
	/* The file gets the mode of the socket (unix_bind_bsd). */
	if (!fchmod(fd, SOCKET_MODE) && !bind(fd, (const struct sockaddr *)&sun, sizeof(sun))) {
		if (!lstat(path, &st) && !listen(fd, backlog)) {
			snprintf(ret->path, sizeof(ret->path), "%s", path);
			ret->device = st.st_dev;
			ret->inode = st.st_ino;
			return fd;
		}
		code = errno;
		unlink(path);
	} else {
		code = errno;
	}
	close(fd);
	return err_negative(code);
}

int unix_listen(const char *path, int backlog, struct unix_listen *ret, struct err *e)
{
	int r = prepare_directory(path, e);

	ret->path[0] = '\0';
	if (!r)
		r = remove_stale(path, e);
	if (r)
		return r;
	r = listen_at(path, backlog, ret);
	return r >= 0 ? r : err_set(e, -r, "http: cannot listen on %s: %s", path, err_reason(-r));
}

void unix_listen_remove(struct unix_listen *u)
{
	struct stat st;

	if (u->path[0] && !lstat(u->path, &st) && st.st_dev == u->device && st.st_ino == u->inode)
		unlink(u->path);
	u->path[0] = '\0';
}
