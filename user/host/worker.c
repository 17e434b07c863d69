/* SPDX-License-Identifier: BSD-2-Clause */
/* Runs work on a thread and reports its end to the event loop through an eventfd. */
#include "host/worker.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/clock.h"
#include "base/spawn.h"

/* Name services load modules and need some stack, but not the default of megabytes. */
#define STACK_BYTES ((size_t)256 * 1024)

struct worker {
	struct worker_ops ops;
	void *arg, *data;
	int ended; /* an eventfd: the thread has finished */
	struct event *event;
	pthread_t thread;
	atomic_int references; /* 2: the loop and the thread; the last one frees the worker */
	atomic_bool finished; /* the thread's writes to data are visible */
};

static void unref(struct worker *w)
{
	if (atomic_fetch_sub(&w->references, 1) != 1)
		return;
	w->ops.drop(w->data);
	if (w->ended >= 0)
		close(w->ended);
	free(w);
}

static void *thread_main(void *arg)
{
	const uint64_t one = 1;
	struct worker *w = arg;

	w->ops.work(w->data);
	atomic_store(&w->finished, true);
	/* Cannot fail: the counter is far from its maximum and the descriptor is open. */
	if (write(w->ended, &one, sizeof(one)) < 0)
		abort();
	unref(w);
	return NULL;
}

static void on_ended(evutil_socket_t fd __attribute__((unused)), short what __attribute__((unused)),
		     void *arg)
{
	struct worker *w = arg;

	/*
	 * The descriptor has synchronised the two threads already. The compiler does not know that.
	 */
	if (!atomic_load(&w->finished))
		return;
	if (w->event)
		event_free(w->event);
	pthread_detach(w->thread);
	w->ops.done(w->arg, w->data);
	unref(w);
}

static int create(struct worker *w)
{
	return spawn_thread(STACK_BYTES, thread_main, w, &w->thread);
}

static int start(struct event_base *base, struct worker *w)
{
	w->ended = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (w->ended < 0)
		return errno;
	if (!base)
		return create(w);
	w->event = event_new(base, w->ended, EV_READ | EV_PERSIST, on_ended, w);
	if (!w->event || event_add(w->event, NULL) < 0)
		return ENOMEM;
	return create(w);
}

int worker_start(struct event_base *base, const struct worker_ops *ops, void *arg, void *data,
		 struct worker **ret, struct err *e)
{
	struct worker *w = calloc(1, sizeof(*w));
	int code;

	if (!w) {
		ops->drop(data);
		return err_no_memory(e);
	}
	*w = (struct worker){ .ops = *ops, .arg = arg, .data = data, .ended = -1 };
	atomic_init(&w->references, 2);
	code = start(base, w);
	if (code) {
		if (w->event)
			event_free(w->event);
		atomic_store(&w->references, 1);
		unref(w);
		return err_set(e, code, "cannot start a thread: %s", err_reason(code));
	}
	*ret = w;
	return 0;
}

void worker_cancel(struct worker *w)
{
	if (!w)
		return;
	if (w->event)
		event_free(w->event);
	pthread_detach(w->thread);
	unref(w);
}

bool worker_wait(struct worker *w, unsigned int wait_ms)
{
	struct pollfd p = { .fd = w->ended, .events = POLLIN };
	__u64 now, until = clock_now_ns() + wait_ms * NS_PER_MS;
	int r;

	do {
		now = clock_now_ns();
		r = poll(&p, 1, now < until ? (int)((until - now) / NS_PER_MS) : 0);
	} while (r < 0 && errno == EINTR);
	if (r != 1)
		return false;
	on_ended(-1, 0, w);
	return true;
}
