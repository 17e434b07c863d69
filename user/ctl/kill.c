/* SPDX-License-Identifier: BSD-2-Clause */
/* kubelbctl connections, kubelbctl kill */
#include "base/clock.h"
#include "ctl/ctl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cli.h"
#include "ctl/connections.h"
#include "net/endpoint.h"
#include "base/log.h"
#include "net/sock_diag.h"
#include "base/format.h"
#include "balance/backend_status.h"

/* What is attached, and the connections that are open. */
struct look {
	struct datapath *dp;
	struct datapath_state state;
	struct sock_diag *diag;
	struct klb_connection *list;
	unsigned int n;
	bool all; /* see struct datapath_connections */
};

static void look_free(struct look *look)
{
	if (!look)
		return;
	datapath_close(look->dp);
	sock_diag_close(look->diag);
	free(look->list);
	free(look);
}

/* The connections as they are now. */
static int look_for_them(struct look *look, bool rtt, struct err *e)
{
	const struct datapath_looks how = { .rtt = rtt, .everywhere = true };
	struct datapath_connections found = { 0 };
	int r = sock_diag_open(&look->diag, e);

	if (!r)
		r = datapath_connections(look->dp, look->diag, &how, &found, e);
	look->list = found.list;
	look->n = connections_keep(found.list, found.n);
	look->all = found.all;
	if (!r)
		ctl_say_list(found.n, look->n);
	return r;
}

static int look_at(const char *pin_dir, bool rtt, struct look **ret, struct err *e)
{
	struct look *look = calloc(1, sizeof(*look));
	int r = look ? 0 : err_no_memory(e);

	if (!r)
		r = datapath_open(pin_dir, &look->dp, e);
	if (!r)
		r = datapath_read(look->dp, &look->state, e);
	if (!r) {
		ctl_say_state(pin_dir, &look->state);
		r = look_for_them(look, rtt, e);
	}
	if (r)
		look_free(look);
	else
		*ret = look;
	return r;
}

/* --- connections ---------------------------------------------------------------------- */

static void warn_if_hidden(const struct look *look)
{
	if (!look->all)
		log_line("warning: connections of pods may be missing: not every network namespace "
			 "is to be seen from here; run this as root in the host's PID namespace");
}

int ctl_connections(const struct ctl_options *o, int argc, char **argv)
{
	struct look *look = NULL;
	struct err e = { "" };
	__u64 host;
	int r;

	(void)argv;
	if (argc)
		return cli_usage("connections takes no argument");
	if (look_at(o->pin_dir, true, &look, &e))
		return cli_fail(CLI_FAILED, &e);
	warn_if_hidden(look);
	host = look->state.control.host_netns;
	if (o->json)
		r = connections_print_json(look->list, look->n, host, clock_now_ns(), stdout);
	else
		r = connections_print_text(look->list, look->n, host, clock_now_ns(), stdout);
	look_free(look);
	return r ? cli_fail(CLI_FAILED, &(struct err){ "out of memory" }) : CLI_OK;
}

/* --- kill ----------------------------------------------------------------------------- */

struct tally {
	unsigned int tried, ended, gone, failed;
	struct err why; /* of the first that failed */
};

static void kill_one(struct sock_diag *diag, const struct klb_connection *c, struct tally *t)
{
	char process[TEXT_PROCESS_MAX], local[ENDPOINT_TEXT_MAX];
	struct err e = { "" };
	int r = sock_diag_destroy(diag, c, &e);

	t->tried++;
	t->ended += !r;
	t->gone += r == -ENOENT;
	if (!r || r == -ENOENT) {
		ctl_say_end(c, r == -ENOENT);
		return;
	}
	if (!t->failed++)
		t->why = e;
	printf("not ended: %s from %s: %s\n", text_process(c->record.comm, c->record.pid, process),
	       endpoint_format(&c->local, local), e.text);
}

/*
 * Those that the kernel counts and that are not in the list, where some are hidden. They
 * are not ended, and it is not to be said that all have been.
 */
static void count_hidden(const struct look *look, const struct plan_backend *b, struct tally *t)
{
	const struct klb_stats *stats = b ? &look->state.stats[b->id] : NULL;
	__u64 counted = stats ? stats->active + stats->connecting : 0;

	if (look->all || counted <= t->tried)
		return;
	t->failed += (unsigned int)(counted - t->tried);
	t->tried = (unsigned int)counted;
	err_format(&t->why,
		   "no process, and no name in /run/netns, leads to their network namespace; run "
		   "this in the host's PID namespace");
}

static int kill_all(struct look *look, const struct klb_endpoint *backend, struct tally *t,
		    struct err *e)
{
	int r = sock_diag_can_destroy(look->diag, e);

	for (unsigned int i = 0; !r && i < look->n; i++)
		if (endpoint_equal(&look->list[i].record.backend, backend))
			kill_one(look->diag, &look->list[i], t);
	return r;
}

static bool has_any(const struct look *look, const struct klb_endpoint *backend)
{
	for (unsigned int i = 0; i < look->n; i++)
		if (endpoint_equal(&look->list[i].record.backend, backend))
			return true;
	return false;
}

/* Whether what was ended may come straight back. */
static bool takes_new(const struct datapath_state *s, const struct plan_backend *b)
{
	struct backend_status v;

	backend_status_of(s, b, clock_now_ns(), &v);
	return v.weight && !backend_status_admin(s, b)->drained && strcmp(v.state, "dead") != 0;
}

static int report_kill(const struct tally *t, const char *backend, const struct look *look,
		       const struct plan_backend *b)
{
	struct err e;

	printf("%s: %u connection%s ended", backend, t->ended, t->ended == 1 ? "" : "s");
	if (t->gone)
		printf(", %u had ended by %s meanwhile", t->gone,
		       t->gone == 1 ? "itself" : "themselves");
	if (t->failed)
		printf(", %u not", t->failed);
	putchar('\n');
	if (t->ended && b && takes_new(&look->state, b))
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
	struct look *look = NULL;
	struct tally t = { 0 };
	struct err e = { "" };
	int r;

	if (argc != 1)
		return cli_usage("kill takes one BACKEND");
	if (endpoint_parse(argv[0], KLB_PORT_DEFAULT, &endpoint, &e))
		return cli_fail(CLI_USAGE, &e);
	if (look_at(o->pin_dir, false, &look, &e))
		return cli_fail(CLI_FAILED, &e);
	/* One that has left the configuration may have connections still. */
	b = plan_find(&look->state.applied, &endpoint);
	r = b || has_any(look, &endpoint)
		    ? kill_all(look, &endpoint, &t, &e)
		    : ctl_unknown_backend(&look->state.applied, &endpoint, &e);
	if (!r)
		count_hidden(look, b, &t);
	r = r ? cli_fail(CLI_FAILED, &e)
	      : report_kill(&t, endpoint_format(&endpoint, text), look, b);
	look_free(look);
	return r;
}
