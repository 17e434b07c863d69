/* SPDX-License-Identifier: BSD-2-Clause */
/* What is tried again and again is told once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"

/* Standard error, and where it is led to in the meantime. */
struct fixture {
	int real;
	FILE *log;
	char last[ERR_TEXT_MAX];
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->real = dup(STDERR_FILENO);
	f->log = tmpfile();
	assert_non_null(f->log);
	assert_int_equal(dup2(fileno(f->log), STDERR_FILENO), STDERR_FILENO);
	log_init("test", LOG_LEVEL_INFO);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(dup2(f->real, STDERR_FILENO), STDERR_FILENO);
	close(f->real);
	fclose(f->log);
	free(f);
	return 0;
}

static void attempt(struct fixture *f, const char *why)
{
	struct err e;

	snprintf(e.text, sizeof(e.text), "%s", why);
	log_failure(f->last, LOG_LEVEL_WARN, "cannot do it", &e);
}

/* All that was logged since the test began. */
static void expect(struct fixture *f, const char *want)
{
	char text[4096];
	ssize_t n = pread(fileno(f->log), text, sizeof(text) - 1, 0);

	assert_true(n >= 0);
	text[n] = '\0';
	assert_string_equal(text, want);
}

#define LINE(why) "level=warn msg=\"cannot do it\" error=\"" why "\"\n"

static void the_same_again_is_one_line(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 3; i++)
		attempt(f, "no room");
	expect(f, LINE("no room"));
}

static void another_reason_is_another_line(void **state)
{
	struct fixture *f = *state;

	attempt(f, "no room");
	attempt(f, "no room at all");
	attempt(f, "no room at all");
	attempt(f, "no room");
	expect(f, LINE("no room") LINE("no room at all") LINE("no room"));
}

static void what_was_mended_may_fail_again(void **state)
{
	struct fixture *f = *state;

	attempt(f, "no room");
	attempt(f, "");
	attempt(f, "");
	expect(f, LINE("no room"));
	attempt(f, "no room");
	attempt(f, "no room");
	expect(f, LINE("no room") LINE("no room"));
}

static void nothing_wrong_is_no_line(void **state)
{
	attempt(*state, "");
	expect(*state, "");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_same_again_is_one_line),
		TEST(another_reason_is_another_line),
		TEST(what_was_mended_may_fail_again),
		TEST(nothing_wrong_is_no_line),
	};

	unsetenv("JOURNAL_STREAM");
	return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
