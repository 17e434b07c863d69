/* SPDX-License-Identifier: BSD-2-Clause */
/* Cgroups by their ids, with and without the privilege to open a handle. Needs root and cgroup v2.
 */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/cgroup.h"
#include "host/mounts.h"

static char place[CGROUP_PATH_MAX];
static __u64 place_id;

static int make_place(void **state)
{
	char root[256];
	struct stat st;

	(void)state;
	if (geteuid() || mounts_cgroup2_root(root, sizeof(root), NULL))
		return -1;
	snprintf(place, sizeof(place), "%s/kubelb-unit-%d", root, (int)getpid());
	if (mkdir(place, 0755) || stat(place, &st))
		return -1;
	place_id = st.st_ino;
	return 0;
}

static int remove_place(void **state)
{
	(void)state;
	return rmdir(place);
}

/* Runs test in a child process, which takes its changes with it. */
static int in_child(int (*test)(void))
{
	int status = -1;
	pid_t pid = fork();

	if (!pid)
		_exit(test());
	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Lays the capabilities aside, or (effective) takes them up again. */
static void use_capabilities(bool effective)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3];

	syscall(SYS_capget, &header, sets);
	for (int i = 0; i < _LINUX_CAPABILITY_U32S_3; i++)
		sets[i].effective = effective ? sets[i].permitted : 0;
	syscall(SYS_capset, &header, sets);
}

static bool opens(__u64 id)
{
	int fd = cgroup_open_id(id);
	struct stat st;
	bool same = fd >= 0 && !fstat(fd, &st) && st.st_ino == id;

	if (fd >= 0)
		close(fd);
	return same;
}

static void test_open(void **state)
{
	char path[CGROUP_PATH_MAX];

	(void)state;
	assert_true(opens(1));
	assert_true(opens(place_id));
	assert_true(cgroup_path_of(place_id, path));
	assert_string_equal(path, place);
	assert_int_equal(cgroup_open_id(0), -ENOENT);
}

static int opens_without_privileges(void)
{
	use_capabilities(false);
	/* The second time it is known. */
	return opens(1) && opens(place_id) && opens(place_id) ? 0 : 1;
}

static void test_open_without_privileges(void **state)
{
	(void)state;
	assert_int_equal(in_child(opens_without_privileges), 0);
}

static int misses_the_removed_one(void)
{
	bool there;
	int r;

	use_capabilities(false);
	there = opens(place_id);
	use_capabilities(true);
	rmdir(place);
	use_capabilities(false);
	r = cgroup_open_id(place_id);
	return there && r == -ENOENT ? 0 : 1;
}

/* With the whole hierarchy to be seen, what is not found does not exist. */
static void test_removed(void **state)
{
	(void)state;
	assert_int_equal(in_child(misses_the_removed_one), 0);
	assert_false(opens(place_id));
	assert_int_equal(make_place(NULL), 0);
}

static int joins_and_is_inside(void)
{
	char path[CGROUP_PATH_MAX + 16];
	int fd;

	snprintf(path, sizeof(path), "%s/cgroup.procs", place);
	fd = open(path, O_WRONLY);
	if (fd < 0 || write(fd, "0", 1) != 1)
		return 2;
	close(fd);
	return cgroup_contains_self(place_id) && cgroup_contains_self(1) ? 0 : 1;
}

static void test_contains_self(void **state)
{
	(void)state;
	assert_true(cgroup_contains_self(1));
	assert_false(cgroup_contains_self(place_id));
	assert_int_equal(in_child(joins_and_is_inside), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		LEAVES_NOTHING(test_open),
		LEAVES_NOTHING(test_open_without_privileges),
		LEAVES_NOTHING(test_removed),
		LEAVES_NOTHING(test_contains_self),
	};

	return cmocka_run_group_tests_name("cgroup", tests, make_place, remove_place);
}
