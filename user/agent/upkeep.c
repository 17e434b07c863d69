/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the loop does with what it knows: ends connections to dead backends, rebalances, corrects
 * counts.
 */
#include "agent/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "agent/evict.h"
#include "base/clock.h"
#include "base/random.h"
#include "net/endpoint.h"
#include "base/log.h"
#include "base/mem_trim.h"
#include "balance/rebalance.h"
#include "host/node.h"
#include "balance/backend_status.h"

/*
 * How often the counts are compared with the sockets, how soon after the start, and how soon again
 * after a difference.
 */
#define RECONCILE_MS 30000
#define RECONCILE_FIRST_MS 5000
#define RECONCILE_AGAIN_MS 1000
/* Of the two times below: nodes must not act at the same time. */
#define JITTER_PERCENT 50
/* The time between batches of ended connections to dead backends. */
#define EVICT_MS 100
/* The time between two rebalanced connections. */
#define REBALANCE_MS 10000

/* --- connections to dead backends ---------------------------------------------------- */

static const struct plan_backend *planned(const struct agent *a, unsigned int index)
{
	return plan_find(&a->state->applied, &a->config->backends[index].endpoint);
}

static void count_ended(struct agent *a, const struct agent_evict_result *ended,
			enum metrics_ended why)
{
	char text[ENDPOINT_TEXT_MAX];

	for (unsigned int i = 0; i < a->config->n_backends; i++) {
		const struct plan_backend *b = planned(a, i);

		if (!b || !ended->ended[b->id])
			continue;
		a->backends[i]->metrics.ended[why] += ended->ended[b->id];
		log_event(LOG_LEVEL_INFO, "connections ended, their clients connect elsewhere",
			  "backend=%s connections=%u reason=%s",
			  endpoint_format(&b->value.endpoint, text), ended->ended[b->id],
			  metrics_ended_name(why));
	}
}

/* The effective weight: the operator's, otherwise the planned one; 0 for a drained backend. */
static unsigned int weight_of(const struct agent *a, const struct plan_backend *b)
{
	const struct klb_admin *admin = backend_status_admin(a->state, b);

	if (admin->drained)
		return 0;
	return admin->weight_set ? admin->weight : b->value.weight;
}

/* Whether the backend is ready and may get new connections. */
static bool is_ready(const struct agent *a, const struct plan_backend *b)
{
	return b->value.state == KLB_STATE_READY && weight_of(a, b);
}

static bool some_ready(struct agent *a)
{
	/* The operator's settings change without a notification. */
	if (datapath_read_admin(a->dp, a->state->admin, NULL))
		return false;
	for (unsigned int i = 0; i < a->config->n_backends; i++) {
		const struct plan_backend *b = planned(a, i);

		if (b && is_ready(a, b))
			return true;
	}
	return false;
}

/*
 * Fills dead by id. Returns whether there is a dead backend, and a ready one to take its clients.
 * Both as the maps say: while the kernel does not know that a backend is dead, the clients would
 * come back to it.
 */
static bool find_dead(struct agent *a, bool *dead)
{
	bool some = false;

	memset(dead, 0, KLB_MAX_IDS * sizeof(*dead));
	for (unsigned int i = 0; i < a->config->n_backends; i++) {
		const struct health *h = agent_backend_health(a->backends[i]);
		const struct plan_backend *b = planned(a, i);

		if (!b)
			continue;
		dead[b->id] =
			b->value.state == KLB_STATE_DEAD && health_may_evict(h, clock_now_ns());
		some |= dead[b->id];
	}
	return some && some_ready(a);
}

static void start_evicting(struct agent *a)
{
	unsigned int ms = random_around(EVICT_MS, JITTER_PERCENT);
	struct timeval tv = { .tv_usec = ms * 1000 };

	if (!event_pending(a->evict_timer, EV_TIMEOUT, NULL))
		event_add(a->evict_timer, &tv);
}

