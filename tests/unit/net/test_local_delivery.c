/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The rule and the route, in a network namespace of its own: what they do to packets, and that
 * nothing of others changes. Takes root.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/endpoint.h"
#include "net/local_delivery.h"
#include "unit.h"

static const struct local_delivery plain = {
	.mark = 0x1000, .mask = 0x3fff, .table = 6443, .ipv4 = true, .ipv6 = true
};

/* Behind `far` nobody answers. */
static int own_network(void **state)
{
	(void)state;
	return unshare(CLONE_NEWNET) ||
	       /* No address that comes, and changes, by itself. */
	       system("ip link set lo up && ip link add far type veth peer name nowhere && "
		      "ip link set far addrgenmode none && ip link set nowhere addrgenmode none && "
		      "ip link set far up && ip link set nowhere up && "
		      "ip address add 192.0.2.2/24 dev far && "
		      "ip address add 2001:db8::2/64 dev far nodad && "
		      "ip neighbour add 192.0.2.1 lladdr 02:00:00:00:00:01 dev far && "
		      "ip neighbour add 2001:db8::1 lladdr 02:00:00:00:00:01 dev far");
}

/* Everything that the host has of rules and routes, to be compared. */
static char *everything(void)
{
	static const char command[] =
		"ip rule; ip -6 rule; ip route show table all; ip -6 route show table all";
	FILE *f = popen(command, "r");
	static char text[16384];
	size_t n;

	assert_non_null(f);
	n = fread(text, 1, sizeof(text) - 1, f);
	assert_int_equal(pclose(f), 0);
	text[n] = '\0';
	return text;
}

static void run(const char *command)
{
	assert_int_equal(system(command), 0);
}

static int tcp_socket(const struct klb_endpoint *of, int more)
{
	int fd = socket(endpoint_is_ipv4(of) ? AF_INET : AF_INET6, SOCK_STREAM | more, 0);

	assert_true(fd >= 0);
	return fd;
}

static int listen_as(const struct klb_endpoint *at)
{
	int fd = tcp_socket(at, 0), on = 1;
	struct sockaddr_storage ss;
	socklen_t length = endpoint_to_sockaddr(at, &ss);

	if (ss.ss_family == AF_INET)
		assert_int_equal(setsockopt(fd, IPPROTO_IP, IP_TRANSPARENT, &on, sizeof(on)), 0);
	else
		assert_int_equal(setsockopt(fd, IPPROTO_IPV6, IPV6_TRANSPARENT, &on, sizeof(on)),
				 0);
	assert_int_equal(bind(fd, (const struct sockaddr *)&ss, length), 0);
	assert_int_equal(listen(fd, 8), 0);
	return fd;
}

/*
 * Whether a connect with that mark is answered at once. It has its source address already, as a
 * socket has whose SYN is sent again.
 */
static bool is_answered(const struct klb_endpoint *to, __u32 mark)
{
	struct klb_endpoint own =
		endpoint(endpoint_is_ipv4(to) ? "192.0.2.2:1" : "[2001:db8::2]:1");
	int fd = tcp_socket(to, SOCK_NONBLOCK), r;
	struct tcp_info info = { 0 };
	struct sockaddr_storage ss;
	socklen_t length;

	own.port = 0;
	length = endpoint_to_sockaddr(&own, &ss);
	assert_int_equal(bind(fd, (const struct sockaddr *)&ss, length), 0);
	length = endpoint_to_sockaddr(to, &ss);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)), 0);
	r = connect(fd, (const struct sockaddr *)&ss, length);
	assert_true(!r || errno == EINPROGRESS);
	/* On the loopback the handshake is over when connect returns. */
	length = sizeof(info);
	assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length), 0);
	close(fd);
	return info.tcpi_state == TCP_ESTABLISHED;
}

/* Only packets with the mark, to any address, in both families. */
static void delivers_what_is_marked(void **state)
{
	static const char *const peers[] = { "192.0.2.1:6443", "[2001:db8::1]:6443" };
	struct err e = { "" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(peers); i++) {
		const struct klb_endpoint at = endpoint(peers[i]);
		int fd = listen_as(&at);

		assert_false(is_answered(&at, 0x1000));
		assert_int_equal(local_delivery_add(&plain, &e), 0);
		assert_true(is_answered(&at, 0x1000));
		/* A firewall may add its bits on the way. */
		assert_true(is_answered(&at, 0xffffd000));
		assert_false(is_answered(&at, 0));
		assert_false(is_answered(&at, 0x1100));
		assert_false(is_answered(&at, 0x3000));
		assert_int_equal(local_delivery_remove(&e), 4);
		assert_false(is_answered(&at, 0x1000));
		close(fd);
	}
}

