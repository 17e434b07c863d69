/* SPDX-License-Identifier: BSD-2-Clause */
/* The cluster's list, the cache's and the seeds: who counts when. */
#include <stdio.h>
#include <string.h>

#include "balance/endpoint_source.h"
#include "net/endpoint.h"
#include "unit.h"

#define S 1000000000ULL

/* --- the list ------------------------------------------------------------------------- */

static void seeds_follow_the_list(void **state)
{
	struct klb_endpoint list[] = { endpoint("10.0.0.3"), endpoint("10.0.0.2") };
	struct klb_endpoint ret[KLB_MAX_BACKENDS], want;
	struct config c = { .n_backends = 3 };

	(void)state;
	c.backends[0].endpoint = endpoint("10.0.0.1");
	c.backends[1].endpoint = endpoint("10.0.0.2");
	c.backends[2].endpoint = endpoint("10.0.0.3:7443");
	assert_int_equal(endpoint_source_with_seeds(&c, list, ARRAY_SIZE(list), ret), 4);
	assert_memory_equal(ret, list, sizeof(list));
	want = endpoint("10.0.0.1");
	assert_true(endpoint_equal(&ret[2], &want));
	want = endpoint("10.0.0.3:7443");
	assert_true(endpoint_equal(&ret[3], &want));
	c.n_backends = 0;
	assert_int_equal(endpoint_source_with_seeds(&c, list, ARRAY_SIZE(list), ret), 2);
}

static void the_list_goes_first(void **state)
{
	struct klb_endpoint list[KLB_MAX_BACKENDS], ret[KLB_MAX_BACKENDS];
	struct config c = { .n_backends = 2 };
	char text[32];

	(void)state;
	c.backends[0].endpoint = endpoint("10.0.0.1");
	c.backends[1].endpoint = endpoint("10.0.0.2");
	for (unsigned int i = 0; i < KLB_MAX_BACKENDS; i++) {
		snprintf(text, sizeof(text), "10.0.1.%u", i);
		list[i] = endpoint(text);
	}
	assert_int_equal(endpoint_source_with_seeds(&c, list, KLB_MAX_BACKENDS, ret),
			 KLB_MAX_BACKENDS);
	assert_memory_equal(ret, list, sizeof(list));
	/* Room for one. */
	assert_int_equal(endpoint_source_with_seeds(&c, list, KLB_MAX_BACKENDS - 1, ret),
			 KLB_MAX_BACKENDS);
	assert_true(endpoint_equal(&ret[KLB_MAX_BACKENDS - 1], &c.backends[0].endpoint));
}

static void heard_by_an_agent_that_lives(void **state)
{
	struct klb_control control = { .heartbeat_ns = 100 * S, .heartbeat_max_age_ns = 3 * S };
	const bool heard[] = { [KLB_DISCOVERY_OFF] = false,
			       [KLB_DISCOVERY_SEEDS] = false,
			       [KLB_DISCOVERY_CACHE] = false,
			       [KLB_DISCOVERY_CURRENT] = true,
			       [KLB_DISCOVERY_FAILING] = true };

	(void)state;
	for (unsigned int i = 0; i < ARRAY_SIZE(heard); i++) {
		control.discovery = i;
		assert_int_equal(endpoint_source_is_cluster(&control, 102 * S), heard[i]);
		assert_false(endpoint_source_is_cluster(&control, 104 * S));
	}
}

/* --- the decision --------------------------------------------------------------------- */

enum {
	AS_BEFORE = ENDPOINT_SOURCE_UNCHANGED,
	ALONE = ENDPOINT_SOURCE_DROP_SEEDS,
	SEEDS = ENDPOINT_SOURCE_ADD_SEEDS
};

/* One look after the other. */
struct look {
	__u64 at_s;
	bool heard, usable;
	unsigned int want;
	bool list_alone; /* afterwards */
};

