/* SPDX-License-Identifier: BSD-2-Clause */
/* Gives the plan's state what the relay has counted, and ends what is relayed. */
#include "agent/relay_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "balance/backend_status.h"

void agent_read_relayed(struct agent *a)
{
	struct agent_relay *r = a->relay;

	if (!a->path.relaying || !r)
		return;
	relay_read_counts(r->relay, &r->counts);
	for (unsigned int i = 0; i < a->state->applied.n_backends; i++) {
		const struct plan_backend *b = &a->state->applied.backends[i];
		struct klb_stats *s = &a->state->stats[b->id];

		*s = relay_stats_of(&r->stats, b);
		s->active = relay_count_active(&r->counts, RELAY_ANY, &b->value.endpoint);
	}
}

const struct datapath_state *agent_read_state(struct agent *a, struct datapath_state *buf)
{
	if (a->path.relaying) {
		agent_read_relayed(a);
		return a->state;
	}
	return buf && a->dp && !datapath_read(a->dp, buf, NULL) ? buf : NULL;
}

/* --- connections, as the maps would have them --------------------------------------------- */

static struct klb_connection describe(const struct agent *a, const struct relay_connection *r)
{
	const struct plan_backend *b = plan_find(&a->state->applied, &r->backend);
	struct klb_connection c = { .local = r->client,
				    .tcp_state = 1,
				    .srtt_us = r->srtt_us,
				    .last_data_ms = r->last_data_ms,
				    .record = { .frontend = r->frontend,
						.backend = r->backend,
						.id = b ? b->id : 0,
						.phase = KLB_PHASE_ACTIVE,
						.pid = r->pid,
						.connect_ns = r->since_ns,
						.established_ns = r->since_ns } };

	memcpy(c.record.comm, r->comm, sizeof(c.record.comm));
	return c;
}

int agent_list_relayed(struct agent *a, struct klb_connection **ret, unsigned int *ret_n)
{
	unsigned int max = a->config->relay.connections, n;
	struct relay_connection *list = calloc(max, sizeof(*list));
	struct klb_connection *made;

	n = list && a->relay ? relay_list(a->relay->relay, list, max) : 0;
	made = list ? calloc(n + 1, sizeof(*made)) : NULL;
	for (unsigned int i = 0; made && i < n; i++)
		made[i] = describe(a, &list[i]);
	free(list);
	*ret = made;
	*ret_n = made ? n : 0;
	return made ? 0 : -ENOMEM;
}

static void look_at_relayed(struct agent *a, const struct look_ops *ops)
{
	static const struct datapath_found found = { .all = true };
	struct klb_connection *list;
	struct err e = { "" };
	unsigned int n;
	int r = agent_list_relayed(a, &list, &n);

	if (r)
		err_no_memory(&e);
	ops->visitor.begin(a);
	for (unsigned int i = 0; i < n && !r; i++)
		r = ops->visitor.take(&list[i], a);
	free(list);
	ops->done(a, r, &found, &e);
}

void agent_look(struct agent *a, struct look *l, const struct datapath_list_options *how,
		const struct look_ops *ops)
{
	if (a->dp)
		look_begin(l, a->base, a->dp, how, false, ops, a);
	else
		look_at_relayed(a, ops);
}

bool agent_read_stats(const struct agent *a, const struct plan_backend *b, struct klb_stats *ret)
{
	if (a->dp)
		return !datapath_read_stat(a->dp, b->id, ret, NULL);
	*ret = a->state->stats[b->id];
	return a->path.relaying;
}

/* --- ending -------------------------------------------------------------------------- */

static unsigned int end(struct agent *a, unsigned int froms, const struct klb_endpoint *backend)
{
	const struct relay_filter which = { .froms = froms, .backend = backend };

	return a->relay ? relay_end(a->relay->relay, &which) : 0;
}

unsigned int agent_end_relayed(struct agent *a, const struct klb_endpoint *backend)
{
	return end(a, RELAY_ANY, backend);
}

int agent_end_picked(struct agent *a, const struct agent_batch *b, struct agent_ended *ret,
		     struct err *e)
{
	if (a->dp)
		return agent_end_batch(a->dp, b, ret, e);
	memset(ret, 0, sizeof(*ret));
	for (unsigned int i = 0; i < b->n && a->relay; i++) {
		const struct klb_connection *c = &b->at[i];
		const struct relay_filter which = { .froms = RELAY_ANY,
						    .backend = &c->record.backend,
						    .client = &c->local,
						    .frontend = &c->record.frontend };

		ret->ended[c->record.id] += relay_end(a->relay->relay, &which);
	}
	return 0;
}

/* While there are maps, evict.c ends those that they have records of. */
static void end_dead(struct agent *a, const struct plan_backend *b)
{
	unsigned int froms = a->dp ? RELAY_ANY & ~RELAY_RECORDED : RELAY_ANY;
	struct agent_ended ended = { 0 };

	ended.ended[b->id] = end(a, froms, &b->value.endpoint);
	if (ended.ended[b->id])
		agent_count_ended(a, &ended, METRICS_ENDED_DEAD);
}

void agent_check_relayed(struct agent *a)
{
	struct agent_dead dead;

	if (!a->relay || !agent_find_dead(a, &dead))
		return;
	for (unsigned int i = 0; i < a->state->applied.n_backends; i++)
		if (dead.dead[a->state->applied.backends[i].id])
			end_dead(a, &a->state->applied.backends[i]);
}
