/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/clock.h"
#include "base/pace.h"
#include "unit.h"

static const struct pace_limit limit = { .burst = 10, .per_s = 2 };

static void test_burst(void **state)
{
	struct pace p = { 0 };

	(void)state;
	assert_true(pace_take(&p, &limit, 7, 1000));
	assert_true(pace_take(&p, &limit, 3, 1000));
	assert_false(pace_take(&p, &limit, 1, 1000));
}

static void test_recovers(void **state)
{
	struct pace p = { 0 };
	__u64 now = 1000;

	(void)state;
	assert_true(pace_take(&p, &limit, 10, now));
	now += NS_PER_S;
	assert_true(pace_take(&p, &limit, 2, now));
	assert_false(pace_take(&p, &limit, 1, now));
	/* An hour without any gives no more than a burst. */
	now += 3600 * NS_PER_S;
	assert_true(pace_take(&p, &limit, 10, now));
	assert_false(pace_take(&p, &limit, 1, now));
}

/* What comes steadily at the rate goes on for ever. */
static void test_steady(void **state)
{
	struct pace p = { 0 };

	(void)state;
	for (__u64 i = 1; i < 10000; i++)
		assert_true(pace_take(&p, &limit, 1, i * NS_PER_S / 2));
}

static void test_large(void **state)
{
	static const struct pace_limit large = { .burst = UINT32_MAX, .per_s = 1 };
	struct pace p = { 0 };

	(void)state;
	assert_true(pace_take(&p, &large, UINT32_MAX, 1));
	assert_false(pace_take(&p, &large, 1, 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_burst),
		cmocka_unit_test(test_recovers),
		cmocka_unit_test(test_steady),
		cmocka_unit_test(test_large),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
