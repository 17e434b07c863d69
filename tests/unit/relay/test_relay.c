/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The relay between real sockets: the test is the client on one side and the backend on the other.
 * What takes two sides at a time has a thread for the other one.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "net/endpoint.h"
#include "relay/relay.h"
#include "unit.h"

#define BACKENDS_MAX 3
/* Long enough that only what is meant to time out does. */
#define CONNECT_TIMEOUT_MS 20000

/* What the op outcome has been told, in order. */
struct outcome {
	struct klb_endpoint backend;
	int error;
	__u64 ejected_ns;
	bool restored;
};

static struct {
	struct relay *relay;
	struct relay_listener *listener;
	struct klb_endpoint at; /* where it listens */
	struct relay_limits limits;
	struct relay_frontend frontend;
	int backend[BACKENDS_MAX]; /* listening sockets */
	pthread_mutex_t lock; /* of what the ops write */
	struct outcome outcomes[64];
	unsigned int n_outcomes;
} world;

/* --- sockets --- */

static void set_patience(int fd)
{
	const struct timeval patience = { .tv_sec = PATIENCE_S };

	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)), 0);
}

static int listening(int backlog, struct klb_endpoint *at)
{
	int fd = bind_loopback(false, at);

	assert_true(fd >= 0);
	assert_int_equal(listen(fd, backlog), 0);
	set_patience(fd);
	return fd;
}

/* Returns what connect does. */
static int dial_from(const char *source, int *ret_fd)
{
	struct klb_endpoint from = endpoint(source);
	struct sockaddr_storage ss;
	socklen_t length;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	set_patience(fd);
	from.port = 0;
	length = endpoint_to_sockaddr(&from, &ss);
	assert_int_equal(bind(fd, (struct sockaddr *)&ss, length), 0);
	*ret_fd = fd;
	length = endpoint_to_sockaddr(&world.at, &ss);
	return connect(fd, (struct sockaddr *)&ss, length);
}

/* A client of the relay, from that address of the loopback. */
static int client_from(const char *source)
{
	int fd;

	assert_int_equal(dial_from(source, &fd), 0);
	return fd;
}

static int client(void)
{
	return client_from("127.0.0.1");
}

/* The next connection of that backend. */
static int served_by(unsigned int backend)
{
	int fd = accept4(world.backend[backend], NULL, NULL, SOCK_CLOEXEC);

	assert_true(fd >= 0);
	set_patience(fd);
	return fd;
}

static void say(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void hear(int fd, const char *text)
{
	char got[64] = "";

	assert_int_equal(recv(fd, got, strlen(text), MSG_WAITALL), strlen(text));
	assert_string_equal(got, text);
}

static void hear_end(int fd)
{
	char got;

	assert_int_equal(recv(fd, &got, 1, 0), 0);
}

/* ECONNRESET, and nothing else: not the end of the stream, not a time-out. */
static void hear_reset(int fd)
{
	char got;

	assert_int_equal(recv(fd, &got, 1, 0), -1);
	assert_int_equal(errno, ECONNRESET);
}

/* The same where the stream has ended before: then only the socket's error and state tell. */
static void hear_reset_after_end(int fd)
{
	struct pollfd p = { .fd = fd };

	/* POLLHUP and POLLERR are always reported; POLLRDHUP alone is the end from before. */
	assert_int_equal(poll(&p, 1, PATIENCE_S * 1000), 1);
	assert_true(p.revents & POLLERR);
}

/* A client whom the relay resets, maybe before its connect has returned. */
static void refused_from(const char *source)
{
	int fd;

	if (dial_from(source, &fd))
		assert_int_equal(errno, ECONNRESET);
	else
		hear_reset(fd);
	close(fd);
}

static void refused(void)
{
	refused_from("127.0.0.1");
}

static void close_by_reset(int fd)
{
	const struct linger reset = { .l_onoff = 1 };

	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), 0);
	close(fd);
}

/* A backend that answers no SYN: its backlog of one is full. Returns the socket that fills it. */
static int make_black_hole(unsigned int i)
{
	struct sockaddr_storage ss;
	socklen_t length = endpoint_to_sockaddr(&world.frontend.at[i].endpoint, &ss);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(listen(world.backend[i], 0), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&ss, length), 0);
	return fd;
}

/* A backend whose host refuses. */
static void make_refusing(unsigned int i)
{
	close(world.backend[i]);
	world.backend[i] = -1;
}

/* --- the relay --- */

static void note_outcome(void *arg, const struct relay_request *request,
			 const struct relay_target *target, const struct relay_outcome *o)
{
	(void)arg;
	(void)request;
	pthread_mutex_lock(&world.lock);
	if (world.n_outcomes < ARRAY_SIZE(world.outcomes))
		world.outcomes[world.n_outcomes++] =
			(struct outcome){ target->endpoint, o->error, o->ejected_ns, o->restored };
	pthread_mutex_unlock(&world.lock);
}

static const struct relay_ops noting = { .outcome = note_outcome };

