/* SPDX-License-Identifier: BSD-2-Clause */
/* The state machine in virtual time: no clock, no I/O. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "health.h"

static const struct health_rules rules = { .rise = 2, .fall = 2, .interval_ms = 5000 };

/* One event after another and what the state must be then. */
struct step {
	enum klb_reason outcome; /* KLB_REASON_NONE: the kept connection is lost */
	unsigned int status;
	enum klb_state want;
};

static void walk(struct health *h, const struct step *steps, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		__u64 now = (i + 1) * 1000;
		enum klb_state before = h->state;
		bool changed =
			steps[i].outcome == KLB_REASON_NONE
				? health_connection_lost(h, &rules, false, now)
				: health_probed(h, &rules, steps[i].outcome, steps[i].status, now);

		if (h->state != steps[i].want)
			fail_msg("step %zu: state %s, want %s", i, health_state_name(h->state),
				 health_state_name(steps[i].want));
		assert_int_equal(changed, before != h->state);
		if (changed)
			assert_int_equal(h->since_ns, now);
	}
}

#define WALK(name, ...)                                            \
	static void name(void **state)                             \
	{                                                          \
		const struct step steps[] = { __VA_ARGS__ };       \
		struct health h;                                   \
                                                                   \
		(void)state;                                       \
		health_init(&h, 1);                                \
		walk(&h, steps, sizeof(steps) / sizeof(steps[0])); \
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
     { KLB_REASON_NOT_READY, 500, KLB_STATE_DRAINING }, { KLB_REASON_NONE, 0, KLB_STATE_DRAINING },
     { KLB_REASON_REFUSED, 0, KLB_STATE_SUSPECT }, { KLB_REASON_REFUSED, 0, KLB_STATE_DEAD })

/* A starting apiserver: refused, 403 for anonymous, 500, 200. */
WALK(starting, { KLB_REASON_REFUSED, 0, KLB_STATE_SUSPECT },
     { KLB_REASON_REFUSED, 0, KLB_STATE_DEAD },
     { KLB_REASON_UNAUTHORIZED, 403, KLB_STATE_DRAINING },
     { KLB_REASON_NOT_READY, 500, KLB_STATE_DRAINING }, { KLB_REASON_OK, 200, KLB_STATE_DRAINING },
     { KLB_REASON_OK, 200, KLB_STATE_READY })

WALK(lost_connection_is_suspect, { KLB_REASON_OK, 200, KLB_STATE_READY },
     { KLB_REASON_NONE, 0, KLB_STATE_SUSPECT }, { KLB_REASON_OK, 200, KLB_STATE_SUSPECT },
     { KLB_REASON_OK, 200, KLB_STATE_READY })

/* A lost connection is no news of the dead. */
WALK(lost_while_dead, { KLB_REASON_TLS, 0, KLB_STATE_SUSPECT },
     { KLB_REASON_TLS, 0, KLB_STATE_DEAD }, { KLB_REASON_NONE, 0, KLB_STATE_DEAD })

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

static void adopts_what_was_seen(void **state)
{
	struct klb_backend seen = { .state = KLB_STATE_DEAD,
				    .reason = KLB_REASON_REFUSED,
				    .since_ns = 7,
				    .last_probe_ns = 9 };
	struct health h;

	(void)state;
	health_adopt(&h, &seen);
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
			assert_string_not_equal(health_state_name(i), health_state_name(j));
	for (int i = KLB_REASON_NONE; i <= KLB_REASON_PROTOCOL; i++)
		for (int j = i + 1; j <= KLB_REASON_PROTOCOL; j++)
			assert_string_not_equal(health_reason_name(i), health_reason_name(j));
	assert_string_equal(health_reason_name(99), "invalid");
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
		cmocka_unit_test(lost_connection_is_suspect),
		cmocka_unit_test(lost_while_dead),
		cmocka_unit_test(pending_verdicts_are_probed_soon),
		cmocka_unit_test(short_intervals_stay),
		cmocka_unit_test(adopts_what_was_seen),
		cmocka_unit_test(names_are_distinct),
	};

	return cmocka_run_group_tests_name("health", tests, NULL, NULL);
}
