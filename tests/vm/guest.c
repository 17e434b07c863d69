/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * guest: what the checks inside a virtual machine need and busybox does not have.
 *
 *   guest serve ADDRESS PORT            answers every connection with the address that
 *                                       it came to, and keeps it until the client ends it;
 *                                       prints "listening" when it does
 *   guest dial [--v6only] [--hold] ADDRESS PORT
 *                                       prints "to WHO-ANSWERED peer GETPEERNAME"; with
 *                                       --hold keeps the connection until it is ended
 *                                       from elsewhere, and prints "ended ERRNO-OR-EOF"
 *   guest programs PREFIX               prints "NAME STEPS" for each loaded program: how
 *                                       many instructions the verifier went through
 *
 * An IPv6 socket dials IPv4 as ::ffff:a.b.c.d. Exit status: 0 done, 1 not (one line on
 * stderr says why), 2 the command line is wrong.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <linux/bpf.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CLIENTS_MAX 64
#define TEXT_MAX 80
/* Emulated processors take their time; a check that waits longer has failed. */
#define PATIENCE_S 10

static void die(const char *what, int error)
{
	const char *name = strerrorname_np(error);

	fprintf(stderr, "guest: %s: %s\n", what, name ? name : strerror(error));
	exit(1);
}

static void usage(void)
{
	fprintf(stderr, "guest: wrong command line; see the top of tests/vm/guest.c\n");
	exit(2);
}

static struct addrinfo *resolve(const char *address, const char *port)
{
	const struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
					.ai_socktype = SOCK_STREAM };
	struct addrinfo *ret;

	if (getaddrinfo(address, port, &hints, &ret))
		usage();
	return ret;
}

/* ret: TEXT_MAX bytes, "a.b.c.d:port" or "[a::b]:port". */
static void format(const struct sockaddr_storage *ss, socklen_t length, char *ret)
{
	bool v6 = ss->ss_family == AF_INET6;
	char host[48], port[8];

	if (getnameinfo((const struct sockaddr *)ss, length, host, sizeof(host), port, sizeof(port),
			NI_NUMERICHOST | NI_NUMERICSERV))
		die("getnameinfo", EINVAL);
	snprintf(ret, TEXT_MAX, v6 ? "[%s]:%s" : "%s:%s", host, port);
}

/* --- serve ----------------------------------------------------------------------- */

static int open_listener(const char *address, const char *port)
{
	struct addrinfo *at = resolve(address, port);
	int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int one = 1;

	/* A server that comes back finds connections of the one before in TIME_WAIT. */
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
	    bind(fd, at->ai_addr, at->ai_addrlen) || listen(fd, CLIENTS_MAX))
		die("cannot listen", errno);
	freeaddrinfo(at);
	return fd;
}

/* Returns the new connection, which has been told where it came to. */
static int greet(int listener)
{
	struct sockaddr_storage ss = { 0 };
	socklen_t length = sizeof(ss);
	char text[TEXT_MAX];
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		die("accept", errno);
	if (getsockname(fd, (struct sockaddr *)&ss, &length))
		die("getsockname", errno);
	format(&ss, length, text);
	strcat(text, "\n");
	/* A client that is gone already is its own affair. */
	(void)send(fd, text, strlen(text), MSG_NOSIGNAL);
	return fd;
}

static void serve(const char *address, const char *port)
{
	struct pollfd fds[CLIENTS_MAX + 1] = { { .fd = open_listener(address, port),
						 .events = POLLIN } };
	nfds_t n = 1;

	printf("listening\n");
	fflush(stdout);
	for (;;) {
		if (poll(fds, n, -1) < 0)
			die("poll", errno);
		/* Nothing is ever sent to us: what makes a connection readable is its end. */
		for (nfds_t i = n - 1; i > 0; i--) {
			if (!fds[i].revents)
				continue;
			close(fds[i].fd);
			fds[i] = fds[--n];
		}
		if (!fds[0].revents)
			continue;
		if (n > CLIENTS_MAX)
			die("too many clients", EMFILE);
		fds[n++] = (struct pollfd){ .fd = greet(fds[0].fd), .events = POLLIN };
	}
}

/* --- dial ------------------------------------------------------------------------ */

