/* SPDX-License-Identifier: BSD-2-Clause */
/* Ends connections to dead backends, in batches. */
#include "agent/internal.h"

#include <string.h>

#include <event2/event.h>

#include "balance/backend_status.h"
#include "balance/rebalance.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/random.h"
#include "net/endpoint.h"

/* The time between batches. */
#define EVICT_MS 100
/* Nodes must not act at the same time. */
#define JITTER_PERCENT 50
/* How many are listed at once. The rest comes with the next list. */
#define LIST_MAX 1024

const struct plan_backend *agent_planned(const struct agent *a, unsigned int index)
{
	return plan_find(&a->state->applied, &a->config->backends[index].endpoint);
}

static void count_ended(struct agent *a, struct agent_backend *backend,
			const struct agent_ended *ended, enum metrics_ended why)
{
	const struct plan_backend *b = plan_find(&a->state->applied, &backend->endpoint);
	char text[ENDPOINT_TEXT_MAX];

	if (!b || !ended->ended[b->id])
		return;
	backend->metrics.ended[why] += ended->ended[b->id];
	backend->metrics.destroyed += ended->destroyed[b->id];
	log_event(LOG_LEVEL_INFO, "connections ended, their clients connect elsewhere",
		  "backend=%s connections=%u destroyed=%u reason=%s",
		  endpoint_format(&b->value.endpoint, text), ended->ended[b->id],
		  ended->destroyed[b->id], metrics_ended_name(why));
}

void agent_count_ended(struct agent *a, const struct agent_ended *ended, enum metrics_ended why)
{
	for (unsigned int i = 0; i < a->config->n_backends; i++)
		count_ended(a, a->backends[i], ended, why);
	for (unsigned int i = 0; i < a->n_removed; i++)
		count_ended(a, a->removed[i], ended, why);
}

/* The effective weight: the operator's, otherwise the planned one; 0 for a drained backend. */
unsigned int agent_share_weight(const struct agent *a, const struct plan_backend *b)
{
	return backend_status_admin(a->state, b)->drained ? 0 : backend_status_weight(a->state, b);
}

/* Whether the backend is ready and may get new connections. */
bool agent_is_available(const struct agent *a, const struct plan_backend *b)
{
	return b->value.state == KLB_STATE_READY && agent_share_weight(a, b);
}

static bool some_available(struct agent *a)
{
	/* The operator's settings change without a notification. */
	if (a->dp && datapath_read_admin(a->dp, a->state->admin, NULL))
		return false;
	for (unsigned int i = 0; i < a->config->n_backends; i++) {
		const struct plan_backend *b = agent_planned(a, i);

		if (b && agent_is_available(a, b))
			return true;
	}
	return false;
}

/* Marks the backend if its connections can be ended; returns whether they can. */
static bool mark_dead(const struct agent *a, const struct agent_backend *backend,
		      struct agent_dead *dead)
{
	const struct plan_backend *b = plan_find(&a->state->applied, &backend->endpoint);

	if (!b || b->value.state != KLB_STATE_DEAD ||
	    !health_may_evict(agent_backend_health(backend), clock_now_ns()))
		return false;
	dead->dead[b->id] = true;
	dead->vanished[b->id] = b->value.reason == KLB_REASON_UNREACHABLE ||
				b->value.reason == KLB_REASON_CONNECT_TIMEOUT;
	return true;
}

/*
 * Fills dead by id. Returns whether there is a dead backend, and a ready one to take its clients.
 * Both as the maps say: while the kernel does not know that a backend is dead, the clients would
 * come back to it.
 */
bool agent_find_dead(struct agent *a, struct agent_dead *dead)
{
	bool some = false;

	memset(dead, 0, sizeof(*dead));
	for (unsigned int i = 0; i < a->config->n_backends; i++)
		some |= mark_dead(a, a->backends[i], dead);
	for (unsigned int i = 0; i < a->n_removed; i++)
		some |= mark_dead(a, a->removed[i], dead);
	return some && some_available(a);
}

static void start_in(struct agent *a, unsigned int ms)
{
	const struct timeval tv = clock_timeval(ms);

	if (!event_pending(a->evict_timer, EV_TIMEOUT, NULL))
		event_add(a->evict_timer, &tv);
}

void agent_start_evicting(struct agent *a)
{
	start_in(a, random_around(EVICT_MS, JITTER_PERCENT));
}

void agent_forget_evicting(struct agent *a)
{
	look_cancel(&a->evicting.look);
	fair_list_free(&a->evicting.list);
	memset(&a->evicting.dead, 0, sizeof(a->evicting.dead));
}

/* The next ones of the list whose backend is still dead. */
static void next_batch(struct agent_evicting *v, const struct agent_dead *dead,
		       struct agent_batch *ret)
{
	const struct klb_connection *c;

	ret->n = 0;
	ret->vanished = dead->vanished;
	ret->spare_ms = REBALANCE_SERVED_MS;
	while (ret->n < EVICT_BATCH && (c = fair_list_next(&v->list)))
		if (dead->dead[c->record.id])
			ret->at[ret->n++] = *c;
}

