/* SPDX-License-Identifier: BSD-2-Clause */
/* Stopping the unit after a detach: what systemctl is asked, and what comes of its answers. */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/service_unit.h"
#include "unit.h"

#define UNIT "kubelb-load.service"

static const char *systemctl(void)
{
	static char path[PATH_SIZE];

	return in_dir(path, "systemctl");
}

/* A systemctl that notes what it is asked, and answers with these commands of a shell. */
static void answers(const char *is_active, const char *stop)
{
	char asked[PATH_SIZE], script[3 * PATH_SIZE + 200];

	snprintf(script, sizeof(script),
		 "#!/bin/sh\n"
		 "echo \"$*\" >>%s\n"
		 "case \"$*\" in *is-active*) %s ;; *stop*) %s ;; esac\n",
		 in_dir(asked, "asked"), is_active, stop);
	write_file(systemctl(), script);
	assert_int_equal(chmod(systemctl(), 0755), 0);
}

static void assert_asked(const char *lines)
{
	char asked[PATH_SIZE];

	assert_string_equal(read_file(in_dir(asked, "asked")), lines);
	unlink(asked);
}

static void what_is_active_is_stopped(void **state)
{
	struct err e = { "" };

	(void)state;
	answers("exit 0", "exit 0");
	assert_int_equal(service_unit_stop(systemctl(), UNIT, &e), 1);
	assert_asked("--quiet is-active " UNIT "\n--quiet stop " UNIT "\n");
}

static void what_is_not_active_is_left_alone(void **state)
{
	static const char *const statuses[] = { "exit 3", "exit 4" };
	struct err e = { "" };

	(void)state;
	for (int i = 0; i < 2; i++) {
		answers(statuses[i], "exit 0");
		assert_int_equal(service_unit_stop(systemctl(), UNIT, &e), 0);
	}
	assert_asked("--quiet is-active " UNIT "\n--quiet is-active " UNIT "\n");
}

/* Its first line says why. */
static void what_fails_is_said(void **state)
{
	struct err e = { "" };

	(void)state;
	answers("echo 'Failed to connect to bus: No such file' >&2; echo more; exit 1", "exit 0");
	assert_int_equal(service_unit_stop(systemctl(), UNIT, &e), -EIO);
	assert_string_equal(e.text, "systemctl is-active " UNIT ": exit status 1: Failed to "
				    "connect to bus: No such file");
	answers("exit 0", "exit 5");
	assert_int_equal(service_unit_stop(systemctl(), UNIT, &e), -EIO);
	assert_string_equal(e.text, "systemctl stop " UNIT ": exit status 5");
	unlink(systemctl());
	assert_int_equal(service_unit_stop(systemctl(), UNIT, &e), -ENOENT);
	assert_string_equal(e.text, "systemctl is-active " UNIT ": No such file or directory");
}

/* A manager that hangs does not hang a detach. */
static void it_ends_in_time(void **state)
{
	struct err e = { "" };

	(void)state;
	answers("exit 0", "sleep 100");
	assert_int_equal(service_unit_stop(systemctl(), UNIT, &e), -ETIMEDOUT);
	assert_string_equal(e.text, "systemctl stop " UNIT ": not done within 5 s");
}

static void whose_process_it_is(void **state)
{
	(void)state;
	assert_true(service_unit_has("0::/system.slice/" UNIT "\n", UNIT));
	assert_true(service_unit_has("0::/system.slice/" UNIT "/a\n", UNIT));
	assert_true(
		service_unit_has("12:pids:/\n1:name=systemd:/system.slice/" UNIT "\n0::/\n", UNIT));
	assert_false(service_unit_has("0::/user.slice/user-0.slice/session-1.scope\n", UNIT));
	assert_false(service_unit_has("0::/system.slice/my-" UNIT "\n", UNIT));
	assert_false(service_unit_has("0::/system.slice/" UNIT ".old\n", UNIT));
	assert_true(service_unit_has("0::/system.slice/" UNIT ".old\n1:a:/" UNIT, UNIT));
	assert_false(service_unit_has("", UNIT));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		LEAVES_NOTHING(what_is_active_is_stopped),
		LEAVES_NOTHING(what_is_not_active_is_left_alone),
		LEAVES_NOTHING(what_fails_is_said),
		LEAVES_NOTHING(it_ends_in_time),
		LEAVES_NOTHING(whose_process_it_is),
	};

	return cmocka_run_group_tests_name("service_unit", tests, make_dir, remove_made_dir);
}
