/* SPDX-License-Identifier: BSD-2-Clause */
/* What is said of a pin that cannot be opened. Takes root and a bpffs. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "datapath/internal.h"
#include "unit.h"

static char dir[PATH_SIZE];

static const char *in(char *ret, const char *name)
{
	snprintf(ret, 2 * PATH_SIZE, "%s/%s", dir, name);
	return ret;
}

static void pin_map(const char *name, const char *kernel_name)
{
	char path[2 * PATH_SIZE];
	int fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, kernel_name, 4, 8, 1, NULL);

	assert_true(fd >= 0);
	assert_int_equal(bpf_obj_pin(fd, in(path, name)), 0);
	close(fd);
}

static void empty_dir(void)
{
	static const char *const names[] = { "control", "stats", "link" };
	char path[2 * PATH_SIZE];

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		unlink(in(path, names[i]));
	rmdir(in(path, "admin"));
	rmdir(dir);
}

static int setup(void **state)
{
	char path[2 * PATH_SIZE];

	(void)state;
	snprintf(dir, sizeof(dir), "/sys/fs/bpf/klb-unit-%d", (int)getpid());
	if (geteuid() || !mounts_is_bpffs("/sys/fs/bpf") || mkdir(dir, 0700)) {
		dir[0] = '\0';
		return 0;
	}
	pin_map("control", "klb_control");
	pin_map("stats", "others");
	return mkdir(in(path, "admin"), 0700) || symlink("nowhere", in(path, "link"));
}

static int teardown(void **state)
{
	(void)state;
	if (dir[0])
		empty_dir();
	return 0;
}

static int open_map(const char *name, struct err *e)
{
	struct bpf_map_info info;
	int fd = pin_open_map(dir, name, &info, e);

	if (fd >= 0)
		close(fd);
	return fd < 0 ? fd : 0;
}

#define NEEDS_BPFFS()           \
	do {                    \
		(void)state;    \
		if (!dir[0])    \
			skip(); \
	} while (0)

static void test_what_is_there(void **state)
{
	static const char *const foreign[] = { "stats", "admin" };
	struct err e = { "" };

	NEEDS_BPFFS();
	assert_int_equal(open_map("control", &e), 0);
	assert_int_equal(open_map("events", &e), -ENOENT);
	assert_says(e.text, "not there; run kubelb-load");
	for (size_t i = 0; i < ARRAY_SIZE(foreign); i++) {
		assert_int_equal(open_map(foreign[i], &e), -EEXIST);
		assert_says(e.text, "not a map of kubelb's; move it away");
	}
	/* A link to nowhere is nothing. */
	assert_int_equal(open_map("link", &e), -ENOENT);
}

/* Who owns a directory, or can write to it, decides what is pinned there. */
static void test_directory_of_somebody_else(void **state)
{
	char path[2 * PATH_SIZE];
	struct err e = { "" };

	NEEDS_BPFFS();
	assert_int_equal(chmod(dir, 0777), 0);
	assert_int_equal(open_map("control", &e), -EPERM);
	assert_says(e.text, "others could change what is pinned there");
	assert_int_equal(chmod(dir, 0700), 0);
	assert_int_equal(chown(dir, 65534, 65534), 0);
	assert_int_equal(open_map("control", &e), -EPERM);
	assert_says(e.text, "belongs to user 65534");
	assert_int_equal(chown(dir, 0, 0), 0);
	/* Nor is a link to a good one followed. */
	snprintf(path, sizeof(path), "%s_link", dir);
	assert_int_equal(symlink(dir, path), 0);
	strcat(path, "/control");
	assert_true(pin_open(path, "map", &e) < 0);
	*strrchr(path, '/') = '\0';
	unlink(path);
	assert_int_equal(open_map("control", &e), 0);
}

static __u32 id_of(int fd)
{
	struct bpf_map_info info;

	assert_int_equal(bpf_info(fd, &info, sizeof(info)), 0);
	return info.id;
}

/* Exchanges two directories without end; false: this kernel's bpffs cannot. */
static bool exchange(const char *one, const char *other, bool for_ever)
{
	long r;

	do {
		r = syscall(SYS_renameat2, AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE);
	} while (for_ever);
	return !r;
}

/* How often the pin was opened in another directory than the one that was looked at. */
static unsigned int count_exchanged(const char *theirs)
{
	char path[2 * PATH_SIZE];
	unsigned int n_theirs = 0;
	int fd = pin_open(in(path, "control"), "map", NULL);
	__u32 ours = id_of(fd);
	pid_t child;

	close(fd);
	child = fork();
	if (!child)
		exchange(dir, theirs, true);
	for (unsigned int i = 0; i < 100000; i++) {
		fd = pin_open(in(path, "control"), "map", NULL);
		if (fd < 0)
			continue;
		n_theirs += id_of(fd) != ours;
		close(fd);
	}
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, NULL, 0), child);
	return n_theirs;
}

