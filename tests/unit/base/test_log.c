/* SPDX-License-Identifier: BSD-2-Clause */
/* Lines in logfmt: what is printed, how it is quoted, and that a failure is told once. */
#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "unit.h"

static char last[ERR_TEXT_MAX];

static int setup(void **state)
{
	last[0] = '\0';
	unsetenv("JOURNAL_STREAM");
	capture_stderr(state);
	log_init("test", LOG_LEVEL_INFO);
	return 0;
}

#define TIME_CHARS 24 /* 2026-11-22T19:07:08.123Z */

static bool is_time(const char *text)
{
	static const char form[] = "dddd-dd-ddTdd:dd:dd.dddZ";

	for (size_t i = 0; i < TIME_CHARS; i++)
		if (form[i] == 'd' ? !isdigit((unsigned char)text[i]) : text[i] != form[i])
			return false;
	return true;
}

/* What was captured, in a file: each event has a time, which is left out here. */
static const char *without_times(void)
{
	static char ret[65536];
	const char *at = captured();
	size_t n = 0;

	while (*at) {
		size_t length = strcspn(at, "\n") + 1;

		assert_int_equal(strncmp(at, "time=", 5), 0);
		assert_true(is_time(at + 5));
		assert_int_equal(at[5 + TIME_CHARS], ' ');
		at += 5 + TIME_CHARS + 1;
		length -= 5 + TIME_CHARS + 1;
		memcpy(ret + n, at, length);
		n += length;
		at += length;
	}
	ret[n] = '\0';
	return ret;
}

/* --- a line ---------------------------------------------------------------------------- */

static void a_line_has_its_keys(void **state)
{
	(void)state;
	log_event(LOG_LEVEL_INFO, "it \"works\"", "n=%d name=%s", 7, "x");
	log_event(LOG_LEVEL_ERROR, "nothing more", "");
	assert_string_equal(without_times(), "level=info msg=\"it \\\"works\\\"\" n=7 name=x\n"
					     "level=error msg=\"nothing more\"\n");
}

static void what_is_too_talkative_is_not_printed(void **state)
{
	(void)state;
	assert_false(log_enabled(LOG_LEVEL_DEBUG));
	log_event(LOG_LEVEL_DEBUG, "details", "");
	assert_string_equal(captured(), "");
	log_init("test", LOG_LEVEL_DEBUG);
	assert_true(log_enabled(LOG_LEVEL_DEBUG));
	log_event(LOG_LEVEL_DEBUG, "details", "");
	assert_string_equal(without_times(), "level=debug msg=\"details\"\n");
	log_init("test", LOG_LEVEL_ERROR);
	log_event(LOG_LEVEL_WARN, "a warning", "");
	assert_string_equal(without_times(), "level=debug msg=\"details\"\n");
}

/* A caller that logs on its way out still reports what has gone wrong. */
static void errno_stays(void **state)
{
	(void)state;
	/* So that the write fails. */
	close(STDERR_FILENO);
	errno = EXDEV;
	log_event(LOG_LEVEL_INFO, "a line", "");
	assert_int_equal(errno, EXDEV);
}

static void whatever_is_in_it_it_is_one_line(void **state)
{
	(void)state;
	log_event(LOG_LEVEL_INFO, "a line", "a=%s", "x\ny\x1b[31m");
	assert_string_equal(without_times(), "level=info msg=\"a line\" a=x y [31m\n");
}

static void a_long_line_is_cut_and_ends(void **state)
{
	char *text = repeat("", "x", 10000, "");
	const char *line;

	(void)state;
	log_event(LOG_LEVEL_INFO, text, "a=%s", text);
	free(text);
	line = captured();
	assert_true(strlen(line) <= 4096);
	assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
}

static void a_person_reads_the_programs_name(void **state)
{
	(void)state;
	log_line("%s: no such file", "/etc/x");
	assert_string_equal(captured(), "test: /etc/x: no such file\n");
}

/* A container's runtime and a terminal's user know when a line came. */
static void what_is_no_file_gets_no_time(void **state)
{
	char text[64] = "";
	int ends[2], file = dup(STDERR_FILENO);

	(void)state;
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
	log_init("test", LOG_LEVEL_INFO);
	log_event(LOG_LEVEL_INFO, "a", "");
	assert_int_equal(dup2(file, STDERR_FILENO), STDERR_FILENO);
	assert_true(read(ends[0], text, sizeof(text) - 1) > 0);
	assert_string_equal(text, "level=info msg=\"a\"\n");
	close(ends[0]);
	close(ends[1]);
	close(file);
}

/* --- the journal ----------------------------------------------------------------------- */

static void journal_stream(const char *format, const struct stat *st)
{
	char text[64];

	snprintf(text, sizeof(text), format, (unsigned long long)st->st_dev,
		 (unsigned long long)st->st_ino);
	setenv("JOURNAL_STREAM", text, 1);
	log_init("test", LOG_LEVEL_DEBUG);
}