static void assert_outcome(unsigned int i, unsigned int backend, int error)
{
	pthread_mutex_lock(&world.lock);
	assert_true(i < world.n_outcomes);
	assert_true(
		endpoint_equal(&world.outcomes[i].backend, &world.frontend.at[backend].endpoint));
	assert_int_equal(world.outcomes[i].error, error);
	pthread_mutex_unlock(&world.lock);
}

static void plan(void)
{
	struct err e = { "" };

	assert_int_equal(relay_set_plan(world.relay, &world.frontend, 1, &e), 0);
}

static void begin_with(const struct relay_ops *ops, enum relay_from from, const struct cidr *allow,
		       unsigned int n_allow)
{
	struct err e = { "" };
	int fd = bind_loopback(false, &world.at);

	assert_true(fd >= 0);
	assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	assert_int_equal(listen(fd, 4096), 0);
	world.frontend.endpoint = world.at;
	assert_int_equal(relay_new(&world.limits, ops, NULL, &world.relay, &e), 0);
	plan();
	assert_int_equal(
		relay_listen(world.relay, fd, from, &world.at, allow, n_allow, &world.listener, &e),
		0);
}

static void begin(void)
{
	begin_with(&noting, RELAY_FRONTEND, NULL, 0);
}

static const struct relay_counts *counts(void)
{
	static struct relay_counts now;

	relay_read_counts(world.relay, &now);
	return &now;
}

/* Until the counts, which another thread changes, are so. */
#define wait_until(condition)                                          \
	do {                                                           \
		__u64 until_ = clock_now_ns() + PATIENCE_S * NS_PER_S; \
                                                                       \
		while (!(condition) && clock_now_ns() < until_)        \
			poll(NULL, 0, 1);                              \
		assert_true(condition);                                \
	} while (0)

/* Backends that are all alike; each test changes what it is about. */
static int set_up(void **state)
{
	count_files(state);
	memset(&world, 0, sizeof(world));
	pthread_mutex_init(&world.lock, NULL);
	world.limits = (struct relay_limits){ .connections = 1000,
					      .connect_timeout_ms = CONNECT_TIMEOUT_MS,
					      .threads = 2 };
	world.frontend =
		(struct relay_frontend){ .policy = KLB_POLICY_LEAST_CONN, .n = BACKENDS_MAX };
	for (unsigned int i = 0; i < BACKENDS_MAX; i++) {
		struct relay_target *target = &world.frontend.at[i];

		world.backend[i] = listening(1024, &target->endpoint);
		target->state = KLB_STATE_READY;
		target->weight = KLB_WEIGHT_DEFAULT;
	}
	return 0;
}

static int tear_down(void **state)
{
	relay_free(world.relay);
	for (unsigned int i = 0; i < BACKENDS_MAX; i++)
		if (world.backend[i] >= 0)
			close(world.backend[i]);
	return check_leftovers(state);
}

/* The first one is taken before all others. */
static void prefer_first(void)
{
	world.frontend.at[0].preferred = true;
}

/* --- copying --- */

static void copies_and_counts(void **state)
{
	const struct relay_backend_counts *first;
	struct relay_connection listed[2];
	int fd, server;

	(void)state;
	prefer_first();
	begin();
	fd = client();
	server = served_by(0);
	say(fd, "request");
	hear(server, "request");
	say(server, "answer");
	hear(fd, "answer");
	first = &counts()->at[0];
	assert_int_equal(first->active[RELAY_FRONTEND], 1);
	assert_int_equal(first->total[RELAY_FRONTEND], 1);
	assert_false(relay_is_idle(world.relay));
	assert_int_equal(relay_list(world.relay, listed, 2), 1);
	assert_true(endpoint_equal(&listed[0].backend, &world.frontend.at[0].endpoint));
	assert_true(endpoint_equal(&listed[0].frontend, &world.at));
	assert_true(listed[0].srtt_us);
	assert_in_range(listed[0].last_data_ms, 0, PATIENCE_S * 1000);
	assert_outcome(0, 0, 0);
	close(fd);
	hear_end(server);
	close(server);
	wait_until(relay_is_idle(world.relay));
	first = &counts()->at[0];
	assert_int_equal(first->active[RELAY_FRONTEND], 0);
	assert_int_equal(first->total[RELAY_FRONTEND], 1);
}

/* A server that speaks first is heard before its client says anything. */
static void server_speaks_first(void **state)
{
	int fd, server;

	(void)state;
	prefer_first();
	begin();
	fd = client();
	server = served_by(0);
	say(server, "banner");
	hear(fd, "banner");
	close(fd);
	close(server);
}

/* Either side may end its direction and go on listening. */
static void half_close(void **state)
{
	(void)state;
	prefer_first();
	begin();
	for (int turn = 0; turn < 2; turn++) {
		int ends[2] = { client(), served_by(0) };
		int first = ends[turn], second = ends[!turn];

		say(first, "last words");
		assert_int_equal(shutdown(first, SHUT_WR), 0);
		hear(second, "last words");
		hear_end(second);
		say(second, "reply");
		hear(first, "reply");
		assert_int_equal(counts()->connections, 1);
		assert_int_equal(shutdown(second, SHUT_WR), 0);
		hear_end(first);
		close(first);
		close(second);
		wait_until(relay_is_idle(world.relay));
	}
}

