/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The system calls that the agent does not make, refused by filters on itself: with a service
 * manager or a container runtime that filters, and without one. A refused call returns EPERM, and
 * the kernel notes it in the audit log or its own (type=1326). A kernel without seccomp has no
 * filters; that is no error.
 */
#ifndef KUBELB_SECCOMP_H
#define KUBELB_SECCOMP_H

#include <stdbool.h>

#include "base/err.h"

/*
 * What neither the agent nor a process that it forks ever does: execute programs, trace or read
 * other processes, load modules or another kernel, make namespaces, and use interfaces that are
 * large, rarely needed and a frequent way into the kernel. Takes no_new_privs. Returns 0 or a
 * negative errno with e.
 */
int seccomp_begin(struct err *e);

/*
 * What the agent alone does not do once everything is attached, in all its threads: of bpf(2), all
 * but reading and writing existing maps; mounts; handles of files. pods: it goes on entering
 * network namespaces and looking at other processes' sockets. Returns 0 or a negative errno with e.
 */
int seccomp_reduce(bool pods, struct err *e);

/*
 * Whether a filter is on this process that is none of its own: of a container runtime or a service
 * manager. False also when that cannot be told.
 */
bool seccomp_is_foreign(void);

#endif
