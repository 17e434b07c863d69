/* SPDX-License-Identifier: BSD-2-Clause */
/* Which connections end: those that must, and no others. */
#include <stdlib.h>
#include <string.h>

#include "balance/rebalance.h"
#include "unit.h"

#define N 8

static struct klb_connection list[N];

static void fill(__u32 id, enum klb_phase phase)
{
	memset(list, 0, sizeof(list));
	for (unsigned int i = 0; i < N; i++) {
		list[i].record.id = id;
		list[i].record.phase = phase;
		list[i].record.established_ns = 1000 + i;
		list[i].last_data_ms = CONNECTION_NO_DATA;
	}
}

/* A seed for each round; splitmix64, so that none is like another. */
static __u64 seed_of(__u64 round)
{
	__u64 x = round * 0x9e3779b97f4a7c15ULL;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

static void those_to_the_dead(void **state)
{
	bool dead[KLB_MAX_IDS] = { [2] = true };

	(void)state;
	fill(1, KLB_PHASE_ACTIVE);
	list[3].record.id = 2;
	assert_false(rebalance_is_evictable(&list[0], dead));
	assert_true(rebalance_is_evictable(&list[3], dead));
}

/* What has just had data is not ended, though the backend be dead for the agent. */
static void none_that_is_served(void **state)
{
	bool dead[KLB_MAX_IDS] = { [2] = true };

	(void)state;
	fill(2, KLB_PHASE_ACTIVE);
	list[3].last_data_ms = REBALANCE_SERVED_MS - 1;
	list[7].last_data_ms = REBALANCE_SERVED_MS;
	assert_false(rebalance_is_evictable(&list[3], dead));
	assert_true(rebalance_is_evictable(&list[7], dead));
}

/* What has ended, or has not left yet, is nothing to end. */
static void open_phases_only(void **state)
{
	static const enum klb_phase phases[] = { KLB_PHASE_NEW, KLB_PHASE_CONNECTING,
						 KLB_PHASE_ACTIVE, KLB_PHASE_ENDED,
						 KLB_PHASE_RELAYED };
	bool dead[KLB_MAX_IDS] = { [5] = true };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(phases); i++) {
		bool open = phases[i] == KLB_PHASE_ACTIVE || phases[i] == KLB_PHASE_CONNECTING;

		fill(5, phases[i]);
		assert_int_equal(rebalance_is_evictable(&list[0], dead), open);
	}
}

/* A record of another version, or garbage: no index into anything. */
static void ids_out_of_range(void **state)
{
	bool dead[KLB_MAX_IDS];

	(void)state;
	memset(dead, 1, sizeof(dead));
	fill(KLB_MAX_IDS, KLB_PHASE_ACTIVE);
	list[1].record.id = ~0U;
	assert_false(rebalance_is_evictable(&list[0], dead));
	assert_false(rebalance_is_evictable(&list[1], dead));
}

/* --- who has too many ---------------------------------------------------------------- */

struct overload {
	const char *what;
	struct rebalance_load loads[4];
	unsigned int n;
	__u32 want;
};

