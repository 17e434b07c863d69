/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Another configuration for a backend that stays: it keeps its health, its timers and its PINGs. If
 * it takes another connection, that comes at a time of its own, and the one before is kept until
 * then: thousands of nodes may get the same change.
 */
#include <stdlib.h>

#include <event2/event.h>

#include "agent/backend.h"
#include "base/clock.h"
#include "base/random.h"

/* Another look, when the connection is in use at that moment. */
#define BUSY_MS 100

/* What agent_backend_prepare has made. */
struct agent_backend_change {
	struct health_rules rules;
	struct liveness_rules liveness_rules;
	struct liveness *liveness; /* NULL: as it is */
	struct agent_backend_probes probes; /* empty: as they are */
};

/*
 * The next connection takes the place of the one before, which is in the middle of nothing: what
 * it is asked would have no answer.
 */
static void on_renew(evutil_socket_t fd, short what, void *arg)
{
	const struct timeval busy = clock_timeval(BUSY_MS);
	struct agent_backend *b = arg;

	(void)fd;
	(void)what;
	if (b->probing || b->dialling || !liveness_is_waiting(b->liveness)) {
		event_add(b->renew_timer, &busy);
		return;
	}
	agent_backend_take_probes(b, &b->next);
	agent_backend_probe_now(b);
}

static int prepare_parts(struct agent_backend *b, const struct config *cfg, struct probe_tls *tls,
			 struct agent_backend_change *change, struct err *e)
{
	struct event_base *base = event_get_base(b->timer);

	if (!b->renew_timer)
		b->renew_timer = evtimer_new(base, on_renew, b);
	if (!b->renew_timer)
		return err_no_memory(e);
	if (change->liveness_rules.ping_ms != b->liveness_rules.ping_ms ||
	    change->liveness_rules.timeout_ms != b->liveness_rules.timeout_ms) {
		change->liveness = agent_backend_make_liveness(b, base, &change->liveness_rules);
		if (!change->liveness)
			return err_no_memory(e);
	}
	if (!tls)
		return 0;
	return agent_backend_make_probes(b, base, cfg, tls, &change->probes, e);
}

static void stop_renewal(struct agent_backend *b)
{
	agent_backend_forgo(b);
	agent_backend_free_probes(&b->next);
	if (b->renew_timer)
		event_free(b->renew_timer);
	b->renew_timer = NULL;
}

int agent_backend_prepare(struct agent_backend *b, const struct config *cfg, struct probe_tls *tls,
			  struct err *e)
{
	struct agent_backend_change *change = calloc(1, sizeof(*change));
	int r;

	agent_backend_forgo(b);
	if (!change)
		return err_no_memory(e);
	b->change = change;
	b->stop_renewal = stop_renewal;
	agent_backend_rules(cfg, &change->rules, &change->liveness_rules);
	r = prepare_parts(b, cfg, tls, change, e);
	if (r)
		agent_backend_forgo(b);
	return r;
}

void agent_backend_forgo(struct agent_backend *b)
{
	if (!b->change)
		return;
	liveness_free(b->change->liveness);
	agent_backend_free_probes(&b->change->probes);
	free(b->change);
	b->change = NULL;
}

static void take_rules(struct agent_backend *b, const struct health_rules *rules)
{
	bool sooner = rules->interval_ms < b->rules.interval_ms;
	unsigned int keep_ms = b->rules.keep_ms;

	b->rules = *rules;
	b->rules.keep_ms = keep_ms;
	if (sooner && !b->probing && event_pending(b->timer, EV_TIMEOUT, NULL))
		agent_backend_start(b, rules->interval_ms);
}

static void take_liveness(struct agent_backend *b, struct agent_backend_change *change)
{
	if (!change->liveness)
		return;
	liveness_free(b->liveness);
	b->liveness = change->liveness;
	b->liveness_rules = change->liveness_rules;
	change->liveness = NULL;
	if (b->alive_ns)
		liveness_alive(b->liveness);
}

/* The time that an earlier change has chosen stays, or changes in a row would put it off for ever.
 */
static void take_probes(struct agent_backend *b, struct agent_backend_change *change,
			unsigned int within_ms)
{
	bool well = b->health.state == KLB_STATE_READY;
	const struct timeval wait = clock_timeval(well ? random_between(0, within_ms) : 0);

	if (!change->probes.kept)
		return;
	agent_backend_free_probes(&b->next);
	b->next = change->probes;
	change->probes = (struct agent_backend_probes){ 0 };
	if (!well || !event_pending(b->renew_timer, EV_TIMEOUT, NULL))
		event_add(b->renew_timer, &wait);
}

void agent_backend_renew(struct agent_backend *b, unsigned int within_ms)
{
	if (!b->change)
		return;
	take_rules(b, &b->change->rules);
	take_liveness(b, b->change);
	take_probes(b, b->change, within_ms);
	agent_backend_forgo(b);
}
