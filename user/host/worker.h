/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Runs work that may block (a name lookup, flushing a disk) on a thread of its own, and reports its
 * end in the event loop.
 */
#ifndef KUBELB_WORKER_H
#define KUBELB_WORKER_H

#include <stdbool.h>

#include "base/err.h"

struct event_base;
struct worker;

struct worker_ops {
	/* On the thread. May use only data. */
	void (*work)(void *data);
	/* Then in the loop. After this call the worker and data are freed. */
	void (*done)(void *arg, void *data);
	/* Frees data, in the thread that needs it last. */
	void (*drop)(void *data);
};

/*
 * base: NULL for who only waits, with worker_wait. Returns 0 with an object that exists until
 * done() was called or the worker was cancelled or finished. Takes ownership of data, also on
 * failure.
 */
int worker_start(struct event_base *base, const struct worker_ops *ops, void *arg, void *data,
		 struct worker **ret, struct err *e);

/* Does not wait: the work goes on, and done() is not called. NULL is allowed. */
void worker_cancel(struct worker *w);
/*
 * Waits for the end of the work, for wait_ms at the most. Returns true when it has come: done() was
 * called from inside, and the object is gone. Otherwise all is as before.
 */
bool worker_wait(struct worker *w, unsigned int wait_ms);

#endif
