/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the agent may do once it has started: of root's capabilities, those that its
 * work takes. It reads what networks send (TLS, HTTP, JSON), and whoever takes it over
 * by that shall not get the kernel with it.
 *
 *   CAP_NET_ADMIN                   end connections (SOCK_DESTROY)
 *   CAP_BPF                         list them with their records; effective only between
 *                                   raise and lower, from Linux 5.19 on: before that it takes
 *                                   it to open what is pinned
 *   CAP_SYS_ADMIN, CAP_SYS_PTRACE   enter pods' network namespaces, and find them
 *                                   through /proc: where a frontend has `scope: all`;
 *                                   effective only between raise and lower
 *   CAP_NET_BIND_SERVICE            an http port below 1024
 *
 * CAP_BPF would also be good for loading programs: a seccomp filter leaves of bpf(2) what
 * reads and writes the maps that are there.
 *
 * Capabilities are a thread's: threads inherit those of the one that makes them.
 */
#ifndef KUBELB_PRIVILEGES_H
#define KUBELB_PRIVILEGES_H

#include <stdbool.h>

#include "base/err.h"

struct privileges_need {
	bool pods; /* a frontend of `scope: all` */
	bool low_port; /* http below 1024 */
};

/*
 * Before anything is read: no set-user-ID program can give any of them back, nobody but
 * a debugger of the whole machine reads the memory (and no core file is made of it),
 * and files are read by their owner and mode as root's alone. The last is so that a file
 * that could not be read again after a change is refused at once.
 */
int privileges_begin(struct err *e);

/* When what takes more (attaching) is done: the rest goes, for good. */
int privileges_reduce(const struct privileges_need *need, struct err *e);

#define PRIVILEGES_FUNCTIONS 4

/*
 * What will not work for want of a capability, as a line for the log, for one of the
 * functions that need one: i is 0..PRIVILEGES_FUNCTIONS-1. NULL: it works, or is not
 * asked for.
 */
const char *privileges_missing(const struct privileges_need *need, unsigned int i);

/* Whether pods' network namespaces can be entered, between raise and lower. */
bool privileges_can_enter_pods(void);

/* Whether connections can be ended at all. */
bool privileges_can_end_connections(void);

/* For the time of one look at the connections, in pods' namespaces too. */
void privileges_raise(void);
void privileges_lower(void);

#endif
