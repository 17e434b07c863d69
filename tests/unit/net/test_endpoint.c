/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "net/endpoint.h"
#include "unit.h"

/* What is typed, and how it is printed again. */
static const struct {
	const char *text;
	unsigned int default_port;
	const char *printed;
	const char *address;
	bool ipv4;
} good[] = {
	{ "10.0.0.1", 6443, "10.0.0.1:6443", "10.0.0.1", true },
	{ "10.0.0.1:443", 6443, "10.0.0.1:443", "10.0.0.1", true },
	{ "10.0.0.1:443", 0, "10.0.0.1:443", "10.0.0.1", true },
	{ "255.255.255.255:65535", 0, "255.255.255.255:65535", "255.255.255.255", true },
	{ "0.0.0.0:1", 0, "0.0.0.0:1", "0.0.0.0", true },
	{ "::ffff:10.0.0.1", 6443, "10.0.0.1:6443", "10.0.0.1", true },
	{ "[::ffff:10.0.0.1]:443", 0, "10.0.0.1:443", "10.0.0.1", true },
	{ "[::ffff:a00:1]:443", 0, "10.0.0.1:443", "10.0.0.1", true },
	{ "::1", 6443, "[::1]:6443", "::1", false },
	{ "[::1]", 6443, "[::1]:6443", "::1", false },
	{ "[::1]:443", 0, "[::1]:443", "::1", false },
	{ "::", 6443, "[::]:6443", "::", false },
	{ "fd00:0:0::0001", 6443, "[fd00::1]:6443", "fd00::1", false },
	{ "[FD00::ABCD]:6443", 0, "[fd00::abcd]:6443", "fd00::abcd", false },
	{ "[2001:db8:1111:2222:3333:4444:5555:6666]:65535", 0,
	  "[2001:db8:1111:2222:3333:4444:5555:6666]:65535",
	  "2001:db8:1111:2222:3333:4444:5555:6666", false },
	/* A bare IPv6 address takes every colon: this is no port. */
	{ "fd00::1:443", 6443, "[fd00::1:443]:6443", "fd00::1:443", false },
};

/* What is typed, and a word of the complaint. */
static const struct {
	const char *text;
	unsigned int default_port;
	const char *complaint;
} bad[] = {
	{ "", 6443, "empty" },
	{ "localhost", 6443, "name" },
	{ "api.example.com:6443", 6443, "name" },
	{ "node-1", 6443, "name" },
	{ "https://10.0.0.1", 6443, "URL" },
	{ "https://[::1]:6443", 6443, "URL" },
	{ "10.0.0.1", 0, "no port" },
	{ "::1", 0, "[::1]:PORT" },
	{ "[::1]", 0, "[::1]:PORT" },
	{ "10.0.0", 6443, "IPv4" },
	{ "10.0.0.1.2", 6443, "IPv4" },
	{ "10.0.0.256", 6443, "IPv4" },
	{ "010.0.0.1", 6443, "IPv4" },
	{ "10.0.0.1/24", 6443, "IPv4" },
	{ " 10.0.0.1", 6443, "IPv4" },
	{ "10.0.0.1 ", 6443, "IPv4" },
	{ ":6443", 6443, "IPv4" },
	{ ":", 6443, "IPv4" },
	{ "10.0.0.1:", 6443, "port" },
	{ "10.0.0.1:0", 6443, "port '0'" },
	{ "10.0.0.1:65536", 6443, "port '65536'" },
	{ "10.0.0.1:4294967297", 6443, "port" },
	{ "10.0.0.1:+1", 6443, "port" },
	{ "10.0.0.1:-1", 6443, "port" },
	{ "10.0.0.1: 1", 6443, "port" },
	{ "10.0.0.1:01", 6443, "port" },
	{ "10.0.0.1:6443x", 6443, "port" },
	{ "10.0.0.1:https", 6443, "port" },
	{ "[::1]:0", 6443, "port" },
	{ "[::1]:", 6443, "port" },
	{ "[::1", 6443, "bracket" },
	{ "[::1]6443", 6443, "bracket" },
	{ "[::1]]:6443", 6443, "bracket" },
	{ "[]:6443", 6443, "IPv6" },
	{ "[10.0.0.1]:6443", 6443, "IPv6" },
	{ "[[::1]]:6443", 6443, "bracket" },
	{ "::1]:6443", 6443, "IPv6" },
	{ ":::1", 6443, "IPv6" },
	{ "1:2:3:4:5:6:7:8:9", 6443, "IPv6" },
	{ "fd00::g", 6443, "IPv6" },
	{ "fe80::1%eth0", 6443, "zone" },
	{ "[fe80::1%2]:6443", 6443, "zone" },
	{ "2001:db8:1111:2222:3333:4444:5555:6666:7777:8888:9999", 6443, "IPv6" },
};

