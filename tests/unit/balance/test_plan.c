/* SPDX-License-Identifier: BSD-2-Clause */
/* Plans: identity of backends over changes, health, rendezvous ranks. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "balance/plan.h"
#include "base/hash.h"
#include "unit.h"

static struct config *config_of(const char *const *backends, unsigned int n)
{
	struct config *c = calloc(1, sizeof(*c));

	assert_non_null(c);
	c->policy = KLB_POLICY_RANDOM;
	c->n_frontends = 2;
	c->frontends[0].endpoint = endpoint("127.0.0.1:6443");
	c->frontends[1].endpoint = endpoint("[::1]:6443");
	c->frontends[0].scope = KLB_SCOPE_HOST;
	c->frontends[1].scope = KLB_SCOPE_ALL;
	c->n_backends = n;
	for (unsigned int i = 0; i < n; i++) {
		c->backends[i].endpoint = endpoint(backends[i]);
		c->backends[i].weight = 100 + i;
	}
	return c;
}

static struct plan make(const char *const *backends, unsigned int n, const struct plan *applied,
			const __u64 *active)
{
	struct config *c = config_of(backends, n);
	struct plan_input in = { .config = c,
				 .applied = applied,
				 .open = active,
				 .new_config = true,
				 .node = 42,
				 .now_ns = 1000 };
	struct err e = { "" };
	struct plan p;

	assert_int_equal(plan_make(&in, &p, &e), 0);
	free(c);
	return p;
}

static const char *const abc[] = { "10.0.0.1", "10.0.0.2", "10.0.0.3" };

static void first_plan(void **state)
{
	struct plan p = make(abc, 3, NULL, NULL);

	(void)state;
	assert_int_equal(p.serial, 1);
	assert_int_equal(p.n_backends, 3);
	assert_int_equal(p.n_frontends, 2);
	for (unsigned int i = 0; i < 3; i++) {
		assert_int_equal(p.backends[i].id, i + 1);
		assert_int_equal(p.backends[i].value.generation, 1);
		assert_int_equal(p.backends[i].value.weight, 100 + i);
		assert_int_equal(p.backends[i].value.state, KLB_STATE_UNKNOWN);
		assert_true(p.backends[i].new_id);
		assert_int_equal(p.frontends[0].ids[i], i + 1);
		assert_int_equal(p.frontends[1].ids[i], i + 1);
	}
	assert_int_equal(p.frontends[1].scope, KLB_SCOPE_ALL);
	assert_int_equal(p.frontends[0].policy, KLB_POLICY_RANDOM);
}

/* Whatever the order in the file, a backend that stays is the same backend. */
static void identity_is_kept(void **state)
{
	const char *const changed[] = { "10.0.0.9", "10.0.0.3", "10.0.0.1" };
	struct plan p = make(abc, 3, NULL, NULL), q = make(changed, 3, &p, NULL);

	(void)state;
	assert_int_equal(q.serial, 2);
	assert_int_equal(q.backends[1].id, 3);
	assert_int_equal(q.backends[2].id, 1);
	assert_false(q.backends[1].new_id);
	assert_int_equal(q.backends[1].value.generation, 1);
	/* 2 has just been taken away and may still be carried: not reused at once. */
	assert_int_equal(q.backends[0].id, 4);
	assert_int_equal(q.backends[0].value.generation, 2);
	assert_true(q.backends[0].new_id);
}

static void ids_of_open_connections_rest(void **state)
{
	const char *const two[] = { "10.0.0.1", "10.0.0.3" };
	const char *const more[] = { "10.0.0.1", "10.0.0.3", "10.0.0.7", "10.0.0.8" };
	__u64 active[KLB_MAX_IDS] = { 0 };
	struct plan p = make(abc, 3, NULL, NULL), q = make(two, 2, &p, NULL), r;

	(void)state;
	active[2] = 1;
	r = make(more, 4, &q, active);
	assert_int_equal(r.backends[2].id, 4);
	assert_int_equal(r.backends[3].id, 5);
	/* Nor is it while the backend may come back. */
	active[2] = 0;
	r = make(more, 4, &q, active);
	assert_int_equal(r.backends[2].id, 4);
	assert_int_equal(plan_find(&r, &p.backends[1].value.endpoint)->id, 2);
}

