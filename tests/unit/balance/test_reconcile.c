/* SPDX-License-Identifier: BSD-2-Clause */
#include <string.h>

#include "balance/reconcile.h"
#include "unit.h"

static struct reconcile reconcile;
static struct klb_stats *const before = reconcile.before;
static struct klb_stats after[KLB_MAX_IDS];
static struct klb_socket list[8];
static struct klb_adjustment fixes[KLB_MAX_IDS];
static unsigned int n;
static bool again;

static int setup(void **state)
{
	(void)state;
	memset(&reconcile, 0, sizeof(reconcile));
	memset(list, 0, sizeof(list));
	n = 0;
	return 0;
}

static void add(__u32 id, enum klb_phase phase)
{
	list[n].id = id;
	list[n++].phase = phase;
}

static void count_all(void)
{
	reconcile_begin(&reconcile);
	for (unsigned int i = 0; i < n; i++)
		reconcile_count(&reconcile, &list[i]);
}

static unsigned int look(void)
{
	memcpy(after, before, sizeof(after));
	count_all();
	return reconcile_compare(&reconcile, after, fixes, &again);
}

static void agreement(void **state)
{
	(void)state;
	before[1].active = 2;
	before[2].connecting = 1;
	add(1, KLB_PHASE_ACTIVE);
	add(1, KLB_PHASE_ACTIVE);
	add(2, KLB_PHASE_CONNECTING);
	/* None of these counts. */
	add(1, KLB_PHASE_ENDED);
	add(2, KLB_PHASE_NEW);
	add(1, KLB_PHASE_RELAYED);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(look(), 0);
		assert_false(again);
	}
}

static void two_looks_decide(void **state)
{
	(void)state;
	before[1].active = 5;
	before[3].connecting = (__u64)-1;
	add(1, KLB_PHASE_ACTIVE);
	assert_int_equal(look(), 0);
	assert_true(again);
	assert_int_equal(look(), 2);
	assert_int_equal(fixes[0].id, 1);
	assert_int_equal(fixes[0].active, -4);
	assert_int_equal(fixes[0].connecting, 0);
	assert_int_equal(fixes[0].repair, 1);
	assert_int_equal(fixes[1].id, 3);
	assert_int_equal(fixes[1].connecting, 1);
	assert_false(again);
	/* Once corrected, it takes two looks again. */
	assert_int_equal(look(), 0);
}

static void another_difference_starts_over(void **state)
{
	(void)state;
	before[1].active = 5;
	assert_int_equal(look(), 0);
	before[1].active = 6;
	assert_int_equal(look(), 0);
	assert_true(again);
	assert_int_equal(look(), 1);
	assert_int_equal(fixes[0].active, -6);
}

static void what_moves_is_not_judged(void **state)
{
	(void)state;
	before[1].active = 5;
	for (int i = 0; i < 4; i++) {
		memcpy(after, before, sizeof(after));
		if (i % 2)
			after[1].opened++;
		else
			after[1].failed[KLB_FAILURE_REFUSED]++;
		count_all();
		assert_int_equal(reconcile_compare(&reconcile, after, fixes, &again), 0);
		assert_false(again);
	}
	/* A look that was disturbed confirms nothing. */
	assert_int_equal(look(), 0);
	assert_int_equal(look(), 1);
}

static void foreign_ids(void **state)
{
	(void)state;
	add(KLB_MAX_IDS, KLB_PHASE_ACTIVE);
	add(0xffffffff, KLB_PHASE_ACTIVE);
	before[KLB_ID_SELFTEST].active = 1;
	before[0].active = 1;
	assert_int_equal(look(), 0);
	assert_int_equal(look(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(agreement, setup),
		cmocka_unit_test_setup(two_looks_decide, setup),
		cmocka_unit_test_setup(another_difference_starts_over, setup),
		cmocka_unit_test_setup(what_moves_is_not_judged, setup),
		cmocka_unit_test_setup(foreign_ids, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
