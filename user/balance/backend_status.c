/* SPDX-License-Identifier: BSD-2-Clause */
#include "balance/backend_status.h"

#include <stdio.h>

#define NS_PER_S 1000000000.0

bool verdict_agent_alive(const struct klb_control *control, __u64 now_ns)
{
	return control->heartbeat_ns &&
	       now_ns - control->heartbeat_ns <= control->heartbeat_max_age_ns;
}

static const struct {
	const char *key, *text;
} discoveries[] = {
	[KLB_DISCOVERY_OFF] = { "off", "off" },
	[KLB_DISCOVERY_SEEDS] = { "seeds", "on: the configuration's own backends count" },
	[KLB_DISCOVERY_CACHE] = { "cache", "on: backends from the cache so far" },
	[KLB_DISCOVERY_CURRENT] = { "current", "on: backends as the cluster says" },
	[KLB_DISCOVERY_FAILING] = { "failing", "FAILING: backends as the cluster said last" },
};

#define N_DISCOVERIES (sizeof(discoveries) / sizeof(discoveries[0]))

const char *verdict_discovery_key(enum klb_discovery d)
{
	return (unsigned int)d < N_DISCOVERIES ? discoveries[d].key : "invalid";
}

const char *verdict_discovery_text(enum klb_discovery d)
{
	return (unsigned int)d < N_DISCOVERIES ? discoveries[d].text : "invalid";
}

__u64 verdict_failed(const struct klb_stats *stats)
{
	__u64 sum = 0;

	for (int i = 0; i < KLB_FAILURES; i++)
		sum += stats->failed[i];
	return sum;
}

static const struct {
	const char *key, *name;
} failures[KLB_FAILURES] = {
	[KLB_FAILURE_REFUSED] = { "refused", "refused" },
	[KLB_FAILURE_TIMED_OUT] = { "timed_out", "timed out" },
	[KLB_FAILURE_UNREACHABLE] = { "unreachable", "unreachable" },
	[KLB_FAILURE_GAVE_UP] = { "gave_up", "client gave up" },
	[KLB_FAILURE_OTHER] = { "other", "other" },
};

const char *verdict_failure_key(enum klb_failure failure)
{
	return (unsigned int)failure < KLB_FAILURES ? failures[failure].key : "invalid";
}

const char *verdict_failure_name(enum klb_failure failure)
{
	return (unsigned int)failure < KLB_FAILURES ? failures[failure].name : "invalid";
}

const struct klb_admin *verdict_wish(const struct datapath_state *s, const struct plan_backend *b)
{
	static const struct klb_admin none;
	const struct klb_admin *wish = &s->admin[b->id];

	return wish->generation == b->value.generation ? wish : &none;
}

const char *verdict_reason_text(enum klb_reason reason, __u32 http_status, char *buf)
{
	if (http_status && reason != KLB_REASON_OK)
		snprintf(buf, VERDICT_REASON_MAX, "%s (HTTP %u)", health_reason_name(reason),
			 http_status);
	else
		snprintf(buf, VERDICT_REASON_MAX, "%s", health_reason_name(reason));
	return buf;
}

/* What the kernel has seen itself. */
static void describe_evidence(const struct klb_stats *stats, __u64 now_ns, struct verdict *ret)
{
	double seconds = (double)(stats->ejected_until_ns - now_ns) / NS_PER_S;

	ret->state = stats->evidence == KLB_EVIDENCE_SUSPECT ? "suspect" : "ejected";
	switch (stats->evidence) {
	case KLB_EVIDENCE_SUSPECT:
		snprintf(ret->why, sizeof(ret->why), "a SYN to it went unanswered");
		break;
	case KLB_EVIDENCE_TRIAL:
		snprintf(ret->why, sizeof(ret->why), "connects to it failed; one is trying again");
		break;
	default:
		snprintf(ret->why, sizeof(ret->why), "connects to it failed; for %.1f s more",
			 seconds);
	}
}

/* The same order of arguments as klb_tier in bpf/select.bpf.h. */
void verdict_of(const struct datapath_state *s, const struct plan_backend *b, __u64 now_ns,
		struct verdict *ret)
{
	const struct klb_admin *wish = verdict_wish(s, b);
	bool alive = verdict_agent_alive(&s->control, now_ns);
	char reason[VERDICT_REASON_MAX];

	verdict_reason_text(b->value.reason, b->value.http_status, reason);
	ret->weight = wish->weight_set ? wish->weight : b->value.weight;
	ret->state = "ready";
	snprintf(ret->why, sizeof(ret->why), "%s", reason);
	if (alive && b->value.state == KLB_STATE_DEAD)
		ret->state = "dead";
	else if (s->stats[b->id].ejected_until_ns > now_ns)
		describe_evidence(&s->stats[b->id], now_ns, ret);
	else if (wish->drained) {
		ret->state = "draining";
		snprintf(ret->why, sizeof(ret->why), "drained by the operator");
	} else if (alive && b->value.state >= KLB_STATE_SUSPECT)
		ret->state = health_state_name(b->value.state);
	else if (!alive && b->value.state >= KLB_STATE_SUSPECT)
		snprintf(ret->why, sizeof(ret->why), "no agent; its last word was %s (%s)",
			 health_state_name(b->value.state), reason);
}
