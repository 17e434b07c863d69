/* SPDX-License-Identifier: BSD-2-Clause */
/* The state machine in virtual time: no clock, no I/O. */
#include <string.h>

#include "balance/health.h"
#include "balance/names.h"
#include "unit.h"

static const struct health_rules rules = { .rise = 2, .fall = 2, .interval_ms = 5000 };

/* One event after another and what the state must be then. */
struct step {
	enum klb_reason outcome;
	unsigned int status;
	enum klb_state want;
};

static void walk(struct health *h, const struct step *steps, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		__u64 now = (i + 1) * 1000;
		enum klb_state before = h->state;
		bool changed = health_probed(h, &rules, steps[i].outcome, steps[i].status, now);

		if (h->state != steps[i].want)
			fail_msg("step %zu: state %s, want %s", i, names_state(h->state),
				 names_state(steps[i].want));
		assert_int_equal(changed, before != h->state);
		if (changed)
			assert_int_equal(h->since_ns, now);
	}
}

#define WALK(name, ...)                                      \
	static void name(void **state)                       \
	{                                                    \
		const struct step steps[] = { __VA_ARGS__ }; \
		struct health h;                             \
                                                             \
		(void)state;                                 \
		health_init(&h, 1);                          \
		walk(&h, steps, ARRAY_SIZE(steps));          \
	}

WALK(first_ok_is_enough, { KLB_REASON_OK, 200, KLB_STATE_READY })

WALK(falls_after_two, { KLB_REASON_OK, 200, KLB_STATE_READY },
     { KLB_REASON_REFUSED, 0, KLB_STATE_SUSPECT }, { KLB_REASON_REFUSED, 0, KLB_STATE_DEAD },
     { KLB_REASON_NO_ANSWER, 0, KLB_STATE_DEAD })

WALK(one_failure_is_forgiven, { KLB_REASON_OK, 200, KLB_STATE_READY },
     { KLB_REASON_NO_ANSWER, 0, KLB_STATE_SUSPECT }, { KLB_REASON_OK, 200, KLB_STATE_SUSPECT },
     { KLB_REASON_OK, 200, KLB_STATE_READY }, { KLB_REASON_NO_ANSWER, 0, KLB_STATE_SUSPECT })

WALK(rises_after_two, { KLB_REASON_REFUSED, 0, KLB_STATE_SUSPECT },
     { KLB_REASON_REFUSED, 0, KLB_STATE_DEAD }, { KLB_REASON_OK, 200, KLB_STATE_SUSPECT },
     { KLB_REASON_OK, 200, KLB_STATE_READY })

WALK(dead_flapping_stays_out, { KLB_REASON_REFUSED, 0, KLB_STATE_SUSPECT },
     { KLB_REASON_REFUSED, 0, KLB_STATE_DEAD }, { KLB_REASON_OK, 200, KLB_STATE_SUSPECT },
     { KLB_REASON_REFUSED, 0, KLB_STATE_SUSPECT }, { KLB_REASON_REFUSED, 0, KLB_STATE_DEAD })

/* 500 on /readyz while it still serves, then the port closes. */
WALK(graceful_shutdown, { KLB_REASON_OK, 200, KLB_STATE_READY },
     { KLB_REASON_NOT_READY, 500, KLB_STATE_DRAINING },
     { KLB_REASON_NOT_READY, 500, KLB_STATE_DRAINING },
     { KLB_REASON_REFUSED, 0, KLB_STATE_SUSPECT }, { KLB_REASON_REFUSED, 0, KLB_STATE_DEAD })

/* A starting apiserver: refused, 403 for anonymous, 500, 200. */
WALK(starting, { KLB_REASON_REFUSED, 0, KLB_STATE_SUSPECT },
     { KLB_REASON_REFUSED, 0, KLB_STATE_DEAD },
     { KLB_REASON_UNAUTHORIZED, 403, KLB_STATE_DRAINING },
     { KLB_REASON_NOT_READY, 500, KLB_STATE_DRAINING }, { KLB_REASON_OK, 200, KLB_STATE_DRAINING },
     { KLB_REASON_OK, 200, KLB_STATE_READY })

/* --- ready, draining and dead are three things ---------------------------------------- */

#define S 1000000000ULL

static const struct health_rules anonymous_off = {
	.rise = 2, .fall = 2, .interval_ms = 5000, .no_anonymous = true
};

static struct health ready_at(__u64 now_ns)
{
	struct health h;

	health_init(&h, now_ns);
	assert_true(health_probed(&h, &rules, KLB_REASON_OK, 200, now_ns));
	assert_int_equal(h.state, KLB_STATE_READY);
	return h;
}

static void down_and_back(struct health *h, __u64 down_ns, __u64 back_ns)
{
	health_probed(h, &rules, KLB_REASON_REFUSED, 0, down_ns);
	health_probed(h, &rules, KLB_REASON_REFUSED, 0, down_ns);
	assert_int_equal(h->state, KLB_STATE_DEAD);
	health_probed(h, &rules, KLB_REASON_OK, 200, back_ns);
	health_probed(h, &rules, KLB_REASON_OK, 200, back_ns);
	assert_int_equal(h->state, KLB_STATE_READY);
}

/* Accepts, and says nothing on either path: the first silence about readiness makes it
 * suspect at once, the silence about liveness is what counts as a failure. */
