/* SPDX-License-Identifier: BSD-2-Clause */
/* Two looks at the maps, and what has changed between them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "balance/state_diff.h"
#include "unit.h"

static struct datapath_state was, is;
static struct state_change found[STATE_CHANGES_MAX];

static struct plan_backend *put(struct datapath_state *s, __u32 id, enum klb_state state,
				__u64 since_ns)
{
	struct plan_backend *b = &s->applied.backends[s->applied.n_backends++];
	char text[32];

	b->id = id;
	snprintf(text, sizeof(text), "192.0.2.%u", id);
	b->value.endpoint = endpoint(text);
	b->value.generation = 7;
	b->value.state = state;
	b->value.since_ns = since_ns;
	return b;
}

static int start(void **state)
{
	(void)state;
	memset(&was, 0, sizeof(was));
	memset(&is, 0, sizeof(is));
	return 0;
}

static void first_look_finds_the_last_verdicts(void **state)
{
	(void)state;
	put(&is, 1, KLB_STATE_READY, 500);
	put(&is, 2, KLB_STATE_UNKNOWN, 100);
	put(&is, 3, KLB_STATE_DEAD, 300)->value.reason = KLB_REASON_REFUSED;
	is.admin[1].generation = 7;
	is.admin[1].drained = 1;
	assert_int_equal(state_diff(NULL, &is, 1000, found), 2);
	assert_int_equal(found[0].id, 3);
	assert_int_equal(found[0].kind, CHANGE_STATE);
	assert_int_equal(found[0].state, KLB_STATE_DEAD);
	assert_int_equal(found[0].reason, KLB_REASON_REFUSED);
	assert_int_equal(found[0].time_ns, 300);
	assert_int_equal(found[1].id, 1);
	assert_int_equal(found[1].time_ns, 500);
}

static void nothing_new_is_nothing(void **state)
{
	(void)state;
	put(&is, 1, KLB_STATE_READY, 500)->value.last_probe_ns = 900;
	put(&was, 1, KLB_STATE_READY, 500);
	is.stats[1].active = 9;
	assert_int_equal(state_diff(&was, &is, 1000, found), 0);
}

static void a_verdict_changes(void **state)
{
	(void)state;
	put(&was, 1, KLB_STATE_SUSPECT, 500);
	put(&is, 1, KLB_STATE_DEAD, 800)->value.http_status = 500;
	assert_int_equal(state_diff(&was, &is, 1000, found), 1);
	assert_int_equal(found[0].was, KLB_STATE_SUSPECT);
	assert_int_equal(found[0].state, KLB_STATE_DEAD);
	assert_int_equal(found[0].http_status, 500);
	assert_int_equal(found[0].time_ns, 800);
	/* A time to come is none. */
	is.applied.backends[0].value.since_ns = 5000;
	assert_int_equal(state_diff(&was, &is, 1000, found), 1);
	assert_int_equal(found[0].time_ns, 1000);
}

/* Between two looks it was another for a while: the state is the same, and not since then. */
static void a_verdict_goes_and_comes_back(void **state)
{
	(void)state;
	put(&was, 1, KLB_STATE_READY, 500);
	put(&is, 1, KLB_STATE_READY, 800)->value.reason = KLB_REASON_OK;
	assert_int_equal(state_diff(&was, &is, 1000, found), 1);
	assert_int_equal(found[0].kind, CHANGE_STATE);
	assert_int_equal(found[0].was, KLB_STATE_READY);
	assert_int_equal(found[0].state, KLB_STATE_READY);
	assert_int_equal(found[0].time_ns, 800);
	/* Attached anew, and nobody has asked yet: that is no verdict. */
	was.applied.backends[0].value.state = KLB_STATE_UNKNOWN;
	is.applied.backends[0].value.state = KLB_STATE_UNKNOWN;
	is.applied.backends[0].value.reason = was.applied.backends[0].value.reason;
	assert_int_equal(state_diff(&was, &is, 1000, found), 0);
}

static void a_reason_changes(void **state)
{
	struct klb_backend *now;

	(void)state;
	put(&was, 1, KLB_STATE_DEAD, 500)->value.reason = KLB_REASON_REFUSED;
	now = &put(&is, 1, KLB_STATE_DEAD, 500)->value;
	now->reason = KLB_REASON_UNREACHABLE;
	now->last_probe_ns = 900;
	assert_int_equal(state_diff(&was, &is, 1000, found), 1);
	assert_int_equal(found[0].kind, CHANGE_REASON);
	assert_int_equal(found[0].state, KLB_STATE_DEAD);
	assert_int_equal(found[0].was_reason, KLB_REASON_REFUSED);
	assert_int_equal(found[0].reason, KLB_REASON_UNREACHABLE);
	assert_int_equal(found[0].time_ns, 900);
	/* Another answer of the same kind. */
	now->reason = KLB_REASON_REFUSED;
	now->http_status = 500;
	assert_int_equal(state_diff(&was, &is, 1000, found), 1);
	assert_int_equal(found[0].kind, CHANGE_REASON);
	assert_int_equal(found[0].was_http_status, 0);
	assert_int_equal(found[0].http_status, 500);
	/* With the state, it is part of that. */
	now->state = KLB_STATE_DRAINING;
	assert_int_equal(state_diff(&was, &is, 1000, found), 1);
	assert_int_equal(found[0].kind, CHANGE_STATE);
}

