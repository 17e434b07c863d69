/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * nojit: preloaded into a program, makes the kernel look as with net.core.bpf_jit_enable=0
 * and without CONFIG_BPF_JIT_ALWAYS_ON: programs are interpreted, and one that calls the
 * kernel's own functions is refused (kernel/bpf/verifier.c, "JIT is required for calling
 * kernel function").
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <errno.h>
#include <linux/bpf.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define KERNEL_ENOTSUPP 524 /* include/linux/errno.h; errno(3) has no name for it */

static bool calls_the_kernel(const union bpf_attr *attr)
{
	const struct bpf_insn *insns = (const struct bpf_insn *)(unsigned long)attr->insns;

	for (unsigned int i = 0; i < attr->insn_cnt; i++)
		if (insns[i].code == (BPF_JMP | BPF_CALL) &&
		    insns[i].src_reg == BPF_PSEUDO_KFUNC_CALL)
			return true;
	return false;
}

/* Each kind of object answers with a structure of its own. */
static bool is_program(int fd)
{
	static const char kind[] = "anon_inode:bpf-prog";
	char link[64], target[64];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, target, sizeof(target));
	return n == (ssize_t)strlen(kind) && !memcmp(target, kind, strlen(kind));
}

/* libbpf makes its calls through syscall(2). */
long syscall(long number, ...)
{
	long (*next)(long, ...) = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
	union bpf_attr *attr;
	long a[6], r;
	va_list list;

	va_start(list, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(list, long);
	va_end(list);
	attr = (union bpf_attr *)a[1];
	if (number == SYS_bpf && a[0] == BPF_PROG_LOAD && calls_the_kernel(attr)) {
		errno = KERNEL_ENOTSUPP;
		return -1;
	}
	r = next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
	if (number == SYS_bpf && a[0] == BPF_OBJ_GET_INFO_BY_FD && !r &&
	    is_program((int)attr->info.bpf_fd))
		((struct bpf_prog_info *)(unsigned long)attr->info.info)->jited_prog_len = 0;
	return r;
}
