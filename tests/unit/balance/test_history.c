/* SPDX-License-Identifier: BSD-2-Clause */
/* Samples of counts, and what becomes of them in ten minutes. */
#include <stdio.h>
#include <string.h>

#include "balance/history.h"
#include "unit.h"

#define STEP_NS (HISTORY_INTERVAL_MS * 1000000ULL)

static struct history h;
static struct datapath_state s;
static __u64 now_ns;

static int start(void **state)
{
	(void)state;
	memset(&s, 0, sizeof(s));
	now_ns = 77 * STEP_NS;
	return 0;
}

static int stop(void **state)
{
	(void)state;
	history_clear(&h);
	assert_int_equal(h.n_backends, 0);
	return 0;
}

static void put(__u32 id, __u32 generation, __u64 opened, __u64 active)
{
	struct plan_backend *b = &s.applied.backends[s.applied.n_backends++];
	char text[32];

	b->id = id;
	snprintf(text, sizeof(text), "192.0.2.%u", id);
	b->value.endpoint = endpoint(text);
	b->value.generation = generation;
	s.stats[id].opened = opened;
	s.stats[id].active = active;
}

static void look(void)
{
	now_ns += STEP_NS;
	history_add(&h, &s, now_ns);
}

/* Sample i of backend b, counted from the newest one. */
static const struct history_point *point(unsigned int b, unsigned int before)
{
	assert_true(before < h.n);
	return &h.backends[b]->points[history_index(&h, h.n - 1 - before)];
}

static void first_look_is_no_sample(void **state)
{
	(void)state;
	put(1, 7, 1000, 4);
	look();
	assert_int_equal(h.n, 0);
	s.stats[1].opened = 1030;
	s.stats[1].failed[KLB_FAILURE_REFUSED] = 2;
	s.stats[1].failed[KLB_FAILURE_TIMED_OUT] = 1;
	s.stats[1].active = 9;
	look();
	assert_int_equal(h.n, 1);
	assert_int_equal(point(0, 0)->opened, 30);
	assert_int_equal(point(0, 0)->failed, 3);
	assert_int_equal(point(0, 0)->active, 9);
	assert_int_equal(h.lengths_ms[history_index(&h, 0)], HISTORY_INTERVAL_MS);
}

static void counts_that_begin_anew_are_unknown(void **state)
{
	(void)state;
	put(1, 7, 50, 1);
	look();
	s.stats[1].opened = 3;
	look();
	assert_int_equal(point(0, 0)->opened, HISTORY_UNKNOWN);
	assert_int_equal(point(0, 0)->active, 1);
	s.stats[1].opened = 4;
	look();
	assert_int_equal(point(0, 0)->opened, 1);
	/* The same address, another backend. */
	s.applied.backends[0].value.generation = 8;
	s.stats[1].opened = 5;
	look();
	assert_int_equal(point(0, 0)->opened, HISTORY_UNKNOWN);
}

/* It keeps its samples until they are too old. */
static void backend_that_leaves(void **state)
{
	(void)state;
	put(1, 7, 0, 1);
	put(2, 7, 0, 0);
	look();
	look();
	s.applied.n_backends = 1;
	look();
	assert_int_equal(h.n_backends, 2);
	assert_int_equal(point(1, 0)->active, HISTORY_UNKNOWN);
	assert_int_equal(point(1, 1)->active, 0);
	for (int i = 0; i < HISTORY_SAMPLES - 2; i++)
		look();
	assert_int_equal(h.n_backends, 2);
	look();
	assert_int_equal(h.n_backends, 1);
}

static void backend_that_comes(void **state)
{
	(void)state;
	put(1, 7, 0, 0);
	look();
	look();
	put(2, 7, 10, 3);
	look();
	assert_int_equal(point(1, 0)->opened, HISTORY_UNKNOWN);
	assert_int_equal(point(1, 0)->active, 3);
	assert_int_equal(point(1, 1)->active, HISTORY_UNKNOWN);
	s.stats[2].opened = 12;
	look();
	assert_int_equal(point(1, 0)->opened, 2);
}

/* The oldest go, and a look that was late says how long it was. */
static void ring_goes_round(void **state)
{
	(void)state;
	put(1, 7, 0, 0);
	look();
	for (unsigned int i = 1; i <= HISTORY_SAMPLES + 5; i++) {
		s.stats[1].opened += i;
		look();
	}
	assert_int_equal(h.n, HISTORY_SAMPLES);
	assert_int_equal(point(0, 0)->opened, HISTORY_SAMPLES + 5);
	assert_int_equal(point(0, HISTORY_SAMPLES - 1)->opened, 6);
	now_ns += 3 * STEP_NS;
	look();
	assert_int_equal(h.lengths_ms[history_index(&h, h.n - 1)], 4 * HISTORY_INTERVAL_MS);
}

/* However many have come and gone. */
static void memory_is_bounded(void **state)
{
	char text[32];

	(void)state;
	put(1, 7, 0, 0);
	for (unsigned int i = 0; i < 3 * KLB_MAX_IDS; i++) {
		snprintf(text, sizeof(text), "198.51.%u.%u", 100 + i / 200, i % 200);
		s.applied.backends[0].value.endpoint = endpoint(text);
		look();
		assert_true(h.n_backends <= KLB_MAX_IDS);
	}
	assert_true(h.n_backends >= HISTORY_SAMPLES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(first_look_is_no_sample, start, stop),
		cmocka_unit_test_setup_teardown(counts_that_begin_anew_are_unknown, start, stop),
		cmocka_unit_test_setup_teardown(backend_that_leaves, start, stop),
		cmocka_unit_test_setup_teardown(backend_that_comes, start, stop),
		cmocka_unit_test_setup_teardown(ring_goes_round, start, stop),
		cmocka_unit_test_setup_teardown(memory_is_bounded, start, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
