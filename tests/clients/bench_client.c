/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bench_client: what the benchmark times. Each mode prints one line of JSON.
 *
 *   bench_client requests [--seconds S] [--path P] ADDRESS PORT
 *       one TLS 1.2+ connection, kept, and GETs back to back on it for S seconds
 *       (default 2). Response bodies are read and counted, so that a large file
 *       as P measures throughput. The server's certificate is not verified.
 *   bench_client first-bytes [-n N] [--path P] ADDRESS PORT
 *       N connections, one after the other, each with a TLS handshake and one GET; times all of it,
 *       from connect() until the answer is there.
 *   bench_client hold [--path P] ADDRESS PORT
 *       for each number that comes on standard input makes connections, with a TLS handshake and
 * one GET on each, until there are so many, and prints "held N". At the end of input each makes one
 *       more request; fails if one of them is lost.
 *   bench_client connects [-n N] [--peer] ADDRESS PORT
 *       N plain TCP connects, one after the other; times connect() alone. --peer
 *       asks each for its peer's address (not timed).
 *   bench_client unrelated [-n N]
 *       N times connect, accept, close and close against a listener of its own on
 *       127.0.0.1; times the four together.
 *   bench_client datagrams [-n N] ADDRESS PORT
 *       N datagrams of 64 bytes from a socket that is not connected; the time of 32 sends is
 *       taken together, and a 32nd of it is one sample.
 *   bench_client sink ADDRESS PORT
 *       takes datagrams and reads none, until killed; prints "ready". Its buffer is full soon: what
 *       comes then is dropped at the socket.
 *   bench_client dial [--rate R] [--seconds S] [--tls] [--give-up T] ADDRESS PORT
 *       begins R connects a second (default 100) for S seconds, each on a socket of its
 *       own and whatever became of those before; with --tls each makes a TLS handshake.
 *       One that is not through after T seconds (default 10) has failed. Prints "begun",
 *       and in the end a list with the start of each (CLOCK_MONOTONIC), how long it took,
 *       both in seconds, and what became of it: null or an errno's name.
 *   bench_client serve ADDRESS PORT
 *       accepts and closes, one connection at a time and each after its client, until killed;
 *       prints "ready" when it listens. A server that closes first without a byte would be ejected.
 *
 * Clients close with a reset: no TIME_WAIT builds up from one run to the next. Those of dial
 * close as anybody's do.
 * Exit status: 0 measured, 1 something failed, 2 the command line is wrong.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#define BACKLOG 4096
#define N_DEFAULT 20000
#define N_MAX 10000000
#define SECONDS_DEFAULT 2.0
#define RATE_DEFAULT 100
#define GIVE_UP_DEFAULT 10
#define CHUNK 65536
#define HELD_MAX 20000
#define DATAGRAM 64
#define DATAGRAMS_TOGETHER 32 /* two clock reads for each would be a tenth of what is timed */

static struct {
	long n;
	double seconds, rate, give_up;
	const char *path;
	bool peer, tls;
	struct sockaddr_storage to;
	socklen_t to_len;
} opt = { .n = N_DEFAULT,
	  .seconds = SECONDS_DEFAULT,
	  .rate = RATE_DEFAULT,
	  .give_up = GIVE_UP_DEFAULT,
	  .path = "/version" };

/* Durations in nanoseconds; grows as needed. */
struct samples {
	uint64_t *ns;
	size_t n, room;
};