static void parse_prints_the_same(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		struct klb_endpoint ep, again;
		char buf[ENDPOINT_TEXT_MAX];
		struct err e;

		if (endpoint_parse(good[i].text, good[i].default_port, &ep, &e))
			fail_msg("%s", e.text);
		assert_ptr_equal(endpoint_format(&ep, buf), buf);
		assert_string_equal(buf, good[i].printed);
		assert_int_equal(endpoint_parse(buf, 0, &again, &e), 0);
		assert_memory_equal(&ep, &again, sizeof(ep));
		assert_string_equal(endpoint_format_address(&ep, buf), good[i].address);
		assert_int_equal(endpoint_is_ipv4(&ep), good[i].ipv4);
	}
}

static void parse_refuses(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct klb_endpoint ep, before;
		struct err e = { "" };

		memset(&ep, 0xa5, sizeof(ep));
		before = ep;
		if (endpoint_parse(bad[i].text, bad[i].default_port, &ep, &e) != -EINVAL)
			fail_msg("'%s' was accepted", bad[i].text);
		if (!strstr(e.text, bad[i].complaint))
			fail_msg("'%s': no '%s' in: %s", bad[i].text, bad[i].complaint, e.text);
		assert_memory_equal(&ep, &before, sizeof(ep));
		assert_int_equal(endpoint_parse(bad[i].text, bad[i].default_port, &ep, NULL),
				 -EINVAL);
	}
}

static struct klb_endpoint parse(const char *text)
{
	struct klb_endpoint ep = { .port = 0 };

	assert_int_equal(endpoint_parse(text, 6443, &ep, NULL), 0);
	return ep;
}

static void mapped_ipv4_is_ipv4(void **state)
{
	struct klb_endpoint a = parse("10.0.0.1"), b = parse("[::ffff:10.0.0.1]:6443");
	struct klb_endpoint port = parse("10.0.0.1:443"), compatible = parse("::10.0.0.1");

	(void)state;
	assert_true(endpoint_equal(&a, &b));
	assert_false(endpoint_equal(&a, &port));
	assert_false(endpoint_equal(&a, &compatible));
	assert_false(endpoint_is_ipv4(&compatible));
}

/* Which of the kinds an address is; at most one. */
static void kinds(void **state)
{
	static const struct {
		const char *text;
		char kind; /* unspecified, multicast, link-local IPv6, documentation, or none */
	} table[] = {
		{ "0.0.0.0", 'u' },
		{ "::", 'u' },
		{ "::ffff:0.0.0.0", 'u' },
		{ "0.0.0.1", '-' },
		{ "::1", '-' },
		{ "127.0.0.1", '-' },
		{ "224.0.0.0", 'm' },
		{ "239.255.255.255", 'm' },
		{ "240.0.0.0", '-' },
		{ "223.255.255.255", '-' },
		{ "255.255.255.255", 'm' },
		{ "255.255.255.254", '-' },
		{ "ff00::", 'm' },
		{ "ff02::1", 'm' },
		{ "fe80::1", 'l' },
		{ "febf::1", 'l' },
		{ "fec0::1", '-' },
		{ "fe7f::1", '-' },
		{ "169.254.1.1", '-' },
		{ "fd00::1", '-' },
		{ "192.0.2.0", 'd' },
		{ "192.0.2.255", 'd' },
		{ "192.0.1.255", '-' },
		{ "192.0.3.0", '-' },
		{ "198.51.100.7", 'd' },
		{ "198.51.101.7", '-' },
		{ "203.0.113.7", 'd' },
		{ "203.0.112.7", '-' },
		{ "2001:db8::", 'd' },
		{ "2001:db8:ffff::1", 'd' },
		{ "2001:db7:ffff::1", '-' },
		{ "2001:db9::", '-' },
		{ "3fff::", 'd' },
		{ "3fff:fff:ffff::1", 'd' },
		{ "3fff:1000::", '-' },
		{ "3ffe:ffff::", '-' },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct klb_endpoint ep = parse(table[i].text);

		assert_int_equal(endpoint_is_unspecified(&ep), table[i].kind == 'u');
		assert_int_equal(endpoint_is_multicast(&ep), table[i].kind == 'm');
		assert_int_equal(endpoint_is_link_local_v6(&ep), table[i].kind == 'l');
		assert_int_equal(endpoint_is_documentation(&ep), table[i].kind == 'd');
	}
}

