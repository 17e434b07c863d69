/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Work that may block (a name to look up, a disk to flush), away from the event
 * loop: on a thread of its own, with its end reported in the loop.
 */
#ifndef KUBELB_WORKER_H
#define KUBELB_WORKER_H

#include "base/err.h"

struct event_base;
struct worker;

struct worker_ops {
	/* On the thread: may touch data alone. */
	void (*work)(void *data);
	/* Then in the loop. The offload is gone after this call, and data with it. */
	void (*done)(void *arg, void *data);
	/* Frees data, in whichever thread is the last to need it. */
	void (*drop)(void *data);
};

/*
 * Returns 0 with an object that lives until done() was called or the object was
 * cancelled or finished. Takes data over, in the case of failure too.
 */
int worker_start(struct event_base *base, const struct worker_ops *ops, void *arg, void *data,
		 struct worker **ret, struct err *e);

/* Waits for nothing: the work goes on, and done() is not called. NULL is allowed. */
void worker_cancel(struct worker *w);
/* Waits for the work; done() is not called. NULL is allowed. */
void worker_finish(struct worker *w);

#endif
