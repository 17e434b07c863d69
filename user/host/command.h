/* SPDX-License-Identifier: BSD-2-Clause */
/* Runs a program of this machine and takes what it prints. */
#ifndef KUBELB_COMMAND_H
#define KUBELB_COMMAND_H

#include <stddef.h>

/*
 * Runs argv, of which the first is the program's path or a name that is looked up in the system's
 * own directories, without this process's environment. *ret: what it has printed on stdout and
 * stderr together, with a NUL behind it, to be freed; at most max bytes, and what comes after that
 * is dropped. Ends it after seconds. Returns its exit status, -ENOENT when there is no such
 * program, -ETIMEDOUT when it was ended, or another negative errno; *ret is NULL without memory
 * only.
 */
int command_run(const char *const *argv, unsigned int seconds, size_t max, char **ret);

#endif
