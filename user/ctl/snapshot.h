/* SPDX-License-Identifier: BSD-2-Clause */
/* What is attached, and the open connections, taken at one time. */
#ifndef KUBELB_CTL_SNAPSHOT_H
#define KUBELB_CTL_SNAPSHOT_H

#include "datapath/datapath.h"
#include "net/sock_diag.h"

struct snapshot {
	struct datapath *dp;
	struct datapath_state state;
	struct sock_diag *diag;
	struct klb_connection *list; /* as connections_keep leaves it */
	unsigned int n;
	bool all; /* see struct datapath_connections */
};

/*
 * Opens the data path and lists the connections, with their round trip times if rtt. Returns 0, or
 * a negative errno with e. Free it with snapshot_free.
 */
int snapshot_take(const char *pin_dir, bool rtt, struct snapshot **ret, struct err *e);
/* NULL is allowed. */
void snapshot_free(struct snapshot *snapshot);

#endif
