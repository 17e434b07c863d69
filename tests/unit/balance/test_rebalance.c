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

#define OF(id, active, weight)           \
	{                                \
		id, active, weight, 0, 0 \
	}

static const struct overload overloads[] = {
	{ "nobody", { OF(0, 0, 0) }, 0, 0 },
	{ "one", { OF(1, 50, 100) }, 1, 0 },
	{ "even", { OF(1, 10, 100), OF(2, 10, 100), OF(3, 10, 100) }, 3, 0 },
	{ "nothing open", { OF(1, 0, 100), OF(2, 0, 100) }, 2, 0 },
	{ "one came back", { OF(1, 15, 100), OF(2, 15, 100), OF(3, 0, 100) }, 3, 1 },
	{ "the fullest", { OF(1, 15, 100), OF(2, 16, 100), OF(3, 0, 100) }, 3, 2 },
	/* A few connections of a node: what all nodes have alike after a restart. */
	{ "three, three, none", { OF(1, 3, 100), OF(2, 3, 100), OF(3, 0, 100) }, 3, 1 },
	{ "then", { OF(1, 2, 100), OF(2, 3, 100), OF(3, 1, 100) }, 3, 2 },
	{ "two, two, one, none",
	  { OF(1, 2, 100), OF(2, 2, 100), OF(3, 1, 100), OF(4, 0, 100) },
	  4,
	  1 },
	/* It would be the same with the two exchanged. */
	{ "one more than another", { OF(1, 1, 100), OF(2, 1, 100), OF(3, 0, 100) }, 3, 0 },
	{ "a remainder", { OF(1, 3, 100), OF(2, 2, 100), OF(3, 2, 100) }, 3, 0 },
	{ "one, for three times the weight", { OF(1, 3, 300), OF(2, 0, 100) }, 2, 0 },
	{ "four, for three times the weight", { OF(1, 4, 300), OF(2, 0, 100) }, 2, 1 },
	{ "of seven", { OF(1, 4, 100), OF(2, 3, 100), OF(3, 0, 100) }, 3, 1 },
	{ "one above", { OF(1, 5, 100), OF(2, 4, 100), OF(3, 3, 100) }, 3, 1 },
	{ "two above", { OF(1, 6, 100), OF(2, 4, 100), OF(3, 2, 100) }, 3, 1 },
	/* Two of a hundred are no tenth, eleven are. */
	{ "less than a tenth", { OF(1, 109, 100), OF(2, 91, 100) }, 2, 0 },
	{ "a tenth", { OF(1, 110, 100), OF(2, 90, 100) }, 2, 1 },
	{ "as weighted", { OF(1, 30, 300), OF(2, 10, 100) }, 2, 0 },
	{ "too many for its weight", { OF(1, 20, 300), OF(2, 20, 100) }, 2, 2 },
	{ "weight 0 has a share of 0", { OF(1, 5, 100), OF(2, 3, 0) }, 2, 2 },
	{ "weight 0, and nothing on it", { OF(1, 5, 100), OF(2, 0, 0) }, 2, 0 },
	{ "all weights 0", { OF(1, 5, 0), OF(2, 0, 0) }, 2, 0 },
	{ "large", { OF(1, 1ULL << 40, 1000), OF(2, 0, 1000) }, 2, 1 },
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

/* --- which one does without ------------------------------------------------------------ */

/* In seconds, ranks as they come. */
#define LATER (REBALANCE_LATER_MS * 1000000ULL)
#define LOAD(id, active, rank, ready)        \
	{                                    \
		id, active, 100, rank, ready \
	}

struct displacement {
	const char *what;
	struct rebalance_load loads[4];
	unsigned int n;
	__u32 want;
};

static const struct displacement displacements[] = {
	{ "nobody", { LOAD(0, 0, 0, 0) }, 0, 0 },
	{ "all weights 0", { { 1, 0, 0, 10, 0 }, { 2, 0, 0, 20, LATER } }, 2, 0 },
	{ "it came back, and is not the last",
	  { LOAD(1, 1, 30, 0), LOAD(2, 1, 10, 0), LOAD(3, 0, 20, LATER) },
	  3,
	  1 },
	{ "it is the last", { LOAD(1, 1, 30, 0), LOAD(2, 1, 10, 0), LOAD(3, 0, 50, LATER) }, 3, 0 },
	{ "ready for as long: chance left it out",
	  { LOAD(1, 1, 30, 0), LOAD(2, 1, 10, 0), LOAD(3, 0, 20, LATER - 1) },
	  3,
	  0 },
	{ "ready for longer", { LOAD(1, 1, 30, LATER), LOAD(2, 0, 20, 0) }, 2, 0 },
	{ "even", { LOAD(1, 1, 30, 0), LOAD(2, 1, 20, LATER) }, 2, 0 },
	{ "two apart: that is overloaded", { LOAD(1, 2, 30, 0), LOAD(2, 0, 20, LATER) }, 2, 0 },
	{ "one more at one of three, and it is the first",
	  { LOAD(1, 2, 30, 0), LOAD(2, 1, 20, 0), LOAD(3, 1, 10, LATER) },
	  3,
	  1 },
	{ "it is the second",
	  { LOAD(1, 2, 30, 0), LOAD(2, 1, 10, 0), LOAD(3, 1, 20, LATER) },
	  3,
	  0 },
	{ "it has one more itself",
	  { LOAD(1, 1, 30, 0), LOAD(2, 1, 20, 0), LOAD(3, 2, 10, LATER) },
	  3,
	  0 },
	{ "two of four without, and it is the second",
	  { LOAD(1, 1, 50, 0), LOAD(2, 1, 40, 0), LOAD(3, 0, 10, 0), LOAD(4, 0, 20, LATER) },
	  4,
	  1 },
	{ "another weight", { { 1, 1, 100, 30, 0 }, { 2, 0, 50, 20, LATER } }, 2, 0 },
	{ "beside one without a weight",
	  { LOAD(1, 1, 30, 0), LOAD(2, 0, 20, LATER), { 3, 0, 0, 10, 0 } },
	  3,
	  1 },
	{ "more than a tenth", { LOAD(1, 5, 30, 0), LOAD(2, 4, 20, LATER) }, 2, 1 },
	{ "less than a tenth", { LOAD(1, 6, 30, 0), LOAD(2, 5, 20, LATER) }, 2, 0 },
};

static void displaced(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(displacements); i++) {
		const struct displacement *d = &displacements[i];
		__u32 id = rebalance_displaced(d->loads, d->n);

		if (id != d->want)
			fail_msg("%s: %u, want %u", d->what, id, d->want);
	}
}

