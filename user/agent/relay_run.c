/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The agent's relay: one for all that is relayed, so that its limits, plan, counts and end are. It
 * is made when there are maps or a frontend to listen on, and ends with the agent.
 */
#include "agent/relay_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

/* --- what the relay goes by --------------------------------------------------------------- */

static void fill_limits(const struct config *c, struct relay_limits *ret)
{
	*ret = (struct relay_limits){ .connections = c->relay.connections,
				      .per_source = c->relay.per_source,
				      .connect_timeout_ms = c->connect_timeout_ms,
				      .dead_peer_timeout_ms = c->dead_peer_timeout_ms };
}

static void review_limits(struct agent_relay *r)
{
	struct relay_limits limits;

	fill_limits(r->agent->config, &limits);
	if (memcmp(&limits, &r->limits, sizeof(limits)) == 0)
		return;
	r->limits = limits;
	relay_set_limits(r->relay, &limits);
}

static int give_plan(struct agent_relay *r, const struct relay_frontend *plan, unsigned int n,
		     struct err *e)
{
	int code;

	if (n == r->n_plan && memcmp(plan, r->plan, n * sizeof(*plan)) == 0)
		return 0;
	code = relay_set_plan(r->relay, plan, n, e);
	if (code)
		return code;
	memcpy(r->plan, plan, n * sizeof(*plan));
	r->n_plan = n;
	return 0;
}

static int review_plan(struct agent_relay *r, struct err *e)
{
	struct agent *a = r->agent;
	struct relay_frontend *plan = malloc(KLB_MAX_FRONTENDS * sizeof(*plan));
	struct err unread;
	int code;

	if (!plan)
		return err_no_memory(e);
	/* The operator's settings change without a notification. */
	if (a->dp)
		datapath_read_admin(a->dp, a->state->admin, &unread);
	code = give_plan(r, plan, agent_relay_plan(a->state, plan), e);
	free(plan);
	return code;
}

static void review_counts(struct agent_relay *r)
{
	relay_read_counts(r->relay, &r->counts);
	r->told.active = (__u32)relay_count_active(&r->counts, RELAY_RECORDED, NULL);
}

/* --- start and end -------------------------------------------------------------------------- */

static void relay_destroy(struct agent_relay *r)
{
	if (!r)
		return;
	/* A reset reaches its client without the rule. */
	relay_free(r->relay);
	relay_route_end(r);
	pthread_rwlock_destroy(&r->lock);
	pthread_mutex_destroy(&r->failovers.lock);
	pthread_mutex_destroy(&r->stats.lock);
	relay_events_free(r->events);
	free(r);
}

/* For a data path whose connects nothing is known of yet. */
static void begin_rescue(struct agent_relay *r)
{
	memset(&r->rescue, 0, sizeof(r->rescue));
	/* An agent of another namespace has left nothing here. */
	r->rescue.route.stale = r->agent->dp && !r->agent->other_netns;
	r->rescue.route.changed = relay_rescue_review;
	r->rescues = r->agent->dp;
}

static int relay_create(struct agent *a, struct err *e)
{
	struct agent_relay *r = calloc(1, sizeof(*r));
	int code;

	if (!r)
		return err_no_memory(e);
	r->agent = a;
	r->dp = a->dp;
	pthread_rwlock_init(&r->lock, NULL);
	pthread_mutex_init(&r->failovers.lock, NULL);
	pthread_mutex_init(&r->stats.lock, NULL);
	begin_rescue(r);
	fill_limits(a->config, &r->limits);
	r->events = relay_events_new();
	code = r->events ? relay_new(&r->limits, &relay_agent_ops, r, &r->relay, e)
			 : err_no_memory(e);
	if (code)
		relay_destroy(r);
	else
		a->relay = r;
	return code;
}

int agent_prepare_relay(struct agent *a, struct err *e)
{
	int code = a->relay ? 0 : relay_create(a, e);

	if (code)
		return code;
	review_limits(a->relay);
	return review_plan(a->relay, e);
}

/* The data path was detached on purpose: nothing more comes from it, and the rule goes. */
static void end_rescue(struct agent_relay *r)
{
	static const struct relay_filter which = { .froms = RELAY_RECORDED };

	relay_detour_close(r);
	relay_rescue_close(r);
	relay_end(r->relay, &which);
	relay_route_end(r);
	memset(&r->told, 0, sizeof(r->told));
	memset(&r->detour, 0, sizeof(r->detour));
	r->rescues = false;
}

