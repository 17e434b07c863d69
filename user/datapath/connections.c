/* SPDX-License-Identifier: BSD-2-Clause */
/* Lists the balanced connections, and corrects their counts. */
#include "datapath/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How far to search. Each level costs more than the one before. */
enum list_depth { DEPTH_HOST, DEPTH_PROCESSES, DEPTH_SOCKETS };

struct datapath_walk {
	const struct datapath *dp;
	struct sock_diag *diag;
	struct datapath_list_options how;
	struct klb_endpoint backend; /* what how.backend points to */
	const struct datapath_visitor *visitor;
	void *arg;
	enum list_depth depth;
	__s64 before; /* count_other_netns at this depth */
	__s64 found;
	struct sock_diag_walk sockets;
	struct datapath_found result;
};

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

static int visit(const struct klb_connection *c, void *arg)
{
	struct datapath_walk *w = arg;

	w->found += c->record.flags & KLB_SOCKET_OTHER_NETNS && state_is_open(&c->record);
	return w->visitor->take(c, w->arg);
}

/* Begins to search to the walk's depth, from the start. */
static int begin_depth(struct datapath_walk *w, struct err *e)
{
	struct sock_diag_query q = { .map_fd = w->dp->fds[MAP_SOCKETS],
				     .elsewhere = w->depth >= DEPTH_PROCESSES,
				     .everywhere = w->depth == DEPTH_SOCKETS,
				     .info = w->how.info,
				     .peer = w->how.backend };
	struct klb_control control;
	int r = count_other_netns(w->dp, &w->before, e);

	if (!r)
		r = map_get(w->dp, MAP_CONTROL, &control, e);
	if (r)
		return r;
	q.netns = control.host_netns;
	w->found = 0;
	w->visitor->begin(w->arg);
	return sock_diag_walk_begin(&w->sockets, w->diag, &q, e);
}

/*
 * Searches as far as needed to find as many sockets as the kernel counts. A count that is wrong
 * must not stop the search at the host. Returns 1 when there is more to search.
 */
static int end_depth(struct datapath_walk *w, struct err *e)
{
	enum list_depth last = w->how.host_only	   ? DEPTH_HOST
			       : w->how.everywhere ? DEPTH_SOCKETS
						   : DEPTH_PROCESSES;
	__s64 after, least;
	int r = count_other_netns(w->dp, &after, e);

	if (r)
		return r;
	/* Some may have come or gone meanwhile. */
	least = w->before < after ? w->before : after;
	w->result.all = w->found >= least && (least >= 0 || w->depth >= DEPTH_PROCESSES);
	w->result.excess = w->before == after ? w->before - w->found : 0;
	if (w->result.all || w->depth == last)
		return 0;
	w->depth++;
	r = begin_depth(w, e);
	return r ? r : 1;
}

int datapath_walk_begin(const struct datapath *dp, struct sock_diag *diag,
			const struct datapath_list_options *how,
			const struct datapath_visitor *visitor, void *arg,
			struct datapath_walk **ret, struct err *e)
{
	struct datapath_walk *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return err_no_memory(e);
	*w = (struct datapath_walk){
		.dp = dp, .diag = diag, .how = *how, .visitor = visitor, .arg = arg
	};
	if (how->backend) {
		w->backend = *how->backend;
		w->how.backend = &w->backend;
	}
	r = begin_depth(w, e);
	if (r)
		free(w);
	else
		*ret = w;
	return r;
}

int datapath_walk_step(struct datapath_walk *w, struct err *e)
{
	int r = sock_diag_walk_step(&w->sockets, visit, w, e);

	return r ? r : end_depth(w, e);
}

void datapath_walk_end(struct datapath_walk *w, struct datapath_found *ret)
{
	if (w && ret)
		*ret = w->result;
	free(w);
}

int datapath_visit(const struct datapath *dp, struct sock_diag *diag,
		   const struct datapath_list_options *how, const struct datapath_visitor *visitor,
		   void *arg, struct datapath_found *ret, struct err *e)
{
	struct datapath_walk *w = NULL;
	int r = datapath_walk_begin(dp, diag, how, visitor, arg, &w, e);

	if (r)
		return r;
	do
		r = datapath_walk_step(w, e);
	while (r > 0);
	datapath_walk_end(w, ret);
	return r;
}

/* --- as a list -------------------------------------------------------------------- */

static void empty(void *arg)
{
	struct datapath_connections *list = arg;

	list->n = 0;
}

static int append(const struct klb_connection *c, void *arg)
{
	struct datapath_connections *list = arg;

	if (list->n == list->capacity) {
		unsigned int capacity = list->capacity ? 2 * list->capacity : 64;
		void *at = realloc(list->list, capacity * sizeof(*list->list));

		if (!at)
			return -ENOMEM;
		list->list = at;
		list->capacity = capacity;
	}
	list->list[list->n++] = *c;
	return 0;
}

int datapath_connections(const struct datapath *dp, struct sock_diag *diag,
			 const struct datapath_list_options *how, struct datapath_connections *ret,
			 struct err *e)
{
	static const struct datapath_visitor visitor = { .begin = empty, .take = append };
	struct datapath_connections list = { 0 };
	struct datapath_found found;
	int r = datapath_visit(dp, diag, how, &visitor, &list, &found, e);

	if (r) {
		free(list.list);
		return r;
	}
	list.all = found.all;
	*ret = list;
	return 0;
}

/* --- counts ----------------------------------------------------------------------- */

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
