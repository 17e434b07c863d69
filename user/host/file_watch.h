/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tells when files have changed, however: written in place, renamed over, reached through a
 * symbolic link that now leads elsewhere (as the files of a mounted ConfigMap are, and a
 * kubelet's rotating certificates), gone, there for the first time, or readable at last.
 */
#ifndef KUBELB_FILE_WATCH_H
#define KUBELB_FILE_WATCH_H

#include "base/err.h"
#include "base/file.h"

struct event_base;
struct filewatch;

#define FILEWATCH_MAX 8

/* seen: as it was when it was read; what has changed since then is told, too. */
struct filewatch_file {
	const char *path;
	struct file_identity seen;
};

/*
 * Watches up to FILEWATCH_MAX files (those without a path are passed over; paths are
 * copied). changed() is called from the event loop, once for a burst of changes, a moment
 * after the last of them: an editor's half-written file is not read. Neither a file nor the
 * directories that lead to it need exist. Returns 0, or a negative errno with e.
 */
int filewatch_new(struct event_base *base, const struct filewatch_file *files, unsigned int n,
		  void (*changed)(void *arg), void *arg, struct filewatch **ret, struct err *e);
/* NULL is allowed. */
void filewatch_free(struct filewatch *w);

#endif
