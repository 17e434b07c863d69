/* SPDX-License-Identifier: BSD-2-Clause */
/* One socket of the relay in an event loop. */
#include "relay/internal.h"

#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/tcp_connect.h"

static void on_event(evutil_socket_t fd, short what, void *arg)
{
	struct stream *s = arg;

	(void)fd;
	s->on_event(s, what);
}

struct stream *stream_new(struct relay_thread *t, int fd)
{
	struct stream *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->fd = fd;
	event_assign(&s->readable, t->base, fd, EV_READ | EV_PERSIST, on_event, s);
	event_assign(&s->writable, t->base, fd, EV_WRITE | EV_PERSIST, on_event, s);
	return s;
}

static struct event *event_of(struct stream *s, short what)
{
	return what == EV_READ ? &s->readable : &s->writable;
}

int stream_await(struct stream *s, short what)
{
	return event_add(event_of(s, what), NULL);
}

void stream_ignore(struct stream *s, short what)
{
	event_del(event_of(s, what));
}

/* The times are the kernel programs' for straight connections: bpf/sockopts.bpf.h. */
void stream_tune(int fd, unsigned int dead_peer_timeout_ms)
{
	const struct linger reset = { .l_onoff = 1 };
	unsigned int idle_s = dead_peer_timeout_ms / 2000,
		     interval_s = dead_peer_timeout_ms / 10000;
	const struct dial_patience patience = {
		.user_timeout_ms = (int)dead_peer_timeout_ms,
		.keepalive_idle_s = idle_s ? (int)idle_s : 1,
		.keepalive_interval_s = interval_s ? (int)interval_s : 1,
		/* Not used beside TCP_USER_TIMEOUT (tcp_keepalive_timer); the kernel's default. */
		.keepalive_count = 9,
	};
	const int on = 1;

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	if (dead_peer_timeout_ms)
		dial_tune(fd, &patience);
	else
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

static void drop(struct stream *s)
{
	event_del(&s->readable);
	event_del(&s->writable);
	close(s->fd);
	free(s->held);
	free(s);
}

void stream_reset(struct stream *s)
{
	if (s)
		drop(s);
}

void stream_finish(struct stream *s)
{
	const struct linger none = { 0 };

	setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
	drop(s);
}
