/* SPDX-License-Identifier: BSD-2-Clause */
/* Programs that are run for what they print. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "host/command.h"
#include "unit.h"

static int run(const char *script, unsigned int seconds, size_t max, char **ret)
{
	const char *const argv[] = { "sh", "-c", script, NULL };

	return command_run(argv, seconds, max, ret);
}

static void what_it_prints(void **state)
{
	char *text;

	(void)state;
	assert_int_equal(run("echo out; echo err >&2; exit 3", 10, 100, &text), 3);
	assert_string_equal(text, "out\nerr\n");
	free(text);
	assert_int_equal(run("kill -9 $$", 10, 100, &text), 128 + 9);
	free(text);
}

static void no_more_than_the_limit(void **state)
{
	char *text;

	(void)state;
	/* It must not wait for a reader. */
	assert_int_equal(run("head -c 1000000 /dev/zero | tr '\\0' x", 10, 10, &text), 0);
	assert_string_equal(text, "xxxxxxxxxx");
	free(text);
}

static void it_ends_in_time(void **state)
{
	__u64 start = clock_now_ns();
	char *text;

	(void)state;
	assert_int_equal(run("echo a; sleep 100 & sleep 100", 1, 100, &text), -ETIMEDOUT);
	assert_true(clock_now_ns() - start < 20 * NS_PER_S);
	assert_string_equal(text, "a\n");
	free(text);
}

static void no_such_program(void **state)
{
	const char *const argv[] = { "no-such-program", NULL };
	char *text;

	(void)state;
	assert_int_equal(command_run(argv, 1, 100, &text), -ENOENT);
	assert_string_equal(text, "");
	free(text);
}

/* Root's environment may be anybody's: sudo's, a shell's. */
static void the_environment_stays_here(void **state)
{
	char *text;

	(void)state;
	assert_int_equal(setenv("SECRET", "x", 1), 0);
	assert_int_equal(setenv("PATH", "/nowhere", 1), 0);
	assert_int_equal(run("env", 10, 1000, &text), 0);
	assert_null(strstr(text, "SECRET"));
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		LEAVES_NOTHING(what_it_prints),
		LEAVES_NOTHING(no_more_than_the_limit),
		LEAVES_NOTHING(it_ends_in_time),
		LEAVES_NOTHING(no_such_program),
		LEAVES_NOTHING(the_environment_stays_here),
	};

	return cmocka_run_group_tests_name("command", tests, NULL, NULL);
}
