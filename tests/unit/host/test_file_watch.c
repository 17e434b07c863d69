/* SPDX-License-Identifier: BSD-2-Clause */
/* Changes of files as editors, kubelets and certificate managers make them. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <event2/event.h>

#include "host/file_watch.h"
#include "unit.h"

/* Longer than a burst takes to settle: what has not been told by then never is. */
#define QUIET_MS 300
#define PATIENCE_MS 5000

struct fixture {
	char dir[PATH_MAX / 4];
	struct event_base *base;
	struct filewatch *watch;
	struct event *limit;
	int calls;
	int wanted; /* ends the loop */
	int slow, again; /* how often it was told */
	char why[256];
};

static void on_changed(void *arg)
{
	struct fixture *f = arg;

	if (++f->calls == f->wanted)
		event_base_loopbreak(f->base);
}

static void on_slow(void *arg, const char *why)
{
	struct fixture *f = arg;

	if (why)
		snprintf(f->why, sizeof(f->why), "%s", why);
	f->slow += why != NULL;
	f->again += !why;
	event_base_loopbreak(f->base);
}

static const struct filewatch_ops ops = { .changed = on_changed, .slow = on_slow };

static char *path_of(const struct fixture *f, const char *name, char *ret)
{
	snprintf(ret, PATH_MAX, "%s/%s", f->dir, name);
	return ret;
}

