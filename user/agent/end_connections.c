/* SPDX-License-Identifier: BSD-2-Clause */
/* Ends connections that have been picked for it. */
#include "agent/end_connections.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "host/privileges.h"
#include "net/sock_diag.h"

_Static_assert(EVICT_BATCH <= DATAPATH_END_MAX, "a batch is one call");

struct last_data {
	__u32 id;
	__u32 least_ms;
};

/* One that has ended by itself meanwhile, or has data, is fine. Returns the first error. */
static int count_batch(const struct datapath_ending *batch, unsigned int n, struct agent_ended *ret,
		       struct err *e)
{
	int first = 0;

	for (unsigned int i = 0; i < n; i++) {
		__u32 id = batch[i].connection->record.id;

		ret->ended[id] += !batch[i].result;
		ret->destroyed[id] += !batch[i].result && !batch[i].reset;
		if (batch[i].result && batch[i].result != -ENOENT && batch[i].result != -EAGAIN &&
		    !first)
			first = err_set(e, -batch[i].result, "%s", batch[i].why.text);
	}
	return first;
}

static int end_batch(const struct datapath *dp, struct sock_diag *diag, const struct agent_batch *b,
		     struct agent_ended *ret, struct err *e)
{
	struct datapath_ending batch[EVICT_BATCH] = { 0 };
	int r = sock_diag_can_destroy(diag, e);

	for (unsigned int i = 0; i < b->n; i++) {
		batch[i].connection = &b->at[i];
		batch[i].tell_backend = !b->vanished || !b->vanished[b->at[i].record.id];
		batch[i].spare_ms = b->spare_ms;
	}
	if (r)
		return r;
	datapath_end(dp, diag, batch, b->n);
	return count_batch(batch, b->n, ret, e);
}

int agent_end_batch(const struct datapath *dp, const struct agent_batch *b, struct agent_ended *ret,
		    struct err *e)
{
	struct sock_diag *diag = NULL;
	int r;

	memset(ret, 0, sizeof(*ret));
	if (!b->n)
		return 0;
	privileges_raise();
	r = sock_diag_open(&diag, e);
	if (!r)
		r = end_batch(dp, diag, b, ret, e);
	sock_diag_close(diag);
	privileges_lower();
	return r;
}

static void forget_data(void *arg)
{
	struct last_data *d = arg;

	d->least_ms = CONNECTION_NO_DATA;
}

static int take_data(const struct klb_connection *c, void *arg)
{
	struct last_data *d = arg;

	if (c->record.id == d->id && c->last_data_ms < d->least_ms)
		d->least_ms = c->last_data_ms;
	return 0;
}

__u64 agent_last_data_ns(const struct datapath *dp, __u32 id, const struct klb_endpoint *backend)
{
	static const struct datapath_visitor visitor = { .begin = forget_data, .take = take_data };
	const struct datapath_list_options how = { .info = true, .backend = backend };
	struct last_data data = { .id = id, .least_ms = CONNECTION_NO_DATA };
	struct datapath_found found;
	struct sock_diag *diag = NULL;
	__u64 now = clock_now_ns();

	privileges_raise();
	if (!sock_diag_open(&diag, NULL))
		datapath_visit(dp, diag, &how, &visitor, &data, &found, NULL);
	sock_diag_close(diag);
	privileges_lower();
	return data.least_ms == CONNECTION_NO_DATA ? 0 : now - data.least_ms * NS_PER_MS;
}