static void no_id_left(void **state)
{
	struct config *c = config_of(abc, 3);
	__u64 active[KLB_MAX_IDS];
	struct plan_input in = { .config = c, .open = active };
	struct plan p = { .serial = 77 };
	struct err e = { "" };

	(void)state;
	for (int i = 0; i < KLB_MAX_IDS; i++)
		active[i] = 1;
	assert_int_equal(plan_make(&in, &p, &e), -ENOSPC);
	assert_non_null(strstr(e.text, "10.0.0.1:6443"));
	assert_int_equal(p.serial, 77);
	free(c);
}

/* All 64, replaced by 62 others while nothing is open: ids suffice, 127 is kept back. */
static void selftest_id_is_kept_back(void **state)
{
	char text[KLB_MAX_BACKENDS][16];
	const char *list[KLB_MAX_BACKENDS];
	struct plan p, q;

	(void)state;
	for (int i = 0; i < KLB_MAX_BACKENDS; i++) {
		snprintf(text[i], sizeof(text[i]), "10.1.0.%d", i + 1);
		list[i] = text[i];
	}
	p = make(list, 64, NULL, NULL);
	for (int i = 0; i < 62; i++)
		snprintf(text[i], sizeof(text[i]), "10.2.0.%d", i + 1);
	q = make(list, 62, &p, NULL);
	for (int i = 0; i < 62; i++)
		assert_in_range(q.backends[i].id, 65, KLB_ID_SELFTEST - 1);
}

static void health_is_taken_in(void **state)
{
	struct config *c = config_of(abc, 3);
	struct health h[3];
	struct plan_input in = { .config = c, .health = h, .now_ns = 5 };
	struct plan p, q;
	struct err e;

	(void)state;
	for (int i = 0; i < 3; i++)
		health_init(&h[i], 5);
	h[1].state = KLB_STATE_DEAD;
	h[1].reason = KLB_REASON_REFUSED;
	h[2].http_status = 500;
	assert_int_equal(plan_make(&in, &p, &e), 0);
	assert_int_equal(p.backends[1].value.state, KLB_STATE_DEAD);
	assert_int_equal(p.backends[1].value.reason, KLB_REASON_REFUSED);
	assert_int_equal(p.backends[2].value.http_status, 500);
	/* Without a prober (kubelb-load), what an agent wrote stays as it was. */
	in.health = NULL;
	in.applied = &p;
	assert_int_equal(plan_make(&in, &q, &e), 0);
	assert_int_equal(q.backends[1].value.state, KLB_STATE_DEAD);
	assert_int_equal(q.serial, p.serial);
	free(c);
}

/* Over many nodes, each backend is first for its share of them. */
static void ranks_follow_weights(void **state)
{
	const unsigned int nodes = 30000, weights[3] = { 100, 200, 300 };
	struct config *c = config_of(abc, 3);
	struct plan_input in = { .config = c };
	unsigned int wins[3] = { 0 };
	struct err e;

	(void)state;
	for (unsigned int node = 0; node < nodes; node++) {
		unsigned int best = 0;
		struct plan p;

		in.node = hash_bytes(0, &node, sizeof(node));
		assert_int_equal(plan_make(&in, &p, &e), 0);
		for (unsigned int i = 1; i < 3; i++)
			if ((__u64)p.backends[i].rank * weights[best] <
			    (__u64)p.backends[best].rank * weights[i])
				best = i;
		wins[best]++;
	}
	/* 5000, 10000 and 15000 within five sigma. */
	assert_in_range(wins[0], 5000 - 325, 5000 + 325);
	assert_in_range(wins[1], 10000 - 410, 10000 + 410);
	assert_in_range(wins[2], 15000 - 435, 15000 + 435);
	free(c);
}

