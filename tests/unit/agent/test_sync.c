/* SPDX-License-Identifier: BSD-2-Clause */
/* The agent and its data path, as long as there is none. Takes root. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bare_agent.h"
#include "unit.h"

static unsigned int lines(const char *part)
{
	unsigned int n = 0;

	for (const char *found = captured(); (found = strstr(found, part)); found++)
		n++;
	return n;
}

static void assert_nothing_is_held(void)
{
	assert_null(bare.dp);
	assert_null(bare.wakeup);
	assert_int_equal(bare.agent_lock, -1);
}

static void nothing_is_attached(void **state)
{
	struct err e = { "" };

	(void)state;
	assert_int_equal(agent_open_datapath(&bare, &e), -ENOENT);
	assert_says(e.text, "nothing is attached; run kubelb-load");
	assert_ptr_equal(strstr(e.text, bare.options->pin_dir), e.text);
	assert_nothing_is_held();
	assert_string_equal(captured(), "");
	assert_says(agent_not_ready(&bare), "run kubelb-load");
}

static void a_directory_without_pins(void **state)
{
	struct err e = { "" };

	(void)state;
	assert_int_equal(mkdir(bare.options->pin_dir, 0700), 0);
	assert_true(agent_open_datapath(&bare, &e) < 0);
	assert_says(e.text, bare.options->pin_dir);
	assert_nothing_is_held();
	rmdir(bare.options->pin_dir);
}

/* Each tick looks for it. */
static void waiting_is_told_once(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < 3; i++)
		agent_reopen(&bare);
	assert_nothing_is_held();
	assert_int_equal(lines("\n"), 1);
	assert_int_equal(lines("level=warn msg=\"no data path to work on, waiting for "
			       "kubelb-load\""),
			 1);
	assert_int_equal(lines("nothing is attached; run kubelb-load"), 1);
	assert_int_equal(lines("data path changed"), 0);
	/* Once more after it has been there. */
	bare.detached_logged = false;
	agent_reopen(&bare);
	assert_int_equal(lines("\n"), 2);
}

static void what_cannot_be_written_waits(void **state)
{
	(void)state;
	bare.config = calloc(1, sizeof(*bare.config)); /* no backends */
	assert_non_null(bare.config);
	bare.config_pending = true;
	agent_apply(&bare);
	assert_true(bare.dirty);
	assert_true(bare.config_pending);
	assert_string_equal(captured(), "");
}

static void dropping_nothing(void **state)
{
	(void)state;
	agent_drop_datapath(&bare);
	agent_drop_datapath(&bare);
	assert_nothing_is_held();
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, bare_open, bare_close)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(nothing_is_attached),  TEST(a_directory_without_pins),
		TEST(waiting_is_told_once), TEST(what_cannot_be_written_waits),
		TEST(dropping_nothing),
	};

	return cmocka_run_group_tests_name("sync", tests, make_dir, remove_made_dir);
}
