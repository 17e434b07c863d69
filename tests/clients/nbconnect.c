/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * nbconnect: a client for the tests that makes connections and nothing else.
 *
 *   nbconnect [options] ADDRESS [PORT]        PORT is 6443 unless given
 *
 *   -n N                 N connects, one after the other (default 1)
 *   --hold K             K connections at once; prints "held K", keeps them until
 *                        stdin ends, then tells how many the peer has closed
 *   --rate R --seconds S R connects a second for S seconds (or until SIGTERM)
 *   -4, -6               address family of the socket; -6 with an IPv4 address
 *                        dials ::ffff:a.b.c.d
 *   --v6only             IPV6_V6ONLY on the socket (implies -6)
 *   --bind ADDR          bind to this source address first
 *   --reconnect          connect, dissolve with AF_UNSPEC, connect again
 *   --udp                connect a UDP socket and send one datagram
 *   --peer               print getpeername of every connection
 *   --timeout MS         give up on a connect after MS (default 10000)
 *   --ask                a connect is over, and timed, when a byte has come back for
 *                        a request (plain HTTP, which nginx answers on a TLS port)
 *   --slow MS            a line `slow: MS` for each success that took longer, and
 *                        `lost: MS ERRNO_NAME CONNECT_MS` for each failure; the last
 *                        is -1 where it was not connected
 *
 * Connects are non-blocking: poll for writability, then SO_ERROR. Each failure
 * is a line `failed: ERRNO_NAME`; the last line of stdout is a JSON summary:
 *   {"ok":3000,"failed":0,"errors":{},"max_ms":1.234,"max_failed_ms":0.000,"closed":0}
 * Exit status: 0 all connected, 1 some did not, 2 the command line is wrong.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ERRNO_MAX 256
#define PENDING_MAX 8192
#define DEFAULT_PORT 6443

static struct {
	int family;
	bool v6only;
	bool reconnect;
	bool udp;
	bool peer;
	int timeout_ms;
	bool ask;
	double slow_ms; /* 0: no lines */
	long n;
	long hold;
	double rate;
	double seconds;
	struct sockaddr_storage to, from;
	socklen_t to_len, from_len;
} opt = { .timeout_ms = 10000, .n = 1 };

static struct {
	long ok, failed, closed;
	long errors[ERRNO_MAX];
	uint64_t max_ns, max_failed_ns;
} result;

/* A connect under way. */
struct pending {
	int fd;
	bool again; /* to be dissolved and connected once more */
	bool asked; /* connected, and waiting for a byte */
	uint64_t start_ns, asked_ns;
};

static volatile sig_atomic_t asked_to_end;

static void on_signal(int number)
{
	(void)number;
	asked_to_end = 1;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void usage(const char *why)
{
	fprintf(stderr, "nbconnect: %s; see the top of nbconnect.c\n", why);
	exit(2);
}

static void count_failure(int error, const struct pending *p)
{
	const char *name = strerrorname_np(error);
	uint64_t took = now_ns() - p->start_ns;

	if (took > result.max_failed_ns)
		result.max_failed_ns = took;
	if (opt.slow_ms)
		printf("lost: %.3f %s %.3f\n", (double)took / 1e6, name ? name : "?",
		       p->asked ? (double)(p->asked_ns - p->start_ns) / 1e6 : -1.0);

	result.failed++;
	if (error > 0 && error < ERRNO_MAX)
		result.errors[error]++;
	printf("failed: %s\n", name ? name : "?");
}

static void count_success(const struct pending *p)
{
	uint64_t took = now_ns() - p->start_ns;

	result.ok++;
	if (opt.slow_ms && (double)took > opt.slow_ms * 1e6)
		printf("slow: %.3f\n", (double)took / 1e6);
	if (took > result.max_ns)
		result.max_ns = took;
}

static void print_peer(int fd)
{
	struct sockaddr_storage ss = { 0 };
	socklen_t len = sizeof(ss);
	char text[INET6_ADDRSTRLEN];

	if (getpeername(fd, (struct sockaddr *)&ss, &len) != 0) {
		printf("peer: %s\n", strerrorname_np(errno));
	} else if (ss.ss_family == AF_INET) {
		struct sockaddr_in *in = (struct sockaddr_in *)&ss;

		printf("peer: %s:%u\n", inet_ntop(AF_INET, &in->sin_addr, text, sizeof(text)),
		       ntohs(in->sin_port));
	} else {
		struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&ss;

		printf("peer: [%s]:%u\n", inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof(text)),
		       ntohs(in6->sin6_port));
	}
}