static void hung(void **state)
{
	struct health h = ready_at(1);

	(void)state;
	assert_true(health_unanswered(&h, 2));
	assert_int_equal(h.state, KLB_STATE_SUSPECT);
	assert_int_equal(h.reason, KLB_REASON_NO_ANSWER);
	assert_int_equal(h.http_status, 0);
	assert_int_equal(h.failures, 0);
	health_probed(&h, &rules, KLB_REASON_NO_ANSWER, 0, 3);
	assert_int_equal(h.state, KLB_STATE_SUSPECT);
	assert_false(health_unanswered(&h, 4));
	assert_true(health_probed(&h, &rules, KLB_REASON_NO_ANSWER, 0, 5));
	assert_int_equal(h.state, KLB_STATE_DEAD);
	/* And no silence makes the dead any better. */
	assert_false(health_unanswered(&h, 6));
	assert_int_equal(h.state, KLB_STATE_DEAD);
}

/* No answer on /readyz, 500 on /livez (which the agent passes on as not ready): alive. */
static void etcd_stall(void **state)
{
	struct health h = ready_at(1);

	(void)state;
	for (__u64 now = 2; now < 50; now += 2) {
		health_unanswered(&h, now);
		assert_int_not_equal(h.state, KLB_STATE_READY);
		health_probed(&h, &rules, KLB_REASON_NOT_READY, 500, now + 1);
		assert_int_equal(h.state, KLB_STATE_DRAINING);
		assert_int_equal(h.failures, 0);
	}
	/* While it drains, the next silence changes nothing. */
	assert_false(health_unanswered(&h, 60));
	health_probed(&h, &rules, KLB_REASON_OK, 200, 61);
	assert_int_equal(h.state, KLB_STATE_DRAINING);
	assert_true(health_probed(&h, &rules, KLB_REASON_OK, 200, 62));
	assert_int_equal(h.state, KLB_STATE_READY);
}

static void unauthorized_is_not_ready(void **state)
{
	struct health h = ready_at(1);

	(void)state;
	for (__u64 now = 2; now < 20; now++)
		health_probed(&h, &rules, KLB_REASON_UNAUTHORIZED, now % 2 ? 401 : 403, now);
	assert_int_equal(h.state, KLB_STATE_DRAINING);
	assert_int_equal(h.http_status, 401);
}

static void unauthorized_is_all_that_can_be_had(void **state)
{
	struct health h;

	(void)state;
	health_init(&h, 1);
	assert_true(health_probed(&h, &anonymous_off, KLB_REASON_UNAUTHORIZED, 401, 2));
	assert_int_equal(h.state, KLB_STATE_READY);
	assert_int_equal(h.reason, KLB_REASON_UNAUTHORIZED);
	assert_int_equal(h.http_status, 401);
	/* Every other rule is as it was. */
	health_probed(&h, &anonymous_off, KLB_REASON_NOT_READY, 500, 3);
	assert_int_equal(h.state, KLB_STATE_DRAINING);
	health_probed(&h, &anonymous_off, KLB_REASON_REFUSED, 0, 4);
	health_probed(&h, &anonymous_off, KLB_REASON_REFUSED, 0, 5);
	assert_int_equal(h.state, KLB_STATE_DEAD);
	health_probed(&h, &anonymous_off, KLB_REASON_UNAUTHORIZED, 403, 6);
	assert_int_equal(h.state, KLB_STATE_SUSPECT);
	health_probed(&h, &anonymous_off, KLB_REASON_UNAUTHORIZED, 403, 7);
	assert_int_equal(h.state, KLB_STATE_READY);
}

/* Every way of not being reached counts alike. */
static void every_failure_counts(void **state)
{
	static const enum klb_reason failures[] = {
		KLB_REASON_REFUSED,  KLB_REASON_UNREACHABLE, KLB_REASON_CONNECT_TIMEOUT,
		KLB_REASON_TLS,	     KLB_REASON_NO_ANSWER,   KLB_REASON_CLOSED,
		KLB_REASON_PROTOCOL,
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(failures); i++) {
		struct health h = ready_at(1);

		health_probed(&h, &rules, failures[i], 0, 2);
		assert_int_equal(h.state, KLB_STATE_SUSPECT);
		health_probed(&h, &rules, failures[i], 0, 3);
		assert_int_equal(h.state, KLB_STATE_DEAD);
		assert_int_equal(h.reason, failures[i]);
		assert_int_equal(h.since_ns, 3);
		assert_int_equal(h.last_probe_ns, 3);
	}
}

/* It says nothing about what clients can do. */
static void certificate_is_no_failure(void **state)
{
	struct health h = ready_at(1);

	(void)state;
	for (int i = 0; i < 10; i++) {
		assert_false(health_is_last_failure(&h, &rules, KLB_REASON_CERTIFICATE));
		health_probed(&h, &rules, KLB_REASON_CERTIFICATE, 0, 2 + i);
		assert_int_equal(h.state, KLB_STATE_DRAINING);
		assert_int_equal(h.reason, KLB_REASON_CERTIFICATE);
	}
	assert_false(health_may_evict(&h, ~0ULL));
}

