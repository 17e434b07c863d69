/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is left of bpf(2) to the agent once it has given up the rest. Each case in a child: what is
 * given up does not come back. Takes root.
 */
#include <errno.h>
#include <linux/bpf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/privileges.h"
#include "unit.h"

static int bpf(int command, union bpf_attr *attr)
{
	return syscall(SYS_bpf, command, attr, sizeof(*attr)) < 0 ? errno : 0;
}

/* A program that only returns 1. */
static int load_program(void)
{
	static const struct bpf_insn insns[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = 1 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	union bpf_attr attr = { .prog_type = BPF_PROG_TYPE_SOCKET_FILTER,
				.insn_cnt = 2,
				.insns = (uint64_t)(uintptr_t)insns,
				.license = (uint64_t)(uintptr_t) "GPL" };

	return bpf(BPF_PROG_LOAD, &attr);
}

static int make_map(void)
{
	union bpf_attr attr = {
		.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 8, .max_entries = 1
	};

	return bpf(BPF_MAP_CREATE, &attr);
}

static int open_pin(void)
{
	union bpf_attr attr = { .pathname = (uint64_t)(uintptr_t) "/sys/fs/bpf/there is none" };

	return bpf(BPF_OBJ_GET, &attr);
}

static int attach(void)
{
	union bpf_attr attr = { .link_create = { .prog_fd = 0, .target_fd = 0 } };

	return bpf(BPF_LINK_CREATE, &attr);
}

/* What the call answers to whoever has reduced its privileges and raised what is left. */
static int answer(int (*call)(void), bool reduced)
{
	const struct privileges_need need = { .pods = true };
	int status;
	pid_t child = fork();

	if (!child) {
		if (reduced && (privileges_begin(NULL) || privileges_reduce(&need, NULL)))
			_exit(255);
		privileges_raise();
		_exit(call());
	}
	assert_true(child > 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void nothing_is_loaded_or_attached(void **state)
{
	(void)state;
	/* With the same capabilities the kernel would. */
	assert_int_equal(answer(load_program, false), 0);
	assert_int_equal(answer(make_map, false), 0);
	assert_int_equal(answer(load_program, true), EPERM);
	assert_int_equal(answer(make_map, true), EPERM);
	assert_int_equal(answer(attach, true), EPERM);
}

#ifdef __x86_64__
/* By the numbers of x32, which the kernel may know or not: the filter is asked first. */
static int load_program_by_x32(void)
{
	union bpf_attr attr = { 0 };

	return syscall(0x40000000 | SYS_bpf, BPF_PROG_LOAD, &attr, sizeof(attr)) < 0 ? errno : 0;
}

static void nor_by_another_number(void **state)
{
	(void)state;
	assert_int_not_equal(answer(load_program_by_x32, false), EPERM);
	assert_int_equal(answer(load_program_by_x32, true), EPERM);
}
#endif

static int is_dumpable(void)
{
	struct rlimit core;

	return getrlimit(RLIMIT_CORE, &core) || core.rlim_cur || core.rlim_max ||
	       prctl(PR_GET_DUMPABLE);
}

static int is_child_dumpable(void)
{
	int status;
	pid_t child = fork();

	if (!child)
		_exit(is_dumpable());
	return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* kubelb-attacher is forked after it. */
static void no_core_file_is_written(void **state)
{
	(void)state;
	assert_int_equal(answer(is_dumpable, true), 0);
	assert_int_equal(answer(is_child_dumpable, true), 0);
}

static void what_is_there_is_used(void **state)
{
	(void)state;
	assert_int_equal(answer(open_pin, true), ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_loaded_or_attached),
#ifdef __x86_64__
		cmocka_unit_test(nor_by_another_number),
#endif
		cmocka_unit_test(no_core_file_is_written),
		cmocka_unit_test(what_is_there_is_used),
	};

	return cmocka_run_group_tests_name("privileges", tests, NULL, NULL);
}
