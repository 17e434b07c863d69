/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Looks at all connections in short steps, between which the loop does its other work. However many
 * there are, it takes a small share of a CPU, and nothing waits for it.
 */
#ifndef KUBELB_LOOK_H
#define KUBELB_LOOK_H

#include <stdbool.h>

#include <event2/event.h>

#include "datapath/datapath.h"

/*
 * visitor: takes the connections. done: the look is over; result: 0, or a negative errno with e;
 * found: with 0. It may begin the next look.
 */
struct look_ops {
	struct datapath_visitor visitor;
	void (*done)(void *arg, int result, const struct datapath_found *found,
		     const struct err *e);
};

/* All zero before the first use. The fields belong to look.c. */
struct look {
	struct event *timer;
	struct sock_diag *diag;
	struct datapath_walk *walk; /* NULL: no look is under way */
	const struct look_ops *ops;
	void *arg;
	bool urgent;
	__u64 spent_ns;
	__u64 rested_ns;
};

/*
 * Begins one, if none is under way. urgent: takes up to half of a CPU, and not a tenth. dp has to
 * stay until the end. Where there are few connections, done is called before this returns.
 */
void look_begin(struct look *l, struct event_base *base, const struct datapath *dp,
		const struct datapath_list_options *how, bool urgent, const struct look_ops *ops,
		void *arg);
bool look_is_running(const struct look *l);
/*
 * When another look may begin, so that a CPU spends at most a twentieth of its time on them; in the
 * past: now.
 */
__u64 look_rested_ns(const struct look *l);
/* Ends it without calling done, and frees what it has. */
void look_cancel(struct look *l);

#endif