/* Draining as long as clients get data, dead with the first failure after that. */
static void busy_is_not_dead(void **state)
{
	struct health h = ready_at(1);

	(void)state;
	assert_false(health_is_last_failure(&h, &rules, KLB_REASON_NO_ANSWER));
	health_probed(&h, &rules, KLB_REASON_NO_ANSWER, 0, 2);
	for (int i = 0; i < 10; i++) {
		assert_true(health_is_last_failure(&h, &rules, KLB_REASON_NO_ANSWER));
		assert_int_equal(health_failed_serving(&h, &rules, KLB_REASON_NO_ANSWER, 3 + i),
				 i == 0);
		assert_int_equal(h.state, KLB_STATE_DRAINING);
		assert_int_equal(h.last_probe_ns, 3 + i);
	}
	assert_true(health_probed(&h, &rules, KLB_REASON_NO_ANSWER, 0, 20));
	assert_int_equal(h.state, KLB_STATE_DEAD);
	assert_true(health_failed_serving(&h, &rules, KLB_REASON_NO_ANSWER, 21));
	assert_int_equal(h.state, KLB_STATE_DRAINING);
	health_probed(&h, &rules, KLB_REASON_OK, 200, 22);
	health_probed(&h, &rules, KLB_REASON_OK, 200, 23);
	assert_int_equal(h.state, KLB_STATE_READY);
}

/* `fall` in a row: an answer in between begins the count anew, whatever it says. */
static void an_answer_ends_the_row(void **state)
{
	struct health h = ready_at(1);

	(void)state;
	for (__u64 now = 2; now < 40; now += 2) {
		health_probed(&h, &rules, KLB_REASON_NO_ANSWER, 0, now);
		assert_int_not_equal(h.state, KLB_STATE_DEAD);
		health_probed(&h, &rules, now % 4 ? KLB_REASON_OK : KLB_REASON_NOT_READY, 200,
			      now + 1);
	}
}

/* Two seconds without an acknowledgement are a failure; a close is only an occasion to ask. */
static void silence_counts(void **state)
{
	struct health h = ready_at(1);

	(void)state;
	assert_true(health_timed_out(&h, &rules, 2));
	assert_int_equal(h.state, KLB_STATE_SUSPECT);
	assert_int_equal(h.reason, KLB_REASON_UNREACHABLE);
	assert_true(health_probed(&h, &rules, KLB_REASON_CONNECT_TIMEOUT, 0, 3));
	assert_int_equal(h.state, KLB_STATE_DEAD);
}

/* --- whose connections are to be ended --------------------------------------------------- */

/* A process that has died leaves no connection; one that shuts down in good order closes
 * its port first and answers what is in flight. */
static void leaving_is_not_gone(void **state)
{
	struct health h = ready_at(1);

	(void)state;
	health_probed(&h, &rules, KLB_REASON_NOT_READY, 500, 2);
	health_probed(&h, &rules, KLB_REASON_REFUSED, 0, 3);
	assert_false(health_may_evict(&h, 3));
	health_probed(&h, &rules, KLB_REASON_REFUSED, 0, 4);
	assert_int_equal(h.state, KLB_STATE_DEAD);
	assert_false(health_may_evict(&h, 4));
	assert_false(health_may_evict(&h, 4 + HEALTH_LINGER_MS * 1000000ULL - 1));
	assert_true(health_may_evict(&h, 4 + HEALTH_LINGER_MS * 1000000ULL));
	/* A clock that goes backwards ends nothing. */
	assert_false(health_may_evict(&h, 1));
}

static void leaving_and_then_silent_is_gone(void **state)
{
	struct health h = ready_at(1);

	(void)state;
	health_probed(&h, &rules, KLB_REASON_NOT_READY, 500, 2);
	health_probed(&h, &rules, KLB_REASON_REFUSED, 0, 3);
	health_probed(&h, &rules, KLB_REASON_REFUSED, 0, 4);
	health_probed(&h, &rules, KLB_REASON_CONNECT_TIMEOUT, 0, 5);
	assert_true(health_may_evict(&h, 5));
}

static void refused_without_a_word_is_gone(void **state)
{
	struct health h = ready_at(1);

	(void)state;
	assert_false(health_may_evict(&h, 1));
	health_probed(&h, &rules, KLB_REASON_REFUSED, 0, 2);
	assert_false(health_may_evict(&h, 2));
	health_probed(&h, &rules, KLB_REASON_REFUSED, 0, 3);
	assert_true(health_may_evict(&h, 3));
}

/* An earlier shutdown is no excuse for the next death. */
static void ready_again_forgets_the_shutdown(void **state)
{
	struct health h = ready_at(1);

	(void)state;
	health_probed(&h, &rules, KLB_REASON_NOT_READY, 500, 2);
	down_and_back(&h, 3, 4);
	health_probed(&h, &rules, KLB_REASON_REFUSED, 0, 5);
	health_probed(&h, &rules, KLB_REASON_REFUSED, 0, 6);
	assert_true(health_may_evict(&h, 6));
}

/* --- evidence instead of probes ------------------------------------------------------------- */

