/* SPDX-License-Identifier: BSD-2-Clause */
/* Refused connections wait for a moment before they are closed. */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "net/http_refused.h"
#include "unit.h"

#define MAX 4
#define START (1000 * NS_PER_S)
#define WAIT (400 * NS_PER_MS)

static struct http_refused *refused;
static int client[2 * MAX], n_clients;

static int start(void **state)
{
	(void)state;
	refused = http_refused_new(MAX);
	assert_non_null(refused);
	n_clients = 0;
	return 0;
}

static int stop(void **state)
{
	(void)state;
	http_refused_free(refused);
	while (n_clients)
		close(client[--n_clients]);
	return 0;
}

static void refuse(__u64 now_ns)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	client[n_clients++] = pair[0];
	http_refused_add(refused, pair[1], now_ns);
}

static bool is_closed(int i)
{
	char byte;

	return recv(client[i], &byte, 1, 0) == 0;
}

static void assert_closed(int n)
{
	for (int i = 0; i < n_clients; i++)
		assert_int_equal(is_closed(i), i < n);
}

static void each_waits_its_own_time(void **state)
{
	(void)state;
	refuse(START);
	refuse(START + 1);
	assert_true(http_refused_sweep(refused, START + WAIT - 1));
	assert_closed(0);
	assert_true(http_refused_sweep(refused, START + WAIT));
	assert_closed(1);
	assert_false(http_refused_sweep(refused, START + WAIT + 1));
	assert_closed(2);
	assert_false(http_refused_sweep(refused, START + WAIT + 1));
}

static void no_more_than_may_wait(void **state)
{
	(void)state;
	for (int i = 0; i < MAX + 1; i++)
		refuse(START);
	assert_true(is_closed(MAX));
	close(client[--n_clients]);
	assert_closed(0);
	/* The ring begins elsewhere now. */
	assert_false(http_refused_sweep(refused, START + WAIT));
	assert_closed(MAX);
	for (int i = 0; i < MAX - 1; i++)
		refuse(START + WAIT);
	assert_closed(MAX);
	assert_false(http_refused_sweep(refused, START + 2 * WAIT));
	assert_closed(2 * MAX - 1);
}

static void all_are_closed_in_the_end(void **state)
{
	(void)state;
	refuse(START);
	refuse(START);
	http_refused_free(refused);
	refused = NULL;
	assert_closed(2);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(each_waits_its_own_time),
		TEST(no_more_than_may_wait),
		TEST(all_are_closed_in_the_end),
	};

	return cmocka_run_group_tests_name("http_refused", tests, NULL, NULL);
}
