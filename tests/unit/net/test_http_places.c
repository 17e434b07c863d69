/* SPDX-License-Identifier: BSD-2-Clause */
/* Who gets a place at the HTTP address, and whose turn it is. */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "net/http_places.h"
#include "unit.h"

#define PLACES 8
#define RESERVED 2
#define ALICE 1000
#define BOB 1001

static struct http_places *places;
static struct http_place at[32];
static __u64 now_ns = 1000 * NS_PER_S;

static int start(void **state)
{
	(void)state;
	memset(at, 0, sizeof(at));
	places = http_places_new(PLACES, RESERVED);
	assert_non_null(places);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(at); i++)
		http_places_leave(places, &at[i]);
	http_places_free(places);
	return 0;
}

/* at[from] to at[to - 1] get places of that peer. */
static void enter(unsigned int from, unsigned int to, __u64 key, enum http_at what)
{
	struct http_place *victim = NULL;

	for (unsigned int i = from; i < to; i++) {
		assert_int_equal(http_places_enter(places, &at[i], key, now_ns, &victim), 0);
		http_places_set(&at[i], what, now_ns);
	}
}

/* There is no place; that one has to leave for it, or -1. */
static void assert_victim(__u64 key, int want)
{
	static struct http_place newcomer;
	struct http_place *victim = &newcomer;

	assert_int_equal(http_places_enter(places, &newcomer, key, now_ns, &victim), -EBUSY);
	assert_ptr_equal(victim, want < 0 ? NULL : &at[want]);
}

static void assert_next(bool all, int want)
{
	struct http_place *next = http_places_next(places, all);

	assert_ptr_equal(next, want < 0 ? NULL : &at[want]);
	if (next)
		http_places_set(next, HTTP_BUSY, now_ns);
}

/* --- places ---------------------------------------------------------------------------- */

static void the_oldest_idle_one_leaves(void **state)
{
	(void)state;
	enter(0, PLACES - RESERVED, ALICE, HTTP_IDLE);
	now_ns += NS_PER_S;
	assert_victim(ALICE, 0);
	http_places_set(&at[0], HTTP_IDLE, now_ns);
	assert_victim(ALICE, 1);
	assert_victim(BOB, 1);
}

/* They would come back at once, again and again. Others do not wait. */
static void an_idle_one_stays_a_second_before_its_own_peer(void **state)
{
	(void)state;
	enter(0, PLACES - RESERVED, ALICE, HTTP_IDLE);
	now_ns += NS_PER_S - 1;
	assert_victim(ALICE, -1);
	assert_victim(BOB, 0);
	assert_victim(HTTP_OTHER(3), 0);
	now_ns++;
	assert_victim(ALICE, 0);
}

static void nobody_pushes_their_own_requests_out(void **state)
{
	(void)state;
	enter(0, 3, ALICE, HTTP_FIRST);
	enter(3, 5, ALICE, HTTP_AGAIN);
	enter(5, PLACES - RESERVED, ALICE, HTTP_BUSY);
	assert_victim(ALICE, -1);
}

/* Until both have the same. */
static void who_has_many_gives_to_who_has_few(void **state)
{
	struct http_place *victim = NULL;

	(void)state;
	enter(0, 2, ALICE, HTTP_FIRST);
	enter(2, 6, ALICE, HTTP_AGAIN);
	for (int i = 5; i > 2; i--) {
		assert_victim(BOB, i);
		http_places_leave(places, &at[i]);
		assert_int_equal(http_places_enter(places, &at[i + 10], BOB, now_ns, &victim), 0);
	}
	assert_victim(BOB, -1);
	assert_victim(ALICE, -1);
	/* A third one comes in all the same. */
	assert_victim(ALICE + 7, 2);
}

/* Whoever has fewer keeps their idle ones, too. */
static void the_few_idle_ones_of_others_stay(void **state)
{
	(void)state;
	enter(0, 1, BOB, HTTP_IDLE);
	enter(1, 6, ALICE, HTTP_FIRST);
	assert_victim(ALICE, -1);
	assert_victim(BOB, 5);
}

static void root_always_gets_in(void **state)
{
	(void)state;
	enter(0, 6, ALICE, HTTP_FIRST);
	enter(6, 8, HTTP_ROOT, HTTP_FIRST);
	assert_victim(HTTP_ROOT, 5);
	assert_victim(HTTP_OTHER(3), 5);
}

static void nobody_pushes_root_out(void **state)
{
	(void)state;
	enter(0, PLACES, HTTP_ROOT, HTTP_FIRST);
	assert_victim(ALICE, -1);
	http_places_set(&at[4], HTTP_IDLE, now_ns);
	assert_victim(ALICE, 4);
	assert_victim(HTTP_ROOT, 4); /* at once */
}

/* --- turns ----------------------------------------------------------------------------- */

static void peers_take_turns(void **state)
{
	(void)state;
	enter(0, 4, ALICE, HTTP_FIRST);
	enter(4, 6, BOB, HTTP_AGAIN);
	assert_next(true, 0);
	assert_next(true, 4);
	assert_next(true, 1);
	assert_next(true, 5);
	assert_next(true, 2);
	assert_next(true, 3);
	assert_next(true, -1);
}

static void a_first_request_goes_before_a_further_one(void **state)
{
	(void)state;
	enter(0, 2, ALICE, HTTP_AGAIN);
	enter(2, 3, ALICE, HTTP_FIRST);
	assert_next(true, 2);
	assert_next(true, 0);
	assert_next(true, 1);
}

static void root_goes_first(void **state)
{
	(void)state;
	enter(0, 3, ALICE, HTTP_FIRST);
	enter(3, 5, HTTP_ROOT, HTTP_AGAIN);
	assert_next(false, 3);
	assert_next(true, 4);
	assert_next(false, -1);
	assert_next(true, 0);
	assert_true(http_places_is_root(&at[3]));
	assert_false(http_places_is_root(&at[0]));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_oldest_idle_one_leaves),
		TEST(an_idle_one_stays_a_second_before_its_own_peer),
		TEST(nobody_pushes_their_own_requests_out),
		TEST(who_has_many_gives_to_who_has_few),
		TEST(the_few_idle_ones_of_others_stay),
		TEST(root_always_gets_in),
		TEST(nobody_pushes_root_out),
		TEST(peers_take_turns),
		TEST(a_first_request_goes_before_a_further_one),
		TEST(root_goes_first),
	};

	return cmocka_run_group_tests_name("http_places", tests, NULL, NULL);
}
