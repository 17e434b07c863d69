/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * httpflood: everything at once that a local user can do to the agent's http address.
 *
 *   httpflood PORT CLIENTS SECONDS KIND
 *
 * Each of CLIENTS threads does this again and again, as fast as it can:
 *
 *   keep     GET /metrics, read something, on one connection for all
 *   ask      connect, GET /metrics, read to the end, close
 *   abandon  connect, GET /metrics, reset without reading
 *   reset    connect, reset
 *   finish   connect, close
 *   half     connect, half a request, and wait for the end
 *   bytes    connect, a request byte by byte that never ends
 *   deaf     connect, a hundred requests, and read nothing
 *
 * Prints how often per second it came to the end of one.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CLIENTS_MAX 2000
#define STACK_BYTES ((size_t)128 * 1024)
#define REQUEST "GET /metrics HTTP/1.1\r\nHost: a\r\n"

static const char *kind;
static struct sockaddr_in to = { .sin_family = AF_INET };
static double end_s;
static unsigned long total;

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static bool is_kind(const char *name)
{
	return strcmp(kind, name) == 0;
}

/* Returns a descriptor, or -1. Nothing takes longer than half a second. */
static int dial(void)
{
	const struct timeval limit = { .tv_usec = 500000 };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), tiny = 1;

	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (is_kind("deaf"))
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &tiny, sizeof(tiny));
	if (!connect(fd, (struct sockaddr *)&to, sizeof(to)))
		return fd;
	close(fd);
	return -1;
}

static void hang_up(int fd, bool reset)
{
	const struct linger at_once = { .l_onoff = 1 };

	if (reset)
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	close(fd);
}

static bool say(int fd, const char *text)
{
	return send(fd, text, strlen(text), MSG_NOSIGNAL) > 0;
}

/* Returns false at the end of the connection. */
static bool hear(int fd)
{
	char bytes[65536];

	return recv(fd, bytes, sizeof(bytes), 0) > 0;
}

/* Until the connection or the time has ended. */
static void bother(int fd)
{
	while (now_s() < end_s) {
		if (is_kind("bytes") && !say(fd, "X"))
			return;
		if (is_kind("half") && !hear(fd))
			return;
		if (is_kind("deaf") && !say(fd, REQUEST "\r\n" REQUEST "\r\n" REQUEST "\r\n"))
			return;
		if (is_kind("keep")) {
			if (!say(fd, REQUEST "\r\n") || !hear(fd))
				return;
			__sync_fetch_and_add(&total, 1);
		}
	}
}

static void once(void)
{
	int fd = dial();

	if (fd < 0)
		return;
	if (is_kind("ask")) {
		say(fd, REQUEST "Connection: close\r\n\r\n");
		while (hear(fd))
			;
	} else if (is_kind("abandon")) {
		say(fd, REQUEST "\r\n");
	} else if (is_kind("half") || is_kind("bytes")) {
		say(fd, REQUEST "X-");
		bother(fd);
	} else if (is_kind("keep") || is_kind("deaf")) {
		bother(fd);
	}
	hang_up(fd, is_kind("abandon") || is_kind("reset"));
	__sync_fetch_and_add(&total, !is_kind("keep"));
}

static void *run(void *arg)
{
	while (now_s() < end_s)
		once();
	return arg;
}

int main(int argc, char **argv)
{
	static pthread_t threads[CLIENTS_MAX];
	pthread_attr_t attributes;
	int n, started = 0;
	double seconds;

	if (argc != 5 || (n = atoi(argv[2])) < 1 || n > CLIENTS_MAX) {
		fprintf(stderr, "usage: httpflood PORT CLIENTS SECONDS KIND\n");
		return 2;
	}
	kind = argv[4];
	seconds = atof(argv[3]);
	to.sin_port = htons((uint16_t)atoi(argv[1]));
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	end_s = now_s() + seconds;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK_BYTES);
	while (started < n && !pthread_create(&threads[started], &attributes, run, NULL))
		started++;
	for (int i = 0; i < started; i++)
		pthread_join(threads[i], NULL);
	printf("%.0f\n", (double)total / seconds);
	return started < n;
}
