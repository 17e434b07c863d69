/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The choice, as the kernel makes it: bpf/select.bpf.h compiled for the host. The
 * distributions are held against the exact expectation with a chi-square test;
 * seeds are fixed, so a run is repeatable.
 */
#include <string.h>

#include "select.bpf.h"
#include "unit.h"

/* What klb_view.ejected and klb_view.answered say for yes. */
#define ALL_ONES (~0u)

/* xorshift64*: the test's own source of seeds, of another kind than the one tested. */
static uint64_t rng_state = 88172645463325252ULL;

static uint32_t rng(void)
{
	rng_state ^= rng_state >> 12;
	rng_state ^= rng_state << 25;
	rng_state ^= rng_state >> 27;
	return (uint32_t)(rng_state * 2685821657736338717ULL >> 32);
}

static struct klb_view view(enum klb_state state, uint32_t weight, uint64_t active)
{
	return (struct klb_view){
		.state = state, .weight = weight, .active = active, .eligible = 1
	};
}

static uint32_t choose_seeded(enum klb_policy policy, const struct klb_view *views, uint32_t n,
			      uint32_t trust, uint32_t seed)
{
	struct klb_choice c;

	klb_choice_init(&c, policy, seed, trust);
	for (uint32_t i = 0; i < n; i++)
		klb_choice_offer(&c, i, &views[i]);
	return (uint32_t)klb_choice_result(&c);
}

static uint32_t choose(enum klb_policy policy, const struct klb_view *views, uint32_t n,
		       uint32_t trust)
{
	return choose_seeded(policy, views, n, trust, rng());
}

/* Chi-square of the counts against weights; at 99.9 % for up to 64 categories. */
static void assert_spread(const uint32_t *counts, const uint32_t *weights, uint32_t n)
{
	static const struct {
		uint32_t n;
		double limit;
	} table[] = { { 2, 10.83 }, { 3, 13.82 }, { 4, 16.27 }, { 8, 24.32 }, { 64, 103.44 } };
	double total = 0, sum_weights = 0, chi2 = 0, limit = 0;

	for (uint32_t i = 0; i < n; i++) {
		total += counts[i];
		sum_weights += weights[i];
	}
	for (uint32_t i = 0; i < n; i++) {
		double want = total * weights[i] / sum_weights;
		double off = counts[i] - want;

		if (!weights[i])
			assert_int_equal(counts[i], 0);
		else
			chi2 += off * off / want;
	}
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (table[i].n == n)
			limit = table[i].limit;
	assert_true(limit > 0);
	if (chi2 > limit)
		fail_msg("chi-square %.1f over %.1f for %u backends", chi2, limit, n);
}

static void spread(enum klb_policy policy, const uint32_t *weights, uint32_t n)
{
	struct klb_view views[KLB_MAX_BACKENDS];
	uint32_t counts[KLB_MAX_BACKENDS] = { 0 };

	for (uint32_t i = 0; i < n; i++)
		views[i] = view(KLB_STATE_READY, weights[i], 0);
	for (int i = 0; i < 300000; i++) {
		uint32_t got = choose(policy, views, n, 1);

		assert_true(got < n);
		counts[got]++;
	}
	assert_spread(counts, weights, n);
}

static void random_follows_weights(void **state)
{
	const uint32_t equal[] = { 100, 100, 100 }, skewed[] = { 100, 200, 700 };
	const uint32_t two[] = { 1, 1000 }, zero[] = { 100, 0, 100, 50 };
	uint32_t many[64];

	(void)state;
	for (uint32_t i = 0; i < 64; i++)
		many[i] = 100 + 10 * i;
	spread(KLB_POLICY_RANDOM, equal, 3);
	spread(KLB_POLICY_RANDOM, skewed, 3);
	spread(KLB_POLICY_RANDOM, two, 2);
	spread(KLB_POLICY_RANDOM, zero, 4);
	spread(KLB_POLICY_RANDOM, many, 64);
}

/* Connections that close before the next one comes: all counts are 0. */
static void idle_least_conn_follows_weights(void **state)
{
	const uint32_t skewed[] = { 100, 200, 300 };

	(void)state;
	spread(KLB_POLICY_LEAST_CONN, skewed, 3);
}