static void end_batch(struct agent *a, const struct agent_dead *dead)
{
	struct agent_evicting *v = &a->evicting;
	struct agent_ended result;
	struct agent_batch batch;
	struct err e = { "" };

	next_batch(v, dead, &batch);
	if (!agent_end_batch(a->dp, &batch, &result, &e) && v->hidden)
		err_format(&e, "some are in network namespaces that cannot be looked into: that "
			       "takes CAP_SYS_ADMIN, CAP_SYS_PTRACE and the host's PID namespace");
	log_failure(a->evict_error, LOG_LEVEL_ERROR, "cannot end connections to a dead backend",
		    &e);
	agent_count_ended(a, &result, METRICS_ENDED_DEAD);
	if (fair_list_left(&v->list) || fair_list_dropped(&v->list))
		agent_start_evicting(a);
	else
		fair_list_free(&v->list);
}

/* The number of connections that the kernel counts for them. */
static __u64 count_dead(const struct agent *a, const bool *dead)
{
	struct klb_stats stats;
	__u64 n = 0;

	for (__u32 id = 1; id < KLB_MAX_IDS; id++)
		if (dead[id] && !datapath_read_stat(a->dp, id, &stats, NULL))
			n += stats.active + stats.connecting;
	return n;
}

static void begin_list(void *arg)
{
	struct agent *a = arg;

	fair_list_clear(&a->evicting.list);
}

/* At random among the connections of a process, so that every node picks differently. */
static int take_dead(const struct klb_connection *c, void *arg)
{
	struct agent *a = arg;
	struct agent_evicting *v = &a->evicting;

	if (!rebalance_is_evictable(c, v->dead.dead))
		return 0;
	return fair_list_add(&v->list, c, hash_bytes(v->seed, &c->cookie, sizeof(c->cookie)));
}

static void on_listed(void *arg, int result, const struct datapath_found *found,
		      const struct err *e)
{
	struct agent *a = arg;
	struct agent_evicting *v = &a->evicting;
	struct err error = *e;

	if (!result && fair_list_sort(&v->list))
		result = err_no_memory(&error);
	if (result) {
		log_failure(a->evict_error, LOG_LEVEL_ERROR,
			    "cannot end connections to a dead backend", &error);
		agent_forget_evicting(a);
		return;
	}
	v->hidden = !found->all && count_dead(a, v->dead.dead) >
					   fair_list_left(&v->list) + fair_list_dropped(&v->list);
	end_batch(a, &v->dead);
}

/* The address of the only one that is dead; NULL: there are more. */
static const struct klb_endpoint *only_one(const struct agent *a, const struct agent_dead *dead)
{
	const struct klb_endpoint *only = NULL;

	for (__u32 id = 1; id < KLB_MAX_IDS; id++) {
		const struct plan_backend *b =
			dead->dead[id] ? plan_find_id(&a->state->applied, id) : NULL;

		if (b && only)
			return NULL;
		if (b)
			only = &b->value.endpoint;
	}
	return only;
}

static void list_dead(struct agent *a, const struct agent_dead *dead)
{
	static const struct look_ops ops = { .visitor = { .begin = begin_list, .take = take_dead },
					     .done = on_listed };
	const struct datapath_list_options how = { .info = true, .backend = only_one(a, dead) };
	struct agent_evicting *v = &a->evicting;

	v->dead = *dead;
	v->seed = random_u64();
	v->list.keep = LIST_MAX;
	look_begin(&v->look, a->base, a->dp, &how, true, &ops, a);
}

/*
 * Whether one is dead now that was not when the list was made, or has lived since. Its connections
 * are not in the list, and wait for no others.
 */
static bool is_news(struct agent_evicting *v, const struct agent_dead *dead)
{
	bool news = false;

	for (__u32 id = 1; id < KLB_MAX_IDS; id++) {
		news |= dead->dead[id] && !v->dead.dead[id];
		v->dead.dead[id] &= dead->dead[id];
	}
	return news;
}

void agent_on_evict(evutil_socket_t fd, short what, void *arg)
{
	struct agent *a = arg;
	struct agent_evicting *v = &a->evicting;
	__u64 now = clock_now_ns(), rested = look_rested_ns(&v->look);
	struct agent_dead dead;

	(void)fd;
	(void)what;
	if (!a->dp || !privileges_can_end_connections() || !agent_find_dead(a, &dead)) {
		agent_forget_evicting(a);
	} else if (is_news(v, &dead)) {
		look_cancel(&v->look);
		list_dead(a, &dead);
	} else if (look_is_running(&v->look)) {
		return;
	} else if (fair_list_left(&v->list)) {
		end_batch(a, &dead);
	} else if (rested > now) {
		start_in(a, (unsigned int)((rested - now) / NS_PER_MS) + 1);
	} else {
		list_dead(a, &dead);
	}
}

/* What is relayed ends without a privilege. */
static void end_relayed(struct agent *a, const struct agent_dead *dead)
{
	for (__u32 id = 1; id < KLB_MAX_IDS; id++) {
		const struct plan_backend *b =
			dead->dead[id] ? plan_find_id(&a->state->applied, id) : NULL;

		if (b)
			agent_end_recorded(a, &b->value.endpoint);
	}
}

/* Ends connections that have come to a dead backend since, or could not be ended before. */
void agent_check_dead_backends(struct agent *a)
{
	struct agent_dead dead;
	struct klb_stats stats;

	if (!agent_find_dead(a, &dead))
		return;
	if (!privileges_can_end_connections())
		end_relayed(a, &dead);
	for (__u32 id = 1; id < KLB_MAX_IDS; id++)
		if (dead.dead[id] && !datapath_read_stat(a->dp, id, &stats, NULL) && stats.active)
			agent_start_evicting(a);
}
