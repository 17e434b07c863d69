/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads small files and standard input as a whole, with messages that say what to do. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

void file_identify(const char *path, struct file_identity *ret)
{
	struct stat st;

	*ret = (struct file_identity){ 0 };
	if (stat(path, &st))
		return;
	ret->device = st.st_dev;
	ret->inode = st.st_ino;
	ret->size = st.st_size;
	ret->modified = st.st_mtim;
	ret->changed = st.st_ctim;
}

static bool same_time(const struct timespec *x, const struct timespec *y)
{
	return x->tv_sec == y->tv_sec && x->tv_nsec == y->tv_nsec;
}

bool file_is_same(const struct file_identity *x, const struct file_identity *y)
{
	return x->device == y->device && x->inode == y->inode && x->size == y->size &&
	       same_time(&x->modified, &y->modified) && same_time(&x->changed, &y->changed);
}

/* flags: O_NOFOLLOW or 0. ret: of the very file that is open. */
static int open_regular(const char *path, int flags, struct stat *ret, struct err *e)
{
	int fd, r = 0;

	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | flags);
	if (fd < 0 && errno == ENOENT)
		return err_set(e, ENOENT, "%s: no such file", path);
	if (fd < 0 && errno == EACCES && !geteuid())
		return err_set(
			e, EACCES,
			"%s: cannot be opened: %m; root reads it only as the owner or by the "
			"mode: chown it, or the folder that it is in, to root",
			path);
	if (fd < 0)
		return err_set(e, errno, "%s: cannot be opened: %s", path, err_reason(errno));
	if (fstat(fd, ret) < 0)
		r = err_set(e, errno, "%s: cannot be examined: %m", path);
	else if (S_ISDIR(ret->st_mode))
		r = err_set(e, EISDIR, "%s: is a directory", path);
	else if (!S_ISREG(ret->st_mode))
		r = err_set(e, EINVAL, "%s: is not a regular file", path);
	if (r < 0) {
		close(fd);
		return r;
	}
	return fd;
}

/* Reads up to size bytes into buf. Returns their number, or a negative errno. */
static ssize_t read_all(int fd, char *buf, size_t size)
{
	size_t length = 0;

	while (length < size) {
		ssize_t n = read(fd, buf + length, size - length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		length += (size_t)n;
	}
	return (ssize_t)length;
}

/* text holds max bytes, one more byte that shows that the file is too large, and a NUL. */
static int read_text(const char *path, int fd, size_t max, char *text, size_t *ret_length,
		     struct err *e)
{
	ssize_t length = read_all(fd, text, max + 1);

	if (length < 0) {
		errno = (int)-length;
		return err_set(e, errno, "%s: cannot be read: %m", path);
	}
	if ((size_t)length > max)
		return err_set(e, EFBIG, "%s: larger than %zu bytes", path, max);
	text[length] = '\0';
	*ret_length = (size_t)length;
	return 0;
}

static int read_descriptor(const char *path, int fd, size_t max, char **ret, size_t *ret_length,
			   struct err *e)
{
	char *text = malloc(max + 2);
	int r;

	if (!text)
		return err_no_memory_for(e, path);
	r = read_text(path, fd, max, text, ret_length, e);
	if (r < 0) {
		free(text);
		return r;
	}
	*ret = text;
	return 0;
}

int file_read(const char *path, size_t max, char **ret, size_t *ret_length, struct err *e)
{
	struct stat st;
	int r, fd = open_regular(path, 0, &st, e);

	if (fd < 0)
		return fd;
	r = read_descriptor(path, fd, max, ret, ret_length, e);
	close(fd);
	return r;
}

static int check_owner(const char *path, const struct stat *st, struct err *e)
{
	if (st->st_uid != 0 && st->st_uid != geteuid())
		return err_set(e, EACCES,
			       "%s: belongs to user %u and is ignored; remove it, or "
			       "chown it to root",
			       path, st->st_uid);
	if (st->st_mode & (S_IWGRP | S_IWOTH))
		return err_set(e, EACCES,
			       "%s: others can write it and it is ignored; remove it, "
			       "or chmod 600 it",
			       path);
	return 0;
}

int file_read_own(const char *path, size_t max, char **ret, size_t *ret_length, struct err *e)
{
	struct stat st = { 0 };
	int r, fd = open_regular(path, O_NOFOLLOW, &st, e);

	if (fd == -ELOOP)
		return err_set(e, ELOOP, "%s: is a link and is ignored; remove it", path);
	if (fd < 0)
		return fd;
	r = check_owner(path, &st, e);
	if (!r)
		r = read_descriptor(path, fd, max, ret, ret_length, e);
	close(fd);
	return r;
}

/* Copies why to e and adds what to do about it. Returns r. */
static int fail_next(int r, const struct err *why, const char *option, struct err *e)
{
	switch (r) {
	case -ENOENT:
		return err_set(e, -r, "%s; create it, or name another with %s", why->text, option);
	case -EACCES:
	case -EPERM:
		return err_set(e, -r, "%s; check its permissions, or run as root", why->text);
	case -ENOMEM:
	case -EMFILE:
	case -ENFILE:
		return err_set(e, -r, "%s", why->text);
	case -EFBIG:
		return err_set(e, -r, "%s; so it is no configuration; name another with %s",
			       why->text, option);
	default:
		return err_set(e, -r, "%s; name another with %s", why->text, option);
	}
}

int file_read_named(const char *path, const char *option, size_t max, char **ret,
		    size_t *ret_length, struct err *e)
{
	struct err why;
	int r = file_read(path, max, ret, ret_length, &why);

	return r < 0 ? fail_next(r, &why, option, e) : 0;
}

int file_read_stdin(const char *option, size_t max, char **ret, size_t *ret_length, struct err *e)
{
	struct err why;
	int r = read_descriptor(FILE_STDIN, STDIN_FILENO, max, ret, ret_length, &why);

	return r < 0 ? fail_next(r, &why, option, e) : 0;
}

bool file_read_line(const char *path, const char *prefix, char *ret, size_t size)
{
	FILE *f = fopen(path, "re");
	size_t length = strlen(prefix);
	bool found = false;

	while (f && !found && fgets(ret, (int)size, f))
		found = !strncmp(ret, prefix, length);
	if (f)
		fclose(f);
	if (!found) {
		ret[0] = '\0';
		return false;
	}
	memmove(ret, ret + length, strlen(ret + length) + 1);
	ret[strcspn(ret, "\n")] = '\0';
	return true;
}

int file_spare(unsigned int n)
{
	int fds[FILE_SPARE_MAX], r = 0;
	unsigned int have = 0;

	while (!r && have < n && have < FILE_SPARE_MAX) {
		fds[have] = eventfd(0, EFD_CLOEXEC);
		if (fds[have] < 0)
			r = -errno;
		else
			have++;
	}
	while (have)
		close(fds[--have]);
	return r;
}

void file_forget(char *text, size_t length)
{
	if (!text)
		return;
	explicit_bzero(text, length);
	free(text);
}
