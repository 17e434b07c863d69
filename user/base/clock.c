/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads the clocks, and finds out how far a time namespace has moved one of them. */
#include "base/clock.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/file.h"

#define OWN_NS "/proc/self/ns/time"
/* The namespace that a child gets. OFFSETS is about that one (kernel/time/namespace.c). */
#define CHILD_NS "/proc/self/ns/time_for_children"
#define OFFSETS "/proc/self/timens_offsets"
/* The inode number of the namespace that the kernel boots with (include/linux/proc_ns.h). */
#define INITIAL_INODE 0xEFFFFFFAU

/* What the namespace adds to the kernel's CLOCK_MONOTONIC. Set before a second thread runs. */
static __s64 offset_ns;

static __u64 read_ns(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return (__u64)t.tv_sec * NS_PER_S + (__u64)t.tv_nsec;
}

__u64 clock_now_ns(void)
{
	return read_ns(CLOCK_MONOTONIC) - (__u64)offset_ns;
}

static ino_t inode_of(const char *path)
{
	struct stat st;

	return stat(path, &st) ? 0 : st.st_ino;
}

/* "monotonic  SECONDS NANOSECONDS", one clock a line. */
static int parse_offset(const char *text, __s64 *ret_ns)
{
	char *end;
	__s64 seconds, ns;

	seconds = strtoll(text, &end, 10);
	if (end == text)
		return -EINVAL;
	text = end;
	ns = strtoll(text, &end, 10);
	if (end == text)
		return -EINVAL;
	*ret_ns = seconds * (__s64)NS_PER_S + ns;
	return 0;
}

int clock_adopt_kernels(__s64 *ret_offset_ns, struct err *e)
{
	ino_t own = inode_of(OWN_NS);
	char line[128];

	*ret_offset_ns = 0;
	/* Without /proc, or in a kernel without time namespaces, there is nothing to be seen. */
	if (!own || own == INITIAL_INODE)
		return 0;
	if (own != inode_of(CHILD_NS))
		return err_set(
			e, EINVAL,
			"this process is in another time namespace than the one it has made, "
			"and cannot tell how that changes its clock; start it outside of "
			"time namespaces");
	if (!file_read_line(OFFSETS, "monotonic", line, sizeof(line)) ||
	    parse_offset(line, ret_offset_ns))
		return err_set(e, EINVAL,
			       OFFSETS ": cannot be read, and the clock of a time namespace is not "
				       "the kernel's; start it outside of time namespaces");
	offset_ns = *ret_offset_ns;
	return 0;
}

__u64 clock_wall_ns(void)
{
	return read_ns(CLOCK_REALTIME);
}

__u64 clock_cpu_ns(void)
{
	return read_ns(CLOCK_THREAD_CPUTIME_ID);
}
