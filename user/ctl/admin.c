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
#include "ctl/admin.h"
#include "net/endpoint.h"

void admin_edit(struct klb_admin *admin, const void *change)
{
	const struct admin_change *c = change;

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
static void report_kept(const struct admin_change *c, const char *text, FILE *to)
{
	switch (c->kind) {
	case ADMIN_DRAIN:
		fprintf(to,
			"%s: not in the list now; it stays drained when it comes back, until "
			"`kubelbctl undrain %s`\n",
			text, text);
		break;
	case ADMIN_UNDRAIN:
		fprintf(to,
			"%s: not in the list now; it takes new connections when it comes back\n",
			text);
		break;
	case ADMIN_WEIGHT:
		fprintf(to,
			"%s: not in the list now; weight %u when it comes back, until `kubelbctl "
			"weight %s auto`\n",
			text, c->weight, text);
		break;
	case ADMIN_WEIGHT_AUTO:
		fprintf(to,
			"%s: not in the list now; the configuration's weight when it comes back\n",
			text);
		break;
	}
}

/* Whether a drained backend goes on getting connects. */
static void note_drained(const struct datapath_state *s, const struct plan_backend *b,
			 const struct others *others, FILE *to)
{
	if (s->applied.local == KLB_LOCAL_ONLY && b->preferred)
		fprintf(to, "note: local is only: new connections of this node go to it all the "
			    "same; local: prefer in its configuration lets them leave\n");
	else if (!others->ready && backend_status_weight(s, b))
		fprintf(to, "note: no other backend is ready; it still gets what no other can "
			    "take\n");
}

void admin_report(const struct admin_change *c, const struct datapath_state *s,
		  const struct plan_backend *b, FILE *to)
{
	const struct others others = count_others(s, b);
	char text[ENDPOINT_TEXT_MAX];

	endpoint_format(&b->value.endpoint, text);
	if (b->removed) {
		report_kept(c, text, to);
		return;
	}
	switch (c->kind) {
	case ADMIN_DRAIN:
		fprintf(to, "%s: draining; %llu connections to it stay until they close\n", text,
			s->stats[b->id].active);
		note_drained(s, b, &others, to);
		break;
	case ADMIN_UNDRAIN:
		fprintf(to, "%s: takes new connections again\n", text);
		break;
	case ADMIN_WEIGHT:
		fprintf(to, "%s: weight %u, until `kubelbctl weight %s auto`\n", text, c->weight,
			text);
		if (!c->weight && !others.weighted)
			fprintf(to, "note: every backend has weight 0 now: connects go through "
				    "untouched, "
				    "to nobody in all likelihood\n");
		break;
	case ADMIN_WEIGHT_AUTO:
		fprintf(to, "%s: weight %u, from the configuration, slow start included\n", text,
			b->value.weight);
		break;
	}
}

static int apply_change(const struct ctl_options *o, const struct klb_endpoint *endpoint,
			const struct admin_change *c, FILE *to, struct err *e)
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
	r = datapath_change_admin(dp, b, admin_edit, c, e);
	if (r)
		goto out;
	ctl_log_admin(dp, b);
	admin_report(c, state, b, to);
out:
	datapath_close(dp);
	free(state);
	return r;
}

/* The agent does it where it is the data path. As ctl_relayed_order. */
static int order_change(const struct ctl_options *o, const struct klb_endpoint *endpoint,
			const struct admin_change *c, FILE *to, struct err *e)
{
	static const char *const words[] = { [ADMIN_DRAIN] = "drain",
					     [ADMIN_UNDRAIN] = "undrain",
					     [ADMIN_WEIGHT] = "weight",
					     [ADMIN_WEIGHT_AUTO] = "weight/auto" };
	char word[32];

	if (c->kind == ADMIN_WEIGHT)
		snprintf(word, sizeof(word), "weight/%u", c->weight);
	else
		snprintf(word, sizeof(word), "%s", words[c->kind]);
	return ctl_relayed_order(o, endpoint, word, to, e);
}

int ctl_change_backend(const struct ctl_options *o, const struct klb_endpoint *backend,
		       const struct admin_change *c, FILE *to, struct err *e)
{
	int r = apply_change(o, backend, c, to, e);
	struct err refused;
	int relayed = r ? order_change(o, backend, c, to, &refused) : 1;

	if (relayed < 0)
		*e = refused;
	return relayed > 0 ? r : relayed;
}

static int change_backend(const struct ctl_options *o, const char *backend,
			  const struct admin_change *c)
{
	struct klb_endpoint endpoint;
	struct err e = { "" };

	if (endpoint_parse(backend, KLB_PORT_DEFAULT, &endpoint, &e))
		return cli_fail(CLI_USAGE, &e);
	return ctl_change_backend(o, &endpoint, c, stdout, &e) ? cli_fail(CLI_FAILED, &e) : CLI_OK;
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
