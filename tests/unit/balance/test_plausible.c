/* SPDX-License-Identifier: BSD-2-Clause */
/* Which addresses an apiserver's word is enough for, and how many. */
#include <string.h>

#include "balance/plausible.h"
#include "base/clock.h"
#include "net/endpoint.h"
#include "unit.h"

/* 10.0.0.1 is this node's, whatever the port. */
static void is_local(const struct klb_endpoint *endpoints, unsigned int n, bool *ret)
{
	const struct klb_endpoint here = endpoint("10.0.0.1");

	for (unsigned int i = 0; i < n; i++)
		ret[i] = !memcmp(endpoints[i].addr, here.addr, sizeof(here.addr));
}

static bool is_kept(const char *seed, const char *listed)
{
	struct config file = { .n_backends = seed ? 1 : 0 };
	struct klb_endpoint list[] = { endpoint(listed), endpoint("10.0.0.2:6443") };
	unsigned int n;

	if (seed)
		file.backends[0].endpoint = endpoint(seed);
	n = plausible_keep(&file, is_local, list, 2);
	/* What stands beside it stays. */
	assert_string_equal(list_text(&list[n - 1], 1), "10.0.0.2:6443");
	return n == 2;
}

static void where_an_apiserver_may_listen(void **state)
{
	static const char *const good[] = { "10.0.0.3:6443", "10.0.0.3:443",   "10.0.0.3:8443",
					    "10.0.0.3:1024", "10.0.0.3:16443", "[fd00::3]:6443" };
	static const char *const bad[] = { "10.0.0.3:22",   "10.0.0.3:1",     "10.0.0.3:1023",
					   "10.0.0.3:2379", "10.0.0.3:10250", "10.0.0.3:10259",
					   "[fd00::3]:22",  "0.1.2.3:6443",   "[::5]:6443" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		if (!is_kept(NULL, good[i]))
			fail_msg("%s is not kept", good[i]);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (is_kept(NULL, bad[i]))
			fail_msg("%s is kept", bad[i]);
}

/* Its own apiserver is a backend of a control-plane node; what else listens there is not. */
static void what_this_node_has(void **state)
{
	(void)state;
	assert_true(is_kept(NULL, "10.0.0.1:6443"));
	assert_false(is_kept(NULL, "10.0.0.1:443"));
	assert_false(is_kept(NULL, "10.0.0.1:8081"));
	assert_false(is_kept(NULL, "10.0.0.1:22"));
}

static void the_configuration_needs_no_word(void **state)
{
	(void)state;
	assert_true(is_kept("10.0.0.1:8081", "10.0.0.1:8081"));
	assert_true(is_kept("10.0.0.3:22", "10.0.0.3:22"));
	/* The ports of its backends are those of apiservers. */
	assert_true(is_kept("10.0.0.9:7443", "10.0.0.1:7443"));
	assert_true(is_kept("10.0.0.9:80", "10.0.0.3:80"));
	assert_false(is_kept("10.0.0.9:7443", "10.0.0.1:7444"));
}

static unsigned int admit(struct ration *p, unsigned int n_known, unsigned int n, __u64 now_ns)
{
	struct klb_endpoint list[KLB_MAX_BACKENDS] = { 0 }, ret[KLB_MAX_BACKENDS];
	bool known[KLB_MAX_BACKENDS];
	unsigned int admitted;

	for (unsigned int i = 0; i < n; i++) {
		list[i].port = i + 1;
		known[i] = i >= n - n_known;
	}
	admitted = plausible_admit(p, list, known, n, now_ns, ret);
	/* Who is known never gives way. */
	for (unsigned int i = 0; i < n_known; i++)
		assert_int_equal(ret[admitted - 1 - i].port, n - i);
	return admitted;
}

static void new_addresses_are_rationed(void **state)
{
	struct ration p = { 0 };
	__u64 now = 1000 * NS_PER_S;

	(void)state;
	assert_int_equal(admit(&p, 0, 64, now), 64);
	assert_int_equal(admit(&p, 3, 64, now), 3);
	assert_int_equal(admit(&p, 64, 64, now), 64);
	now += 10 * NS_PER_S;
	assert_int_equal(admit(&p, 3, 64, now), 4);
	assert_int_equal(admit(&p, 0, 64, now), 0);
	now += 60 * NS_PER_S;
	assert_int_equal(admit(&p, 3, 64, now), 9);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(where_an_apiserver_may_listen),
		cmocka_unit_test(what_this_node_has),
		cmocka_unit_test(the_configuration_needs_no_word),
		cmocka_unit_test(new_addresses_are_rationed),
	};

	return cmocka_run_group_tests_name("plausible", tests, NULL, NULL);
}
