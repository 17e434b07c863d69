/* SPDX-License-Identifier: BSD-2-Clause */
/* The rule and the route, in both families. */
#include "net/local_delivery.h"

#include <errno.h>
#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/rtnetlink.h"

/* The loopback device is the first of each namespace (LOOPBACK_IFINDEX, include/net/flow.h). */
#define LOOPBACK_INDEX 1

static const int families[] = { AF_INET, AF_INET6 };
#define N_FAMILIES (sizeof(families) / sizeof(families[0]))

static bool wants(const struct local_delivery *d, int family)
{
	return family == AF_INET ? d->ipv4 : d->ipv6;
}

/* --- what is there ---------------------------------------------------------------------- */

/* A rule or a route of a dump. */
struct found {
	int family;
	__u32 priority, mark, mask, table, protocol;
	bool inverted; /* "not from all fwmark ..." */
	bool is_rule;
};

struct search {
	const struct local_delivery *d; /* looked for in others' rules and routes */
	struct found other; /* the first one that is in the way */
	struct found ours[16];
	unsigned int n_ours;
	bool taken;
};

static void ask_rules(struct rtnetlink_request *q, int family)
{
	const struct fib_rule_hdr rule = { .family = (__u8)family };

	rtnetlink_begin(q, RTM_GETRULE, NLM_F_DUMP, &rule, sizeof(rule));
}

/* table and protocol: 0 for every one. */
static void ask_routes(struct rtnetlink_request *q, int family, __u32 table, __u8 protocol)
{
	const struct rtmsg route = { .rtm_family = (__u8)family, .rtm_protocol = protocol };

	rtnetlink_begin(q, RTM_GETROUTE, NLM_F_DUMP, &route, sizeof(route));
	if (table)
		rtnetlink_add_u32(q, RTA_TABLE, table);
}

static bool read_rule(const void *fixed, size_t length, struct found *ret)
{
	const struct fib_rule_hdr *rule = fixed;

	if (length < sizeof(*rule))
		return false;
	*ret = (struct found){ .family = rule->family,
			       .inverted = rule->flags & FIB_RULE_INVERT,
			       .is_rule = true };
	ret->priority = rtnetlink_u32(rule, sizeof(*rule), length, FRA_PRIORITY, 0);
	ret->mark = rtnetlink_u32(rule, sizeof(*rule), length, FRA_FWMARK, 0);
	ret->mask = rtnetlink_u32(rule, sizeof(*rule), length, FRA_FWMASK, 0);
	ret->table = rtnetlink_u32(rule, sizeof(*rule), length, FRA_TABLE, rule->table);
	ret->protocol = rtnetlink_u32(rule, sizeof(*rule), length, FRA_PROTOCOL, 0);
	return true;
}

static bool read_route(const void *fixed, size_t length, struct found *ret)
{
	const struct rtmsg *route = fixed;

	if (length < sizeof(*route))
		return false;
	*ret = (struct found){ .family = route->rtm_family, .protocol = route->rtm_protocol };
	ret->table = rtnetlink_u32(route, sizeof(*route), length, RTA_TABLE, route->rtm_table);
	return true;
}

static bool is_ours(const struct found *f)
{
	return f->protocol == LOCAL_DELIVERY_OWNER &&
	       (!f->is_rule || f->priority == LOCAL_DELIVERY_OWNER);
}

/*
 * Whether packets with d's mark are also that rule's, or the other way round. A rule without a
 * mark, or for all but one mark, is for everything that no earlier rule has taken.
 */
static bool shares_mark(const struct found *f, const struct local_delivery *d)
{
	if (!f->is_rule || !f->mark || f->inverted)
		return false;
	return (d->mark & f->mask) == f->mark || (f->mark & d->mask) == d->mark;
}

static int take(__u16 type, const void *fixed, size_t length, void *arg)
{
	struct search *s = arg;
	struct found f = { 0 };
	bool is_rule = type == RTM_NEWRULE;

	if (!is_rule && type != RTM_NEWROUTE)
		return 0;
	if (!(is_rule ? read_rule : read_route)(fixed, length, &f))
		return 0;
	if (is_ours(&f)) {
		if (s->n_ours < sizeof(s->ours) / sizeof(s->ours[0]))
			s->ours[s->n_ours++] = f;
	} else if (s->d && !s->taken && (f.table == s->d->table || shares_mark(&f, s->d))) {
		s->other = f;
		s->taken = true;
	}
	return 0;
}

/* The errno of a family, or of a table, that is not there. */
static bool is_absent(int r)
{
	return r == -ENOENT || r == -EAFNOSUPPORT || r == -EOPNOTSUPP;
}

/* --- one of the two ---------------------------------------------------------------------- */

static void make_rule(struct rtnetlink_request *q, __u16 type, __u16 flags, const struct found *f)
{
	const struct fib_rule_hdr rule = { .family = (__u8)f->family, .action = FR_ACT_TO_TBL };
	const __u8 protocol = LOCAL_DELIVERY_OWNER;

	rtnetlink_begin(q, type, flags, &rule, sizeof(rule));
	rtnetlink_add_u32(q, FRA_PRIORITY, LOCAL_DELIVERY_OWNER);
	rtnetlink_add_u32(q, FRA_FWMARK, f->mark);
	rtnetlink_add_u32(q, FRA_FWMASK, f->mask);
	rtnetlink_add_u32(q, FRA_TABLE, f->table);
	rtnetlink_add(q, FRA_PROTOCOL, &protocol, sizeof(protocol));
}

