/* SPDX-License-Identifier: BSD-2-Clause */
/* A Unix socket that only root can connect to, at a path. */
#ifndef KUBELB_UNIX_LISTEN_H
#define KUBELB_UNIX_LISTEN_H

#include <sys/types.h>

#include "base/err.h"

/* sun_path, with its NUL. */
#define UNIX_PATH_MAX_BYTES 108

/* Which file the socket is, to remove no other one. */
struct unix_listen {
	char path[UNIX_PATH_MAX_BYTES]; /* "": there is none */
	dev_t device;
	ino_t inode;
};

/*
 * Listens at path, with mode 0600. A socket that nobody listens on any more is replaced; any other
 * file stays and is an error. A missing directory is created if it is the last one. The directory
 * must be root's (or the caller's) alone to write. Returns a descriptor that does not block, for
 * the caller to close, and fills ret; or a negative errno with e: -EADDRINUSE when somebody listens
 * there.
 */
int unix_listen(const char *path, int backlog, struct unix_listen *ret, struct err *e);
/* Removes the file, if it is still the same, and forgets it. */
void unix_listen_remove(struct unix_listen *u);

#endif
