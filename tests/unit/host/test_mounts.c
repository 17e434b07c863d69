/* SPDX-License-Identifier: BSD-2-Clause */
/* Finding the cgroup v2 root in the layouts that exist. */
#include <errno.h>

#include "host/mounts.h"
#include "unit.h"

struct layout {
	const char *what, *mountinfo;
	const char *want; /* NULL: there is none */
};

static const struct layout layouts[] = {
	{ "pure v2",
	  "22 1 254:1 / / rw - ext4 /dev/vda rw\n"
	  "30 22 0:26 / /sys/fs/cgroup rw,nosuid,nodev shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
	  "/sys/fs/cgroup" },
	{ "hybrid",
	  "30 22 0:25 / /sys/fs/cgroup ro,nosuid shared:4 - tmpfs tmpfs ro,mode=755\n"
	  "31 30 0:26 / /sys/fs/cgroup/unified rw shared:5 - cgroup2 cgroup2 rw\n"
	  "32 30 0:27 / /sys/fs/cgroup/memory rw shared:6 - cgroup cgroup rw,memory\n",
	  "/sys/fs/cgroup/unified" },
	{ "v1 alone", "32 30 0:27 / /sys/fs/cgroup/memory rw shared:6 - cgroup cgroup rw,memory\n",
	  NULL },
	{ "nothing", "", NULL },
	{ "a container's part, and the host's root beside it",
	  "40 39 0:26 /kubepods/pod1 /sys/fs/cgroup ro - cgroup2 cgroup rw\n"
	  "41 39 0:26 / /host/cgroup rw - cgroup2 cgroup rw\n",
	  "/host/cgroup" },
	{ "a cgroup namespace, and the host's root beside its own",
	  "40 39 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n"
	  "41 39 0:26 /../../.. /host/cgroup ro - cgroup2 cgroup rw\n",
	  "/host/cgroup" },
	{ "the same in the other order, hybrid, and with one in between",
	  "41 39 0:26 /../../.. /host/cgroup/unified ro - cgroup2 cgroup rw\n"
	  "42 39 0:26 /.. /pod ro - cgroup2 cgroup rw\n"
	  "40 39 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n",
	  "/host/cgroup/unified" },
	{ "a neighbour's cgroup is no root, whatever its name",
	  "40 39 0:26 /../../other /other ro - cgroup2 cgroup rw\n"
	  "41 39 0:26 /..hidden /hidden ro - cgroup2 cgroup rw\n"
	  "42 39 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n",
	  "/sys/fs/cgroup" },
	{ "a part of it is better than none",
	  "40 39 0:26 /kubepods/pod1 /sys/fs/cgroup ro - cgroup2 cgroup rw\n", "/sys/fs/cgroup" },
	{ "the first root of two",
	  "40 39 0:26 / /a rw - cgroup2 cgroup rw\n41 39 0:26 / /b rw - cgroup2 cgroup rw\n",
	  "/a" },
	{ "blanks in the name", "40 39 0:26 / /mnt/my\\040cg rw - cgroup2 none rw\n",
	  "/mnt/my cg" },
	{ "no newline at the end", "40 39 0:26 / /x rw - cgroup2 none rw", "/x" },
	{ "optional fields of any number",
	  "40 39 0:26 / /x rw shared:1 master:2 propagate_from:3 - cgroup2 none rw\n", "/x" },
	{ "the word elsewhere in the line", "40 39 0:26 / /cgroup2 rw - ext4 cgroup2 rw,cgroup2\n",
	  NULL },
	{ "half a line", "40 39 0:26", NULL },
};

static void finds_cgroup2(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(layouts); i++) {
		char got[256] = "untouched";
		int r = mounts_find_cgroup2(layouts[i].mountinfo, got, sizeof(got));

		if (r != (layouts[i].want ? 0 : -ENOENT))
			fail_msg("%s: returned %d", layouts[i].what, r);
		assert_string_equal(got, layouts[i].want ? layouts[i].want : "untouched");
	}
}

static void refuses_what_is_no_cgroup(void **state)
{
	unsigned long long id;
	struct err e = { "" };

	(void)state;
	assert_true(mounts_open_cgroup("/proc", &id, &e) < 0);
	assert_string_not_equal(e.text, "");
	assert_int_equal(mounts_open_cgroup("/does/not/exist", &id, &e), -ENOENT);
	assert_false(mounts_is_bpffs("/proc"));
	assert_int_equal(mounts_ensure_bpffs("/tmp/kubelb", &e), -EINVAL);
	assert_int_equal(mounts_ensure_bpffs("/sys/fs/bpfx", &e), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(finds_cgroup2),
		cmocka_unit_test(refuses_what_is_no_cgroup),
	};

	return cmocka_run_group_tests_name("mounts", tests, NULL, NULL);
}
