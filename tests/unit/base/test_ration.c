/* SPDX-License-Identifier: BSD-2-Clause */
/* How often something may happen. */
#include "base/clock.h"
#include "base/ration.h"
#include "unit.h"

static const struct ration_rules rules = { .burst = 3, .every_ms = 2000 };

#define AT(s) ((s)*NS_PER_S)

static void a_burst_and_then_one_in_each_period(void **state)
{
	struct ration p = { 0 };

	(void)state;
	for (int i = 0; i < 3; i++) {
		assert_int_equal(ration_wait_ms(&p, &rules, AT(100)), 0);
		assert_true(ration_take(&p, &rules, AT(100)));
	}
	assert_false(ration_take(&p, &rules, AT(100)));
	assert_int_equal(ration_wait_ms(&p, &rules, AT(100)), 2000);
	assert_int_equal(ration_wait_ms(&p, &rules, AT(101) + 1), 1000);
	assert_true(ration_take(&p, &rules, AT(102)));
	assert_false(ration_take(&p, &rules, AT(103)));
	assert_true(ration_take(&p, &rules, AT(104)));
}

/* What is refused costs nothing, and rest is not saved up beyond a burst. */
static void quiet_makes_good(void **state)
{
	struct ration p = { 0 };
	int n = 0;

	(void)state;
	for (int i = 0; i < 100; i++)
		n += ration_take(&p, &rules, AT(100));
	assert_int_equal(n, 3);
	for (int i = 0; i < 100; i++)
		n += ration_take(&p, &rules, AT(1000));
	assert_int_equal(n, 6);
}

static void one_at_a_time(void **state)
{
	static const struct ration_rules single = { .burst = 1, .every_ms = 10 };
	struct ration p = { 0 };

	(void)state;
	assert_true(ration_take(&p, &single, AT(1)));
	assert_int_equal(ration_wait_ms(&p, &single, AT(1)), 10);
	assert_true(ration_take(&p, &single, AT(1) + 10 * NS_PER_MS));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_burst_and_then_one_in_each_period),
		cmocka_unit_test(quiet_makes_good),
		cmocka_unit_test(one_at_a_time),
	};

	return cmocka_run_group_tests_name("ration", tests, NULL, NULL);
}
