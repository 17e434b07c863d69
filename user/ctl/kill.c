/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * kubelbctl connections: lists the balanced connections. kubelbctl kill: ends those to a backend.
 */
#include "base/clock.h"
#include "ctl/ctl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cli.h"
#include "ctl/connections.h"
#include "ctl/snapshot.h"
#include "net/endpoint.h"
#include "base/log.h"
#include "net/sock_diag.h"
#include "base/format.h"
#include "balance/backend_status.h"

/* r: what a ctl_relayed_... has returned. e: why there are no maps. Returns an exit status. */
static int end_relayed(int r, const struct err *refused, const struct err *e)
{
	return r ? cli_fail(CLI_FAILED, r < 0 ? refused : e) : CLI_OK;
}

/* --- connections ---------------------------------------------------------------------- */

static void warn_if_hidden(const struct snapshot *snapshot)
{
	if (!snapshot->all)
		log_line("warning: connections of pods may be missing: not every network namespace "
			 "is to be seen from here; run this as root in the host's PID namespace");
}

int ctl_connections(const struct ctl_options *o, int argc, char **argv)
{
	struct snapshot *snapshot = NULL;
	struct err e = { "" }, refused;
	__u64 host;
	int r;

	(void)argv;
	if (argc)
		return cli_usage("connections takes no argument");
	if (snapshot_take(o->pin_dir, true, &snapshot, &e))
		return end_relayed(ctl_relayed_page(o, "connections", stdout, &refused), &refused,
				   &e);
	warn_if_hidden(snapshot);
	host = snapshot->state.control.host_netns;
	if (o->json)
		r = connections_print_json(snapshot->list, snapshot->n, host, clock_now_ns(),
					   stdout);
	else
		r = connections_print_text(snapshot->list, snapshot->n, host, clock_now_ns(),
					   stdout);
	snapshot_free(snapshot);
	return r ? cli_fail(CLI_FAILED, &(struct err){ "out of memory" }) : CLI_OK;
}

/* --- kill ----------------------------------------------------------------------------- */

struct tally {
	unsigned int tried, ended, destroyed, gone, failed;
	struct err why; /* of the first that failed */
};

static void report_one(const struct datapath_ending *x, struct tally *t)
{
	char process[FORMAT_PROCESS_MAX], local[ENDPOINT_TEXT_MAX];
	const struct klb_connection *c = x->connection;

	t->tried++;
	t->ended += !x->result;
	t->destroyed += !x->result && !x->reset;
	t->gone += x->result == -ENOENT;
	if (!x->result || x->result == -ENOENT) {
		ctl_log_end(x);
		return;
	}
	if (!t->failed++)
		t->why = x->why;
	printf("not ended: %s from %s: %s\n",
	       format_process(c->record.comm, c->record.pid, process),
	       endpoint_format(&c->local, local), x->why.text);
}

static void kill_batch(struct snapshot *snapshot, struct datapath_ending *batch, unsigned int n,
		       struct tally *t)
{
	datapath_end(snapshot->dp, snapshot->diag, batch, n);
	for (unsigned int i = 0; i < n; i++)
		report_one(&batch[i], t);
}

/*
 * Counts connections that the kernel counts and that are not in the list, when some are hidden.
 * They have not been ended, and the report must say so.
 */
static void count_hidden(const struct snapshot *snapshot, const struct plan_backend *b,
			 struct tally *t)
{
	__u64 counted = 0;

	if (b)
		counted = snapshot->state.stats[b->id].active +
			  snapshot->state.stats[b->id].connecting;
	if (snapshot->all || counted <= t->tried)
		return;
	t->failed += (unsigned int)(counted - t->tried);
	t->tried = (unsigned int)counted;
	err_format(&t->why,
		   "no process, and no name in /run/netns, leads to their network namespace; run "
		   "this in the host's PID namespace");
}

static int kill_all(struct snapshot *snapshot, const struct klb_endpoint *backend, struct tally *t,
		    struct err *e)
{
	struct datapath_ending batch[DATAPATH_END_MAX];
	int r = sock_diag_can_destroy(snapshot->diag, e);
	unsigned int n = 0;

	for (unsigned int i = 0; !r && i < snapshot->n; i++) {
		if (!endpoint_equal(&snapshot->list[i].record.backend, backend))
			continue;
		batch[n++] = (struct datapath_ending){ .connection = &snapshot->list[i],
						       .tell_backend = true };
		if (n == DATAPATH_END_MAX) {
			kill_batch(snapshot, batch, n, t);
			n = 0;
		}
	}
	if (!r)
		kill_batch(snapshot, batch, n, t);
	return r;
}

static bool has_any(const struct snapshot *snapshot, const struct klb_endpoint *backend)
{
	for (unsigned int i = 0; i < snapshot->n; i++)
		if (endpoint_equal(&snapshot->list[i].record.backend, backend))
			return true;
	return false;
}

/* Whether new connects may choose the backend again. */
static bool may_be_chosen_again(const struct datapath_state *s, const struct plan_backend *b)
{
	struct backend_status status;

	backend_status_of(s, b, clock_now_ns(), &status);
	return status.weight && !backend_status_admin(s, b)->drained && status.state != STATUS_DEAD;
}

static int report_kill(const struct tally *t, const char *backend, const struct snapshot *snapshot,
		       const struct plan_backend *b)
{
	struct err e;

	printf("%s: %u connection%s ended", backend, t->ended, t->ended == 1 ? "" : "s");
	if (t->destroyed)
		printf(" (%u by SOCK_DESTROY, not by a reset)", t->destroyed);
	if (t->gone)
		printf(", %u had ended by %s meanwhile", t->gone,
		       t->gone == 1 ? "itself" : "themselves");
	if (t->failed)
		printf(", %u not", t->failed);
	putchar('\n');
	if (t->ended && b && may_be_chosen_again(&snapshot->state, b))
		printf("note: new connects may choose it again; `kubelbctl drain %s` first moves "
		       "them elsewhere\n",
		       backend);
	if (!t->failed)
		return CLI_OK;
	err_format(&e, "%s: %u of %u connections could not be ended: %s", backend, t->failed,
		   t->tried, t->why.text);
	return cli_fail(CLI_FAILED, &e);
}

int ctl_kill(const struct ctl_options *o, int argc, char **argv)
{
	const struct plan_backend *b;
	struct klb_endpoint endpoint;
	char text[ENDPOINT_TEXT_MAX];
	struct snapshot *snapshot = NULL;
	struct tally t = { 0 };
	struct err e = { "" }, refused;
	int r;

	if (argc != 1)
		return cli_usage("kill takes one BACKEND");
	if (endpoint_parse(argv[0], KLB_PORT_DEFAULT, &endpoint, &e))
		return cli_fail(CLI_USAGE, &e);
	if (snapshot_take(o->pin_dir, false, &snapshot, &e))
		return end_relayed(ctl_relayed_order(o, &endpoint, "kill", stdout, &refused),
				   &refused, &e);
	/* A backend that an older kubelb-load has removed may still have connections. */
	b = ctl_find_backend(&snapshot->state, &endpoint);
	r = b || has_any(snapshot, &endpoint)
		    ? kill_all(snapshot, &endpoint, &t, &e)
		    : ctl_unknown_backend(&snapshot->state.applied, &endpoint, &e);
	if (!r)
		count_hidden(snapshot, b, &t);
	r = r ? cli_fail(CLI_FAILED, &e)
	      : report_kill(&t, endpoint_format(&endpoint, text), snapshot, b);
	snapshot_free(snapshot);
	return r;
}