static void reset_is_passed_on(void **state)
{
	(void)state;
	prefer_first();
	begin();
	for (int turn = 0; turn < 2; turn++) {
		int ends[2] = { client(), served_by(0) };

		say(ends[0], "x");
		hear(ends[1], "x");
		close_by_reset(ends[turn]);
		hear_reset(ends[!turn]);
		close(ends[!turn]);
		wait_until(relay_is_idle(world.relay));
	}
}

/* Also where one direction has ended in order already: that one was whole, the other is not. */
static void reset_after_half_close(void **state)
{
	int fd, server;

	(void)state;
	prefer_first();
	begin();
	fd = client();
	server = served_by(0);
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	hear_end(server);
	say(server, "half of an ");
	hear(fd, "half of an ");
	close_by_reset(server);
	hear_reset(fd);
	close(fd);
}

/* A side that has ended its direction is not read from any more, and can be reset all the same. */
static void reset_of_the_ended_side(void **state)
{
	(void)state;
	prefer_first();
	begin();
	for (int turn = 0; turn < 2; turn++) {
		int ends[2] = { client(), served_by(0) };

		assert_int_equal(shutdown(ends[turn], SHUT_WR), 0);
		hear_end(ends[!turn]);
		close_by_reset(ends[turn]);
		hear_reset_after_end(ends[!turn]);
		close(ends[!turn]);
		wait_until(relay_is_idle(world.relay));
	}
}

/* What a server has answered before it resets has reached its client. */
static void answer_before_reset(void **state)
{
	int fd, server;

	(void)state;
	prefer_first();
	begin();
	fd = client();
	server = served_by(0);
	/* One that is reset before the relay has taken it is a failed dial. */
	wait_until(counts()->at[0].active[RELAY_FRONTEND] == 1);
	say(server, "no");
	close_by_reset(server);
	hear(fd, "no");
	hear_reset(fd);
	close(fd);
}

/* With the relay's end, its clients see a reset and never the end of a stream. */
static void end_is_a_reset(void **state)
{
	int fd, server;

	(void)state;
	prefer_first();
	begin();
	fd = client();
	server = served_by(0);
	say(server, "half of an ");
	hear(fd, "half of an ");
	relay_free(world.relay);
	world.relay = NULL;
	hear_reset(fd);
	hear_reset(server);
	close(fd);
	close(server);
}

/* The same when it is killed, which leaves the closing to the kernel. */
static void kill_is_a_reset(void **state)
{
	int ready[2], fd, server, status;
	pid_t pid;
	char go;

	(void)state;
	prefer_first();
	assert_int_equal(pipe(ready), 0);
	/* Bound before the fork, so that the test knows the address. */
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		/* What fails here would go on with the next test, and the parent would wait. */
		alarm(30);
		begin();
		if (write(ready[1], &world.at, sizeof(world.at)) == sizeof(world.at))
			pause();
		_exit(1);
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &world.at, sizeof(world.at)), sizeof(world.at));
	fd = client();
	server = served_by(0);
	say(server, "half of an ");
	hear(fd, "half of an ");
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	hear_reset(fd);
	hear_reset(server);
	close(fd);
	close(server);
	close(ready[0]);
	(void)go;
}

/* Sends until nobody takes any more. Returns how much that was. */
static size_t fill_up(int fd)
{
	static const char chunk[65536];
	size_t sent = 0;

	for (;;) {
		ssize_t n = send(fd, chunk, sizeof(chunk), MSG_NOSIGNAL | MSG_DONTWAIT);
		struct pollfd p = { .fd = fd, .events = POLLOUT };

		if (n > 0)
			sent += (size_t)n;
		else if (!poll(&p, 1, 500)) /* the time itself: it stays full */
			return sent;
	}
}

/* A receiver that does not read costs one chunk of memory, and stops its sender. */
static void slow_receiver_stops_its_sender(void **state)
{
	static char chunk[65536];
	size_t sent, received = 0;
	int fd, server;

	(void)state;
	prefer_first();
	begin();
	fd = client();
	server = served_by(0);
	sent = fill_up(fd);
	assert_in_range(counts()->buffered_bytes, 1, 65536);
	/* The other direction is not concerned. */
	say(server, "answer");
	hear(fd, "answer");
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	while (received < sent) {
		ssize_t n = recv(server, chunk, sizeof(chunk), 0);

		assert_true(n > 0);
		received += (size_t)n;
	}
	assert_int_equal(received, sent);
	hear_end(server);
	assert_int_equal(counts()->buffered_bytes, 0);
	close(fd);
	close(server);
}

/* A client that is reset while its bytes wait for the backend to read. */
static void reset_while_held(void **state)
{
	int fd, server;

	(void)state;
	prefer_first();
	begin();
	fd = client();
	server = served_by(0);
	fill_up(fd);
	close_by_reset(fd);
	wait_until(relay_is_idle(world.relay));
	assert_int_equal(counts()->buffered_bytes, 0);
	close(server);
}

