/* SPDX-License-Identifier: BSD-2-Clause */
/* Failback: to whom, when, and which connection next. */
#include <stdlib.h>
#include <string.h>

#include "balance/failback.h"
#include "balance/rebalance.h"
#include "net/endpoint.h"
#include "unit.h"

#define S 1000000000ULL
#define NOW (1000 * S)
#define HOME 1
#define AWAY 2
#define GONE 3
#define AWAY6 4

/* A local backend that has been ready for long, and others: one removed, one of IPv6. */
static struct datapath_state *make_state(void)
{
	static const char *const addresses[] = { "10.0.0.1", "10.0.0.2", "10.0.0.3", "[fd00::4]" };
	struct datapath_state *s = calloc(1, sizeof(*s));

	assert_non_null(s);
	s->applied.n_frontends = 1;
	s->applied.frontends[0].endpoint = endpoint("127.0.0.1:6443");
	s->applied.n_backends = ARRAY_SIZE(addresses);
	for (__u32 i = 0; i < ARRAY_SIZE(addresses); i++) {
		s->applied.backends[i].id = i + 1;
		s->applied.backends[i].value.endpoint = endpoint(addresses[i]);
		s->applied.backends[i].value.weight = 100;
		s->applied.backends[i].value.state = KLB_STATE_READY;
		s->applied.backends[i].value.since_ns = S;
		s->applied.backends[i].value.generation = 1;
		s->admin[i + 1].generation = 1;
	}
	s->applied.backends[HOME - 1].preferred = true;
	s->applied.backends[GONE - 1].removed = true;
	return s;
}

struct home_case {
	const char *what;
	void (*change)(struct datapath_state *s);
	bool takes;
};

static void change_nothing(struct datapath_state *s)
{
	(void)s;
}

static void not_preferred(struct datapath_state *s)
{
	s->applied.backends[HOME - 1].preferred = false;
}

static void draining(struct datapath_state *s)
{
	s->applied.backends[HOME - 1].value.state = KLB_STATE_DRAINING;
}

static void dead(struct datapath_state *s)
{
	s->applied.backends[HOME - 1].value.state = KLB_STATE_DEAD;
}

static void unknown(struct datapath_state *s)
{
	s->applied.backends[HOME - 1].value.state = KLB_STATE_UNKNOWN;
}

static void just_ready(struct datapath_state *s)
{
	s->applied.backends[HOME - 1].value.since_ns = NOW - FAILBACK_SETTLED_MS * S / 1000 + 1;
}

static void long_enough_ready(struct datapath_state *s)
{
	s->applied.backends[HOME - 1].value.since_ns = NOW - FAILBACK_SETTLED_MS * S / 1000;
}

static void ready_in_the_future(struct datapath_state *s)
{
	s->applied.backends[HOME - 1].value.since_ns = NOW + 1;
}

static void just_failed(struct datapath_state *s)
{
	s->stats[HOME].last_failure_ns = NOW - S;
}

static void is_ejected(struct datapath_state *s)
{
	s->stats[HOME].ejected_until_ns = NOW + S;
}

static void was_just_ejected(struct datapath_state *s)
{
	s->stats[HOME].ejected_until_ns = NOW - S;
}

static void drained(struct datapath_state *s)
{
	s->admin[HOME].drained = 1;
}

static void another_was_drained(struct datapath_state *s)
{
	s->admin[HOME].drained = 1;
	s->admin[HOME].generation = 7;
}

static void weightless(struct datapath_state *s)
{
	s->applied.backends[HOME - 1].value.weight = 0;
}

static void weight_set_to_0(struct datapath_state *s)
{
	s->admin[HOME].weight_set = 1;
}

static const struct home_case home_cases[] = {
	{ "ready for long", change_nothing, true },
	{ "not preferred", not_preferred, false },
	{ "draining", draining, false },
	{ "dead", dead, false },
	{ "not probed", unknown, false },
	{ "just ready", just_ready, false },
	{ "ready for long enough", long_enough_ready, true },
	{ "ready in the future", ready_in_the_future, false },
	{ "a connect has just failed", just_failed, false },
	{ "ejected", is_ejected, false },
	{ "ejected until a moment ago", was_just_ejected, false },
	{ "drained", drained, false },
	{ "another one was drained", another_was_drained, true },
	{ "without weight", weightless, false },
	{ "weight set to 0", weight_set_to_0, false },
};