void agent_on_evict(evutil_socket_t fd, short what, void *arg)
{
	struct agent_evict_result result;
	struct agent *a = arg;
	bool dead[KLB_MAX_IDS];
	struct err e = { "" };

	(void)fd;
	(void)what;
	if (!a->dp || !privileges_can_end_connections() || !find_dead(a, dead))
		return;
	agent_evict_dead(a->dp, dead, &result, &e);
	log_failure(a->evict_error, LOG_LEVEL_ERROR, "cannot end connections to a dead backend",
		    &e);
	count_ended(a, &result, METRICS_ENDED_DEAD);
	if (result.remaining)
		start_evicting(a);
}

/* Ends connections that have come to a dead backend since, or could not be ended before. */
void agent_check_dead_backends(struct agent *a)
{
	bool dead[KLB_MAX_IDS];
	struct klb_stats stats;

	if (!find_dead(a, dead))
		return;
	for (__u32 id = 1; id < KLB_MAX_IDS; id++)
		if (dead[id] && !datapath_read_stat(a->dp, id, &stats, NULL) && stats.active)
			start_evicting(a);
}

/* --- what backends report ------------------------------------------------------------ */

void agent_on_backend_changed(void *arg, bool state_changed)
{
	struct agent *a = arg;

	if (state_changed) {
		agent_apply(a);
		start_evicting(a);
	} else
		a->dirty = true;
}

__u64 agent_on_last_answer(void *arg, const struct klb_endpoint *backend)
{
	struct agent *a = arg;
	const struct plan_backend *b = plan_find(&a->state->applied, backend);
	struct klb_stats stats;

	if (!a->dp || !b || datapath_read_stat(a->dp, b->id, &stats, NULL))
		return 0;
	return stats.last_answer_ns;
}

/* --- rebalancing --------------------------------------------------------------------- */

/*
 * What one backend has and should have. If a backend is preferred (the one on this node), it should
 * have all connections: clients whose connections are ended elsewhere go there, and those that are
 * ended there come back.
 */
static bool read_load(const struct agent *a, unsigned int index, bool some_preferred,
		      struct rebalance_load *ret)
{
	const struct health *h = agent_backend_health(a->backends[index]);
	const struct plan_backend *b = planned(a, index);
	struct klb_stats stats;

	if (!b || !is_ready(a, b) ||
	    health_share(h, a->config->slow_start_ms, clock_now_ns()) != 1000 ||
	    datapath_read_stat(a->dp, b->id, &stats, NULL))
		return false;
	*ret = (struct rebalance_load){ .id = b->id,
					.active = stats.active,
					.weight = some_preferred && !b->preferred
							  ? 0
							  : weight_of(a, b) };
	return true;
}

/*
 * Reads the loads if every backend is ready and has its full weight. Returns their number,
 * otherwise 0.
 */
static unsigned int read_loads(const struct agent *a, struct rebalance_load *ret)
{
	bool some_preferred = false;

	/* With the other policies a client may choose the same backend again. */
	if (a->config->policy != KLB_POLICY_LEAST_CONN ||
	    datapath_read_admin(a->dp, a->state->admin, NULL))
		return 0;
	for (unsigned int i = 0; i < a->config->n_backends; i++) {
		const struct plan_backend *b = planned(a, i);

		some_preferred |= b && b->preferred;
	}
	for (unsigned int i = 0; i < a->config->n_backends; i++)
		if (!read_load(a, i, some_preferred, &ret[i]))
			return 0;
	return a->config->n_backends;
}

void agent_rebalance(struct agent *a)
{
	struct rebalance_load loads[KLB_MAX_BACKENDS];
	struct agent_evict_result result;
	__u64 now = clock_now_ns();
	__u32 id;

	if (!a->config->rebalance || now < a->rebalance_ns)
		return;
	a->rebalance_ns = now + random_around(REBALANCE_MS, JITTER_PERCENT) * 1000000ULL;
	id = rebalance_overloaded(loads, read_loads(a, loads));
	if (id && !agent_evict_one(a->dp, id, &result, NULL))
		count_ended(a, &result, METRICS_ENDED_REBALANCE);
}

/* --- the counts ---------------------------------------------------------------------- */

