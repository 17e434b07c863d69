/* SPDX-License-Identifier: BSD-2-Clause */
/* Whose turn it is: whoever has many connections delays nobody else's. */
#include <stdlib.h>
#include <string.h>

#include "balance/fair_list.h"
#include "unit.h"

#define KUBELET 77
#define NOBODY 65534

static struct fair_list list;

static int setup(void **state)
{
	(void)state;
	list = (struct fair_list){ .keep = 64 };
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fair_list_free(&list);
	return 0;
}

static void add(__u32 uid, __u64 cgroup, __u32 pid, __u64 rank)
{
	const struct klb_connection c = { .uid = uid,
					  .cookie = rank,
					  .record = { .cgroup_id = cgroup, .pid = pid } };

	assert_int_equal(fair_list_add(&list, &c, rank), 0);
}

/* The place of the first connection of that process, after sorting; -1: it has none in the list. */
static int place_of(__u32 pid)
{
	const struct klb_connection *c;
	int place = -1;

	for (int i = 0; (c = fair_list_next(&list)); i++)
		if (c->record.pid == pid && place < 0)
			place = i;
	return place;
}

static void sort(void)
{
	assert_int_equal(fair_list_sort(&list), 0);
}

static void empty(void **state)
{
	(void)state;
	sort();
	assert_int_equal(fair_list_left(&list), 0);
	assert_null(fair_list_next(&list));
}

static void lowest_rank_of_a_process_first(void **state)
{
	(void)state;
	add(0, 1, 5, 30);
	add(0, 1, 5, 10);
	add(0, 1, 5, 20);
	sort();
	assert_int_equal(fair_list_next(&list)->cookie, 10);
	assert_int_equal(fair_list_next(&list)->cookie, 20);
	assert_int_equal(fair_list_left(&list), 1);
	assert_int_equal(fair_list_next(&list)->cookie, 30);
	assert_null(fair_list_next(&list));
}

/* The ranks are against the kubelet in each case. */
struct crowd {
	const char *what;
	unsigned int users, cgroups, processes, each;
	__u32 first_uid;
};

static const struct crowd crowds[] = {
	{ "one process", 1, 1, 1, 20000, NOBODY },	{ "processes", 1, 1, 5000, 4, NOBODY },
	{ "cgroups", 1, 1000, 1, 20, NOBODY },		{ "users", 10000, 1, 1, 2, 100000 },
	{ "one process of root's", 1, 1, 1, 20000, 0 }, { "processes of root's", 1, 1, 5000, 4, 0 },
};

static void add_crowd(const struct crowd *c)
{
	unsigned int rank = 0;

	for (unsigned int u = 0; u < c->users; u++)
		for (unsigned int g = 0; g < c->cgroups; g++)
			for (unsigned int p = 0; p < c->processes; p++)
				for (unsigned int i = 0; i < c->each; i++)
					add(c->first_uid + u, 1000 + u * c->cgroups + g, 1000 + p,
					    rank++);
}

static void nobody_delays_the_kubelet(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(crowds); i++) {
		int first;

		/* Before the crowd and after it. */
		for (int turn = 0; turn < 2; turn++) {
			setup(state);
			if (turn)
				add_crowd(&crowds[i]);
			add(0, 2, KUBELET, ~0ULL);
			if (!turn)
				add_crowd(&crowds[i]);
			sort();
			assert_int_equal(fair_list_left(&list), 64);
			assert_int_equal(fair_list_dropped(&list), 20000 + 1 - 64);
			first = place_of(KUBELET);
			if (first < 0 || first > 1)
				fail_msg("%s, %d: place %d", crowds[i].what, turn, first);
			fair_list_free(&list);
		}
	}
}

/* Root goes first, and all the same no other user waits for the last of root's. */
static void root_leaves_others_their_turns(void **state)
{
	(void)state;
	for (__u32 i = 0; i < 5000; i++)
		add(0, 1, 5, i);
	add(1000, 2, 6, ~0ULL);
	add(1001, 3, 7, ~0ULL);
	sort();
	for (unsigned int i = 0; i < FAIR_LIST_ROOT_TURNS; i++)
		assert_int_equal(fair_list_next(&list)->uid, 0);
	assert_int_not_equal(fair_list_next(&list)->uid, 0);
	assert_int_not_equal(fair_list_next(&list)->uid, 0);
	assert_int_equal(fair_list_next(&list)->uid, 0);
}

static void cgroups_and_processes_take_turns(void **state)
{
	static const __u32 want[] = { 1, 3, 2, 3, 1, 3 };

	(void)state;
	for (__u64 i = 0; i < 4; i++) {
		add(1000, 10, 1, i);
		add(1000, 10, 2, 10 + i);
		add(1000, 20, 3, 100 + i);
	}
	sort();
	for (size_t i = 0; i < ARRAY_SIZE(want); i++)
		assert_int_equal(fair_list_next(&list)->record.pid, want[i]);
}

/* It does not grow with what is put in: 64 are kept, four times as many are held. */
static void bounded(void **state)
{
	(void)state;
	for (__u32 i = 0; i < 100000; i++) {
		add(NOBODY, 1, i % 7, i);
		assert_in_range(list.capacity, 1, 256);
	}
	sort();
	assert_int_equal(fair_list_left(&list), 64);
	assert_int_equal(fair_list_dropped(&list), 100000 - 64);
	fair_list_clear(&list);
	assert_int_equal(fair_list_left(&list), 0);
	assert_int_equal(fair_list_dropped(&list), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(empty, setup, teardown),
		cmocka_unit_test_setup_teardown(lowest_rank_of_a_process_first, setup, teardown),
		cmocka_unit_test_setup_teardown(nobody_delays_the_kubelet, setup, teardown),
		cmocka_unit_test_setup_teardown(root_leaves_others_their_turns, setup, teardown),
		cmocka_unit_test_setup_teardown(cgroups_and_processes_take_turns, setup, teardown),
		cmocka_unit_test_setup_teardown(bounded, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
