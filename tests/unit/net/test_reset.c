/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Resets in the name of a peer: real sockets, whose peers do not exist. Takes root, for a network
 * namespace of its own.
 */
#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net/endpoint.h"
#include "net/reset.h"
#include "unit.h"

/* What the connection's two ends send next. */
#define MINE 0xfffffff0u /* it wraps around soon */
#define PEERS 7000u

static int own_network(void **state)
{
	(void)state;
	/* What goes to a peer vanishes: nobody answers a challenge. */
	return unshare(CLONE_NEWNET) ||
	       system("ip link set lo up && ip link add far type veth peer name nowhere && "
		      "ip link set far up && ip link set nowhere up && "
		      "ip address add 192.0.2.2/24 dev far && "
		      "ip address add 2001:db8::2/64 dev far nodad && "
		      "ip neighbour add 192.0.2.1 lladdr 02:00:00:00:00:01 dev far && "
		      "ip neighbour add 2001:db8::1 lladdr 02:00:00:00:00:01 dev far");
}

static void set(int fd, int option, int value)
{
	assert_int_equal(setsockopt(fd, IPPROTO_TCP, option, &value, sizeof(value)), 0);
}

static void begin_at(int fd, int queue, __u32 seq)
{
	set(fd, TCP_REPAIR_QUEUE, queue);
	set(fd, TCP_QUEUE_SEQ, (int)seq);
}

/* An established connection from one address to the other, which has no socket. */
static int established(const struct klb_endpoint *from, const struct klb_endpoint *to)
{
	struct sockaddr_storage ss;
	socklen_t length = endpoint_to_sockaddr(from, &ss);
	int fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	assert_true(fd >= 0);
	set(fd, TCP_REPAIR, 1);
	assert_int_equal(bind(fd, (const struct sockaddr *)&ss, length), 0);
	begin_at(fd, TCP_SEND_QUEUE, MINE);
	begin_at(fd, TCP_RECV_QUEUE, PEERS);
	length = endpoint_to_sockaddr(to, &ss);
	assert_int_equal(connect(fd, (const struct sockaddr *)&ss, length), 0);
	set(fd, TCP_REPAIR, -1);
	return fd;
}

static int new_socket(const struct klb_endpoint *of)
{
	return socket(endpoint_is_ipv4(of) ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

/* What a read says: 0 for the end, or the errno. */
static int read_error(int fd)
{
	char byte;

	return read(fd, &byte, 1) ? errno : 0;
}

static const struct {
	const char *client, *peer;
} families[] = {
	{ "192.0.2.2:4001", "192.0.2.1:6443" },
	{ "[2001:db8::2]:4001", "[2001:db8::1]:6443" },
};

static void only_the_number_that_is_expected(void **state)
{
	static const __u32 wrong[] = { PEERS - 1, PEERS + 1, PEERS + 0x40000000, 0 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
		struct reset r = { .ack = MINE };
		int fd;

		assert_int_equal(endpoint_parse(families[i].client, 0, &r.to, NULL), 0);
		assert_int_equal(endpoint_parse(families[i].peer, 0, &r.from, NULL), 0);
		fd = established(&r.to, &r.from);
		for (size_t k = 0; k < ARRAY_SIZE(wrong); k++) {
			r.seq = wrong[k];
			assert_int_equal(reset_send(new_socket(&r.to), &r), 0);
			assert_int_equal(read_error(fd), EAGAIN);
		}
		r.seq = PEERS;
		assert_int_equal(reset_send(new_socket(&r.to), &r), 0);
		assert_int_equal(read_error(fd), ECONNRESET);
		close(fd);
	}
}

/* The addresses of a socket that is there are not taken from it. */
static void not_in_the_name_of_a_living_socket(void **state)
{
	struct reset r = { .seq = PEERS, .ack = MINE };
	int one, other;

	(void)state;
	assert_int_equal(endpoint_parse("127.0.0.1:4002", 0, &r.to, NULL), 0);
	assert_int_equal(endpoint_parse("127.0.0.2:4003", 0, &r.from, NULL), 0);
	one = established(&r.to, &r.from);
	other = established(&r.from, &r.to);
	assert_int_equal(reset_send(new_socket(&r.to), &r), -EADDRNOTAVAIL);
	assert_int_equal(read_error(one), EAGAIN);
	assert_int_equal(read_error(other), EAGAIN);
	close(one);
	close(other);
}

static void without_the_capability(void **state)
{
	struct err e = { "" };
	pid_t child = fork();
	int status;

	(void)state;
	assert_true(child >= 0);
	if (!child) {
		struct reset r = { .seq = PEERS };
		bool refused;

		endpoint_parse("127.0.0.1:4001", 0, &r.to, NULL);
		endpoint_parse("127.0.0.2:6443", 0, &r.from, NULL);
		refused = !setuid(65534) && reset_send(new_socket(&r.to), &r) == -EPERM &&
			  reset_can_send(&e) == -EPERM && strstr(e.text, "CAP_NET_ADMIN");
		_exit(refused ? 0 : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_int_equal(reset_can_send(&e), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		LEAVES_NOTHING(only_the_number_that_is_expected),
		LEAVES_NOTHING(not_in_the_name_of_a_living_socket),
		LEAVES_NOTHING(without_the_capability),
	};

	return cmocka_run_group_tests(tests, own_network, NULL);
}