static void check(struct endpoint_source b, bool more, unsigned int interval_ms,
		  const struct look *looks, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct look *l = &looks[i];
		struct endpoint_source_facts f = { .heard = l->heard,
						   .usable = l->usable,
						   .has_seeds = more,
						   .interval_ms = interval_ms,
						   .now_ns = l->at_s * S };

		assert_int_equal(endpoint_source_review(&b, &f), l->want);
		assert_int_equal(b.list_alone, l->list_alone);
	}
}

#define CHECK(b, more, interval_ms, looks) check(b, more, interval_ms, looks, ARRAY_SIZE(looks))

static const struct endpoint_source at_start, was_alone = { .list_alone = true };

static void both_until_heard(void **state)
{
	static const struct look looks[] = {
		{ 1, false, false, AS_BEFORE, false },	{ 2, false, true, AS_BEFORE, false },
		{ 99, false, false, AS_BEFORE, false }, { 999, false, false, AS_BEFORE, false },
		{ 1000, true, true, ALONE, true },	{ 1001, true, true, AS_BEFORE, true },
	};

	(void)state;
	CHECK(at_start, true, 1000, looks);
}

/* A list that is heard, and leads nowhere, never takes the seeds away. */
static void heard_of_no_use(void **state)
{
	static const struct look looks[] = {
		{ 1, true, false, AS_BEFORE, false },  { 5, true, false, AS_BEFORE, false },
		{ 6, true, false, SEEDS, false },      { 7, true, false, AS_BEFORE, false },
		{ 99, true, false, AS_BEFORE, false }, { 100, true, true, ALONE, true },
	};

	(void)state;
	CHECK(at_start, true, 1000, looks);
}

static void seeds_come_and_go(void **state)
{
	static const struct look looks[] = {
		{ 1, true, true, ALONE, true },
		{ 9, true, true, AS_BEFORE, true },
		{ 10, true, false, AS_BEFORE, true },
		{ 14, true, false, AS_BEFORE, true },
		/* A moment is enough to begin anew. */
		{ 15, true, true, AS_BEFORE, true },
		{ 16, true, false, AS_BEFORE, true },
		{ 20, true, false, AS_BEFORE, true },
		{ 21, true, false, SEEDS, false },
		{ 22, true, false, AS_BEFORE, false },
		{ 23, true, true, ALONE, true },
		{ 24, true, false, AS_BEFORE, true },
		{ 29, true, false, SEEDS, false },
	};

	(void)state;
	CHECK(at_start, true, 1000, looks);
}

static void slow_probes_are_waited_for(void **state)
{
	static const struct look looks[] = {
		{ 1, true, true, ALONE, true },
		{ 10, true, false, AS_BEFORE, true },
		{ 69, true, false, AS_BEFORE, true },
		{ 70, true, false, SEEDS, false },
	};

	(void)state;
	CHECK(at_start, true, 30000, looks);
}

static void no_seeds_beyond_the_list(void **state)
{
	static const struct look looks[] = {
		{ 1, true, true, AS_BEFORE, true },
		{ 2, true, false, AS_BEFORE, true },
		{ 99, true, false, AS_BEFORE, true },
	};

	(void)state;
	CHECK(at_start, false, 1000, looks);
}

/* An agent that comes after another one, and cannot hear the cluster itself. */
static void alone_from_the_start(void **state)
{
	static const struct look looks[] = {
		{ 1, false, true, AS_BEFORE, true }, { 2, false, false, AS_BEFORE, true },
		{ 7, false, false, SEEDS, false },   { 8, false, true, AS_BEFORE, false },
		{ 9, true, true, ALONE, true },
	};

	(void)state;
	CHECK(was_alone, true, 1000, looks);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(seeds_follow_the_list),
		cmocka_unit_test(the_list_goes_first),
		cmocka_unit_test(heard_by_an_agent_that_lives),
		cmocka_unit_test(both_until_heard),
		cmocka_unit_test(heard_of_no_use),
		cmocka_unit_test(seeds_come_and_go),
		cmocka_unit_test(slow_probes_are_waited_for),
		cmocka_unit_test(no_seeds_beyond_the_list),
		cmocka_unit_test(alone_from_the_start),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
