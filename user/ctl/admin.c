/* SPDX-License-Identifier: BSD-2-Clause */
/* kubelbctl drain, undrain, weight */
#include "ctl/ctl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "balance/backend_status.h"
#include "base/cli.h"
#include "base/clock.h"
#include "net/endpoint.h"

/* The change of a command to the admin state. */
struct admin_change {
	enum { ADMIN_DRAIN, ADMIN_UNDRAIN, ADMIN_WEIGHT, ADMIN_WEIGHT_AUTO } kind;
	unsigned int weight;
};

static void edit_admin(struct klb_admin *admin, const void *arg)
{
	const struct admin_change *c = arg;

	switch (c->kind) {
	case ADMIN_DRAIN:
	case ADMIN_UNDRAIN:
		admin->drained = c->kind == ADMIN_DRAIN;
		break;
	case ADMIN_WEIGHT:
	case ADMIN_WEIGHT_AUTO:
		admin->weight_set = c->kind == ADMIN_WEIGHT;
		admin->weight = c->weight;
		break;
	}
}

/* removed: those that are in the list, or those that have left it. */
static void list_backends(const struct plan *p, bool removed, char *ret, size_t size)
{
	char text[ENDPOINT_TEXT_MAX];
	size_t used = 0;

	ret[0] = '\0';
	for (unsigned int i = 0; i < p->n_backends && used < size; i++)
		if (p->backends[i].removed == removed)
			used += (size_t)snprintf(
				ret + used, size - used, "%s%s", used ? ", " : "",
				endpoint_format(&p->backends[i].value.endpoint, text));
}

const struct plan_backend *ctl_find_backend(const struct datapath_state *s,
					    const struct klb_endpoint *endpoint)
{
	const struct plan_backend *b = plan_find(&s->applied, endpoint);

	return b && backend_status_is_shown(s, b) ? b : NULL;
}

int ctl_unknown_backend(const struct plan *p, const struct klb_endpoint *endpoint, struct err *e)
{
	char text[ENDPOINT_TEXT_MAX], known[256], left[256];

	list_backends(p, false, known, sizeof(known));
	list_backends(p, true, left, sizeof(left));
	return err_set(e, ENOENT, "%s: no such backend; there are: %s%s%s",
		       endpoint_format(endpoint, text), known,
		       left[0] ? "; not in the list now: " : "", left);
}

/* Backends other than this one. */
struct others {
	unsigned int ready; /* and have a weight */
	unsigned int weighted; /* whatever their state */
};

static struct others count_others(const struct datapath_state *s, const struct plan_backend *b)
{
	struct backend_status status;
	struct others ret = { 0 };

	for (unsigned int i = 0; i < s->applied.n_backends; i++) {
		backend_status_of(s, &s->applied.backends[i], clock_now_ns(), &status);
		if (s->applied.backends[i].id == b->id || !status.weight)
			continue;
		ret.weighted++;
		ret.ready += status.state == STATUS_READY;
	}
	return ret;
}

/* Of a backend that is not in the list now. */
static void report_kept(const struct admin_change *c, const char *text)
{
	switch (c->kind) {
	case ADMIN_DRAIN:
		printf("%s: not in the list now; it stays drained when it comes back, until "
		       "`kubelbctl undrain %s`\n",
		       text, text);
		break;
	case ADMIN_UNDRAIN:
		printf("%s: not in the list now; it takes new connections when it comes back\n",
		       text);
		break;
	case ADMIN_WEIGHT:
		printf("%s: not in the list now; weight %u when it comes back, until `kubelbctl "
		       "weight %s auto`\n",
		       text, c->weight, text);
		break;
	case ADMIN_WEIGHT_AUTO:
		printf("%s: not in the list now; the configuration's weight when it comes back\n",
		       text);
		break;
	}
}

