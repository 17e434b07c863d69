/* SPDX-License-Identifier: BSD-2-Clause */
#include "agent_moves.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <event2/util.h>

#include "moves.h"
#include "privileges.h"
#include "sever.h"

/* One that has ended by itself meanwhile is where it should be. */
static int end_them(const struct klb_connection *list, const unsigned int *picked, unsigned int n,
		    struct agent_moves_result *ret, struct err *e)
{
	struct sever *sever = NULL;
	int r = sever_open(&sever, e), first = r;

	for (unsigned int i = 0; !r && i < n; i++) {
		const struct klb_connection *c = &list[picked[i]];
		int one;

		privileges_raise();
		one = sever_one(sever, c, first ? NULL : e);
		privileges_lower();
		if (!one)
			ret->ended[c->record.id]++;
		else if (one != -ENOENT && !first)
			first = one;
	}
	sever_close(sever);
	return first;
}

int agent_moves_dead(const struct datapath *dp, const bool *dead, struct agent_moves_result *ret,
		     struct err *e)
{
	struct klb_connection *list = NULL;
	unsigned int picked[MOVES_BATCH], n = 0, n_picked;
	__u64 random;
	int r;

	memset(ret, 0, sizeof(*ret));
	r = datapath_connections(dp, &list, &n, e);
	if (r)
		return r;
	evutil_secure_rng_get_bytes(&random, sizeof(random));
	n_picked = moves_from_dead(list, n, dead, random, MOVES_BATCH, picked, &ret->left);
	if (n_picked)
		r = end_them(list, picked, n_picked, ret, e);
	free(list);
	return r;
}

int agent_moves_one(const struct datapath *dp, __u32 id, struct agent_moves_result *ret,
		    struct err *e)
{
	struct klb_connection *list = NULL;
	unsigned int n = 0, picked;
	int r;

	memset(ret, 0, sizeof(*ret));
	r = datapath_connections(dp, &list, &n, e);
	if (r)
		return r;
	picked = moves_oldest(list, n, id);
	if (picked < n)
		r = end_them(list, &picked, 1, ret, e);
	free(list);
	return r;
}
