/* SPDX-License-Identifier: BSD-2-Clause */
#include <stdlib.h>
#include <unistd.h>

#include "base/path.h"
#include "unit.h"

/* As Go's filepath.Join. */
static void resolves(void **state)
{
	static const char *const table[][3] = {
		{ "/a/b", "c", "/a/b/c" },
		{ "/a/b", "../c", "/a/c" },
		{ "/a/b", "../../../c", "/c" },
		{ "/a/b", "./c/./d//e/", "/a/b/c/d/e" },
		{ "/a/b", "/c/../d", "/d" },
		{ "/", "c", "/c" },
		{ "/a/", "...", "/a/..." },
		{ "/a", "..b/.c", "/a/..b/.c" },
		{ "/a", "..", "/" },
		{ "/a", "", "/a" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		char *full = path_resolve(table[i][0], table[i][1]);

		assert_string_equal(full, table[i][2]);
		free(full);
	}
}

static void directories(void **state)
{
	static const char *const table[][2] = {
		{ "/etc/kubernetes/kubelet.conf", "/etc/kubernetes" },
		{ "/config", "/" },
		{ "//etc/../x/config", "/x" },
	};
	char *here = getcwd(NULL, 0), *found;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		found = path_directory(table[i][0]);
		assert_string_equal(found, table[i][1]);
		free(found);
	}
	found = path_directory("config");
	assert_string_equal(found, here);
	free(found);
	free(here);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(resolves),
		cmocka_unit_test(directories),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
