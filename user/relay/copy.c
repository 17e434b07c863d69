/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Copies one direction of a relayed connection: through the thread's buffer, and only what the
 * receiver does not take at once is kept. Then nothing more is read until that is gone, so that a
 * slow receiver slows its sender down, as it would without the relay.
 */
#include "relay/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* How many chunks one turn may take, so that a stream at full speed leaves time for the others. */
#define CHUNKS_PER_TURN 4

/* Returns how much was taken, or -1: the connection is gone. */
static ssize_t give(struct stream *to, const char *bytes, size_t length)
{
	ssize_t n;

	do
		n = send(to->fd, bytes, length, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 && errno == EAGAIN ? 0 : n;
}

static bool hold(struct relay_thread *t, struct stream *from, const char *bytes, size_t length)
{
	from->held = malloc(length);
	if (!from->held)
		return false;
	memcpy(from->held, bytes, length);
	from->held_from = 0;
	from->held_to = length;
	atomic_fetch_add_explicit(&t->buffered_bytes, length, memory_order_relaxed);
	return true;
}

static void take(struct relay_thread *t, struct stream *from, size_t length)
{
	from->held_from += length;
	atomic_fetch_sub_explicit(&t->buffered_bytes, length, memory_order_relaxed);
	if (from->held_from < from->held_to)
		return;
	free(from->held);
	from->held = NULL;
}

void copy_drop(struct relay_thread *t, struct stream *from)
{
	if (from->held)
		take(t, from, from->held_to - from->held_from);
}

enum copy_result copy_flush(struct relay_thread *t, struct stream *from, struct stream *to)
{
	ssize_t n = give(to, from->held + from->held_from, from->held_to - from->held_from);

	if (n < 0)
		return COPY_FAILED;
	take(t, from, (size_t)n);
	return from->held ? COPY_HELD : COPY_GOES_ON;
}

static enum copy_result pass_on(struct relay_thread *t, struct stream *from, struct stream *to,
				size_t length)
{
	ssize_t n = give(to, t->scratch, length);

	if (n < 0)
		return COPY_FAILED;
	if ((size_t)n == length)
		return COPY_GOES_ON;
	return hold(t, from, t->scratch + n, length - (size_t)n) ? COPY_HELD : COPY_FAILED;
}

/* The sender has ended this direction. */
static enum copy_result end(struct stream *from, struct stream *to)
{
	from->ended = true;
	return shutdown(to->fd, SHUT_WR) ? COPY_FAILED : COPY_ENDED;
}

enum copy_result copy_read(struct relay_thread *t, struct stream *from, struct stream *to)
{
	enum copy_result r = COPY_GOES_ON;
	ssize_t n;

	for (unsigned int i = 0; i < CHUNKS_PER_TURN && r == COPY_GOES_ON; i++) {
		n = recv(from->fd, t->scratch, RELAY_CHUNK, 0);
		if (!n)
			return end(from, to);
		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? COPY_GOES_ON : COPY_FAILED;
		r = pass_on(t, from, to, (size_t)n);
		/* Less than was asked for: most probably there is no more. */
		if ((size_t)n < RELAY_CHUNK)
			break;
	}
	return r;
}