/* Fills ss from text for a socket of the wanted family; exits when it cannot. */
static socklen_t parse_address(const char *text, int port, struct sockaddr_storage *ss)
{
	struct sockaddr_in *in = (struct sockaddr_in *)ss;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ss;
	struct in_addr v4;

	if (inet_pton(AF_INET, text, &v4) == 1) {
		if (opt.family != AF_INET6) {
			opt.family = AF_INET;
			in->sin_family = AF_INET;
			in->sin_port = htons((uint16_t)port);
			in->sin_addr = v4;
			return sizeof(*in);
		}
		in6->sin6_addr.s6_addr[10] = in6->sin6_addr.s6_addr[11] = 0xff;
		memcpy(&in6->sin6_addr.s6_addr[12], &v4, sizeof(v4));
	} else if (opt.family == AF_INET || inet_pton(AF_INET6, text, &in6->sin6_addr) != 1) {
		usage("not an address of that family");
	}
	opt.family = AF_INET6;
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons((uint16_t)port);
	return sizeof(*in6);
}

/* A socket as the options want it, or -errno. */
static int open_socket(void)
{
	int type = (opt.udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_NONBLOCK | SOCK_CLOEXEC;
	int fd = socket(opt.family, type, 0);
	int v6only = opt.v6only;
	int error;

	if (fd < 0)
		return -errno;
	if (opt.family == AF_INET6 &&
	    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, sizeof(v6only)) != 0)
		goto fail;
	if (opt.from_len && bind(fd, (struct sockaddr *)&opt.from, opt.from_len) != 0)
		goto fail;
	return fd;
fail:
	error = errno;
	close(fd);
	return -error;
}

/* Starts a connect; 0 done, EINPROGRESS under way, else the error. */
static int start_connect(int fd)
{
	return connect(fd, (struct sockaddr *)&opt.to, opt.to_len) == 0 ? 0 : errno;
}

static int dissolve(int fd)
{
	struct sockaddr unspec = { .sa_family = AF_UNSPEC };

	return connect(fd, &unspec, sizeof(unspec)) == 0 ? 0 : errno;
}

static int socket_error(int fd)
{
	int error = 0;
	socklen_t len = sizeof(error);

	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 ? error : errno;
}

/* Sends the request; 0 or the error. */
static int ask(struct pending *p)
{
	static const char request[] = "GET / HTTP/1.0\r\n\r\n";

	p->asked = true;
	p->asked_ns = now_ns();
	return send(p->fd, request, sizeof(request) - 1, MSG_NOSIGNAL) < 0 ? errno : EINPROGRESS;
}

/* Whether the answer has begun; 0 or the error, ENODATA for an end without one. */
static int answer_error(int fd)
{
	char byte;
	ssize_t n = recv(fd, &byte, 1, 0);

	return n < 0 ? errno : n ? 0 : ENODATA;
}

/*
 * Takes a connect one step on, given that its last step ended with error.
 * Returns true when it is over: p->fd is then a connection, or -1 (counted).
 */
static bool advance(struct pending *p, int error)
{
	if (error == EINPROGRESS)
		return false;
	if (error == 0 && p->again) {
		p->again = false;
		error = dissolve(p->fd);
		if (error == 0)
			error = start_connect(p->fd);
		if (error == EINPROGRESS)
			return false;
	}
	if (error == 0 && opt.ask && !p->asked) {
		error = ask(p);
		if (error == EINPROGRESS)
			return false;
	}
	if (error) {
		count_failure(error, p);
		close(p->fd);
		p->fd = -1;
		return true;
	}
	count_success(p);
	if (opt.peer)
		print_peer(p->fd);
	if (opt.udp && send(p->fd, "x", 1, 0) != 1)
		printf("send: %s\n", strerrorname_np(errno));
	return true;
}