static void put(const struct fixture *f, const char *name, const char *text)
{
	char path[PATH_MAX];
	FILE *file = fopen(path_of(f, name, path), "w");

	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

static void move(const struct fixture *f, const char *from, const char *to)
{
	char x[PATH_MAX], y[PATH_MAX];

	assert_int_equal(rename(path_of(f, from, x), path_of(f, to, y)), 0);
}

static void link_to(const struct fixture *f, const char *target, const char *name)
{
	char path[PATH_MAX];

	assert_int_equal(symlink(target, path_of(f, name, path)), 0);
}

static void make_folder(const struct fixture *f, const char *name)
{
	char path[PATH_MAX];

	assert_int_equal(mkdir(path_of(f, name, path), 0755), 0);
}

static void drop(const struct fixture *f, const char *name)
{
	char path[PATH_MAX];

	assert_int_equal(remove(path_of(f, name, path)), 0);
}

static int watch(struct fixture *f, const char *const *names, unsigned int n, struct err *e)
{
	struct filewatch_file files[FILEWATCH_MAX + 1] = { { .path = NULL } };
	char text[FILEWATCH_MAX + 1][PATH_MAX];

	assert_in_range(n, 1, FILEWATCH_MAX + 1);
	for (unsigned int i = 0; i < n; i++) {
		if (!names[i])
			continue;
		files[i].path = path_of(f, names[i], text[i]);
		file_identify(files[i].path, &files[i].seen);
	}
	return filewatch_new(f->base, files, n, &ops, f, &f->watch, e);
}

static void watch_ok(struct fixture *f, const char *name)
{
	struct err e = { "" };

	if (watch(f, &name, 1, &e))
		fail_msg("%s", e.text);
}

static void on_limit(evutil_socket_t fd, short what, void *arg)
{
	struct fixture *f = arg;

	(void)fd;
	(void)what;
	event_base_loopbreak(f->base);
}

static void run_for(struct fixture *f, int ms)
{
	struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

	event_add(f->limit, &tv);
	event_base_dispatch(f->base);
	event_del(f->limit);
}

/* One more call, and no second one: a burst is one piece of news. */
static void expect_one(struct fixture *f)
{
	int before = f->calls;

	f->wanted = before + 1;
	run_for(f, PATIENCE_MS);
	assert_int_equal(f->calls, before + 1);
	f->wanted = 0;
	run_for(f, QUIET_MS);
	assert_int_equal(f->calls, before + 1);
}

static void expect_none(struct fixture *f)
{
	int before = f->calls;

	f->wanted = 0;
	run_for(f, QUIET_MS);
	assert_int_equal(f->calls, before);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	snprintf(f->dir, sizeof(f->dir), "/tmp/kubelb-test-filewatch-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	f->base = event_base_new();
	assert_non_null(f->base);
	f->limit = evtimer_new(f->base, on_limit, f);
	assert_non_null(f->limit);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char command[PATH_MAX];

	filewatch_free(f->watch);
	event_free(f->limit);
	event_base_free(f->base);
	snprintf(command, sizeof(command), "rm -rf '%s'", f->dir);
	assert_int_equal(system(command), 0);
	free(f);
	return 0;
}

/* --- what is a change ------------------------------------------------------------------ */

static void written_in_place(void **state)
{
	struct fixture *f = *state;

	put(f, "a", "one");
	watch_ok(f, "a");
	expect_none(f);
	put(f, "a", "two");
	expect_one(f);
	/* And again: the watch has not worn out. */
	put(f, "a", "three");
	expect_one(f);
}

static void renamed_over(void **state)
{
	struct fixture *f = *state;

	put(f, "a", "one");
	watch_ok(f, "a");
	for (int i = 0; i < 2; i++) {
		put(f, "a.new", "one");
		move(f, "a.new", "a");
		expect_one(f);
	}
}

/* As the kubelet mounts a ConfigMap: file -> ..data/file, ..data -> ..<time>, and an update
 * renames another ..data over the old one and removes the old directory. */
static void config_map(void **state)
{
	struct fixture *f = *state;

	make_folder(f, "..1");
	put(f, "..1/a", "one");
	link_to(f, "..1", "..data");
	link_to(f, "..data/a", "a");
	watch_ok(f, "a");
	expect_none(f);
	for (int i = 2; i < 4; i++) {
		char dir[16], file[32], old[32];

		snprintf(dir, sizeof(dir), "..%d", i);
		snprintf(file, sizeof(file), "..%d/a", i);
		make_folder(f, dir);
		put(f, file, "one");
		link_to(f, dir, "..data_tmp");
		move(f, "..data_tmp", "..data");
		snprintf(old, sizeof(old), "..%d/a", i - 1);
		drop(f, old);
		snprintf(old, sizeof(old), "..%d", i - 1);
		drop(f, old);
		expect_one(f);
	}
}

/* As the kubelet rotates its certificate. */
static void link_to_another_file(void **state)
{
	struct fixture *f = *state;

	put(f, "client-1.pem", "one");
	put(f, "client-2.pem", "one");
	link_to(f, "client-1.pem", "current.pem");
	watch_ok(f, "current.pem");
	link_to(f, "client-2.pem", "current.tmp");
	move(f, "current.tmp", "current.pem");
	expect_one(f);
	put(f, "client-1.pem", "of no interest any more");
	expect_none(f);
}

/* A link into another directory, and the file there written in place. */
static void behind_a_link(void **state)
{
	struct fixture *f = *state;

	make_folder(f, "far");
	make_folder(f, "farther");
	put(f, "far/b", "one");
	put(f, "farther/b", "one");
	link_to(f, "far/b", "a");
	watch_ok(f, "a");
	put(f, "far/b", "two");
	expect_one(f);
	/* Where it leads to after a change is watched as well. */
	link_to(f, "farther/b", "a.tmp");
	move(f, "a.tmp", "a");
	expect_one(f);
	put(f, "farther/b", "two");
	expect_one(f);
}

/* A path from where the agent stands, and itself the link. */
static void relative_link(void **state)
{
	struct fixture *f = *state;
	struct filewatch_file file = { .path = "file" };
	char was[PATH_MAX];
	int r;

	make_folder(f, "far");
	put(f, "far/b", "one");
	link_to(f, "far/b", "file");
	assert_non_null(getcwd(was, sizeof(was)));
	assert_int_equal(chdir(f->dir), 0);
	file_identify(file.path, &file.seen);
	r = filewatch_new(f->base, &file, 1, &ops, f, &f->watch, NULL);
	drop(f, "far/b");
	f->wanted = 1;
	run_for(f, PATIENCE_MS);
	put(f, "far/b", "two");
	f->wanted = 2;
	run_for(f, PATIENCE_MS);
	/* Before anything can fail: the next test starts from there. */
	assert_int_equal(chdir(was), 0);
	assert_int_equal(r, 0);
	assert_int_equal(f->calls, 2);
}

/* What leads nowhere is watched as far as it goes. */
static void link_that_leads_nowhere_yet(void **state)
{
	struct fixture *f = *state;

	make_folder(f, "there");
	link_to(f, "there/missing/file", "file");
	watch_ok(f, "file");
	make_folder(f, "there/missing");
	put(f, "there/missing/file", "one");
	expect_one(f);
}

static void deleted_and_there_again(void **state)
{
	struct fixture *f = *state;

	put(f, "a", "one");
	watch_ok(f, "a");
	drop(f, "a");
	expect_one(f);
	put(f, "a", "one");
	expect_one(f);
}

static void there_for_the_first_time(void **state)
{
	struct fixture *f = *state;

	watch_ok(f, "a");
	expect_none(f);
	put(f, "a", "one");
	expect_one(f);
}

/* Read, and changed before it was watched. */
static void changed_before_it_was_watched(void **state)
{
	struct fixture *f = *state;
	struct filewatch_file file;
	char path[PATH_MAX];

	put(f, "a", "one");
	file.path = path_of(f, "a", path);
	file_identify(path, &file.seen);
	put(f, "a", "two");
	assert_int_equal(filewatch_new(f->base, &file, 1, &ops, f, &f->watch, NULL), 0);
	expect_one(f);
	put(f, "a", "three");
	expect_one(f);
}

/* A writer that keeps the size, and sets the time back (cp -p, tar, rsync -t). */
static void same_size_and_time(void **state)
{
	struct fixture *f = *state;
	struct timespec times[2] = { { .tv_sec = 1000000 }, { .tv_sec = 1000000 } };
	char path[PATH_MAX];

	put(f, "a", "one");
	assert_int_equal(utimensat(AT_FDCWD, path_of(f, "a", path), times, 0), 0);
	watch_ok(f, "a");
	expect_none(f);
	put(f, "a", "two");
	assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
	expect_one(f);
}

/* Any level of what leads to the file. */
static void directories_that_come_later(void **state)
{
	struct fixture *f = *state;

	watch_ok(f, "x/y/a");
	expect_none(f);
	make_folder(f, "x");
	expect_none(f);
	make_folder(f, "x/y");
	expect_none(f);
	put(f, "x/y/a", "one");
	expect_one(f);
	put(f, "x/y/a", "two");
	expect_one(f);
	drop(f, "x/y/a");
	drop(f, "x/y");
	drop(f, "x");
	expect_one(f);
	/* And all at once. */
	make_folder(f, "x");
	make_folder(f, "x/y");
	put(f, "x/y/a", "one");
	expect_one(f);
}

/* The directory goes, and comes back when it likes. */
static void directory_recreated(void **state)
{
	struct fixture *f = *state;

	make_folder(f, "d");
	put(f, "d/a", "one");
	watch_ok(f, "d/a");
	drop(f, "d/a");
	drop(f, "d");
	expect_one(f);
	expect_none(f);
	make_folder(f, "d");
	put(f, "d/a", "one");
	expect_one(f);
	put(f, "d/a", "two");
	expect_one(f);
}

/* One that could not be read may be readable now. */
static void other_rights(void **state)
{
	struct fixture *f = *state;
	char path[PATH_MAX];

	put(f, "a", "one");
	watch_ok(f, "a");
	assert_int_equal(chmod(path_of(f, "a", path), 0600), 0);
	expect_one(f);
	assert_int_equal(chown(path, 1, 1), 0);
	expect_one(f);
}

/* --- and what is none -------------------------------------------------------------------- */

static void other_files(void **state)
{
	struct fixture *f = *state;

	put(f, "a", "one");
	watch_ok(f, "a");
	put(f, "b", "one");
	move(f, "b", "c");
	drop(f, "c");
	expect_none(f);
}

static void only_read(void **state)
{
	struct fixture *f = *state;
	char path[PATH_MAX];
	FILE *file;

	put(f, "a", "one");
	watch_ok(f, "a");
	file = fopen(path_of(f, "a", path), "r");
	assert_non_null(file);
	assert_int_equal(fgetc(file), 'o');
	fclose(file);
	expect_none(f);
}

/* --- bursts --------------------------------------------------------------------------------- */

static void a_burst_is_one_change(void **state)
{
	struct fixture *f = *state;
	const char *const names[] = { "a", NULL, "b" };
	struct err e = { "" };

	put(f, "a", "one");
	put(f, "b", "one");
	assert_int_equal(watch(f, names, 3, &e), 0);
	for (int i = 0; i < 200; i++) {
		char text[16];

		snprintf(text, sizeof(text), "%d", i);
		put(f, "a", text);
		put(f, "b.new", text);
		move(f, "b.new", "b");
	}
	expect_one(f);
	/* Each of them is watched. */
	put(f, "b", "two");
	expect_one(f);
	put(f, "a", "two");
	expect_one(f);
}

static void write_other(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	put(arg, "busy", "x");
}

/* Somebody who writes into the same directory all the time keeps nothing from being told. */
static void busy_directory(void **state)
{
	struct fixture *f = *state;
	struct timeval often = { .tv_usec = 20000 };
	struct event *busy = event_new(f->base, -1, EV_PERSIST, write_other, f);

	assert_non_null(busy);
	put(f, "a", "one");
	watch_ok(f, "a");
	event_add(busy, &often);
	run_for(f, 50);
	put(f, "a", "two");
	f->wanted = 1;
	run_for(f, PATIENCE_MS);
	event_free(busy);
	assert_int_equal(f->calls, 1);
}

/* --- errors ----------------------------------------------------------------------------------- */

static void too_many(void **state)
{
	struct fixture *f = *state;
	const char *names[FILEWATCH_MAX + 1];
	struct err e = { "" };

	for (int i = 0; i <= FILEWATCH_MAX; i++)
		names[i] = "a";
	assert_int_equal(watch(f, names, FILEWATCH_MAX, &e), 0);
	filewatch_free(f->watch);
	f->watch = NULL;
	assert_int_equal(watch(f, names, FILEWATCH_MAX + 1, &e), -E2BIG);
	assert_null(f->watch);
}

static void no_descriptor_is_left(void **state)
{
	struct fixture *f = *state;
	const char *names[FILEWATCH_MAX + 1];
	int before = dup(0), after;

	close(before);
	watch_ok(f, "a");
	filewatch_free(f->watch);
	f->watch = NULL;
	for (int i = 0; i <= FILEWATCH_MAX; i++)
		names[i] = "a";
	assert_int_not_equal(watch(f, names, FILEWATCH_MAX + 1, NULL), 0);
	filewatch_free(NULL);
	after = dup(0);
	close(after);
	assert_int_equal(before, after);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* current -> r1, then -> r2, above the file; the way a release or a checkout is swapped. */
static void directory_link_on_the_way(void **state)
{
	struct fixture *f = *state;

	make_folder(f, "r1");
	make_folder(f, "r2");
	make_folder(f, "etc");
	put(f, "r1/k.yaml", "one");
	put(f, "r2/k.yaml", "two");
	link_to(f, "r1", "current");
	link_to(f, "../current/k.yaml", "etc/k.yaml");
	watch_ok(f, "etc/k.yaml");
	link_to(f, "r2", "next");
	move(f, "next", "current");
	expect_one(f);
	put(f, "r2/k.yaml", "three");
	expect_one(f);
	put(f, "r1/k.yaml", "nobody's any more");
	expect_none(f);
	drop(f, "etc/k.yaml");
	expect_one(f);
	drop(f, "current");
	drop(f, "r1/k.yaml");
	drop(f, "r2/k.yaml");
	drop(f, "r1");
	drop(f, "r2");
	drop(f, "etc");
}

/* A circle of links is a file that is not there. */
static void links_in_a_circle(void **state)
{
	struct fixture *f = *state;

	link_to(f, "b", "a");
	link_to(f, "a", "b");
	watch_ok(f, "a");
	drop(f, "b");
	put(f, "b", "one");
	expect_one(f);
	drop(f, "a");
	drop(f, "b");
}

/* --- limits ------------------------------------------------------------------------- */

/* How many descriptors there may be; 0: none beyond those that are open. Returns the limit before.
 */
static rlim_t limit_files(rlim_t n)
{
	int next = dup(0);
	struct rlimit limit;
	rlim_t before;

	close(next);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	before = limit.rlim_cur;
	limit.rlim_cur = n ? n : (rlim_t)next;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	return before;
}

/* Nothing can be watched: it is told once, a change is noticed late, and then all is well. */
static void no_descriptors_for_a_while(void **state)
{
	struct fixture *f = *state;
	rlim_t before;

	put(f, "a", "one");
	before = limit_files(0);
	watch_ok(f, "a");
	run_for(f, PATIENCE_MS);
	/* Without one for the log, too, nothing can fail before it is back. */
	limit_files(before);
	assert_int_equal(f->slow, 1);
	assert_int_equal(f->again, 0);
	assert_says(f->why, "LimitNOFILE=");
	put(f, "a", "two");
	limit_files(0);
	f->wanted = 1;
	run_for(f, PATIENCE_MS);
	limit_files(before);
	assert_int_equal(f->calls, 1);
	assert_int_equal(f->slow, 1);
	run_for(f, PATIENCE_MS);
	assert_int_equal(f->again, 1);
	put(f, "a", "three");
	expect_one(f);
	assert_int_equal(f->slow, 1);
	assert_int_equal(f->again, 1);
}

static bool set_limit(const char *path, const char *text)
{
	FILE *file = fopen(path, "we");
	bool done = file && fputs(text, file) >= 0;

	return file && !fclose(file) && done;
}

/* In a child, in a user namespace with limits of its own. Returns what went wrong, or 0. */
static int try_limit(struct fixture *f, const char *path, const char *words)
{
	f->base = event_base_new();
	f->limit = evtimer_new(f->base, on_limit, f);
	if (unshare(CLONE_NEWUSER) || !set_limit(path, "0"))
		return 77;
	watch_ok(f, "a");
	run_for(f, PATIENCE_MS);
	if (f->slow != 1 || !strstr(f->why, words))
		return 1;
	if (!set_limit(path, "100"))
		return 2;
	run_for(f, PATIENCE_MS);
	return f->again == 1 && f->slow == 1 ? 0 : 3;
}

static void no_watches_for_a_while(void **state)
{
	static const struct {
		const char *path, *words;
	} cases[] = {
		{ "/proc/sys/user/max_inotify_watches", "fs.inotify.max_user_watches" },
		{ "/proc/sys/user/max_inotify_instances", "fs.inotify.max_user_instances" },
	};
	struct fixture *f = *state;

	put(f, "a", "one");
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		pid_t child = fork();
		int status;

		if (!child)
			_exit(try_limit(f, cases[i].path, cases[i].words));
		assert_int_equal(waitpid(child, &status, 0), child);
		if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
			skip(); /* no user namespaces here */
		assert_int_equal(status, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(written_in_place),
		TEST(directory_link_on_the_way),
		TEST(links_in_a_circle),
		TEST(relative_link),
		TEST(link_that_leads_nowhere_yet),
		TEST(renamed_over),
		TEST(config_map),
		TEST(link_to_another_file),
		TEST(behind_a_link),
		TEST(deleted_and_there_again),
		TEST(there_for_the_first_time),
		TEST(changed_before_it_was_watched),
		TEST(same_size_and_time),
		TEST(directories_that_come_later),
		TEST(directory_recreated),
		TEST(other_rights),
		TEST(other_files),
		TEST(only_read),
		TEST(a_burst_is_one_change),
		TEST(busy_directory),
		TEST(too_many),
		TEST(no_descriptor_is_left),
		TEST(no_descriptors_for_a_while),
		TEST(no_watches_for_a_while),
	};

	return cmocka_run_group_tests_name("filewatch", tests, NULL, NULL);
}
