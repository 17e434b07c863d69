/* SPDX-License-Identifier: BSD-2-Clause */
/* sd_notify's protocol, as the manager's end of the socket sees it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/clock.h"
#include "host/node.h"
#include "host/sd_notify.h"
#include "unit.h"

struct manager {
	int fd;
	struct event_base *base;
	char dir[32], path[64]; /* path: "" for an abstract socket */
};

static void listen_at(struct manager *m, const char *name)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	size_t length = strlen(name);

	memcpy(to.sun_path, name, length);
	if (name[0] == '@')
		to.sun_path[0] = '\0';
	m->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_true(m->fd >= 0);
	assert_int_equal(bind(m->fd, (struct sockaddr *)&to,
			      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)),
			 0);
	setenv("NOTIFY_SOCKET", name, 1);
}

static int setup(void **state)
{
	struct manager *m = calloc(1, sizeof(*m));

	unsetenv("NOTIFY_SOCKET");
	unsetenv("WATCHDOG_USEC");
	unsetenv("WATCHDOG_PID");
	strcpy(m->dir, "/tmp/klb-notify-XXXXXX");
	assert_non_null(mkdtemp(m->dir));
	snprintf(m->path, sizeof(m->path), "%s/notify", m->dir);
	m->base = event_base_new();
	m->fd = -1;
	*state = m;
	return 0;
}

static int teardown(void **state)
{
	struct manager *m = *state;

	event_base_free(m->base);
	if (m->fd >= 0)
		close(m->fd);
	unlink(m->path);
	rmdir(m->dir);
	free(m);
	return 0;
}

/* The next datagram; "" when there is none. */
static const char *heard(struct manager *m)
{
	static char text[1024];
	ssize_t n = recv(m->fd, text, sizeof(text) - 1, 0);

	text[n > 0 ? n : 0] = '\0';
	return text;
}

static struct notify *begin(struct manager *m, const char *name)
{
	struct notify *n;
	struct err e;

	listen_at(m, name);
	assert_int_equal(notify_new(m->base, &n, &e), 0);
	assert_non_null(n);
	return n;
}

static void nobody_listens(void **state)
{
	struct manager *m = *state;
	struct notify *n = (struct notify *)m;
	struct err e;

	setenv("WATCHDOG_USEC", "nonsense that nobody reads", 1);
	assert_int_equal(notify_new(m->base, &n, &e), 0);
	assert_null(n);
	notify_ready(n, "%d", 1);
	notify_status(n, "%d", 1);
	notify_reloading(n);
	notify_stopping(n);
	notify_free(n);
}

static void a_life(void **state)
{
	struct manager *m = *state;
	struct notify *n = begin(m, m->path);

	assert_string_equal(heard(m), "");
	notify_status(n, "not yet");
	assert_string_equal(heard(m), "STATUS=not yet");
	notify_ready(n, "%u of %u", 2, 3);
	assert_string_equal(heard(m), "READY=1\nSTATUS=2 of 3");
	notify_ready(n, "%u of %u", 2, 3);
	assert_string_equal(heard(m), "");
	notify_ready(n, "%u of %u", 3, 3);
	assert_string_equal(heard(m), "STATUS=3 of 3");
	notify_stopping(n);
	assert_string_equal(heard(m), "STOPPING=1");
	notify_free(n);
}

static void reload(void **state)
{
	struct manager *m = *state;
	struct notify *n = begin(m, m->path);
	__u64 before = clock_now_ns() / 1000;
	unsigned long long us;
	int end = 0;

	notify_ready(n, "same");
	heard(m);
	notify_reloading(n);
	assert_int_equal(sscanf(heard(m), "RELOADING=1\nMONOTONIC_USEC=%llu%n", &us, &end), 1);
	assert_true(end > 0 && us >= before && us <= clock_now_ns() / 1000);
	/* READY=1 ends it, also when the line is the same as before. */
	notify_ready(n, "same");
	assert_string_equal(heard(m), "READY=1\nSTATUS=same");
	/* Also when it has led to nothing that is ready: it is over all the same. */
	notify_reloading(n);
	heard(m);
	notify_status(n, "detached");
	assert_string_equal(heard(m), "READY=1\nSTATUS=detached");
	notify_free(n);
}

static void reload_too_early(void **state)
{
	struct manager *m = *state;
	struct notify *n = begin(m, m->path);

	notify_reloading(n);
	assert_string_equal(heard(m), "");
	notify_status(n, "not yet");
	assert_string_equal(heard(m), "STATUS=not yet");
	notify_free(n);
}

static void abstract_socket(void **state)
{
	struct manager *m = *state;
	struct notify *n;
	char name[64];

	snprintf(name, sizeof(name), "@klb-notify-test-%d", (int)getpid());
	n = begin(m, name);
	notify_ready(n, "here");
	assert_string_equal(heard(m), "READY=1\nSTATUS=here");
	notify_free(n);
}

/* systemd limits the path, not us: 107 bytes fit with no null byte behind them. */
static void longest_name(void **state)
{
	struct manager *m = *state;
	struct notify *n;
	char name[108];

	memset(name, 'x', sizeof(name));
	snprintf(name, sizeof(name), "@klb-notify-test-%d-", (int)getpid());
	name[strlen(name)] = 'x';
	name[107] = '\0';
	n = begin(m, name);
	notify_stopping(n);
	assert_string_equal(heard(m), "STOPPING=1");
	notify_free(n);
}

