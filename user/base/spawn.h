/* SPDX-License-Identifier: BSD-2-Clause */
/* Starts threads beside the one that runs the event loop. */
#ifndef KUBELB_SPAWN_H
#define KUBELB_SPAWN_H

#include <pthread.h>
#include <stddef.h>

/*
 * Starts a joinable thread that runs run(arg) on a stack of stack_bytes, with all signals blocked:
 * the loop handles them. Returns 0 or a positive errno.
 */
int spawn_thread(size_t stack_bytes, void *(*run)(void *), void *arg, pthread_t *ret);

#endif