static void skips_with_fresh_success_only(void **state)
{
	struct health h = ready_at(100 * S);

	(void)state;
	assert_true(health_may_skip(&h, &rules, 104 * S, 105 * S));
	assert_true(health_may_skip(&h, &rules, 100 * S + 1, 105 * S));
	/* As old as an interval: nothing has happened since the last look. */
	assert_false(health_may_skip(&h, &rules, 100 * S, 105 * S));
	assert_false(health_may_skip(&h, &rules, 0, 105 * S));
}

static void skips_nothing_but_the_ready(void **state)
{
	struct health h;

	(void)state;
	health_init(&h, 100 * S);
	assert_false(health_may_skip(&h, &rules, 104 * S, 105 * S));
	h = ready_at(100 * S);
	health_unanswered(&h, 101 * S);
	assert_false(health_may_skip(&h, &rules, 104 * S, 105 * S));
	h = ready_at(100 * S);
	health_timed_out(&h, &rules, 101 * S);
	assert_false(health_may_skip(&h, &rules, 104 * S, 105 * S));
	h = ready_at(100 * S);
	health_probed(&h, &rules, KLB_REASON_NOT_READY, 500, 101 * S);
	assert_false(health_may_skip(&h, &rules, 104 * S, 105 * S));
	h = ready_at(100 * S);
	health_probed(&h, &rules, KLB_REASON_REFUSED, 0, 101 * S);
	assert_false(health_may_skip(&h, &rules, 104 * S, 105 * S));
	health_probed(&h, &rules, KLB_REASON_REFUSED, 0, 101 * S);
	assert_false(health_may_skip(&h, &rules, 104 * S, 105 * S));
}

/* A busy backend is asked once six intervals are over, of which each may be a fifth longer:
 * its clients' connects say nothing about /readyz. */
static void skips_up_to_six_intervals(void **state)
{
	__u64 interval = rules.interval_ms * 1000000ULL, now = 1000 * S, longest = 0, seed = 1;
	struct health h = ready_at(now);
	unsigned int probes = 0, looks = 0;

	(void)state;
	for (; looks < 10000; looks++) {
		/* Between 80 and 120 %. */
		seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
		now += interval * 8 / 10 + interval * 4 / 10 * (seed >> 56) / 255;
		if (health_may_skip(&h, &rules, now - 1, now))
			continue;
		if (now - h.last_probe_ns > longest)
			longest = now - h.last_probe_ns;
		health_probed(&h, &rules, KLB_REASON_OK, 200, now);
		probes++;
	}
	assert_in_range(longest, HEALTH_SKIP_INTERVALS * interval,
			HEALTH_SKIP_INTERVALS * interval * 12 / 10);
	assert_in_range(probes, looks / (HEALTH_SKIP_INTERVALS + 2), looks / HEALTH_SKIP_INTERVALS);
}

/* With an interval that people have taken over from their proxies: the kept connection is
 * used again before the apiserver closes it. */
static void skips_no_longer_than_a_connection_is_kept(void **state)
{
	static const unsigned int intervals[] = { 5000, 10000, 15000, 30000, 60000, 120000 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(intervals); i++) {
		struct health_rules slow = rules;
		__u64 interval = intervals[i] * 1000000ULL, gap = interval;
		struct health h = ready_at(1000 * S);

		slow.interval_ms = intervals[i];
		/* Every look comes as late as it can. */
		while (health_may_skip(&h, &slow, 1000 * S + gap - 1, 1000 * S + gap))
			gap += interval * 12 / 10;
		assert_true(gap <= 60 * S || gap == interval);
		if (intervals[i] == 15000)
			assert_true(gap > 30 * S);
	}
}

/* Only after a good answer a closed connection may be one that was idle. */
static void well_after_a_good_answer(void **state)
{
	struct health h = ready_at(1);

	(void)state;
	assert_true(health_is_well(&h));
	health_probed(&h, &rules, KLB_REASON_REFUSED, 0, 2);
	assert_false(health_is_well(&h));
	/* One good answer more and it is ready: a close in between is no step back. */
	health_probed(&h, &rules, KLB_REASON_OK, 200, 3);
	assert_int_equal(h.state, KLB_STATE_SUSPECT);
	assert_true(health_is_well(&h));
	health_probed(&h, &rules, KLB_REASON_NOT_READY, 500, 4);
	assert_false(health_is_well(&h));
	health_probed(&h, &rules, KLB_REASON_OK, 200, 5);
	assert_int_equal(h.state, KLB_STATE_DRAINING);
	assert_false(health_is_well(&h));
	health_init(&h, 1);
	assert_false(health_is_well(&h));
	health_probed(&h, &anonymous_off, KLB_REASON_UNAUTHORIZED, 401, 2);
	assert_true(health_is_well(&h));
}

/* A server that closes idle connections is probed sooner, and no probe is left out for clients. */
static void probes_keep_the_connection(void **state)
{
	struct health_rules keep = rules;
	struct health h = ready_at(100 * S);

	(void)state;
	assert_true(health_may_skip(&h, &keep, 104 * S, 105 * S));
	keep.keep_ms = 1200;
	assert_int_equal(health_next_probe_ms(&h, &keep), 1200);
	assert_false(health_may_skip(&h, &keep, 101 * S, 101 * S + 200000000));
	keep.keep_ms = 20000;
	assert_int_equal(health_next_probe_ms(&h, &keep), 5000);
	assert_true(health_may_skip(&h, &keep, 104 * S, 105 * S));
	assert_false(health_may_skip(&h, &keep, 119 * S, 120 * S));
	/* What is not settled, or down, has other reasons. */
	keep.keep_ms = 1200;
	health_probed(&h, &keep, KLB_REASON_REFUSED, 0, 106 * S);
	assert_int_equal(health_next_probe_ms(&h, &keep), 500);
	health_probed(&h, &keep, KLB_REASON_REFUSED, 0, 107 * S);
	assert_int_equal(health_next_probe_ms(&h, &keep), 5000);
}