#define BULK_BYTES ((size_t)100 << 20)

/* Bytes that show a loss, a repetition and a change of order. */
static unsigned char pattern(size_t at)
{
	return (unsigned char)(at * 2654435761U >> 13);
}

static void *send_bulk(void *arg)
{
	static __thread unsigned char chunk[65536];
	int fd = *(int *)arg;

	for (size_t at = 0; at < BULK_BYTES;) {
		for (size_t i = 0; i < sizeof(chunk); i++)
			chunk[i] = pattern(at + i);
		for (size_t sent = 0; sent < sizeof(chunk);) {
			ssize_t n = send(fd, chunk + sent, sizeof(chunk) - sent, MSG_NOSIGNAL);

			if (n <= 0)
				return "the sender's connection is gone";
			sent += (size_t)n;
		}
		at += sizeof(chunk);
	}
	return shutdown(fd, SHUT_WR) ? "cannot be shut down" : NULL;
}

static void *receive_bulk(void *arg)
{
	static __thread unsigned char chunk[65536];
	int fd = *(int *)arg;
	size_t at = 0;
	ssize_t n;

	while ((n = recv(fd, chunk, sizeof(chunk), 0)) > 0)
		for (ssize_t i = 0; i < n; i++)
			if (chunk[i] != pattern(at++))
				return "bytes are not as they were sent";
	if (n)
		return "the receiver's connection is gone";
	return at == BULK_BYTES ? NULL : "bytes are missing";
}

/* 100 MiB each way at the same time. */
static void bulk_both_ways(void **state)
{
	void *(*const work[])(void *) = { send_bulk, receive_bulk, send_bulk, receive_bulk };
	pthread_t threads[4];
	void *fault;
	int ends[2];

	(void)state;
	prefer_first();
	begin();
	ends[0] = client();
	ends[1] = served_by(0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, work[i], &ends[i / 2]), 0);
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], &fault);
		if (fault)
			fail_msg("%s", (char *)fault);
	}
	wait_until(relay_is_idle(world.relay));
	close(ends[0]);
	close(ends[1]);
}

/* While one connection is at full speed, another one is served on the same thread. */
static void bulk_leaves_turns(void **state)
{
	int ends[2], fd, server;
	pthread_t threads[2];
	void *fault;

	(void)state;
	world.limits.threads = 1;
	prefer_first();
	begin();
	ends[0] = client();
	ends[1] = served_by(0);
	assert_int_equal(pthread_create(&threads[0], NULL, send_bulk, &ends[0]), 0);
	assert_int_equal(pthread_create(&threads[1], NULL, receive_bulk, &ends[1]), 0);
	fd = client();
	server = served_by(0);
	for (int i = 0; i < 10; i++) {
		say(fd, "ping");
		hear(server, "ping");
	}
	/* The other direction of the bulk ends, so that it can. */
	assert_int_equal(shutdown(ends[1], SHUT_WR), 0);
	for (int i = 0; i < 2; i++) {
		pthread_join(threads[i], &fault);
		if (fault)
			fail_msg("%s", (char *)fault);
	}
	close(ends[0]);
	close(ends[1]);
	close(fd);
	close(server);
}

/* --- one after another --- */

static void refused_then_next(void **state)
{
	__u64 began_ns;
	int fd, server;

	(void)state;
	prefer_first();
	make_refusing(0);
	world.frontend.at[2].state = KLB_STATE_DRAINING;
	begin();
	began_ns = clock_now_ns();
	fd = client();
	server = served_by(1);
	say(fd, "x");
	hear(server, "x");
	assert_outcome(0, 0, ECONNREFUSED);
	assert_int_equal(world.outcomes[0].ejected_ns, KLB_EJECT_MIN_NS);
	assert_outcome(1, 1, 0);
	assert_int_equal(world.outcomes[1].ejected_ns, 0);
	assert_false(world.outcomes[1].restored);
	close(fd);
	close(server);
	wait_until(relay_is_idle(world.relay));
	/* It is left out for a second: no client after it meets the refusal. */
	fd = client();
	server = served_by(1);
	say(fd, "x");
	hear(server, "x");
	if (clock_now_ns() - began_ns < KLB_EJECT_MIN_NS)
		assert_int_equal(counts()->at[0].failed, 1);
	close(fd);
	close(server);
}

/* What the client says while it has no backend is not lost. */
static void black_hole_then_next(void **state)
{
	__u64 began_ns;
	int fd, server, full;

	(void)state;
	prefer_first();
	world.frontend.at[2].weight = 0;
	full = make_black_hole(0);
	begin();
	began_ns = clock_now_ns();
	fd = client();
	say(fd, "early");
	server = served_by(1);
	/* The time itself: the patience with the first, and far below connectTimeout. */
	assert_in_range(clock_now_ns() - began_ns, 50 * NS_PER_MS, 5 * NS_PER_S);
	hear(server, "early");
	assert_outcome(0, 1, 0);
	assert_outcome(1, 0, ETIMEDOUT);
	close(fd);
	close(server);
	close(full);
}

