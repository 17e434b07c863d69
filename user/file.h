/* SPDX-License-Identifier: BSD-2-Clause */
/* Small files, or standard input, read whole. */
#ifndef KUBELB_FILE_H
#define KUBELB_FILE_H

#include <stddef.h>

#include "err.h"

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