/* Neither a clock that went back nor a map from before a reboot makes anybody trusted. */
static void clock_jumps(void **state)
{
	struct health h = ready_at(100 * S);

	(void)state;
	assert_false(health_may_skip(&h, &rules, 104 * S, 99 * S));
	assert_false(health_may_skip(&h, &rules, 98 * S, 99 * S));
	assert_false(health_may_skip(&h, &rules, 200 * S, 105 * S));
	/* Asleep for hours: all that was known is old. */
	assert_false(health_may_skip(&h, &rules, 100 * S, 100000 * S));
	assert_false(health_may_skip(&h, &rules, 99999 * S, 100000 * S));
	/* The state machine itself asks no clock. */
	assert_true(health_probed(&h, &rules, KLB_REASON_NOT_READY, 500, 1));
	assert_int_equal(h.since_ns, 1);
	assert_int_equal(h.last_probe_ns, 1);
}

/* --- slow start ---------------------------------------------------------------------------------
 */

#define RAMP_MS 30000

static void share_of_one_that_was_never_away(void **state)
{
	struct health h;

	(void)state;
	health_init(&h, 1);
	assert_int_equal(health_share(&h, RAMP_MS, 2), 1000);
	h = ready_at(100 * S);
	assert_int_equal(health_share(&h, RAMP_MS, 100 * S), 1000);
	/* A verdict that was never reached is no absence. */
	health_probed(&h, &rules, KLB_REASON_REFUSED, 0, 101 * S);
	health_probed(&h, &rules, KLB_REASON_OK, 200, 102 * S);
	health_probed(&h, &rules, KLB_REASON_OK, 200, 103 * S);
	assert_int_equal(h.state, KLB_STATE_READY);
	assert_int_equal(health_share(&h, RAMP_MS, 103 * S), 1000);
}

static void share_grows(void **state)
{
	struct health h = ready_at(1);
	unsigned int last = 0;

	(void)state;
	down_and_back(&h, 50 * S, 100 * S);
	assert_int_equal(health_share(&h, RAMP_MS, 100 * S), 100);
	assert_int_equal(health_share(&h, RAMP_MS, 115 * S), 550);
	assert_int_equal(health_share(&h, RAMP_MS, 130 * S), 1000);
	assert_int_equal(health_share(&h, RAMP_MS, 100000 * S), 1000);
	for (__u64 now = 100 * S; now <= 131 * S; now += S / 10) {
		unsigned int share = health_share(&h, RAMP_MS, now);

		assert_in_range(share, last, 1000);
		last = share;
	}
	/* A second fall, a second ramp. */
	down_and_back(&h, 200 * S, 300 * S);
	assert_int_equal(health_share(&h, RAMP_MS, 300 * S), 100);
}

static void share_after_draining(void **state)
{
	struct health h = ready_at(1);

	(void)state;
	health_probed(&h, &rules, KLB_REASON_NOT_READY, 500, 50 * S);
	health_probed(&h, &rules, KLB_REASON_OK, 200, 60 * S);
	health_probed(&h, &rules, KLB_REASON_OK, 200, 61 * S);
	assert_int_equal(health_share(&h, RAMP_MS, 61 * S), 100);
}

/* Away from the list, and back: from then on, or from when it is ready. */
static void share_after_being_away(void **state)
{
	struct health h = ready_at(1 * S);

	(void)state;
	health_came_back(&h, 100 * S);
	assert_int_equal(h.state, KLB_STATE_READY);
	assert_int_equal(h.since_ns, 100 * S);
	assert_int_equal(health_share(&h, 30000, 100 * S), 100);
	assert_int_equal(health_share(&h, 30000, 115 * S), 550);
	assert_int_equal(health_share(&h, 30000, 130 * S), 1000);
	health_init(&h, 1);
	health_came_back(&h, 100 * S);
	health_probed(&h, &rules, KLB_REASON_OK, 200, 105 * S);
	assert_int_equal(h.state, KLB_STATE_READY);
	assert_int_equal(health_share(&h, 30000, 105 * S), 100);
	/* A ramp from before is over when it is away again. */
	health_probed(&h, &rules, KLB_REASON_NOT_READY, 500, 106 * S);
	health_came_back(&h, 200 * S);
	assert_int_equal(health_share(&h, 30000, 200 * S), 1000);
}

static void share_off(void **state)
{
	struct health h = ready_at(1);

	(void)state;
	down_and_back(&h, 50 * S, 100 * S);
	assert_int_equal(health_share(&h, 0, 100 * S), 1000);
}

static void share_with_a_clock_that_went_back(void **state)
{
	struct health h = ready_at(1);

	(void)state;
	down_and_back(&h, 50 * S, 100 * S);
	assert_int_equal(health_share(&h, RAMP_MS, 99 * S), 1000);
}

