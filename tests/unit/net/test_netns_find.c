/* SPDX-License-Identifier: BSD-2-Clause */
/* Which network namespace this is, and whether another one still exists. Takes root. */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net/netns.h"
#include "unit.h"

/* A process in a namespace of its own, until its end. */
struct tenant {
	pid_t pid;
	struct netns_id id;
};

static void tenant_open(struct tenant *t)
{
	int told[2];

	assert_int_equal(pipe(told), 0);
	t->pid = fork();
	if (!t->pid) {
		struct netns_id id = { 0, 0 };

		if (!unshare(CLONE_NEWNET))
			id = netns_self();
		if (write(told[1], &id, sizeof(id)) == sizeof(id))
			pause();
		_exit(0);
	}
	close(told[1]);
	assert_int_equal(read(told[0], &t->id, sizeof(t->id)), sizeof(t->id));
	close(told[0]);
	assert_true(t->id.inode != 0);
}

static void tenant_end(struct tenant *t)
{
	kill(t->pid, SIGKILL);
	assert_int_equal(waitpid(t->pid, NULL, 0), t->pid);
}

static void test_same(void **state)
{
	static const struct {
		struct netns_id x, y;
		bool same;
	} cases[] = {
		{ { 1, 2 }, { 1, 2 }, true },
		{ { 1, 2 }, { 1, 3 }, false }, /* the number was given out again */
		{ { 1, 2 }, { 4, 2 }, true },
		{ { 1, 0 }, { 1, 3 }, true }, /* an old kernel tells no cookie */
		{ { 1, 2 }, { 4, 0 }, false },
		{ { 0, 2 }, { 0, 2 }, true },
		{ { 0, 2 }, { 0, 0 }, false },
		{ { 0, 0 }, { 0, 0 }, false },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(netns_same(&cases[i].x, &cases[i].y), cases[i].same);
		assert_int_equal(netns_same(&cases[i].y, &cases[i].x), cases[i].same);
	}
}

static void test_self(void **state)
{
	struct netns_id id = netns_self(), again = netns_self();
	__u64 cookie, inode;

	(void)state;
	assert_true(netns_same(&id, &again));
	assert_int_equal(netns_own(&inode), 0);
	assert_int_equal(id.inode, inode);
	if (!netns_cookie_at("/proc/self/ns/net", &cookie))
		assert_int_equal(id.cookie, cookie);
	assert_true(netns_cookie_at("/proc/self/ns/nothing", &cookie) < 0);
	assert_true(netns_cookie_at("/dev/null", &cookie) < 0);
}

static void test_found_and_gone(void **state)
{
	struct tenant t;
	__u32 pid;

	(void)state;
	tenant_open(&t);
	assert_int_equal(netns_find(&t.id, &pid), NETNS_FOUND);
	assert_int_equal(pid, t.pid);
	tenant_end(&t);
	assert_int_equal(netns_find(&t.id, &pid),
			 netns_pids_are_hidden() ? NETNS_UNSEEN : NETNS_GONE);
	assert_int_equal(pid, 0);
}

static void test_a_descriptor_keeps_it(void **state)
{
	struct tenant t;
	char path[64];
	__u32 pid;
	int fd;

	(void)state;
	tenant_open(&t);
	snprintf(path, sizeof(path), "/proc/%d/ns/net", t.pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	tenant_end(&t);
	assert_int_equal(netns_find(&t.id, &pid), NETNS_FOUND);
	assert_int_equal(pid, 0);
	close(fd);
}

/* A namespace's number is free when it is gone; the cookie is not. */
static void test_number_given_out_again(void **state)
{
	struct netns_id own = netns_self();
	struct tenant t;
	__u32 pid;

	(void)state;
	if (!own.cookie)
		skip();
	own.cookie += 1000000;
	assert_int_equal(netns_find(&own, &pid), NETNS_GONE);
	tenant_open(&t);
	t.id.cookie += 1000000;
	assert_int_not_equal(netns_find(&t.id, &pid), NETNS_FOUND);
	tenant_end(&t);
}

static void test_without_a_number(void **state)
{
	const struct netns_id id = { 0, 77 };
	__u32 pid;

	(void)state;
	assert_int_equal(netns_find(&id, &pid), NETNS_UNSEEN);
}

/* In a PID namespace of its own a process does not see the others. */
static void test_hidden(void **state)
{
	struct tenant t;
	int status;
	pid_t child;

	(void)state;
	tenant_open(&t);
	tenant_end(&t);
	child = fork();
	if (!child) {
		__u32 pid;

		if (unshare(CLONE_NEWPID) || (child = fork()) < 0)
			_exit(9);
		if (!child)
			_exit(netns_pids_are_hidden() ? (int)netns_find(&t.id, &pid) : 8);
		waitpid(child, &status, 0);
		_exit(WEXITSTATUS(status));
	}
	waitpid(child, &status, 0);
	assert_int_equal(WEXITSTATUS(status), NETNS_UNSEEN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same),
		LEAVES_NOTHING(test_self),
		LEAVES_NOTHING(test_found_and_gone),
		LEAVES_NOTHING(test_a_descriptor_keeps_it),
		LEAVES_NOTHING(test_number_given_out_again),
		LEAVES_NOTHING(test_without_a_number),
		LEAVES_NOTHING(test_hidden),
	};

	return cmocka_run_group_tests_name("netns_find", tests, NULL, NULL);
}