/* Held connections end up in exact proportion, whatever the order of ties. */
static void least_conn_fills_by_weight(void **state)
{
	struct klb_view v[3] = { view(KLB_STATE_READY, 100, 0), view(KLB_STATE_READY, 200, 0),
				 view(KLB_STATE_READY, 300, 0) };

	(void)state;
	for (int i = 0; i < 600; i++)
		v[choose(KLB_POLICY_LEAST_CONN, v, 3, 1)].active++;
	assert_in_range(v[0].active, 99, 101);
	assert_in_range(v[1].active, 199, 201);
	assert_in_range(v[2].active, 299, 301);
}

static void least_conn_takes_the_emptier(void **state)
{
	struct klb_view v[2] = { view(KLB_STATE_READY, 100, 7), view(KLB_STATE_READY, 100, 6) };

	(void)state;
	for (int i = 0; i < 100; i++)
		assert_int_equal(choose(KLB_POLICY_LEAST_CONN, v, 2, 1), 1);
}

/* A count that is far out (a bug elsewhere) must not overflow the comparison. */
static void huge_counts_compare(void **state)
{
	struct klb_view v[2] = { view(KLB_STATE_READY, KLB_WEIGHT_MAX, KLB_LOAD_MAX),
				 view(KLB_STATE_READY, 1, 0) };

	(void)state;
	assert_int_equal(choose(KLB_POLICY_LEAST_CONN, v, 2, 1), 1);
	v[0].active = 0;
	v[1].active = KLB_LOAD_MAX;
	assert_int_equal(choose(KLB_POLICY_LEAST_CONN, v, 2, 1), 0);
}

/* --- tiers ------------------------------------------------------------------------ */

struct tier_case {
	const char *what;
	uint32_t trust;
	struct klb_view views[3];
	uint32_t allowed; /* bit i: backend i may be chosen; 0: nobody */
};

#define READY                                                          \
	{                                                              \
		.state = KLB_STATE_READY, .weight = 100, .eligible = 1 \
	}
#define UNKNOWN                                                          \
	{                                                                \
		.state = KLB_STATE_UNKNOWN, .weight = 100, .eligible = 1 \
	}
#define SUSPECT                                                          \
	{                                                                \
		.state = KLB_STATE_SUSPECT, .weight = 100, .eligible = 1 \
	}
#define DRAINING                                                          \
	{                                                                 \
		.state = KLB_STATE_DRAINING, .weight = 100, .eligible = 1 \
	}
#define DEAD                                                          \
	{                                                             \
		.state = KLB_STATE_DEAD, .weight = 100, .eligible = 1 \
	}
#define DRAINED                                                                      \
	{                                                                            \
		.state = KLB_STATE_READY, .weight = 100, .eligible = 1, .drained = 1 \
	}
#define EJECTED                                                                             \
	{                                                                                   \
		.state = KLB_STATE_READY, .weight = 100, .eligible = 1, .ejected = ALL_ONES \
	}
#define DRAINING_EJECTED                                                                       \
	{                                                                                      \
		.state = KLB_STATE_DRAINING, .weight = 100, .eligible = 1, .ejected = ALL_ONES \
	}
#define DEAD_DRAINED                                                                \
	{                                                                           \
		.state = KLB_STATE_DEAD, .weight = 100, .eligible = 1, .drained = 1 \
	}
#define DEAD_EJECTED                                                                       \
	{                                                                                  \
		.state = KLB_STATE_DEAD, .weight = 100, .eligible = 1, .ejected = ALL_ONES \
	}
#define ANSWERED(kind)                                                                        \
	{                                                                                     \
		.state = KLB_STATE_##kind, .weight = 100, .eligible = 1, .answered = ALL_ONES \
	}
#define READY_ANSWERED ANSWERED(READY)
#define SUSPECT_ANSWERED ANSWERED(SUSPECT)
#define DRAINING_ANSWERED ANSWERED(DRAINING)
#define DEAD_ANSWERED ANSWERED(DEAD)
#define DEAD_ANSWERED_EJECTED                                                                \
	{                                                                                    \
		.state = KLB_STATE_DEAD, .weight = 100, .eligible = 1, .answered = ALL_ONES, \
		.ejected = ALL_ONES                                                          \
	}