/* An hour's ramp, the longest that can be configured, does not overflow. */
static void share_of_the_longest_ramp(void **state)
{
	struct health h = ready_at(1);

	(void)state;
	down_and_back(&h, 50 * S, 100 * S);
	assert_in_range(health_share(&h, 3600000, 100 * S + 3599 * S), 990, 999);
	assert_int_equal(health_share(&h, 3600000, 100 * S + 3600 * S), 1000);
}

/* A new agent knows from the maps who was away. */
static void adopted_absence_ramps(void **state)
{
	static const enum klb_state down[] = { KLB_STATE_DEAD, KLB_STATE_DRAINING };

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct klb_backend seen = { .state = down[i], .since_ns = 7 };
		struct health h;

		health_adopt(&h, &seen, 100);
		health_probed(&h, &rules, KLB_REASON_OK, 200, 100 * S);
		health_probed(&h, &rules, KLB_REASON_OK, 200, 101 * S);
		assert_int_equal(h.state, KLB_STATE_READY);
		assert_int_equal(health_share(&h, RAMP_MS, 101 * S), 100);
	}
}

/* What is less than the configured weight is a slow start: it goes on where it was. */
static void adopted_ramp_goes_on(void **state)
{
	struct klb_backend seen = { .state = KLB_STATE_READY,
				    .weight = 19,
				    .since_ns = 100 * S,
				    .last_probe_ns = 100 * S };
	struct health h;

	(void)state;
	health_adopt(&h, &seen, 100);
	health_probed(&h, &rules, KLB_REASON_OK, 200, 103 * S);
	assert_int_equal(health_share(&h, RAMP_MS, 103 * S), 190);
	assert_int_equal(health_share(&h, RAMP_MS, 130 * S), 1000);
	/* It has had all of it already, or was never away. */
	seen.weight = 100;
	health_adopt(&h, &seen, 100);
	assert_int_equal(health_share(&h, RAMP_MS, 103 * S), 1000);
	/* One that is down has a weight of its own, too; its ramp begins when it is back. */
	seen.weight = 19;
	seen.state = KLB_STATE_DEAD;
	health_adopt(&h, &seen, 100);
	assert_int_equal(health_share(&h, RAMP_MS, 103 * S), 1000);
}

/* Suspect in the maps, because others serve, is no verdict: the first answer is enough. */
static void adopted_unproven(void **state)
{
	struct klb_backend seen = { .state = KLB_STATE_SUSPECT, .reason = KLB_REASON_NONE };
	struct health h;

	(void)state;
	health_adopt(&h, &seen, 100);
	assert_int_equal(h.state, KLB_STATE_UNKNOWN);
	assert_false(h.was_draining);
	health_probed(&h, &rules, KLB_REASON_OK, 200, 100 * S);
	assert_int_equal(h.state, KLB_STATE_READY);
}

/* Which of them was draining before, the maps do not tell: whoever may have been is left
 * to answer what is in flight. */
static void adopted_leaving_is_not_gone(void **state)
{
	static const struct {
		enum klb_state state;
		enum klb_reason reason;
	} left[] = { { KLB_STATE_DRAINING, KLB_REASON_NOT_READY },
		     { KLB_STATE_SUSPECT, KLB_REASON_REFUSED },
		     { KLB_STATE_SUSPECT, KLB_REASON_CLOSED },
		     { KLB_STATE_DEAD, KLB_REASON_REFUSED } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(left); i++) {
		struct klb_backend seen = { .state = left[i].state,
					    .reason = left[i].reason,
					    .since_ns = 90 * S,
					    .last_probe_ns = 90 * S };
		struct health h;

		health_adopt(&h, &seen, 100);
		assert_false(health_may_evict(&h, 91 * S));
		health_probed(&h, &rules, KLB_REASON_REFUSED, 0, 91 * S);
		health_probed(&h, &rules, KLB_REASON_REFUSED, 0, 92 * S);
		assert_int_equal(h.state, KLB_STATE_DEAD);
		assert_false(health_may_evict(&h, 149 * S));
		assert_true(health_may_evict(&h, 152 * S));
	}
}

/* Silence is no shutdown, and neither is a refusal by one that was ready. */
static void adopted_and_gone(void **state)
{
	struct klb_backend seen = { .state = KLB_STATE_DEAD,
				    .reason = KLB_REASON_UNREACHABLE,
				    .since_ns = 90 * S };
	struct health h;

	(void)state;
	health_adopt(&h, &seen, 100);
	assert_true(health_may_evict(&h, 91 * S));
	seen.state = KLB_STATE_READY;
	seen.reason = KLB_REASON_OK;
	health_adopt(&h, &seen, 100);
	health_probed(&h, &rules, KLB_REASON_REFUSED, 0, 91 * S);
	health_probed(&h, &rules, KLB_REASON_REFUSED, 0, 92 * S);
	assert_true(health_may_evict(&h, 93 * S));
}

