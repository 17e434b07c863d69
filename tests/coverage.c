/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Linked into every program by scripts/coverage.sh. Another user's process may not add to root's
 * counters, and libgcov says so on standard error, for each file: it gets a folder of its own.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void __attribute__((constructor)) coverage_place(void)
{
	const char *prefix = getenv("GCOV_PREFIX");
	char own[4096];

	if (!prefix || !geteuid())
		return;
	snprintf(own, sizeof(own), "%s.uid%u", prefix, geteuid());
	setenv("GCOV_PREFIX", own, 1);
}