static void repair(struct agent *a, const struct klb_adjustment *fix)
{
	const struct plan_backend *b = plan_find_id(&a->state->applied, fix->id);
	char text[ENDPOINT_TEXT_MAX] = "removed", quoted[ERR_TEXT_MAX + 64];
	struct err e = { "" };

	if (b)
		endpoint_format(&b->value.endpoint, text);
	if (datapath_adjust(a->dp, fix, &e))
		log_event(LOG_LEVEL_ERROR, "cannot correct a count", "backend=%s error=%s", text,
			  log_quote(quoted, sizeof(quoted), e.text));
	else
		log_event(LOG_LEVEL_WARN, "count corrected: it did not agree with the sockets",
			  "backend=%s id=%u active=%+lld connecting=%+lld", text, fix->id,
			  fix->active, fix->connecting);
}

/* An incomplete list proves nothing. */
static int list_all(struct agent *a, struct datapath_connections *ret)
{
	struct sock_diag *diag = NULL;
	struct err e = { "" };
	int r;

	privileges_raise();
	r = sock_diag_open(&diag, &e);
	if (!r)
		r = datapath_connections(a->dp, diag, &(struct datapath_list_options){ 0 }, ret,
					 &e);
	sock_diag_close(diag);
	privileges_lower();
	log_failure(a->reconcile_error, LOG_LEVEL_WARN,
		    "connections cannot be listed: their counts are not checked, and none "
		    "is ended",
		    &e);
	return r ? r : ret->all ? 0 : -EAGAIN;
}

/*
 * The count of sockets in other network namespaces tells whether a list is complete. It is
 * corrected when two comparisons agree. If not every process is visible, the missing ones may be
 * hidden.
 */
static void reconcile_other_netns(struct agent *a, __s64 excess)
{
	const struct klb_adjustment fix = { .other_netns = -excess };
	bool confirmed = excess && excess == a->excess;
	char quoted[ERR_TEXT_MAX + 64];
	struct err e = { "" };

	a->excess = confirmed ? 0 : excess;
	if (!confirmed || !privileges_can_enter_pods() || !node_sees_every_process())
		return;
	if (datapath_adjust(a->dp, &fix, &e))
		log_event(LOG_LEVEL_ERROR, "cannot correct a count", "error=%s",
			  log_quote(quoted, sizeof(quoted), e.text));
	else
		log_event(LOG_LEVEL_WARN, "count corrected: it did not agree with the sockets",
			  "other_netns=%+lld", fix.other_netns);
}

/* Returns whether to compare again soon. */
static bool reconcile_counts(struct agent *a)
{
	struct klb_adjustment fixes[KLB_MAX_IDS];
	struct datapath_connections all = { 0 };
	struct klb_stats after[KLB_MAX_IDS];
	unsigned int n_fixes;
	bool again = false;
	int r;

	if (a->state->control.refused[KLB_FEATURE_ADJUST] ||
	    a->state->control.refused[KLB_FEATURE_SOCKOPS])
		return false;
	if (datapath_read_stats(a->dp, a->state->stats, NULL))
		return false;
	r = list_all(a, &all);
	if (!r || r == -EAGAIN)
		reconcile_other_netns(a, all.excess);
	if (r || datapath_read_stats(a->dp, after, NULL))
		goto out;
	n_fixes = reconcile_compare(&a->reconcile, a->state->stats, after, all.list, all.n, fixes,
				    &again);
	for (unsigned int i = 0; i < n_fixes; i++)
		repair(a, &fixes[i]);
out:
	free(all.list);
	return again;
}

void agent_on_reconcile(evutil_socket_t fd, short what, void *arg)
{
	struct agent *a = arg;
	unsigned int ms = a->dp && reconcile_counts(a) ? RECONCILE_AGAIN_MS
			  : a->reconciled	       ? RECONCILE_MS
						       : RECONCILE_FIRST_MS;
	struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

	(void)fd;
	(void)what;
	event_add(a->reconcile_timer, &tv);
	a->reconciled = true;
	/* A good time to free what the start, handshakes and reloads have used. */
	memory_trim();
}
