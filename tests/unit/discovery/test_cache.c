/* SPDX-License-Identifier: BSD-2-Clause */
/* The list on disk: written whole or not at all, and read with suspicion. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "finder.h"
#include "pki.h"
#include "slices.h"
#include "unit.h"

static void test_cache(void **state)
{
	struct klb_endpoint list[] = { endpoint("10.0.0.2:6443"), endpoint("[fd00::1]:443") };
	struct discovery_cached c;
	char path[PATH_SIZE], temporary[PATH_SIZE];
	struct stat st;
	struct err e;

	(void)state;
	in_dir(path, "folder/cache.json");
	assert_int_equal(discovery_cache_load(path, NULL, 0, &c, &e), -ENOENT);
	assert_int_equal(discovery_cache_save(path, list, 2, &e), 0);
	assert_int_equal(discovery_cache_load(path, NULL, 0, &c, &e), 0);
	assert_string_equal(list_text(c.list, c.n), "10.0.0.2:6443 [fd00::1]:443");
	assert_true(labs((long)(time(NULL) - c.written)) < PATIENCE_S);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(stat(in_dir(temporary, "folder"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	/* What an earlier run left half done is no obstacle. */
	write_file(in_dir(temporary, "folder/cache.json.tmp"), "half");
	assert_int_equal(discovery_cache_save(path, list, 1, &e), 0);
	assert_int_equal(discovery_cache_load(path, NULL, 0, &c, &e), 0);
	assert_int_equal(c.n, 1);
	assert_int_equal(access(temporary, F_OK), -1);
	/* More than one level is somebody's mistake. */
	assert_int_equal(discovery_cache_save(in_dir(path, "a/b/cache.json"), list, 2, &e),
			 -ENOENT);
	assert_says(e.text, "a/b: cannot be created");
	assert_int_equal(discovery_cache_save("cache.json", list, 2, &e), -EINVAL);
	remove_dir(in_dir(path, "folder"));
}

#define CACHE(backends)                                                                     \
	"{\"kind\":\"kubelb-backends\",\"version\":1,\"written\":\"2026-01-02T03:04:05Z\"," \
	"\"backends\":[" backends "]}"

static void test_bad_caches(void **state)
{
	static const struct {
		const char *text, *says;
	} cases[] = {
		{ "", "not JSON" },
		{ "{\"kind\":\"kubelb-backends\",\"version\":1,\"wri", "not JSON" },
		{ "[]", "not a cache" },
		{ "{}", "not a cache" },
		{ "{\"kind\":\"Pod\"}", "not a cache" },
		{ "{\"kind\":\"kubelb-backends\",\"version\":2}", "version is not 1" },
		{ "{\"kind\":\"kubelb-backends\",\"version\":\"1\"}", "version is not 1" },
		{ "{\"kind\":\"kubelb-backends\",\"version\":1,\"backends\":[\"10.0.0.1:6443\"]}",
		  "written" },
		{ "{\"kind\":\"kubelb-backends\",\"version\":1,\"written\":\"yesterday\"}",
		  "written" },
		{ CACHE(""), "backends: not a list of 1 to 64" },
		{ CACHE("7"), "backends[0]: not a string" },
		{ CACHE("\"10.0.0.1\""), "no port" },
		{ CACHE("\"10.0.0.1:0\""), "port" },
		{ CACHE("\"10.0.0.1:6443\",\"localhost:6443\""), "backends[1]" },
		{ CACHE("\"127.0.0.1:6443\""), "no apiserver has" },
		{ CACHE("\"[::1]:6443\""), "no apiserver has" },
		{ CACHE("\"0.0.0.0:6443\""), "no apiserver has" },
		{ CACHE("\"224.0.0.1:6443\""), "no apiserver has" },
		{ CACHE("\"10.96.0.1:443\""), "is a frontend" },
		{ CACHE("\"10.0.0.1:6443\",\"::ffff:10.0.0.1\""), "no port" },
		{ CACHE("\"10.0.0.1:6443\",\"[::ffff:10.0.0.1]:6443\""), "twice" },
	};
	const struct klb_endpoint frontend = endpoint("10.96.0.1:443");
	struct discovery_cached c = { .n = 7 };
	char path[PATH_SIZE];
	struct err e;
	char *text;
	size_t i;

	(void)state;
	in_dir(path, "cache.json");
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		write_file(path, cases[i].text);
		if (discovery_cache_load(path, &frontend, 1, &c, &e) != -EINVAL)
			fail_msg("taken for good: %s", cases[i].text);
		assert_ptr_equal(strstr(e.text, path), e.text);
		assert_says(e.text, cases[i].says);
		assert_int_equal(c.n, 7);
	}
	text = repeat(CACHE("\"10.0.0.1:6443\"") "\n", " ", 70000, "");
	write_file(path, text);
	free(text);
	assert_int_equal(discovery_cache_load(path, &frontend, 1, &c, &e), -EINVAL);
	assert_says(e.text, "larger than");
	unlink(path);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(discovery_cache_load(path, &frontend, 1, &c, &e), -EINVAL);
	unlink(path);
	write_file(path, CACHE("\"10.0.0.1:6443\""));
	assert_int_equal(chmod(path, 0666), 0);
	assert_int_equal(discovery_cache_load(path, &frontend, 1, &c, &e), -EACCES);
	assert_says(e.text, "others can write it");
	assert_int_equal(chmod(path, 0644), 0);
	assert_int_equal(discovery_cache_load(path, &frontend, 1, &c, &e), 0);
	assert_int_equal(c.n, 1);
	unlink(path);
}

