/* SPDX-License-Identifier: BSD-2-Clause */
/* Derives a backend's state from the outcomes of its probes and from time. */
#include "balance/health.h"

#include <string.h>

#include "base/clock.h"

/*
 * The longest wait for the next probe of a backend that is draining, because it soon ends or comes
 * back,
 */
#define DRAINING_INTERVAL_MS 1000
/* of one whose state is not settled, so that its clients do not wait for long, */
#define PENDING_INTERVAL_MS 500
/* and of one that is dead, which is asked at no cost to anybody, and wanted back. */
#define DEAD_INTERVAL_MS 5000

/* The order of preference of klb_tier in bpf/select.bpf.h; less is better. */
static unsigned int rank_of(enum klb_state state)
{
	switch (state) {
	case KLB_STATE_UNKNOWN:
	case KLB_STATE_READY:
		return 0;
	case KLB_STATE_DRAINING:
		return 1;
	case KLB_STATE_SUSPECT:
		return 2;
	default:
		return 3;
	}
}

bool health_is_better(enum klb_state state, enum klb_state was)
{
	return rank_of(state) < rank_of(was);
}

void health_init(struct health *h, __u64 now_ns)
{
	memset(h, 0, sizeof(*h));
	h->state = KLB_STATE_UNKNOWN;
	h->since_ns = now_ns;
}

static bool is_down(enum klb_state state)
{
	return state == KLB_STATE_DEAD || state == KLB_STATE_DRAINING;
}

/*
 * The maps hold the state, not the one before it. A backend that was draining and then closed its
 * port may still answer open requests, so the answer is yes in doubt.
 */
static bool may_have_been_draining(const struct klb_backend *seen)
{
	return seen->state == KLB_STATE_DRAINING || seen->state == KLB_STATE_SUSPECT ||
	       (seen->state == KLB_STATE_DEAD && seen->reason == KLB_REASON_REFUSED);
}

enum klb_state health_applied_state(const struct klb_backend *seen)
{
	if (seen->state == KLB_STATE_SUSPECT && seen->reason == KLB_REASON_NONE)
		return KLB_STATE_UNKNOWN;
	return seen->state;
}

void health_adopt(struct health *h, const struct klb_backend *seen, unsigned int weight)
{
	memset(h, 0, sizeof(*h));
	h->state = health_applied_state(seen);
	h->reason = seen->reason;
	h->http_status = seen->http_status;
	h->since_ns = seen->since_ns;
	h->last_probe_ns = seen->last_probe_ns;
	h->was_down = is_down(seen->state);
	h->was_draining = h->state != KLB_STATE_UNKNOWN && may_have_been_draining(seen);
	/* It has been ready since then and does not have its full weight yet. */
	if (seen->state == KLB_STATE_READY && seen->weight < weight)
		h->back_ns = seen->since_ns;
}

void health_came_back(struct health *h, __u64 now_ns)
{
	h->was_down = h->state != KLB_STATE_READY;
	h->back_ns = h->was_down ? 0 : now_ns;
	/* An agent that adopts it goes on from there (health_adopt). */
	if (!h->was_down)
		h->since_ns = now_ns;
}

static bool set_state(struct health *h, enum klb_state state, __u64 now_ns)
{
	if (h->state == state)
		return false;
	if (is_down(state))
		h->was_down = true;
	if (state == KLB_STATE_DRAINING)
		h->was_draining = true;
	if (state == KLB_STATE_READY)
		h->was_draining = false;
	if (state == KLB_STATE_READY && h->was_down) {
		h->was_down = false;
		h->back_ns = now_ns;
	}
	h->state = state;
	h->since_ns = now_ns;
	return true;
}

static void count_up(unsigned int *counter, unsigned int limit)
{
	if (*counter < limit)
		(*counter)++;
}

static bool on_success(struct health *h, const struct health_rules *rules, __u64 now_ns)
{
	h->failures = 0;
	count_up(&h->successes, rules->rise);
	/* There was no probe before, so there is no bad result to outweigh. */
	if (h->state == KLB_STATE_UNKNOWN || h->successes >= rules->rise)
		return set_state(h, KLB_STATE_READY, now_ns);
	/* It has answered, so it is not dead. */
	if (h->state == KLB_STATE_DEAD)
		return set_state(h, KLB_STATE_SUSPECT, now_ns);
	return false;
}

/*
 * An apiserver that shuts down gracefully says so for a few seconds while it still serves. One such
 * answer is enough to send new connections elsewhere.
 */
static bool on_not_ready(struct health *h, __u64 now_ns)
{
	h->failures = 0;
	h->successes = 0;
	return set_state(h, KLB_STATE_DRAINING, now_ns);
}

static bool on_failure(struct health *h, const struct health_rules *rules, __u64 now_ns)
{
	h->successes = 0;
	count_up(&h->failures, rules->fall);
	if (h->failures >= rules->fall)
		return set_state(h, KLB_STATE_DEAD, now_ns);
	if (h->state == KLB_STATE_DEAD)
		return false;
	return set_state(h, KLB_STATE_SUSPECT, now_ns);
}

bool health_is_last_failure(const struct health *h, const struct health_rules *rules,
			    enum klb_reason outcome)
{
	switch (outcome) {
	case KLB_REASON_OK:
	case KLB_REASON_NOT_READY:
	case KLB_REASON_UNAUTHORIZED:
	case KLB_REASON_CERTIFICATE:
		return false;
	default:
		return h->failures + 1 >= rules->fall;
	}
}

