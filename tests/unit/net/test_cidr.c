/* SPDX-License-Identifier: BSD-2-Clause */
/* Networks as text, and what lies in them. */
#include <errno.h>
#include <string.h>

#include "net/cidr.h"
#include "unit.h"

static struct cidr parse(const char *text)
{
	struct cidr c;
	struct err e = { "" };

	if (cidr_parse(text, &c, &e))
		fail_msg("%s", e.text);
	return c;
}

static void prints_what_it_reads(void **state)
{
	static const struct {
		const char *text, *printed;
	} table[] = {
		{ "10.0.0.0/8", "10.0.0.0/8" },
		{ "0.0.0.0/0", "0.0.0.0/0" },
		{ "192.168.17.12", "192.168.17.12/32" },
		{ "10.0.0.4/30", "10.0.0.4/30" },
		{ "fd00::/8", "fd00::/8" },
		{ "::/0", "::/0" },
		{ "fd00::1", "fd00::1/128" },
		{ "FD00:0::/9", "fd00::/9" },
	};
	char buf[CIDR_TEXT_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct cidr c = parse(table[i].text);

		assert_string_equal(cidr_format(&c, buf), table[i].printed);
	}
}

static void refuses(void **state)
{
	static const struct {
		const char *text, *says;
	} table[] = {
		{ "10.0.0.1/8", "write 10.0.0.0/8" },
		{ "fd00::1/64", "write fd00::/64" },
		{ "10.0.0.0/33", "'33' is no number of bits; write 0..32" },
		{ "fd00::/129", "write 0..128" },
		{ "10.0.0.0/", "is no number of bits" },
		{ "10.0.0.0/08", "is no number of bits" },
		{ "10.0.0.0/+8", "is no number of bits" },
		{ "10.0.0.0/8/8", "is no number of bits" },
		{ "10.0.0.0:6443/8", "is no network; write a.b.c.d/n" },
		{ "::ffff:10.0.0.0/104", "is no network; write a.b.c.d/n" },
		{ "[fd00::]/8", "is no network" },
		{ "pods/8", "is a name" },
		{ "/8", "the address is empty" },
		{ "", "the address is empty" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct cidr c = parse("10.0.0.0/8"), before = c;
		struct err e = { "" };

		assert_int_equal(cidr_parse(table[i].text, &c, &e), -EINVAL);
		assert_says(e.text, table[i].says);
		assert_memory_equal(&c, &before, sizeof(c));
	}
}

static void contains(void **state)
{
	static const struct {
		const char *network, *address;
		int in;
	} table[] = {
		{ "10.0.0.4/30", "10.0.0.4", 1 }, { "10.0.0.4/30", "10.0.0.7", 1 },
		{ "10.0.0.4/30", "10.0.0.3", 0 }, { "10.0.0.4/30", "10.0.0.8", 0 },
		{ "0.0.0.0/0", "255.1.2.3", 1 },  { "0.0.0.0/0", "[fd00::1]", 0 },
		{ "10.0.0.1/32", "10.0.0.1", 1 }, { "10.0.0.1/32", "10.0.0.0", 0 },
		{ "fd00::/9", "[fd7f::1]", 1 },	  { "fd00::/9", "[fd80::1]", 0 },
		{ "::/0", "10.0.0.1", 1 },	  { "fd00::1/128", "[fd00::2]", 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct cidr c = parse(table[i].network);
		struct klb_endpoint ep = endpoint(table[i].address);

		assert_int_equal(cidr_contains(&c, ep.addr), table[i].in);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(prints_what_it_reads),
		cmocka_unit_test(refuses),
		cmocka_unit_test(contains),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