/* Exchanges two files without end, in a process of its own. */
static pid_t start_exchanging(const char *one, const char *other)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	for (;;)
		syscall(SYS_renameat2, AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE);
}

/*
 * Who may write in the folder exchanges the file while it is read: owner and mode are asked of the
 * very file that is read.
 */
static void test_cache_is_exchanged(void **state)
{
	char path[PATH_SIZE], clean[PATH_SIZE];
	unsigned int n_theirs = 0;
	pid_t pid;

	(void)state;
	write_file(in_dir(path, "exchanged.json"), CACHE("\"10.0.0.66:6443\""));
	assert_int_equal(chmod(path, 0666), 0);
	write_file(in_dir(clean, "clean.json"), CACHE("\"10.0.0.1:6443\""));
	assert_int_equal(chmod(clean, 0600), 0);
	pid = start_exchanging(path, clean);
	assert_true(pid > 0);
	for (unsigned int i = 0; i < 20000; i++) {
		struct discovery_cached c;

		if (!discovery_cache_load(path, NULL, 0, &c, NULL))
			n_theirs += strcmp(list_text(c.list, c.n), "10.0.0.1:6443") != 0;
	}
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(n_theirs, 0);
	unlink(path);
	unlink(clean);
}

/* Nobody but root makes files of root, but links to them anybody can make. */
static void test_cache_is_no_link(void **state)
{
	char path[PATH_SIZE], real[PATH_SIZE];
	struct discovery_cached c;
	struct stat st;
	struct err e;

	(void)state;
	write_file(in_dir(real, "real.json"), CACHE("\"10.0.0.1:6443\""));
	assert_int_equal(chmod(real, 0600), 0);
	assert_int_equal(symlink(real, in_dir(path, "link.json")), 0);
	assert_int_equal(discovery_cache_load(path, NULL, 0, &c, &e), -ELOOP);
	assert_says(e.text, "is a link and is ignored");
	/* The next list takes its place, and what it led to stays as it is. */
	assert_int_equal(discovery_cache_save(
				 path, &(struct klb_endpoint[]){ endpoint("10.0.0.2") }[0], 1, &e),
			 0);
	assert_int_equal(lstat(path, &st), 0);
	assert_true(S_ISREG(st.st_mode));
	assert_non_null(strstr(read_file(real), "10.0.0.1:6443"));
	unlink(path);
	unlink(real);
}

