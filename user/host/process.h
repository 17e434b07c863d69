/* SPDX-License-Identifier: BSD-2-Clause */
/* Finds processes by their name. */
#ifndef KUBELB_PROCESS_H
#define KUBELB_PROCESS_H

#include <linux/types.h>

/* What runs under one name in this network namespace, as far as it can be seen from here. */
struct process_found {
	unsigned int n;
	__u32 pid; /* the first one; 0: none */
	__u32 stopped; /* one that a signal has stopped (SIGSTOP), or that is traced; 0: none */
};

/* name: as /proc/PID/comm has it. Other users' processes take CAP_SYS_PTRACE to be found. */
void process_find(const char *name, struct process_found *ret);

#endif
