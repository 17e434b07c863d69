/* SPDX-License-Identifier: BSD-2-Clause */
/* The clock in a time namespace. Takes root, and a kernel with CONFIG_TIME_NS. */
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "unit.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

static bool has_time_namespaces(void)
{
	return !access("/proc/self/ns/time", F_OK) && !geteuid();
}

/* Makes a time namespace, for the children to come, with that offset. */
static int make_namespace(const char *offset)
{
	int fd, failed;

	if (unshare(CLONE_NEWTIME))
		return -1;
	fd = open("/proc/self/timens_offsets", O_WRONLY | O_CLOEXEC);
	failed = fd < 0 || write(fd, offset, strlen(offset)) < 0;
	if (fd >= 0)
		close(fd);
	return failed ? -1 : 0;
}

static int exit_of(pid_t child)
{
	int status;

	if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status))
		return 255;
	return WEXITSTATUS(status);
}

/* What a process in the namespace sees: 0 when its clock is between two looks at the parent's. */
static int look_inside(__u64 before_ns, __s64 expected_ns)
{
	__s64 offset_ns;
	struct err e;

	if (clock_adopt_kernels(&offset_ns, &e))
		return 2;
	if (offset_ns != expected_ns)
		return 3;
	return clock_now_ns() >= before_ns && clock_now_ns() < before_ns + 60 * NS_PER_S ? 0 : 4;
}

/* In a child, whose namespace ends with it. */
static int in_namespace(const char *offset, __s64 expected_ns)
{
	__u64 before_ns = clock_now_ns();
	pid_t inner, child = fork();

	if (child)
		return exit_of(child);
	if (make_namespace(offset))
		_exit(1);
	inner = fork();
	if (!inner)
		_exit(look_inside(before_ns, expected_ns));
	_exit(exit_of(inner));
}

static void an_offset_is_taken_off(void **state)
{
	(void)state;
	if (!has_time_namespaces())
		skip();
	assert_int_equal(in_namespace("monotonic 100000 0\n", 100000 * (__s64)NS_PER_S), 0);
	assert_int_equal(in_namespace("monotonic -1 0\n", -(__s64)NS_PER_S), 0);
	assert_int_equal(in_namespace("monotonic 7 500000000\n", 7500000000LL), 0);
	/* Of the other clock alone. */
	assert_int_equal(in_namespace("boottime 100000 0\n", 0), 0);
}

/* Only its children will be in the namespace; what the file says is about them. */
static int look_beside(void)
{
	__s64 offset_ns;
	struct err e;

	if (make_namespace("monotonic 100000 0\n"))
		return 1;
	/* Still in the first namespace, whose clock is known. */
	return clock_adopt_kernels(&offset_ns, &e) || offset_ns ? 2 : 0;
}

static void in_child(int (*look)(void))
{
	pid_t child;

	if (!has_time_namespaces())
		skip();
	child = fork();
	if (!child)
		_exit(look());
	assert_int_equal(exit_of(child), 0);
}

static void an_offset_of_the_children_is_not(void **state)
{
	(void)state;
	in_child(look_beside);
}

/* In one namespace, having made another one for its children: nothing says what its own adds. */
static int look_between(void)
{
	struct err e = { "" };
	__s64 offset_ns;
	pid_t inner;

	if (make_namespace("monotonic 100000 0\n"))
		return 1;
	inner = fork();
	if (inner)
		return exit_of(inner);
	if (make_namespace("monotonic 5 0\n"))
		_exit(1);
	_exit(clock_adopt_kernels(&offset_ns, &e) == -EINVAL && strstr(e.text, "time namespace")
		      ? 0
		      : 2);
}

static void what_cannot_be_told_is_an_error(void **state)
{
	(void)state;
	in_child(look_between);
}

static void outside_nothing_changes(void **state)
{
	__u64 before_ns = clock_now_ns();
	__s64 offset_ns = 1;
	struct err e;

	(void)state;
	assert_int_equal(clock_adopt_kernels(&offset_ns, &e), 0);
	assert_int_equal(offset_ns, 0);
	assert_true(clock_now_ns() >= before_ns);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_offset_is_taken_off),
		cmocka_unit_test(an_offset_of_the_children_is_not),
		cmocka_unit_test(what_cannot_be_told_is_an_error),
		cmocka_unit_test(outside_nothing_changes),
	};

	return cmocka_run_group_tests_name("clock", tests, NULL, NULL);
}
