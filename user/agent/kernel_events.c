/* SPDX-License-Identifier: BSD-2-Clause */
/* Handles the kernel's events about clients whose connects fail. */
#include "agent/internal.h"

#include <errno.h>

#include <event2/event.h>

#include "base/clock.h"
#include "net/endpoint.h"

/* Probes the backend of the event. */
static void handle_event(struct agent *a, const struct klb_event *event)
{
	if (event->kind == KLB_EVENT_RESTORED)
		return;
	/* First: the client's next SYN comes in a few milliseconds. */
	agent_relay_event(a, event);
	for (unsigned int i = 0; i < a->config->n_backends; i++) {
		if (!endpoint_equal(&a->config->backends[i].endpoint, &event->backend))
			continue;
		agent_backend_probe_soon(a->backends[i]);
		if (event->kind == KLB_EVENT_EJECTED)
			agent_review_ejection(a, a->backends[i]);
	}
	for (unsigned int i = 0; i < a->n_removed; i++)
		if (endpoint_equal(&a->removed[i]->endpoint, &event->backend))
			agent_backend_probe_soon(a->removed[i]);
}

/*
 * A few wake-ups at once, because a rescue has a few milliseconds for each backend; then one in
 * this time: whoever makes failing connects by the hundred thousand costs the agent a reading now
 * and then.
 */
static const struct ration_rules wakeups = { .burst = 8, .every_ms = 50 };

static void on_wakeup(evutil_socket_t fd, short what, void *arg)
{
	struct agent *a = arg;
	unsigned int wait_ms;

	(void)fd;
	(void)what;
	ration_take(&a->wakeups, &wakeups, clock_now_ns());
	wait_ms = ration_wait_ms(&a->wakeups, &wakeups, clock_now_ns());
	if (wait_ms) {
		const struct timeval pause = clock_timeval(wait_ms);

		if (!event_add(a->wakeup_pause, &pause))
			event_del(a->wakeup);
	}
	datapath_wakeup_clear(a->dp);
	agent_handle_events(a);
}

static void on_pause_over(evutil_socket_t fd, short what, void *arg)
{
	struct agent *a = arg;

	(void)fd;
	(void)what;
	event_add(a->wakeup, NULL);
}

/* Reads those that the log has now. Events that come meanwhile are another reading's. */
void agent_handle_events(struct agent *a)
{
	struct klb_event events[16];
	unsigned int handled = 0;
	int n;

	do {
		n = datapath_events(a->dp, &a->next_event, events, 16, NULL);
		for (int i = 0; i < n; i++)
			handle_event(a, &events[i]);
		handled += n > 0 ? (unsigned int)n : 0;
	} while (n == 16 && handled < KLB_EVENTS);
}

void agent_unsubscribe_events(struct agent *a)
{
	if (a->wakeup)
		event_free(a->wakeup);
	if (a->wakeup_pause)
		event_free(a->wakeup_pause);
	a->wakeup = a->wakeup_pause = NULL;
}

/* Events from before are skipped. */
int agent_subscribe_events(struct agent *a, struct err *e)
{
	int fd = datapath_wakeup_fd(a->dp, e);

	a->next_event = a->state->counters.events;
	/* Then the tick reads the events. */
	if (fd == -EOPNOTSUPP)
		return 0;
	if (fd < 0)
		return fd;
	datapath_wakeup_clear(a->dp);
	a->wakeup_pause = evtimer_new(a->base, on_pause_over, a);
	a->wakeup = event_new(a->base, fd, EV_READ | EV_PERSIST, on_wakeup, a);
	if (a->wakeup_pause && a->wakeup && !event_add(a->wakeup, NULL))
		return 0;
	return err_no_memory(e);
}
