/* SPDX-License-Identifier: BSD-2-Clause */
/* An agent that cannot start: says why, and leaves nothing. Takes root. */
#include <errno.h>
#include <string.h>

#include "agent/agent.h"
#include "base/log.h"
#include "unit.h"

static char pin_dir[PATH_SIZE];
static const struct agent_options options = { .config_path = "/nonexistent/kubelb.yaml",
					      .pin_dir = pin_dir };

static int start(void **state)
{
	count_files(state);
	log_init("test", LOG_LEVEL_INFO);
	in_dir(pin_dir, "pins");
	return capture_stderr(state);
}

static int stop(void **state)
{
	release_stderr(state);
	return check_leftovers(state);
}

/* The configuration is the agent's from then on: it goes with it. */
static void nothing_is_attached(void **state)
{
	const char *const backends[] = { "10.0.0.1" };
	struct config *cfg = NULL;
	struct err e = { "" };

	(void)state;
	assert_int_equal(config_from_args(NULL, 0, backends, 1, true, &cfg, &e), 0);
	assert_int_equal(agent_run(&options, cfg, &e), -ENOENT);
	assert_says(e.text, "nothing is attached; run kubelb-load");
	assert_ptr_equal(strstr(e.text, pin_dir), e.text);
	/* Who has called it prints that line. */
	assert_string_equal(captured(), "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(nothing_is_attached, start, stop),
	};

	return cmocka_run_group_tests_name("loop", tests, make_dir, remove_made_dir);
}