bool health_failed_serving(struct health *h, const struct health_rules *rules,
			   enum klb_reason outcome, __u64 now_ns)
{
	h->last_probe_ns = now_ns;
	h->reason = outcome;
	h->http_status = 0;
	h->successes = 0;
	/* So that the next failure without data to clients is the last one. */
	h->failures = rules->fall - 1;
	return set_state(h, KLB_STATE_DRAINING, now_ns);
}

bool health_probed(struct health *h, const struct health_rules *rules, enum klb_reason outcome,
		   unsigned int http_status, __u64 now_ns)
{
	h->last_probe_ns = now_ns;
	h->reason = outcome;
	h->http_status = http_status;
	switch (outcome) {
	case KLB_REASON_OK:
		return on_success(h, rules, now_ns);
	case KLB_REASON_NOT_READY:
	/*
	 * The agent cannot verify the certificate. Whether clients can is another question, so
	 * their connections stay.
	 */
	case KLB_REASON_CERTIFICATE:
		return on_not_ready(h, now_ns);
	case KLB_REASON_UNAUTHORIZED:
		return rules->no_anonymous ? on_success(h, rules, now_ns) : on_not_ready(h, now_ns);
	default:
		return on_failure(h, rules, now_ns);
	}
}

#define IDLE_NS (HEALTH_IDLE_MS * NS_PER_MS)

bool health_timed_out(struct health *h, const struct health_rules *rules, __u64 now_ns)
{
	h->reason = KLB_REASON_UNREACHABLE;
	h->http_status = 0;
	return on_failure(h, rules, now_ns);
}

bool health_is_well(const struct health *h)
{
	return h->successes && !h->failures && !is_down(h->state);
}

bool health_unanswered(struct health *h, __u64 now_ns)
{
	if (is_down(h->state))
		return false;
	h->reason = KLB_REASON_NO_ANSWER;
	h->http_status = 0;
	return set_state(h, KLB_STATE_SUSPECT, now_ns);
}

bool health_silent(struct health *h, enum klb_reason reason, __u64 now_ns)
{
	if (h->silent || is_down(h->state))
		return false;
	h->silent = true;
	h->before_silence = h->state;
	h->silence = reason;
	h->reason = reason;
	h->http_status = 0;
	return set_state(h, KLB_STATE_SUSPECT, now_ns);
}

bool health_lost(struct health *h, const struct health_rules *rules, enum klb_reason reason,
		 bool serving, __u64 now_ns)
{
	if (h->state == KLB_STATE_DEAD)
		return false;
	if (serving)
		return health_failed_serving(h, rules, reason, now_ns);
	h->silent = true;
	h->before_silence = KLB_STATE_SUSPECT;
	h->reason = reason;
	h->http_status = 0;
	h->successes = 0;
	h->failures = rules->fall;
	return set_state(h, KLB_STATE_DEAD, now_ns);
}

bool health_alive(struct health *h, __u64 now_ns)
{
	if (!h->silent)
		return false;
	h->silent = false;
	/* A probe has said something else meanwhile. */
	if (h->reason != h->silence && h->state != KLB_STATE_DEAD)
		return false;
	if (h->before_silence == KLB_STATE_READY)
		h->reason = KLB_REASON_OK;
	return set_state(h, h->before_silence, now_ns);
}

bool health_may_skip(const struct health *h, const struct health_rules *rules, __u64 last_answer_ns,
		     __u64 now_ns)
{
	__u64 interval_ns = rules->interval_ms * NS_PER_MS;
	__u64 idle_ns = rules->keep_ms ? rules->keep_ms * NS_PER_MS : IDLE_NS;

	/* If the clock has jumped, or the time is from before a reboot, the times prove nothing. */
	if (last_answer_ns > now_ns || h->last_probe_ns > now_ns)
		return false;
	/* Jitter delays the next probe by up to a fifth of an interval. */
	return h->state == KLB_STATE_READY && !h->failures &&
	       now_ns - last_answer_ns < interval_ns &&
	       now_ns - h->last_probe_ns < HEALTH_SKIP_INTERVALS * interval_ns &&
	       now_ns - h->last_probe_ns + interval_ns * 12 / 10 <= idle_ns;
}

bool health_may_evict(const struct health *h, __u64 now_ns)
{
	if (h->state != KLB_STATE_DEAD)
		return false;
	if (!h->was_draining || h->reason != KLB_REASON_REFUSED)
		return true;
	return now_ns > h->since_ns && now_ns - h->since_ns >= HEALTH_LINGER_MS * NS_PER_MS;
}

#define SHARE_ALL 1000
#define SHARE_FIRST 100

unsigned int health_share(const struct health *h, unsigned int ramp_ms, __u64 now_ns)
{
	__u64 ramp_ns = ramp_ms * NS_PER_MS;
	__u64 since = now_ns - h->back_ns;

	if (!h->back_ns || now_ns < h->back_ns || since >= ramp_ns)
		return SHARE_ALL;
	return SHARE_FIRST + (unsigned int)((SHARE_ALL - SHARE_FIRST) * since / ramp_ns);
}

static unsigned int longest_wait_ms(const struct health *h, const struct health_rules *rules)
{
	switch (h->state) {
	case KLB_STATE_READY:
		if (h->failures)
			return PENDING_INTERVAL_MS;
		return rules->keep_ms ? rules->keep_ms : rules->interval_ms;
	case KLB_STATE_DEAD:
		return DEAD_INTERVAL_MS;
	case KLB_STATE_DRAINING:
		return DRAINING_INTERVAL_MS;
	default:
		return PENDING_INTERVAL_MS;
	}
}

unsigned int health_next_probe_ms(const struct health *h, const struct health_rules *rules)
{
	unsigned int ms = longest_wait_ms(h, rules);

	return rules->interval_ms < ms ? rules->interval_ms : ms;
}
