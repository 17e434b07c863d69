/* SPDX-License-Identifier: BSD-2-Clause */
#include "input.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static int fail_open(const char *path, const char *option, int code, struct err *e)
{
	if (code == ENOENT)
		return err_set(e, code, "%s: no such file; create it, or name another with %s",
			       path, option);
	errno = code;
	return err_set(e, code, "%s: cannot be opened: %m; check its permissions, or run as root",
		       path);
}

/* O_NONBLOCK: opening a FIFO would otherwise wait for someone to write to it. */
static int open_regular(const char *path, const char *option, int *ret, struct err *e)
{
	struct stat st;
	int fd, rc = 0;

	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return fail_open(path, option, errno, e);
	if (fstat(fd, &st) < 0)
		rc = err_set(e, errno, "%s: cannot be examined: %m; name another with %s", path,
			     option);
	else if (S_ISDIR(st.st_mode))
		rc = err_set(e, EISDIR, "%s: is a directory; name a file in it with %s", path,
			     option);
	else if (!S_ISREG(st.st_mode))
		rc = err_set(e, EINVAL, "%s: is not a regular file; name another with %s", path,
			     option);
	if (rc < 0) {
		close(fd);
		return rc;
	}
	*ret = fd;
	return 0;
}

/* Reads up to size bytes into buf; returns how many, or a negative errno. */
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

static int read_descriptor(int fd, const char *name, const char *option, size_t max, char **ret,
			   size_t *ret_length, struct err *e)
{
	char *text = malloc(max + 1);
	ssize_t length;

	if (!text)
		return err_set(e, ENOMEM, "%s: out of memory", name);
	length = read_all(fd, text, max + 1);
	if (length < 0) {
		free(text);
		errno = (int)-length;
		return err_set(e, errno, "%s: cannot be read: %m; name another with %s", name,
			       option);
	}
	*ret = text;
	*ret_length = (size_t)length;
	return 0;
}

int input_read(const char *path, const char *option, size_t max, char **ret, size_t *ret_length,
	       struct err *e)
{
	int fd = -1, rc;

	rc = open_regular(path, option, &fd, e);
	if (rc < 0)
		return rc;
	rc = read_descriptor(fd, path, option, max, ret, ret_length, e);
	close(fd);
	return rc;
}

int input_read_stdin(size_t max, char **ret, size_t *ret_length, struct err *e)
{
	return read_descriptor(STDIN_FILENO, "standard input", "a FILE", max, ret, ret_length, e);
}
