/* SPDX-License-Identifier: BSD-2-Clause */
/* The sockets' records, the events, and corrections to the counters. */
#include "datapath_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "node.h"

/* --- connections ------------------------------------------------------------------- */

/*
 * The kernel gathers what one read yields in a buffer of eight pages (bpf_seq_read,
 * kernel/bpf/bpf_iter.c): 178 records where a page has 4096 bytes. Between two reads it
 * keeps its place as a number of records, in a list that others put theirs in front of or
 * take them out of (bpf_sk_storage_map_seq_find_next, net/core/bpf_sk_storage.c): then
 * records come twice, or not at all.
 */
#define READ_SIZE 65536
/* So a list that took several reads is made again until nobody is found that was there
 * from the start and had been left out; and at most this often. */
#define LIST_PASSES 6

/* A growing list; the iterator does not say beforehand how many there are. */
struct connection_list {
	struct klb_connection *at;
	size_t bytes, room;
	unsigned int reads; /* that have yielded something */
};

static unsigned int count_of(const struct connection_list *list)
{
	return (unsigned int)(list->bytes / sizeof(*list->at));
}

/* For `more` bytes. */
static int make_room(struct connection_list *list, size_t more)
{
	size_t room = 2 * list->room > list->bytes + more ? 2 * list->room : list->bytes + more;
	void *at;

	if (list->room - list->bytes >= more)
		return 0;
	at = realloc(list->at, room);
	if (!at)
		return -ENOMEM;
	list->at = at;
	list->room = room;
	return 0;
}

static int read_all(int fd, struct connection_list *list)
{
	for (;;) {
		ssize_t n;
		int r = make_room(list, READ_SIZE);

		if (r)
			return r;
		n = read(fd, (char *)list->at + list->bytes, READ_SIZE);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n <= 0)
			return n ? -errno : 0;
		list->bytes += (size_t)n;
		list->reads++;
	}
}

static int by_cookie(const void *a, const void *b)
{
	const struct klb_connection *x = a, *y = b;

	return (x->cookie > y->cookie) - (x->cookie < y->cookie);
}

/* In the order of the cookies, each once. */
static void sort_out(struct connection_list *list)
{
	unsigned int n = count_of(list), kept = 0;

	if (n)
		qsort(list->at, n, sizeof(*list->at), by_cookie);
	for (unsigned int i = 0; i < n; i++)
		if (!kept || list->at[kept - 1].cookie != list->at[i].cookie)
			list->at[kept++] = list->at[i];
	list->bytes = kept * sizeof(*list->at);
}

static bool holds(const struct connection_list *list, const struct klb_connection *c)
{
	return list->bytes && bsearch(c, list->at, count_of(list), sizeof(*c), by_cookie);
}

/* Whether one of the list had its SYN sent by then, and is not among the known. */
static bool has_overlooked(const struct connection_list *list, const struct connection_list *known,
			   __u64 then_ns)
{
	for (unsigned int i = 0; i < count_of(list); i++)
		if (list->at[i].record.phase != KLB_PHASE_NEW &&
		    list->at[i].record.connect_ns <= then_ns && !holds(known, &list->at[i]))
			return true;
	return false;
}

/* Adds the known ones that are not in the list: left out of it, or gone since. */
static int add_known(struct connection_list *list, const struct connection_list *known)
{
	struct connection_list was = *list;
	int r = make_room(list, known->bytes);

	if (r)
		return r;
	was.at = list->at;
	for (unsigned int i = 0; i < count_of(known); i++) {
		if (holds(&was, &known->at[i]))
			continue;
		list->at[count_of(list)] = known->at[i];
		list->bytes += sizeof(*list->at);
	}
	sort_out(list);
	return 0;
}