#define WEIGHTLESS                                                   \
	{                                                            \
		.state = KLB_STATE_READY, .weight = 0, .eligible = 1 \
	}
#define LOCAL_IN(kind, ...)                                                              \
	{                                                                                \
		.state = KLB_STATE_##kind, .weight = 100, .eligible = 1, .preferred = 1, \
		__VA_ARGS__                                                              \
	}
#define LOCAL LOCAL_IN(READY, .drained = 0)
#define LOCAL_UNKNOWN LOCAL_IN(UNKNOWN, .drained = 0)
#define LOCAL_SUSPECT LOCAL_IN(SUSPECT, .drained = 0)
#define LOCAL_DEAD LOCAL_IN(DEAD, .drained = 0)
#define LOCAL_DRAINING LOCAL_IN(DRAINING, .drained = 0)
#define LOCAL_EJECTED LOCAL_IN(READY, .ejected = ALL_ONES)
#define LOCAL_DRAINED LOCAL_IN(READY, .drained = 1)
#define LOCAL_DRAINING_DRAINED LOCAL_IN(DRAINING, .drained = 1)
#define LOCAL_DRAINING_EJECTED LOCAL_IN(DRAINING, .ejected = ALL_ONES)
#define LOCAL_WEIGHTLESS                                                             \
	{                                                                            \
		.state = KLB_STATE_READY, .weight = 0, .eligible = 1, .preferred = 1 \
	}
#define LOCAL_OUT_OF_REACH                                                             \
	{                                                                              \
		.state = KLB_STATE_READY, .weight = 100, .eligible = 0, .preferred = 1 \
	}
#define OUT_OF_REACH                                                   \
	{                                                              \
		.state = KLB_STATE_READY, .weight = 100, .eligible = 0 \
	}

