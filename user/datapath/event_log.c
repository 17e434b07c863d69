/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads the kernel's event log, and waits for new events. */
#include "datapath/internal.h"

#include <errno.h>

/*
 * Returns 0 with one event, -EAGAIN while it is being written, -ESTALE when a newer one has
 * replaced it.
 */
static int read_event(int fd, __u64 number, struct klb_event *ret)
{
	__u32 index = (__u32)(number % KLB_EVENTS);
	struct klb_event again;

	if (bpf_map_lookup_elem(fd, &index, ret) || bpf_map_lookup_elem(fd, &index, &again))
		return -errno;
	/* It has changed while it was copied. */
	if (!ret->number || ret->number != again.number)
		return -EAGAIN;
	return ret->number == number + 1 ? 0 : ret->number > number + 1 ? -ESTALE : -EAGAIN;
}

/*
 * Whether a later event, of `end` in all, is complete. An entry that is still incomplete then was
 * never written to this map (an upgrade copies the log while others write), or its writer is very
 * late. The reader skips it.
 */
static bool is_overtaken(int fd, __u64 number, __u64 end)
{
	struct klb_event event;

	while (++number < end)
		if (!read_event(fd, number, &event))
			return true;
	return false;
}

/* Like read_event, but -ESTALE for an event that will not become complete. */
static int next_event(int fd, __u64 number, __u64 end, struct klb_event *ret)
{
	int r = read_event(fd, number, ret);

	if (r != -EAGAIN || !is_overtaken(fd, number, end))
		return r;
	r = read_event(fd, number, ret);
	return r == -EAGAIN ? -ESTALE : r;
}

int datapath_events(const struct datapath *dp, __u64 *next, struct klb_event *ret, unsigned int max,
		    struct err *e)
{
	struct klb_counters counters;
	unsigned int n = 0;
	int r = map_get(dp, MAP_COUNTERS, &counters, e);

	if (r)
		return r;
	/* This is another data path, whose numbers start again. */
	if (*next > counters.events)
		*next = 0;
	if (counters.events - *next > KLB_EVENTS)
		*next = counters.events - KLB_EVENTS;
	while (n < max && *next < counters.events) {
		r = next_event(dp->fds[MAP_EVENTS], *next, counters.events, &ret[n]);

		if (r == -EAGAIN)
			break;
		if (r && r != -ESTALE)
			return err_set(e, -r, "%s/events: %s", dp->pin_dir, bpf_errno_hint(-r));
		n += !r;
		++*next;
	}
	return (int)n;
}

/* The number of the event is not needed: the log has it. */
static int on_wakeup(void *ctx, void *data, size_t size)
{
	(void)ctx;
	(void)data;
	(void)size;
	return 0;
}

int datapath_wakeup_fd(struct datapath *dp, struct err *e)
{
	if (dp->fds[MAP_WAKEUP] < 0)
		return -EOPNOTSUPP;
	if (!dp->wakeup)
		dp->wakeup = ring_buffer__new(dp->fds[MAP_WAKEUP], on_wakeup, NULL, NULL);
	if (!dp->wakeup)
		return err_set(e, errno, "%s/wakeup: %s", dp->pin_dir, bpf_errno_hint(errno));
	return ring_buffer__epoll_fd(dp->wakeup);
}

void datapath_wakeup_clear(struct datapath *dp)
{
	if (dp->wakeup)
		ring_buffer__consume(dp->wakeup);
}