/* -ln(u) has mean 1 and variance 1; in 1/2^20. */
static void ranks_are_exponential(void **state)
{
	struct config *c = config_of(abc, 1);
	struct plan_input in = { .config = c };
	double sum = 0, squares = 0;
	const int n = 50000;
	struct err e;

	(void)state;
	for (int i = 0; i < n; i++) {
		struct plan p;
		double x;

		in.node = (__u64)i;
		assert_int_equal(plan_make(&in, &p, &e), 0);
		x = p.backends[0].rank / 1048576.0;
		sum += x;
		squares += x * x;
	}
	assert_true(sum / n > 0.97 && sum / n < 1.03);
	assert_true(squares / n > 1.85 && squares / n < 2.15);
	free(c);
}

/* --- slow start ---------------------------------------------------------------------- */

#define S 1000000000ULL

/* The weights planned at a moment, the second backend having come back at 100 s. */
static void weights_at(__u64 now_ns, unsigned int slow_start_ms, const unsigned int *configured,
		       unsigned int *ret)
{
	struct config *c = config_of(abc, 3);
	struct health h[3];
	struct plan_input in = { .config = c, .health = h, .now_ns = now_ns };
	struct plan p;

	c->slow_start_ms = slow_start_ms;
	for (int i = 0; i < 3; i++) {
		c->backends[i].weight = configured[i];
		health_init(&h[i], 1);
		h[i].state = KLB_STATE_READY;
	}
	h[1].back_ns = 100 * S;
	assert_int_equal(plan_make(&in, &p, NULL), 0);
	for (int i = 0; i < 3; i++)
		ret[i] = p.backends[i].value.weight;
	free(c);
}

