/* SPDX-License-Identifier: BSD-2-Clause */
/* Columns as wide as what stands in them. */
#include <stdlib.h>

#include "base/table.h"
#include "unit.h"

static const struct table_column columns[] = {
	{ .title = "NAME" },
	{ "N", .right = true },
	{ "EXTRA", .right = true, .optional = true },
	{ .title = "WHY" },
};

/* Cells until NULL. */
static void check(const char *want, const char *const *cells)
{
	struct table t = { .columns = columns, .n_columns = 4 };
	char *text = NULL;
	size_t size = 0;
	FILE *to = open_memstream(&text, &size);

	assert_non_null(to);
	for (; *cells; cells++)
		table_cell(&t, "%s", *cells);
	assert_int_equal(table_print(&t, to), 0);
	table_free(&t);
	fclose(to);
	assert_string_equal(text, want);
	free(text);
}

static void aligned(void **state)
{
	(void)state;
	check("NAME N WHY\n", (const char *const[]){ NULL });
	check("NAME      N WHY\n"
	      "a         1 it is\n"
	      "bbbbbb 1234 so\n",
	      (const char *const[]){ "a", "1", "-", "it is", "bbbbbb", "1234", "0", "so", NULL });
	check("NAME N EXTRA WHY\n"
	      "a    1     0 x\n"
	      "b    2     3 y\n",
	      (const char *const[]){ "a", "1", "0", "x", "b", "2", "3", "y", NULL });
}

static void no_blanks_at_the_end(void **state)
{
	(void)state;
	check("NAME N WHY\na    1\nb\n",
	      (const char *const[]){ "a", "1", "-", "", "b", "", "-", "", NULL });
}

static void counts_characters(void **state)
{
	(void)state;
	check("NAME N WHY\n\xc3\xbc\xc3\xbc   1 x\nuu   2 y\n",
	      (const char *const[]){ "\xc3\xbc\xc3\xbc", "1", "-", "x", "uu", "2", "-", "y",
				     NULL });
}

static void many_rows(void **state)
{
	struct table t = { .columns = columns, .n_columns = 4 };
	char *text = NULL;
	size_t size = 0, n = 0;
	FILE *to = open_memstream(&text, &size);

	(void)state;
	for (int i = 0; i < 4000; i++)
		table_cell(&t, "%d", i);
	assert_int_equal(table_print(&t, to), 0);
	table_free(&t);
	fclose(to);
	for (size_t i = 0; i < size; i++)
		n += text[i] == '\n';
	assert_int_equal(n, 1001);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(aligned),
		cmocka_unit_test(no_blanks_at_the_end),
		cmocka_unit_test(counts_characters),
		cmocka_unit_test(many_rows),
	};

	return cmocka_run_group_tests_name("table", tests, NULL, NULL);
}
