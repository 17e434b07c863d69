/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Included first into every file by scripts/coverage.sh: a child that ends by _exit(2) writes its
 * counters, too.
 */
#ifndef KLB_COVERAGE_H
#define KLB_COVERAGE_H

#include <sys/resource.h>
#include <unistd.h>

void __gcov_dump(void);

/*
 * Without the soft limit on a file's size that a test has set: to half a file the processes that
 * end later add nothing, and what they have run is lost. A function, so that what its argument runs
 * is over, and counts.
 */
static inline void __attribute__((noreturn)) coverage_exit(int status)
{
	struct rlimit size;

	if (!getrlimit(RLIMIT_FSIZE, &size) && size.rlim_cur != size.rlim_max) {
		size.rlim_cur = size.rlim_max;
		setrlimit(RLIMIT_FSIZE, &size);
	}
	__gcov_dump();
	_exit(status);
}

#define _exit coverage_exit

#endif
