/* SPDX-License-Identifier: BSD-2-Clause */
#include "host/worker.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <event2/event.h>

/* Name services load modules; the default of megabytes is for other programs. */
#define STACK_BYTES ((size_t)256 * 1024)

struct worker {
	struct worker_ops ops;
	void *arg, *data;
	int ended; /* eventfd: the thread is through */
	struct event *event;
	pthread_t thread;
	atomic_int users; /* the loop and the thread */
	atomic_bool through; /* what the thread wrote to data is there to be read */
};

static void leave(struct worker *o)
{
	if (atomic_fetch_sub(&o->users, 1) != 1)
		return;
	o->ops.drop(o->data);
	if (o->ended >= 0)
		close(o->ended);
	free(o);
}

static void *run(void *arg)
{
	const uint64_t one = 1;
	struct worker *o = arg;

	o->ops.work(o->data);
	atomic_store(&o->through, true);
	/* Cannot fail: the counter is far from its end, and the descriptor is open. */
	if (write(o->ended, &one, sizeof(one)) < 0)
		abort();
	leave(o);
	return NULL;
}

static void on_ended(evutil_socket_t fd __attribute__((unused)), short what __attribute__((unused)),
		     void *arg)
{
	struct worker *o = arg;

	/* The descriptor tells the loop, not the compiler. */
	if (!atomic_load(&o->through))
		return;
	event_free(o->event);
	pthread_detach(o->thread);
	o->ops.done(o->arg, o->data);
	leave(o);
}

/* Signals are for the loop. */
static int create(struct worker *o)
{
	sigset_t all, before;
	pthread_attr_t attr;
	int rc;

	sigfillset(&all);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(&o->thread, &attr, run, o);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return rc;
}

static int start(struct event_base *base, struct worker *o)
{
	o->ended = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (o->ended < 0)
		return errno;
	o->event = event_new(base, o->ended, EV_READ | EV_PERSIST, on_ended, o);
	if (!o->event || event_add(o->event, NULL) < 0)
		return ENOMEM;
	return create(o);
}

int worker_start(struct event_base *base, const struct worker_ops *ops, void *arg, void *data,
		 struct worker **ret, struct err *e)
{
	struct worker *o = calloc(1, sizeof(*o));
	int code;

	if (!o) {
		ops->drop(data);
		return err_no_memory(e);
	}
	*o = (struct worker){ .ops = *ops, .arg = arg, .data = data, .ended = -1 };
	atomic_init(&o->users, 2);
	code = start(base, o);
	if (code) {
		if (o->event)
			event_free(o->event);
		atomic_store(&o->users, 1);
		leave(o);
		return err_set(e, code, "cannot start a thread: %s", strerror(code));
	}
	*ret = o;
	return 0;
}

void worker_cancel(struct worker *o)
{
	if (!o)
		return;
	event_free(o->event);
	pthread_detach(o->thread);
	leave(o);
}

void worker_finish(struct worker *o)
{
	if (!o)
		return;
	event_free(o->event);
	pthread_join(o->thread, NULL);
	leave(o);
}
