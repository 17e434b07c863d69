/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads small files, or standard input, as a whole. */
#ifndef KUBELB_FILE_H
#define KUBELB_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <time.h>

#include "base/err.h"

/* Tells whether a file has changed. All fields are zero for a file that does not exist. */
struct file_identity {
	dev_t device;
	ino_t inode;
	off_t size;
	/*
	 * changed: a writer can set modified back, and a change of the permissions decides whether
	 * the file can be read
	 */
	struct timespec modified, changed;
};

/* The most that file_spare can be asked for. */
#define FILE_SPARE_MAX 128

/*
 * Whether n more descriptors can be had now, for what fails in other words without them. Returns 0
 * or a negative errno.
 */
int file_spare(unsigned int n);

/*
 * Identifies the file that path leads to. Call it before reading the file: what is read is then
 * never older than the identity.
 */
void file_identify(const char *path, struct file_identity *ret);
bool file_is_same(const struct file_identity *x, const struct file_identity *y);

/*
 * Reads a regular file of at most max bytes; path may be a link to one. Returns 0 with a copy that
 * ends with a NUL behind its length, which the caller frees. On failure returns a negative errno
 * with e as `PATH: what is wrong`: -ENOENT, -EACCES and the like from the system, -EISDIR, -EINVAL
 * for a file that is not regular, -EFBIG. Never waits for a writer, as opening a FIFO would.
 */
int file_read(const char *path, size_t max, char **ret, size_t *ret_length, struct err *e);

/*
 * The same for a file that only this user and root may have written. -EACCES for one that others
 * own or can write, -ELOOP for a link. Owner and mode are those of the very file that is read,
 * whatever its name leads to a moment later.
 */
int file_read_own(const char *path, size_t max, char **ret, size_t *ret_length, struct err *e);

/*
 * The same as file_read for a configuration that a user has named. e also says what to do next;
 * option is how the user names another file, for example "-c FILE".
 */
int file_read_named(const char *path, const char *option, size_t max, char **ret,
		    size_t *ret_length, struct err *e);

/* The name of standard input in messages. */
#define FILE_STDIN "standard input"

/* The same for standard input, up to its end. It may be a file of any kind. */
int file_read_stdin(const char *option, size_t max, char **ret, size_t *ret_length, struct err *e);

/*
 * Reads the first line of a small file that begins with prefix, without the prefix and without the
 * line feed. Returns false when there is none; ret is "" then.
 */
bool file_read_line(const char *path, const char *prefix, char *ret, size_t size);

/* For a secret: overwrites what file_read returned before it frees it. NULL is allowed. */
void file_forget(char *text, size_t length);

#endif
