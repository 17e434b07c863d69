/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reports when files change, in any way: somebody writes to them, renames another file over them,
 * deletes or creates them, makes them readable, or changes a symbolic link on the way to them (as
 * with a mounted ConfigMap and a kubelet's rotating certificates).
 */
#ifndef KUBELB_FILE_WATCH_H
#define KUBELB_FILE_WATCH_H

#include "base/err.h"
#include "base/file.h"

struct event_base;
struct filewatch;

#define FILEWATCH_MAX 8

/* seen: the file's identity when it was read. A change since then is reported too. */
struct filewatch_file {
	const char *path;
	struct file_identity seen;
};

struct filewatch_ops {
	void (*changed)(void *arg);
	/*
	 * why: the kernel gives no more watches, and this line says which limit is reached. It is
	 * tried again, from each second to each minute, and until then changes are noticed at these
	 * times. NULL: it works again. Called once for each.
	 */
	void (*slow)(void *arg, const char *why);
};

/*
 * Watches up to FILEWATCH_MAX files. Entries without a path are skipped; paths are copied. The
 * event loop calls changed() once for a burst of changes, a moment after the last of them, so that
 * an editor's half-written file is not read. Neither a file nor the directories on the way to it
 * need to exist, and a disk that hangs does not hold up the loop. Returns 0, or a negative errno
 * with e.
 */
int filewatch_new(struct event_base *base, const struct filewatch_file *files, unsigned int n,
		  const struct filewatch_ops *ops, void *arg, struct filewatch **ret,
		  struct err *e);
/* NULL is allowed. */
void filewatch_free(struct filewatch *w);

#endif
