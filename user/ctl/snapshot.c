/* SPDX-License-Identifier: BSD-2-Clause */
/* Takes what is attached, and the open connections. */
#include "ctl/snapshot.h"

#include <stdlib.h>

#include "ctl/connections.h"
#include "ctl/ctl.h"

void snapshot_free(struct snapshot *snapshot)
{
	if (!snapshot)
		return;
	datapath_close(snapshot->dp);
	sock_diag_close(snapshot->diag);
	free(snapshot->list);
	free(snapshot);
}

/* Lists the connections as they are now. */
static int list_connections(struct snapshot *snapshot, bool rtt, struct err *e)
{
	const struct datapath_list_options how = { .info = rtt, .everywhere = true };
	struct datapath_connections found = { 0 };
	int r = sock_diag_open(&snapshot->diag, e);

	if (!r)
		r = datapath_connections(snapshot->dp, snapshot->diag, &how, &found, e);
	snapshot->list = found.list;
	snapshot->n = connections_keep(found.list, found.n);
	snapshot->all = found.all;
	if (!r)
		ctl_log_list(found.n, snapshot->n);
	return r;
}

int snapshot_take(const char *pin_dir, bool rtt, struct snapshot **ret, struct err *e)
{
	struct snapshot *snapshot = calloc(1, sizeof(*snapshot));
	int r = snapshot ? 0 : err_no_memory(e);

	if (!r)
		r = ctl_open(pin_dir, &snapshot->dp, &snapshot->state, e);
	if (!r)
		r = list_connections(snapshot, rtt, e);
	if (r)
		snapshot_free(snapshot);
	else
		*ret = snapshot;
	return r;
}