static void the_journal_gets_priorities(void **state)
{
	struct stat st;

	(void)state;
	assert_int_equal(fstat(STDERR_FILENO, &st), 0);
	journal_stream("%llu:%llu", &st);
	log_event(LOG_LEVEL_ERROR, "a", "");
	log_event(LOG_LEVEL_WARN, "b", "");
	log_event(LOG_LEVEL_INFO, "c", "");
	log_event(LOG_LEVEL_DEBUG, "d", "");
	log_line("e");
	assert_string_equal(captured(), "<3>level=error msg=\"a\"\n<4>level=warn msg=\"b\"\n"
					"<6>level=info msg=\"c\"\n<7>level=debug msg=\"d\"\n"
					"<3>test: e\n");
}

/* The variable is inherited by programs whose output goes elsewhere. */
static void another_stream_is_not_the_journal(void **state)
{
	static const char *const formats[] = { "%llu:1%llu", "1%llu:%llu", "%llu,%llu", "" };
	struct stat st;

	(void)state;
	assert_int_equal(fstat(STDERR_FILENO, &st), 0);
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
		journal_stream(formats[i], &st);
		log_event(LOG_LEVEL_INFO, "a", "");
	}
	assert_string_equal(without_times(), "level=info msg=\"a\"\nlevel=info msg=\"a\"\n"
					     "level=info msg=\"a\"\nlevel=info msg=\"a\"\n");
}

/* --- values ---------------------------------------------------------------------------- */

static void values_are_escaped(void **state)
{
	static const struct {
		const char *text, *want;
	} cases[] = {
		{ "", "\"\"" },
		{ NULL, "\"\"" },
		{ "plain text", "\"plain text\"" },
		{ "a\"b\\c", "\"a\\\"b\\\\c\"" },
		{ "a\nb\r\td", "\"a\\nb\\r\\td\"" },
		{ "\x1b[0m\x7f", "\"\\x1b[0m\\x7f\"" },
		{ "\xc3\xa4", "\"\\xc3\\xa4\"" },
	};
	char buf[64];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_string_equal(log_quote(buf, sizeof(buf), cases[i].text), cases[i].want);
}

/* Closed again, and never in the middle of an escape. */
static void values_are_cut_to_fit(void **state)
{
	static const struct {
		unsigned long size;
		const char *text, *want;
	} cases[] = {
		{ 1, "abc", "" },	  { 2, "abc", "" },	   { 3, "abc", "\"\"" },
		{ 5, "abc", "\"ab\"" },	  { 6, "abc", "\"abc\"" }, { 5, "a\n", "\"a\"" },
		{ 6, "a\n", "\"a\\n\"" }, { 6, "\x01", "\"\"" },   { 7, "\x01", "\"\\x01\"" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		/* Of just that size, so that a byte too far is noticed. */
		char *buf = malloc(cases[i].size);

		assert_non_null(buf);
		assert_string_equal(log_quote(buf, cases[i].size, cases[i].text), cases[i].want);
		free(buf);
	}
}

/* --- what is tried again and again ----------------------------------------------------- */

static void attempt(const char *why)
{
	struct err e;

	snprintf(e.text, sizeof(e.text), "%s", why);
	log_failure(last, LOG_LEVEL_WARN, "cannot do it", &e);
}

#define LINE(why) "level=warn msg=\"cannot do it\" error=\"" why "\"\n"

static void the_same_again_is_one_line(void **state)
{
	(void)state;
	for (int i = 0; i < 3; i++)
		attempt("no room");
	assert_string_equal(without_times(), LINE("no room"));
}

static void another_reason_is_another_line(void **state)
{
	(void)state;
	attempt("no room");
	attempt("no room at all");
	attempt("no room at all");
	attempt("no room");
	assert_string_equal(without_times(),
			    LINE("no room") LINE("no room at all") LINE("no room"));
}

static void what_was_mended_may_fail_again(void **state)
{
	(void)state;
	attempt("no room");
	attempt("");
	attempt("");
	assert_string_equal(without_times(), LINE("no room"));
	attempt("no room");
	attempt("no room");
	assert_string_equal(without_times(), LINE("no room") LINE("no room"));
}

static void nothing_wrong_is_no_line(void **state)
{
	(void)state;
	attempt("");
	assert_string_equal(captured(), "");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, release_stderr)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_line_has_its_keys),
		TEST(what_is_too_talkative_is_not_printed),
		TEST(errno_stays),
		TEST(whatever_is_in_it_it_is_one_line),
		TEST(a_long_line_is_cut_and_ends),
		TEST(a_person_reads_the_programs_name),
		TEST(what_is_no_file_gets_no_time),
		TEST(the_journal_gets_priorities),
		TEST(another_stream_is_not_the_journal),
		TEST(values_are_escaped),
		TEST(values_are_cut_to_fit),
		TEST(the_same_again_is_one_line),
		TEST(another_reason_is_another_line),
		TEST(what_was_mended_may_fail_again),
		TEST(nothing_wrong_is_no_line),
	};

	return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
