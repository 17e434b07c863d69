/* SPDX-License-Identifier: BSD-2-Clause */
/* Virtual time: a heap of events, in the place of libevent, the clocks and the kernel's chance. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "sim.h"

/* As of a machine that has been up for a while: 0 means never to the agent. */
#define SIM_START_NS (1000 * NS_PER_S)
/* Children of a place in the heap. */
#define WIDTH 4

static __u64 now_ns = SIM_START_NS;
static __u64 n_called, n_ordered;
static bool spreads = true;
static __u64 agents_state, own_state;

/* With its times beside it: a comparison that had to look at the event would miss the cache. */
struct due {
	__u64 due_ns, order;
	struct event *event;
};

static struct due *heap;
static unsigned int n_heap, heap_room;

/* --- chance -------------------------------------------------------------------------- */

/* splitmix64 (Steele, Lea and Flood, OOPSLA 2014). */
static __u64 next_random(__u64 *state)
{
	__u64 x = *state += 0x9e3779b97f4a7c15ULL;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

void sim_seed(__u64 seed)
{
	agents_state = seed;
	own_state = ~seed;
}

void sim_stop_spreading(void)
{
	spreads = false;
}

__u64 sim_random(void)
{
	return next_random(&own_state);
}

double sim_uniform(void)
{
	return (double)(sim_random() >> 11) / (double)(1ULL << 53);
}

__u64 sim_uniform_ns(__u64 below)
{
	return (__u64)(sim_uniform() * (double)below);
}

__u64 sim_exponential_ns(double per_second)
{
	return (__u64)(-log(1 - sim_uniform()) / per_second * (double)NS_PER_S);
}

/* user/base/random.c asks for its numbers here. */
ssize_t getrandom(void *buffer, size_t length, unsigned int flags)
{
	(void)flags;
	for (size_t at = 0; at < length; at += sizeof(__u64)) {
		__u64 x = spreads ? next_random(&agents_state) : 0;
		size_t rest = length - at;

		memcpy((char *)buffer + at, &x, rest < sizeof(x) ? rest : sizeof(x));
	}
	return (ssize_t)length;
}

/* --- time ---------------------------------------------------------------------------- */

/* And user/base/clock.c for the time. No virtual time passes while anything computes. */
int clock_gettime(clockid_t id, struct timespec *ret)
{
	__u64 ns = id == CLOCK_THREAD_CPUTIME_ID ? 0 : now_ns;

	ret->tv_sec = (time_t)(ns / NS_PER_S);
	ret->tv_nsec = (long)(ns % NS_PER_S);
	return 0;
}

__u64 sim_now(void)
{
	return now_ns - SIM_START_NS;
}

/* --- the heap ------------------------------------------------------------------------ */

static bool is_sooner(const struct due *a, const struct due *b)
{
	return a->due_ns < b->due_ns || (a->due_ns == b->due_ns && a->order < b->order);
}

static void put(unsigned int i, const struct due *d)
{
	heap[i] = *d;
	d->event->place = i + 1;
}

static void rise(unsigned int i, const struct due *d)
{
	while (i && is_sooner(d, &heap[(i - 1) / WIDTH])) {
		put(i, &heap[(i - 1) / WIDTH]);
		i = (i - 1) / WIDTH;
	}
	put(i, d);
}

static void sink(unsigned int i, const struct due *d)
{
	for (;;) {
		unsigned int first = i * WIDTH + 1, least = first;

		if (first >= n_heap)
			break;
		for (unsigned int k = first + 1; k < first + WIDTH && k < n_heap; k++)
			if (is_sooner(&heap[k], &heap[least]))
				least = k;
		if (!is_sooner(&heap[least], d))
			break;
		put(i, &heap[least]);
		i = least;
	}
	put(i, d);
}

static void settle(unsigned int i, const struct due *d)
{
	if (i && is_sooner(d, &heap[(i - 1) / WIDTH]))
		rise(i, d);
	else
		sink(i, d);
}

static void take_out(struct event *e)
{
	unsigned int i = e->place - 1;
	const struct due last = heap[--n_heap];

	e->place = 0;
	if (last.event != e)
		settle(i, &last);
}

void sim_event_init(struct event *e, event_callback_fn call, void *arg)
{
	*e = (struct event){ .call = call, .arg = arg };
}

void sim_event_at(struct event *e, __u64 due_ns)
{
	const struct due d = { SIM_START_NS + due_ns, n_ordered++, e };

	if (e->place) {
		settle(e->place - 1, &d);
		return;
	}
	if (n_heap == heap_room) {
		heap_room = heap_room ? 2 * heap_room : 1024;
		heap = realloc(heap, heap_room * sizeof(*heap));
		if (!heap)
			abort();
	}
	rise(n_heap++, &d);
}

void sim_event_in(struct event *e, __u64 ns)
{
	sim_event_at(e, sim_now() + ns);
}

void sim_run_until(__u64 ns)
{
	while (n_heap && heap[0].due_ns <= SIM_START_NS + ns) {
		struct event *e = heap[0].event;

		now_ns = heap[0].due_ns;
		take_out(e);
		n_called++;
		e->call(-1, EV_TIMEOUT, e->arg);
	}
	now_ns = SIM_START_NS + ns;
}

__u64 sim_events_called(void)
{
	return n_called;
}

/* --- what the agent calls ---------------------------------------------------------------- */

struct event *event_new(struct event_base *base, evutil_socket_t fd, short what,
			event_callback_fn call, void *arg)
{
	struct event *e = malloc(sizeof(*e));

	(void)base;
	(void)fd;
	(void)what;
	if (e)
		sim_event_init(e, call, arg);
	return e;
}

int event_add(struct event *e, const struct timeval *in)
{
	sim_event_in(e, (__u64)in->tv_sec * NS_PER_S + (__u64)in->tv_usec * 1000);
	return 0;
}

int event_del(struct event *e)
{
	if (e->place)
		take_out(e);
	return 0;
}

void event_free(struct event *e)
{
	event_del(e);
	free(e);
}

int event_pending(const struct event *e, short what, struct timeval *ret)
{
	(void)what;
	(void)ret;
	return e->place != 0;
}

struct event_base *event_get_base(const struct event *e)
{
	(void)e;
	return NULL;
}
