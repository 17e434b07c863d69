/* SPDX-License-Identifier: BSD-2-Clause */
/* Makes connects one after another until the host answers one. */
#include "net/syn_burst.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/clock.h"
#include "net/tcp_connect.h"

struct syn_burst {
	struct event_base *base;
	struct klb_endpoint to;
	struct event *timer;
	struct event *connects[SYN_BURST_MAX]; /* each has its socket */
	unsigned int n;
	bool answered, asked;
};

/* Each ends soon. */
static const struct dial_patience patience = {
	.user_timeout_ms = 1000,
	.keepalive_idle_s = 1,
	.keepalive_interval_s = 1,
	.keepalive_count = 1,
};

static void end_connects(struct syn_burst *b)
{
	const struct linger reset = { .l_onoff = 1 };
	int fd;

	for (unsigned int i = 0; i < b->n; i++) {
		fd = event_get_fd(b->connects[i]);
		event_free(b->connects[i]);
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
		close(fd);
	}
	b->n = 0;
}

static void on_result(evutil_socket_t fd, short what, void *arg)
{
	struct syn_burst *b = arg;
	int os_error = dial_result(fd);

	(void)what;
	/* Other errors are a router's, or this host's own. */
	if (os_error && os_error != ECONNREFUSED)
		return;
	b->answered = true;
	event_del(b->timer);
	end_connects(b);
}

static void connect_once(struct syn_burst *b)
{
	int fd = dial_open(&b->to, &patience);
	struct event *event;

	if (fd < 0)
		return;
	event = event_new(b->base, fd, EV_WRITE, on_result, b);
	if (!event || event_add(event, NULL)) {
		if (event)
			event_free(event);
		close(fd);
		return;
	}
	b->asked = true;
	b->connects[b->n++] = event;
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct syn_burst *b = arg;

	(void)fd;
	(void)what;
	if (b->n < SYN_BURST_MAX)
		connect_once(b);
}

struct syn_burst *syn_burst_new(struct event_base *base, const struct klb_endpoint *to,
				unsigned int every_ms)
{
	const struct timeval every = clock_timeval(every_ms);
	struct syn_burst *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->base = base;
	b->to = *to;
	b->timer = event_new(base, -1, EV_PERSIST, on_timer, b);
	if (!b->timer || event_add(b->timer, &every)) {
		syn_burst_free(b);
		return NULL;
	}
	connect_once(b);
	return b;
}

void syn_burst_free(struct syn_burst *b)
{
	if (!b)
		return;
	end_connects(b);
	if (b->timer)
		event_free(b->timer);
	free(b);
}

bool syn_burst_is_answered(const struct syn_burst *b)
{
	return b->answered;
}

bool syn_burst_has_asked(const struct syn_burst *b)
{
	return b->asked;
}
