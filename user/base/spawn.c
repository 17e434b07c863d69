/* SPDX-License-Identifier: BSD-2-Clause */
/* Starts a thread that leaves signals to the loop. */
#include "base/spawn.h"

#include <signal.h>

int spawn_thread(size_t stack_bytes, void *(*run)(void *), void *arg, pthread_t *ret)
{
	sigset_t all, before;
	pthread_attr_t attr;
	int code;

	sigfillset(&all);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, stack_bytes);
	/* It inherits the mask from its first instruction on. */
	pthread_sigmask(SIG_SETMASK, &all, &before);
	code = pthread_create(ret, &attr, run, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return code;
}