static void make_route(struct rtnetlink_request *q, __u16 type, __u16 flags, const struct found *f)
{
	const struct rtmsg route = { .rtm_family = (__u8)f->family,
				     .rtm_protocol = LOCAL_DELIVERY_OWNER,
				     .rtm_type = RTN_LOCAL,
				     .rtm_scope = f->family == AF_INET ? RT_SCOPE_HOST
								       : RT_SCOPE_UNIVERSE };

	rtnetlink_begin(q, type, flags, &route, sizeof(route));
	rtnetlink_add_u32(q, RTA_TABLE, f->table);
	rtnetlink_add_u32(q, RTA_OIF, LOOPBACK_INDEX);
}

static int add(int fd, const struct found *f)
{
	struct rtnetlink_request q;
	int r;

	if (f->is_rule)
		make_rule(&q, RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, f);
	else
		make_route(&q, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, f);
	r = rtnetlink_ask(fd, &q, NULL, NULL);
	return r == -EEXIST ? 0 : r;
}

static int del(int fd, const struct found *f)
{
	struct rtnetlink_request q;

	if (f->is_rule)
		make_rule(&q, RTM_DELRULE, 0, f);
	else
		make_route(&q, RTM_DELROUTE, 0, f);
	return rtnetlink_ask(fd, &q, NULL, NULL);
}

/* --- all of it --------------------------------------------------------------------------- */

static int explain_taken(const struct local_delivery *d, const struct found *f, struct err *e)
{
	const char *family = f->family == AF_INET6 ? "-6 " : "";

	if (f->table == d->table)
		return err_set(e, EEXIST,
			       "routing table %u is somebody else's: ip %s%s; set relay.table to "
			       "a free number",
			       d->table, family, f->is_rule ? "rule" : "route show table all");
	return err_set(e, EEXIST,
		       "the mark 0x%x/0x%x is also that of the rule with priority %u, fwmark "
		       "0x%x/0x%x (`ip %srule`); set relay.mark to a free one",
		       d->mark, d->mask, f->priority, f->mark, f->mask, family);
}

/* -ENOENT: nothing is in the table. */
static int look_for_others(int fd, int family, const struct local_delivery *d, struct err *e)
{
	struct search s = { .d = d };
	struct rtnetlink_request q;
	int r;

	ask_rules(&q, family);
	r = rtnetlink_ask(fd, &q, take, &s);
	if (is_absent(r))
		return err_set(e, EOPNOTSUPP,
			       "this kernel has no policy routing for %s "
			       "(CONFIG_IP_MULTIPLE_TABLES, CONFIG_IPV6_MULTIPLE_TABLES)",
			       family == AF_INET ? "IPv4" : "IPv6");
	if (!r) {
		ask_routes(&q, family, d->table, 0);
		r = rtnetlink_ask(fd, &q, take, &s);
	}
	if (r && !is_absent(r))
		return err_set(e, -r, "cannot look at the host's rules and routes: %s",
			       strerror(-r));
	return s.taken ? explain_taken(d, &s.other, e) : 0;
}

static int check_with(int fd, const struct local_delivery *d, struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < N_FAMILIES && !r; i++)
		if (wants(d, families[i]))
			r = look_for_others(fd, families[i], d, e);
	return r;
}

/* The rule comes last: without the route it would lead nowhere. */
static int add_family(int fd, int family, const struct local_delivery *d)
{
	struct found f = { .family = family, .mark = d->mark, .mask = d->mask, .table = d->table };
	int r = add(fd, &f);

	f.is_rule = true;
	return r ? r : add(fd, &f);
}

/* The rules go first, for the same reason. */
static int remove_family(int fd, int family)
{
	struct search s = { .d = NULL };
	struct rtnetlink_request q;
	int r, removed = 0;

	ask_rules(&q, family);
	r = rtnetlink_ask(fd, &q, take, &s);
	if (r && !is_absent(r))
		return r;
	ask_routes(&q, family, 0, LOCAL_DELIVERY_OWNER);
	r = rtnetlink_ask(fd, &q, take, &s);
	if (r && !is_absent(r))
		return r;
	for (unsigned int i = 0; i < s.n_ours; i++) {
		s.ours[i].family = family;
		r = del(fd, &s.ours[i]);
		/* Somebody else was quicker. */
		if (r && r != -ENOENT && r != -ESRCH)
			return r;
		removed += !r;
	}
	return removed;
}

static int remove_with(int fd, struct err *e)
{
	int removed = 0;

	for (size_t i = 0; i < N_FAMILIES; i++) {
		int r = remove_family(fd, families[i]);

		if (r < 0)
			return err_set(e, -r, "cannot remove the relay's rule and route: %s",
				       strerror(-r));
		removed += r;
	}
	return removed;
}

static int open_socket(struct err *e)
{
	int fd = rtnetlink_open();

	return fd < 0 ? err_set(e, -fd, "cannot open a netlink socket: %s", err_reason(-fd)) : fd;
}

int local_delivery_check(const struct local_delivery *d, struct err *e)
{
	int fd = open_socket(e), r;

	if (fd < 0)
		return fd;
	r = check_with(fd, d, e);
	close(fd);
	return r;
}

int local_delivery_add(const struct local_delivery *d, struct err *e)
{
	int fd = open_socket(e), r;

	if (fd < 0)
		return fd;
	r = check_with(fd, d, e);
	for (size_t i = 0; i < N_FAMILIES && !r; i++) {
		if (!wants(d, families[i]))
			continue;
		r = add_family(fd, families[i], d);
		if (r) {
			r = err_set(e, -r, "cannot add a rule and a route for %s: %s",
				    families[i] == AF_INET ? "IPv4" : "IPv6", strerror(-r));
			remove_with(fd, NULL);
		}
	}
	close(fd);
	return r;
}

int local_delivery_remove(struct err *e)
{
	int fd = open_socket(e), r;

	if (fd < 0)
		return fd;
	r = remove_with(fd, e);
	close(fd);
	return r;
}