static const struct tier_case tier_cases[] = {
	{ "all ready", 1, { READY, READY, READY }, 7 },
	{ "not probed yet counts as ready", 1, { UNKNOWN, READY, DEAD }, 3 },
	{ "dead is out", 1, { DEAD, READY, READY }, 6 },
	{ "draining is out", 1, { DRAINING, READY, DEAD }, 2 },
	{ "suspect is out", 1, { SUSPECT, READY, DEAD }, 2 },
	{ "drained by the operator is out", 1, { DRAINED, READY, DEAD }, 2 },
	{ "ejected is out", 1, { EJECTED, READY, DEAD }, 2 },
	{ "draining before dead", 1, { DRAINING, DEAD, DEAD }, 1 },
	{ "draining and drained are alike", 1, { DRAINING, DRAINED, DEAD }, 3 },
	{ "draining answers, suspect may not", 1, { DRAINING, SUSPECT, DRAINED }, 5 },
	{ "suspect that has just answered", 1, { SUSPECT_ANSWERED, SUSPECT, DRAINED }, 5 },
	{ "suspect before ejected", 1, { EJECTED, SUSPECT, DEAD }, 2 },
	{ "ready ones that have not answered yet", 1, { READY_ANSWERED, READY, SUSPECT }, 3 },
	{ "draining ones that have not answered yet", 1, { DRAINING_ANSWERED, DRAINING, DEAD }, 3 },
	{ "dead that has just answered", 1, { DEAD_ANSWERED, DEAD, DEAD_EJECTED }, 1 },
	{ "dead that has not just failed", 1, { DEAD_EJECTED, DEAD, DEAD }, 6 },
	{ "dead that has answered, and then failed",
	  1,
	  { DEAD_ANSWERED_EJECTED, DEAD, DEAD_EJECTED },
	  2 },
	{ "all dead and failing: all",
	  1,
	  { DEAD_EJECTED, DEAD_EJECTED, DEAD_ANSWERED_EJECTED },
	  7 },
	{ "ejected before dead that has answered", 1, { EJECTED, DEAD_ANSWERED, DEAD }, 1 },
	{ "no agent: answers do not count", 0, { DEAD_ANSWERED, DEAD, SUSPECT_ANSWERED }, 7 },
	{ "draining before ejected", 1, { EJECTED, DRAINING, DEAD }, 2 },
	{ "drained before ejected", 1, { EJECTED, DRAINED, DEAD }, 2 },
	{ "draining and ejected is ejected", 1, { DRAINING_EJECTED, DRAINED, DEAD }, 2 },
	{ "drained before dead", 1, { DRAINED, DEAD, DEAD }, 1 },
	{ "ejected before dead", 1, { EJECTED, DEAD, DEAD }, 1 },
	{ "all ejected: all", 1, { EJECTED, DRAINING_EJECTED, EJECTED }, 7 },
	{ "the last one in reach is used though ejected", 1, { EJECTED, DEAD, WEIGHTLESS }, 1 },
	{ "all dead: all", 1, { DEAD, DEAD, DEAD }, 7 },
	{ "dead and drained is dead", 1, { DEAD_DRAINED, DEAD, DRAINING }, 4 },
	{ "dead and ejected is dead", 1, { DEAD_EJECTED, DEAD, EJECTED }, 4 },
	{ "the local one is ejected", 1, { READY, LOCAL_EJECTED, DEAD }, 1 },
	{ "weight 0 takes none", 1, { WEIGHTLESS, READY, READY }, 6 },
	{ "weight 0 takes none even before dead", 1, { WEIGHTLESS, DEAD, DEAD }, 6 },
	{ "nobody has weight", 1, { WEIGHTLESS, WEIGHTLESS, WEIGHTLESS }, 0 },
	{ "the local one takes all", 1, { READY, LOCAL, READY }, 2 },
	{ "the local one is dead", 1, { READY, LOCAL_DEAD, READY }, 5 },
	{ "the local one is not probed yet", 1, { READY, LOCAL_UNKNOWN, READY }, 2 },
	{ "the local one starts or shuts down", 1, { READY, LOCAL_DRAINING, DEAD }, 2 },
	{ "the local one is suspect", 1, { READY, LOCAL_SUSPECT, DRAINING }, 1 },
	{ "the local one is drained by the operator", 1, { READY, LOCAL_DRAINED, DEAD }, 1 },
	{ "the local one shuts down and is drained",
	  1,
	  { READY, LOCAL_DRAINING_DRAINED, DEAD },
	  1 },
	{ "the local one shuts down and is ejected",
	  1,
	  { READY, LOCAL_DRAINING_EJECTED, DEAD },
	  1 },
	{ "the local one has no weight", 1, { READY, LOCAL_WEIGHTLESS, READY }, 5 },
	{ "the local one is out of reach", 1, { READY, LOCAL_OUT_OF_REACH, READY }, 5 },
	{ "no agent: local takes all", 0, { READY, LOCAL_DEAD, READY }, 2 },
	{ "no agent: local is ejected", 0, { READY, LOCAL_EJECTED, READY }, 5 },
	{ "no agent: local is drained", 0, { READY, LOCAL_DRAINED, READY }, 5 },
	{ "out of reach", 1, { OUT_OF_REACH, READY, READY }, 6 },
	{ "nobody in reach", 1, { OUT_OF_REACH, OUT_OF_REACH, OUT_OF_REACH }, 0 },
	{ "no agent: dead is not believed", 0, { DEAD, READY, READY }, 7 },
	{ "no agent: draining is not believed", 0, { DRAINING, READY, SUSPECT }, 7 },
	{ "no agent: the operator is", 0, { DRAINED, DEAD, READY }, 6 },
	{ "no agent: the kernel is", 0, { EJECTED, DEAD, READY }, 6 },
};

static void tiers(void **state)
{
	static const enum klb_policy policies[] = { KLB_POLICY_LEAST_CONN, KLB_POLICY_RANDOM,
						    KLB_POLICY_RENDEZVOUS, KLB_POLICY_LATENCY };

	(void)state;
	for (size_t c = 0; c < ARRAY_SIZE(tier_cases); c++) {
		const struct tier_case *t = &tier_cases[c];

		for (size_t p = 0; p < 4; p++) {
			uint32_t seen = 0;

			for (int i = 0; i < 500; i++) {
				uint32_t got = choose(policies[p], t->views, 3, t->trust);

				if (got == KLB_PICK_NONE ? t->allowed != 0
							 : !(t->allowed >> got & 1))
					fail_msg("%s: policy %d chose %u", t->what, policies[p],
						 got);
				if (got != KLB_PICK_NONE)
					seen |= 1u << got;
			}
			/* Rendezvous is of one mind; the others use all that they may. */
			if (policies[p] != KLB_POLICY_RENDEZVOUS && seen != t->allowed)
				fail_msg("%s: policy %d used %x of %x", t->what, policies[p], seen,
					 t->allowed);
		}
	}
}

