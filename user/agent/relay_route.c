/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The rule and the route of a rescue. The kernel changes rules and routes one after another, and
 * somebody else's change may take long, so the work is done on a thread, one piece at a time.
 */
#include "agent/relay_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "host/worker.h"

/* Whoever has taken a mark or a table is asked again after so long. */
#define RETRY_NS (60 * NS_PER_S)
/* At the agent's end, for the piece that is under way. */
#define END_WAIT_MS 2000

enum job_kind { JOB_CHECK, JOB_ADD, JOB_REMOVE };

struct job {
	enum job_kind kind;
	struct local_delivery delivery;
	int result;
	struct err e;
};

static void work(void *data)
{
	struct job *job = data;

	switch (job->kind) {
	case JOB_CHECK:
		job->result = local_delivery_check(&job->delivery, &job->e);
		break;
	case JOB_ADD:
		job->result = local_delivery_add(&job->delivery, &job->e);
		break;
	case JOB_REMOVE:
		job->result = local_delivery_remove(&job->e);
		break;
	}
}

static const char *cannot(enum job_kind kind)
{
	return kind == JOB_REMOVE
		       ? "the relay's rule and route cannot be removed, trying again"
		       : "connects whose backend does not answer are not rescued, the rest works";
}

static void take_failure(struct relay_route *t, const struct job *job)
{
	t->error = -job->result;
	t->failed = job->delivery;
	t->retry_ns = clock_now_ns() + RETRY_NS;
	if (job->kind != JOB_REMOVE)
		t->checked = (struct local_delivery){ .mark = 0 };
	if (job->kind == JOB_ADD)
		t->on = false;
	log_failure(t->text, LOG_LEVEL_WARN, cannot(job->kind), &job->e);
}

static void take_success(struct relay_route *t, const struct job *job)
{
	if (t->text[0])
		log_event(LOG_LEVEL_INFO,
			  "connects whose backend does not answer are rescued again", "");
	log_failure(t->text, LOG_LEVEL_WARN, "", &(struct err){ "" });
	t->error = 0;
	switch (job->kind) {
	case JOB_CHECK:
		t->checked = job->delivery;
		break;
	case JOB_ADD:
		t->there = t->checked = job->delivery;
		t->on = true;
		break;
	case JOB_REMOVE:
		t->on = t->stale = false;
		break;
	}
}

static void done(void *arg, void *data)
{
	struct agent_relay *r = arg;
	struct relay_route *t = &r->rescue.route;
	const struct job *job = data;

	t->job = NULL;
	if (job->result < 0)
		take_failure(t, job);
	else
		take_success(t, job);
	t->changed(r);
}

static void start(struct agent_relay *r, enum job_kind kind, const struct local_delivery *d)
{
	static const struct worker_ops ops = { .work = work, .done = done, .drop = free };
	struct relay_route *t = &r->rescue.route;
	struct job *job = calloc(1, sizeof(*job));
	struct err e = { "" };
	int code = -ENOMEM;

	if (job) {
		*job = (struct job){ .kind = kind, .delivery = *d };
		code = worker_start(r->agent->base, &ops, r, job, &t->job, &e);
	}
	if (!code)
		return;
	t->error = -code;
	t->failed = *d;
	t->retry_ns = clock_now_ns() + RETRY_NS;
}

static bool is_same(const struct local_delivery *x, const struct local_delivery *y)
{
	return x->mark == y->mark && x->mask == y->mask && x->table == y->table &&
	       x->ipv4 == y->ipv4 && x->ipv6 == y->ipv6;
}

bool relay_route_is_possible(const struct relay_route *t, const struct local_delivery *d)
{
	return t->on || (d->mark && is_same(&t->checked, d));
}

/* What is there, with the families that d has beside it. */
static struct local_delivery extended(const struct local_delivery *there,
				      const struct local_delivery *d)
{
	struct local_delivery both = *there;

	both.ipv4 |= d->ipv4;
	both.ipv6 |= d->ipv6;
	return both;
}

void relay_route_step(struct agent_relay *r, bool wanted, const struct local_delivery *d)
{
	struct relay_route *t = &r->rescue.route;
	struct local_delivery more = extended(&t->there, d);

	/* Other numbers are tried at once. */
	if (t->over || t->job ||
	    (t->error && is_same(&t->failed, d) && clock_now_ns() < t->retry_ns))
		return;
	/* First what an earlier process has left, which others may depend on being gone. */
	if (t->stale || (t->on && !wanted))
		start(r, JOB_REMOVE, d);
	else if (wanted && !t->on && d->mark)
		start(r, JOB_ADD, d);
	else if (wanted && !is_same(&t->there, &more))
		start(r, JOB_ADD, &more);
	else if (!t->on && d->mark && !is_same(&t->checked, d))
		start(r, JOB_CHECK, d);
}

void relay_route_end(struct agent_relay *r)
{
	struct relay_route *t = &r->rescue.route;
	struct err e;

	t->over = true;
	if (t->job && !worker_wait(t->job, END_WAIT_MS)) {
		worker_cancel(t->job);
		t->job = NULL;
	}
	if ((t->on || t->stale || t->job) && local_delivery_remove(&e) < 0)
		log_event(LOG_LEVEL_WARN, cannot(JOB_REMOVE), "error=%s", log_quoted(e.text));
	t->on = t->stale = false;
}