/* Starts one connect. Returns true when it is over at once. */
static bool begin(struct pending *p)
{
	p->start_ns = now_ns();
	p->again = opt.reconnect;
	p->asked = false;
	p->fd = open_socket();
	if (p->fd < 0) {
		count_failure(-p->fd, p);
		p->fd = -1;
		return true;
	}
	return advance(p, start_connect(p->fd));
}

/*
 * Waits up to wait_ms for the n connects in p, and takes out those that are over.
 * Connections go to held (when not NULL) or are closed. Returns how many are left.
 */
static int reap(struct pending *p, int n, int wait_ms, int *held, long *n_held)
{
	static struct pollfd fds[PENDING_MAX];
	uint64_t limit_ns = (uint64_t)opt.timeout_ms * 1000000u;
	int left = 0;

	for (int i = 0; i < n; i++)
		fds[i] = (struct pollfd){ .fd = p[i].fd, .events = p[i].asked ? POLLIN : POLLOUT };
	if (poll(fds, (nfds_t)n, wait_ms) < 0 && errno != EINTR) {
		perror("nbconnect: poll");
		exit(1);
	}
	for (int i = 0; i < n; i++) {
		bool over = false;

		if (fds[i].revents)
			over = advance(&p[i],
				       p[i].asked ? answer_error(p[i].fd) : socket_error(p[i].fd));
		else if (now_ns() - p[i].start_ns > limit_ns) {
			count_failure(ETIMEDOUT, &p[i]);
			close(p[i].fd);
			p[i].fd = -1;
			over = true;
		}
		if (!over)
			p[left++] = p[i];
		else if (p[i].fd >= 0 && held)
			held[(*n_held)++] = p[i].fd;
		else if (p[i].fd >= 0)
			close(p[i].fd);
	}
	return left;
}

static void run_sequential(void)
{
	int wait_ms = opt.timeout_ms < 1000 ? opt.timeout_ms + 1 : 1000;

	for (long i = 0; i < opt.n && !asked_to_end; i++) {
		struct pending p;

		if (!begin(&p)) {
			while (reap(&p, 1, wait_ms, NULL, NULL) > 0)
				;
		} else if (p.fd >= 0) {
			close(p.fd);
		}
	}
}

/* The connections among these that the other side has ended. */
static long count_closed(const int *held, long n)
{
	long closed = 0;

	for (long i = 0; i < n; i++) {
		struct pollfd fd = { .fd = held[i], .events = POLLIN | POLLRDHUP };

		if (poll(&fd, 1, 0) > 0 && (fd.revents & (POLLERR | POLLHUP | POLLRDHUP)))
			closed++;
	}
	return closed;
}

static void run_hold(void)
{
	struct pending *p = calloc(PENDING_MAX, sizeof(*p));
	int *held = calloc((size_t)opt.hold, sizeof(*held));
	long n_held = 0, started = 0;
	int n = 0;
	char sink[64];

	if (!p || !held)
		usage("out of memory");
	while (started < opt.hold || n > 0) {
		while (started < opt.hold && n < PENDING_MAX) {
			started++;
			if (!begin(&p[n]))
				n++;
			else if (p[n].fd >= 0)
				held[n_held++] = p[n].fd;
		}
		n = reap(p, n, 100, held, &n_held);
	}
	printf("held %ld\n", n_held);
	fflush(stdout);
	while (!asked_to_end && read(STDIN_FILENO, sink, sizeof(sink)) > 0)
		;
	result.closed = count_closed(held, n_held);
	for (long i = 0; i < n_held; i++)
		close(held[i]);
	free(held);
	free(p);
}

static void run_rate(void)
{
	struct pending *p = calloc(PENDING_MAX, sizeof(*p));
	uint64_t start = now_ns(), interval = (uint64_t)(1e9 / opt.rate);
	uint64_t end = start + (uint64_t)(opt.seconds * 1e9), next = start;
	int n = 0;

	if (!p)
		usage("out of memory");
	while (n > 0 || (now_ns() < end && !asked_to_end)) {
		uint64_t now = now_ns();
		int wait_ms = 10;

		for (; next <= now && next < end && n < PENDING_MAX && !asked_to_end;
		     next += interval) {
			if (!begin(&p[n]))
				n++;
			else if (p[n].fd >= 0)
				close(p[n].fd);
		}
		if (next > now && next < end)
			wait_ms = (int)((next - now) / 1000000u);
		n = reap(p, n, wait_ms, NULL, NULL);
	}
	free(p);
}

