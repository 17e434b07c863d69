/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * pingpong: load for a TCP relay, without TLS, so that little but the relay is measured.
 *
 *   pingpong serve ADDRESS PORT
 *       answers requests of 64 bytes, which begin with the number of bytes that they want; prints
 *       "ready" when it listens
 *   pingpong drive [-c N] [-b BYTES] [-s SECONDS] [-f] ADDRESS PORT
 *       N connections (default 1), on each one request after the other for BYTES (default 1000);
 *       with -f each request has a connection of its own. Prints a line of JSON: requests and
 *       megabytes in a second, and how long a request took
 *   pingpong hold [-c N] ADDRESS PORT
 *       makes N connections with one request on each, prints "held", waits for the end of standard
 *       input, and makes another request on each. Prints how many have failed
 *
 * Exit status: 0 done, 1 something failed, 2 the command line is wrong.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define REQUEST 64
#define CHUNK (256 * 1024)
#define SAMPLES_MAX 4000000
#define BATCH 256

static struct {
	long connections, bytes;
	double seconds;
	bool fresh;
	struct sockaddr_in at;
} options = { .connections = 1, .bytes = 1000, .seconds = 1 };

static char chunk[CHUNK];

struct conn {
	int fd;
	long left; /* of the answer: to be sent or to be received */
	size_t have; /* of a request */
	char request[REQUEST];
	double began;
};

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void watch(int epoll, int op, int fd, unsigned int events, void *data)
{
	struct epoll_event e = { .events = events, .data.ptr = data };

	if (epoll_ctl(epoll, op, fd, &e))
		die("epoll_ctl");
}

/* A descriptor for each connection, and some. */
static void raise_limit(void)
{
	struct rlimit limit;

	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

/* --- the server ------------------------------------------------------------------------------- */

static void drop(struct conn *c)
{
	close(c->fd);
	free(c);
}

/* Returns false when it is gone. */
static bool answer(int epoll, struct conn *c)
{
	while (c->left > 0) {
		ssize_t n = send(c->fd, chunk, (size_t)(c->left < CHUNK ? c->left : CHUNK),
				 MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN) {
			watch(epoll, EPOLL_CTL_MOD, c->fd, EPOLLOUT, c);
			return true;
		}
		if (n < 0)
			return false;
		c->left -= n;
	}
	return true;
}

static bool serve_one(int epoll, struct conn *c, unsigned int events)
{
	ssize_t n;

	if (events & EPOLLOUT) {
		watch(epoll, EPOLL_CTL_MOD, c->fd, EPOLLIN, c);
		return answer(epoll, c);
	}
	n = recv(c->fd, c->request + c->have, REQUEST - c->have, 0);
	if (n < 0 && errno == EAGAIN)
		return true;
	if (n <= 0)
		return false;
	c->have += (size_t)n;
	if (c->have < REQUEST)
		return true;
	c->have = 0;
	c->left = strtol(c->request, NULL, 10);
	return answer(epoll, c);
}

static void take(int epoll, int listener)
{
	const int on = 1;
	int fd;

	while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
		struct conn *c = calloc(1, sizeof(*c));

		if (!c)
			die("calloc");
		c->fd = fd;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		watch(epoll, EPOLL_CTL_ADD, fd, EPOLLIN, c);
	}
}

static __attribute__((noreturn)) void serve_forever(int epoll, int listener)
{
	struct epoll_event events[BATCH];

	for (;;) {
		int n = epoll_wait(epoll, events, BATCH, -1);

		for (int i = 0; i < n; i++) {
			struct conn *c = events[i].data.ptr;

			if (!c)
				take(epoll, listener);
			else if (!serve_one(epoll, c, events[i].events))
				drop(c);
		}
	}
}

static int serve(void)
{
	int epoll = epoll_create1(0), on = 1;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(listener, (struct sockaddr *)&options.at, sizeof(options.at)) ||
	    listen(listener, 65535))
		die("listen");
	watch(epoll, EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
	puts("ready");
	fflush(stdout);
	serve_forever(epoll, listener);
}

/* --- the clients ------------------------------------------------------------------------------ */

static struct {
	long done, failed;
	double received;
	float *took; /* microseconds */
	long n_took;
} result;

