/* SPDX-License-Identifier: BSD-2-Clause */
/* Cgroups (version 2) by their ids, which stat(2) shows as the inode numbers of the directories. */
#ifndef KUBELB_CGROUP_H
#define KUBELB_CGROUP_H

#include <stdbool.h>

#include <linux/types.h>

#define CGROUP_PATH_MAX 512

/*
 * Opens a cgroup by its id. Returns a descriptor to close; -EPERM when it cannot be told whether
 * the cgroup exists (as in a container that does not see the whole hierarchy), and another negative
 * errno when it does not exist any more. Not for several threads.
 */
int cgroup_open_id(__u64 id);

/* Fills ret, of CGROUP_PATH_MAX bytes, with the path of the cgroup. Returns false without one. */
bool cgroup_path_of(__u64 id, char *ret);

/* Visits the cgroups below dir, at most 10,000 of them. */
void cgroup_visit_below(char *dir, void (*visit)(void *arg, const char *dir), void *arg);

/*
 * Whether this process is in the cgroup with this id, or below it. False also when that is not to
 * be seen, as in a container with a cgroup namespace of its own; but the root contains everybody.
 */
bool cgroup_contains_self(__u64 id);

#endif
