/* SPDX-License-Identifier: BSD-2-Clause */
/* Makes the filters. Uses the system call directly: libseccomp would be a library for lists. */
#include "host/seccomp.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/array.h"
#include "base/file.h"

#if defined(__x86_64__)
#define NATIVE_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define NATIVE_ARCH AUDIT_ARCH_AARCH64
#else
#error "which architecture's calls does seccomp(2) see here?"
#endif

/* The x32 calls have numbers from here on (include/uapi/asm/unistd.h) and the same architecture. */
#define X32_CALLS 0x40000000

/* The headers of some distributions are older. */
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif

#define NEW_NAMESPACES                                                                 \
	(CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | \
	 CLONE_NEWPID | CLONE_NEWNET)

static const int never[] = {
	/* programs */
	SYS_execve,
	SYS_execveat,
	/* other processes */
	SYS_ptrace,
	SYS_process_vm_readv,
	SYS_process_vm_writev,
	SYS_kcmp,
	/* the kernel */
	SYS_init_module,
	SYS_finit_module,
	SYS_delete_module,
	SYS_kexec_load,
	SYS_kexec_file_load,
	SYS_reboot,
	SYS_syslog,
	/* namespaces and roots; a thread needs none */
	SYS_unshare,
	SYS_pivot_root,
	SYS_chroot,
	/* interfaces with a history */
	SYS_add_key,
	SYS_request_key,
	SYS_keyctl,
	SYS_userfaultfd,
	SYS_perf_event_open,
	SYS_io_uring_setup,
	SYS_io_uring_enter,
	SYS_io_uring_register,
	SYS_fanotify_init,
	SYS_personality,
	/* the machine's settings */
	SYS_swapon,
	SYS_swapoff,
	SYS_acct,
	SYS_quotactl,
	SYS_settimeofday,
	SYS_clock_settime,
	SYS_clock_adjtime,
	SYS_adjtimex,
	SYS_sethostname,
	SYS_setdomainname,
#ifdef __x86_64__
	SYS_iopl,
	SYS_ioperm,
	SYS_modify_ldt,
#endif
};

static const int not_when_reduced[] = {
	SYS_mount,    SYS_umount2, SYS_move_mount,    SYS_open_tree,	     SYS_fsopen,
	SYS_fsconfig, SYS_fsmount, SYS_mount_setattr, SYS_open_by_handle_at,
};

static const int for_pods[] = { SYS_setns, SYS_pidfd_getfd };

/* The commands of bpf(2) that a process needs to use existing objects. */
static const unsigned int bpf_commands[] = {
	BPF_MAP_LOOKUP_ELEM,   BPF_MAP_UPDATE_ELEM,  BPF_MAP_DELETE_ELEM,
	BPF_MAP_GET_NEXT_KEY,  BPF_OBJ_GET,	     BPF_PROG_TEST_RUN,
	BPF_PROG_GET_FD_BY_ID, BPF_MAP_GET_FD_BY_ID, BPF_OBJ_GET_INFO_BY_FD,
	BPF_PROG_QUERY,	       BPF_MAP_LOOKUP_BATCH,
};

/* A filter in the making. Room for two instructions for each call, and a few. */
struct filter {
	struct sock_filter code[16 + 2 * (ARRAY_SIZE(never) + ARRAY_SIZE(bpf_commands))];
	unsigned short n;
};

static void add(struct filter *f, struct sock_filter instruction)
{
	if (f->n < ARRAY_SIZE(f->code))
		f->code[f->n++] = instruction;
}

static void add_return(struct filter *f, unsigned int action)
{
	add(f, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action));
}

static void add_load(struct filter *f, size_t offset)
{
	add(f, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned int)offset));
}

/* The next `skip` instructions are for what the loaded word compares with: `how` is BPF_JEQ (the
 * same), BPF_JGE or BPF_JSET (a bit of it). */
static void add_unless(struct filter *f, unsigned short how, unsigned int value, unsigned char skip)
{
	add(f,
	    (struct sock_filter)BPF_JUMP((unsigned short)(BPF_JMP | how | BPF_K), value, 0, skip));
}