static void print_summary(void)
{
	const char *comma = "";

	printf("{\"ok\":%ld,\"failed\":%ld,\"errors\":{", result.ok, result.failed);
	for (int i = 0; i < ERRNO_MAX; i++) {
		const char *name = result.errors[i] ? strerrorname_np(i) : NULL;

		if (!result.errors[i])
			continue;
		printf("%s\"%s\":%ld", comma, name ? name : "?", result.errors[i]);
		comma = ",";
	}
	printf("},\"max_ms\":%.3f,\"max_failed_ms\":%.3f,\"closed\":%ld}\n",
	       (double)result.max_ns / 1e6, (double)result.max_failed_ns / 1e6, result.closed);
}

static double number(const char *text, double min, double max)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || *end || !(value >= min && value <= max))
		usage("not a number, or out of range");
	return value;
}

static void parse_options(int argc, char **argv)
{
	enum { V6ONLY = 256, BIND, RECONNECT, UDP, PEER, TIMEOUT, HOLD, RATE, SECONDS, ASK, SLOW };
	static const struct option longopts[] = {
		{ "v6only", no_argument, NULL, V6ONLY },
		{ "bind", required_argument, NULL, BIND },
		{ "reconnect", no_argument, NULL, RECONNECT },
		{ "udp", no_argument, NULL, UDP },
		{ "peer", no_argument, NULL, PEER },
		{ "timeout", required_argument, NULL, TIMEOUT },
		{ "hold", required_argument, NULL, HOLD },
		{ "rate", required_argument, NULL, RATE },
		{ "seconds", required_argument, NULL, SECONDS },
		{ "ask", no_argument, NULL, ASK },
		{ "slow", required_argument, NULL, SLOW },
		{ 0 },
	};
	const char *from = NULL;
	int c;

	while ((c = getopt_long(argc, argv, "46n:", longopts, NULL)) != -1) {
		switch (c) {
		case '4':
			opt.family = AF_INET;
			break;
		case '6':
			opt.family = AF_INET6;
			break;
		case 'n':
			opt.n = (long)number(optarg, 1, 1e9);
			break;
		case V6ONLY:
			opt.family = AF_INET6;
			opt.v6only = true;
			break;
		case BIND:
			from = optarg;
			break;
		case RECONNECT:
			opt.reconnect = true;
			break;
		case UDP:
			opt.udp = true;
			break;
		case PEER:
			opt.peer = true;
			break;
		case TIMEOUT:
			opt.timeout_ms = (int)number(optarg, 1, 3600000);
			break;
		case HOLD:
			opt.hold = (long)number(optarg, 1, 60000);
			break;
		case RATE:
			opt.rate = number(optarg, 0.001, 1e6);
			break;
		case SECONDS:
			opt.seconds = number(optarg, 0, 86400);
			break;
		case ASK:
			opt.ask = true;
			break;
		case SLOW:
			opt.slow_ms = number(optarg, 0.001, 3600000);
			break;
		default:
			usage("unknown option");
		}
	}
	if (argc - optind < 1 || argc - optind > 2)
		usage("want ADDRESS [PORT]");
	opt.to_len = parse_address(argv[optind],
				   argc - optind == 2 ? (int)number(argv[optind + 1], 1, 65535)
						      : DEFAULT_PORT,
				   &opt.to);
	if (from)
		opt.from_len = parse_address(from, 0, &opt.from);
}

int main(int argc, char **argv)
{
	struct sigaction end = { .sa_handler = on_signal };
	struct rlimit files;

	parse_options(argc, argv);
	sigaction(SIGTERM, &end, NULL);
	sigaction(SIGINT, &end, NULL);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	if (opt.hold)
		run_hold();
	else if (opt.rate > 0)
		run_rate();
	else
		run_sequential();
	print_summary();
	if (fflush(stdout) != 0)
		return 1;
	return result.failed ? 1 : 0;
}
