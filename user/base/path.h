/* SPDX-License-Identifier: BSD-2-Clause */
/* Names of files, worked out from their text alone: links are not followed. */
#ifndef KUBELB_PATH_H
#define KUBELB_PATH_H

/*
 * The file's name seen from the directory, or the file's own name if that is absolute, without ".",
 * ".." and doubled slashes: what Go's filepath.Join makes of it. Returns a text that the caller
 * frees, or NULL when there is no memory.
 */
char *path_resolve(const char *directory, const char *file);

/*
 * The absolute directory that a file is in; a relative name begins at the working directory.
 * Returns a text that the caller frees, or NULL.
 */
char *path_directory(const char *file);

#endif