/* The same address under another generation has nothing to do with the one before. */
static void a_backend_is_another(void **state)
{
	(void)state;
	put(&was, 1, KLB_STATE_DEAD, 1);
	put(&is, 1, KLB_STATE_UNKNOWN, 900)->value.generation = 8;
	assert_int_equal(state_diff(&was, &is, 1000, found), 1);
	assert_int_equal(found[0].kind, CHANGE_ADDED);
}

static void backends_come_and_go(void **state)
{
	(void)state;
	put(&was, 1, KLB_STATE_READY, 1);
	put(&was, 2, KLB_STATE_READY, 1);
	put(&is, 2, KLB_STATE_READY, 1);
	put(&is, 3, KLB_STATE_UNKNOWN, 1);
	assert_int_equal(state_diff(&was, &is, 1000, found), 2);
	assert_int_equal(found[0].kind, CHANGE_REMOVED);
	assert_int_equal(found[0].id, 1);
	assert_int_equal(found[1].kind, CHANGE_ADDED);
	assert_int_equal(found[1].id, 3);
}

static void one_that_left_dies_and_returns(void **state)
{
	struct plan_backend *b;

	(void)state;
	b = put(&was, 1, KLB_STATE_READY, 1);
	b->removed = true;
	b->value.left_ns = 200;
	b = put(&is, 1, KLB_STATE_DEAD, 900);
	b->removed = true;
	assert_int_equal(state_diff(&was, &is, 1000, found), 1);
	assert_int_equal(found[0].kind, CHANGE_STATE);
	assert_int_equal(found[0].state, KLB_STATE_DEAD);
	b->removed = false;
	assert_int_equal(state_diff(&was, &is, 1000, found), 2);
	assert_int_equal(found[0].kind, CHANGE_STATE);
	assert_int_equal(found[1].kind, CHANGE_RETURNED);
	assert_int_equal(found[1].left_ns, 200);
	/* As ready as it was, from now on: nothing has been between. */
	b->value.state = KLB_STATE_READY;
	assert_int_equal(state_diff(&was, &is, 1000, found), 1);
	assert_int_equal(found[0].kind, CHANGE_RETURNED);
	/* The operator's word about one that is not in the list. */
	b->removed = true;
	b->value.since_ns = 1;
	is.admin[1] = (struct klb_admin){ .generation = 7, .drained = 1 };
	assert_int_equal(state_diff(&was, &is, 1000, found), 1);
	assert_int_equal(found[0].kind, CHANGE_DRAINED);
	/* Forgotten, and another one with its address: that has not returned. */
	b->removed = false;
	b->value.generation = 8;
	assert_int_equal(state_diff(&was, &is, 1000, found), 1);
	assert_int_equal(found[0].kind, CHANGE_ADDED);
}

static void wishes_change(void **state)
{
	(void)state;
	put(&was, 1, KLB_STATE_READY, 1);
	put(&is, 1, KLB_STATE_READY, 1);
	is.admin[1] = (struct klb_admin){ .generation = 7, .drained = 1, .weight_set = 1 };
	assert_int_equal(state_diff(&was, &is, 1000, found), 2);
	assert_int_equal(found[0].kind, CHANGE_DRAINED);
	assert_int_equal(found[1].kind, CHANGE_WEIGHT);
	assert_int_equal(found[1].weight, 0);
	assert_int_equal(state_diff(&is, &was, 1000, found), 2);
	assert_int_equal(found[0].kind, CHANGE_UNDRAINED);
	assert_int_equal(found[1].weight, -1);
	/* A wish about who had the id before is none. */
	is.admin[1].generation = 6;
	assert_int_equal(state_diff(&was, &is, 1000, found), 0);
}

/* As many as there can be, all at once, fit. */
static void everything_changes(void **state)
{
	(void)state;
	for (__u32 id = 1; id < KLB_MAX_IDS; id++) {
		put(&was, id, KLB_STATE_READY, 1);
		put(&is, id, KLB_STATE_DEAD, id);
		is.admin[id] = (struct klb_admin){
			.generation = 7, .drained = 1, .weight_set = 1, .weight = 3
		};
	}
	assert_int_equal(state_diff(&was, &is, 1000, found), 3 * (KLB_MAX_IDS - 1));
	for (unsigned int i = 1; i < 3 * (KLB_MAX_IDS - 1); i++)
		assert_true(found[i - 1].time_ns <= found[i].time_ns);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(first_look_finds_the_last_verdicts, start),
		cmocka_unit_test_setup(nothing_new_is_nothing, start),
		cmocka_unit_test_setup(a_verdict_changes, start),
		cmocka_unit_test_setup(a_verdict_goes_and_comes_back, start),
		cmocka_unit_test_setup(a_reason_changes, start),
		cmocka_unit_test_setup(a_backend_is_another, start),
		cmocka_unit_test_setup(backends_come_and_go, start),
		cmocka_unit_test_setup(one_that_left_dies_and_returns, start),
		cmocka_unit_test_setup(wishes_change, start),
		cmocka_unit_test_setup(everything_changes, start),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
