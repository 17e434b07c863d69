/* SPDX-License-Identifier: BSD-2-Clause */
/* The PINGs of one backend, and what follows when one is not answered. */
#include "agent/liveness.h"

#include <stdlib.h>

#include <event2/event.h>

#include "base/clock.h"
#include "base/random.h"
#include "net/syn_burst.h"

/* Earlier by up to so much, so that the PINGs of a fleet do not come together; never later. */
#define JITTER_PERCENT 20
/* The backend's kernel acknowledges within a round trip; a lost packet is sent again after this. */
#define ACKNOWLEDGE_MS 250
/* Between two SYNs of a burst: several round trips within a data centre. */
#define SYN_EVERY_MS 50
/* The backend is in doubt when none was answered in this time. */
#define DOUBT_MS 100

enum phase {
	WAITS, /* for the next PING to be due */
	ASKED, /* and the acknowledgement is due */
	BURST, /* it did not come; the answer to a SYN is due */
	UNANSWERED, /* the answer is due */
	RENEWED, /* it did not come; a new connection must show something */
};

struct liveness {
	struct event_base *base;
	struct klb_endpoint backend;
	struct liveness_rules rules;
	const struct liveness_ops *ops;
	void *arg;
	struct event *timer;
	enum phase phase;
	__u64 asked_ns; /* when the PING without an answer was sent */
	struct syn_burst *burst;
};

static void enter(struct liveness *l, enum phase phase, unsigned int ms)
{
	const struct timeval tv = clock_timeval(ms);

	l->phase = phase;
	event_add(l->timer, &tv);
}

static void end_burst(struct liveness *l)
{
	syn_burst_free(l->burst);
	l->burst = NULL;
}

static void wait_for_next(struct liveness *l)
{
	unsigned int earliest = l->rules.ping_ms * (100 - JITTER_PERCENT) / 100;

	end_burst(l);
	enter(l, WAITS, random_between(earliest, l->rules.ping_ms));
}

static unsigned int acknowledge_ms(const struct liveness *l)
{
	return l->rules.timeout_ms / 2 < ACKNOWLEDGE_MS ? l->rules.timeout_ms / 2 : ACKNOWLEDGE_MS;
}

static void ask(struct liveness *l)
{
	if (l->ops->ping(l->arg)) {
		wait_for_next(l);
		return;
	}
	l->asked_ns = clock_now_ns();
	enter(l, ASKED, acknowledge_ms(l));
}

/* Waits for the answer until its time is over. */
static void wait_for_answer(struct liveness *l)
{
	__u64 passed_ms = (clock_now_ns() - l->asked_ns) / NS_PER_MS;

	enter(l, UNANSWERED,
	      l->rules.timeout_ms > passed_ms ? l->rules.timeout_ms - (unsigned int)passed_ms : 0);
}

static void check_acknowledged(struct liveness *l)
{
	if (l->ops->is_acknowledged(l->arg)) {
		wait_for_answer(l);
		return;
	}
	l->burst = syn_burst_new(l->base, &l->backend, SYN_EVERY_MS);
	enter(l, BURST, DOUBT_MS);
}

static bool is_burst_lost(const struct liveness *l)
{
	return l->burst && syn_burst_has_asked(l->burst) && !syn_burst_is_answered(l->burst);
}

static void check_burst(struct liveness *l)
{
	wait_for_answer(l);
	if (is_burst_lost(l))
		l->ops->doubted(l->arg);
}

static void on_unanswered(struct liveness *l)
{
	bool vanished = is_burst_lost(l);

	end_burst(l);
	if (vanished) {
		wait_for_next(l);
		l->ops->lost(l->arg, l->asked_ns, true);
		return;
	}
	enter(l, RENEWED, l->rules.timeout_ms);
	l->ops->silent(l->arg, l->asked_ns);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct liveness *l = arg;

	(void)fd;
	(void)what;
	switch (l->phase) {
	case WAITS:
		ask(l);
		break;
	case ASKED:
		check_acknowledged(l);
		break;
	case BURST:
		check_burst(l);
		break;
	case UNANSWERED:
		on_unanswered(l);
		break;
	case RENEWED:
		wait_for_next(l);
		l->ops->lost(l->arg, l->asked_ns, false);
		break;
	}
}

struct liveness *liveness_new(struct event_base *base, const struct klb_endpoint *backend,
			      const struct liveness_rules *rules, const struct liveness_ops *ops,
			      void *arg)
{
	struct liveness *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->base = base;
	l->backend = *backend;
	l->rules = *rules;
	l->ops = ops;
	l->arg = arg;
	l->timer = evtimer_new(base, on_timer, l);
	if (!l->timer) {
		free(l);
		return NULL;
	}
	return l;
}

void liveness_free(struct liveness *l)
{
	if (!l)
		return;
	end_burst(l);
	event_free(l->timer);
	free(l);
}

void liveness_alive(struct liveness *l)
{
	wait_for_next(l);
}

void liveness_hurry(struct liveness *l)
{
	if (l->phase == WAITS)
		ask(l);
}

bool liveness_is_waiting(const struct liveness *l)
{
	return l->phase == WAITS;
}