static void two_black_holes(void **state)
{
	int fd, server, full[2];

	(void)state;
	world.frontend.at[2].state = KLB_STATE_DRAINING;
	full[0] = make_black_hole(0);
	full[1] = make_black_hole(1);
	begin();
	fd = client();
	server = served_by(2);
	say(server, "x");
	hear(fd, "x");
	assert_int_equal(counts()->at[0].failed, 1);
	assert_int_equal(counts()->at[1].failed, 1);
	close(fd);
	close(server);
	close(full[0]);
	close(full[1]);
}

/* Nobody answers: the client has a reset when the time is over, not before and not much later. */
static void all_black_holes(void **state)
{
	__u64 began_ns, took_ns;
	int fd, full[BACKENDS_MAX];

	(void)state;
	for (unsigned int i = 0; i < BACKENDS_MAX; i++)
		full[i] = make_black_hole(i);
	world.limits.connect_timeout_ms = 300;
	begin();
	began_ns = clock_now_ns();
	fd = client();
	hear_reset(fd);
	took_ns = clock_now_ns() - began_ns;
	assert_in_range(took_ns, 300 * NS_PER_MS, 5 * NS_PER_S);
	wait_until(relay_is_idle(world.relay));
	assert_int_equal(counts()->failed[RELAY_FRONTEND], 1);
	for (unsigned int i = 0; i < BACKENDS_MAX; i++) {
		assert_int_equal(counts()->at[i].failed, 1);
		close(full[i]);
	}
	close(fd);
}

/* Nobody is there: there is nothing to wait for. */
static void all_refuse(void **state)
{
	__u64 began_ns;

	(void)state;
	for (unsigned int i = 0; i < BACKENDS_MAX; i++)
		make_refusing(i);
	begin();
	began_ns = clock_now_ns();
	refused();
	assert_true(clock_now_ns() - began_ns < CONNECT_TIMEOUT_MS * NS_PER_MS / 2);
	/* All are ejected now, and are tried all the same. */
	refused();
	wait_until(counts()->at[0].failed == 2);
}

/* The one that fails while another is awaited does not end the waiting. */
static void refused_beside_black_hole(void **state)
{
	int fd, server, full;

	(void)state;
	prefer_first();
	full = make_black_hole(0);
	make_refusing(1);
	world.frontend.at[2].state = KLB_STATE_DRAINING;
	begin();
	fd = client();
	server = served_by(2);
	say(fd, "x");
	hear(server, "x");
	assert_outcome(0, 1, ECONNREFUSED);
	assert_outcome(1, 2, 0);
	close(fd);
	close(server);
	close(full);
}

/* --- the choice --- */

static void weights_count(void **state)
{
	int fds[60];

	(void)state;
	world.frontend.at[0].weight = 200;
	world.frontend.at[2].weight = 0;
	begin();
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = client();
		wait_until(counts()->at[0].total[RELAY_FRONTEND] +
				   counts()->at[1].total[RELAY_FRONTEND] ==
			   i + 1);
	}
	assert_in_range(counts()->at[0].active[RELAY_FRONTEND], 39, 41);
	assert_in_range(counts()->at[1].active[RELAY_FRONTEND], 19, 21);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		close(fds[i]);
		close(served_by(i < counts()->at[0].total[RELAY_FRONTEND] ? 0 : 1));
	}
	wait_until(relay_is_idle(world.relay));
	/* Those that are gone do not count any more. */
	world.frontend.at[0].weight = 100;
	plan();
	for (size_t i = 0; i < 10; i++) {
		fds[i] = client();
		wait_until(counts()->connections == i + 1 &&
			   counts()->at[0].active[RELAY_FRONTEND] +
					   counts()->at[1].active[RELAY_FRONTEND] ==
				   i + 1);
	}
	assert_int_equal(counts()->at[0].active[RELAY_FRONTEND], 5);
	for (size_t i = 0; i < 10; i++)
		close(fds[i]);
}

static void look_as_if_first_were_full(void *arg, const struct relay_request *request,
				       const struct relay_target *target, struct relay_load *load)
{
	(void)arg;
	assert_int_equal(request->from, RELAY_FRONTEND);
	if (endpoint_equal(&target->endpoint, &world.frontend.at[0].endpoint))
		load->active = 1000;
	if (endpoint_equal(&target->endpoint, &world.frontend.at[1].endpoint))
		load->ejected = true;
}

/* What others count is what the choice goes by. */
static void look_counts(void **state)
{
	const struct relay_ops ops = { .look = look_as_if_first_were_full };

	(void)state;
	begin_with(&ops, RELAY_FRONTEND, NULL, 0);
	for (int i = 0; i < 10; i++) {
		int fd = client(), server = served_by(2);

		close(fd);
		close(server);
	}
}

static void plan_changes(void **state)
{
	int fd, server;

	(void)state;
	prefer_first();
	begin();
	fd = client();
	server = served_by(0);
	/* Gone from the list, with a connection. */
	world.frontend.at[0] = world.frontend.at[1];
	world.frontend.n = 1;
	plan();
	close(client());
	close(served_by(1));
	assert_int_equal(counts()->n, 2);
	say(fd, "x");
	hear(server, "x");
	close(fd);
	close(server);
	wait_until(counts()->n == 1);
}