/* One pass over the records; *ret is empty before. */
static int list_once(const char *path, struct connection_list *ret, struct err *e)
{
	int r, fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return err_set(e, errno, "%s: %s; run kubelb-load", path, strerror(errno));
	r = read_all(fd, ret);
	close(fd);
	if (r)
		return err_set(e, -r, "%s: cannot read: %s", path, bpf_errno_hint(-r));
	sort_out(ret);
	return 0;
}

/* Another pass, into *list. *ret_done: whether none is missing any more, as far as one can
 * tell. */
static int list_again(const char *path, __u64 since_ns, struct connection_list *list,
		      bool *ret_done, struct err *e)
{
	struct connection_list known = *list;
	int r;

	*list = (struct connection_list){ 0 };
	r = list_once(path, list, e);
	/* In one read: nothing has moved meanwhile. */
	*ret_done = list->reads <= 1 || !has_overlooked(list, &known, since_ns);
	if (!r && list->reads > 1 && add_known(list, &known))
		r = err_set(e, ENOMEM, "out of memory");
	free(known.at);
	return r;
}

int datapath_connections(const struct datapath *dp, struct klb_connection **ret,
			 unsigned int *ret_n, struct err *e)
{
	struct connection_list list = { 0 };
	char path[PATH_TEXT_MAX];
	__u64 since_ns = node_now_ns();
	bool done;
	int r = path_join(path, dp->pin_dir, PIN_CONNECTIONS, e);

	if (r)
		return r;
	r = list_once(path, &list, e);
	done = list.reads <= 1;
	for (int pass = 1; !r && !done && pass < LIST_PASSES; pass++)
		r = list_again(path, since_ns, &list, &done, e);
	if (r) {
		free(list.at);
		return r;
	}
	*ret = list.at;
	*ret_n = count_of(&list);
	return 0;
}

/* --- events -------------------------------------------------------------------------- */

/* 0 with one event, -EAGAIN when it is being written, -ESTALE when a newer one is there. */
static int read_event(int fd, __u64 number, struct klb_event *ret)
{
	__u32 index = (__u32)(number % KLB_EVENTS);
	struct klb_event again;

	if (bpf_map_lookup_elem(fd, &index, ret) || bpf_map_lookup_elem(fd, &index, &again))
		return -errno;
	/* Changed while it was being copied. */
	if (!ret->number || ret->number != again.number)
		return -EAGAIN;
	return ret->number == number + 1 ? 0 : ret->number > number + 1 ? -ESTALE : -EAGAIN;
}

/*
 * Whether an event behind number, of `end` in all, is there whole. An entry that is still
 * unfinished then was never written to this map (an upgrade copies the log while others
 * write), or its writer is very late: nobody waits for it.
 */
static bool is_overtaken(int fd, __u64 number, __u64 end)
{
	struct klb_event event;

	while (++number < end)
		if (!read_event(fd, number, &event))
			return true;
	return false;
}

/* The same as read_event; -ESTALE for what is not going to be whole. */
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
	__u32 zero = 0;

	if (bpf_map_lookup_elem(dp->fds[MAP_COUNTERS], &zero, &counters))
		return err_set(e, errno, "%s/counters: %s", dp->pin_dir, bpf_errno_hint(errno));
	/* Another data path, whose count began anew. */
	if (*next > counters.events)
		*next = 0;
	if (counters.events - *next > KLB_EVENTS)
		*next = counters.events - KLB_EVENTS;
	while (n < max && *next < counters.events) {
		int r = next_event(dp->fds[MAP_EVENTS], *next, counters.events, &ret[n]);

		if (r == -EAGAIN)
			break;
		if (r && r != -ESTALE)
			return err_set(e, -r, "%s/events: %s", dp->pin_dir, bpf_errno_hint(-r));
		n += !r;
		++*next;
	}
	return (int)n;
}

/* The number of the event is of no use here: the log has it. */
static int on_wakeup(void *ctx, void *data, size_t size)
{
	(void)ctx;
	(void)data;
	(void)size;
	return 0;
}

int datapath_wakeup_fd(struct datapath *dp, struct err *e)
{
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