static void who_takes_connections_back(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(home_cases); i++) {
		struct datapath_state *s = make_state();
		struct failback f;

		home_cases[i].change(s);
		if (failback_begin(s, NOW, &f) != home_cases[i].takes ||
		    f.home[HOME] != home_cases[i].takes)
			fail_msg("%s", home_cases[i].what);
		assert_false(f.home[AWAY]);
		free(s);
	}
}

static struct klb_connection connection(__u32 id, const char *backend, __u64 established_ns,
					__u32 last_data_ms)
{
	return (struct klb_connection){
		.record = { .id = id,
			    .frontend = endpoint("127.0.0.1:6443"),
			    .backend = endpoint(backend),
			    .phase = KLB_PHASE_ACTIVE,
			    .established_ns = established_ns },
		.last_data_ms = last_data_ms,
	};
}

/* The one that comes home first: an index; n: none. */
static unsigned int pick(const struct klb_connection *list, unsigned int n)
{
	struct datapath_state *s = make_state();
	unsigned int r = n;
	struct failback f;

	assert_true(failback_begin(s, NOW, &f));
	for (unsigned int i = 0; i < n; i++)
		if (failback_takes(&f, &list[i].record) &&
		    (r == n || failback_rank(&list[i]) < failback_rank(&list[r])))
			r = i;
	free(s);
	return r;
}

static void quiet_ones_first_then_the_oldest(void **state)
{
	struct klb_connection list[] = {
		connection(HOME, "10.0.0.1", 1, 9000),
		connection(AWAY, "10.0.0.2", 10, REBALANCE_SERVED_MS - 1),
		connection(AWAY, "10.0.0.2", 40, REBALANCE_SERVED_MS),
		connection(GONE, "10.0.0.3", 30, CONNECTION_NO_DATA),
		connection(AWAY, "10.0.0.2", 20, 0),
	};

	(void)state;
	assert_int_equal(pick(list, 5), 3);
	list[3].record.phase = KLB_PHASE_ENDED;
	assert_int_equal(pick(list, 5), 2);
	list[2].last_data_ms = 0;
	assert_int_equal(pick(list, 5), 1);
	list[1].record.phase = KLB_PHASE_CONNECTING;
	assert_int_equal(pick(list, 5), 4);
	assert_int_equal(pick(list, 1), 1);
	assert_int_equal(pick(list, 0), 0);
}

/* Ended all the same, such a client would go elsewhere again, and be ended again. */
static void none_that_cannot_come(void **state)
{
	struct klb_connection list[] = {
		connection(AWAY6, "[fd00::4]", 1, 9000), /* an IPv6-only socket, perhaps */
		connection(AWAY, "10.0.0.2", 2, 9000), /* by a frontend that has gone */
		connection(9, "10.0.0.9", 3, 9000), /* of a backend that is not known */
	};

	(void)state;
	list[1].record.frontend = endpoint("127.0.0.1:7443");
	assert_int_equal(pick(list, 3), 3);
}

static void from_one_local_to_another_none(void **state)
{
	const struct klb_connection list[] = { connection(AWAY, "10.0.0.2", 1, 9000) };
	struct datapath_state *s = make_state();
	struct failback f;

	(void)state;
	s->applied.backends[AWAY - 1].preferred = true;
	s->stats[AWAY].active = 5;
	s->stats[GONE].active = 3;
	s->stats[HOME].active = 7;
	assert_true(failback_begin(s, NOW, &f));
	assert_false(failback_takes(&f, &list[0].record));
	assert_int_equal(failback_count(&f, s->stats), 3);
	free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_takes_connections_back),
		cmocka_unit_test(quiet_ones_first_then_the_oldest),
		cmocka_unit_test(none_that_cannot_come),
		cmocka_unit_test(from_one_local_to_another_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
