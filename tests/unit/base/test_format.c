/* SPDX-License-Identifier: BSD-2-Clause */
/* Times and names for people. */
#include <string.h>

#include "base/clock.h"
#include "base/format.h"
#include "unit.h"

#define S 1000000000ULL

static void ages(void **state)
{
	static const struct {
		__u64 then, now;
		const char *want;
	} cases[] = {
		{ 0, 5 * S, "-" },
		{ 1, 1, "0s" },
		{ 2 * S, 1 * S, "0s" }, /* the clock was read before */
		{ 1 * S, 2 * S - 1, "0s" },
		{ 1 * S, 120 * S, "119s" },
		{ 1 * S, 121 * S, "2m" },
		{ 1 * S, 1 + 7200 * S, "119m" },
		{ 1 * S, 7201 * S, "2h" },
		{ 1 * S, 172801 * S, "2d" },
		{ 1, 1 + 400ULL * 86400 * S, "400d" },
	};
	char buf[FORMAT_TIME_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_string_equal(format_age(cases[i].then, cases[i].now, buf), cases[i].want);
	assert_string_equal(format_age(1, ~0ULL, buf), "213503d");
}

static void durations(void **state)
{
	static const struct {
		__u64 ns;
		const char *want;
	} cases[] = {
		{ 0, "0.00ms" },      { 420000, "0.42ms" },	{ 9990000, "9.99ms" },
		{ 10000000, "10ms" }, { 1003000000, "1003ms" }, { 10 * S - 1000000, "9999ms" },
		{ 10 * S, "10s" },    { 300 * S, "5m" },
	};
	char buf[FORMAT_TIME_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_string_equal(format_duration(cases[i].ns, buf), cases[i].want);
	/* The longest that there can be. */
	assert_true(strlen(format_duration(~0ULL, buf)) < FORMAT_TIME_MAX);
}

static void processes(void **state)
{
	/* The kernel ends it with a NUL; a byte more must not be read even without. */
	static const char full[16] = "0123456789abcdef";
	char buf[FORMAT_PROCESS_MAX], name[FORMAT_COMM_MAX];

	(void)state;
	assert_string_equal(format_process("kubelet\0\0\0\0\0\0\0\0", 1234, buf), "kubelet[1234]");
	assert_string_equal(format_process("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 0, buf), "-");
	assert_string_equal(format_process(full, 4294967295U, buf), "0123456789abcdef[4294967295]");
	assert_string_equal(format_comm("\x1b[2J\xff\n\0\0\0\0\0\0\0\0\0", name), "?[2J??");
	assert_string_equal(format_comm("gr\xc3\xbc\xc3\x9f"
					"e\0\0\0\0\0\0\0\0",
					name),
			    "gr\xc3\xbc\xc3\x9f"
			    "e");
	/* Cut within a character, as the kernel cuts it. */
	assert_string_equal(format_comm("aaaaaaaaaaaaaa\xc3", name), "aaaaaaaaaaaaaa?");
}

static void moments(void **state)
{
	char buf[FORMAT_WALL_MAX];

	(void)state;
	assert_string_equal(format_wall(0, buf), "1970-01-01T00:00:00.000Z");
	assert_string_equal(format_wall(1796511628 * NS_PER_S + 7999999, buf),
			    "2026-12-05T23:00:28.007Z");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ages),
		cmocka_unit_test(durations),
		cmocka_unit_test(processes),
		cmocka_unit_test(moments),
	};

	return cmocka_run_group_tests_name("text", tests, NULL, NULL);
}