/* The client of a connection to `from` is ended, and goes to one of the emptiest, by chance. */
static void reconnect(struct rebalance_load *loads, unsigned int n, __u32 from, __u64 chance)
{
	unsigned int to = 0, tied = 1;

	loads[from - 1].active--;
	for (unsigned int i = 1; i < n; i++) {
		if (loads[i].active > loads[to].active)
			continue;
		tied = loads[i].active < loads[to].active ? 1 : tied + 1;
		if (seed_of(chance + i) % tied == 0)
			to = i;
	}
	loads[to].active++;
}

#define CONNECTIONS 6
#define FLEET 8400

/* One node after the last of n has restarted: that has the least. */
static void after_restart(struct rebalance_load *loads, unsigned int n, __u64 node)
{
	for (unsigned int i = 0; i < n; i++)
		loads[i] = (struct rebalance_load){ .id = i + 1,
						    .active = CONNECTIONS / n,
						    .weight = 100,
						    .rank = (__u32)seed_of(node * 8 + i),
						    .ready_ns = (i + 1) * LATER };
	/* What remains is anywhere else. */
	for (unsigned int i = 0; i < CONNECTIONS % n; i++)
		loads[(seed_of(node) + i) % (n - 1)].active++;
}

/* Until nothing is to be moved; the sums are of all nodes. */
static void settle(unsigned int n, __u64 node, unsigned int *open, unsigned int *moves)
{
	struct rebalance_load loads[8];

	after_restart(loads, n, node);
	for (__u32 id; (id = rebalance_displaced(loads, n)); (*moves)++) {
		assert_int_equal(rebalance_overloaded(loads, n), 0);
		reconnect(loads, n, id, seed_of(node) + *moves * n);
		assert_true(*moves < 20 * FLEET);
	}
	for (unsigned int i = 0; i < n; i++)
		open[i] += (unsigned int)loads[i].active;
}

/*
 * All nodes have less at the one that has restarted last. Each comes to rest, and then it has as
 * much as the others.
 */
static void a_fleet_is_even(void **state)
{
	static const unsigned int most_moves[] = { [5] = 110, [7] = 190, [8] = 240 }; /* in 100 */

	(void)state;
	for (unsigned int n = 5; n <= 8; n++) {
		unsigned int open[8] = { 0 }, moves = 0, mean = FLEET * CONNECTIONS / n;

		for (__u64 node = 0; node < FLEET; node++)
			settle(n, node, open, &moves);
		assert_in_range(open[n - 1], mean * 97 / 100, mean * 103 / 100);
		assert_in_range(moves, most_moves[n] ? FLEET / 2 : 0, FLEET / 100 * most_moves[n]);
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
		cmocka_unit_test(displaced),
		cmocka_unit_test(a_fleet_is_even),
		cmocka_unit_test(oldest),
	};

	return cmocka_run_group_tests_name("moves", tests, NULL, NULL);
}
