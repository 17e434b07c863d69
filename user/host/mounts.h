/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where the kernel's file systems are: the cgroup v2 root, bpffs. Found, not
 * assumed: pure v2, hybrid (/sys/fs/cgroup/unified) and container layouts differ.
 */
#ifndef KUBELB_MOUNTS_H
#define KUBELB_MOUNTS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/*
 * The cgroup2 mount in the text of a mountinfo file (proc(5)): the one that shows
 * the hierarchy's root, or most of it; the first of several. A container that sees its
 * own cgroup as the root finds the host's, mounted elsewhere, before that. Copies its
 * mount point, unescaped, into ret. Returns 0 or -ENOENT when there is none.
 */
int mounts_find_cgroup2(const char *mountinfo, char *ret, size_t size);

/* The same from /proc/self/mountinfo. */
int mounts_cgroup2_root(char *ret, size_t size, struct err *e);

/*
 * Opens a cgroup v2 directory. -ENOTDIR, -EINVAL and the like with e when it is
 * none. Returns the descriptor. ret_id: its cgroup id; the hierarchy's root is 1.
 */
int mounts_open_cgroup(const char *dir, unsigned long long *ret_id, struct err *e);

/* Whether dir is there and on a bpffs. */
bool mounts_is_bpffs(const char *dir);

/* Makes sure that dir (or what will hold it) is on a bpffs, mounting one at
 * /sys/fs/bpf when dir is below that and none is there. */
int mounts_ensure_bpffs(const char *dir, struct err *e);

#endif
