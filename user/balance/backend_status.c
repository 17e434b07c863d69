/* SPDX-License-Identifier: BSD-2-Clause */
/* Derives a backend's status, as users see it, from what the maps hold. */
#include "balance/backend_status.h"
#include "balance/names.h"
#include "base/clock.h"

#include <stdio.h>
#include <string.h>

bool backend_status_agent_alive(const struct klb_control *control, __u64 now_ns)
{
	__s64 age_ns = (__s64)(now_ns - control->heartbeat_ns);

	/* As klb_agent_alive. */
	return control->heartbeat_ns && age_ns >= -(__s64)KLB_CLOCK_SLACK_NS &&
	       age_ns <= (__s64)control->heartbeat_max_age_ns;
}

bool backend_status_heartbeat_is_ahead(const struct klb_control *control, __u64 now_ns)
{
	return control->heartbeat_ns &&
	       (__s64)(control->heartbeat_ns - now_ns) > (__s64)KLB_CLOCK_SLACK_NS;
}

__u64 backend_status_failures(const struct klb_stats *stats)
{
	__u64 sum = 0;

	for (int i = 0; i < KLB_FAILURES; i++)
		sum += stats->failed[i];
	return sum;
}

const struct klb_admin *backend_status_admin(const struct datapath_state *s,
					     const struct plan_backend *b)
{
	static const struct klb_admin none;
	const struct klb_admin *admin = &s->admin[b->id];

	return admin->generation == b->value.generation ? admin : &none;
}

bool backend_status_is_held(const struct datapath_state *s, const struct plan_backend *b)
{
	const struct klb_admin *admin = backend_status_admin(s, b);

	return admin->drained || admin->weight_set;
}

bool backend_status_is_shown(const struct datapath_state *s, const struct plan_backend *b)
{
	const struct klb_stats *stats = &s->stats[b->id];

	return !b->removed || stats->active || stats->connecting || backend_status_is_held(s, b);
}

unsigned int backend_status_weight(const struct datapath_state *s, const struct plan_backend *b)
{
	const struct klb_admin *admin = backend_status_admin(s, b);

	return admin->weight_set ? admin->weight : b->value.weight;
}

const char *backend_status_name(enum status_state state)
{
	static const char *const names[] = {
		[STATUS_READY] = "ready",	[STATUS_SUSPECT] = "suspect",
		[STATUS_DRAINING] = "draining", [STATUS_EJECTED] = "ejected",
		[STATUS_DEAD] = "dead",		[STATUS_REMOVED] = "removed",
	};

	return names[state];
}

/* Describes what outlier detection in the kernel has found. */
static void describe_outlier(const struct klb_stats *stats, __u64 now_ns,
			     struct backend_status *ret)
{
	double seconds = (double)(stats->ejected_until_ns - now_ns) / NS_PER_S;
	const char *what = stats->closed_early ? "it closes connections without sending data"
			   : stats->silent     ? "it sends no data on new connections"
					       : "connects to it failed";
	const char *until = stats->held_ms ? "; until the agent reaches it, at most" : "; for";

	ret->state = stats->evidence == KLB_EVIDENCE_SUSPECT ? STATUS_SUSPECT : STATUS_EJECTED;
	switch (stats->evidence) {
	case KLB_EVIDENCE_SUSPECT:
		snprintf(ret->why, sizeof(ret->why), "a SYN to it went unanswered");
		break;
	case KLB_EVIDENCE_TRIAL:
		snprintf(ret->why, sizeof(ret->why), "%s; one is trying again", what);
		break;
	default:
		snprintf(ret->why, sizeof(ret->why), "%s%s %.1f s more", what, until, seconds);
	}
}

/* Only a removed backend with connections is watched. */
static void describe_removed(const struct datapath_state *s, const struct plan_backend *b,
			     __u64 now_ns, struct backend_status *ret)
{
	const struct klb_stats *stats = &s->stats[b->id];
	const struct klb_admin *admin = backend_status_admin(s, b);
	bool alive = backend_status_agent_alive(&s->control, now_ns);
	char reason[NAMES_REASON_MAX], health[96] = "", weight[32] = "";

	names_reason_text(b->value.reason, b->value.http_status, reason);
	if (stats->active || stats->connecting)
		snprintf(health, sizeof(health), "; %s (%s)",
			 alive ? names_state(b->value.state) : "no agent watches it", reason);
	if (admin->weight_set)
		snprintf(weight, sizeof(weight), "; weight %u by the operator", admin->weight);
	*ret = (struct backend_status){ .state = STATUS_REMOVED };
	snprintf(ret->why, sizeof(ret->why), "not in the list any more%s%s%s", health,
		 admin->drained ? "; drained by the operator" : "", weight);
}

/* Says what is not as the state suggests: that this node's connects go there all the same. */
static void describe_local(const struct datapath_state *s, const struct plan_backend *b,
			   struct backend_status *ret)
{
	bool only = s->applied.local == KLB_LOCAL_ONLY;
	bool drained = backend_status_admin(s, b)->drained;
	size_t used = strlen(ret->why);

	if (!b->preferred || !ret->weight || ret->state == STATUS_READY ||
	    (!only && (ret->state != STATUS_DRAINING || drained)))
		return;
	snprintf(ret->why + used, sizeof(ret->why) - used,
		 "; takes connects all the same (local: %s)", config_local_name(s->applied.local));
}

/*
 * The order for people. klb_tier in bpf/select.bpf.h ranks a backend that is drained and suspect
 * for the agent as suspect.
 */
static void describe_used(const struct datapath_state *s, const struct plan_backend *b,
			  __u64 now_ns, struct backend_status *ret)
{
	bool alive = backend_status_agent_alive(&s->control, now_ns);
	char reason[NAMES_REASON_MAX];

	names_reason_text(b->value.reason, b->value.http_status, reason);
	ret->weight = backend_status_weight(s, b);
	ret->state = STATUS_READY;
	snprintf(ret->why, sizeof(ret->why), "%s", reason);
	if (alive && b->value.state == KLB_STATE_DEAD)
		ret->state = STATUS_DEAD;
	else if (s->stats[b->id].ejected_until_ns > now_ns)
		describe_outlier(&s->stats[b->id], now_ns, ret);
	else if (backend_status_admin(s, b)->drained) {
		ret->state = STATUS_DRAINING;
		snprintf(ret->why, sizeof(ret->why), "drained by the operator");
	} else if (alive && b->value.state >= KLB_STATE_SUSPECT)
		ret->state =
			b->value.state == KLB_STATE_DRAINING ? STATUS_DRAINING : STATUS_SUSPECT;
	else if (!alive && b->value.state >= KLB_STATE_SUSPECT)
		snprintf(ret->why, sizeof(ret->why), "no agent; its last word was %s (%s)",
			 names_state(b->value.state), reason);
}

void backend_status_of(const struct datapath_state *s, const struct plan_backend *b, __u64 now_ns,
		       struct backend_status *ret)
{
	if (b->removed) {
		describe_removed(s, b, now_ns, ret);
		return;
	}
	describe_used(s, b, now_ns, ret);
	describe_local(s, b, ret);
}