static void one_family_alone(void **state)
{
	struct local_delivery d = plain;

	(void)state;
	d.ipv6 = false;
	assert_int_equal(local_delivery_add(&d, NULL), 0);
	assert_int_equal(local_delivery_remove(NULL), 2);
	d.ipv6 = true;
	d.ipv4 = false;
	assert_int_equal(local_delivery_add(&d, NULL), 0);
	assert_int_equal(local_delivery_remove(NULL), 2);
	assert_int_equal(local_delivery_remove(NULL), 0);
}

/* As they are on real hosts: Cilium, AWS, Tailscale, wg-quick, Calico. */
static void others_stay_as_they_are(void **state)
{
	struct local_delivery moved = plain;
	char before[16384];

	(void)state;
	run("ip rule add fwmark 0x200/0xf00 lookup 2004 priority 9;"
	    "ip rule add fwmark 0xe00/0xf00 lookup 200 priority 1;"
	    "ip rule add fwmark 0x80/0x80 lookup main priority 1024;"
	    "ip rule add fwmark 0x80000/0xff0000 lookup main priority 5210;"
	    "ip rule add not fwmark 0xca6c lookup 51820 priority 32764;"
	    "ip rule add from 192.0.2.2 lookup 7 priority 75;"
	    "ip -6 rule add not fwmark 0xca6c lookup 51820 priority 32764;"
	    "ip route add local default dev lo table 2004;"
	    "ip route add 198.51.100.0/24 dev far table 6442");
	snprintf(before, sizeof(before), "%s", everything());
	assert_int_equal(local_delivery_check(&plain, NULL), 0);
	assert_string_equal(everything(), before);
	assert_int_equal(local_delivery_add(&plain, NULL), 0);
	/* Twice is once. */
	assert_int_equal(local_delivery_add(&plain, NULL), 0);
	assert_int_equal(local_delivery_remove(NULL), 4);
	assert_string_equal(everything(), before);
	/* What a killed process has left, with other numbers, goes too. */
	moved.mark = 0x2000;
	moved.table = 6441;
	assert_int_equal(local_delivery_add(&moved, NULL), 0);
	assert_int_equal(local_delivery_add(&plain, NULL), 0);
	assert_int_equal(local_delivery_remove(NULL), 8);
	assert_string_equal(everything(), before);
	run("ip rule flush; ip rule add lookup main priority 32766;"
	    "ip rule add lookup default priority 32767; ip -6 rule del priority 32764;"
	    "ip route flush table 2004; ip route flush table 6442");
}

/* Adding is refused, says why, and changes nothing. */
static void check_taken(const char *theirs, const char *undo, const char *says)
{
	char before[16384];
	struct err e = { "" };

	run(theirs);
	snprintf(before, sizeof(before), "%s", everything());
	assert_int_equal(local_delivery_check(&plain, &e), -EEXIST);
	assert_says(e.text, says);
	assert_int_equal(local_delivery_add(&plain, &e), -EEXIST);
	assert_string_equal(everything(), before);
	run(undo);
	assert_int_equal(local_delivery_check(&plain, &e), 0);
}

static void taken(void **state)
{
	(void)state;
	check_taken("ip rule add fwmark 0x1000 lookup 99", "ip rule del lookup 99", "relay.mark");
	/* A bit of ours. */
	check_taken("ip rule add fwmark 0x1000/0x1000 lookup 99", "ip rule del lookup 99",
		    "fwmark 0x1000/0x1000");
	/* Theirs would be delivered by ours. */
	check_taken("ip -6 rule add fwmark 0x51000 lookup 99", "ip -6 rule del lookup 99",
		    "ip -6 rule");
	check_taken("ip rule add from 192.0.2.9 lookup 6443", "ip rule del lookup 6443",
		    "relay.table");
	check_taken("ip route add 198.51.100.0/24 dev far table 6443", "ip route flush table 6443",
		    "ip route show table all");
	check_taken("ip -6 route add 2001:db8:1::/64 dev far table 6443",
		    "ip -6 route flush table 6443", "ip -6 route");
}

/* What was added in one family goes when the other one cannot have it. */
static void all_or_nothing(void **state)
{
	char before[16384];
	struct err e = { "" };

	(void)state;
	snprintf(before, sizeof(before), "%s", everything());
	run("ip link set lo down");
	assert_true(local_delivery_add(&plain, &e) < 0);
	assert_says(e.text, "cannot add a rule and a route");
	run("ip link set lo up");
	assert_string_equal(everything(), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		LEAVES_NOTHING(delivers_what_is_marked), LEAVES_NOTHING(one_family_alone),
		LEAVES_NOTHING(others_stay_as_they_are), LEAVES_NOTHING(taken),
		LEAVES_NOTHING(all_or_nothing),
	};

	return cmocka_run_group_tests(tests, own_network, NULL);
}
