/* SPDX-License-Identifier: BSD-2-Clause */
/* Lists the balanced connections, and corrects their counts. */
#include "datapath/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

int datapath_adjust(const struct datapath *dp, const struct klb_adjustment *a, struct err *e)
{
	struct klb_adjustment copy = *a;
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = &copy, .ctx_size_in = sizeof(copy));
	char path[PATH_TEXT_MAX];
	int fd, r = path_join(path, dp->pin_dir, PIN_ADJUST, e);

	if (r)
		return r;
	fd = pin_open(path, "program", e);
	if (fd < 0)
		return fd;
	if (bpf_prog_test_run_opts(fd, &opts))
		r = err_set(e, errno, "%s: cannot be run: %s", path, bpf_errno_hint(errno));
	else if (opts.retval)
		r = err_set(e, EINVAL, "%s: no backend has the id %u", path, a->id);
	close(fd);
	return r;
}