static void refuse(struct filter *f, const int *calls, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		add_unless(f, BPF_JEQ, (unsigned int)calls[i], 1);
		add_return(f, SECCOMP_RET_ERRNO | EPERM);
	}
}

/*
 * Each architecture that the kernel can run has its own numbers of system calls, so calls of
 * another architecture are refused.
 */
static void start(struct filter *f)
{
	f->n = 0;
	add_load(f, offsetof(struct seccomp_data, arch));
	add(f, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NATIVE_ARCH, 1, 0));
	add_return(f, SECCOMP_RET_ERRNO | EPERM);
	add_load(f, offsetof(struct seccomp_data, nr));
	add_unless(f, BPF_JGE, X32_CALLS, 1);
	add_return(f, SECCOMP_RET_ERRNO | EPERM);
}

/* clone(2) makes threads and namespaces. Its flags come first on both architectures. Leaves its
 * own number loaded. */
static void refuse_namespaces(struct filter *f)
{
	add_unless(f, BPF_JEQ, SYS_clone, 4);
	add_load(f, offsetof(struct seccomp_data, args[0]));
	add_unless(f, BPF_JSET, NEW_NAMESPACES, 1);
	add_return(f, SECCOMP_RET_ERRNO | EPERM);
	add_load(f, offsetof(struct seccomp_data, nr));
}

static void limit_bpf_commands(struct filter *f)
{
	add_unless(f, BPF_JEQ, SYS_bpf, 2 + 2 * ARRAY_SIZE(bpf_commands));
	add_load(f, offsetof(struct seccomp_data, args[0]));
	for (size_t i = 0; i < ARRAY_SIZE(bpf_commands); i++) {
		add_unless(f, BPF_JEQ, bpf_commands[i], 1);
		add_return(f, SECCOMP_RET_ALLOW);
	}
	add_return(f, SECCOMP_RET_ERRNO | EPERM);
}

/* flags: of seccomp(2), beside TSYNC, which puts the filter on every thread. */
static int install(struct filter *f, unsigned long flags, struct err *e)
{
	struct sock_fprog program = { .filter = f->code };

	add_return(f, SECCOMP_RET_ALLOW);
	program.len = f->n;
	/* EINVAL: this kernel has no seccomp filters. */
	if (!syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC | flags,
		     &program) ||
	    errno == EINVAL || errno == ENOSYS)
		return 0;
	return err_set(e, errno, "cannot give up privileges: %s: %s", "seccomp", strerror(errno));
}

static bool is_filtered(void)
{
	char line[128];

	return file_read_line("/proc/self/status", "Seccomp:", line, sizeof(line)) &&
	       strtol(line, NULL, 10);
}

/* What the process was started with, known once its own filters hide that. */
static bool has_begun, was_filtered;

bool seccomp_is_foreign(void)
{
	return has_begun ? was_filtered : is_filtered();
}

int seccomp_begin(struct err *e)
{
	struct filter f;
	int r;

	was_filtered = seccomp_is_foreign();
	has_begun = true;
	start(&f);
	refuse_namespaces(&f);
	refuse(&f, never, ARRAY_SIZE(never));
	r = install(&f, SECCOMP_FILTER_FLAG_LOG, e);
	if (r)
		return r;
	/*
	 * A filter cannot see the flags of clone3(2). C libraries that use it for threads take
	 * ENOSYS as an older kernel's answer, and clone(2) then. Not for the log: it is nothing
	 * unusual.
	 */
	start(&f);
	add_unless(&f, BPF_JEQ, SYS_clone3, 1);
	add_return(&f, SECCOMP_RET_ERRNO | ENOSYS);
	return install(&f, 0, e);
}

int seccomp_reduce(bool pods, struct err *e)
{
	struct filter f;

	start(&f);
	refuse(&f, not_when_reduced, ARRAY_SIZE(not_when_reduced));
	if (!pods)
		refuse(&f, for_pods, ARRAY_SIZE(for_pods));
	limit_bpf_commands(&f);
	return install(&f, SECCOMP_FILTER_FLAG_LOG, e);
}