static void slow_start(void **state)
{
	static const struct {
		__u64 now_ns;
		unsigned int ramp_ms, configured, want;
	} table[] = {
		{ 100 * S, 30000, 100, 10 },
		{ 115 * S, 30000, 100, 55 },
		{ 130 * S - 1, 30000, 100, 99 },
		{ 130 * S, 30000, 100, 100 },
		{ 100 * S, 30000, 1000, 100 },
		{ 100 * S, 0, 100, 100 },
		/* A small weight stays one: 0 would take none. */
		{ 100 * S, 30000, 1, 1 },
		{ 100 * S, 30000, 5, 1 },
		/* And 0 stays 0. */
		{ 100 * S, 30000, 0, 0 },
		{ 200 * S, 30000, 0, 0 },
		/* Before it came back: a clock that went back. */
		{ 99 * S, 30000, 100, 100 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		const unsigned int configured[3] = { 100, table[i].configured, 300 };
		unsigned int weights[3];

		weights_at(table[i].now_ns, table[i].ramp_ms, configured, weights);
		if (weights[1] != table[i].want)
			fail_msg("entry %zu: weight %u, want %u", i, weights[1], table[i].want);
		/* Nobody else's changes. */
		assert_int_equal(weights[0], 100);
		assert_int_equal(weights[2], 300);
	}
}

/* kubelb-load knows no health, and so no ramp. */
static void no_ramp_without_health(void **state)
{
	struct config *c = config_of(abc, 3);
	struct plan_input in = { .config = c, .now_ns = 5 };
	struct plan p;

	(void)state;
	c->slow_start_ms = 30000;
	assert_int_equal(plan_make(&in, &p, NULL), 0);
	assert_int_equal(p.backends[1].value.weight, 101);
	free(c);
}

/* --- backends that discovery has found ----------------------------------------------- */

static struct config *with_backends(const struct config *c, const char *const *list, unsigned int n)
{
	struct klb_endpoint endpoints[KLB_MAX_BACKENDS];
	struct config *ret = NULL;
	struct err e = { "" };

	for (unsigned int i = 0; i < n; i++)
		endpoints[i] = endpoint(list[i]);
	if (config_with_backends(c, endpoints, n, &ret, &e))
		fail_msg("%s", e.text);
	return ret;
}

static struct plan make_of(const struct config *c, const struct plan *applied, const __u64 *active)
{
	struct plan_input in = {
		.config = c, .applied = applied, .open = active, .new_config = true, .now_ns = 1000
	};
	struct err e = { "" };
	struct plan p;

	if (plan_make(&in, &p, &e))
		fail_msg("%s", e.text);
	return p;
}

/* Seeds, then the cluster's list, then a change of it: who stays keeps id and generation,
 * who comes gets an id that no connection carries. */
static void discovered_backends(void **state)
{
	static const char *const seeds[] = { "10.0.0.1", "10.0.0.9" };
	static const char *const first[] = { "10.0.0.1", "10.0.0.2", "10.0.0.3" };
	static const char *const second[] = { "10.0.0.2", "10.0.0.3", "10.0.0.4" };
	struct config *file = config_of(seeds, 2), *c1 = with_backends(file, first, 3),
		      *c2 = with_backends(file, second, 3);
	__u64 active[KLB_MAX_IDS] = { 0 };
	struct plan p = make_of(file, NULL, NULL), q, r;

	(void)state;
	active[2] = 7; /* to 10.0.0.9, the seed that was none */
	q = make_of(c1, &p, active);
	assert_int_equal(q.n_backends, 4);
	assert_int_equal(q.backends[0].id, 1);
	assert_int_equal(q.backends[0].value.generation, 1);
	assert_int_equal(q.backends[3].id, 2);
	assert_true(q.backends[3].removed);
	assert_false(q.backends[0].new_id);
	assert_int_equal(q.backends[1].id, 3);
	assert_int_equal(q.backends[2].id, 4);
	/* What the file says of a backend's weight, the default for the others. */
	assert_int_equal(q.backends[0].value.weight, 100);
	assert_int_equal(q.backends[1].value.weight, KLB_WEIGHT_DEFAULT);
	r = make_of(c2, &q, active);
	assert_int_equal(r.backends[0].id, 3);
	assert_int_equal(r.backends[1].id, 4);
	assert_int_equal(r.backends[2].id, 5);
	assert_true(r.backends[2].new_id);
	/* Every frontend got the new ones. */
	for (unsigned int i = 0; i < r.n_frontends; i++)
		for (unsigned int j = 0; j < 3; j++)
			assert_int_equal(r.frontends[i].ids[j], r.backends[j].id);
	free(file);
	config_free(c1);
	config_free(c2);
}

/* A backend that has left stays while it has connections, in no frontend and without weight. */
static void removed_backends(void **state)
{
	static const char *const both[] = { "10.0.0.1", "10.0.0.2" }, *const one[] = { "10.0.0.2" };
	struct config *c2 = config_of(both, 2), *c1 = config_of(one, 1);
	struct plan_watched watched = { .endpoint = endpoint("10.0.0.1"),
					.health = { .state = KLB_STATE_DEAD,
						    .reason = KLB_REASON_NO_ANSWER,
						    .since_ns = 77 } };
	__u64 active[KLB_MAX_IDS] = { 0 };
	struct plan p = make_of(c2, NULL, NULL), q, r;
	const struct plan_input in = { .config = c1,
				       .applied = &p,
				       .open = active,
				       .watched = &watched,
				       .n_watched = 1,
				       .now_ns = 100 };

	(void)state;
	assert_true(plan_uses(&p, 1));
	active[1] = 3;
	assert_int_equal(plan_make(&in, &q, NULL), 0);
	assert_int_equal(q.n_backends, 2);
	assert_int_equal(q.frontends[0].n_backends, 1);
	assert_int_equal(q.frontends[0].ids[0], 2);
	assert_int_equal(q.backends[1].id, 1);
	assert_true(q.backends[1].removed && !plan_uses(&q, 1));
	assert_int_equal(q.backends[1].value.weight, 0);
	assert_int_equal(q.backends[1].value.state, KLB_STATE_DEAD);
	assert_int_equal(q.backends[1].value.reason, KLB_REASON_NO_ANSWER);
	assert_int_equal(q.backends[1].value.since_ns, 77);
	/* Back again: the same one, with its weight. */
	r = make_of(c2, &q, active);
	assert_int_equal(r.n_backends, 2);
	assert_int_equal(r.backends[0].id, 1);
	assert_false(r.backends[0].removed || r.backends[0].new_id);
	assert_int_equal(r.backends[0].value.generation, p.backends[0].value.generation);
	assert_int_equal(r.backends[0].value.weight, KLB_WEIGHT_DEFAULT);
	free(c1);
	free(c2);
}

/* --- backends that are in no list ---------------------------------------------------- */

#define DAY (86400 * S)
#define FIRST "10.99.0.1"

/* A plan with the backend FIRST, then one without it at 1000. */
static struct plan make_left(void)
{
	static const char *const with[] = { FIRST, "10.0.0.2" }, *const without[] = { "10.0.0.2" };
	struct plan p = make(with, 2, NULL, NULL);

	return make(without, 1, &p, NULL);
}

static struct plan make_at(const char *const *list, unsigned int n, const struct plan *applied,
			   const bool *held, __u64 now_ns)
{
	struct config *c = config_of(list, n);
	const __u64 open[KLB_MAX_IDS] = { 0 };
	struct plan_input in = { .config = c,
				 .applied = applied,
				 .open = open,
				 .held = held,
				 .new_config = true,
				 .now_ns = now_ns };
	struct err e = { "" };
	struct plan p;

	if (plan_make(&in, &p, &e))
		fail_msg("%s", e.text);
	free(c);
	return p;
}

static const struct plan_backend *find(const struct plan *p, const char *address)
{
	const struct klb_endpoint at = endpoint(address);

	return plan_find(p, &at);
}

/* For a day without connections; the same one when it is back. */
static void one_that_left_is_remembered(void **state)
{
	static const char *const without[] = { "10.0.0.2" }, *const with[] = { "10.0.0.2", FIRST };
	struct plan left = make_left(), p = make_at(without, 1, &left, NULL, 1000 + DAY - 1);
	const struct plan_backend *b = find(&p, FIRST);

	(void)state;
	assert_non_null(b);
	assert_true(b->removed && !plan_uses(&p, b->id));
	assert_int_equal(b->value.left_ns, 1000);
	assert_int_equal(b->value.weight, 0);
	assert_false(plan_is_forgotten(b, 1000 + DAY - 1));
	assert_true(plan_is_forgotten(b, 1000 + DAY));
	p = make_at(with, 2, &p, NULL, 1000 + DAY - 1);
	b = find(&p, FIRST);
	assert_int_equal(b->id, 1);
	assert_int_equal(b->value.generation, 1);
	assert_false(b->removed || b->new_id);
	assert_int_equal(b->value.left_ns, 0);
	p = make_at(without, 1, &left, NULL, 1000 + DAY);
	assert_null(find(&p, FIRST));
}

/* For ever, until it is undone. */
static void the_operators_word_is_kept(void **state)
{
	static const char *const without[] = { "10.0.0.2" };
	const bool held[KLB_MAX_IDS] = { [1] = true };
	struct plan left = make_left(), p = make_at(without, 1, &left, held, 1000 * DAY);

	(void)state;
	assert_non_null(find(&p, FIRST));
	p = make_at(without, 1, &p, NULL, 1000 * DAY);
	assert_null(find(&p, FIRST));
}

/* One list of n, 10.KIND.0.1 and so on. */
static const char *const *addresses(int kind, unsigned int n)
{
	static char text[KLB_MAX_BACKENDS][16];
	static const char *list[KLB_MAX_BACKENDS];

	for (unsigned int i = 0; i < n; i++) {
		snprintf(text[i], sizeof(text[i]), "10.%d.0.%u", kind, i + 1);
		list[i] = text[i];
	}
	return list;
}

/* Many come and go, one list after the other: the last PLAN_KEEP_MAX are remembered, and those that
 * the operator holds. */
static void memory_is_bounded(void **state)
{
	const bool held[KLB_MAX_IDS] = { [1] = true };
	struct plan p = make_left();
	unsigned int n = PLAN_KEEP_MAX + 8;

	(void)state;
	for (unsigned int i = 0; i <= n; i++)
		p = make_at(addresses((int)i, 1), 1, &p, held, 2000 + i);
	p = make_at(addresses(200, 1), 1, &p, held, 3000);
	/* The one in use, the held one, and one that has left right now. */
	assert_int_equal(p.n_backends, PLAN_KEEP_MAX + 3);
	assert_non_null(find(&p, FIRST));
	assert_null(find(&p, "10.7.0.1"));
	assert_non_null(find(&p, "10.8.0.1"));
	assert_non_null(find(&p, "10.40.0.1"));
}

/* The first that left makes room, never one with connections or with the operator's word. */
static void ids_are_reclaimed(void **state)
{
	const bool held[KLB_MAX_IDS] = { [1] = true };
	struct plan p = make_at(addresses(1, 64), 64, NULL, NULL, 1000), q;

	(void)state;
	q = make_at(addresses(2, 62), 62, &p, held, 2000);
	p = make_at(addresses(3, 2), 2, &q, held, 3000);
	for (unsigned int i = 0; i < 2; i++) {
		assert_int_equal(p.backends[i].id, 2 + i);
		assert_true(p.backends[i].new_id);
		/* Wishes about the old owner, and its sockets, are void. */
		assert_int_not_equal(p.backends[i].value.generation, 1);
	}
	assert_non_null(find(&p, "10.1.0.1"));
	assert_null(find(&p, "10.1.0.2"));
	for (unsigned int i = 0; i < p.n_backends; i++)
		for (unsigned int k = 0; k < i; k++)
			assert_int_not_equal(p.backends[i].id, p.backends[k].id);
}

/* --- who has not shown anything yet ------------------------------------------------------ */

/* Plans abc with these states, the first one on this node, and checks the states in the plan. */
static void check_states(const enum klb_state is[3], const enum klb_state want[3])
{
	static const bool local[] = { true, false, false };
	struct config *c = config_of(abc, 3);
	struct health h[3] = { { .state = is[0] }, { .state = is[1] }, { .state = is[2] } };
	struct plan_input in = { .config = c, .health = h, .local = local, .now_ns = 5 };
	struct plan p;

	assert_int_equal(plan_make(&in, &p, NULL), 0);
	for (unsigned int i = 0; i < 3; i++)
		assert_int_equal(p.backends[i].value.state, want[i]);
	free(c);
}

#define STATES(x, y, z)                                     \
	(const enum klb_state[3])                           \
	{                                                   \
		KLB_STATE_##x, KLB_STATE_##y, KLB_STATE_##z \
	}

/* A new address gives way to who serves; where nobody does, it is as good as any. */
static void the_unproven_give_way(void **state)
{
	(void)state;
	check_states(STATES(UNKNOWN, UNKNOWN, UNKNOWN), STATES(UNKNOWN, UNKNOWN, UNKNOWN));
	check_states(STATES(UNKNOWN, READY, UNKNOWN), STATES(SUSPECT, READY, SUSPECT));
	check_states(STATES(DRAINING, UNKNOWN, DEAD), STATES(DRAINING, SUSPECT, DEAD));
	check_states(STATES(UNKNOWN, DEAD, SUSPECT), STATES(UNKNOWN, DEAD, SUSPECT));
}

/* One that takes no connections is nobody to give way to. */
static void nobody_gives_way_to_weight_0(void **state)
{
	struct config *c = config_of(abc, 2);
	struct health h[2] = { { .state = KLB_STATE_READY }, { .state = KLB_STATE_UNKNOWN } };
	struct plan_input in = { .config = c, .health = h, .now_ns = 5 };
	struct plan p;

	(void)state;
	c->backends[0].weight = 0;
	assert_int_equal(plan_make(&in, &p, NULL), 0);
	assert_int_equal(p.backends[1].value.state, KLB_STATE_UNKNOWN);
	free(c);
}

/* kubelb-load plans by what is applied: it neither forgets that nor takes it for a verdict. */
static void the_unproven_without_health(void **state)
{
	struct config *c = config_of(abc, 2);
	struct health h[2] = { { .state = KLB_STATE_READY }, { .state = KLB_STATE_UNKNOWN } };
	struct plan_input in = { .config = c, .health = h, .now_ns = 5 };
	struct plan p, q;

	(void)state;
	assert_int_equal(plan_make(&in, &p, NULL), 0);
	in.health = NULL;
	in.applied = &p;
	assert_int_equal(plan_make(&in, &q, NULL), 0);
	assert_int_equal(q.backends[1].value.state, KLB_STATE_SUSPECT);
	p.backends[0].value.state = KLB_STATE_DEAD;
	assert_int_equal(plan_make(&in, &q, NULL), 0);
	assert_int_equal(q.backends[1].value.state, KLB_STATE_UNKNOWN);
	free(c);
}

/* Any user can listen on an address of this node; an apiserver has the certificate. */
static void preference_takes_a_certificate(void **state)
{
	static const bool local[] = { true, false, false };
	struct config *c = config_of(abc, 2);
	struct health h[2] = { { .state = KLB_STATE_DRAINING, .reason = KLB_REASON_CERTIFICATE },
			       { .state = KLB_STATE_READY } };
	struct plan_input in = { .config = c, .health = h, .local = local, .now_ns = 5 };
	struct plan p;

	(void)state;
	assert_int_equal(plan_make(&in, &p, NULL), 0);
	assert_false(p.backends[0].preferred);
	assert_true(p.backends[0].local);
	/* It may be the agent's CA that is wrong. */
	h[1] = h[0];
	assert_int_equal(plan_make(&in, &p, NULL), 0);
	assert_true(p.backends[0].preferred);
	/* It starts, or shuts down. */
	h[1].state = KLB_STATE_READY;
	h[0].reason = KLB_REASON_NOT_READY;
	assert_int_equal(plan_make(&in, &p, NULL), 0);
	assert_true(p.backends[0].preferred);
	free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(removed_backends),
		cmocka_unit_test(one_that_left_is_remembered),
		cmocka_unit_test(the_operators_word_is_kept),
		cmocka_unit_test(memory_is_bounded),
		cmocka_unit_test(ids_are_reclaimed),
		cmocka_unit_test(first_plan),
		cmocka_unit_test(identity_is_kept),
		cmocka_unit_test(ids_of_open_connections_rest),
		cmocka_unit_test(no_id_left),
		cmocka_unit_test(selftest_id_is_kept_back),
		cmocka_unit_test(health_is_taken_in),
		cmocka_unit_test(ranks_follow_weights),
		cmocka_unit_test(ranks_are_exponential),
		cmocka_unit_test(slow_start),
		cmocka_unit_test(no_ramp_without_health),
		cmocka_unit_test(discovered_backends),
		cmocka_unit_test(the_unproven_give_way),
		cmocka_unit_test(nobody_gives_way_to_weight_0),
		cmocka_unit_test(the_unproven_without_health),
		cmocka_unit_test(preference_takes_a_certificate),
	};

	return cmocka_run_group_tests_name("plan", tests, NULL, NULL);
}