static void report_change(const struct admin_change *c, const struct datapath_state *s,
			  const struct plan_backend *b)
{
	const struct others others = count_others(s, b);
	char text[ENDPOINT_TEXT_MAX];

	endpoint_format(&b->value.endpoint, text);
	if (b->removed) {
		report_kept(c, text);
		return;
	}
	switch (c->kind) {
	case ADMIN_DRAIN:
		printf("%s: draining; %llu connections to it stay until they close\n", text,
		       s->stats[b->id].active);
		if (s->applied.local == KLB_LOCAL_ONLY && b->preferred)
			printf("note: local is only: new connections of this node go to it all the "
			       "same; local: prefer in its configuration lets them leave\n");
		else if (!others.ready && backend_status_weight(s, b))
			printf("note: no other backend is ready; it still gets what no other can "
			       "take\n");
		break;
	case ADMIN_UNDRAIN:
		printf("%s: takes new connections again\n", text);
		break;
	case ADMIN_WEIGHT:
		printf("%s: weight %u, until `kubelbctl weight %s auto`\n", text, c->weight, text);
		if (!c->weight && !others.weighted)
			printf("note: every backend has weight 0 now: connects go through "
			       "untouched, "
			       "to nobody in all likelihood\n");
		break;
	case ADMIN_WEIGHT_AUTO:
		printf("%s: weight %u, from the configuration, slow start included\n", text,
		       b->value.weight);
		break;
	}
}

static int apply_change(const struct ctl_options *o, const struct klb_endpoint *endpoint,
			const struct admin_change *c, struct err *e)
{
	struct datapath_state *state = malloc(sizeof(*state));
	struct datapath *dp = NULL;
	const struct plan_backend *b;
	int r = state ? 0 : err_no_memory(e);

	if (!r)
		r = ctl_open(o->pin_dir, &dp, state, e);
	if (r)
		goto out;
	/* Also one that has left the list: the setting waits for its return. */
	b = plan_find(&state->applied, endpoint);
	if (!b) {
		r = ctl_unknown_backend(&state->applied, endpoint, e);
		goto out;
	}
	r = datapath_change_admin(dp, b, edit_admin, c, e);
	if (r)
		goto out;
	ctl_log_admin(dp, b);
	report_change(c, state, b);
out:
	datapath_close(dp);
	free(state);
	return r;
}

static int change_backend(const struct ctl_options *o, const char *backend,
			  const struct admin_change *c)
{
	struct klb_endpoint endpoint;
	struct err e = { "" };

	if (endpoint_parse(backend, KLB_PORT_DEFAULT, &endpoint, &e))
		return cli_fail(CLI_USAGE, &e);
	return apply_change(o, &endpoint, c, &e) ? cli_fail(CLI_FAILED, &e) : CLI_OK;
}

int ctl_drain(const struct ctl_options *o, int argc, char **argv)
{
	const struct admin_change c = { .kind = ADMIN_DRAIN };

	return argc == 1 ? change_backend(o, argv[0], &c) : cli_usage("drain takes one BACKEND");
}

int ctl_undrain(const struct ctl_options *o, int argc, char **argv)
{
	const struct admin_change c = { .kind = ADMIN_UNDRAIN };

	return argc == 1 ? change_backend(o, argv[0], &c) : cli_usage("undrain takes one BACKEND");
}

int ctl_weight(const struct ctl_options *o, int argc, char **argv)
{
	struct admin_change c = { .kind = ADMIN_WEIGHT_AUTO };
	unsigned long weight;

	if (argc != 2)
		return cli_usage("weight takes a BACKEND and a number or auto");
	if (strcmp(argv[1], "auto") != 0) {
		if (cli_number(argv[1], 0, KLB_WEIGHT_MAX, &weight))
			return cli_usage("weight '%s': want 0 to %d, or auto", argv[1],
					 KLB_WEIGHT_MAX);
		c.kind = ADMIN_WEIGHT;
		c.weight = (unsigned int)weight;
	}
	return change_backend(o, argv[0], &c);
}