static void unknown_frontend_is_refused(void **state)
{
	(void)state;
	begin();
	world.frontend.endpoint.port = 1;
	plan();
	refused();
}

/* --- who may come --- */

/* What the kernel knows: the dialled frontend, and that the first backend has just failed. */
static int identify_half(void *arg, struct relay_request *request)
{
	(void)arg;
	if (request->client.addr[15] != 1)
		return -ENOENT;
	assert_true(endpoint_equal(&request->local, &world.at));
	request->frontend = world.frontend.endpoint;
	request->failed = world.frontend.at[0].endpoint;
	request->pid = 4711;
	return 0;
}

static void identified(void **state)
{
	const struct relay_ops ops = { .identify = identify_half, .outcome = note_outcome };
	struct relay_connection listed;
	int fd, server;

	(void)state;
	prefer_first();
	world.frontend.at[2].weight = 0;
	begin_with(&ops, RELAY_RETRANSMIT, NULL, 0);
	fd = client();
	server = served_by(1);
	say(fd, "x");
	hear(server, "x");
	assert_int_equal(relay_list(world.relay, &listed, 1), 1);
	assert_int_equal(listed.pid, 4711);
	assert_int_equal(listed.from, RELAY_RETRANSMIT);
	close(fd);
	close(server);
	refused_from("127.0.0.2");
	assert_int_equal(counts()->refused_unknown, 1);
	/* With nobody but the one that failed there is nobody. */
	make_refusing(1);
	refused();
	assert_int_equal(counts()->at[0].total[RELAY_RETRANSMIT], 0);
}

static void only_allowed_networks(void **state)
{
	struct cidr allow[2];
	struct err e = { "" };
	int fd;

	(void)state;
	assert_int_equal(cidr_parse("127.0.0.4/30", &allow[0], &e), 0);
	assert_int_equal(cidr_parse("fd00::/8", &allow[1], &e), 0);
	prefer_first();
	begin_with(&noting, RELAY_NETWORK, allow, 2);
	fd = client_from("127.0.0.5");
	close(served_by(0));
	hear_end(fd);
	close(fd);
	refused_from("127.0.0.8");
	assert_int_equal(counts()->refused_network, 1);
}

static void limit_of_a_source(void **state)
{
	int fds[2], fd;

	(void)state;
	world.limits.per_source = 2;
	prefer_first();
	begin_with(&noting, RELAY_NETWORK, NULL, 0);
	for (int i = 0; i < 2; i++) {
		fds[i] = client_from("127.0.0.5");
		close(served_by(0));
	}
	refused_from("127.0.0.5");
	assert_int_equal(counts()->refused_source, 1);
	/* Others are not concerned. */
	fd = client_from("127.0.0.6");
	close(served_by(0));
	hear_end(fd);
	close(fd);
	close(fds[0]);
	wait_until(counts()->connections == 1);
	fd = client_from("127.0.0.5");
	close(served_by(0));
	hear_end(fd);
	close(fd);
	close(fds[1]);
}

static unsigned int times(const char *text, const char *part)
{
	unsigned int n = 0;

	for (; (text = strstr(text, part)); text++)
		n++;
	return n;
}

/* Said once when it is met, and once when it is over. */
static void limit_of_connections(void **state)
{
	int fds[2], fd;

	(void)state;
	world.limits.connections = 2;
	prefer_first();
	begin();
	for (int i = 0; i < 2; i++) {
		fds[i] = client();
		close(served_by(0));
	}
	for (int i = 0; i < 5; i++) {
		refused();
	}
	wait_until(counts()->refused_limit == 5);
	assert_int_equal(counts()->connections, 2);
	wait_until(times(captured(), "as many connections as it may") == 1);
	assert_int_equal(times(captured(), "takes connections again"), 0);
	close(fds[0]);
	wait_until(times(captured(), "takes connections again") == 1);
	assert_int_equal(times(captured(), "as many connections as it may"), 1);
	fd = client();
	close(served_by(0));
	hear_end(fd);
	close(fd);
	close(fds[1]);
}

static unsigned int next_descriptor(void)
{
	int fd = dup(STDERR_FILENO);

	close(fd);
	return (unsigned int)fd;
}

/*
 * Without descriptors a client is refused and does not hang; the relay does not spin, and goes on
 * afterwards.
 */
static void descriptors_are_used_up(void **state)
{
	struct rlimit before, none;
	int fd, other;

	(void)state;
	prefer_first();
	begin();
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = before;
	fd = socket(AF_INET, SOCK_STREAM, 0);
	close(fd);
	/* One more for the client itself. */
	none.rlim_cur = next_descriptor() + 1;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	/* More than the threads have in reserve: what refuses is there again afterwards. */
	for (int i = 0; i < 4; i++)
		refused();
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	wait_until(times(captured(), "can take no connections at the moment") >= 1);
	other = client();
	close(served_by(0));
	hear_end(other);
	close(other);
	wait_until(relay_is_idle(world.relay));
	wait_until(times(captured(), "can take connections again") >= 1);
	/* One thread's reserve can become another's client: over, and met again. Twice a minute. */
	assert_in_range(times(captured(), "can take no connections at the moment"), 1, 2);
}