static const struct overload overloads[] = {
	{ "nobody", { { 0, 0, 0 } }, 0, 0 },
	{ "one", { { 1, 50, 100 } }, 1, 0 },
	{ "even", { { 1, 10, 100 }, { 2, 10, 100 }, { 3, 10, 100 } }, 3, 0 },
	{ "nothing open", { { 1, 0, 100 }, { 2, 0, 100 } }, 2, 0 },
	{ "one came back", { { 1, 15, 100 }, { 2, 15, 100 }, { 3, 0, 100 } }, 3, 1 },
	{ "the fullest", { { 1, 15, 100 }, { 2, 16, 100 }, { 3, 0, 100 } }, 3, 2 },
	/* A few connections of a node: what all nodes have alike after a restart. */
	{ "three, three, none", { { 1, 3, 100 }, { 2, 3, 100 }, { 3, 0, 100 } }, 3, 1 },
	{ "then", { { 1, 2, 100 }, { 2, 3, 100 }, { 3, 1, 100 } }, 3, 2 },
	{ "two, two, one, none",
	  { { 1, 2, 100 }, { 2, 2, 100 }, { 3, 1, 100 }, { 4, 0, 100 } },
	  4,
	  1 },
	/* It would be the same with the two exchanged. */
	{ "one more than another", { { 1, 1, 100 }, { 2, 1, 100 }, { 3, 0, 100 } }, 3, 0 },
	{ "a remainder", { { 1, 3, 100 }, { 2, 2, 100 }, { 3, 2, 100 } }, 3, 0 },
	{ "one, for three times the weight", { { 1, 3, 300 }, { 2, 0, 100 } }, 2, 0 },
	{ "four, for three times the weight", { { 1, 4, 300 }, { 2, 0, 100 } }, 2, 1 },
	{ "of seven", { { 1, 4, 100 }, { 2, 3, 100 }, { 3, 0, 100 } }, 3, 1 },
	{ "one above", { { 1, 5, 100 }, { 2, 4, 100 }, { 3, 3, 100 } }, 3, 1 },
	{ "two above", { { 1, 6, 100 }, { 2, 4, 100 }, { 3, 2, 100 } }, 3, 1 },
	/* Two of a hundred are no tenth, eleven are. */
	{ "less than a tenth", { { 1, 109, 100 }, { 2, 91, 100 } }, 2, 0 },
	{ "a tenth", { { 1, 110, 100 }, { 2, 90, 100 } }, 2, 1 },
	{ "as weighted", { { 1, 30, 300 }, { 2, 10, 100 } }, 2, 0 },
	{ "too many for its weight", { { 1, 20, 300 }, { 2, 20, 100 } }, 2, 2 },
	{ "weight 0 has a share of 0", { { 1, 5, 100 }, { 2, 3, 0 } }, 2, 2 },
	{ "weight 0, and nothing on it", { { 1, 5, 100 }, { 2, 0, 0 } }, 2, 0 },
	{ "all weights 0", { { 1, 5, 0 }, { 2, 0, 0 } }, 2, 0 },
	{ "large", { { 1, 1ULL << 40, 1000 }, { 2, 0, 1000 } }, 2, 1 },
};

static void overloaded(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(overloads); i++) {
		const struct overload *o = &overloads[i];
		__u32 id = rebalance_overloaded(o->loads, o->n);

		if (id != o->want)
			fail_msg("%s: %u, want %u", o->what, id, o->want);
	}
}

/*
 * From any beginning, one at a time from the fullest to the emptiest by weight (where
 * least-conn puts it) comes to rest: nothing goes round in circles.
 */
static void comes_to_rest(void **state)
{
	(void)state;
	for (__u64 round = 0; round < 2000; round++) {
		struct rebalance_load loads[4];
		__u64 total = 0, moved = 0;

		for (unsigned int i = 0; i < 4; i++) {
			__u64 r = seed_of(round * 4 + i);

			loads[i] = (struct rebalance_load){ .id = i + 1,
							    .active = r % 60,
							    .weight = 1 + (r >> 32) % 300 };
			total += loads[i].active;
		}
		for (__u32 id; (id = rebalance_overloaded(loads, 4)); moved++) {
			unsigned int to = 0;

			loads[id - 1].active--;
			for (unsigned int i = 1; i < 4; i++)
				if (loads[i].active * loads[to].weight <
				    loads[to].active * loads[i].weight)
					to = i;
			loads[to].active++;
			assert_true(moved <= total);
		}
	}
}

/* --- the oldest -------------------------------------------------------------------------- */

static void oldest(void **state)
{
	(void)state;
	fill(1, KLB_PHASE_ACTIVE);
	assert_true(rebalance_is_older(&list[5], 1, NULL));
	assert_true(rebalance_is_older(&list[5], 1, &list[6]));
	assert_false(rebalance_is_older(&list[6], 1, &list[5]));
	assert_false(rebalance_is_older(&list[5], 1, &list[5]));
	/* Of that backend, and established. */
	assert_false(rebalance_is_older(&list[5], 2, NULL));
	list[5].record.phase = KLB_PHASE_CONNECTING;
	assert_false(rebalance_is_older(&list[5], 1, NULL));
	list[5].record.phase = KLB_PHASE_ENDED;
	assert_false(rebalance_is_older(&list[5], 1, &list[6]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(those_to_the_dead),
		cmocka_unit_test(none_that_is_served),
		cmocka_unit_test(open_phases_only),
		cmocka_unit_test(ids_out_of_range),
		cmocka_unit_test(overloaded),
		cmocka_unit_test(comes_to_rest),
		cmocka_unit_test(oldest),
	};

	return cmocka_run_group_tests_name("moves", tests, NULL, NULL);
}