__attribute__((format(printf, 2, 3), noreturn)) static void fail(int status, const char *format,
								 ...)
{
	va_list args;

	fputs("bench_client: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(status);
}

__attribute__((noreturn)) static void fail_errno(const char *what)
{
	fail(1, "%s: %s", what, strerror(errno));
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* --- samples -------------------------------------------------------------------- */

static void add_sample(struct samples *s, uint64_t ns)
{
	if (s->n == s->room) {
		s->room = s->room ? 2 * s->room : 65536;
		s->ns = realloc(s->ns, s->room * sizeof(*s->ns));
		if (!s->ns)
			fail(1, "out of memory");
	}
	s->ns[s->n++] = ns;
}

static int compare_ns(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* p: 0..1. Sorts. */
static double percentile(struct samples *s, double p)
{
	if (!s->n)
		fail(1, "nothing was measured");
	qsort(s->ns, s->n, sizeof(*s->ns), compare_ns);
	return (double)s->ns[(size_t)(p * (double)(s->n - 1))];
}

static double mean(const struct samples *s)
{
	double sum = 0;

	for (size_t i = 0; i < s->n; i++)
		sum += (double)s->ns[i];
	return sum / (double)s->n;
}

static void print_durations(struct samples *s)
{
	double p10 = percentile(s, 0.1);

	printf("{\"n\":%zu,\"mean_ns\":%.1f,\"p10_ns\":%.0f,\"p50_ns\":%.0f,\"p99_ns\":%.0f}\n",
	       s->n, mean(s), p10, percentile(s, 0.5), percentile(s, 0.99));
}

/* --- sockets -------------------------------------------------------------------- */

static int socket_of(int family, int type)
{
	int fd = socket(family, type | SOCK_CLOEXEC, 0);

	if (fd < 0)
		fail_errno("socket");
	return fd;
}

static void set_option(int fd, int level, int name, const void *value, socklen_t size)
{
	if (setsockopt(fd, level, name, value, size) != 0)
		fail_errno("setsockopt");
}

static int client_socket(void)
{
	struct linger reset = { .l_onoff = 1, .l_linger = 0 };
	int fd = socket_of(opt.to.ss_family, SOCK_STREAM);

	set_option(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	return fd;
}

static void connect_client(int fd)
{
	if (connect(fd, (struct sockaddr *)&opt.to, opt.to_len) != 0)
		fail_errno("connect");
}

/* Listens on opt.to; port 0 becomes the one that the kernel chose. */
static int listener(void)
{
	int fd = socket_of(opt.to.ss_family, SOCK_STREAM), on = 1;

	set_option(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&opt.to, opt.to_len) != 0)
		fail_errno("bind");
	if (listen(fd, BACKLOG) != 0)
		fail_errno("listen");
	if (getsockname(fd, (struct sockaddr *)&opt.to, &opt.to_len) != 0)
		fail_errno("getsockname");
	return fd;
}

static void parse_address(const char *text, int port)
{
	struct sockaddr_in *in = (struct sockaddr_in *)&opt.to;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&opt.to;

	if (inet_pton(AF_INET, text, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		in->sin_port = htons((uint16_t)port);
		opt.to_len = sizeof(*in);
	} else if (inet_pton(AF_INET6, text, &in6->sin6_addr) == 1) {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons((uint16_t)port);
		opt.to_len = sizeof(*in6);
	} else {
		fail(2, "'%s' is not an IP address", text);
	}
}

/* --- connects, unrelated, serve ------------------------------------------------- */

static void ask_peer(int fd)
{
	struct sockaddr_storage peer;
	socklen_t len = sizeof(peer);

	if (getpeername(fd, (struct sockaddr *)&peer, &len) != 0)
		fail_errno("getpeername");
}

static void run_connects(void)
{
	struct samples s = { 0 };

	for (long i = 0; i < opt.n; i++) {
		int fd = client_socket();
		uint64_t start = now_ns();

		connect_client(fd);
		add_sample(&s, now_ns() - start);
		if (opt.peer)
			ask_peer(fd);
		close(fd);
	}
	print_durations(&s);
	free(s.ns);
}

static void run_unrelated(void)
{
	struct samples s = { 0 };
	int server;

	parse_address("127.0.0.1", 0);
	server = listener();
	for (long i = 0; i < opt.n; i++) {
		int client = client_socket(), accepted;
		uint64_t start = now_ns();

		connect_client(client);
		accepted = accept4(server, NULL, NULL, SOCK_CLOEXEC);
		if (accepted < 0)
			fail_errno("accept");
		close(client);
		close(accepted);
		add_sample(&s, now_ns() - start);
	}
	close(server);
	print_durations(&s);
	free(s.ns);
}

/* Until the client closes, or resets. */
static void wait_for_end(int fd)
{
	char buffer[256];

	while (read(fd, buffer, sizeof(buffer)) > 0)
		;
}

__attribute__((noreturn)) static void run_serve(void)
{
	int server = listener();

	puts("ready");
	fflush(stdout);
	for (;;) {
		int fd = accept4(server, NULL, NULL, SOCK_CLOEXEC);

		if (fd >= 0) {
			wait_for_end(fd);
			close(fd);
		} else if (errno != ECONNABORTED && errno != EINTR) {
			fail_errno("accept");
		}
	}
}

/* --- datagrams, sink ------------------------------------------------------------ */

static void run_datagrams(void)
{
	int fd = socket_of(opt.to.ss_family, SOCK_DGRAM);
	char data[DATAGRAM] = { 0 };
	struct samples s = { 0 };

	for (long sent = 0; sent < opt.n; sent += DATAGRAMS_TOGETHER) {
		uint64_t start = now_ns();

		for (int i = 0; i < DATAGRAMS_TOGETHER; i++)
			if (sendto(fd, data, sizeof(data), 0, (struct sockaddr *)&opt.to,
				   opt.to_len) < 0)
				fail_errno("sendto");
		add_sample(&s, (now_ns() - start) / DATAGRAMS_TOGETHER);
	}
	close(fd);
	print_durations(&s);
	free(s.ns);
}

__attribute__((noreturn)) static void run_sink(void)
{
	int fd = socket_of(opt.to.ss_family, SOCK_DGRAM);

	if (bind(fd, (struct sockaddr *)&opt.to, opt.to_len) != 0)
		fail_errno("bind");
	puts("ready");
	fflush(stdout);
	for (;;)
		pause();
}

/* --- requests ------------------------------------------------------------------- */

__attribute__((noreturn)) static void fail_tls(const char *what)
{
	char text[256] = "connection closed";
	unsigned long code = ERR_get_error();

	if (code)
		ERR_error_string_n(code, text, sizeof(text));
	fail(1, "%s: %s", what, text);
}

static SSL *connect_tls(SSL_CTX *ctx)
{
	int fd = client_socket(), on = 1;
	SSL *ssl = SSL_new(ctx);

	if (!ssl)
		fail_tls("SSL_new");
	set_option(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	connect_client(fd);
	if (SSL_set_fd(ssl, fd) != 1 || SSL_connect(ssl) != 1)
		fail_tls("TLS handshake");
	return ssl;
}

static size_t read_some(SSL *ssl, char *buffer, size_t room)
{
	size_t n;

	if (SSL_read_ex(ssl, buffer, room, &n) != 1)
		fail_tls("read");
	return n;
}

/* The length of the body that a response's head announces; the status must be 200. */
static size_t body_length(const char *head)
{
	const char *field = strcasestr(head, "\r\ncontent-length:");
	unsigned long long length;
	char *end;

	if (strncmp(head, "HTTP/1.1 200 ", 13) != 0)
		fail(1, "%s: %.*s", opt.path, (int)strcspn(head, "\r\n"), head);
	if (!field)
		fail(1, "%s: the answer has no Content-Length", opt.path);
	field = strchr(field, ':') + 1;
	errno = 0;
	length = strtoull(field, &end, 10);
	if (end == field || errno)
		fail(1, "%s: Content-Length is not a number", opt.path);
	return length;
}

/* Reads one response to its end and returns the length of its body. */
static size_t read_response(SSL *ssl)
{
	static char buffer[CHUNK + 1];
	size_t have = 0, length, left;
	char *end = NULL;

	while (!end) {
		if (have == CHUNK)
			fail(1, "the head of the answer is too long");
		have += read_some(ssl, buffer + have, CHUNK - have);
		buffer[have] = '\0';
		end = strstr(buffer, "\r\n\r\n");
	}
	*end = '\0';
	length = body_length(buffer);
	have -= (size_t)(end + 4 - buffer);
	if (have > length)
		fail(1, "more of an answer than announced");
	for (left = length - have; left > 0;)
		left -= read_some(ssl, buffer, left < CHUNK ? left : CHUNK);
	return length;
}

static SSL_CTX *tls_context(void)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

	if (!ctx || SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1)
		fail_tls("SSL_CTX_new");
	return ctx;
}

/* Returns its length. */
static size_t format_request(char *request, size_t size)
{
	size_t n = (size_t)snprintf(request, size, "GET %s HTTP/1.1\r\nHost: kubernetes\r\n\r\n",
				    opt.path);

	if (n >= size)
		fail(2, "the path is too long");
	return n;
}

static void run_requests(void)
{
	SSL_CTX *ctx = tls_context();
	struct samples s = { 0 };
	uint64_t start, now, end, bytes = 0;
	char request[1024];
	size_t n = format_request(request, sizeof(request));
	double took, p50;
	SSL *ssl;

	ssl = connect_tls(ctx);
	start = now = now_ns();
	end = start + (uint64_t)(opt.seconds * 1e9);
	while (now < end) {
		uint64_t sent = now;
		size_t written;

		if (SSL_write_ex(ssl, request, n, &written) != 1)
			fail_tls("write");
		bytes += read_response(ssl);
		now = now_ns();
		add_sample(&s, now - sent);
	}
	took = (double)(now - start) / 1e9;
	p50 = percentile(&s, 0.5) / 1e3;
	printf("{\"requests\":%zu,\"seconds\":%.3f,\"rps\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f,"
	       "\"bytes\":%llu,\"mb_per_s\":%.2f}\n",
	       s.n, took, (double)s.n / took, p50, percentile(&s, 0.99) / 1e3,
	       (unsigned long long)bytes, (double)bytes / took / 1e6);
	free(s.ns);
	close(SSL_get_fd(ssl));
	SSL_free(ssl);
	SSL_CTX_free(ctx);
}

/* --- first-bytes, hold ---------------------------------------------------------- */

static void ask_once(SSL *ssl)
{
	char request[1024];
	size_t written, n = format_request(request, sizeof(request));

	if (SSL_write_ex(ssl, request, n, &written) != 1)
		fail_tls("write");
	read_response(ssl);
}

static void run_first_bytes(void)
{
	SSL_CTX *ctx = tls_context();
	struct samples s = { 0 };

	for (long i = 0; i < opt.n; i++) {
		uint64_t start = now_ns();
		SSL *ssl = connect_tls(ctx);

		ask_once(ssl);
		add_sample(&s, now_ns() - start);
		close(SSL_get_fd(ssl));
		SSL_free(ssl);
	}
	print_durations(&s);
	free(s.ns);
	SSL_CTX_free(ctx);
}

static void run_hold(void)
{
	SSL_CTX *ctx = tls_context();
	SSL **held = calloc(HELD_MAX, sizeof(*held));
	size_t n = 0, want;

	if (!held)
		fail(1, "out of memory");
	while (scanf("%zu", &want) == 1) {
		if (want > HELD_MAX)
			fail(2, "%zu connections, want at most %d", want, HELD_MAX);
		for (; n < want; n++) {
			held[n] = connect_tls(ctx);
			ask_once(held[n]);
		}
		printf("held %zu\n", n);
		fflush(stdout);
	}
	for (size_t i = 0; i < n; i++) {
		ask_once(held[i]);
		close(SSL_get_fd(held[i]));
		SSL_free(held[i]);
	}
	puts("all answered");
	free(held);
	SSL_CTX_free(ctx);
}

/* --- dial ----------------------------------------------------------------------- */

struct attempt {
	uint64_t start_ns, took_ns;
	SSL *ssl;
	int fd; /* -1: it is over */
	int error;
	bool connected;
};

static struct {
	struct attempt *all;
	size_t n, begun, over;
	size_t oldest; /* all before it are over */
	SSL_CTX *tls; /* NULL: connects alone */
	int epoll;
} dialler;

static void end_attempt(struct attempt *a, int error)
{
	a->took_ns = now_ns() - a->start_ns;
	a->error = error;
	SSL_free(a->ssl);
	close(a->fd);
	a->ssl = NULL;
	a->fd = -1;
	dialler.over++;
}

static void wait_for(struct attempt *a, int operation, uint32_t events)
{
	struct epoll_event e = { .events = events, .data.ptr = a };

	if (epoll_ctl(dialler.epoll, operation, a->fd, &e) != 0)
		fail_errno("epoll_ctl");
}

static void shake_hands(struct attempt *a)
{
	int r;

	ERR_clear_error();
	errno = 0;
	r = SSL_connect(a->ssl);
	if (r == 1) {
		end_attempt(a, 0);
		return;
	}
	switch (SSL_get_error(a->ssl, r)) {
	case SSL_ERROR_WANT_READ:
		wait_for(a, EPOLL_CTL_MOD, EPOLLIN);
		break;
	case SSL_ERROR_WANT_WRITE:
		wait_for(a, EPOLL_CTL_MOD, EPOLLOUT);
		break;
	default:
		end_attempt(a, errno ? errno : EPROTO);
	}
}

static void on_connected(struct attempt *a)
{
	a->connected = true;
	if (!dialler.tls) {
		end_attempt(a, 0);
		return;
	}
	a->ssl = SSL_new(dialler.tls);
	if (!a->ssl || SSL_set_fd(a->ssl, a->fd) != 1)
		fail_tls("SSL_new");
	shake_hands(a);
}

static void go_on(struct attempt *a)
{
	int error = 0;
	socklen_t len = sizeof(error);

	if (a->connected) {
		shake_hands(a);
		return;
	}
	if (getsockopt(a->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
		fail_errno("getsockopt");
	if (error)
		end_attempt(a, error);
	else
		on_connected(a);
}

static void begin_attempt(void)
{
	struct attempt *a = &dialler.all[dialler.begun++];

	a->fd = socket(opt.to.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (a->fd < 0)
		fail_errno("socket");
	a->start_ns = now_ns();
	if (connect(a->fd, (struct sockaddr *)&opt.to, opt.to_len) == 0 || errno == EINPROGRESS)
		wait_for(a, EPOLL_CTL_ADD, EPOLLOUT);
	else
		end_attempt(a, errno);
}

/* They began in this order, and all have as long. */
static void give_up(void)
{
	uint64_t now = now_ns();
	struct attempt *a;

	for (; dialler.oldest < dialler.begun; dialler.oldest++) {
		a = &dialler.all[dialler.oldest];
		if (a->fd < 0)
			continue;
		if (now - a->start_ns < (uint64_t)(opt.give_up * 1e9))
			return;
		end_attempt(a, ETIMEDOUT);
	}
}

static void print_attempts(void)
{
	for (size_t i = 0; i < dialler.n; i++) {
		const struct attempt *a = &dialler.all[i];

		printf("%s[%.6f,%.6f,", i ? "," : "[", (double)a->start_ns / 1e9,
		       (double)a->took_ns / 1e9);
		if (a->error)
			printf("\"%s\"]", strerrorname_np(a->error));
		else
			printf("null]");
	}
	puts("]");
}

static void run_dial(void)
{
	struct epoll_event events[64];
	uint64_t start, now;

	dialler.n = (size_t)(opt.rate * opt.seconds);
	dialler.all = calloc(dialler.n, sizeof(*dialler.all));
	dialler.epoll = epoll_create1(EPOLL_CLOEXEC);
	dialler.tls = opt.tls ? SSL_CTX_new(TLS_client_method()) : NULL;
	if (!dialler.n || !dialler.all || dialler.epoll < 0 || (opt.tls && !dialler.tls))
		fail(1, "cannot begin");
	puts("begun");
	fflush(stdout);
	start = now_ns();
	while (dialler.over < dialler.n) {
		int n = epoll_wait(dialler.epoll, events, 64, 1);

		for (int i = 0; i < n; i++)
			go_on(events[i].data.ptr);
		now = now_ns();
		while (dialler.begun < dialler.n &&
		       (double)(now - start) >= (double)dialler.begun / opt.rate * 1e9)
			begin_attempt();
		give_up();
	}
	print_attempts();
	free(dialler.all);
	SSL_CTX_free(dialler.tls);
	close(dialler.epoll);
}

/* --- command line --------------------------------------------------------------- */

static double number(const char *what, const char *text, double min, double max)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || *end || !(value >= min && value <= max))
		fail(2, "%s '%s': want a number, %g..%g", what, text, min, max);
	return value;
}

static const char *parse_options(int argc, char **argv)
{
	static const struct option longopts[] = {
		{ "seconds", required_argument, NULL, 's' },
		{ "path", required_argument, NULL, 'p' },
		{ "peer", no_argument, NULL, 'P' },
		{ "rate", required_argument, NULL, 'r' },
		{ "give-up", required_argument, NULL, 'g' },
		{ "tls", no_argument, NULL, 't' },
		{ 0 },
	};
	const char *mode;
	int c;

	while ((c = getopt_long(argc, argv, "n:", longopts, NULL)) != -1) {
		switch (c) {
		case 'n':
			opt.n = (long)number("-n", optarg, 1, N_MAX);
			break;
		case 's':
			opt.seconds = number("--seconds", optarg, 0.01, 3600);
			break;
		case 'p':
			opt.path = optarg;
			break;
		case 'P':
			opt.peer = true;
			break;
		case 'r':
			opt.rate = number("--rate", optarg, 0.1, 100000);
			break;
		case 'g':
			opt.give_up = number("--give-up", optarg, 0.01, 3600);
			break;
		case 't':
			opt.tls = true;
			break;
		default:
			fail(2, "see the top of bench_client.c");
		}
	}
	if (optind == argc)
		fail(2, "want a mode: see the top of bench_client.c");
	mode = argv[optind++];
	if (strcmp(mode, "unrelated") != 0) {
		if (argc - optind != 2)
			fail(2, "%s: want ADDRESS PORT", mode);
		parse_address(argv[optind], (int)number("port", argv[optind + 1], 1, 65535));
	} else if (optind != argc) {
		fail(2, "unrelated: takes no address");
	}
	return mode;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} modes[] = {
		{ "requests", run_requests },	{ "connects", run_connects },
		{ "unrelated", run_unrelated }, { "dial", run_dial },
		{ "serve", run_serve },		{ "datagrams", run_datagrams },
		{ "sink", run_sink },		{ "first-bytes", run_first_bytes },
		{ "hold", run_hold },
	};
	const char *mode = parse_options(argc, argv);

	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		if (strcmp(mode, modes[i].name) != 0)
			continue;
		modes[i].run();
		return fflush(stdout) == 0 ? 0 : 1;
	}
	fail(2, "unknown mode '%s': see the top of bench_client.c", mode);
}
