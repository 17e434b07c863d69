/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Policy routing that delivers marked packets locally, wherever they are addressed to:
 *
 *   ip rule add fwmark MARK/MASK lookup TABLE priority 75 protocol 75
 *   ip route add local default dev lo table TABLE protocol 75
 *
 * A socket that listens on the packets' destination (IP_TRANSPARENT) answers them. Priority and
 * protocol say whose the two are. Nothing else is ever changed: rules, routes, marks and tables of
 * others stay as they are, and where they use the same, nothing is added.
 *
 * Not for the event loop (rtnetlink.h). Takes CAP_NET_ADMIN.
 */
#ifndef KUBELB_LOCAL_DELIVERY_H
#define KUBELB_LOCAL_DELIVERY_H

#include <stdbool.h>

#include <linux/types.h>

#include "base/err.h"

/*
 * 'K'. No routing daemon has the number (RTPROT_..., include/uapi/linux/rtnetlink.h). As a priority
 * it comes before the rules that others make for all packets of the host: Calico's 99, Cilium's
 * 100 to 111, AWS CNI's from 512 on, Tailscale's from 5210 on, wg-quick's just before 32766.
 */
#define LOCAL_DELIVERY_OWNER 75

struct local_delivery {
	__u32 mark, mask; /* not 0 */
	__u32 table;
	bool ipv4, ipv6; /* for these packets */
};

/*
 * Whether it could be added, without a change. -EEXIST: somebody else uses the mark or the table;
 * -EOPNOTSUPP: the kernel has no policy routing. e says what to change.
 */
int local_delivery_check(const struct local_delivery *d, struct err *e);

/*
 * Adds what of it is not there, after the same check. Returns 0 or a negative errno with e. What
 * was added before the failure is removed.
 */
int local_delivery_add(const struct local_delivery *d, struct err *e);

/*
 * Removes all that has LOCAL_DELIVERY_OWNER, whatever its mark and table, of a process that was
 * killed, too. Returns how many rules and routes that were, or a negative errno with e. May be
 * called anywhere.
 */
int local_delivery_remove(struct err *e);

#endif