/* In a process of its own, with no more than 64 bytes left in any file. */
static void test_cache_disk_full(void **state)
{
	struct klb_endpoint old = endpoint("10.0.0.1:6443"), new = endpoint("10.0.0.2:6443");
	char path[PATH_SIZE], temporary[PATH_SIZE];
	struct discovery_cached c;
	struct err e;
	int status;
	pid_t pid;

	(void)state;
	in_dir(path, "full.json");
	assert_int_equal(discovery_cache_save(path, &old, 1, &e), 0);
	pid = fork();
	if (!pid) {
		/* The hard limit stays: tests/coverage.h raises the soft one again. */
		const struct rlimit limit = { 64, RLIM_INFINITY };

		signal(SIGXFSZ, SIG_IGN);
		setrlimit(RLIMIT_FSIZE, &limit);
		_exit(discovery_cache_save(path, &new, 1, &e) == -EFBIG &&
				      strstr(e.text, "cannot be written")
			      ? 0
			      : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	assert_int_equal(discovery_cache_load(path, NULL, 0, &c, &e), 0);
	assert_string_equal(list_text(c.list, c.n), "10.0.0.1:6443");
	assert_int_equal(access(in_dir(temporary, "full.json.tmp"), F_OK), -1);
	unlink(path);
}

/*
 * While discovery runs
 */

static void test_cache_follows(void **state)
{
	char path[PATH_SIZE];
	struct discovery_cached c;
	struct finder f;
	struct err e;

	(void)state;
	finder_init(&f);
	f.options.cache = in_dir(path, "lib/backends.json");
	finder_start(&f);
	finder_watch(&f);
	send_chunk(&f, EVENT("ADDED", OBJECT("b", "43", READY("10.0.0.2"))) "\n");
	finder_run(&f, &f.updates, 2);
	send_chunk(&f, EVENT("ADDED", OBJECT("b", "44", READY("10.0.0.3"))) "\n");
	finder_run(&f, &f.updates, 3);
	/* The end waits for the disk. */
	finder_close(&f);
	assert_int_equal(discovery_cache_load(path, NULL, 0, &c, &e), 0);
	assert_string_equal(list_text(c.list, c.n), "10.0.0.1:6443 10.0.0.3:6443");
	remove_dir(in_dir(path, "lib"));
}

static void test_cache_failure(void **state)
{
	char path[PATH_SIZE];
	struct finder f;

	(void)state;
	finder_init(&f);
	f.options.cache = in_dir(path, "not/there/backends.json");
	finder_start(&f);
	finder_watch(&f);
	finder_run(&f, &f.warnings, 1);
	assert_says(f.warning, "could not be cached");
	assert_says(f.warning, "not/there: cannot be created");
	/* The same list again is another chance. */
	send_chunk(&f, EVENT("MODIFIED", OBJECT("a", "43", READY("10.0.0.1"))) "\n");
	finder_run(&f, &f.warnings, 2);
	assert_int_equal(mkdir(in_dir(path, "not"), 0700), 0);
	send_chunk(&f, EVENT("MODIFIED", OBJECT("a", "44", READY("10.0.0.1"))) "\n");
	await_result(&f, DISCOVERY_UNCHANGED, 2);
	finder_close(&f);
	assert_int_equal(f.warnings, 2);
	assert_non_null(
		strstr(read_file(in_dir(path, "not/there/backends.json")), "10.0.0.1:6443"));
	remove_dir(in_dir(path, "not"));
}

/* What the owner goes by already need not be in the file: another one, an older one, none. */
static void test_cache_of_what_is_believed(void **state)
{
	static const char *const contents[] = {
		NULL,
		"junk",
		"{\"kind\":\"kubelb-backends\",\"version\":1,"
		"\"written\":\"2026-01-01T00:00:00Z\",\"backends\":[\"10.0.0.9:6443\"]}",
	};
	struct klb_endpoint known = endpoint("10.0.0.1:6443");
	char path[PATH_SIZE];
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(contents); i++) {
		struct discovery_cached c;
		struct finder f;
		struct err e;

		finder_init(&f);
		f.options.cache = in_dir(path, "other.json");
		f.options.initial = &known;
		f.options.n_initial = 1;
		if (contents[i])
			write_file(path, contents[i]);
		finder_start(&f);
		answer_list(&f, ONE);
		await_result(&f, DISCOVERY_UNCHANGED, 1);
		finder_close(&f);
		assert_int_equal(f.updates, 0);
		assert_int_equal(discovery_cache_load(path, NULL, 0, &c, &e), 0);
		assert_string_equal(list_text(c.list, c.n), "10.0.0.1:6443");
		unlink(path);
	}
}

/* A file that holds the list already is left alone: no node writes for every hour's list. */
static void test_cache_that_is_right(void **state)
{
	struct klb_endpoint known = endpoint("10.0.0.1:6443");
	char path[PATH_SIZE];
	struct stat before, after;
	struct finder f;
	struct err e;

	(void)state;
	finder_init(&f);
	f.options.cache = in_dir(path, "right.json");
	f.options.initial = &known;
	f.options.n_initial = 1;
	assert_int_equal(discovery_cache_save(path, &known, 1, &e), 0);
	assert_int_equal(stat(path, &before), 0);
	finder_start(&f);
	answer_list(&f, ONE);
	await_result(&f, DISCOVERY_UNCHANGED, 1);
	finder_close(&f);
	assert_int_equal(stat(path, &after), 0);
	assert_int_equal(after.st_ino, before.st_ino);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		LEAVES_NOTHING(test_cache),
		LEAVES_NOTHING(test_bad_caches),
		LEAVES_NOTHING(test_cache_is_exchanged),
		LEAVES_NOTHING(test_cache_is_no_link),
		LEAVES_NOTHING(test_cache_disk_full),
		LEAVES_NOTHING(test_cache_follows),
		LEAVES_NOTHING(test_cache_failure),
		LEAVES_NOTHING(test_cache_of_what_is_believed),
		LEAVES_NOTHING(test_cache_that_is_right),
	};

	return cmocka_run_group_tests(tests, pki_make, pki_remove);
}
