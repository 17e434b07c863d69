/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Finds where the kernel's file systems are mounted: the root of cgroup v2, and bpffs. The places
 * differ: pure v2, hybrid (/sys/fs/cgroup/unified), containers.
 */
#ifndef KUBELB_MOUNTS_H
#define KUBELB_MOUNTS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/*
 * Finds the cgroup2 mount in the text of a mountinfo file (proc(5)): the one that shows the root of
 * the hierarchy or most of it, and the first of several. In a container, whose own cgroup looks
 * like the root, it prefers the host's hierarchy if that is mounted elsewhere. Copies the mount
 * point, unescaped, into ret. Returns 0, or -ENOENT when there is none.
 */
int mounts_find_cgroup2(const char *mountinfo, char *ret, size_t size);

/* The same for /proc/self/mountinfo. */
int mounts_cgroup2_root(char *ret, size_t size, struct err *e);

/*
 * Opens a cgroup v2 directory and returns its descriptor. ret_id: the cgroup's id; the root of the
 * hierarchy has 1. Returns -ENOTDIR, -EINVAL and the like with e when it is not one.
 */
int mounts_open_cgroup(const char *dir, unsigned long long *ret_id, struct err *e);

/* Whether dir exists and is on a bpffs. */
bool mounts_is_bpffs(const char *dir);

/* Fills ret with the mount point of the bpffs that dir is on. Returns false when it is on none. */
bool mounts_bpffs_of(const char *dir, char *ret, size_t size);
/* Mounts a bpffs at point, as mounts_ensure_bpffs does, unless one is there. */
int mounts_mount_bpffs(const char *point, struct err *e);

/* Calls visit with the mount point of each bpffs of /proc/self/mountinfo. */
void mounts_each_bpffs(void (*visit)(void *arg, char *point), void *arg);

/*
 * Makes sure that dir, or the directory that will contain it, is on a bpffs. Mounts one at
 * /sys/fs/bpf when dir is below that and none is mounted there.
 */
int mounts_ensure_bpffs(const char *dir, struct err *e);

#endif
