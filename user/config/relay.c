/* SPDX-License-Identifier: BSD-2-Clause */
/* The relay's settings: its defaults, its firewall mark and its routing table. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <linux/rtnetlink.h>

#include "config/internal.h"

/*
 * No bit that others set or look at: see docs/decisions.md. The mask leaves out 0xffffc000, which
 * firewalls add to the marks of packets on their way.
 */
#define MARK_DEFAULT 0x1000
#define MASK_DEFAULT 0x3fff
/* The apiserver's port: who finds it in `ip rule` sees whose it is. */
#define TABLE_DEFAULT 6443
/* At 40 KiB each they fit into the 128 MiB that the shipped manifests allow. */
#define CONNECTIONS_DEFAULT 2048
#define DRAIN_DEFAULT_MS 10000
/*
 * A node's kubelet, proxy and agents hold some ten connections. An address that stands for many
 * nodes (NAT) needs more.
 */
#define PER_SOURCE_DEFAULT 100

void config_relay_defaults(struct config_relay *r)
{
	*r = (struct config_relay){ .drain_ms = DRAIN_DEFAULT_MS,
				    .connections = CONNECTIONS_DEFAULT,
				    .per_source = PER_SOURCE_DEFAULT,
				    .rescue = true,
				    .detour = true,
				    .mark = MARK_DEFAULT,
				    .mask = MASK_DEFAULT,
				    .table = TABLE_DEFAULT };
}

/* Digits, or 0x and hexadecimal digits, up to end. */
static bool parse_number(const char *text, const char *end, __u32 *ret)
{
	bool hex = text[0] == '0' && text[1] == 'x';
	const char *digits = hex ? text + 2 : text;
	size_t n = strspn(digits, hex ? "0123456789abcdefABCDEF" : "0123456789");
	unsigned long value;

	/* Neither a sign nor a space, which strtoul takes, nor 010. */
	if (!n || digits + n != end || (!hex && n > 1 && digits[0] == '0'))
		return false;
	errno = 0;
	value = strtoul(digits, NULL, hex ? 16 : 10);
	if (errno || value > UINT32_MAX)
		return false;
	*ret = (__u32)value;
	return true;
}

/* MARK or MARK/MASK. Without a mask it is the default one, if that has the mark's bits. */
static bool parse_mark(const char *text, __u32 *ret_mark, __u32 *ret_mask)
{
	const char *slash = strchr(text, '/'), *end = slash ? slash : text + strlen(text);

	if (!parse_number(text, end, ret_mark))
		return false;
	if (slash)
		return parse_number(slash + 1, slash + strlen(slash), ret_mask);
	*ret_mask = *ret_mark & ~(__u32)MASK_DEFAULT ? UINT32_MAX : MASK_DEFAULT;
	return true;
}

int config_read_mark(struct config_build *b, const struct config_node *at,
		     const struct config_key *key, void *base)
{
	struct config_relay *relay = base;
	__u32 mark, mask;
	const char *text;
	int r = config_read_text(b, at, "a firewall mark such as 0x1000/0x3fff", &text);

	(void)key;
	if (r < 0)
		return r;
	if (!parse_mark(text, &mark, &mask))
		return config_fail(b, &at->where,
				   "'%.64s' is not a firewall mark; write one such as 0x1000, or "
				   "with a mask, 0x1000/0x3fff",
				   text);
	if (!mark || mark & ~mask)
		return config_fail(b, &at->where,
				   "'%.64s' matches no socket or every one; write a mark that is "
				   "not 0 and whose bits are in the mask",
				   text);
	relay->mark = mark;
	relay->mask = mask;
	return 0;
}

/* The three tables that every host has are not to be filled. */
static bool is_reserved(unsigned int table)
{
	return table == RT_TABLE_DEFAULT || table == RT_TABLE_MAIN || table == RT_TABLE_LOCAL;
}

int config_read_table(struct config_build *b, const struct config_node *at,
		      const struct config_key *key, void *base)
{
	const struct config_key number = { .name = key->name, .min = 1, .max = UINT32_MAX };
	unsigned int table;
	int r = config_read_uint(b, at, &number, &table);

	if (r < 0)
		return r;
	if (is_reserved(table))
		return config_fail(b, &at->where,
				   "%u is a table of the host's own (default, main or local); "
				   "write another number",
				   table);
	((struct config_relay *)base)->table = table;
	return 0;
}
