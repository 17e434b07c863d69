/* SPDX-License-Identifier: BSD-2-Clause */
/* A thread of the relay: its loop, what other threads have it do, and its end. */
#include "relay/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/random.h"
#include "base/spawn.h"

/* The deepest calls are a line of the log (LOG_LINE_MAX and its values), and the ops. */
#define STACK_BYTES ((size_t)256 * 1024)

static void wake(struct relay_thread *t)
{
	const uint64_t one = 1;

	/* Cannot fail: the counter is far from its maximum and the descriptor is open. */
	if (write(t->wake_fd, &one, sizeof(one)) < 0)
		abort();
}

/* --- what others have it do --------------------------------------------------------------------
 */

static void run_call(struct relay_thread *t)
{
	struct relay_call call;

	pthread_mutex_lock(&t->lock);
	call = t->call;
	pthread_mutex_unlock(&t->lock);
	if (!call.run)
		return;
	call.run(t, call.arg);
	pthread_mutex_lock(&t->lock);
	t->call.run = NULL;
	pthread_cond_signal(&t->called);
	pthread_mutex_unlock(&t->lock);
}

void thread_call(struct relay_thread *t, void (*run)(struct relay_thread *, void *), void *arg)
{
	pthread_mutex_lock(&t->lock);
	t->call = (struct relay_call){ run, arg };
	wake(t);
	while (t->call.run)
		pthread_cond_wait(&t->called, &t->lock);
	pthread_mutex_unlock(&t->lock);
}

/* Takes what the inbox has into to, which is empty. */
static void empty_inbox(struct relay_thread *t, struct relay_clients *to)
{
	pthread_mutex_lock(&t->lock);
	TAILQ_CONCAT(to, &t->inbox, link);
	pthread_mutex_unlock(&t->lock);
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
	struct relay_clients now = TAILQ_HEAD_INITIALIZER(now);
	struct relay_thread *t = arg;
	struct relay_client *c;
	uint64_t n;

	(void)what;
	/* Nothing to read is as good. */
	if (read(fd, &n, sizeof(n)) < 0 && errno != EAGAIN)
		abort();
	empty_inbox(t, &now);
	while ((c = TAILQ_FIRST(&now))) {
		TAILQ_REMOVE(&now, c, link);
		client_start(t, c);
	}
	run_call(t);
}

/* Where a new client belongs: here, unless another thread has clearly less to do. */
static struct relay_thread *choose_thread(struct relay_thread *own)
{
	struct relay *r = own->relay;
	unsigned int mine = atomic_load(&own->n);
	struct relay_thread *best = own;
	unsigned int least = mine;

	for (unsigned int i = 0; i < r->n_threads; i++) {
		unsigned int n = atomic_load(&r->threads[i].n);

		if (n < least) {
			best = &r->threads[i];
			least = n;
		}
	}
	/* Handing over costs a wake-up; a difference of one or of an eighth is not worth it. */
	return mine > least + 1 + least / 8 ? best : own;
}

void thread_place_client(struct relay_thread *t, struct relay_client *c)
{
	struct relay_thread *to = choose_thread(t);
	bool was_empty;

	atomic_fetch_add(&to->n, 1);
	if (to == t) {
		client_start(t, c);
		return;
	}
	pthread_mutex_lock(&to->lock);
	was_empty = TAILQ_EMPTY(&to->inbox);
	TAILQ_INSERT_TAIL(&to->inbox, c, link);
	pthread_mutex_unlock(&to->lock);
	if (was_empty)
		wake(to);
}

/* --- its own -----------------------------------------------------------------------------------
 */

static void *thread_main(void *arg)
{
	struct relay_thread *t = arg;
	char name[16];

	snprintf(name, sizeof(name), "kubelb-relay-%u", t->number % RELAY_THREADS_MAX);
	pthread_setname_np(pthread_self(), name);
	event_base_dispatch(t->base);
	return NULL;
}

/* --- beginning and end -------------------------------------------------------------------------
 */

static int create(struct relay_thread *t)
{
	int code = spawn_thread(STACK_BYTES, thread_main, t, &t->id);

	t->started = !code;
	return code;
}

static int make_loop(struct relay_thread *t)
{
	struct event_config *config = event_config_new();

	if (!config)
		return ENOMEM;
	/* One thread alone uses it. Changes of one turn are made together: a socket that is awaited
	 * for another reason than before costs one call, and none when it is closed meanwhile. */
	event_config_set_flag(config,
			      EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST);
	t->base = event_base_new_with_config(config);
	event_config_free(config);
	if (!t->base)
		return ENOMEM;
	evtimer_assign(&t->sweep, t->base, pair_on_sweep, t);
	event_assign(&t->wake, t->base, t->wake_fd, EV_READ | EV_PERSIST, on_wake, t);
	return event_add(&t->wake, NULL) ? ENOMEM : 0;
}

int thread_open_spare(void)
{
	return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static int make(struct relay_thread *t)
{
	t->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	t->spare_fd = thread_open_spare();
	if (t->wake_fd < 0 || t->spare_fd < 0)
		return errno;
	t->scratch = malloc(RELAY_CHUNK);
	return t->scratch ? make_loop(t) : ENOMEM;
}

int thread_start(struct relay *r, struct relay_thread *t, unsigned int number, struct err *e)
{
	int code;

	*t = (struct relay_thread){
		.relay = r, .number = number, .wake_fd = -1, .spare_fd = -1, .seed = random_u64()
	};
	TAILQ_INIT(&t->inbox);
	TAILQ_INIT(&t->clients);
	TAILQ_INIT(&t->pairs);
	TAILQ_INIT(&t->unread);
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->called, NULL);
	code = make(t);
	if (!code)
		code = create(t);
	if (code)
		return err_set(e, code, "cannot start the relay: %s", err_reason(code));
	return 0;
}

static void stop(struct relay_thread *t, void *arg)
{
	(void)arg;
	event_base_loopbreak(t->base);
}

/* The thread is gone: what was its own is the caller's. */
static void end_clients(struct relay_thread *t)
{
	struct relay_clients queued = TAILQ_HEAD_INITIALIZER(queued);
	struct relay_client *c;
	struct relay_pair *p;

	empty_inbox(t, &queued);
	while ((c = TAILQ_FIRST(&queued))) {
		TAILQ_REMOVE(&queued, c, link);
		client_refuse(c, t->relay);
	}
	while ((c = TAILQ_FIRST(&t->clients)))
		client_refuse(c, t->relay);
	while ((p = TAILQ_FIRST(&t->pairs)))
		pair_reset(p);
}

void thread_stop(struct relay_thread *t)
{
	if (t->started) {
		thread_call(t, stop, NULL);
		pthread_join(t->id, NULL);
		end_clients(t);
	}
	relay_plan_unref(t->plan);
	if (t->base) {
		event_del(&t->wake);
		event_del(&t->sweep);
		event_base_free(t->base);
	}
	if (t->wake_fd >= 0)
		close(t->wake_fd);
	if (t->spare_fd >= 0)
		close(t->spare_fd);
	free(t->scratch);
	pthread_mutex_destroy(&t->lock);
	pthread_cond_destroy(&t->called);
}
