/* SPDX-License-Identifier: BSD-2-Clause */
/* kubelbctl connections, kubelbctl kill */
#include "ctl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "connections.h"
#include "endpoint.h"
#include "node.h"
#include "sever.h"
#include "text.h"
#include "verdict.h"

/* What is attached, and the connections that are open. */
struct look {
	struct datapath *dp;
	struct datapath_state state;
	__u64 at_ns; /* when the list was begun */
	struct klb_connection *list;
	unsigned int n;
};

static void look_free(struct look *look)
{
	if (!look)
		return;
	datapath_close(look->dp);
	free(look->list);
	free(look);
}

/* The connections as they are now. */
static int look_again(struct look *look, struct err *e)
{
	int r;

	free(look->list);
	look->list = NULL;
	look->n = 0;
	look->at_ns = node_now_ns();
	r = datapath_connections(look->dp, &look->list, &look->n, e);
	look->n = connections_keep(look->list, look->n);
	return r;
}

static int look_at(const char *pin_dir, struct look **ret, struct err *e)
{
	struct look *look = calloc(1, sizeof(*look));
	int r = look ? 0 : err_set(e, ENOMEM, "out of memory");

	if (!r)
		r = datapath_open(pin_dir, &look->dp, e);
	if (!r)
		r = datapath_read(look->dp, &look->state, e);
	if (!r)
		r = look_again(look, e);
	if (r)
		look_free(look);
	else
		*ret = look;
	return r;
}

/* --- connections ---------------------------------------------------------------------- */

int ctl_connections(const struct ctl_options *o, int argc, char **argv)
{
	struct look *look = NULL;
	struct err e = { "" };
	__u64 host;
	int r;

	(void)argv;
	if (argc)
		return cli_usage("connections takes no argument");
	if (look_at(o->pin_dir, &look, &e))
		return cli_fail(CLI_FAILED, &e);
	host = look->state.control.host_netns_cookie;
	if (o->json)
		r = connections_print_json(look->list, look->n, host, node_now_ns(), stdout);
	else
		r = connections_print_text(look->list, look->n, host, node_now_ns(), stdout);
	look_free(look);
	return r ? cli_fail(CLI_FAILED, &(struct err){ "out of memory" }) : CLI_OK;
}

/* --- kill ----------------------------------------------------------------------------- */

/* Of a list of many, made while others come and go, some may be missing: it is made again
 * until none is found that was not tried, and at most this often. */
#define KILL_LOOKS 8

struct tally {
	unsigned int tried, ended, gone, failed;
	struct err why; /* of the first that failed */
	__u64 *cookies; /* of those that were tried, in order */
};

static void kill_one(struct sever *s, const struct klb_connection *c, struct tally *t)
{
	char process[TEXT_PROCESS_MAX], local[ENDPOINT_TEXT_MAX];
	struct err e = { "" };
	int r = sever_one(s, c, &e);

	t->tried++;
	t->ended += !r;
	t->gone += r == -ENOENT;
	if (!r || r == -ENOENT)
		return;
	if (!t->failed++)
		t->why = e;
	printf("not ended: %s from %s: %s\n", text_process(c->record.comm, c->record.pid, process),
	       endpoint_format(&c->local, local), e.text);
}

static int by_number(const void *a, const void *b)
{
	const __u64 *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static bool was_tried(const struct tally *t, unsigned int n, __u64 cookie)
{
	return n && bsearch(&cookie, t->cookies, n, sizeof(cookie), by_number);
}

/* Ends those whose SYN had left by then and that were not tried. What cannot be ended is
 * tried once. */
static int kill_listed(struct sever *s, const struct look *look, const struct klb_endpoint *backend,
		       __u64 then_ns, struct tally *t)
{
	unsigned int known = t->tried;
	__u64 *cookies = realloc(t->cookies, (known + look->n + 1) * sizeof(*cookies));

	if (!cookies)
		return -ENOMEM;
	t->cookies = cookies;
	for (unsigned int i = 0; i < look->n; i++) {
		const struct klb_connection *c = &look->list[i];

		if (!endpoint_equal(&c->record.backend, backend) ||
		    c->record.connect_ns > then_ns || was_tried(t, known, c->cookie))
			continue;
		cookies[t->tried] = c->cookie;
		kill_one(s, c, t);
	}
	qsort(cookies, t->tried, sizeof(*cookies), by_number);
	return 0;
}

/* Whatever is listed; and then, as long as some are found, those that had been open before:
 * of newer ones there may be no end. */
static int kill_all(struct look *look, const struct klb_endpoint *backend, struct tally *t,
		    struct err *e)
{
	/* The records' clock goes by ticks. */
	__u64 began_ns = look->at_ns + look->state.control.tick_ns;
	struct sever *s = NULL;
	int r = sever_open(&s, e);

	for (int looks = 1; !r; looks++) {
		unsigned int before = t->tried;

		if (kill_listed(s, look, backend, looks == 1 ? ~0ULL : began_ns, t))
			r = err_set(e, ENOMEM, "out of memory");
		if (r || t->tried == before)
			break;
		if (looks == KILL_LOOKS)
			r = err_set(e, EAGAIN,
				    "%u connections ended, and others were still found that had "
				    "been open before; run it again",
				    t->ended);
		else
			r = look_again(look, e);
	}
	sever_close(s);
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
	struct verdict v;

	verdict_of(s, b, node_now_ns(), &v);
	return v.weight && !verdict_wish(s, b)->drained && strcmp(v.state, "dead") != 0;
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
	if (look_at(o->pin_dir, &look, &e))
		return cli_fail(CLI_FAILED, &e);
	/* One that has left the configuration may have connections still. */
	b = plan_find(&look->state.applied, &endpoint);
	r = b || has_any(look, &endpoint)
		    ? kill_all(look, &endpoint, &t, &e)
		    : ctl_unknown_backend(&look->state.applied, &endpoint, &e);
	r = r ? cli_fail(CLI_FAILED, &e)
	      : report_kill(&t, endpoint_format(&endpoint, text), look, b);
	free(t.cookies);
	look_free(look);
	return r;
}