static int open_connection(const char *address, const char *port, bool v6only)
{
	const struct timeval patience = { .tv_sec = PATIENCE_S };
	struct addrinfo *to = resolve(address, port);
	int fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int only = v6only;

	if (fd < 0)
		die("socket", errno);
	if (to->ai_family == AF_INET6 &&
	    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof(only)))
		die("IPV6_V6ONLY", errno);
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)))
		die("timeouts", errno);
	if (connect(fd, to->ai_addr, to->ai_addrlen))
		die("connect", errno);
	freeaddrinfo(to);
	return fd;
}

static void print_greeting(int fd)
{
	struct sockaddr_storage ss = { 0 };
	socklen_t length = sizeof(ss);
	char answer[TEXT_MAX] = "", peer[TEXT_MAX];
	size_t n = 0;

	while (!strchr(answer, '\n')) {
		ssize_t got = recv(fd, answer + n, sizeof(answer) - 1 - n, 0);

		if (got <= 0)
			die("no greeting", got ? errno : EPIPE);
		n += (size_t)got;
	}
	if (getpeername(fd, (struct sockaddr *)&ss, &length))
		die("getpeername", errno);
	format(&ss, length, peer);
	printf("to %.*s peer %s\n", (int)strcspn(answer, "\n"), answer, peer);
	fflush(stdout);
}

/* Until somebody else ends the connection. */
static void hold(int fd)
{
	struct pollfd wait = { .fd = fd, .events = POLLIN };
	ssize_t got;
	char c;

	if (poll(&wait, 1, -1) < 0)
		die("poll", errno);
	got = recv(fd, &c, 1, 0);
	printf("ended %s\n", got < 0 ? strerrorname_np(errno) : got ? "with data" : "EOF");
}

static void dial(int argc, char **argv)
{
	bool v6only = false, keep = false;
	int fd;

	for (; argc > 0 && argv[0][0] == '-'; argc--, argv++) {
		if (!strcmp(argv[0], "--v6only"))
			v6only = true;
		else if (!strcmp(argv[0], "--hold"))
			keep = true;
		else
			usage();
	}
	if (argc != 2)
		usage();
	fd = open_connection(argv[0], argv[1], v6only);
	print_greeting(fd);
	if (keep)
		hold(fd);
	close(fd);
}

/* --- programs -------------------------------------------------------------------- */

static int call_bpf(enum bpf_cmd cmd, union bpf_attr *attr)
{
	return (int)syscall(SYS_bpf, cmd, attr, sizeof(*attr));
}

static void describe_program(uint32_t id, struct bpf_prog_info *ret)
{
	union bpf_attr attr;
	int fd;

	memset(ret, 0, sizeof(*ret));
	memset(&attr, 0, sizeof(attr));
	attr.prog_id = id;
	fd = call_bpf(BPF_PROG_GET_FD_BY_ID, &attr);
	/* Unloaded in the meantime. */
	if (fd < 0)
		return;
	memset(&attr, 0, sizeof(attr));
	attr.info.bpf_fd = (uint32_t)fd;
	attr.info.info_len = sizeof(*ret);
	attr.info.info = (uint64_t)(uintptr_t)ret;
	if (call_bpf(BPF_OBJ_GET_INFO_BY_FD, &attr))
		die("BPF_OBJ_GET_INFO_BY_FD", errno);
	close(fd);
}

static void print_programs(const char *prefix)
{
	struct bpf_prog_info info;
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	while (!call_bpf(BPF_PROG_GET_NEXT_ID, &attr)) {
		uint32_t id = attr.next_id;

		describe_program(id, &info);
		if (!strncmp(info.name, prefix, strlen(prefix)))
			printf("%s %u\n", info.name, info.verified_insns);
		memset(&attr, 0, sizeof(attr));
		attr.start_id = id;
	}
	if (errno != ENOENT)
		die("BPF_PROG_GET_NEXT_ID", errno);
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "serve"))
		serve(argv[2], argv[3]);
	else if (argc >= 4 && !strcmp(argv[1], "dial"))
		dial(argc - 2, argv + 2);
	else if (argc == 3 && !strcmp(argv[1], "programs"))
		print_programs(argv[2]);
	else
		usage();
	return fflush(stdout) ? 1 : 0;
}