/* A limit of open files below what is configured makes fewer connections, and is said. */
static void few_descriptors(void **state)
{
	struct rlimit before, few;
	pid_t pid = fork();
	int status;

	(void)state;
	assert_true(pid >= 0);
	if (pid) {
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
		assert_int_equal(times(captured(), "connections=361 configured=1000"), 1);
		return;
	}
	getrlimit(RLIMIT_NOFILE, &before);
	/* (1024 - 256) * 8 / 17 = 361 */
	few = (struct rlimit){ 1024, 1024 };
	if (setrlimit(RLIMIT_NOFILE, &few))
		_exit(1);
	begin();
	relay_free(world.relay);
	_exit(0);
}

/* --- listeners and ends --- */

/* The address is free at once, those who were connected already are served, the others stay. */
static void unlisten(void **state)
{
	int waiting, fd, server, again;
	struct sockaddr_storage ss;
	socklen_t length;

	(void)state;
	prefer_first();
	begin();
	fd = client();
	server = served_by(0);
	waiting = client();
	relay_unlisten(world.listener);
	length = endpoint_to_sockaddr(&world.at, &ss);
	again = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(again, (struct sockaddr *)&ss, length), -1);
	assert_int_equal(errno, ECONNREFUSED);
	close(again);
	close(served_by(0));
	hear_end(waiting);
	close(waiting);
	assert_false(relay_is_idle(world.relay));
	say(fd, "x");
	hear(server, "x");
	close(fd);
	close(server);
	wait_until(relay_is_idle(world.relay));
}

/* Keeps the thread busy with the first client for the time that the others take to connect. */
static int identify_slowly(void *arg, struct relay_request *request)
{
	static atomic_flag slept = ATOMIC_FLAG_INIT;

	(void)arg;
	request->frontend = world.frontend.endpoint;
	if (!atomic_flag_test_and_set(&slept))
		poll(NULL, 0, 300);
	return 0;
}

/* More than a turn of the loop takes are in the backlog when the listener ends: all are served. */
static void unlisten_with_backlog(void **state)
{
	const struct relay_ops ops = { .identify = identify_slowly };
	int fds[40];

	(void)state;
	world.limits.threads = 1;
	prefer_first();
	begin_with(&ops, RELAY_FRONTEND, NULL, 0);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		fds[i] = client();
	relay_unlisten(world.listener);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		close(served_by(0));
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		hear_end(fds[i]);
		close(fds[i]);
	}
}

static void end_backend(void **state)
{
	const struct relay_filter which = { .froms = RELAY_BIT(RELAY_FRONTEND),
					    .backend = &world.frontend.at[0].endpoint },
				  other_kind = { .froms = ~RELAY_BIT(RELAY_FRONTEND),
						 .backend = &world.frontend.at[0].endpoint };
	__u64 others;
	int fds[20];

	(void)state;
	world.frontend.at[2].weight = 0;
	begin();
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		fds[i] = client();
	wait_until(counts()->at[0].active[RELAY_FRONTEND] +
			   counts()->at[1].active[RELAY_FRONTEND] ==
		   ARRAY_SIZE(fds));
	others = counts()->at[1].active[RELAY_FRONTEND];
	assert_in_range(others, 1, ARRAY_SIZE(fds) - 1);
	assert_int_equal(relay_end(world.relay, &other_kind), 0);
	assert_int_equal(counts()->at[0].active[RELAY_FRONTEND], ARRAY_SIZE(fds) - others);
	assert_int_equal(relay_end(world.relay, &which), ARRAY_SIZE(fds) - others);
	assert_int_equal(counts()->at[0].active[RELAY_FRONTEND], 0);
	assert_int_equal(counts()->at[1].active[RELAY_FRONTEND], others);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
}

/* The relay's own end of a client's connection, in this process. */
static int relays_end_of(int client)
{
	struct sockaddr_in own, peer;
	socklen_t length = sizeof(own);

	assert_int_equal(getsockname(client, (struct sockaddr *)&own, &length), 0);
	for (int fd = 0; fd < 1024; fd++) {
		length = sizeof(peer);
		if (!getpeername(fd, (struct sockaddr *)&peer, &length) &&
		    peer.sin_port == own.sin_port)
			return fd;
	}
	fail_msg("the relay has no such socket");
	return -1;
}

static int option(int fd, int level, int name)
{
	int value = -1;
	socklen_t length = sizeof(value);

	assert_int_equal(getsockopt(fd, level, name, &value, &length), 0);
	return value;
}

