/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * killat: preloaded into a program, ends it with SIGKILL at a moment that a clock
 * cannot hit: before the N-th call of one kind, or before PATH gets its name.
 *
 *   LD_PRELOAD=./killat.so KILLAT=CALL:N PROGRAM...
 *   LD_PRELOAD=./killat.so KILLAT=rename:PATH PROGRAM...
 *   LD_PRELOAD=./killat.so STOPAT=...             the same with SIGSTOP
 *   LD_PRELOAD=./killat.so FAILAT=CALL:N PROGRAM...  that call of bpf(2) fails: memory is short
 *
 * CALL: link_create, link_update, map_update, obj_pin, prog_load (of bpf(2)), fork, rename, inotify
 * (inotify_init1(2)), connections (a part of the list of sockets is received). Only the first
 * process that makes such calls gets the signal: the program, and not its child beside it, or a
 * child that alone makes them. Without either nothing happens.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <errno.h>
#include <linux/bpf.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* path: what the call is about, or NULL. Returns whether the call is to fail. */
static bool passing(const char *call, const char *path)
{
	static long count;
	static pid_t self;
	const char *stop = getenv("STOPAT"), *fail = getenv("FAILAT");
	const char *at = stop ? stop : fail ? fail : getenv("KILLAT");
	size_t n = strlen(call);

	if (!at || strncmp(at, call, n) != 0 || at[n] != ':')
		return false;
	at += n + 1;
	if (!self)
		self = getpid();
	if (self != getpid() || !(*at == '/' ? path && !strcmp(path, at) : ++count == atol(at)))
		return false;
	if (fail)
		return true;
	kill(self, stop ? SIGSTOP : SIGKILL);
	return false;
}

/* The name of a call of bpf(2), or NULL. */
static const char *name_of(long command)
{
	switch (command) {
	case BPF_LINK_CREATE:
		return "link_create";
	case BPF_LINK_UPDATE:
		return "link_update";
	case BPF_MAP_UPDATE_ELEM:
		return "map_update";
	case BPF_OBJ_PIN:
		return "obj_pin";
	case BPF_PROG_LOAD:
		return "prog_load";
	default:
		return NULL;
	}
}

/* libbpf makes its calls through syscall(2). */
long syscall(long number, ...)
{
	long (*next)(long, ...) = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
	long a[6];
	va_list list;

	va_start(list, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(list, long);
	va_end(list);
	if (number == SYS_bpf && name_of(a[0]) && passing(name_of(a[0]), NULL)) {
		errno = ENOMEM;
		return -1;
	}
	return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

pid_t fork(void)
{
	pid_t (*next)(void) = (pid_t(*)(void))dlsym(RTLD_NEXT, "fork");

	passing("fork", NULL);
	return next();
}

int inotify_init1(int flags)
{
	int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "inotify_init1");

	passing("inotify", NULL);
	return next(flags);
}

int rename(const char *from, const char *to)
{
	int (*next)(const char *, const char *) =
		(int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename");

	passing("rename", to);
	return next(from, to);
}

/* Nothing else asks for so much at once. */
#define PART_SIZE 65536

ssize_t recv(int fd, void *buf, size_t size, int flags)
{
	ssize_t (*next)(int, void *, size_t, int) =
		(ssize_t(*)(int, void *, size_t, int))dlsym(RTLD_NEXT, "recv");

	if (size == PART_SIZE)
		passing("connections", NULL);
	return next(fd, buf, size, flags);
}
