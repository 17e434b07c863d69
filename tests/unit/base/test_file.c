/* SPDX-License-Identifier: BSD-2-Clause */
/* Small files, read whole: which are, which are not, and what is said then. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "unit.h"

#define MAX 8

static char path[PATH_SIZE];

/* A file in the tests' directory, to be removed with it. */
static const char *file(const char *name, const char *text)
{
	in_dir(path, name);
	write_file(path, text);
	return path;
}

static void check_read(const char *want)
{
	size_t length = 99;
	char *text = NULL;
	struct err e;
	int r = file_read(path, MAX, &text, &length, &e);

	if (r)
		fail_msg("%d: %s", r, e.text);
	assert_int_equal(length, strlen(want));
	/* With the NUL behind it. */
	assert_memory_equal(text, want, strlen(want) + 1);
	file_forget(text, length);
}

static void check_refused(int want, const char *says)
{
	size_t length = 99;
	char *text = NULL;
	struct err e = { "" };

	assert_int_equal(file_read(path, MAX, &text, &length, &e), want);
	assert_says(e.text, says);
	assert_ptr_equal(strstr(e.text, path), e.text);
	assert_null(text);
	assert_int_equal(length, 99);
}

static void whole_files(void **state)
{
	char link[PATH_SIZE];

	(void)state;
	file("small", "hello");
	check_read("hello");
	file("empty", "");
	check_read("");
	file("largest", "12345678");
	check_read("12345678");
	assert_int_equal(symlink("largest", in_dir(link, "link")), 0);
	in_dir(path, "link");
	check_read("12345678");
}

static void a_nul_is_a_byte_like_others(void **state)
{
	size_t length;
	struct err e;
	char *text;
	FILE *f;

	(void)state;
	f = fopen(in_dir(path, "nul"), "w");
	assert_non_null(f);
	assert_int_equal(fwrite("a\0b", 1, 3, f), 3);
	fclose(f);
	assert_int_equal(file_read(path, MAX, &text, &length, &e), 0);
	assert_int_equal(length, 3);
	assert_memory_equal(text, "a\0b", 4);
	file_forget(text, length);
	file_forget(NULL, 0);
}

static void what_is_no_small_file(void **state)
{
	(void)state;
	in_dir(path, "nothing");
	check_refused(-ENOENT, "no such file");
	file("large", "123456789");
	check_refused(-EFBIG, "larger than 8 bytes");
	assert_int_equal(mkdir(in_dir(path, "folder"), 0700), 0);
	check_refused(-EISDIR, "is a directory");
	/* Nobody writes to it, and nobody waits for that. */
	assert_int_equal(mkfifo(in_dir(path, "fifo"), 0600), 0);
	check_refused(-EINVAL, "is not a regular file");
	assert_int_equal(symlink("loop", in_dir(path, "loop")), 0);
	check_refused(-ELOOP, "cannot be opened");
	snprintf(path, sizeof(path), "/dev/zero");
	check_refused(-EINVAL, "is not a regular file");
}

/* --- with what next -------------------------------------------------------------------- */

static void check_named(int want, const char *says)
{
	size_t length;
	char *text = NULL;
	struct err e = { "" };

	assert_int_equal(file_read_named(path, "-c FILE", MAX, &text, &length, &e), want);
	if (!want)
		file_forget(text, length);
	else
		assert_says(e.text, says);
}

static void a_person_is_told_what_next(void **state)
{
	(void)state;
	file("small", "hello");
	check_named(0, "");
	in_dir(path, "nothing");
	check_named(-ENOENT, "no such file; create it, or name another with -c FILE");
	file("large", "123456789");
	check_named(-EFBIG, "so it is no configuration; name another with -c FILE");
	in_dir(path, ".");
	check_named(-EISDIR, "is a directory; name another with -c FILE");
}

static void another_users_file(void **state)
{
	uid_t before = geteuid();
	size_t length;
	char *text = NULL;
	struct err e = { "" };
	int r;

	(void)state;
	file("secret", "hello");
	if (before)
		assert_int_equal(chmod(path, 0), 0);
	else
		assert_int_equal(seteuid(65534), 0);
	r = file_read_named(path, "-c FILE", MAX, &text, &length, &e);
	assert_int_equal(seteuid(before), 0);
	assert_int_equal(r, -EACCES);
	assert_says(e.text, "check its permissions, or run as root");
}

