/* SPDX-License-Identifier: BSD-2-Clause */
/* Replaces a small file as a whole, so that no crash and no power cut leaves a part of it. */
#include "base/file_replace.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int write_all(int fd, const char *text)
{
	size_t left = strlen(text);

	while (left) {
		ssize_t n = write(fd, text, left);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		text += n;
		left -= (size_t)n;
	}
	return 0;
}

/* Where the file is written: everything happens in the one folder that was opened. */
struct place {
	const char *path, *folder;
	int folder_fd;
	const char *name;
	char temporary[NAME_MAX + 1];
};

static int make_place(struct place *p, const char *cure, struct err *e)
{
	int n = snprintf(p->temporary, sizeof(p->temporary), "%s.tmp", p->name);

	if (n >= (int)sizeof(p->temporary))
		return err_set(e, ENAMETOOLONG, "%s: cannot be created: %s", p->path,
			       strerror(ENAMETOOLONG));
	if (mkdir(p->folder, 0700) < 0 && errno != EEXIST)
		return err_set(e, errno, "%s: cannot be created: %m; create it, or %s", p->folder,
			       cure);
	p->folder_fd = open(p->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (p->folder_fd < 0)
		return err_set(e, errno, "%s: cannot be opened: %s", p->folder, err_reason(errno));
	return 0;
}

/* Removes a file that an earlier run has left incomplete. */
static int write_new(const struct place *p, const char *text, struct err *e)
{
	int fd, r;

	unlinkat(p->folder_fd, p->temporary, 0);
	fd = openat(p->folder_fd, p->temporary,
		    O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_set(e, errno, "%s/%s: cannot be created: %m", p->folder, p->temporary);
	r = write_all(fd, text);
	if (!r && fsync(fd) < 0)
		r = -errno;
	/* With NFS and quotas, the error may appear only here. */
	if (close(fd) < 0 && !r)
		r = -errno;
	if (!r)
		return 0;
	unlinkat(p->folder_fd, p->temporary, 0);
	return err_set(e, -r, "%s/%s: cannot be written: %s", p->folder, p->temporary,
		       strerror(-r));
}

static int replace(const char *path, const char *folder, const char *text, const char *cure,
		   struct err *e)
{
	struct place p = { .path = path, .folder = folder, .name = strrchr(path, '/') + 1 };
	int r = make_place(&p, cure, e);

	if (r)
		return r;
	r = write_new(&p, text, e);
	if (!r && renameat(p.folder_fd, p.temporary, p.folder_fd, p.name) < 0) {
		r = err_set(e, errno, "%s: cannot be replaced: %m", path);
		unlinkat(p.folder_fd, p.temporary, 0);
	}
	/* Without this, a power cut may undo the rename. */
	if (!r)
		fsync(p.folder_fd);
	close(p.folder_fd);
	return r;
}

int file_replace(const char *path, const char *text, const char *cure, struct err *e)
{
	const char *slash = strrchr(path, '/');
	char *folder;
	int r;

	if (!slash)
		return err_set(e, EINVAL, "%s: not an absolute path", path);
	folder = strndup(path, slash == path ? 1 : (size_t)(slash - path));
	r = folder ? replace(path, folder, text, cure, e) : err_no_memory_for(e, path);
	free(folder);
	return r;
}
