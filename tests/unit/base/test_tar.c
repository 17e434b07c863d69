/* SPDX-License-Identifier: BSD-2-Clause */
/* A tar archive, as tar itself reads it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/tar.h"
#include "unit.h"

/* What tar prints about the archive. */
static const char *tar(const char *options, const char *archive, const char *name)
{
	static char said[4096];
	char command[256];
	FILE *from;
	size_t n;

	snprintf(command, sizeof(command), "TZ=UTC tar %s %s %s 2>&1", options, archive, name);
	from = popen(command, "r");
	assert_non_null(from);
	n = fread(said, 1, sizeof(said) - 1, from);
	said[n] = '\0';
	assert_int_equal(pclose(from), 0);
	return said;
}

static void tar_reads_it(void **state)
{
	/* Around a block's end. */
	static const size_t lengths[] = { 0, 1, 511, 512, 513, 1500 };
	char path[PATH_SIZE], name[32], content[1501];
	FILE *to = fopen(in_dir(path, "x.tar"), "w");

	(void)state;
	assert_non_null(to);
	memset(content, 'x', sizeof(content) - 1);
	content[sizeof(content) - 1] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		snprintf(name, sizeof(name), "d/%zu", lengths[i]);
		tar_add(to, name, content, lengths[i], 86400);
	}
	tar_end(to);
	assert_int_equal(fclose(to), 0);
	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		snprintf(name, sizeof(name), "d/%zu", lengths[i]);
		assert_int_equal(strlen(tar("-xOf", path, name)), lengths[i]);
	}
	assert_non_null(strstr(tar("-tvf", path, "d/513"), "-rw------- 0/0"));
	assert_non_null(strstr(tar("-tvf", path, "d/513"), "513 1970-01-02 00:00 d/513"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		LEAVES_NOTHING(tar_reads_it),
	};

	return cmocka_run_group_tests_name("tar", tests, make_dir, remove_made_dir);
}
