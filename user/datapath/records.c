/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads the records of the sockets and the events, and corrects counters. */
#include "datapath/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- connections ------------------------------------------------------------------- */

struct connection_list {
	struct klb_connection *at;
	unsigned int n, capacity;
};

static int append(const struct klb_connection *c, void *arg)
{
	struct connection_list *list = arg;

	if (list->n == list->capacity) {
		unsigned int capacity = list->capacity ? 2 * list->capacity : 64;
		void *at = realloc(list->at, capacity * sizeof(*list->at));

		if (!at)
			return -ENOMEM;
		list->at = at;
		list->capacity = capacity;
	}
	list->at[list->n++] = *c;
	return 0;
}

/*
 * Reads how many of our sockets the kernel counts outside of the host's network namespace. A
 * negative count is wrong.
 */
static int count_other_netns(const struct datapath *dp, __s64 *ret, struct err *e)
{
	struct klb_counters counters;
	int r = map_get(dp, MAP_COUNTERS, &counters, e);

	if (r)
		return r;
	*ret = (__s64)counters.other_netns;
	return 0;
}

/* Counts those in the list. */
static unsigned int found_other_netns(const struct connection_list *list)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < list->n; i++)
		n += list->at[i].record.flags & KLB_SOCKET_OTHER_NETNS &&
		     state_is_open(&list->at[i].record);
	return n;
}

/* How far to search. Each level costs more than the one before. */
enum list_depth { DEPTH_HOST, DEPTH_PROCESSES, DEPTH_SOCKETS };

static int list_once(const struct datapath *dp, struct sock_diag *diag, bool info,
		     enum list_depth depth, struct connection_list *ret, struct err *e)
{
	struct sock_diag_query q = { .map_fd = dp->fds[MAP_SOCKETS],
				     .elsewhere = depth >= DEPTH_PROCESSES,
				     .everywhere = depth == DEPTH_SOCKETS,
				     .info = info };
	struct klb_control control;
	int r = map_get(dp, MAP_CONTROL, &control, e);

	if (r)
		return r;
	q.netns = control.host_netns;
	ret->n = 0;
	return sock_diag_list(diag, &q, append, ret, e);
}

/*
 * Searches as far as needed to find as many sockets as the kernel counts. A count that is wrong
 * must not stop the search at the host.
 */
int datapath_connections(const struct datapath *dp, struct sock_diag *diag,
			 const struct datapath_list_options *how, struct datapath_connections *ret,
			 struct err *e)
{
	enum list_depth last = how->everywhere ? DEPTH_SOCKETS : DEPTH_PROCESSES;
	struct connection_list list = { 0 };
	__s64 before = 0, after = 0, found = 0, least = 0;
	bool all = false;
	int r = 0;

	for (enum list_depth depth = DEPTH_HOST; !r && !all && depth <= last; depth++) {
		r = count_other_netns(dp, &before, e);
		if (!r)
			r = list_once(dp, diag, how->info, depth, &list, e);
		if (!r)
			r = count_other_netns(dp, &after, e);
		/* Some may have come or gone meanwhile. */
		found = found_other_netns(&list);
		least = before < after ? before : after;
		all = !r && found >= least && (least >= 0 || depth >= DEPTH_PROCESSES);
	}
	if (r) {
		free(list.at);
		return r;
	}
	*ret = (struct datapath_connections){ .list = list.at,
					      .n = list.n,
					      .all = all,
					      .excess = before == after ? before - found : 0 };
	return 0;
}

/* --- events -------------------------------------------------------------------------- */

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

/* --- corrections --------------------------------------------------------------------- */

int datapath_adjust(const struct datapath *dp, const struct klb_adjustment *a, struct err *e)
{
	struct klb_adjustment copy = *a;
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = &copy, .ctx_size_in = sizeof(copy));
	char path[PATH_TEXT_MAX];
	int fd, r = path_join(path, dp->pin_dir, PIN_ADJUST, e);

	if (r)
		return r;
	fd = bpf_obj_get(path);
	if (fd < 0)
		return err_set(e, errno, "%s: %s; run kubelb-load", path, strerror(errno));
	if (bpf_prog_test_run_opts(fd, &opts))
		r = err_set(e, errno, "%s: cannot be run: %s", path, bpf_errno_hint(errno));
	else if (opts.retval)
		r = err_set(e, EINVAL, "%s: no backend has the id %u", path, a->id);
	close(fd);
	return r;
}