static void test_directory_is_exchanged(void **state)
{
	char theirs[PATH_SIZE + 8], path[2 * PATH_SIZE];
	struct stat st;
	unsigned int n_theirs = 0;
	bool can;
	int fd;

	NEEDS_BPFFS();
	snprintf(theirs, sizeof(theirs), "%s_x", dir);
	assert_int_equal(mkdir(theirs, 0777), 0);
	assert_int_equal(chmod(theirs, 0777), 0);
	snprintf(path, sizeof(path), "%s/control", theirs);
	fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "klb_control", 4, 8, 1, NULL);
	assert_int_equal(bpf_obj_pin(fd, path), 0);
	close(fd);
	can = exchange(dir, theirs, false) && exchange(dir, theirs, false);
	if (can)
		n_theirs = count_exchanged(theirs);
	/* Whichever is which now. */
	if (can && !stat(dir, &st) && st.st_mode & 02)
		exchange(dir, theirs, false);
	unlink(path);
	rmdir(theirs);
	if (!can)
		skip();
	assert_int_equal(n_theirs, 0);
}

/* A file elsewhere: the kernel refuses it as if it lacked permission. */
static void test_no_pin_at_all(void **state)
{
	char path[2 * PATH_SIZE];
	struct err e = { "" };

	NEEDS_BPFFS();
	write_file(in_dir(path, "control"), "text");
	assert_int_equal(pin_open(path, "map", &e), -EEXIST);
	assert_says(e.text, "not a map of kubelb's");
	assert_int_equal(pin_open(in(path, "control/x"), "link", &e), -EEXIST);
	assert_says(e.text, "not a link of kubelb's");
}

/* The next descriptor is one too many. */
static void test_no_descriptors(void **state)
{
	struct rlimit before, none;
	struct err e = { "" };
	char path[2 * PATH_SIZE];
	int r, next;

	NEEDS_BPFFS();
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	next = dup(0);
	close(next);
	none = before;
	none.rlim_cur = (rlim_t)next;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	r = open_map("control", &e);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_int_equal(r, -EMFILE);
	assert_says(e.text, "ulimit -n");
	assert_ptr_equal(strstr(e.text, in(path, "control")), e.text);
	assert_null(strstr(e.text, "move"));
}

/* Root without capabilities, where the kernel asks for them to open a pin: before 5.19. */
static void test_no_capabilities(void **state)
{
	int status;
	pid_t child;

	NEEDS_BPFFS();
	child = fork();
	if (!child) {
		struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
		struct __user_cap_data_struct none[2] = { { 0 } };
		struct err e = { "" };
		int r;

		if (syscall(SYS_capset, &head, none))
			_exit(9);
		r = open_map("control", &e);
		_exit(!r || (r == -EPERM && strstr(e.text, "CAP_SYS_ADMIN is missing") &&
			     !strstr(e.text, "move it"))
			      ? 0
			      : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

static void test_is_ours(void **state)
{
	static const int silent[] = { ENOMEM, EMFILE, ENFILE };

	(void)state;
	assert_int_equal(is_ours(0, "klb_stats"), 0);
	assert_int_equal(is_ours(0, "others"), -EEXIST);
	assert_int_equal(is_ours(-ENOENT, ""), -EEXIST);
	assert_int_equal(is_ours(-EACCES, "klb_stats"), -EPERM);
	for (size_t i = 0; i < ARRAY_SIZE(silent); i++)
		assert_int_equal(is_ours(-silent[i], "klb_stats"), -silent[i]);
}

static void test_each_cause_has_its_words(void **state)
{
	static const struct {
		int code;
		const char *words;
	} cases[] = {
		{ EPERM, "not permitted" }, { ENOMEM, "out of memory" },   { EMFILE, "ulimit -n" },
		{ ENFILE, "fs.file-max" },  { EIO, "Input/output error" }, { EINVAL, "--check" },
	};
	struct err e = { "" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_says(bpf_errno_hint(cases[i].code), cases[i].words);
		assert_int_equal(link_error("/x", cases[i].code, &e), -cases[i].code);
		assert_says(e.text, cases[i].words);
		assert_null(strstr(e.text, "move it away"));
	}
	assert_int_equal(link_error("/x", EEXIST, &e), -EEXIST);
	assert_says(e.text, "not a link of kubelb's; move it away");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		LEAVES_NOTHING(test_what_is_there),
		LEAVES_NOTHING(test_directory_of_somebody_else),
		LEAVES_NOTHING(test_directory_is_exchanged),
		LEAVES_NOTHING(test_no_pin_at_all),
		LEAVES_NOTHING(test_no_descriptors),
		LEAVES_NOTHING(test_no_capabilities),
		cmocka_unit_test(test_is_ours),
		cmocka_unit_test(test_each_cause_has_its_words),
	};

	if (make_dir(NULL) || setup(NULL))
		return 1;
	return cmocka_run_group_tests_name("pin", tests, NULL, NULL) + teardown(NULL) +
	       remove_made_dir(NULL);
}
