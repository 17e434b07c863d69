/* SPDX-License-Identifier: BSD-2-Clause */
/* The words for a system's error. */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "unit.h"

static void test_shortage(void **state)
{
	static const int shortages[] = { ENOMEM, ENOBUFS, EMFILE, ENFILE };
	static const int others[] = { 0, EPERM, EACCES, ENOENT, EINVAL, EEXIST, EIO };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(shortages); i++) {
		assert_true(err_is_shortage(shortages[i]));
		/* What to do stands there, too. */
		assert_says(err_reason(shortages[i]), ": raise ");
	}
	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		assert_false(err_is_shortage(others[i]));
		assert_string_equal(err_reason(others[i]), strerror(others[i]));
	}
}

static void test_process_and_machine_differ(void **state)
{
	(void)state;
	assert_says(err_reason(EMFILE), "LimitNOFILE=");
	assert_says(err_reason(ENFILE), "on this machine");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shortage),
		cmocka_unit_test(test_process_and_machine_differ),
	};

	return cmocka_run_group_tests_name("err", tests, NULL, NULL);
}
