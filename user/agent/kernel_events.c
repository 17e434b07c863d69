/* SPDX-License-Identifier: BSD-2-Clause */
/* Handles the kernel's events about clients whose connects fail. */
#include "agent/internal.h"

#include <errno.h>

#include <event2/event.h>

#include "net/endpoint.h"

/* Probes the backend of the event. */
static void handle_event(struct agent *a, const struct klb_event *event)
{
	if (event->kind == KLB_EVENT_RESTORED)
		return;
	for (unsigned int i = 0; i < a->config->n_backends; i++)
		if (endpoint_equal(&a->config->backends[i].endpoint, &event->backend))
			agent_backend_probe_soon(a->backends[i]);
	for (unsigned int i = 0; i < a->n_removed; i++)
		if (endpoint_equal(&a->removed[i]->endpoint, &event->backend))
			agent_backend_probe_soon(a->removed[i]);
}

static void on_wakeup(evutil_socket_t fd, short what, void *arg)
{
	struct agent *a = arg;

	(void)fd;
	(void)what;
	datapath_wakeup_clear(a->dp);
	agent_handle_events(a);
}

void agent_handle_events(struct agent *a)
{
	struct klb_event events[16];
	int n;

	do {
		n = datapath_events(a->dp, &a->next_event, events, 16, NULL);
		for (int i = 0; i < n; i++)
			handle_event(a, &events[i]);
	} while (n == 16);
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
	a->wakeup = event_new(a->base, fd, EV_READ | EV_PERSIST, on_wakeup, a);
	if (a->wakeup && !event_add(a->wakeup, NULL))
		return 0;
	return err_no_memory(e);
}
