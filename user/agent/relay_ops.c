/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the relay asks and tells while it works, on its own threads: the maps are read and written
 * under a lock, and nothing else of the agent is touched.
 */
#include "agent/relay_internal.h"

#include <string.h>

#include "base/clock.h"
#include "net/endpoint.h"

/* Whether the maps know of the connection to the backend. */
static bool is_recorded(const struct relay_request *request)
{
	return RELAY_RECORDED & RELAY_BIT(request->from);
}

/* The kernel's own entry is the proof that its programs have sent the client here. */
static int identify(void *arg, struct relay_request *request)
{
	struct agent_relay *r = arg;
	struct klb_relayed entry;
	int code = -ENOENT;

	/* Who dials a frontend needs no proof. */
	if (!is_recorded(request))
		return 0;
	pthread_rwlock_rdlock(&r->lock);
	if (r->dp)
		code = datapath_take_relayed(r->dp, &request->client, &request->local, &entry);
	pthread_rwlock_unlock(&r->lock);
	if (code)
		return code;
	request->frontend = entry.frontend;
	request->failed = entry.backend;
	request->pid = entry.pid;
	request->cgroup_id = entry.cgroup_id;
	memcpy(request->comm, entry.comm, sizeof(request->comm));
	return 0;
}

/* As klb_choose sees it, bpf/connect.bpf.c. */
static void fill_load(const struct klb_stats *stats, struct relay_load *load)
{
	__u64 now = clock_now_ns();

	load->active = stats->active + stats->connecting;
	load->srtt_us = stats->srtt_us;
	load->ejected = stats->ejected_until_ns > now;
	load->answered = stats->answered_until > now >> KLB_ANSWERED_SHIFT;
}

static void look(void *arg, const struct relay_request *request, const struct relay_target *target,
		 struct relay_load *load)
{
	struct agent_relay *r = arg;
	struct klb_stats stats;

	if (!is_recorded(request))
		return;
	pthread_rwlock_rdlock(&r->lock);
	if (r->dp && !datapath_read_stat(r->dp, target->id, &stats, NULL) &&
	    stats.generation == target->generation)
		fill_load(&stats, load);
	pthread_rwlock_unlock(&r->lock);
}

static void dialling(void *arg, int fd, const struct relay_request *request,
		     const struct relay_target *target)
{
	struct agent_relay *r = arg;
	struct datapath_upstream u = { .frontend = request->frontend,
				       .backend = target->endpoint,
				       .id = target->id,
				       .generation = target->generation,
				       .pid = request->pid,
				       .cgroup_id = request->cgroup_id };

	if (!is_recorded(request))
		return;
	memcpy(u.comm, request->comm, sizeof(u.comm));
	pthread_rwlock_rdlock(&r->lock);
	/* Without a record the connection is not counted, and works. */
	if (r->dp)
		datapath_record_upstream(r->dp, fd, &u);
	pthread_rwlock_unlock(&r->lock);
}

/* When all places are taken, those that were first are counted on. */
static void count_failover(struct relay_failovers *f, const struct klb_endpoint *from,
			   const struct klb_endpoint *to)
{
	unsigned int i = 0;

	pthread_mutex_lock(&f->lock);
	while (i < f->n &&
	       !(endpoint_equal(&f->at[i].from, from) && endpoint_equal(&f->at[i].to, to)))
		i++;
	if (i == f->n && i < METRICS_FAILOVERS)
		f->at[f->n++] = (struct metrics_failover){ .from = *from, .to = *to };
	if (i < f->n)
		f->at[i].count++;
	pthread_mutex_unlock(&f->lock);
}

static void outcome(void *arg, const struct relay_request *request,
		    const struct relay_target *target, const struct relay_outcome *o)
{
	struct agent_relay *r = arg;

	if (!is_recorded(request)) {
		relay_stats_note(&r->stats, target, o);
		relay_events_outcome(r->events, target, o);
	}
	if (!o->error && request->failed.port)
		count_failover(&r->failovers, &request->failed, &target->endpoint);
}

const struct relay_ops relay_agent_ops = {
	.identify = identify,
	.look = look,
	.dialling = dialling,
	.outcome = outcome,
};