/* Blocking: the relay answers at once. */
static int dial(void)
{
	int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

	if (fd < 0)
		die("socket");
	if (connect(fd, (struct sockaddr *)&options.at, sizeof(options.at)))
		die("connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return fd;
}

static void ask(struct conn *c)
{
	char text[REQUEST] = "";

	snprintf(text, sizeof(text), "%ld", options.bytes);
	c->left = options.bytes;
	c->began = now();
	if (send(c->fd, text, sizeof(text), MSG_NOSIGNAL) != sizeof(text))
		die("send");
}

static void note(const struct conn *c)
{
	result.done++;
	if (result.n_took < SAMPLES_MAX)
		result.took[result.n_took++] = (float)((now() - c->began) * 1e6);
}

/* Returns whether the answer is there. */
static bool listen_to(struct conn *c)
{
	ssize_t n = recv(c->fd, chunk, (size_t)(c->left < CHUNK ? c->left : CHUNK), 0);

	if (n <= 0) {
		errno = n ? errno : ECONNRESET;
		die("recv");
	}
	result.received += (double)n;
	c->left -= n;
	return !c->left;
}

static void begin_again(int epoll, struct conn *c)
{
	const struct linger reset = { .l_onoff = 1 };

	/* No TIME_WAIT that builds up from one run to the next. */
	setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(c->fd);
	c->began = now();
	c->fd = dial();
	watch(epoll, EPOLL_CTL_ADD, c->fd, EPOLLIN, c);
}

static int compare(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return (x > y) - (x < y);
}

static double percentile(double p)
{
	long at = (long)(p * (double)result.n_took);

	return result.n_took ? (double)result.took[at < result.n_took ? at : result.n_took - 1] : 0;
}

static void print_result(double took)
{
	qsort(result.took, (size_t)result.n_took, sizeof(result.took[0]), compare);
	printf("{\"rps\": %.1f, \"mb_per_s\": %.2f, \"p50_us\": %.1f, \"p99_us\": %.1f, "
	       "\"requests\": %ld, \"bytes\": %.0f}\n",
	       (double)result.done / took, result.received / took / 1e6, percentile(0.5),
	       percentile(0.99), result.done, result.received);
}

static struct conn *dial_all(int epoll)
{
	struct conn *all = calloc((size_t)options.connections, sizeof(*all));

	if (!all)
		die("calloc");
	for (long i = 0; i < options.connections; i++) {
		all[i].fd = dial();
		watch(epoll, EPOLL_CTL_ADD, all[i].fd, EPOLLIN, &all[i]);
		ask(&all[i]);
	}
	return all;
}

static int drive(void)
{
	int epoll = epoll_create1(0);
	struct epoll_event events[BATCH];
	double began, end;

	result.took = calloc(SAMPLES_MAX, sizeof(result.took[0]));
	dial_all(epoll);
	began = now();
	end = began + options.seconds;
	while (now() < end) {
		int n = epoll_wait(epoll, events, BATCH, 1000);

		for (int i = 0; i < n; i++) {
			struct conn *c = events[i].data.ptr;

			if (!listen_to(c))
				continue;
			note(c);
			if (options.fresh)
				begin_again(epoll, c);
			ask(c);
		}
	}
	print_result(now() - began);
	return 0;
}

static void ask_and_wait(struct conn *c)
{
	ask(c);
	while (!listen_to(c))
		;
}

static int hold(void)
{
	struct conn *all = calloc((size_t)options.connections, sizeof(*all));
	char byte;

	if (!all)
		die("calloc");
	for (long i = 0; i < options.connections; i++) {
		all[i].fd = dial();
		ask_and_wait(&all[i]);
	}
	puts("held");
	fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	for (long i = 0; i < options.connections; i++)
		ask_and_wait(&all[i]);
	puts("all answered");
	return 0;
}

static bool parse(int argc, char **argv)
{
	int c;

	while ((c = getopt(argc, argv, "c:b:s:f")) != -1) {
		switch (c) {
		case 'c':
			options.connections = strtol(optarg, NULL, 10);
			break;
		case 'b':
			options.bytes = strtol(optarg, NULL, 10);
			break;
		case 's':
			options.seconds = strtod(optarg, NULL);
			break;
		case 'f':
			options.fresh = true;
			break;
		default:
			return false;
		}
	}
	if (argc - optind != 2 || inet_pton(AF_INET, argv[optind], &options.at.sin_addr) != 1)
		return false;
	options.at.sin_family = AF_INET;
	options.at.sin_port = htons((unsigned short)strtoul(argv[optind + 1], NULL, 10));
	return options.connections > 0 && options.bytes > 0;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(void);
	} modes[] = { { "serve", serve }, { "drive", drive }, { "hold", hold } };

	raise_limit();
	for (size_t i = 0; argc > 1 && i < sizeof(modes) / sizeof(modes[0]); i++)
		if (strcmp(argv[1], modes[i].name) == 0 && parse(argc - 1, argv + 1))
			return modes[i].run();
	fputs("pingpong serve|drive|hold [-c N] [-b BYTES] [-s SECONDS] [-f] ADDRESS PORT\n",
	      stderr);
	return 2;
}
