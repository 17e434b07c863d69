/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * killat: preloaded into a program, ends it with SIGKILL at a moment that a clock
 * cannot hit: before the N-th call of one kind.
 *
 *   LD_PRELOAD=./killat.so KILLAT=link_update:2 PROGRAM...
 *
 * Calls: link_create, link_update and obj_pin, which libbpf makes through
 * syscall(2), and rename. Without KILLAT nothing happens.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <linux/bpf.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void passing(const char *call)
{
	static long count;
	const char *at = getenv("KILLAT");
	size_t n = strlen(call);

	if (!at || strncmp(at, call, n) != 0 || at[n] != ':')
		return;
	if (++count == atol(at + n + 1))
		kill(getpid(), SIGKILL);
}

static void passing_bpf(long command)
{
	if (command == BPF_LINK_CREATE)
		passing("link_create");
	else if (command == BPF_LINK_UPDATE)
		passing("link_update");
	else if (command == BPF_OBJ_PIN)
		passing("obj_pin");
}

long syscall(long number, ...)
{
	long (*next)(long, ...) = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
	long a[6];
	va_list list;

	va_start(list, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(list, long);
	va_end(list);
	if (number == SYS_bpf)
		passing_bpf(a[0]);
	return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

int rename(const char *from, const char *to)
{
	int (*next)(const char *, const char *) =
		(int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename");

	passing("rename");
	return next(from, to);
}