/* The tier outranks everything: an empty dead backend, a loaded ready one. */
static void tier_outranks_load(void **state)
{
	struct klb_view v[2] = { view(KLB_STATE_DEAD, 1000, 0),
				 view(KLB_STATE_READY, 1, KLB_LOAD_MAX) };

	(void)state;
	assert_int_equal(choose(KLB_POLICY_LEAST_CONN, v, 2, 1), 1);
	v[0].state = KLB_STATE_DRAINING;
	assert_int_equal(choose(KLB_POLICY_LEAST_CONN, v, 2, 1), 1);
}

static void nobody_offered(void **state)
{
	(void)state;
	assert_int_equal(choose(KLB_POLICY_RANDOM, NULL, 0, 1), KLB_PICK_NONE);
}

static void one_backend(void **state)
{
	struct klb_view v = view(KLB_STATE_DEAD, 1, 5);

	(void)state;
	for (int p = KLB_POLICY_LEAST_CONN; p <= KLB_POLICY_LATENCY; p++)
		assert_int_equal(choose(p, &v, 1, 1), 0);
}

/* Rendezvous: the smallest rank/weight, and only what must moves. */
static void rendezvous_is_stable(void **state)
{
	struct klb_view v[4];
	uint32_t before, after;

	(void)state;
	for (int round = 0; round < 1000; round++) {
		for (int i = 0; i < 4; i++) {
			v[i] = view(KLB_STATE_READY, 100, rng());
			v[i].rank = rng() >> 4;
		}
		before = choose(KLB_POLICY_RENDEZVOUS, v, 4, 1);
		for (int i = 0; i < 4; i++)
			assert_true(v[before].rank <= v[i].rank);
		/* Somebody else goes: nothing moves. The chosen one goes: it must. */
		v[(before + 1) % 4].state = KLB_STATE_DEAD;
		after = choose(KLB_POLICY_RENDEZVOUS, v, 4, 1);
		assert_int_equal(after, before);
		v[before].state = KLB_STATE_DEAD;
		assert_int_not_equal(choose(KLB_POLICY_RENDEZVOUS, v, 4, 1), before);
	}
}

static void latency_prefers_the_quicker(void **state)
{
	struct klb_view v[2] = { view(KLB_STATE_READY, 100, 0), view(KLB_STATE_READY, 100, 0) };
	int quick = 0;

	(void)state;
	v[0].srtt_us = 200;
	v[1].srtt_us = 2000;
	for (int i = 0; i < 10000; i++)
		quick += choose(KLB_POLICY_LATENCY, v, 2, 1) == 0;
	/* It wins unless both draws fall on the other: 3 of 4. */
	assert_in_range(quick, 7300, 7700);
	/* Ten times the RTT, a hundredth of the load: now the slow one is better. */
	v[0].active = 99;
	quick = 0;
	for (int i = 0; i < 10000; i++)
		quick += choose(KLB_POLICY_LATENCY, v, 2, 1) == 0;
	assert_in_range(quick, 2300, 2700);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_follows_weights),
		cmocka_unit_test(idle_least_conn_follows_weights),
		cmocka_unit_test(least_conn_fills_by_weight),
		cmocka_unit_test(least_conn_takes_the_emptier),
		cmocka_unit_test(huge_counts_compare),
		cmocka_unit_test(tiers),
		cmocka_unit_test(tier_outranks_load),
		cmocka_unit_test(nobody_offered),
		cmocka_unit_test(one_backend),
		cmocka_unit_test(rendezvous_is_stable),
		cmocka_unit_test(latency_prefers_the_quicker),
	};

	return cmocka_run_group_tests_name("select", tests, NULL, NULL);
}
