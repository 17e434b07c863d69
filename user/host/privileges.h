/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The privileges of the running agent: of root's capabilities, it keeps those that its work needs.
 * The agent reads data from networks (TLS, HTTP, JSON); an attacker who takes it over that way must
 * not get control over the kernel.
 *
 *   CAP_NET_ADMIN                   end connections (SOCK_DESTROY)
 *   CAP_BPF                         list them with their records. From Linux 5.19 on effective
 *                                   only between raise and lower; before that, opening pinned
 *                                   objects needs it as well
 *   CAP_SYS_ADMIN, CAP_SYS_PTRACE   enter pods' network namespaces and find them through /proc.
 *                                   Kept if a frontend has `scope: all`; effective only between
 *                                   raise and lower
 *   CAP_NET_BIND_SERVICE            a port below 1024: of http, or of a frontend that is relayed
 *
 * CAP_BPF would also allow loading programs. Filters (seccomp.h) limit bpf(2) to the commands that
 * read and write existing maps, and refuse what the agent never does.
 *
 * Capabilities belong to a thread. A new thread inherits those of the thread that creates it.
 */
#ifndef KUBELB_PRIVILEGES_H
#define KUBELB_PRIVILEGES_H

#include <stdbool.h>

#include "base/err.h"

struct privileges_need {
	bool pods; /* a frontend of `scope: all` */
	bool low_port; /* http, or a frontend that may be relayed, below 1024 */
	bool relay; /* the kernel is not the data path: nothing is listed, nothing ended */
};

/*
 * For a process that reads keys or tokens, before it does: no core file is written of it, and only
 * a debugger with rights over the whole machine can read its memory. Forks inherit that.
 */
int privileges_hide_memory(struct err *e);

/*
 * Call it before anything is read. After it no set-user-ID program can give privileges back, the
 * memory is hidden as above, what no process of the agent does is refused (seccomp_begin), and
 * files can be read only as their owner and mode allow root. The last is for reloads: a file that
 * could not be read again later is refused at once.
 */
int privileges_begin(struct err *e);

/* Gives up the rest for good. Call it after attaching, which needs more. */
int privileges_reduce(const struct privileges_need *need, struct err *e);

#define PRIVILEGES_FUNCTIONS 4

/*
 * Returns a line for the log that says what does not work because a capability is missing, for one
 * of the functions that need one: i is 0..PRIVILEGES_FUNCTIONS-1. NULL: it works, or it is not
 * needed.
 */
const char *privileges_missing(const struct privileges_need *need, unsigned int i);

/* Whether pods' network namespaces can be entered, between raise and lower. */
bool privileges_can_enter_pods(void);

/* Whether connections can be ended. */
bool privileges_can_end_connections(void);

/*
 * Make the capabilities effective for one look at the connections, also in pods' namespaces, and
 * take that back.
 */
void privileges_raise(void);
void privileges_lower(void);

#endif