static void assert_options(int fd)
{
	assert_int_not_equal(option(fd, IPPROTO_TCP, TCP_NODELAY), 0);
	assert_int_equal(option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), 20000);
	assert_int_equal(option(fd, IPPROTO_TCP, TCP_KEEPIDLE), 10);
	assert_int_equal(option(fd, IPPROTO_TCP, TCP_KEEPINTVL), 2);
	assert_int_equal(option(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
}

/* The clients' come from the listener (a socket begins as a copy of it). */
static void options_of_both_sides(void **state)
{
	int fd, server;

	(void)state;
	world.limits.dead_peer_timeout_ms = 10000;
	prefer_first();
	begin();
	world.limits.dead_peer_timeout_ms = 20000;
	relay_set_limits(world.relay, &world.limits);
	fd = client();
	server = served_by(0);
	say(fd, "x");
	hear(server, "x");
	assert_options(relays_end_of(fd));
	assert_options(relays_end_of(server));
	close(fd);
	close(server);
}

static void *serve_echo(void *arg)
{
	char text[64];
	int fd;

	(void)arg;
	while ((fd = accept(world.backend[0], NULL, NULL)) >= 0) {
		ssize_t n = recv(fd, text, sizeof(text), 0);

		if (n <= 0 || send(fd, text, (size_t)n, MSG_NOSIGNAL) != n)
			return "the backend has lost a client";
		close(fd);
	}
	return NULL;
}

#define CROWD 20
#define TIMES 100

static void *be_one_of_many(void *arg)
{
	char sent[16], got[16];

	for (int i = 0; i < TIMES; i++) {
		struct sockaddr_storage ss;
		socklen_t length = endpoint_to_sockaddr(&world.at, &ss);
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		int n = snprintf(sent, sizeof(sent), "%d of %ld", i, (long)(intptr_t)arg);

		if (connect(fd, (struct sockaddr *)&ss, length) ||
		    send(fd, sent, (size_t)n, MSG_NOSIGNAL) != n ||
		    recv(fd, got, (size_t)n, MSG_WAITALL) != n ||
		    memcmp(sent, got, (size_t)n) != 0 || recv(fd, got, 1, 0) != 0)
			return "a client was not served";
		close(fd);
	}
	return NULL;
}

/* 20 clients at a time, 100 times each. */
static void many_in_parallel(void **state)
{
	pthread_t backend[4], crowd[CROWD];
	void *fault;

	(void)state;
	prefer_first();
	begin();
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&backend[i], NULL, serve_echo, NULL), 0);
	for (long i = 0; i < CROWD; i++)
		assert_int_equal(
			pthread_create(&crowd[i], NULL, be_one_of_many, (void *)(intptr_t)i), 0);
	for (int i = 0; i < CROWD; i++) {
		pthread_join(crowd[i], &fault);
		if (fault)
			fail_msg("%s", (char *)fault);
	}
	wait_until(relay_is_idle(world.relay));
	assert_int_equal(counts()->at[0].total[RELAY_FRONTEND], CROWD * TIMES);
	shutdown(world.backend[0], SHUT_RDWR);
	for (int i = 0; i < 4; i++)
		pthread_join(backend[i], NULL);
}

#define RELAY_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

static int set_up_captured(void **state)
{
	capture_stderr(state);
	return set_up(state);
}

static int tear_down_captured(void **state)
{
	int r = tear_down(state);

	release_stderr(state);
	return r;
}

#define CAPTURED_TEST(f) cmocka_unit_test_setup_teardown(f, set_up_captured, tear_down_captured)

int main(void)
{
	const struct CMUnitTest tests[] = {
		RELAY_TEST(copies_and_counts),
		RELAY_TEST(server_speaks_first),
		RELAY_TEST(half_close),
		RELAY_TEST(reset_is_passed_on),
		RELAY_TEST(reset_after_half_close),
		RELAY_TEST(reset_of_the_ended_side),
		RELAY_TEST(answer_before_reset),
		RELAY_TEST(end_is_a_reset),
		RELAY_TEST(kill_is_a_reset),
		RELAY_TEST(slow_receiver_stops_its_sender),
		RELAY_TEST(reset_while_held),
		RELAY_TEST(bulk_both_ways),
		RELAY_TEST(bulk_leaves_turns),
		RELAY_TEST(refused_then_next),
		RELAY_TEST(black_hole_then_next),
		RELAY_TEST(two_black_holes),
		RELAY_TEST(all_black_holes),
		RELAY_TEST(all_refuse),
		RELAY_TEST(refused_beside_black_hole),
		RELAY_TEST(weights_count),
		RELAY_TEST(look_counts),
		RELAY_TEST(plan_changes),
		RELAY_TEST(unknown_frontend_is_refused),
		RELAY_TEST(identified),
		RELAY_TEST(only_allowed_networks),
		RELAY_TEST(limit_of_a_source),
		CAPTURED_TEST(limit_of_connections),
		CAPTURED_TEST(descriptors_are_used_up),
		CAPTURED_TEST(few_descriptors),
		RELAY_TEST(unlisten),
		RELAY_TEST(unlisten_with_backlog),
		RELAY_TEST(end_backend),
		RELAY_TEST(options_of_both_sides),
		RELAY_TEST(many_in_parallel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