/* A line feed in a status would be a key of its own; a long one is cut. */
static void one_line(void **state)
{
	struct manager *m = *state;
	struct notify *n = begin(m, m->path);
	char text[2000];

	notify_status(n, "%s", "two\nSTOPPING=1\tlines");
	assert_string_equal(heard(m), "STATUS=two STOPPING=1 lines");
	memset(text, 'a', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	notify_status(n, "%s", text);
	assert_true(strlen(heard(m)) > 200);
	notify_free(n);
}

/* Fills the manager's queue; returns how many datagrams that took. Each sender has a
 * limit of its own, which must not be the one that is met. */
static int fill(struct manager *m)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	int sent = 0, before = -1;

	strcpy(to.sun_path, m->path);
	while (sent != before) {
		int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

		before = sent;
		while (sendto(fd, "x", 1, MSG_DONTWAIT, (struct sockaddr *)&to, sizeof(to)) == 1)
			sent++;
		close(fd);
	}
	return sent;
}

/* What a manager that does not read has missed is said again. */
static void full_queue(void **state)
{
	struct manager *m = *state;
	struct notify *n = begin(m, m->path);
	int left = fill(m);

	notify_ready(n, "up");
	while (left--)
		assert_string_equal(heard(m), "x");
	assert_string_equal(heard(m), "");
	notify_ready(n, "up");
	assert_string_equal(heard(m), "READY=1\nSTATUS=up");
	notify_free(n);
}

static void manager_gone(void **state)
{
	struct manager *m = *state;
	struct notify *n = begin(m, m->path);

	close(m->fd);
	m->fd = -1;
	notify_ready(n, "up");
	notify_stopping(n);
	notify_free(n);
}

static void on_time(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	event_base_loopbreak(arg);
}

/* Runs the loop until something was heard, or for a second. */
static const char *wait_heard(struct manager *m)
{
	struct timeval second = { .tv_sec = 1 };
	struct event *readable = event_new(m->base, m->fd, EV_READ, on_time, m->base);
	const char *text;

	event_add(readable, &second);
	event_base_dispatch(m->base);
	text = heard(m);
	event_free(readable);
	return text;
}

static void watchdog(void **state)
{
	struct manager *m = *state;
	__u64 start = clock_now_ns();
	struct notify *n;
	char pid[16];

	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	setenv("WATCHDOG_USEC", "40000", 1);
	setenv("WATCHDOG_PID", pid, 1);
	n = begin(m, m->path);
	for (int i = 0; i < 3; i++)
		assert_string_equal(wait_heard(m), "WATCHDOG=1");
	/* Half the interval: 3 x 20 ms, and none of them early. */
	assert_true(clock_now_ns() - start >= 55000000ULL);
	notify_free(n);
}

static void no_watchdog(void **state)
{
	struct manager *m = *state;
	struct notify *n;

	setenv("WATCHDOG_USEC", "40000", 1);
	setenv("WATCHDOG_PID", "1", 1);
	n = begin(m, m->path);
	assert_string_equal(wait_heard(m), "");
	notify_free(n);
}

static void bad_environment(void **state)
{
	static const struct {
		const char *name, *value, *want;
	} bad[] = {
		{ "NOTIFY_SOCKET", "", "NOTIFY_SOCKET=: neither an absolute path" },
		{ "NOTIFY_SOCKET", "run/notify", "NOTIFY_SOCKET=run/notify: neither" },
		{ "NOTIFY_SOCKET", "vsock:2:1", "NOTIFY_SOCKET=vsock:2:1: neither" },
		{ "NOTIFY_SOCKET", "@", "NOTIFY_SOCKET=@: neither" },
		{ "NOTIFY_SOCKET", "/", "NOTIFY_SOCKET=/: neither" },
		{ "WATCHDOG_USEC", "", "WATCHDOG_USEC=: not a number" },
		{ "WATCHDOG_USEC", "0", "WATCHDOG_USEC=0: not a number" },
		{ "WATCHDOG_USEC", "-1", "WATCHDOG_USEC=-1: not a number" },
		{ "WATCHDOG_USEC", "5s", "WATCHDOG_USEC=5s: not a number" },
		{ "WATCHDOG_USEC", "99999999999999999999", "WATCHDOG_USEC=9999" },
		{ "WATCHDOG_PID", "me", "WATCHDOG_PID=me: not a number" },
		{ "WATCHDOG_PID", "4294967296", "WATCHDOG_PID=4294967296: not a number" },
	};
	struct manager *m = *state;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct notify *n = (struct notify *)m;
		struct err e = { "" };

		setenv("NOTIFY_SOCKET", m->path, 1);
		setenv("WATCHDOG_USEC", "1000000", 1);
		unsetenv("WATCHDOG_PID");
		setenv(bad[i].name, bad[i].value, 1);
		if (notify_new(m->base, &n, &e) != -EINVAL || n)
			fail_msg("%s=%s was taken", bad[i].name, bad[i].value);
		if (strncmp(e.text, bad[i].want, strlen(bad[i].want)) != 0)
			fail_msg("%s=%s: %s", bad[i].name, bad[i].value, e.text);
	}
}

static void too_long(void **state)
{
	struct manager *m = *state;
	char name[200];
	struct notify *n;
	struct err e;

	memset(name, 'x', sizeof(name));
	name[0] = '/';
	name[108] = '\0';
	setenv("NOTIFY_SOCKET", name, 1);
	assert_int_equal(notify_new(m->base, &n, &e), -EINVAL);
	assert_non_null(strstr(e.text, "longer than the 107 bytes"));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(nobody_listens),	TEST(a_life),	       TEST(reload),
		TEST(reload_too_early), TEST(abstract_socket), TEST(longest_name),
		TEST(one_line),		TEST(full_queue),      TEST(manager_gone),
		TEST(watchdog),		TEST(no_watchdog),     TEST(bad_environment),
		TEST(too_long),
	};

	return cmocka_run_group_tests_name("notify", tests, NULL, NULL);
}
