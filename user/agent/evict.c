/* SPDX-License-Identifier: BSD-2-Clause */
/* Ends connections to dead backends, in batches. */
#include "agent/internal.h"

#include <string.h>

#include <event2/event.h>

#include "balance/backend_status.h"
#include "base/clock.h"
#include "base/random.h"
#include "net/endpoint.h"

/* The time between batches. */
#define EVICT_MS 100
/* Nodes must not act at the same time. */
#define JITTER_PERCENT 50

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
	if (datapath_read_admin(a->dp, a->state->admin, NULL))
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
static bool find_dead(struct agent *a, struct agent_dead *dead)
{
	bool some = false;

	memset(dead, 0, sizeof(*dead));
	for (unsigned int i = 0; i < a->config->n_backends; i++)
		some |= mark_dead(a, a->backends[i], dead);
	for (unsigned int i = 0; i < a->n_removed; i++)
		some |= mark_dead(a, a->removed[i], dead);
	return some && some_available(a);
}

void agent_start_evicting(struct agent *a)
{
	unsigned int ms = random_around(EVICT_MS, JITTER_PERCENT);
	const struct timeval tv = clock_timeval(ms);

	if (!event_pending(a->evict_timer, EV_TIMEOUT, NULL))
		event_add(a->evict_timer, &tv);
}

void agent_on_evict(evutil_socket_t fd, short what, void *arg)
{
	struct agent_ended result;
	struct agent *a = arg;
	struct agent_dead dead;
	struct err e = { "" };

	(void)fd;
	(void)what;
	if (!a->dp || !privileges_can_end_connections() || !find_dead(a, &dead))
		return;
	agent_end_dead(a->dp, &dead, &result, &e);
	log_failure(a->evict_error, LOG_LEVEL_ERROR, "cannot end connections to a dead backend",
		    &e);
	agent_count_ended(a, &result, METRICS_ENDED_DEAD);
	if (result.remaining)
		agent_start_evicting(a);
}

/* Ends connections that have come to a dead backend since, or could not be ended before. */
void agent_check_dead_backends(struct agent *a)
{
	struct agent_dead dead;
	struct klb_stats stats;

	if (!find_dead(a, &dead))
		return;
	for (__u32 id = 1; id < KLB_MAX_IDS; id++)
		if (dead.dead[id] && !datapath_read_stat(a->dp, id, &stats, NULL) && stats.active)
			agent_start_evicting(a);
}
