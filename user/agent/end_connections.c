/* SPDX-License-Identifier: BSD-2-Clause */
/* Ends connections that have been picked for it. */
#include "agent/end_connections.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "balance/rebalance.h"
#include "base/clock.h"
#include "base/random.h"
#include "host/privileges.h"
#include "net/sock_diag.h"

_Static_assert(EVICT_BATCH <= DATAPATH_END_MAX, "a batch is one call");

/* A connection that has ended by itself meanwhile is fine. Returns the first error. */
static int count_batch(const struct datapath_ending *batch, unsigned int n, struct agent_ended *ret,
		       struct err *e)
{
	int first = 0;

	for (unsigned int i = 0; i < n; i++) {
		__u32 id = batch[i].connection->record.id;

		ret->ended[id] += !batch[i].result;
		ret->destroyed[id] += !batch[i].result && !batch[i].reset;
		if (batch[i].result && batch[i].result != -ENOENT && !first)
			first = err_set(e, -batch[i].result, "%s", batch[i].why.text);
	}
	return first;
}

/* vanished: by id; NULL for none. */
static int end_picked(const struct datapath *dp, struct sock_diag *diag,
		      const struct klb_connection *list, const unsigned int *picked, unsigned int n,
		      const bool *vanished, struct agent_ended *ret, struct err *e)
{
	struct datapath_ending batch[EVICT_BATCH] = { 0 };
	int r = sock_diag_can_destroy(diag, e);

	for (unsigned int i = 0; i < n; i++) {
		batch[i].connection = &list[picked[i]];
		batch[i].tell_backend = !vanished || !vanished[list[picked[i]].record.id];
	}
	if (r)
		return r;
	datapath_end(dp, diag, batch, n);
	return count_batch(batch, n, ret, e);
}

typedef unsigned int (*pick_fn)(const struct datapath_connections *all, const void *which,
				unsigned int *ret, unsigned int *ret_remaining);

/* Lists, picks and ends connections. Has the privileges only meanwhile. */
static int end_some(const struct datapath *dp, pick_fn pick, const void *which,
		    const bool *vanished, struct agent_ended *ret, struct err *e)
{
	struct datapath_connections all = { 0 };
	unsigned int picked[EVICT_BATCH], n;
	struct sock_diag *diag = NULL;
	int r;

	memset(ret, 0, sizeof(*ret));
	privileges_raise();
	r = sock_diag_open(&diag, e);
	if (!r)
		r = datapath_connections(dp, diag, &(struct datapath_list_options){ .info = true },
					 &all, e);
	if (!r) {
		n = pick(&all, which, picked, &ret->remaining);
		if (n)
			r = end_picked(dp, diag, all.list, picked, n, vanished, ret, e);
	}
	sock_diag_close(diag);
	privileges_lower();
	free(all.list);
	return r;
}

struct dead {
	const struct datapath *dp;
	const bool *ids; /* by id */
	bool *hidden; /* result: some connections to them are not in the list */
};

/* The number of connections that the kernel counts for them. */
static __u64 count_dead(const struct dead *d)
{
	struct klb_stats stats;
	__u64 n = 0;

	for (__u32 id = 1; id < KLB_MAX_IDS; id++)
		if (d->ids[id] && !datapath_read_stat(d->dp, id, &stats, NULL))
			n += stats.active + stats.connecting;
	return n;
}

static unsigned int pick_dead(const struct datapath_connections *all, const void *which,
			      unsigned int *ret, unsigned int *ret_remaining)
{
	const struct dead *d = which;
	unsigned int n;

	n = rebalance_pick_dead(all->list, all->n, d->ids, random_u64(), EVICT_BATCH, ret,
				ret_remaining);
	*d->hidden = !all->all && count_dead(d) > n + *ret_remaining;
	return n;
}

static unsigned int pick_oldest(const struct datapath_connections *all, const void *id,
				unsigned int *ret, unsigned int *ret_remaining)
{
	(void)ret_remaining;
	*ret = rebalance_pick_oldest(all->list, all->n, *(const __u32 *)id);
	return *ret < all->n;
}

int agent_end_dead(const struct datapath *dp, const struct agent_dead *dead,
		   struct agent_ended *ret, struct err *e)
{
	bool hidden = false;
	const struct dead d = { .dp = dp, .ids = dead->dead, .hidden = &hidden };
	int r = end_some(dp, pick_dead, &d, dead->vanished, ret, e);

	if (!r && hidden)
		r = err_set(e, ESRCH,
			    "some are in network namespaces that cannot be looked into: that takes "
			    "CAP_SYS_ADMIN, CAP_SYS_PTRACE and the host's PID namespace");
	return r;
}

__u64 agent_last_data_ns(const struct datapath *dp, __u32 id)
{
	struct datapath_connections all = { 0 };
	struct sock_diag *diag = NULL;
	__u32 least = CONNECTION_NO_DATA;
	__u64 now = clock_now_ns();

	privileges_raise();
	if (!sock_diag_open(&diag, NULL))
		datapath_connections(dp, diag, &(struct datapath_list_options){ .info = true },
				     &all, NULL);
	sock_diag_close(diag);
	privileges_lower();
	for (unsigned int i = 0; i < all.n; i++)
		if (all.list[i].record.id == id && all.list[i].last_data_ms < least)
			least = all.list[i].last_data_ms;
	free(all.list);
	return least == CONNECTION_NO_DATA ? 0 : now - least * NS_PER_MS;
}

static unsigned int pick_away(const struct datapath_connections *all, const void *failback,
			      unsigned int *ret, unsigned int *ret_remaining)
{
	(void)ret_remaining;
	*ret = failback_pick(failback, all->list, all->n);
	return *ret < all->n;
}

int agent_end_away(const struct datapath *dp, const struct failback *f, struct agent_ended *ret,
		   struct err *e)
{
	return end_some(dp, pick_away, f, NULL, ret, e);
}

int agent_end_oldest(const struct datapath *dp, __u32 id, struct agent_ended *ret, struct err *e)
{
	return end_some(dp, pick_oldest, &id, NULL, ret, e);
}
