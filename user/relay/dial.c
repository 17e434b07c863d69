/* SPDX-License-Identifier: BSD-2-Clause */
/* One dial of the relay: a connect to one backend on behalf of one client. */
#include "relay/internal.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "net/tcp_connect.h"

static void on_event(struct stream *s, short what)
{
	struct relay_dial *d = s->owner;

	(void)what;
	d->done(d, dial_result(s->fd));
}

static int begin(struct relay_dial *d, int fd)
{
	struct relay_client *c = d->client;
	const struct relay *r = c->thread->relay;
	const struct relay_target *target = &c->choices->frontend.at[d->target];
	int code;

	d->stream = stream_new(c->thread, fd);
	if (!d->stream) {
		close(fd);
		return ENOMEM;
	}
	d->stream->on_event = on_event;
	d->stream->owner = d;
	if (r->ops.dialling)
		r->ops.dialling(r->arg, fd, &c->request, target);
	code = -dial_connect(fd, &target->endpoint);
	if (!code && stream_await(d->stream, EV_WRITE))
		code = ENOMEM;
	return code;
}

struct relay_dial *dial_new(struct relay_client *c, unsigned int target,
			    void (*done)(struct relay_dial *, int), int *ret_error)
{
	struct relay_dial *d = calloc(1, sizeof(*d));
	int fd;

	*ret_error = ENOMEM;
	if (!d)
		return NULL;
	*d = (struct relay_dial){
		.client = c, .target = target, .done = done, .since_ns = clock_now_ns()
	};
	TAILQ_INSERT_HEAD(&c->dials, d, link);
	atomic_fetch_add(&c->choices->backend[target]->load, 1);
	fd = dial_socket(&c->choices->frontend.at[target].endpoint);
	*ret_error = fd < 0 ? -fd : begin(d, fd);
	if (!*ret_error)
		return d;
	dial_free(d);
	return NULL;
}

void dial_free(struct relay_dial *d)
{
	struct relay_client *c = d->client;

	atomic_fetch_sub(&c->choices->backend[d->target]->load, 1);
	TAILQ_REMOVE(&c->dials, d, link);
	stream_reset(d->stream);
	free(d);
}
