/* SPDX-License-Identifier: BSD-2-Clause */
/* Asks and changes the host's rules and routes by netlink (rtnetlink(7)). */
#ifndef KUBELB_RTNETLINK_H
#define KUBELB_RTNETLINK_H

#include <stddef.h>

#include <linux/netlink.h>
#include <linux/types.h>

#include "base/err.h"

#define RTNETLINK_BODY_MAX 256

/* A request in the making. */
struct rtnetlink_request {
	struct nlmsghdr header;
	char body[RTNETLINK_BODY_MAX];
};

/* Begins one: type is RTM_..., flags are NLM_F_..., fixed is the structure that type begins with.
 */
void rtnetlink_begin(struct rtnetlink_request *q, __u16 type, __u16 flags, const void *fixed,
		     size_t size);
/* Adds an attribute. What a request of this program needs fits. */
void rtnetlink_add(struct rtnetlink_request *q, __u16 type, const void *data, size_t length);
void rtnetlink_add_u32(struct rtnetlink_request *q, __u16 type, __u32 value);

/*
 * Returns a socket in this network namespace, which only the kernel answers, for the caller to
 * close; or a negative errno. Dumps on it are filtered by the request's own fields.
 */
int rtnetlink_open(void);

/* One message of a dump: fixed structure and attributes. Returns 0 to go on, or a negative errno.
 */
typedef int (*rtnetlink_fn)(__u16 type, const void *fixed, size_t length, void *arg);

/*
 * Sends q and takes the answer to its end: of a dump (NLM_F_DUMP), or the acknowledgement, which
 * the call asks for. take: NULL when nobody wants the messages. Returns 0, the kernel's negative
 * errno, or what take returned. Not for the event loop: the kernel makes changes one at a time, and
 * somebody else's may take long.
 */
int rtnetlink_ask(int fd, struct rtnetlink_request *q, rtnetlink_fn take, void *arg);

/*
 * The value of an attribute of a u32 (a u8 is widened) behind a fixed structure of so many bytes;
 * otherwise `missing`.
 */
__u32 rtnetlink_u32(const void *fixed, size_t size, size_t length, __u16 type, __u32 missing);

#endif
