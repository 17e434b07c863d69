/* SPDX-License-Identifier: BSD-2-Clause */
/* What is printed without jansson is what jansson prints. */
#include <stdlib.h>
#include <string.h>

#include "ctl/json.h"
#include "unit.h"

static void assert_same(__u64 ns)
{
	char *text = NULL, *want;
	size_t size = 0;
	FILE *to = open_memstream(&text, &size);
	json_t *value = json_real((double)ns / 1e9);

	assert_non_null(to);
	ctl_print_json_seconds(ns, to);
	assert_int_equal(fclose(to), 0);
	want = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
	assert_string_equal(text, want);
	json_decref(value);
	free(want);
	free(text);
}

/* From a nanosecond to 584 years: whole seconds, fractions, and either exponent. */
static void test_seconds(void **state)
{
	__u64 ns = 1;

	(void)state;
	assert_same(0);
	assert_same(~0ULL);
	for (int digits = 0; digits < 20; digits++, ns *= 10)
		for (unsigned int i = 1; i < 100; i++) {
			assert_same(ns * i);
			assert_same(ns * i + i);
			assert_same(ns * i - 1);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		LEAVES_NOTHING(test_seconds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
