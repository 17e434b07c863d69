/* SPDX-License-Identifier: BSD-2-Clause */
/* When a server's closed connections are a rule, and how probes keep them open. */
#include "balance/idle_close.h"
#include "unit.h"

static void two_alike_are_a_rule(void **state)
{
	static const struct {
		unsigned int first_ms, second_ms, limit_ms;
	} table[] = {
		{ 2000, 2003, 2000 },
		{ 2003, 2000, 2000 },
		{ 2000, 2499, 2000 },
		{ 2000, 2700, 0 },
		{ 90000, 90001, 90000 },
		{ 400, 310, 310 },
		{ 400, 250, 0 },
		{ 0, 3, 1 },
		{ 3, 0, 1 },
		{ 0, 150, 0 },
		{ 3000, 40, 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct idle_close c = { 0 };

		assert_false(idle_close_learn(&c, table[i].first_ms));
		assert_int_equal(idle_close_learn(&c, table[i].second_ms), table[i].limit_ms != 0);
		if (c.limit_ms != table[i].limit_ms)
			fail_msg("entry %zu: %u, want %u", i, c.limit_ms, table[i].limit_ms);
	}
}

/* As by goaway-chance, or by restarts of something in between. */
static void chance_is_no_rule(void **state)
{
	static const unsigned int idle_ms[] = { 4000, 700, 2900, 1200, 4900, 30, 3000 };
	struct idle_close c = { 0 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(idle_ms); i++)
		assert_false(idle_close_learn(&c, idle_ms[i]));
	assert_int_equal(c.limit_ms, 0);
	assert_int_equal(idle_close_probe_ms(&c), 0);
}

/* A shorter time counts, when it is a rule too; a longer one does not. Said once. */
static void the_shortest_rule_counts(void **state)
{
	struct idle_close c = { 0 };

	(void)state;
	idle_close_learn(&c, 4000);
	assert_true(idle_close_learn(&c, 4001));
	assert_false(idle_close_learn(&c, 2000));
	assert_int_equal(c.limit_ms, 4000);
	assert_false(idle_close_learn(&c, 2002));
	assert_int_equal(c.limit_ms, 2000);
	idle_close_learn(&c, 3000);
	assert_false(idle_close_learn(&c, 3000));
	assert_int_equal(c.limit_ms, 2000);
}

/* With a fifth of jitter it is in time; and never more often than is worth it. */
static void probes_come_in_time(void **state)
{
	(void)state;
	for (unsigned int limit = 1; limit < 100000; limit = limit * 9 / 8 + 1) {
		struct idle_close c = { .limit_ms = limit };
		unsigned int ms = idle_close_probe_ms(&c);

		assert_true(ms * 12 / 10 < limit);
		assert_true(!ms || ms >= 700);
		assert_int_equal(ms != 0, limit >= 1167);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(two_alike_are_a_rule),
		cmocka_unit_test(chance_is_no_rule),
		cmocka_unit_test(the_shortest_rule_counts),
		cmocka_unit_test(probes_come_in_time),
	};

	return cmocka_run_group_tests_name("idle_close", tests, NULL, NULL);
}