/* Standard input is any kind of file. */
static void from_standard_input(void **state)
{
	int fds[2], real = dup(STDIN_FILENO);
	size_t length;
	struct err e;
	char *text;

	(void)state;
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(dup2(fds[0], STDIN_FILENO), STDIN_FILENO);
	assert_int_equal(write(fds[1], "hello", 5), 5);
	close(fds[1]);
	assert_int_equal(file_read_stdin("-f FILE", MAX, &text, &length, &e), 0);
	assert_string_equal(text, "hello");
	file_forget(text, length);
	close(fds[0]);

	file("large", "123456789");
	fds[0] = open(path, O_RDONLY);
	assert_int_equal(dup2(fds[0], STDIN_FILENO), STDIN_FILENO);
	assert_int_equal(file_read_stdin("-f FILE", MAX, &text, &length, &e), -EFBIG);
	assert_says(e.text, FILE_STDIN ": larger than 8 bytes");
	assert_says(e.text, "-f FILE");
	close(fds[0]);
	assert_int_equal(dup2(real, STDIN_FILENO), STDIN_FILENO);
	close(real);
}

/* --- identity -------------------------------------------------------------------------- */

static struct file_identity identity(void)
{
	struct file_identity id;

	memset(&id, 0xff, sizeof(id));
	file_identify(path, &id);
	return id;
}

static void assert_same(const struct file_identity *x, const struct file_identity *y, bool same)
{
	assert_int_equal(file_is_same(x, y), same);
	assert_int_equal(file_is_same(y, x), same);
}

static void what_is_not_there_is_all_zero(void **state)
{
	const struct file_identity none = { 0 };
	struct file_identity id;

	(void)state;
	in_dir(path, "nowhere");
	id = identity();
	assert_same(&id, &none, true);
	file("here", "");
	id = identity();
	assert_same(&id, &none, false);
}

static void a_file_that_is_left_alone_is_the_same(void **state)
{
	struct file_identity before, after;
	char link[PATH_SIZE];

	(void)state;
	file("kept", "hello");
	before = identity();
	check_read("hello");
	after = identity();
	assert_same(&before, &after, true);
	/* By another name, too. */
	assert_int_equal(symlink(path, in_dir(link, "to-kept")), 0);
	in_dir(path, "to-kept");
	after = identity();
	assert_same(&before, &after, true);
}

static void another_content_is_another_file(void **state)
{
	struct file_identity before, after;
	char other[PATH_SIZE];

	(void)state;
	file("changed", "hello");
	before = identity();
	file("changed", "hello, world");
	after = identity();
	assert_same(&before, &after, false);
	/* Of the same size, and put in its place. */
	in_dir(other, "changed.new");
	write_file(other, "HELLO, WORLD");
	assert_int_equal(rename(other, path), 0);
	before = after;
	after = identity();
	assert_same(&before, &after, false);
}

/* Each alone tells: a writer can set the time back, and rights decide what can be read. */
static void every_field_counts(void **state)
{
	const struct file_identity one = {
		.device = 1, .inode = 2, .size = 3, .modified = { 4, 5 }, .changed = { 6, 7 }
	};
	struct file_identity others[7];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		others[i] = one;
	others[0].device++;
	others[1].inode++;
	others[2].size++;
	others[3].modified.tv_sec++;
	others[4].modified.tv_nsec++;
	others[5].changed.tv_sec++;
	others[6].changed.tv_nsec++;
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		assert_same(&one, &others[i], false);
	assert_same(&one, &one, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		LEAVES_NOTHING(whole_files),
		LEAVES_NOTHING(a_nul_is_a_byte_like_others),
		LEAVES_NOTHING(what_is_no_small_file),
		LEAVES_NOTHING(a_person_is_told_what_next),
		LEAVES_NOTHING(another_users_file),
		LEAVES_NOTHING(from_standard_input),
		LEAVES_NOTHING(what_is_not_there_is_all_zero),
		LEAVES_NOTHING(a_file_that_is_left_alone_is_the_same),
		LEAVES_NOTHING(another_content_is_another_file),
		LEAVES_NOTHING(every_field_counts),
	};

	return cmocka_run_group_tests_name("file", tests, make_dir, remove_made_dir);
}
