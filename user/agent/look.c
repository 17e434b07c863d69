/* SPDX-License-Identifier: BSD-2-Clause */
/* Looks at all connections in short steps. */
#include "agent/look.h"

#include <errno.h>

#include "base/clock.h"
#include "host/privileges.h"

/* How long a step takes, and how long the loop then has for itself. */
#define STEP_MS 5
#define REST_MS 45
#define REST_URGENT_MS 5

/* A look is followed by a rest of so many times its CPU time. */
#define REST_TIMES 19

static void end_look(struct look *l, struct datapath_found *ret)
{
	datapath_walk_end(l->walk, ret);
	l->walk = NULL;
	sock_diag_close(l->diag);
	l->diag = NULL;
}

static void finish(struct look *l, int result, const struct err *e)
{
	struct datapath_found found = { .all = false };

	end_look(l, &found);
	l->rested_ns = clock_now_ns() + REST_TIMES * l->spent_ns;
	l->ops->done(l->arg, result, &found, e);
}

static int step(struct look *l, struct err *e)
{
	__u64 began = clock_now_ns(), spent = clock_cpu_ns();
	int r;

	privileges_raise();
	do
		r = datapath_walk_step(l->walk, e);
	while (r > 0 && clock_now_ns() - began < STEP_MS * NS_PER_MS);
	privileges_lower();
	l->spent_ns += clock_cpu_ns() - spent;
	return r;
}

static void go_on(evutil_socket_t fd, short what, void *arg)
{
	struct look *l = arg;
	const struct timeval rest = clock_timeval(l->urgent ? REST_URGENT_MS : REST_MS);
	struct err e = { "" };
	int r = step(l, &e);

	(void)fd;
	(void)what;
	if (r <= 0)
		finish(l, r, &e);
	else if (event_add(l->timer, &rest))
		finish(l, err_no_memory(&e), &e);
}

static int open_look(struct look *l, const struct datapath *dp,
		     const struct datapath_list_options *how, struct err *e)
{
	int r;

	privileges_raise();
	r = sock_diag_open(&l->diag, e);
	if (!r)
		r = datapath_walk_begin(dp, l->diag, how, &l->ops->visitor, l->arg, &l->walk, e);
	privileges_lower();
	return r;
}

void look_begin(struct look *l, struct event_base *base, const struct datapath *dp,
		const struct datapath_list_options *how, bool urgent, const struct look_ops *ops,
		void *arg)
{
	struct err e = { "" };
	int r = 0;

	if (l->walk)
		return;
	l->ops = ops;
	l->arg = arg;
	l->urgent = urgent;
	l->spent_ns = 0;
	if (!l->timer)
		l->timer = evtimer_new(base, go_on, l);
	if (!l->timer)
		r = err_no_memory(&e);
	if (!r)
		r = open_look(l, dp, how, &e);
	if (r)
		finish(l, r, &e);
	else
		go_on(-1, 0, l);
}

bool look_is_running(const struct look *l)
{
	return l->walk;
}

__u64 look_rested_ns(const struct look *l)
{
	return l->rested_ns;
}

void look_cancel(struct look *l)
{
	end_look(l, NULL);
	if (l->timer)
		event_free(l->timer);
	l->timer = NULL;
}
