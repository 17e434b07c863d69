/* SPDX-License-Identifier: BSD-2-Clause */
/* Brings connections home to the local backend: ends one now and then, and its client dials anew.
 */
#include "agent/internal.h"

#include "balance/failback.h"
#include "base/clock.h"
#include "base/random.h"

/* The time between two connections, and after a look that has found none to end. */
#define FAILBACK_MS 1000
#define FAILBACK_IDLE_MS 10000
/* How many are listed at once, and how long the list is good. */
#define LIST_MAX 16
#define LIST_AGE_MS 10000
/* The clients of one node must not all connect again at once. */
#define JITTER_PERCENT 50

static bool some_preferred(const struct agent *a)
{
	for (unsigned int i = 0; i < a->config->n_backends; i++) {
		const struct plan_backend *b = agent_planned(a, i);

		if (b && b->preferred)
			return true;
	}
	return false;
}

/* The operator's settings and the counters change without a notification. */
static bool is_due(struct agent *a, struct failback *ret)
{
	if (!some_preferred(a))
		return false;
	if (a->dp && (datapath_read_admin(a->dp, a->state->admin, NULL) ||
		      datapath_read_stats(a->dp, a->state->stats, NULL)))
		return false;
	return failback_begin(a->state, clock_now_ns(), ret) &&
	       failback_count(ret, a->state->stats);
}

static bool ended_one(const struct agent_ended *result)
{
	for (__u32 id = 0; id < KLB_MAX_IDS; id++)
		if (result->ended[id])
			return true;
	return false;
}

void agent_forget_homing(struct agent *a)
{
	look_cancel(&a->homing.look);
	fair_list_free(&a->homing.list);
}

static void rest(struct agent *a, unsigned int ms)
{
	a->failback_ns = clock_now_ns() + random_around(ms, JITTER_PERCENT) * NS_PER_MS;
}

/* Ends the next one of the list that is still to come home. */
static void end_next(struct agent *a, const struct failback *f)
{
	struct agent_ended result;
	struct agent_batch batch = { .n = 0 };
	const struct klb_connection *c;
	struct err e = { "" };

	while (!batch.n && (c = fair_list_next(&a->homing.list)))
		if (failback_takes(f, &c->record))
			batch.at[batch.n++] = *c;
	if (!batch.n) {
		rest(a, FAILBACK_IDLE_MS);
		return;
	}
	agent_end_picked(a, &batch, &result, &e);
	log_failure(a->failback_error, LOG_LEVEL_ERROR,
		    "cannot bring connections back to the backend of this node", &e);
	agent_count_ended(a, &result, METRICS_ENDED_LOCAL);
	rest(a, ended_one(&result) ? FAILBACK_MS : FAILBACK_IDLE_MS);
}

static void begin_list(void *arg)
{
	struct agent *a = arg;

	fair_list_clear(&a->homing.list);
}

static int take_away(const struct klb_connection *c, void *arg)
{
	struct agent *a = arg;

	if (!failback_takes(&a->homing.to, &c->record))
		return 0;
	return fair_list_add(&a->homing.list, c, failback_rank(c));
}

static void on_listed(void *arg, int result, const struct datapath_found *found,
		      const struct err *e)
{
	struct agent *a = arg;
	struct err error = *e;

	(void)found;
	if (!result && fair_list_sort(&a->homing.list))
		result = err_no_memory(&error);
	if (!result) {
		a->homing.listed_ns = clock_now_ns();
		end_next(a, &a->homing.to);
		return;
	}
	log_failure(a->failback_error, LOG_LEVEL_ERROR,
		    "cannot bring connections back to the backend of this node", &error);
	fair_list_free(&a->homing.list);
	rest(a, FAILBACK_IDLE_MS);
}

/* Several come from one list, if it is not too old. */
static void bring_one(struct agent *a, const struct failback *f)
{
	static const struct look_ops ops = { .visitor = { .begin = begin_list, .take = take_away },
					     .done = on_listed };
	const struct datapath_list_options how = { .info = true };
	struct agent_homing *h = &a->homing;
	__u64 now = clock_now_ns();

	if (look_is_running(&h->look))
		return;
	if (fair_list_left(&h->list) && now - h->listed_ns < LIST_AGE_MS * NS_PER_MS) {
		end_next(a, f);
		return;
	}
	if (now < look_rested_ns(&h->look))
		return;
	h->to = *f;
	h->list.keep = LIST_MAX;
	agent_look(a, &h->look, &how, &ops);
}

void agent_failback(struct agent *a)
{
	struct failback f;

	if (clock_now_ns() < a->failback_ns || (a->dp && !privileges_can_end_connections()))
		return;
	if (!is_due(a, &f)) {
		agent_forget_homing(a);
		a->failing_back = false;
		return;
	}
	if (!a->failing_back)
		log_event(LOG_LEVEL_INFO,
			  "the backend of this node is ready, connections come back to it one by "
			  "one",
			  "connections=%llu", failback_count(&f, a->state->stats));
	a->failing_back = true;
	bring_one(a, &f);
}