static void pending_verdicts_are_probed_soon(void **state)
{
	struct health h;

	(void)state;
	health_init(&h, 1);
	assert_int_equal(health_next_probe_ms(&h, &rules), 500);
	health_probed(&h, &rules, KLB_REASON_OK, 200, 2);
	assert_int_equal(health_next_probe_ms(&h, &rules), 5000);
	health_probed(&h, &rules, KLB_REASON_REFUSED, 0, 3);
	assert_int_equal(health_next_probe_ms(&h, &rules), 500);
	health_probed(&h, &rules, KLB_REASON_REFUSED, 0, 4);
	assert_int_equal(h.state, KLB_STATE_DEAD);
	assert_int_equal(health_next_probe_ms(&h, &rules), 5000);
	health_probed(&h, &rules, KLB_REASON_NOT_READY, 500, 5);
	assert_int_equal(health_next_probe_ms(&h, &rules), 1000);
}

static void short_intervals_stay(void **state)
{
	const struct health_rules quick = { .rise = 1, .fall = 1, .interval_ms = 200 };
	struct health h;

	(void)state;
	health_init(&h, 1);
	health_probed(&h, &quick, KLB_REASON_REFUSED, 0, 2);
	assert_int_equal(h.state, KLB_STATE_DEAD);
	assert_int_equal(health_next_probe_ms(&h, &quick), 200);
}

/* Asking one that is down costs no apiserver anything, and it is wanted back. */
static void a_dead_one_is_asked_soon(void **state)
{
	const struct health_rules sparse = { .rise = 2, .fall = 1, .interval_ms = 65000 };
	struct health h;

	(void)state;
	health_init(&h, 1);
	health_probed(&h, &sparse, KLB_REASON_OK, 200, 2);
	assert_int_equal(health_next_probe_ms(&h, &sparse), 65000);
	health_probed(&h, &sparse, KLB_REASON_REFUSED, 0, 3);
	assert_int_equal(h.state, KLB_STATE_DEAD);
	assert_int_equal(health_next_probe_ms(&h, &sparse), 5000);
}

static void adopts_what_was_seen(void **state)
{
	struct klb_backend seen = { .state = KLB_STATE_DEAD,
				    .reason = KLB_REASON_REFUSED,
				    .since_ns = 7,
				    .last_probe_ns = 9 };
	struct health h;

	(void)state;
	health_adopt(&h, &seen, 100);
	assert_int_equal(h.state, KLB_STATE_DEAD);
	assert_int_equal(h.since_ns, 7);
	/* One answer does not make the dead ready, two do. */
	health_probed(&h, &rules, KLB_REASON_OK, 200, 10);
	assert_int_equal(h.state, KLB_STATE_SUSPECT);
	health_probed(&h, &rules, KLB_REASON_OK, 200, 11);
	assert_int_equal(h.state, KLB_STATE_READY);
}

/* Every state and reason has a name of its own: status and metrics show them. */
static void names_are_distinct(void **state)
{
	(void)state;
	for (int i = KLB_STATE_UNKNOWN; i <= KLB_STATE_DEAD; i++)
		for (int j = i + 1; j <= KLB_STATE_DEAD; j++)
			assert_string_not_equal(names_state(i), names_state(j));
	for (int i = KLB_REASON_NONE; i <= KLB_REASON_PROTOCOL; i++)
		for (int j = i + 1; j <= KLB_REASON_PROTOCOL; j++)
			assert_string_not_equal(names_reason(i), names_reason(j));
	assert_string_equal(names_reason(99), "invalid");
}

/* From the best to the worst, as klb_tier prefers them, and not as they are numbered. */
static void better_is_what_connects_prefer(void **state)
{
	static const enum klb_state order[] = { KLB_STATE_READY, KLB_STATE_DRAINING,
						KLB_STATE_SUSPECT, KLB_STATE_DEAD };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(order); i++)
		for (size_t j = 0; j < ARRAY_SIZE(order); j++)
			assert_int_equal(health_is_better(order[i], order[j]), i < j);
	assert_false(health_is_better(KLB_STATE_READY, KLB_STATE_UNKNOWN));
	assert_false(health_is_better(KLB_STATE_UNKNOWN, KLB_STATE_READY));
	assert_true(health_is_better(KLB_STATE_UNKNOWN, KLB_STATE_DRAINING));
}

/* --- signs of life --- */

static void silence_ends_with_a_sign_of_life(void **state)
{
	struct health h;

	(void)state;
	health_init(&h, 1);
	health_probed(&h, &rules, KLB_REASON_OK, 200, 2);
	assert_false(health_alive(&h, 3));
	assert_true(health_silent(&h, KLB_REASON_NO_ANSWER, 4));
	assert_int_equal(h.state, KLB_STATE_SUSPECT);
	assert_false(health_silent(&h, KLB_REASON_NO_ANSWER, 5));
	assert_true(health_alive(&h, 6));
	assert_int_equal(h.state, KLB_STATE_READY);
	assert_int_equal(h.reason, KLB_REASON_OK);
	assert_int_equal(h.since_ns, 6);
}