static void sockaddr_round_trip(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		struct klb_endpoint ep, again;
		struct sockaddr_storage ss;
		socklen_t length;

		assert_int_equal(endpoint_parse(good[i].text, 6443, &ep, NULL), 0);
		memset(&ss, 0xa5, sizeof(ss));
		length = endpoint_to_sockaddr(&ep, &ss);
		assert_int_equal(ss.ss_family, good[i].ipv4 ? AF_INET : AF_INET6);
		assert_int_equal(length, good[i].ipv4 ? sizeof(struct sockaddr_in)
						      : sizeof(struct sockaddr_in6));
		assert_int_equal(endpoint_from_sockaddr((struct sockaddr *)&ss, &again), 0);
		assert_memory_equal(&ep, &again, sizeof(ep));
	}
}

static void sockaddr_byte_order(void **state)
{
	struct klb_endpoint v4 = parse("10.0.0.1:6443"), v6 = parse("[fd00::1]:6443");
	struct sockaddr_storage ss;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;

	(void)state;
	endpoint_to_sockaddr(&v4, &ss);
	memcpy(&in, &ss, sizeof(in));
	assert_int_equal(ntohs(in.sin_port), 6443);
	assert_int_equal(ntohl(in.sin_addr.s_addr), 0x0a000001);
	endpoint_to_sockaddr(&v6, &ss);
	memcpy(&in6, &ss, sizeof(in6));
	assert_int_equal(ntohs(in6.sin6_port), 6443);
	assert_int_equal(in6.sin6_addr.s6_addr[0], 0xfd);
	assert_int_equal(in6.sin6_scope_id, 0);
	assert_int_equal(in6.sin6_flowinfo, 0);
}

static void sockaddr_mapped_is_ipv4(void **state)
{
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons(6443) };
	struct klb_endpoint ep, want = parse("10.0.0.1:6443");
	const unsigned char mapped[16] = { [10] = 0xff, [11] = 0xff, 10, 0, 0, 1 };

	(void)state;
	memcpy(&in6.sin6_addr, mapped, sizeof(mapped));
	assert_int_equal(endpoint_from_sockaddr((struct sockaddr *)&in6, &ep), 0);
	assert_true(endpoint_equal(&ep, &want));
}

static void sockaddr_of_another_family(void **state)
{
	struct sockaddr_storage ss = { .ss_family = AF_UNIX };
	struct klb_endpoint ep = parse("10.0.0.1"), before = ep;

	(void)state;
	assert_int_equal(endpoint_from_sockaddr((struct sockaddr *)&ss, &ep), -EAFNOSUPPORT);
	assert_memory_equal(&ep, &before, sizeof(ep));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parse_prints_the_same),
		cmocka_unit_test(parse_refuses),
		cmocka_unit_test(mapped_ipv4_is_ipv4),
		cmocka_unit_test(kinds),
		cmocka_unit_test(sockaddr_round_trip),
		cmocka_unit_test(sockaddr_byte_order),
		cmocka_unit_test(sockaddr_mapped_is_ipv4),
		cmocka_unit_test(sockaddr_of_another_family),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