static void log_relay(struct agent *a, const struct err *e)
{
	log_failure(a->relay_error, LOG_LEVEL_WARN,
		    "nothing is relayed for now, connects that can go straight do", e);
}

void agent_relay_review(struct agent *a)
{
	struct err e = { "" };

	if (!a->dp) {
		if (a->relay && a->relay->rescues && a->on_purpose)
			end_rescue(a->relay);
		return;
	}
	agent_prepare_relay(a, &e);
	if (!a->relay) {
		log_relay(a, &e);
		return;
	}
	log_relay(a, &(struct err){ "" });
	if (!a->relay->rescues)
		begin_rescue(a->relay);
	review_counts(a->relay);
	relay_detour_review(a->relay);
	relay_rescue_review(a->relay);
}

void agent_relay_event(struct agent *a, const struct klb_event *event)
{
	if (a->relay && (event->kind == KLB_EVENT_SUSPECT || event->kind == KLB_EVENT_UNANSWERED))
		relay_rescue_need(a->relay, &event->backend);
}

void agent_relay_datapath(struct agent *a, const struct datapath *dp)
{
	struct agent_relay *r = a->relay;

	if (!r)
		return;
	pthread_rwlock_wrlock(&r->lock);
	r->dp = dp;
	pthread_rwlock_unlock(&r->lock);
	if (dp)
		relay_tell(r);
}

void agent_relay_told(const struct agent *a, struct klb_relay *ret)
{
	*ret = a->relay ? a->relay->told : (struct klb_relay){ 0 };
}

void agent_end_recorded(struct agent *a, const struct klb_endpoint *backend)
{
	const struct relay_filter which = { .froms = RELAY_RECORDED, .backend = backend };

	if (a->relay)
		relay_end(a->relay->relay, &which);
}

void agent_relay_metrics(struct agent *a, struct metrics_input *in)
{
	struct agent_relay *r = a->relay;

	if (!r)
		return;
	relay_read_counts(r->relay, &r->counts);
	in->relay = &r->counts;
	pthread_mutex_lock(&r->failovers.lock);
	in->n_failovers = r->failovers.n;
	memcpy(r->failovers.shown, r->failovers.at, r->failovers.n * sizeof(r->failovers.at[0]));
	pthread_mutex_unlock(&r->failovers.lock);
	in->failovers = r->failovers.shown;
}

void agent_relay_free(struct agent *a)
{
	struct agent_relay *r = a->relay;

	if (!r)
		return;
	memset(&r->told, 0, sizeof(r->told));
	relay_tell(r);
	a->relay = NULL;
	relay_destroy(r);
}

/* --- the agent's end ------------------------------------------------------------------------ */

static bool is_idle(const struct agent_relay *r)
{
	return !r->rescue.n && relay_is_idle(r->relay);
}

static __u64 count_open(struct agent_relay *r)
{
	relay_read_counts(r->relay, &r->counts);
	return relay_count_active(&r->counts, RELAY_ANY, NULL);
}

/* What the kernel has sent here before it was told still comes in. */
static void stop_listening(struct agent_relay *r, __u64 now)
{
	if (now - r->ending_ns < r->limits.connect_timeout_ms * NS_PER_MS)
		return;
	relay_detour_close(r);
	relay_rescue_close(r);
}

static void begin_end(struct agent *a)
{
	struct agent_relay *r = a->relay;

	r->ending_ns = clock_now_ns();
	agent_relay_review(a);
	r->ended = is_idle(r);
	if (!r->ended)
		log_event(LOG_LEVEL_INFO, "what is relayed may finish",
			  "connections=%llu drain=%.1fs", count_open(r),
			  a->config->relay.drain_ms / 1e3);
}

bool agent_relay_drain(struct agent *a)
{
	struct agent_relay *r = a->relay;
	__u64 now, open;

	if (!r)
		return true;
	if (!r->ending_ns)
		begin_end(a);
	if (r->ended)
		return true;
	now = clock_now_ns();
	stop_listening(r, now);
	if (now - r->ending_ns < a->config->relay.drain_ms * NS_PER_MS && !is_idle(r))
		return false;
	open = count_open(r);
	log_event(LOG_LEVEL_INFO,
		  open ? "relayed connections are not finished, they are reset"
		       : "what was relayed is finished",
		  "connections=%llu", open);
	r->ended = true;
	return true;
}