static void no_life_is_death(void **state)
{
	struct health h;

	(void)state;
	health_init(&h, 1);
	health_probed(&h, &rules, KLB_REASON_OK, 200, 2);
	health_silent(&h, KLB_REASON_NO_ANSWER, 3);
	assert_true(health_lost(&h, &rules, KLB_REASON_NO_ANSWER, false, 4));
	assert_int_equal(h.state, KLB_STATE_DEAD);
	assert_true(health_may_evict(&h, 4));
	assert_false(health_lost(&h, &rules, KLB_REASON_NO_ANSWER, false, 5));
	/* Alive is not ready: probes decide. */
	assert_true(health_alive(&h, 6));
	assert_int_equal(h.state, KLB_STATE_SUSPECT);
	assert_false(health_may_evict(&h, 6));
	health_probed(&h, &rules, KLB_REASON_OK, 200, 7);
	assert_int_equal(h.state, KLB_STATE_SUSPECT);
	health_probed(&h, &rules, KLB_REASON_OK, 200, 8);
	assert_int_equal(h.state, KLB_STATE_READY);
}

static void who_serves_is_not_dead(void **state)
{
	struct health h;

	(void)state;
	health_init(&h, 1);
	health_probed(&h, &rules, KLB_REASON_OK, 200, 2);
	health_silent(&h, KLB_REASON_NO_ANSWER, 3);
	assert_true(health_lost(&h, &rules, KLB_REASON_NO_ANSWER, true, 4));
	assert_int_equal(h.state, KLB_STATE_DRAINING);
}

/* A sign of life takes back what silence has caused, and nothing else. */
static void life_is_no_readiness(void **state)
{
	static const enum klb_reason reasons[] = { KLB_REASON_NOT_READY, KLB_REASON_CERTIFICATE,
						   KLB_REASON_REFUSED };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(reasons); i++) {
		enum klb_state then;
		struct health h;

		health_init(&h, 1);
		health_probed(&h, &rules, KLB_REASON_OK, 200, 2);
		health_silent(&h, KLB_REASON_NO_ANSWER, 3);
		health_probed(&h, &rules, reasons[i], 0, 4);
		then = h.state;
		assert_false(health_alive(&h, 5));
		assert_int_equal(h.state, then);
	}
}

/* Who is gone in mid-shutdown leaves nothing to wait for. */
static void vanished_while_draining(void **state)
{
	struct health h;

	(void)state;
	health_init(&h, 1);
	health_probed(&h, &rules, KLB_REASON_NOT_READY, 500, 2);
	assert_false(health_silent(&h, KLB_REASON_NO_ANSWER, 3));
	assert_int_equal(h.state, KLB_STATE_DRAINING);
	assert_true(health_lost(&h, &rules, KLB_REASON_CONNECT_TIMEOUT, false, 4));
	assert_true(health_may_evict(&h, 4));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(first_ok_is_enough),
		cmocka_unit_test(falls_after_two),
		cmocka_unit_test(one_failure_is_forgiven),
		cmocka_unit_test(rises_after_two),
		cmocka_unit_test(dead_flapping_stays_out),
		cmocka_unit_test(graceful_shutdown),
		cmocka_unit_test(starting),
		cmocka_unit_test(hung),
		cmocka_unit_test(etcd_stall),
		cmocka_unit_test(unauthorized_is_not_ready),
		cmocka_unit_test(unauthorized_is_all_that_can_be_had),
		cmocka_unit_test(every_failure_counts),
		cmocka_unit_test(certificate_is_no_failure),
		cmocka_unit_test(busy_is_not_dead),
		cmocka_unit_test(an_answer_ends_the_row),
		cmocka_unit_test(silence_counts),
		cmocka_unit_test(leaving_is_not_gone),
		cmocka_unit_test(leaving_and_then_silent_is_gone),
		cmocka_unit_test(refused_without_a_word_is_gone),
		cmocka_unit_test(ready_again_forgets_the_shutdown),
		cmocka_unit_test(skips_with_fresh_success_only),
		cmocka_unit_test(skips_nothing_but_the_ready),
		cmocka_unit_test(skips_up_to_six_intervals),
		cmocka_unit_test(skips_no_longer_than_a_connection_is_kept),
		cmocka_unit_test(well_after_a_good_answer),
		cmocka_unit_test(probes_keep_the_connection),
		cmocka_unit_test(clock_jumps),
		cmocka_unit_test(share_of_one_that_was_never_away),
		cmocka_unit_test(share_grows),
		cmocka_unit_test(share_after_draining),
		cmocka_unit_test(share_after_being_away),
		cmocka_unit_test(share_off),
		cmocka_unit_test(share_with_a_clock_that_went_back),
		cmocka_unit_test(share_of_the_longest_ramp),
		cmocka_unit_test(adopted_absence_ramps),
		cmocka_unit_test(adopted_ramp_goes_on),
		cmocka_unit_test(adopted_leaving_is_not_gone),
		cmocka_unit_test(adopted_unproven),
		cmocka_unit_test(adopted_and_gone),
		cmocka_unit_test(pending_verdicts_are_probed_soon),
		cmocka_unit_test(short_intervals_stay),
		cmocka_unit_test(a_dead_one_is_asked_soon),
		cmocka_unit_test(adopts_what_was_seen),
		cmocka_unit_test(names_are_distinct),
		cmocka_unit_test(better_is_what_connects_prefer),
		cmocka_unit_test(silence_ends_with_a_sign_of_life),
		cmocka_unit_test(no_life_is_death),
		cmocka_unit_test(who_serves_is_not_dead),
		cmocka_unit_test(life_is_no_readiness),
		cmocka_unit_test(vanished_while_draining),
	};

	return cmocka_run_group_tests_name("health", tests, NULL, NULL);
}
