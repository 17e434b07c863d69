/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the filters refuse, and what they leave. Each call in a child that keeps all capabilities,
 * with arguments that the kernel itself refuses in another way. Takes root.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/refusal.h"
#include "host/seccomp.h"
#include "unit.h"

#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif

enum stage { UNFILTERED, BEGUN, REDUCED, REDUCED_FOR_PODS };

struct call {
	const char *name;
	long number;
	enum stage from; /* where it is refused first; REDUCED: not for pods */
	long first; /* argument; all others are -1 */
};

#define ALWAYS(name)                         \
	{                                    \
#name, SYS_##name, BEGUN, -1 \
	}
#define AGENT(name)                                     \
	{                                               \
#name, SYS_##name, REDUCED_FOR_PODS, -1 \
	}
#define PODS(name)                             \
	{                                      \
#name, SYS_##name, REDUCED, -1 \
	}

static const struct call calls[] = {
	ALWAYS(execve),
	ALWAYS(execveat),
	ALWAYS(ptrace),
	ALWAYS(process_vm_readv),
	ALWAYS(process_vm_writev),
	ALWAYS(kcmp),
	ALWAYS(init_module),
	ALWAYS(finit_module),
	ALWAYS(delete_module),
	ALWAYS(kexec_load),
	ALWAYS(kexec_file_load),
	ALWAYS(reboot),
	ALWAYS(syslog),
	ALWAYS(unshare),
	ALWAYS(pivot_root),
	ALWAYS(chroot),
	ALWAYS(add_key),
	ALWAYS(request_key),
	ALWAYS(keyctl),
	ALWAYS(userfaultfd),
	ALWAYS(perf_event_open),
	ALWAYS(io_uring_setup),
	ALWAYS(io_uring_enter),
	ALWAYS(io_uring_register),
	ALWAYS(fanotify_init),
	ALWAYS(personality),
	ALWAYS(swapon),
	ALWAYS(swapoff),
	ALWAYS(acct),
	ALWAYS(quotactl),
	ALWAYS(settimeofday),
	ALWAYS(clock_settime),
	ALWAYS(clock_adjtime),
	ALWAYS(adjtimex),
	ALWAYS(sethostname),
	ALWAYS(setdomainname),
#ifdef __x86_64__
	ALWAYS(iopl),
	ALWAYS(ioperm),
	ALWAYS(modify_ldt),
#endif
	AGENT(mount),
	AGENT(umount2),
	AGENT(move_mount),
	AGENT(open_tree),
	AGENT(fsopen),
	AGENT(fsconfig),
	AGENT(fsmount),
	AGENT(mount_setattr),
	AGENT(open_by_handle_at),
	PODS(setns),
	PODS(pidfd_getfd),
	/* Namespaces of users, without which the kernel would ask for a capability. */
	{ "clone(NEWUSER)", SYS_clone, BEGUN, CLONE_NEWUSER | CLONE_THREAD },
	{ "clone(NEWNS)", SYS_clone, BEGUN, CLONE_NEWNS | CLONE_FS },
	{ "clone(NEWNET)", SYS_clone, BEGUN, CLONE_NEWNET | CLONE_THREAD },
	{ "clone(NEWPID)", SYS_clone, BEGUN, CLONE_NEWPID | CLONE_THREAD },
};

static int filter(enum stage s)
{
	struct err e;

	if (s == UNFILTERED)
		return 0;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || seccomp_begin(&e))
		return -1;
	return s == BEGUN ? 0 : seccomp_reduce(s == REDUCED_FOR_PODS, &e);
}

/* The errno of the call after these filters. */
static int answer(const struct call *c, enum stage s)
{
	int status;
	pid_t child = fork();

	if (!child) {
		if (filter(s))
			_exit(255);
		_exit(syscall(c->number, c->first, -1L, -1L, -1L, -1L, -1L) < 0 ? errno : 0);
	}
	assert_true(child > 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static bool is_refused(const struct call *c, enum stage s)
{
	return s == REDUCED || (c->from <= s && c->from != REDUCED);
}

static void what_the_agent_never_does_is_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
		const struct call *c = &calls[i];

		/* Of a machine that forbids it to everybody the test learns nothing. */
		if (answer(c, UNFILTERED) == EPERM) {
			print_message("%s: not tested, it is refused without a filter\n", c->name);
			continue;
		}
		for (enum stage s = BEGUN; s <= REDUCED_FOR_PODS; s++)
			if (is_refused(c, s) != (answer(c, s) == EPERM))
				fail_msg("%s, after filters %d: errno %d", c->name, s,
					 answer(c, s));
	}
}

static int in_child(int (*check)(void))
{
	int status;
	pid_t child = fork();

	if (!child)
		_exit(check());
	assert_int_equal(waitpid(child, &status, 0), child);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void *set_flag(void *flag)
{
	*(volatile int *)flag = 1;
	return NULL;
}

static int start_thread(void)
{
	volatile int flag = 0;
	pthread_t t;

	return pthread_create(&t, NULL, set_flag, (void *)&flag) || pthread_join(t, NULL) || !flag;
}

static int start_process(void)
{
	int status;
	pid_t child = fork();

	if (!child)
		_exit(7);
	return waitpid(child, &status, 0) != child || WEXITSTATUS(status) != 7;
}

/* The lookup of a name is a thread, attaching a process. */
static void threads_and_processes_start(void **state)
{
	(void)state;
	for (enum stage s = BEGUN; s <= REDUCED_FOR_PODS; s++) {
		int status;
		pid_t child = fork();

		if (!child)
			_exit(filter(s) || start_thread() || start_process());
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_int_equal(status, 0);
	}
}

static void *execute(void *ret)
{
	while (!*(volatile int *)ret)
		if (syscall(SYS_execve, -1L, -1L, -1L) < 0 && errno == EPERM)
			*(volatile int *)ret = 1;
	return NULL;
}

static int refuse_in_a_running_thread(void)
{
	volatile int refused = 0;
	pthread_t t;

	alarm(30);
	return pthread_create(&t, NULL, execute, (void *)&refused) || filter(BEGUN) ||
	       pthread_join(t, NULL);
}

static void threads_that_run_already_are_filtered(void **state)
{
	(void)state;
	assert_int_equal(in_child(refuse_in_a_running_thread), 0);
}

static bool blames_a_filter(void)
{
	return strstr(refusal_text(), "a seccomp filter is on this process") != NULL;
}

static int blame_after_own_filters(void)
{
	return filter(BEGUN) || blames_a_filter();
}

static int blame_after_a_filter_from_outside(void)
{
	struct err e;

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || seccomp_reduce(true, &e) ||
	       filter(BEGUN) || !blames_a_filter();
}

/* An error of permission names what an operator can change. */
static void own_filters_are_no_cause_of_a_refusal(void **state)
{
	(void)state;
	if (!blames_a_filter())
		assert_int_equal(in_child(blame_after_own_filters), 0);
	assert_int_equal(in_child(blame_after_a_filter_from_outside), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_the_agent_never_does_is_refused),
		cmocka_unit_test(threads_and_processes_start),
		cmocka_unit_test(threads_that_run_already_are_filtered),
		cmocka_unit_test(own_filters_are_no_cause_of_a_refusal),
	};

	return cmocka_run_group_tests_name("seccomp", tests, NULL, NULL);
}
