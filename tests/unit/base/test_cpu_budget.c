/* SPDX-License-Identifier: BSD-2-Clause */
/* A share of a processor. */
#include "base/clock.h"
#include "base/cpu_budget.h"
#include "unit.h"

/* A twentieth of a processor, and 10 ms at once. */
static struct cpu_budget budget(void)
{
	return (struct cpu_budget){ .permille = 50, .burst_ns = (__s64)(10 * NS_PER_MS) };
}

static void it_begins_full(void **state)
{
	struct cpu_budget b = budget();

	(void)state;
	assert_true(cpu_budget_has(&b, NS_PER_S));
	cpu_budget_pay(&b, 10 * NS_PER_MS - 1);
	assert_true(cpu_budget_has(&b, NS_PER_S));
	cpu_budget_pay(&b, 1);
	assert_false(cpu_budget_has(&b, NS_PER_S));
}

static void it_is_filled_as_time_goes_on(void **state)
{
	struct cpu_budget b = budget();

	(void)state;
	assert_true(cpu_budget_has(&b, NS_PER_S));
	cpu_budget_pay(&b, 15 * NS_PER_MS);
	assert_false(cpu_budget_has(&b, NS_PER_S + 99 * NS_PER_MS));
	assert_true(cpu_budget_has(&b, NS_PER_S + 101 * NS_PER_MS));
	/* No more than its burst. */
	assert_true(cpu_budget_has(&b, 1000 * NS_PER_S));
	assert_int_equal(b.left_ns, 10 * NS_PER_MS);
	assert_true(cpu_budget_has(&b, 1ULL << 62));
	assert_int_equal(b.left_ns, 10 * NS_PER_MS);
}

/* One long piece of work does not shut everything out for ever. */
static void debts_have_an_end(void **state)
{
	struct cpu_budget b = budget();

	(void)state;
	assert_true(cpu_budget_has(&b, NS_PER_S));
	cpu_budget_pay(&b, 100 * NS_PER_S);
	assert_int_equal(b.left_ns, -(__s64)(10 * NS_PER_MS));
	assert_true(cpu_budget_has(&b, NS_PER_S + 201 * NS_PER_MS));
}

static void the_clock_counts_work(void **state)
{
	__u64 before = cpu_budget_clock_ns();

	(void)state;
	while (cpu_budget_clock_ns() - before < NS_PER_MS)
		;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_begins_full),
		cmocka_unit_test(it_is_filled_as_time_goes_on),
		cmocka_unit_test(debts_have_an_end),
		cmocka_unit_test(the_clock_counts_work),
	};

	return cmocka_run_group_tests_name("cpu_budget", tests, NULL, NULL);
}
