/* SPDX-License-Identifier: BSD-2-Clause */
/* Small files, or standard input, read whole. */
#ifndef KUBELB_FILE_H
#define KUBELB_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <time.h>

#include "base/err.h"

/* What tells one content from another; all zero for a file that is not there. */
struct file_identity {
	dev_t device;
	ino_t inode;
	off_t size;
	/* changed: a writer can set modified back, and rights decide whether it can be read. */
	struct timespec modified, changed;
};

/* Of the file that path leads to. Before it is read: what is read later is never older. */
void file_identify(const char *path, struct file_identity *ret);
bool file_is_same(const struct file_identity *x, const struct file_identity *y);

/*
 * Reads a regular file of at most max bytes (a link to one counts). Returns 0 with
 * a copy that is NUL-terminated behind its length and to be freed, or a negative
 * errno with e as `PATH: what is wrong`: -ENOENT, -EACCES and the like from the
 * system, -EISDIR, -EINVAL for what is no regular file, -EFBIG. Never waits for a
 * writer, as opening a FIFO would.
 */
int file_read(const char *path, size_t max, char **ret, size_t *ret_length, struct err *e);

/*
 * The same for a configuration that a person has named: e also says what next, where
 * option, as "-c FILE", is how another is named.
 */
int file_read_named(const char *path, const char *option, size_t max, char **ret,
		    size_t *ret_length, struct err *e);

/* What messages call standard input. */
#define FILE_STDIN "standard input"

/* The same from standard input, whatever kind of file that is, up to its end. */
int file_read_stdin(const char *option, size_t max, char **ret, size_t *ret_length, struct err *e);

/* For a secret: frees what file_read returned, and leaves none of it in memory. */
void file_forget(char *text, size_t length);

#endif
